"""What PEFT refuses or drops is an error here, and what it takes whole is none: the same broken adapters, loaded by PEFT."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file

from registry.domain.finding import Severity
from registry.operations.bases import base_called
from registry.operations.check import adapter_in, check
from tests.oracle.base_cases import CASES, BaseCase

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
]

Tensors = dict[str, torch.Tensor]
Config = dict[str, Any]
Mutation = Callable[[Tensors, Config], object]

BIOGPT = BaseCase(
    "biogpt", "BioGptConfig", {"vocab_size": 64, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
    "num_attention_heads": 2, "max_position_embeddings": 32}, "BioGptForCausalLM", "BioGptForCausalLM", "CAUSAL_LM",
    "biogpt.layers.0.self_attn.q_proj", ["q_proj"],
)  # fmt: skip
BY_NAME = {case.name: case for case in (*CASES, BIOGPT)}
P = "base_model.model."
ROWS = f"{P}model.embed_tokens.token_adapter.trainable_tokens_delta"
HEAD_ROWS = f"{P}lm_head.token_adapter.trainable_tokens_delta"

#: What is trained: a case, and options beside its own.
TRAINED: dict[str, tuple[str, Config]] = {
    "llama": ("llama without a task", {"task_type": "CAUSAL_LM"}),
    "classifier": ("llama classifier", {}),
    "tokens": ("llama saved bare", {"trainable_token_indices": [1, 5]}),
    "tied tokens": ("qwen2 tied", {"target_modules": ["q_proj"], "trainable_token_indices": [1, 5]}),
    "tied head": ("qwen2 tied", {"target_modules": ["q_proj", "lm_head"]}),
    "tokens of both": ("biogpt", {"trainable_token_indices": {"embed_tokens": [1, 5], "output_projection": [1, 5]}}),
    "tied": ("qwen2 tied", {"target_modules": ["embed_tokens", "lm_head"], "ensure_weight_tying": True}),
    "tied by another name": ("gpt-2", {"target_modules": ["wte", "lm_head"], "ensure_weight_tying": True}),
    "saved": ("llama without a task", {"task_type": "CAUSAL_LM", "modules_to_save": ["embed_tokens", "lm_head"]}),
    "saved in layers": ("llama without a task", {"task_type": "CAUSAL_LM", "modules_to_save": ["up_proj"]}),
    "saved in one another": ("gpt-2", {"target_modules": ["c_fc"], "modules_to_save": ["attn"]}),
    "saved far below": ("bert", {"target_modules": ["intermediate.dense"], "modules_to_save": ["layer.0", "self"]}),
    "saved norms": ("bert", {"target_modules": ["query"], "modules_to_save": ["LayerNorm"]}),
    "embeddings": ("llama embeddings", {}),
    "bert": ("bert", {}),
    "bert classifier": ("bert classifier", {}),
    "biases": ("gpt-2 saved bare", {"bias": "all"}),
    "experts": ("mixtral", {}),
    "lora bias": ("llama without a task", {"task_type": "CAUSAL_LM", "lora_bias": True}),
}


def renamed(old: str, new: str) -> Mutation:
    def mutate(tensors: Tensors, _config: Config) -> None:
        for name in [one for one in tensors if old in one]:
            tensors[name.replace(old, new)] = tensors.pop(name)

    return mutate


def without(pattern: str) -> Mutation:
    def mutate(tensors: Tensors, _config: Config) -> None:
        for name in [one for one in tensors if re.search(pattern, one)]:
            del tensors[name]

    return mutate


def added(name: str, *shape: int) -> Mutation:
    return lambda tensors, _config: tensors.update({f"{P}{name}": torch.full(shape, 0.5)})


def saying(**fields: Any) -> Mutation:
    return lambda _tensors, config: config.update(fields)


def both(*mutations: Mutation) -> Mutation:
    return lambda tensors, config: [mutate(tensors, config) for mutate in mutations]


def as_embedding(module: str) -> Mutation:
    """The factors of this module under the names of an embedding's."""
    return both(*(renamed(f"{module}.lora_{one}.weight", f"{module}.lora_embedding_{one}") for one in "AB"))


def of_experts(factor: float) -> Mutation:
    """Factors for another number of experts: as many more, or as many fewer."""

    def mutate(tensors: Tensors, _config: Config) -> None:
        for name in [one for one in tensors if ".experts." in one]:
            rows = int(tensors[name].shape[0 if "lora_A" in name else 1] * factor)
            shape = (rows, tensors[name].shape[1]) if "lora_A" in name else (tensors[name].shape[0], rows)
            tensors[name] = torch.ones(shape)

    return mutate


