"""LOHA, ΔW = s·(w1_a·w1_b) ⊙ (w2_a·w2_b), and LOKR, ΔW = s·w1 ⊗ w2, both with s = α/r and patterns as LoRA has them.

https://arxiv.org/abs/2108.06098 and https://arxiv.org/abs/2309.14859. LoKr leaves a factor whole when that is smaller
than two of the rank; with both whole no tensor shows the rank, and the config's is what PEFT divides α by.
"""

from __future__ import annotations

from registry.variants.modules import Method, alpha_over_rank, first_of, size_of

READ_LOHA = Method(
    variant="loha",
    mark="hada_",
    tails="hada_w[12]_[ab]|hada_t[12]",
    together=(
        frozenset({"hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"}),
        frozenset({"hada_t1", "hada_t2"}),
    ),
    rank=size_of("hada_w1_b", 0),
    config_rank=8,
    has_patterns=True,
    alpha=("alpha", 8),
    scaling=alpha_over_rank,
    silent=("hada_w2_b",),
)

READ_LOKR = Method(
    variant="lokr",
    mark="lokr_",
    tails="lokr_w[12](?:_[ab])?|lokr_t2",
    together=(frozenset({"lokr_w1_a", "lokr_w1_b"}), frozenset({"lokr_w2_a", "lokr_w2_b"})),
    rank=first_of(size_of("lokr_w2_b", 0), size_of("lokr_w1_b", 0)),
    config_rank=8,
    rank_from_config=True,
    has_patterns=True,
    alpha=("alpha", 8),
    scaling=alpha_over_rank,
    silent=("lokr_w1", "lokr_w1_a"),
)
