"""What cannot be an adapter is refused by name, at once, with nothing written."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from registry.connect import Registry
from registry.errors import InvalidInputError
from tests.conftest import CONFIG, WriteAdapter, floats, lora_tensors, safetensors_bytes

Q = "base_model.model.model.layers.0.self_attn.q_proj"
A, B = f"{Q}.lora_A.weight", f"{Q}.lora_B.weight"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n"


def config(**changes: object) -> Callable[[Path], object]:
    return lambda place: (place / "adapter_config.json").write_text(json.dumps({**CONFIG, **changes}))


def raw_config(data: bytes) -> Callable[[Path], object]:
    return lambda place: (place / "adapter_config.json").write_bytes(data)


def weights(data: bytes) -> Callable[[Path], object]:
    return lambda place: (place / "adapter_model.safetensors").write_bytes(data)


def tensors(**changes: tuple[str, tuple[int, ...], bytes] | None) -> Callable[[Path], object]:
    named = {"a": A, "b": B, "c": f"{Q}.lora_C.weight"}
    merged = {**lora_tensors(), **{named[key]: value for key, value in changes.items()}}
    return weights(safetensors_bytes({key: value for key, value in merged.items() if value is not None}))


def file(name: str, data: bytes = b"x") -> Callable[[Path], object]:
    return lambda place: (place / name).write_bytes(data)


def without(name: str) -> Callable[[Path], object]:
    return lambda place: (place / name).unlink()


def only_pickle(place: Path) -> None:
    (place / "adapter_model.safetensors").rename(place / "adapter_model.bin")


def listen(place: Path) -> None:
    here = Path.cwd()
    os.chdir(place)  # the path of a socket must be short
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind("s.json")
    os.chdir(here)


REFUSED: dict[str, tuple[str, Callable[[Path], object]]] = {
    "no config": ("no-config", without("adapter_config.json")),
    "no weights": ("no-weights", without("adapter_model.safetensors")),
    "a pickle alone": ("pickle", only_pickle),
    "mlx-lm as it writes": (
        "not-peft",
        lambda place: (
            (place / "adapter_config.json").write_text('{"fine_tune_type": "lora", "lora_parameters": {"rank": 8}}'),
            (place / "adapter_model.safetensors").rename(place / "adapters.safetensors"),
        ),
    ),
    "mlx-lm": ("not-peft", raw_config(b'{"fine_tune_type": "lora", "lora_parameters": {"rank": 8}}')),
    "AdapterHub": ("not-peft", raw_config(b'{"config": {"adapter_residual_before_ln": false}, "hidden_size": 768}')),
    "not PEFT": ("not-peft", raw_config(b'{"r": 8}')),
    "a list": ("config-not-object", raw_config(b"[]")),
    "cut off": ("truncated-file", raw_config(b'{"peft_type": "LORA",')),
    "a pointer for the config": ("lfs-pointer", raw_config(POINTER)),
    "a pointer for the weights": ("lfs-pointer", weights(POINTER)),
    "a pointer for the tokenizer": ("lfs-pointer", file("tokenizer.json", POINTER)),
    "text for weights": ("not-safetensors", weights(b"This is not a serialized model.\n")),
    "zip for weights": ("pickle", weights(b"PK\x03\x04" + bytes(100))),
    "r as text": ("config-field", config(r="8")),
    "r as truth": ("config-field", config(r=True)),
    "r as fraction": ("config-field", config(r=2.5)),
    "alpha as text": ("config-field", config(lora_alpha="16")),
    "rslora as text": ("config-field", config(use_rslora="true")),
    "pattern with text": ("config-field", config(rank_pattern={"q_proj": "4"})),
    "rank of another config": ("rank-mismatch", config(r=3)),
    "A without B": ("orphan-factor", tensors(b=None)),
    "B without A": ("orphan-factor", tensors(a=None)),
    "shapes that do not pair": ("shape-mismatch", tensors(b=("F32", (3, 3), floats(1.0, count=9)))),
    "a tensor of no kind": ("unknown-tensor", tensors(c=("F32", (1,), floats(1.0)))),
    "NaN": ("nonfinite", tensors(b=("F32", (3, 2), floats(float("nan"), count=6)))),
    "infinity": ("nonfinite", tensors(b=("F32", (3, 2), floats(1, 1, 1, 1, 1, float("-inf"))))),
    "code": ("code-file", file("modeling.py")),
    "a library": ("code-file", file("kernel.so")),
    "a link": ("symlink", lambda place: (place / "notes.txt").symlink_to("/etc/hostname")),
    "a link to nothing": ("symlink", lambda place: (place / "notes.txt").symlink_to("nowhere")),
    "a pipe": ("not-a-file", lambda place: os.mkfifo(place / "tokenizer.json")),
    "a socket": ("not-a-file", listen),
}


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused_and_nothing_is_written(
    name: str, store: Registry, write_adapter: WriteAdapter, tmp_path: Path
) -> None:
    code, spoil = REFUSED[name]
    directory = write_adapter("my-lora")
    spoil(directory)
    with pytest.raises(InvalidInputError) as caught:
        store.push(directory)
    assert caught.value.code == code
    assert caught.value.exit_code == 3
    assert "\n" not in caught.value.message
    assert not (tmp_path / "registry").exists()


def test_weights_saved_under_zero3_are_named_as_such(store: Registry, write_adapter: WriteAdapter) -> None:
    empty = {A: ("F32", (0,), b""), B: ("F32", (0,), b"")}
    with pytest.raises(InvalidInputError, match="saved under ZeRO-3 without gathering"):
        store.push(write_adapter("my-lora", empty))


def test_all_findings_are_reported_at_once(store: Registry, write_adapter: WriteAdapter) -> None:
    directory = write_adapter("my-lora", r=3)
    (directory / "train.py").write_text("x")
    with pytest.raises(InvalidInputError) as caught:
        store.push(directory)
    assert {finding.rule for finding in caught.value.findings} == {"rank-mismatch", "code-file"}  # type: ignore[attr-defined]


def test_what_is_allowed_is_stored_with_the_finding(store: Registry, write_adapter: WriteAdapter) -> None:
    directory = write_adapter("my-lora")
    tensors(b=("F32", (3, 2), floats(float("nan"), count=6)))(directory)
    pushed = store.push(directory, allow=["nonfinite"])
    assert pushed.created
    assert [finding.rule for finding in store.show("my-lora").version.findings] == ["nonfinite"]


def test_a_no_op_is_a_warning(store: Registry, write_adapter: WriteAdapter) -> None:
    directory = write_adapter("my-lora")
    tensors(b=("F32", (3, 2), floats(0.0, count=6)))(directory)
    assert [finding.rule for finding in store.push(directory).findings] == ["no-op", "base-not-checked"]


@pytest.mark.parametrize("name", ["adapter_model.bin", "optimizer.pt", "training_args.bin", "rng_state.pth"])
def test_a_pickle_beside_good_weights_is_left_out(store: Registry, write_adapter: WriteAdapter, name: str) -> None:
    directory = write_adapter("my-lora")
    (directory / name).write_bytes(b"cos\nsystem\n")
    store.push(directory)
    kept = {entry.path for entry in store.show("my-lora").manifest.files}
    assert kept == {"adapter_config.json", "adapter_model.safetensors"}


def test_a_folder_of_adapters_asks_which(store: Registry, write_adapter: WriteAdapter, tmp_path: Path) -> None:
    write_adapter("out/checkpoint-5")
    with pytest.raises(InvalidInputError) as caught:
        store.push(tmp_path / "out")
    assert caught.value.hint == "name the one you mean: --adapter checkpoint-5"
    assert store.push(tmp_path / "out", adapter="checkpoint-5").version.reference == "local/checkpoint-5@1"


def test_identity_is_of_the_tensors_alone(store: Registry, write_adapter: WriteAdapter) -> None:
    """Neither header metadata, nor the order of tensors, nor the order of target_modules changes it; a value does."""
    first = lora_tensors("l.0.q_proj", "l.0.v_proj", value=0.5)
    targets = ["q_proj", "v_proj"]
    one = write_adapter("one", first, target_modules=targets)
    two = write_adapter("two", dict(reversed(first.items())), target_modules=targets[::-1])
    (two / "adapter_model.safetensors").write_bytes(safetensors_bytes(dict(reversed(first.items())), {"format": "pt"}))
    three = write_adapter("three", lora_tensors("l.0.q_proj", "l.0.v_proj", value=0.25), target_modules=targets)
    pushed = [store.push(place).version for place in (one, two, three)]
    identities = [version.summary.tensor_identity for version in pushed]
    assert identities[0] == identities[1] != identities[2]
    assert len({version.digest for version in pushed}) == 3
