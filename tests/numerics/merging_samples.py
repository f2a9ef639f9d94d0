"""One small case of every formula in MERGERS: tensors as a file has them, and numbers."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

import torch
from torch import Tensor

OUTPUTS, INPUTS, RANK = 6, 8, 3


@dataclass(frozen=True)
class Sample:
    """A weight (6, 8), (6, 1) for a bias; ``tensors`` and ``numbers`` are what a planned change has."""

    weight: Tensor
    tensors: dict[str, Tensor]
    numbers: dict[str, float]


def sample(formula: str) -> Sample:
    random = torch.Generator().manual_seed(sum(map(ord, formula)))
    shapes, numbers = _FORMS[formula]
    tensors = {
        role: torch.randn(shape, generator=random, dtype=torch.float64) * 0.3 + 0.1 for role, shape in shapes.items()
    }
    columns = 1 if formula == "bias" else INPUTS
    weight = torch.randn(OUTPUTS, columns, generator=random, dtype=torch.float64)
    return Sample(weight, tensors, dict(numbers))


_SCALED = {"scaling": 0.7}
_PAIR = {"down": (RANK, INPUTS), "up": (OUTPUTS, RANK)}
_HADA = {"w1_a": (OUTPUTS, RANK), "w1_b": (RANK, INPUTS), "w2_a": (OUTPUTS, RANK), "w2_b": (RANK, INPUTS)}
#: A kernel of four: two inputs.
_KERNEL = {
    "w1_a": (RANK, OUTPUTS),
    "w1_b": (RANK, 2),
    "t1": (RANK, RANK * 4),
    "w2_a": (RANK, OUTPUTS),
    "w2_b": (RANK, 2),
    "t2": (RANK, RANK * 4),
}
_TURN = {"terms": 0.0, "limit": inf}
_FORMS: dict[str, tuple[dict[str, tuple[int, ...]], dict[str, float]]] = {
    "lora": (_PAIR, _SCALED),
    "bias": ({"bias": (OUTPUTS,)}, _SCALED),
    "dora": ({**_PAIR, "magnitude": (OUTPUTS,)}, _SCALED),
    "adalora": ({**_PAIR, "values": (RANK, 1)}, {**_SCALED, "initial_rank": 5.0}),
    "hira": (_PAIR, _SCALED),
    "ia3_outputs": ({"vector": (OUTPUTS, 1)}, {}),
    "ia3_inputs": ({"vector": (1, INPUTS)}, {}),
    "loha": (_HADA, _SCALED),
    "loha_kernel": (_KERNEL, _SCALED),
    "lokr": ({"w1": (2, 2), "w2_a": (3, RANK), "w2_b": (RANK, 4)}, _SCALED),
    "lokr_sequence": ({"w1": (2, 2), "w2": (3, 2, 2)}, _SCALED),
    "miss": ({"block": (3, OUTPUTS)}, {**_SCALED, "inputs": float(INPUTS), "outputs": float(OUTPUTS)}),
    "oft": ({"angles": (2, 6)}, _TURN),
    "oft_embedding": ({"angles": (1, 6)}, {"terms": 5.0, "limit": inf}),
    "boft": ({"blocks": (1, 2, 4, 4), "scale": (OUTPUTS, 1)}, {}),
    "hra": ({"vectors": (INPUTS, RANK)}, {"orthogonal": 0.0}),
}
