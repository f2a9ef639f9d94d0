"""A combination is computed, stack by stack, and measured in what was read back.

Exact: factors are stacked and B multiplied by weight and scaling in float64, then rounded once to the result's type; of float16,
which has few exponents, A and B share the size of each term. A truncation is the best approximation of its rank, found from
the factors in float64, so that what it leaves away is known before it is written. Where all layers together may take so many
bytes, their ranks are chosen once all are decomposed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import hypot, inf, prod, sqrt
from pathlib import Path

import torch
from torch import Tensor

from registry.domain.checkpoint import Shard
from registry.domain.tensors import DTYPE_BITS, TensorSpec
from registry.errors import RejectedError
from registry.numerics.low_rank import (
    Decomposition,
    Factors,
    audible,
    balanced,
    decomposed,
    distance,
    evened,
    padded,
    product_norm,
    randomized,
    rank_for_energy,
    size_of_terms,
    without_noise,
)
from registry.numerics.pieces import spans
from registry.numerics.rank_budget import ranks_within
from registry.plans.combining import CombinePlan, Method, Stack
from registry.plans.merging import Origin
from registry.plans.results import Layer
from registry.transforms.blending import blended, generator, multiplied
from registry.transforms.layout import matrices, unmatrices
from registry.transforms.streaming import read, same_numbers
from registry.variants.lora_targets import LoraDelta
from registry.weights.dtypes import NAMES, TORCH_DTYPES
from registry.weights.reading import TensorFile, open_tensors
from registry.weights.streams import Sources, sources
from registry.weights.writing import header_of, laid_out, write_tensors

__all__ = ["combine", "errors", "same_numbers"]

#: A delta's factors in float64, with scaling 1: A (r, in), B (out, r).
Pair = tuple[Tensor, Tensor]
_METADATA = {"format": "pt"}


@dataclass(frozen=True, slots=True)
class Offer:
    """What has to be known of layers that have one rank to say how many of the ``wanted`` ones they may have. ``energies`` is
    what each saves of the squared error, from large to small; of each layer (out, in) of its parts."""

    layers: Sequence[tuple[Stack, Sequence[tuple[int, int]]]]
    wanted: int
    energies: Tensor

    @property
    def cost(self) -> int:
        """Bytes of one rank of every part: a row of A and a column of B."""
        return sum(sum(map(sum, shapes)) * DTYPE_BITS[stack.dtype] // 8 for stack, shapes in self.layers)


@dataclass(frozen=True, slots=True)
class Uncut:
    """A layer before it is cut: for each expert, or group of a convolution, the factors of the exact sum and the decomposition;
    one of both is empty where it is not needed. ``wanted`` is the rank of each that the method keeps, ``norms`` are theirs."""

    stack: Stack
    exact: Sequence[Pair]
    parts: Sequence[Decomposition]
    norms: Sequence[float]
    wanted: int

    @property
    def offer(self) -> Offer:
        energies = torch.stack([one.values for one in self.parts]).square().sum(dim=0)[: self.wanted]
        shapes = [(one.left.shape[0], one.right.shape[1]) for one in self.parts]
        return Offer([(self.stack, shapes)], self.wanted, energies)

    def cut(self, rank: int) -> tuple[Sequence[Pair], Layer]:
        pairs, lost = self._kept(rank)
        if self.stack.has_common_rank:
            pairs = [(padded(down, (rank, down.shape[1])), padded(up, (up.shape[0], rank))) for down, up in pairs]
        found = pairs[0][0].shape[0] * _groups(self.stack)
        norm = hypot(*self.norms)
        return pairs, Layer(self.stack.path, found, self.stack.rank, norm, lost / norm if norm else 0.0)

    def _kept(self, rank: int) -> tuple[Sequence[Pair], float]:
        if self.exact and rank >= self.exact[0][0].shape[0]:
            return self.exact, 0.0
        kept = min(rank, *(len(one.values) for one in self.parts))
        lost = hypot(
            *(_lost(one.values, kept, whole, self.exact) for one, whole in zip(self.parts, self.norms, strict=True))
        )
        return [balanced(one, kept) for one in self.parts], lost


def combine(plan: CombinePlan, adapters: Sequence[Shard], method: Method, into: Path) -> list[Layer]:
    """Write the file of weights, and say of every target what it has become.

    Raises RejectedError where not even rank 1 in every layer fits into the method's bytes."""
    made: dict[str, Tensor] = {}
    layers: list[Layer] = []
    with sources(shard.path for shard in adapters) as files:
        for pairs, layer, stack in _cuts(plan, adapters, files, method):
            layers.append(layer)
            if stack.dtype == "F16":  # B alone, times weight and scaling, may leave its range
                pairs = [evened(*pair) for pair in pairs]
            tensors = dict(
                zip(stack.tails, unmatrices(pairs, like=stack.shares[0].down.shape, experts=stack.experts), strict=True)
            )
            if _has_bias(plan, stack):
                tensors["lora_B.bias"] = _bias(stack, adapters, files)
            for tail, tensor in tensors.items():
                made[f"{stack.name}.{tail}"] = tensor.to(TORCH_DTYPES[stack.dtype])
        for embedding, head in plan.tied:
            made[f"{head.name}.lora_A.weight"] = made[f"{embedding.name}.lora_embedding_B"].mT.contiguous()
            made[f"{head.name}.lora_B.weight"] = made[f"{embedding.name}.lora_embedding_A"].mT.contiguous()
            same = next(layer for layer in layers if layer.path == embedding.path)
            layers = [replace(same, path=head.path) if layer.path == head.path else layer for layer in layers]
        for one in plan.passed:
            made[one.spec.name] = read(files, Origin(adapters[one.adapter], one.spec))
        for rows in plan.rows:
            parts = [read(files, Origin(adapters[number], spec)) for number, spec in rows.parts]
            made[rows.name] = torch.cat([part.to(TORCH_DTYPES[rows.spec.dtype]) for part in parts])
    placed = laid_out(TensorSpec(name, NAMES[tensor.dtype], tuple(tensor.shape)) for name, tensor in made.items())
    write_tensors(into, placed, (made[spec.name] for spec in placed), metadata=_METADATA)
    return layers


