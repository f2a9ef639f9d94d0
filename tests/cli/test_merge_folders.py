"""What an embedder has beside its transformer, as sentence-transformers saves it: in the merged model, or it is said what is not.

The layout is that of ``SentenceTransformer.save`` (v5): ``modules.json`` lists modules, each with the folder that it loads from.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.cli.conftest import Adapters
from tests.cli.test_merge_corners import WIDTH, Q, lora

MODULES = {"": "Transformer", "1_Pooling": "Pooling", "2_Dense": "Dense", "3_Normalize": "Normalize"}
CARRIED = ["1_Pooling/config.json", "2_Dense/config.json", "2_Dense/model.safetensors"]


def listed(modules: dict[str, str]) -> str:
    return json.dumps(
        [
            {"idx": number, "name": str(number), "path": path, "type": f"sentence_transformers.models.{name}"}
            for number, (path, name) in enumerate(modules.items())
        ]
    )


@pytest.fixture
def one(tmp_path: Path) -> Path:
    return lora(tmp_path / "one")


@pytest.fixture
def embedder(tmp_path: Path) -> Path:
    """Its files are links to others, as in the Hub's cache."""
    blobs, place = tmp_path / "blobs", tmp_path / "base"
    blobs.mkdir()
    place.mkdir()
    save_file({f"{Q}.weight": torch.rand(WIDTH, WIDTH)}, place / "model.safetensors", metadata={"format": "pt"})
    (place / "config.json").write_text(json.dumps({"model_type": "llama", "architectures": ["LlamaForCausalLM"]}))
    files = {
        "modules.json": listed(MODULES).encode(),
        "config_sentence_transformers.json": b"{}",
        "sentence_bert_config.json": b'{"max_seq_length": 8}',
        "1_Pooling/config.json": b'{"word_embedding_dimension": 8}',
        "2_Dense/config.json": b'{"in_features": 8, "out_features": 4}',
        "2_Dense/code.py": b"raise SystemExit",
        "2_Dense/optimizer.pt": b"\x80\x04N.",
        "2_Dense/.hidden.json": b"{}",
        "elsewhere/config.json": b"{}",
    }
    for number, (name, data) in enumerate(files.items()):
        (blobs / str(number)).write_bytes(data)
        (place / name).parent.mkdir(exist_ok=True)
        (place / name).symlink_to(os.path.relpath(blobs / str(number), (place / name).parent))
    save_file({"linear.weight": torch.rand(4, 8)}, place / "2_Dense" / "model.safetensors")
    return place


def below(place: Path) -> list[str]:
    return sorted(
        path.relative_to(place).as_posix() for path in place.rglob("*") if "/" in path.relative_to(place).as_posix()
    )


def test_the_folders_of_its_modules_come_along(adapters: Adapters, embedder: Path, one: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert adapters.json("merge", str(embedder), str(one), "-o", str(out), "--name", "embedder")["verification"][
        "sound"
    ]
    for module in json.loads((out / "modules.json").read_text()):
        if (embedder / module["path"] / "config.json").exists():
            assert (out / module["path"] / "config.json").is_file(), module
    assert below(out) == CARRIED
    for name in (*CARRIED, "modules.json", "sentence_bert_config.json"):
        assert (out / name).read_bytes() == (embedder / name).read_bytes()
        assert not (out / name).is_symlink()
    assert adapters.json("verify", str(out), "--base", str(embedder), "--adapter", str(one), "--all")["sound"]
    adapters.json("pull", "embedder", "-o", str(tmp_path / "pulled"))
    assert below(tmp_path / "pulled") == CARRIED


CHANGED: dict[str, tuple[Callable[[Path], object], str]] = {
    "a folder gone": (lambda out: shutil.rmtree(out / "1_Pooling"), "1_Pooling/config.json is missing"),
    "a file changed": (lambda out: (out / CARRIED[1]).write_text("{}"), f"{CARRIED[1]} is not the base's"),
    "weights changed": (
        lambda out: save_file({"linear.weight": torch.zeros(4, 8)}, out / CARRIED[2]),
        f"{CARRIED[2]} is not the base's",
    ),
    "no list of them": (lambda out: (out / "modules.json").unlink(), "modules.json is missing"),
    "weights more": (
        lambda out: shutil.copyfile(out / CARRIED[2], out / "1_Pooling/model.safetensors"),
        "1_Pooling/model.safetensors is none of the base's",
    ),
}


@pytest.mark.parametrize("case", CHANGED)
def test_a_module_that_is_not_the_base_s_is_said(
    case: str, adapters: Adapters, embedder: Path, one: Path, tmp_path: Path
) -> None:
    act, said = CHANGED[case]
    out = tmp_path / "out"
    adapters.json("merge", str(embedder), str(one), "-o", str(out))
    act(out)
    answer = adapters("verify", str(out), "--base", str(embedder), "--adapter", str(one), "--json")
    assert answer.code == 6
    assert said in json.loads(answer.out)["modules"]
    assert said.split(" ")[0] in json.loads(answer.err)["error"]["message"]


def test_weights_in_a_pickle_alone_stay_behind_and_that_is_said(
    adapters: Adapters,
    embedder: Path,
    one: Path,
    tmp_path: Path,
) -> None:
    (embedder / "2_Dense" / "model.safetensors").unlink()
    torch.save({"linear.weight": torch.rand(4, 8)}, embedder / "2_Dense" / "pytorch_model.bin")
    said = adapters("merge", str(embedder), str(one), "-o", str(tmp_path / "out"))
    assert said.code == 0
    assert "2_Dense has no weights in safetensors" in said.err
    assert below(tmp_path / "out") == CARRIED[:2]


def test_a_transformer_in_another_folder_is_not_left_unmerged(
    adapters: Adapters,
    embedder: Path,
    one: Path,
    tmp_path: Path,
) -> None:
    (embedder / "modules.json").unlink()
    (embedder / "modules.json").write_text(listed({"0_Transformer": "Transformer", "1_Pooling": "Pooling"}))
    (embedder / "0_Transformer").mkdir()
    said = adapters("merge", str(embedder), str(one), "-o", str(tmp_path / "out"))
    assert (said.code, (tmp_path / "out").exists()) == (6, False)
    assert "0_Transformer" in said.err


@pytest.mark.parametrize(
    "text", ["{}", "[]", "[1, {}]", '[{"path": "../elsewhere"}]', '[{"path": "/etc"}]', '[{"path": null}]']
)
def test_a_list_of_something_else_names_no_folder(
    text: str, adapters: Adapters, embedder: Path, one: Path, tmp_path: Path
) -> None:
    (embedder / "modules.json").unlink()
    (embedder / "modules.json").write_text(text)
    assert adapters("merge", str(embedder), str(one), "-o", str(tmp_path / "out")).code == 0
    assert below(tmp_path / "out") == []
