"""The anatomy that almost all methods share: parameters of their own below each module they adapt.

A method says what its parameters are called, which of them show the rank, and what its layer's ``scaling`` is; reading
the file, its extra modules and its findings is the same for all. Ranks and scalings are those PEFT's layers hold
(``layer.r[adapter]``, ``layer.scaling[adapter]``), so that a method without either has None.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from registry.domain.finding import Finding
from registry.domain.manifest import Target
from registry.domain.tensors import TensorSpec
from registry.formats.adapter_config import AdapterConfig
from registry.variants.anatomy import PatternMatcher, Reading
from registry.variants.extras import read_extras, without_base_layer
from registry.variants.findings import error
from registry.variants.lora_checks import shown, zero_size
from registry.variants.natural_order import natural
from registry.variants.pattern_table import PatternTable
from registry.variants.settings import positive_ranks
from registry.variants.tensor_names import Place, places
from registry.variants.wanted import absent_targets

#: The tensors of one module, by tail: ``{"hada_w1_a": …}``.
Parts = Mapping[str, TensorSpec]


def size_of(tail: str, dimension: int) -> Callable[[Parts], int | None]:
    """The rank is this dimension of that tensor, where the module has it."""

    def rank(parts: Parts) -> int | None:
        spec = parts.get(tail)
        return spec.shape[dimension] if spec is not None and -len(spec.shape) <= dimension < len(spec.shape) else None

    return rank


def first_of(*ways: Callable[[Parts], int | None]) -> Callable[[Parts], int | None]:
    return lambda parts: next((rank for way in ways if (rank := way(parts)) is not None), None)


def alpha_over_rank(_config: AdapterConfig, rank: int | None, alpha: float | None) -> float | None:
    return None if not rank or alpha is None else alpha / rank


def configured_scaling(config: AdapterConfig, _rank: int | None, _alpha: float | None) -> float | None:
    return config.number("scaling", 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """Calling it reads an adapter: a ``Method`` is an :data:`~registry.variants.anatomy.Anatomy`."""

    variant: str
    #: How its parameters' names start, and what tails they have below a module.
    mark: str
    tails: str
    #: What stands directly below ``base_model.`` because all modules share it.
    shared: str | None = None
    #: Sets of tails of which a module has all or none.
    together: tuple[frozenset[str], ...] = ()
    rank: Callable[[Parts], int | None] | None = None
    #: PEFT's default for ``r``, if the rank in the tensors has to be that of the config.
    config_rank: int | None = None
    #: Whether the config's rank is taken where no tensor shows one, as PEFT's layer does.
    rank_from_config: bool = False
    has_patterns: bool = False
    #: The field of alpha and its default.
    alpha: tuple[str, float] | None = None
    scaling: Callable[[AdapterConfig, int | None, float | None], float | None] | None = None
    #: Tails that start as zero, so that a module whose tensor still is does nothing.
    silent: tuple[str, ...] = ()
    #: Whether an adapter of this method has to have tensors below modules.
    needs_modules: bool = True
    #: Modules whose empty tensors are meant.
    may_be_empty: Callable[[AdapterConfig, str], bool] | None = None

    def __call__(self, config: AdapterConfig, tensors: Sequence[TensorSpec], patterns: PatternMatcher) -> Reading:
        tails = re.compile(self.tails)
        found, findings = places(tensors, self.mark, tails, re.compile(self.shared) if self.shared else None)
        modules, left = self._gather(found, tails)
        ranks, alphas = self._tables(config, patterns)
        patterns.expect(modules)
        targets = []
        empty: list[TensorSpec] = []
        for path, parts in modules.items():
            if any(0 in spec.shape for spec in parts.values()):
                if self.may_be_empty is not None and self.may_be_empty(config, path):
                    targets.append(Target(path, rank=0))
                    continue
                empty += parts.values()
            findings += self._orphans(parts)
            rank = self.rank(parts) if self.rank is not None else None
            asked = ranks.value(path) if ranks is not None else None
            if rank is None and self.rank_from_config:
                rank = asked
            elif None not in (rank, asked) and rank != asked:
                findings.append(_mismatch(path, parts, rank, asked))
            alpha = alphas.value(path) if alphas is not None else None
            scaling = self.scaling(config, rank, alpha) if self.scaling is not None else None
            targets.append(Target(path, rank, alpha, scaling))
        targets.sort(key=lambda target: natural(target.path))
        extras = read_extras(config, left, self.mark)
        absent = absent_targets(config, [target.path for target in targets] if self.needs_modules else [], patterns)
        return Reading(
            variant=self.variant,
            targets=tuple(targets),
            extra_modules=extras.modules,
            silent_if_zero=tuple(
                parts[tail].name for parts in modules.values() for tail in self.silent if tail in parts
            ),
            absent_targets=absent.names if self.needs_modules else (),
            findings=(
                *findings,
                *zero_size(empty),
                *zero_size(place.spec for place in found if place in left or not place.path),
                *self._nothing(targets),
                *extras.findings,
                *(absent.findings if self.needs_modules else ()),
                *(ranks.findings() if ranks is not None and self.has_patterns else ()),
                *(alphas.findings() if alphas is not None and self.has_patterns else ()),
            ),
        )

    def gather(self, tensors: Iterable[TensorSpec]) -> tuple[Mapping[str, Parts], list[Place]]:
        """The tensors of each module by its path, and those that are no parameters of the method. What stands for all modules
        is in neither."""
        tails = re.compile(self.tails)
        found, _ = places(tensors, self.mark, tails, re.compile(self.shared) if self.shared else None)
        return self._gather(found, tails)

    def _gather(
        self, found: Iterable[Place], tails: re.Pattern[str]
    ) -> tuple[dict[str, dict[str, TensorSpec]], list[Place]]:
        modules: dict[str, dict[str, TensorSpec]] = {}
        left: list[Place] = []
        shared = re.compile(self.shared) if self.shared else None
        for place in found:
            if place.path and tails.fullmatch(place.tail):
                parts = modules.setdefault(without_base_layer(place.path), {})
                if place.tail in parts:
                    left.append(place)
                else:
                    parts[place.tail] = place.spec
            elif place.path or shared is None or shared.fullmatch(place.tail) is None:
                left.append(place)
        return modules, left

    def _tables(
        self, config: AdapterConfig, patterns: PatternMatcher
    ) -> tuple[PatternTable[int] | None, PatternTable[float] | None]:
        ranks: PatternTable[int] | None = None
        alphas: PatternTable[float] | None = None
        if self.config_rank is not None:
            asked = positive_ranks(config, self.config_rank, with_pattern=self.has_patterns)
            ranks = PatternTable("rank_pattern", asked.pattern, asked.r, patterns)
        if self.alpha is not None:
            field, default = self.alpha
            by_pattern = config.numbers_by_pattern("alpha_pattern") if self.has_patterns else {}
            alphas = PatternTable("alpha_pattern", by_pattern, config.number(field, default), patterns)
        return ranks, alphas

    def _orphans(self, parts: Parts) -> Iterable[Finding]:
        for group in self.together:
            missing = sorted(group - set(parts))
            if missing and len(missing) < len(group):
                present = parts[next(tail for tail in parts if tail in group)]
                yield error(
                    "orphan-factor",
                    f"{present.name} has no {' and no '.join(missing)}: the file is incomplete",
                    where=present.name,
                    fix="save or upload the adapter again",
                )

    def _nothing(self, targets: Sequence[Target]) -> Iterable[Finding]:
        if self.needs_modules and not targets:
            yield error(
                "no-targets",
                f"the config says {self.variant.upper()} and the file has none of its tensors: it would do nothing",
                fix="check that training saved the adapter, and that this is its file",
            )


def _mismatch(path: str, parts: Parts, rank: int | None, asked: int | None) -> Finding:
    spec = next(iter(parts.values()))
    return error(
        "rank-mismatch",
        f"{path} has rank {rank} ({spec.name} is {shown(spec.shape)}), and the config gives it {asked}",
        where=spec.name,
        fix="correct r or rank_pattern in adapter_config.json; PEFT cannot load the adapter as it is",
    )
