"""From a checkpoint to what an adapter has to know of it: modules, kinds, shapes. Headers only, no weights.

1. Read ``config.json``, if it is there.
2. With safetensors files: read the header of each shard that the index names, or of the one file.
3. Without: ask transformers, if it is installed, to build the model without weights (:mod:`registry.operations.build_base`).
4. Make modules of tensors, and the fingerprint of the table of names and shapes.

Links are followed here, unlike in an adapter's directory: the Hub's cache is made of them, and the base is the user's.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path

from registry.domain.base_model import BaseModelId, BaseModelSpec
from registry.domain.checkpoint import Checkpoint, Shard
from registry.domain.digest import Digest
from registry.domain.tensors import TensorSpec
from registry.errors import MalformedFileError, NotFoundError, UnsuitableDirectoryError
from registry.formats import model_config, shard_index
from registry.formats.base_model_text import resolve_base
from registry.formats.base_modules import layers_of, modules_of
from registry.formats.model_config import ModelConfig, parse_model_config
from registry.formats.safetensors_header import read_header
from registry.formats.shard_index import parse_index_metadata, parse_shard_index
from registry.operations.build_base import built
from registry.operations.directory import open_regular

WEIGHTS = "model.safetensors"
#: A base in one file has more tensors than an adapter; still far below the format's own 100 MB.
MAX_HEADER = 16 << 20
MAX_SHARDS = 1024
_STEP = 1 << 20
#: What transformers before 4.35, and Meta, call weights that they pickle.
_PICKLED = ("pytorch_model*.bin", "consolidated*.pt", "consolidated*.pth")


def know_base(directory: Path, *, hash_weights: bool = False) -> BaseModelSpec:
    """The base in ``directory``. ``hash_weights`` reads every byte, to tell bases of equal shapes apart.

    Raises UnsuitableDirectoryError for what is no checkpoint, MalformedFileError for a broken one, and UnavailableError
    (``shapes-unknown``) where there are no safetensors files and nobody can say the shapes.
    """
    place = Path(os.path.realpath(directory))
    if not place.is_dir():
        raise UnsuitableDirectoryError(
            f"{directory} is not a directory", code="no-directory", hint="give the directory of the base's checkpoint"
        )
    config = _config(place)  # 1
    files = _files(place)
    weights = None
    tensors: Sequence[TensorSpec]
    if files:  # 2
        shards = _shards(place, files)
        tensors = [spec for shard in shards for spec in shard.tensors]
        weights = weights_fingerprint(shards) if hash_weights else None
    elif config.raw:  # 3
        tensors = built(str(directory), config)
    else:
        raise UnsuitableDirectoryError(
            f"{directory} has neither {WEIGHTS} nor {model_config.NAME}",
            code="no-checkpoint",
            hint="give the directory that transformers' save_pretrained wrote, or a snapshot in the Hub's cache",
        )
    identity, _ = resolve_base(str(directory.absolute()), None)
    return spec_of(replace(identity, raw=str(directory)), config, tensors, weights)  # 4


def read_checkpoint(directory: Path) -> Checkpoint:
    """Its files and tables, with the weights' places. Raises NotFoundError for a directory or file that is not there, and
    InvalidInputError for one that cannot be read as a checkpoint."""
    place = Path(os.path.realpath(directory))
    if not place.is_dir():
        raise NotFoundError(
            f"{directory} is not a directory", code="no-directory", hint="give the directory of the base's checkpoint"
        )
    config = _config(place)
    files = _files(place)
    if not files:
        raise _no_safetensors(directory)
    absent = next((name for name in files if not (place / name).exists()), None)
    if absent is not None:
        raise NotFoundError(
            f"{directory} lacks {absent}, which {shard_index.NAME} names",
            code="shard-missing",
            hint="finish the download, or get the checkpoint again",
        )
    index: Mapping[str, object] | None = None
    if WEIGHTS not in files:
        index = parse_index_metadata(_read(place / shard_index.NAME, shard_index.MAX_BYTES), where=str(directory))
    return Checkpoint(place, config.raw, _shards(place, files), index)


def _no_safetensors(directory: Path) -> NotFoundError:
    """With the weights that are there in another format, and how transformers makes safetensors of them."""
    names = sorted(path.name for path in directory.iterdir())
    found = next((name for name in names if name.lower().endswith(".gguf")), None)
    hint = "give the directory that transformers' save_pretrained wrote, or a snapshot in the Hub's cache"
    if found is not None:
        hint = f'from_pretrained(DIR, gguf_file="{found}").save_pretrained(NEW) in transformers makes safetensors of it'
        hint += ", if the original is nowhere to be had"
    else:
        found = next((name for name in names if any(fnmatchcase(name, each) for each in _PICKLED)), None)
        if found is not None:
            hint = "a pickle may run code, so it is not opened here: if you trust it, from_pretrained(DIR).save_pretrained(NEW) "
            hint += "in transformers makes safetensors of it (before version 5 with safe_serialization=True)"
    kept = f"; its weights are {found}" if found is not None else ""
    return NotFoundError(
        f"{directory} has no {WEIGHTS} and no {shard_index.NAME}{kept}", code="no-checkpoint", hint=hint
    )


def has_weights(directory: Path) -> bool:
    """Whether the shapes can be read at once; without weights a model has to be built, which takes seconds."""
    return (directory / WEIGHTS).exists() or (directory / shard_index.NAME).exists()


def spec_of(
    identity: BaseModelId, config: ModelConfig, tensors: Sequence[TensorSpec], weights: Digest | None = None
) -> BaseModelSpec:
    """What a config and a table of tensors say of the base ``identity``."""
    fingerprint, modules = _fingerprint(tensors), modules_of(tensors, config)
    return BaseModelSpec(
        id=replace(identity, fingerprint=fingerprint),
        model_type=config.model_type,
        architectures=config.architectures,
        modules=modules,
        is_tied=config.is_tied,
        vocabulary=config.vocabulary,
        fingerprint=fingerprint,
        weights_fingerprint=weights,
        is_quantized=bool(config.quantization),
        layers=layers_of(modules, config),
    )


def _config(place: Path) -> ModelConfig:
    path = place / model_config.NAME
    if not path.exists():
        return ModelConfig({})
    return parse_model_config(_read(path, model_config.MAX_BYTES), where=str(path))


def _files(place: Path) -> Mapping[str, Sequence[str]]:
    """File name → the tensors that the index puts there; empty for a single file, which lists its own."""
    if (place / WEIGHTS).exists():
        return {WEIGHTS: ()}
    path = place / shard_index.NAME
    if not path.exists():
        return {}
    files: dict[str, list[str]] = {}
    for tensor, file in parse_shard_index(_read(path, shard_index.MAX_BYTES), where=str(path)).items():
        files.setdefault(file, []).append(tensor)
    if len(files) > MAX_SHARDS:
        raise MalformedFileError(str(path), f"names {len(files):,} files, more than the {MAX_SHARDS:,} that are read")
    return dict(sorted(files.items()))


def _shards(place: Path, files: Mapping[str, Sequence[str]]) -> tuple[Shard, ...]:
    shards = []
    for name, promised in files.items():
        shard = read_shard(place / name)
        missing = sorted(set(promised) - {spec.name for spec in shard.tensors})
        if missing:
            raise MalformedFileError(
                str(place / name),
                f"lacks {missing[0]!r:.80}, which {shard_index.NAME} puts there",
                code="shard-mismatch",
                hint="get the checkpoint again: its files are of different downloads",
            )
        shards.append(shard)
    return tuple(shards)


def read_shard(path: Path) -> Shard:
    """The table of one file of a checkpoint. Raises MalformedHeaderError."""
    with open_regular(Path(os.path.realpath(path))) as file:
        status = os.fstat(file.fileno())
        header = read_header(file, size=status.st_size, where=str(path), max_header=MAX_HEADER)
    return Shard(path, header.tensors, header.metadata, header.data_start, status.st_size, status.st_mtime_ns)


def _fingerprint(tensors: Iterable[TensorSpec]) -> Digest:
    """Of names and shapes alone: a base and what was tuned from it have the same."""
    rows = sorted([spec.name, *spec.shape] for spec in tensors)
    return Digest.of(json.dumps(rows, separators=(",", ":")).encode())


def weights_fingerprint(shards: Iterable[Shard]) -> Digest:
    """Of every tensor's name, dtype, shape and bytes, however they are spread over files. Reads every byte."""
    rows = []
    for shard in shards:
        with open_regular(Path(os.path.realpath(shard.path))) as file:
            for spec in shard.tensors:
                file.seek(shard.data_start + spec.start)
                hasher, left = hashlib.sha256(), spec.bytes
                while left and (piece := file.read(min(_STEP, left))):
                    hasher.update(piece)
                    left -= len(piece)
                rows.append([spec.name, spec.dtype, list(spec.shape), hasher.hexdigest()])
    return Digest.of(json.dumps(sorted(rows), separators=(",", ":")).encode())


def _read(path: Path, most: int) -> bytes:
    with open_regular(Path(os.path.realpath(path))) as file:
        data = b""
        while len(data) <= most and (piece := file.read(most + 1 - len(data))):
            data += piece
        return data
