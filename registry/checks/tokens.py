"""Rows of single tokens: do the rows of the file lie where PEFT looks for them in this base?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from registry.checks.brought import HEADS
from registry.checks.heads import VOCABULARY
from registry.checks.matching import Matching, match
from registry.checks.misfit import Misfit, error
from registry.checks.rule import Rule, Subject
from registry.domain.base_model import ModuleKind
from registry.domain.finding import Finding, Severity
from registry.variants.tensor_names import PREFIX
from registry.variants.token_rows import DELTA, WRAPPER, rows_missing, token_indices

#: Both sides of what may be one matrix.
_EMBEDDINGS = VOCABULARY | HEADS
_FIX = "check against the base it was trained on, or save the adapter again"


def _elsewhere(subject: Subject) -> Iterator[Finding]:
    matching, asked = match(subject), token_indices(subject.config)
    if matching is None or asked is None:
        return
    ending = f"{WRAPPER}.{DELTA}"
    names = (spec.name.removeprefix(PREFIX) for spec in subject.manifest.tensors if spec.name.endswith(ending))
    rows = [name.removesuffix(ending) for name in names]
    if isinstance(asked, Mapping):
        yield from _not_tied(asked, rows, matching)
    else:
        yield from _not_input(rows, matching)


def _not_tied(asked: Mapping[str, Sequence[int]], rows: Sequence[str], matching: Matching) -> Iterator[Misfit]:
    """The same tokens of two embeddings are in the file once, and that is enough where the two are one matrix."""
    missing = rows_missing(asked, rows)
    held = [asked[name] for name in asked if name not in missing]
    for name in missing:
        is_tied = matching.places.base.is_tied and name.rpartition(".")[2] in _EMBEDDINGS
        if asked[name] in held and not is_tied:  # without such a twin the adapter contradicts itself, whatever the base
            yield error(
                "token-rows-elsewhere",
                f"trainable_token_indices names tokens of {name:.200}, and the file has rows of them for another embedding, "
                "which in this base is another matrix: PEFT cannot load the adapter",
                where="trainable_token_indices",
                target=name,
                expected=f"rows of {name:.200}",
                found="none",
                fix=_FIX,
            )


def _not_input(rows: Sequence[str], matching: Matching) -> Iterator[Misfit]:
    """Rows of the output embedding are no harm beside those of the input, where the two are one matrix."""
    outputs = [path for path in rows if _is_output(path, matching)]
    if len(outputs) < len(rows) and matching.places.base.is_tied:
        return
    for path in outputs:
        yield error(
            "token-rows-elsewhere",
            f"trainable_token_indices is a list, for the input embedding, and the file has its rows for {path}, which in "
            "this base is none: PEFT cannot load the adapter",
            where="trainable_token_indices",
            target=path,
            expected="rows of the input embedding",
            found=path,
            fix=_FIX,
        )


def _is_output(path: str, matching: Matching) -> bool:
    module = matching.module(path)
    is_matrix = module is not None and module.kind in (ModuleKind.LINEAR, ModuleKind.CONV1D)
    return is_matrix or path in matching.brought


TOKEN_ROWS_ELSEWHERE = Rule(
    "token-rows-elsewhere",
    Severity.ERROR,
    "PEFT looks for the rows of each embedding that trainable_token_indices means, and loads nothing where they are missing.",
    _FIX,
    _elsewhere,
)
