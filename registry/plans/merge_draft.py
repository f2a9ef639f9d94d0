"""What several adapters do to the tensors of one base, gathered until all of them have been read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from registry.checks.matching import Matching, match
from registry.checks.rule import Subject
from registry.domain.base_model import BaseModelSpec, ModuleSpec
from registry.domain.checkpoint import Checkpoint, Shard
from registry.domain.manifest import Manifest, Target
from registry.domain.tensors import TensorSpec
from registry.formats.adapter_config import AdapterConfig
from registry.plans.merge_views import Part
from registry.plans.merging import FLOATS, Change, Origin, TokenRows
from registry.plans.refusals import Refusals


@dataclass(frozen=True)
class Ingredient:
    """An adapter that is merged: its number, what it is, its file of weights, and how much of it is wanted."""

    number: int
    name: str
    manifest: Manifest
    config: AdapterConfig
    weights: Shard
    weight: float = 1.0
    #: What its tokenizer and card can be taken from; empty for an adapter in memory.
    base: BaseModelSpec | None = None

    @cached_property
    def matching(self) -> Matching:
        found = match(Subject(self.manifest, self.config, self.base))
        if found is None:
            raise ValueError("a merge needs a base")
        return found

    @cached_property
    def targets(self) -> Mapping[str, Target]:
        return {target.path: target for target in self.manifest.targets}


@dataclass
class Draft(Refusals):
    """Changes, replacements and rows by the name of the stored tensor."""

    base: Checkpoint
    #: Projections under the name of another layout: where their rows lie.
    views: Mapping[str, tuple[Part, ...]] = field(default_factory=dict)
    changes: dict[str, list[Change]] = field(default_factory=dict)
    replaced: dict[str, list[Origin]] = field(default_factory=dict)
    rows: dict[str, list[TokenRows]] = field(default_factory=dict)
    #: Copies of the base's embeddings that lie in an adapter's file, and whose numbers have to be compared.
    copies: dict[str, list[Origin]] = field(default_factory=dict)
    #: Factors of one adapter that have to be each other's transpose.
    transposes: list[tuple[int, TensorSpec, TensorSpec]] = field(default_factory=list)
    tensors: dict[str, tuple[Shard, TensorSpec]] = field(init=False)

    def __post_init__(self) -> None:
        self.tensors = {spec.name: (shard, spec) for shard, spec in self.base}

    def stored(self, module: ModuleSpec) -> TensorSpec | None:
        """The weight of a module, under whatever name the checkpoint has it."""
        for name in (f"{module.path}.weight", module.path):
            if name in self.tensors:
                return self.tensors[name][1]
        return None

    def change(self, name: str, change: Change) -> None:
        self.changes.setdefault(name, []).append(change)

    def require_float(self, one: Ingredient, path: str, spec: TensorSpec) -> bool:
        if spec.dtype not in FLOATS:
            self.refuse(
                "quantized-base",
                f"{spec.name}, which {one.name} changes, is stored as {spec.dtype}: a change would be rounded away",
                where=spec.name,
                target=path,
                fix="merge into the base before it was quantised",
            )
        return spec.dtype in FLOATS


def biases_of_head(draft: Draft, name: str) -> list[str]:
    """Where the bias of the output embedding ``name`` is stored: its own, and that of the module it is in, which is the same
    one as long as the embeddings are tied: ``cls.predictions.bias``."""
    path = name.removesuffix(".weight")
    return [each for each in (f"{path}.bias", f"{path.rpartition('.')[0]}.bias") if each in draft.tensors]


def slabs(total: int, count: int) -> Iterator[slice]:
    """``count`` equal parts of ``total`` rows."""
    size = total // count
    for start in range(0, size * count, size):
        yield slice(start, start + size)
