"""What the config asks for, compared with what the tensors have."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from registry.domain.finding import Finding
from registry.formats.adapter_config import AdapterConfig
from registry.variants.anatomy import PatternMatcher
from registry.variants.findings import some, warning

#: Words of a name in target_modules; real ones have at most a dozen.
_DEEPEST = 64
_ALL_LINEAR = "all-linear"


@dataclass(frozen=True, slots=True)
class Absent:
    names: tuple[str, ...]
    findings: tuple[Finding, ...]


def is_asked_for(config: AdapterConfig, path: str, patterns: PatternMatcher) -> bool:
    """Whether ``target_modules`` takes the module: a name is the end of its path, a string is an expression for all of
    it (``peft/tuners/tuners_utils.py``, ``check_target_module_exists``)."""
    asked = config.names("target_modules")
    return asked is not None and not is_all_linear(asked) and picked(asked, path, patterns)


def picked(asked: Sequence[str] | str, path: str, patterns: PatternMatcher) -> bool:
    """The rule itself, which also holds for ``exclude_modules``."""
    if isinstance(asked, str):
        return patterns.fullmatch(asked, path)
    return path in asked or path.endswith(tuple(f".{name}" for name in asked))


def absent_targets(
    config: AdapterConfig, paths: Sequence[str], patterns: PatternMatcher, parameters: Sequence[str] = ()
) -> Absent:
    """The asked-for names that none of the targets has. Dead names are normal: trainers list the modules of every
    architecture they know."""
    asked = config.names("target_modules")
    if not asked or is_all_linear(asked):
        asked = ()
    if isinstance(asked, str):
        return Absent((), tuple(_expression(asked, paths, patterns)))
    ends = {end for path in paths for end in _ends(path)}
    absent = [name for name in sorted({*asked, *parameters}) if name and name not in ends]
    if not absent:
        return Absent((), ())
    return Absent(
        tuple(absent),
        (
            warning(
                "absent-target",
                f"the config asks for {some([repr(name) for name in absent])}, and no tensor belongs to it",
                where="target_modules",
                fix="nothing, if the base has no such module; otherwise part of the adapter is missing, save it again",
            ),
        ),
    )


def _expression(asked: str, paths: Sequence[str], patterns: PatternMatcher) -> Iterable[Finding]:
    matches = any(patterns.fullmatch(asked, path) for path in paths)
    if asked in patterns.unresolved:
        yield warning(
            "pattern-unresolved",
            f"target_modules: {asked!r:.200} could not be evaluated: {patterns.unresolved[asked]}",
            where="target_modules",
            fix="list the module names, or write the pattern without look-around and nested repeats",
        )
    elif paths and not matches:
        yield warning(
            "pattern-matches-nothing",
            f"target_modules: {asked!r:.200} matches none of the modules that the tensors belong to",
            where="target_modules",
            fix="correct the expression; it has to match the whole module path",
        )


def is_all_linear(asked: Sequence[str] | str) -> bool:
    names = (asked,) if isinstance(asked, str) else asked
    return any(name.lower() == _ALL_LINEAR for name in names)


def _ends(path: str) -> Iterable[str]:
    """The path itself and its last words, up to :data:`_DEEPEST` of them: a hostile name has hundreds of thousands."""
    yield path
    words = path.rsplit(".", _DEEPEST)[1:]
    for first in range(len(words)):
        yield ".".join(words[first:])
