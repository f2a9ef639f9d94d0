"""``adapters merge``, ``verify``, ``combine`` and what looks at deltas: what they say, what they refuse, and with which code."""

from __future__ import annotations

import json
from math import inf
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer import BadParameter

from cli.commands.inspect import bars
from cli.tensor_options import weighted
from tests.cli.conftest import Adapters, Said

SHAPES = {"q_proj": (6, 8), "down_proj": (8, 10)}


def module(name: str) -> str:
    return f"model.layers.0.{'self_attn' if name == 'q_proj' else 'mlp'}.{name}"


@pytest.fixture
def base(tmp_path: Path) -> Path:
    place = tmp_path / "base"
    place.mkdir()
    generator = torch.Generator().manual_seed(0)
    tensors = {f"{module(name)}.weight": torch.randn(shape, generator=generator) for name, shape in SHAPES.items()}
    save_file(tensors | {"model.norm.weight": torch.ones(8)}, place / "model.safetensors", metadata={"format": "pt"})
    config = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 8, "torch_dtype": "float32"}
    (place / "config.json").write_text(json.dumps(config))
    (place / "modeling_llama.py").write_text("raise SystemExit")
    (place / "tokenizer.json").write_text("{}")
    return place


def adapter(into: Path, seed: int, **options: Any) -> Path:
    into.mkdir()
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, (out, inputs) in SHAPES.items():
        prefix = f"base_model.model.{module(name)}"
        tensors[f"{prefix}.lora_A.weight"] = torch.randn(2, inputs, generator=generator)
        tensors[f"{prefix}.lora_B.weight"] = torch.randn(out, 2, generator=generator)
    save_file(tensors, into / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": [*SHAPES], "task_type": "CAUSAL_LM"}
    (into / "adapter_config.json").write_text(json.dumps(config | options))
    return into


@pytest.fixture
def one(tmp_path: Path) -> Path:
    return adapter(tmp_path / "one", 1)


@pytest.fixture
def two(tmp_path: Path) -> Path:
    return adapter(tmp_path / "two", 2)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("./my-lora", ("./my-lora", 1.0)),
        ("./my-lora=0.7", ("./my-lora", 0.7)),
        ("team/x:production=-2e-1", ("team/x:production", -0.2)),
        ("./a=b=0", ("./a=b", 0.0)),
        ("./a=b/c", ("./a=b/c", 1.0)),
        ("=0.5", ("=0.5", 1.0)),
        ("./a=.5", ("./a", 0.5)),
        ("./a=+3.", ("./a", 3.0)),
        ("./a=1E2", ("./a", 100.0)),
        ("./a=1e400", ("./a", inf)),
        ("./a=-Infinity", ("./a", -inf)),
    ],
)
def test_what_stands_behind_the_last_sign_is_a_weight_if_it_is_a_number(text: str, meant: tuple[str, float]) -> None:
    assert weighted(text) == meant


@pytest.mark.parametrize("text", ["./a=b", "./a=", "./a=1_0", "./a=\uff11", "./a=\u0663.5", "./a= 1", "./a=1\n", "./a=0x1p3"])
def test_what_is_no_number_is_part_of_a_name_that_is_there(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadParameter, match="is no weight"):
        weighted(text)
    Path(text).mkdir()
    assert weighted(text) == (text, 1.0)


def test_a_plan_says_what_would_be_done_and_does_nothing(adapters: Adapters, base: Path, one: Path, tmp_path: Path) -> None:
    before = sorted(path.name for path in tmp_path.iterdir())
    plan = adapters.json("merge", str(base), f"{one}=0.5", "--plan")
    assert plan["tensors"] == {"total": 3, "changed": 2, "copied": 1} | {
        key: value for key, value in plan["tensors"].items() if key not in {"total", "changed", "copied"}
    }
    assert plan["bytes"]["total"] == 4 * (48 + 80 + 8)
    assert plan["adapters"][0]["weight"] == 0.5
    assert plan["peak_memory"] > 1 << 20
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    said = adapters("merge", str(base), str(one), "--plan")
    assert "2 tensors" in said.out


