"""Real files from the wild: does every one of them get the answer it deserves?

    python -m tests.journeys.corpus FOLDER

The folder holds ``adapter_configs/`` and ``weights/``, each with an ``INDEX.tsv`` that says what the files are, and
``base_configs/``, ``evaluations/``, ``trainer_states/``, ``cards/``. Files are read as data, never run; none of them is part
of this project. A LoRA config without weights is given the smallest weights that fit it, so that it goes all the way into a
manifest; where its base is at hand, it is given those of its real shapes and held against that base and others.
"""

from __future__ import annotations

import csv
import json
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from registry.connect import connect
from registry.errors import RegistryError
from registry.formats.adapter_config import AdapterConfig, parse_adapter_config
from registry.formats.git_lfs import is_lfs_pointer
from registry.formats.results import read_results
from registry.formats.training import training_facts
from registry.operations.describe import describe
from tests.conftest import lora_tensors, safetensors_bytes
from tests.journeys.corpus_bases import against_bases

Answer = tuple[str, str, str, bool]  # folder, file, what we say, whether that is right

_REFUSED_WEIGHTS = {"LFS-POINTER": "lfs-pointer", "NOT-SAFETENSORS": "not-safetensors"}


def answers(corpus: Path) -> Iterator[Answer]:
    with tempfile.TemporaryDirectory() as scratch:
        yield from _configs(corpus / "adapter_configs", Path(scratch))
        yield from _weights(corpus / "weights", Path(scratch))
        yield from against_bases(corpus, Path(scratch))
    yield from _evaluations(corpus / "evaluations")
    yield from _records(corpus / "trainer_states")
    for path in sorted((corpus / "cards").iterdir()):
        facts, findings = training_facts({"README.md": path.read_bytes()})
        yield "cards", path.name, f"{len(facts)} facts, {len(findings)} findings", True


def _configs(folder: Path, scratch: Path) -> Iterator[Answer]:
    for row in _index(folder):
        path = folder / row["file"]
        is_peft = bool(row["peft_type"])
        try:
            config = parse_adapter_config(path.read_bytes(), where=path.name)
        except RegistryError as error:
            expected = "lfs-pointer" if "LFS POINTER" in row["peft_version_and_unusual"] else "not-peft"
            yield "adapter_configs", path.name, error.code, not is_peft and error.code == expected
            continue
        if not is_peft or config.peft_type != row["peft_type"]:
            yield "adapter_configs", path.name, f"read as {config.peft_type}", False
        elif config.peft_type == "LORA":
            yield "adapter_configs", path.name, *_with_weights(config, path, scratch / path.stem)
        else:
            yield "adapter_configs", path.name, config.peft_type, True


def _with_weights(config: AdapterConfig, path: Path, place: Path) -> tuple[str, bool]:
    names = config.names("target_modules")
    modules = [f"model.layers.0.self_attn.{name.split('.')[-1]}" for name in names] if isinstance(names, tuple) else []
    rank = config.integer("r", 8)
    tensors = lora_tensors(*(modules or ["model.layers.0.self_attn.q_proj"]), rank=rank)
    if any(config.truthy(field) for field in ("use_dora", "use_bdlora", "kasa_config", "target_parameters")):
        return "LORA with tensors of its own kind; the config is read", True
    place.mkdir()
    shutil.copy(path, place / "adapter_config.json")
    (place / "adapter_model.safetensors").write_bytes(safetensors_bytes(tensors))
    try:
        package = describe(place)
    except RegistryError as error:
        return f"refused: {error.message}", False
    errors = [finding.rule for finding in package.findings if finding.severity == "error"]
    return f"LORA r={package.manifest.rank} base={package.manifest.base_model.id} {errors or ''}", not errors


def _weights(folder: Path, scratch: Path) -> Iterator[Answer]:
    registry = connect(scratch / "registry")
    for row in _index(folder):
        directory = folder / row["folder"]
        try:
            pushed = registry.push(directory)
        except RegistryError as error:
            yield "weights", row["folder"], error.code, error.code == _REFUSED_WEIGHTS.get(row["status"])
            continue
        back = scratch / row["folder"]
        _, manifest = registry.pull(pushed.version.reference, back)
        same = all((back / each.path).read_bytes() == (directory / each.path).read_bytes() for each in manifest.files)
        digests = {entry.path: entry.digest for entry in manifest.files}
        right = row["status"] == "REAL" and same and digests[row["file"]] == f"sha256:{row['sha256']}"
        yield "weights", row["folder"], f"{pushed.version.reference}, r={manifest.rank}, {manifest.target_modules}", right
    sound = not registry.doctor(deep=True).problems
    yield "weights", "(doctor --deep)", "sound" if sound else "damaged", sound


def _evaluations(folder: Path) -> Iterator[Answer]:
    for path in sorted(folder.iterdir()):
        try:
            whole = bool(json.loads(path.read_bytes()))
        except ValueError:
            whole = False
        try:
            found = read_results(path.read_bytes(), where=path.name)
            yield "evaluations", path.name, f"{len(found)} scores", whole and len(found) > 0
        except RegistryError as error:
            yield "evaluations", path.name, error.message, not whole and "line" in error.message


def _records(folder: Path) -> Iterator[Answer]:
    names = ("trainer_state", "all_results", "eval_results")
    for path in sorted(folder.iterdir()):
        data = path.read_bytes()
        name = next(known for known in names if known in path.name) + ".json"
        facts, findings = training_facts({name: data})
        said = findings[0].message if findings else f"{len(facts)} facts"
        yield "trainer_states", path.name, said, bool(facts) != is_lfs_pointer(data)


def _index(folder: Path) -> list[dict[str, str]]:
    with (folder / "INDEX.tsv").open(newline="") as file:
        return [{key: value or "" for key, value in row.items()} for row in csv.DictReader(file, delimiter="\t")]


def main(corpus: Path) -> int:
    counts: Counter[tuple[str, bool]] = Counter()
    for folder, name, said, right in answers(corpus):
        counts[folder, right] += 1
        print(f"{'ok  ' if right else 'BAD '} {folder}/{name}: {said}")
    for (folder, right), count in sorted(counts.items()):
        print(f"{count:5} {'right' if right else 'WRONG'}: {folder}")
    wrong = sum(count for (_, right), count in counts.items() if not right)
    print(f"{sum(counts.values())} answers, {wrong} of them wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
