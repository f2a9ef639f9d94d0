"""``adapter_config.json``: what PEFT wrote beside the weights.

The raw bytes stay the truth; this is a typed view of them. Values that matter to the mathematics are asked for by
name and type and refused when they are of another type, numeric strings included. Everything else is left alone:
unknown keys, wrong types in fields nobody reads and random key order are normal in the wild.
Absent and null are read as PEFT's default, though PEFT takes null for some fields only (:mod:`registry.variants.lora_refusals`);
every modern file contains every field, so presence says nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite

from registry.errors import MalformedConfigError
from registry.formats.json_text import parse_json

MAX_BYTES = 1 << 20
MAX_DEPTH = 32

#: Fields only PEFT writes; one of them in a file without ``peft_type`` means somebody edited it out.
_OTHER_LIBRARIES = (
    (("fine_tune_type", "lora_parameters"), "mlx-lm", "convert it to PEFT first (mlx-lm keeps A and B transposed)"),
    (
        ("adapter_residual_before_ln",),
        "AdapterHub",
        "AdapterHub adapters are not PEFT adapters; use the adapters library",
    ),
    (("config", "hidden_size"), "AdapterHub", "AdapterHub adapters are not PEFT adapters; use the adapters library"),
)


@dataclass(frozen=True, slots=True)
class AdapterConfig:
    """The parsed object. Getters raise :class:`MalformedConfigError` naming the field, what it holds and what it must."""

    raw: Mapping[str, object]
    where: str = "adapter_config.json"

    @property
    def peft_type(self) -> str:
        return str(self.raw["peft_type"])

    @property
    def task_type(self) -> str | None:
        return self._text("task_type")

    @property
    def base_text(self) -> str | None:
        return self._text("base_model_name_or_path")

    @property
    def revision(self) -> str | None:
        """The revision of the *base model*, when the trainer passed one."""
        return self._text("revision")

    @property
    def peft_version(self) -> str | None:
        return self._text("peft_version")

    def integer(self, field: str, default: int) -> int:
        value = self.raw.get(field)
        return default if value is None else self._integer(field, value)

    def number(self, field: str, default: float) -> float:
        value = self.raw.get(field)
        return default if value is None else self._number(field, value)

    def flag(self, field: str, default: bool = False) -> bool:
        value = self.raw.get(field)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self.refuse(field, value, "true or false")
        return value

    def truthy(self, field: str) -> bool:
        """Whether a field that only has to be *used at all* to matter is used (``alora_invocation_tokens``, ``kasa_config``)."""
        return bool(self.raw.get(field))

    def integers_by_pattern(self, field: str) -> dict[str, int]:
        """``rank_pattern``: regular expression → rank, in file order, which is the order PEFT tries them in."""
        return {key: self._integer(f"{field}[{key!r}]", value) for key, value in self._mapping(field).items()}

    def numbers_by_pattern(self, field: str) -> dict[str, float]:
        """``alpha_pattern``: regular expression → alpha, in file order."""
        return {key: self._number(f"{field}[{key!r}]", value) for key, value in self._mapping(field).items()}

    def names(self, field: str) -> tuple[str, ...] | str | None:
        """``target_modules`` and its like: a list of names, one regular expression, or None."""
        value = self.raw.get(field)
        if value is None or isinstance(value, str):
            return value
        if isinstance(value, list) and all(isinstance(item, str) for item in value):
            return tuple(value)
        raise self.refuse(field, value, "a list of module names or one regular expression")

    def refuse(self, field: str, found: object, expected: str) -> MalformedConfigError:
        return MalformedConfigError(
            self.where,
            f"{field} is {_shown(found)}, expected {expected}",
            field=field,
            code="config-field",
            hint="correct the value in adapter_config.json; a field that is left away has PEFT's default",
        )

    def _text(self, field: str) -> str | None:
        value = self.raw.get(field)
        return value if isinstance(value, str) and value else None

    def _mapping(self, field: str) -> Mapping[str, object]:
        value = self.raw.get(field)
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise self.refuse(field, value, "an object of pattern to number")
        return value

    def _integer(self, field: str, value: object) -> int:
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.refuse(field, value, "a whole number")
        if abs(value) >= 1 << 31:
            raise self.refuse(field, value, "a whole number below 2^31")
        return value

    def _number(self, field: str, value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.refuse(field, value, "a number")
        try:
            number = float(value)
        except OverflowError:
            number = float("inf")
        if not isfinite(number):
            raise self.refuse(field, value, "a finite number")
        return number


def parse_adapter_config(data: bytes, *, where: str = "adapter_config.json") -> AdapterConfig:
    """Read the file's bytes. Raises :class:`MalformedConfigError` if it is not JSON, not an object, or not PEFT's."""
    document = parse_json(data, where=where, max_bytes=MAX_BYTES, max_depth=MAX_DEPTH, error=MalformedConfigError)
    if not isinstance(document, dict):
        raise MalformedConfigError(where, f"holds {_shown(document)}, expected a JSON object", code="config-not-object")
    peft_type = document.get("peft_type")
    if peft_type is None:
        raise _not_peft(document, where)
    if not isinstance(peft_type, str) or not peft_type:
        raise MalformedConfigError(
            where,
            f"peft_type is {_shown(peft_type)}, expected a PEFT method such as LORA",
            field="peft_type",
            code="config-field",
        )
    return AdapterConfig(document, where)


def _not_peft(document: Mapping[str, object], where: str) -> MalformedConfigError:
    for marks, library, way_out in _OTHER_LIBRARIES:
        if all(mark in document or _nested(document, mark) for mark in marks):
            return MalformedConfigError(where, f"was written by {library}, not by PEFT", code="not-peft", hint=way_out)
    return MalformedConfigError(
        where,
        "has no peft_type, so it is not a PEFT adapter",
        field="peft_type",
        code="not-peft",
        hint="push the directory that PEFT's save_pretrained wrote",
    )


def _nested(document: Mapping[str, object], key: str) -> bool:
    inner = document.get("config")
    return isinstance(inner, dict) and key in inner


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"
