"""A verifier of somebody else (PyPI ``deltalint``), who replays PEFT's merge, finds every bit of ours where it expects it.

It is told the adapter as PEFT loads it: factors of 16 bits widened to float32, and patterns by the full names of the layers,
since it knows no regular expressions.
"""

from __future__ import annotations

import json
from math import sqrt
from pathlib import Path

import deltalint
import pytest
import torch
import transformers as hf
from safetensors.torch import load_file
from torch import Tensor

from tests.oracle import merge_oracle as oracle
from tests.oracle.lora_cases import LORA
from tests.oracle.merge_oracle import DTYPES, Tensors
from tests.oracle.peft_view import peft_view
from tests.oracle.test_merge_against_peft import Sample, architectures, loras

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

IN_FILE = "base_model.model."
#: Plain LoRA, rsLoRA, patterns, embeddings. Of saved modules it knows only those with a weight of their own.
PLAIN = (
    "linear", "alpha", "rank-stabilised", "rank-stabilised-patterns", "conv1d-module", "embedding", "one-regular-expression",
    "look-ahead", "all-linear", "full-names", "layers-to-transform", "excluded", "overlapping-patterns",
    "look-ahead-in-patterns", "full-names-in-patterns", "targeted-embeddings", "init-gaussian",
    "init-orthogonal", "init-False",
)  # fmt: skip
ARCHITECTURES = ("llama", "llama embeddings", "gemma", "phi-3", "falcon", "opt", "bert", "llama saved bare")
FORMS = ("lora", "rslora")
PATTERNS = {"rank-stabilised-patterns", "overlapping-patterns", "look-ahead-in-patterns"}


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """PEFT asks the Hub about the base model's vocabulary."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    hf.logging.set_verbosity_error()


def told(sample: Sample) -> Path:
    """The adapter in words that deltalint understands."""
    place = oracle.altered(sample.adapter, sample.place / "told", lambda all_: {k: v.float() for k, v in all_.items()})
    if sample.name in PATTERNS:
        case = next(case for case in LORA if case.name == sample.name)
        rslora = json.loads((place / oracle.CONFIG).read_text())["use_rslora"]
        layers = {path: layer for path, layer in peft_view(case.model, sample.adapter).items() if layer.rank}
        alphas = {
            path: (layer.scaling or 0) * (sqrt(layer.rank or 0) if rslora else layer.rank or 0)
            for path, layer in layers.items()
        }
        oracle.edit_config(
            place, rank_pattern={path: layer.rank for path, layer in layers.items()}, alpha_pattern=alphas
        )
    return place


def replayed(adapter: Path, before: Tensors, out: Tensors) -> tuple[int, int]:
    """How many layers were replayed, and how many of their elements are not what the replay says."""
    config, factors = deltalint.AdapterConfig.load(adapter), load_file(adapter / oracle.WEIGHTS)
    layers = unlike = 0
    for key, down in factors.items():
        path, mark, tail = key.removeprefix(IN_FILE).partition(".lora_")
        if not mark or tail not in {"A.weight", "embedding_A"}:
            continue
        name, up = f"{path}.weight", factors[key.replace("lora_A", "lora_B").replace("embedding_A", "embedding_B")]
        old, new = ({one.removeprefix("model."): each for one, each in them.items()} for them in (before, out))
        short = name.removeprefix("model.")
        found = deltalint.fingerprint(
            old[short], new[short], _delta(config, path, up, down, tail), adapter_dtype=torch.float32
        )
        layers += 1
        unlike += round(found.mismatch_fraction * old[short].numel())
        assert found.has_any_evidence
    return layers, unlike


def _delta(config: deltalint.AdapterConfig, path: str, up: Tensor, down: Tensor, tail: str) -> Tensor:
    from deltalint.reconstruct import expected_delta, expected_embedding_delta

    if tail == "embedding_A":
        return expected_embedding_delta(down, up, config.scaling_for(path))
    return expected_delta(down, up, config.scaling_for(path), fan_in_fan_out=config.fan_in_fan_out)


@pytest.mark.parametrize("kind", DTYPES)
def test_every_plain_merge_is_accepted_to_the_bit(kind: str, tmp_path: Path) -> None:
    merges = layers = 0
    samples = [*loras(DTYPES[kind], tmp_path / "a", PLAIN), *architectures(DTYPES[kind], tmp_path / "b", ARCHITECTURES)]
    for sample in samples:
        if sample.name not in PLAIN and not sample.name.endswith(FORMS):
            continue
        oracle.merge(sample.base, sample.adapter, sample.place / "out")
        adapter = told(sample)
        report = deltalint.check_merge(sample.base, adapter, sample.place / "out")
        assert report.verdict is deltalint.Verdict.PASS, (sample.name, sample.place.name, report.to_dict())
        assert report.counts()["PASS"] == len(report.layers)
        count, unlike = replayed(adapter, oracle.tensors_of(sample.base), oracle.tensors_of(sample.place / "out"))
        assert unlike == 0, (sample.name, sample.place.name)
        assert count
        merges, layers = merges + 1, layers + count
    print(f"\n{kind}: deltalint accepts {merges} merges of {layers} layers, every bit as it replays them")
    assert merges == 3 * (len(PLAIN) + len(FORMS) * len(ARCHITECTURES))


def test_it_would_have_seen_a_wrong_one(tmp_path: Path) -> None:
    """Another scaling, one layer left out, one element off by one step."""
    sample = next(iter(loras(torch.float32, tmp_path, ("linear",))))
    oracle.merge(sample.base, sample.adapter, sample.place / "out")
    good = oracle.tensors_of(sample.place / "out")
    before = oracle.tensors_of(sample.base)
    assert replayed(sample.adapter, before, good) == (2, 0)
    one = good["lin0.weight"].clone()
    one[3, 4] = torch.nextafter(one[3, 4], torch.tensor(9.0))
    assert replayed(sample.adapter, before, {**good, "lin0.weight": one}) == (2, 1)
    oracle.merge(sample.base, [(sample.adapter, 1.1)], sample.place / "scaled")
    scaled = deltalint.check_merge(sample.base, sample.adapter, sample.place / "scaled")
    assert scaled.verdict is deltalint.Verdict.FAIL
    assert deltalint.check_merge(sample.base, sample.adapter, sample.base).verdict is deltalint.Verdict.FAIL
