"""Elements in which weighted deltas have opposite signs, counted from factors block by block, are those of the dense deltas."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from registry.connect import Registry
from registry.errors import RejectedError
from registry.transforms import inspect

LONG = "model.decoder.layers.0.self_attention.output.q_proj"
TARGETS = {"layers.0.q_proj": (6, 5), "layers.0.v_proj": (4, 9), "layers.1.q_proj": (6, 5), LONG: (3, 3)}


def adapter(into: Path, seed: int, *targets: str, **config: object) -> Path:
    into.mkdir()
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for target in targets:
        out, inputs = TARGETS[target]
        tensors[f"base_model.model.{target}.lora_A.weight"] = torch.randn(2, inputs, generator=generator)
        tensors[f"base_model.model.{target}.lora_B.weight"] = torch.randn(out, 2, generator=generator)
    save_file(tensors, into / "adapter_model.safetensors")
    said = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM"}
    (into / "adapter_config.json").write_text(json.dumps({**said, "base_model_name_or_path": "acme/tiny", **config}))
    return into


def dense(place: Path, target: str) -> torch.Tensor | None:
    tensors = load_file(place / "adapter_model.safetensors")
    down = tensors.get(f"base_model.model.{target}.lora_A.weight")
    up = tensors.get(f"base_model.model.{target}.lora_B.weight")
    return None if down is None or up is None else up.double() @ down.double()


@pytest.mark.parametrize("columns", [1, 2, 8192])
def test_sign_conflicts_are_those_of_the_dense_deltas(
    store: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    monkeypatch.setattr(inspect, "_COLUMNS", columns)
    places = [
        adapter(tmp_path / "a", 1, "layers.0.q_proj", "layers.0.v_proj"),
        adapter(tmp_path / "b", 2, "layers.0.q_proj", "layers.1.q_proj"),
        adapter(tmp_path / "c", 3, "layers.0.q_proj", "layers.0.v_proj"),
    ]
    weights = [0.5, -1.5, 0.0]
    both = total = 0
    for target in TARGETS:
        held = [(dense(place, target), weight) for place, weight in zip(places, weights, strict=True)]
        found = [delta * weight for delta, weight in held if delta is not None]
        if len(found) > 1:
            stacked = torch.stack(found)
            both += int(((stacked > 0).any(0) & (stacked < 0).any(0)).sum())
            total += found[0].numel()
    done = store.interference(list(zip(places, weights, strict=True)))
    assert both
    assert done.conflicts == pytest.approx(both / total)


@pytest.mark.slow
def test_what_a_delta_is_multiplied_by_must_be_known(store: Registry, tmp_path: Path) -> None:
    """The pattern runs away, and nothing can tell what it matches."""
    odd = adapter(tmp_path / "odd", 1, LONG, alpha_pattern={r"([a-z_.0-9]+)+\1q_proj!": 7})
    other = adapter(tmp_path / "other", 2, LONG)
    asks = (lambda: store.inspect(odd), lambda: store.diff(other, odd), lambda: store.interference([odd, other]))
    for ask in asks:
        with pytest.raises(RejectedError, match="is not known") as caught:
            ask()
        assert caught.value.code == "scaling-unknown"


def test_what_is_no_pair_of_factors_is_said_to_be_left_out(store: Registry, tmp_path: Path) -> None:
    plain = adapter(tmp_path / "plain", 1, "layers.0.q_proj")
    assert store.inspect(plain).left_out == ()
    head = adapter(tmp_path / "head", 1, "layers.0.q_proj", modules_to_save=["lm_head"])
    tensors = load_file(head / "adapter_model.safetensors")
    save_file({**tensors, "base_model.model.lm_head.weight": torch.ones(3, 4)}, head / "adapter_model.safetensors")
    assert store.inspect(head).left_out == ("lm_head",)


def test_what_rounding_leaves_of_a_sum_that_vanishes_is_no_change(store: Registry, tmp_path: Path) -> None:
    """Whoever looks at it sees what was said when it was made: nothing."""
    one = adapter(tmp_path / "one", 1, "layers.0.q_proj", "layers.0.v_proj")
    assert store.combine([(one, 0.7), (one, -0.7)], tmp_path / "none").norm == 0
    seen = store.inspect(tmp_path / "none")
    assert (seen.norm, set(seen.dead), seen.sufficient_rank) == (0, {"layers.0.q_proj", "layers.0.v_proj"}, 1)
    assert {value for layer in seen.layers for value in layer.values} == {0.0}
    found = store.diff(tmp_path / "none", one)
    assert (found.norm, found.cosine) == (0, 0)
    assert found.other_norm == pytest.approx(store.inspect(one).norm)
