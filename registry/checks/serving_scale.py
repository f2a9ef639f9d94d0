"""Ranks and scaling: what multiplies B·A in the engine, and whether it has room for the factors."""

from __future__ import annotations

from collections.abc import Iterator
from math import isclose, sqrt

from registry.checks.profile import OneRank, Profile, Scaling
from registry.checks.rule import Subject
from registry.checks.serving_words import Noticed, export, quoted
from registry.domain.finding import Severity
from registry.domain.manifest import Target
from registry.variants.findings import some


def rank(subject: Subject, profile: Profile) -> Iterator[Noticed]:
    r, ranks = _ranks(subject)
    cap, highest = profile.max_lora_rank, max(ranks)
    if cap is not None and highest > cap:
        looks_at_patterns = profile.scaling is Scaling.PEFT
        words = profile.messages.get("rank", "") if looks_at_patterns or r > cap else ""
        enough = next((value for value in profile.rank_caps or (highest,) if value >= highest), None)
        yield Noticed(
            Severity.ERROR,
            f"rank {highest} is above the {cap} that {profile.title} has room for"
            f"{quoted(words, rank=highest if looks_at_patterns else r, cap=cap)}",
            "r" if highest == r else "rank_pattern",
            f"start it with --max-lora-rank {enough}" if enough else f"reduce the rank to {max(profile.rank_caps)}",
        )
    padded = sorted(rank for rank in ranks if rank != profile.rank_least and rank % profile.rank_multiple)
    if padded:
        yield Noticed(
            Severity.WARNING,
            f"{profile.title} pads rank {padded[0]} for its kernels, and may then divide alpha by the padded rank",
            "r",
            f"{export(profile)} pads to {profile.rank_least} or a multiple of {profile.rank_multiple} beforehand",
        )


def _ranks(subject: Subject) -> tuple[int, set[int]]:
    """``r``, and with it all ranks that the config or the tensors have."""
    raw = subject.config.raw
    pattern = raw.get("rank_pattern")
    values = pattern.values() if isinstance(pattern, dict) else ()
    r = int(_positive(raw.get("r"), 8))
    stated = {int(number) for value in values if (number := _positive(value, 0))}
    held = {target.rank for target in subject.manifest.targets if target.rank}
    return r, held | stated | ({r} if "r" in raw or not held else set())


def patterns(subject: Subject, profile: Profile) -> Iterator[Noticed]:
    """Modules with a rank or alpha of their own, where the engine has one for all."""
    wrong = _wrongly_scaled(subject, profile, knows_rslora=True)
    if wrong:
        paths, theirs, right = [target.path for target, _ in wrong], wrong[0][1], wrong[0][0].scaling
        yield Noticed(
            Severity.ERROR,
            f"PEFT scales {some(paths)} by {right:g}; {profile.title} does not read the patterns and scales by {theirs:g}",
            "alpha_pattern" if subject.config.truthy("alpha_pattern") else "rank_pattern",
            f"{export(profile)} folds the scale into B",
        )
    uneven = _uneven(subject, profile.one_rank)
    if uneven:
        yield Noticed(
            Severity.ERROR,
            f"{profile.title} needs the same rank in all {uneven}, and the tensors have several",
            "rank_pattern",
            f"{export(profile)} pads all to the highest",
        )


def rslora(subject: Subject, profile: Profile) -> Iterator[Noticed]:
    if subject.config.truthy("use_rslora") and profile.scaling in {Scaling.CONFIG_PLAIN, Scaling.TENSOR}:
        wrong = _wrongly_scaled(subject, profile, knows_rslora=False)
        if wrong:
            paths, theirs, right = [target.path for target, _ in wrong], wrong[0][1], wrong[0][0].scaling
            yield Noticed(
                Severity.ERROR,
                f"use_rslora is true, which {profile.title} leaves out without a word: it scales {some(paths)} by "
                f"{theirs:g}, PEFT by {right:g}",
                "use_rslora",
                f"{export(profile)} writes an alpha that makes up for it, or folds the scale into B",
            )


def _wrongly_scaled(subject: Subject, profile: Profile, *, knows_rslora: bool) -> list[tuple[Target, float]]:
    """The targets that the engine scales otherwise than PEFT, each with the engine's scaling. ``knows_rslora`` asks as
    if the engine knew it, so that each rule speaks of its own subject only."""
    if profile.scaling is Scaling.PEFT:
        return []
    raw = subject.config.raw
    alpha, r = _number(raw.get("lora_alpha"), 8), _positive(raw.get("r"), 8)
    root = knows_rslora and subject.config.truthy("use_rslora")
    found = []
    for target in subject.manifest.targets:
        if target.scaling is not None and target.rank:
            rank = target.rank if profile.scaling is Scaling.TENSOR else r
            theirs = alpha / (sqrt(rank) if root else rank)
            if profile.scaling is Scaling.TENSOR and alpha == 0:
                theirs = 1.0
            if not isclose(theirs, target.scaling, rel_tol=1e-6):
                found.append((target, theirs))
    return found


def _uneven(subject: Subject, one_rank: OneRank) -> str:
    """Among which modules ranks differ where they must not; ``""`` if nowhere."""
    ranks: dict[str, set[int]] = {}
    for target in subject.manifest.targets:
        if target.rank and one_rank is not OneRank.NOWHERE:
            ranks.setdefault(target.name if one_rank is OneRank.NAME else "modules", set()).add(target.rank)
    return next((name for name, values in sorted(ranks.items()) if len(values) > 1), "")


def _number(value: object, default: float) -> float:
    """The number, or the default where the config has none that can be one; other rules speak of that."""
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1 << 31:
        return float(value)
    return default


def _positive(value: object, default: float) -> float:
    number = _number(value, default)
    return number if number >= 1 else default
