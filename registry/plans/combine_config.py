"""The config of a combined adapter: made anew, so that nothing of one parent is said of the result that is not true of it.

``r`` is the rank that the targets of a mixture have in common, else the commonest, and ``lora_alpha`` is ``r``; other layers
have theirs in ``rank_pattern`` and ``alpha_pattern``, by whole names, anchored and escaped, with α = r everywhere: every scaling
is 1.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from registry.checks.selection import chooser
from registry.plans.combine_rows import united_indices
from registry.plans.combining import Passed, Stack, is_of_mixture
from registry.plans.exact_targets import expression_of
from registry.plans.merge_draft import Ingredient
from registry.variants.patterns import MAX_PATTERN
from registry.variants.settings import saved_modules
from registry.variants.wanted import is_all_linear

if TYPE_CHECKING:
    from collections.abc import Iterable

#: Fields that say where the adapter belongs, and are the result's where all parents agree.
_SHARED = ("task_type", "auto_mapping", "base_model_name_or_path", "revision", "peft_version", "fan_in_fan_out")
_LAYER = re.compile(r"(?:^|\.)\d+\.")
#: What may stand before the path of a module, and is in no name, so that only an expression that takes anything takes it.
_ANYTHING = "~.~~."


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
        "target_modules": _targets(adapters, modules, has_parameters=bool(parameters)),
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


def _targets(adapters: Sequence[Ingredient], modules: Sequence[str], *, has_parameters: bool) -> list[str] | str:
    """What all parents give, if it means the same modules in each; else every module by its whole name, and by an expression
    where PEFT would take more modules for a name that is the end of theirs."""
    named = [one.config.names("target_modules") for one in adapters]
    if all(_takes_all(one, set(modules)) for one in adapters):
        (first, *others), ends = named, {path.rpartition(".")[2] for path in modules}
        if isinstance(first, str) and not is_all_linear(first) and all(names == first for names in others):
            return first
        if all(isinstance(names, tuple) and ends == set(names) for names in named):
            return sorted(ends)
    exact = expression_of(modules)
    # PEFT makes names of an expression for a mixture: the last words of what it takes.
    is_mixture = has_parameters or any(map(is_of_mixture, modules))
    if is_mixture or len(exact) > MAX_PATTERN or not _may_be_ends(modules, adapters):
        return list(modules)
    return exact


def _takes_all(one: Ingredient, modules: Collection[str]) -> bool:
    """Whether these are the adapter's targets, and ``target_modules`` alone says which they are."""
    is_narrowed = any(
        one.config.raw.get(field) not in (None, "", []) for field in ("layers_to_transform", "exclude_modules")
    )
    taken = {target.path for target in one.manifest.targets}
    return taken == modules and not is_narrowed and not one.config.truthy("target_parameters")


def _may_be_ends(modules: Iterable[str], adapters: Sequence[Ingredient]) -> bool:
    """Whether the base may have a module without factors whose path ends with one of these. It has not where a parent that has
    the one would have the other too: by an end of both, or an expression that takes anything before it."""
    asking = [(one, chooser(one.config)) for one in adapters if not one.config.truthy("exclude_modules")]
    return not all(
        any(path in one.targets and _is_end(path, one, chosen) for one, chosen in asking) for path in modules
    )


def _is_end(path: str, one: Ingredient, chosen: Callable[[str], bool] | None) -> bool:
    if chosen is not None:
        return chosen(_ANYTHING + path)
    # Above the numbered layers modules of other kinds than the linear may be called alike.
    return is_all_linear(one.config.names("target_modules") or ()) and _LAYER.search(path) is not None


def _bias(adapters: Sequence[Ingredient], passed: Iterable[Passed]) -> str:
    """What the parents say, where trained biases pass through."""
    has_bias = any(one.spec.name.endswith(".bias") for one in passed)
    return str(_agreed(adapters, "bias") or "none") if has_bias else "none"


def _agreed(adapters: Sequence[Ingredient], name: str) -> object:
    values = [one.config.raw.get(name) for one in adapters]
    return values[0] if all(value == values[0] for value in values) else None
