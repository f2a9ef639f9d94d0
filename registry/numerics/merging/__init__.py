"""What a method does to a weight, as formulas over blocks of it. MERGERS is the table.

A formula is about W (out, in); a block is some of the outputs by some of the inputs, and the factors it gets are those of
the block: ``axes`` says along which of the two each dimension of a factor runs, so that any block of any method can be cut
out without knowing the method. Formulas that need more than their block say so: ``statistic`` is summed over the inputs
first, and ``whole`` formulas get all inputs of an output at once. What is the same for all blocks and costs something, or has
no axis in the form that files have it in, is done once by ``prepare``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from torch import Tensor

from registry.numerics.merging import adalora, boft, dora, hira, hra, ia3, loha, lokr, lora, miss, oft

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
    #: Called with the tensors as the file has them, and the numbers named in ``settings``; returns the factors, whose ``axes``
    #: these are.
    prepare: Callable[..., Mapping[str, Tensor]] | None = None
    settings: tuple[str, ...] = ()


_FACTORS = {"down": (ANY, IN), "up": (OUT, ANY)}
_ROWS, _ALL = (OUT, ANY), (ANY, ANY)
_ROTATION = {"rotation": (ANY, ANY, ANY)}
_OFT = Merger(
    oft.merged, _ROTATION, adds=False, whole=True, numbers=(), prepare=oft.rotations, settings=("terms", "limit")
)

MERGERS: Mapping[str, Merger] = MappingProxyType(
    {
        "lora": Merger(lora.delta, _FACTORS),
        "bias": Merger(lora.bias_delta, {"bias": (OUT,)}),
        "dora": Merger(dora.merged, {**_FACTORS, "magnitude": (OUT,)}, adds=False, statistic=dora.squares),
        "adalora": Merger(adalora.delta, {**_FACTORS, "values": (ANY,)}, numbers=("scaling", "initial_rank")),
        "hira": Merger(hira.merged, _FACTORS, adds=False),
        "ia3_outputs": Merger(ia3.outputs, {"vector": (OUT,)}, adds=False, numbers=()),
        "ia3_inputs": Merger(ia3.inputs, {"vector": (IN,)}, adds=False, numbers=()),
        "loha": Merger(loha.delta, {"w1_a": (OUT, ANY), "w1_b": (ANY, IN), "w2_a": (OUT, ANY), "w2_b": (ANY, IN)}),
        "loha_kernel": Merger(
            loha.kernel_delta,
            {"w1_a": (ANY, OUT), "w1_b": _ALL, "t1": _ALL, "w2_a": (ANY, OUT), "w2_b": _ALL, "t2": _ALL},
            whole=True,
        ),
        "lokr": Merger(lokr.delta, {"first": _ROWS, "second": _ROWS}, whole=True, prepare=lokr.rows),
        "lokr_sequence": Merger(lokr.sequence_delta, {"product": _ROWS}, whole=True, prepare=lokr.of_sequences),
        "miss": Merger(
            miss.delta,
            {"block": _ROWS},
            whole=True,
            numbers=("scaling", "inputs"),
            prepare=miss.outputs,
            settings=("outputs",),
        ),
        "oft": _OFT,
        "oft_embedding": replace(_OFT, compute=oft.merged_embedding),
        "boft": Merger(
            boft.merged,
            {**_ROTATION, "scale": (OUT,)},
            adds=False,
            whole=True,
            numbers=(),
            prepare=boft.rotations,
        ),
        "hra": Merger(
            hra.merged,
            {"down": _ALL, "up": _ALL},
            adds=False,
            whole=True,
            numbers=(),
            prepare=hra.chain,
            settings=("orthogonal",),
        ),
    }
)
