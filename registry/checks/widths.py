"""How wide a head is that the base lacks: it reads what the backbone puts out, or another part of the adapter."""

from __future__ import annotations

import re
from collections.abc import Iterator

from registry.checks.brought import HEADS, OPTIONAL
from registry.checks.matching import Matching
from registry.checks.misfit import Misfit, error
from registry.domain.base_model import BaseModelSpec, ModuleKind, ModuleSpec
from registry.domain.tensors import TensorSpec
from registry.formats.base_classes import has_projected_classifier, head_inputs
from registry.variants.lora_checks import shown

#: Heads that are one matrix on top of the backbone in every class that has them.
_PLAIN = frozenset({"classifier", "embed_out", "lm_head", "output_projection", "proj_out", "qa_outputs", "score"})
#: Normalisations are as wide as the backbone; those of queries and keys are as wide as a head of the attention.
_NORM = re.compile(r"(?!q_|k_|query|key).*(?:norm|(?:^|_)ln(?:_|\d|$)|(?:^|_)bn)", re.IGNORECASE)


def heads_misfitting(matching: Matching) -> Iterator[Misfit]:
    """A width that is nowhere is of another base. One matrix on top reads the backbone's width, and no other of its
    sizes."""
    every, backbone = _widths(matching.places.base)
    for tensor in matching.whole:
        shape, path = tensor.spec.shape, tensor.module
        if tensor.module not in matching.brought or tensor.tail != "weight":
            continue
        if path in _PLAIN and len(shape) != 2:
            yield misfitting(path, tensor.spec, "a matrix, (outputs, inputs)", shown(shape))
        elif len(shape) == 2 and every and not _reads_projection(path, matching):
            others = {one.spec.shape[0] for one in matching.whole if one is not tensor and one.spec.shape}
            widths = backbone if path in _PLAIN else every
            if shape[1] not in widths | others:
                known = " or ".join(map(str, sorted(backbone))) if len(backbone) < 4 else "a width that the base has"
                yield misfitting(path, tensor.spec, f"inputs of {known}", shown(shape))


def has_free_rows(path: str, module: ModuleSpec) -> bool:
    """Whether another number of rows is the vocabulary's or the labels' business: of matrices at the edges of the model, but for
    those that no class puts labels out of."""
    words = path.split(".")
    if any(word.isdecimal() for word in words) or len(module.shape or ()) < 2:
        return False
    return OPTIONAL.isdisjoint(words) and (module.kind is not ModuleKind.CONV or not HEADS.isdisjoint(words))


def contradicting(matching: Matching) -> Iterator[Misfit]:
    """One number of outputs has the weight of a linear layer, and another its bias."""
    weights = {one.module: one.spec for one in matching.whole if one.tail == "weight"}
    for tensor in matching.whole:
        weight, module = weights.get(tensor.module), matching.module(tensor.module)
        if tensor.tail != "bias" or weight is None or len(weight.shape) != 2:
            continue
        is_head = tensor.module in matching.brought and tensor.module in _PLAIN
        is_linear = (
            is_head if module is None else module.kind is ModuleKind.LINEAR and has_free_rows(tensor.module, module)
        )
        if is_linear and tensor.spec.shape != weight.shape[:1]:
            yield misfitting(
                tensor.module,
                tensor.spec,
                f"as many as {weight.name}, {shown(weight.shape[:1])}",
                shown(tensor.spec.shape),
            )


def _widths(base: BaseModelSpec) -> tuple[set[int], set[int]]:
    """All sizes of the base, and those of what its layers hand on; each as often as a head of this type reads it."""
    times = head_inputs(base.model_type)
    every: set[int] = set()
    backbone: set[int] = set()
    for module in base.modules:
        shape, name = module.shape or (), module.path.rpartition(".")[2]
        every.update(shape)
        if len(shape) == 1 and _NORM.match(name):
            backbone.add(shape[0])
        elif module.kind is ModuleKind.EMBEDDING and len(shape) == 2:
            backbone.add(shape[1])
    norms = backbone or every
    return {size * each for size in every for each in times}, {size * each for size in norms for each in times}


def _reads_projection(path: str, matching: Matching) -> bool:
    """A classifier behind a projection that its class has, and neither the base nor the file."""
    if path != "classifier" or not has_projected_classifier(matching.places.base.model_type):
        return False
    return not any(one.module == "projector" for one in matching.whole) and "projector" not in matching.places.by_name


def misfitting(path: str, spec: TensorSpec, expected: str, found: str) -> Misfit:
    """What wrong-shape says of one tensor."""
    return error(
        "wrong-shape",
        f"{spec.name} is {found}, and {path} in the base needs {expected}",
        where=spec.name,
        target=path,
        expected=expected,
        found=found,
        fix="check against the base it was trained on",
    )
