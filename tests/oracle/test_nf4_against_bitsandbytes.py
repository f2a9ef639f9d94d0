"""Any run of elements, seen through NF4: bit for bit what bitsandbytes makes of the whole tensor."""

from __future__ import annotations

from math import prod
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor

from registry.domain.base_model import BaseModelId
from registry.domain.checkpoint import Checkpoint, Rounded, Shard
from registry.formats.model_config import ModelConfig
from registry.formats.nf4 import LEVELS
from registry.numerics.nf4 import nearest
from registry.operations.base_view import seen
from registry.operations.know_base import read_shard, spec_of
from registry.plans.merging import Origin
from registry.weights.dtypes import TORCH_DTYPES
from registry.weights.rows import read_into
from registry.weights.streams import sources
from tests.oracle import nf4_oracle as oracle

DTYPES = [torch.bfloat16, torch.float16, torch.float32]
#: Whole blocks, blocks across rows, a short last block, an odd number of elements, less than a block, one column, 3-D.
SHAPES = [(64, 64), (128, 96), (33, 50), (7, 13), (3, 5), (70, 1), (1, 256), (100, 1000), (4, 6, 32)]
W = "model.layers.0.mlp.up_proj.weight"


def random(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    weight = (torch.randn(shape, generator=torch.Generator().manual_seed(prod(shape))) * 0.03).to(dtype)
    weight.view(-1)[:1] = 0
    return weight


def run(origin: Origin, start: int, stop: int) -> Tensor:
    found = torch.empty(stop - start, dtype=TORCH_DTYPES[origin.spec.dtype])
    with sources(origin.files) as files:
        read_into(files, origin, start, found)
    return found


def unpacked_origin(place: Path, tensors: dict[str, Tensor]) -> Origin:
    save_file(tensors, place / "model.safetensors")
    shard = read_shard(place / "model.safetensors")
    base = Checkpoint(place, {"quantization_config": oracle.QUANTIZATION}, (shard,))
    spec = spec_of(BaseModelId(None), ModelConfig(base.config), shard.tensors)
    view, known = seen(base, spec, "nf4")
    assert [each.name for _, each in view] == [W]
    assert not known.is_quantized
    return Origin(view.shards[0], view.shards[0].tensors[0])


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_a_packed_weight_is_what_bitsandbytes_unpacks(
    tmp_path: Path, shape: tuple[int, ...], dtype: torch.dtype, *, nested: bool
) -> None:
    for block in (32, 64, 4096):
        codes, state = oracle.packed(random(shape, dtype), block=block, nested=nested)
        origin = unpacked_origin(tmp_path, oracle.stored(W, codes, state))
        assert origin.spec.shape == shape
        expected = oracle.unpacked(codes, state)
        assert torch.equal(oracle.bits(run(origin, 0, prod(shape)).view(shape)), oracle.bits(expected))


@pytest.mark.parametrize("storage", [torch.bfloat16, torch.float16, torch.float32])
def test_the_type_that_stores_the_codes_does_not_matter(tmp_path: Path, storage: torch.dtype) -> None:
    weight = random((64, 64), torch.bfloat16)
    origin = unpacked_origin(tmp_path, oracle.stored(W, *oracle.packed(weight, storage=storage)))
    assert torch.equal(oracle.bits(run(origin, 0, 4096).view(64, 64)), oracle.bits(oracle.through_nf4(weight)))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_a_plain_weight_is_what_bitsandbytes_leaves_of_it(
    tmp_path: Path, shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    weight = random(shape, dtype)
    origin = rounded_origin(tmp_path, weight)
    assert torch.equal(oracle.bits(run(origin, 0, prod(shape)).view(shape)), oracle.bits(oracle.through_nf4(weight)))


def rounded_origin(place: Path, weight: Tensor) -> Origin:
    save_file({W: weight}, place / "model.safetensors")
    shard = read_shard(place / "model.safetensors")
    seen_shard = Shard(shard.path, shard.tensors, shard.metadata, shard.data_start, shard.size, nf4={W: Rounded(64)})
    return Origin(seen_shard, shard.tensors[0])


@pytest.fixture(scope="module")
def origins(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Origin, Tensor]]:
    found = []
    weight = random((37, 157), torch.bfloat16)
    for nested in (False, True):
        codes, state = oracle.packed(weight, nested=nested)
        place = tmp_path_factory.mktemp("packed")
        found.append((unpacked_origin(place, oracle.stored(W, codes, state)), oracle.unpacked(codes, state).view(-1)))
    place = tmp_path_factory.mktemp("plain")
    return [*found, (rounded_origin(place, weight), oracle.through_nf4(weight).view(-1))]


@settings(max_examples=50)
@given(first=st.integers(0, 37 * 157), second=st.integers(0, 37 * 157))
def test_every_run_is_a_part_of_the_whole(origins: list[tuple[Origin, Tensor]], first: int, second: int) -> None:
    start, stop = sorted((first, second))
    for origin, whole in origins:
        assert torch.equal(run(origin, start, stop), whole[start:stop])


def test_levels_and_the_bounds_between_them_are_those_of_the_kernels() -> None:
    """``dQuantizeNF4`` of bitsandbytes' CUDA kernels compares with these numbers, written as float32."""
    bounds = [
        -0.8480964004993439, -0.6106329262256622, -0.4599952697753906, -0.33967943489551544, -0.23460740596055984,
        -0.13791173323988914, -0.045525018125772476, 0.03979014977812767, 0.1202552504837513, 0.2035212516784668,
        0.2920137718319893, 0.3893125355243683, 0.5016634166240692, 0.6427869200706482, 0.8614784181118011,
    ]  # fmt: skip
    levels = torch.tensor(LEVELS)
    assert torch.equal(levels, oracle.LEVELS)
    assert torch.equal((levels[1:] + levels[:-1]) / 2, torch.tensor(bounds))
    block = torch.tensor([1.0, *bounds])
    assert nearest(block, levels, 64)[1:].tolist() == levels[:-1].tolist()  # halfway takes the lower
    above = torch.nextafter(torch.tensor(bounds), torch.tensor(2.0))
    assert nearest(torch.cat([block[:1], above]), levels, 64)[1:].tolist() == levels[1:].tolist()


def test_zeros_stay_zeros_and_what_is_no_number_is_seen() -> None:
    levels = torch.tensor(LEVELS)
    assert nearest(torch.zeros(100), levels, 64).tolist() == [0.0] * 100
    for odd in (float("nan"), float("inf")):
        weight = torch.ones(128)
        weight[5] = odd
        found = nearest(weight, levels, 64)
        assert not found[:64].isfinite().all()
        assert found[64:].tolist() == [1.0] * 64
