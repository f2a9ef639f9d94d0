"""Layers that two adapters name differently: a version of transformers names them so, another class of model otherwise."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Adapters
from tests.conftest import WriteAdapter, lora_tensors

LAYER = "layers.0.self_attn.q_proj"
ALONE, WITHIN, SEEING = f"model.{LAYER}", f"model.language_model.{LAYER}", f"model.vision_tower.{LAYER}"


@pytest.mark.parametrize(
    ("one", "other", "is_said"),
    [
        ([ALONE], [WITHIN], True),
        ([LAYER], [ALONE], True),
        ([ALONE], [ALONE], False),
        ([WITHIN], [WITHIN, SEEING], False),
        ([WITHIN], [SEEING.replace("q_proj", "qkv")], False),
        (["lm_head"], [ALONE], False),
    ],
)
def test_layers_that_may_be_the_same_are_said(
    adapters: Adapters, write_adapter: WriteAdapter, tmp_path: Path, one: list[str], other: list[str], is_said: bool
) -> None:
    words = ["q_proj", "qkv", "lm_head"]
    for name, modules, value in (("one", one, 0.5), ("other", other, 0.25)):
        write_adapter(name, lora_tensors(*modules, value=value), target_modules=words)
    done = adapters("combine", str(tmp_path / "one"), f"{tmp_path / 'other'}=0.5", "-o", str(tmp_path / "out"))
    assert (done.code, "layers-called-otherwise" in done.err) == (0, is_said), done.err
