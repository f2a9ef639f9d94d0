"""Options that the commands about weights have in common, and what they mean."""

from __future__ import annotations

import os
from enum import StrEnum
from typing import Annotated

from typer import BadParameter, Option

from cli.exits import usage
from cli.numerals import number
from registry.plans.combining import ALSO_LINEAR, LINEAR, METHODS, Blend


class Dtype(StrEnum):
    keep = "keep"
    bfloat16 = "bfloat16"
    float16 = "float16"
    float32 = "float32"


class BaseView(StrEnum):
    bits16 = "16bit"
    nf4 = "nf4"


class Side(StrEnum):
    adapter = "adapter"
    base = "base"


class ExpertLayout(StrEnum):
    peft = "peft"
    unsloth = "unsloth"


STORED = {Dtype.bfloat16: "BF16", Dtype.float16: "F16", Dtype.float32: "F32"}
METHOD = Annotated[
    str,
    Option(metavar="METHOD", help=f"{LINEAR} (or {ALSO_LINEAR}), or one in delta space: {', '.join(METHODS)}."),
]
DENSITY = Annotated[
    float, Option(metavar="SHARE", min=0.0, max=1.0, help="The share of elements that ties, dare, della … keep.")
]
SEED = Annotated[int, Option(metavar="N", help="For the methods that draw at random.")]
_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


def weighted(text: str) -> tuple[str, float]:
    """``DIR=0.7``: what stands behind the last ``=`` is a weight if it is a number, and otherwise part of a path."""
    before, _, behind = text.rpartition("=")
    weight = number(behind)
    if before and weight is not None:
        return before, weight
    if before and os.sep not in behind and not os.path.exists(os.path.expanduser(text)):
        raise BadParameter(f"{behind!r} is no weight: give a number, as in NAME=0.7", param_hint="ADAPTER")
    return text, 1.0


def blend_of(method: str, density: float, seed: int) -> Blend:
    with usage():
        return Blend(method, density, seed)


def byte_count(text: str, option: str) -> int:
    """``5GB`` → 5,000,000,000, as transformers counts."""
    amount = text.strip().upper().removesuffix("B")
    unit = amount[-1:] if amount[-1:] in "KMGT" else ""
    count = (number(amount.removesuffix(unit).strip()) or 0.0) * _UNITS[unit]
    if not 0 < count < 1e18:
        raise BadParameter(f"{text!r} is no size such as 5GB or 500MB", param_hint=option)
    return int(count)
