"""LoRA's anatomy: what is read, and for each rule one adapter that breaks it beside one that does not."""

from __future__ import annotations

from math import sqrt
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.domain.finding import Severity
from registry.domain.manifest import Target
from registry.domain.tensors import TensorSpec
from registry.errors import MalformedConfigError
from tests.variants.adapters import PREFIX, found, pair, read, rules, tensor

Q = "model.layers.0.self_attn.q_proj"
K = "model.layers.0.self_attn.k_proj"


def test_rank_from_the_tensors_and_alpha_from_the_config() -> None:
    reading = read(pair(Q), r=8, lora_alpha=16)
    assert reading.variant == "lora"
    assert reading.targets == (Target(Q, rank=8, alpha=16.0, scaling=2.0),)
    assert reading.silent_if_zero == (f"{PREFIX}{Q}.lora_B.weight",)
    assert reading.findings == ()


@given(r=st.integers(1, 512), alpha=st.integers(1, 1000))
def test_scaling_is_alpha_over_r_or_its_root(r: int, alpha: int) -> None:
    tensors = pair(Q, rank=r)
    assert read(tensors, r=r, lora_alpha=alpha).targets[0].scaling == alpha / r
    assert read(tensors, r=r, lora_alpha=alpha, use_rslora=True).targets[0].scaling == alpha / sqrt(r)


def test_absent_is_pefts_default_and_so_is_null_where_peft_takes_it() -> None:
    nulls: dict[str, Any] = dict.fromkeys(
        ("use_rslora", "use_dora", "target_modules", "modules_to_save", "target_parameters", "init_lora_weights",
         "use_bdlora", "kasa_config", "layers_to_transform", "layers_pattern", "trainable_token_indices")
    )  # fmt: skip
    assert read(pair(Q), **nulls) == read(pair(Q))
    assert read(pair(Q)).targets == (Target(Q, 8, 8.0, 1.0),)


@pytest.mark.parametrize(
    ("field", "config"),
    [
        *(
            (field, {field: None})
            for field in ("r", "lora_alpha", "lora_dropout", "bias", "rank_pattern", "alpha_pattern")
        ),
        ("lora_dropout", {"lora_dropout": "0.1"}),
        ("lora_dropout", {"lora_dropout": 1.5}),
        ("layers_pattern", {"layers_pattern": "layers"}),
        ("layers_to_transform", {"target_modules": ".*q_proj", "layers_to_transform": [0]}),
        ("lora_bias", {"lora_bias": True, "init_lora_weights": "gaussian"}),
        ("trainable_token_indices", {"trainable_token_indices": {"e": [1]}, "modules_to_save": ["e"]}),
    ],
)
def test_a_config_that_peft_refuses_is_said_and_read_all_the_same(field: str, config: dict[str, Any]) -> None:
    reading = read(pair(Q), **config)
    refusal = next(one for one in reading.findings if one.rule == "config-refused")
    assert (refusal.severity, refusal.where) == (Severity.ERROR, field)
    assert refusal.fix
    assert reading.targets == read(pair(Q)).targets


@pytest.mark.parametrize(
    "config",
    [
        {"lora_dropout": 0.1},
        {"layers_pattern": "layers", "layers_to_transform": [0]},
        {"layers_pattern": [], "target_modules": ["q_proj"]},
        {"lora_bias": True, "init_lora_weights": False},
    ],
)
def test_a_config_that_peft_takes_is_not_refused(config: dict[str, Any]) -> None:
    assert "config-refused" not in rules(read(pair(Q), **config))


def test_bare_parameters_take_plain_lora_alone() -> None:
    config = {"target_parameters": ["experts.w"], "r": 8}
    assert rules(read(pair("experts", 16), **config)) == []
    assert rules(read(pair("experts", 16), lora_dropout=0.5, **config)) == ["config-refused"]
    assert rules(read(pair(Q), lora_dropout=0.5, target_modules=["q_proj"])) == []


