"""LoRA in all its forms, as changes of stored tensors.

| layer | the formula's W | stored |
|---|---|---|
| linear | (out, in) | the same |
| Conv1D | (out, in) | (in, out): transposed |
| embedding | (dimension, vocabulary) | (vocabulary, dimension): transposed |
| convolution | (out, in·k…) | (out, in, k…) |
| E fused experts | E times (out, in) | (E, out, in), or (E, in, out): transposed, or 2·E matrices |

Fused experts: A is (E·r, in) with the expert slowest and B (out, r·E) with the expert fastest (PEFT, ``ParamWrapper``); Unsloth
before unsloth-zoo#1269 packed B with the expert slowest. Which of two dimensions is ``in`` their sizes say; where they are
equal, only the PEFT that saved the file does.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from registry.checks.experts import packed_by_unsloth
from registry.domain.base_model import ModuleKind, ModuleSpec
from registry.domain.tensors import TensorSpec
from registry.plans.merge_draft import Draft, Ingredient, slabs
from registry.plans.merge_views import Part
from registry.plans.merging import ALL, Change, Factor
from registry.variants.lora_layers import LoraLayer
from registry.variants.lora_settings import LoraSettings, read_settings

_VERSION = re.compile(r"(\d{1,4})\.(\d{1,4})")
#: Model types whose fused experts are (E, in, out) in memory: transformers' ``is_transposed``.
_TRANSPOSED_EXPERTS = frozenset({"aria", "aria_text", "gpt_oss", "openai_privacy_filter"})
#: Since then PEFT takes a 3-D parameter for (E, out, in).
_SWAPPED_SINCE = (0, 20)

Packing = str | None


def add_lora(draft: Draft, one: Ingredient, head: Mapping[str, str], packing: Packing) -> None:
    """Every LoRA layer of the adapter. ``head`` says under which name a tied output embedding is kept."""
    settings = read_settings(one.config)
    for path, layer in one.matching.layers.items():
        scaling = one.targets[path].scaling
        if layer.pair is None:
            continue  # an orphan, which the rules name
        if scaling is None:
            draft.refuse(
                "scaling-unknown",
                f"what {path} is multiplied by hangs on a pattern that could not be evaluated",
                target=path,
                fix="simplify rank_pattern and alpha_pattern in adapter_config.json",
            )
            continue
        if one.weight == 0:
            continue  # the base as it is, to the last bit
        module = one.matching.module(path)
        if module is None and path in head:
            _add_matrix(draft, one, path, layer, settings, scaling, head[path], transposed=False)
            if layer.bias is not None:
                _add_bias(draft, one, layer.bias, scaling, f"{head[path].removesuffix('.weight')}.bias")
        elif module is None:
            draft.refuse(
                "no-weight",
                f"{path} is changed, and the base has no such weight",
                target=path,
                fix="merge into a base that was saved with it",
            )
        else:
            _add_layer(draft, one, path, layer, settings, scaling, module, packing)


def _add_layer(
    draft: Draft,
    one: Ingredient,
    path: str,
    layer: LoraLayer,
    settings: LoraSettings,
    scaling: float,
    module: ModuleSpec,
    packing: Packing,
) -> None:
    if f"{module.path}.in_proj_weight" in draft.tensors or layer.path.endswith(".base_layer.out_proj"):
        draft.refuse(
            "multihead-attention",
            f"{path} is part of an nn.MultiheadAttention, whose output PEFT changes twice, in training and in its own merge: no "
            "merged weight is both right and what was trained",
            target=path,
            fix="serve it unmerged with PEFT, or train on a model with separate projections",
        )
        return
    if module.kind is ModuleKind.EXPERTS:
        _add_experts(draft, one, path, layer, scaling, module, packing)
        return
    if module.path in draft.views:
        _add_view(draft, one, path, layer, settings, scaling, draft.views[module.path])
        return
    spec = draft.stored(module)
    if spec is None and module.path not in one.matching.places.by_name:
        draft.refuse(
            "other-form",
            f"{path} is one matrix, and the base holds it as part of a larger one, or in parts",
            target=path,
            fix="merge into the base as transformers saves it (save_pretrained), or serve it unmerged",
        )
        return
    if spec is None or module.kind is ModuleKind.PACKED:
        draft.refuse(
            "quantized-base",
            f"{path} is packed by a quantiser in the base, so that it cannot be changed",
            target=path,
            fix="merge into the base before it was quantised",
        )
        return
    transposed = layer.embedding or module.kind is ModuleKind.CONV1D
    if path.endswith(".weight"):  # a bare parameter of two dimensions
        orientation = _orientation(one, layer, spec.shape, is_stack=False)
        if orientation is None:
            _refuse_square(draft, path, spec)
            return
        transposed = orientation
    if module.kind is ModuleKind.CONV and layer.pair is not None and layer.pair[0].shape[0] != layer.pair[1].shape[1]:
        draft.refuse(
            "grouped-convolution",
            f"{path} is a convolution in groups, and its factors mix what the groups keep apart",
            target=path,
            fix="serve it unmerged with PEFT",
        )
        return
    if draft.require_float(one, path, spec):
        _add_matrix(draft, one, path, layer, settings, scaling, spec.name, transposed=transposed)
        if layer.bias is not None:
            _add_bias(draft, one, layer.bias, scaling, f"{module.path}.bias")


def _add_matrix(
    draft: Draft,
    one: Ingredient,
    path: str,
    layer: LoraLayer,
    settings: LoraSettings,
    scaling: float,
    name: str,
    *,
    transposed: bool,
) -> None:
    formula, factors = _formula(path, layer, settings)
    down, up = factors["down"], factors["up"]
    stop = down.spec.shape[1] * down.blocks if transposed else up.spec.shape[0]
    numbers = {"scaling": scaling * one.weight}
    draft.change(name, Change(one.number, formula, factors, numbers, 0, stop, transposed, path=path))


def _formula(path: str, layer: LoraLayer, settings: LoraSettings) -> tuple[str, dict[str, Factor]]:
    if layer.pair is None:
        raise ValueError(f"{path} has half of its factors")
    down, up = layer.pair
    blocks = settings.block_diagonal
    factors = {
        "down": Factor(down, blocks=blocks.blocks_of_a(path) if blocks else 1),
        "up": Factor(up, blocks=blocks.blocks_of_b(path) if blocks else 1),
    }
    if layer.magnitude is None:
        return "lora", factors
    return "dora", {**factors, "magnitude": Factor(layer.magnitude)}


def _add_view(
    draft: Draft,
    one: Ingredient,
    path: str,
    layer: LoraLayer,
    settings: LoraSettings,
    scaling: float,
    parts: Iterable[Part],
) -> None:
    """A projection that the base stores with others, or in several matrices."""
    formula, factors = _formula(path, layer, settings)
    numbers = {"scaling": scaling * one.weight}
    for part in parts:
        spec = draft.stored(part.module)
        if spec is None or not draft.require_float(one, path, spec):
            return
        stop = part.stored + part.rows
        first = part.first
        draft.change(
            spec.name, Change(one.number, formula, factors, numbers, part.stored, stop, first=first, path=path)
        )
        if layer.bias is not None:
            _add_bias(draft, one, layer.bias, scaling, f"{part.module.path}.bias", part)


def _add_bias(
    draft: Draft, one: Ingredient, bias: TensorSpec, scaling: float, name: str, part: Part | None = None
) -> None:
    if name not in draft.tensors:
        draft.refuse(
            "bias-without-base",
            f"{bias.name} changes a bias, and the base has no {name}",
            where=bias.name,
            fix="serve it unmerged with PEFT",
        )
    elif draft.require_float(one, name, draft.tensors[name][1]):
        numbers = {"scaling": scaling * one.weight}
        start, stop, first = (part.stored, part.stored + part.rows, part.first) if part else (0, bias.shape[0], 0)
        draft.change(name, Change(one.number, "bias", {"bias": Factor(bias)}, numbers, start, stop, first=first))


def _add_experts(
    draft: Draft, one: Ingredient, path: str, layer: LoraLayer, scaling: float, module: ModuleSpec, packing: Packing
) -> None:
    if layer.pair is None or module.shape is None:
        return
    count = module.shape[0]
    transposed = _orientation(one, layer, module.shape, is_stack=True)
    if transposed is None:
        _refuse_square(draft, path, layer.pair[0])
        return
    rank = layer.pair[0].shape[0] // count
    if packing is None and rank > 1 and packed_by_unsloth(one.manifest, one.config):
        draft.refuse(
            "experts-layout-ambiguous",
            f"Unsloth trained {path}, and its older versions packed lora_B of fused experts the other way round than PEFT; nothing "
            "in the file says which",
            target=path,
            fix="say it: --expert-layout peft, or --expert-layout unsloth for Unsloth before unsloth-zoo#1269",
        )
        return
    for name, start, stop, expert, first in _expert_places(draft, one, path, module):
        if not draft.require_float(one, path, draft.tensors[name][1]):
            return
        factors = {
            "down": Factor(layer.pair[0], rows=slice(expert * rank, (expert + 1) * rank)),
            "up": Factor(layer.pair[1], columns=_columns(expert, count, rank, packing)),
        }
        numbers = {"scaling": scaling * one.weight}
        draft.change(
            name, Change(one.number, "lora", factors, numbers, start, stop, transposed, first, path=path, expert=expert)
        )


def _columns(expert: int, count: int, rank: int, packing: Packing) -> slice:
    if count == 1:
        return ALL
    return slice(expert * rank, (expert + 1) * rank) if packing == "unsloth" else slice(expert, None, count)


def _expert_places(
    draft: Draft, one: Ingredient, path: str, module: ModuleSpec
) -> Iterator[tuple[str, int, int, int, int]]:
    """For each expert the stored tensors that hold it: name, rows from and to, the expert, and which row of the expert's
    own matrix is the first of them."""
    name = one.matching.homes.get(path, path)
    whole = draft.stored(module)
    if whole is not None:
        for expert, rows in enumerate(slabs(whole.shape[0] * whole.shape[1], whole.shape[0])):
            yield whole.name, rows.start, rows.stop, expert, 0
        return
    for expert, parts in enumerate(one.matching.places.stacked[name]):
        first = 0
        for part in parts:
            spec = draft.stored(part)
            if spec is not None:
                yield spec.name, 0, spec.shape[0], expert, first
                first += spec.shape[0]


def _orientation(one: Ingredient, layer: LoraLayer, shape: tuple[int, ...], *, is_stack: bool) -> bool | None:
    """Whether (…, a, b) is stored (in, out); None where both are as long and nobody knows which PEFT saved it."""
    if layer.pair is None:
        return None
    rows, columns = shape[-2:]
    if rows != columns:
        return (layer.pair[0].shape[1], layer.pair[1].shape[0]) == (rows, columns)
    found = _VERSION.match(one.config.peft_version or "")
    if found is None or (int(found[1]), int(found[2])) < _SWAPPED_SINCE:
        return None
    model_type = one.base.model_type if one.base is not None else None
    return is_stack and model_type in _TRANSPOSED_EXPERTS


def _refuse_square(draft: Draft, path: str, spec: TensorSpec) -> None:
    draft.refuse(
        "experts-layout-ambiguous",
        f"the weights of {path} are square, and PEFT before 0.20 took their rows for columns; that it was 0.20 or newer the "
        "file does not say",
        where=spec.name,
        target=path,
        fix="write the PEFT that saved it into adapter_config.json: peft_version",
    )


def consumed(one: Ingredient) -> frozenset[str]:
    """The names of all tensors that belong to LoRA layers with both factors."""
    return frozenset(
        spec.name for layer in one.matching.layers.values() if layer.pair is not None for spec in layer.tensors
    )
