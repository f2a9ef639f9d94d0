"""One alpha and one rank for an engine that has no more: the rest of every module's scaling moves into its B.

PEFT scales target t by s(t). The engine will scale it by α'/d(t), where d is the one rank R of all modules or, where the
engine looks at the tensors, the target's own; so B(t) is multiplied by s(t)·d(t)/α', and A and B are filled up with zeros
to R, which leaves B·A as it is.

α' is a whole number, since engines declare it as one: the one that leaves most B untouched. A rsLoRA of one rank whose
α·√r is whole needs no multiplication at all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import isclose

from registry.checks import serving_scale
from registry.checks.misfit import error
from registry.checks.profile import Profile, Scaling
from registry.checks.repair_words import Change
from registry.checks.rule import Subject
from registry.domain.finding import Finding
from registry.domain.manifest import Target
from registry.variants.extras import without_base_layer
from registry.variants.findings import some
from registry.variants.lora_layers import LoraLayer

#: Variants whose delta is s·B·A and nothing else.
_PLAIN = frozenset({"lora", "alora", "monteclora", "velora"})
_MOST_ALPHA = 1 << 24  #: engines keep alpha as a 32-bit integer or float
_ROUNDING = 1e-12  #: of a few float64 operations


@dataclass(frozen=True, slots=True)
class Rescaling:
    """By target path: what B is multiplied by, and the rank that A and B are padded to. ``alpha`` is None where nothing is
    rescaled; ``rank`` where the engine goes by the rank of the tensors."""

    alpha: int | None = None
    rank: int | None = None
    factors: Mapping[str, float] = field(default_factory=dict)
    ranks: Mapping[str, int] = field(default_factory=dict)
    changes: tuple[Change, ...] = ()
    problems: tuple[Finding, ...] = ()


def rescaling_of(subject: Subject, profile: Profile, layers: Mapping[str, LoraLayer]) -> Rescaling:
    """Nothing for engines that scale as PEFT does, and for variants that are more than s·B·A."""
    manifest = subject.manifest
    is_plain = (
        manifest.peft_type == "LORA" and manifest.variant in _PLAIN and all(not one.bias for one in layers.values())
    )
    if profile.scaling is Scaling.PEFT or not is_plain:
        return Rescaling()
    targets = [target for target in manifest.targets if target.scaling is not None and target.rank]
    if len(targets) < len(manifest.targets) or not targets:
        unknown = [target.path for target in manifest.targets if target not in targets]
        return Rescaling(problems=tuple(_unknown(unknown, profile)))
    if not _is_needed(subject, profile):
        return Rescaling()
    rank = None if profile.scaling is Scaling.TENSOR else room_for(max(_rank(target) for target in targets), profile)
    alpha = _alpha(targets, rank)
    ranks = {target.path: rank for target in targets if rank is not None and target.rank != rank}
    factors = {target.path: _factor(target, alpha, rank) for target in targets}
    return Rescaling(
        alpha=alpha,
        rank=rank,
        factors=factors,
        ranks=ranks,
        changes=tuple(_said(subject, targets, factors, ranks, alpha, rank)),
        problems=tuple(_not_padded(ranks, layers, profile)),
    )


def room_for(rank: int, profile: Profile) -> int:
    """The least rank not below this one that the engine's kernels serve without padding."""
    if rank <= profile.rank_least:
        return profile.rank_least if profile.rank_multiple > 1 else rank
    return -(-rank // profile.rank_multiple) * profile.rank_multiple


def _is_needed(subject: Subject, profile: Profile) -> bool:
    """By the rules' own findings; and always where a pattern would stay in the config that the engine does not read."""
    config = subject.config
    reads_ranks = profile.scaling is Scaling.TENSOR
    if config.truthy("alpha_pattern") or (config.truthy("rank_pattern") and not reads_ranks):
        return True
    if config.truthy("use_rslora") and config.truthy("target_parameters") and "target_parameters" in profile.limits:
        return True  # experts are scaled by another code than the other modules, which may not know rsLoRA
    noticed = (*serving_scale.patterns(subject, profile), *serving_scale.rslora(subject, profile))
    odd = any(room_for(_rank(target), profile) != target.rank for target in subject.manifest.targets)
    return bool(noticed) or odd


def _alpha(targets: Sequence[Target], rank: int | None) -> int:
    """The commonest whole s·d, of several the least; where there is none the commonest d, which makes the engine's scaling
    1."""
    whole = Counter(
        round(value)
        for value in (_scaling(target) * _divisor(target, rank) for target in targets)
        if 1 <= value <= _MOST_ALPHA and isclose(value, round(value), rel_tol=_ROUNDING)
    )
    counts = whole or Counter(_divisor(target, rank) for target in targets)
    return min(counts, key=lambda alpha: (-counts[alpha], alpha))


def _factor(target: Target, alpha: int, rank: int | None) -> float:
    factor = _scaling(target) * _divisor(target, rank) / alpha
    return 1.0 if isclose(factor, 1, rel_tol=_ROUNDING) else factor


def _divisor(target: Target, rank: int | None) -> int:
    return _rank(target) if rank is None else rank


def _rank(target: Target) -> int:
    return target.rank or 0


def _scaling(target: Target) -> float:
    return target.scaling or 0.0


def _said(
    subject: Subject,
    targets: Sequence[Target],
    factors: Mapping[str, float],
    ranks: Mapping[str, int],
    alpha: int,
    rank: int | None,
) -> Iterator[Change]:
    folded = [target for target in targets if factors[target.path] != 1]
    if folded:
        first = folded[0]
        yield Change(
            "scale-folded",
            f"lora_B of {len(folded)} of {len(targets)} modules is multiplied by what lora_alpha and r do not say: "
            f"{first.path} by {factors[first.path]:.9g}",
        )
    if ranks:
        found = sorted({_rank(target) for target in targets if target.path in ranks})
        yield Change(
            "rank-padded",
            f"{len(ranks)} of {len(targets)} modules are filled up with zeros from rank {', '.join(map(str, found))} to {rank}",
        )
    was = subject.config.raw.get("lora_alpha")
    if was != alpha:
        yield Change("alpha-adjusted", f"lora_alpha is {alpha}, was {'not there' if was is None else was}")
    emptied = [
        name
        for name in ("use_rslora", "alpha_pattern", *(("rank_pattern",) if rank else ()))
        if subject.config.truthy(name)
    ]
    if emptied:
        yield Change("scaling-plain", f"{some(emptied)} cleared: every module has the same lora_alpha and r")


def _unknown(paths: Sequence[str], profile: Profile) -> Iterator[Finding]:
    if paths:
        yield error(
            "scaling-unknown",
            f"how PEFT scales {some(paths)} cannot be known here, so no copy for {profile.title} can be shown to be equal",
            where="alpha_pattern",
            fix="write rank_pattern and alpha_pattern without look-around, back-references and nested repeats",
        )


def _not_padded(ranks: Mapping[str, int], layers: Mapping[str, LoraLayer], profile: Profile) -> Iterator[Finding]:
    """Where rows of A and columns of B are not simply one for each rank."""
    experts, groups = [], []
    for path in ranks:
        layer = layers.get(path)
        if layer is None or layer.pair is None:
            continue
        a, b = layer.pair
        if len(a.shape) > 2 and a.shape[0] != b.shape[1]:
            groups.append(path)
        elif wrapped_parameter(path, layer):
            experts.append(path)
    for paths, what in (
        (experts, "fused experts, whose order in lora_B differs from trainer to trainer"),
        (groups, "convolutions in groups"),
    ):
        if paths:
            yield error(
                "rank-not-padded",
                f"{profile.title} needs one rank in all modules, and {some(paths)} {'is' if len(paths) == 1 else 'are'} "
                f"{what}: padding them is not understood",
                where=paths[0],
                fix=profile.way_out,
            )


def wrapped_parameter(path: str, layer: LoraLayer) -> bool:
    """Whether the target is a bare parameter, whose name the tensors' names lack."""
    return path != without_base_layer(layer.path)