def test_whole_floats_are_integers_and_unknown_fields_are_nothing() -> None:
    reading = read(pair(Q, 4), r=4.0, lora_alpha=8.0, rank_pattern={"q_proj": 4.0}, some_field={"r": "x"})
    assert reading.targets == (Target(Q, 4, 8.0, 2.0),)
    assert reading.findings == ()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("r", "8"), ("r", 0), ("r", -1), ("r", 2**31), ("r", 8.5), ("r", True), ("r", [8]),
        ("lora_alpha", "16"), ("lora_alpha", float("inf")), ("lora_alpha", float("nan")), ("lora_alpha", {}),
        ("use_rslora", "true"), ("use_rslora", 1), ("use_dora", "false"), ("use_qalora", "no"), ("lora_bias", 0),
        ("fan_in_fan_out", "yes"), ("rank_pattern", {"q_proj": "8"}), ("rank_pattern", {"q_proj": 0}),
        ("rank_pattern", [8]), ("alpha_pattern", {"q_proj": None}), ("alpha_pattern", "16"),
        ("target_parameters", "experts.down_proj"), ("target_parameters", [1]), ("target_modules", {"q": 1}),
        ("modules_to_save", "lm_head"), ("init_lora_weights", 3), ("bias", True), ("bias", "some"),
        ("use_bdlora", True), ("use_bdlora", {"nblocks": 0}), ("use_bdlora", {"target_modules_bd_a": "q_proj"}),
        ("layer_replication", "x"), ("layer_replication", [[2, 1]]), ("layer_replication", [0, 2]),
        ("layer_replication", [[0, 2]] * 1001),
        ("modules_to_save", [str(n) for n in range(1001)]),
        ("trainable_token_indices", {str(n): [1] for n in range(101)}),
    ],
)  # fmt: skip
def test_values_that_matter_are_refused_when_of_the_wrong_type(field: str, value: Any) -> None:
    with pytest.raises(MalformedConfigError) as refused:
        read(pair(Q), **{field: value})
    assert field in refused.value.message


@pytest.mark.parametrize(
    ("field", "value"),
    [("inference_mode", "yes"), ("task_type", []), ("revision", 7)],
)
def test_values_that_do_not_matter_are_no_reason(field: str, value: Any) -> None:
    assert read(pair(Q), **{field: value}) == read(pair(Q))


# Forms -------------------------------------------------------------------------------------------------------------


def test_embedding_convolution_and_magnitude() -> None:
    reading = read(
        [
            tensor("emb.lora_embedding_A", 4, 100), tensor("emb.lora_embedding_B", 16, 4),
            tensor("emb.lora_magnitude_vector", 16),
            tensor("conv.lora_A.weight", 4, 3, 5, 5), tensor("conv.lora_B.weight", 6, 4, 1, 1),
            tensor("conv.lora_magnitude_vector.weight", 1, 6, 1, 1),
            tensor("grouped.lora_A.weight", 4, 8, 3), tensor("grouped.lora_B.weight", 6, 2, 1),
            tensor("grouped.lora_magnitude_vector", 1, 6, 1),
        ],
        r=4,
        use_dora=True,
    )  # fmt: skip
    assert reading.variant == "dora"
    assert {target.path: target.rank for target in reading.targets} == {"conv": 4, "emb": 4, "grouped": 4}
    assert reading.findings == ()
    assert f"{PREFIX}emb.lora_embedding_A" in reading.silent_if_zero


def test_the_output_projection_of_attention_has_the_patterns_of_the_attention() -> None:
    tensors = pair("attn", 3) + pair("attn.base_layer.out_proj", 3)
    reading = read(tensors, rank_pattern={"attn": 3, "out_proj": 5}, alpha_pattern={"attn": 9}, peft_version="0.21.2")
    assert reading.targets == (Target("attn", 3, 9.0, 3.0), Target("attn.out_proj", 3, 9.0, 3.0))
    assert rules(reading) == ["pattern-matches-nothing"]


