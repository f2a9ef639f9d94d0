"""Where in a base a module's path leads, by every name that the module rightly has.

A module has one place and up to three names: as the checkpoint stores it, as transformers 5 holds it in memory, and
with or without the ``base_model_prefix`` of the class that is loaded. Which class that is, the adapter's config says. Both
spellings hold in both directions: the base's names are looked up as they stand and as memory has them, and so is what the
adapter says. A path that would be right only below another prefix has no place here: PEFT would find nothing and say
nothing, so the rules name the mapping that repairs it, and nobody guesses.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache

from registry.checks.stacks import Experts, fused, other_form, stacked
from registry.domain.base_model import BaseModelSpec, ModuleKind, ModuleSpec
from registry.formats.adapter_config import AdapterConfig
from registry.formats.base_classes import (
    backbone_prefix,
    prefix_of_class,
    prefix_of_task,
    renamed,
    shared,
    tower_of_class,
)
from registry.formats.base_modules import layer_number

#: What the stacks of experts are called in memory.
_STACKS = (".experts.gate_up_proj", ".experts.down_proj")
#: Words of a path that are looked at; real ones have about ten, and a name made to be long shall cost nothing.
_DEEPEST = 64


@dataclass(frozen=True)
class Places:
    """All names of all modules of a base. ``by_name`` has those on disk and those in memory."""

    base: BaseModelSpec
    by_name: Mapping[str, ModuleSpec]
    #: Fused parameters that the checkpoint holds as single matrices: for each expert those that lie below one another.
    stacked: Mapping[str, Experts] = field(default_factory=dict)

    @cached_property
    def prefix(self) -> str:
        """The backbone's usual prefix with its dot, or nothing for a type that has none."""
        prefix = backbone_prefix(self.base.model_type)
        return f"{prefix}." if prefix else ""

    @cached_property
    def has_prefix(self) -> bool:
        return bool(self.prefix) and any(name.startswith(self.prefix) for name in self.by_name)

    @cached_property
    def containers(self) -> frozenset[str]:
        """Every path that other modules are below: ``model.layers.0.self_attn``."""
        found: set[str] = set()
        for name in self.by_name:
            found.update(upwards(name.rpartition(".")[0]))
        return frozenset(found)

    @cached_property
    def by_ending(self) -> Mapping[str, tuple[str, ...]]:
        """The modules' names by each of their ends that has all their numbers: where a path with a wrong beginning may
        lead. A module has one name here, the one in memory."""
        found: dict[str, dict[str, str]] = {}
        for name, module in self.by_name.items():
            for ending in endings(name):
                found.setdefault(ending, {}).setdefault(module.path, name)
        return {ending: tuple(names.values()) for ending, names in found.items()}

    def is_beyond(self, name: str) -> bool:
        """Whether it is in a layer that only the checkpoint has."""
        layers, number = self.base.layers, layer_number(name)
        return layers is not None and number is not None and number >= layers

    def find(self, path: str, prefix: str | None) -> str | None:
        """The name in this base of the module (or container of modules) that an adapter calls ``path``.

        ``prefix`` is what the adapter's class writes before the backbone: ``""`` for nothing, None if nobody knows.
        """
        spellings = dict.fromkeys((path, in_memory(path, self.base.model_type)))
        names = (name for spelt in spellings for name in self._candidates(spelt, prefix))
        return next((name for name in names if self._has(name)), None)

    def module(self, name: str) -> ModuleSpec | None:
        """The module that :meth:`find` named; also one that the base holds as part of another, or in parts."""
        return self.by_name.get(name) or other_form(name, self.base.model_type, self.by_name)

    def spelled(self, name: str, prefix: str | None) -> str:
        """The reverse: what an adapter has to call the module that this base calls ``name``."""
        if prefix is None or not self.prefix:
            return name
        wanted = f"{prefix}." if prefix else ""
        if name.startswith(self.prefix):
            return wanted + name.removeprefix(self.prefix)
        return name if self.has_prefix else wanted + name

    def _candidates(self, path: str, prefix: str | None) -> Iterable[str]:
        if not self.prefix:
            return [path]
        bare = path.removeprefix(self.prefix)
        if prefix is None:
            return [path, self.prefix + path, bare]
        wanted = f"{prefix}." if prefix else ""
        inside = path.removeprefix(wanted)
        if self.has_prefix:
            if wanted and path.startswith(wanted):
                return [self.prefix + inside]
            outside = [] if path.startswith(self.prefix) else [path]
            return outside if wanted else [*outside, self.prefix + path]
        return [inside] if not wanted or path.startswith(wanted) else []

    def _has(self, name: str) -> bool:
        return name in self.containers or self.module(name) is not None


