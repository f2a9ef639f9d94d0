"""What holds of every adapter and every engine."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.checks.profile import Profile, profiles
from registry.checks.rule import Subject
from registry.checks.serving import serving
from registry.checks.serving_features import kind
from registry.domain.base_model import BaseModelId
from registry.domain.digest import Digest
from registry.domain.finding import Severity
from registry.domain.manifest import Manifest, Target
from registry.domain.tensors import TensorSpec
from registry.formats.adapter_config import AdapterConfig
from tests.checks.subjects import layers, llama, subject

Q = "model.layers.0.self_attn.q_proj"
SCALAR = st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.floats() | st.text(max_size=8)
VALUE = SCALAR | st.lists(SCALAR, max_size=3) | st.dictionaries(st.text(max_size=8), SCALAR, max_size=3)
FIELDS = (
    "r", "lora_alpha", "bias", "lora_bias", "use_dora", "use_rslora", "modules_to_save", "rank_pattern", "alpha_pattern",
    "init_lora_weights", "target_modules", "target_parameters", "trainable_token_indices", "alora_invocation_tokens",
    "use_bdlora", "kasa_config", "layer_replication", "layers_to_transform", "base_model_name_or_path",
)  # fmt: skip
NAMES = st.sampled_from(
    ["lora_A.weight", "lora_B.weight", "lora_B.bias", "lora_embedding_A", "lora_magnitude_vector", "base_layer.weight",
     "weight", "bias", "token_adapter.trainable_tokens_delta", "lora_diag", "", "x"]
)  # fmt: skip
PATHS = st.sampled_from(
    [Q, "model.embed_tokens", "lm_head", "model.layers.99999999999.x", "mlp.experts.down_proj", "", ".", "²"]
)
TENSORS = st.lists(
    st.builds(
        lambda path, tail, shape: TensorSpec(f"base_model.model.{path}.{tail}", "F32", tuple(shape)),
        PATHS,
        NAMES,
        st.lists(st.integers(0, 9), max_size=3),
    ),
    max_size=5,
)
TARGETS = st.lists(
    st.builds(
        Target,
        PATHS,
        st.none() | st.integers(1, 600),
        st.none() | st.floats(allow_nan=False),
        st.none() | st.floats(allow_nan=False),
    ),
    max_size=5,
)


@given(
    row=st.sampled_from(profiles()),
    method=st.sampled_from(["LORA", "LOHA", "BONE", "x"]),
    config=st.dictionaries(st.sampled_from(FIELDS), VALUE),
    tensors=TENSORS,
    targets=TARGETS,
    base=st.none()
    | st.builds(llama, layer_count=st.integers(0, 3), vocabulary=st.none() | st.integers(0, 9), is_tied=st.booleans()),
)
def test_whatever_the_adapter_is_no_rule_raises(
    row: Profile, method: str, config: dict[str, Any], tensors: list[TensorSpec], targets: list[Target], base: Any
) -> None:
    empty = Digest.of(b"")
    manifest = Manifest(method, "lora", BaseModelId(None), None, tuple(targets), tuple(tensors), empty, ())
    for finding in serving(Subject(manifest, AdapterConfig({"peft_type": method, **config}), base, row)):
        assert finding.rule.startswith("serve-")
        assert finding.message
        assert finding.where is not None
        assert finding.fix
        assert finding.document()


@given(st.sampled_from(profiles()), st.sampled_from([8, 16]), st.integers(1, 64))
def test_a_lora_of_one_rank_and_alpha_is_served_by_all(row: Profile, rank: int, alpha: int) -> None:
    adapter = subject(layers("q_proj", "v_proj", rank=rank), r=rank, lora_alpha=alpha, profile=row, base=llama())
    assert not any(finding.severity is Severity.ERROR for finding in serving(adapter))


@pytest.mark.parametrize(
    ("name", "saved", "feature"),
    [
        (f"base_model.model.{Q}.lora_A.weight", (), "lora"),
        ("base_model.model.model.embed_tokens.token_adapter.base_layer.weight", (), "trainable_tokens"),
        ("base_model.model.lm_head.base_layer.weight", (), "base_copy"),
        ("base_model.model.classifier.dense.weight", ("classifier",), "modules_to_save"),
        ("base_model.model.classifier.lora_A.weight", ("classifier",), "lora"),
        ("base_model.model.model.norm.weight", (), "norm"),
        ("base_model.model.lm_head.weight", (), "whole_embedding"),
        ("base_model.model.score.weight", (), "other"),
        ("weight", (), "other"),
    ],
)
def test_tensors_are_known_by_their_names(name: str, saved: tuple[str, ...], feature: str) -> None:
    assert kind(name, saved) == feature
