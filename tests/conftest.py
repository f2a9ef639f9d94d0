"""What all tests share: hypothesis profiles, a registry of their own, and small adapters written byte by byte."""

from __future__ import annotations

import json
import os
import signal
import struct
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from registry.connect import Registry, connect

settings.register_profile("dev", deadline=None)
settings.register_profile("ci", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("ci" if os.environ.get("CI") else "dev")

# A runner in the background may have been started with Ctrl-C ignored, which programs that tests start would inherit.
signal.signal(signal.SIGINT, signal.default_int_handler)

CONFIG = {
    "peft_type": "LORA",
    "base_model_name_or_path": "openai-community/gpt2",
    "r": 2,
    "lora_alpha": 4,
    "target_modules": ["q_proj"],
    "task_type": "CAUSAL_LM",
}

Tensors = Mapping[str, tuple[str, tuple[int, ...], bytes]]
WriteAdapter = Callable[..., Path]


def safetensors_bytes(tensors: Tensors, metadata: Mapping[str, str] | None = None) -> bytes:
    """A safetensors file, tensors in the order given: name → (dtype, shape, little-endian bytes)."""
    header: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    position, body = 0, b""
    for name, (dtype, shape, data) in tensors.items():
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [position, position + len(data)]}
        position, body = position + len(data), body + data
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def floats(*values: float, count: int | None = None) -> bytes:
    """F32 bytes of the values, or of them ``count`` times."""
    return struct.pack(f"<{len(values)}f", *values) * (1 if count is None else count)


def lora_tensors(
    *modules: str, rank: int = 2, width: int = 3, value: float = 0.5
) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    """A and B of square modules ``width`` wide."""
    found: dict[str, tuple[str, tuple[int, ...], bytes]] = {}
    for module in modules or ("model.layers.0.self_attn.q_proj",):
        prefix = f"base_model.model.{module}"
        found[f"{prefix}.lora_A.weight"] = ("F32", (rank, width), floats(value, count=rank * width))
        found[f"{prefix}.lora_B.weight"] = ("F32", (width, rank), floats(value, count=rank * width))
    return found


@pytest.fixture
def write_adapter(tmp_path: Path) -> WriteAdapter:
    """``write_adapter(name, tensors, **config)`` → its directory."""

    def write(name: str = "my-lora", tensors: Tensors | None = None, /, **config: object) -> Path:
        directory = tmp_path / name
        directory.mkdir(parents=True)
        (directory / "adapter_config.json").write_text(json.dumps({**CONFIG, **config}))
        data = safetensors_bytes(lora_tensors() if tensors is None else tensors)
        (directory / "adapter_model.safetensors").write_bytes(data)
        return directory

    return write


@pytest.fixture
def store(tmp_path: Path) -> Registry:
    """An embedded registry, not there yet."""
    return connect(tmp_path / "registry", actor="tester")
