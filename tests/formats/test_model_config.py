"""The few facts of a base's config.json that matter to an adapter."""

from __future__ import annotations

import json

import pytest

from registry.errors import MalformedFileError
from registry.formats.model_config import ModelConfig, parse_model_config


def read(**fields: object) -> ModelConfig:
    return parse_model_config(json.dumps(fields).encode())


@pytest.mark.parametrize(
    ("fields", "tied"),
    [
        ({"tie_word_embeddings": True}, True),
        ({"model_type": "gemma"}, True),
        ({"model_type": "gemma", "tie_word_embeddings": False}, False),
        ({"model_type": "llama"}, False),
        ({"model_type": "unheard-of"}, False),
        ({"model_type": "llava", "text_config": {"tie_word_embeddings": True}}, True),
        ({"tie_word_embeddings": False, "text_config": {"tie_word_embeddings": True}}, False),
    ],
)
def test_whether_embeddings_are_tied(fields: dict[str, object], tied: bool) -> None:
    assert read(**fields).is_tied is tied


def test_the_vocabulary_may_stand_in_the_text_part() -> None:
    assert read(vocab_size=8).vocabulary == 8
    assert read(text_config={"vocab_size": 8}).vocabulary == 8
    assert read(vocab_size=True).vocabulary is None


def test_values_of_other_types_count_as_absent() -> None:
    odd = read(model_type=3, architectures="LlamaForCausalLM", quantization_config=True, text_config=[])
    assert (odd.model_type, odd.architectures, dict(odd.quantization)) == (None, (), {})


def test_what_is_no_object_is_refused() -> None:
    with pytest.raises(MalformedFileError):
        parse_model_config(b"[]")