def test_the_rank_of_fused_experts_is_per_expert() -> None:
    tensors = pair("layers.0.experts", 16 * 4) + pair("layers.0.experts.base_layer", 16 * 4)
    reading = read(tensors, r=16, target_parameters=["experts.down_proj", "experts.gate_up_proj"])
    assert [(target.path, target.rank) for target in reading.targets] == [
        ("layers.0.experts.down_proj", 16),
        ("layers.0.experts.gate_up_proj", 16),
    ]
    assert reading.findings == ()


def test_the_first_registered_parameter_is_innermost_whatever_the_order_in_the_config() -> None:
    tensors = pair("experts", 6) + pair("experts.base_layer", 8)
    for parameters in (["experts.down_proj", "experts.gate_up_proj"], ["experts.gate_up_proj", "experts.down_proj"]):
        reading = read(tensors, r=2, rank_pattern={"down_proj": 3}, target_parameters=parameters)
        assert {target.path: target.rank for target in reading.targets} == {
            "experts.down_proj": 3,
            "experts.gate_up_proj": 2,
        }


def test_block_diagonal_factors_pair() -> None:
    tensors = [
        tensor("o_proj.lora_A.weight", 8, 16), tensor("o_proj.lora_B.weight", 32, 8),
        tensor("q_proj.lora_A.weight", 8, 64), tensor("q_proj.lora_B.weight", 32, 2),
    ]  # fmt: skip
    blocks = {"target_modules_bd_a": ["o_proj"], "target_modules_bd_b": ["q_proj"], "nblocks": 4}
    reading = read(tensors, use_bdlora=blocks)
    assert (reading.variant, [target.rank for target in reading.targets]) == ("bdlora", [8, 8])
    assert reading.findings == ()
    assert "shape-mismatch" in rules(read(tensors))


@pytest.mark.parametrize(
    ("config", "variant"),
    [
        ({"alora_invocation_tokens": [1]}, "alora"), ({"arrow_config": {"top_k": 2}}, "arrow"),
        ({"use_qalora": True}, "qalora"), ({"monteclora_config": {"num_samples": 8}}, "monteclora"),
        ({"velora_config": {"num_groups": 2}}, "velora"), ({"use_rslora": True}, "lora"),
        ({"alora_invocation_tokens": []}, "lora"),
    ],
)  # fmt: skip
def test_variants(config: dict[str, Any], variant: str) -> None:
    assert read(pair(Q), **config).variant == variant


def test_what_only_training_looks_at_belongs_to_the_layer() -> None:
    tensors = [*pair(Q), tensor(f"{Q}.lora_velora_embed", 4), tensor(f"{Q}.lora_monteclora_sampler.std_prior", 4)]
    assert read(tensors).findings == ()
    assert read(tensors).extra_modules == ()


@pytest.mark.parametrize(
    ("config", "change"),
    [
        ({"init_lora_weights": "pissa_niter_16"}, "pissa"), ({"init_lora_weights": "OLoRA"}, "olora"),
        ({"init_lora_weights": "corda"}, "corda"), ({"init_lora_weights": "loftq"}, "loftq"),
        ({"init_lora_weights": "lora_ga"}, "lora_ga"), ({"init_lora_weights": "gaussian"}, None),
        ({"init_lora_weights": "eva"}, None), ({"init_lora_weights": True}, None), ({}, None),
    ],
)  # fmt: skip
def test_base_changed_by_initialization(config: dict[str, Any], change: str | None) -> None:
    reading = read(pair(Q), **config)
    assert reading.base_change == change
    assert rules(reading) == (["base-changed-by-initialization"] if change else [])


def test_targets_are_in_the_order_in_which_people_count() -> None:
    reading = read([one for i in (10, 2, 1) for one in pair(f"layers.{i}.q")])
    assert [target.path for target in reading.targets] == ["layers.1.q", "layers.2.q", "layers.10.q"]


