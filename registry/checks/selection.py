"""Does the config choose the modules that the tensors are for? PEFT makes its layers by the config and then loads into
them; tensors of a module that it did not choose are dropped without a word.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import pairwise

from registry.checks.brought import HEADS
from registry.checks.heads import VOCABULARY
from registry.checks.matching import match
from registry.checks.misfit import error, warning
from registry.checks.rule import Rule, Subject
from registry.domain.finding import Finding, Severity
from registry.formats.adapter_config import AdapterConfig
from registry.variants.extras import without_base_layer
from registry.variants.findings import some
from registry.variants.lora_layers import LoraLayer
from registry.variants.lora_targets import layers_by_target
from registry.variants.patterns import Patterns
from registry.variants.wanted import is_all_linear, picked

_FIX = "save the adapter again with PEFT, or correct target_modules, exclude_modules and layers_to_transform"
_NUMBER = re.compile(r"(?<=\.)\d+(?=\.)")
#: PEFT's own, where ``layers_pattern`` is not given: the first number, not that of an expert or of a part of the layer.
_LAYER = re.compile(r".*?\.[^.]*\.(\d+)\.")


#: What PEFT takes for an embedding where ``ensure_weight_tying`` asks for one (``peft/utils/constants.py``,
#: EMBEDDING_LAYER_NAMES): GPT-2's ``wte`` is none.
_TIED = ("embed_tokens", "lm_head")
#: Both sides of what may be one matrix.
_EMBEDDINGS = VOCABULARY | HEADS


def _not_chosen(subject: Subject) -> Iterator[Finding]:
    chosen = chooser(subject.config)
    if chosen is None:
        return
    matching, targets = match(subject), {target.path for target in subject.manifest.targets}
    known = matching.layers if matching else layers_by_target(subject.config, subject.manifest.tensors, targets)
    layers = {path: layer for path, layer in known.items() if _is_module(path, layer)}
    dropped = [path for path in layers if not chosen(path) and not _comes_along(path, subject, chosen)]
    if dropped:
        every = len(dropped) == len(layers)
        yield error(
            "target-not-chosen",
            f"the config chooses {'none' if every else f'{len(layers) - len(dropped):,}'} of the {len(layers):,} modules that "
            f"there are tensors for, and PEFT would drop the tensors of {some(dropped)} without a word",
            where="target_modules",
            target=dropped[0],
            fix=_FIX,
        )


def _layers_without(subject: Subject) -> Iterator[Finding]:
    """A kind of module that is adapted in some layers of the base and not in others, where the config means all. Kinds are
    told apart by the base's names, and chosen by the adapter's, which may be those of another spelling."""
    matching = match(subject)
    chosen = chooser(subject.config)
    if matching is None or chosen is None:
        return
    homes = {matching.homes[path]: path for path in matching.layers if path in matching.homes}
    called = {_NUMBER.sub("*", name): path for name, path in homes.items()}
    missing: dict[str, list[str]] = {}
    for name in matching.places.by_name:
        is_spare = name in homes or matching.places.is_beyond(name)
        like = called.get(_NUMBER.sub("*", name)) if not is_spare else None
        path = _numbered(like, name) if like is not None else None
        if path is not None and chosen(path):
            missing.setdefault(_NUMBER.sub("*", path), []).append(path)
    for shape, paths in missing.items():
        yield warning(
            "layer-without-tensors",
            f"the config chooses {shape} in every layer, and {some(paths)} of the base {'has' if len(paths) == 1 else 'have'} no "
            "tensors: part of the adapter is missing, or the base is another, deeper one",
            where="target_modules",
            target=paths[0],
            fix="check against the base it was trained on, or save the adapter again",
        )


def _numbered(path: str, name: str) -> str | None:
    """The path with the numbers that the name has: what an adapter calls another layer."""
    numbers = _NUMBER.findall(name)
    parts = _NUMBER.split(path)
    if len(parts) != len(numbers) + 1:
        return None
    return parts[0] + "".join(number + part for number, part in zip(numbers, parts[1:], strict=True))


def _comes_along(path: str, subject: Subject, chosen: Callable[[str], bool]) -> bool:
    """What PEFT adapts with another module: the output projection of ``MultiheadAttention``, and the other name of a tied
    embedding (``ensure_weight_tying``)."""
    above, _, last = path.rpartition(".")
    if last == "out_proj" and chosen(above):
        return True
    tied = subject.config.truthy("ensure_weight_tying") and last in _EMBEDDINGS
    return (
        tied
        and _names_tied(subject.config)
        and any(
            target.name in _EMBEDDINGS and target.path != path and chosen(target.path)
            for target in subject.manifest.targets
        )
    )


def _names_tied(config: AdapterConfig) -> bool:
    """Whether PEFT sees an embedding among the targets, and adapts what is tied to it: by these names alone."""
    asked = _names(config, "target_modules") or ()
    words = asked if isinstance(asked, str) else [name.rpartition(".")[2] for name in asked]
    return any(picked(words, name, Patterns()) for name in _TIED)


def _is_module(path: str, layer: LoraLayer) -> bool:
    """Not a bare parameter, which ``target_parameters`` chooses."""
    return path == without_base_layer(layer.path)


def chooser(config: AdapterConfig) -> Callable[[str], bool] | None:
    """PEFT's own rule (``peft/tuners/tuners_utils.py``, ``check_target_module_exists``); None where the choice is made by
    the model's class, or by an expression that takes more than linear time."""
    asked, spared = (_names(config, field) for field in ("target_modules", "exclude_modules"))
    if config.peft_type.upper() != "LORA" or asked is None or is_all_linear(asked):
        return None
    patterns = Patterns()
    indices, layer_patterns = _whole_numbers(config.raw.get("layers_to_transform")), _names(config, "layers_pattern")

    def chosen(path: str) -> bool:
        if picked(spared or (), path, patterns) or not picked(asked, path, patterns):
            return False
        if indices is None or isinstance(asked, str) or path in asked:
            return True
        return _layer_of(path, layer_patterns) in indices

    expressions = [one for one in (asked, spared) if isinstance(one, str)]
    for expression in expressions:
        patterns.fullmatch(expression, "x")  # compiled now, or found to be unresolved
    return None if patterns.unresolved.keys() & set(expressions) else chosen


