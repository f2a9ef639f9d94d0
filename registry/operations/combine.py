"""Adapters and weights become one adapter: the sum of their deltas, with its error stated, or nothing appears.

1. Find the adapters, and read what they are. Damage is refused.
2. Plan the sum, or say all reasons why there is none.
3. Write weights and config beside the wanted place; the tokenizer and card that all have in common go along.
4. Read the copy back: it is an adapter without an error, and every delta is as far from the exact sum as was said.
5. Only then it is renamed into place, and stored as a version if that was asked: with its parents, weights and error.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import hypot
from pathlib import Path
from types import MappingProxyType

from registry.disk import write_new
from registry.domain.checkpoint import Shard
from registry.domain.finding import Finding, Severity
from registry.domain.lineage import LineageEdge
from registry.domain.manifest import Manifest
from registry.domain.names import AdapterName
from registry.errors import DefectiveAdapterError, RejectedError, UncombinableError
from registry.formats.adapter_directory import CONFIG, WEIGHTS
from registry.operations.bases import Shelf
from registry.operations.check import adapter_in, against_base
from registry.operations.combined import Combined, CombineRequest
from registry.operations.describe import AdapterPackage, describe
from registry.operations.ingredients import Found, find_adapter, temporary
from registry.operations.placing import placed
from registry.operations.publish import Submission, publish, refuse_errors
from registry.plans.combine_config import with_ranks
from registry.plans.combine_findings import remarks
from registry.plans.combine_plan import plan_combine
from registry.plans.combining import CombinePlan, Method
from registry.plans.merge_draft import Ingredient
from registry.plans.merging import SameNumbers
from registry.plans.results import Layer
from registry.variants.lora_targets import LoraDelta, deltas

_NONFINITE = "nonfinite"
#: Unit roundoff of the types that factors are stored in. Both factors are rounded, each by as much at most.
_ROUNDOFF = {"F64": 2.0**-53, "F32": 2.0**-24, "F16": 2.0**-11, "BF16": 2.0**-8}
#: What sums, QR and SVD in float64 cost at most, relative to the terms: terms that cancel leave nothing but that.
_ARITHMETIC = 2.0**-45


@dataclass(frozen=True, slots=True)
class Workshop:
    """What :mod:`registry.transforms.combine` does with tensors."""

    combine: Callable[[CombinePlan, Sequence[Shard], Method, Path], Sequence[Layer]]
    errors: Callable[
        [CombinePlan, Sequence[Shard], Method, Path, Mapping[str, LoraDelta]], Iterator[tuple[str, float, float, float]]
    ]
    same_numbers: SameNumbers


Foresee = Callable[[Sequence[Found]], None]


def combine(
    request: CombineRequest, *, shelf: Shelf, workshop: Workshop, foresee: Foresee = lambda _found: None
) -> Combined:
    """``foresee`` is told the adapters once it is sure that they have a sum.

    Raises OutputExistsError, NotFoundError, InvalidInputError, and RejectedError with every reason where there is no sum.
    """
    with temporary() as work:
        found = find_all(request, work, shelf)  # 1
        return combine_found(found, request, work, shelf=shelf, workshop=workshop, foresee=foresee)


def find_all(request: CombineRequest, work: Path, shelf: Shelf) -> list[Found]:
    """The adapters; what has to be fetched lies below ``work``."""
    found = [find_adapter(subject, work / str(number), shelf) for number, (subject, _) in enumerate(request.adapters)]
    for one in found:
        _refuse_damage(one)
    return found


def combine_found(
    found: Sequence[Found],
    request: CombineRequest,
    work: Path,
    *,
    shelf: Shelf,
    workshop: Workshop,
    facts: Mapping[str, object] = MappingProxyType({}),
    foresee: Foresee = lambda _found: None,
) -> Combined:
    """:func:`combine` of adapters that were found, with the weights of the request. ``facts`` go into the recipe of a version."""
    weights = [weight for _, weight in request.adapters]
    adapters = [one.ingredient(number, weight) for number, (one, weight) in enumerate(zip(found, weights, strict=True))]
    plan, problems = plan_combine(adapters, workshop.same_numbers, request.method, dtype=request.dtype)  # 2
    reasons = [*_without_numbers(found), *problems]
    if plan is None or reasons:
        raise UncombinableError(", ".join(one.name for one in adapters), reasons)
    place = request.into if request.into is not None else work / "combined"
    with placed(place) as copy:
        foresee(found)
        done = _made(plan, adapters, found, request, copy, workshop)
        if request.name is not None:
            refuse_errors(_package(copy, adapters, request, request.name, shelf), ())
    if request.name is not None:
        done = _stored(done, place, adapters, request, request.name, shelf, facts)
    return replace(done, directory=str(request.into) if request.into is not None else None)


def _refuse_damage(one: Found) -> None:
    """Of what is no adapter nothing can be planned."""
    errors = _errors(one)
    if any(finding.rule != _NONFINITE for finding in errors):
        raise DefectiveAdapterError(one.adapter.name, errors)


def _without_numbers(found: Sequence[Found]) -> Iterator[Finding]:
    for one in found:
        for finding in _errors(one):
            yield replace(finding, message=f"{one.adapter.name}: {finding.message}")


def _errors(one: Found) -> list[Finding]:
    return [finding for finding in one.adapter.findings if finding.severity is Severity.ERROR]


def _made(
    plan: CombinePlan,
    adapters: Sequence[Ingredient],
    found: Sequence[Found],
    request: CombineRequest,
    copy: Path,
    workshop: Workshop,
) -> Combined:
    files = [one.weights for one in adapters]
    layers = workshop.combine(plan, files, request.method, copy / WEIGHTS)  # 3
    config = with_ranks(plan.config, {layer.path: layer.rank for layer in layers})
    write_new(json.dumps(config, indent=2, ensure_ascii=False).encode() + b"\n", copy / CONFIG)
    _carry(found, copy)
    written = adapter_in(copy)  # 4
    wrong = [one for one in written.findings if one.severity is Severity.ERROR]
    if wrong and all(one.rule == _NONFINITE for one in wrong):
        raise RejectedError(
            f"the combination has values that its type cannot hold: {wrong[0].message}",
            code="overflow",
            hint="store it in a wider type (--dtype float32), or give smaller weights",
        )
    if wrong:
        raise RejectedError(
            f"the combination is no sound adapter: {wrong[0].message}",
            code="not-sound",
            hint="report this with the adapters' configs",
        )
    found_there = deltas(written.config, written.manifest)
    distances = workshop.errors(plan, files, request.method, copy / WEIGHTS, found_there)
    measured = {path: numbers for path, *numbers in distances}
    _require_stated(plan, layers, measured)
    size = os.stat(copy / WEIGHTS).st_size
    findings = (*written.findings, *remarks(plan, adapters))
    errors = {path: error for path, (error, *_) in measured.items()}
    return _combined(adapters, layers, errors, plan.stacks[0].dtype, size, findings)


def _require_stated(plan: CombinePlan, layers: Sequence[Layer], measured: Mapping[str, Sequence[float]]) -> None:
    """What was read back is as far from the sum as what was left away, and the roundings of the factors, explain."""
    dtypes = {stack.path: stack.dtype for stack in plan.stacks}
    for layer in layers:
        error, size, terms = measured[layer.path]
        rounded = 3 * _ROUNDOFF[dtypes[layer.path]] * size + _ARITHMETIC * terms
        allowed = layer.lost * (1 + 1e-6) + rounded + 1e-12 * layer.norm
        if not error <= allowed:
            raise RejectedError(
                f"{layer.path} of the combination is {error:.3g} from the sum, and {layer.lost:.3g} was to be left away",
                code="not-equal",
                hint="store it in a wider type: --dtype float32",
            )


def _combined(
    adapters: Sequence[Ingredient],
    layers: Sequence[Layer],
    measured: Mapping[str, float],
    dtype: str,
    size: int,
    findings: tuple[Finding, ...],
) -> Combined:
    norm = hypot(*(layer.norm for layer in layers))
    return Combined(
        directory=None,
        parents=tuple((one.name, one.weight) for one in adapters),
        layers=tuple(replace(layer, error=measured[layer.path] / (layer.norm or 1.0)) for layer in layers),
        norm=norm,
        discarded=hypot(*(layer.lost for layer in layers)) / (norm or 1.0),
        error=hypot(*measured.values()) / (norm or 1.0),
        dtype=dtype,
        bytes=size,
        findings=findings,
    )


def _stored(
    done: Combined,
    directory: Path,
    adapters: Sequence[Ingredient],
    request: CombineRequest,
    name: AdapterName,
    shelf: Shelf,
    facts: Mapping[str, object],
) -> Combined:
    """The next version of ``name``, with its parents; the parents' scores are not its own."""  # 5
    package = _package(directory, adapters, request, name, shelf)
    method = request.method
    recipe = {
        "method": method.blend.method,
        "rank": method.rank or ("exact" if method.is_exact else "auto"),
        **method.blend.options,
        "energy": method.energy,
        "max_bytes": method.max_bytes,
        "dtype": done.dtype,
        "error": done.error,
        "discarded": done.discarded,
        "discarded_by_target": _by_target(done, package.manifest) if done.discarded else None,
        **facts,
    }
    manifest = replace(
        package.manifest,
        training={
            **package.manifest.training,
            "combine": {key: value for key, value in recipe.items() if value is not None},
        },
    )
    published = publish(
        [Submission(replace(package, manifest=manifest), name)], blobs=shelf.blobs, catalog=shelf.catalog
    )
    return replace(done, version=published[0].version)


