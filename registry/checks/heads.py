"""Modules saved whole: a head that the file brings along, one that is declared and nowhere, one of another size."""

from __future__ import annotations

from collections.abc import Iterator

from registry.checks.brought import HEADS, OPTIONAL
from registry.checks.matching import match, path_of
from registry.checks.misfit import error, note, warning
from registry.checks.places import is_foreign_class, upwards
from registry.checks.rule import Rule, Subject
from registry.checks.widths import has_free_rows
from registry.domain.base_model import BaseModelSpec
from registry.domain.finding import Finding, Severity
from registry.formats.base_classes import answers_elsewhere, head_names
from registry.formats.base_heads import certain_heads, heads_of
from registry.variants.findings import some
from registry.variants.lora_checks import shown
from registry.variants.settings import saved_modules

#: PEFT lists both for these tasks, and a model has one of them (``peft/utils/constants.py``, SEQ_CLS_HEAD_NAMES).
_DEFAULTS = frozenset({"classifier", "score"})
_TASKS = frozenset({"SEQ_CLS", "TOKEN_CLS"})
#: PEFT lists it for every model that answers questions (``PeftModelForQuestionAnswering``).
_ANSWERS = "qa_outputs"
#: Their first dimension is the vocabulary: registry.checks.vocabulary speaks of them.
VOCABULARY = frozenset({
    "embed_in", "embed_out", "embed_tokens", "embeddings", "lm_head", "shared", "tok_embeddings", "tokens_embed",
    "word_embeddings", "wte",
})  # fmt: skip


def _brought(subject: Subject) -> Iterator[Finding]:
    matching = match(subject)
    for path in matching.brought if matching is not None else ():
        if matching is not None and matching.places.base.is_tied and path.rpartition(".")[2] in VOCABULARY:
            continue  # the base stores it once, under the other name
        yield note(
            "head-brought",
            f"{path} comes with the adapter, the base has none: it is a head of the class that was trained",
            target=path,
            found=path,
            fix="nothing to do; load the adapter with the class it was trained on",
        )


def _nowhere(subject: Subject) -> Iterator[Finding]:
    for name in _unmet(subject):
        if not _is_of_another(name, subject):
            yield error(
                "head-nowhere",
                f"modules_to_save names {name}, and the file has no tensor of it",
                where="modules_to_save",
                target=name,
                expected=f"the tensors of {name}",
                found="none",
                fix="save the adapter again; if the module was never trained, remove the name from modules_to_save",
            )

    for name in _unlisted(subject):
        yield warning(
            "head-nowhere",
            f"a {subject.base.model_type if subject.base else None} for {subject.manifest.task_type} has {name}, which PEFT saves "
            "whole by itself, and the file has no tensor of it: PEFT cannot load the adapter",
            where="modules_to_save",
            target=name,
            expected=f"the tensors of {name}",
            found="none",
            fix="save the adapter again; the head was trained, and is lost",
        )


def _unlisted(subject: Subject) -> Iterator[str]:
    """The head that PEFT wants for the task although nobody names it, where the class is sure to have it and the file has none at
    all: no misfit, since the adapter may be meant for a model that has one. An adapter that brings a head of another name was
    trained on a class that is not transformers' own."""
    matching, task = match(subject), subject.manifest.task_type
    if matching is None or task not in _TASKS or not subject.manifest.targets or is_foreign_class(subject.config):
        return
    heads = certain_heads(matching.places.base.model_type, task, None)
    held = {above for spec in subject.manifest.tensors for above in upwards(path_of(spec.name))}
    if held.isdisjoint(_DEFAULTS) and {path.partition(".")[0] for path in matching.brought} <= heads:
        yield from sorted(heads & _DEFAULTS)


