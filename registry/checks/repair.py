"""What has to change in an adapter so that an engine serves it as PEFT would. From names and shapes alone; the numbers
follow in :mod:`registry.transforms.export`.

1. Names as PEFT writes them.
2. Copies of the base's embeddings are left out where the engine stumbles over them or skips them, and so is what
   only training looks at.
3. Scale and ranks, where the engine's rule is another than PEFT's: :mod:`~registry.checks.repair_scale`.
4. The config says what the tensors now are: :mod:`~registry.checks.repair_config`.

What an engine takes as it is stays as it is. Whether the repaired adapter is served is for the rules to say, about the
copy, as about any other adapter.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from registry.checks.repair_config import repaired_config
from registry.checks.repair_scale import Rescaling, rescaling_of
from registry.checks.repair_words import Change
from registry.checks.rule import Subject
from registry.checks.serving_features import kind, saved_names
from registry.domain.finding import Finding
from registry.domain.tensors import TensorSpec
from registry.variants.findings import some
from registry.variants.lora import MARK
from registry.variants.lora_layers import TAILS, LoraLayer
from registry.variants.lora_targets import layers_by_target
from registry.variants.tensor_names import PREFIX, places

#: Errors of an adapter that a copy mends: PEFT would drop such tensors for their names.
MENDED = frozenset({"adapter-name-in-key", "missing-prefix", "wrapped-name"})
#: Variants that are plain LoRA once they are trained.
_OF_TRAINING = ("monteclora_config", "velora_config")


@dataclass(frozen=True, slots=True)
class TensorRepair:
    """One tensor of the copy: ``source`` times ``factor``, filled up with zeros to the shape of ``spec``. ``is_factor``
    marks the A and B of targets, which are rounded together if a result needs a wider type."""

    spec: TensorSpec
    source: TensorSpec
    factor: float = 1.0
    is_factor: bool = False

    @property
    def is_copy(self) -> bool:
        """Byte for byte, under whatever name."""
        return self.factor == 1 and self.spec.shape == self.source.shape


@dataclass(frozen=True, slots=True)
class Repair:
    """``dropped`` are copies of the base's weights, which have to be the base's own for the copy to be faithful;
    ``problems`` are errors that no copy mends and no rule speaks of."""

    tensors: tuple[TensorRepair, ...]
    config: Mapping[str, object]
    dropped: tuple[TensorSpec, ...] = ()
    changes: tuple[Change, ...] = ()
    problems: tuple[Finding, ...] = ()


def plan_repair(subject: Subject) -> Repair:
    """``subject`` has a profile."""
    manifest, profile = subject.manifest, subject.profile
    if profile is None:
        raise ValueError("a repair is for an engine")
    names = _names(subject)  # 1
    kinds = {spec.name: _kind(subject, names[spec.name]) for spec in manifest.tensors}
    dropped = [
        spec for spec in manifest.tensors if kinds[spec.name] == "base_copy" and "base_copy" in profile.limits
    ]  # 2
    idle = [spec for spec in manifest.tensors if kinds[spec.name] == "buffer" and profile.engine != "peft"]
    layers = layers_by_target(subject.config, manifest.tensors, {target.path for target in manifest.targets})
    rescaling = rescaling_of(subject, profile, layers)  # 3
    config, about_config = repaired_config(subject, profile, layers, rescaling)  # 4
    if idle:
        config |= {field: None for field in _OF_TRAINING if config.get(field)}
    factors = _factors(layers, rescaling)
    tensors = []
    for spec in manifest.tensors:
        if spec not in dropped and spec not in idle:
            shape, factor = factors.get(spec.name, (spec.shape, 1.0))
            copy = TensorSpec(names[spec.name], spec.dtype, shape)
            tensors.append(TensorRepair(copy, spec, factor, spec.name in factors))
    return Repair(
        tensors=tuple(tensors),
        config=config,
        dropped=tuple(dropped),
        changes=(*_about_names(names), *_about_dropped(dropped), *_about_idle(idle), *rescaling.changes, *about_config),
        problems=rescaling.problems,
    )


def _names(subject: Subject) -> dict[str, str]:
    """Tensor name → as PEFT would have written it. A name that is taken is left alone."""
    names = {spec.name: spec.name for spec in subject.manifest.tensors}
    if subject.manifest.peft_type != "LORA":
        return names
    taken = set(names)
    for place in places(subject.manifest.tensors, MARK, TAILS)[0]:
        name = f"{PREFIX}{place.path}.{place.tail}"
        if place.path and name not in taken:
            names[place.spec.name] = name
            taken.add(name)
    return names


def _kind(subject: Subject, name: str) -> str:
    return kind(name, saved_names(subject)) if subject.manifest.peft_type == "LORA" else "other"


def _factors(layers: Mapping[str, LoraLayer], rescaling: Rescaling) -> dict[str, tuple[tuple[int, ...], float]]:
    """Shape and factor of every A and B."""
    found = {}
    for path, layer in layers.items():
        if layer.pair is None:
            continue
        a, b = layer.pair
        factor, rank = rescaling.factors.get(path, 1.0), rescaling.ranks.get(path)
        found[a.name] = ((rank, *a.shape[1:]) if rank else a.shape, 1.0)
        found[b.name] = ((b.shape[0], rank, *b.shape[2:]) if rank else b.shape, factor)
    return found


def _about_names(names: Mapping[str, str]) -> Iterator[Change]:
    renamed = [(old, new) for old, new in names.items() if old != new]
    if renamed:
        old, new = renamed[0]
        count = f"{len(renamed)} tensors are" if len(renamed) > 1 else "a tensor is"
        yield Change("name-corrected", f"{count} named as PEFT looks them up: {old} → {new}")


def _about_dropped(dropped: list[TensorSpec]) -> Iterator[Change]:
    if dropped:
        names = some([spec.name for spec in dropped])
        yield Change("base-copy-dropped", f"{names} left out: the numbers are the base's own")


def _about_idle(idle: list[TensorSpec]) -> Iterator[Change]:
    if idle:
        yield Change("buffers-dropped", f"{some([spec.name for spec in idle])} left out: only training looks at them")
