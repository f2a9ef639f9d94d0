"""Methods with low-rank factors of their own, other than LoRA's.

HIRA (W ⊙ BA), DELORA (normalised BA), DEFT (P·R beside a projection), GLORA (five supports), GRALORA (blocks of BA),
LILY and POLY (routed experts), PEANUT (non-linear), MISS and its forerunner BONE (one shared block), OSF (the small
singular components of the base), ADAMSS (subspaces of the base). ``r`` in the tensors is the config's, except where
PEFT caps it at a module's size (DEFT), where the config's is of something else (OSF: what stays frozen), and HIRA,
whose ``rank_pattern`` PEFT 0.21 reads and does not use.
"""

from __future__ import annotations

from registry.formats.adapter_config import AdapterConfig
from registry.variants.modules import Method, Parts, configured_scaling, first_of, size_of


def _miss_rank(parts: Parts) -> int | None:
    """(r, out), (r, mini_r), or with ``init_weights="bat"`` (out/r, r, r)."""
    spec = parts.get("miss_block") or parts.get("bone_block")
    if spec is None or not spec.shape:
        return None
    return spec.shape[0] if len(spec.shape) == 2 else spec.shape[-1]


def _gralora_scaling(config: AdapterConfig, rank: int | None, alpha: float | None) -> float | None:
    """α/(r + r'), where the hybrid has a plain LoRA of rank r' beside the blocks."""
    whole = (rank or 0) + config.integer("hybrid_r", 0)
    return None if rank is None or alpha is None or whole <= 0 else alpha / whole


READ_HIRA = Method(
    variant="hira",
    mark="hira_",
    tails="hira_[AB]|hira_embedding_[AB]",
    together=(frozenset({"hira_A", "hira_B"}), frozenset({"hira_embedding_A", "hira_embedding_B"})),
    rank=first_of(size_of("hira_A", 0), size_of("hira_embedding_A", 0)),
    silent=("hira_B", "hira_embedding_A"),
)

READ_DELORA = Method(
    variant="delora",
    mark="delora_",
    tails="delora_(?:A|B|lambda|w_norm)",
    together=(frozenset({"delora_A", "delora_B", "delora_lambda"}),),
    rank=size_of("delora_A", 0),
    config_rank=8,
    has_patterns=True,
    silent=("delora_B",),
)

READ_DEFT = Method(variant="deft", mark="deft_", tails="deft_[PR]", rank=size_of("deft_P", -1))

READ_GLORA = Method(
    variant="glora",
    mark="glora_",
    tails=r"glora_[A-E]\.(?:Xd|Xu|X|zeros)",
    together=tuple(frozenset({f"glora_{part}.Xd", f"glora_{part}.Xu"}) for part in "ABC"),
    rank=first_of(*(size_of(f"glora_{part}.Xd", -1) for part in "ABC")),
    config_rank=8,
)

READ_GRALORA = Method(
    variant="gralora",
    mark="gralora_",
    tails=r"gralora_[AB]|gralora_[AB]_general\.weight",
    together=(
        frozenset({"gralora_A", "gralora_B"}),
        frozenset({"gralora_A_general.weight", "gralora_B_general.weight"}),
    ),
    rank=size_of("gralora_A", -1),
    config_rank=32,
    alpha=("alpha", 64),
    scaling=_gralora_scaling,
    silent=("gralora_B",),
)

READ_LILY = Method(
    variant="lily",
    mark="lily_",
    tails=r"lily_(?:A|B|router)\.weight",
    together=(frozenset({"lily_A.weight", "lily_B.weight", "lily_router.weight"}),),
    rank=size_of("lily_A.weight", 0),
    config_rank=32,
    scaling=configured_scaling,
    silent=("lily_B.weight",),
)

READ_POLY = Method(
    variant="poly",
    mark="poly_",
    tails=r"poly_lora_[AB]|poly_router\.module_logits",
    together=(frozenset({"poly_lora_A", "poly_lora_B"}),),
    rank=size_of("poly_lora_A", -1),
    config_rank=8,
    silent=("poly_lora_B",),
)

READ_PEANUT = Method(
    variant="peanut",
    mark="peanut_",
    tails=r"peanut_[AB]\.weight|peanut_(?:en|de)coders\.\d+\.weight",
    together=(frozenset({"peanut_A.weight", "peanut_B.weight"}),),
    rank=size_of("peanut_A.weight", 0),
    config_rank=32,
    scaling=configured_scaling,
    silent=("peanut_B.weight",),
)

READ_MISS = Method(variant="miss", mark="miss_", tails="miss_block", rank=_miss_rank, silent=("miss_block",))
READ_BONE = Method(variant="bone", mark="bone_", tails="bone_block", rank=_miss_rank, silent=("bone_block",))

READ_OSF = Method(
    variant="osf",
    mark="osf_",
    tails=r"osf_svd_params\.(?:U|S|V)_low",
    together=(frozenset({"osf_svd_params.U_low", "osf_svd_params.S_low", "osf_svd_params.V_low"}),),
    rank=size_of("osf_svd_params.S_low", 0),
)

READ_ADAMSS = Method(
    variant="adamss",
    mark="adamss_",
    tails=r"adamss_[AB]\.\d+|adamss_newB",
    rank=size_of("adamss_newB", 0),
)
