"""What an adapter is made of, and how adapters lie to each other, before anybody adds them up.

1. Find the adapters, and read what they are.
2. Their deltas by target, as factors; what is no pair of factors (DoRA's magnitudes, whole modules) is left out and said.
3. Spectra of one; cosines and shares of several.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import hypot, prod
from pathlib import Path

from registry.checks.matching import match
from registry.checks.rule import Subject as Checked
from registry.domain.checkpoint import Shard
from registry.domain.tensors import TensorSpec, is_float
from registry.errors import RejectedError
from registry.formats.adapter_directory import WEIGHTS
from registry.formats.model_config import ModelConfig
from registry.operations.bases import CheckedBase, Shelf
from registry.operations.ingredients import Found, Subject, base_directory, find_adapter, temporary
from registry.operations.know_base import read_checkpoint, read_shard, spec_of
from registry.plans.merging import FLOATS
from registry.plans.results import Likeness, Spectrum
from registry.variants.lora_targets import LoraDelta, deltas

Deltas = Mapping[str, LoraDelta]
#: A norm whose square, and sums of some of them, are float64s.
_FAR = 1e150


@dataclass(frozen=True, slots=True)
class Workshop:
    """What :mod:`registry.transforms.inspect` does with tensors."""

    spectra: Callable[[Shard, Deltas], Iterator[Spectrum]]
    likenesses: Callable[[tuple[Shard, Deltas], tuple[Shard, Deltas]], Iterator[Likeness]]
    norms_of: Callable[[Mapping[str, tuple[Shard, TensorSpec]]], dict[str, float]]
    conflicts: Callable[[Sequence[tuple[Shard, Deltas, float]], str], tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Inspected:
    """``shares`` are ‖Δ‖ / ‖W‖ by target, where the base is at hand. ``left_out`` is what else the adapter has, which is no pair of
    factors: the norm is not all that it changes."""

    subject: str
    layers: tuple[Spectrum, ...]
    shares: Mapping[str, float]
    left_out: tuple[str, ...] = ()

    @property
    def norm(self) -> float:
        return hypot(*(layer.norm for layer in self.layers))

    @property
    def dead(self) -> tuple[str, ...]:
        """Targets that the adapter does not change at all."""
        return tuple(layer.path for layer in self.layers if not layer.norm)

    @property
    def sufficient_rank(self) -> int:
        """The rank that keeps 99 % of Σσ² in every layer."""
        return max((layer.sufficient_rank for layer in self.layers), default=0)

    def document(self) -> dict[str, object]:
        """``inspect --json``. Keys are only ever added."""
        return {
            "subject": self.subject,
            "norm": self.norm,
            "sufficient_rank": self.sufficient_rank,
            "dead": list(self.dead),
            "left_out": list(self.left_out),
            "layers": [
                {
                    "path": layer.path,
                    "rank": layer.rank,
                    "scaling": layer.scaling,
                    "norm": layer.norm,
                    "effective_rank": layer.effective_rank,
                    "sufficient_rank": layer.sufficient_rank,
                    "base_share": self.shares.get(layer.path),
                    "singular_values": list(layer.values),
                }
                for layer in self.layers
            ],
        }


@dataclass(frozen=True, slots=True)
class Difference:
    """``only_one`` and ``only_other`` are targets that the other adapter does not have, or in another shape."""

    one: str
    other: str
    layers: tuple[Likeness, ...]
    norm: float
    other_norm: float
    only_one: tuple[str, ...]
    only_other: tuple[str, ...]

    @property
    def cosine(self) -> float:
        """Of the whole deltas; targets that only one has are at right angles to the other."""
        size = self.norm * self.other_norm
        return sum(layer.inner for layer in self.layers) / size if size else 0.0

    def document(self) -> dict[str, object]:
        """``diff --json``. Keys are only ever added."""
        return {
            "one": self.one,
            "other": self.other,
            "cosine": self.cosine,
            "norm": self.norm,
            "other_norm": self.other_norm,
            "only_one": list(self.only_one),
            "only_other": list(self.only_other),
            "layers": [
                {
                    "path": layer.path,
                    "cosine": layer.cosine,
                    "norm": layer.norm,
                    "other_norm": layer.other_norm,
                    "principal_cosines": list(layer.angles),
                }
                for layer in self.layers
            ],
        }


@dataclass(frozen=True, slots=True)
class Interference:
    """Adapters that are to be added with these weights. ``cosines`` is symmetric. In the sum, ``kept[i]`` is how much of
    adapter i is there along its own direction (1: as if it were alone at weight 1), ``disturbance[i]`` how much of anything
    else, both relative to ‖Δᵢ‖. ``conflicts`` is the share of elements in which weighted deltas have opposite signs."""

    names: tuple[str, ...]
    weights: tuple[float, ...]
    norms: tuple[float, ...]
    cosines: tuple[tuple[float, ...], ...]
    kept: tuple[float, ...]
    disturbance: tuple[float, ...]
    conflicts: float

    def document(self) -> dict[str, object]:
        """``interference --json``. Keys are only ever added."""
        return {
            "adapters": [
                {"name": name, "weight": weight, "norm": norm, "kept": kept, "disturbance": disturbance}
                for name, weight, norm, kept, disturbance in zip(
                    self.names, self.weights, self.norms, self.kept, self.disturbance, strict=True
                )
            ],
            "cosines": [list(row) for row in self.cosines],
            "sign_conflicts": self.conflicts,
        }


def inspect(subject: Subject, *, base: str | None, shelf: Shelf, workshop: Workshop) -> Inspected:
    """``base`` is a checkpoint's directory or ``hf://…``, to know each delta's share of the weight it changes."""
    with _found([subject], shelf) as (one,):
        held = _deltas(one)
        layers = _spectra(one, held, workshop)
        shares = _shares(one, layers, held[1], base, shelf, workshop) if base is not None else {}
    return Inspected(one.adapter.name, layers, shares, _left_out(one))


def _left_out(one: Found) -> tuple[str, ...]:
    manifest = one.adapter.manifest
    magnitudes = ("the magnitudes of DoRA",) if manifest.variant == "dora" else ()
    started = (f"what {manifest.base_change} took out of the base",) if manifest.base_change is not None else ()
    return (*magnitudes, *started, *manifest.extra_modules)


def diff(one: Subject, other: Subject, *, shelf: Shelf, workshop: Workshop) -> Difference:
    with _found([one, other], shelf) as (ours, theirs):
        first, second = _deltas(ours), _deltas(theirs)
        norms = [
            hypot(*(layer.norm for layer in _spectra(*one, workshop))) for one in ((ours, first), (theirs, second))
        ]
        layers = tuple(workshop.likenesses(first, second))
        both = {layer.path for layer in layers}
        return Difference(
            ours.adapter.name,
            theirs.adapter.name,
            layers,
            norms[0],
            norms[1],
            tuple(path for path in first[1] if path not in both),
            tuple(path for path in second[1] if path not in both),
        )


def interference(adapters: Sequence[tuple[Subject, float]], *, shelf: Shelf, workshop: Workshop) -> Interference:
    with _found([subject for subject, _ in adapters], shelf) as found:
        return interference_of(found, [weight for _, weight in adapters], workshop)


def interference_of(found: Sequence[Found], weights: Sequence[float], workshop: Workshop) -> Interference:
    """:func:`interference` of adapters that were found."""
    held = [_deltas(one) for one in found]
    names = tuple(one.adapter.name for one in found)
    norms = [hypot(*(layer.norm for layer in _spectra(*one, workshop))) for one in zip(found, held, strict=True)]
    inner = [[norm * norm if i == j else 0.0 for j in range(len(held))] for i, norm in enumerate(norms)]
    for i, one in enumerate(held):
        for j in range(i):
            inner[i][j] = inner[j][i] = sum(layer.inner for layer in workshop.likenesses(one, held[j]))
    paths = dict.fromkeys(path for _, changes in held for path in changes)
    counts = [
        workshop.conflicts([(*one, weight) for one, weight in zip(held, weights, strict=True)], path)
        for path in paths
        if _one_shape([changes[path] for _, changes in held if path in changes])
    ]
    looked_at = sum(total for _, total in counts)
    kept, disturbance = zip(*(_in_sum(i, inner, weights) for i in range(len(held))), strict=True)
    return Interference(
        names,
        tuple(weights),
        tuple(norms),
        tuple(
            tuple(
                inner[i][j] / (norms[i] * norms[j]) if norms[i] and norms[j] else float(i == j)
                for j in range(len(held))
            )
            for i in range(len(held))
        ),
        kept,
        disturbance,
        sum(count for count, _ in counts) / looked_at if looked_at else 0.0,
    )


def _in_sum(number: int, inner: Sequence[Sequence[float]], weights: Sequence[float]) -> tuple[float, float]:
    """How much of Σ wⱼΔⱼ lies along Δᵢ, and how much across it, relative to ‖Δᵢ‖."""
    own = inner[number][number]
    if not own:
        return 0.0, 0.0
    along = sum(weight * row for weight, row in zip(weights, inner[number], strict=True))
    total = sum(a * b * inner[i][j] for i, a in enumerate(weights) for j, b in enumerate(weights))
    across = max(total - along * along / own, 0.0)
    return along / own, float((across / own) ** 0.5)


def _one_shape(held: Sequence[LoraDelta]) -> bool:
    return len({(one.down.shape[1:], one.up.shape[0], one.experts) for one in held}) == 1


@contextmanager
def _found(subjects: Sequence[Subject], shelf: Shelf) -> Iterator[list[Found]]:
    with temporary() as work:
        yield [find_adapter(subject, work / str(number), shelf) for number, subject in enumerate(subjects)]


def _deltas(one: Found) -> tuple[Shard, Deltas]:
    manifest = one.adapter.manifest
    if manifest.peft_type != "LORA":
        raise RejectedError(
            f"{one.adapter.name} is {manifest.peft_type}, which has no pairs of factors",
            code="no-factors",
            hint="inspect a LoRA; `adapters show` tells what is known of others",
        )
    broken = [finding for finding in one.adapter.findings if finding.rule == "nonfinite"]
    if broken:
        raise RejectedError(f"{one.adapter.name}: {broken[0].message}", code="nonfinite", hint=broken[0].fix)
    found = deltas(one.adapter.config, manifest)
    odd = next((spec for delta in found.values() for spec in (delta.down, delta.up) if not is_float(spec.dtype)), None)
    if odd is not None:
        raise RejectedError(
            f"{one.adapter.name}: {odd.name} is {odd.dtype}, which is no real floating number",
            code="no-factors",
            hint="store its factors as float32, float16 or bfloat16",
        )
    unknown = next((path for path, delta in found.items() if delta.scaling is None), None)
    if unknown is not None:
        raise RejectedError(
            f"{one.adapter.name}: what {unknown} is multiplied by is not known",
            code="scaling-unknown",
            hint="simplify rank_pattern and alpha_pattern in adapter_config.json",
        )
    return read_shard(one.directory / WEIGHTS), found


def _spectra(one: Found, held: tuple[Shard, Deltas], workshop: Workshop) -> tuple[Spectrum, ...]:
    layers = tuple(workshop.spectra(*held))
    beyond = next((layer for layer in layers if not layer.norm < _FAR), None)
    if beyond is not None:
        raise RejectedError(
            f"{one.adapter.name} changes {beyond.path} by more than can be squared in float64",
            code="overflow",
            hint="look at lora_alpha in adapter_config.json, and whether the training diverged",
        )
    return layers


def _shares(
    one: Found, layers: Sequence[Spectrum], changes: Deltas, base: str, shelf: Shelf, workshop: Workshop
) -> Mapping[str, float]:
    with temporary() as work:
        return _shares_of(one, layers, changes, *base_directory(base, shelf, work), workshop)


def _shares_of(
    one: Found,
    layers: Sequence[Spectrum],
    changes: Deltas,
    directory: Path,
    identity: CheckedBase,
    workshop: Workshop,
) -> Mapping[str, float]:
    checkpoint = read_checkpoint(directory)
    tensors = {spec.name: (shard, spec) for shard, spec in checkpoint}
    spec = spec_of(identity.id, ModelConfig(checkpoint.config), [spec for _, spec in checkpoint])
    matching = match(Checked(one.adapter.manifest, one.adapter.config, spec))
    places = {}
    for layer in layers:
        module = matching.module(layer.path) if matching is not None else None
        for name in (f"{module.path}.weight", module.path) if module is not None else ():
            if name in tensors and tensors[name][1].dtype in FLOATS:
                places[layer.path] = name
    for path, name in places.items():
        delta, spec_there = changes[path], tensors[name][1]
        wanted = prod(delta.down.shape[1:]) * delta.up.shape[0] * delta.experts
        if spec_there.elements != wanted:
            raise RejectedError(
                f"{one.adapter.name} does not fit this base: {path} changes {wanted:,} numbers, and {name} has "
                f"{spec_there.elements:,}",
                code="does-not-fit",
                hint="give the base that it was trained on; `adapters check --base` tells more",
            )
    norms = workshop.norms_of({name: tensors[name] for name in places.values()})
    return {
        layer.path: layer.norm / norms[places[layer.path]] for layer in layers if norms.get(places.get(layer.path, ""))
    }
