"""One name for each hyperparameter, out of what each training tool calls it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TypeVar

from registry.formats.plain_data import finite, mapping, sequence, text

#: Ours, which is transformers' where it has one → the spellings seen: transformers, Axolotl, LLaMA-Factory, ms-swift.
NUMBERS: Mapping[str, tuple[str, ...]] = {
    "gradient_accumulation_steps": ("gradient_accumulation_steps",),
    "learning_rate": ("learning_rate",),
    "max_steps": ("max_steps", "training_steps"),
    "num_devices": ("num_devices",),
    "num_train_epochs": ("num_train_epochs", "num_epochs"),
    "seed": ("seed",),
    "sequence_length": ("sequence_len", "cutoff_len", "max_seq_length", "max_length"),
    "total_train_batch_size": ("total_train_batch_size",),
    "train_batch_size": ("train_batch_size", "per_device_train_batch_size", "micro_batch_size", "batch_size"),
    "warmup_ratio": ("warmup_ratio", "lr_scheduler_warmup_ratio"),
    "warmup_steps": ("warmup_steps", "lr_scheduler_warmup_steps"),
    "weight_decay": ("weight_decay",),
}
TEXTS: Mapping[str, tuple[str, ...]] = {
    "base_model": ("base_model", "model_name_or_path"),
    "lr_scheduler": ("lr_scheduler", "lr_scheduler_type"),
    "method": ("adapter", "finetuning_type", "tuner_type", "train_type", "sft_type"),
    "mixed_precision": ("mixed_precision_training", "compute_type"),
    "optimizer": ("optimizer", "optim"),
    "stage": ("stage", "training_stage", "rlhf_type", "rl"),
}
_DATASETS = ("datasets", "dataset", "train_dataset")

#: -1 is how transformers says "not limited"; the others mean nothing below or at zero either.
_POSITIVE = frozenset(
    [
        "gradient_accumulation_steps",
        "max_steps",
        "num_devices",
        "num_train_epochs",
        "sequence_length",
        "total_train_batch_size",
        "train_batch_size",
    ]
)

T = TypeVar("T")

#: The facts are part of a manifest; what is longer than anybody would write is not a fact.
MAX_TEXT = 500
MAX_ENTRIES = 100
_NUMBER = re.compile(r"[-+]?(?:[0-9]{1,30}(?:\.[0-9]{0,30})?|\.[0-9]{1,30})(?:[eE][-+]?[0-9]{1,3})?")


def hyperparameters(document: Mapping[str, object]) -> dict[str, object]:
    """What ``document`` says under any known spelling; numbers may be written as text (``'5e-5'``, a card's bullet)."""
    found: dict[str, object] = {}
    for name, spellings in NUMBERS.items():
        value = next(_known(document, spellings, fact_number), None)
        if value is not None and (value > 0 or name not in _POSITIVE):
            found[name] = value
    for name, spellings in TEXTS.items():
        value_text = next(_known(document, spellings, fact_text), None)
        if value_text is not None:
            found[name] = value_text
    datasets = next(_known(document, _DATASETS, _dataset_names), None)
    if datasets:
        found["datasets"] = datasets
    return found


def _known(document: Mapping[str, object], spellings: Iterable[str], read: Callable[[object], T | None]) -> Iterator[T]:
    for spelling in spellings:
        found = read(document.get(spelling))
        if found is not None:
            yield found


def fact_number(value: object) -> int | float | None:
    """A finite number of everyday size, integers as integers; anything else is None."""
    if isinstance(value, str) and _NUMBER.fullmatch(value.strip()):
        value = float(value) if re.search(r"[.eE]", value) else int(value)
    found = finite(value)
    if found is None or abs(found) >= 1e300:
        return None
    return int(value) if isinstance(value, int) and abs(value) < 1 << 63 else found


def fact_text(value: object) -> str | None:
    found = text(value)
    return found if found is not None and len(found) <= MAX_TEXT else None


def fact_texts(values: Iterable[object]) -> list[str]:
    return list(dict.fromkeys(found for value in values if (found := fact_text(value))))[:MAX_ENTRIES]


def _dataset_names(value: object) -> list[str] | None:
    """``"a,b"`` (LLaMA-Factory), ``["a", "b"]`` (ms-swift) and ``[{"path": "a"}]`` (Axolotl)."""
    if isinstance(value, str):
        entries: Iterable[object] = value.split(",")
    else:
        entries = (mapping(entry).get("path", entry) for entry in sequence(value))
    return fact_texts(entries) or None
