"""Adapters and weights become the plan of one adapter, or a list of all reasons why there is none.

1. What is no sum is refused by name: DoRA, changed bases, routed and pooled variants, other methods than LoRA.
2. So are adapters of different bases, task classes, or layouts of their experts.
3. Every target of any of them becomes a stack of the factors that there are for it. What PEFT cannot hold in one adapter is
   refused.
4. Everything else passes through where all that have it have the same bytes; rows of single tokens are put together where no
   token is in two.
5. A fresh config targets exactly the modules that have tensors.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from registry.checks.experts import packed_by_unsloth
from registry.checks.heads import VOCABULARY
from registry.checks.merging import unmergeable
from registry.checks.misfit import Misfit
from registry.domain.tensors import DTYPE_BITS, TensorSpec, is_float
from registry.plans.combine_config import fresh_config
from registry.plans.combine_rows import Objection, united_rows
from registry.plans.combine_unholdable import BY_THE_BASE, unholdable
from registry.plans.combining import CombinePlan, Method, Passed, Rows, Share, Stack, widest
from registry.plans.merge_draft import Ingredient
from registry.plans.merging import Origin, SameNumbers
from registry.plans.refusals import Refusals
from registry.variants.extras import without_base_layer
from registry.variants.findings import some
from registry.variants.lora import MARK
from registry.variants.lora_layers import TAILS, LoraLayer, gather
from registry.variants.lora_parameters import in_order, wrapped_module
from registry.variants.lora_settings import read_settings
from registry.variants.lora_targets import layers_by_target
from registry.variants.natural_order import natural
from registry.variants.settings import layer_spans
from registry.variants.tensor_names import PREFIX, places
from registry.variants.token_rows import DELTA, token_indices

#: Variants that are a plain delta once they are trained.
_PLAIN = frozenset({"lora", "monteclora", "velora"})


@dataclass
class _Draft(Refusals):
    adapters: Sequence[Ingredient]
    dtype: str | None
    #: Those that have a weight: of the others nothing is taken and nothing is asked.
    taking: Sequence[Ingredient]
    shares: dict[str, list[tuple[Share, LoraLayer, int]]] = field(default_factory=dict)
    whole: dict[str, list[tuple[int, TensorSpec]]] = field(default_factory=dict)


def plan_combine(
    adapters: Sequence[Ingredient], same: SameNumbers, method: Method, *, dtype: str | None = None
) -> tuple[CombinePlan | None, Sequence[Misfit]]:
    """The plan, or all reasons against it. ``dtype`` is safetensors' name of the result's type; None for the widest there is, and
    for at least F32 where the method leaves something away, so that how much is not lost in the rounding."""
    draft = _Draft(adapters, dtype, [one for one in adapters if one.weight != 0])
    if not draft.taking:
        draft.refuse("nothing-left", "every weight is 0, so that nothing is left", fix="give a weight that is not 0")
        return None, draft.problems
    for one in draft.taking:
        _refuse_uncombinable(draft, one)  # 1
    _refuse_different(draft)  # 2
    draft.require_count(method.blend, len(draft.taking))
    if draft.problems:
        return None, draft.problems
    for one in draft.taking:
        _add(draft, one)  # 3
    _unite(draft)
    names, stored = _names(draft), _stored(draft, method)
    stacks = tuple(_stacked(draft, path, names, stored) for path in sorted(draft.shares, key=natural))
    draft.problems += unholdable(adapters, stacks)
    passed, rows = _whole(draft, same, {stack.path for stack in stacks})  # 4
    if not stacks and not draft.problems:
        draft.refuse("nothing-left", "no adapter has a factor to add up", fix="combine adapters that have LoRA factors")
    if draft.problems:
        return None, draft.problems
    tied = _tied(draft, stacks) if method.blend.is_linear else ()  # other methods may draw for each side by itself
    config = fresh_config(draft.taking, stacks, passed, is_tied=bool(tied))  # 5
    return CombinePlan(stacks, passed, config, rows, tied), ()


def _tied(draft: _Draft, stacks: Sequence[Stack]) -> tuple[tuple[Stack, Stack], ...]:
    """Embedding and output, if whoever has one of them trained both as one (``ensure_weight_tying``)."""
    heads = [one for one in stacks if not one.embedding and one.path.rpartition(".")[2] in VOCABULARY]
    pairs = [(one, head) for one in stacks if one.embedding for head in heads if _is_transposed(one, head)]
    having = {share.adapter for pair in pairs for stack in pair for share in stack.shares}
    alike = all(draft.adapters[number].config.truthy("ensure_weight_tying") for number in having)
    return tuple(pairs) if len(pairs) == 1 and alike else ()


def _is_transposed(embedding: Stack, head: Stack) -> bool:
    ours, theirs = embedding.shares, head.shares
    return [share.adapter for share in ours] == [share.adapter for share in theirs] and all(
        one.down.shape == other.up.shape[::-1] and one.up.shape == other.down.shape[::-1]
        for one, other in zip(ours, theirs, strict=True)
    )


def _refuse_uncombinable(draft: _Draft, one: Ingredient) -> None:
    manifest = one.manifest
    why = unmergeable(manifest)
    if why is not None or manifest.peft_type != "LORA":
        draft.refuse(
            "not-combinable",
            f"{one.name}: {manifest.peft_type} ({manifest.variant}) is no sum that could be added to another"
            + (f": {why}" if why else ""),
            where="adapter_config.json",
            fix="combine plain LoRAs; PEFT's conversion makes one of an additive method",
        )
    elif manifest.variant not in _PLAIN:
        draft.refuse(
            "not-combinable",
            f"{one.name}: {manifest.variant} is no delta that could be added to another",
            where="adapter_config.json",
            fix="merge it into its base, and extract a LoRA from the result",
        )
    if manifest.base_change is not None:
        draft.refuse(
            "base-changed-by-initialization",
            f"{one.name}: training started from {manifest.base_change}, which takes something out of the base",
            where="init_lora_weights",
            fix="save it with path_initial_model_for_weight_conversion (PEFT), which makes a plain LoRA of it",
        )
    if layer_spans(one.config):
        draft.refuse(
            "layers-replicated",
            f"{one.name}: layer_replication makes several layers of one",
            where="layer_replication",
            fix="serve it on its own",
        )


def _refuse_different(draft: _Draft) -> None:
    """Each is held against the first that says its base at all; who says nothing is of any."""
    bases = [(one, one.manifest.base_model) for one in draft.taking]
    named = next(((one, base.id) for one, base in bases if base.id is not None), None)
    shaped = next(((one, base.fingerprint) for one, base in bases if base.fingerprint is not None), None)
    first = next((one for one in draft.taking if one.manifest.task_type is not None), draft.taking[0])
    for one, base in bases:
        if named is not None and base.id is not None and base.id.lower() != named[1].lower():
            draft.refuse(
                "different-bases",
                f"{named[0].name} belongs to {named[1]}, and {one.name} to {base.id}",
                where="base_model_name_or_path",
                fix="combine adapters of one base; `adapters base alias` says that two names are one",
            )
        elif shaped is not None and base.fingerprint not in (None, shaped[1]):
            draft.refuse(
                "different-bases",
                f"{shaped[0].name} and {one.name} were recorded with bases of different shapes",
                where="base_model_name_or_path",
                fix="combine adapters of one base",
            )
        if one.manifest.task_type not in (None, first.manifest.task_type):
            draft.refuse(
                "different-tasks",
                f"{first.name} was trained for {first.manifest.task_type}, and {one.name} for {one.manifest.task_type}: "
                "their modules do not go by the same names",
                where="task_type",
                fix="combine adapters of one task",
            )


def _add(draft: _Draft, one: Ingredient) -> None:
    settings = read_settings(one.config)
    targets = one.targets
    layers = layers_by_target(one.config, one.manifest.tensors, set(targets))
    for path, layer in layers.items():
        scaling, rank = targets[path].scaling, targets[path].rank
        odd = next((spec for spec in layer.tensors if not is_float(spec.dtype)), None)
        if odd is not None:
            draft.refuse(
                "not-combinable",
                f"{one.name}: {odd.name} is {odd.dtype}, which is no real floating number",
                where=odd.name,
                fix="store its factors as float32, float16 or bfloat16",
            )
            continue
        if layer.pair is None or scaling is None or not rank:
            draft.refuse(
                "scaling-unknown",
                f"{one.name}: what {path} is multiplied by is not known",
                target=path,
                fix="simplify rank_pattern and alpha_pattern in adapter_config.json",
            )
            continue
        share = Share(one.number, *layer.pair, scaling, one.weight, layer.bias if settings.lora_bias else None)
        experts = share.down.shape[0] // rank if len(share.down.shape) == 2 else 1
        if experts > 1 and rank > 1 and packed_by_unsloth(one.manifest, one.config):
            draft.refuse(
                "experts-layout-ambiguous",
                f"{one.name}: Unsloth trained {path}, and its older versions packed lora_B of fused experts the other way round "
                "than PEFT; nothing in the file says which",
                target=path,
                fix="merge it with --expert-layout, and extract a LoRA from the result",
            )
            continue
        draft.shares.setdefault(path, []).append((share, layer, experts))
    factors = {spec.name for layer in layers.values() for spec in layer.tensors}
    _, left = gather(places(one.manifest.tensors, MARK, TAILS)[0])
    for place in left:
        name = f"{PREFIX}{place.path}.{place.tail}" if place.path else place.spec.name
        if place.spec.name not in factors:
            draft.whole.setdefault(name, []).append((one.number, place.spec))


def _unite(draft: _Draft) -> None:
    """A weight that one adapter adapts as a module and another as the parameter ``weight`` of it, as routers in different
    versions of transformers, is one target: the parameter, which PEFT takes wherever it takes the module."""
    for path in list(draft.shares):
        module = path.removesuffix(".weight")
        if path == module or module not in draft.shares:
            continue
        held = [*draft.shares[path], *draft.shares[module]]
        if any(layer.embedding or len(share.down.shape) != 2 or experts > 1 for share, layer, experts in held):
            names = [draft.adapters[draft.shares[one][0][0].adapter].name for one in (module, path)]
            draft.refuse(
                "target-in-two-forms",
                f"{names[0]} adapts {module} as a module that is no linear layer, and {names[1]} as a bare parameter, whose "
                "factors lie the other way round",
                target=path,
                fix=BY_THE_BASE,
            )
            continue
        draft.shares[path] = sorted(held, key=lambda one: one[0].adapter)
        del draft.shares[module]


def _names(draft: _Draft) -> dict[str, str]:
    """For each target where its factors stand. Those of a bare parameter stand in a wrapper of its module, and how deep that is
    hangs on how many parameters the result has there, not on how many a parent had."""
    names = {path: held[0][1].path for path, held in draft.shares.items()}
    modules: dict[str, list[str]] = {}
    for path, held in draft.shares.items():
        module = wrapped_module(held[0][1].path)[0]
        if path != without_base_layer(module):
            modules.setdefault(module, []).append(path)
    for module, paths in modules.items():
        by_name = {path.rpartition(".")[2]: path for path in paths}
        ordered = in_order(by_name)
        places = {layer.path for path in paths for _, layer, _ in draft.shares[path]}
        if ordered is None and len(places) == len(paths):
            continue  # all parents have it alike
        if ordered is None:
            draft.refuse(
                "experts-layout-ambiguous",
                f"{module} is wrapped for {some(list(by_name))}, and in which order it registers them nobody knows",
                target=module,
                fix="merge the adapters into the base one after the other, and extract a LoRA from the result",
            )
            continue
        for depth, name in enumerate(reversed(ordered)):
            names[by_name[name]] = module + ".base_layer" * depth
    return names


def _stored(draft: _Draft, method: Method) -> str:
    """The type of all factors of the result."""
    specs = [spec for held in draft.shares.values() for share, _, _ in held for spec in (share.down, share.up)]
    return draft.dtype or widest([*(spec.dtype for spec in specs), *(() if method.is_exact else ("F32",))])


def _stacked(draft: _Draft, path: str, names: Mapping[str, str], dtype: str) -> Stack:
    shares = [share for share, _, _ in draft.shares[path]]
    layers = [layer for _, layer, _ in draft.shares[path]]
    first = shares[0]
    for share, layer, experts in draft.shares[path][1:]:
        other = draft.adapters[share.adapter].name
        same = (share.down.shape[1:], share.up.shape[0], layer.embedding, experts == 1)
        ours = (first.down.shape[1:], first.up.shape[0], layers[0].embedding, draft.shares[path][0][2] == 1)
        if same != ours or experts != draft.shares[path][0][2]:
            draft.refuse(
                "different-shapes",
                f"{path} of {other} is {list(share.down.shape)} and {list(share.up.shape)}, and of "
                f"{draft.adapters[first.adapter].name} {list(first.down.shape)} and {list(first.up.shape)}: they do not change "
                "the same weight",
                target=path,
                fix="combine adapters of one base, whose experts are laid out alike",
            )
    down, up = first.down.shape, first.up.shape
    groups = down[0] // up[1] if len(down) > 2 else 1
    return Stack(
        path=path,
        name=f"{PREFIX}{names[path]}",
        shares=tuple(shares),
        dtype=dtype,
        experts=draft.shares[path][0][2],
        embedding=layers[0].embedding,
        groups=groups,
        bias=any(share.bias is not None for share in shares),
    )


def _whole(draft: _Draft, same: SameNumbers, targets: Collection[str]) -> tuple[tuple[Passed, ...], tuple[Rows, ...]]:
    """What is no pair of factors."""
    passed, rows = [], []
    for name in sorted(draft.whole):
        found = _rows(draft, name, same, targets) if name.endswith(f".{DELTA}") else None
        if found is None:
            passed.append(_passed(draft, name, same))
        elif isinstance(found, Rows):
            rows.append(found)
        else:
            draft.refuse(found.rule, found.message, where=found.where, fix=found.fix)
    return tuple(passed), tuple(rows)


def _rows(draft: _Draft, name: str, same: SameNumbers, targets: Collection[str]) -> Rows | Objection | None:
    """None for the same rows of the same tokens in all adapters, which pass through."""
    asked = [token_indices(one.config) for one in draft.taking]
    alike = len(draft.whole[name]) == len(draft.taking) and all(one == asked[0] for one in asked)
    if alike and _differing(draft, name, same) is None:
        return None
    return united_rows(name, draft.whole[name], draft.adapters, targets)


def _differing(draft: _Draft, name: str, same: SameNumbers) -> str | None:
    """The first adapter that has other numbers there than the first."""
    (number, spec), *others = draft.whole[name]
    ours = Origin(draft.adapters[number].weights, spec, number)
    return next(
        (
            draft.adapters[other].name
            for other, theirs in others
            if not same(ours, Origin(draft.adapters[other].weights, theirs, other))
        ),
        None,
    )


def _passed(draft: _Draft, name: str, same: SameNumbers) -> Passed:
    held = sorted(
        draft.whole[name], key=lambda one: -DTYPE_BITS[one[1].dtype]
    )  # of numbers that one rounded, the others
    number, spec = held[0]
    differing = _differing(draft, name, same)
    lacking = next((one.name for one in draft.taking if one.number not in {number for number, _ in held}), None)
    if differing is not None or (lacking is not None and not _is_base_copy(name)):
        draft.refuse(
            "saved-modules-differ",
            f"{name} replaces the base's, and "
            + (f"{differing} has another" if differing is not None else f"{lacking} has none"),
            where=name,
            fix="combine adapters that have the same heads, saved modules and token rows, or train them anew",
        )
    total = sum(draft.adapters[number].weight for number, _ in held)
    return Passed(number, spec, tuple(held[1:]), is_replacement=not _is_base_copy(name), weight=total)


def _is_base_copy(name: str) -> bool:
    """What PEFT saves along with the LoRA of an embedding."""
    return name.endswith(".base_layer.weight")
