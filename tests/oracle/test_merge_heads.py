"""What transformers loads from the merged files says what the model with the adapter beside it said: heads, biases, labels."""

from __future__ import annotations

import copy
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file

from tests.oracle import merge_oracle as oracle
from tests.oracle import tiny_models as tiny
from tests.oracle.base_cases import CASES, FORMS, BaseCase
from tests.oracle.merge_oracle import ROUNDING, TOKENS, apart, config_of, loaded, logits, merged, refusal, tensors_of
from tests.oracle.tiny_models import seeded

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """PEFT asks the Hub about the base model's vocabulary."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    hf.logging.set_verbosity_error()


def inputs_of(case: BaseCase) -> dict[str, Any]:
    if "vit" in case.name:
        return {"pixel_values": torch.linspace(-1, 1, 192).view(1, 3, 8, 8)}
    if case.task == "SEQ_2_SEQ_LM":
        return {"input_ids": TOKENS, "decoder_input_ids": TOKENS}
    return {"input_ids": TOKENS}


def says(model: Any, case: BaseCase) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model.eval()(**inputs_of(case))[0]
        return found


#: Refused (see test_merge_against_peft), random without a saved head, or a model that PEFT's own forward breaks.
SILENT = {"llama answers", "llama saved bare", "bert classifier", "t5", "t5 classifier", "vit saved bare", "whisper",
          "whisper classifier"}  # fmt: skip
#: What stays of the base for another class to use.
LEFT = {"llama classifier", "llama embedder", "bert saved bare", "distilbert", "roberta"}


def test_loaded_models_say_what_was_trained(tmp_path: Path) -> None:
    counted = 0
    for number, case in enumerate(CASES):
        if case.name in SILENT:
            continue
        torch.manual_seed(0)
        base = oracle.save_base(case.base(), tmp_path / f"{number}" / "base")
        kind = getattr(hf, case.trained)
        first = kind.from_pretrained(base, num_labels=3, ignore_mismatched_sizes=True).eval()
        for form in case.forms:
            if (case.name, form) == ("bert", "biases"):
                continue
            place, model = tmp_path / f"{number}" / form, copy.deepcopy(first)
            options = {**deepcopy(FORMS[form]), **case.options}
            config = LoraConfig(r=2, target_modules=case.targets, task_type=case.task, **options)
            wrapped = get_peft_model(model, config)
            oracle.perturb(wrapped)
            adapter = oracle.save_adapter(wrapped, place / "adapter")
            merged(base, adapter, place / "out")
            again, told = kind.from_pretrained(place / "out", output_loading_info=True)
            assert not told["missing_keys"], (case.name, form, told)
            assert not told["mismatched_keys"]
            assert case.name in LEFT or not told["unexpected_keys"], (case.name, form, told)
            assert set(told["unexpected_keys"]) <= tensors_of(base).keys()
            assert apart(says(again, case), says(wrapped, case)) < ROUNDING, (case.name, form)
            counted += 1
    print(counted, "adapters of", len(CASES) - len(SILENT), "architectures")
    assert counted == 76


#: Base class → trained class, task, and what the merged model is called.
BECOMES = {
    ("LlamaForCausalLM", "LlamaConfig"): ("SEQ_CLS", "LlamaForSequenceClassification"),
    ("MistralForCausalLM", "MistralConfig"): ("TOKEN_CLS", "MistralForTokenClassification"),
    ("GPT2LMHeadModel", "GPT2Config"): ("SEQ_CLS", "GPT2ForSequenceClassification"),
    ("BertForMaskedLM", "BertConfig"): ("QUESTION_ANS", "BertForQuestionAnswering"),
    ("BertModel", "BertConfig"): ("SEQ_CLS", "BertForSequenceClassification"),
    ("RobertaForMaskedLM", "RobertaConfig"): ("TOKEN_CLS", "RobertaForTokenClassification"),
}
AUTO = {
    "SEQ_CLS": hf.AutoModelForSequenceClassification,
    "TOKEN_CLS": hf.AutoModelForTokenClassification,
    "QUESTION_ANS": hf.AutoModelForQuestionAnswering,
}
_SIZES = {"vocab_size": 32, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2,
          "num_key_value_heads": 2, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}  # fmt: skip


def test_a_model_of_another_class(tmp_path: Path) -> None:
    """In every type: the head takes the base's, the config gets class and labels, and transformers' auto class finds it."""
    for (saved, config), (task, trained) in BECOMES.items():
        for kind, dtype in oracle.DTYPES.items():
            place = tmp_path / saved / trained / kind
            torch.manual_seed(0)
            sizes = (
                _SIZES
                if saved != "GPT2LMHeadModel"
                else {"vocab_size": 32, "n_embd": 16, "n_layer": 1, "n_head": 2, "pad_token_id": 0}
            )
            base = oracle.save_base(getattr(hf, saved)(getattr(hf, config)(**sizes)).to(dtype), place / "base")
            labels = {"num_labels": 5} if task != "QUESTION_ANS" else {}
            model = getattr(hf, trained).from_pretrained(base, **labels)
            target = ["q_proj", "c_attn", "query"]
            extra = {"modules_to_save": ["qa_outputs"]} if task == "QUESTION_ANS" else {}
            adapter = oracle.train(
                model, LoraConfig(r=2, target_modules=target, task_type=task, **extra), place / "adapter"
            )
            out = merged(base, adapter, place / "out")
            assert {tensor.dtype for tensor in out.values()} == {dtype}
            told = config_of(place / "out")
            assert told["architectures"] == [trained]
            assert len(told.get("id2label", "12")) == (5 if labels else 2)
            again, missing = AUTO[task].from_pretrained(place / "out", output_loading_info=True)
            assert type(again).__name__ == trained
            assert not missing["missing_keys"]
            stored = load_file(adapter / oracle.WEIGHTS)
            heads = [name for name in stored if "lora" not in name]
            assert heads
            for name in heads:
                short = name.removeprefix("base_model.model.")
                assert torch.equal(again.state_dict()[short], stored[name].to(dtype))


def test_a_head_for_other_labels(tmp_path: Path) -> None:
    """The base has one for two labels: the adapter's replaces it, and the names of the labels follow."""
    torch.manual_seed(0)
    two: Any = hf.LlamaForSequenceClassification(hf.LlamaConfig(**_SIZES, num_labels=2, id2label={0: "no", 1: "yes"}))
    base = oracle.save_base(two, tmp_path / "base")
    config = LoraConfig(r=2, target_modules=["q_proj"], task_type="SEQ_CLS")
    kind = hf.LlamaForSequenceClassification
    equal = oracle.train(kind.from_pretrained(base), config, tmp_path / "equal")
    merged(base, equal, tmp_path / "same")
    assert config_of(tmp_path / "same") == config_of(base)
    wrapped = get_peft_model(kind.from_pretrained(base, num_labels=7, ignore_mismatched_sizes=True), config)
    oracle.perturb(wrapped)
    seven = oracle.save_adapter(wrapped, tmp_path / "seven")
    merged(base, seven, tmp_path / "out")
    assert len(config_of(tmp_path / "out")["id2label"]) == 7
    assert apart(logits(loaded(kind, tmp_path / "out")), logits(wrapped)) < ROUNDING
    assert refusal(base, [(seven, 0.5)], tmp_path / "no") == "weight-on-replacement"
    assert refusal(base, [seven, equal], tmp_path / "no") == "replacements-differ"


