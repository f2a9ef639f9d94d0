"""The config of a combined adapter: made anew, so that nothing of one parent is said of the result that is not true of it.

``r`` is the rank that the targets of a mixture have in common, else the commonest, and ``lora_alpha`` is ``r``; other layers
have theirs in ``rank_pattern`` and ``alpha_pattern``, by whole names, anchored and escaped, with α = r everywhere: every scaling
is 1.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from registry.plans.combine_rows import united_indices
from registry.plans.combining import Passed, Stack, is_of_mixture
from registry.plans.merge_draft import Ingredient
from registry.variants.settings import saved_modules

if TYPE_CHECKING:
    from collections.abc import Iterable

#: Fields that say where the adapter belongs, and are the result's where all parents agree.
_SHARED = ("task_type", "auto_mapping", "base_model_name_or_path", "revision", "peft_version", "fan_in_fan_out")


def fresh_config(
    adapters: Sequence[Ingredient], stacks: Sequence[Stack], passed: Sequence[Passed], *, is_tied: bool
) -> Mapping[str, object]:
    """Without ranks, which :func:`with_ranks` adds."""
    modules = [stack.path for stack in stacks if not stack.is_parameter]
    parameters = [stack.path for stack in stacks if stack.is_parameter]
    config: dict[str, object] = {
        "peft_type": "LORA",
        "inference_mode": True,
        "bias": _bias(adapters, passed),
        "target_modules": _targets(adapters, modules),
        **{name: agreed for name in _SHARED if (agreed := _agreed(adapters, name)) is not None},
    }
    bases = {one.manifest.base_model.id for one in adapters} - {None}
    if "base_model_name_or_path" not in config and len({str(base).lower() for base in bases}) == 1:
        config["base_model_name_or_path"] = min(map(str, bases))  # they are one, called differently
    if any(one.config.truthy("fan_in_fan_out") for one in adapters):
        config["fan_in_fan_out"] = True
    if parameters:
        config["target_parameters"] = parameters
    if any(stack.bias for stack in stacks):
        config["lora_bias"] = True
    saved = sorted({name for one in adapters for name in saved_modules(one.config)})
    if saved:
        config["modules_to_save"] = saved
    tokens = united_indices(adapters)
    if tokens is not None:
        config["trainable_token_indices"] = tokens
    if is_tied:
        config["ensure_weight_tying"] = True
    return config


def with_ranks(config: Mapping[str, object], ranks: Mapping[str, int]) -> dict[str, object]:
    """``ranks`` by target path."""
    bare = _strings(config.get("target_parameters"))
    common = [rank for path, rank in ranks.items() if path in bare or is_of_mixture(path)]
    usual = Counter(common or ranks.values()).most_common(1)[0][0]
    special = {f"^{re.escape(path)}": rank for path, rank in sorted(ranks.items()) if rank != usual}
    return {**config, "r": usual, "lora_alpha": usual, "rank_pattern": special, "alpha_pattern": dict(special)}


def _strings(value: object) -> frozenset[str]:
    return frozenset(map(str, value)) if isinstance(value, list) else frozenset()


def _targets(adapters: Sequence[Ingredient], modules: Sequence[str]) -> list[str]:
    """The names that all parents give, if these mean the same modules in each; else every module by its whole name."""
    named = [one.config.names("target_modules") for one in adapters]
    ours = set(modules)
    alike = all(
        isinstance(names, tuple)
        and {target.path for target in one.manifest.targets} == ours
        and not any(
            one.config.truthy(field) for field in ("layers_to_transform", "exclude_modules", "target_parameters")
        )
        for names, one in zip(named, adapters, strict=True)
    )
    ends = {path.rpartition(".")[2] for path in modules}
    if alike and all(ends == set(names or ()) for names in named):
        return sorted(ends)
    return list(modules)


def _bias(adapters: Sequence[Ingredient], passed: Iterable[Passed]) -> str:
    """What the parents say, where trained biases pass through."""
    has_bias = any(one.spec.name.endswith(".bias") for one in passed)
    return str(_agreed(adapters, "bias") or "none") if has_bias else "none"


def _agreed(adapters: Sequence[Ingredient], name: str) -> object:
    values = [one.config.raw.get(name) for one in adapters]
    return values[0] if all(value == values[0] for value in values) else None