# Errors ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "tensors", "config", "words"),
    [
        ("zero-size-tensor", [tensor(f"{Q}.lora_A.weight", 0), tensor(f"{Q}.lora_B.weight", 32, 8)], {}, "ZeRO-3"),
        ("orphan-factor", [tensor(f"{Q}.lora_A.weight", 8, 64)], {}, "lora_B"),
        ("orphan-factor", [tensor(f"{Q}.lora_B.weight", 64, 8)], {}, "lora_A"),
        ("orphan-factor", [tensor("e.lora_embedding_B", 64, 8)], {}, "lora_embedding_A"),
        ("orphan-factor", [*pair(K), tensor(f"{Q}.lora_magnitude_vector", 8)], {"use_dora": False}, "lora_A and no"),
        ("orphan-factor", pair("experts.base_layer"), {"target_parameters": ["experts.down_proj"]}, "outer"),
        ("rank-mismatch", pair(Q, 16), {"r": 8}, "16"),
        ("rank-mismatch", pair(Q, 8), {"rank_pattern": {"q_proj": 4}}, "rank 4"),
        ("rank-mismatch", pair("experts", 12), {"target_parameters": ["experts.w"]}, "rank 8"),
        ("shape-mismatch", [tensor("q.lora_A.weight", 8, 64), tensor("q.lora_B.weight", 32, 4)], {}, "do not pair"),
        ("shape-mismatch", [tensor("q.lora_A.weight", 8), tensor("q.lora_B.weight", 8)], {}, "dimensions"),
        ("shape-mismatch", [tensor("q.lora_A.weight", 16, 64), tensor("q.lora_B.weight", 32, 8, 1)], {}, "enable_lora"),
        ("shape-mismatch", [tensor("q.lora_A.weight", 8, 3, 3), tensor("q.lora_B.weight", 6, 8, 3)], {}, "in space"),
        ("shape-mismatch", [*pair(Q), tensor(f"{Q}.lora_magnitude_vector", 31)], {"use_dora": True}, "32 elements"),
        ("shape-mismatch", [*pair(Q), tensor(f"{Q}.lora_B.bias", 8)], {"lora_bias": True}, "32 elements"),
        ("shape-mismatch", [*pair(Q), tensor(f"{Q}.lora_diag", 32)], {"kasa_config": {"beta": 1}}, "8 elements"),
        ("shape-mismatch", [*pair(Q), tensor("e.token_adapter.trainable_tokens_delta", 3, 8)],
         {"trainable_token_indices": [1, 2]}, "3 rows"),
        ("unknown-tensor", [*pair(Q), tensor(f"{Q}.lora_C.weight", 8, 8)], {}, "lora_C"),
        ("unknown-tensor", [*pair(Q), tensor(f"{Q}.hada_w1_a", 8, 8)], {}, "hada_w1_a"),
        ("unknown-tensor", [*pair(Q), tensor(f"{Q}.lora_A", 8, 64)], {}, "lora_A"),
        ("unknown-tensor", [*pair(Q), tensor(f"{Q}.lora_embedding_A", 8, 64)], {}, "embedding"),
        ("no-targets", [], {}, "nothing"),
        ("missing-prefix", [TensorSpec(one.name.removeprefix(PREFIX), "F32", one.shape) for one in pair(Q)],
         {}, "2 "),
        ("missing-prefix", [TensorSpec(f"base_model.h.lora_{side}.weight", "F32", (8, 8)) for side in "AB"], {}, "2 "),
        ("wrapped-name", pair(f"_orig_mod.{Q}"), {}, "_orig_mod"),
        ("wrapped-name", pair(f"_fsdp_wrapped_module.{Q}"), {}, "wrapper"),
        ("adapter-name-in-key", [tensor(f"{Q}.lora_{side}.default.weight", 8, 8) for side in "AB"], {}, "(default)"),
        ("adapter-name-in-key", [tensor("e.lora_embedding_A.mine", 8, 64), tensor("e.lora_embedding_B.mine", 32, 8)],
         {}, "(mine)"),
        ("adapter-name-in-key", [*pair(Q), tensor("lm_head.modules_to_save.default.weight", 9, 9)],
         {"modules_to_save": ["lm_head"]}, "(default)"),
        ("foreign-names", [TensorSpec("lora_unet_down_blocks_0.lora_down.weight", "F32", (8, 64)),
                           TensorSpec("lora_unet_down_blocks_0.lora_up.weight", "F32", (64, 8)),
                           TensorSpec("lora_unet_down_blocks_0.alpha", "F32", ())], {}, "kohya"),
        ("foreign-names", [TensorSpec("model.layers.0.q_proj.lora_a", "F32", (64, 8)),
                           TensorSpec("model.layers.0.q_proj.lora_b", "F32", (8, 64))], {}, "mlx"),
        ("dora-without-magnitude", pair(Q), {"use_dora": True}, "magnitude"),
        ("magnitude-without-dora", [*pair(Q), tensor(f"{Q}.lora_magnitude_vector", 32)], {}, "use_dora"),
        ("kasa-without-diagonal", pair(Q), {"kasa_config": {"beta": 1}}, "lora_diag"),
        ("diagonal-without-kasa", [*pair(Q), tensor(f"{Q}.lora_diag", 8)], {}, "kasa_config"),
        ("unknown-parameter", pair("experts", 8) + pair("experts.base_layer", 8),
         {"target_parameters": ["experts.down_proj"]}, "2 parameters"),
    ],
)  # fmt: skip
def test_refused(rule: str, tensors: list[TensorSpec], config: dict[str, Any], words: str) -> None:
    reading = read(tensors, **config)
    errors = {one.rule for one in reading.findings if one.severity is Severity.ERROR}
    assert errors == {rule}
    assert words in found(reading, rule).message


