"""The other methods: their tensors, and that nothing in an adapter makes reading it fail in any way but one."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.domain.finding import Severity
from registry.domain.manifest import Target
from registry.domain.tensors import TensorSpec
from registry.errors import MalformedConfigError
from registry.variants.table import ANATOMIES, PEFT_TYPES
from tests.variants.adapters import found, pair, read, rules, tensor


def test_every_type_has_an_anatomy() -> None:
    assert len(PEFT_TYPES) == 46
    assert ANATOMIES.keys() == PEFT_TYPES


def test_adalora_takes_the_rank_from_the_tensors_and_alpha_as_scaling() -> None:
    tensors = [tensor("q.lora_A", 5, 8), tensor("q.lora_B", 8, 5), tensor("q.lora_E", 5, 1)]
    reading = read(tensors, "ADALORA", r=8, init_r=12, target_r=4, lora_alpha=32)
    assert reading.targets == (Target("q", 5, 32.0, 32.0),)
    assert reading.findings == ()


def test_adalora_may_prune_a_module_away() -> None:
    tensors = [tensor("q.lora_A", 0, 8), tensor("q.lora_B", 8, 0), tensor("q.lora_E", 0, 1)]
    assert read(tensors, "ADALORA", rank_pattern={"q.lora_E": [False, False]}).findings == ()
    assert rules(read(tensors, "ADALORA")) == ["zero-size-tensor"] * 3


@pytest.mark.parametrize(
    ("peft_type", "tensors", "config", "rule"),
    [
        ("LOHA", [tensor("q.hada_w1_a", 8, 2), tensor("q.hada_w1_b", 2, 8)], {"r": 2}, "orphan-factor"),
        ("LOHA", [tensor(f"q.hada_w{i}_{s}", *((8, 2) if s == "a" else (2, 8))) for i in (1, 2) for s in "ab"],
         {"r": 4}, "rank-mismatch"),
        ("LOKR", [tensor("q.lokr_w1", 4, 4), tensor("q.lokr_w2_a", 4, 2)], {}, "orphan-factor"),
        ("VERA", [tensor("q.vera_lambda_b", 0), tensor("q.vera_lambda_d", 256)], {}, "zero-size-tensor"),
        ("IA3", [TensorSpec("q.ia3_l", "F32", (8, 1))], {}, "missing-prefix"),
        ("IA3", [tensor("q.ia3_l.default", 8, 1)], {}, "adapter-name-in-key"),
        ("IA3", [tensor("q.ia3_l", 8, 1), *pair("q")], {}, "unknown-tensor"),
        ("IA3", [], {}, "no-targets"),
        ("PROMPT_TUNING", [], {}, "no-targets"),
        ("PROMPT_TUNING", [TensorSpec("prompt_embeddings", "F32", (0, 8))], {}, "zero-size-tensor"),
    ],
)  # fmt: skip
def test_refused(peft_type: str, tensors: list[TensorSpec], config: dict[str, Any], rule: str) -> None:
    reading = read(tensors, peft_type, **config)
    assert {one.rule for one in reading.findings if one.severity is Severity.ERROR} == {rule}


def test_heads_beside_other_methods() -> None:
    reading = read([tensor("q.ia3_l", 8, 1), tensor("score.weight", 2, 8)], "IA3", modules_to_save=["score"])
    assert (reading.extra_modules, reading.findings) == (("score",), ())
    prompt = [TensorSpec("prompt_embeddings", "F32", (4, 8)), TensorSpec("base_model.score.weight", "F32", (2, 8))]
    reading = read(prompt, "PROMPT_TUNING", modules_to_save=["score"])
    assert (reading.variant, reading.extra_modules, reading.findings) == ("prompt_tuning", ("score",), ())


def test_bone_is_read_as_what_it_became() -> None:
    assert read([tensor("q.bone_block", 16, 32)], "BONE").targets == (Target("q", 16),)


def test_adamss_and_its_subspaces() -> None:
    """As ``peft/tuners/adamss/layer.py`` names them; PEFT needs scikit-learn to make one."""
    tensors = [tensor("q.adamss_newB", 10, 17), tensor("q.adamss_A.0", 1, 10), tensor("q.adamss_B.0", 4, 1)]
    reading = read(tensors, "ADAMSS")
    assert (reading.targets, reading.findings) == ((Target("q", 10),), ())


def test_a_type_of_the_future_is_recorded_and_not_understood() -> None:
    tensors = [tensor("layers.0.q_proj.zora_C", 3, 3), tensor("layers.0.k_proj.zora_C", 3, 3)]
    reading = read(tensors, "ZORA", target_modules=["q_proj"], r="eight")
    assert (reading.variant, reading.targets) == ("zora", (Target("layers.0.q_proj"),))
    assert found(reading, "method-not-understood").severity is Severity.WARNING


_TAILS = st.sampled_from(
    ["lora_A.weight", "lora_B.weight", "lora_A", "lora_E", "lora_embedding_A", "lora_magnitude_vector", "lora_diag",
     "weight", "bias", "base_layer.lora_A.weight", "base_layer.weight", "hada_w1_b", "lokr_w2_b", "oft_R.weight",
     "psoft_R.weight", "vera_lambda_d", "miss_block", "poly_lora_A", "shira_weight", "tinylora_P",
     "modules_to_save.x.weight", "", "."]
)  # fmt: skip
_TENSORS = st.lists(
    st.builds(
        lambda start, path, tail, shape: TensorSpec(start + ".".join([*path, tail]), "F32", tuple(shape)),
        st.sampled_from(["base_model.model.", "base_model.", "", "_orig_mod.", "base_model.model.base_layer."]),
        st.lists(st.sampled_from(["q", "experts", "base_layer", "0", "²", "9" * 5000]), max_size=2),
        _TAILS,
        st.lists(st.integers(0, 9), max_size=4),
    ),
    max_size=5,
)
_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-9, 9)
    | st.floats()
    | st.sampled_from(["", "q", "(", "all-linear", "pissa"]),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["q", "(", "nblocks", "x"]), inner, max_size=2)
    ),
    max_leaves=4,
)
_FIELDS = st.sampled_from(
    ["r", "lora_alpha", "alpha", "rank_pattern", "alpha_pattern", "target_modules", "modules_to_save", "bias",
     "use_bdlora", "target_parameters", "kasa_config", "use_dora", "block_share", "hybrid_r",
     "trainable_token_indices", "scaling", "init_lora_weights", "psoft_alpha", "peft_version", "layer_replication"]
)  # fmt: skip


@given(
    peft_type=st.sampled_from([*sorted(PEFT_TYPES), "ZORA"]), tensors=_TENSORS, config=st.dictionaries(_FIELDS, _VALUES)
)
def test_whatever_is_in_an_adapter_it_is_read_or_its_config_refused(
    peft_type: str, tensors: list[TensorSpec], config: dict[str, Any]
) -> None:
    names = {spec.name: spec for spec in tensors}
    try:
        reading = read(names.values(), peft_type, **config)
    except MalformedConfigError:
        return
    assert set(reading.silent_if_zero) <= names.keys()


def test_a_header_full_of_tensors_is_read_in_a_second() -> None:
    """A MiB has room for 10,000 of them; each expert has lines of its own in both patterns, as EVA writes them."""
    paths = [f"model.layers.{i}.mlp.experts.{j}.{name}_proj" for i in range(13) for j in range(128) for name in "abc"]
    tensors = [one for path in paths for one in pair(path)]
    patterns: dict[str, Any] = {
        "rank_pattern": dict.fromkeys(paths[::2], 8),
        "alpha_pattern": dict.fromkeys(paths[::2], 16),
    }
    started = time.process_time()
    reading = read(tensors, **patterns)
    assert time.process_time() - started < 20
    assert [target.scaling for target in reading.targets].count(2.0) == len(paths) // 2
