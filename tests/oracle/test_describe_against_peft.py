"""The recorded targets, ranks and scalings are those of PEFT, for adapters that PEFT saved and loads again."""

from __future__ import annotations

from pathlib import Path

import pytest
from peft import LoraConfig, PeftModel, PeftType, XLoraConfig
from safetensors.torch import load_file, save_file

from registry.domain.finding import Severity
from registry.variants.anatomy import Reading
from registry.variants.table import ANATOMIES, PEFT_TYPES
from tests.oracle.lora_cases import LORA, Case
from tests.oracle.method_cases import METHODS, PROMPTS
from tests.oracle.peft_view import Layer, our_view, peft_view, save
from tests.oracle.tiny_models import Blocks, llama, llama_without_cache, seeded

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

by_name = pytest.mark.parametrize


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """PEFT asks the Hub about the base model's vocabulary."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def recorded(reading: Reading) -> dict[str, Layer]:
    return {target.path: Layer(target.rank, target.scaling) for target in reading.targets}


def errors(reading: Reading) -> list[str]:
    return [f"{one.rule}: {one.message}" for one in reading.findings if one.severity is Severity.ERROR]


@by_name("case", LORA, ids=lambda case: case.name)
def test_lora_is_described_as_peft_computes_it(case: Case, tmp_path: Path) -> None:
    save(case.model, case.config(), tmp_path, **case.save)
    reading = our_view(tmp_path)
    assert recorded(reading) == peft_view(case.model, tmp_path)
    assert reading.targets
    assert not errors(reading)


@by_name("case", [case for case in METHODS if case.name not in {"ADAPTION_PROMPT", "FROD", "OSF", "UNILORA"}],
         ids=lambda case: case.name)  # fmt: skip
def test_other_methods_are_described_as_peft_computes_them(case: Case, tmp_path: Path) -> None:
    save(case.model, case.config(), tmp_path)
    reading = our_view(tmp_path)
    expected = peft_view(case.model, tmp_path)
    if case.name == "GLORA-vectors":  # PEFT keeps the config's r, though no part has low rank
        expected = {path: Layer(None, layer.scaling) for path, layer in expected.items()}
    assert recorded(reading) == expected
    assert reading.targets
    assert not errors(reading)


def test_frod_has_no_rank(tmp_path: Path) -> None:
    """What PEFT keeps as FROD's ``r`` is the width of the module."""
    case = next(case for case in METHODS if case.name == "FROD")
    save(case.model, case.config(), tmp_path)
    reading = our_view(tmp_path)
    assert recorded(reading) == {path: Layer(None, None) for path in peft_view(case.model, tmp_path)}
    assert not errors(reading)


def test_osf_has_the_rank_that_is_trained(tmp_path: Path) -> None:
    """The config's ``effective_rank`` is of what stays frozen: min(16, 32) - 4 are trained."""
    case = next(case for case in METHODS if case.name == "OSF")
    save(case.model, case.config(), tmp_path)
    reading = our_view(tmp_path)
    assert recorded(reading) == {path: Layer(12, None) for path in peft_view(case.model, tmp_path)}
    assert not errors(reading)


def test_unilora_has_no_tensor_below_a_module(tmp_path: Path) -> None:
    case = next(case for case in METHODS if case.name == "UNILORA")
    save(case.model, case.config(), tmp_path)
    reading = our_view(tmp_path)
    assert reading.targets == ()
    assert not errors(reading)


def test_adaption_prompt_targets_the_attention_it_is_attached_to(tmp_path: Path) -> None:
    case = next(case for case in METHODS if case.name == "ADAPTION_PROMPT")
    save(case.model, case.config(), tmp_path)
    reading = our_view(tmp_path)
    assert [target.path for target in reading.targets] == ["model.layers.0.self_attn", "model.layers.1.self_attn"]
    assert not errors(reading)


