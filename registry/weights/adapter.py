"""An adapter's directory, opened for its tensors."""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO

from registry.domain.base_model import BaseModelId
from registry.domain.checkpoint import Shard
from registry.domain.digest import Digest
from registry.domain.finding import Severity
from registry.domain.manifest import Manifest
from registry.errors import DefectiveAdapterError, NotFoundError, UnavailableError
from registry.formats.adapter_config import MAX_BYTES, parse_adapter_config
from registry.formats.adapter_directory import CONFIG, WEIGHTS
from registry.formats.safetensors_header import read_header
from registry.plans.merge_draft import Ingredient
from registry.variants.patterns import Patterns
from registry.variants.table import read_anatomy


def open_adapter(directory: Path, *, number: int, weight: float) -> Ingredient:
    """What a merge has to know of an adapter that is in no registry. Raises InvalidInputError for a broken one, NotFoundError where
    there is none, UnavailableError where it cannot be read."""
    with _opened(directory / CONFIG) as file:
        config = parse_adapter_config(file.read(MAX_BYTES + 1), where=str(directory / CONFIG))
    path = directory / WEIGHTS
    with _opened(path) as file:
        size = os.fstat(file.fileno()).st_size
        header = read_header(file, size=size, where=str(path))
    reading = read_anatomy(config, header.tensors, Patterns())
    errors = [one for one in reading.findings if one.severity is Severity.ERROR or one.rule == "pattern-unresolved"]
    if errors:
        raise DefectiveAdapterError(str(directory), errors)
    manifest = Manifest(
        peft_type=config.peft_type.upper(),
        variant=reading.variant,
        base_model=BaseModelId(None),
        task_type=config.task_type,
        targets=reading.targets,
        tensors=header.tensors,
        tensor_identity=Digest.of(b""),
        files=(),
        extra_modules=reading.extra_modules,
        absent_targets=reading.absent_targets,
        base_change=reading.base_change,
        peft_version=config.peft_version,
    )
    return Ingredient(
        number,
        str(directory),
        manifest,
        config,
        Shard(path, header.tensors, header.metadata, header.data_start, size),
        weight,
    )


def _opened(path: Path) -> BinaryIO:
    try:
        return open(path, "rb")
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotFoundError(
            f"{path.parent} has no {path.name}" if path.parent.is_dir() else f"{path.parent} is not a directory",
            code="no-directory",
            hint="give the directory that PEFT's save_pretrained wrote",
        ) from error
    except OSError as error:
        raise UnavailableError(
            f"cannot read {path}: {error.strerror}", hint="look at the disk and at who may read it, then try again"
        ) from error
