"""Modules saved whole, embeddings, and what cannot be merged."""

from __future__ import annotations

import pytest

from registry.domain.finding import Severity
from tests.checks.bases import HIDDEN, LLAMA, VOCABULARY, base, finding, noticed, subject
from tests.variants.adapters import pair, tensor

K = pair("model.layers.0.self_attn.k_proj")
TIED = base({name: shape for name, shape in LLAMA.items() if name != "lm_head.weight"}, tie_word_embeddings=True)


def test_a_head_that_the_base_lacks_comes_with_the_adapter() -> None:
    head = tensor("score.weight", 3, HIDDEN)
    config = {"task_type": "SEQ_CLS", "modules_to_save": ["classifier", "score"]}
    assert noticed(subject([*K, head], **config)) == ["head-brought"]


def test_a_declared_head_that_is_nowhere() -> None:
    assert noticed(subject(K, modules_to_save=["value_head"])) == ["head-nowhere"]
    assert noticed(subject(K, base(model_type="made-up"), modules_to_save=["score"], task_type="SEQ_CLS")) == []
    assert noticed(subject(K, modules_to_save=["score"])) == ["head-nowhere"]


@pytest.mark.parametrize(
    ("tensors", "options", "said"),
    [
        ([], {}, True),
        ([], {"modules_to_save": ["classifier", "score"]}, True),
        ([tensor("score.weight", 3, HIDDEN)], {}, False),
        ([tensor("my_head.weight", 3, HIDDEN)], {"modules_to_save": ["my_head"]}, False),  # of a class that nobody knows
        ([], {"auto_mapping": {"base_model_class": "Mine", "parent_library": "mine"}}, False),
        ([], {"task_type": "CAUSAL_LM"}, False),
    ],
)
def test_a_head_that_every_adapter_for_the_task_has(tensors: list, options: dict, said: bool) -> None:
    """PEFT makes and wants it whatever the config says; of a llama for classification it is ``score``. That is said, and no error:
    nobody but PEFT's own default asked for it."""
    one = subject([*K, *tensors], **{"task_type": "SEQ_CLS", **options})
    assert ("head-nowhere" in noticed(one)) is said
    if said:
        assert finding(one, "head-nowhere").severity is Severity.WARNING


@pytest.mark.parametrize(
    ("model_type", "name", "options", "said"),
    [
        ("whisper", "lm_head", {}, "head-elsewhere"),
        ("whisper", "proj_out", {}, "head-nowhere"),
        ("clip", "proj_out", {}, "head-elsewhere"),
        ("clip", "model.lm_head", {}, "head-elsewhere"),
        ("whisper", "value_head", {}, "head-nowhere"),  # of no model's; a wrapper's
        ("made-up", "lm_head", {}, "head-nowhere"),  # nobody knows what it has
        ("whisper", "lm_head", {"auto_mapping": {"base_model_class": "Mine", "parent_library": "mine"}}, "head-nowhere"),
        ("gpt2", "embed_tokens", {}, "head-elsewhere"),
        ("clip", "q_proj", {}, "head-nowhere"),  # the base has it, and the file lost it
    ],
)
def test_a_head_of_another_model_was_never_there(model_type: str, name: str, options: dict, said: str) -> None:
    """PEFT finds no such module, and trains and saves the rest."""
    on = base({"model.encoder.layers.0.self_attn.q_proj.weight": (8, 8)}, model_type=model_type, architecture="Made")
    query = pair("model.encoder.layers.0.self_attn.q_proj", inputs=8, outputs=8)
    found = noticed(subject(query, on, **{"task_type": None, "modules_to_save": [name], **options}))
    assert {one for one in found if one.startswith("head-")} == {said}


