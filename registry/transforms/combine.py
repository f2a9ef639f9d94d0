"""A combination is computed, stack by stack, and measured in what was read back.

Exact: factors are stacked and B multiplied by weight and scaling in float64, then rounded once to the result's type. A
truncation is the best approximation of its rank, found from the factors in float64, so that what it leaves away is known
before it is written.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import hypot, inf
from pathlib import Path

import torch
from torch import Tensor

from registry.domain.checkpoint import Shard
from registry.domain.tensors import TensorSpec
from registry.numerics.combining import COMBINERS
from registry.numerics.low_rank import (
    Factors,
    balanced,
    decomposed,
    distance,
    product_norm,
    randomized,
    rank_for_energy,
)
from registry.plans.combining import LINEAR, CombinePlan, Stack
from registry.plans.merging import Origin
from registry.transforms.layout import matrices, unmatrices
from registry.transforms.streaming import read, same_numbers
from registry.variants.lora_targets import LoraDelta
from registry.weights.dtypes import TORCH_DTYPES
from registry.weights.reading import open_tensors
from registry.weights.streams import Sources, sources
from registry.weights.writing import laid_out, write_tensors

__all__ = ["Layer", "Method", "combine", "errors", "same_numbers"]

#: A delta's factors in float64, with scaling 1: A (r, in), B (out, r).
Pair = tuple[Tensor, Tensor]


@dataclass(frozen=True, slots=True)
class Method:
    """How deltas become one, and how much of it is kept: ``rank`` is the most that a layer keeps, ``energy`` the least share of
    Σσ² that it has to; None for no limit. What is not ``linear`` is made in delta space, of which a layer keeps at most the sum
    of the ranks; ``density`` and ``seed`` are for methods that ask for them."""

    name: str = LINEAR
    rank: int | None = None
    energy: float | None = None
    density: float = 0.5
    seed: int = 0

    @property
    def is_exact(self) -> bool:
        return self.name == LINEAR and self.rank is None and self.energy is None

    def dense(self, deltas: Sequence[Tensor], weights: Sequence[float], path: str) -> Tensor:
        """The deltas of one weight, combined; the draws of a path are the same in every run."""
        combiner = COMBINERS[self.name]
        given = {"density": self.density, "generator": self.generator(path)}
        return combiner.combine(deltas, weights, **{name: given[name] for name in combiner.options})

    def generator(self, path: str) -> torch.Generator:
        digest = hashlib.sha256(f"{self.seed} {path}".encode()).digest()
        return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)


@dataclass(frozen=True, slots=True)
class Layer:
    """One target of the result. ``norm`` is ‖Δ‖ of the exact sum, ``discarded`` the part that the truncation leaves away, in
    Frobenius norms."""

    path: str
    rank: int
    exact_rank: int
    norm: float
    discarded: float


def combine(plan: CombinePlan, adapters: Sequence[Shard], method: Method, into: Path) -> list[Layer]:
    """Write the file of weights, and say of every target what it has become."""
    made: dict[str, Tensor] = {}
    specs: list[TensorSpec] = []
    layers: list[Layer] = []
    with sources(shard.path for shard in adapters) as files:
        for stack in plan.stacks:
            kept, layer = _made(stack, adapters, files, method)
            layers.append(layer)
            tensors = dict(
                zip(stack.tails, unmatrices(kept, like=stack.shares[0].down.shape, experts=stack.experts), strict=True)
            )
            if plan.config.get("lora_bias") and not stack.embedding:
                tensors["lora_B.bias"] = _bias(stack, adapters, files)
            for tail, tensor in tensors.items():
                made[f"{stack.name}.{tail}"] = tensor.to(TORCH_DTYPES[stack.dtype])
                specs.append(TensorSpec(f"{stack.name}.{tail}", stack.dtype, tuple(tensor.shape)))
        for one in plan.passed:
            made[one.spec.name] = read(files, Origin(adapters[one.adapter], one.spec))
            specs.append(TensorSpec(one.spec.name, one.spec.dtype, one.spec.shape))
    placed = laid_out(specs)
    write_tensors(into, placed, (made[spec.name] for spec in placed), metadata={"format": "pt"})
    return layers


def errors(
    plan: CombinePlan, adapters: Sequence[Shard], method: Method, copy: Path, deltas: Mapping[str, LoraDelta]
) -> Iterator[tuple[str, float, float]]:
    """For every target how far what the file ``copy`` says is from what the method makes, and ‖|B|·|A|‖ there, the size that the
    roundings of the factors go with. ``deltas`` is how the copy's config reads it."""
    with sources(shard.path for shard in adapters) as files, open_tensors(copy) as made:
        for stack in plan.stacks:
            delta = deltas.get(stack.path)
            if delta is None or delta.scaling is None:
                yield stack.path, inf, 0.0
                continue
            pairs = matrices(made.read(delta.down.name), made.read(delta.up.name), experts=stack.experts)
            found = [Factors(*pair, delta.scaling) for pair in pairs]
            size = hypot(
                *(abs(one.scaling) * product_norm(one.up.double().abs(), one.down.double().abs()) for one in found)
            )
            if method.name == LINEAR:
                sums = _sums(stack, adapters, files)
                apart = [distance(one, Factors(*pair, 1.0)).difference for one, pair in zip(found, sums, strict=True)]
            else:
                wanted = _dense(stack, adapters, files, method)
                apart = [_apart(one, theirs) for one, theirs in zip(found, wanted, strict=True)]
            yield stack.path, hypot(*apart), size


