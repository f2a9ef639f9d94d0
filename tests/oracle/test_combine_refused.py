"""Adapters of which PEFT can make no sum, or makes a wrong one: refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from registry.connect import connect
from registry.errors import RegistryError
from tests.oracle import tiny_models as tiny
from tests.oracle.test_combine_against_peft import LM, PAIRS, train

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

REFUSED: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "dora": ({"use_dora": True, **LM}, LM, "not-combinable"),
    "pissa": ({"init_lora_weights": "pissa", **LM}, LM, "base-changed-by-initialization"),
    "heads": ({"modules_to_save": ["lm_head"], **LM}, LM, "saved-modules-differ"),
    "tokens": ({"trainable_token_indices": [1], **LM}, {"trainable_token_indices": [1], **LM}, "token-rows-overlap"),
    "some of the tokens": (
        {"trainable_token_indices": [1, 2], **LM},
        {"trainable_token_indices": [2, 3], **LM},
        "token-rows-overlap",
    ),
    "tokens and a LoRA of all": (
        {"trainable_token_indices": [1], **LM},
        {"target_modules": ["q_proj", "embed_tokens"], **LM},
        "token-rows-overlap",
    ),
    "tokens of other embeddings": (
        {"trainable_token_indices": [1], **LM},
        {"trainable_token_indices": {"lm_head": [2], "embed_tokens": [3]}, **LM},
        "token-rows-differ",
    ),
    "tasks": ({"task_type": "FEATURE_EXTRACTION"}, LM, "different-tasks"),
    "replicated": ({"layer_replication": [[0, 2], [1, 2]], **LM}, LM, "layers-replicated"),
}


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_sum_is_refused_by_name(case: str, tmp_path: Path) -> None:
    first, second, rule = REFUSED[case]
    one, other = train(tiny.llama, tmp_path / "one", 1, first), train(tiny.llama, tmp_path / "other", 2, second)
    with pytest.raises(RegistryError) as caught:
        connect(tmp_path / "registry").combine([one, other], tmp_path / "both")
    assert (caught.value.exit_code, caught.value.code) == (6, rule)
    assert caught.value.hint
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "other"]


def test_experts_whose_packing_nobody_knows_are_refused(tmp_path: Path) -> None:
    make, _, second = PAIRS["experts of one rank"]
    other = train(make, tmp_path / "other", 2, second)
    path = other / "adapter_config.json"
    config = json.loads(path.read_text()) | {"base_model_name_or_path": "unsloth/tiny"}
    path.write_text(json.dumps(config))
    with pytest.raises(RegistryError) as caught:
        connect(tmp_path / "registry").combine([other], tmp_path / "both", rank=1)
    assert caught.value.code == "experts-layout-ambiguous"
    path.write_text(json.dumps(config | {"lora_B_layout": "expert_fastest"}))
    connect(tmp_path / "registry").combine([other], tmp_path / "both", rank=1)
