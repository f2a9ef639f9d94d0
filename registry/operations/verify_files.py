"""What lies beside the weights of a merged checkpoint: does its config say what the merge makes true, and is there anything that
a merge never writes and a loader might take up?"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from registry.domain.checkpoint import Checkpoint
from registry.formats import model_config
from registry.formats.adapter_directory import CONFIG, Disposition, disposition
from registry.operations.module_folders import module_files
from registry.plans.merging import MergePlan

#: What whoever saves a model writes about the saving.
_OF_SAVING = frozenset({"_name_or_path", "transformers_version"})
_TYPE, _OLD_TYPE = "dtype", "torch_dtype"  # transformers 5 and before
_MODELS = (".safetensors", ".gguf", ".h5", ".msgpack", ".onnx", ".npz")
_ABSENT = object()


def config_differences(plan: MergePlan, base: Checkpoint, found: Checkpoint) -> tuple[str, ...]:
    """Keys of ``config.json``, each with what it is and what it should be: the base's but for those that the merge changes."""
    if not (found.directory / model_config.NAME).exists():
        return (f"{model_config.NAME} is not there",)
    wanted = base.config if plan.config is None else plan.config
    return tuple(_differences(found.config, wanted))


def stray_files(found: Checkpoint) -> tuple[str, ...]:
    """Weights that are neither the checkpoint's nor a module's of its own, pickles, files of an adapter, and code; by their paths,
    folders that are not hidden included."""
    own = {*(shard.path.name for shard in found.shards), *module_files(found.directory)}
    stray = []
    for folder, folders, files in os.walk(found.directory):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            path = Path(folder, name).relative_to(found.directory).as_posix()
            if path not in own and _is_stray(name):
                stray.append(path)
    return tuple(stray)


def _is_stray(name: str) -> bool:
    lowered = name.lower()
    loads = lowered.endswith(_MODELS) or lowered == CONFIG or lowered.startswith("pytorch_model")
    return loads or disposition(name) in (Disposition.CODE, Disposition.PICKLE)


def _differences(found: Mapping[str, object], wanted: Mapping[str, object], above: str = "") -> Iterator[str]:
    ours, theirs = _plain(found), _plain(wanted)
    for key in sorted(ours.keys() | theirs.keys()):
        one, other = ours.get(key, _ABSENT), theirs.get(key, _ABSENT)
        if isinstance(one, dict) and isinstance(other, dict):
            yield from _differences(one, other, f"{above}{key}.")
        elif one is _ABSENT or other is _ABSENT or (one, type(one)) != (other, type(other)):
            yield f"{above}{key} is {_shown(one)}, expected {_shown(other)}"


def _plain(config: Mapping[str, object]) -> dict[str, object]:
    found = {key: value for key, value in config.items() if key not in _OF_SAVING}
    if _OLD_TYPE in found:
        found[_TYPE] = found.pop(_OLD_TYPE) if _TYPE not in found else found[_TYPE]
        found.pop(_OLD_TYPE, None)
    return found


def _shown(value: object) -> str:
    return "absent" if value is _ABSENT else f"{value!r:.80}"
