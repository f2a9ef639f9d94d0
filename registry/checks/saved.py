"""Is what ``modules_to_save`` names in the file as a whole? PEFT wants every parameter of such a module from the file, and
loads nothing of an adapter where one is missing. It takes every module whose path ends in the name: ``classifier`` takes
``pre_classifier`` as well, which may have no LoRA then, and ``attn`` takes the ``c_attn`` in it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace

from registry.checks.brought import HEADS, OPTIONAL
from registry.checks.matching import Matching, match, path_of
from registry.checks.misfit import error
from registry.checks.places import Places, class_of, in_memory, upwards
from registry.checks.rule import Rule, Subject
from registry.checks.stacks import is_taken_apart
from registry.domain.base_model import ModuleKind, ModuleSpec
from registry.domain.finding import Finding, Severity
from registry.formats.base_heads import has_bias, is_class_for
from registry.variants.findings import some
from registry.variants.settings import saved_modules

_FIX = "save the adapter again; if the module was never trained, remove the name from modules_to_save"
_NESTED_FIX = (
    "write the full paths of the outer modules into modules_to_save: the file has all tensors of what is in them"
)
_NUMBER = re.compile(r"(?<=\.)\d+(?=\.)")
#: Modules whose ``weight`` and ``bias`` are surely parameters of the loaded model.
_PLAIN = frozenset({ModuleKind.LINEAR, ModuleKind.CONV1D, ModuleKind.EMBEDDING, ModuleKind.CONV})


def _incomplete(subject: Subject) -> Iterator[Finding]:
    matching = match(subject)
    declared = saved_modules(subject.config)
    if matching is None or not declared:
        return
    taken = _taken(matching, declared)
    whole = [path for path in subject.manifest.extra_modules if path.endswith(declared)]
    adapted = [path for path, layer in matching.layers.items() if path.endswith(declared) and path == layer.path]
    held = {path_of(spec.name).removeprefix("base_model.") for spec in subject.manifest.tensors}
    below = _below(matching.places) if whole else {}
    for path in adapted:
        yield from _missing(path, [name for name in (f"{path}.weight",) if name not in held])
    for path in whole:
        home = matching.homes.get(path)
        is_own = home is not None and not _is_of_other_class(subject, path)
        wanted = _parameters(path, home or "", below) if is_own else _of_head(subject, matching, path, held)
        yield from _missing(path, [name for name in wanted if name not in held])
    for shape, absent in _other_layers(matching, declared, whole, taken).items():
        yield from _missing(shape, absent)


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


def _is_of_other_class(subject: Subject, path: str) -> bool:
    """Whether it is a head, and the checkpoint's is that of another class than the one that was trained: under the same name it
    may have other parameters."""
    words = path.split(".")
    if subject.base is None or any(map(str.isdecimal, words)) or (HEADS - OPTIONAL).isdisjoint(words):
        return False
    task, name = subject.config.task_type, class_of(subject.config)
    return not any(is_class_for(architecture, task, name) for architecture in subject.base.architectures)


def _of_head(subject: Subject, matching: Matching, path: str, held: Collection[str]) -> Iterator[str]:
    """A head of one matrix that the base lacks, and whose class gives it a bias."""
    config = subject.config
    if f"{path}.weight" in held and has_bias(path, matching.places.base.model_type, config.task_type, class_of(config)):
        yield f"{path}.bias"


def _parameters(path: str, home: str, below: Mapping[str, list[ModuleSpec]]) -> Iterator[str]:
    """The parameters of the module and of what is below it, as the adapter has to call them; but not of what the trained class
    may lack."""
    for module in below.get(home, ()):
        inside = module.path.removeprefix(home)
        own = path + inside
        if not OPTIONAL.isdisjoint(inside.split(".")):
            continue
        yield f"{own}.weight"
        if module.has_bias:
            yield f"{own}.bias"


def _below(places: Places) -> Mapping[str, list[ModuleSpec]]:
    """Every path of the base with the plain modules that are at it or below it, under their names in memory; what a
    quantiser packed has other parameters. A normalisation is told from a bare parameter by its bias."""
    found: dict[str, list[ModuleSpec]] = {}
    for name, module in places.by_name.items() if not places.base.is_quantized else ():
        is_attention = (
            f"{name}.out_proj" in places.by_name
        )  # nn.MultiheadAttention, whose parameters are called otherwise
        is_norm = module.kind is ModuleKind.OTHER and module.has_bias and len(module.shape or ()) == 1
        if not (module.kind in _PLAIN or is_norm) or is_attention or ".experts." in name:
            continue
        if in_memory(name, places.base.model_type) == name and not is_taken_apart(name, places.base.model_type):
            for above in upwards(name):
                found.setdefault(above, []).append(replace(module, path=name))
    return found


def _other_layers(
    matching: Matching, declared: tuple[str, ...], whole: list[str], taken: Collection[str]
) -> dict[str, list[str]]:
    """Modules of the base that a declared name takes in one layer as in another, and that the file has in some layers only."""
    held = {*whole, *taken}
    shapes = {shape for path in whole if (shape := _NUMBER.sub("*", path)) != path}
    absent: dict[str, list[str]] = {}
    for name in (*matching.places.by_name, *matching.places.containers) if shapes else ():
        path = matching.places.spelled(name, matching.prefix)
        shape = _NUMBER.sub("*", path)
        if shape in shapes and path not in held and path.endswith(declared) and not matching.places.is_beyond(name):
            absent.setdefault(shape, []).append(path)
    return {shape: sorted(set(paths)) for shape, paths in absent.items()}


def _taken(matching: Matching, declared: tuple[str, ...]) -> frozenset[str]:
    """Every module above a whole tensor of the file that a declared name takes."""
    above = {path for tensor in matching.whole for path in upwards(tensor.module)}
    return frozenset(path for path in above if path.endswith(declared))


def _nested(subject: Subject) -> Iterator[Finding]:
    """PEFT looks for the tensors of the inner module twice, and takes them away the first time. What is deeper than one step
    below a module that is taken has no wrapper of its own."""
    matching, declared = match(subject), saved_modules(subject.config)
    if matching is None or not declared:
        return
    taken = _taken(matching, declared)
    inner = sorted(path for path in taken if path.rpartition(".")[0] in taken)
    if inner:
        outer = inner[0].rpartition(".")[0]
        yield error(
            "saved-module-nested",
            f"modules_to_save takes {outer} and what is in it, {some(inner)}: PEFT saves such an adapter and cannot load it "
            "back",
            where="modules_to_save",
            target=outer,
            expected="modules of which none is part of another",
            found=inner[0],
            fix=_NESTED_FIX,
        )


SAVED_NESTED = Rule(
    "saved-module-nested",
    Severity.ERROR,
    "A name takes every module whose path ends in it, and of two that lie in one another PEFT looks for the inner one twice.",
    _NESTED_FIX,
    _nested,
)
SAVED_INCOMPLETE = Rule(
    "saved-module-incomplete",
    Severity.ERROR,
    "A module that is saved whole has to be in the file with all its parameters, or the adapter does not load.",
    _FIX,
    _incomplete,
)
