"""Adapters folded into weights that a process holds already, in place, and taken out again.

    saved = merge_(dict(model.named_parameters()), ["./my-lora", ("./style", 0.5)], config=model.config.to_dict())
    unmerge_(dict(model.named_parameters()), saved)

The sum is that of a merge on disk: float32, one rounding. On a CUDA device a plain LoRA is one pass over the weight
(:mod:`registry.numerics.merging.fused`). Taking an adapter out by subtraction would round again, so the bytes are kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from registry.checks.brought import HEADS
from registry.checks.heads import VOCABULARY
from registry.checks.rule import Subject
from registry.checks.table import run
from registry.domain.base_model import BaseModelId, BaseModelSpec
from registry.domain.checkpoint import Checkpoint, Shard
from registry.domain.digest import Digest
from registry.domain.finding import Severity
from registry.domain.tensors import TensorSpec
from registry.errors import InvalidInputError, RejectedError, UnmergeableError
from registry.formats.base_modules import layers_of, modules_of
from registry.formats.model_config import ModelConfig
from registry.numerics.merging import fused
from registry.numerics.precision import is_rounding
from registry.plans.merge_draft import Ingredient
from registry.plans.merge_plan import MergeOptions, plan_merge
from registry.plans.merge_refusals import PARTIAL
from registry.plans.merge_views import with_views
from registry.plans.merging import MergePlan, Origin, PlannedTensor
from registry.transforms.recipes import Recipe, prepared
from registry.transforms.streaming import loader, read
from registry.transforms.workers import Cpu, Cuda
from registry.weights.adapter import open_adapter
from registry.weights.dtypes import NAMES
from registry.weights.streams import Sources, sources

#: What is known of a model whose input and output embedding are one tensor.
_TIED: Mapping[str, object] = {"architectures": ["ForCausalLM"]}
_MEMORY = Path("the weights in memory")


@dataclass(frozen=True)
class Saved:
    """The weights as they were, by name. They can be given back once."""

    tensors: Mapping[str, Tensor]


def merge_(
    weights: Mapping[str, Tensor],
    adapters: Sequence[str | Path | tuple[str | Path, float]],
    *,
    config: Mapping[str, object] | None = None,
    options: MergeOptions | None = None,
    keep_on: str | torch.device = "cpu",
) -> Saved:
    """Change ``weights`` in place: all of them, or none.

    ``weights`` go by their names in the checkpoint or in transformers' memory. ``config`` is the model's config.json: it tells
    Conv1D from linear layers and tied embeddings from two; without it the weights have to speak for themselves. What is
    replaced is kept on ``keep_on``.

    Raises InvalidInputError for a broken adapter, RejectedError with every reason where the weights cannot become the merge in
    place: a tensor would be added, untied, or of another shape.
    """
    if options is not None and options.base_view != "16bit":
        raise RejectedError(
            "weights in memory are merged into as they are, not as NF4 would show them",
            code="not-in-place",
            hint="merge into a checkpoint and load that: adapters merge BASE ADAPTER -o DIR --base-view nf4",
        )
    asked = [one if isinstance(one, tuple) else (one, 1.0) for one in adapters]
    weights, is_shared = _once(weights)
    base = _checkpoint(weights, {**_TIED, **(config or {}), "tie_word_embeddings": True} if is_shared else config or {})
    spec, views = with_views(_spec(base))
    opened = [
        replace(open_adapter(Path(path), number=number, weight=weight), base=spec)
        for number, (path, weight) in enumerate(asked)
    ]
    for one in opened:
        _require_fit(one, spec, options or MergeOptions())
    with sources(one.weights.path for one in opened) as files:
        plan, problems = plan_merge(base, spec, opened, options or MergeOptions(), _Same(weights, files), views)
        if problems:
            raise UnmergeableError("the adapters", problems)
        changed = plan.changed
        if config is None and not is_shared:
            _require_known_head(changed, weights)
        _require_in_place(changed, plan, weights)
        saved = Saved({one.name: weights[one.name].detach().to(keep_on, copy=True) for one in changed})
        try:
            with torch.no_grad():
                load = loader(plan, files)
                for tensor in changed:
                    weight = weights[tensor.name]
                    _change(weight, prepared(tensor, load, weight.device), tensor, files)
        except BaseException:
            unmerge_(weights, saved)
            raise
    return saved


def unmerge_(weights: Mapping[str, Tensor], saved: Saved) -> None:
    """Give the weights their bytes back. Raises InvalidInputError where they are not those that were merged into."""
    for name, before in saved.tensors.items():
        if name not in weights or weights[name].shape != before.shape or weights[name].dtype != before.dtype:
            raise InvalidInputError(
                f"{name} is not the weight that was merged into", hint="give the same weights as to merge_"
            )
    with torch.no_grad():
        for name, before in saved.tensors.items():
            weights[name].copy_(before)


class _Same:
    """Whether two tensors hold the same numbers, in files or in memory."""

    def __init__(self, weights: Mapping[str, Tensor], files: Sources) -> None:
        self._weights, self._files = weights, files

    def __call__(self, one: Origin, other: Origin, *, transposed: bool = False) -> bool:
        a, b = (
            self._weights[each.spec.name].cpu() if each.shard.path == _MEMORY else read(self._files, each)
            for each in (one, other)
        )
        return is_rounding(a, b.mT if transposed else b)


def _checkpoint(weights: Mapping[str, Tensor], config: Mapping[str, object]) -> Checkpoint:
    specs = tuple(TensorSpec(name, NAMES.get(one.dtype, "U8"), tuple(one.shape)) for name, one in weights.items())
    return Checkpoint(_MEMORY, config, (Shard(_MEMORY, specs, {}, 0, 0),))


def _spec(base: Checkpoint) -> BaseModelSpec:
    config, tensors = ModelConfig(base.config), [spec for _, spec in base]
    nowhere, modules = Digest.of(b""), modules_of(tensors, config)
    return BaseModelSpec(
        BaseModelId(None),
        config.model_type,
        config.architectures,
        modules,
        config.is_tied,
        config.vocabulary,
        nowhere,
        is_quantized=bool(config.quantization),
        layers=layers_of(modules, config),
    )


def _once(weights: Mapping[str, Tensor]) -> tuple[Mapping[str, Tensor], bool]:
    """Each weight under one name, and whether an embedding is the output's as well."""
    found: dict[tuple[int, torch.Size], str] = {}
    for name, tensor in weights.items():
        key = (tensor.data_ptr(), tensor.shape)
        if key not in found or not tensor.numel() or _is_head(found[key]):
            found[key if tensor.numel() else (id(tensor), tensor.shape)] = name
    kept = set(found.values())
    return {name: weights[name] for name in weights if name in kept}, any(
        _is_head(one) for one in weights.keys() - kept
    )


