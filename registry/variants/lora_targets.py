"""Which LoRA layer of a file belongs to which target of the manifest that was read from it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from registry.domain.manifest import Manifest
from registry.domain.tensors import TensorSpec
from registry.formats.adapter_config import AdapterConfig
from registry.variants.extras import without_base_layer
from registry.variants.lora import MARK
from registry.variants.lora_layers import TAILS, LoraLayer, gather
from registry.variants.lora_parameters import name_wrappers, wrapped_module
from registry.variants.lora_settings import read_settings
from registry.variants.tensor_names import places


def layers_by_target(
    config: AdapterConfig, tensors: Iterable[TensorSpec], targets: Collection[str]
) -> Mapping[str, LoraLayer]:
    """``targets`` are the paths that :func:`registry.variants.lora.read_lora` gave. Layers that belong to none are left
    away, such as wrappers whose parameter cannot be told."""
    wanted = frozenset(targets)
    found: dict[str, LoraLayer] = {}
    wrappers: dict[str, list[LoraLayer]] = {}
    for layer in gather(places(tensors, MARK, TAILS)[0])[0]:
        module, depth = wrapped_module(layer.path)
        if depth == 0 and without_base_layer(module) in wanted:
            found[without_base_layer(module)] = layer
        else:
            wrappers.setdefault(module, []).append(layer)
    parameters = read_settings(config).target_parameters
    for module, inside_out in wrappers.items():
        named, _ = name_wrappers(module, inside_out, parameters)
        for layer in inside_out:
            path = f"{module}.{named[layer.path]}"
            if path in wanted:
                found[path] = layer
    return found


class LoraDelta(NamedTuple):
    """What one target is changed by: ``scaling`` · B · A, with A and B by their names in the file. ``scaling`` is None
    where it hangs on a pattern that nobody could evaluate."""

    down: TensorSpec
    up: TensorSpec
    rank: int | None
    scaling: float | None

    @property
    def experts(self) -> int:
        """How many factors lie in one tensor: A is (experts · r, in), B is (out, r · experts) with the expert running
        fastest (``peft/tuners/lora/layer.py``, ``ParamWrapper``)."""
        is_pair = len(self.down.shape) == 2 and self.rank
        return self.down.shape[0] // self.rank if is_pair and self.rank else 1


def deltas(config: AdapterConfig, manifest: Manifest) -> Mapping[str, LoraDelta]:
    """By target path, for every target whose two factors are there."""
    layers = layers_by_target(config, manifest.tensors, {target.path for target in manifest.targets})
    found = {}
    for target in manifest.targets:
        layer = layers.get(target.path)
        if layer is not None and layer.pair is not None:
            found[target.path] = LoraDelta(*layer.pair, target.rank, target.scaling)
    return found
