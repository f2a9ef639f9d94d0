"""What kind of layer each module of a base is said to be, against the classes that transformers builds, without weights."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
import transformers
from peft import LoraConfig
from peft.tuners.tuners_utils import _check_lora_target_modules_mamba
from torch import nn
from transformers.pytorch_utils import Conv1D

from registry.domain.base_model import ModuleKind
from registry.domain.tensors import TensorSpec
from registry.formats.base_classes import names_without_lora
from registry.formats.base_modules import modules_of
from registry.formats.model_config import ModelConfig

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

#: Of every family with names of its own, and of those that are adapted most.
MODEL_TYPES = (
    "albert", "apertus1p5", "bark", "bart", "bert", "big_bird", "biogpt", "blip-2", "bloom", "canine", "clip", "clvp",
    "codegen", "cohere", "ctrl", "d_fine", "deberta-v2", "decision_transformer", "dia", "distilbert", "electra", "eomt",
    "falcon", "fastspeech2_conformer", "fsmt", "gemma3_text", "git", "gpt2", "gpt_bigcode", "gpt_neo", "gpt_neox", "gptj",
    "granite_speech", "layoutlm", "led", "lfm2_vl", "lilt", "llama", "longformer", "m2m_100", "mamba", "mamba2", "marian",
    "markuplm", "mask2former", "mbart", "mistral", "modernbert", "mpnet", "mpt", "olmo2", "openai-gpt", "opt", "patchtst",
    "pegasus", "phi", "phi3", "pix2struct", "prophetnet", "qwen2", "qwen3", "rembert", "roberta", "roc_bert", "roformer",
    "rwkv", "sam", "siglip2", "speecht5", "stablelm", "starcoder2", "t5", "tapas", "timesfm", "vjepa2", "wavlm", "whisper",
    "xglm", "xlm", "xlnet",
)  # fmt: skip
_AUTO = (
    transformers.AutoModel,
    transformers.AutoModelForMaskedLM,
    transformers.AutoModelForCausalLM,
    transformers.AutoModelForUniversalSegmentation,
    transformers.AutoModelForImageTextToText,
)
_KINDS = {nn.Embedding: ModuleKind.EMBEDDING, nn.Linear: ModuleKind.LINEAR, Conv1D: ModuleKind.CONV1D}


def models(model_type: str) -> Iterator[nn.Module]:
    """The backbone and the models with a head, as far as a default config has them."""
    for auto in _AUTO:
        config = transformers.AutoConfig.for_model(model_type)
        if type(config) in auto._model_mapping:
            with torch.device("meta"):
                yield auto.from_config(config)


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_every_matrix_is_of_its_class(model_type: str) -> None:
    config = ModelConfig(transformers.AutoConfig.for_model(model_type).to_dict())
    wrong: list[str] = []
    count = 0
    for model in models(model_type):
        layers = {name: _kind(module) for name, module in model.named_modules() if _kind(module) is not None}
        specs = [TensorSpec(f"{name}.weight", "F32", tuple(model.get_parameter(f"{name}.weight").shape)) for name in layers]
        found = {module.path: module.kind for module in modules_of(specs, config)}
        wrong += [f"{name} is {kind}, said to be {found[name]}" for name, kind in layers.items() if found[name] is not kind]
        count += len(layers)
    assert (wrong, count > 0) == ([], True)


@pytest.mark.parametrize("model_type", ["falcon_h1", "falcon_mamba", "mamba", "mamba2", "nemotron_h"])
def test_what_peft_refuses_gets_no_lora(model_type: str) -> None:
    model = nn.Module()
    model.config = transformers.AutoConfig.for_model(model_type)  # type: ignore[assignment]
    for name in ("conv1d", "out_proj"):
        with pytest.raises(ValueError, match="incompatible"):
            _check_lora_target_modules_mamba(LoraConfig(), model, name)
        assert name in names_without_lora(model_type)
    _check_lora_target_modules_mamba(LoraConfig(), model, "in_proj")


def _kind(module: nn.Module) -> ModuleKind | None:
    return next((kind for of, kind in _KINDS.items() if isinstance(module, of)), None)
