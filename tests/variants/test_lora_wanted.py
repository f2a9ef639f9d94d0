"""What a LoRA config asks for, and what of it the tensors do not hold."""

from __future__ import annotations

from typing import Any

import pytest

from registry.domain.finding import Severity
from registry.domain.manifest import Target
from registry.domain.tensors import TensorSpec
from tests.variants.adapters import found, pair, read, rules, tensor

Q = "model.layers.0.self_attn.q_proj"


@pytest.mark.parametrize(
    ("asked", "absent"),
    [
        (["q_proj", "query_key_value"], ("query_key_value",)),
        (["proj"], ("proj",)),
        (["self_attn.q_proj", Q], ()),
        (["layers.1.q_proj", "v"], ("layers.1.q_proj", "v")),
        ("all-linear", ()), ("ALL-LINEAR", ()), (["all-linear"], ()), (None, ()), ([], ()),
    ],
)  # fmt: skip
def test_absent_targets(asked: Any, absent: tuple[str, ...]) -> None:
    reading = read(pair(Q), target_modules=asked)
    assert reading.absent_targets == absent
    assert rules(reading) == (["absent-target"] if absent else [])


def test_absent_parameters() -> None:
    reading = read(pair(Q), target_modules=["q_proj"], target_parameters=["experts.down_proj"])
    assert reading.absent_targets == ("experts.down_proj",)


def test_parameters_that_the_names_do_not_tell() -> None:
    one_of_two = read(pair("experts", 8), target_parameters=["experts.gate_up_proj", "experts.down_proj"])
    assert one_of_two.targets == (Target("experts", None, 8.0, None),)
    assert "ambiguous-parameter" in rules(one_of_two)
    strange = read(pair("experts", 8) + pair("experts.base_layer", 8), target_parameters=["experts.b", "experts.a"])
    assert [target.path for target in strange.targets] == ["experts.a", "experts.b"]
    assert rules(strange) == ["ambiguous-parameter"]


def test_modules_to_save_are_extra_modules() -> None:
    head = [tensor("score.weight", 2, 8), tensor("model.mlp.up.weight", 8, 8), tensor("model.mlp.down.weight", 8, 8)]
    reading = read([*pair(Q), *head], modules_to_save=["classifier", "score", "mlp"], task_type="SEQ_CLS")
    assert reading.extra_modules == ("model.mlp", "score")
    assert found(reading, "declared-module-absent").severity is Severity.INFO
    bare = read([*pair(Q), *head], modules_to_save=["classifier", "score", "mlp"])  # then PEFT has not listed it
    assert found(bare, "declared-module-absent").severity is Severity.WARNING
    assert rules(read([*pair(Q), *head], modules_to_save=["score", "mlp"])) == []


def test_a_declared_module_lies_under_its_own_name() -> None:
    inside, plain = (tensor(f"lm_head.{name}", 32, 64) for name in ("base_layer.weight", "weight"))
    config = {"modules_to_save": ["lm_head"]}
    assert rules(read([*pair(Q), inside], **config)) == ["saved-below-wrapper"]
    assert rules(read([*pair(Q), plain], **config)) == []


def test_a_name_that_is_declared_twice_is_one() -> None:
    twice = found(read(pair(Q), modules_to_save=["score", "score"]), "declared-module-absent")
    assert "score, score" not in twice.message


ROWS = tensor("e.token_adapter.trainable_tokens_delta", 2, 8)
HEAD_ROWS = tensor("lm_head.token_adapter.trainable_tokens_delta", 1, 8)


@pytest.mark.parametrize(
    ("tensors", "indices", "said"),
    [
        ([ROWS], [1, 2], []),
        ([ROWS], {"e": [1, 2]}, []),
        ([ROWS], {"e": [1, 2], "lm_head": [1, 2]}, []),  # they may be one matrix
        ([ROWS, HEAD_ROWS], {"e": [1, 2], "lm_head": [3]}, []),
        ([], {}, []),
        ([], [1, 2], ["token-rows-missing"]),
        ([], [], ["token-rows-missing"]),
        ([], {"e": [1, 2]}, ["token-rows-missing"]),
        ([ROWS], {"e": [1, 2], "lm_head": [3]}, ["token-rows-missing"]),
        ([ROWS], None, ["token-rows-unasked"]),
        ([ROWS], {}, ["token-rows-unasked"]),
        ([ROWS, HEAD_ROWS], [1, 2], ["token-rows-unasked"]),
        ([ROWS, HEAD_ROWS], {"e": [1, 2]}, ["token-rows-unasked"]),
        ([tensor("e.trainable_tokens_delta", 2, 8)], [1, 2], ["token-rows-missing", "unknown-tensor"]),
    ],
)
def test_trained_tokens_and_their_rows(tensors: list[TensorSpec], indices: Any, said: list[str]) -> None:
    assert rules(read([*pair(Q), *tensors], trainable_token_indices=indices)) == said


def test_a_declared_module_without_tensors() -> None:
    assert found(read(pair(Q), modules_to_save=["lm_head"]), "declared-module-absent").severity is Severity.WARNING
    both = read(pair(Q), modules_to_save=["classifier", "score"])
    assert found(both, "declared-module-absent").severity is Severity.WARNING


def test_undeclared_heads_are_tolerated() -> None:
    reading = read([*pair(Q), tensor("classifier.weight", 2, 8), tensor("classifier.bias", 2)])
    assert reading.extra_modules == ("classifier",)
    assert found(reading, "undeclared-module").severity is Severity.WARNING


def test_only_whole_tensors() -> None:
    assert found(read([tensor("lm_head.weight", 9, 9)]), "no-targets").severity is Severity.WARNING


def test_lost_biases() -> None:
    assert rules(read(pair(Q), bias="lora_only")) == ["bias-lost"]
    assert rules(read(pair(Q), bias="all")) == []


def test_lora_bias_and_its_tensor() -> None:
    assert rules(read(pair(Q), lora_bias=True)) == ["bias-without-tensor"]
    assert rules(read([*pair(Q), tensor(f"{Q}.lora_B.bias", 32)])) == ["tensor-without-bias"]


@pytest.mark.parametrize(
    ("alpha", "warned"), [(0, True), (-8, True), (8, False), (512, False), (513, True), (1e308, True)]
)
def test_extreme_scalings(alpha: float, warned: bool) -> None:
    assert rules(read(pair(Q), lora_alpha=alpha)) == (["scaling-extreme"] if warned else [])


def test_mixed_dtypes() -> None:
    a, b = pair(Q)
    assert rules(read([a, TensorSpec(b.name, "BF16", b.shape)])) == ["dtype-mismatch"]


def test_replicated_layers() -> None:
    assert rules(read(pair(Q), layer_replication=[[0, 2], [1, 2]])) == ["layers-replicated"]
