"""A base and adapters become a plan of the merged checkpoint, or a list of all reasons why there is none.

1. What can never be merged is refused by name.
2. Every adapter's factors become changes of stored tensors, everything else of it a replacement, rows, or a copy.
3. Copies of the base's embeddings are the base's own, or somebody said which to take.
4. The two sides of a tied embedding, where they are no longer one, become two tensors.
5. Changes that cannot stand beside each other are refused; every tensor of every adapter is accounted for.
6. Tensors are laid into files as the base has them, or anew; the config follows.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from registry.checks.heads import VOCABULARY
from registry.checks.misfit import Misfit
from registry.domain.base_model import BaseModelSpec
from registry.domain.checkpoint import Checkpoint
from registry.domain.tensors import TensorSpec
from registry.errors import InvalidValueError
from registry.plans.combining import Blend
from registry.plans.merge_blend import blend_changes
from registry.plans.merge_config import ConfigEdit
from registry.plans.merge_draft import Draft, Ingredient
from registry.plans.merge_lora import add_lora, consumed
from registry.plans.merge_methods import add_method
from registry.plans.merge_refusals import refuse_stacked, refuse_unmergeable
from registry.plans.merge_shards import ONE_FILE, laid_out
from registry.plans.merge_tied import (
    Tie,
    heads_of,
    is_kept,
    refuse_entangled,
    share,
    tie_of,
    unite_changes,
    unite_rows,
    unite_saved,
)
from registry.plans.merge_views import Part
from registry.plans.merge_whole import add_whole, replace_whole
from registry.plans.merging import FLOATS, Change, MergePlan, Origin, PlannedTensor, SameNumbers, require_float
from registry.variants.findings import some
from registry.variants.lora import MARK
from registry.variants.lora_layers import TAILS, gather, is_of_training
from registry.variants.tensor_names import Place, places

#: The last layer of a head, with a row for each label; before it there may be layers of any width.
_LABELLED = frozenset({"classifier", "out_proj", "score"})


_WORDS = {
    "embeddings": (None, "adapter", "base"),
    "packing": (None, "peft", "unsloth"),
    "tokenizer": (None, "adapter", "base"),
    "base_view": ("16bit", "nf4"),
}


@dataclass(frozen=True, slots=True)
class MergeOptions:
    """``dtype`` is safetensors' name, or None to keep each tensor's. ``embeddings`` says whose embedding is taken where an
    adapter's copy differs: ``adapter`` or ``base``. ``packing`` of fused experts is ``peft`` or ``unsloth``.
    ``blend`` is how several LoRAs become one delta.
    ``base_view`` is ``16bit``, or ``nf4``: the base is given as QLoRA saw it (:mod:`registry.operations.base_view`).

    Raises InvalidValueError."""

    dtype: str | None = None
    max_shard_bytes: int | None = None
    embeddings: str | None = None
    packing: str | None = None
    tokenizer: str | None = None
    base_view: str = "16bit"
    base_is_residual: bool = False
    blend: Blend = field(default_factory=Blend)
    allow: Collection[str] = frozenset()

    def __post_init__(self) -> None:
        require_float(self.dtype)
        object.__setattr__(self, "allow", frozenset(self.allow))
        for name, known in _WORDS.items():
            value = getattr(self, name)
            if value not in known:
                said = ", ".join(each for each in known if each is not None)
                raise InvalidValueError(name.replace("_", " "), str(value), f"one of {said}")


def plan_merge(
    base: Checkpoint,
    spec: BaseModelSpec,
    adapters: Sequence[Ingredient],
    options: MergeOptions,
    same: SameNumbers,
    views: Mapping[str, tuple[Part, ...]] = MappingProxyType({}),
) -> tuple[MergePlan, Sequence[Misfit]]:
    """The plan, and all reasons against it: if there are any, it is not to be carried out."""
    draft = Draft(base, views)
    refuse_unmergeable(draft, spec, adapters, options)  # 1
    if draft.problems:
        return MergePlan((), (), None, None), draft.problems
    tie = tie_of(spec, draft)
    for one in adapters:
        _add(draft, one, tie, options)  # 2
    _settle_copies(draft, adapters, tie, options, same)  # 3
    if tie is not None:  # 4
        share(draft, tie, adapters)
        unite_changes(draft, tie, adapters, same)
        unite_rows(draft, tie, adapters, same)
        unite_saved(draft, tie, same)
        for number, down, up in draft.transposes:
            ours = Origin(adapters[number].weights, down, number)
            if not same(ours, replace(ours, spec=up), transposed=True):
                draft.refuse(
                    "tied-factors-differ",
                    f"{adapters[number].name} was trained with tied embeddings, and {down.name} and {up.name} are not the same",
                    where=down.name,
                    fix="train without ensure_weight_tying, or on a base in float32",
                )
    untied = tie is not None and not is_kept(draft, tie)
    refuse_entangled(draft, tie, spec)
    _settle_replacements(draft, same)  # 5
    refuse_stacked(draft, adapters)
    blend_changes(draft, adapters, options.blend)
    tensors = {name: _planned(draft, name, options) for name in draft.tensors}
    extra = [name for name in (*draft.changes, *draft.replaced, *draft.rows) if name not in draft.tensors]
    config = ConfigEdit(base.config)
    for name in dict.fromkeys(extra):
        if tie is not None and name == tie.head:
            if untied:
                tensors[name] = _planned(draft, name, options, origin=_base_origin(draft, tie.embedding))
        else:
            _bring(draft, name, adapters, config)
            tensors[name] = _planned(draft, name, options)
    if untied and tie is not None and tie.head not in tensors:
        tensors[tie.head] = _planned(draft, tie.head, options, origin=_base_origin(draft, tie.embedding))
    if untied and tie is not None:
        stored, other = tie.biases
        if stored in tensors and other not in tensors:
            tensors[other] = replace(tensors[stored], name=other)
        config.untie()
    takes = _resize(draft, tensors, spec, adapters, config, tie, options)  # 6
    _label(draft, tensors, config)
    if options.base_view == "nf4":
        config.unpack(base.unpacked_dtype)
    if options.dtype is not None:
        config.store_as(options.dtype)
    shards = laid_out(base, tensors, options.max_shard_bytes)
    index = None if len(shards) == 1 and shards[0].name == ONE_FILE else dict(base.index or {})
    return (
        MergePlan(
            shards=shards,
            adapters=tuple(one.weights for one in adapters),
            config=config.result,
            index=index,
            takes_tokenizer_of=takes,
        ),
        draft.problems,
    )


def _add(draft: Draft, one: Ingredient, tie: Tie | None, options: MergeOptions) -> None:
    head = heads_of(one, tie)
    left: list[Place] = []
    if one.manifest.peft_type == "LORA":
        add_lora(draft, one, head, options.packing)
        found, _ = places(one.manifest.tensors, MARK, TAILS)
        _, left = gather(found)
        known = {*consumed(one), *(place.spec.name for place in left)}
        lost = [
            place.spec.name for place in found if place.spec.name not in known and not is_of_training(place.spec.name)
        ]
    else:
        left, lost = add_method(draft, one, head, tie), []
    if lost and "partial" not in options.allow:
        draft.refuse(
            "unmatched-tensor",
            f"{one.name} has tensors that belong to no module of the base: {some(lost)}",
            where=lost[0],
            fix="check against the base it was trained on: adapters check --base DIR",
        )
    add_whole(draft, one, iter(left), head)


def _settle_copies(
    draft: Draft, adapters: Sequence[Ingredient], tie: Tie | None, options: MergeOptions, same: SameNumbers
) -> None:
    for name, copies in draft.copies.items():
        own = tie.embedding if tie is not None and name == tie.head and name not in draft.tensors else name
        if own not in draft.tensors:
            for copied in copies:
                replace_whole(draft, adapters[copied.adapter or 0], name, copied.spec)
            continue
        original = _base_origin(draft, own)
        for copied in copies:
            one = adapters[copied.adapter or 0]
            if tie is not None and name in (tie.embedding, tie.head) and one.config.truthy("ensure_weight_tying"):
                sides = [*draft.replaced.get(tie.embedding, []), *draft.replaced.get(tie.head, [])]
                if any(each.adapter == copied.adapter and same(copied, each) for each in sides):
                    replace_whole(draft, one, name, copied.spec)  # one matrix, saved under both of its names
                    continue
            if copied.spec.shape != original.spec.shape:
                replace_whole(draft, one, name, copied.spec)
            elif same(copied, original) or options.embeddings == "base":
                continue
            elif options.embeddings == "adapter":
                replace_whole(draft, one, name, copied.spec)
            else:
                draft.refuse(
                    "embeddings-differ",
                    f"{copied.spec.name} of {one.name} is not the base's own {own}: it was trained along, or the base is another",
                    where=copied.spec.name,
                    fix="say which to take: --embeddings adapter, or --embeddings base",
                )


def _settle_replacements(draft: Draft, same: SameNumbers) -> None:
    for name, origins in draft.replaced.items():
        for other in origins[1:]:
            if other.spec.shape == origins[0].spec.shape and same(origins[0], other):
                continue
            if other.adapter == origins[0].adapter:
                draft.refuse(
                    "replacements-differ",
                    f"{name} is one tensor in the base, and an adapter brings two for it, {origins[0].spec.name} and "
                    f"{other.spec.name}, whose numbers differ",
                    where=name,
                    fix="serve it unmerged with PEFT, or train only one of the two",
                )
            else:
                draft.refuse(
                    "replacements-differ",
                    f"two adapters replace {name}, each by its own",
                    where=name,
                    fix="merge only one of them, or leave the module out of one's modules_to_save",
                )


def _planned(draft: Draft, name: str, options: MergeOptions, origin: Origin | None = None) -> PlannedTensor:
    own = _base_origin(draft, name) if name in draft.tensors else origin
    replaced = draft.replaced.get(name)
    origin = replaced[0] if replaced else own
    if origin is None:
        raise ValueError(f"{name} comes from nowhere")
    dtype = own.spec.dtype if own is not None else _usual_dtype(draft, origin.spec.dtype)
    if options.dtype is not None and dtype in FLOATS:
        dtype = options.dtype
    changes, rows = tuple(draft.changes.get(name, ())), tuple(draft.rows.get(name, ()))
    _require_fit(draft, name, origin.spec, changes)
    return PlannedTensor(name, dtype, origin, changes, rows)


def _usual_dtype(draft: Draft, own: str) -> str:
    """What most of the base is stored as, for a tensor that the base does not have."""
    floats = [spec.dtype for _, spec in draft.tensors.values() if spec.dtype in FLOATS]
    return max(floats, key=floats.count) if floats and own in FLOATS else own


def _require_fit(draft: Draft, name: str, spec: TensorSpec, changes: tuple[Change, ...]) -> None:
    rows = spec.shape[0] if spec.shape else 1
    whole = {rows, rows * spec.shape[1]} if len(spec.shape) == 3 else {rows}
    stop = max((change.stop for change in changes), default=rows)
    fused = {part.module.path for parts in draft.views.values() for part in parts}
    if stop not in whole and not (stop < rows and name.rpartition(".")[0] in fused):
        draft.refuse(
            "wrong-shape",
            f"{name} has {rows:,} rows, and an adapter changes {stop:,}",
            where=name,
            fix="merge adapters of one vocabulary, and into the base they were trained on",
        )


def _base_origin(draft: Draft, name: str) -> Origin:
    shard, spec = draft.tensors[name]
    return Origin(shard, spec)


def _bring(draft: Draft, name: str, adapters: Sequence[Ingredient], config: ConfigEdit) -> None:
    """A tensor that the base does not have: part of a head, by which the model becomes one of another class."""
    origins = draft.replaced.get(name)
    if not origins:
        draft.refuse("no-weight", f"{name} is changed, and the base has no such weight", where=name,
                     fix="merge into a base that was saved with it")  # fmt: skip
        return
    one = adapters[origins[0].adapter or 0]
    module, _, tail = name.rpartition(".")
    if tail == "bias" and f"{module}.weight" not in draft.tensors.keys() | draft.replaced.keys():
        draft.refuse(
            "head-unknown",
            f"{one.name} brings {name} without its weight, which the base lacks as well",
            where=name,
            fix="name the module in modules_to_save, and train again",
        )
        return
    places, prefix = one.matching.places, one.matching.prefix
    if prefix and places.has_prefix and f"{prefix}." != places.prefix:
        draft.refuse(
            "head-unknown",
            f"{one.name} brings {name}, and the class that has it keeps the model below {prefix}, not {places.prefix[:-1]}",
            where=name,
            fix="serve it unmerged with PEFT, or merge into a base that was saved from that class",
        )
        return
    labels = origins[0].spec.shape[0] if module.rpartition(".")[2] in _LABELLED and origins[0].spec.shape else None
    if not config.become(one.manifest.task_type or "", labels):
        draft.refuse(
            "head-unknown",
            f"{one.name} brings {name}, which the base lacks, and its task ({one.manifest.task_type or 'none'}) does not say to "
            "which class the merged model belongs",
            where=name,
            fix="serve it unmerged with PEFT, or merge into a base that was saved with that head",
        )


def _resize(
    draft: Draft,
    tensors: Mapping[str, PlannedTensor],
    spec: BaseModelSpec,
    adapters: Sequence[Ingredient],
    config: ConfigEdit,
    tie: Tie | None,
    options: MergeOptions,
) -> int | None:
    """Another number of rows in the embeddings: in both sides, and the config and tokenizer say so. Returns whose tokenizer
    goes with it."""
    takes = adapters[0].number if options.tokenizer == "adapter" else None
    resized = {
        name: one
        for name, one in tensors.items()
        if name in draft.tensors
        and one.shape != draft.tensors[name][1].shape
        and name.removesuffix(".weight").rpartition(".")[2] in VOCABULARY
    }
    sizes = {one.shape[0] for one in resized.values()}
    if not sizes:
        return takes
    rows = {one.shape[0] for name, one in tensors.items() if _has_vocabulary(draft, name, spec, tie)}
    if len(rows | sizes) > 1:
        draft.refuse(
            "vocabulary-half-resized",
            f"{next(iter(resized))} has {max(sizes):,} rows, and the other side of the vocabulary {min(rows):,}",
            where=next(iter(resized)),
            fix="save the adapter again with save_embedding_layers=True",
        )
    config.resize(max(sizes))
    first = next(iter(resized.values())).origin.adapter
    return first if options.tokenizer != "base" else None


def _has_vocabulary(draft: Draft, name: str, spec: BaseModelSpec, tie: Tie | None) -> bool:
    if tie is not None and name in (tie.embedding, tie.head):
        return True
    last = name.removesuffix(".weight").rpartition(".")[2]
    own = draft.tensors.get(name)
    return last in VOCABULARY and own is not None and own[1].shape[0] == spec.vocabulary


def _label(draft: Draft, tensors: Mapping[str, PlannedTensor], config: ConfigEdit) -> None:
    """A head of the base that an adapter replaces by one for another number of labels."""
    for name, one in tensors.items():
        if name in draft.tensors and one.shape != draft.tensors[name][1].shape and one.shape:
            last = name.removesuffix(".weight").rpartition(".")[2]
            if last in VOCABULARY or not name.endswith(".weight"):
                continue
            config.label(one.shape[0])
