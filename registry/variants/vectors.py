"""Methods that scale, shift or replace vectors: IA3, BEFT (biases), LN_TUNING (norms), TRAINABLE_TOKENS (rows).

None has a rank.
"""

from __future__ import annotations

from registry.variants.modules import Method

READ_IA3 = Method(variant="ia3", mark="ia3_", tails="ia3_l")
READ_BEFT = Method(variant="beft", mark="beft_", tails="beft_bias", silent=("beft_bias",))
READ_LN_TUNING = Method(variant="ln_tuning", mark="ln_tuning_", tails=r"ln_tuning_layers\.(?:weight|bias)")
READ_TRAINABLE_TOKENS = Method(variant="trainable_tokens", mark="trainable_tokens_", tails="trainable_tokens_delta")
