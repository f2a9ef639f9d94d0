"""What is written is what was given, to us and to safetensors; nothing is held but one tensor."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from registry.domain.tensors import TensorSpec
from registry.errors import MalformedFileError, MalformedHeaderError
from registry.weights.dtypes import TORCH_DTYPES
from registry.weights.reading import open_tensors
from registry.weights.writing import laid_out, write_tensors

NAMES = {dtype: name for name, dtype in TORCH_DTYPES.items()}


def write(path: Path, tensors: dict[str, torch.Tensor], **metadata: str) -> None:
    specs = laid_out(TensorSpec(name, NAMES[one.dtype], tuple(one.shape)) for name, one in tensors.items())
    write_tensors(path, specs, (tensors[spec.name] for spec in specs), metadata=metadata)


def some_tensors() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    made = {f"of.{name}": (torch.rand(3, 5) * 8).to(dtype) for name, dtype in TORCH_DTYPES.items()}
    return {**made, "scalar": torch.tensor(2.5), "empty": torch.empty(0, 4), "turned": torch.rand(4, 3).T}


def test_safetensors_reads_what_was_written(tmp_path: Path) -> None:
    tensors = some_tensors()
    write(tmp_path / "x.safetensors", tensors, format="pt")
    found = load_file(tmp_path / "x.safetensors")
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name], one) and found[name].dtype == one.dtype for name, one in tensors.items())


def test_what_safetensors_wrote_is_read(tmp_path: Path) -> None:
    tensors = {name: one.contiguous() for name, one in some_tensors().items()}
    save_file(tensors, tmp_path / "x.safetensors", metadata={"format": "pt"})
    with open_tensors(tmp_path / "x.safetensors") as file:
        assert file.metadata == {"format": "pt"}
        assert file.specs.keys() == tensors.keys()
        assert all(torch.equal(file.read(name), one) for name, one in tensors.items())


def test_the_bytes_are_those_of_safetensors_own_writer(tmp_path: Path) -> None:
    tensors = {"b": torch.rand(2, 3), "a": torch.rand(3).half(), "c": torch.arange(4)}
    save_file(tensors, tmp_path / "theirs", metadata={"format": "pt"})
    write(tmp_path / "ours", tensors, format="pt")
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()


def test_every_tensor_is_aligned_to_its_type(tmp_path: Path) -> None:
    write(tmp_path / "x", {"odd": torch.zeros(3, dtype=torch.uint8), "wide": torch.zeros(3, dtype=torch.float64)})
    with open_tensors(tmp_path / "x") as file:
        assert file._data_start % 8 == 0
        assert file.specs["wide"].start == 0


def test_a_tensor_that_is_not_what_was_announced_is_refused(tmp_path: Path) -> None:
    specs = laid_out([TensorSpec("a", "F32", (2, 2))])
    for number, wrong in enumerate((torch.zeros(2, 3), torch.zeros(2, 2).half(), bytearray(3))):
        with pytest.raises(ValueError, match="announced"):
            write_tensors(tmp_path / str(number), specs, [wrong])


def test_what_the_strict_header_refuses_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"PK\x03\x04" + bytes(100))
    with pytest.raises(MalformedHeaderError), open_tensors(tmp_path / "x"):
        pass


def test_a_file_that_became_shorter_is_named(tmp_path: Path) -> None:
    write(tmp_path / "x", {"a": torch.rand(100)})
    with open_tensors(tmp_path / "x") as file:
        with open(tmp_path / "x", "r+b") as other:
            other.truncate(200)
        with pytest.raises(MalformedFileError) as refusal:
            file.read("a")
    assert refusal.value.code == "changed-while-read"


def test_types_without_arithmetic_are_copied_and_not_read(tmp_path: Path) -> None:
    specs = laid_out([TensorSpec("scales", "F8_E8M0", (4,))])
    write_tensors(tmp_path / "x", specs, [bytearray(b"\x7f\x80\x81\x82")])
    with open_tensors(tmp_path / "x") as file:
        assert file.read_bytes("scales") == b"\x7f\x80\x81\x82"
        with pytest.raises(MalformedFileError):
            file.read("scales")


def test_memory_is_that_of_one_tensor(tmp_path: Path) -> None:
    size = 1 << 20
    specs = laid_out(TensorSpec(f"t{i}", "U8", (size,)) for i in range(32))
    tracemalloc.start()
    write_tensors(tmp_path / "x", specs, (bytearray(size) for _ in specs))
    with open_tensors(tmp_path / "x") as file:
        for name in file.specs:
            file.read_bytes(name)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * size
