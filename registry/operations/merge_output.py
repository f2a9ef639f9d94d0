"""What lies beside the weights of a merged checkpoint: config, index, tokenizer, card, and the base's other files and modules."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

from registry.disk import new_file, sync, write_new
from registry.formats import model_config, shard_index
from registry.formats.adapter_directory import TOKENIZER
from registry.operations.module_folders import belongs, module_files

if TYPE_CHECKING:
    from registry.operations.merge_prepare import Prepared
    from registry.plans.merging import MergePlan


def write_rest(prepared: Prepared, into: Path, text: str) -> None:
    plan, base = prepared.plan, prepared.base
    tokenizer = prepared.directories[plan.takes_tokenizer_of] if plan.takes_tokenizer_of is not None else None
    taken = {path.name for path in tokenizer.iterdir() if path.name in TOKENIZER} if tokenizer is not None else set()
    replaced = set(TOKENIZER) if taken else set()
    for path in sorted(base.directory.iterdir()):
        if path.name not in replaced and _is_carried(path):
            _copy(path, into / path.name)
    _copy_below(module_files(base.directory), into)
    if tokenizer is not None:
        for name in sorted(taken):
            _copy(tokenizer / name, into / name)
    write_new(text.encode(), into / "README.md")
    if plan.config is None:
        if (base.directory / model_config.NAME).exists():
            _copy(base.directory / model_config.NAME, into / model_config.NAME)
    else:
        write_new(json.dumps(plan.config, indent=2, ensure_ascii=False).encode() + b"\n", into / model_config.NAME)
    if plan.index is not None:
        index = {
            "metadata": _metadata(plan),
            "weight_map": {one.name: shard.name for shard in plan.shards for one in shard.tensors},
        }
        write_new(json.dumps(index, indent=2).encode() + b"\n", into / shard_index.NAME)


def _metadata(plan: MergePlan) -> dict[str, object]:
    """The base's, with what the merge may have made untrue."""
    found = {**(plan.index or {}), "total_size": plan.bytes}
    if "total_parameters" in found:
        found["total_parameters"] = sum(prod(one.shape) for one in plan.tensors)
    return found


def _is_carried(path: Path) -> bool:
    """What belongs to the model besides weights."""
    own = path.name in (model_config.NAME, shard_index.NAME, "README.md")
    weights = path.name.endswith((".safetensors", ".index.json"))
    return path.is_file() and belongs(path.name) and not own and not weights


def _copy_below(files: Mapping[str, Path], into: Path) -> None:
    for name, path in files.items():
        (into / name).parent.mkdir(parents=True, exist_ok=True)
        _copy(path, into / name)
    for folder in {above for name in files for above in (into / name).parents if into in above.parents}:
        sync(folder)


def _copy(source: Path, target: Path) -> None:
    with open(source, "rb") as data, new_file(target) as file:
        shutil.copyfileobj(data, file)
