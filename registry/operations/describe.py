"""From a directory to a manifest, without changing anything and without believing anything.

1. Look at the directory once: every entry is kept, left out, or a reason to refuse.
2. Read the config and the weights' header; hash every kept file in one pass, through the descriptor that was checked.
3. Let the method's anatomy make targets of tensors.
4. Add what the base text, the card and the training records say.

Broken files raise at once; what is wrong with a readable adapter comes back as findings, all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from registry.domain.base_model import BaseModelId
from registry.domain.digest import Digest, Hasher
from registry.domain.finding import Finding, Severity
from registry.domain.lineage import LineageEdge
from registry.domain.manifest import FileEntry, Manifest
from registry.domain.tensors import TensorSpec
from registry.errors import InvalidNameError, UnsuitableDirectoryError
from registry.formats.adapter_config import AdapterConfig, parse_adapter_config
from registry.formats.adapter_directory import CONFIG, WEIGHTS
from registry.formats.base_model_text import resolve_base
from registry.formats.git_lfs import is_lfs_pointer, lfs_pointer_error
from registry.formats.safetensors_header import read_header
from registry.formats.tensor_scan import Scan, scan
from registry.formats.training import SIDECARS, training_facts
from registry.operations.bounded_regex import slow_matcher
from registry.operations.directory import Kept, look_at, open_regular, read_regular
from registry.variants.anatomy import Reading
from registry.variants.patterns import Patterns
from registry.variants.table import read_anatomy

_MAX_RECORD = 64 << 20


@dataclass(frozen=True, slots=True)
class AdapterPackage:
    """A described directory: the manifest, where the bytes of its files lie, and what was noticed."""

    directory: Path
    manifest: Manifest
    paths: Mapping[Digest, Path]
    findings: tuple[Finding, ...]
    fingerprint: Digest | None = None  #: of the base it was held against
    weights_fingerprint: Digest | None = None  #: of its base's numbers, where the registry has hashed them


def describe(
    directory: Path,
    *,
    adapter: str | None = None,
    base: str | None = None,
    lineage: Sequence[LineageEdge] = (),
    progress: Callable[[int], None] = lambda _count: None,
) -> AdapterPackage:
    """``adapter`` names a sub-directory, as PEFT makes one per non-default adapter; ``base`` (``ID[@REVISION]``) overrides
    what the config says. Raises members of InvalidInputError; reads nothing outside the directory."""
    kept, findings = look_at(directory, adapter)  # 1
    files: list[FileEntry] = []
    paths: dict[Digest, Path] = {}
    records: dict[str, bytes] = {}
    tensors: tuple[TensorSpec, ...] = ()
    scanned: Scan | None = None
    read = {CONFIG: _read_file(kept[CONFIG], keep=True)}  # once: what is described is what is stored
    config = parse_adapter_config(read[CONFIG][2], where=str(kept[CONFIG].path))
    for name in sorted(kept):  # 2
        item = kept[name]
        if name == WEIGHTS:
            digest, size, tensors, scanned = _read_weights(item, progress)
        else:
            digest, size, records[name] = read.get(name) or _read_file(item, keep=name in SIDECARS)
        files.append(FileEntry(name, digest, size, item.role))
        paths[digest] = item.path
    reading = _read_tensors(config, tensors)  # 3
    findings += reading.findings
    if scanned is not None:
        findings += _about_numbers(scanned, reading)
    base_model, about_base = _base(config, base)  # 4
    training, about_training = training_facts({name: data for name, data in records.items() if data})
    manifest = Manifest(
        peft_type=config.peft_type.upper(),
        variant=reading.variant,
        base_model=base_model,
        task_type=config.task_type,
        targets=reading.targets,
        tensors=tensors,
        tensor_identity=scanned.identity if scanned else Digest.of(b"[]"),
        files=tuple(files),
        extra_modules=reading.extra_modules,
        absent_targets=reading.absent_targets,
        base_change=reading.base_change,
        peft_version=config.peft_version,
        training=training,
        lineage=tuple(lineage),
    )
    return AdapterPackage(directory, manifest, paths, (*findings, *about_base, *about_training))


def _read_weights(item: Kept, progress: Callable[[int], None]) -> tuple[Digest, int, tuple[TensorSpec, ...], Scan]:
    with open_regular(item.path) as file:
        hasher = Hasher()

        def read(count: int) -> bytes:
            data = file.read(count)
            while 0 < len(data) < count and (more := file.read(count - len(data))):
                data += more  # one read of a raw file may stop early, and an element must not be cut
            hasher.update(data)
            progress(len(data))
            return data

        header = read_header(file, size=item.size, where=str(item.path))
        file.seek(0)
        read(header.data_start)
        try:
            scanned = scan(read, header.tensors)
        except EOFError:
            raise _changed(item) from None
        if file.read(1):
            raise _changed(item)
        return hasher.digest, item.size, header.tensors, scanned


def _read_file(item: Kept, *, keep: bool) -> tuple[Digest, int, bytes]:
    """Digest and size, and the bytes themselves if they are wanted and not too many."""
    hasher, kept = Hasher(), []
    for chunk in read_regular(item.path):
        if hasher.size == 0 and is_lfs_pointer(chunk[:64]):
            raise lfs_pointer_error(str(item.path))
        hasher.update(chunk)
        if keep and hasher.size <= _MAX_RECORD:
            kept.append(chunk)
    if hasher.size != item.size:
        raise _changed(item)
    return hasher.digest, hasher.size, b"".join(kept)


def _read_tensors(config: AdapterConfig, tensors: Sequence[TensorSpec]) -> Reading:
    return read_anatomy(config, tensors, Patterns(slow_matcher()))


def _about_numbers(scanned: Scan, reading: Reading) -> list[Finding]:
    found = []
    if scanned.nonfinite:
        found.append(
            Finding(
                "nonfinite",
                Severity.ERROR,
                f"{_count(scanned.nonfinite, 'tensor')} with NaN or infinity: {_some(scanned.nonfinite)}",
                scanned.nonfinite[0],
                "the training diverged: take an earlier checkpoint; `push --allow nonfinite` keeps this one for the record",
            )
        )
    silent = sorted(set(reading.silent_if_zero) & set(scanned.zero))
    if silent:
        everything = len(silent) == len(reading.silent_if_zero)
        found.append(
            Finding(
                "no-op",
                Severity.WARNING,
                f"{'every' if everything else len(silent)} up-projection is all zero"
                f"{', so the adapter changes nothing' if everything else ': ' + _some(silent)}",
                silent[0],
                "was it saved before training? LoRA's B starts at zero",
            )
        )
    return found


def _base(config: AdapterConfig, override: str | None) -> tuple[BaseModelId, tuple[Finding, ...]]:
    raw = config.raw.get("base_model_name_or_path")
    text = raw if isinstance(raw, str) else None
    if override is None:
        return resolve_base(text, config.revision)
    name, _, revision = override.partition("@")
    stated, findings = resolve_base(name, revision or None)
    if stated.id is None:
        raise InvalidNameError(
            "base model", override, "a Hub repository such as meta-llama/Llama-3.1-8B, with or without @REVISION"
        )
    found, _ = resolve_base(text, config.revision)
    base = BaseModelId(stated.id, revision or None, raw=text)
    if found.id is not None and found.id.lower() != stated.id.lower():
        findings += (
            Finding(
                "base-overridden",
                Severity.WARNING,
                f"the config says {found.id}, --base says {stated.id}; --base is recorded",
                "base_model_name_or_path",
                "leave --base away if the config is right",
            ),
        )
    return base, findings


def _changed(item: Kept) -> UnsuitableDirectoryError:
    return UnsuitableDirectoryError(
        f"{item.path} changed while it was read",
        code="changed-while-read",
        hint="wait until the trainer has finished writing, then try again",
    )


def _count(things: Sequence[str], noun: str) -> str:
    return f"{len(things)} {noun}{'' if len(things) == 1 else 's'}"


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
