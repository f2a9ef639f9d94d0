"""Rows of single tokens: adapters that trained other tokens are added up, PEFT loads the result, and each token is whose it was."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from torch import Tensor

from registry.connect import connect
from registry.errors import RejectedError
from tests.oracle import tiny_models as tiny
from tests.oracle.test_combine_against_peft import LM, changes, same, total, train
from tests.oracle.tiny_models import seeded

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]
#: What is combined: models, and two adapters of each.
PAIRS: dict[str, tuple[Any, dict[str, Any], dict[str, Any]]] = {
    "lists": (tiny.llama, {"trainable_token_indices": [4, 1], **LM}, {"trainable_token_indices": [2, 9, 0], **LM}),
    "by module": (
        tiny.llama,
        {"trainable_token_indices": {"embed_tokens": [4, 1]}, **LM},
        {"trainable_token_indices": {"embed_tokens": [2]}, **LM},
    ),
    "both embeddings": (
        tiny.llama,
        {"trainable_token_indices": {"embed_tokens": [4, 1], "lm_head": [3]}, **LM},
        {"trainable_token_indices": {"embed_tokens": [2], "lm_head": [4, 1]}, **LM},
    ),
    "only one has some": (tiny.llama, {"trainable_token_indices": [4, 1], **LM}, {"r": 3, **LM}),
    "tied": (tiny.tied_llama, {"trainable_token_indices": [4, 1], **LM}, {"trainable_token_indices": [2], **LM}),
}


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def loaded(make: Any, adapter: Path) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", FutureWarning)
        return PeftModel.from_pretrained(seeded(make), str(adapter)).eval()


def embeddings(model: Any) -> tuple[Tensor, Tensor]:
    """Of all tokens: what goes in, and what a one-hot state gives out."""
    base = model.get_base_model()
    into, out = base.get_input_embeddings(), base.get_output_embeddings()
    with torch.no_grad():
        rows = into(torch.arange(base.config.vocab_size).unsqueeze(0))[0]
        return rows, out(torch.eye(base.config.hidden_size)).mT


@pytest.mark.parametrize("pair", PAIRS)
def test_each_token_is_whose_it_was(pair: str, tmp_path: Path) -> None:
    make, first, second = PAIRS[pair]
    adapters = [train(make, tmp_path / "one", 1, first), train(make, tmp_path / "two", 2, second)]
    connect(tmp_path / "registry").combine(adapters, tmp_path / "both")
    parts = [embeddings(loaded(make, one)) for one in adapters]
    base = seeded(make)
    plain = (base.get_input_embeddings().weight.detach(), base.get_output_embeddings().weight.detach())
    found = embeddings(loaded(make, tmp_path / "both"))
    for side in (0, 1):
        wanted = plain[side].clone()
        for part in parts:
            changed = (part[side] - plain[side]).abs().amax(dim=1) > 1e-6
            wanted[changed] = part[side][changed]
        torch.testing.assert_close(found[side], wanted, rtol=1e-6, atol=1e-6)
    assert not torch.equal(found[0], plain[0])
    same(changes(make, tmp_path / "both", silently=True), total([(changes(make, one), 1.0) for one in adapters]))


def test_the_same_rows_of_all_pass_through_whatever_the_weights(tmp_path: Path) -> None:
    one = train(tiny.llama, tmp_path / "one", 1, {"trainable_token_indices": [4, 1], **LM})
    connect(tmp_path / "registry").combine([(one, 0.5), (one, 0.25)], tmp_path / "both")
    ours, theirs = (load_file(place / "adapter_model.safetensors") for place in (tmp_path / "both", one))
    name = next(name for name in theirs if "trainable_tokens" in name)
    assert torch.equal(ours[name], theirs[name])


def test_of_a_row_there_is_no_share(tmp_path: Path) -> None:
    one = train(tiny.llama, tmp_path / "one", 1, {"trainable_token_indices": [4], **LM})
    other = train(tiny.llama, tmp_path / "two", 2, {"trainable_token_indices": [2], **LM})
    with pytest.raises(RejectedError) as caught:
        connect(tmp_path / "registry").combine([(one, 1.0), (other, 0.5)], tmp_path / "both")
    assert caught.value.code == "weight-on-replacement"
    assert not (tmp_path / "both").exists()


def test_an_adapter_without_weight_brings_no_rows(tmp_path: Path) -> None:
    one = train(tiny.llama, tmp_path / "one", 1, {"trainable_token_indices": [4], **LM})
    other = train(tiny.llama, tmp_path / "two", 2, {"trainable_token_indices": [4], **LM})
    connect(tmp_path / "registry").combine([(one, 1.0), (other, 0.0)], tmp_path / "both")
    torch.testing.assert_close(embeddings(loaded(tiny.llama, tmp_path / "both"))[0], embeddings(loaded(tiny.llama, one))[0])


def test_combined_then_merged_is_both_merged_at_once(tmp_path: Path) -> None:
    make, first, second = PAIRS["both embeddings"]
    adapters = [train(make, tmp_path / "one", 1, first), train(make, tmp_path / "two", 2, second)]
    seeded(make).save_pretrained(tmp_path / "base")
    registry = connect(tmp_path / "registry")
    registry.combine(adapters, tmp_path / "both")
    registry.merge(tmp_path / "base", [tmp_path / "both"], tmp_path / "first", device="cpu")
    registry.merge(tmp_path / "base", adapters, tmp_path / "second", device="cpu")
    ours, theirs = (load_file(tmp_path / place / "model.safetensors") for place in ("first", "second"))
    for name, tensor in theirs.items():
        torch.testing.assert_close(ours[name], tensor, rtol=1e-6, atol=1e-7)
