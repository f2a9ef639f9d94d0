"""Modules saved whole, embeddings, and what cannot be merged."""

from __future__ import annotations

import pytest

from tests.checks.bases import HIDDEN, LLAMA, VOCABULARY, base, noticed, subject
from tests.variants.adapters import pair, tensor

K = pair("model.layers.0.self_attn.k_proj")
TIED = base({name: shape for name, shape in LLAMA.items() if name != "lm_head.weight"}, tie_word_embeddings=True)


def test_a_head_that_the_base_lacks_comes_with_the_adapter() -> None:
    head = tensor("score.weight", 3, HIDDEN)
    config = {"task_type": "SEQ_CLS", "modules_to_save": ["classifier", "score"]}
    assert noticed(subject([*K, head], **config)) == ["head-brought"]


def test_a_declared_head_that_is_nowhere() -> None:
    assert noticed(subject(K, modules_to_save=["value_head"])) == ["head-nowhere"]
    assert noticed(subject(K, modules_to_save=["score"], task_type="SEQ_CLS")) == []
    assert noticed(subject(K, modules_to_save=["score"])) == ["head-nowhere"]


def test_a_head_for_another_number_of_labels() -> None:
    on = base({**LLAMA, "score.weight": (2, HIDDEN)})
    config = {"task_type": "SEQ_CLS", "modules_to_save": ["score"]}
    assert noticed(subject([*K, tensor("score.weight", 2, HIDDEN)], on, **config)) == []
    assert noticed(subject([*K, tensor("score.weight", 3, HIDDEN)], on, **config)) == ["head-resized"]
    assert noticed(subject([*K, tensor("score.weight", 3, 32)], on, **config)) == ["wrong-shape"]


def test_a_resized_vocabulary_that_the_file_brings() -> None:
    same, larger = (tensor("model.embed_tokens.weight", rows, HIDDEN) for rows in (VOCABULARY, VOCABULARY + 2))
    assert noticed(subject([*K, same])) == []
    assert noticed(subject([*K, larger])) == ["vocabulary-resized"]


def test_a_tied_head_is_one_matrix_with_the_embedding() -> None:
    head = pair("lm_head", inputs=HIDDEN, outputs=VOCABULARY)
    assert noticed(subject([*K, *head])) == []
    assert noticed(subject([*K, *head], TIED)) == ["tied-embeddings"]


@pytest.mark.parametrize(("token", "rules"), [(VOCABULARY - 1, []), (VOCABULARY, ["token-out-of-range"])])
def test_a_trained_token_is_in_the_vocabulary(token: int, rules: list[str]) -> None:
    rows = tensor("model.embed_tokens.token_adapter.trainable_tokens_delta", 1, HIDDEN)
    one = subject([*K, rows], base(vocab_size=VOCABULARY), trainable_token_indices=[token])
    assert noticed(one) == rules


def test_an_activated_lora_is_never_merged() -> None:
    assert noticed(subject(K, alora_invocation_tokens=[1, 2])) == ["not-mergeable"]