def test_a_merge_is_complete_and_proves_itself(adapters: Adapters, base: Path, one: Path, two: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = adapters.json("merge", str(base), str(one), f"{two}=-0.5", "-o", str(out), "--name", "merged")
    assert done["verification"]["sound"]
    assert done["version"] == "local/merged@1"
    before, after = load_file(base / "model.safetensors"), load_file(out / "model.safetensors")
    for name in SHAPES:
        wanted = before[f"{module(name)}.weight"].double()
        for place, weight in ((one, 1.0), (two, -0.5)):
            tensors = load_file(place / "adapter_model.safetensors")
            prefix = f"base_model.model.{module(name)}"
            wanted += weight * 2 * tensors[f"{prefix}.lora_B.weight"].double() @ tensors[f"{prefix}.lora_A.weight"].double()
        torch.testing.assert_close(after[f"{module(name)}.weight"].double(), wanted, rtol=1e-6, atol=1e-6)
    assert torch.equal(after["model.norm.weight"], before["model.norm.weight"])
    assert sorted(path.name for path in out.iterdir()) == ["README.md", "config.json", "model.safetensors", "tokenizer.json"]
    assert (out / "config.json").read_bytes() == (base / "config.json").read_bytes()
    shown = adapters.json("show", "merged")
    assert shown["peft_type"] == "MERGED"
    assert adapters("check", "merged", "--base", str(base)).code == 3
    card = (out / "README.md").read_text()
    assert "not proven" in card
    assert done["adapters"][0]["digest"] in card
    verify = ["verify", str(out), "--base", str(base), "--adapter", str(one), "--adapter"]
    assert adapters.json(*verify, f"{two}=-0.5", "--all")["sound"]
    wrong = adapters(*verify, f"{two}=0.5")
    assert wrong.code == 6
    assert "is not this merge" in wrong.err


def test_the_proof_can_be_read_without_knowing_what_an_ulp_is(adapters: Adapters, base: Path, one: Path, tmp_path: Path) -> None:
    said = adapters("merge", str(base), str(one), "-o", str(tmp_path / "out"), "--dtype", "bfloat16")
    proof = said.out.splitlines()[0]
    assert proof.startswith("proven: every number of a sample that was changed is the correctly rounded one")
    assert "2 tensors changed, 1 converted to another type, 0 the base's byte for byte" in proof
    assert "ulp" not in proof
    assert "ulp" in said.err
    verify = ["verify", str(tmp_path / "out"), "--base", str(base), "--adapter", str(one), "--all"]
    assert adapters(*verify).out.startswith("proven: every number that was changed")
    assert adapters(*verify, "--quiet").err == ""
    document = adapters.json(*verify)
    assert document["tensors"] == {"changed": 3, "copied": 0, "converted": 1}
    assert "error_ulps" in document
    plan = adapters("merge", str(base), str(one), "--plan", "--dtype", "bfloat16").out
    assert [line.split()[:2] for line in plan.splitlines() if line.startswith(("changed", "converted", "copied"))] == [
        ["changed", "2"], ["converted", "1"], ["copied", "0"],
    ]  # fmt: skip


def test_a_method_is_the_merge_s_and_verify_is_told_it(
    adapters: Adapters, base: Path, one: Path, two: Path, tmp_path: Path
) -> None:
    out, how = tmp_path / "out", ["--method", "dare_ties", "--density", "0.4", "--seed", "3"]
    adapters.json("merge", str(base), str(one), f"{two}=0.5", "-o", str(out), *how)
    verify = ["verify", str(out), "--base", str(base), "--adapter", str(one), "--adapter", f"{two}=0.5"]
    assert adapters.json(*verify, *how, "--all")["sound"]
    assert adapters(*verify).code == 6
    assert adapters(*verify, *how[:-1], "4").code == 6
    card = (out / "README.md").read_text()
    assert all(line in card for line in ("* combined by: dare_ties", "* density: 0.4", "* seed: 3"))
    adapters.json("merge", str(base), str(one), "-o", str(tmp_path / "plain"), "--density", "0.4")
    assert "density" not in (tmp_path / "plain" / "README.md").read_text()


def test_a_stored_type_and_files_as_asked(adapters: Adapters, base: Path, one: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    adapters.json("merge", str(base), str(one), "-o", str(out), "--dtype", "bfloat16", "--max-shard-size", "200B")
    index = json.loads((out / "model.safetensors.index.json").read_text())
    files = sorted(set(index["weight_map"].values()))
    assert files == [f"model-0000{n}-of-0000{len(files)}.safetensors" for n in range(1, len(files) + 1)]
    assert index["metadata"]["total_size"] == 2 * (48 + 80 + 8)
    assert {one.dtype for file in files for one in load_file(out / file).values()} == {torch.bfloat16}
    assert json.loads((out / "config.json").read_text())["torch_dtype"] == "bfloat16"


#: Arguments → exit code and what is said of it.
WRONG: dict[str, tuple[list[str], int, str]] = {
    "no base": (["merge", "{place}/nowhere", "{one}", "-o", "{place}/out"], 4, "not a directory"),
    "no adapter": (["merge", "{base}", "{place}/nowhere", "-o", "{place}/out"], 4, "not a directory"),
    "no version": (["merge", "{base}", "nobody", "-o", "{place}/out"], 4, "nobody"),
    "nowhere to": (["merge", "{base}", "{one}"], 2, "-o DIR"),
    "a place that is taken": (["merge", "{base}", "{one}", "-o", "{place}"], 5, "not empty"),
    "a method of merging that is none": (["merge", "{base}", "{one}", "-o", "{place}/out", "--method", "magic"], 2, "ties"),
    "a share of nothing": (["merge", "{base}", "{one}", "-o", "{place}/out", "--density", "0"], 2, "share"),
    "a share that is no number": (["merge", "{base}", "{one}", "-o", "{place}/out", "--density", "nan"], 2, "--density"),
    "a size that is none": (["merge", "{base}", "{one}", "-o", "{place}/out", "--max-shard-size", "many"], 2, "5GB"),
    "a device that is none": (["merge", "{base}", "{one}", "-o", "{place}/out", "--device", "abacus"], 3, "abacus"),
    "a checkpoint that is none": (["verify", "{place}", "--base", "{base}", "--adapter", "{one}"], 4, "model.safetensors"),
    "combine to nowhere": (["combine", "{one}"], 2, "-o DIR"),
    "a rank that is none": (["combine", "{one}", "-o", "{place}/out", "--rank", "few"], 2, "exact, auto"),
    "a share that is none": (["combine", "{one}", "-o", "{place}/out", "--energy", "2"], 2, "above 0, at most 1"),
    "a method that is none": (["combine", "{one}", "-o", "{place}/out", "--method", "magic"], 2, "magic"),
    "only one to interfere": (["interference", "{one}"], 2, "at least two"),
    "nothing to inspect": (["inspect", "nobody"], 4, "nobody"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_done_is_said_in_a_sentence(case: str, adapters: Adapters, base: Path, one: Path, tmp_path: Path) -> None:
    words, code, sentence = WRONG[case]
    before = sorted(path.name for path in tmp_path.rglob("*"))
    said = adapters(*(word.format(place=tmp_path, base=base, one=one) for word in words))
    assert (said.code, "Traceback" in said.err) == (code, False), said.err
    assert sentence in " ".join(said.err.replace("│", " ").split())
    assert sorted(path.name for path in tmp_path.rglob("*") if "registry" not in path.parts) == before


def said_layers(said: Said) -> list[str]:
    return [line.split()[0] for line in said.out.splitlines() if "model.layers" in line]


def test_what_is_combined_and_looked_at(adapters: Adapters, one: Path, two: Path, tmp_path: Path) -> None:
    out = tmp_path / "both"
    done = adapters.json("combine", f"{one}=0.7", f"{two}=-0.3", "-o", str(out), "--name", "both")
    assert done["error"] < 1e-6
    assert [layer["rank"] for layer in done["layers"]] == [4, 4]
    assert done["version"] == "local/both@1"
    seen = adapters.json("inspect", "both")
    assert [layer["rank"] for layer in seen["layers"]] == [4, 4]
    assert len(said_layers(adapters("inspect", str(out)))) == 2
    alike = adapters.json("diff", "both", str(out))
    assert alike["cosine"] == pytest.approx(1)
    against = adapters.json("interference", str(one), f"{two}=0.5")
    assert against["cosines"][0][0] == 1
    assert against["cosines"][0][1] == against["cosines"][1][0]
    smaller = adapters.json("rerank", "both", "--rank", "2", "-o", str(tmp_path / "smaller"))
    assert {layer["rank"] for layer in smaller["layers"]} == {2}
    assert smaller["error"] == pytest.approx(smaller["discarded"], rel=1e-3)
    dora = adapter(tmp_path / "dora", 3, use_dora=True)
    refused = adapters("combine", str(one), str(dora), "-o", str(tmp_path / "none"))
    assert refused.code in (3, 6)
    assert not (tmp_path / "none").exists()


def test_bars_are_measured_against_the_largest() -> None:
    assert bars([4.0, 2.0, 0.0]) == "█▅▁"
    assert bars([0.0]) == ""
    assert len(bars([1.0] * 99)) == 16