def _elsewhere(subject: Subject) -> Iterator[Finding]:
    model_type = subject.base.model_type if subject.base is not None else None
    for name in _unmet(subject):
        if _is_of_another(name, subject):
            own = some(sorted(heads_of(model_type, None, None) or ()))
            yield warning(
                "head-elsewhere",
                f"modules_to_save names {name}, and no {model_type} has a module of this name; PEFT trains what it finds, so "
                f"nothing is lost, and nothing was trained by it: the heads of {model_type} are {own}",
                where="modules_to_save",
                target=name,
                expected=own,
                found=name,
                fix="if that head was to be trained, name it as the model does and train again",
            )


def _unmet(subject: Subject) -> Iterator[str]:
    """What ``modules_to_save`` names and the file has no tensor of; but not what PEFT lists by itself and the class lacks."""
    if subject.base is None:
        return
    brought = set(subject.manifest.extra_modules)
    if (matching := match(subject)) is not None:  # a name may mean what is in another module that is saved whole
        brought.update(path for tensor in matching.whole for path in upwards(tensor.module))
    for name in saved_modules(subject.config):
        if any(path.endswith(name) for path in brought):
            continue
        if name in _DEFAULTS and subject.manifest.task_type in _TASKS:
            continue
        if name == _ANSWERS and subject.manifest.task_type == "QUESTION_ANS" and _answers_elsewhere(subject.base):
            continue
        yield name


def _is_of_another(name: str, subject: Subject) -> bool:
    """Whether it is what other model types call a head or an embedding, and no class of this one has such a module. A class
    that is not transformers' own may have any."""
    matching, base = match(subject), subject.base
    if matching is None or base is None:
        return False
    own, word = heads_of(base.model_type, None, None), name.rpartition(".")[2]
    if own is None or word not in HEADS | VOCABULARY or is_foreign_class(subject.config):
        return False
    if not (own | OPTIONAL | head_names(base.model_type)).isdisjoint(name.split(".")):
        return False
    places = matching.places
    return not any(path.endswith(name) for path in (*places.by_name, *places.containers))


def _answers_elsewhere(base: BaseModelSpec) -> bool:
    """Whether the model's own head for questions may have another name, so that ``qa_outputs`` is nowhere."""
    return answers_elsewhere(base.model_type) and not any(module.path.endswith(_ANSWERS) for module in base.modules)


def _other_size(subject: Subject) -> Iterator[Finding]:
    matching = match(subject)
    if matching is None:
        return
    for tensor in matching.whole:
        module = matching.module(tensor.module)
        name = tensor.module.rpartition(".")[2]
        if tensor.tail != "weight" or module is None or module.shape is None or name in VOCABULARY:
            continue
        shape = tensor.spec.shape
        if has_free_rows(tensor.module, module) and shape != module.shape and shape[1:] == module.shape[1:]:
            yield warning(
                "head-resized",
                f"{tensor.spec.name} is {shown(shape)}, and the base's own {tensor.module} is {shown(module.shape)}",
                where=tensor.spec.name,
                target=tensor.module,
                expected=shown(module.shape),
                found=shown(shape),
                fix="load the base with the adapter's number of labels",
            )


HEAD_BROUGHT = Rule(
    "head-brought",
    Severity.INFO,
    "A class with a head of its own is trained on a base without it; the head lies in the adapter.",
    "Load the adapter with the class it was trained on.",
    _brought,
)
HEAD_NOWHERE = Rule(
    "head-nowhere",
    Severity.ERROR,
    "A module that is declared and missing starts from random numbers, or the adapter does not load.",
    "Save the adapter again, or remove the name.",
    _nowhere,
)
HEAD_ELSEWHERE = Rule(
    "head-elsewhere",
    Severity.WARNING,
    "Lists of modules are copied from one model's recipe to another's, and PEFT says nothing about a name that meets no module.",
    "Name the head as the model does, and train again; or remove the name.",
    _elsewhere,
)
HEAD_RESIZED = Rule(
    "head-resized",
    Severity.WARNING,
    "A head for another number of labels replaces the base's, whose config has to say so.",
    "Load the base with the adapter's number of labels.",
    _other_size,
)
