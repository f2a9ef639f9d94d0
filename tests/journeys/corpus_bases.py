"""The corpus's adapters held against its base models: whose base it is, it fits; whose it is not, it is refused.

A base is known from its config alone, so transformers builds it without weights; PEFT says which tensors an adapter of it
has, and they are written as holes of that shape. The real weights of the corpus are used as they are. On a foreign base the
answer is expected from the table of shapes alone: nothing to say against it only if that base has every adapted module, in
the same shape, under the same name.
"""

from __future__ import annotations

import json
import os
import shutil
import struct
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path

from registry.domain.base_model import BaseModelId, BaseModelSpec, ModuleKind
from registry.domain.finding import Severity
from registry.errors import InvalidInputError, RegistryError, UnavailableError
from registry.formats.adapter_config import parse_adapter_config
from registry.formats.base_model_text import resolve_base
from registry.operations.bases import CheckedBase
from registry.operations.check import Answer as Fitness
from registry.operations.check import CheckedAdapter, Verdict, adapter_in, check
from registry.operations.know_base import know_base
from tests.journeys.corpus_partners import Shapes, saved_by_peft

Answer = tuple[str, str, str, bool]

#: Config → the bases with modules of these names, as adapters of the corpus call them; the first is the config's own.
BASES = {
    "Qwen--Qwen3-8B_config.json": ("Qwen/Qwen3-8B", "Vikhrmodels/QVikhr-3-1.7B-Instruction-noreasoning"),
    "fetched_mt5-finetuned.json": ("google/mt5-small",),
    "fetched_t5-base-beside-adapter.json": ("google/flan-t5-base", "google-t5/t5-small"),
    "meta-llama--Meta-Llama-3.1-8B_config.json": (
        "meta-llama/Llama-3.1-8B-Instruct",
        "meta-llama/Meta-Llama-3-8B-Instruct",
        "mistralai/Mistral-7B-Instruct-v0.3",
        "TinyLlama/TinyLlama-1.1B-intermediate-step-1431k-3T",
    ),
    "Qwen--Qwen3-VL-4B-Instruct_config.json": (
        "Qwen/Qwen3-VL-4B-Instruct",
        "nvidia/Cosmos-Reason2-2B",
        "/home/miniorange/Downloads/cyberAgent/qwen3vl4b",
    ),
    "ipex_phi3.json": ("unsloth/Phi-3-mini-4k-instruct",),
    "ipex_qwen2.json": ("Qwen/Qwen2.5-7B-Instruct", "Qwen/Qwen2.5-0.5B-Instruct", "Qwen/Qwen2.5-3B-Instruct"),
    "ipex_bert-base-config.json": ("google-bert/bert-base-uncased", "prajjwal1/bert-tiny"),
    "fetched_whisper-small-finetuned.json": ("openai/whisper-small", "openai/whisper-large-v3-turbo"),
    "read_gpt2-folder-holding-gpt2-large.json": ("openai-community/gpt2-large",),
}
#: Bases of the corpus's real weights, whose configs it lacks; what is not said is the default of the class.
STATED = {
    "openai-community/gpt2": {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"]},
    "distilbert/distilbert-base-uncased": {"model_type": "distilbert", "architectures": ["DistilBertForMaskedLM"]},
    "google/gemma-3-270m-it": {
        "model_type": "gemma3_text",
        "architectures": ["Gemma3ForCausalLM"],
        "hidden_size": 640,
        "intermediate_size": 2048,
        "num_hidden_layers": 18,
        "num_attention_heads": 4,
        "num_key_value_heads": 1,
        "head_dim": 256,
        "vocab_size": 262144,
    },
}
#: Nobody can say its shapes without running code that it brings.
UNKNOWABLE = "ipex_yuan.json"


@dataclass(frozen=True, slots=True)
class Base:
    config: str
    names: tuple[str, ...]
    spec: BaseModelSpec

    def called(self, identity: BaseModelId) -> CheckedBase:
        spec = replace(self.spec, id=identity)
        return CheckedBase(spec.id, spec)


def against_bases(corpus: Path, scratch: Path) -> Iterator[Answer]:
    bases = yield from _known(corpus / "base_configs", scratch)
    adapters = yield from _trained(bases, corpus / "adapter_configs", scratch)
    for folder in sorted((corpus / "weights").iterdir()):
        adapters += _real(folder)
    for adapter in adapters:
        yield from _held(adapter, bases)


def _known(folder: Path, scratch: Path) -> Generator[Answer, None, list[Base]]:
    configs = {file: (folder / file).read_text() for file in (*BASES, UNKNOWABLE)}
    configs |= {name: json.dumps(config) for name, config in STATED.items()}

    def know(file: str) -> BaseModelSpec | RegistryError:
        place = scratch / "bases" / file
        place.mkdir(parents=True)
        (place / "config.json").write_text(configs[file])
        try:
            return know_base(place)
        except RegistryError as error:
            return error

    bases = []
    with ThreadPoolExecutor(max_workers=2) as pool:
        found = dict(zip(configs, pool.map(know, configs), strict=True))
    for file, spec in found.items():
        if isinstance(spec, RegistryError):
            right = file == UNKNOWABLE and isinstance(spec, UnavailableError) and spec.code == "shapes-unknown"
            yield "base_configs", file, spec.code, right
        else:
            yield "base_configs", file, f"{len(spec.modules)} modules", file != UNKNOWABLE
            bases.append(Base(configs[file], BASES.get(file, (file,)), spec))
    return bases


def _trained(bases: Sequence[Base], folder: Path, scratch: Path) -> Generator[Answer, None, list[CheckedAdapter]]:
    """Every LoRA config of a base, with weights that are holes."""
    configs = {base.names: [*_configs_of(base, folder)] for base in bases}
    asked = [base for base in bases if configs[base.names]]
    answers = saved_by_peft([(base.config, configs[base.names]) for base in asked])
    adapters = []
    for base, found in zip(asked, answers, strict=True):
        for path, shapes in zip(configs[base.names], found, strict=True):
            if isinstance(shapes, str):
                yield "adapter on its base", path.name, f"PEFT refuses it: {shapes:.100}", False
                continue
            place = scratch / "trained" / path.stem
            place.mkdir(parents=True)
            shutil.copy(path, place / "adapter_config.json")
            write_hole(place / "adapter_model.safetensors", shapes)
            adapters.append(adapter_in(place))
            (place / "adapter_model.safetensors").unlink()
    return adapters


def _configs_of(base: Base, folder: Path) -> Iterator[Path]:
    names = {name.lower() for name in base.names}
    for path in sorted(folder.glob("*.json")):
        try:
            config = parse_adapter_config(path.read_bytes(), where=path.name)
        except InvalidInputError:
            continue
        raw = config.raw.get("base_model_name_or_path")
        identity, _ = resolve_base(raw if isinstance(raw, str) else None, config.revision)
        if config.peft_type == "LORA" and (identity.id or identity.raw or "").lower() in names:
            yield path


def _real(folder: Path) -> Iterator[CheckedAdapter]:
    if folder.is_dir():
        try:
            yield adapter_in(folder)
        except InvalidInputError:
            return  # no weights in it: the corpus's own index says so


def _held(adapter: CheckedAdapter, bases: Sequence[Base]) -> Iterator[Answer]:
    recorded = adapter.manifest.base_model
    own = [base for base in bases if (recorded.id or recorded.raw) in base.names]
    name = Path(adapter.name).name
    for base in own:
        verdict = check(adapter, base.called(replace(recorded, fingerprint=None)))
        right = verdict.answer is Fitness.FITS and verdict.matched == len(verdict.tensors)
        yield "adapter on its base", name, f"{verdict.matched} of {len(verdict.tensors)} matched; {_said(verdict)}", right
        if recorded.id is not None:
            verdict = check(adapter, base.called(BaseModelId("acme/another")))
            right = _is_refused(verdict) and _errors(verdict) == ["base-id"]
            yield "adapter on a base of another name", name, _said(verdict), right
    for base in bases:
        if base in own:
            continue
        verdict = check(adapter, base.called(recorded))  # as if the name were right: modules and shapes have to tell
        twin = bool(own) and _is_twin(adapter, own[0], base)
        right = verdict.answer is Fitness.FITS if twin else _is_refused(verdict)
        kind = f"adapter on a base of {'equal' if twin else 'other'} shapes"
        yield kind, f"{name} on {base.names[0]}", _said(verdict), right


def _is_twin(adapter: CheckedAdapter, own: Base, other: Base) -> bool:
    """Whether the other base has every module that is adapted, in the shape of the own one."""
    shapes, others = (
        {module.path: (module.kind, module.shape) for module in base.spec.modules if module.kind is not ModuleKind.OTHER}
        for base in (own, other)
    )
    paths = [target.path for target in adapter.manifest.targets]
    return all(path in shapes and others.get(path) == shapes[path] for path in paths)


def _is_refused(verdict: Verdict) -> bool:
    return verdict.answer is Fitness.DOES_NOT_FIT and verdict.failure is not None and verdict.failure.exit_code == 6


def _said(verdict: Verdict) -> str:
    return f"{verdict.answer.value} {', '.join(_errors(verdict))}".strip()


def _errors(verdict: Verdict) -> list[str]:
    return sorted({finding.rule for finding in verdict.findings if finding.severity is Severity.ERROR})


def write_hole(path: Path, shapes: Shapes) -> None:
    """The tensors in F16, all zeros, which take no room on the disk."""
    header, position = {}, 0
    for name, shape in shapes.items():
        end = position + 2 * prod(shape)
        header[name] = {"dtype": "F16", "shape": shape, "data_offsets": [position, end]}
        position = end
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text)
    os.truncate(path, 8 + len(text) + position)
