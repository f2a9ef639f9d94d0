"""What a rule is, and what it looks at."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from registry.domain.digest import Digest
from registry.domain.finding import Finding, Severity
from registry.domain.manifest import Manifest

if TYPE_CHECKING:
    from registry.checks.profile import Profile
    from registry.domain.base_model import BaseModelSpec
    from registry.formats.adapter_config import AdapterConfig


@dataclass(frozen=True, slots=True)
class Subject:
    """An adapter, with the base it is held against and the engine that is to serve it, as far as they are known.

    ``trained_weights`` is the weights fingerprint of the base that the adapter records, where somebody has hashed it.
    """

    manifest: Manifest
    config: AdapterConfig
    base: BaseModelSpec | None = None
    profile: Profile | None = None
    trained_weights: Digest | None = None


@dataclass(frozen=True, slots=True)
class Rule:
    """``adapters rules`` prints one as it stands here: what it is called, how grave, why it exists, what to do."""

    id: str
    severity: Severity
    reason: str
    fix: str
    check: Callable[[Subject], Iterator[Finding]]
