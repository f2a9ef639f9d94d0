"""Is what ``modules_to_save`` names in the file as a whole? PEFT wants every parameter of such a module from the file, and
loads nothing of an adapter where one is missing. It takes every module whose path ends in the name: ``classifier`` takes
``pre_classifier`` as well, which may have no LoRA then.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace

from registry.checks.matching import Matching, match, path_of
from registry.checks.misfit import error
from registry.checks.places import Places, class_of, in_memory, upwards
from registry.checks.rule import Rule, Subject
from registry.domain.base_model import ModuleKind, ModuleSpec
from registry.domain.finding import Finding, Severity
from registry.formats.base_heads import certain_heads, has_bias
from registry.variants.findings import some
from registry.variants.settings import saved_modules

_FIX = "save the adapter again; if the module was never trained, remove the name from modules_to_save"
_NUMBER = re.compile(r"(?<=\.)\d+(?=\.)")
#: Where layers are counted.
_STACK = re.compile(r"\D*?\.(?=\d+\.)")
#: Modules whose ``weight`` and ``bias`` are surely parameters of the loaded model.
_PLAIN = frozenset({ModuleKind.LINEAR, ModuleKind.CONV1D, ModuleKind.EMBEDDING, ModuleKind.CONV})


def _incomplete(subject: Subject) -> Iterator[Finding]:
    matching = match(subject)
    declared = saved_modules(subject.config)
    if matching is None or not declared:
        return
    whole = [path for path in subject.manifest.extra_modules if path.endswith(declared)]
    adapted = [path for path, layer in matching.layers.items() if path.endswith(declared) and path == layer.path]
    held = {path_of(spec.name).removeprefix("base_model.") for spec in subject.manifest.tensors}
    below = _below(matching.places) if whole else {}
    for path in adapted:
        yield from _missing(path, [name for name in (f"{path}.weight",) if name not in held])
    for path in whole:
        home = matching.homes.get(path)
        wanted = _of_head(subject, matching, path, held) if home is None else _parameters(path, home, below)
        yield from _missing(path, [name for name in wanted if name not in held])
    for shape, absent in _other_layers(matching, declared, {*whole, *adapted}).items():
        yield from _missing(shape, absent)
    yield from _other_heads(subject, declared, held)


def _missing(path: str, names: list[str]) -> Iterator[Finding]:
    if names:
        yield error(
            "saved-module-incomplete",
            f"modules_to_save takes {path}, and the file has no {some(names)}: PEFT cannot load the adapter",
            where="modules_to_save",
            target=path,
            expected=some(names),
            found="none",
            fix=_FIX,
        )


def _of_head(subject: Subject, matching: Matching, path: str, held: Collection[str]) -> Iterator[str]:
    """A head of one matrix that the base lacks, and whose class gives it a bias."""
    config = subject.config
    if f"{path}.weight" in held and has_bias(path, matching.places.base.model_type, config.task_type, class_of(config)):
        yield f"{path}.bias"


def _parameters(path: str, home: str, below: Mapping[str, list[ModuleSpec]]) -> Iterator[str]:
    """The parameters of the module and of what is below it, as the adapter has to call them."""
    for module in below.get(home, ()):
        own = path + module.path.removeprefix(home)
        yield f"{own}.weight"
        if module.has_bias:
            yield f"{own}.bias"


def _below(places: Places) -> Mapping[str, list[ModuleSpec]]:
    """Every path of the base with the plain modules that are at it or below it, under their names in memory; what a
    quantiser packed has other parameters."""
    found: dict[str, list[ModuleSpec]] = {}
    for name, module in places.by_name.items() if not places.base.is_quantized else ():
        is_attention = (
            f"{name}.out_proj" in places.by_name
        )  # nn.MultiheadAttention, whose parameters are called otherwise
        if module.kind not in _PLAIN or is_attention or ".experts." in name:
            continue
        if in_memory(name, places.base.model_type) == name:
            for above in upwards(name):
                found.setdefault(above, []).append(replace(module, path=name))
    return found


def _other_layers(matching: Matching, declared: tuple[str, ...], known: Collection[str]) -> dict[str, list[str]]:
    """Modules in the layers of the base that a declared name takes and the file lacks; of stacks of layers that the file has
    something of, since the class that was trained may have one of several (the encoder)."""
    stacks = {found[0] for path in (*known, *matching.layers) if (found := _STACK.match(path))}
    absent: dict[str, list[str]] = {}
    for name in (*matching.places.by_name, *matching.places.containers) if stacks else ():
        path = matching.places.spelled(name, matching.prefix)
        found = _STACK.match(path)
        if found and found[0] in stacks and path.endswith(declared) and not any(one in known for one in upwards(path)):
            absent.setdefault(_NUMBER.sub("*", path), []).append(path)
    return {shape: sorted(set(paths)) for shape, paths in absent.items()}


def _other_heads(subject: Subject, declared: tuple[str, ...], held: Collection[str]) -> Iterator[Finding]:
    """Heads that the trained class has besides and a declared name takes."""
    base, config = subject.base, subject.config
    for head in certain_heads(base.model_type, config.task_type, class_of(config)) if base is not None else ():
        is_more = head.endswith(declared) and head not in declared
        if is_more and not any(head in name.split(".") for name in held):
            yield from _missing(head, [f"{head}.weight"])


SAVED_INCOMPLETE = Rule(
    "saved-module-incomplete",
    Severity.ERROR,
    "A module that is saved whole has to be in the file with all its parameters, or the adapter does not load.",
    _FIX,
    _incomplete,
)