def _by_target(done: Combined, manifest: Manifest) -> list[float]:
    """What each target lacks of its norm, in the order of the manifest's targets, whose paths are long and may be thousands."""
    shares = {layer.path: float(f"{layer.discarded:.6g}") for layer in done.layers}
    return [shares.get(target.path, 0.0) for target in manifest.targets]


def _package(
    directory: Path, adapters: Sequence[Ingredient], request: CombineRequest, name: AdapterName, shelf: Shelf
) -> AdapterPackage:
    """As a push of the directory would have it, held against its base; in sentences it is called as it will be."""
    lineage = [LineageEdge(one.manifest.digest, request.kind, one.weight, one.name) for one in adapters]
    bases = [one.manifest.base_model for one in adapters if one.weight != 0]
    base = next((one for one in bases if one.id is not None), bases[0])
    stated = f"{base.id}@{base.revision}" if base.id and base.revision else base.id
    package = describe(directory, base=stated, lineage=lineage)
    return replace(against_base(package, None, shelf), directory=Path(str(name)))


def _carry(found: Sequence[Found], into: Path) -> None:
    """A tokenizer's files, where all that have one have the same."""
    from registry.formats.adapter_directory import TOKENIZER

    for name in TOKENIZER:
        held = {path.read_bytes() for one in found if (path := one.directory / name).is_file()}
        if len(held) == 1:
            write_new(held.pop(), into / name)