def _cuts(
    plan: CombinePlan, adapters: Sequence[Shard], files: Sources, method: Method
) -> Iterator[tuple[Sequence[Pair], Layer, Stack]]:
    ranks = _ranks(plan, adapters, files, method)
    for stack in plan.stacks:
        one = _uncut(stack, adapters, files, method)
        yield *one.cut(ranks.get(stack.path, one.wanted)), stack


def _ranks(plan: CombinePlan, adapters: Sequence[Shard], files: Sources, method: Method) -> Mapping[str, int]:
    """By path, of the layers whose rank hangs on others. These are looked at, and made again later: all of them together are too
    much to keep."""
    common = [stack for stack in plan.stacks if stack.has_common_rank]
    if method.max_bytes is None:
        most = max((_wanted(stack, adapters, files, method) for stack in common), default=0)
        return {stack.path: most for stack in common}
    offers = [_uncut(stack, adapters, files, method).offer for stack in plan.stacks if not stack.has_common_rank]
    if common:
        offers.append(_joined([_uncut(stack, adapters, files, method).offer for stack in common]))
    return _alike(plan, _affordable(plan, offers, method.max_bytes))


def _wanted(stack: Stack, adapters: Sequence[Shard], files: Sources, method: Method) -> int:
    """The rank that the method keeps of each of its parts."""
    return _most(stack, method) if method.energy is None else _uncut(stack, adapters, files, method).wanted


def _joined(offers: Sequence[Offer]) -> Offer:
    """Of layers that have one rank, which is enough for each."""
    wanted = max(one.wanted for one in offers)
    energies = torch.zeros(max(len(one.energies) for one in offers), dtype=torch.float64)
    for one in offers:
        energies[: len(one.energies)] += one.energies
    return Offer([layer for one in offers for layer in one.layers], wanted, energies)


def _alike(plan: CombinePlan, ranks: Mapping[str, int]) -> Mapping[str, int]:
    """Two sides of one matrix have the same rank: the lower one, which costs no more."""
    least = [min(ranks[stack.path] for stack in pair) for pair in plan.tied]
    tied = {stack.path: rank for pair, rank in zip(plan.tied, least, strict=True) for stack in pair}
    return {**ranks, **tied}


