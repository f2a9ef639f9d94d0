"""Biases: one that replaces the base's, one that LoRA adds, and those that were trained and not saved."""

from __future__ import annotations

from collections.abc import Iterator

from registry.checks.brought import HEADS
from registry.checks.matching import Matching, match, path_of
from registry.checks.misfit import error, warning
from registry.checks.parts import sure_of
from registry.checks.places import in_memory, upwards
from registry.checks.rule import Rule, Subject
from registry.checks.stacks import is_taken_apart
from registry.domain.base_model import ModuleKind
from registry.domain.finding import Finding, Severity
from registry.variants.extras import lost_biases
from registry.variants.findings import some
from registry.variants.settings import layer_spans, saved_modules, trained_biases


def _bias_without_base(subject: Subject) -> Iterator[Finding]:
    """A bias of the base's that the adapter replaces: PEFT has nowhere to put it."""
    matching = match(subject)
    if matching is None:
        return
    replaced = [(tensor.module, tensor.spec) for tensor in matching.whole if tensor.tail == "bias"]
    own = {one.module for one in matching.whole if one.tail == "weight" and one.module.rpartition(".")[2] in HEADS}
    for path, spec in replaced:
        if path in own or not _lacks_bias(matching, path):
            continue  # a head that is replaced whole brings its bias
        yield error(
            "bias-without-base",
            f"{spec.name} replaces a bias, and {path} in the base has none",
            where=spec.name,
            target=path,
            expected="a module with a bias",
            found="a module without",
            fix="check against the base it was trained on; PEFT drops the bias on load",
        )


def _bias_added(subject: Subject) -> Iterator[Finding]:
    """``lora_bias``: PEFT adds it to what the layer puts out, whether the base has a bias or not, and merges it only into
    one that is there."""
    matching = match(subject)
    if matching is None:
        return
    added = [path for path, one in matching.layers.items() if one.bias is not None and _lacks_bias(matching, path)]
    if added:
        yield warning(
            "bias-added",
            f"the adapter adds a bias to {some(added)}, and the base has none there: PEFT applies it and cannot merge it",
            where="lora_bias",
            target=added[0],
            expected="a module with a bias",
            found="a module without",
            fix="serve it unmerged with PEFT; if the base that it was trained on has biases, this is another one",
        )


def _lacks_bias(matching: Matching, path: str) -> bool:
    module = matching.module(path)
    return module is not None and not module.has_bias and module.kind is not ModuleKind.PACKED


def _lost(subject: Subject) -> Iterator[Finding]:
    """Without a base only that there are none at all can be said; with one, which."""
    trained = trained_biases(subject.config)
    held = {path_of(spec.name) for spec in subject.manifest.tensors if spec.name.endswith(".bias")}
    matching = match(subject)
    if matching is None:
        yield from lost_biases(trained, has_bias=bool(held))
        return
    if trained == "none" or layer_spans(subject.config):
        return
    expected = _of_all(subject, matching) if trained == "all" else _of_targets(subject, matching)
    saved = saved_modules(subject.config) or ("\0",)
    lost = [path for path in dict.fromkeys(expected) if f"{path}.bias" not in held and not _is_below(path, saved)]
    if lost:
        yield warning(
            "bias-lost",
            f'bias is "{trained}", and the file has no bias of {some(lost)}, where the base has one: PEFT 0.7 to 0.20 did not '
            "save all the biases that it trained (huggingface/peft#3490)",
            where="bias",
            target=lost[0],
            expected=f"{lost[0]}.bias",
            found="none",
            fix="save the adapter again with PEFT 0.21 or newer, if the trained model still exists",
        )


def _of_targets(subject: Subject, matching: Matching) -> Iterator[str]:
    for target in subject.manifest.targets:
        module = matching.module(target.path)
        if module is not None and module.has_bias:
            yield target.path


def _of_all(subject: Subject, matching: Matching) -> Iterator[str]:
    """The biases of the trained class, as far as it is sure to have them."""
    places, is_sure = matching.places, sure_of(subject, matching)
    model_type = places.base.model_type
    for name, module in places.by_name.items():
        path = places.spelled(name, matching.prefix)
        is_there = in_memory(name, model_type) == name and not is_taken_apart(name, model_type)
        if module.has_bias and is_there and is_sure(path) and not places.is_beyond(name):
            yield path


def _is_below(path: str, names: tuple[str, ...]) -> bool:
    return any(above.endswith(names) for above in upwards(path))


BIAS_WITHOUT_BASE = Rule(
    "bias-without-base",
    Severity.ERROR,
    "A bias that replaces the base's needs one to replace: without it PEFT drops the bias on load.",
    "Check against the base it was trained on.",
    _bias_without_base,
)
BIAS_ADDED = Rule(
    "bias-added",
    Severity.WARNING,
    "A bias that LoRA adds where the base has none is applied by PEFT, and has no place in a merged checkpoint.",
    "Serve it unmerged with PEFT.",
    _bias_added,
)
BIAS_LOST = Rule(
    "bias-lost",
    Severity.WARNING,
    "Biases that were trained and are not in the file are the base's own again, and the adapter does less than was trained.",
    "Save the adapter again with PEFT 0.21 or newer.",
    _lost,
)
