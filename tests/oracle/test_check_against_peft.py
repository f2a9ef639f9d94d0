"""No false alarm and no miss: what PEFT trained on a base fits it, and what was then broken does not."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file, save_model
from transformers import PreTrainedModel

from registry.domain.finding import Severity
from registry.operations.bases import base_called
from registry.operations.check import Answer, Verdict, adapter_in, check
from tests.oracle.base_cases import CASES as COMMON
from tests.oracle.base_cases import FORMS, MORE_CASES, BaseCase
from tests.oracle.lora_cases import LORA, Case
from tests.oracle.method_cases import METHODS, PROMPTS
from tests.oracle.peft_view import save
from tests.oracle.tiny_models import seeded

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

Tensors = dict[str, Any]
Config = dict[str, Any]
CASES = (*COMMON, *MORE_CASES)
#: Architectures that transformers 5 names otherwise in memory than on disk.
SPELT_IN_TWO_WAYS = frozenset({
    "beit", "gpt-neox", "gte", "jina", "llava", "mixtral", "mllama", "nomic-bert", "olmoe all-linear", "qwen-moe",
    "qwen2-audio", "segformer", "swin", "vit",
})  # fmt: skip
NUMBERED = re.compile(r"\.\d+\.")
TRAINED = [(case, form) for case in CASES for form in case.forms]


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """PEFT asks the Hub about the base model's vocabulary."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Callable[[BaseCase], Path]:
    made: dict[str, Path] = {}

    def base_of(case: BaseCase) -> Path:
        if case.name not in made:
            made[case.name] = tmp_path_factory.mktemp("bases") / "tiny"
            torch.manual_seed(0)
            case.base().save_pretrained(made[case.name])
        return made[case.name]

    return base_of


@pytest.fixture(scope="module")
def adapters(tmp_path_factory: pytest.TempPathFactory) -> Callable[[BaseCase], Path]:
    made: dict[str, Path] = {}

    def adapter_of(case: BaseCase) -> Path:
        if case.name not in made:
            made[case.name] = train(case, "lora", tmp_path_factory.mktemp("adapters") / "tiny")
        return made[case.name]

    return adapter_of


def train(case: BaseCase, form: str, directory: Path) -> Path:
    options = {**deepcopy(FORMS[form]), **case.options}
    config = LoraConfig(r=2, target_modules=case.targets, task_type=case.task, **options)
    get_peft_model(case.model(), config).save_pretrained(str(directory))
    path = directory / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "base_model_name_or_path": "acme/tiny"}))
    return directory


def held_against(adapter: Path, base: Path) -> Verdict:
    return check(adapter_in(adapter), base_called(str(base)))


def errors(verdict: Verdict) -> list[str]:
    return [f"{one.rule}: {one.message}" for one in verdict.findings if one.severity is Severity.ERROR]


@pytest.mark.parametrize(("case", "form"), TRAINED, ids=lambda value: getattr(value, "name", value))
def test_a_trained_adapter_fits_its_base(
    case: BaseCase, form: str, bases: Callable[[BaseCase], Path], tmp_path: Path
) -> None:
    verdict = held_against(train(case, form, tmp_path / "adapter"), bases(case))
    assert errors(verdict) == []
    assert verdict.answer is Answer.FITS
    assert verdict.matched == len(verdict.tensors)


@pytest.mark.parametrize("case", [*LORA, *METHODS, *PROMPTS], ids=lambda case: case.name)
def test_every_method_fits_the_model_it_was_trained_on(case: Case, tmp_path: Path) -> None:
    save(case.model, case.config(), tmp_path / "adapter", **case.save)
    model = seeded(case.model)
    base = tmp_path / "base"
    if isinstance(model, PreTrainedModel):
        model.save_pretrained(base)
    else:
        base.mkdir()
        save_model(model, str(base / "model.safetensors"))
    verdict = held_against(tmp_path / "adapter", base)
    assert errors(verdict) == []
    assert verdict.matched == len(verdict.tensors)