@pytest.mark.parametrize(
    ("tensors", "config"),
    [
        (pair(Q, 16), {"r": 16}),
        (pair(Q, 4), {"rank_pattern": {"q_proj": 4}}),
        (pair("experts", 16), {"target_parameters": ["experts.w"]}),
        ([*pair(Q), tensor(f"{Q}.lora_magnitude_vector", 32)], {"use_dora": True}),
        ([*pair(Q), tensor(f"{Q}.lora_B.bias", 32)], {"lora_bias": True}),
        ([*pair(Q), tensor(f"{Q}.base_layer.bias", 32)], {"bias": "lora_only"}),
        ([*pair(Q), tensor("norm.bias", 32)], {"bias": "all"}),
        (
            [*pair(Q), tensor("e.token_adapter.trainable_tokens_delta", 2, 8)],
            {"trainable_token_indices": {"e": [1, 2]}},
        ),
        ([*pair("lm_head"), tensor("lm_head.base_layer.weight", 32, 64)], {}),
        ([*pair(Q), tensor("model.embed_tokens.weight", 32, 64), tensor("lm_head.weight", 32, 64)], {}),
        (pair("0"), {"target_modules": ["0"]}),
    ],
)
def test_not_refused_and_nothing_said(tensors: list[TensorSpec], config: dict[str, Any]) -> None:
    reading = read(tensors, **config)
    assert reading.findings == ()
    assert reading.targets


def test_all_findings_at_once() -> None:
    reading = read([*pair(Q, 16), *pair(K, 4), tensor("v.lora_A.weight", 8, 8), tensor("w.lora_C.weight", 8, 8)], r=8)
    assert sorted(rules(reading)) == ["orphan-factor", "rank-mismatch", "rank-mismatch", "unknown-tensor"]


