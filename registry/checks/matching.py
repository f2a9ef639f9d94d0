"""The adapter laid over the base: which module each target and each whole tensor belongs to, and what is left over.

The law: every tensor of the file is a factor of one target, part of one module saved whole, or the adapter's own (a
prompt, a projection that all layers share); it is *matched* if that target or module has a place in the base, or if it
is a head that the adapter brings along.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from registry.checks.brought import brought_by
from registry.checks.places import Places, endings, places_for, prefix_of, upwards
from registry.domain.base_model import ModuleSpec
from registry.domain.manifest import Manifest
from registry.domain.tensors import TensorSpec
from registry.variants.extras import without_base_layer
from registry.variants.lora_layers import LoraLayer
from registry.variants.lora_targets import layers_by_target
from registry.variants.settings import layer_spans
from registry.variants.tensor_names import PREFIX

if TYPE_CHECKING:
    from registry.checks.rule import Subject
    from registry.formats.adapter_config import AdapterConfig

_MOST_LAYERS = 10_000
#: Tensors that PEFT keeps below a module of its own.
_WRAPPERS = ("_fsdp_wrapped_module", "_orig_mod", "base_layer", "token_adapter")


@dataclass(frozen=True, slots=True)
class WholeTensor:
    """A tensor that replaces one of the base's: ``module`` is the path below which it stands, ``tail`` its last name."""

    spec: TensorSpec
    module: str
    tail: str


@dataclass(frozen=True, slots=True)
class Drift:
    """Paths that would have a place if their beginning were another: ``written`` is what they have, ``needed`` what
    the base has there; both end in a dot or are empty."""

    written: str
    needed: tuple[str, ...]
    paths: tuple[str, ...]


@dataclass(frozen=True)
class Matching:
    """``homes`` is the name in the base of every target and extra module that has a place there."""

    places: Places
    prefix: str | None
    homes: Mapping[str, str]
    misplaced: tuple[str, ...]
    #: Heads that the adapter brings and the base lacks.
    brought: tuple[str, ...]
    drifts: tuple[Drift, ...]
    #: LoRA's tensors by target; empty for other methods.
    layers: Mapping[str, LoraLayer]
    whole: tuple[WholeTensor, ...]
    matched: int

    def module(self, path: str) -> ModuleSpec | None:
        """The module that the path of a target, or of a module below an extra one, means."""
        name = self.homes.get(path) or self.places.find(path, self.prefix)
        return self.places.module(name) if name is not None else None


def match(subject: Subject) -> Matching | None:
    """None without a base. The rules of one run share one answer."""
    return _match(_Same(subject)) if subject.base is not None else None


class _Same:
    """A key that is equal only to itself: a subject holds mappings and has no hash."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other.subject is self.subject

    def __hash__(self) -> int:
        return id(self.subject)


@lru_cache(maxsize=1)
def _match(key: _Same) -> Matching | None:
    subject = key.subject
    if subject.base is None:
        return None
    manifest = subject.manifest
    spots = places_for(subject.config, subject.base)
    prefix = prefix_of(subject.config, spots)
    paths = [*dict.fromkeys([*(target.path for target in manifest.targets), *manifest.extra_modules])]
    homes: dict[str, str] = {}
    homeless: list[str] = []
    layers_of_base = _replicated(subject.config)
    for path in paths:
        place = _in_base(path, layers_of_base)
        name = spots.find(place, prefix) or spots.find(place.removesuffix(".weight"), prefix)
        if name is not None:
            homes[path] = name
        else:
            homeless.append(path)
    drifts = tuple(_drifts(homeless, homes, spots, prefix))
    drifted = {path for drift in drifts for path in drift.paths}
    is_brought = brought_by(subject.config, spots, prefix)
    brought = tuple(path for path in homeless if path not in drifted and is_brought(path))
    targets = {target.path for target in manifest.targets}
    is_lora = manifest.peft_type == "LORA"
    layers = layers_by_target(subject.config, manifest.tensors, targets) if is_lora else {}
    return Matching(
        places=spots,
        prefix=prefix,
        homes=homes,
        misplaced=tuple(path for path in homeless if path not in drifted and path not in brought),
        brought=brought,
        drifts=drifts,
        layers=layers,
        whole=tuple(_whole(manifest)),
        matched=_count_matched(manifest.tensors, paths, layers, homes.keys() | set(brought)),
    )


def _replicated(config: AdapterConfig) -> list[int]:
    """``layer_replication``: the base's layer for each layer of the result; ``[[0, 2], [1, 2]]`` → 0, 1, 1."""
    found: list[int] = []
    for start, end in layer_spans(config):
        if len(found) + end - start <= _MOST_LAYERS:
            found += range(start, end)
    return found


