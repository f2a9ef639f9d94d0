"""Methods that turn the base's weights, more or less orthogonally: OFT, BOFT, HRA, ROAD, PSOFT.

``r`` of OFT is the number of its blocks, which the tensor shows unless the blocks share one rotation; then only the
config may know. BOFT and ROAD have no rank. HRA's is its number of reflections.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import isqrt

from registry.domain.tensors import TensorSpec
from registry.formats.adapter_config import AdapterConfig
from registry.variants.anatomy import PatternMatcher, Reading
from registry.variants.modules import Method, Parts, alpha_over_rank, first_of, size_of


def _psoft_rank(parts: Parts) -> int | None:
    """A skew-symmetric matrix is stored as its r(r-1)/2 numbers; one that need not be orthogonal whole, (r, r)."""
    spec = parts.get("psoft_R.weight")
    if spec is None or not spec.shape:
        return None
    if len(spec.shape) == 2:
        return spec.shape[0]
    rank = (1 + isqrt(1 + 8 * spec.shape[0])) // 2
    return rank if rank * (rank - 1) // 2 == spec.shape[0] else None


OFT = Method(
    variant="oft",
    mark="oft_",
    tails=r"oft_(?:embedding_)?R\.weight|oft_[rs]",
    rank=first_of(size_of("oft_R.weight", 0), size_of("oft_embedding_R.weight", 0)),
)
_OFT_SHARED = replace(OFT, rank=None)
_OFT_SHARED_R = replace(_OFT_SHARED, config_rank=1, rank_from_config=True)


def read_oft(config: AdapterConfig, tensors: Sequence[TensorSpec], patterns: PatternMatcher) -> Reading:
    if not config.flag("block_share"):
        return OFT(config, tensors, patterns)
    # r is 0 where the block size is given instead
    return (_OFT_SHARED_R if config.integer("r", 0) > 0 else _OFT_SHARED)(config, tensors, patterns)


READ_BOFT = Method(
    variant="boft", mark="boft_", tails="boft_[Rs]", together=(frozenset({"boft_R", "boft_s"}),), silent=("boft_R",)
)
READ_HRA = Method(variant="hra", mark="hra_", tails="hra_u", rank=size_of("hra_u", -1), config_rank=8)
READ_ROAD = Method(
    variant="road",
    mark="road_",
    tails="road_(?:theta|alpha)",
    together=(frozenset({"road_theta", "road_alpha"}),),
)
READ_PSOFT = Method(
    variant="psoft",
    mark="psoft_",
    tails=r"psoft_R\.(?:weight|vector_[ab])",
    rank=_psoft_rank,
    config_rank=32,
    alpha=("psoft_alpha", 32),
    scaling=alpha_over_rank,
)
