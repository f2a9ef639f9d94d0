"""What it means to understand a PEFT method: from config and tensor table to targets and findings."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from registry.domain.finding import Finding
from registry.domain.manifest import Target
from registry.domain.tensors import TensorSpec
from registry.formats.adapter_config import AdapterConfig


class PatternMatcher(Protocol):
    """Answers questions about module names by PEFT's rules, in bounded time, whatever the patterns are.

    A pattern that could not be evaluated never matches, and is listed in ``unresolved`` afterwards.
    """

    def expect(self, names: Iterable[str]) -> None:
        """Names that will be asked about, so that what is slow can be answered for all of them in one go."""

    def matching_keys(self, keys: Sequence[str], name: str) -> Sequence[str]:
        """In their order, the keys with ``re.match(rf"(.*\\.)?({key})$", name)``."""

    def first_key(self, keys: Sequence[str], name: str) -> str | None:
        """PEFT's ``get_pattern_key``: the first of the matching keys."""

    def fullmatch(self, pattern: str, name: str) -> bool:
        """``re.fullmatch(pattern, name)``: ``target_modules`` given as one string."""

    @property
    def unresolved(self) -> Mapping[str, str]:
        """Pattern → why it could not be evaluated."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What an anatomy made of an adapter. Every tensor is accounted for: it is a factor of a target, belongs to an
    extra module, or is named in a finding."""

    variant: str
    targets: tuple[Target, ...]
    #: Modules saved whole: ``lm_head``, ``classifier``, a resized ``embed_tokens``; full paths.
    extra_modules: tuple[str, ...] = ()
    #: The factors whose being all zero makes a target a no-op (LoRA: every B). Tensor names.
    silent_if_zero: tuple[str, ...] = ()
    #: Names and parameters that the config asks for and no tensor has.
    absent_targets: tuple[str, ...] = ()
    #: Set if the initialisation changed the base itself, so that the tensors are no plain delta: ``pissa``.
    base_change: str | None = None
    findings: tuple[Finding, ...] = ()


Anatomy = Callable[[AdapterConfig, Sequence[TensorSpec], PatternMatcher], Reading]
