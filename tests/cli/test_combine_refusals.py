"""What an outsider may hand to the verbs that look at deltas: one sentence, the family's exit code, and nothing written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.cli.conftest import Adapters
from tests.cli.test_merge import SHAPES, adapter, module


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Adapters and bases of every kind, in the working directory."""
    adapter(tmp_path / "one", 1)
    adapter(tmp_path / "two", 2)
    adapter(tmp_path / "three", 3)
    altered(adapter(tmp_path / "nan", 4), lambda tensor: tensor.clone().fill_(float("nan")))
    altered(adapter(tmp_path / "huge", 5), lambda tensor: tensor * 1e30)
    adapter(tmp_path / "endless", 6, lora_alpha=1e308)
    adapter(tmp_path / "other-base", 7, base_model_name_or_path="acme/other")
    adapter(tmp_path / "of-base", 8, base_model_name_or_path="acme/base")
    adapter(tmp_path / "no-base", 9, base_model_name_or_path=None)
    cut = adapter(tmp_path / "cut", 9) / "adapter_model.safetensors"
    cut.write_bytes(cut.read_bytes()[:-4])
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("mine")
    for name, change in (("base", 0.0), ("tuned", 0.5), ("broken", float("nan"))):
        checkpoint(tmp_path / name, {f"{module(key)}.weight": torch.ones(shape) + change for key, shape in SHAPES.items()})
    checkpoint(tmp_path / "small", {f"{module(key)}.weight": torch.ones(2, 2) for key in SHAPES})
    monkeypatch.chdir(tmp_path)
    return tmp_path


def altered(directory: Path, change: Any) -> None:
    path = directory / "adapter_model.safetensors"
    save_file({name: change(tensor) for name, tensor in load_file(path).items()}, path)


def checkpoint(into: Path, tensors: dict[str, torch.Tensor]) -> None:
    into.mkdir()
    save_file(tensors, into / "model.safetensors", metadata={"format": "pt"})
    config = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 8, "torch_dtype": "float32"}
    (into / "config.json").write_text(json.dumps(config))


#: Command → exit code, and a word of what is said.
REFUSED: dict[str, tuple[int, str]] = {
    "combine one=nan two -o out": (3, "finite number"),
    "combine one=1e400 two -o out": (3, "finite number"),
    "combine one=1e300 two -o out": (6, "cannot hold"),
    "combine one=0 two=0 -o out": (6, "every weight is 0"),
    "combine nan one -o out": (6, "NaN"),
    "combine one nan -o out --method ties": (6, "NaN"),
    "combine huge huge -o out --method ties": (6, "float32"),
    "combine huge huge -o out --method sce": (6, "float32"),
    "combine huge one -o out --dtype float16": (6, "cannot hold"),
    "combine other-base of-base -o out": (6, "belongs to"),
    "combine no-base other-base of-base -o out": (6, "belongs to"),
    "combine one two three -o out --method slerp": (6, "slerp"),
    "combine one cut -o out": (3, "its header describes"),
    "combine one empty -o out": (3, "adapter_config.json"),
    "combine one ./nowhere -o out": (4, "not a directory"),
    "combine one two -o one": (5, "not empty"),
    "combine one two -o file": (5, "no directory"),
    "combine one two -o file/out": (8, "cannot write"),
    "combine one two -o out --max-bytes 0": (2, "size"),
    "combine one two -o out --max-bytes nan": (2, "size"),
    "combine one two -o out --max-bytes 9_0kB": (2, "size"),
    "combine one two -o out --rank \uff12": (2, "whole number"),
    "combine one=1_0 two -o out": (2, "'1_0' is no weight"),
    "merge base one=\uff11 -o out": (2, "is no weight"),
    "combine one two -o out --max-bytes 10": (6, "rank 1 in every layer takes"),
    "combine one two -o out --max-bytes 9kB --energy 0.9": (2, "one of"),
    "combine one two -o out --energy nan": (2, "share"),
    "combine one two -o out --rank ²": (2, "whole number"),
    "combine one two --name ../x": (3, "namespace"),
    "rerank one -o out --max-bytes 10": (6, "rank 1 in every layer takes"),
    "rerank nan -o out": (6, "NaN"),
    "rerank one -o out --energy 2": (2, "share"),
    "rerank one -o out --rank exact": (2, "'exact' is neither auto nor a whole number"),
    "rerank one -o out --rank exact --energy 0.9": (2, "'exact' is neither auto nor a whole number"),
    "rerank one -o out --rank foo": (2, "'foo' is neither auto nor a whole number"),
    "combine one two -o out --rank foo": (2, "'foo' is neither exact, auto nor a whole number"),
    "combine one two -o out --method foo": (2, "'foo' is not a method: expected one of linear, ties"),
    "combine one two -o out --method ties_svd": (2, "for ties_svd write ties with a rank (--rank)"),
    "merge base one -o out --method cat": (2, "for cat write linear"),
    "combine one two -o out --density 0": (2, "'0.0' is not a density"),
    "inspect nan": (6, "NaN"),
    "inspect endless": (6, "float64"),
    "inspect endless --plot out.html": (6, "float64"),
    "inspect one --base small": (6, "does not fit"),
    "inspect one --base broken": (3, "NaN"),
    "inspect one --plot one/x.gif": (2, ".html"),
    "diff one nan": (6, "NaN"),
    "diff endless one": (6, "float64"),
    "interference one nan": (6, "NaN"),
    "interference one=nan two": (3, "finite number"),
    "interference endless one": (6, "float64"),
    "extract --base base --tuned broken --rank 1 -o out": (3, "NaN"),
    "extract --base broken --tuned tuned --rank 1 -o out": (3, "NaN"),
    "extract --base base --tuned base --rank 1 -o out": (6, "differs"),
    "extract --base base --tuned small --rank 1 -o out": (6, "extracted"),
    "extract --base base --tuned tuned --rank 1 -o out --energy 0": (2, "share"),
    "merge base huge -o out --method ties": (6, "float32"),
}


