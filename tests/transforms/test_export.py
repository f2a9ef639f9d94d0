"""A copy is written by the plan and judged by its deltas; a wrong copy is seen."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from registry.checks.repair import Repair, TensorRepair
from registry.domain.tensors import TensorSpec
from registry.errors import MalformedFileError
from registry.operations.know_base import read_shard
from registry.plans.merging import Origin
from registry.transforms.export import different, equalities, rewrite, same_numbers
from registry.transforms.layout import matrices
from registry.variants.lora_targets import LoraDelta
from registry.weights.reading import open_tensors

A, B = "base_model.model.q.lora_A.weight", "base_model.model.q.lora_B.weight"
OTHER = "base_model.model.score.weight"


def adapter(path: Path, dtype: torch.dtype = torch.bfloat16) -> Path:
    torch.manual_seed(0)
    tensors = {A: torch.randn(2, 6).to(dtype), B: torch.randn(5, 2).to(dtype), OTHER: torch.randn(3).to(dtype)}
    save_file(tensors, path, metadata={"format": "pt"})
    return path


def repaired(path: Path, factor: float, rank: int = 2) -> Repair:
    with open_tensors(path) as file:
        specs = file.specs
    shapes = {A: (rank, 6), B: (5, rank), OTHER: (3,)}
    rows = [
        TensorRepair(TensorSpec(name, spec.dtype, shapes[name]), spec, factor if name == B else 1.0, name != OTHER)
        for name, spec in specs.items()
    ]
    return Repair(tuple(rows), {})


def delta(path: Path, scaling: float, rank: int) -> LoraDelta:
    with open_tensors(path) as file:
        return LoraDelta(file.specs[A], file.specs[B], rank, scaling)


def judged(source: Path, copy: Path, before: float, after: float, rank: int = 2) -> tuple[bool, float]:
    (one,) = equalities(source, copy, [("q", delta(source, before, 2), delta(copy, after, rank))])
    return one.holds, one.error


@pytest.mark.parametrize(("factor", "widened"), [(4.0, False), (0.25, False), (1.5**0.5, True), (3.0, True)])
def test_a_type_is_kept_where_the_product_is_exact_in_it(tmp_path: Path, factor: float, widened: bool) -> None:
    source, copy = adapter(tmp_path / "source"), tmp_path / "copy"
    assert rewrite(source, repaired(source, factor, rank=8), copy) is widened
    found = load_file(copy)
    assert found[A].dtype == found[B].dtype == (torch.float32 if widened else torch.bfloat16)
    assert found[OTHER].dtype == torch.bfloat16
    assert found[A].shape == (8, 6)
    holds, error = judged(source, copy, factor, 1.0, rank=8)
    assert holds
    assert error == 0.0 if not widened else error < 2**-24
    assert different(source, copy, [(OTHER, OTHER)]) == []


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_a_wrong_scaling_is_seen(tmp_path: Path, dtype: torch.dtype) -> None:
    source, copy = adapter(tmp_path / "source", dtype), tmp_path / "copy"
    rewrite(source, repaired(source, 2.0), copy)
    assert judged(source, copy, 2.0, 1.0) == (True, 0.0)
    assert not judged(source, copy, 2.0 + 1e-6, 1.0)[0]


def test_a_change_of_one_last_bit_of_a_narrow_type_is_seen(tmp_path: Path) -> None:
    source, copy = adapter(tmp_path / "source"), tmp_path / "copy"
    rewrite(source, repaired(source, 2.0), copy)
    tensors = load_file(copy)
    tensors[B][0, 0] *= 1 + 2**-7
    tensors[OTHER][0] += 1
    save_file(tensors, copy)
    assert not judged(source, copy, 2.0, 1.0)[0]
    assert different(source, copy, [(OTHER, OTHER)]) == [OTHER]


def test_a_factor_out_of_range_of_half_precision_is_widened(tmp_path: Path) -> None:
    source, copy = adapter(tmp_path / "source", torch.float16), tmp_path / "copy"
    assert rewrite(source, repaired(source, 2.0**17), copy)
    assert judged(source, copy, 2.0**17, 1.0) == (True, 0.0)


def test_unknown_scalings_are_equal_only_with_equal_bytes(tmp_path: Path) -> None:
    source, copy = adapter(tmp_path / "source"), tmp_path / "copy"
    rewrite(source, repaired(source, 1.0), copy)
    pair = ("q", delta(source, 1.0, 2)._replace(scaling=None), delta(copy, 1.0, 2)._replace(scaling=None))
    assert [one.error for one in equalities(source, copy, [pair])] == [0.0]
    rewrite(source, repaired(source, 2.0), tmp_path / "other")
    assert not next(equalities(source, tmp_path / "other", [pair])).holds


def test_a_file_that_changed_since_it_was_described_is_refused(tmp_path: Path) -> None:
    source = adapter(tmp_path / "source")
    plan = repaired(source, 2.0)
    save_file({A: torch.zeros(3, 3)}, source)
    with pytest.raises(MalformedFileError) as refusal:
        rewrite(source, plan, tmp_path / "copy")
    assert refusal.value.code == "changed-while-read"
    assert not (tmp_path / "copy").exists()


def test_numbers_are_the_same_in_a_narrower_type(tmp_path: Path) -> None:
    torch.manual_seed(0)
    wide = torch.randn(4, 4)
    save_file({"a": wide, "b": wide.bfloat16(), "c": wide + 1, "d": wide[:3].clone()}, tmp_path / "x")
    shard = read_shard(tmp_path / "x")
    places = {spec.name: Origin(shard, spec) for spec in shard.tensors}
    found = {name: same_numbers(places["a"], places[name]) for name in ("a", "b", "c", "d")}
    assert found == {"a": True, "b": True, "c": False, "d": False}


def test_the_layout_of_experts_is_pefts() -> None:
    down, up = torch.randn(3 * 2, 5), torch.randn(4, 2 * 3)
    theirs = torch.einsum("ore,eri->eoi", up.reshape(4, 2, 3), down.reshape(3, 2, 5))
    ours = torch.stack([b @ a for a, b in matrices(down, up, experts=3)])
    torch.testing.assert_close(ours, theirs)


def test_the_layout_of_grouped_convolutions_is_pytorchs() -> None:
    x, down, up = torch.randn(1, 4, 5, 5), torch.randn(6, 2, 3, 3), torch.randn(8, 3, 1, 1)
    theirs = torch.conv2d(torch.conv2d(x, down, groups=2), up, groups=2)
    kernel = torch.cat([(b @ a).reshape(4, 2, 3, 3) for a, b in matrices(down, up)])
    torch.testing.assert_close(torch.conv2d(x, kernel, groups=2), theirs, rtol=1e-4, atol=1e-4)
