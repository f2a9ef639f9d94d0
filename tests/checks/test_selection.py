"""Tensors of modules that the config does not choose are dropped by PEFT, and said here."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.checks.bases import HIDDEN, LLAMA, base, noticed, subject
from tests.variants.adapters import pair, tensor

Q = "model.layers.{}.self_attn.q_proj"
BOTH = [*pair(Q.format(0), inputs=HIDDEN, outputs=HIDDEN), *pair(Q.format(1), inputs=HIDDEN, outputs=HIDDEN)]


@pytest.mark.parametrize(
    "config",
    [
        {"target_modules": ["q_proj"]},
        {"target_modules": None},
        {"target_modules": r".*\.q_proj"},
        {"target_modules": ["q_proj"], "layers_to_transform": [0, 1]},
        {"target_modules": ["q_proj"], "layers_to_transform": [0, 1], "layers_pattern": "layers"},
        {"target_modules": ["q_proj"], "exclude_modules": ["k_proj"]},
        {"target_modules": ["self_attn.q_proj"], "exclude_modules": r".*\.9\..*"},
    ],
)
def test_what_is_chosen(config: dict[str, Any]) -> None:
    assert noticed(subject(BOTH, **config)) == []


@pytest.mark.parametrize(
    "config",
    [
        {"target_modules": ["k_proj"]},
        {"target_modules": ["Q_PROJ"]},
        {"target_modules": []},
        {"target_modules": r".*\.h\.\d+\.q_proj"},
        {"target_modules": ["q_proj"], "exclude_modules": ["q_proj"]},
        {"target_modules": ["q_proj"], "layers_to_transform": [7]},
        {"target_modules": ["q_proj"], "layers_to_transform": 0},
        {"target_modules": ["q_proj"], "layers_to_transform": [0, 1], "layers_pattern": "h"},
    ],
)
def test_what_is_not(config: dict[str, Any]) -> None:
    assert noticed(subject(BOTH, **config)).count("target-not-chosen") == 1


def test_an_expression_that_cannot_be_evaluated_here_accuses_nobody() -> None:
    assert "target-not-chosen" not in noticed(subject(BOTH, target_modules=r"(?!x)(?=.*q).*k_proj"))


def test_a_lost_layer_or_a_deeper_base_is_said() -> None:
    lost = BOTH[:2]
    assert noticed(subject(lost, target_modules=["q_proj"])) == ["layer-without-tensors"]
    assert noticed(subject(lost, target_modules=["q_proj"], layers_to_transform=[0])) == []
    deeper = base({**LLAMA, f"{Q.format(2)}.weight": (HIDDEN, HIDDEN)})
    assert noticed(subject(BOTH, deeper, target_modules=["q_proj"])) == ["layer-without-tensors"]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (r".*\.q_proj", []),
        (r".*\.(q|k)_proj", ["kind-without-tensors"]),
        (r".*_proj", ["kind-without-tensors"]),
        (r".*\.q_proj|lm_head", ["kind-without-tensors"]),
        (r".*\.q_proj|score", []),
        ("all-linear", ["kind-without-tensors"]),
    ],
)
def test_a_kind_of_module_that_an_expression_means_and_the_file_lacks(asked: str, said: list[str]) -> None:
    assert noticed(subject(BOTH, target_modules=asked)) == said


def test_what_is_saved_whole_is_not_missed() -> None:
    whole = [tensor(f"model.layers.{layer}.self_attn.k_proj.weight", 32, HIDDEN) for layer in range(2)]
    config = {"target_modules": r".*\.(q|k)_proj", "modules_to_save": ["k_proj"]}
    assert noticed(subject([*BOTH, *whole], **config)) == []


def test_the_one_embedding_of_an_encoder_and_a_decoder() -> None:
    tensors = {
        "shared.weight": (32, 8),
        "encoder.block.0.layer.0.SelfAttention.q.weight": (8, 8),
        "decoder.block.0.layer.0.SelfAttention.q.weight": (8, 8),
    }
    on = base(tensors, model_type="t5", architecture="T5ForConditionalGeneration")
    for side in ("encoder", "decoder"):
        path = f"{side}.block.0.layer.0.SelfAttention.q"
        found = noticed(subject(pair(path, inputs=8, outputs=8), on, target_modules=["q"], task_type="SEQ_2_SEQ_LM"))
        assert "unmatched-target" not in found


@pytest.mark.parametrize(("layer", "chosen"), [(0, False), (1, True)])
def test_the_layer_is_the_first_number_of_the_path(layer: int, chosen: bool) -> None:
    """``encoder.block.1.layer.0``: PEFT 0.21 takes the block's, and experts and parts of a layer are no layers."""
    paths = [f"encoder.block.{layer}.layer.{part}.SelfAttention.q" for part in range(2)]
    on = base({f"{path}.weight": (8, 8) for path in paths}, model_type="t5", architecture="T5ForConditionalGeneration")
    tensors = [spec for path in paths for spec in pair(path, inputs=8, outputs=8)]
    config = {"target_modules": ["q"], "layers_to_transform": [1], "task_type": "SEQ_2_SEQ_LM"}
    assert noticed(subject(tensors, on, **config)) == ([] if chosen else ["target-not-chosen"])


def test_it_is_said_without_a_base_too() -> None:
    held = replace(subject(BOTH, target_modules=["k_proj"]), base=None)
    assert "target-not-chosen" in noticed(held)


def test_a_shared_expert_that_was_lost_is_said_though_its_names_are_met() -> None:
    """The other experts, one by one as earlier versions of transformers had them, have modules of the same names."""
    mlp, names = "model.layers.{}.mlp.{}", ("gate_proj", "up_proj")
    experts = [mlp.format(layer, f"experts.{number}.{name}") for layer in (0, 1) for number in (0, 1) for name in names]
    shared = [mlp.format(layer, f"shared_expert.{name}") for layer in (0, 1) for name in names]
    shapes = {f"{path}.weight": (8, HIDDEN) for path in (*experts, *shared)}
    tower = {"visual.blocks.0.mlp.gate_proj.weight": (8, HIDDEN)}  # which the trained class may lack
    on = base(shapes | tower, model_type="qwen2_moe", architecture="Qwen2MoeForCausalLM")
    whole = {path: pair(path, inputs=HIDDEN, outputs=8) for path in (*experts, *shared)}
    every = [one for tensors in whole.values() for one in tensors]
    assert "kind-without-tensors" not in noticed(subject(every, on, target_modules=[*names]))
    lost = [one for path in experts for one in whole[path]]
    assert noticed(subject(lost, on, target_modules=[*names])).count("kind-without-tensors") == 1
    assert "kind-without-tensors" not in noticed(subject(lost, on, target_modules=[*names], exclude_modules=r".*shared.*"))
    half = [one for path in experts if path.endswith("up_proj") for one in whole[path]]
    assert "kind-without-tensors" in noticed(subject(half, on, target_modules=[*names]))  # of up_proj; gate_proj is absent
