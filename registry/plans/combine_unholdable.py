"""What each adapter has by itself, and no adapter has together: PEFT could not load it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from registry.checks.misfit import Misfit, error
from registry.plans.combining import Stack
from registry.plans.merge_draft import Ingredient

BY_THE_BASE = "merge the adapters into the base, and extract a LoRA from the result"
_ONE_EXPERT = re.compile(r"(?:^|\.)experts\.\d+\.")
_ALL_EXPERTS = re.compile(r"(?:^|\.)experts\.[^.]+$")
_PARAMETER = "a bare parameter (target_parameters)"


def unholdable(adapters: Sequence[Ingredient], stacks: Sequence[Stack]) -> Iterator[Misfit]:
    """``adapters`` by the numbers that the stacks have for them."""
    yield from _settings(adapters, stacks)
    yield from _experts(adapters, stacks)


def _settings(adapters: Sequence[Ingredient], stacks: Sequence[Stack]) -> Iterator[Misfit]:
    """Fields of the config that are about all layers, and that some cannot have (``ParamWrapper`` and ``Embedding`` in
    ``peft/tuners/lora/layer.py``)."""
    bare = next((stack.path for stack in stacks if stack.is_parameter), None)
    embedding = next((stack.path for stack in stacks if stack.embedding), None)
    turned = next((one.name for one in adapters if one.weight != 0 and one.config.truthy("fan_in_fan_out")), None)
    biased = next((share.adapter for stack in stacks for share in stack.shares if share.bias is not None), None)
    pairs: list[tuple[str, Mapping[str, str | None]]] = []
    if biased is not None:
        trained = f"{adapters[biased].name} trained biases of lora_B (lora_bias)"
        pairs.append((trained, {_PARAMETER: bare, "an embedding": embedding}))
    if turned is not None:
        pairs.append((f"{turned} is of Conv1D layers (fan_in_fan_out)", {_PARAMETER: bare}))
    for what, others in pairs:
        for kind, path in others.items():
            if path is not None:
                message = f"{what}, and {path} is {kind}: PEFT has no adapter with both"
                yield error("not-in-one-adapter", message, target=path, fix=BY_THE_BASE)


def _experts(adapters: Sequence[Ingredient], stacks: Sequence[Stack]) -> Iterator[Misfit]:
    """Layers of single experts from one adapter, and of all experts as one from another."""
    single = [stack for stack in stacks if not stack.is_parameter and _ONE_EXPERT.search(stack.path)]
    fused = [stack for stack in stacks if stack.is_parameter and _ALL_EXPERTS.search(stack.path)]
    having, others = ({share.adapter for stack in each for share in stack.shares} for each in (single, fused))
    if having and others and having.isdisjoint(others):
        one, other = (adapters[min(each)].name for each in (having, others))
        yield error(
            "experts-laid-out-otherwise",
            f"{one} has a layer for each expert ({single[0].path}), and {other} one for all ({fused[0].path}): a model has its "
            "experts one by one or fused",
            target=fused[0].path,
            fix=BY_THE_BASE,
        )