def _affordable(plan: CombinePlan, found: Sequence[Offer], budget: int) -> Mapping[str, int]:
    """The ranks by path with which the file has ``budget`` bytes at most."""
    ranks = [one.wanted for one in found]
    whole = _file_size(plan, found, ranks)
    if whole > budget:
        # The table at the file's beginning is no longer for a smaller rank, which has no more digits.
        rest = whole - sum(one.cost * rank for one, rank in zip(found, ranks, strict=True))
        least = rest + sum(one.cost for one in found)
        if least > budget:
            raise RejectedError(
                f"rank 1 in every layer takes {least:,} bytes, and the file may have {budget:,}",
                code="too-few-bytes",
                hint="allow more bytes, or store it in a narrower type: --dtype bfloat16",
            )
        ranks = ranks_within([one.energies for one in found], [one.cost for one in found], budget - rest)
    return {stack.path: rank for one, rank in zip(found, ranks, strict=True) for stack, _ in one.layers}


def _file_size(plan: CombinePlan, found: Sequence[Offer], ranks: Sequence[int]) -> int:
    """Of the file of weights, in bytes."""
    specs = [*(one.spec for one in plan.passed), *(one.spec for one in plan.rows)]
    for one, rank in zip(found, ranks, strict=True):
        for stack, shapes in one.layers:
            specs += _specs(plan, stack, shapes, rank)
    placed = laid_out(specs)
    return len(header_of(placed, _METADATA)) + sum(spec.bytes for spec in placed)


def _specs(plan: CombinePlan, stack: Stack, shapes: Sequence[tuple[int, int]], rank: int) -> Iterator[TensorSpec]:
    """Of the factors of a layer."""
    first = stack.shares[0]
    pairs = [
        (torch.empty(rank, inputs, device="meta"), torch.empty(out, rank, device="meta")) for out, inputs in shapes
    ]
    for tail, tensor in zip(stack.tails, unmatrices(pairs, like=first.down.shape, experts=stack.experts), strict=True):
        yield TensorSpec(f"{stack.name}.{tail}", stack.dtype, tuple(tensor.shape))
    if _has_bias(plan, stack):
        yield TensorSpec(f"{stack.name}.lora_B.bias", stack.dtype, (first.up.shape[0],))


def errors(
    plan: CombinePlan, adapters: Sequence[Shard], method: Method, copy: Path, deltas: Mapping[str, LoraDelta]
) -> Iterator[tuple[str, float, float, float]]:
    """For every target how far what the file ``copy`` says is from what the method makes; ‖|B|·|A|‖ there, the size that the
    roundings of the factors go with; and the same of what was added up, with which float64's own go. ``deltas`` is how the
    copy's config reads it."""
    with sources(shard.path for shard in adapters) as files, open_tensors(copy) as made:
        for stack in plan.stacks:
            yield _error(stack, adapters, method, files, made, deltas.get(stack.path))


def _error(
    stack: Stack, adapters: Sequence[Shard], method: Method, files: Sources, made: TensorFile, delta: LoraDelta | None
) -> tuple[str, float, float, float]:
    if delta is None or delta.scaling is None:
        return stack.path, inf, 0.0, 0.0
    pairs = matrices(made.read(delta.down.name), made.read(delta.up.name), experts=stack.experts)
    found = [Factors(*pair, delta.scaling) for pair in pairs]
    size = hypot(*(abs(one.scaling) * product_norm(one.up.double().abs(), one.down.double().abs()) for one in found))
    if method.blend.is_linear:
        sums = _sums(stack, adapters, files)
        apart = [distance(Factors(*pair, 1.0), one) for one, pair in zip(found, sums, strict=True)]
        terms = hypot(*(one.magnitude for one in apart))
        return stack.path, audible(hypot(*(one.difference for one in apart)), terms + size), size, terms
    wanted = _dense(stack, adapters, files, method)
    return stack.path, hypot(*(_apart(one, theirs) for one, theirs in zip(found, wanted, strict=True))), size, size


