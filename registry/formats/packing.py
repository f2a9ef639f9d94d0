"""``quantization_config``: what the weights of a checkpoint are packed by, and which modules were left out."""

from __future__ import annotations

from collections.abc import Mapping

from registry.formats.model_config import ModelConfig

BITSANDBYTES = "bitsandbytes"
NF4 = "bitsandbytes NF4"
_LONGEST = 40


def method_of(config: ModelConfig) -> str | None:
    """``quant_method``, in small letters; None for a model that is not quantised. bitsandbytes had none at first."""
    settings = config.quantization
    if not settings:
        return None
    method = settings.get("quant_method")
    if isinstance(method, str) and method:
        return method.lower()
    if settings.keys() & {"load_in_4bit", "load_in_8bit", "_load_in_4bit", "_load_in_8bit"}:
        return BITSANDBYTES
    return "unknown"


def packing_of(config: ModelConfig) -> str | None:
    """The packing in words: ``bitsandbytes NF4``, ``gptq 4-bit``, ``fp8``; None where the config names none."""
    settings, method = config.quantization, method_of(config)
    if method != BITSANDBYTES:
        return _words(method, settings) if method is not None else None
    if _says(settings, "load_in_8bit"):
        return "bitsandbytes 8-bit"
    if _says(settings, "load_in_4bit"):
        kind = settings.get("bnb_4bit_quant_type", "fp4")
        return f"bitsandbytes {_plain(kind).upper()}" if isinstance(kind, str) else BITSANDBYTES
    return BITSANDBYTES


def modules_left_out(config: ModelConfig) -> tuple[str, ...]:
    """``llm_int8_skip_modules``: names, beginnings or ends of modules; bitsandbytes' 4 bits follow it as well."""
    names = config.quantization.get("llm_int8_skip_modules")
    return tuple(name for name in names if isinstance(name, str) and name) if isinstance(names, list) else ()


def _says(settings: Mapping[str, object], key: str) -> bool:
    return settings.get(key, settings.get(f"_{key}")) is True


def _words(method: str, settings: Mapping[str, object]) -> str:
    bits = settings.get("bits")
    name = _plain(method) or "unknown"
    return f"{name} {bits}-bit" if isinstance(bits, int) and not isinstance(bits, bool) and 0 < bits < 64 else name


def _plain(text: str) -> str:
    return "".join(char for char in text if char.isalnum() or char in "-_.")[:_LONGEST]
