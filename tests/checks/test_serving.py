"""Adapters × engines → the rules that speak, and what they say."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import sqrt
from typing import Any

import pytest

from registry.checks.profile import Profile, find_profile, profiles, with_rank_cap
from registry.checks.rule import Subject
from registry.checks.serving import SERVING_RULES, serving
from registry.domain.finding import Finding, Severity
from tests.checks.subjects import layers, llama, pair, subject, tensor

Q = "model.layers.0.self_attn.q_proj"
MAGNITUDE = f"base_model.model.{Q}.lora_magnitude_vector"
OLD, NEW = "vllm==0.10", "vllm==0.33"


def findings(profile: str, make: Callable[..., Subject] = subject, *args: Any, **adapter: Any) -> list[Finding]:
    return list(serving(make(*args, profile=find_profile(profile), **adapter)))


def rules(profile: str, *args: Any, **adapter: Any) -> dict[str, str]:
    """Rule → severity, of all but the notes."""
    found = findings(profile, subject, *args, **adapter)
    return {one.rule: one.severity.value for one in found if one.severity is not Severity.INFO}


def one(rule: str, found: Sequence[Finding]) -> Finding:
    (finding,) = (finding for finding in found if finding.rule == rule)
    return finding


# What every profile does -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", profiles(), ids=lambda row: row.name)
def test_every_profile_serves_a_plain_lora(row: Profile) -> None:
    assert [found for found in serving(subject(profile=row, base=llama())) if found.severity is not Severity.INFO] == []


@pytest.mark.parametrize("row", profiles(), ids=lambda row: row.name)
def test_every_profile_has_something_that_it_does_not_serve(row: Profile) -> None:
    adapter = subject(
        [*layers("q_proj", "v_proj"), tensor(f"{Q}.lora_diag", 8)], profile=row, kasa_config={"x": 1}, use_dora=True
    )
    other = subject([], profile=row, peft_type="BONE")
    assert any(one.severity is Severity.ERROR for found in (adapter, other) for one in serving(found))


def test_without_a_profile_no_rule_speaks() -> None:
    assert list(serving(subject(use_dora=True, bias="all", r=4096))) == []


def test_rules_have_their_own_names_and_say_why_and_what_to_do() -> None:
    names = [rule.id for rule in SERVING_RULES]
    assert len(set(names)) == len(names)
    assert all(name.startswith("serve-") for name in names)
    assert all(rule.reason and rule.fix for rule in SERVING_RULES)


# The table: adapter, engine → rules ------------------------------------------------------------------------------------

DORA = {"tensors": [*layers("q_proj"), tensor(f"{Q}.lora_magnitude_vector", 64)], "use_dora": True}
BIAS = {"tensors": [*layers("q_proj"), tensor(f"{Q}.base_layer.bias", 64)], "bias": "lora_only"}
LOST_BIAS = {"bias": "lora_only"}
LORA_BIAS = {"tensors": [*layers("q_proj"), tensor(f"{Q}.lora_B.bias", 64)], "lora_bias": True}
HEAD = {"tensors": [*layers("q_proj"), tensor("score.weight", 3, 64)], "modules_to_save": ["classifier", "score"]}
LM_HEAD = {"tensors": [*layers("q_proj"), tensor("lm_head.weight", 100, 64)], "modules_to_save": ["lm_head"]}
RESIZED = {"tensors": [*layers("q_proj"), tensor("model.embed_tokens.weight", 120, 64)]}
TOKENS = {
    "tensors": [*layers("q_proj"), tensor("model.embed_tokens.token_adapter.trainable_tokens_delta", 2, 64)],
    "trainable_token_indices": [5, 6],
}
EMBEDDING = {
    "tensors": [
        tensor("model.embed_tokens.lora_embedding_A", 8, 100),
        tensor("model.embed_tokens.lora_embedding_B", 64, 8),
    ],
    "target_modules": ["embed_tokens"],
}
COPY = {"tensors": [*EMBEDDING["tensors"], tensor("model.embed_tokens.base_layer.weight", 100, 64)]}
EXPERTS = {
    "tensors": [*pair("model.layers.0.mlp.experts.base_layer", 32), *pair("model.layers.0.mlp.experts", 32)],
    "target_parameters": ["experts.gate_up_proj", "experts.down_proj"],
    "target_modules": [],
}
HALF = {
    "tensors": pair("model.layers.0.mlp.experts", 32),
    "target_parameters": ["experts.down_proj"],
    "target_modules": [],
}
PATTERNS = {
    "tensors": [*layers("q_proj", rank=4), *layers("v_proj")],
    "rank_pattern": {"q_proj": 4},
    "alpha_pattern": {"q_proj": 32},
}
#: Ranks differ, and alpha with them, so that one scaling is right for all.
EVEN = {
    "tensors": [*layers("q_proj", rank=4), *layers("v_proj")],
    "rank_pattern": {"q_proj": 4},
    "alpha_pattern": {"q_proj": 8},
}
IDLE = {"rank_pattern": {"q_proj": 8}, "alpha_pattern": {"v_proj": 16}}
RSLORA = {"use_rslora": True}
NORM = {"tensors": [*layers("q_proj"), tensor("model.layers.0.input_layernorm.weight", 64)]}
BUFFER = {"tensors": [*layers("q_proj"), tensor(f"{Q}.lora_velora_embed", 64)], "velora_config": {"x": 1}}
KASA = {"tensors": [*layers("q_proj"), tensor(f"{Q}.lora_diag", 8)], "kasa_config": {"x": 1}}
ALORA = {"alora_invocation_tokens": [1, 2]}
OTHER = {"peft_type": "LOHA", "tensors": []}
BDLORA = {"use_bdlora": {"target_modules_bd_a": ["q_proj"], "nblocks": 1}}

ERROR, WARNING = "error", "warning"
UNREAD = ("sglang", "lorax", "tgi")  # engines that look factors up by name and never see the rest


@pytest.mark.parametrize(
    ("adapter", "engine", "expected"),
    [
        # DoRA
        (DORA, OLD, {"serve-dora": ERROR}), (DORA, NEW, {"serve-dora": ERROR}), (DORA, "llama.cpp", {"serve-dora": ERROR}),
        (DORA, "ollama", {"serve-dora": ERROR}), *((DORA, engine, {"serve-dora": ERROR}) for engine in UNREAD),
        (DORA, "peft==0.14", {}), (DORA, "peft", {}),
        ({"use_dora": False}, NEW, {}),
        # Biases
        (BIAS, OLD, {"serve-bias": ERROR}), (BIAS, NEW, {"serve-bias": ERROR}), (BIAS, "llama.cpp", {"serve-bias": ERROR}),
        *((BIAS, engine, {"serve-bias": ERROR}) for engine in UNREAD), (BIAS, "peft==0.21", {}),
        (LOST_BIAS, NEW, {"serve-bias": ERROR}), (LOST_BIAS, "llama.cpp", {}), (LOST_BIAS, "sglang", {}),
        (LORA_BIAS, OLD, {"serve-lora-bias": ERROR}), (LORA_BIAS, NEW, {"serve-lora-bias": ERROR}),
        (LORA_BIAS, "ollama", {"serve-lora-bias": ERROR}), (LORA_BIAS, "lorax", {"serve-lora-bias": ERROR}),
        ({"lora_bias": True}, OLD, {}), ({"lora_bias": True}, NEW, {"serve-lora-bias": ERROR}),
        # Whole modules
        (HEAD, OLD, {"serve-modules-to-save": ERROR}), (HEAD, NEW, {}), (HEAD, "llama.cpp", {"serve-modules-to-save": ERROR}),
        *((HEAD, engine, {"serve-modules-to-save": ERROR}) for engine in UNREAD), (HEAD, "peft", {}),
        (LM_HEAD, OLD, {"serve-modules-to-save": ERROR}), (LM_HEAD, NEW, {"serve-modules-to-save": ERROR}),
        ({**HEAD, "modules_to_save": None}, NEW, {}), ({**HEAD, "modules_to_save": None}, OLD, {"serve-suffix": ERROR}),
        ({"modules_to_save": []}, OLD, {}), ({"modules_to_save": None}, OLD, {}),
        (RESIZED, OLD, {"serve-embeddings": ERROR}), (RESIZED, NEW, {"serve-embeddings": ERROR}),
        (RESIZED, "llama.cpp", {"serve-embeddings": ERROR}), (RESIZED, "tgi", {"serve-embeddings": ERROR}),
        (TOKENS, OLD, {"serve-trainable-tokens": ERROR}), (TOKENS, NEW, {"serve-trainable-tokens": ERROR}),
        (TOKENS, "sglang", {"serve-trainable-tokens": ERROR}), (TOKENS, "peft==0.14", {"serve-trainable-tokens": ERROR}),
        (TOKENS, "peft==0.15", {}),
        (EMBEDDING, OLD, {}), (EMBEDDING, NEW, {}), (EMBEDDING, "sglang", {"serve-embeddings": WARNING}),
        (EMBEDDING, "lorax", {"serve-embeddings": ERROR}), (EMBEDDING, "tgi", {"serve-embeddings": ERROR}),
        (EMBEDDING, "llama.cpp", {}), (EMBEDDING, "ollama", {"serve-embeddings": ERROR}),
        (COPY, OLD, {"serve-base-layer": WARNING}), (COPY, NEW, {"serve-base-layer": WARNING}),
        (COPY, "llama.cpp", {"serve-base-layer": WARNING}), (COPY, "peft", {}),
        (NORM, OLD, {"serve-suffix": ERROR}), (NORM, NEW, {"serve-suffix": ERROR}), (NORM, "llama.cpp", {"serve-suffix": ERROR}),
        (NORM, "ollama", {"serve-suffix": ERROR}), *((NORM, engine, {"serve-suffix": ERROR}) for engine in UNREAD),
        (NORM, "peft", {}),
        (BUFFER, NEW, {"serve-suffix": ERROR}), (BUFFER, "llama.cpp", {"serve-suffix": ERROR}), (BUFFER, "lorax", {}),
        # Experts
        (EXPERTS, OLD, {"serve-experts": WARNING}), (EXPERTS, NEW, {}), (HALF, NEW, {"serve-experts": WARNING}),
        (EXPERTS, "sglang", {"serve-experts": WARNING}), (EXPERTS, "llama.cpp", {"serve-experts": ERROR}),
        (EXPERTS, "tgi", {"serve-experts": ERROR}), (EXPERTS, "peft==0.16", {"serve-experts": ERROR}),
        (EXPERTS, "peft==0.17", {}),
        # Scaling
        (PATTERNS, OLD, {"serve-patterns-ignored": ERROR}), (PATTERNS, NEW, {}), (PATTERNS, "peft", {}),
        (PATTERNS, "sglang", {"serve-patterns-ignored": ERROR}),
        (PATTERNS, "lorax", {"serve-patterns-ignored": ERROR, "serve-rank": WARNING}),
        (PATTERNS, "llama.cpp", {"serve-patterns-ignored": ERROR}), (PATTERNS, "ollama", {"serve-patterns-ignored": ERROR}),
        (EVEN, OLD, {}), (EVEN, NEW, {}), (EVEN, "sglang", {"serve-patterns-ignored": ERROR}),
        (EVEN, "llama.cpp", {"serve-patterns-ignored": ERROR}),
        (IDLE, OLD, {}), (IDLE, "sglang", {}), (IDLE, "llama.cpp", {}), (IDLE, "lorax", {}),
        (RSLORA, OLD, {}), (RSLORA, NEW, {}), (RSLORA, "lorax", {}), (RSLORA, "tgi", {}), (RSLORA, "peft", {}),
        (RSLORA, "sglang", {"serve-rslora-ignored": ERROR}), (RSLORA, "llama.cpp", {"serve-rslora-ignored": ERROR}),
        (RSLORA, "ollama", {"serve-rslora-ignored": ERROR}),
        ({**PATTERNS, **RSLORA}, "llama.cpp", {"serve-patterns-ignored": ERROR, "serve-rslora-ignored": ERROR}),
        # Variants and initialisations
        (ALORA, OLD, {"serve-variant": ERROR}), (ALORA, NEW, {"serve-variant": ERROR}), (ALORA, "llama.cpp", {}),
        (ALORA, "ollama", {"serve-variant": ERROR}), (ALORA, "peft==0.17", {"serve-variant": ERROR}), (ALORA, "peft==0.18", {}),
        (BDLORA, NEW, {"serve-variant": ERROR}), (BDLORA, "llama.cpp", {"serve-variant": WARNING}),
        ({"use_qalora": True}, OLD, {"serve-variant": ERROR}), ({"use_qalora": True}, NEW, {"serve-variant": ERROR}),
        ({"arrow_config": {"x": 1}}, NEW, {"serve-variant": ERROR}),
        ({"layer_replication": [[0, 1]]}, NEW, {"serve-variant": ERROR}), ({"layer_replication": []}, NEW, {}),
        (KASA, NEW, {"serve-variant": ERROR}), (KASA, "tgi", {"serve-variant": ERROR}),
        (KASA, "peft==0.20", {"serve-variant": ERROR}),
        (KASA, "peft==0.21", {}),
        ({"init_lora_weights": "pissa"}, OLD, {"serve-initialization": ERROR}),
        ({"init_lora_weights": "pissa_niter_16"}, NEW, {"serve-initialization": ERROR}),
        ({"init_lora_weights": "loftq"}, "llama.cpp", {"serve-initialization": ERROR}),
        ({"init_lora_weights": "Gaussian"}, NEW, {}), ({"init_lora_weights": "eva"}, OLD, {}),
        ({"init_lora_weights": False}, NEW, {}),
        ({"init_lora_weights": "lora_ga"}, NEW, {"serve-initialization": WARNING}),
        ({"init_lora_weights": "pissa"}, "peft", {}), ({"init_lora_weights": "corda"}, "peft", {"serve-initialization": WARNING}),
        # Methods, config, files
        *((OTHER, engine, {"serve-peft-type": ERROR}) for engine in (OLD, NEW, *UNREAD, "gguf", "ollama")),
        (OTHER, "peft==0.21", {}),
        ({"peft_type": "BONE", "tensors": []}, "peft==0.21", {"serve-peft-type": ERROR}),
        ({"r": ...}, NEW, {"serve-config": ERROR}), ({"target_modules": ...}, OLD, {"serve-config": ERROR}),
        ({"r": ...}, "lorax", {}),
        ({"lora_alpha": ..., "r": ...}, "llama.cpp", {"serve-config": ERROR}), ({"target_modules": None}, NEW, {}),
        ({"files": ["added_tokens.json"]}, "sglang", {"serve-vocabulary": WARNING}), ({"files": ["added_tokens.json"]}, NEW, {}),
        ({"base_id": None}, "llama.cpp", {"serve-base-unknown": WARNING}),
        ({"base_id": None}, "lorax", {"serve-base-unknown": WARNING}),
        ({"base_id": None}, NEW, {}),
        # Targets and layers
        ({"tensors": layers("q_proj", "qkv_proj")}, "tgi", {"serve-target": ERROR}),
        ({"tensors": layers("q_proj", "qkv_proj")}, NEW, {}),
        ({"tensors": layers("qkv_proj")}, "ollama", {"serve-target": ERROR}),
        ({"tensors": [*layers("q_proj"), *layers("v_proj", numbers=[1])]}, "lorax", {"serve-target": WARNING}),
        ({"tensors": [*layers("q_proj"), *layers("v_proj", numbers=[1])]}, NEW, {}),
        ({"tensors": layers("q_proj"), "base": llama(layer_count=4)}, "lorax", {"serve-target": ERROR}),
        ({"tensors": layers("q_proj"), "base": llama(layer_count=2)}, "tgi", {}),
        ({"base": llama(model_type="qwen3")}, "ollama", {"serve-architecture": ERROR}), ({"base": llama()}, "ollama", {}),
    ],
)  # fmt: skip
def test_adapter_and_engine(adapter: dict[str, Any], engine: str, expected: dict[str, str]) -> None:
    assert rules(engine, **adapter) == expected


def test_everything_is_said_at_once() -> None:
    tensors = [*DORA["tensors"], *LORA_BIAS["tensors"][-1:], *TOKENS["tensors"][-1:], *NORM["tensors"][-1:]]
    found = rules(
        "vllm", tensors, use_dora=True, lora_bias=True, bias="all", modules_to_save=["lm_head"], r=64,
        trainable_token_indices=[5, 6], init_lora_weights="pissa", alora_invocation_tokens=[1],
    )  # fmt: skip
    assert found.keys() >= {
        "serve-dora", "serve-lora-bias", "serve-bias", "serve-modules-to-save", "serve-rank", "serve-trainable-tokens",
        "serve-initialization", "serve-variant", "serve-suffix",
    }  # fmt: skip


# Words -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("engine", "adapter", "rule", "words"),
    [
        (NEW, {"r": 64}, "serve-rank", "LoRA rank 64 is greater than max_lora_rank 16."),
        (OLD, DORA, "serve-dora", "vLLM does not yet support DoRA."),
        (NEW, BIAS, "serve-bias", "Adapter bias is not supported."),
        (OLD, HEAD, "serve-modules-to-save", "vLLM only supports modules_to_save being None."),
        (NEW, LM_HEAD, "serve-modules-to-save", "Unsupported modules_to_save: ['lm_head']"),
        (NEW, {"r": ...}, "serve-config", "Missing required configuration fields: {'r'}"),
        (OLD, LORA_BIAS, "serve-lora-bias", f"base_model.model.{Q}.lora_B.bias is unsupported LoRA weight"),
        (NEW, RESIZED, "serve-embeddings", "base_model.model.model.embed_tokens.weight is unsupported LoRA weight"),
        (NEW, {"init_lora_weights": "olora"}, "serve-initialization", "vLLM does not support init_lora_weights='olora'."),
        ("llama.cpp", DORA, "serve-dora", f"Unexpected name '{MAGNITUDE}': Not a lora_A or lora_B tensor"),
        ("ollama", DORA, "serve-dora", f"LoRA tensor '{MAGNITUDE}' has unexpected suffix"),
        ("ollama", {"tensors": layers("qkv_proj")}, "serve-target", "does not exist in base model (hint: maybe wrong base model?)"),
        ("ollama", {"tensors": layers("qkv_proj")}, "serve-target", "qkv_proj is adapted"),
        ("ollama", {"tensors": layers("fc1", "fc2")}, "serve-target", "fc1, fc2 are adapted"),
        ("ollama", {"base": llama(model_type="qwen3")}, "serve-architecture", "unsupported architecture"),
        ("sglang", DORA, "serve-dora", "LoRA serving currently doesn't support DoRA adapters"),
    ],
)  # fmt: skip
def test_the_engines_own_words_are_quoted(engine: str, adapter: dict[str, Any], rule: str, words: str) -> None:
    finding = one(rule, findings(engine, **adapter))
    assert words in finding.message
    assert "{" not in finding.message.replace("{'r'}", "")
    assert finding.where
    assert finding.fix


def test_a_difference_is_told_in_numbers() -> None:
    finding = one("serve-rslora-ignored", findings("sglang", **RSLORA))
    assert f"by 2, PEFT by {16 / sqrt(8):g}" in finding.message
    assert "export REF --for sglang" in (finding.fix or "")
    patterns = one("serve-patterns-ignored", findings(OLD, **PATTERNS))
    assert "PEFT scales" in patterns.message
    assert "by 8;" in patterns.message
    assert "scales by 2" in patterns.message


def test_what_cannot_be_merged_is_not_told_to_be() -> None:
    for engine, adapter in ((NEW, ALORA), (NEW, {"use_qalora": True}), ("tgi", {"arrow_config": {"x": 1}})):
        assert "merge the adapter" not in (one("serve-variant", findings(engine, **adapter)).fix or "")


def test_a_bias_that_is_not_in_the_file_needs_no_merge() -> None:
    assert 'writes bias "none"' in (one("serve-bias", findings(NEW, **LOST_BIAS)).fix or "")
    assert "merge" in (one("serve-bias", findings(NEW, **BIAS)).fix or "")


# Ranks -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rank", "cap", "fix"),
    [(17, 16, "--max-lora-rank 32"), (300, 256, "--max-lora-rank 320"), (600, 512, "reduce the rank to 512")],
)
def test_a_rank_above_the_cap_says_which_would_do(rank: int, cap: int, fix: str) -> None:
    profile = with_rank_cap(find_profile(NEW), cap)
    adapter = subject(layers("q_proj", rank=rank), r=rank, profile=profile)
    assert fix in (one("serve-rank", list(serving(adapter))).fix or "")
    assert list(serving(subject(layers("q_proj", rank=cap), r=cap, profile=profile))) == []


def test_a_rank_of_a_pattern_counts_and_is_only_quoted_where_the_engine_looks_at_it() -> None:
    adapter = {
        "tensors": [*layers("q_proj", rank=32), *layers("v_proj")],
        "rank_pattern": {"q_proj": 32},
        "alpha_pattern": {"q_proj": 64},
    }
    assert "LoRA rank 32 is greater" in one("serve-rank", findings(NEW, **adapter)).message
    old = one("serve-rank", findings(OLD, **adapter))
    assert "LoRA rank" not in old.message
    assert old.where == "rank_pattern"


def test_sglang_has_a_cap_only_if_it_was_started_with_one() -> None:
    adapter = {"tensors": layers("q_proj", rank=64), "r": 64}
    assert rules("sglang", **adapter) == {}
    capped = subject(profile=with_rank_cap(find_profile("sglang"), 24), **adapter)
    assert "--max-lora-rank 64" in (one("serve-rank", list(serving(capped))).fix or "")


@pytest.mark.parametrize(
    ("rank", "expected"), [(4, {"serve-rank": WARNING}), (8, {}), (12, {"serve-rank": WARNING}), (16, {}), (48, {})]
)
def test_padded_ranks_are_told_for_lorax(rank: int, expected: dict[str, str]) -> None:
    assert rules("lorax", layers("q_proj", rank=rank), r=rank) == expected


# With a base -----------------------------------------------------------------------------------------------------------


def test_an_embedding_lora_needs_the_vocabulary_of_the_base() -> None:
    assert rules(NEW, **EMBEDDING, base=llama(vocabulary=100)) == {}
    found = one("serve-embeddings", findings(NEW, **EMBEDDING, base=llama(vocabulary=128)))
    assert (
        "The embedding LoRA size(100) must be consistent with the base model's vocabulary size(128)." in found.message
    )


def test_a_copy_of_the_embedding_counts_by_its_rows() -> None:
    def severity(vocabulary: int | None) -> Severity:
        return one("serve-base-layer", findings(NEW, **COPY, base=llama(vocabulary=vocabulary))).severity

    assert severity(100) is Severity.INFO
    assert severity(None) is Severity.WARNING
    assert severity(128) is Severity.ERROR


def test_llama_cpp_refuses_a_tied_head() -> None:
    head = {"tensors": [*layers("q_proj"), *pair("lm_head")]}
    assert rules("llama.cpp", **head, base=llama(is_tied=False)) == {}
    found = one("serve-embeddings", findings("llama.cpp", **head, base=llama(is_tied=True)))
    assert "lm_head is present in adapter, but is ignored in base model" in found.message


def test_ollama_without_a_base_says_what_it_needs() -> None:
    assert one("serve-architecture", findings("ollama")).severity is Severity.INFO


# Versions --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("engine", "said"),
    [("vllm", False), ("vllm==0.33.0", False), ("vllm==0.33.1", True), ("gguf==b6391", True), ("gguf", False)],
)
def test_a_version_newer_than_what_was_read_is_said(engine: str, said: bool) -> None:
    assert any(finding.rule == "serve-version" for finding in findings(engine)) is said
