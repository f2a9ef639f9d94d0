"""Which tensors of a fine-tuned model an adapter has to say, and how: from names, shapes and kinds of both checkpoints.

Linear layers and embeddings become LoRAs; what is small or of another kind (norms, biases, heads of another shape) is saved
whole, if it changed. Experts that memory stacks and disk does not have no LoRA that PEFT would load, and are refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from registry.checks.misfit import Misfit, error
from registry.checks.places import in_memory, places_of
from registry.domain.base_model import BaseModelSpec, ModuleKind
from registry.domain.checkpoint import Checkpoint, Shard
from registry.domain.tensors import TensorSpec
from registry.plans.merge_draft import Draft
from registry.plans.merge_tied import tie_of
from registry.plans.merging import FLOATS

#: What PEFT calls the bias of a layer that it wraps.
TRAINED_BIAS = "base_layer.bias"


@dataclass(frozen=True, slots=True)
class Extract:
    """A tensor of both checkpoints. ``path`` is its module as PEFT finds it; ``transposed`` if it is stored (in, out)."""

    path: str
    tail: str
    base: tuple[Shard, TensorSpec]
    tuned: tuple[Shard, TensorSpec]
    low_rank: bool
    embedding: bool = False
    transposed: bool = False
    #: The output embedding that is the same matrix: it changed as well, and PEFT adapts the two sides one by one.
    head: str | None = None


def plan_extract(base: Checkpoint, tuned: Checkpoint, spec: BaseModelSpec) -> tuple[list[Extract], Sequence[Misfit]]:
    """Every floating tensor that both have; and all reasons why the difference is no adapter."""
    theirs = {one.name: (shard, one) for shard, one in tuned}
    ours = {one.name: (shard, one) for shard, one in base}
    problems: list[Misfit] = []
    for missing, where in ((ours.keys() - theirs.keys(), "the tuned model"), (theirs.keys() - ours.keys(), "the base")):
        if missing:
            problems.append(
                error(
                    "other-tensors",
                    f"{where} lacks {len(missing)} tensors of the other, such as {min(missing)}",
                    where=min(missing),
                    fix="give the base that the model was tuned from",
                )
            )
    kinds = {module.path: module for module in spec.modules}
    stacked = {part.path for experts in places_of(spec).stacked.values() for parts in experts for part in parts}
    tie = tie_of(spec, Draft(base))
    found: list[Extract] = []
    for name, (shard, one) in ours.items():
        other = theirs.get(name)
        if other is None or one.dtype not in FLOATS:
            continue
        if other[1].shape != one.shape or other[1].dtype not in FLOATS:
            problems.append(
                error(
                    "other-shape",
                    f"{name} is {list(one.shape)} {one.dtype} in the base, and {list(other[1].shape)} {other[1].dtype} in the "
                    "tuned model",
                    where=name,
                    fix="give the base that the model was tuned from, before its vocabulary or head was resized",
                )
            )
            continue
        path, _, tail = name.rpartition(".")
        module = kinds.get(path) if tail == "weight" else None
        low_rank = module is not None and module.kind in (ModuleKind.LINEAR, ModuleKind.CONV1D, ModuleKind.EMBEDDING)
        if path in stacked:
            problems.append(
                error(
                    "experts",
                    f"{path} is one of the experts that transformers 5 holds in one stack, for which this finds no LoRA",
                    where=name,
                    fix="keep the tuned model; merging and serving it needs no adapter",
                )
            )
            break
        kind = module.kind if module is not None else ModuleKind.OTHER
        found.append(
            Extract(
                in_memory(path, spec.model_type),
                tail,
                (shard, one),
                other,
                low_rank and min(one.shape) > 1,
                embedding=kind is ModuleKind.EMBEDDING,
                transposed=kind is ModuleKind.CONV1D,
                head=in_memory(tie.head.removesuffix(".weight"), spec.model_type)
                if tie is not None and name == tie.embedding
                else None,
            )
        )
    return found, problems
