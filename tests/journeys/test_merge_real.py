"""SmolLM2-135M and an adapter trained on it: merged from the command line, loaded by transformers without a word, and it says
the same tokens as the model with the adapter beside it."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.journeys.real_adapters import SENTENCES, smollm2, train_smollm2

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

QUESTIONS = ["The capital of France is", SENTENCES[0]]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.getbasetemp() / "models"


@pytest.fixture(scope="module")
def my_lora(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> tuple[Path, list[list[int]]]:
    """The adapter, and what the model says with it."""
    place = tmp_path_factory.mktemp("trained") / "my-lora"
    return place, says(*train_smollm2(place, cache, steps=4))


def adapters(*words: str | Path) -> str:
    """The command line; its output. Nothing is looked up in a registry."""
    registry = Path(os.devnull) / "registry"
    done = subprocess.run(
        [Path(sys.executable).with_name("adapters"), *map(str, words)],
        capture_output=True,
        encoding="utf-8",
        env={**os.environ, "ADAPTERS_REGISTRY": str(registry), "HF_HUB_OFFLINE": "1"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@contextmanager
def silence() -> Iterator[None]:
    """Whatever transformers, PEFT or Python say in here is an error."""
    said: list[str] = []

    class Ear(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.levelno >= logging.WARNING:
                said.append(record.getMessage())

    ear = Ear()
    names = ("transformers", "peft", "safetensors")
    for name in names:
        logging.getLogger(name).addHandler(ear)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            yield
        finally:
            for name in names:
                logging.getLogger(name).removeHandler(ear)
    said += [str(one.message) for one in caught if not issubclass(one.category, DeprecationWarning)]
    assert said == []


def says(model: Any, tokenizer: Any) -> list[list[int]]:
    """16 tokens to each question, the likeliest each time."""
    import torch

    found = []
    for question in QUESTIONS:
        batch = tokenizer(question, return_tensors="pt")
        with torch.no_grad():
            found.append(model.generate(**batch, max_new_tokens=16, do_sample=False)[0].tolist())
    return found


def loaded(directory: Path) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    with silence():
        model, told = AutoModelForCausalLM.from_pretrained(directory, output_loading_info=True)
        tokenizer = AutoTokenizer.from_pretrained(directory)
    assert not any(told.values()), told
    return model.eval(), tokenizer


def test_a_merged_smollm2_says_what_it_was_trained_to(
    tmp_path: Path, cache: Path, my_lora: tuple[Path, list[list[int]]]
) -> None:
    adapter, right = my_lora
    base, out = cache / "smollm2-135m", tmp_path / "out"
    adapters("merge", base, adapter, "-o", out, "--device", "cpu", "--allow", "base-id")
    model, own = loaded(out)
    assert says(model, own) == right
    assert says(loaded(base)[0], own) != right
    proof = json.loads(
        adapters("verify", "--all", "--json", "--allow", "base-id", out, "--base", base, "--adapter", adapter)
    )
    assert proof["sound"] is True
    assert proof["sampled"] is False
    assert proof["tensors"]["changed"] == 90
    assert proof["elements"]["looked_at"] == proof["elements"]["changed_tensors"] > 10_000_000
    print(proof)


def test_merged_in_16_bits_it_is_what_peft_makes(
    tmp_path: Path, cache: Path, my_lora: tuple[Path, list[list[int]]]
) -> None:
    import torch
    from peft import PeftModel
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM

    adapter, _ = my_lora
    whole = cache / "smollm2-135m"
    model = AutoModelForCausalLM.from_pretrained(whole, dtype=torch.bfloat16)
    base, out = tmp_path / "base", tmp_path / "out"
    model.save_pretrained(base, max_shard_size="60MB")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (base / name).write_bytes((whole / name).read_bytes())
    adapters("merge", base, adapter, "-o", out, "--device", "cpu", "--allow", "base-id")
    merged, own = loaded(out)
    assert merged.dtype == torch.bfloat16
    PeftModel.from_pretrained(model, adapter).merge_and_unload(safe_merge=False).save_pretrained(tmp_path / "peft")
    theirs = load_file(tmp_path / "peft" / "model.safetensors")
    ours = {name: tensor for path in out.glob("*.safetensors") for name, tensor in load_file(path).items()}
    assert ours.keys() == theirs.keys()
    unlike = sum(int((ours[name] != theirs[name]).sum()) for name in ours)
    print(unlike, "of", sum(tensor.numel() for tensor in ours.values()), "elements are not PEFT's")
    assert unlike <= sum(tensor.numel() for tensor in ours.values()) / 1000
    assert says(merged, own) == says(AutoModelForCausalLM.from_pretrained(tmp_path / "peft").eval(), own)
    assert json.loads(adapters("verify", "--all", "--json", "--allow", "base-id", out, "--base", base, "--adapter",
                               adapter))["sound"] is True  # fmt: skip


def test_its_two_embeddings_become_two(tmp_path: Path, cache: Path) -> None:
    """SmolLM2 is tied; a LoRA of the output alone leaves the input as it was."""
    import torch
    from peft import LoraConfig, get_peft_model

    model, tokenizer = smollm2(cache)
    wrapped = get_peft_model(model, LoraConfig(r=2, target_modules=["lm_head", "q_proj"], task_type="CAUSAL_LM"))
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if "lora_B" in name:
                parameter += 0.02 * torch.randn_like(parameter)
    wrapped.eval().save_pretrained(tmp_path / "my-lora", save_embedding_layers=False)
    adapters(
        "merge",
        cache / "smollm2-135m",
        tmp_path / "my-lora",
        "-o",
        tmp_path / "out",
        "--device",
        "cpu",
        "--allow",
        "base-id",
    )
    merged, own = loaded(tmp_path / "out")
    assert merged.config.tie_word_embeddings is False
    assert torch.equal(merged.get_input_embeddings().weight, smollm2(cache)[0].get_input_embeddings().weight)
    assert says(merged, own) == says(wrapped, tokenizer)
