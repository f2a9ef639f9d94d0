"""Whole tensors: what the adapter brings rightly, what PEFT drops, and what a module saved whole has to have."""

from __future__ import annotations

from typing import Any

import pytest

from registry.checks.table import run
from registry.domain.base_model import BaseModelSpec
from registry.domain.finding import Severity
from registry.domain.tensors import TensorSpec
from tests.checks.bases import HIDDEN, LLAMA, VOCABULARY, base, finding, noticed, subject
from tests.variants.adapters import pair, tensor

K = pair("model.layers.0.self_attn.k_proj")
CLASSIFIER = {"task_type": "SEQ_CLS", "modules_to_save": ["classifier", "score"]}
BERT = base(
    {
        "bert.embeddings.word_embeddings.weight": (VOCABULARY, HIDDEN),
        "bert.encoder.layer.0.attention.self.query.weight": (HIDDEN, HIDDEN),
        "bert.encoder.layer.0.output.LayerNorm.weight": (HIDDEN,),
    },
    model_type="bert",
    architecture="BertForMaskedLM",
)
QUERY = pair("bert.encoder.layer.0.attention.self.query", inputs=HIDDEN, outputs=HIDDEN)
TIED = base({name: shape for name, shape in LLAMA.items() if name != "lm_head.weight"}, tie_word_embeddings=True)


def of_class(name: str) -> dict[str, Any]:
    return {"task_type": None, "auto_mapping": {"base_model_class": name, "parent_library": "transformers.models"}}


@pytest.mark.parametrize(
    ("whole", "config", "said"),
    [
        ("foo.bar", {}, True),
        ("score", {}, True),  # a language model has none
        ("value_head", {"modules_to_save": ["value_head"]}, False),
        ("xvalue_head", {"modules_to_save": ["value_head"]}, True),
        ("lm_head", CLASSIFIER, False),  # the base has it, and PEFT leaves it alone
        ("score", CLASSIFIER, False),
        ("scorex", CLASSIFIER, True),
        ("classifier", CLASSIFIER, True),  # PEFT lists both; a llama has the other
        ("score", {"task_type": "SEQ_CLS"}, False),
        ("score", of_class("LlamaForSequenceClassification"), False),
        ("score", of_class("LlamaForCausalLM"), True),
        ("classifier", of_class("SomebodysOwn"), False),  # nobody knows its heads
        ("wte", {"modules_to_save": ["wte"]}, True),  # every base has its own input embedding
    ],
)
def test_a_module_that_the_base_lacks(whole: str, config: dict[str, Any], said: bool) -> None:
    found = noticed(subject([*K, tensor(f"{whole}.weight", 3, HIDDEN)], **config))
    assert ("unmatched-target" in found) is said
    assert ("head-brought" in found) is (not said and whole != "lm_head")


@pytest.mark.parametrize(
    ("path", "said"),
    [("lm_head", False), ("model.language_model.lm_head", True), ("model.lm_head", True), ("model.layers.lm_head", False)],
)
@pytest.mark.parametrize("declared", [["lm_head"], None])
def test_a_head_stands_where_its_class_has_it(path: str, said: bool, declared: list[str] | None) -> None:
    """At the top, or in a part of the model that the base has."""
    found = noticed(subject([*K, tensor(f"{path}.weight", VOCABULARY, HIDDEN)], TIED, modules_to_save=declared))
    assert ("unmatched-target" in found) is said


def test_an_embedding_of_another_architecture() -> None:
    foreign = tensor("model.embed_tokens.weight", VOCABULARY, HIDDEN)
    assert "unmatched-target" in noticed(subject([*QUERY, foreign], BERT, task_type=None))


@pytest.mark.parametrize(("module", "said"), [("embed_tokens", False), ("embed_tokenz", True)])
def test_rows_of_tokens_belong_to_an_embedding_of_the_base(module: str, said: bool) -> None:
    rows = tensor(f"model.{module}.token_adapter.trainable_tokens_delta", 1, HIDDEN)
    found = noticed(subject([*K, rows], trainable_token_indices=[1]))
    assert ("unmatched-target" in found) is said


@pytest.mark.parametrize(
    ("indices", "rows", "on", "said"),
    [
        ([1], "model.embed_tokens", None, False),
        ([1], "lm_head", None, True),
        ({"embed_tokens": [1], "lm_head": [1]}, "model.embed_tokens", None, True),
        ({"embed_tokens": [1], "lm_head": [1]}, "model.embed_tokens", TIED, False),
        ({"embed_tokens": [1], "output_projection": [1]}, "model.embed_tokens", TIED, False),
    ],
)
def test_rows_of_tokens_lie_where_peft_looks(indices: Any, rows: str, on: Any, said: bool) -> None:
    delta = tensor(f"{rows}.token_adapter.trainable_tokens_delta", 1, HIDDEN)
    found = noticed(subject([*K, delta], on, trainable_token_indices=indices))
    assert ("token-rows-elsewhere" in found) is said


