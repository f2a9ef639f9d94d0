"""Evaluation results, whoever wrote them: the form is told by the content, where that is not enough by the name.

Every form gives :class:`Evaluation` values whose ``source`` is the file's name. The direction is the file's own, else
common knowledge (:func:`usual_direction`).
"""

from __future__ import annotations

import re

from registry.domain.evaluation import Evaluation, usual_direction
from registry.errors import InvalidInputError, MalformedResultsError
from registry.formats.eval_results_yaml import read_eval_results
from registry.formats.git_lfs import is_lfs_pointer, lfs_pointer_error
from registry.formats.json_lines import parse_json_lines
from registry.formats.json_text import parse_json
from registry.formats.lighteval import is_lighteval, read_lighteval
from registry.formats.lm_eval import read_lm_eval
from registry.formats.model_card import parse_card
from registry.formats.model_index import read_model_index
from registry.formats.plain_data import mapping
from registry.formats.scores import file_name
from registry.formats.trainer_state import (
    is_trainer_state,
    read_trainer_log,
    read_trainer_results,
    read_trainer_state,
)
from registry.formats.yaml_text import parse_yaml

#: With ``--log_samples`` the harness writes every answer into the file.
MAX_BYTES = 1 << 26
#: Scores of a hundred benchmarks fit; a person asked for this file, so a few seconds of parsing are theirs to spend.
MAX_YAML_BYTES = 1 << 18

FORMS = (
    "lm-evaluation-harness and lighteval results, trainer_state.json, all_results.json, trainer_log.jsonl, "
    ".eval_results/*.yaml, and model-index in a README.md"
)

_NUMBER = r"[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?"
_ASSIGNMENT = re.compile(
    rf"(?P<metric>[A-Za-z0-9_][\w@.+-]*)(?:,(?P<filter>[\w.+-]+))?=(?P<value>{_NUMBER})(?:(?:±|\+-)(?P<stderr>{_NUMBER}))?",
    re.ASCII,
)
_LOOKS_ASSIGNED = re.compile(r"[^=/\\\s]+=.*", re.DOTALL)


def read_results(data: bytes, *, where: str) -> tuple[Evaluation, ...]:
    """Every score in the file, at least one.

    Raises :class:`MalformedResultsError` naming the place: of a file that is cut off, of a score that is not finite,
    or the file itself if it is of no known form or holds no known score (code ``no-score``).
    """
    found = _read(data, where)
    if not found:
        raise MalformedResultsError(
            where, "holds no known score", code="no-score", hint=f"known forms: {FORMS}; or give metric=value"
        )
    return found


def is_assignment(text: str) -> bool:
    """Whether ``text`` is meant as ``metric=value`` and not as a file; ``./a=b.json`` is a file."""
    return _LOOKS_ASSIGNED.fullmatch(text) is not None


def parse_assignment(text: str) -> Evaluation:
    """``acc=0.81``, with lm-eval's filter ``acc,none=0.81``, with a standard error ``acc=0.81±0.02`` (or ``+-``)."""
    found = _ASSIGNMENT.fullmatch(text)
    if found is not None:
        value, stderr = float(found["value"]), float(found["stderr"] or 0)
        if value - value == 0 and 0 <= stderr < float("inf"):
            return Evaluation(
                metric=found["metric"],
                value=value,
                stderr=stderr if found["stderr"] else None,
                filter=found["filter"],
                higher_is_better=usual_direction(found["metric"]),
            )
    raise InvalidInputError(
        f"{text!r:.120} is not a score: expected metric=value with a finite number",
        code="malformed-assignment",
        hint="write for example acc=0.81, or acc=0.81±0.02 with its standard error",
    )


def _read(data: bytes, where: str) -> tuple[Evaluation, ...]:
    if is_lfs_pointer(data):
        raise lfs_pointer_error(where, MalformedResultsError)
    name = file_name(where).lower()
    if name.endswith(".jsonl"):
        lines = parse_json_lines(data, where=where, max_bytes=MAX_BYTES, error=MalformedResultsError)
        return read_trainer_log(lines, where=where)
    if name.endswith((".yaml", ".yml")):
        return _from_plain_data(
            parse_yaml(data, where=where, max_bytes=MAX_YAML_BYTES, error=MalformedResultsError), where
        )
    start = data.removeprefix(b"\xef\xbb\xbf").lstrip()
    if name.endswith(".md") or start.startswith(b"---"):
        card = parse_card(data, where=where, max_front_matter=MAX_YAML_BYTES, error=MalformedResultsError)
        return read_model_index(card.model_index, where=where)
    if name.endswith(".json") or start.startswith((b"{", b"[")):
        return _from_plain_data(parse_json(data, where=where, max_bytes=MAX_BYTES, error=MalformedResultsError), where)
    return ()


def _from_plain_data(document: object, where: str) -> tuple[Evaluation, ...]:
    if isinstance(document, list):
        return read_eval_results(document, where=where)
    fields = mapping(document)
    if is_lighteval(fields):
        return read_lighteval(fields, where=where)
    if is_trainer_state(fields):
        return read_trainer_state(fields, where=where)
    if isinstance(fields.get("results"), dict):
        return read_lm_eval(fields, where=where)
    if "model-index" in fields:
        return read_model_index(fields["model-index"], where=where)
    return read_trainer_results(fields, where=where)
