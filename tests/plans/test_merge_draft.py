"""What a merge asks of an adapter again and again is found once."""

from __future__ import annotations

from pathlib import Path

from registry.domain.base_model import BaseModelId, BaseModelSpec, ModuleKind, ModuleSpec
from registry.domain.digest import Digest
from registry.plans.merge_draft import Ingredient
from registry.weights.adapter import open_adapter
from tests.conftest import WriteAdapter


def test_an_adapter_is_laid_over_its_base_once(write_adapter: WriteAdapter) -> None:
    """Once for each target, 1,200 targets took minutes."""
    opened = open_adapter(Path(write_adapter()), number=0, weight=1.0)
    module = ModuleSpec("model.layers.0.self_attn.q_proj", ModuleKind.LINEAR, (3, 3))
    nobody = BaseModelId(None)
    base = BaseModelSpec(nobody, None, (), (module,), is_tied=False, vocabulary=None, fingerprint=Digest.of(b""))
    one = Ingredient(0, opened.name, opened.manifest, opened.config, opened.weights, base=base)
    assert one.matching.module(module.path) == module
    assert one.matching is one.matching
    assert one.targets is one.targets
