"""What a method does to a weight, as formulas over blocks of it. MERGERS is the table.

A formula is about W (out, in); a block is some of the outputs by some of the inputs, and the factors it gets are those of
the block: ``axes`` says along which of the two each dimension of a factor runs, so that any block of any method can be cut
out without knowing the method. Formulas that need more than their block say so: ``statistic`` is summed over the inputs
first, and ``whole`` formulas get all inputs of an output at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from torch import Tensor

from registry.numerics.merging import dora, lora

OUT, IN, ANY = "out", "in", ""


@dataclass(frozen=True, slots=True)
class Merger:
    """``compute`` is called with the factors by their roles and the numbers by their names. It returns what is added to the
    block if ``adds``, so that results of several adapters can be summed; else the new block, and it gets the old one first.
    """

    compute: Callable[..., Tensor]
    axes: Mapping[str, tuple[str, ...]]
    adds: bool = True
    #: Of a block, one number for each output; their sum over all inputs is passed to ``compute`` as ``statistic``.
    statistic: Callable[..., Tensor] | None = None
    whole: bool = False
    numbers: tuple[str, ...] = field(default=("scaling",))


_FACTORS = {"down": (ANY, IN), "up": (OUT, ANY)}

MERGERS: Mapping[str, Merger] = MappingProxyType(
    {
        "lora": Merger(lora.delta, _FACTORS),
        "bias": Merger(lora.bias_delta, {"bias": (OUT,)}),
        "dora": Merger(dora.merged, {**_FACTORS, "magnitude": (OUT,)}, adds=False, statistic=dora.squares),
    }
)