@by_name("case", PROMPTS, ids=lambda case: case.name)
def test_prompts_have_no_targets(case: Case, tmp_path: Path) -> None:
    save(case.model, case.config(), tmp_path)
    reading = our_view(tmp_path)
    assert reading.targets == ()
    assert not errors(reading)


def test_xlora_keeps_its_classifier_elsewhere(tmp_path: Path) -> None:
    save(llama, LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM"), tmp_path / "expert")
    config = XLoraConfig(task_type="CAUSAL_LM", hidden_size=16, adapters={"0": str(tmp_path / "expert")}, xlora_depth=1)
    save(llama_without_cache, config, tmp_path / "router")
    reading = our_view(tmp_path / "router")
    assert (reading.variant, reading.targets) == ("xlora", ())
    assert not errors(reading)


@by_name(
    ("name", "extra"),
    [
        ("modules-to-save", {"lm_head", "model.layers.0.mlp", "model.layers.1.mlp"}),
        ("classifier", {"score"}),
        ("saved-embeddings", {"lm_head", "model.embed_tokens"}),
        ("targeted-embeddings", {"lm_head", "model.embed_tokens"}),
        ("trainable-tokens", {"model.embed_tokens"}),
        ("trainable-tokens-of-both", {"lm_head", "model.embed_tokens"}),
        ("trainable-tokens-saved-embeddings", {"lm_head", "model.embed_tokens"}),
        ("bias-lora-only", {"lin0", "lin1"}),
        ("linear", set()),
    ],
)
def test_what_is_saved_whole_is_recorded_as_extra(name: str, extra: set[str], tmp_path: Path) -> None:
    case = next(case for case in LORA if case.name == name)
    save(case.model, case.config(), tmp_path, **case.save)
    reading = our_view(tmp_path)
    assert set(reading.extra_modules) == extra
    assert not [one for one in reading.findings if one.severity is Severity.WARNING]


@by_name(
    ("name", "variant", "base_change"),
    [
        ("linear", "lora", None),
        ("rank-stabilised", "lora", None),
        ("dora", "dora", None),
        ("qalora", "qalora", None),
        ("alora", "alora", None),
        ("block-diagonal", "bdlora", None),
        ("monteclora", "monteclora", None),
        ("velora", "velora", None),
        ("kasa", "kasa", "kasa"),
        ("init-pissa", "lora", "pissa"),
        ("init-pissa_niter_4", "lora", "pissa"),
        ("init-olora", "lora", "olora"),
        ("init-mica", "lora", None),
        ("init-gaussian", "lora", None),
    ],
)
def test_variant_and_changed_base(name: str, variant: str, base_change: str | None, tmp_path: Path) -> None:
    case = next(case for case in LORA if case.name == name)
    save(case.model, case.config(), tmp_path, **case.save)
    reading = our_view(tmp_path)
    assert (reading.variant, reading.base_change) == (variant, base_change)


def test_a_name_kept_in_the_keys_is_dropped_by_peft_and_refused_by_us(tmp_path: Path) -> None:
    """PEFT loads such a file without an error, and none of its tensors, unless it loads it under that very name."""
    save(Blocks, LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False), tmp_path)
    weights = tmp_path / "adapter_model.safetensors"
    tensors = {name: tensor + 1 for name, tensor in load_file(weights).items()}
    save_file({name.replace(".weight", ".mine.weight"): tensor for name, tensor in tensors.items()}, weights)
    loaded = PeftModel.from_pretrained(seeded(Blocks), str(tmp_path)).state_dict()
    assert not any((loaded[name.replace(".weight", ".default.weight")] == tensors[name]).any() for name in tensors)
    assert [one.rule for one in our_view(tmp_path).findings] == ["adapter-name-in-key"]


def test_every_type_of_this_peft_has_an_anatomy() -> None:
    assert {one.value for one in PeftType} == PEFT_TYPES - {"BONE"}
    assert ANATOMIES.keys() == PEFT_TYPES
