"""Rows of single tokens that LoRA trains beside its factors: ``trainable_token_indices`` and ``trainable_tokens_delta``.

The config names the tokens of the input embedding as one list, or of several embeddings by the ends of their paths. PEFT
makes a wrapper for each and wants its rows from the file; rows that no wrapper waits for are dropped without a word. Where
two embeddings are one matrix, and the same tokens of both are named, the file holds the rows once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from registry.domain.finding import Finding
from registry.domain.tensors import TensorSpec
from registry.formats.adapter_config import AdapterConfig
from registry.variants.findings import error

#: What PEFT calls the rows, below the embedding's wrapper.
DELTA = "trainable_tokens_delta"
WRAPPER = ".token_adapter"
_FIELD = "trainable_token_indices"
#: Output embeddings, by the ends of their paths.
_HEADS = ("lm_head", "embed_out", "proj_out", "decoder")
#: Embeddings of a model.
_MOST_MODULES = 100
_AGAIN = "save the adapter again, or correct trainable_token_indices"


def token_indices(config: AdapterConfig) -> Sequence[int] | Mapping[str, Sequence[int]] | None:
    """As the config gives them; None where PEFT would train no tokens. Only LORA has the field."""
    value = config.raw.get(_FIELD)
    if value is None or config.peft_type.upper() != "LORA":
        return None
    if isinstance(value, dict) and len(value) > _MOST_MODULES:
        raise config.refuse(_FIELD, f"tokens of {len(value):,} modules", f"at most {_MOST_MODULES}")
    if isinstance(value, dict) and all(map(_is_tokens, value.values())):
        return value or None
    if isinstance(value, list) and _is_tokens(value):
        return value
    raise config.refuse(_FIELD, value, "a list of token ids, or such lists by module")


def token_findings(config: AdapterConfig, rows: Mapping[str, TensorSpec]) -> Iterable[Finding]:
    """``rows`` are the deltas of the file by the path of their embedding."""
    asked = token_indices(config)
    if asked is None:
        for spec in rows.values():
            yield _unasked(spec, "names no tokens")
    elif isinstance(asked, Mapping):
        yield from _by_module(asked, rows)
    else:
        yield from _of_one(asked, rows)


def rows_missing(asked: Mapping[str, Sequence[int]], paths: Iterable[str]) -> list[str]:
    """The names that no embedding with rows has at its end."""
    paths = tuple(paths)
    return [name for name in asked if not any(path.endswith(name) for path in paths)]


def _by_module(asked: Mapping[str, Sequence[int]], rows: Mapping[str, TensorSpec]) -> Iterable[Finding]:
    missing = rows_missing(asked, rows)
    held = [asked[name] for name in asked if name not in missing]
    for name in missing:
        if asked[name] not in held:  # else the two may be one matrix
            yield _no_rows(f"{len(asked[name]):,} tokens of {name}")
    for path, spec in rows.items():
        indices = next((value for name, value in asked.items() if path.endswith(name)), None)
        if indices is None:
            yield _unasked(spec, f"names tokens of {', '.join(asked)}")
        else:
            yield from _counted(indices, spec)


def _of_one(asked: Sequence[int], rows: Mapping[str, TensorSpec]) -> Iterable[Finding]:
    """A list means the input embedding; where that is the output's as well, PEFT may write the same rows for both."""
    if not rows:
        yield _no_rows(f"{len(asked):,} tokens")
        return
    ours, *others = sorted(rows, key=lambda path: path.endswith(_HEADS))
    yield from _counted(asked, rows[ours])
    for path in others:
        if not (path.endswith(_HEADS) and rows[path].shape == rows[ours].shape):
            yield _unasked(rows[path], "is one list, for the input embedding alone")


def _counted(indices: Sequence[int], spec: TensorSpec) -> Iterable[Finding]:
    rows = spec.shape[0] if spec.shape else 0
    if len(indices) != rows:
        yield error(
            "shape-mismatch",
            f"{spec.name} has {rows:,} rows, and trainable_token_indices names {len(indices):,} tokens",
            where=spec.name,
            fix="correct trainable_token_indices, or save the adapter again",
        )


def _no_rows(what: str) -> Finding:
    return error(
        "token-rows-missing",
        f"trainable_token_indices names {what}, and the file has no {DELTA} for them: PEFT cannot load the adapter",
        where=_FIELD,
        fix=_AGAIN,
    )


def _unasked(spec: TensorSpec, what: str) -> Finding:
    return error(
        "token-rows-unasked",
        f"{spec.name} holds rows of tokens, and trainable_token_indices {what}, so PEFT would drop them without a word",
        where=spec.name,
        fix=_AGAIN,
    )


def _is_tokens(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, int) and not isinstance(item, bool) for item in value)