#: Adapter, what is done to it, and the rule that has to notice: None where PEFT loads it whole.
# fmt: off
CHANGED: list[tuple[str, Mutation, str | None]] = [
    # experts
    ("experts", of_experts(2), "wrong-shape"),
    ("experts", of_experts(0.5), "wrong-shape"),
    ("experts", of_experts(1), None),
    ("experts", saying(rank_pattern={"gate_up_proj": 4}), "wrong-shape"),
    ("experts", saying(lora_dropout=0.5), "config-refused"),
    ("llama", saying(lora_dropout=0.5), None),
    # rows of tokens
    ("tokens", without("delta"), "token-rows-missing"),
    ("tokens", renamed("embed_tokens", "embed_tokenz"), "unmatched-target"),
    ("tokens", renamed("model.embed_tokens", "lm_head"), "token-rows-elsewhere"),
    ("tokens", saying(trainable_token_indices=None), "token-rows-unasked"),
    ("tokens", saying(trainable_token_indices={"embed_tokens": [1, 5]}), None),
    ("tokens", saying(trainable_token_indices={"embed_tokens": [1, 5], "lm_head": [1, 5]}), "token-rows-elsewhere"),
    ("tied tokens", saying(trainable_token_indices={"embed_tokens": [1, 5], "lm_head": [1, 5]}), None),
    ("tied tokens", saying(trainable_token_indices={"embed_tokens": [1, 5], "lm_head": [2]}), "token-rows-missing"),
    ("tokens", both(saying(trainable_token_indices={"embed_tokens": [1, 5], "lm_head": [1, 5]}),
                    lambda tensors, _: tensors.update({HEAD_ROWS: tensors[ROWS].clone()})), None),
    ("tokens of both", saying(), None),  # the output embedding is called otherwise, and one matrix with the input all the same
    ("llama", saying(trainable_token_indices=[1]), "token-rows-missing"),
    ("llama", saying(trainable_token_indices={}), None),
    # whole tensors
    ("llama", added("foo.bar.weight", 3), "unmatched-target"),
    ("llama", added("score.weight", 3, 16), "unmatched-target"),
    ("llama", added("model.norm.weight", 16), None),
    ("llama", added("model.norm.foo", 16), "unmatched-tensor"),
    ("llama", added("model.norm.base_layer.weight", 16), "unmatched-tensor"),
    ("llama", added("model.layers.0.mlp.weight", 16), "unmatched-tensor"),
    ("bert", added("model.embed_tokens.weight", 64, 16), "unmatched-target"),
    ("classifier", renamed("score", "scorex"), "unmatched-target"),
    ("classifier", renamed("score", "xscore"), "unmatched-target"),
    ("classifier", renamed("score", "classifier"), "unmatched-target"),
    ("classifier", added("score.weight", 3, 24), "wrong-shape"),
    ("classifier", added("score.weight", 16), "wrong-shape"),
    ("classifier", added("score.weight", 3, 16), None),
    ("biases", renamed("c_attn.base_layer.bias", "c_attn.bias"), "unmatched-tensor"),
    ("biases", without(r"0\.attn\.c_attn\.base_layer\.bias"), None),  # the base's own stays, which is a warning
    # modules saved whole
    ("saved", both(renamed("lm_head.weight", "lm_head.base_layer.weight"), saying(modules_to_save=["lm_head"]),
                   without("embed_tokens")), "saved-below-wrapper"),
    ("saved", saying(modules_to_save=["lm_head"]), None),
    ("saved in layers", without(r"layers\.1\.mlp\.up_proj"), "saved-module-incomplete"),
    ("saved in layers", saying(), None),
    ("tied", saying(), None),
    ("tied", saying(target_modules=["model.embed_tokens"]), None),
    ("tied", saying(target_modules="model.embed_tokens|embed_tokens"), None),
    ("tied", saying(target_modules="model.embed_tokens"), "target-not-chosen"),
    ("tied by another name", saying(), "target-not-chosen"),  # PEFT takes lm_head out of the config, and forgets why
    ("tied by another name", saying(target_modules=["wte", "lm_head"]), None),
    ("tied head", saying(), None),
    ("tied head", without("base_layer"), None),
    ("tied head", added("lm_head.lora_B.weight", 99, 2), "wrong-shape"),
    ("tied head", both(without("base_layer"), added("lm_head.lora_B.weight", 99, 2)), "wrong-shape"),
    ("tied head", as_embedding("lm_head"), "wrong-shape"),
    ("tied head", renamed("lm_head", "model.language_model.lm_head"), "unmatched-target"),
    ("tied head", renamed("lm_head", "model.lm_head"), "unmatched-target"),
    ("saved norms", saying(), None),
    ("saved norms", without("0.output.LayerNorm.weight"), "saved-module-incomplete"),
    ("saved norms", without("0.output.LayerNorm.bias"), "saved-module-incomplete"),
    ("saved norms", added("bert.embeddings.LayerNorm.weight", 48), "wrong-shape"),
    ("saved norms", added("bert.embeddings.LayerNorm.bias", 48), "wrong-shape"),
    ("llama", added("model.norm.weight", 48), "wrong-shape"),
    ("bert classifier", added("classifier.bias", 6), "wrong-shape"),
    ("classifier", saying(modules_to_save=None), None),
    ("saved in one another", saying(), "saved-module-nested"),
    ("saved in one another", saying(modules_to_save=["h.0.attn", "h.1.attn"]), None),
    ("saved in one another", saying(modules_to_save=["h.0.attn", "h.1.attn", "h.1.attn.c_attn"]), "saved-module-nested"),
    ("saved far below", saying(), None),
    ("saved far below", saying(modules_to_save=["encoder.layer.0", "layer.0.attention.self", "layer.1.attention.self"]), None),
    ("bert classifier", without("classifier.bias"), "saved-module-incomplete"),
    # configs
    ("llama", saying(lora_alpha=None), "config-refused"),
    ("llama", saying(r=None), "config-refused"),
    ("llama", saying(lora_dropout=None), "config-refused"),
    ("llama", saying(bias=None), "config-refused"),
    ("llama", saying(alpha_pattern=None), "config-refused"),
    ("llama", saying(init_lora_weights=None), None),
    ("llama", saying(fan_in_fan_out=None, use_rslora=None), None),
    ("llama", saying(layers_pattern="layers"), "config-refused"),
    ("llama", saying(layers_pattern="layers", layers_to_transform=[0, 1]), None),
    ("llama", saying(target_modules=".*q_proj", layers_to_transform=[0, 1]), "config-refused"),
    ("llama", saying(task_type="FOO"), "config-refused"),
    ("llama", saying(peft_type="lora"), "config-refused"),
    ("lora bias", saying(init_lora_weights="gaussian"), "config-refused"),
    ("llama", saying(layer_replication=[[0, 99]]), "replication-beyond-base"),
    ("llama", saying(layer_replication=[[0, 2]]), None),
]
# fmt: on


