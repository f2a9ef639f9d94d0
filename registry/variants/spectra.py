"""Methods that learn coefficients of a transform of ΔW: FOURIERFT, WAVEFT, C3A (circular convolution). No rank.

Their config's ``scaling`` belongs to the transform; PEFT's layers do not keep it under that name.
"""

from __future__ import annotations

from registry.variants.modules import Method

READ_FOURIERFT = Method(
    variant="fourierft", mark="fourierft_", tails="fourierft_spectrum", silent=("fourierft_spectrum",)
)
READ_WAVEFT = Method(variant="waveft", mark="waveft_", tails="waveft_spectrum", silent=("waveft_spectrum",))
READ_C3A = Method(variant="c3a", mark="c3a_", tails="c3a_kernel", silent=("c3a_kernel",))
