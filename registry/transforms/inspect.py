"""What adapters are made of, seen from their factors: spectra, norms, and how two of them lie to each other.

A target with several deltas (fused experts, groups of a convolution) counts as one: norms and inner products add up, and
its spectrum is the root mean square of theirs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import hypot, isfinite, sqrt

import torch

from registry.domain.checkpoint import Shard
from registry.domain.tensors import TensorSpec
from registry.errors import MalformedFileError
from registry.numerics.low_rank import (
    Factors,
    audible,
    effective_rank,
    inner,
    principal_cosines,
    product_norm,
    rank_for_energy,
    size_of_terms,
    spectrum,
)
from registry.plans.merging import Origin
from registry.plans.results import Likeness, Spectrum
from registry.transforms.layout import matrices
from registry.transforms.streaming import read
from registry.variants.lora_targets import LoraDelta
from registry.weights.dtypes import TORCH_DTYPES
from registry.weights.streams import Sources, sources

#: Rows of a base's weight that are squared in one go, in elements.
_PIECE = 1 << 22
#: Columns of a delta that are looked at in one go.
_COLUMNS = 8192


def spectra(weights: Shard, deltas: Mapping[str, LoraDelta], *, energy: float = 0.99) -> Iterator[Spectrum]:
    """Of every target; all scalings must be known."""
    with sources([weights.path]) as files:
        for path, delta in deltas.items():
            pairs = _factors(weights, delta, files)
            found = torch.stack([spectrum(one.down, one.up) * abs(one.scaling) for one in pairs])
            values = found.square().mean(dim=0).sqrt()
            yield Spectrum(
                path,
                delta.rank or delta.down.shape[0],
                pairs[0].scaling,
                tuple(values.tolist()),
                float(torch.linalg.vector_norm(found)),
                effective_rank(values),
                rank_for_energy(values, energy),
            )


def likenesses(
    one: tuple[Shard, Mapping[str, LoraDelta]], other: tuple[Shard, Mapping[str, LoraDelta]]
) -> Iterator[Likeness]:
    """Of every target that both have, if the shapes are the same."""
    with sources({one[0].path, other[0].path}) as files:
        for path, delta in one[1].items():
            theirs = other[1].get(path)
            if theirs is None or not _alike(delta, theirs):
                continue
            pairs = list(zip(_factors(one[0], delta, files), _factors(other[0], theirs, files), strict=True))
            angles = [principal_cosines(a, b) for a, b in pairs]
            alike = min(len(each) for each in angles)
            yield Likeness(
                path,
                sum(inner(a, b) for a, b in pairs),
                hypot(*(_norm(a) for a, _ in pairs)),
                hypot(*(_norm(b) for _, b in pairs)),
                tuple(torch.stack([each[:alike] for each in angles]).mean(dim=0).tolist()),
            )


def norms_of(tensors: Mapping[str, tuple[Shard, TensorSpec]]) -> dict[str, float]:
    """‖W‖ of stored tensors, read in pieces."""
    found = {}
    with sources({shard.path for shard, _ in tensors.values()}) as files:
        for name, (shard, spec) in tensors.items():
            found[name] = sqrt(sum(_squares(shard, spec, files)))
            if not isfinite(found[name]):
                raise MalformedFileError(
                    str(shard.path),
                    f"{name} holds NaN or infinity",
                    code="nonfinite-tensor",
                    hint="get the checkpoint again",
                )
    return found


def conflicts(
    adapters: Sequence[tuple[Shard, Mapping[str, LoraDelta], float]], path: str, *, rows: int = 256
) -> tuple[int, int]:
    """In how many elements of a target the weighted deltas have both signs, and how many were looked at: of all columns and
    about so many rows, spread evenly over the target's matrices, and at least one of each. Memory is that of a block."""
    held = [(shard, deltas[path], weight) for shard, deltas, weight in adapters if path in deltas]
    if len(held) < 2:
        return 0, 0
    both = looked_at = 0
    with sources({shard.path for shard, _, _ in held}) as files:
        factors = [_factors(shard, delta, files) for shard, delta, _ in held]
    for pairs in zip(*factors, strict=True):
        step = max(1, pairs[0].up.shape[0] * len(factors[0]) // rows)
        ups = [one.up[::step] * (one.scaling * weight) for one, (_, _, weight) in zip(pairs, held, strict=True)]
        for start in range(0, pairs[0].down.shape[1], _COLUMNS):
            blocks = [up @ one.down[:, start : start + _COLUMNS] for up, one in zip(ups, pairs, strict=True)]
            above = torch.stack([block > 0 for block in blocks]).any(dim=0)
            below = torch.stack([block < 0 for block in blocks]).any(dim=0)
            both += int((above & below).sum())
            looked_at += above.numel()
    return both, looked_at


def _factors(weights: Shard, delta: LoraDelta, files: Sources) -> list[Factors]:
    if delta.scaling is None:
        raise ValueError("the scaling of a delta must be known")
    down, up = (read(files, Origin(weights, spec)).double() for spec in (delta.down, delta.up))
    return [Factors(a, b, delta.scaling) for a, b in matrices(down, up, experts=delta.experts)]


def _alike(one: LoraDelta, other: LoraDelta) -> bool:
    return (
        one.down.shape[1:] == other.down.shape[1:]
        and one.up.shape[0] == other.up.shape[0]
        and one.experts == other.experts
    )


def _norm(one: Factors) -> float:
    return abs(one.scaling) * audible(product_norm(one.up, one.down), size_of_terms(one.up, one.down))


def _squares(shard: Shard, spec: TensorSpec, files: Sources) -> Iterator[float]:
    dtype = TORCH_DTYPES[spec.dtype]
    for start in range(0, spec.bytes, _PIECE * dtype.itemsize):
        data = bytearray(min(_PIECE * dtype.itemsize, spec.bytes - start))
        files.read_into(shard.path, shard.data_start + spec.start + start, memoryview(data))
        yield float(torch.frombuffer(data, dtype=dtype).double().square().sum())
