"""Do a version's scores hold what a gate asks for?"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from math import isfinite
from pathlib import Path
from typing import Protocol

from registry.domain.evaluation import Evaluation
from registry.domain.gate import Gate, NoRegression, Outcome
from registry.domain.names import AdapterName, AliasName, Reference
from registry.domain.query import MetricCondition
from registry.domain.version import Version
from registry.errors import InvalidInputError, NotFoundError
from registry.formats.gate_file import MAX_BYTES, parse_gate
from registry.operations.directory import open_regular
from registry.operations.hold import hold


class Scores(Protocol):
    """What a catalog and its writer have in common: the writer's answers are those of its transaction."""

    def resolve(self, reference: Reference) -> Version: ...
    def aliases(self, adapter: AdapterName) -> dict[str, int]: ...
    def evaluations(self, version: Version) -> list[Evaluation]: ...


def asked(
    wanted: str | Path | Gate | None = None,
    *,
    against: str | None = None,
    minimum: Sequence[str] = (),
    no_regression: Sequence[str] = (),
    noise: float | None = None,
) -> Gate:
    """A gate's conditions, or those of its file, and those given besides; what is given once only overrules the former.

    Raises InvalidNameError, MalformedFileError, UnsuitableDirectoryError for a file that cannot be read.
    """
    if isinstance(wanted, (str, Path)):
        with open_regular(Path(os.path.realpath(wanted))) as opened:  # the user's own: a mounted one is a link
            gate = parse_gate(opened.read(MAX_BYTES + 1) or b"", where=str(wanted))
    else:
        gate = wanted or Gate()
    minimums = [MetricCondition.parse(text) for text in minimum]
    no_regressions = [NoRegression.parse(text) for text in no_regression]
    if noise is not None and not (isfinite(noise) and noise >= 0):
        raise InvalidInputError(f"a noise of {noise} standard errors cannot be: expected a finite number, 0 or more")
    return replace(
        gate,
        minimums=tuple(dict.fromkeys([*gate.minimums, *minimums])),
        no_regressions=tuple(dict.fromkeys([*gate.no_regressions, *no_regressions])),
        against=against or gate.against,
        noise=gate.noise if noise is None else noise,
    )


def gate(
    reference: Reference, wanted: Gate, *, namespace: str, catalog: Scores, moving: AliasName | None = None
) -> Outcome:
    """``moving`` is the alias that is to be moved, if one is.

    Raises NotFoundError, InvalidInputError for a gate that asks for nothing or does not say against what.
    """
    if wanted.empty:
        raise InvalidInputError("the gate has no condition", code="empty-gate", hint='give --min "acc>=0.8", or a file')
    if wanted.no_regressions and wanted.against is None:
        raise InvalidInputError(
            "the gate does not say what must not be worse than what", code="empty-gate", hint="say --against production"
        )
    candidate = catalog.resolve(reference)
    baseline = _baseline(candidate, wanted.against, namespace, catalog, moving)
    scores = catalog.evaluations(candidate)
    before = None if baseline is None else catalog.evaluations(baseline)
    return Outcome(candidate.reference, baseline.reference if baseline else None, hold(wanted, scores, before))


def _baseline(
    candidate: Version, against: str | None, namespace: str, catalog: Scores, moving: AliasName | None
) -> Version | None:
    """A bare word is an alias of the candidate's adapter. One that is not there yet is a first promotion if it is ``moving``;
    any other has to be there, so that a slip of the pen opens no gate."""
    if against is None:
        return None
    if not any(mark in against for mark in "/@:"):
        alias = AliasName(against)
        numbers = {name.lower(): number for name, number in catalog.aliases(candidate.adapter).items()}
        if alias.key not in numbers and moving is not None and moving.key == alias.key:
            return None
        if alias.key not in numbers:
            raise NotFoundError(
                f"{candidate.adapter} has no alias {alias} to be held against",
                code="unknown-alias",
                hint=f"it has {', '.join(sorted(numbers)) or 'none yet'}; the first promotion to it: adapters promote",
            )
        return catalog.resolve(Reference(candidate.adapter, number=numbers[alias.key]))
    return catalog.resolve(Reference.parse(against, namespace=namespace))
