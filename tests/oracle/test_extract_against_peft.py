"""What is extracted from a fine-tune gives the fine-tune back, in transformers with PEFT; a truncation is the dense optimum."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from peft import PeftModel
from safetensors.torch import load_file
from torch import nn

from registry.connect import connect
from registry.errors import RegistryError
from tests.oracle import tiny_models as tiny
from tests.oracle.tiny_models import seeded

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
TOKENS = torch.tensor([[3, 1, 2, 7, 9, 4, 1, 2, 5, 6]])


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def tuned(make: Any, *, rank: int | None) -> nn.Module:
    """Every parameter moved: matrices by something of that rank, or by anything."""
    model = seeded(make)
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() != 2 or rank is None:
                parameter += 0.05 * torch.randn_like(parameter)
            else:
                out, inputs = parameter.shape
                parameter += 0.1 * torch.randn(out, rank) @ torch.randn(rank, inputs)
    return model


def saved(model: nn.Module, into: Path) -> Path:
    model.save_pretrained(into)  # type: ignore[operator]
    return into


def logits(model: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=TOKENS)[0]  # type: ignore[no-any-return]


@pytest.mark.parametrize("make", [tiny.llama, tiny.gpt2])
def test_a_difference_of_low_rank_comes_back_whole(make: Any, tmp_path: Path) -> None:
    model = tuned(make, rank=3)
    base, other = saved(seeded(make), tmp_path / "base"), saved(model, tmp_path / "tuned")
    done = connect(tmp_path / "registry").extract(base, other, tmp_path / "lora", rank=4)
    assert done.error < 1e-6
    adapted = PeftModel.from_pretrained(seeded(make), str(tmp_path / "lora"))
    torch.testing.assert_close(logits(adapted), logits(model), rtol=1e-4, atol=1e-4)
    names = {name.rpartition(".")[0] for name, one in seeded(make).named_parameters() if one.dim() == 2}
    assert {layer.path for layer in done.layers} == names | {"lm_head"}


def test_a_truncation_is_the_dense_optimum(tmp_path: Path) -> None:
    base, other = saved(seeded(tiny.llama), tmp_path / "base"), saved(tuned(tiny.llama, rank=None), tmp_path / "tuned")
    done = connect(tmp_path / "registry").extract(base, other, tmp_path / "lora", rank=5)
    before, after = load_file(base / "model.safetensors"), load_file(other / "model.safetensors")
    for layer in done.layers:
        name = f"{layer.path}.weight"
        values = torch.linalg.svdvals(after[name].double() - before[name].double())
        assert layer.error == pytest.approx(float(torch.linalg.vector_norm(values[5:])), rel=1e-3)
        assert layer.norm == pytest.approx(float(torch.linalg.vector_norm(values)), rel=1e-6)


def test_energy_keeps_the_smallest_rank(tmp_path: Path) -> None:
    base, other = saved(seeded(tiny.llama), tmp_path / "base"), saved(tuned(tiny.llama, rank=3), tmp_path / "tuned")
    done = connect(tmp_path / "registry").extract(base, other, tmp_path / "lora", rank=8, energy=0.9999999)
    assert {layer.rank for layer in done.layers} == {3}
    assert json.loads((tmp_path / "lora" / "adapter_config.json").read_text())["r"] == 3


def test_two_models_that_are_not_one_are_refused(tmp_path: Path) -> None:
    base, other = saved(seeded(tiny.llama), tmp_path / "base"), saved(seeded(tiny.gpt2), tmp_path / "tuned")
    with pytest.raises(RegistryError, match="lacks") as caught:
        connect(tmp_path / "registry").extract(base, other, tmp_path / "lora", rank=4)
    assert caught.value.exit_code == 6
    with pytest.raises(RegistryError, match="differs") as caught:
        connect(tmp_path / "registry").extract(base, base, tmp_path / "lora", rank=4)
    assert caught.value.exit_code == 6
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "tuned"]


LLAMA: dict[str, Any] = {
    "vocab_size": 32, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 2, "pad_token_id": 0,
}  # fmt: skip
T5 = {"vocab_size": 32, "d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 2, "num_heads": 2, "decoder_start_token_id": 0}


def of_class(name: str) -> Any:
    return lambda: getattr(transformers, name)(transformers.LlamaConfig(**LLAMA, num_labels=3))


def t5() -> nn.Module:
    return transformers.T5ForConditionalGeneration(transformers.T5Config(**T5))


def moved(model: nn.Module, *parts: str) -> nn.Module:
    """The parameters whose names have one of these parts changed."""
    torch.manual_seed(3)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if any(part in name for part in parts):
                parameter += 0.1 * torch.randn_like(parameter)
    return model


@pytest.mark.parametrize("changed", [("q_proj",), ("q_proj", "score", "qa_outputs"), ("",)])
@pytest.mark.parametrize("name", ["ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering"])
def test_a_task_has_its_head(name: str, changed: tuple[str, ...], tmp_path: Path) -> None:
    """PEFT loads no adapter of such a task without it, changed or not; on a base that brings another, too."""
    make = of_class(f"Llama{name}")
    model = moved(seeded(make), *changed)
    base, other = saved(seeded(make), tmp_path / "base"), saved(model, tmp_path / "tuned")
    connect(tmp_path / "registry").extract(base, other, tmp_path / "lora", rank=32)
    fresh = moved(seeded(make), "score", "qa_outputs") if changed == ("",) else seeded(make)
    adapted = PeftModel.from_pretrained(fresh, str(tmp_path / "lora"))
    torch.testing.assert_close(logits(adapted), logits(model), rtol=1e-4, atol=1e-4)


def both(model: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=TOKENS, decoder_input_ids=TOKENS[:, :4]).logits  # type: ignore[no-any-return]


def test_what_encoder_and_decoder_have_in_common_may_stay_and_may_not_change(tmp_path: Path) -> None:
    model = moved(seeded(t5), ".q.", ".wi.", "layer_norm")
    base, other = saved(seeded(t5), tmp_path / "base"), saved(model, tmp_path / "tuned")
    registry = connect(tmp_path / "registry")
    registry.extract(base, other, tmp_path / "lora", rank=32)
    adapted = PeftModel.from_pretrained(seeded(t5), str(tmp_path / "lora"))
    torch.testing.assert_close(both(adapted), both(model), rtol=1e-4, atol=1e-4)
    changed = saved(moved(model, "shared"), tmp_path / "changed")
    with pytest.raises(RegistryError, match="in common") as caught:
        registry.extract(base, changed, tmp_path / "none", rank=4)
    assert (caught.value.exit_code, (tmp_path / "none").exists()) == (6, False)


def test_experts_may_stay_and_may_not_change(tmp_path: Path) -> None:
    model = moved(seeded(tiny.mixtral), "q_proj")
    base, other = saved(seeded(tiny.mixtral), tmp_path / "base"), saved(model, tmp_path / "tuned")
    registry = connect(tmp_path / "registry")
    registry.extract(base, other, tmp_path / "lora", rank=32)
    adapted = PeftModel.from_pretrained(seeded(tiny.mixtral), str(tmp_path / "lora"))
    torch.testing.assert_close(logits(adapted), logits(model), rtol=1e-4, atol=1e-4)
    changed = saved(moved(model, "experts"), tmp_path / "changed")
    with pytest.raises(RegistryError, match="one stack") as caught:
        registry.extract(base, changed, tmp_path / "none", rank=4)
    assert (caught.value.exit_code, (tmp_path / "none").exists()) == (6, False)


def resnet() -> nn.Module:
    config = transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 8], depths=[1, 1], num_labels=2)
    return transformers.ResNetForImageClassification(config)


def test_what_a_module_counts_comes_with_it(tmp_path: Path) -> None:
    model, images = moved(seeded(resnet), "weight", "bias"), torch.rand(4, 3, 16, 16)
    model.train()(pixel_values=images)  # moves what batches are normalised by, and counts them
    base, other = saved(seeded(resnet), tmp_path / "base"), saved(model, tmp_path / "tuned")
    connect(tmp_path / "registry").extract(base, other, tmp_path / "lora", rank=8)
    adapted = PeftModel.from_pretrained(seeded(resnet), str(tmp_path / "lora"))
    with torch.no_grad():
        found, wanted = (each.eval()(pixel_values=images).logits for each in (adapted, model))
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


def bert() -> nn.Module:
    return transformers.BertForMaskedLM(transformers.BertConfig(**LLAMA, max_position_embeddings=32))


@pytest.mark.parametrize("make", [tiny.tied_llama, tiny.gpt2, bert])
def test_what_is_tied_stays_one(make: Any, tmp_path: Path) -> None:
    model = moved(seeded(make), "q_proj", "c_attn.weight", "query.weight", "embed_tokens", "wte", "word_embeddings")
    base, other = saved(seeded(make), tmp_path / "base"), saved(model, tmp_path / "tuned")
    registry = connect(tmp_path / "registry")
    registry.extract(base, other, tmp_path / "lora", rank=32)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        adapted = PeftModel.from_pretrained(seeded(make), str(tmp_path / "lora"))
    assert not [str(one.message) for one in said if "a tied layer is part" in str(one.message)]
    torch.testing.assert_close(logits(adapted), logits(model), rtol=1e-4, atol=1e-4)
    registry.merge(base, [tmp_path / "lora"], tmp_path / "merged")
    assert load_file(tmp_path / "merged" / "model.safetensors").keys() == load_file(base / "model.safetensors").keys()
    merged = type(model).from_pretrained(tmp_path / "merged")  # type: ignore[attr-defined]
    torch.testing.assert_close(logits(merged), logits(model), rtol=1e-4, atol=1e-4)


def gpt_oss() -> nn.Module:
    config = transformers.GptOssConfig(**LLAMA, num_local_experts=4, num_experts_per_tok=2, head_dim=4)
    return transformers.GptOssForCausalLM(config)


@pytest.mark.parametrize(
    ("make", "changed"),
    [
        (gpt_oss, ("self_attn", "norm")),
        (gpt_oss, ("sinks", "v_proj", "router", "layers.1.self_attn.o_proj")),
        (bert, ("",)),
        (bert, ("query", "cls.predictions.bias")),
    ],
)
def test_a_parameter_beside_modules_takes_them_along(make: Any, changed: tuple[str, ...], tmp_path: Path) -> None:
    model = moved(moved(seeded(make), *changed), "embed")
    base, other = saved(seeded(make), tmp_path / "base"), saved(model, tmp_path / "tuned")
    connect(tmp_path / "registry").extract(base, other, tmp_path / "lora", rank=32)
    adapted = PeftModel.from_pretrained(seeded(make), str(tmp_path / "lora"))
    torch.testing.assert_close(logits(adapted), logits(model), rtol=1e-4, atol=1e-4)


def test_where_modules_take_all_matrices_along_that_is_said(tmp_path: Path) -> None:
    model = moved(seeded(gpt_oss), "self_attn")
    base, other = saved(seeded(gpt_oss), tmp_path / "base"), saved(model, tmp_path / "tuned")
    with pytest.raises(RegistryError, match=r"saved whole, such as model\.layers\.0\.self_attn") as caught:
        connect(tmp_path / "registry").extract(base, other, tmp_path / "lora", rank=4)
    assert (caught.value.exit_code, sorted(path.name for path in tmp_path.iterdir())) == (6, ["base", "tuned"])


def vit() -> nn.Module:
    config = transformers.ViTConfig(
        hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2, image_size=16, patch_size=8, num_labels=2
    )
    return transformers.ViTForImageClassification(config)


def test_the_token_of_an_image_comes_with_its_embeddings(tmp_path: Path) -> None:
    model, images = moved(seeded(vit), ""), torch.rand(4, 3, 16, 16)
    base, other = saved(seeded(vit), tmp_path / "base"), saved(model, tmp_path / "tuned")
    connect(tmp_path / "registry").extract(base, other, tmp_path / "lora", rank=16)
    adapted = PeftModel.from_pretrained(seeded(vit), str(tmp_path / "lora"))
    with torch.no_grad():
        found, wanted = (each.eval()(pixel_values=images).logits for each in (adapted, model))
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


def clip() -> nn.Module:
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = transformers.CLIPTextConfig(**sizes, vocab_size=32)
    vision = transformers.CLIPVisionConfig(**sizes, image_size=16, patch_size=8)
    return transformers.CLIPModel(transformers.CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict()))


def test_a_parameter_beside_all_layers_may_not_change(tmp_path: Path) -> None:
    base, other = saved(seeded(clip), tmp_path / "base"), saved(moved(seeded(clip), "q_proj", "logit_scale"), tmp_path / "tuned")
    with pytest.raises(RegistryError, match="logit_scale changed") as caught:
        connect(tmp_path / "registry").extract(base, other, tmp_path / "lora", rank=4)
    assert (caught.value.exit_code, sorted(path.name for path in tmp_path.iterdir())) == (6, ["base", "tuned"])