def adapting_all_of(base: Path, case: BaseCase, directory: Path) -> Path:
    """A LoRA of every matrix in the layers of the base, each called as the base calls it."""
    weights = load_file(base / "model.safetensors")
    matrices = {
        name.removesuffix(".weight"): weight
        for name, weight in weights.items()
        if weight.dim() == 2 and NUMBERED.search(name) and name.endswith(".weight") and "embed" not in name
    }
    tensors = {}
    for path, weight in matrices.items():
        tensors[f"base_model.model.{path}.lora_A.weight"] = torch.ones(2, weight.shape[1])
        tensors[f"base_model.model.{path}.lora_B.weight"] = torch.ones(weight.shape[0], 2)
    directory.mkdir()
    save_file(tensors, directory / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": 2, "target_modules": [*matrices], "task_type": case.task,
              "auto_mapping": {"base_model_class": case.trained, "parent_library": "transformers"}}  # fmt: skip
    (directory / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": "acme/tiny"}))
    return directory


@pytest.mark.parametrize("case", [case for case in CASES if case.name in SPELT_IN_TWO_WAYS], ids=lambda case: case.name)
def test_both_spellings_of_a_module_are_one_place(case: BaseCase, tmp_path: Path) -> None:
    """As the checkpoint has it and as transformers 5 has it, each held against the other."""
    model = case.base()
    model.save_pretrained(tmp_path / "disk")
    model.save_pretrained(tmp_path / "memory", save_original_format=False)
    files = [tmp_path / "disk", tmp_path / "memory"]
    assert load_file(files[0] / "model.safetensors").keys() != load_file(files[1] / "model.safetensors").keys()
    for spelt in files:
        adapter = adapting_all_of(spelt, case, tmp_path / f"adapter as on {spelt.name}")
        for base in files:
            verdict = held_against(adapter, base)
            assert errors(verdict) == []
            assert verdict.matched == len(verdict.tensors)


def of_query(case: BaseCase, tensors: Tensors) -> list[str]:
    factors = tuple(f"base_model.model.{case.query}.lora_{one}.weight" for one in "AB")
    names = [name for name in tensors if name in factors]
    assert len(names) == 2
    return sorted(names)


def wider(case: BaseCase, tensors: Tensors, config: Config) -> None:
    a, _ = of_query(case, tensors)
    tensors[a] = torch.zeros(2, tensors[a].shape[1] + 1)


def taller(case: BaseCase, tensors: Tensors, config: Config) -> None:
    _, b = of_query(case, tensors)
    tensors[b] = torch.ones(tensors[b].shape[0] + 1, 2)


def other_rank(case: BaseCase, tensors: Tensors, config: Config) -> None:
    config["r"] = 3


def half(case: BaseCase, tensors: Tensors, config: Config) -> None:
    del tensors[of_query(case, tensors)[1]]


def foreign_layer(case: BaseCase, tensors: Tensors, config: Config) -> None:
    for name in of_query(case, tensors):
        tensors[name.replace(".0.", ".17.", 1)] = tensors[name].clone()


def renamed_target(case: BaseCase, tensors: Tensors, config: Config) -> None:
    for name in of_query(case, tensors):
        tensors[name.replace(".lora_", "_x.lora_")] = tensors.pop(name)


def with_prefix(case: BaseCase, tensors: Tensors, config: Config) -> None:
    for name in [*tensors]:
        tensors[name.replace("base_model.model.", "base_model.model.language_model.", 1)] = tensors.pop(name)


def without_first_word(case: BaseCase, tensors: Tensors, config: Config) -> None:
    """Only where that word is the backbone's prefix; a bare class has none to lose."""
    first = f"base_model.model.{case.query.partition('.')[0]}."
    for name in [*tensors]:
        if name.startswith(first):
            tensors["base_model.model." + name.removeprefix(first)] = tensors.pop(name)


def kohya(case: BaseCase, tensors: Tensors, config: Config) -> None:
    for name in [*tensors]:
        tensors[name.removeprefix("base_model.model.")] = tensors.pop(name)


def stray(case: BaseCase, tensors: Tensors, config: Config) -> None:
    tensors["base_model.model.foo.bar.weight"] = torch.ones(3)


def nothing_for_alpha(case: BaseCase, tensors: Tensors, config: Config) -> None:
    config["lora_alpha"] = None


def rows_of_nothing(case: BaseCase, tensors: Tensors, config: Config) -> None:
    config["trainable_token_indices"] = [1, 2]


MUTATIONS = {
    wider: "wrong-shape",
    taller: "wrong-shape",
    other_rank: "rank-mismatch",
    half: "orphan-factor",
    foreign_layer: "unmatched-target",
    renamed_target: "unmatched-target",
    with_prefix: "prefix-drift",
    without_first_word: "prefix-drift",
    kohya: "missing-prefix",
    stray: "unmatched-target",
    nothing_for_alpha: "config-refused",
    rows_of_nothing: "token-rows-missing",
}
PREFIXES = re.compile(
    r"(?:model|transformer|gpt_neox|bert|distilbert|roberta|electra|vit|beit|dinov2|swin|segformer)\."
)


MUTANTS = [
    pytest.param(case, mutate, id=f"{case.name}-{mutate.__name__}")
    for case in CASES
    for mutate in MUTATIONS
    if mutate is not without_first_word or PREFIXES.match(case.query)  # some classes have no prefix to lose
]


@pytest.mark.parametrize(("case", "mutate"), MUTANTS)
def test_a_mutation_is_caught_by_its_rule(
    case: BaseCase,
    mutate: Callable[[BaseCase, Tensors, Config], None],
    bases: Callable[[BaseCase], Path],
    adapters: Callable[[BaseCase], Path],
    tmp_path: Path,
) -> None:
    tensors = load_file(adapters(case) / "adapter_model.safetensors")
    config = json.loads((adapters(case) / "adapter_config.json").read_text())
    mutate(case, tensors, config)
    save_file(tensors, tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    verdict = held_against(tmp_path, bases(case))
    assert verdict.answer is Answer.DOES_NOT_FIT
    assert MUTATIONS[mutate] in {one.rule for one in verdict.findings if one.severity is Severity.ERROR}


def test_foreign_bases_are_refused(bases: Callable[[BaseCase], Path], adapters: Callable[[BaseCase], Path]) -> None:
    """Every adapter on every base of another architecture, except where names and shapes are truly the same."""
    pairs = [(one, other) for one in CASES for other in CASES if one.config != other.config]
    trained = {case.name: adapter_in(adapters(case)) for case in CASES}
    known = {case.name: base_called(str(bases(case))) for case in CASES}
    fitting = {
        (one.name, other.name) for one, other in pairs if not errors(check(trained[one.name], known[other.name]))
    }
    assert len(pairs) > 500
    assert fitting - TWINS == set()


#: A llama's q_proj is the q_proj of whoever copied its names; of these tiny ones the shapes are the same too.
_COPIES = ("llama", "llama without a task", "llama classifier", "llama saved bare", "llama embedder", "llama embeddings",
           "llama answers", "llama with added biases", "qwen2 tied", "mixtral", "mixtral all-linear", "qwen-moe",
           "gemma")  # fmt: skip
TWINS = {(one, other) for one in _COPIES for other in _COPIES}


def test_the_numbers() -> None:
    """What the sentences above were counted on."""
    assert len({case.config for case in CASES}) == 33
    assert len(TRAINED) == 137
    assert len(LORA) + len(METHODS) + len(PROMPTS) > 100
    assert len(MUTANTS) == 625
