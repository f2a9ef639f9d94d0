"""What a serving engine does with an adapter: one profile per engine and range of versions, from ``profiles.toml``.

A profile says where the engine differs from PEFT, in four tables, each from a *feature* (see
:mod:`registry.checks.serving_features`) to the engine's own words:

| table | the engine | finding |
|---|---|---|
| ``refuses_config`` | refuses what adapter_config.json declares, whatever the tensors are | error |
| ``refuses_tensors`` | refuses the tensors, whatever the config declares | error |
| ``ignores`` | loads the adapter and leaves this part out, without a word | error |
| ``doubtful`` | may do either, by base model or by release | warning |

A feature that is in none of them is served as PEFT would. The laws: the versions of an engine's rows do not overlap;
what fits the row that applies without a version fits every other row of that engine.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cache
from importlib.resources import files
from typing import Any

from registry.errors import InvalidNameError, InvalidValueError

_VERSION = re.compile(r"[vb]?(\d{1,9}(?:\.\d{1,9}){0,5})(?:\.?(?:a|b|rc|dev|post)\d*)*(?:[+-][\w.]+)?", re.ASCII)

Version = tuple[int, ...]


class Scaling(StrEnum):
    """What multiplies B·A in the engine. PEFT's own is α/r or α/√r, with the rank and alpha of each module."""

    PEFT = "peft"
    CONFIG = "config"  #: ``lora_alpha`` and ``r`` for all modules, α/√r for rsLoRA
    CONFIG_PLAIN = "config-plain"  #: ``lora_alpha / r`` for all modules, also for rsLoRA
    TENSOR = "tensor"  #: ``lora_alpha`` over the rank of the module's tensors, also for rsLoRA; 1 where alpha is 0


class OneRank(StrEnum):
    """Among which modules the engine cannot tell ranks apart."""

    NOWHERE = ""
    ADAPTER = "adapter"
    NAME = "name"  #: all q_proj have one rank, all v_proj another


@dataclass(frozen=True, slots=True)
class Profile:
    """Empty lists mean that the engine does not look: any method, initialisation, tensor name, target or architecture.

    ``since`` is the first version the row speaks for, ``until`` the first that it does not; ``read`` is the newest whose
    source was read, None where that was no release. ``asked`` is the version somebody named. ``requires`` are config
    fields without which the engine fails where PEFT takes its default.
    """

    engine: str
    title: str
    names: tuple[str, ...]
    since: str
    until: str | None
    read: str | None
    way_out: str
    asked: str | None = None
    takes_rank_cap: bool = False
    max_lora_rank: int | None = None
    rank_caps: tuple[int, ...] = ()
    scaling: Scaling = Scaling.PEFT
    one_rank: OneRank = OneRank.NOWHERE
    #: Kernels that pad ranks serve the least rank and multiples of this one as they are.
    rank_least: int = 1
    rank_multiple: int = 1
    needs_every_layer: bool = False
    recomputes_base: bool = False
    requires: tuple[str, ...] = ()
    peft_types: tuple[str, ...] = ()
    initializations: tuple[str, ...] = ()
    modules_to_save: tuple[str, ...] = ()
    suffixes: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()
    architectures: tuple[str, ...] = ()
    refuses_config: Mapping[str, str] = field(default_factory=dict)
    refuses_tensors: Mapping[str, str] = field(default_factory=dict)
    ignores: Mapping[str, str] = field(default_factory=dict)
    doubtful: Mapping[str, str] = field(default_factory=dict)
    #: By what is looked at: rank {rank} {cap}, suffix {name}, initialization {value}, target {name}, architecture,
    #: vocabulary {rows} {vocabulary}, tied, requires {names}.
    messages: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """``vllm==0.33.0``, or the range where no version was asked for."""
        if self.asked is not None:
            return f"{self.engine}=={self.asked}"
        return f"{self.engine}>={self.since}" + (f",<{self.until}" if self.until else "")

    @property
    def limits(self) -> frozenset[str]:
        """The features that are not served as PEFT would."""
        return frozenset({*self.refuses_config, *self.refuses_tensors, *self.ignores, *self.doubtful})


def find_profile(text: str) -> Profile:
    """``vllm`` or ``vllm==0.33``; without a version the most limited one in the table applies. Raises
    :class:`InvalidNameError`, naming what there is."""
    engine, equals, version = (part.strip() for part in text.partition("=="))
    rows = [row for row in profiles() if engine.lower() in row.names]
    if not rows or (equals and not _VERSION.fullmatch(version.lower())):
        engines = ", ".join(dict.fromkeys(row.engine for row in profiles()))
        raise InvalidNameError("serving engine", text, f"ENGINE or ENGINE==VERSION, with one of {engines}")
    if not equals:
        return max(rows, key=_limitation)
    for row in rows:
        if _covers(row, parse_version(version)):
            return replace(row, asked=version)
    known = ", ".join(row.name for row in rows)
    raise InvalidNameError("serving engine", text, f"a version that somebody has read: {known}")


def with_rank_cap(profile: Profile, rank: int) -> Profile:
    """The profile of an engine started with ``--max-lora-rank RANK``. Raises :class:`InvalidValueError` for a number that
    the engine itself would not take."""
    caps = profile.rank_caps
    if not profile.takes_rank_cap:
        raise InvalidValueError("--max-lora-rank", str(rank), f"none, since {profile.title} has no such limit")
    if rank < 1 or (caps and rank not in caps):
        expected = f"one of {', '.join(map(str, caps))}" if caps else "a positive number"
        raise InvalidValueError(f"{profile.title} --max-lora-rank", str(rank), expected)
    return replace(profile, max_lora_rank=rank)


def parse_version(text: str) -> Version:
    """The release part, without trailing zeros: ``0.33.0rc1`` → (0, 33), ``b6391`` → (6391,). A pre-release counts as its
    release, which is what its code is closest to."""
    match = _VERSION.fullmatch(text.strip().lower())
    if match is None:
        raise InvalidValueError("version", text, "numbers with dots, such as 0.33.0")
    numbers = [int(part) for part in match[1].split(".")]
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)


@cache
def profiles() -> tuple[Profile, ...]:
    """All rows, in the order of the table: engines together, oldest version first."""
    data = tomllib.loads(files("registry.checks").joinpath("profiles.toml").read_text(encoding="utf-8"))
    return tuple(
        _profile({**engine["every"], **row, "engine": name, "names": [name, *engine["every"].get("names", ())]})
        for name, engine in data.items()
        for row in engine["rows"]
    )


def _profile(row: Mapping[str, Any]) -> Profile:
    """Lists become tuples; an unknown choice is a ValueError and an unknown key a TypeError, so that the table cannot be
    misspelt."""
    values: dict[str, Any] = {"until": None, "read": None, "scaling": Scaling.PEFT, "one_rank": OneRank.NOWHERE}
    values |= {key: tuple(value) if isinstance(value, list) else value for key, value in row.items()}
    values |= {"scaling": Scaling(values["scaling"]), "one_rank": OneRank(values["one_rank"])}
    return Profile(**values)


def _covers(row: Profile, version: Version) -> bool:
    return parse_version(row.since) <= version and (row.until is None or version < parse_version(row.until))


def _limitation(row: Profile) -> tuple[int, bool]:
    return len(row.limits), row.scaling is not Scaling.PEFT
