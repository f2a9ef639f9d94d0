"""Which tensors of a fine-tuned model an adapter has to say, and how: from names, shapes and kinds of both checkpoints.

Linear layers and embeddings become LoRAs, in mixtures of experts some as LoRAs of a bare parameter (``target_parameters``): PEFT
wraps no router otherwise, and takes some names of modules for the experts' wherever they stand. What is small or of another kind
(norms, biases) is saved whole, if it changed, with what its module counts besides (BatchNorm). The head of a task that PEFT knows
is saved whole whether it changed or not: PEFT does not load an adapter for the task without it. A module that has a parameter of
its own beside other modules (attention with sinks) is saved with all of them, if that parameter changed. Of what no adapter can say
only a change is refused: experts that memory stacks and disk does not, an embedding that encoder and decoder have in common, each
as a module of its own, and a parameter beside all layers.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from registry.checks.misfit import Misfit, error
from registry.checks.places import in_memory, places_of, upwards
from registry.domain.base_model import BaseModelSpec, ModuleKind
from registry.domain.checkpoint import Checkpoint, Shard
from registry.domain.tensors import TensorSpec
from registry.formats.base_classes import retargeted
from registry.formats.base_heads import DEFAULTS
from registry.plans.merge_draft import Draft
from registry.plans.merge_tied import Tie, tie_of
from registry.plans.merging import FLOATS

#: What modules count: BatchNorm its batches, older models their positions.
_COUNTS = frozenset({"I64", "I32"})
#: What PEFT calls the bias of a layer that it wraps.
TRAINED_BIAS = "base_layer.bias"
_EXPERTS = ".experts."


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
    #: Whether PEFT has to find it as a parameter of its module.
    bare: bool = False
    #: The output embedding that is the same matrix: it changed as well, and PEFT adapts the two sides one by one.
    head: str | None = None
    #: The module of a task's head that it belongs to.
    task_head: str | None = None
    #: Another name of a tensor, which a module has that is saved whole.
    alias: bool = False
    #: Whether its module has other modules below it.
    mixed: bool = False
    #: Why a change of it has no place in an adapter.
    unsayable: Misfit | None = None


def plan_extract(
    base: Checkpoint, tuned: Checkpoint, spec: BaseModelSpec, task: str | None
) -> tuple[list[Extract], Sequence[Misfit]]:
    """Every tensor that both have; and all reasons why the difference is no adapter. ``task`` is PEFT's name of it."""
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
    memory = {name: _split(name, spec.model_type, of_stack=len(one.shape) > 2) for name, (_, one) in ours.items()}
    routed = {name.partition(_EXPERTS)[0] for name in map(".".join, memory.values()) if _EXPERTS in name}
    mixed = _mixed({path for path, _ in memory.values()})
    tie = tie_of(spec, Draft(base))
    found: list[Extract] = []
    for name, (shard, one) in ours.items():
        other = theirs.get(name)
        if other is None or one.dtype not in (*FLOATS, *_COUNTS):
            continue
        is_count = one.dtype in _COUNTS
        if other[1].shape != one.shape or (other[1].dtype != one.dtype if is_count else other[1].dtype not in FLOATS):
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
        task_head = _head(path, task)
        low_rank = (
            module is not None
            and module.kind in (ModuleKind.LINEAR, ModuleKind.CONV1D, ModuleKind.EMBEDDING)
            and task_head is None
        )
        kind = module.kind if module is not None else ModuleKind.OTHER
        found.append(
            Extract(
                *memory[name],
                (shard, one),
                other,
                low_rank and min(one.shape) > 1,
                embedding=kind is ModuleKind.EMBEDDING,
                transposed=kind is ModuleKind.CONV1D,
                bare=kind is ModuleKind.LINEAR and _is_bare(memory[name][0], spec.model_type, routed),
                head=in_memory(tie.head.removesuffix(".weight"), spec.model_type)
                if tie is not None and name == tie.embedding
                else None,
                task_head=task_head,
                mixed=memory[name][0] in mixed,
                unsayable=_unsayable(
                    name, path, is_expert=path in stacked, has_layers=mixed.get(memory[name][0], False)
                ),
            )
        )
    if tie is not None:
        found += _aliases(tie, {f"{one.path}.{one.tail}": one for one in found}, spec.model_type)
    return found, problems


def _aliases(tie: Tie, found: Mapping[str, Extract], model_type: str | None) -> Iterator[Extract]:
    """The output's matrix and bias under the names that are not stored: PEFT wants all of a module that is saved whole."""
    for stored, name in ((tie.embedding, tie.head), tie.biases):
        one = found.get(".".join(_split(stored, model_type)))
        path, tail = _split(name, model_type)
        if one is not None and f"{path}.{tail}" not in found:
            yield Extract(path, tail, one.base, one.tuned, low_rank=False, alias=True)


def _split(name: str, model_type: str | None, *, of_stack: bool = False) -> tuple[str, str]:
    """Module in memory and tensor; a stack of matrices that disk has as a module's weight is a parameter of the experts."""
    path, _, tail = name.rpartition(".")
    found = in_memory(path, model_type)
    if of_stack and _EXPERTS in found and _EXPERTS not in name:
        path, _, tail = found.rpartition(".")
        return path, tail
    return found, tail


def _head(path: str, task: str | None) -> str | None:
    """The module that PEFT saves for the task, which ``path`` is or lies in."""
    parts = path.split(".")
    at = next((number for number, part in enumerate(parts, 1) if part in DEFAULTS.get(task or "", ())), None)
    return ".".join(parts[:at]) if at is not None else None


def saved_with(path: str, changed: Collection[str]) -> str | None:
    """The outermost of the ``changed`` mixed modules that the module lies in, or is."""
    return next((above for above in reversed([*upwards(path)]) if above in changed), None)


def _mixed(paths: Collection[str]) -> dict[str, bool]:
    """Of modules that have a tensor of their own, those that have other modules below them; and whether layers with numbers are
    among these."""
    found: dict[str, bool] = {}
    for path in paths:
        parts = path.split(".")
        for length in range(len(parts)):
            above = ".".join(parts[:length])
            if above in paths:
                found[above] = found.get(above, False) or any(part.isdecimal() for part in parts[length:])
    return found


def _is_bare(path: str, model_type: str | None, routed: Collection[str]) -> bool:
    """``routed`` are the modules that hold experts, and beside them their router."""
    above, _, name = path.rpartition(".")
    return above in routed or name in retargeted(model_type)


def _unsayable(name: str, path: str, *, is_expert: bool, has_layers: bool) -> Misfit | None:
    fix = "keep the tuned model; merging and serving it needs no adapter"
    if is_expert:
        why = f"{path} is one of the experts that transformers 5 holds in one stack, for which this finds no LoRA"
        return error("experts", why, where=name, fix=fix)
    if path.rpartition(".")[2] == "shared":
        why = f"{path} changed, which encoder and decoder have in common: a LoRA of it would change neither of theirs in PEFT"
        return error("tied-encoder-decoder", why, where=name, fix=fix)
    if has_layers or not path:
        why = f"{name} changed, which {path or 'the model'} itself holds beside its layers: PEFT could only save all of them whole"
        return error("beside-layers", why, where=name, fix=fix)
    return None