def _in_base(path: str, layers_of_base: list[int]) -> str:
    """The path with the number of its layer in the base, where the adapter's layers are replicas."""
    parts = path.split(".")
    at = next((i for i, part in enumerate(parts) if part.isdecimal()), None)
    if at is not None and len(parts[at]) < 6 and int(parts[at]) < len(layers_of_base):
        parts[at] = str(layers_of_base[int(parts[at])])
    return ".".join(parts)


def _drifts(homeless: Iterable[str], homes: Mapping[str, str], spots: Places, prefix: str | None) -> Iterator[Drift]:
    """A path without a place, by the longest end of it that some module has. What has no layer number (embeddings)
    follows the mapping that the others need. Where the adapter's other paths with the same beginning have places, the
    beginning is right and it is the layer that is missing."""
    right = {above for path in homes for above in upwards(path)}
    found: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    rest: list[str] = []
    for path in homeless:
        ending = next((end for end in endings(path) if end in spots.by_ending), "")
        written = path.removesuffix(ending)
        if not ending:
            rest.append(path)
        elif written + ending.partition(".")[0] not in right:
            names = [spots.spelled(name, prefix) for name in spots.by_ending[ending]]
            needed = tuple(dict.fromkeys(name.removesuffix(ending) for name in names))
            found.setdefault((written, needed), []).append(path)
    for path in rest:
        for (written, needed), paths in found.items():
            if path.startswith(written) and any(
                spots.find(start + path.removeprefix(written), prefix) for start in needed
            ):
                paths.append(path)
                break
    for (written, needed), paths in found.items():
        yield Drift(written, needed, tuple(paths))


def _whole(manifest: Manifest) -> Iterator[WholeTensor]:
    extra = frozenset(manifest.extra_modules)
    targets = frozenset(target.path for target in manifest.targets)
    for spec in manifest.tensors:
        module, _, tail = path_of(spec.name).rpartition(".")
        holder = next((above for above in upwards(module) if above in extra or above in targets), None)
        if holder in extra and tail in {"weight", "bias"} and (holder == module or holder not in targets):
            yield WholeTensor(spec, module, tail)


def _count_matched(
    tensors: Iterable[TensorSpec], paths: Iterable[str], layers: Mapping[str, LoraLayer], placed: Collection[str]
) -> int:
    """By the longest path above the tensor; what stands above all modules is the adapter's own."""
    holders = {path: [path] for path in paths}
    for path, layer in layers.items():
        module = without_base_layer(layer.path)  # above a fused parameter, which the tensors' names do not say
        if module not in holders or module != path:
            holders.setdefault(module, []).append(path)
    matched = 0
    for spec in tensors:
        holder = next((above for above in upwards(path_of(spec.name)) if above in holders), None)
        if holder is None:
            matched += not spec.name.startswith(PREFIX)
        else:
            matched += all(path in placed for path in holders[holder])
    return matched


def path_of(name: str) -> str:
    """The tensor's name as the model has it, without PEFT's prefix and wrappers."""
    return ".".join(part for part in name.removeprefix(PREFIX).split(".") if part not in _WRAPPERS)
