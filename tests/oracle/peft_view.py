"""What PEFT itself makes of a saved adapter: load it, and look at the layers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peft import PeftConfig, PeftModel, get_peft_model
from peft.tuners.lora.layer import ParamWrapper
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn

from registry.formats.adapter_config import AdapterConfig, parse_adapter_config
from registry.formats.safetensors_header import read_header
from registry.operations.bounded_regex import slow_matcher
from registry.variants.anatomy import Reading
from registry.variants.patterns import Patterns
from registry.variants.table import read_anatomy
from tests.oracle.tiny_models import seeded

ADAPTER = "default"
#: Where a method keeps its rank, if not in ``r``.
_RANKS = ("r", "hra_r", "deft_r", "miss_r", "supertuning_rank")


@dataclass(frozen=True, slots=True)
class Layer:
    rank: int | None
    scaling: float | None


def save(make: Callable[[], nn.Module], config: PeftConfig, directory: Path, **options: Any) -> None:
    get_peft_model(seeded(make), config).save_pretrained(str(directory), **options)


def peft_view(make: Callable[[], nn.Module], directory: Path) -> dict[str, Layer]:
    """Path → what the layer holds, after a load from disk, which reads patterns in the order of the file."""
    return dict(_layers(PeftModel.from_pretrained(seeded(make), str(directory))))


def _layers(model: nn.Module) -> Iterator[tuple[str, Layer]]:
    modules: Iterable[tuple[str, Any]] = model.named_modules()
    for name, module in modules:
        if not isinstance(module, BaseTunerLayer) or name.endswith(".token_adapter"):
            continue
        path = name.removeprefix("base_model.model.").replace(".base_layer", "")
        if isinstance(module, ParamWrapper):
            path = f"{path}.{module.parameter_name}"
        yield path, Layer(_held(module, *_RANKS), _held(module, "scaling"))


def _held(module: Any, *names: str) -> Any:
    for name in names:
        values = getattr(module, name, None)
        if isinstance(values, dict) and ADAPTER in values:
            return values[ADAPTER] or None  # SUPERTUNING without its LoRA has rank 0
    return None


def our_view(directory: Path) -> Reading:
    weights = directory / "adapter_model.safetensors"
    with weights.open("rb") as source:
        header = read_header(source, size=weights.stat().st_size, where=weights.name)
    return read_anatomy(our_config(directory), header.tensors, Patterns(slow=slow_matcher()))


def our_config(directory: Path) -> AdapterConfig:
    return parse_adapter_config((directory / "adapter_config.json").read_bytes())
