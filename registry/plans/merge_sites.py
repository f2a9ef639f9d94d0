"""Where the weight of a target lies, and the shape in which a formula sees it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from math import prod

from registry.domain.base_model import ModuleKind, ModuleSpec
from registry.domain.tensors import TensorSpec
from registry.plans.merge_draft import Draft, Ingredient, biases_of_head
from registry.plans.merge_tied import Tie
from registry.plans.merging import Change, Factor
from registry.variants.lora_checks import shown
from registry.variants.modules import Parts


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows ``start`` to ``stop`` of the stored tensor ``name`` are those of a weight or bias from ``first`` on."""

    name: str
    start: int
    stop: int
    first: int = 0


@dataclass(frozen=True, slots=True)
class Site:
    """A weight (``outputs``, ``inputs``, ``kernel``…) and where it is stored, ``transposed`` if its rows there are the inputs.
    ``bias`` is where the layer's bias is, empty if it has none."""

    path: str
    outputs: int
    inputs: int
    rows: tuple[Rows, ...]
    bias: tuple[Rows, ...] = ()
    kernel: tuple[int, ...] = ()
    transposed: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.outputs, self.inputs, *self.kernel)

    @property
    def width(self) -> int:
        """Columns of the matrix (outputs, inputs·kernel)."""
        return self.inputs * prod(self.kernel)

    @property
    def turned(self) -> Site:
        """An embedding (vocabulary, dimension) as a layer that makes its dimensions of one word in the vocabulary."""
        return replace(self, outputs=self.inputs, inputs=self.outputs, transposed=not self.transposed)


def site_of(
    draft: Draft, one: Ingredient, path: str, layers: Collection[ModuleKind], head: Mapping[str, str], tie: Tie | None
) -> Site | None:
    """None where the target has no weight that could be changed, which is then refused. ``layers`` are those that the method
    has a formula for."""
    module = one.matching.module(path)
    if module is None and path in head and tie is not None:
        shape = draft.tensors[tie.embedding][1].shape
        bias = tuple(Rows(name, 0, shape[0]) for name in biases_of_head(draft, head[path]))
        return Site(path, shape[0], shape[1], (Rows(head[path], 0, shape[0]),), bias)
    if module is None:
        draft.refuse(
            "no-weight",
            f"{path} is changed, and the base has no such weight",
            target=path,
            fix="merge into a base that was saved with it",
        )
        return None
    # An embedding is one by its name alone, and a view is rows of linear layers.
    kind = ModuleKind.LINEAR if module.kind in (ModuleKind.EMBEDDING, ModuleKind.VIEW) else module.kind
    if kind is not ModuleKind.PACKED and kind not in layers:
        what = f"{module.kind} {shown(module.shape or ())}"
        draft.refuse(
            "wrong-layer",
            f"{path} in the base is a layer ({what}) that {one.manifest.peft_type} has no form for",
            target=path,
            fix="check against the base it was trained on: adapters check --base DIR",
        )
        return None
    rows = tuple(_rows(draft, module, "weight"))
    if not rows or kind is ModuleKind.PACKED or module.shape is None:
        _refuse_packed(draft, path, module)
        return None
    if not all(draft.require_float(one, path, draft.tensors[each.name][1]) for each in rows):
        return None
    bias = tuple(_rows(draft, module, "bias"))
    outputs, inputs, *kernel = module.shape
    return Site(path, outputs, inputs, rows, bias, tuple(kernel), transposed=kind is ModuleKind.CONV1D)


def _rows(draft: Draft, module: ModuleSpec, tail: str) -> Iterator[Rows]:
    """Nothing where it is not stored, or not in that form."""
    if module.path in draft.views:
        for part in draft.views[module.path]:
            if f"{part.module.path}.{tail}" in draft.tensors:
                yield Rows(f"{part.module.path}.{tail}", part.stored, part.stored + part.rows, part.first)
    elif f"{module.path}.{tail}" in draft.tensors:
        name = f"{module.path}.{tail}"
        yield Rows(name, 0, draft.tensors[name][1].shape[0])


def _refuse_packed(draft: Draft, path: str, module: ModuleSpec) -> None:
    if f"{module.path}.in_proj_weight" in draft.tensors:
        draft.refuse(
            "multihead-attention",
            f"{path} is an nn.MultiheadAttention, whose projections are one tensor",
            target=path,
            fix="serve it unmerged with PEFT, or train on a model with separate projections",
        )
    else:
        draft.refuse(
            "quantized-base",
            f"{path} is packed in the base, so that it cannot be changed",
            target=path,
            fix="merge into the base before it was quantised",
        )


def add_change(
    draft: Draft, one: Ingredient, site: Site, formula: str, factors: Mapping[str, TensorSpec], **numbers: float
) -> None:
    """The formula over the whole weight."""
    made = {role: Factor(spec) for role, spec in factors.items()}
    for rows in site.rows:
        change = Change(one.number, formula, made, numbers, rows.start, rows.stop, site.transposed, rows.first)
        draft.change(rows.name, change)


def add_bias_change(
    draft: Draft, one: Ingredient, site: Site, formula: str, factors: Mapping[str, TensorSpec], **numbers: float
) -> None:
    """The same over the bias, a weight (outputs, 1)."""
    if all(draft.require_float(one, site.path, draft.tensors[each.name][1]) for each in site.bias):
        add_change(draft, one, replace(site, rows=site.bias, transposed=False), formula, factors, **numbers)


def required(draft: Draft, site: Site, parts: Parts, *tails: str) -> list[TensorSpec] | None:
    """The tensors of these names, or a refusal."""
    missing = [tail for tail in tails if tail not in parts]
    if missing:
        draft.refuse(
            "orphan-factor",
            f"{site.path} has no {' and no '.join(missing)}: the file is incomplete",
            where=next(iter(parts.values())).name,
            target=site.path,
            fix="save or upload the adapter again",
        )
        return None
    return [parts[tail] for tail in tails]


def fit(draft: Draft, site: Site, wanted: Iterable[tuple[TensorSpec, Collection[tuple[int, ...]]]]) -> bool:
    """Whether each tensor has one of its shapes; what has not is refused."""
    wrong = [(spec, shapes) for spec, shapes in wanted if spec.shape not in shapes]
    for spec, shapes in wrong:
        expected = " or ".join(shown(shape) for shape in shapes)
        draft.refuse(
            "wrong-shape",
            f"{spec.name} is {shown(spec.shape)}, and {site.path}, {shown(site.shape)} in the base, needs {expected}",
            where=spec.name,
            target=site.path,
            fix="check against the base it was trained on",
        )
    return not wrong


def scaling_of(draft: Draft, one: Ingredient, site: Site) -> float | None:
    """What the change is multiplied by, the weight included; None after a refusal."""
    scaling = one.targets[site.path].scaling
    if scaling is None:
        draft.refuse(
            "scaling-unknown",
            f"what {site.path} is multiplied by hangs on a pattern that could not be evaluated",
            target=site.path,
            fix="simplify rank_pattern and alpha_pattern in adapter_config.json",
        )
        return None
    return scaling * one.weight


def size(spec: TensorSpec, dimension: int) -> int:
    """-1 where the tensor has no such dimension, which fits nothing."""
    return spec.shape[dimension] if -len(spec.shape) <= dimension < len(spec.shape) else -1
