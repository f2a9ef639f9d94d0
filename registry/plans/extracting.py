"""Which tensors of a fine-tuned model an adapter has to say, and how: from names, shapes and kinds of both checkpoints.

Linear layers and embeddings become LoRAs, in mixtures of experts some as LoRAs of a bare parameter (``target_parameters``): PEFT
wraps no router otherwise, and takes some names of modules for the experts' wherever they stand. What is small or of another kind
(norms, biases) is saved whole, if it changed, with what its module counts besides (BatchNorm); and so is a matrix that the model
does not use as a plain layer (OPT's positions). The head of a task that PEFT knows is saved whole whether it changed or not: PEFT
does not load an adapter for the task without it. A module that has a parameter of its own beside other modules (attention with
sinks) is saved with all of them, if that parameter changed. Of what no adapter can say only a change is refused: experts that
memory stacks and disk does not, an embedding that encoder and decoder have in common, each as a module of its own, and a parameter
beside all layers.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from registry.checks.misfit import Misfit, error
from registry.checks.places import in_memory, places_of, upwards
from registry.domain.base_model import BaseModelSpec, ModuleKind
from registry.domain.checkpoint import Checkpoint, Shard
from registry.domain.tensors import TensorSpec
from registry.formats.base_classes import names_without_lora, retargeted
from registry.formats.base_heads import DEFAULTS
from registry.formats.base_modules import word
from registry.plans.merge_draft import Draft
from registry.plans.merge_tied import Tie, tie_of
from registry.plans.merging import FLOATS
from registry.plans.refusals import Refusals

#: What modules count: BatchNorm its batches, older models their positions.
_COUNTS = frozenset({"I64", "I32"})
#: What PEFT calls the bias of a layer that it wraps.
TRAINED_BIAS = "base_layer.bias"
_EXPERTS = ".experts."
_KEEP = "keep the tuned model; merging and serving it needs no adapter"
#: What checkpoints of TensorFlow's days have for a norm's weight and bias; transformers renames them.
_OF_NORMS = {"gamma": "weight", "beta": "bias"}
#: Model types whose output adds a bias to what its matrix gives, and has none beside the matrix.
_OWN_BIAS = frozenset({"esm"})
_MATRICES = frozenset({ModuleKind.LINEAR, ModuleKind.CONV1D, ModuleKind.EMBEDDING})


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
    ours, theirs = ({one.name: (shard, one) for shard, one in each} for each in (base, tuned))
    draft = Refusals()
    _refuse_lacking(draft, ours.keys() - theirs.keys(), "the tuned model")
    _refuse_lacking(draft, theirs.keys() - ours.keys(), "the base")
    model = _Model(spec, task, tie_of(spec, Draft(base)), {name: one.shape for name, (_, one) in ours.items()})
    found: list[Extract] = []
    for name, (shard, one) in ours.items():
        other = theirs.get(name)
        if other is None or one.dtype not in (*FLOATS, *_COUNTS):
            continue
        if _is_alike(one, other[1]):
            found.append(model.extract((shard, one), other))
            continue
        draft.refuse(
            "other-shape",
            f"{name} is {list(one.shape)} {one.dtype} in the base, and {list(other[1].shape)} {other[1].dtype} in the tuned model",
            where=name,
            fix="give the base that the model was tuned from, before its vocabulary or head was resized",
        )
    if model.tie is not None:
        found += _aliases(model.tie, {f"{one.path}.{one.tail}": one for one in found}, spec.model_type)
    return found, draft.problems


def _refuse_lacking(draft: Refusals, missing: Collection[str], where: str) -> None:
    if missing:
        draft.refuse(
            "other-tensors",
            f"{where} lacks {len(missing)} tensors of the other, such as {min(missing)}",
            where=min(missing),
            fix="give the base that the model was tuned from",
        )


def _is_alike(one: TensorSpec, other: TensorSpec) -> bool:
    """Whether both are of one shape, and either count or hold weights."""
    return one.shape == other.shape and (one.dtype == other.dtype if one.dtype in _COUNTS else other.dtype in FLOATS)


@dataclass(frozen=True)
class _Model:
    """The base as PEFT finds it in memory. ``shapes`` go by the stored names."""

    spec: BaseModelSpec
    task: str | None
    tie: Tie | None
    shapes: Mapping[str, Sequence[int]]

    @cached_property
    def kinds(self) -> Mapping[str, ModuleKind]:
        return {module.path: module.kind for module in self.spec.modules}

    @cached_property
    def stacked(self) -> Collection[str]:
        """Modules on disk that are one stack in memory."""
        return {part.path for experts in places_of(self.spec).stacked.values() for parts in experts for part in parts}

    @cached_property
    def memory(self) -> Mapping[str, tuple[str, str]]:
        """Module and tensor, by the stored name. BERT's bias of the output is the one that its matrix is used with, the other
        of its two names."""
        stored, own = self.tie.biases if self.tie is not None else ("", "")
        is_moved = stored in self.shapes and own not in self.shapes and self.spec.model_type not in _OWN_BIAS
        names = {name: own if is_moved and name == stored else name for name in self.shapes}
        return {
            name: _split(names[name], self.spec.model_type, of_stack=len(shape) > 2)
            for name, shape in self.shapes.items()
        }

    @cached_property
    def routed(self) -> Collection[str]:
        """Modules that hold experts, and beside them their router."""
        names = map(".".join, self.memory.values())
        return {name.partition(_EXPERTS)[0] for name in names if _EXPERTS in name}

    @cached_property
    def mixed(self) -> Mapping[str, bool]:
        return _mixed({path for path, _ in self.memory.values()})

    def extract(self, base: tuple[Shard, TensorSpec], tuned: tuple[Shard, TensorSpec]) -> Extract:
        name, shape = base[1].name, base[1].shape
        stored, _, end = name.rpartition(".")
        path, tail = self.memory[name]
        kind = self.kinds.get(stored, ModuleKind.OTHER) if end == "weight" else ModuleKind.OTHER
        task_head = _head(path, self.task)
        is_layer = kind in _MATRICES and word(stored) not in names_without_lora(self.spec.model_type)
        return Extract(
            path,
            tail,
            base,
            tuned,
            low_rank=is_layer and task_head is None and min(shape) > 1,
            embedding=kind is ModuleKind.EMBEDDING,
            transposed=kind is ModuleKind.CONV1D,
            bare=kind is ModuleKind.LINEAR and _is_bare(path, self.spec.model_type, self.routed),
            head=self._other_side(name),
            task_head=task_head,
            mixed=path in self.mixed,
            unsayable=self._unknown_side(name)
            or _unsayable(name, stored, is_expert=stored in self.stacked, has_layers=self.mixed.get(path, False)),
        )

    def _unknown_side(self, name: str) -> Misfit | None:
        if self.tie is None or self.tie.is_known or name != self.tie.embedding:
            return None
        why = f"{name} changed, which is the output's matrix too, and how {self.spec.architectures[0]} calls that is not known"
        return error("tied-head-unknown", why, where=name, fix=_KEEP)

    def _other_side(self, name: str) -> str | None:
        """The output embedding, of the input embedding that is the same matrix."""
        if self.tie is None or name != self.tie.embedding:
            return None
        return in_memory(self.tie.head.removesuffix(".weight"), self.spec.model_type)


def _aliases(tie: Tie, found: Mapping[str, Extract], model_type: str | None) -> Iterator[Extract]:
    """The output's matrix under the name that is not stored: PEFT wants all of a module that is saved whole."""
    one = found.get(".".join(_split(tie.embedding, model_type)))
    path, tail = _split(tie.head, model_type)
    if one is not None and f"{path}.{tail}" not in found:
        yield Extract(path, tail, one.base, one.tuned, low_rank=False, alias=True)


