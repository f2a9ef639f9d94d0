"""PEFT and transformers as their users call them, with ``HF_ENDPOINT`` set: push, and load it back every way there is."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import torch
from peft import AutoPeftModelForCausalLM, LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

TOKENS = torch.tensor([[1, 2, 3, 4, 5]])


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(TOKENS).logits


def base(work: Path) -> str:
    """A tiny model, on this disk."""
    path = work / "base"
    if not path.exists():
        torch.manual_seed(0)
        GPT2LMHeadModel(GPT2Config(n_layer=2, n_head=2, n_embd=32, vocab_size=64, n_positions=32)).save_pretrained(path)
    return str(path)


def adapter(work: Path, seed: int) -> PeftModel:
    model = AutoModelForCausalLM.from_pretrained(base(work))
    torch.manual_seed(seed)
    config = LoraConfig(r=4, target_modules=["c_attn"], task_type="CAUSAL_LM", fan_in_fan_out=True, init_lora_weights=False)
    return get_peft_model(model, config)


def push(work: Path, name: str) -> None:
    expected = {}
    for seed in (1, 2):
        model = adapter(work, seed)
        expected[seed] = logits(model)
        model.push_to_hub(name, private=True)
    torch.save(expected, work / "expected.pt")


def load(work: Path, name: str) -> None:
    """Version 1 is an alias's, version 2 is main."""
    expected = torch.load(work / "expected.pt")

    def fresh() -> torch.nn.Module:
        return AutoModelForCausalLM.from_pretrained(base(work))

    def same(model: torch.nn.Module, seed: int) -> bool:
        return torch.equal(logits(model), expected[seed])

    assert not torch.equal(expected[1], expected[2])
    assert same(PeftModel.from_pretrained(fresh(), name), 2)
    assert same(PeftModel.from_pretrained(fresh(), name, revision="v1"), 1)
    assert same(PeftModel.from_pretrained(fresh(), name, revision="production"), 1)
    assert same(PeftModel.from_pretrained(fresh(), f"{name}.v1"), 1)
    assert same(PeftModel.from_pretrained(fresh(), f"{name}.production"), 1)
    if not os.environ.get("HF_HUB_OFFLINE"):
        assert same(AutoPeftModelForCausalLM.from_pretrained(name, revision="v1"), 1)
    assert same(AutoModelForCausalLM.from_pretrained(f"{name}.production"), 1)
    model = fresh()
    model.load_adapter(name)
    assert same(model, 2)


def subfolder(work: Path, name: str) -> None:
    """One repository with an adapter in a folder: kept, and no version."""
    from huggingface_hub import HfApi

    model = adapter(work, 3)
    model.save_pretrained(work / "third")
    HfApi().upload_folder(repo_id=name, folder_path=str(work / "third"), path_in_repo="sub/third")
    found = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base(work)), name, subfolder="sub/third")
    assert torch.equal(logits(found), logits(model))


if __name__ == "__main__":
    torch.set_num_threads(1)
    steps = {"push": push, "load": load, "subfolder": subfolder}
    steps[sys.argv[1]](Path(sys.argv[2]), sys.argv[3])
    print(json.dumps({"done": sys.argv[1]}))