def endings(path: str) -> Iterator[str]:
    """The path, and what is left of it without its first words, up to the last word before its first number; nothing
    for a path without numbers. ``model.layers.0.mlp`` has two: itself and ``layers.0.mlp``."""
    parts = path.split(".", _DEEPEST)
    first = next((i for i, part in enumerate(parts) if part.isdecimal()), 0)
    for start in range(first):
        yield ".".join(parts[start:])


def upwards(path: str) -> Iterator[str]:
    """The path, and every path that it is below: ``model.layers.0``, ``model.layers``, ``model``."""
    yield from (path,) if path else ()
    if path.count(".") < _DEEPEST:
        while path := path.rpartition(".")[0]:
            yield path


@lru_cache(maxsize=4)
def places_of(base: BaseModelSpec) -> Places:
    found: dict[str, ModuleSpec] = {}
    on_disk: dict[str, ModuleSpec] = {}
    for module in base.modules:
        name = in_memory(module.path, base.model_type)
        on_disk[module.path] = _as_stack(module) if name.endswith(_STACKS) else module
        found.setdefault(name, on_disk[module.path])
    for name, module in [*found.items()]:
        found |= {alias: module for alias in _shared(name, module, found, base.model_type) if alias not in found}
    parts = stacked(base.model_type, found)
    found |= {path: fused(path, experts) for path, experts in parts.items()}
    return Places(base, found | on_disk, parts)


def _as_stack(module: ModuleSpec) -> ModuleSpec:
    """Three dimensions under a name with ``.weight`` are a convolution's, but for a module that is a stack in memory."""
    is_stack = module.kind is ModuleKind.CONV and module.shape is not None and len(module.shape) == 3
    return replace(module, kind=ModuleKind.EXPERTS) if is_stack else module


def _shared(name: str, module: ModuleSpec, modules: Mapping[str, ModuleSpec], model_type: str | None) -> list[str]:
    """Encoder and decoder of T5 and BART have one embedding, which the checkpoint holds once, as ``shared``; a few families hold
    other modules once. Only a side that the base has can have such a name."""
    known = shared(model_type)
    if module.kind is ModuleKind.EMBEDDING:
        known = (("shared", ("encoder.embed_tokens", "decoder.embed_tokens")), *known)
    found = []
    for stored, others in known:
        before = name.removesuffix(stored)
        if before != name and (not before or before.endswith(".")):
            sides = {other: f"{before}{other.partition('.')[0]}." for other in others}
            found += [before + other for other, side in sides.items() if any(path.startswith(side) for path in modules)]
    return found


def places_for(config: AdapterConfig, base: BaseModelSpec) -> Places:
    """With the names that the adapter's class has where it is one tower of the base: ``encoder.layers.0`` for what CLIP
    keeps under ``vision_model``."""
    places, name = places_of(base), class_of(config)
    tower = tower_of_class(name) if name is not None and config.task_type is None else None
    if tower is None:
        return places
    start = f"{tower}."
    inside = {path.removeprefix(start): one for path, one in places.by_name.items() if path.startswith(start)}
    return replace(places, by_name={**inside, **places.by_name})


def class_of(config: AdapterConfig) -> str | None:
    """The class that was trained, where the config names one: PEFT does so for models without a task type."""
    mapping = config.raw.get("auto_mapping")
    name = mapping.get("base_model_class") if isinstance(mapping, dict) else None
    return name if isinstance(name, str) else None


def is_foreign_class(config: AdapterConfig) -> bool:
    """Whether the class that was trained is none of transformers'."""
    mapping = config.raw.get("auto_mapping")
    library = mapping.get("parent_library") if isinstance(mapping, dict) else None
    return isinstance(library, str) and library.partition(".")[0] != "transformers"


def prefix_of(config: AdapterConfig, places: Places) -> str | None:
    """What the class that the adapter was trained on writes before the backbone's modules, None if nothing tells.

    Where the base was saved from a class with the same prefix and has no module below it, the table is wrong about
    this model, and nothing is demanded.
    """
    model_type = places.base.model_type
    name = class_of(config)
    if config.task_type is not None:
        prefix = prefix_of_task(model_type, config.task_type)
    else:
        prefix = prefix_of_class(model_type, name) if name is not None else None
    if prefix and not places.has_prefix:
        own = [prefix_of_class(model_type, architecture) for architecture in places.base.architectures]
        return None if prefix in own else prefix
    return prefix


def in_memory(path: str, model_type: str | None) -> str:
    """What transformers 5 calls the module; a name in memory stays as it is."""
    rules = renamed(model_type)
    if not rules:
        return path
    name = f"{path}.weight"
    for pattern, into in rules:
        name = pattern.sub(into, name)
    return name.removesuffix(".weight")