def _apart(one: Factors, dense: Tensor) -> float:
    product = one.up.double() @ one.down.double() * one.scaling
    return float(torch.linalg.matrix_norm(product - dense.double()))


def _made(stack: Stack, adapters: Sequence[Shard], files: Sources, method: Method) -> tuple[list[Pair], Layer]:
    if method.name == LINEAR:
        return _kept(stack, list(_sums(stack, adapters, files)), method)
    pairs: list[Pair] = []
    norms, lost = [], []
    groups = _groups(stack)
    wanted = max((method.rank or stack.rank) // groups, 1)
    found = []
    for dense in _dense(stack, adapters, files, method):
        found.append(randomized(dense, min(wanted, *dense.shape), method.generator(f"{stack.path} range")))
        norms.append(float(torch.linalg.matrix_norm(dense.double())))
    kept = min(len(one.values) for one in found)
    if method.energy is not None:
        kept = min(kept, max(rank_for_energy(one.values, method.energy) for one in found))
    for one, norm in zip(found, norms, strict=True):
        pairs.append(balanced(one, kept))
        lost.append(max(norm**2 - float(one.values[:kept].square().sum()), 0.0) ** 0.5)
    return pairs, Layer(stack.path, kept * groups, stack.rank, hypot(*norms), hypot(*lost))


def _dense(stack: Stack, adapters: Sequence[Shard], files: Sources, method: Method) -> Iterator[Tensor]:
    """What the method makes of the deltas, in float32; one matrix for each expert, or group of a convolution."""
    weights = [share.weight for share in stack.shares]
    for number, pairs in enumerate(zip(*_parts(stack, adapters, files), strict=True)):
        deltas = [((up @ down) * share.scaling).float() for (down, up), share in zip(pairs, stack.shares, strict=True)]
        yield method.dense(deltas, weights, f"{stack.path} {number}")


def _groups(stack: Stack) -> int:
    """Of a convolution, whose rank is that of all its groups."""
    return stack.groups if stack.experts == 1 else 1


def _parts(stack: Stack, adapters: Sequence[Shard], files: Sources) -> list[list[Pair]]:
    """For each adapter its factors in float64; one pair for each expert, or group of a convolution."""
    found = []
    for share in stack.shares:
        down, up = (read(files, Origin(adapters[share.adapter], spec)) for spec in (share.down, share.up))
        found.append(list(matrices(down.double(), up.double(), experts=stack.experts)))
    return found


def _sums(stack: Stack, adapters: Sequence[Shard], files: Sources) -> Iterator[Pair]:
    """The exact sum as stacked factors; one pair for each expert, or group of a convolution."""
    for pairs in zip(*_parts(stack, adapters, files), strict=True):
        ups = [up * share.factor for (_, up), share in zip(pairs, stack.shares, strict=True)]
        yield torch.cat([down for down, _ in pairs]), torch.cat(ups, dim=1)


def _kept(stack: Stack, pairs: Sequence[Pair], method: Method) -> tuple[list[Pair], Layer]:
    exact = pairs[0][0].shape[0]
    groups = _groups(stack)
    if method.is_exact:
        norm = hypot(*(product_norm(up, down) for down, up in pairs))
        return list(pairs), Layer(stack.path, exact * groups, exact * groups, norm, 0.0)
    found = [decomposed(down, up) for down, up in pairs]
    wanted = exact if method.rank is None else min(max(method.rank // groups, 1), exact)
    if method.energy is not None:
        wanted = min(wanted, max(rank_for_energy(one.values, method.energy) for one in found))
    norm = hypot(*(float(torch.linalg.vector_norm(one.values)) for one in found))
    if wanted >= exact:
        return list(pairs), Layer(stack.path, exact * groups, exact * groups, norm, 0.0)
    wanted = min(wanted, len(found[0].values))
    lost = hypot(*(float(torch.linalg.vector_norm(one.values[wanted:])) for one in found))
    return [balanced(one, wanted) for one in found], Layer(stack.path, wanted * groups, exact * groups, norm, lost)


def _bias(stack: Stack, adapters: Sequence[Shard], files: Sources) -> Tensor:
    """Σ wᵢ·sᵢ·bᵢ; zeros where no adapter has one, since PEFT wants it of every layer."""
    total = torch.zeros(stack.shares[0].up.shape[0], dtype=torch.float64)
    for share in stack.shares:
        if share.bias is not None:
            total += read(files, Origin(adapters[share.adapter], share.bias)).double() * share.factor
    return total
