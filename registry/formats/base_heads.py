"""Which heads a class has on top of the backbone: what a checkpoint of another class lacks, and an adapter may bring along.

The class follows from PEFT's task type, or from the class that the adapter's config names. All of it is data:
``base_heads.toml``, by what a class's name ends in and by model type.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

#: ``LlamaForCausalLM`` → ``ForCausalLM``.
_ENDING = re.compile(r"(?:For[A-Z]\w*|(?:LMHead|DoubleHeads|MT)Model)$")
_SAME = {
    "LMHeadModel": "ForCausalLM",
    "DoubleHeadsModel": "ForCausalLM",
    "MTModel": "ForConditionalGeneration",
    "ForQuestionAnsweringSimple": "ForQuestionAnswering",
}
#: What PEFT's task types are trained on; of ``FEATURE_EXTRACTION`` nobody can tell.
_TASKS: Mapping[str, Collection[str]] = {
    "CAUSAL_LM": ("ForCausalLM", "ForConditionalGeneration"),
    "SEQ_2_SEQ_LM": ("ForConditionalGeneration", "ForSpeechToText", "ForTextToText"),
    "SEQ_CLS": (
        "ForSequenceClassification",
        "ForImageClassification",
        "ForAudioClassification",
        "ForVideoClassification",
    ),
    "TOKEN_CLS": ("ForTokenClassification", "ForAudioFrameClassification"),
    "QUESTION_ANS": ("ForQuestionAnswering",),
}
#: What PEFT lists as ``modules_to_save`` for these tasks by itself, whatever the model has (``peft/peft_model.py``).
DEFAULTS: Mapping[str, frozenset[str]] = {
    "SEQ_CLS": frozenset({"classifier", "score"}),
    "TOKEN_CLS": frozenset({"classifier", "score"}),
    "QUESTION_ANS": frozenset({"qa_outputs"}),
}


def heads_of(model_type: str | None, task: str | None, name: str | None) -> frozenset[str] | None:
    """The attributes that the class for ``task``, or else the class ``name``, has beside its backbone; those of any class of
    the type where neither tells. None where the class is not in the table."""
    endings = _endings(task, name)
    if endings is not None:
        return _listed(model_type, endings)
    everything = _listed(model_type, _heads())
    is_bare = task is None and name is not None and name.endswith("Model")
    if is_bare and everything is not None:
        return frozenset()
    return None if task is None and name is not None else everything


def certain_heads(model_type: str | None, task: str | None, name: str | None) -> frozenset[str]:
    """Those that the trained class certainly has: none where nothing tells which class that is."""
    return _listed(model_type, _endings(task, name) or ()) or frozenset()


def has_bias(head: str, model_type: str | None, task: str | None, name: str | None) -> bool:
    """Whether the class's head of one matrix (``classifier``, ``score``, ``qa_outputs``) certainly has a bias."""
    endings = _endings(task, name)
    biased: Mapping[str, Sequence[str]] = _table()["biased"].get(head, {})
    certain = [
        ending
        for ending in endings or ()
        if model_type in _heads().get(ending, {}).get(head, ()) and model_type not in biased.get(ending, (model_type,))
    ]
    return bool(certain)


def is_class_for(architecture: str, task: str | None, name: str | None) -> bool:
    """Whether a checkpoint of the class ``architecture`` has the heads of the class that is loaded for the task, or else of
    ``name``."""
    if task is None:
        return architecture == name
    ending = _ENDING.search(architecture)
    return ending is not None and _SAME.get(ending[0], ending[0]) in (_endings(task, name) or ())


def _endings(task: str | None, name: str | None) -> Collection[str] | None:
    """What the name of the trained class ends in; None where nothing tells."""
    if task is not None and task in _TASKS:
        return _TASKS[task]
    ending = _ENDING.search(name) if task is None and name is not None else None
    return (_SAME.get(ending[0], ending[0]),) if ending is not None else None


def _listed(model_type: str | None, endings: Collection[str]) -> frozenset[str] | None:
    found = {
        head
        for ending in endings
        for head, model_types in _heads().get(ending, {}).items()
        if model_type in model_types
    }
    return frozenset(found) or None


@cache
def _heads() -> Mapping[str, Mapping[str, Sequence[str]]]:
    return {ending: heads for ending, heads in _table().items() if ending != "biased"}


@cache
def _table() -> Mapping[str, Mapping[str, Any]]:
    return tomllib.loads(files("registry.formats").joinpath("base_heads.toml").read_text(encoding="utf-8"))
