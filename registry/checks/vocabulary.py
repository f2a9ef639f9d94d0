"""Embeddings: a vocabulary of another size, tokens that are not in it, and one matrix with two names."""

from __future__ import annotations

from collections.abc import Iterator

from registry.checks.heads import VOCABULARY
from registry.checks.matching import Matching, match
from registry.checks.misfit import error, warning
from registry.checks.rule import Rule, Subject
from registry.domain.finding import Finding, Severity


def _resized(subject: Subject) -> Iterator[Finding]:
    matching = match(subject)
    if matching is None:
        return
    for tensor in matching.whole:
        rows, own = _rows(matching, tensor.module), tensor.spec.shape[0] if tensor.spec.shape else None
        if tensor.tail != "weight" or tensor.module.rpartition(".")[2] not in VOCABULARY:
            continue
        if rows is not None and own is not None and rows != own:
            yield warning(
                "vocabulary-resized",
                f"{tensor.spec.name} has {own:,} rows, and the base {rows:,}: the vocabulary "
                f"{'grew' if own > rows else 'shrank'} before training",
                where=tensor.spec.name,
                target=tensor.module,
                expected=f"{rows} rows",
                found=f"{own} rows",
                fix="resize the base's embeddings to that number, and use the adapter's tokenizer",
            )


def _rows(matching: Matching, path: str) -> int | None:
    module = matching.module(path)
    if module is not None and module.shape is not None:
        return module.shape[0]
    return matching.places.base.vocabulary if path in matching.brought else None


def _out_of_range(subject: Subject) -> Iterator[Finding]:
    matching = match(subject)
    if matching is None:
        return
    asked = subject.config.raw.get("trainable_token_indices") or subject.config.raw.get("token_indices")
    by_module = asked if isinstance(asked, dict) else {"": asked}
    whole = [one for one in matching.whole if one.tail == "weight" and one.module.rpartition(".")[2] in VOCABULARY]
    own = matching.places.base.vocabulary or _most_rows(matching)
    limit = max([own, *(one.spec.shape[0] for one in whole if one.spec.shape)])
    for module, indices in by_module.items():
        known = indices if isinstance(indices, list) and limit else []
        beyond = [index for index in known if isinstance(index, int) and not 0 <= index < limit]
        if beyond:
            yield error(
                "token-out-of-range",
                f"the adapter trained token {beyond[0]}, and the vocabulary has {limit:,}",
                where="trainable_token_indices",
                target=module or None,
                expected=f"0 to {limit - 1}",
                found=str(beyond[0]),
                fix="check against the base it was trained on, or save the resized embeddings with the adapter",
            )


def _most_rows(matching: Matching) -> int:
    """Where no config says how large the vocabulary is; 0 where no embedding is known either."""
    modules = (one for one in matching.places.base.modules if one.path.rpartition(".")[2] in VOCABULARY)
    return max((one.shape[0] for one in modules if one.shape is not None and len(one.shape) == 2), default=0)


def _tied(subject: Subject) -> Iterator[Finding]:
    matching = match(subject)
    if matching is None or not matching.places.base.is_tied:
        return
    targets = [target.path for target in subject.manifest.targets]
    for path in dict.fromkeys((*targets, *subject.manifest.extra_modules)):
        if path.rpartition(".")[2] in VOCABULARY:
            yield warning(
                "tied-embeddings",
                f"{path} is changed, and in the base it is one matrix with "
                f"{'the input embedding' if path.endswith(('lm_head', 'embed_out')) else 'the output embedding'}: a merge "
                "changes both or has to untie them",
                target=path,
                fix="serve it unmerged, or merge with a tool that unties (tie_word_embeddings: false and two matrices)",
            )


VOCABULARY_RESIZED = Rule(
    "vocabulary-resized",
    Severity.WARNING,
    "Embeddings for another vocabulary replace the base's, and the tokenizer has to be the adapter's.",
    "Resize the base's embeddings, and use the adapter's tokenizer.",
    _resized,
)
TOKEN_OUT_OF_RANGE = Rule(
    "token-out-of-range",
    Severity.ERROR,
    "Rows of tokens that the vocabulary does not have cannot be put back.",
    "Check against the base it was trained on.",
    _out_of_range,
)
TIED_EMBEDDINGS = Rule(
    "tied-embeddings",
    Severity.WARNING,
    "Where input and output embedding are one matrix, PEFT merges a change to one into both.",
    "Serve it unmerged, or merge with a tool that unties.",
    _tied,
)