def _apart(one: Factors, dense: Tensor) -> float:
    down, up = one.down.double(), one.up.double() * one.scaling
    return hypot(*(float(torch.linalg.matrix_norm(up[span] @ down - dense[span])) for span in spans(*dense.shape)))


def _uncut(stack: Stack, adapters: Sequence[Shard], files: Sources, method: Method) -> Uncut:
    most = _most(stack, method)
    if not method.blend.is_linear:
        return _dense_uncut(stack, adapters, files, method, most)
    pairs = list(_sums(stack, adapters, files))
    terms = [size_of_terms(up, down) for down, up in pairs]
    if method.is_exact:
        sizes = [product_norm(up, down) for down, up in pairs]
        return Uncut(stack, pairs, (), [audible(*one) for one in zip(sizes, terms, strict=True)], most)
    parts = [without_noise(decomposed(*pair), size) for pair, size in zip(pairs, terms, strict=True)]
    norms = [float(torch.linalg.vector_norm(one.values)) for one in parts]
    if most < pairs[0][0].shape[0]:
        most = min(most, max(1, *(int(one.values.count_nonzero()) for one in parts)))
    return Uncut(stack, pairs, parts, norms, _enough(parts, norms, method, most))


def _dense_uncut(stack: Stack, adapters: Sequence[Shard], files: Sources, method: Method, wanted: int) -> Uncut:
    parts, norms = [], []
    for dense in _dense(stack, adapters, files, method):
        parts.append(randomized(dense, wanted, generator(method.blend.seed, f"{stack.path} range")))
        norms.append(float(torch.linalg.vector_norm(dense, dtype=torch.float64)))
    return Uncut(stack, (), parts, norms, _enough(parts, norms, method, wanted))


def _most(stack: Stack, method: Method) -> int:
    """The rank that each part of the layer may have; of the sum no more than its factors have."""
    groups, first = _groups(stack), stack.shares[0]
    exact = stack.rank // groups
    asked = exact if method.rank is None else max(method.rank // groups, 1)
    if method.blend.is_linear:
        return min(asked, exact)
    return min(max(asked, 1), first.up.shape[0] // groups, prod(first.down.shape[1:]))


def _enough(parts: Sequence[Decomposition], norms: Sequence[float], method: Method, most: int) -> int:
    """The smallest rank that keeps the share of the whole delta, of which not every value may have been looked for."""
    if method.energy is None:
        return most
    whole = zip(parts, norms, strict=True)
    return min(most, max(rank_for_energy(one.values, method.energy, total=norm**2) for one, norm in whole))


def _lost(values: Tensor, kept: int, norm: float, exact: Sequence[Pair]) -> float:
    """What the rank ``kept`` leaves away of a part; beyond the values that were looked for it is what is missing of the norm."""
    if exact:
        return float(torch.linalg.vector_norm(values[kept:]))
    return sqrt(max(norm**2 - float(values[:kept].square().sum()), 0.0))


def _dense(stack: Stack, adapters: Sequence[Shard], files: Sources, method: Method) -> Iterator[Tensor]:
    """What the method makes of the deltas, in float32; one matrix for each expert, or group of a convolution."""
    weights = [share.weight for share in stack.shares]
    for number, pairs in enumerate(zip(*_parts(stack, adapters, files), strict=True)):
        deltas = [multiplied(down, up, share.scaling) for (down, up), share in zip(pairs, stack.shares, strict=True)]
        yield blended(method.blend, deltas, weights, stack.path, number)


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


def _has_bias(plan: CombinePlan, stack: Stack) -> bool:
    """PEFT wants one of every layer, or of none; an embedding has none."""
    return bool(plan.config.get("lora_bias")) and not stack.embedding


def _bias(stack: Stack, adapters: Sequence[Shard], files: Sources) -> Tensor:
    """Σ wᵢ·sᵢ·bᵢ; zeros where no adapter has one, since PEFT wants it of every layer."""
    total = torch.zeros(stack.shares[0].up.shape[0], dtype=torch.float64)
    for share in stack.shares:
        if share.bias is not None:
            total += read(files, Origin(adapters[share.adapter], share.bias)).double() * share.factor
    return total
