"""Where PEFT's own merge is not what was trained: held against the model with the adapter beside it, or against float64."""

from __future__ import annotations

import copy
from math import sqrt
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file

from tests.oracle import merge_oracle as oracle
from tests.oracle import tiny_models as tiny
from tests.oracle.base_cases import CASES
from tests.oracle.lora_cases import LORA
from tests.oracle.merge_oracle import ROUNDING, Tensors, apart, config_of, loaded, logits, merged, refusal, tensors_of
from tests.oracle.tiny_models import seeded

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

HEAD = "lm_head.weight"
EMBEDDING = "model.embed_tokens.weight"


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """PEFT asks the Hub about the base model's vocabulary."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    hf.logging.set_verbosity_error()


#: A tied base: what is trained, and whether the two sides are still one afterwards.
TIED: dict[str, tuple[dict[str, Any], bool]] = {
    "embedding": ({"target_modules": ["embed_tokens", "q_proj"]}, False),
    "head": ({"target_modules": ["lm_head", "q_proj"]}, False),
    "both": ({"target_modules": ["embed_tokens", "lm_head"]}, False),
    "neither": ({"target_modules": ["q_proj"]}, True),
    "embedding tied": ({"target_modules": ["embed_tokens", "q_proj"], "ensure_weight_tying": True}, True),
    "head tied": ({"target_modules": ["lm_head", "q_proj"], "ensure_weight_tying": True}, True),
    "both tied": ({"target_modules": ["embed_tokens", "lm_head"], "ensure_weight_tying": True}, True),
    "dora of both": ({"target_modules": ["embed_tokens", "lm_head"], "use_dora": True}, False),
    "embedding saved": ({"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"]}, False),
    "head saved": ({"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]}, False),
    "both saved": ({"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens", "lm_head"]}, False),
    "embedding saved tied": (
        {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"], "ensure_weight_tying": True},
        True,
    ),
    "head saved tied": (
        {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"], "ensure_weight_tying": True},
        True,
    ),
    "both saved tied": (
        {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens", "lm_head"], "ensure_weight_tying": True},
        True,
    ),
    "tokens": ({"target_modules": ["q_proj"], "trainable_token_indices": [1, 7]}, True),
    "tokens of the embedding": (
        {"target_modules": ["q_proj"], "trainable_token_indices": {"embed_tokens": [1, 7]}},
        True,
    ),
    "tokens of the head": ({"target_modules": ["q_proj"], "trainable_token_indices": {"lm_head": [2]}}, False),
    "tokens of both": (
        {"target_modules": ["q_proj"], "trainable_token_indices": {"embed_tokens": [1, 7], "lm_head": [2]}},
        False,
    ),
    "the same tokens of both": (
        {"target_modules": ["q_proj"], "trainable_token_indices": {"embed_tokens": [1, 7], "lm_head": [1, 7]}},
        True,
    ),
}


#: What PEFT's own merge does something else than the trained model for.
PEFT_WRONG = {
    "both",
    "both tied",
    "dora of both",
    "embedding",
    "embedding tied",
    "head",
    "head tied",
    "tokens of both",
    "tokens of the head",
}


def test_tied_embeddings_do_what_was_trained(tmp_path: Path) -> None:
    wrong: set[str] = set()
    base = oracle.save_base(seeded(tiny.tied_llama), tmp_path / "base")
    assert HEAD not in tensors_of(base)
    for name, (options, kept) in TIED.items():
        wrapped = get_peft_model(seeded(tiny.tied_llama), LoraConfig(r=2, task_type="CAUSAL_LM", **options))
        oracle.perturb(wrapped)
        adapter = oracle.save_adapter(wrapped, tmp_path / name / "adapter")
        right = logits(wrapped)
        if apart(logits(wrapped.merge_and_unload()), right) > 1e-3:
            wrong.add(name)
        out = merged(base, adapter, tmp_path / name / "out")
        assert (HEAD not in out, config_of(tmp_path / name / "out")["tie_word_embeddings"]) == (kept, kept), name
        model = loaded(hf.LlamaForCausalLM, tmp_path / name / "out")
        assert apart(logits(model), right) < ROUNDING, name
    print("PEFT's own merge is wrong about", sorted(wrong))
    assert wrong == PEFT_WRONG


def test_a_delta_trained_as_one_is_added_once_in_16_bits(tmp_path: Path) -> None:
    """The factors that one matrix was trained with in float32 are each other's transposes; on a 16-bit base PEFT makes them two."""
    config = LoraConfig(
        r=2, target_modules=["embed_tokens", "lm_head"], ensure_weight_tying=True, task_type="CAUSAL_LM"
    )
    adapter = oracle.train(seeded(tiny.tied_llama), config, tmp_path / "adapter")
    base = oracle.save_base(seeded(tiny.tied_llama).to(torch.bfloat16), tmp_path / "base")
    before, factors = tensors_of(base)[EMBEDDING], oracle.load_file(adapter / oracle.WEIGHTS)
    up, down = (factors[f"base_model.model.model.embed_tokens.lora_embedding_{side}"].double() for side in "BA")
    out = merged(base, adapter, tmp_path / "out")
    assert HEAD not in out
    assert oracle.excess(out[EMBEDDING], before.double() + 4 * (up @ down).T, before) < 1
    narrow = oracle.train(seeded(tiny.tied_llama).to(torch.bfloat16), config, tmp_path / "narrow")
    assert refusal(base, narrow, tmp_path / "no") == "tied-factors-differ"


#: Experts of transformers 4: the case of base_cases, and what its single matrices are called.
EXPERTS = {"mixtral": ("w1", "w2", "w3"), "qwen-moe": ("gate_proj", "up_proj", "down_proj")}


