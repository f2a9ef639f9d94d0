"""Folders beside a transformer that make an embedder of it: its pooling, its dense layers, as sentence-transformers lays them out.

``modules.json`` names them. Without them the model does not load, or is another; a merge changes the transformer alone.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from registry.checks.misfit import Misfit, error, warning
from registry.domain.paths import is_plain
from registry.formats.adapter_directory import CONFIG, WEIGHTS, Disposition, disposition
from registry.formats.json_text import parse_json

NAME = "modules.json"
#: Folders inside one that is named.
_DEEPEST = 3
_SHARDS = (".safetensors", ".safetensors.index.json")


class _Module(NamedTuple):
    folder: str
    type: str


def module_files(directory: Path) -> dict[str, Path]:
    """Every file of the named folders that belongs to the model, by its path below ``directory``: weights, and what has no code.
    Links are left as they are. Raises MalformedFileError for a ``modules.json`` that cannot be read."""
    found = {
        path.relative_to(directory).as_posix(): path
        for module in _modules(directory)
        for path in _files(directory / module.folder)
        if belongs(path.name)
    }
    return dict(sorted(found.items()))


def folder_differences(base: Path, found: Path) -> tuple[str, ...]:
    """What of the base's modules is not in another directory as it is here, and weights of modules that it has besides."""
    wanted, there = ({**_list_of(place), **module_files(place)} for place in (base, found))
    more = [name for name in there if name not in wanted and name.endswith(_SHARDS)]
    return (
        *(f"{name} is missing" for name in wanted if name not in there),
        *(f"{name} is not the base's" for name in wanted if name in there and not _same(wanted[name], there[name])),
        *(f"{name} is none of the base's" for name in more),
    )


def objections(directory: Path) -> Iterator[Misfit]:
    """What of the named folders a merge cannot do right."""
    for module in _modules(directory):
        names = {path.name for path in _files(directory / module.folder)}
        if module.type.rpartition(".")[2] == "Transformer":
            yield error(
                "other-transformer",
                f"{NAME} has the transformer in {module.folder}, and not beside it: the merged weights would not be the ones that "
                "are loaded",
                where=NAME,
                fix=f"merge into {module.folder}, and put the result in its place",
            )
        elif not any(name.endswith(_SHARDS) for name in names) and (
            _has_weights(module) or any(map(_is_pickle, names))
        ):
            yield warning(
                "module-pickled",
                f"{module.folder} has no weights in safetensors, and a pickle is not carried over: the merged model lacks them",
                where=module.folder,
                fix=f"save them as {module.folder}/model.safetensors, in the base or beside the merged model",
            )


def belongs(name: str) -> bool:
    """Whether a file of this name is the model's: no code, no pickle, no other format, and nothing of an adapter."""
    kept = disposition(name) in (Disposition.SERVED, Disposition.SIDECAR) or name.endswith(_SHARDS)
    return kept and name not in (CONFIG, WEIGHTS) and not name.startswith(".")


def _has_weights(module: _Module) -> bool:
    return module.type.rpartition(".")[2] == "Dense"


def _is_pickle(name: str) -> bool:
    return disposition(name) is Disposition.PICKLE or name == "pytorch_model.bin"


def _modules(directory: Path) -> Sequence[_Module]:
    """Those with a folder of their own; none where the file is something else."""
    named = _list_of(directory)
    listed = parse_json(named[NAME].read_bytes(), where=str(named[NAME])) if named else None
    entries = [one for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []
    modules = (_Module(str(one.get("path") or "").rstrip("/"), str(one.get("type") or "")) for one in entries)
    return [one for one in modules if is_plain(one.folder)]


def _list_of(directory: Path) -> dict[str, Path]:
    path = directory / NAME
    return {NAME: path} if path.is_file() else {}


def _files(top: Path) -> Iterator[Path]:
    for folder, folders, files in os.walk(top):
        deep = len(Path(folder).relative_to(top).parts) >= _DEEPEST
        folders[:] = [] if deep else [name for name in folders if not name.startswith(".")]
        yield from (path for path in (Path(folder, name) for name in files) if path.is_file())


def _same(one: Path, other: Path) -> bool:
    return one.stat().st_size == other.stat().st_size and one.read_bytes() == other.read_bytes()
