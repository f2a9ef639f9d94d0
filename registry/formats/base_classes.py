"""What a model type tells: how its classes call the backbone, which layers are Conv1D, how names differ in memory.

transformers keeps a model's backbone in an attribute named by ``base_model_prefix`` (``model``, ``transformer``,
``bert``), which a checkpoint saved from the bare backbone lacks. So ``bert.encoder.layer.0`` and ``encoder.layer.0``
may be one place, and which of the two an adapter has to say follows from the class that is loaded. All of it is data:
``base_prefixes.toml``, ``base_spellings.toml`` and ``base_layers.toml``.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

#: ``LlamaModel``, but not ``GPT2LMHeadModel``: the backbone alone.
_BACKBONE = re.compile(r"(?<!LMHead)(?<!DoubleHeads)Model")
_HEADED = re.compile(r"For[A-Z]|(?:LMHead|DoubleHeads)Model$")


@dataclass(frozen=True, slots=True)
class Stack:
    """One fused parameter or matrix, and the matrices that it holds, one below the other; of experts, those of each."""

    parameter: str
    parts: tuple[str, ...]


def backbone_prefix(model_type: str | None) -> str | None:
    """The model type's usual ``base_model_prefix``; None for a type that transformers does not know."""
    prefixes: dict[str | None, str] = _table("base_prefixes.toml")["prefix"]
    return prefixes.get(model_type)


def prefix_of_class(model_type: str | None, name: str) -> str | None:
    """What the class writes before the backbone's modules: ``""`` for nothing; None where the name does not tell."""
    table = _table("base_prefixes.toml")
    if name in table["class"]:
        return str(table["class"][name])
    if _HEADED.search(name):
        return backbone_prefix(model_type)
    return "" if name.endswith("Model") and _BACKBONE.search(name) else None


def prefix_of_task(model_type: str | None, task: str) -> str | None:
    """The same for the class that transformers' auto classes load for PEFT's ``task_type``.

    ``FEATURE_EXTRACTION`` tells nothing: embedders are trained on bare backbones and on language models alike.
    """
    tasks: dict[str, dict[str, str]] = _table("base_prefixes.toml")["task"]
    return tasks[task].get(model_type or "", backbone_prefix(model_type)) if task in tasks else None


def tower_of_class(name: str) -> str | None:
    """What a model of several towers keeps the backbone of this class under: ``vision_model`` for ``CLIPVisionModel``."""
    towers: dict[str, str] = _table("base_prefixes.toml")["tower"]
    return towers.get(name)


def head_names(model_type: str | None) -> frozenset[str]:
    """What this model type alone calls a head: ``decoder`` for ModernBERT's output embedding."""
    return frozenset(_table("base_prefixes.toml")["head_names"].get(model_type, ()))


def head_inputs(model_type: str | None) -> tuple[int, ...]:
    """How often the width of the backbone goes into the input of a head: twice for DINOv2's classifier."""
    return (1, *_table("base_prefixes.toml")["head_inputs"].get(model_type, ()))


def has_projected_classifier(model_type: str | None) -> bool:
    """Whether ``classifier`` reads what a ``projector`` of the same class puts out, as wide as its config says."""
    return model_type in _table("base_prefixes.toml")["projected"]["model_types"]


def answers_elsewhere(model_type: str | None) -> bool:
    """Whether the class for question answering has, or may have, no ``qa_outputs``."""
    return backbone_prefix(model_type) is None or (
        model_type in _table("base_prefixes.toml")["other_answers"]["model_types"]
    )


def conv1d_names(model_type: str | None) -> frozenset[str]:
    """The modules that are transformers' ``Conv1D``: linear layers that store their weight (in, out)."""
    return frozenset(_table("base_prefixes.toml")["conv1d"].get(model_type, ()))


def embedding_names(model_type: str | None) -> frozenset[str]:
    """The modules that are embeddings, of those whose names have nothing of an embedding: ``tokens_embed`` of the first GPT."""
    return _of_type("embeddings", model_type)


def linear_names(model_type: str | None) -> frozenset[str]:
    """The modules that are linear layers under an embedding's name: ``patch_embedding`` of SigLIP 2."""
    return _of_type("linear", model_type)


def names_without_lora(model_type: str | None) -> frozenset[str]:
    """The modules with a matrix of which PEFT makes no LoRA, or one that the model does not use: embeddings of positions that
    look up others than they are asked for, weights that are read and not called."""
    return _of_type("without_lora", model_type)


def is_tied_by_default(model_type: str | None) -> bool:
    """Whether a config that does not say has the output embedding tied to the input embedding."""
    return model_type in _table("base_prefixes.toml")["tied"]["model_types"]


@cache
def renamed(model_type: str | None) -> tuple[tuple[re.Pattern[str], str], ...]:
    """Rules from the names of tensors on disk to those in memory, to be applied one after the other."""
    return tuple(
        (re.compile(pattern), into)
        for entry in _table("base_spellings.toml")["renamed"]
        if model_type in entry["model_types"]
        for pattern, into in entry["rules"]
    )


@cache
def stacks(model_type: str | None) -> tuple[Stack, ...]:
    """The experts' parameters that memory has for the single matrices on disk."""
    return _fused("stacked", model_type)


@cache
def splits(model_type: str | None) -> tuple[Stack, ...]:
    """The matrices on disk that memory has in parts."""
    return _fused("split", model_type)


@cache
def shared(model_type: str | None) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Ends of the names of modules that a checkpoint holds once, each with what else it is called in memory."""
    entries = [entry for entry in _table("base_spellings.toml")["shared"] if model_type in entry["model_types"]]
    return tuple((stored, tuple(others)) for entry in entries for stored, others in _lists(entry))


@cache
def retargeted(model_type: str | None) -> frozenset[str]:
    """Last words of the modules that PEFT takes for experts or a router of theirs, whichever module of this type they name."""
    entries = [entry for entry in _table("base_spellings.toml")["retargeted"] if model_type in entry["model_types"]]
    return frozenset(name for entry in entries for name in entry["names"])


def _of_type(table: str, model_type: str | None) -> frozenset[str]:
    entry = _table("base_layers.toml")[table]
    own = (name for name, model_types in entry["in"].items() if model_type in model_types)
    return frozenset([*entry.get("everywhere", ()), *own])


def _fused(table: str, model_type: str | None) -> tuple[Stack, ...]:
    return tuple(
        Stack(parameter, tuple(parts))
        for entry in _table("base_spellings.toml")[table]
        if model_type in entry["model_types"]
        for parameter, parts in _lists(entry)
    )


def _lists(entry: Mapping[str, Sequence[str]]) -> list[tuple[str, Sequence[str]]]:
    return [(key, value) for key, value in entry.items() if key != "model_types"]


@cache
def _table(name: str) -> dict[str, Any]:
    return tomllib.loads(files("registry.formats").joinpath(name).read_text(encoding="utf-8"))
