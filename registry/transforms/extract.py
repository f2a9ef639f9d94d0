"""A LoRA out of a full fine-tune: of every matrix the best low-rank part of what training added, one tensor at a time."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from registry.checks.misfit import Misfit
from registry.domain.checkpoint import Shard
from registry.domain.tensors import TensorSpec
from registry.errors import MalformedFileError, UnextractableError
from registry.numerics.low_rank import balanced, randomized, rank_for_energy
from registry.plans.extracting import TRAINED_BIAS, Extract
from registry.plans.merging import Origin
from registry.transforms.streaming import read
from registry.variants.tensor_names import PREFIX
from registry.weights.dtypes import NAMES, TORCH_DTYPES
from registry.weights.streams import Sources, sources
from registry.weights.writing import laid_out, write_tensors


@dataclass(frozen=True, slots=True)
class Extracted:
    """``rank`` is None for a tensor that is saved whole. ``norm`` is ‖M − B‖, ``error`` what of it the stored factors miss."""

    path: str
    tail: str
    rank: int | None
    norm: float
    error: float
    embedding: bool = False


def extract(
    wanted: Sequence[Extract], into: Path, *, name: str, rank: int, energy: float | None, dtype: str, seed: int
) -> list[Extracted]:
    """Write the file of weights; modules that did not change are not in it, but for the head of the task. Raises
    UnextractableError for changes of the model ``name`` that no adapter can say.

    Trained biases of matrices are saved as ``bias="lora_only"`` saves them, and of a module that is no matrix everything.
    Memory is that of one matrix, and of the factors of all.
    """
    made: dict[str, Tensor] = {}
    done: list[Extracted] = []
    stored = TORCH_DTYPES[dtype]
    modules: dict[str, list[Extract]] = {}
    for one in wanted:
        modules.setdefault(one.path, []).append(one)
    biases: dict[str, Extract] = {}
    has_trained = False
    problems: list[Misfit] = []
    with sources(_paths(wanted)) as files:
        for path, parts in modules.items():
            changed = {one.tail for one in parts if _differs(one, files)}
            problems += [one.unsayable for one in parts if one.tail in changed and one.unsayable is not None][:1]
            if problems:
                continue  # all reasons are said at once
            matrix = next((one for one in parts if one.low_rank), None)
            if matrix is None or (matrix.tail not in changed and changed):
                for one in parts if changed or parts[0].task_head is not None else ():
                    made[f"{PREFIX}{path}.{one.tail}"] = read(files, Origin(*one.tuned))
                    done.append(
                        Extracted(path, one.tail, None, float(torch.linalg.vector_norm(_delta(one, files))), 0.0)
                    )
                continue
            if not changed:
                continue
            delta = _delta(matrix, files)
            wide = delta.mT if matrix.embedding or matrix.transposed else delta
            down, up = (part.to(stored).contiguous() for part in _factors(wide, path, rank, energy, seed))
            tails = ("lora_embedding_A", "lora_embedding_B") if matrix.embedding else ("lora_A.weight", "lora_B.weight")
            made |= {f"{PREFIX}{path}.{tail}": tensor for tail, tensor in zip(tails, (down, up), strict=True)}
            missed = float(torch.linalg.matrix_norm(wide - up.double() @ down.double()))
            done.append(
                Extracted(
                    path, matrix.tail, down.shape[0], float(torch.linalg.vector_norm(delta)), missed, matrix.embedding
                )
            )
            if matrix.head is not None:
                made |= {f"{PREFIX}{matrix.head}.lora_A.weight": up.mT.contiguous()}
                made |= {f"{PREFIX}{matrix.head}.lora_B.weight": down.mT.contiguous()}
                done.append(replace(done[-1], path=matrix.head, embedding=False))
            biases.update((path, one) for one in parts if one.tail == "bias")
            has_trained |= "bias" in changed
        if problems:
            raise UnextractableError(name, problems)
        for path, bias in biases.items() if has_trained else ():
            made[f"{PREFIX}{path}.{TRAINED_BIAS}"] = read(files, Origin(*bias.tuned))
    placed = laid_out(TensorSpec(name, NAMES[tensor.dtype], tuple(tensor.shape)) for name, tensor in made.items())
    write_tensors(into, placed, (made[spec.name] for spec in placed), metadata={"format": "pt"})
    return done


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