def _layer_of(path: str, layer_patterns: list[str] | str | None) -> int | None:
    if not layer_patterns:
        found = _LAYER.match(path)
        return int(found[1]) if found and len(found[1]) < 9 else None
    names = [layer_patterns] if isinstance(layer_patterns, str) else layer_patterns
    parts = path.split(".")
    for name in names:
        for before, number in pairwise(parts[:-1]):
            if before == name and number.isascii() and number.isdecimal() and len(number) < 9:
                return int(number)
    return None


def _names(config: AdapterConfig, field: str) -> list[str] | str | None:
    value = config.raw.get(field)
    if isinstance(value, list):
        return [str(one) for one in value if one]
    return value if isinstance(value, str) else None


def _whole_numbers(value: object) -> set[int] | None:
    if isinstance(value, int):
        return {value}
    return {one for one in value if isinstance(one, int)} if isinstance(value, list) and value else None


TARGET_NOT_CHOSEN = Rule(
    "target-not-chosen",
    Severity.ERROR,
    "PEFT makes its layers by the config; tensors of other modules are dropped on load without a word.",
    _FIX,
    _not_chosen,
)
LAYER_WITHOUT_TENSORS = Rule(
    "layer-without-tensors",
    Severity.WARNING,
    "An adapter that lost a layer's tensors, or meets a deeper base, loads all the same and does less.",
    "Check against the base it was trained on.",
    _layers_without,
)
