"""Is it the base the adapter was trained on? Names first; a family's name proves nothing, the shapes alone neither."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from registry.checks.misfit import Misfit, error, warning
from registry.checks.rule import Rule, Subject
from registry.domain.base_model import BaseModelId
from registry.domain.finding import Finding, Severity
from registry.formats.base_model_text import is_copy

_FIX = "check against the base it was trained on; if it is the same under another name, allow base-id"
_WEIGHTS_FIX = "check against the base it was trained on; if it is meant for these weights too, allow base-weights"
_REVISION_FIX = "check against that revision, or hash both: adapters base add DIR --name ID@REVISION --hash-weights"
#: A commit; names of branches and tags move.
_PINNED = re.compile(r"[0-9a-f]{40}")


def other_base(recorded: BaseModelId, asked: BaseModelId) -> Misfit | None:
    """An error if both have a canonical name and the names differ."""
    if recorded.id is None or asked.id is None or recorded.id.lower() == asked.id.lower():
        return None
    return error(
        "base-id",
        f"the adapter was trained on {recorded.id}, and this is {asked.id}",
        where="base_model_name_or_path",
        expected=recorded.id,
        found=asked.id,
        fix=_FIX,
    )


def _base_id(subject: Subject) -> Iterator[Finding]:
    if subject.base is not None and (problem := other_base(subject.manifest.base_model, subject.base.id)) is not None:
        yield problem


def _base_unknown(subject: Subject) -> Iterator[Finding]:
    if subject.base is None:
        return
    recorded, asked = subject.manifest.base_model, subject.base.id
    directory = os.path.basename((asked.raw or "").rstrip("/"))
    if asked.id is None and (recorded.id is None or recorded.id.rpartition("/")[2].lower() != directory.lower()):
        yield warning(
            "base-unproven",
            f"nothing says that {asked.raw or 'this base'} is {recorded.id or 'what the adapter was trained on'}; "
            "only names and shapes of modules were compared",
            where="base_model_name_or_path",
            expected=recorded.id,
            found=asked.raw,
            fix="a base of the same shapes would pass too: make sure it is the right one; once it is known by its weights, "
            "these tell: adapters base add DIR --name OWNER/NAME --hash-weights",
        )


def _weights(subject: Subject) -> Iterator[Finding]:
    """Silent where the names differ already, which base-id says."""
    recorded, base, trained = subject.manifest.base_model, subject.base, subject.trained_weights
    asked = base.weights_fingerprint if base is not None else None
    if base is None or trained is None or asked is None or other_base(recorded, base.id) is not None:
        return
    if trained != asked:
        yield error(
            "base-weights",
            f"the adapter was trained on {_called(recorded)}, and {_called(base.id)} has other weights",
            where="base_model_name_or_path",
            expected=trained,
            found=asked,
            fix=_WEIGHTS_FIX,
        )


def _revision(subject: Subject) -> Iterator[Finding]:
    """Where both bases were hashed, their weights decide, and revisions say nothing more."""
    if subject.base is None or (subject.trained_weights is not None and subject.base.weights_fingerprint is not None):
        return
    problem = other_revision(subject.manifest.base_model, subject.base.id)
    if problem is not None:
        yield problem


def other_revision(recorded: BaseModelId, asked: BaseModelId) -> Misfit | None:
    """A warning if the adapter pins a commit of the base, and the base is of another one. What a copy of the base pins is
    a commit of the copy."""
    pinned, held = recorded.revision or "", asked.revision or ""
    same_name = recorded.id is not None and asked.id is not None and recorded.id.lower() == asked.id.lower()
    if not same_name or not held or not _PINNED.fullmatch(pinned) or pinned.startswith(held.lower()):
        return None
    if is_copy(recorded.raw or ""):
        return None
    return warning(
        "base-revision",
        f"the adapter was trained on {_called(recorded)}, and this is @{_short(held)}; nothing says that the weights are the "
        "same",
        where="revision",
        expected=pinned,
        found=held,
        fix=_REVISION_FIX,
    )


def _called(base: BaseModelId) -> str:
    name = base.id or base.raw or "another base"
    return f"{name}@{_short(base.revision)}" if base.revision else name


def _short(revision: str) -> str:
    return revision[:12] if _PINNED.fullmatch(revision) else revision[:40]


def _fingerprint(subject: Subject) -> Iterator[Finding]:
    recorded = subject.manifest.base_model.fingerprint
    if subject.base is not None and recorded is not None and recorded != subject.base.fingerprint:
        yield warning(
            "base-fingerprint",
            "the base's table of shapes is not the one recorded with the adapter",
            where="base_model_name_or_path",
            expected=recorded,
            found=subject.base.fingerprint,
            fix="check against the checkpoint it was recorded with; its files may have changed",
        )


BASE_ID = Rule(
    "base-id",
    Severity.ERROR,
    "An adapter loads onto any base of equal shapes and then answers nonsense without a word.",
    _FIX,
    _base_id,
)
BASE_UNPROVEN = Rule(
    "base-unproven",
    Severity.WARNING,
    "A local directory has no name of its own, and a base and what was tuned from it have the same shapes.",
    "Make sure that the directory holds the base the adapter was trained on.",
    _base_unknown,
)
BASE_WEIGHTS = Rule(
    "base-weights",
    Severity.ERROR,
    "Two revisions of a base have the same names and shapes, and an adapter to one answers nonsense on the other.",
    _WEIGHTS_FIX,
    _weights,
)
BASE_REVISION = Rule(
    "base-revision",
    Severity.WARNING,
    "An adapter that pins a commit of its base was trained on those weights, and another commit may have others.",
    _REVISION_FIX,
    _revision,
)
BASE_FINGERPRINT = Rule(
    "base-fingerprint",
    Severity.WARNING,
    "The shapes recorded with the adapter are those of the base it was checked against when it was pushed.",
    "Check against the checkpoint that was recorded.",
    _fingerprint,
)