@pytest.mark.parametrize(
    ("shape", "said"), [((3, HIDDEN), False), ((3, 96), True), ((3, HIDDEN + 1), True), ((HIDDEN,), True)]
)
def test_a_head_reads_what_the_layers_put_out(shape: tuple[int, ...], said: bool) -> None:
    """96 is a width of the base too, between the layers of its MLP."""
    found = noticed(subject([*K, tensor("score.weight", *shape)], **CLASSIFIER))
    assert ("wrong-shape" in found) is said


UP = "model.layers.{}.mlp.up_proj.weight"


@pytest.mark.parametrize(
    ("tensors", "config", "said"),
    [
        ([tensor(UP.format(0), 96, HIDDEN), tensor(UP.format(1), 96, HIDDEN)], {"modules_to_save": ["up_proj"]}, False),
        ([tensor(UP.format(0), 96, HIDDEN)], {"modules_to_save": ["up_proj"]}, True),
        ([tensor(UP.format(0), 96, HIDDEN), tensor(UP.format(1), 96, HIDDEN)], {"modules_to_save": ["mlp"]}, True),
        ([tensor("score.weight", 3, HIDDEN)], {**CLASSIFIER, "task_type": "TOKEN_CLS"}, True),  # that one has a bias
        ([tensor("score.weight", 3, HIDDEN), tensor("score.bias", 3)], {**CLASSIFIER, "task_type": "TOKEN_CLS"}, False),
        ([tensor("score.weight", 3, HIDDEN)], CLASSIFIER, False),
    ],
)
def test_a_module_that_is_saved_whole_is_whole(tensors: list[TensorSpec], config: dict[str, Any], said: bool) -> None:
    one = subject([*K, *tensors], **config)
    assert ("saved-module-incomplete" in noticed(one)) is said


DISTILBERT = base(
    {"distilbert.transformer.layer.0.attention.q_lin.weight": (HIDDEN, HIDDEN)},
    model_type="distilbert",
    architecture="DistilBertForMaskedLM",
)
Q_LIN = pair("distilbert.transformer.layer.0.attention.q_lin", inputs=HIDDEN, outputs=HIDDEN)
LABELS = [tensor("classifier.weight", 2, HIDDEN), tensor("classifier.bias", 2)]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (pair("pre_classifier", inputs=HIDDEN, outputs=HIDDEN), True),
        ([tensor("pre_classifier.weight", HIDDEN, HIDDEN), tensor("pre_classifier.bias", HIDDEN)], False),
    ],
)
def test_a_name_takes_all_modules_that_end_in_it(more: list[TensorSpec], said: bool) -> None:
    found = noticed(subject([*Q_LIN, *LABELS, *more], DISTILBERT, **CLASSIFIER))
    assert ("saved-module-incomplete" in found) is said


@pytest.mark.parametrize(
    ("held", "said"),
    [(("weight", "bias"), False), (("weight",), True), (("bias",), True)],
)
def test_a_normalisation_that_is_saved_whole_is_whole(held: tuple[str, ...], said: bool) -> None:
    name = "bert.encoder.layer.0.output.LayerNorm"
    on = base(
        {"bert.encoder.layer.0.attention.self.query.weight": (HIDDEN, HIDDEN), **{f"{name}.{one}": (HIDDEN,) for one in
         ("weight", "bias")}, "bert.encoder.layer.0.output.gate": (HIDDEN,)},
        model_type="bert",
        architecture="BertForMaskedLM",
    )  # fmt: skip
    for declared in ("LayerNorm", "output"):
        one = subject([*QUERY, *(tensor(f"{name}.{tail}", HIDDEN) for tail in held)], on, task_type=None,
                      modules_to_save=[declared])  # fmt: skip
        assert ("saved-module-incomplete" in noticed(one)) is said


@pytest.mark.parametrize(
    ("name", "own", "given", "said"),
    [
        ("norm.weight", (16,), (16,), False),
        ("norm.weight", (16,), (48,), True),
        ("norm.bias", (16,), (48,), True),
        ("pooler.dense.weight", (16, 16), (32, 16), True),
        ("pooler.dense.bias", (16,), (32,), True),
        ("patches.bias", (16,), (32,), True),
        ("upscale.bias", (8,), (8,), False),  # ConvTranspose2d: (in, out, height, width)
        ("classifier.weight", (2, 16), (3, 16), False),
        ("score.weight", (2, 16), (3, 16), False),
    ],
)
def test_another_number_of_rows_is_for_heads_and_vocabularies(
    name: str, own: tuple[int, ...], given: tuple[int, ...], said: bool
) -> None:
    edges = {"norm.weight": (16,), "norm.bias": (16,), "pooler.dense.weight": (16, 16), "pooler.dense.bias": (16,),
             "patches.weight": (16, 3, 4, 4), "patches.bias": (16,), "upscale.weight": (16, 8, 2, 2), "upscale.bias": (8,),
             "classifier.weight": (2, 16), "score.weight": (2, 16), "layers.0.query.weight": (16, 16)}  # fmt: skip
    assert edges[name] == own
    on = base(edges, model_type="made-up", architecture="Made")
    query = pair("layers.0.query", inputs=16, outputs=16)
    found = noticed(subject([*query, tensor(name, *given)], on, task_type=None, modules_to_save=[name.rpartition(".")[0]]))
    assert ("wrong-shape" in found) is said


