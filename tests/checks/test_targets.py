"""Every target has a place in the base, or is named together with what would repair it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from registry.checks.matching import match
from registry.checks.misfit import Misfit
from registry.domain.manifest import Target
from registry.domain.tensors import TensorSpec
from tests.checks.bases import HIDDEN, LLAMA, base, finding, noticed, subject
from tests.variants.adapters import pair, tensor

Q = "model.layers.0.self_attn.q_proj"
#: The same base as a multimodal model holds it.
VISION = {name.replace("model.", "model.language_model.", 1): shape for name, shape in LLAMA.items()}


def q_proj(path: str = Q) -> list[TensorSpec]:
    return pair(path, inputs=HIDDEN, outputs=HIDDEN)


def test_an_adapter_on_its_own_base_is_noticed_by_no_rule() -> None:
    one = subject([*q_proj(), *pair("model.layers.1.mlp.down_proj", inputs=96, outputs=HIDDEN)])
    assert noticed(one) == []
    matching = match(one)
    assert matching is not None
    assert matching.matched == 4


def test_a_module_of_another_name_is_unmatched_with_the_nearest_one() -> None:
    one = subject([*q_proj(), *q_proj("model.layers.0.self_attn.q_prj")])
    assert noticed(one) == ["unmatched-target"]
    assert "q_proj" in finding(one, "unmatched-target").message


def test_a_layer_that_the_base_lacks_is_unmatched_with_those_it_has() -> None:
    one = subject([*q_proj(), *q_proj("model.layers.7.self_attn.q_proj")])
    assert noticed(one) == ["unmatched-target"]
    assert "layers 0 to 1" in finding(one, "unmatched-target").message


def test_every_unmatched_target_is_named() -> None:
    one = subject([*q_proj(), *q_proj("model.layers.7.self_attn.q_proj"), *q_proj("model.layers.8.self_attn.q_proj")])
    assert noticed(one) == ["unmatched-target"] * 2


def test_nothing_that_matches_is_an_error_of_its_own() -> None:
    assert noticed(subject(q_proj("encoder.block.0.query"))) == ["no-match", "unmatched-target"]


def test_a_missing_prefix_is_named_with_the_mapping() -> None:
    one = subject(q_proj("layers.0.self_attn.q_proj"))
    assert noticed(one) == ["no-match", "prefix-drift"]
    found = finding(one, "prefix-drift")
    assert isinstance(found, Misfit)
    assert found.expected == Q
    assert found.fix is not None
    assert "base_model.model.model.…" in found.fix


def test_a_text_adapter_on_a_multimodal_base_is_not_guessed() -> None:
    one = subject([*q_proj(), tensor("model.embed_tokens.weight", 128, HIDDEN)], base(VISION, model_type="qwen3_vl"))
    found = finding(one, "prefix-drift")
    assert isinstance(found, Misfit)
    assert found.expected == "model.language_model.layers.0.self_attn.q_proj"
    assert "2 targets" in found.message


def test_two_parts_that_could_be_meant_are_both_named() -> None:
    towers = {**VISION, **{name.replace("model.", "model.visual.", 1): shape for name, shape in LLAMA.items()}}
    found = finding(subject(q_proj(), base(towers, model_type="qwen3_vl")), "prefix-drift")
    assert "model.language_model.…" in found.message
    assert "model.visual.…" in found.message


@pytest.mark.parametrize(
    ("path", "task"),
    [
        (Q, "CAUSAL_LM"),
        (Q, "SEQ_CLS"),
        ("transformer.layers.0.self_attn.q_proj", "QUESTION_ANS"),
        ("layers.0.self_attn.q_proj", "FEATURE_EXTRACTION"),
        (Q, "FEATURE_EXTRACTION"),
    ],
)
@pytest.mark.parametrize("bare", [False, True], ids=["saved with its head", "saved as a bare backbone"])
def test_the_class_that_was_trained_decides_about_the_prefix(path: str, task: str, bare: bool) -> None:
    tensors = {name.removeprefix("model."): shape for name, shape in LLAMA.items()} if bare else LLAMA
    architecture = "LlamaModel" if bare else "LlamaForCausalLM"
    head = [tensor("score.weight", 3, HIDDEN)] if task == "SEQ_CLS" else []
    found = noticed(subject([*q_proj(path), *head], base(tensors, architecture=architecture), task_type=task))
    assert found == (["head-brought"] if head else [])


def test_a_bare_class_has_no_prefix() -> None:
    mapping = {"base_model_class": "LlamaModel", "parent_library": "transformers"}
    assert noticed(subject(q_proj("layers.0.self_attn.q_proj"), task_type=None, auto_mapping=mapping)) == []
    assert "prefix-drift" in noticed(subject(q_proj(), task_type=None, auto_mapping=mapping))


def test_names_on_disk_and_in_memory_are_one_place() -> None:
    expert = {f"model.layers.0.block_sparse_moe.experts.{e}.w{i}.weight": (16, 16) for e in range(4) for i in (1, 2, 3)}
    on = base(expert, model_type="mixtral", architecture="MixtralForCausalLM")
    assert noticed(subject(pair("model.layers.0.block_sparse_moe.experts.3.w1", inputs=16, outputs=16), on)) == []
    fused = pair("model.layers.0.mlp.experts", rank=4 * 8, inputs=16, outputs=32)
    assert noticed(subject(fused, on, target_parameters=["experts.gate_up_proj"])) == []


def test_replicated_layers_are_those_they_were_copied_from() -> None:
    tensors = [*q_proj("model.layers.3.self_attn.q_proj")]
    assert noticed(subject(tensors, layer_replication=[[0, 2], [0, 2]])) == []
    assert "unmatched-target" in noticed(subject(tensors, layer_replication=[[0, 2]]))


@pytest.mark.parametrize(("spans", "said"), [([[0, 2], [1, 2]], False), ([[0, 99]], True), ([[0, 1], [1, 3]], True)])
def test_only_layers_that_are_there_can_be_copied(spans: list[list[int]], said: bool) -> None:
    assert ("replication-beyond-base" in noticed(subject(q_proj(), layer_replication=spans))) is said


def test_other_methods_need_their_modules_too() -> None:
    here, there = (tensor(f"model.layers.{layer}.self_attn.k_proj.ia3_l", 32, 1) for layer in (0, 5))
    assert noticed(subject([here], peft_type="IA3")) == []
    assert noticed(subject([here, there], peft_type="IA3")) == ["unmatched-target"]
    attention = tensor("model.layers.0.self_attn.adaption_prompt", 1, 4, HIDDEN)
    gate = tensor("model.layers.0.self_attn.adaption_gate", 1)
    assert noticed(subject([attention, gate], peft_type="ADAPTION_PROMPT")) == ["not-mergeable"]


def test_a_prompt_has_no_place_and_needs_none() -> None:
    one = subject([TensorSpec("prompt_embeddings", "F32", (8, HIDDEN))], peft_type="PROMPT_TUNING")
    assert noticed(one) == ["not-mergeable"]
    matching = match(one)
    assert matching is not None
    assert matching.matched == 1


def test_what_has_no_place_is_not_counted_as_matched() -> None:
    matching = match(subject([*q_proj(), *q_proj("model.layers.7.self_attn.q_proj")]))
    assert matching is not None
    assert matching.matched == 2


def test_a_name_made_to_be_long_costs_nothing() -> None:
    path = "a." * 200_000 + "0.q_proj"
    one = subject(q_proj())
    manifest = replace(one.manifest, targets=(Target(path),), tensors=(tensor(f"{path}.lora_A.weight", 8, HIDDEN),))
    assert noticed(replace(one, manifest=manifest)) == ["no-match", "unmatched-target"]