def test_misnamed_tensors_are_described_all_the_same() -> None:
    tensors = [TensorSpec(f"_orig_mod.{Q}.lora_{side}.default.weight", "F32", (8, 8)) for side in "AB"]
    reading = read(tensors)
    assert rules(reading) == ["wrapped-name", "missing-prefix", "adapter-name-in-key"]
    assert reading.targets == (Target(Q, 8, 8.0, 1.0),)


# Patterns ----------------------------------------------------------------------------------------------------------


def test_the_first_pattern_in_the_file_wins_and_overlaps_are_said() -> None:
    tensors = pair("layers.1.q_proj", 4)
    reading = read(tensors, r=8, rank_pattern={"q_proj": 4, r"layers\.1\..*": 2})
    assert reading.targets[0].rank == 4
    assert "layers.1.q_proj" in found(reading, "overlapping-patterns").message
    same = read(tensors, r=8, rank_pattern={"q_proj": 4, r"layers\.1\..*": 4})
    assert same.findings == ()


def test_rank_and_alpha_are_looked_up_independently() -> None:
    tensors = pair("a.q_proj", 4) + pair("a.k_proj", 8)
    reading = read(
        tensors, lora_alpha=16, rank_pattern={"q_proj": 4}, alpha_pattern={"a.k_proj": 64}, peft_version="0.15.0"
    )
    assert [target.scaling for target in reading.targets] == [8.0, 4.0]
    assert reading.findings == ()


@pytest.mark.parametrize(
    ("config", "warned"),
    [
        ({}, True), ({"peft_version": "0.13.2"}, True), ({"peft_version": "0.14.0"}, False),
        ({"peft_version": "0.18.2.dev0@abc"}, False), ({"peft_version": "1.0"}, False),
        ({"peft_version": "newest"}, True), ({"exclude_modules": None}, False),
    ],
)  # fmt: skip
def test_patterns_that_older_versions_read_differently(config: dict[str, Any], warned: bool) -> None:
    reading = read(pair(Q, 4), rank_pattern={"q_proj": 4}, alpha_pattern={"q_proj": 4}, **config)
    assert rules(reading) == (["patterns-version-dependent"] if warned else [])
    assert read(pair(Q, 4), rank_pattern={"q_proj": 4}).findings == ()


def test_an_unresolved_alpha_leaves_the_scaling_open_and_refuses_nothing() -> None:
    tensors = pair(Q, 4) + pair(K, 8)
    reading = read(tensors, alpha_pattern={"(": 64, "k_proj": 16})
    assert [(target.rank, target.scaling) for target in reading.targets if target.path == K] == [(8, None)]
    assert found(reading, "pattern-unresolved").severity is Severity.WARNING
    harmless = read(pair(K), lora_alpha=16, alpha_pattern={"k_proj": 16, "(": 64})
    assert harmless.targets[0].scaling == 2.0


def test_an_unresolved_rank_pattern_leaves_the_rank_to_the_tensors() -> None:
    reading = read(pair(Q, 4), r=8, rank_pattern={"(": 4})
    assert reading.targets == (Target(Q, 4, 8.0, 2.0),)
    assert rules(reading) == ["pattern-unresolved"]


def test_look_ahead_in_patterns_is_evaluated() -> None:
    tensors = pair("layers.0.q_proj", 4) + pair("layers.1.q_proj", 8)
    reading = read(tensors, rank_pattern={r"layers\.(?!1)\d\.q_proj": 4}, target_modules=r".*(?<!k)_proj")
    assert [target.rank for target in reading.targets] == [4, 8]
    assert reading.findings == ()


def test_patterns_that_match_nothing() -> None:
    assert rules(read(pair(Q), rank_pattern={"v_proj": 4})) == ["pattern-matches-nothing"]
    assert rules(read(pair(Q), alpha_pattern={"q_proj": 4, "_proj": 8})) == ["pattern-matches-nothing"]
    assert rules(read(pair(Q), target_modules="q_proj")) == ["pattern-matches-nothing"]
    assert rules(read(pair(Q), target_modules=r".*q_proj")) == []
