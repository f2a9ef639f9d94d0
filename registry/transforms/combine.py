"""A combination is computed, stack by stack, and measured in what was read back.

Exact: factors are stacked and B multiplied by weight and scaling in float64, then rounded once to the result's type. A
truncation is the best approximation of its rank, found from the factors in float64, so that what it leaves away is known
before it is written.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import hypot, inf
from pathlib import Path

import torch
from torch import Tensor

from registry.domain.checkpoint import Shard
from registry.domain.tensors import TensorSpec
from registry.numerics.low_rank import Factors, balanced, decomposed, distance, product_norm, rank_for_energy
from registry.plans.combining import CombinePlan, Stack
from registry.plans.merging import Origin
from registry.transforms.layout import matrices, unmatrices
from registry.transforms.streaming import read, same_numbers
from registry.variants.lora_targets import LoraDelta
from registry.weights.dtypes import TORCH_DTYPES
from registry.weights.reading import open_tensors
from registry.weights.streams import Sources, sources
from registry.weights.writing import laid_out, write_tensors

__all__ = ["Layer", "Truncation", "combine", "errors", "same_numbers"]

#: A delta's factors in float64, with scaling 1: A (r, in), B (out, r).
Pair = tuple[Tensor, Tensor]


@dataclass(frozen=True, slots=True)
class Truncation:
    """``rank`` is the most that a layer keeps, ``energy`` the least share of Σσ² that it has to; None for no limit."""

    rank: int | None = None
    energy: float | None = None

    @property
    def is_exact(self) -> bool:
        return self.rank is None and self.energy is None


@dataclass(frozen=True, slots=True)
class Layer:
    """One target of the result. ``norm`` is ‖Δ‖ of the exact sum, ``discarded`` the part that the truncation leaves away, in
    Frobenius norms."""

    path: str
    rank: int
    exact_rank: int
    norm: float
    discarded: float


def combine(plan: CombinePlan, adapters: Sequence[Shard], truncation: Truncation, into: Path) -> list[Layer]:
    """Write the file of weights, and say of every target what it has become."""
    made: dict[str, Tensor] = {}
    specs: list[TensorSpec] = []
    layers: list[Layer] = []
    with sources(shard.path for shard in adapters) as files:
        for stack in plan.stacks:
            pairs = list(_sums(stack, adapters, files))
            kept, layer = _kept(stack, pairs, truncation)
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
    plan: CombinePlan, adapters: Sequence[Shard], copy: Path, deltas: Mapping[str, LoraDelta]
) -> Iterator[tuple[str, float, float]]:
    """For every target how far what the file ``copy`` says is from the exact sum, and ‖|B|·|A|‖ there, the size that the
    roundings of the factors go with. ``deltas`` is how the copy's config reads it."""
    with sources(shard.path for shard in adapters) as files, open_tensors(copy) as made:
        for stack in plan.stacks:
            delta = deltas.get(stack.path)
            if delta is None or delta.scaling is None:
                yield stack.path, inf, 0.0
                continue
            found = matrices(made.read(delta.down.name), made.read(delta.up.name), experts=stack.experts)
            distances = [
                distance(Factors(*theirs, delta.scaling), Factors(down, up, 1.0))
                for (down, up), theirs in zip(_sums(stack, adapters, files), found, strict=True)
            ]
            yield (
                stack.path,
                hypot(*(one.difference for one in distances)),
                hypot(*(one.magnitude for one in distances)),
            )


def _sums(stack: Stack, adapters: Sequence[Shard], files: Sources) -> Iterator[Pair]:
    """The exact sum as stacked factors; one pair for each expert, or group of a convolution."""
    parts = []
    for share in stack.shares:
        down, up = (read(files, Origin(adapters[share.adapter], spec)) for spec in (share.down, share.up))
        parts.append(list(matrices(down.double(), up.double() * share.factor, experts=stack.experts)))
    for pairs in zip(*parts, strict=True):
        yield torch.cat([down for down, _ in pairs]), torch.cat([up for _, up in pairs], dim=1)


def _kept(stack: Stack, pairs: Sequence[Pair], truncation: Truncation) -> tuple[list[Pair], Layer]:
    exact = pairs[0][0].shape[0]
    groups = len(pairs) if stack.experts == 1 else 1  # of a convolution, whose rank is that of all its groups
    if truncation.is_exact:
        norm = hypot(*(product_norm(up, down) for down, up in pairs))
        return list(pairs), Layer(stack.path, exact * groups, exact * groups, norm, 0.0)
    found = [decomposed(down, up) for down, up in pairs]
    wanted = exact if truncation.rank is None else min(max(truncation.rank // groups, 1), exact)
    if truncation.energy is not None:
        wanted = min(wanted, max(rank_for_energy(one.values, truncation.energy) for one in found))
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
