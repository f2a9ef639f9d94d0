"""A merge that is taken up again ends in the bytes of one that nobody disturbed, whatever happened to what was finished."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from registry.connect import connect

NAMES = [f"model.layers.{layer}.self_attn.q_proj" for layer in range(3)]


def base_and_adapter(place: Path) -> tuple[Path, Path]:
    base, adapter = place / "base", place / "adapter"
    base.mkdir()
    adapter.mkdir()
    torch.manual_seed(0)
    files = {name: f"model-0000{number}-of-00003.safetensors" for number, name in enumerate(NAMES, 1)}
    factors = {}
    for name, file in files.items():
        save_file({f"{name}.weight": torch.randn(512, 512)}, base / file)
        factors[f"base_model.model.{name}.lora_A.weight"] = torch.randn(2, 512)
        factors[f"base_model.model.{name}.lora_B.weight"] = torch.randn(512, 2)
    index = {"metadata": {}, "weight_map": {f"{name}.weight": file for name, file in files.items()}}
    (base / "model.safetensors.index.json").write_text(json.dumps(index))
    (base / "config.json").write_text(json.dumps({"model_type": "llama", "architectures": ["LlamaForCausalLM"]}))
    save_file(factors, adapter / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 2, "target_modules": ["q_proj"]}
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    return base, adapter


def test_a_finished_file_that_was_cut_short_is_made_again(tmp_path: Path) -> None:
    base, adapter = base_and_adapter(tmp_path)
    registry = connect(tmp_path / "registry")
    registry.merge(base, [adapter], tmp_path / "undisturbed", device="cpu")
    done = 0

    def interrupt(count: int) -> None:
        nonlocal done
        done += count
        if done > 2 * 4 * 512 * 512:  # two of the three files
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        registry.merge(base, [adapter], tmp_path / "out", device="cpu", progress=interrupt)
    finished = sorted((tmp_path / ".out.partial-merge").glob("*.safetensors"))
    assert finished
    os.truncate(finished[0], finished[0].stat().st_size - 100)

    registry.merge(base, [adapter], tmp_path / "out", device="cpu", resume=True)

    assert len([*(tmp_path / "out").glob("*.safetensors")]) == len(NAMES)
    for path in (tmp_path / "out").iterdir():
        assert path.read_bytes() == (tmp_path / "undisturbed" / path.name).read_bytes(), path.name
