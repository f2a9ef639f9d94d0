"""Weights in memory: merged in place as on disk, and given back bit by bit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from registry.connect import connect
from registry.errors import InvalidInputError, NotFoundError, RejectedError
from registry.numerics.merging import fused
from registry.transforms.merge import merge_, unmerge_

SHAPES = {
    "model.embed_tokens.weight": (32, 16),
    "model.layers.0.self_attn.q_proj.weight": (16, 16),
    "model.layers.0.mlp.up_proj.weight": (24, 16),
    "model.layers.0.mlp.up_proj.bias": (24,),
    "lm_head.weight": (32, 16),
}
CONFIG = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 32, "tie_word_embeddings": False}
TARGETS = ("model.layers.0.self_attn.q_proj", "model.layers.0.mlp.up_proj")

cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
DEVICES = ["cpu", pytest.param("cuda", marks=cuda)]


def weights(dtype: torch.dtype) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(shape, generator=generator).to(dtype) for name, shape in SHAPES.items()}


def adapter(into: Path, seed: int, *, targets: tuple[str, ...] = TARGETS, **options: Any) -> Path:
    into.mkdir()
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for target in targets:
        out, inputs = SHAPES[f"{target}.weight"]
        prefix = f"base_model.model.{target}"
        tensors[f"{prefix}.lora_A.weight"] = torch.randn(4, inputs, generator=generator) / 4
        tensors[f"{prefix}.lora_B.weight"] = torch.randn(out, 4, generator=generator) / 4
        if options.get("use_dora"):
            tensors[f"{prefix}.lora_magnitude_vector"] = torch.rand(out, generator=generator)
    save_file(tensors, into / "adapter_model.safetensors")
    names = sorted({target.rpartition(".")[2] for target in targets})
    config = {"peft_type": "LORA", "r": 4, "lora_alpha": 6, "target_modules": names, **options}
    (into / "adapter_config.json").write_text(json.dumps(config))
    return into


def bits(tensors: dict[str, Tensor]) -> dict[str, bytes]:
    return {name: one.cpu().contiguous().view(torch.uint8).numpy().tobytes() for name, one in tensors.items()}


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("options", [{}, {"use_rslora": True}, {"use_dora": True}])
def test_in_place_is_what_a_merge_on_disk_writes(
    device: str, dtype: torch.dtype, options: dict[str, Any], tmp_path: Path
) -> None:
    base, before = tmp_path / "base", weights(dtype)
    base.mkdir()
    save_file(before, base / "model.safetensors")
    (base / "config.json").write_text(json.dumps(CONFIG))
    one = adapter(tmp_path / "one", 1, **options)
    asked: list[Any] = [one] if options.get("use_dora") else [one, (adapter(tmp_path / "two", 2), -0.5)]
    connect(tmp_path / "registry").merge(base, asked, tmp_path / "out", device="cpu")
    wanted = load_file(tmp_path / "out" / "model.safetensors")

    held = {name: tensor.to(device, copy=True) for name, tensor in before.items()}
    places = {name: tensor.data_ptr() for name, tensor in held.items()}
    saved = merge_(held, asked, config=CONFIG)

    assert {name: tensor.data_ptr() for name, tensor in held.items()} == places
    assert {name for name in held if bits(held)[name] != bits(before)[name]} == {f"{name}.weight" for name in TARGETS}
    if device == "cpu":
        assert bits(held) == bits(wanted)
    else:
        for name, tensor in held.items():
            torch.testing.assert_close(tensor.cpu(), wanted[name], rtol=torch.finfo(dtype).eps, atol=1e-6)
    unmerge_(held, saved)
    assert bits(held) == bits(before)


def test_what_cannot_be_done_in_place_changes_nothing(tmp_path: Path) -> None:
    held = weights(torch.bfloat16)
    held["lm_head.weight"] = held["model.embed_tokens.weight"]
    before = bits(held)
    one = adapter(tmp_path / "one", 1, targets=("lm_head",))
    with pytest.raises(RejectedError, match="unties") as caught:
        merge_(held, [one], config={**CONFIG, "tie_word_embeddings": True})
    assert caught.value.hint
    assert bits(held) == before


def test_an_overflow_gives_the_weights_back(tmp_path: Path) -> None:
    held = weights(torch.float16)
    before = bits(held)
    one = adapter(tmp_path / "one", 1, lora_alpha=4_000_000)
    with pytest.raises(RejectedError, match="cannot hold"):
        merge_(held, [one], config=CONFIG)
    assert bits(held) == before


def test_only_the_weights_that_were_merged_into_are_given_back(tmp_path: Path) -> None:
    held = weights(torch.float32)
    saved = merge_(held, [adapter(tmp_path / "one", 1)], config=CONFIG)
    other = {name: tensor.to(torch.float16) for name, tensor in held.items()}
    with pytest.raises(InvalidInputError, match="not the weight"):
        unmerge_(other, saved)


@cuda
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("rows", "columns", "rank"), [(64, 128, 16), (70, 130, 8), (33, 200, 40), (4096, 4096, 64)])
def test_the_kernel_is_one_rounding_of_the_sum(dtype: torch.dtype, rows: int, columns: int, rank: int) -> None:
    torch.manual_seed(0)
    weight = torch.randn(rows, columns).to(dtype)
    up, down = torch.randn(rows, rank) / 10, torch.randn(rank, columns) / 10
    wanted = (weight.double() + 1.5 * up.double() @ down.double()).to(dtype)
    found = weight.cuda()
    assert fused.fits(found, ["lora"])
    fused.add_(found, [(up.cuda(), down.cuda(), 1.5)])
    share = float((found.cpu() != wanted).double().mean())
    assert share <= (1e-3 if dtype is not torch.float32 else 1)
    torch.testing.assert_close(found.cpu().double(), wanted.double(), rtol=2 * torch.finfo(dtype).eps, atol=1e-5)


def tied(dtype: torch.dtype) -> dict[str, Tensor]:
    """As ``state_dict()`` gives the weights of a tied model: one tensor under two names."""
    held = weights(dtype)
    held["lm_head.weight"] = held["model.embed_tokens.weight"]
    return held


def test_what_is_tied_in_memory_is_seen_without_a_config(tmp_path: Path) -> None:
    held = tied(torch.float32)
    before = bits(held)
    one = adapter(tmp_path / "one", 1, targets=("lm_head",))
    with pytest.raises(RejectedError, match="unties"):
        merge_(held, [one])
    assert bits(held) == before
    alone = {name: tensor for name, tensor in held.items() if name != "lm_head.weight"}
    embedding = {
        "base_model.model.model.embed_tokens.lora_embedding_A": torch.randn(4, 32),
        "base_model.model.model.embed_tokens.lora_embedding_B": torch.randn(16, 4),
    }
    save_file(embedding, one / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": 4, "lora_alpha": 6, "target_modules": ["embed_tokens"]}
    (one / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(RejectedError, match="tied"):
        merge_(alone, [one])
    assert bits(held) == before


def test_rows_of_both_sides_stay_one(tmp_path: Path) -> None:
    held = tied(torch.float32)
    one = adapter(tmp_path / "one", 1, trainable_token_indices=[3, 5])
    tensors = load_file(one / "adapter_model.safetensors")
    rows = torch.randn(2, 16)
    tensors["base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta"] = rows
    save_file(tensors, one / "adapter_model.safetensors")
    before = bits(held)
    saved = merge_(held, [one], config={**CONFIG, "tie_word_embeddings": True})
    assert torch.equal(held["model.embed_tokens.weight"][[3, 5]], rows)
    assert held["lm_head.weight"].data_ptr() == held["model.embed_tokens.weight"].data_ptr()
    unmerge_(held, saved)
    assert bits(held) == before


def test_a_partly_lost_adapter_is_refused(tmp_path: Path) -> None:
    held = weights(torch.float32)
    held["model.layers.1.self_attn.q_proj.weight"] = torch.randn(16, 16)
    before = bits(held)
    with pytest.raises(RejectedError, match=r"layers\.1"):
        merge_(held, [adapter(tmp_path / "one", 1)], config=CONFIG)
    assert bits(held) == before


@pytest.mark.parametrize("gone", ["all of it", "adapter_config.json", "adapter_model.safetensors", "a file"])
def test_an_adapter_that_is_not_there_is_one_sentence(gone: str, tmp_path: Path) -> None:
    path = adapter(tmp_path / "one", 1)
    if gone == "all of it":
        path = tmp_path / "nowhere"
    elif gone == "a file":
        path = path / "adapter_config.json"
    else:
        (path / gone).unlink()
    found = weights(torch.float32)
    before = bits(found)
    with pytest.raises(NotFoundError, match="is not a directory" if gone in ("all of it", "a file") else f"has no {gone}"):
        merge_(found, [path], config=CONFIG)
    assert bits(found) == before
