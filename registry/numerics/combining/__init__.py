"""Methods that make one delta of several, in delta space: however the deltas happen to be factored, the result is the same.

A combiner takes the deltas τᵢ of one weight, all of one shape, their weights wᵢ, and the options it names; it returns a
dense delta. COMBINERS is the table. Laws that all of them keep: order does not matter (random ones draw for one delta after
the other, and are handed them by size), a delta that is multiplied by c in all adapters is c times the result's, and weights
likewise.

The weighted sum itself, ``linear``, is not here: it is exact in factors (:mod:`registry.transforms.combine`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from torch import Tensor

from registry.numerics.combining import breadcrumbs, dare, della, magnitude, model_stock, sce, spherical, ties


@dataclass(frozen=True, slots=True)
class Combiner:
    """``options`` are the keyword arguments of ``combine`` besides deltas and weights; ``exactly`` how many adapters it takes,
    if not any number; ``paper`` where it is from."""

    combine: Callable[..., Tensor]
    paper: str
    options: tuple[str, ...] = ()
    exactly: int | None = None


_ARXIV = "https://arxiv.org/abs/"

COMBINERS: Mapping[str, Combiner] = MappingProxyType(
    {
        "ties": Combiner(ties.combine, f"{_ARXIV}2306.01708", ("density",)),
        "dare_linear": Combiner(dare.linear, f"{_ARXIV}2311.03099", ("density", "generator")),
        "dare_ties": Combiner(dare.with_signs, f"{_ARXIV}2311.03099", ("density", "generator")),
        "della": Combiner(della.with_signs, f"{_ARXIV}2406.11617", ("density", "generator")),
        "della_linear": Combiner(della.linear, f"{_ARXIV}2406.11617", ("density", "generator")),
        "magnitude_prune": Combiner(magnitude.combine, f"{_ARXIV}1506.02626", ("density",)),
        "breadcrumbs": Combiner(breadcrumbs.combine, f"{_ARXIV}2312.06795", ("density",)),
        "sce": Combiner(sce.combine, f"{_ARXIV}2408.07990", ("density",)),
        "model_stock": Combiner(model_stock.combine, f"{_ARXIV}2403.19522"),
        "slerp": Combiner(spherical.slerp, "https://dl.acm.org/doi/10.1145/325165.325242", exactly=2),
        "karcher": Combiner(spherical.karcher, f"{_ARXIV}1310.4973"),
    }
)