def train(name: str, directory: Path) -> None:
    of, options = TRAINED[name]
    case = BY_NAME[of]
    config = {"r": 2, "target_modules": case.targets, "task_type": case.task, **case.options, **options}
    torch.manual_seed(0)
    model = get_peft_model(case.model(), LoraConfig(**config))
    for parameter in model.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter)
    model.save_pretrained(str(directory))
    path = directory / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "base_model_name_or_path": "acme/tiny"}))


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """PEFT asks the Hub about the base model's vocabulary."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, Path]]:
    """The adapter of this name, and the base it was trained on."""
    found: dict[str, tuple[Path, Path]] = {}

    def make(name: str) -> tuple[Path, Path]:
        if name not in found:
            place = tmp_path_factory.mktemp("made")
            train(name, place / "adapter")
            BY_NAME[TRAINED[name][0]].base().save_pretrained(place / "base")
            found[name] = place / "adapter", place / "base"
        return found[name]

    return make


def loses(adapter: Path, base: Path, case: BaseCase) -> str | None:
    """Why PEFT does not load the adapter whole: what it raises, or the tensors that it leaves out."""
    model = getattr(hf, case.trained).from_pretrained(base, num_labels=3, ignore_mismatched_sizes=True)
    try:
        loaded = PeftModel.from_pretrained(model, str(adapter))
    except Exception as error:  # noqa: BLE001
        return f"{type(error).__name__}: {error}"
    state = {
        name.replace(".default", "").replace(".modules_to_save", ""): tensor
        for name, tensor in loaded.state_dict().items()
        if "original_module" not in name
    }
    dropped = [
        name
        for name, tensor in load_file(adapter / "adapter_model.safetensors").items()
        if name not in state or not torch.equal(state[name], tensor)
    ]
    return f"drops {dropped[0]}" if dropped else None


@pytest.mark.parametrize(("name", "mutate", "rule"), CHANGED, ids=[f"{n}-{one[0]}-{one[2]}" for n, one in enumerate(CHANGED)])
def test_the_gate_is_closed_where_peft_is(
    name: str, mutate: Mutation, rule: str | None, made: Callable[[str], tuple[Path, Path]], tmp_path: Path
) -> None:
    adapter, base = made(name)
    tensors = load_file(adapter / "adapter_model.safetensors")
    config = json.loads((adapter / "adapter_config.json").read_text())
    mutate(tensors, config)
    save_file(tensors, tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    lost = loses(tmp_path, base, BY_NAME[TRAINED[name][0]])
    findings = check(adapter_in(tmp_path), base_called(str(base))).findings
    errors = {finding.rule for finding in findings if finding.severity is Severity.ERROR}
    assert (lost is not None) == (rule is not None), lost
    assert (rule in errors) if rule is not None else (errors == set())


def test_layers_that_only_the_checkpoint_has(made: Callable[[str], tuple[Path, Path]], tmp_path: Path) -> None:
    """For multi-token prediction. transformers leaves them out, and PEFT wants nothing of them."""
    adapter, base = made("saved in layers")
    shutil.copytree(base, tmp_path / "base")
    weights = load_file(base / "model.safetensors")
    last = {name: weight for name, weight in weights.items() if ".layers.1." in name}
    weights |= {name.replace(".1.", ".2.", 1): weight.clone() for name, weight in last.items()}
    save_file(weights, tmp_path / "base/model.safetensors", metadata={"format": "pt"})
    assert loses(adapter, tmp_path / "base", BY_NAME[TRAINED["saved in layers"][0]]) is None
    verdict = check(adapter_in(adapter), base_called(str(tmp_path / "base")))
    assert {one.rule for one in verdict.findings if one.severity is not Severity.INFO} <= {"base-id", "base-unproven"}
