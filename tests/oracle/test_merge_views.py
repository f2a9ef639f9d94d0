"""An adapter of split projections merged into a fused base, and the other way round: what PEFT merges into the model it was
trained on, row for row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM, Phi3Config, Phi3ForCausalLM

from registry.connect import connect
from registry.errors import UnmergeableError

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
SIZES: dict[str, Any] = {
    "vocab_size": 48,
    "hidden_size": 32,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "tie_word_embeddings": False,
}
SPLIT = {"qkv_proj": ("q_proj", "k_proj", "v_proj"), "gate_up_proj": ("gate_proj", "up_proj")}


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def fused(dtype: torch.dtype) -> nn.Module:
    torch.manual_seed(0)
    return Phi3ForCausalLM(Phi3Config(**SIZES)).to(dtype)


def split(dtype: torch.dtype) -> nn.Module:
    """The same weights as a Llama, as the re-split mirrors of Phi-3 are."""
    model = LlamaForCausalLM(LlamaConfig(**SIZES)).to(dtype)
    model.load_state_dict(apart(fused(dtype).state_dict()))
    return model


def apart(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    found = {}
    for name, tensor in tensors.items():
        module = name.split(".")[-2]
        if module in SPLIT:
            sizes = (32, 16, 16) if module == "qkv_proj" else (40, 40)
            for part, rows in zip(SPLIT[module], tensor.split(sizes), strict=True):
                found[name.replace(module, part)] = rows
        else:
            found[name] = tensor
    return found


def trained(model: nn.Module, targets: list[str], into: Path, **options: Any) -> Path:
    adapted = get_peft_model(
        model, LoraConfig(r=3, lora_alpha=7, target_modules=targets, task_type="CAUSAL_LM", **options)
    )
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter += 0.1 * torch.randn_like(parameter)
    adapted.save_pretrained(str(into))
    return into


@pytest.mark.parametrize("options", [{}, {"use_rslora": True, "rank_pattern": {"o_proj": 5}}, {"use_dora": True}])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("way", ["split adapter, fused base", "fused adapter, split base"])
def test_rows_under_another_name(way: str, dtype: torch.dtype, options: dict[str, Any], tmp_path: Path) -> None:
    theirs, ours = (split, fused) if way.startswith("split") else (fused, split)
    names = [*SPLIT] if theirs is fused else [part for parts in SPLIT.values() for part in parts]
    adapter = trained(theirs(dtype), [*names, "o_proj"], tmp_path / "adapter", **options)
    ours(dtype).save_pretrained(tmp_path / "base")  # type: ignore[operator]

    connect(tmp_path / "registry").merge(tmp_path / "base", [adapter], tmp_path / "out", device="cpu")

    merged = PeftModel.from_pretrained(theirs(dtype), str(adapter)).merge_and_unload()
    found, wanted = (apart(one) for one in (load_file(tmp_path / "out" / "model.safetensors"), merged.state_dict()))
    assert found.keys() == wanted.keys()
    changed = 0
    for name, tensor in wanted.items():
        if options.get("use_dora"):
            torch.testing.assert_close(found[name], tensor, rtol=2 * torch.finfo(dtype).eps, atol=1e-7)
        else:
            assert torch.equal(found[name], tensor), name
        changed += not torch.equal(tensor, apart(fused(dtype).state_dict())[name])
    assert changed == 2 * (3 + 2 + 1)


def test_a_fused_matrix_of_an_unlisted_model_is_not_taken_apart(tmp_path: Path) -> None:
    adapter = trained(split(torch.float32), ["q_proj"], tmp_path / "adapter")
    fused(torch.float32).save_pretrained(tmp_path / "base")  # type: ignore[operator]
    path = tmp_path / "base" / "config.json"
    path.write_text(path.read_text().replace('"phi3"', '"phi17"'))
    with pytest.raises(UnmergeableError) as caught:
        connect(tmp_path / "registry").merge(tmp_path / "base", [adapter], tmp_path / "out", device="cpu")
    assert "no-match" in {finding.rule for finding in caught.value.findings}
    assert not (tmp_path / "out").exists()
