"""Base and fine-tuned model become an adapter, with what it misses stated, or nothing appears.

1. Read the tables of both checkpoints; what is no difference of one model is refused.
2. Write the factors and config beside the wanted place.
3. Read it back: it is an adapter without an error, that fits the base.
4. Only then it is renamed into place.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import hypot
from pathlib import Path
from typing import Protocol

from registry.disk import write_new
from registry.domain.finding import Severity
from registry.errors import RejectedError, UnextractableError
from registry.formats.adapter_directory import CONFIG, WEIGHTS
from registry.formats.model_config import ModelConfig
from registry.operations.bases import CheckedBase, Shelf
from registry.operations.check import adapter_in, check
from registry.operations.ingredients import base_directory, temporary
from registry.operations.know_base import read_checkpoint, read_shard, spec_of
from registry.operations.placing import placed
from registry.plans.combine_config import with_ranks
from registry.plans.combining import require_count, require_share
from registry.plans.extracting import TRAINED_BIAS, Extract, plan_extract
from registry.plans.merging import require_float
from registry.plans.results import Extracted

#: Names by which PEFT 0.21 knows the sides of a tied matrix (``peft/utils/constants.py``, EMBEDDING_LAYER_NAMES).
_TIED = frozenset({"embed_tokens", "lm_head"})
#: Classes whose adapters PEFT loads by a task.
_TASKS = {
    "ForCausalLM": "CAUSAL_LM",
    "LMHeadModel": "CAUSAL_LM",
    "ForSequenceClassification": "SEQ_CLS",
    "ForTokenClassification": "TOKEN_CLS",
    "ForQuestionAnswering": "QUESTION_ANS",
}


@dataclass(frozen=True, slots=True)
class ExtractRequest:
    """``rank`` is the most that a layer keeps, ``energy`` the least share of ‖M − B‖² within it; ``dtype`` safetensors' name.
    Raises InvalidNameError."""

    base: str
    tuned: str
    rank: int
    energy: float | None = None
    dtype: str = "F32"
    seed: int = 0

    def __post_init__(self) -> None:
        require_count("rank", self.rank)
        require_share("energy", self.energy)
        require_float(self.dtype)


class Workshop(Protocol):
    """:func:`registry.transforms.extract.extract`."""

    def __call__(
        self,
        wanted: Sequence[Extract],
        into: Path,
        *,
        name: str,
        rank: int,
        energy: float | None,
        dtype: str,
        seed: int,
    ) -> Sequence[Extracted]: ...


@dataclass(frozen=True, slots=True)
class Extraction:
    """``error`` is what all layers miss, relative to the norm of the whole difference; ``whole`` are tensors saved as they are."""

    directory: str
    layers: tuple[Extracted, ...]
    whole: tuple[str, ...]
    norm: float
    error: float

    def document(self) -> dict[str, object]:
        """``extract --json``. Keys are only ever added."""
        return {
            "directory": self.directory,
            "norm": self.norm,
            "error": self.error,
            "whole": list(self.whole),
            "layers": [
                {"path": one.path, "rank": one.rank, "norm": one.norm, "error": one.error / one.norm}
                for one in self.layers
            ],
        }


def extract(request: ExtractRequest, into: Path, *, shelf: Shelf, workshop: Workshop) -> Extraction:
    """``into`` must not exist, or be an empty directory. Raises OutputExistsError, NotFoundError, InvalidInputError, and
    RejectedError with every reason where there is no adapter."""
    with temporary() as work:
        directory, identity = base_directory(request.base, shelf, work / "one")  # 1
        base, tuned = (
            read_checkpoint(directory),
            read_checkpoint(base_directory(request.tuned, shelf, work / "other")[0]),
        )
        config = ModelConfig(base.config)
        spec = spec_of(identity.id, config, [spec for _, spec in base])
        task = _task(config)
        wanted, problems = plan_extract(base, tuned, spec, task)
        if problems:
            raise UnextractableError(request.tuned, problems)
        with placed(into) as place:
            done = workshop(  # 2
                wanted,
                place / WEIGHTS,
                name=request.tuned,
                rank=request.rank,
                energy=request.energy,
                dtype=request.dtype,
                seed=request.seed,
            )
            layers = tuple(one for one in done if one.rank is not None)
            if not layers:
                raise _nothing_left(request.tuned, done)
            has_bias = any(spec.name.endswith(TRAINED_BIAS) for spec in read_shard(place / WEIGHTS).tensors)
            text = json.dumps(_config(done, wanted, identity, task, has_bias=has_bias), indent=2)
            write_new(text.encode() + b"\n", place / CONFIG)
            _require_sound(place, replace(identity, spec=spec))  # 3
    norm = hypot(*(one.norm for one in done))
    whole = tuple(f"{one.path}.{one.tail}" for one in done if one.rank is None)
    return Extraction(str(into), layers, whole, norm, hypot(*(one.error for one in layers)) / norm)


def _nothing_left(tuned: str, done: Sequence[Extracted]) -> RejectedError:
    taken = next((one for one in done if one.saved != one.path), None)
    if taken is not None:
        return RejectedError(
            f"every matrix of {tuned} that differs from the base's lies in a module that is saved whole, such as {taken.saved}: "
            "nothing is left for a LoRA",
            code="no-difference",
            hint="keep the tuned model; merging and serving it needs no adapter",
        )
    return RejectedError(
        f"no matrix of {tuned} differs from the base's",
        code="no-difference",
        hint="check that these are the base and what was tuned from it",
    )


def _config(
    done: Sequence[Extracted], wanted: Sequence[Extract], base: CheckedBase, task: str | None, *, has_bias: bool
) -> dict[str, object]:
    modules = {one.path: one.rank for one in done if one.rank is not None and not one.bare}
    parameters = {f"{one.path}.{one.tail}": one.rank for one in done if one.rank is not None and one.bare}
    has_transposed = any(one.transposed for one in wanted if one.path in modules)
    # Of other names PEFT says that nothing is tied, and adapts both sides as they are listed.
    is_tied = any(one.head in modules for one in wanted) and any(path.rpartition(".")[2] in _TIED for path in modules)
    return with_ranks(
        {
            "peft_type": "LORA",
            "task_type": task,
            "base_model_name_or_path": base.id.id or base.id.raw,
            "inference_mode": True,
            "bias": "lora_only" if has_bias else "none",
            "fan_in_fan_out": has_transposed,
            "target_modules": sorted(modules),
            **({"ensure_weight_tying": True} if is_tied else {}),
            **({"target_parameters": sorted(parameters)} if parameters else {}),
            "modules_to_save": sorted({one.saved for one in done if one.saved is not None}) or None,
        },
        modules | parameters,
    )


def _task(config: ModelConfig) -> str | None:
    names = config.architectures or ("",)
    return next((task for end, task in _TASKS.items() if names[0].endswith(end)), None)


def _require_sound(place: Path, base: CheckedBase) -> None:
    verdict = check(adapter_in(place), base)
    errors = [one for one in verdict.findings if one.severity is Severity.ERROR]
    if errors:
        raise RejectedError(
            f"what was extracted is no adapter that PEFT would load: {errors[0].message}",
            code="not-sound",
            hint="report this with both models' config.json",
        )
