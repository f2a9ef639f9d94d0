"""Methods that train little per module, on projections that all modules share or that a seed gives again.

VERA and PVERA (two vectors), RANDLORA (a sum of random factors), VBLORA (a bank of vectors), TINYLORA and UNILORA (a
handful of numbers for the whole model), FROD (a common basis). Where the projections were not saved, the adapter
depends on the random generator of whoever loads it. UNILORA has no tensor below any module, so its targets are in the
config alone; FROD is not of low rank, and what PEFT keeps as its ``r`` is the module's width.
"""

from __future__ import annotations

from registry.variants.modules import Method, Parts, alpha_over_rank, first_of, size_of


def _pvera_rank(parts: Parts) -> int | None:
    """Mean and variance lie behind one another: (2r,)."""
    spec = parts.get("pvera_lambda_d")
    return None if spec is None or not spec.shape else spec.shape[0] // 2


READ_VERA = Method(
    variant="vera",
    mark="vera_",
    tails="vera_lambda_[bd]",
    shared="vera_[AB]",
    together=(frozenset({"vera_lambda_b", "vera_lambda_d"}),),
    rank=size_of("vera_lambda_d", 0),
    config_rank=256,
    silent=("vera_lambda_b",),
)

READ_PVERA = Method(
    variant="pvera",
    mark="pvera_",
    tails="pvera_lambda_[bd]",
    shared="pvera_[AB]",
    together=(frozenset({"pvera_lambda_b", "pvera_lambda_d"}),),
    rank=_pvera_rank,
    config_rank=256,
    silent=("pvera_lambda_b",),
)

READ_RANDLORA = Method(
    variant="randlora",
    mark="randlora_",
    tails="randlora_(?:lambda|gamma|A|B)",
    shared="randlora_[AB]",
    together=(frozenset({"randlora_lambda", "randlora_gamma"}),),
    rank=size_of("randlora_lambda", 0),
    config_rank=32,
    alpha=("randlora_alpha", 640),
    scaling=alpha_over_rank,
    silent=("randlora_lambda",),
)

READ_VBLORA = Method(
    variant="vblora",
    mark="vblora_",
    tails="vblora_logits_[AB](?:_topk_(?:indices|weights))?",
    shared="vblora_vector_bank",
    together=(
        frozenset({"vblora_logits_A", "vblora_logits_B"}),
        frozenset(f"vblora_logits_{side}_topk_{kind}" for side in "AB" for kind in ("indices", "weights")),
    ),
    rank=first_of(size_of("vblora_logits_A", 0), size_of("vblora_logits_A_topk_indices", 0)),
    config_rank=4,
)

READ_TINYLORA = Method(
    variant="tinylora",
    mark="tinylora_",
    tails="tinylora_[ABP]",
    shared=r"tinylora_v\.\w+",
    together=(frozenset({"tinylora_A", "tinylora_B"}),),
    rank=first_of(size_of("tinylora_A", 0), size_of("tinylora_P", -1)),
)

READ_UNILORA = Method(
    variant="unilora", mark="unilora_", tails="unilora_.+", shared="unilora_theta_d", needs_modules=False
)

READ_FROD = Method(
    variant="frod",
    mark="frod_",
    tails="frod_lambda_(?:l|s_values)",
    shared=r"frod_(?:V|s_indices|s_size)\..+",
    together=(frozenset({"frod_lambda_l", "frod_lambda_s_values"}),),
)
