"""A LoRA out of a full fine-tune: of every matrix the best low-rank part of what training added, one tensor at a time."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from registry.checks.misfit import Misfit
from registry.domain.tensors import TensorSpec
from registry.errors import MalformedFileError, UnextractableError
from registry.numerics.low_rank import balanced, padded, randomized, rank_for_energy
from registry.plans.combining import factor_tails
from registry.plans.extracting import TRAINED_BIAS, Extract
from registry.plans.merging import Origin
from registry.plans.results import Extracted
from registry.plans.saved_whole import saved_whole
from registry.transforms.blending import generator
from registry.transforms.streaming import read
from registry.variants.tensor_names import PREFIX
from registry.weights.dtypes import NAMES, TORCH_DTYPES
from registry.weights.streams import Sources, sources
from registry.weights.writing import laid_out, write_tensors


def extract(
    wanted: Sequence[Extract], into: Path, *, name: str, rank: int, energy: float | None, dtype: str, seed: int
) -> list[Extracted]:
    """Write the file of weights; modules that did not change are not in it, but for the head of the task. Raises
    UnextractableError for changes of the model ``name`` that no adapter can say.

    Trained biases of matrices are saved as ``bias="lora_only"`` saves them, and everything of a module that is no matrix or whose
    change is not of the matrix alone.
    Memory is that of one matrix, and of the factors of all.
    """
    modules: dict[str, list[Extract]] = {}
    for one in wanted:
        modules.setdefault(one.path, []).append(one)
    with sources({shard.path for one in wanted for shard, _ in (one.base, one.tuned)}) as files:
        changed = {path: {one.tail for one in parts if _differs(one, files)} for path, parts in modules.items()}
        made = _Made(files, saved_whole(modules, changed), rank, energy, TORCH_DTYPES[dtype], seed)
        for path, parts in modules.items():
            made.add(path, parts, changed[path])
        if made.problems:
            raise UnextractableError(name, made.problems)
        made.add_biases()
    made.even_out()
    tensors = made.tensors
    placed = laid_out(TensorSpec(name, NAMES[tensor.dtype], tuple(tensor.shape)) for name, tensor in tensors.items())
    write_tensors(into, placed, (tensors[spec.name] for spec in placed), metadata={"format": "pt"})
    return made.done


@dataclass
class _Made:
    """The adapter's tensors by name, and what is said of each; ``whole`` are the modules that are saved and what they are saved
    with, ``biases`` those beside a matrix that became factors."""

    files: Sources
    whole: Mapping[str, str]
    rank: int
    energy: float | None
    dtype: torch.dtype
    seed: int
    tensors: dict[str, Tensor] = field(default_factory=dict)
    done: list[Extracted] = field(default_factory=list)
    problems: list[Misfit] = field(default_factory=list)
    biases: dict[str, Extract] = field(default_factory=dict)
    is_bias_trained: bool = False

    def add(self, path: str, parts: Sequence[Extract], changed: Collection[str]) -> None:
        """A module: whole, as factors, or not at all."""
        self.problems += [one.unsayable for one in parts if one.tail in changed and one.unsayable is not None][:1]
        if self.problems:
            return  # all reasons are said at once
        if path in self.whole:
            self._save(parts, self.whole[path])
            return
        matrix = next((one for one in parts if one.low_rank), None)
        if matrix is not None and changed:
            self._decompose(matrix)
            self.biases.update((path, one) for one in parts if one.tail == "bias" and not matrix.bare)
            self.is_bias_trained |= "bias" in changed

    def add_biases(self) -> None:
        """All, if one was trained."""
        for path, bias in self.biases.items() if self.is_bias_trained else ():
            self.tensors[f"{PREFIX}{path}.{TRAINED_BIAS}"] = read(self.files, Origin(*bias.tuned))

    def even_out(self) -> None:
        """The factors of bare parameters with zeros up to one rank: PEFT 0.21 says of a rank pattern for them that it was
        ignored."""
        most = max((one.rank or 0 for one in self.done if one.bare), default=0)
        for one in self.done:
            if one.bare:
                down, up = (f"{PREFIX}{one.path}.{tail}" for tail in factor_tails(embedding=False))
                self.tensors[down] = padded(self.tensors[down], (most, self.tensors[down].shape[1]))
                self.tensors[up] = padded(self.tensors[up], (self.tensors[up].shape[0], most))
        self.done = [replace(one, rank=most) if one.bare else one for one in self.done]

    def _save(self, parts: Sequence[Extract], module: str) -> None:
        for one in parts:
            self.tensors[f"{PREFIX}{one.path}.{one.tail}"] = read(self.files, Origin(*one.tuned))
            norm = float(torch.linalg.vector_norm(_delta(one, self.files)))
            self.done.append(Extracted(one.path, one.tail, None, norm, 0.0, saved=module))

    def _decompose(self, one: Extract) -> None:
        delta = _delta(one, self.files)
        wide = delta.mT if one.embedding or one.transposed else delta
        norm = float(torch.linalg.vector_norm(delta))
        down, up = (part.to(self.dtype).contiguous() for part in self._factors(wide, norm, one.path))
        self._name(one.path, down, up, embedding=one.embedding)
        missed = float(torch.linalg.matrix_norm(wide - up.double() @ down.double()))
        self.done.append(Extracted(one.path, one.tail, down.shape[0], norm, missed, one.bare))
        if one.head is not None and one.head not in self.whole:
            self._name(one.head, up.mT.contiguous(), down.mT.contiguous(), embedding=False)
            self.done.append(replace(self.done[-1], path=one.head))

    def _factors(self, matrix: Tensor, norm: float, path: str) -> tuple[Tensor, Tensor]:
        found = randomized(matrix, min(self.rank, *matrix.shape), generator(self.seed, path))
        kept = len(found.values)
        if self.energy is not None:
            kept = rank_for_energy(found.values, self.energy, total=norm**2)
        return balanced(found, kept)

    def _name(self, path: str, down: Tensor, up: Tensor, *, embedding: bool) -> None:
        for tail, tensor in zip(factor_tails(embedding=embedding), (down, up), strict=True):
            self.tensors[f"{PREFIX}{path}.{tail}"] = tensor


def _differs(one: Extract, files: Sources) -> bool:
    before, after = (read(files, Origin(*each)) for each in (one.base, one.tuned))
    return not torch.equal(before, after.to(before.dtype))


def _delta(one: Extract, files: Sources) -> Tensor:
    before, after = (read(files, Origin(*each)) for each in (one.base, one.tuned))
    for (shard, spec), tensor in ((one.base, before), (one.tuned, after)):
        if not bool(torch.isfinite(tensor).all()):
            raise MalformedFileError(
                str(shard.path),
                f"{spec.name} holds NaN or infinity",
                code="nonfinite-tensor",
                hint="get the checkpoint again",
            )
    return after.double() - before.double()
