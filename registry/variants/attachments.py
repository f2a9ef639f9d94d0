"""Methods that put something beside the model instead of changing its weights: ADAPTION_PROMPT, SHADOW, XLORA.

SHADOW keeps the word ``default`` in its names, whatever the adapter was called. XLORA's classifier is in a file of its
own, ``xlora_classifier.safetensors``; its adapter file may be empty.
"""

from __future__ import annotations

from registry.variants.modules import Method

READ_ADAPTION_PROMPT = Method(
    variant="adaption_prompt",
    mark="adaption_",
    tails="adaption_(?:prompt|gate)",
    together=(frozenset({"adaption_prompt", "adaption_gate"}),),
    silent=("adaption_gate",),
)

READ_SHADOW = Method(
    variant="shadow",
    mark="shadow_",
    tails=r"shadow_\w+\..+",
    shared=r"shadow_(?:backbone|projection|head)\..+",
)

READ_XLORA = Method(
    variant="xlora",
    mark="internal_xlora_classifier",
    tails="internal_xlora_classifier.*",
    shared="internal_xlora_classifier.*",
    needs_modules=False,
)