@pytest.mark.parametrize("rslora", [False, True])
def test_experts_under_their_own_names(rslora: bool, tmp_path: Path) -> None:
    """PEFT on transformers 5 fuses them, doubles rank and alpha, and so multiplies by √2 what rsLoRA trained."""
    ratios = {}
    for name, parts in EXPERTS.items():
        case = next(case for case in CASES if case.name == name)
        torch.manual_seed(0)
        base = oracle.save_base(case.base().to(torch.bfloat16), tmp_path / name / "base")
        before = tensors_of(base)
        experts = [each.removesuffix(".weight") for each in before if ".experts." in each]
        assert len(experts) == 2 * 4 * 3
        factors: Tensors = {}
        for expert in experts:
            rows, columns = before[f"{expert}.weight"].shape
            factors[f"base_model.model.{expert}.lora_A.weight"] = torch.randn(2, columns)
            factors[f"base_model.model.{expert}.lora_B.weight"] = 0.05 * torch.randn(rows, 2)
        adapter = tmp_path / name / "adapter"
        adapter.mkdir()
        save_file(factors, adapter / oracle.WEIGHTS)
        config = LoraConfig(r=2, lora_alpha=6, target_modules=list(parts), use_rslora=rslora, task_type="CAUSAL_LM")
        config.save_pretrained(str(adapter))
        shared = any(".shared_expert." in each for each in before)  # which the names choose too, and has no factors here
        out = merged(base, adapter, tmp_path / name / "out", allow=frozenset(["partial"] if shared else []))
        peft = oracle.by_peft(
            case.base().from_pretrained(base, dtype=torch.bfloat16), adapter, tmp_path / name / "peft"
        )
        scaling = 6 / sqrt(2) if rslora else 3.0
        for expert in experts:
            down, up = (factors[f"base_model.model.{expert}.lora_{side}.weight"].double() for side in "AB")
            old = before[f"{expert}.weight"]
            exact = old.double() + scaling * (up @ down)
            assert oracle.excess(out[f"{expert}.weight"], exact, old) < 1
            change = peft[f"{expert}.weight"].double() - old.double()
            ratios[name] = float(change.norm() / (scaling * (up @ down)).norm())
        assert all(torch.equal(out[each], before[each]) for each in before if ".experts." not in each)
    print("PEFT's change over the right one:", ratios)
    assert ratios["mixtral"] == pytest.approx(sqrt(2) if rslora else 1, rel=1e-2)


#: What is never merged, by what the config says: fields → rule.
NEVER: dict[str, tuple[dict[str, Any], str]] = {
    "arrow": ({"arrow_config": {"top_k": 2}}, "not-mergeable"),
    "alora": ({"alora_invocation_tokens": [1, 2]}, "not-mergeable"),
    "qalora": ({"use_qalora": True}, "not-mergeable"),
    "layer replication": ({"layer_replication": [[0, 2], [1, 2]]}, "layers-replicated"),
    **{
        start: ({"init_lora_weights": start}, "base-changed-by-initialization")
        for start in ("pissa", "pissa_niter_16", "olora", "corda", "loftq", "lora_ga")
    },
}


def test_refused_by_name(tmp_path: Path) -> None:
    base = oracle.save_base(seeded(tiny.llama), tmp_path / "base")
    config = LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM")
    plain = oracle.train(seeded(tiny.llama), config, tmp_path / "plain")
    found = {}
    for name, (fields, _) in NEVER.items():
        adapter = oracle.altered(plain, tmp_path / name, lambda tensors: tensors)
        oracle.edit_config(adapter, **fields)
        found[name] = refusal(base, adapter, tmp_path / "out")
        if "init_lora_weights" not in fields:
            assert refusal(base, adapter, tmp_path / "out", base_is_residual=True) == found[name]
        else:
            merged(base, adapter, tmp_path / name / "out", base_is_residual=True)
    assert found == {name: rule for name, (_, rule) in NEVER.items()}


def test_the_residual_base_and_what_was_taken_out_of_it(tmp_path: Path) -> None:
    """PiSSA and OLoRA on the base that PEFT left over do what was trained."""
    for start in ("pissa", "olora"):
        config = LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=start, task_type="CAUSAL_LM")
        wrapped = get_peft_model(seeded(tiny.llama), config)
        oracle.perturb(wrapped)
        adapter = oracle.save_adapter(wrapped, tmp_path / start / "adapter")
        right = logits(wrapped)
        base = oracle.save_base(copy.deepcopy(wrapped).unload(), tmp_path / start / "base")
        merged(base, adapter, tmp_path / start / "out", base_is_residual=True)
        assert apart(logits(loaded(hf.LlamaForCausalLM, tmp_path / start / "out")), right) < ROUNDING


def test_multihead_attention_has_no_right_merge(tmp_path: Path) -> None:
    """PEFT adds the change of its output twice, when it trains and when it merges."""
    case = next(case for case in LORA if case.name == "attention")
    base = oracle.save_base(seeded(case.model), tmp_path / "base")
    adapter = oracle.train(seeded(case.model), case.config(), tmp_path / "adapter")
    assert refusal(base, adapter, tmp_path / "out") == "multihead-attention"
    out = oracle.by_peft(seeded(case.model), adapter, tmp_path / "peft")["attn.out_proj.weight"].double()
    factors = oracle.load_file(adapter / oracle.WEIGHTS)
    up, down = (factors[f"base_model.model.attn.base_layer.out_proj.lora_{side}.weight"].double() for side in "BA")
    delta = 8 / len(down) * (up @ down)
    assert torch.allclose(out - tensors_of(base)["attn.out_proj.weight"].double(), 2 * delta, atol=1e-5)