def test_biases(tmp_path: Path) -> None:
    """Trained ones replace the base's; those of factors are added, if there is something to add them to."""
    base = oracle.save_base(seeded(tiny.gpt2), tmp_path / "base")
    for name, options in {"all": {"bias": "all"}, "own": {"bias": "lora_only"}, "factors": {"lora_bias": True}}.items():
        wrapped = get_peft_model(seeded(tiny.gpt2), LoraConfig(r=2, target_modules=["c_attn"], **options))
        oracle.perturb(wrapped)
        adapter = oracle.save_adapter(wrapped, tmp_path / name / "adapter")
        out = merged(base, adapter, tmp_path / name / "out")
        changed = {
            key
            for key, tensor in tensors_of(base).items()
            if key.endswith("bias") and not torch.equal(out[key], tensor)
        }
        assert len(changed) == (13 if name == "all" else 2), changed
        assert apart(logits(loaded(hf.GPT2LMHeadModel, tmp_path / name / "out")), logits(wrapped)) < ROUNDING
    llama = oracle.save_base(seeded(tiny.llama), tmp_path / "llama")
    config = LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM")
    plain = oracle.train(seeded(tiny.llama), config, tmp_path / "plain")
    path = "base_model.model.model.layers.0.self_attn.q_proj.lora_B.bias"
    adapter = oracle.altered(plain, tmp_path / "biased", lambda one: {**one, path: torch.ones(16)})
    oracle.edit_config(adapter, lora_bias=True)
    assert "bias-without-base" in refusal(llama, adapter, tmp_path / "out", allow=frozenset({"lora-bias-missing"}))
