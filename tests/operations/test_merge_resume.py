"""A merge that is taken up again ends in the bytes of one that nobody disturbed, whatever happened to what was finished."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from time import sleep

import pytest
import torch
from safetensors.torch import save_file

from registry.connect import connect

#: Of the tensors in each file: one that is changed, and one before it that is copied.
BYTES = 4 * 512 * (512 + 2)
NAMES = [f"model.layers.{layer}.self_attn.q_proj" for layer in range(3)]


def base_and_adapter(place: Path) -> tuple[Path, Path]:
    base, adapter = place / "base", place / "adapter"
    base.mkdir()
    adapter.mkdir()
    torch.manual_seed(0)
    files = {name: f"model-0000{number}-of-00003.safetensors" for number, name in enumerate(NAMES, 1)}
    factors = {}
    for name, file in files.items():
        own, other = torch.randn(512, 512), torch.randn(512, 2)
        tensors = {f"{name}.weight": own, f"{name.replace('q_proj', 'a_proj')}.weight": other}
        save_file(tensors, base / file, metadata={"format": "pt"})
        factors[f"base_model.model.{name}.lora_A.weight"] = torch.randn(2, 512)
        factors[f"base_model.model.{name}.lora_B.weight"] = torch.randn(512, 2)
    places = {f"{name}.weight": file for name, file in files.items()}
    places |= {name.replace("q_proj", "a_proj"): file for name, file in places.items()}
    index = {"metadata": {}, "weight_map": places}
    (base / "model.safetensors.index.json").write_text(json.dumps(index))
    (base / "config.json").write_text(json.dumps({"model_type": "llama", "architectures": ["LlamaForCausalLM"]}))
    save_file(factors, adapter / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 2, "target_modules": ["q_proj"]}
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    return base, adapter


def end(path: Path) -> int:
    return path.stat().st_size


def written(path: Path, at: int, data: bytes) -> None:
    """In place, and as if nobody had been there."""
    status = path.stat()
    with open(path, "r+b") as file:
        file.seek(at)
        file.write(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def flipped(path: Path, at: int) -> None:
    """The least that a byte can change."""
    written(path, at, bytes([path.read_bytes()[at] ^ 1]))


#: What may happen to a finished file.
ACCIDENTS: dict[str, Callable[[Path], None]] = {
    "nothing": lambda path: None,
    "it was cut short": lambda path: os.truncate(path, end(path) - 100),
    "it grew": lambda path: written(path, end(path), b"0"),
    "it was emptied": lambda path: os.truncate(path, 0),
    "a bit of a changed weight fell over": lambda path: flipped(path, end(path) - 4 * 512),
    "a bit of a copied weight fell over": lambda path: flipped(path, end(path) - 4 * 512 * 512 - 4),
    "a bit of the metadata fell over": lambda path: flipped(path, path.read_bytes().index(b"pt")),
    "its last page is zeros": lambda path: written(path, end(path) - 4096, bytes(4096)),
}


def interrupted(place: Path) -> tuple[Path, Path, list[Path]]:
    """Base, adapter, and the files of a merge to ``place / "out"`` that ended after two of the three."""
    base, adapter = base_and_adapter(place)
    registry = connect(place / "registry")
    registry.merge(base, [adapter], place / "undisturbed", device="cpu")
    done = 0

    def interrupt(count: int) -> None:
        nonlocal done
        done += count
        if done > 2 * BYTES:
            while len(list(partial.glob("*.safetensors"))) < 2:
                sleep(0.001)
            raise KeyboardInterrupt

    partial = place / ".out.partial-merge"
    with pytest.raises(KeyboardInterrupt):
        registry.merge(base, [adapter], place / "out", device="cpu", progress=interrupt)
    return base, adapter, sorted(partial.glob("*.safetensors"))


def require_undisturbed(place: Path) -> None:
    assert {path.name for path in (place / "out").iterdir()} == {path.name for path in (place / "undisturbed").iterdir()}
    for path in (place / "out").iterdir():
        assert path.read_bytes() == (place / "undisturbed" / path.name).read_bytes(), path.name


@pytest.mark.parametrize("accident", ACCIDENTS)
def test_a_finished_file_stays_if_it_is_what_would_be_written_and_is_made_again_if_not(accident: str, tmp_path: Path) -> None:
    base, adapter, finished = interrupted(tmp_path)
    before = {path.name: path.stat().st_ino for path in finished}
    os.link(finished[0], tmp_path / "held")  # or its number would be given away at once
    ACCIDENTS[accident](finished[0])
    heard, promised = [], []
    connect(tmp_path / "registry").merge(
        base, [adapter], tmp_path / "out", device="cpu", resume=True, expect=promised.append, progress=heard.append
    )
    require_undisturbed(tmp_path)
    kept = {name for name, inode in before.items() if (tmp_path / "out" / name).stat().st_ino == inode}
    assert len(finished) == 2
    assert kept == {path.name for path in finished[accident != "nothing" :]}
    assert promised == [3 * BYTES]
    assert sum(heard) == 3 * BYTES


def test_a_file_that_somebody_put_beside_the_finished_ones_is_not_taken_up(tmp_path: Path) -> None:
    base, adapter, finished = interrupted(tmp_path)
    (finished[0].parent / "model-00009-of-00003.safetensors").write_bytes(finished[0].read_bytes())
    connect(tmp_path / "registry").merge(base, [adapter], tmp_path / "out", device="cpu", resume=True)
    require_undisturbed(tmp_path)
