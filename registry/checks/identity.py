"""Is it the base the adapter was trained on? Names first; a family's name proves nothing, the shapes alone neither."""

from __future__ import annotations

import os
from collections.abc import Iterator

from registry.checks.misfit import Misfit, error, warning
from registry.checks.rule import Rule, Subject
from registry.domain.base_model import BaseModelId
from registry.domain.finding import Finding, Severity

_FIX = "check against the base it was trained on; if it is the same under another name, allow base-id"


def other_base(recorded: BaseModelId, asked: BaseModelId) -> Misfit | None:
    """An error if both have a canonical name and the names differ. Revisions are not compared: they move."""
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
            fix="a base of the same shapes would pass too: make sure it is the right one",
        )


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
BASE_FINGERPRINT = Rule(
    "base-fingerprint",
    Severity.WARNING,
    "The shapes recorded with the adapter are those of the base it was checked against when it was pushed.",
    "Check against the checkpoint that was recorded.",
    _fingerprint,
)
