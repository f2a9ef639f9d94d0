"""``adapters export``: what it writes, what it refuses, and that a refusal leaves nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from math import sqrt
from pathlib import Path
from typing import Any

import pytest

from registry.formats.safetensors_header import read_header
from registry.transforms import export as workshop
from tests.cli.conftest import Adapters
from tests.conftest import Tensors, WriteAdapter, floats, lora_tensors, safetensors_bytes
from tests.operations.adapters import tree

Q, K = "model.layers.0.self_attn.q_proj", "model.layers.0.self_attn.k_proj"
PREFIX = "base_model.model."
EMBEDDING = "model.embed_tokens"
#: Two modules, of rank 2 and 4, with rsLoRA and an alpha of their own.
UNEVEN = {**lora_tensors(Q), **lora_tensors(K, rank=4)}
PATTERNS = {
    "use_rslora": True,
    "rank_pattern": {"k_proj": 4},
    "alpha_pattern": {"k_proj": 16},
    "target_modules": ["q_proj", "k_proj"],
}


def config_of(directory: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((directory / "adapter_config.json").read_text())
    return document


def shapes_of(directory: Path) -> dict[str, tuple[str, tuple[int, ...]]]:
    path = directory / "adapter_model.safetensors"
    with path.open("rb") as file:
        header = read_header(file, size=path.stat().st_size, where=path.name)
    return {spec.name.removeprefix(PREFIX): (spec.dtype, spec.shape) for spec in header.tensors}


def with_magnitudes() -> Tensors:
    return {**lora_tensors(), f"{PREFIX}{Q}.lora_magnitude_vector": ("F32", (3,), floats(1, count=3))}


def with_embedding(value: float = 0.25) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    return {
        **lora_tensors(),
        f"{PREFIX}{EMBEDDING}.lora_embedding_A": ("F32", (2, 5), floats(1, count=10)),
        f"{PREFIX}{EMBEDDING}.lora_embedding_B": ("F32", (3, 2), floats(1, count=6)),
        f"{PREFIX}{EMBEDDING}.base_layer.weight": ("F32", (5, 3), floats(value, count=15)),
    }


def a_base(directory: Path, value: float = 0.25) -> str:
    directory.mkdir()
    tensors = {
        f"{EMBEDDING}.weight": ("F32", (5, 3), floats(value, count=15)),
        f"{Q}.weight": ("F32", (3, 3), floats(1, count=9)),
    }
    (directory / "model.safetensors").write_bytes(safetensors_bytes(tensors))
    (directory / "config.json").write_text(json.dumps({"model_type": "llama", "vocab_size": 5}))
    return str(directory)


def test_scales_are_folded_and_ranks_padded(adapters: Adapters, write_adapter: WriteAdapter, tmp_path: Path) -> None:
    directory = write_adapter("my-lora", UNEVEN, **PATTERNS)
    (directory / "tokenizer.json").write_text("{}")
    (directory / "trainer_state.json").write_text("{}")
    said = adapters.json("export", str(directory), "--for", "vllm", "-o", str(tmp_path / "out"))
    assert said["profile"] == "vllm>=0.7,<0.33"
    assert said["largest_error"] < 2**-24
    assert {change["rule"] for change in said["changes"]} >= {"scale-folded", "rank-padded", "scaling-plain"}
    assert {file["path"] for file in said["files"]} == {path.name for path in (tmp_path / "out").iterdir()}
    assert {file["path"] for file in said["files"]} == {
        "adapter_config.json",
        "adapter_model.safetensors",
        "tokenizer.json",
    }
    config = config_of(tmp_path / "out")
    assert config["r"] == 4
    assert (config["rank_pattern"], config["alpha_pattern"], config["use_rslora"]) == ({}, {}, False)
    assert config["inference_mode"] is True
    assert config["task_type"] == "CAUSAL_LM"
    assert set(shapes_of(tmp_path / "out").values()) == {("F32", (4, 3)), ("F32", (3, 4))}
    assert adapters("check", str(tmp_path / "out"), "--for", "vllm").code == 0
    assert adapters("check", str(tmp_path / "out"), "--for", "vllm==0.33").code == 0


@pytest.mark.parametrize(("alpha", "rank"), [(3, 4), (16, 4)])
def test_a_rslora_of_whole_alpha_leaves_the_tensors_alone(
    adapters: Adapters, write_adapter: WriteAdapter, tmp_path: Path, alpha: int, rank: int
) -> None:
    directory = write_adapter("my-lora", lora_tensors(rank=rank), r=rank, lora_alpha=alpha, use_rslora=True)
    said = adapters.json("export", str(directory), "--for", "llama.cpp", "-o", str(tmp_path / "out"))
    assert said["largest_error"] == 0
    assert config_of(tmp_path / "out")["lora_alpha"] == alpha * sqrt(rank)
    assert "scale-folded" not in {change["rule"] for change in said["changes"]}


def test_what_fits_is_copied(adapters: Adapters, write_adapter: WriteAdapter, tmp_path: Path) -> None:
    directory = write_adapter("my-lora", None, inference_mode=True)
    said = adapters("export", str(directory), "--for", "vllm", "-o", str(tmp_path / "out"))
    assert "nothing had to change" in said.out
    assert config_of(tmp_path / "out") == config_of(directory)
    assert shapes_of(tmp_path / "out") == shapes_of(directory)


def test_a_half_precision_adapter_keeps_its_type_where_that_is_exact(
    adapters: Adapters, write_adapter: WriteAdapter, tmp_path: Path
) -> None:
    half = b"\x00\x3f"  # 0.5 as BF16
    tensors = {
        f"{PREFIX}{path}.lora_{part}.weight": ("BF16", (2, 3) if part == "A" else (3, 2), half * 6)
        for path in (Q, K)
        for part in "AB"
    }
    for name, alpha, dtype in (("exact", 16, "BF16"), ("rounded", 5, "F32")):
        directory = write_adapter(name, tensors, alpha_pattern={"k_proj": alpha}, target_modules=["q_proj", "k_proj"])
        said = adapters.json("export", str(directory), "--for", "vllm", "-o", str(tmp_path / f"{name}-out"))
        assert {kind for kind, _ in shapes_of(tmp_path / f"{name}-out").values()} == {dtype} or dtype == "F32"
        assert said["largest_error"] < 2**-24


def test_names_are_put_right(adapters: Adapters, write_adapter: WriteAdapter, tmp_path: Path) -> None:
    tensors = {
        name.replace(".weight", ".default.weight").replace("model.layers", "_orig_mod.model.layers"): value
        for name, value in lora_tensors().items()
    }
    directory = write_adapter("my-lora", tensors)
    assert adapters("check", str(directory), "--for", "peft").code == 3
    said = adapters.json("export", str(directory), "--for", "peft", "-o", str(tmp_path / "out"))
    assert [change["rule"] for change in said["changes"]] == ["name-corrected"]
    assert set(shapes_of(tmp_path / "out")) == {f"{Q}.lora_A.weight", f"{Q}.lora_B.weight"}


def test_old_patterns_become_paths(adapters: Adapters, write_adapter: WriteAdapter, tmp_path: Path) -> None:
    directory = write_adapter("my-lora", UNEVEN, **PATTERNS)
    said = adapters.json("export", str(directory), "--for", "peft", "-o", str(tmp_path / "out"))
    assert [change["rule"] for change in said["changes"]] == ["patterns-resolved"]
    key = r"layers\.0\.self_attn\.k_proj"
    config = config_of(tmp_path / "out")
    assert (config["rank_pattern"], config["alpha_pattern"]) == ({key: 4}, {key: 16})
    assert config["use_rslora"] is True
    assert said["largest_error"] == 0


def test_a_regular_expression_becomes_the_paths_that_tensors_are_for(
    adapters: Adapters, write_adapter: WriteAdapter, tmp_path: Path
) -> None:
    directory = write_adapter("my-lora", None, target_modules=r".*\.q_proj", exclude_modules="lm_head")
    adapters.json("export", str(directory), "--for", "vllm", "-o", str(tmp_path / "out"))
    config = config_of(tmp_path / "out")
    assert (config["target_modules"], config["exclude_modules"]) == ([Q], None)


@pytest.mark.parametrize(
    ("rule", "said", "written"),
    [
        ("bias-none", {"bias": "lora_only"}, {"bias": "none"}),  # PEFT before 0.21 saved no bias
        ("defaults-written", {"lora_alpha": None}, {"lora_alpha": 8}),  # None: the field is left away
        ("targets-listed", {"target_modules": ["v_proj", "q_proj"]}, {"target_modules": ["q_proj"]}),
        ("scaling-plain", {"alpha_pattern": {"v_proj": 3}}, {"alpha_pattern": {}, "lora_alpha": 4, "r": 2}),
    ],
)
def test_the_config_says_what_the_tensors_are(
    adapters: Adapters,
    write_adapter: WriteAdapter,
    tmp_path: Path,
    rule: str,
    said: dict[str, object],
    written: dict[str, object],
) -> None:
    directory = write_adapter("my-lora", None, **said)
    absent = {field for field, value in said.items() if value is None}
    stated = {field: value for field, value in config_of(directory).items() if field not in absent}
    (directory / "adapter_config.json").write_text(json.dumps(stated))
    document = adapters.json("export", str(directory), "--for", "vllm", "-o", str(tmp_path / "out"))
    assert [change["rule"] for change in document["changes"]] == [rule]
    assert {field: config_of(tmp_path / "out")[field] for field in written} == written
    assert document["largest_error"] == 0


def test_what_export_cannot_mend_does_not_point_back_at_it(
    adapters: Adapters, write_adapter: WriteAdapter, tmp_path: Path
) -> None:
    """LoRAX serves a kind of module in all layers or in none; layers of zeros are not made up here."""
    (tmp_path / "base").mkdir()
    layers = {f"model.layers.{i}.self_attn.q_proj.weight": ("F32", (3, 3), floats(1, count=9)) for i in (0, 1)}
    (tmp_path / "base" / "model.safetensors").write_bytes(safetensors_bytes(layers))
    (tmp_path / "base" / "config.json").write_text('{"model_type": "llama"}')
    directory, base = str(write_adapter("my-lora")), str(tmp_path / "base")
    error = adapters.refusal("export", directory, "--for", "lorax", "--base", base, "-o", str(tmp_path / "out"))
    assert error["code"] == "serve-target"
    assert "adapters export" not in error["hint"]


def test_a_stored_version_is_exported_with_the_base_that_was_recorded(
    adapters: Adapters, write_adapter: WriteAdapter, tmp_path: Path
) -> None:
    directory = write_adapter("my-lora", None, base_model_name_or_path="/home/somebody/llama")
    adapters.json("push", str(directory), "--base", "acme/llama@0123456789012345678901234567890123456789")
    said = adapters.json("export", "my-lora@1", "--for", "vllm", "-o", str(tmp_path / "out"))
    assert said["subject"] == "local/my-lora@1"
    config = config_of(tmp_path / "out")
    assert config["base_model_name_or_path"] == "acme/llama"
    assert config["revision"] == "0123456789012345678901234567890123456789"
    adapters.json("export", "my-lora", "--for", "vllm", "--base", "acme/other", "-o", str(tmp_path / "other"))
    assert config_of(tmp_path / "other")["base_model_name_or_path"] == "acme/other"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["my-lora", "other", "out", "registry"]


def test_a_copy_of_the_base_is_left_out_if_it_is_the_bases_own(
    adapters: Adapters, write_adapter: WriteAdapter, tmp_path: Path
) -> None:
    directory = write_adapter("my-lora", with_embedding(), target_modules=["q_proj", "embed_tokens"])
    base = a_base(tmp_path / "base")
    said = adapters.json("export", str(directory), "--for", "vllm", "--base", base, "-o", str(tmp_path / "out"))
    assert [change["rule"] for change in said["changes"]] == ["base-copy-dropped"]
    assert f"{EMBEDDING}.base_layer.weight" not in shapes_of(tmp_path / "out")
    assert f"{EMBEDDING}.lora_embedding_A" in shapes_of(tmp_path / "out")


REFUSALS = {
    "dora": (6, "serve-dora", with_magnitudes(), {"use_dora": True}, ()),
    "pissa": (6, "serve-initialization", None, {"init_lora_weights": "pissa"}, ()),
    "method": (
        6,
        "serve-peft-type",
        {f"{PREFIX}{Q}.ia3_l": ("F32", (3, 1), floats(1, 1, 1))},
        {"peft_type": "IA3"},
        (),
    ),
    "rank above the cap": (6, "serve-rank", lora_tensors(rank=32), {"r": 32}, ()),
    "copy without a base": (6, "base-needed", with_embedding(), {"target_modules": ["q_proj", "embed_tokens"]}, ()),
    "damage": (3, "rank-mismatch", lora_tensors(rank=4), {}, ()),
    "a null that PEFT refuses": (3, "config-refused", None, {"lora_alpha": None}, ()),
    "base": (8, "base-shapes-unknown", None, {}, ("--base", "EMPTY")),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_a_refusal_names_its_rule_and_writes_nothing(
    adapters: Adapters, write_adapter: WriteAdapter, tmp_path: Path, name: str
) -> None:
    code, rule, tensors, config, options = REFUSALS[name]
    directory = write_adapter("my-lora", tensors, **config)
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "config.json").write_text('{"model_type": "no such model"}')
    options = tuple(str(tmp_path / "empty") if option == "EMPTY" else option for option in options)
    before = tree(tmp_path)
    error = adapters.refusal("export", str(directory), "--for", "vllm", "-o", str(tmp_path / "out"), *options)
    assert (error["exit_code"], error["code"]) == (code, rule)
    assert error["hint"]
    assert tree(tmp_path) == before


def test_advice_is_for_a_command_that_can_follow_it(
    adapters: Adapters, write_adapter: WriteAdapter, tmp_path: Path
) -> None:
    """Only a push keeps what is not finite."""
    broken = str(write_adapter("broken", lora_tensors(value=float("nan"))))
    error = adapters.refusal("export", broken, "--for", "peft", "-o", str(tmp_path / "out"))
    assert (error["exit_code"], error["code"]) == (3, "nonfinite")
    assert "push --allow nonfinite" in error["hint"]
    assert adapters("push", broken, "--allow", "nonfinite").code == 0


@pytest.mark.parametrize("options", [("--for", "triton"), ("--for", "vllm==0.1"), ("--max-lora-rank", "17")])
def test_an_engine_that_is_not_is_wrong_usage(
    adapters: Adapters, write_adapter: WriteAdapter, tmp_path: Path, options: tuple[str, ...]
) -> None:
    directory = str(write_adapter())
    for line in (("export", directory, "-o", str(tmp_path / "out")), ("check", directory)):
        said = adapters(*line, "--for", "vllm", *options)
        assert (said.code, "Usage" in said.err) == (2, True)
    assert not (tmp_path / "out").exists()


def test_all_reasons_are_said_at_once(adapters: Adapters, write_adapter: WriteAdapter, tmp_path: Path) -> None:
    directory = write_adapter("my-lora", with_magnitudes(), use_dora=True, layer_replication=[[0, 1]])
    error = adapters.refusal("export", str(directory), "--for", "vllm", "-o", str(tmp_path / "out"))
    assert {finding["rule"] for finding in error["findings"]} == {"serve-dora", "serve-variant"}


def test_a_trained_copy_of_the_base_is_refused(adapters: Adapters, write_adapter: WriteAdapter, tmp_path: Path) -> None:
    directory = write_adapter("my-lora", with_embedding(0.5), target_modules=["q_proj", "embed_tokens"])
    base = a_base(tmp_path / "base")
    before = tree(tmp_path)
    error = adapters.refusal("export", str(directory), "--for", "vllm", "--base", base, "-o", str(tmp_path / "out"))
    assert (error["exit_code"], error["code"]) == (6, "copy-not-the-bases")
    assert tree(tmp_path) == before


def test_a_higher_cap_lets_a_higher_rank_through(
    adapters: Adapters, write_adapter: WriteAdapter, tmp_path: Path
) -> None:
    directory = str(write_adapter("my-lora", lora_tensors(rank=32), r=32))
    adapters.json("export", directory, "--for", "vllm", "--max-lora-rank", "32", "-o", str(tmp_path / "out"))
    assert config_of(tmp_path / "out")["r"] == 32


def test_an_output_that_is_taken_is_a_conflict(adapters: Adapters, write_adapter: WriteAdapter, tmp_path: Path) -> None:
    directory = str(write_adapter("my-lora"))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("kept")
    before = tree(tmp_path)
    assert adapters.refusal("export", directory, "--for", "vllm", "-o", str(tmp_path / "out"))["exit_code"] == 5
    assert tree(tmp_path) == before


def test_an_interrupt_leaves_nothing(
    adapters: Adapters, write_adapter: WriteAdapter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> bool:
        raise KeyboardInterrupt

    directory = str(write_adapter("my-lora", UNEVEN, **PATTERNS))
    monkeypatch.setattr(workshop, "different", interrupted)  # after the weights were written
    before = tree(tmp_path)
    assert adapters("export", directory, "--for", "vllm", "-o", str(tmp_path / "out")).code == 130
    assert tree(tmp_path) == before


def test_a_copy_that_is_not_equal_is_not_kept(
    adapters: Adapters, write_adapter: WriteAdapter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrongly(source: Path, repair: Any, into: Path) -> bool:
        widened = rewrite(source, repair, into)
        data = bytearray(into.read_bytes())
        data[-9] ^= 1  # a bit of an exponent, in the last number that is no padding
        into.write_bytes(data)
        return widened

    rewrite = workshop.rewrite
    directory = str(write_adapter("my-lora", UNEVEN, **PATTERNS))
    monkeypatch.setattr(workshop, "rewrite", wrongly)
    before = tree(tmp_path)
    error = adapters.refusal("export", directory, "--for", "vllm", "-o", str(tmp_path / "out"))
    assert (error["exit_code"], error["code"]) == (6, "not-equal")
    assert tree(tmp_path) == before


def test_without_torch_one_sentence_says_so(write_adapter: WriteAdapter, tmp_path: Path) -> None:
    directory, dora = write_adapter("my-lora"), write_adapter("dora", with_magnitudes(), use_dora=True)
    line = "import sys; sys.modules['torch'] = None; from cli.main import main; main()"
    for adapter, code, rule in ((directory, 8, "tensors-missing"), (dora, 6, "serve-dora")):
        command = ["export", str(adapter), "--for", "vllm", "-o", str(tmp_path / "out"), "--json"]
        done = subprocess.run([sys.executable, "-c", line, *command], capture_output=True, text=True)
        error = json.loads(done.stderr)["error"]
        assert (done.returncode, error["code"]) == (code, rule)
        assert not (tmp_path / "out").exists()
    assert "adapter-registry[tensors]" in json.dumps(error) or rule == "serve-dora"


def test_a_base_that_the_registry_knows_is_looked_at(
    adapters: Adapters, write_adapter: WriteAdapter, tmp_path: Path
) -> None:
    adapters.json("base", "add", a_base(tmp_path / "base"), "--name", "openai-community/gpt2")
    wrong = write_adapter("wrong", lora_tensors(Q, width=5))
    rest = ("-o", str(tmp_path / "out"), "--base", "gpt2")
    assert adapters.refusal("export", str(wrong), "--for", "peft", *rest)["exit_code"] == 6
    directory = write_adapter("copied", with_embedding(), target_modules=["q_proj", "embed_tokens"])
    copied = adapters.refusal("export", str(directory), "--for", "vllm", *rest)
    assert (copied["exit_code"], copied["code"]) == (6, "base-needed")  # of which the registry has no numbers
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("chosen", [["k_proj"], []])
def test_what_peft_would_drop_from_the_original_has_no_faithful_copy(
    adapters: Adapters, write_adapter: WriteAdapter, tmp_path: Path, chosen: list[str]
) -> None:
    directory = write_adapter("my-lora", lora_tensors(Q), target_modules=chosen)
    for engine in ("vllm", "peft", "llama.cpp"):
        refusal = adapters.refusal("export", str(directory), "--for", engine, "-o", str(tmp_path / "out"))
        assert (refusal["exit_code"], refusal["code"]) == (6, "target-not-chosen")
        assert not (tmp_path / "out").exists()