def _is_head(name: str) -> bool:
    return name.removesuffix(".weight").rpartition(".")[2] in HEADS


def _require_known_head(changed: Sequence[PlannedTensor], weights: Mapping[str, Tensor]) -> None:
    """Without a config nobody knows whether an embedding without an output of its own is the output's as well."""
    embedding = next(
        (one.name for one in changed if one.name.removesuffix(".weight").rpartition(".")[2] in VOCABULARY - HEADS), None
    )
    if embedding is not None and not any(map(_is_head, weights)):
        raise RejectedError(
            f"whether {embedding} is tied to the output the weights do not say",
            code="config-needed",
            hint="give the model's config: config=model.config.to_dict()",
        )


def _require_fit(one: Ingredient, base: BaseModelSpec, options: MergeOptions) -> None:
    findings = run(Subject(one.manifest, one.config, base))
    errors = [each for each in findings if each.severity is Severity.ERROR]
    if "partial" not in options.allow:
        errors += [each for each in findings if each.rule in PARTIAL and each not in errors]
    if errors:
        raise UnmergeableError(one.name, errors)


def _require_in_place(changed: Sequence[PlannedTensor], plan: MergePlan, weights: Mapping[str, Tensor]) -> None:
    own = {one.name: one.shape for one in changed if one.name in weights}
    foreign = [
        one.name
        for one in changed
        if own.get(one.name) != tuple(weights[one.name].shape if one.name in weights else ())
    ]
    shared = {weights[one.name].data_ptr() for one in changed if one.name in weights}
    unties = plan.config is not None and plan.config.get("tie_word_embeddings") is False
    if plan.config is not None or foreign or len(shared) < len(changed):
        raise RejectedError(
            "the merge unties weights that are one in memory"
            if unties or not foreign
            else f"the merge adds or resizes {foreign[0]}",
            code="not-in-place",
            hint="merge into a checkpoint and load that: adapters merge BASE ADAPTER -o DIR",
        )


def _change(weight: Tensor, recipe: Recipe, one: PlannedTensor, files: Sources) -> None:
    stored = weight.view(one.matrix)
    if one.origin.adapter is not None:
        weight.copy_(read(files, one.origin).to(weight.device))
    if fused.fits(stored, [each.change.formula for each in recipe.changes]) and not recipe.rows:
        whole = [each for each in recipe.changes if (each.change.start, each.change.stop) == (0, stored.shape[0])]
        if len(whole) == len(recipe.changes) and not any(each.change.transposed for each in whole):
            fused.add_(
                stored, [(each.factors["up"], each.factors["down"], each.change.numbers["scaling"]) for each in whole]
            )
            _require_finite(weight, one)
            return
    elements = Cpu.elements if weight.device.type == "cpu" else Cuda.elements
    blocks = list(recipe.blocks(elements))
    if recipe.needs_statistic:
        looks = [recipe.look(stored[block.start : block.stop].to(recipe.compute), block) for block in blocks]
        recipe.know(torch.stack(looks).sum(dim=0))
    for block in blocks:
        rows = stored[block.start : block.stop]
        rows.copy_(recipe.apply(rows.to(recipe.compute, copy=True), block))
    _require_finite(weight, one)


def _require_finite(weight: Tensor, one: PlannedTensor) -> None:
    if not bool(torch.isfinite(weight.sum(dtype=torch.float32))) and not bool(torch.isfinite(weight).all()):
        raise RejectedError(
            f"{one.name} has values after the merge that {one.dtype} cannot hold, or had before",
            code="overflow",
            hint="hold the weights in a wider type",
        )
