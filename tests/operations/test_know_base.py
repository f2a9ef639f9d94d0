"""What is known of a base from the headers of its files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from registry.domain.base_model import ModuleKind, parse_base_model_spec
from registry.errors import MalformedFileError, UnavailableError, UnsuitableDirectoryError
from registry.operations import build_base
from registry.operations.know_base import know_base
from tests.conftest import floats, safetensors_bytes

GPT2 = {
    "wte.weight": (8, 4),
    "h.0.attn.c_attn.weight": (4, 12),
    "h.0.attn.c_attn.bias": (12,),
    "h.0.ln_1.weight": (4,),
    "lm_head.weight": (8, 4),
}


def shard(names: list[str]) -> bytes:
    tensors = {}
    for name in names:
        shape = GPT2[name]
        count = shape[0] * (shape[1] if len(shape) == 2 else 1)
        tensors[name] = ("F32", shape, floats(0.5, count=count))
    return safetensors_bytes(tensors)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    directory = tmp_path / "gpt2"
    directory.mkdir()
    config = {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "vocab_size": 8}
    (directory / "config.json").write_text(json.dumps(config))
    (directory / "model.safetensors").write_bytes(shard([*GPT2]))
    return directory


def split(directory: Path) -> None:
    """The same checkpoint in two files."""
    (directory / "model.safetensors").unlink()
    names = [*GPT2]
    files = {"model-00001-of-00002.safetensors": names[:2], "model-00002-of-00002.safetensors": names[2:]}
    for file, held in files.items():
        (directory / file).write_bytes(shard(held))
    weight_map = {name: file for file, held in files.items() for name in held}
    (directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


def test_modules_kinds_and_shapes(checkpoint: Path) -> None:
    base = know_base(checkpoint)
    found = {module.path: (module.kind, module.shape, module.has_bias) for module in base.modules}
    assert found == {
        "h.0.attn.c_attn": (ModuleKind.CONV1D, (12, 4), True),
        "h.0.ln_1": (ModuleKind.OTHER, (4,), False),
        "lm_head": (ModuleKind.LINEAR, (8, 4), False),
        "wte": (ModuleKind.EMBEDDING, (8, 4), False),
    }
    assert (base.model_type, base.vocabulary, base.is_tied, base.id.id) == ("gpt2", 8, True, None)
    assert base.weights_fingerprint is None


def test_shards_make_the_same_base(checkpoint: Path) -> None:
    whole = know_base(checkpoint, hash_weights=True)
    split(checkpoint)
    parts = know_base(checkpoint, hash_weights=True)
    assert parts.modules == whole.modules
    assert (parts.fingerprint, parts.weights_fingerprint) == (whole.fingerprint, whole.weights_fingerprint)


def test_equal_shapes_are_told_apart_by_their_numbers(checkpoint: Path) -> None:
    one = know_base(checkpoint, hash_weights=True)
    path = checkpoint / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-4] + floats(0.25))
    other = know_base(checkpoint, hash_weights=True)
    assert one.fingerprint == other.fingerprint
    assert one.weights_fingerprint != other.weights_fingerprint


def test_a_snapshot_of_the_hubs_cache_knows_its_name(checkpoint: Path, tmp_path: Path) -> None:
    """There, files are links into ``blobs``."""
    snapshot = tmp_path / "hub" / "models--openai-community--gpt2" / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    for name in ("config.json", "model.safetensors"):
        (snapshot / name).symlink_to(checkpoint / name)
    base = know_base(snapshot)
    assert (base.id.id, base.id.revision) == ("openai-community/gpt2", "a" * 40)
    assert base.modules


def test_a_shard_of_another_download_is_refused(checkpoint: Path) -> None:
    split(checkpoint)
    (checkpoint / "model-00002-of-00002.safetensors").write_bytes(shard(["lm_head.weight"]))
    with pytest.raises(MalformedFileError) as refused:
        know_base(checkpoint)
    assert refused.value.code == "shard-mismatch"


def test_a_missing_shard_is_refused(checkpoint: Path) -> None:
    split(checkpoint)
    (checkpoint / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(UnsuitableDirectoryError):
        know_base(checkpoint)


def test_a_directory_without_a_checkpoint_is_refused(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(UnsuitableDirectoryError):
            know_base(place)


@pytest.mark.slow
def test_a_config_of_a_model_that_nobody_can_build_is_not_enough(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "unheard-of", "architectures": ["Unheard"]}))
    with pytest.raises(UnavailableError) as refused:
        know_base(tmp_path)
    assert refused.value.code == "shapes-unknown"


@pytest.mark.slow
def test_a_config_alone_is_built_where_transformers_is_installed(tmp_path: Path) -> None:
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 32, **sizes}
    (tmp_path / "config.json").write_text(json.dumps(config))
    found = {module.path: module.shape for module in know_base(tmp_path).modules}
    assert found["model.layers.0.mlp.down_proj"] == (16, 24)
    assert found["lm_head"] == (32, 16)


def test_a_config_that_says_nothing_of_a_model_is_not_taken_for_its_types_default(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "gpt2", "epochs": 20}')
    with pytest.raises(UnavailableError, match="neither an architecture nor a size") as refused:
        know_base(tmp_path)
    assert refused.value.code == "shapes-unknown"


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        ({"num_hidden_layers": 10**9}, "num_hidden_layers is 1,000,000,000"),
        ({"text_config": {"num_hidden_layers": 2000}}, "num_hidden_layers is 2,000"),
        ({"depths": [2, 10**6, 2]}, "depths is 1,000,000"),
        ({"num_experts": 10**6}, "num_experts is 1,000,000"),
        ({"num_hidden_layers": 1000, "n_routed_experts": 1000}, "1,000 layers of 1,000 experts"),
    ],
)
def test_a_model_that_is_made_to_be_huge_is_never_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sizes: dict[str, object], words: str
) -> None:
    monkeypatch.setattr("subprocess.run", None)  # not even a process is started
    config = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], **sizes}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UnavailableError) as refused:
        know_base(tmp_path)
    assert refused.value.code == "shapes-unknown"
    assert words in refused.value.message


def test_what_is_built_has_bounded_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The child's own limits, with a program that wants more than it may have."""
    monkeypatch.setattr(
        build_base,
        "_BUILD",
        build_base._BUILD.partition("import torch")[0] + "print('[]' if len(bytes(6 << 30)) < 0 else '[[1]]')",
    )
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama", "architectures": ["LlamaForCausalLM"]}))
    with pytest.raises(UnavailableError) as refused:
        know_base(tmp_path)
    assert refused.value.code == "shapes-unknown"


def test_layers_that_the_config_does_not_count(tmp_path: Path) -> None:
    names = [f"model.layers.{layer}.mlp.up_proj.weight" for layer in range(3)]
    (tmp_path / "model.safetensors").write_bytes(safetensors_bytes({name: ("F32", (1, 1), floats(2)) for name in names}))
    for count, layers in ((2, 2), (3, None), (None, None)):
        (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama", "num_hidden_layers": count}))
        known = know_base(tmp_path)
        assert known.layers == layers
        assert parse_base_model_spec(known.canonical_bytes) == known