@pytest.mark.parametrize("on", [base(), base({**LLAMA, "score.weight": (2, HIDDEN), "score.bias": (2,)})])
@pytest.mark.parametrize(("biases", "said"), [(3, False), (6, True)])
def test_a_head_does_not_contradict_itself(on: BaseModelSpec, biases: int, said: bool) -> None:
    head = [tensor("score.weight", 3, HIDDEN), tensor("score.bias", biases)]
    found = noticed(subject([*K, *head], on, **{**CLASSIFIER, "task_type": "TOKEN_CLS"}))
    assert ("wrong-shape" in found) is said


@pytest.mark.parametrize(
    ("architecture", "said"), [("LlamaForTokenClassification", False), ("LlamaForSequenceClassification", True)]
)
def test_the_head_of_another_class_says_nothing_of_the_trained_one(architecture: str, said: bool) -> None:
    on = base({**LLAMA, "score.weight": (3, HIDDEN), "score.bias": (3,)}, architecture=architecture)
    found = noticed(subject([*K, tensor("score.weight", 3, HIDDEN)], on, **CLASSIFIER))
    assert ("saved-module-incomplete" in found) is said


def test_a_backbone_that_is_saved_whole_may_have_no_pooler() -> None:
    """Which the checkpoint of another class has."""
    query = "bert.encoder.layer.0.attention.self.query"
    shapes = {f"{query}.weight": (HIDDEN, HIDDEN), "bert.pooler.dense.weight": (HIDDEN, HIDDEN)}
    on = base(shapes, model_type="bert", architecture="BertForMultipleChoice")
    dense = pair("cls.predictions.transform.dense", inputs=HIDDEN, outputs=HIDDEN)
    one = subject([*dense, tensor(f"{query}.weight", HIDDEN, HIDDEN)], on, modules_to_save=["bert"])
    assert "saved-module-incomplete" not in noticed(one)


def test_a_layer_that_only_the_checkpoint_has_is_not_missed() -> None:
    """For multi-token prediction: the config does not count it, and transformers loads it into nothing."""
    tensors = [*K, *pair("model.layers.1.self_attn.k_proj"), *(tensor(UP.format(n), 96, HIDDEN) for n in range(2))]
    deeper = {**LLAMA, **{name.replace("layers.1.", "layers.2."): LLAMA[name] for name in LLAMA if "layers.1." in name}}
    config = {"modules_to_save": ["up_proj"], "target_modules": ["k_proj"]}
    assert noticed(subject(tensors, base(deeper, num_hidden_layers=2), **config)) == []
    found = noticed(subject(tensors, base(deeper, num_hidden_layers=3), **config))
    assert {"saved-module-incomplete", "layer-without-tensors"} <= set(found)


def test_a_saved_module_lacks_its_bias() -> None:
    on = base({**LLAMA, "lm_head.bias": (VOCABULARY,)})
    weight, bias = tensor("lm_head.weight", VOCABULARY, HIDDEN), tensor("lm_head.bias", VOCABULARY)
    config = {"modules_to_save": ["lm_head"]}
    assert noticed(subject([*K, weight, bias], on, **config)) == []
    assert "lm_head.bias" in finding(subject([*K, weight], on, **config), "saved-module-incomplete").message


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("model.norm.weight", []),
        ("model.norm.foo", [Severity.ERROR]),
        ("model.norm.base_layer.weight", [Severity.ERROR]),
        ("model.layers.0.mlp.weight", [Severity.ERROR]),
        ("model.layers.0.self_attn.k_proj.base_layer.weight", []),
        ("model.layers.0.self_attn.k_proj.weight", [Severity.ERROR]),
        ("lm_head.weight", []),
        ("lm_head.base_layer.weight", [Severity.WARNING]),  # of an embedding it may be the base's own
    ],
)
def test_a_tensor_without_a_parameter_of_its_name(name: str, said: list[Severity]) -> None:
    shapes = {"lm_head": (VOCABULARY, HIDDEN), "k_proj": (32, HIDDEN)}
    shape = next((shape for part, shape in shapes.items() if part in name), (HIDDEN,))
    found = [one.severity for one in run(subject([*K, tensor(name, *shape)])) if one.rule == "unmatched-tensor"]
    assert found == said