def test_a_head_for_answers_that_peft_lists_and_the_class_calls_otherwise() -> None:
    """ModernBERT answers with ``classifier``; PEFT lists ``qa_outputs`` for every model, and loads such an adapter."""
    config = {"task_type": "QUESTION_ANS", "modules_to_save": ["qa_outputs"]}
    layer = {"model.layers.0.attn.Wqkv.weight": (24, 8)}
    wqkv = pair("model.layers.0.attn.Wqkv", inputs=8, outputs=24)
    modernbert = base(layer, model_type="modernbert", architecture="ModernBertForMaskedLM")
    assert noticed(subject(wqkv, modernbert, **config)) == []
    with_one = base({**layer, "qa_outputs.weight": (2, 8)}, model_type="made-up", architecture="Made")
    query = pair("transformer.layers.0.self_attn.k_proj")
    for on, tensors in ((with_one, wqkv), (None, query)):
        assert "head-nowhere" in noticed(subject(tensors, on, **config))


def test_a_classifier_behind_a_projection_of_its_class() -> None:
    """Whisper's reads ``classifier_proj_size``, which neither the base nor the file shows."""
    layer = "encoder.layers.0.self_attn.q_proj"
    on = base({f"model.{layer}.weight": (8, 8)}, model_type="whisper", architecture="WhisperForConditionalGeneration")
    mapping = {"base_model_class": "WhisperForAudioClassification", "parent_library": "transformers"}
    config = {"task_type": None, "auto_mapping": mapping, "modules_to_save": ["classifier", "projector"]}
    query, head = pair(layer, inputs=8, outputs=8), tensor("classifier.weight", 3, 20)
    projector, narrow = tensor("projector.weight", 20, 8), tensor("projector.weight", 19, 8)
    assert "wrong-shape" not in noticed(subject([*query, head], on, **{**config, "modules_to_save": ["classifier"]}))
    assert "wrong-shape" not in noticed(subject([*query, head, projector], on, **config))
    assert "wrong-shape" in noticed(subject([*query, head, narrow], on, **config))


def test_a_head_that_reads_two_vectors_of_the_backbone() -> None:
    layer = "layers.0.mlp.fc1"
    mapping = {"base_model_class": "Dinov2ForImageClassification", "parent_library": "transformers"}
    config = {"task_type": None, "auto_mapping": mapping, "modules_to_save": ["classifier"]}
    on = base({f"{layer}.weight": (32, 8)}, model_type="dinov2", architecture="Dinov2Model")
    for width, said in ((16, False), (20, True)):
        tensors = [*pair(f"dinov2.{layer}", inputs=8, outputs=32), tensor("classifier.weight", 3, width)]
        assert ("wrong-shape" in noticed(subject(tensors, on, **config))) is said


@pytest.mark.parametrize(
    ("model_type", "head"), [("electra", "generator_lm_head"), ("modernbert", "decoder"), ("xlnet", "lm_loss")]
)
def test_an_output_embedding_of_another_name(model_type: str, head: str) -> None:
    """Tied to the input embedding, it is not in the checkpoint."""
    on = base({"embeddings.word_embeddings.weight": (VOCABULARY, 8)}, model_type=model_type, tie_word_embeddings=True)
    tensors = [
        tensor("embeddings.word_embeddings.lora_embedding_A", 8, VOCABULARY),
        tensor("embeddings.word_embeddings.lora_embedding_B", 8, 8),
        *pair(head, inputs=8, outputs=VOCABULARY),
    ]
    assert "unmatched-target" not in noticed(subject(tensors, on, task_type=None))
    elsewhere = base({"embeddings.word_embeddings.weight": (VOCABULARY, 8)}, model_type="gpt2")
    assert "unmatched-target" in noticed(subject(tensors, elsewhere, task_type=None))


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


def test_without_a_vocabulary_in_the_config_the_embeddings_rows_count() -> None:
    rows = tensor("model.embed_tokens.token_adapter.trainable_tokens_delta", 1, HIDDEN)
    for token, rules in ((VOCABULARY - 1, []), (VOCABULARY, ["token-out-of-range"])):
        one = subject([*K, rows], base(vocab_size=None), trainable_token_indices=[token])
        assert one.base.vocabulary is None
        assert noticed(one) == rules


def test_an_activated_lora_is_never_merged() -> None:
    assert noticed(subject(K, alora_invocation_tokens=[1, 2])) == ["not-mergeable"]