@pytest.mark.parametrize("command", REFUSED)
@pytest.mark.parametrize("as_json", [False, True], ids=["", "json"])
def test_it_is_said_in_a_sentence_and_nothing_is_written(
    command: str, as_json: bool, place: Path, adapters: Adapters
) -> None:
    code, word = REFUSED[command]
    before = sorted(str(path) for path in place.rglob("*"))
    said = adapters(*command.split(), *(["--json"] if as_json else []))
    assert said.code == code, said
    assert word in said.err
    assert "Traceback" not in said.err
    if as_json and code != 2:
        assert json.loads(said.err)["error"]["exit_code"] == code
    assert sorted(str(path) for path in place.rglob("*") if "registry" not in path.parts) == before


#: What looks as odd, and is fine.
FINE = [
    "combine one=1 one=-1 -o out --rank 1",
    "combine one=1 one=-1 -o out --max-bytes 9kB",
    "combine one=1e-320 two -o out",
    "combine huge huge -o out --rank 1",
    "combine one two -o out --method dare_ties --seed -1",
    "combine one two -o out --method task_arithmetic",
    "combine one two -o out --rank 99999999999999999999",
    "combine one two -o out --energy 1e-300",
    "extract --base base --tuned tuned --rank 999 -o out",
    "inspect huge",
    "diff huge one",
    "interference one=0 two=0",
]


@pytest.mark.parametrize("command", FINE)
def test_what_is_only_odd_is_done(command: str, place: Path, adapters: Adapters) -> None:
    assert adapters.json(*command.split())


@pytest.mark.parametrize("search", [[], ["--search", "--score", "true {dir}"]])
def test_every_reason_is_said_at_once(search: list[str], place: Path, adapters: Adapters) -> None:
    dora(place / "dora")
    before = sorted(str(path) for path in place.rglob("*"))
    said = adapters("combine", "dora", "nan", "of-base", "other-base", "-o", "out", *search)
    assert said.code == 6
    assert "for 3 reasons" in said.err
    for reason in ("dora is no delta", "nan: 4 tensors with NaN", "of-base belongs to acme/base, and other-base to acme/other"):
        assert reason in said.err
    assert sorted(str(path) for path in place.rglob("*") if "registry" not in path.parts) == before


def dora(into: Path) -> None:
    path = adapter(into, 10, use_dora=True) / "adapter_model.safetensors"
    magnitudes = {f"base_model.model.{module(key)}.lora_magnitude_vector": torch.ones(shape[0]) for key, shape in SHAPES.items()}
    save_file({**load_file(path), **magnitudes}, path)


def test_what_adapters_do_to_each_other_is_said_before_anything_is_written(place: Path, adapters: Adapters) -> None:
    said = adapters("combine", "one", "two=0.5", "-o", "out")
    assert said.code == 0
    assert "signs conflict" in said.out
    assert said.out.index("signs conflict") < said.out.index("→ out")
    assert "signs conflict" not in adapters("combine", "one", "two=0.5", "-o", "quiet", "--quiet").out


@pytest.mark.parametrize("line", ["combine of-base of-base=0.5", "rerank of-base --rank 1"])
@pytest.mark.parametrize("into", ["", " -o out"])
def test_a_version_is_held_against_its_base_as_a_push_is(adapters: Adapters, place: Path, line: str, into: str) -> None:
    """Its weights may come from two that were stored before the base was known."""
    assert adapters("base", "add", "base", "--name", "acme/base").code == 0
    assert adapters(*line.split(), "--name", "blend").code == 0
    shown = adapters("show", "blend", "--json").document
    assert shown["base_model"]["fingerprint"] is not None
    assert adapters("base", "add", "small", "--name", "acme/base").code == 0
    refused = adapters(*line.split(), *into.split(), "--name", "other")
    assert (refused.code, "other does not fit its base" in refused.err) == (6, True), refused.err
    assert (str(place) in refused.err, (place / "out").exists()) == (False, False)
    assert adapters("show", "other").code == 4
