"""``adapters inspect --plot``: the picture says what the table says, and what a stranger called a layer is only ever text."""

from __future__ import annotations

import json
import struct
import sys
from math import inf
from pathlib import Path
from xml.dom import minidom

import pytest
import torch
from safetensors.torch import save_file

from cli.spectra import MOST_VALUES, level
from tests.cli.conftest import Adapters

HOSTILE = {
    "script": "layers.0.<script>alert(1)<|script>.q_proj",
    "quote": "layers.1.\" onload='alert(1)'.q_proj",
    "entity": "layers.2.&lt;b&gt;&amp;.q_proj",
    "formula": r"layers.3.$\frac{a}{$.q_proj",
    "closing": "layers.4.]]>-->{title}{picture}%s.q_proj",
    "script of others": "layers.5.层.q_proj",
    "long": f"layers.6.{'x' * 400}.q_proj",
}


def write(into: Path, *names: str, rank: int = 4, used: int = 2) -> Path:
    """The last layer does nothing."""
    into.mkdir()
    generator = torch.Generator().manual_seed(0)
    tensors = {}
    for number, name in enumerate(names):
        up = torch.randn(rank * 2, rank, generator=generator)
        up[:, used:] = 0
        tensors[f"base_model.model.{name}.lora_A.weight"] = torch.randn(rank, rank * 3, generator=generator)
        tensors[f"base_model.model.{name}.lora_B.weight"] = up * (number < len(names) - 1)
    save_file(tensors, into / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": rank, "lora_alpha": rank, "target_modules": ["q_proj"], "task_type": "CAUSAL_LM"}
    (into / "adapter_config.json").write_text(json.dumps(config))
    return into


def elements(text: str) -> list[minidom.Element]:
    return minidom.parseString(text).getElementsByTagName("*")


def texts(text: str) -> list[str]:
    return [one.firstChild.data for one in elements(text) if one.tagName in ("text", "title")]  # type: ignore[union-attr]


def test_an_svg_says_what_the_table_says(adapters: Adapters, tmp_path: Path) -> None:
    names = ["layers.0.q_proj", "layers.1.q_proj", "layers.2.q_proj"]
    done = adapters.json("inspect", str(write(tmp_path / "one", *names)), "--plot", str(tmp_path / "x.svg"))
    text = (tmp_path / "x.svg").read_text()
    found = texts(text)
    for layer in done["layers"]:
        assert layer["path"] in found
        assert f"{layer['sufficient_rank']} / {layer['rank']}" in found
        assert f"{layer['norm']:.4g}" in found
    assert found.count("does nothing") == 1
    cells = [one for one in elements(text) if one.tagName == "rect" and one.getAttribute("x") == "370.0"]
    assert [one.getAttribute("fill-opacity") for one in cells] == ["1.00", "1.00"]


def test_with_a_base_each_layer_has_its_share(adapters: Adapters, tmp_path: Path) -> None:
    one = write(tmp_path / "one", "model.layers.0.self_attn.q_proj", "model.layers.1.self_attn.q_proj")
    base = tmp_path / "base"
    base.mkdir()
    save_file(
        {f"model.layers.{n}.self_attn.q_proj.weight": torch.ones(8, 12) for n in (0, 1)}, base / "model.safetensors"
    )
    (base / "config.json").write_text(json.dumps({"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 8}))
    done = adapters.json("inspect", str(one), "--base", str(base), "--plot", str(tmp_path / "x.svg"))
    found = texts((tmp_path / "x.svg").read_text())
    assert "‖Δ‖ / ‖W‖" in found
    assert f"{done['layers'][0]['base_share']:.2%}" in found


@pytest.mark.parametrize("kind", ["html", "svg"])
def test_names_are_only_ever_text(kind: str, adapters: Adapters, tmp_path: Path) -> None:
    place = write(tmp_path / "<b onclick=x>", *HOSTILE.values(), "layers.9.q_proj")
    adapters.json("inspect", str(place), "--plot", str(tmp_path / f"x.{kind}"))
    text = (tmp_path / f"x.{kind}").read_text()
    if kind == "html":
        assert "default-src 'none'" in text
        text = text.replace("<!doctype html>\n", "").replace('<meta charset="utf-8">', "")
        text = text.replace("'unsafe-inline'\">", "'unsafe-inline'\"/>")
    known = {"html", "head", "meta", "title", "style", "body", "h1", "p", "svg", "rect", "g", "text"}
    assert {one.tagName for one in elements(text)} <= known
    assert not any(name.lower().startswith("on") for one in elements(text) for name in one.attributes.keys())  # noqa: SIM118
    found = texts(text)
    for name in HOSTILE.values():
        assert name in found


def test_a_png_is_one_whatever_the_names_are(adapters: Adapters, tmp_path: Path) -> None:
    place = write(tmp_path / "$x_{", *HOSTILE.values(), "layers.9.q_proj")
    adapters.json("inspect", str(place), "--plot", str(tmp_path / "x.png"))
    data = (tmp_path / "x.png").read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", data[16:24])
    assert width > 1000
    assert height > 200


@pytest.mark.slow
def test_thousands_of_layers_and_hundreds_of_ranks_are_drawn(adapters: Adapters, tmp_path: Path) -> None:
    tall = write(tmp_path / "tall", *(f"layers.{n}.q_proj" for n in range(2500)), rank=1, used=1)
    wide = write(tmp_path / "wide", "layers.0.q_proj", "layers.1.q_proj", rank=MOST_VALUES * 2, used=MOST_VALUES * 2)
    adapters.json("inspect", str(tall), "--plot", str(tmp_path / "tall.png"))
    adapters.json("inspect", str(wide), "--plot", str(tmp_path / "wide.svg"))
    assert len([one for one in elements((tmp_path / "wide.svg").read_text()) if one.getAttribute("fill-opacity")]) < 300


def test_without_matplotlib_a_sentence_names_the_extra(
    adapters: Adapters, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    one = write(tmp_path / "one", "layers.0.q_proj", "layers.1.q_proj")
    refused = adapters.refusal("inspect", str(one), "--plot", str(tmp_path / "x.png"))
    assert (refused["exit_code"], refused["code"]) == (8, "plot-missing")
    assert "adapter-registry[plot]" in refused["hint"]
    assert not (tmp_path / "x.png").exists()
    adapters.json("inspect", str(one), "--plot", str(tmp_path / "x.html"))


def test_a_place_that_cannot_be_written_is_refused(adapters: Adapters, tmp_path: Path) -> None:
    one = write(tmp_path / "one", "layers.0.q_proj", "layers.1.q_proj")
    (tmp_path / "mine.html").write_text("mine")
    assert adapters.refusal("inspect", str(one), "--plot", str(tmp_path / "mine.html"))["exit_code"] == 5
    assert (tmp_path / "mine.html").read_text() == "mine"
    assert adapters.refusal("inspect", str(one), "--plot", str(tmp_path / "no" / "x.html"))["exit_code"] == 8
    said = adapters("inspect", str(one), "--plot", str(tmp_path / "x.pdf"))
    assert (said.code, ".html" in said.err) == (2, True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.html", "one"]


@pytest.mark.parametrize(
    ("value", "largest", "dark"), [(1, 1, 1), (1, 1e3, 0), (1e-300, 1e300, 0), (0, 1, 0), (0, 0, 0), (1, inf, 0)]
)
def test_how_dark_a_cell_is(value: float, largest: float, dark: float) -> None:
    assert level(value, largest) == pytest.approx(dark, abs=1e-12)


def test_a_heat_map_says_what_the_table_says(adapters: Adapters, tmp_path: Path) -> None:
    one, other = (write(tmp_path / name, "layers.0.q_proj", "layers.1.q_proj") for name in ("<i onclick=x>", "$b{"))
    done = adapters.json("interference", str(one), f"{other}=-0.5", "--plot", str(tmp_path / "x.svg"))
    text = (tmp_path / "x.svg").read_text()
    found = texts(text)
    assert "+1.00" in found
    for each, name in zip(done["adapters"], (one, other), strict=True):
        assert str(name) in found
        assert {f"{each['weight']:g}", f"{each['kept']:.3g}", f"{each['disturbance']:.3g}"} <= set(found)
    assert {one.tagName for one in elements(text)} <= {"svg", "style", "rect", "g", "title", "text"}
    adapters.json("interference", str(one), str(other), "--plot", str(tmp_path / "x.png"))
    assert (tmp_path / "x.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    adapters.json("interference", str(one), str(other), "--plot", str(tmp_path / "x.html"))
    assert "default-src 'none'" in (tmp_path / "x.html").read_text()
    assert adapters.refusal("interference", str(one), str(other), "--plot", str(tmp_path / "x.html"))["exit_code"] == 5