def _split(name: str, model_type: str | None, *, of_stack: bool = False) -> tuple[str, str]:
    """Module in memory and tensor; a stack of matrices that disk has as a module's weight is a parameter of the experts."""
    path, _, tail = name.rpartition(".")
    found = in_memory(path, model_type)
    if path.endswith("LayerNorm"):
        tail = _OF_NORMS.get(tail, tail)
    if of_stack and _EXPERTS in found and _EXPERTS not in name:
        path, _, tail = found.rpartition(".")
        return path, tail
    return found, tail


def _head(path: str, task: str | None) -> str | None:
    """The module that PEFT saves for the task, which ``path`` is or lies in: any whose name ends as it lists them."""
    ends = tuple(DEFAULTS.get(task or "", ()))
    return next((above for above in reversed([*upwards(path)]) if above.endswith(ends)), None) if ends else None


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
    above, _, name = path.rpartition(".")
    return above in routed or name in retargeted(model_type)


def _unsayable(name: str, path: str, *, is_expert: bool, has_layers: bool) -> Misfit | None:
    if is_expert:
        why = f"{path} is one of the experts that transformers 5 holds in one stack, for which this finds no LoRA"
        return error("experts", why, where=name, fix=_KEEP)
    if path.rpartition(".")[2] == "shared":
        why = f"{path} changed, which encoder and decoder have in common: a LoRA of it would change neither of theirs in PEFT"
        return error("tied-encoder-decoder", why, where=name, fix=_KEEP)
    if has_layers or not path:
        why = f"{name} changed, which {path or 'the model'} itself holds beside its layers: PEFT could only save all of them whole"
        return error("beside-layers", why, where=name, fix=_KEEP)
    return None
