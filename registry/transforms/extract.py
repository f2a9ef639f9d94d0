"""A LoRA out of a full fine-tune: of every matrix the best low-rank part of what training added, one tensor at a time."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import pad

from registry.checks.misfit import Misfit
from registry.domain.checkpoint import Shard
from registry.domain.tensors import TensorSpec
from registry.errors import MalformedFileError, UnextractableError
from registry.numerics.low_rank import balanced, randomized, rank_for_energy
from registry.plans.extracting import TRAINED_BIAS, Extract, saved_with
from registry.plans.merging import Origin
from registry.plans.results import Extracted
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
    made: dict[str, Tensor] = {}
    done: list[Extracted] = []
    modules: dict[str, list[Extract]] = {}
    for one in wanted:
        modules.setdefault(one.path, []).append(one)
    biases: dict[str, Extract] = {}
    has_trained = False
    problems: list[Misfit] = []
    with sources(_paths(wanted)) as files:
        mixed = {one.path for one in wanted if one.mixed and _differs(one, files)}
        for path, named in modules.items():
            saved = named[0].task_head or saved_with(path, mixed)
            parts = [one for one in named if saved is not None or not one.alias]
            changed = {one.tail for one in parts if _differs(one, files)}
            problems += [one.unsayable for one in parts if one.tail in changed and one.unsayable is not None][:1]
            if problems:
                continue  # all reasons are said at once
            matrix = next((one for one in parts if one.low_rank), None)
            if saved is not None or (changed and (matrix is None or _is_whole(matrix, changed))):
                for one in parts:
                    made[f"{PREFIX}{path}.{one.tail}"] = read(files, Origin(*one.tuned))
                    norm = float(torch.linalg.vector_norm(_delta(one, files)))
                    done.append(Extracted(path, one.tail, None, norm, 0.0, saved=saved or path))
                continue
            if matrix is None or not changed:
                continue
            delta = _delta(matrix, files)
            wide = delta.mT if matrix.embedding or matrix.transposed else delta
            down, up = (part.to(TORCH_DTYPES[dtype]).contiguous() for part in _factors(wide, path, rank, energy, seed))
            made |= _named(path, down, up, embedding=matrix.embedding)
            missed = float(torch.linalg.matrix_norm(wide - up.double() @ down.double()))
            norm = float(torch.linalg.vector_norm(delta))
            done.append(Extracted(path, matrix.tail, down.shape[0], norm, missed, matrix.embedding, matrix.bare))
            if matrix.head is not None and saved_with(matrix.head, mixed) is None:
                made |= _named(matrix.head, up.mT.contiguous(), down.mT.contiguous())
                done.append(replace(done[-1], path=matrix.head, embedding=False))
            biases.update((path, one) for one in parts if one.tail == "bias" and not matrix.bare)
            has_trained |= "bias" in changed
        if problems:
            raise UnextractableError(name, problems)
        for path, bias in biases.items() if has_trained else ():
            made[f"{PREFIX}{path}.{TRAINED_BIAS}"] = read(files, Origin(*bias.tuned))
    done = _alike(done, made)
    placed = laid_out(TensorSpec(name, NAMES[tensor.dtype], tuple(tensor.shape)) for name, tensor in made.items())
    write_tensors(into, placed, (made[spec.name] for spec in placed), metadata={"format": "pt"})
    return done


def _is_whole(matrix: Extract, changed: Collection[str]) -> bool:
    """Whether a LoRA of the matrix would lose some of what changed: a buffer beside it, and the bias of a bare parameter."""
    said = {matrix.tail} if matrix.bare else {matrix.tail, "bias"}
    return matrix.tail not in changed or not said.issuperset(changed)


def _named(path: str, down: Tensor, up: Tensor, *, embedding: bool = False) -> dict[str, Tensor]:
    tails = ("lora_embedding_A", "lora_embedding_B") if embedding else ("lora_A.weight", "lora_B.weight")
    return {f"{PREFIX}{path}.{tail}": tensor for tail, tensor in zip(tails, (down, up), strict=True)}


def _alike(done: Sequence[Extracted], made: dict[str, Tensor]) -> list[Extracted]:
    """The factors of bare parameters with zeros up to one rank: PEFT 0.21 says of a rank pattern for them that it was ignored."""
    bare = [one for one in done if one.bare]
    most = max((one.rank or 0 for one in bare), default=0)
    for one in bare:
        down, up = (f"{PREFIX}{one.path}.{tail}" for tail in ("lora_A.weight", "lora_B.weight"))
        more = most - made[down].shape[0]
        made[down], made[up] = pad(made[down], (0, 0, 0, more)), pad(made[up], (0, more))
    return [replace(one, rank=most) if one.bare else one for one in done]


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


def _factors(matrix: Tensor, path: str, rank: int, energy: float | None, seed: int) -> tuple[Tensor, Tensor]:
    digest = hashlib.sha256(f"{seed} {path}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
    found = randomized(matrix, min(rank, *matrix.shape), generator)
    kept = len(found.values)
    if energy is not None:
        total = float(matrix.square().sum())
        share = float(found.values.square().sum()) / total if total else 1.0
        kept = rank_for_energy(found.values, min(energy / share, 1.0)) if share else 1
    return balanced(found, kept)


def _paths(wanted: Iterable[Extract]) -> Iterable[Path]:
    shards: list[Shard] = [shard for one in wanted for shard, _ in (one.base, one.tuned)]
    return dict.fromkeys(shard.path for shard in shards)
