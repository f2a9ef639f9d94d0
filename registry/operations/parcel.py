"""What goes to the Hub: an adapter's served files, with a card of its own and without where its trainer had the base.

1. Which repository the base is; one that only the trainer's machine has is refused.
2. The config and other settings, byte for byte, unless a value is where the trainer had the base: then that repository.
3. The card, made of the one the adapter brings and of what is known.
4. Every byte is copied aside while it is hashed, so that what is sent is what was described.
5. Other paths of a machine, in what is text, go as they are and are said.

No sidecar goes, and the manifest holds neither pickle nor optimizer state nor checkpoint.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from registry.domain.digest import Hasher
from registry.domain.evaluation import Evaluation
from registry.domain.finding import Finding
from registry.domain.manifest import FileEntry, FileRole, Manifest
from registry.domain.version import Version
from registry.errors import InvalidInputError, UnavailableError
from registry.formats.adapter_config import AdapterConfig, parse_adapter_config
from registry.formats.adapter_directory import CONFIG
from registry.formats.base_model_text import WHERE, resolve_base
from registry.formats.git_blob import git_hasher
from registry.formats.local_paths import local_paths, paths_in_json, without_value
from registry.hub.protocol import OutgoingFile
from registry.operations.bases import Shelf, repository_and_revision
from registry.operations.card import CardSubject, is_local, model_card, says_paths
from registry.operations.check import require_adapter
from registry.operations.contents import contents
from registry.operations.describe import AdapterPackage
from registry.operations.directory import read_regular
from registry.operations.manifests import manifest_of

CARD = "README.md"
#: Bytes; settings are smaller.
_MAX_SETTINGS = 1 << 20
#: A token may look like a path.
_VOCABULARIES = ("tokenizer.json", "vocab.json", "vocab.txt", "merges.txt")
_NO_TEXT = (".safetensors", ".model", ".tiktoken")
_CHANGED = "it changed while it was read, or the store is damaged: `adapters doctor --deep`"

Read = Callable[[FileEntry], Iterable[bytes]]


@dataclass(frozen=True, slots=True)
class Parcel:
    """``tag`` is what the Hub will call the version, None for a directory, which is no version, and where it numbers versions
    itself."""

    name: str
    tag: str | None
    title: str
    description: str
    files: tuple[OutgoingFile, ...]
    findings: tuple[Finding, ...]


def parcel_of_version(
    version: Version,
    repository: str,
    work: Path,
    *,
    base: str | None,
    shelf: Shelf,
    is_numbered: Callable[[], bool] = lambda: False,
) -> Parcel:
    """``work`` is an empty directory that outlives the parcel; ``is_numbered`` tells whether the Hub makes numbers of its own,
    which nobody knows beforehand. Raises InvalidInputError, CorruptionError."""
    manifest = manifest_of(version.digest, shelf.blobs)
    require_adapter(version.reference, manifest)
    subject, config = card_subject(version, manifest, shelf.catalog.evaluations(version), base, shelf, repository)
    tag = None if is_numbered() else subject.revision
    read: Read = lambda entry: shelf.blobs.read(entry.digest)  # noqa: E731 - as for a directory
    files, findings = _packed(replace(subject, revision=tag), config, read, work)
    return Parcel(version.reference, tag, version.reference, f"Manifest: {version.digest}", files, findings)


def parcel_of_directory(
    package: AdapterPackage, repository: str, work: Path, *, base: str | None, shelf: Shelf
) -> Parcel:
    """Likewise, of a directory that was described and found sound."""
    name = package.directory.absolute().name
    read: Read = lambda entry: read_regular(package.paths[entry.digest])  # noqa: E731 - as for a version
    manifest = package.manifest
    config = _config(manifest, read)
    known = _base(name, config, manifest, base, shelf)
    subject = CardSubject(name, manifest, known, written=_written(manifest, read), repository=repository)
    files, findings = _packed(subject, config, read, work)
    return Parcel(name, None, name, f"Manifest: {manifest.digest}", files, findings)


def card_subject(
    version: Version,
    manifest: Manifest,
    evaluations: Sequence[Evaluation],
    base: str | None,
    shelf: Shelf,
    repository: str | None = None,
    *,
    needs_base: bool = True,
) -> tuple[CardSubject, AdapterConfig]:
    """What the card of a version is about. Without ``needs_base`` a base that nobody can name is left open."""

    def read(entry: FileEntry) -> Iterable[bytes]:
        return shelf.blobs.read(entry.digest)

    config = _config(manifest, read)
    known = _base(version.reference, config, manifest, base, shelf, needs_base=needs_base)
    subject = CardSubject(
        str(version.adapter),
        manifest,
        known,
        evaluations,
        _written(manifest, read),
        version.reference,
        repository,
        f"v{version.number}",
    )
    return subject, config


def _config(manifest: Manifest, read: Read) -> AdapterConfig:
    entry = next(entry for entry in manifest.files if entry.path == CONFIG)
    return parse_adapter_config(b"".join(read(entry)), where=CONFIG)


def _written(manifest: Manifest, read: Read) -> bytes | None:
    entry = next((entry for entry in manifest.files if entry.path == CARD), None)
    return None if entry is None else b"".join(read(entry))


def _base(  # 1
    name: str, config: AdapterConfig, manifest: Manifest, stated: str | None, shelf: Shelf, *, needs_base: bool = True
) -> str | None:
    if stated is not None:
        return repository_and_revision(stated)[0]
    recorded = shelf.same_name(manifest.base_model).id
    raw = config.raw.get(WHERE)
    text = raw.strip() if isinstance(raw, str) else ""
    if text and not is_local(text):
        own = resolve_base(text, None)[0].id or text
        was_overridden = manifest.base_model.id is not None and manifest.base_model.id.lower() != own.lower()
        return manifest.base_model.id if was_overridden else text
    if recorded is None and needs_base:
        raise InvalidInputError(
            f"{name} says that its base is {text!r:.200}, which nobody else can find, and the registry knows no repository",
            code="base-unnamed",
            hint="say which repository it is: --base OWNER/NAME",
        )
    return recorded


def _packed(
    subject: CardSubject, config: AdapterConfig, read: Read, work: Path
) -> tuple[tuple[OutgoingFile, ...], tuple[Finding, ...]]:
    card, findings = model_card(subject)  # 3
    local = _local_base(config)
    made = {CARD: card.encode()}
    if (changed := _sent_config(config, subject.base)) is not None:  # 2
        made[CONFIG] = changed
    for entry in subject.manifest.files:
        if local is not None and subject.base is not None and _is_settings(entry) and entry.path not in made:
            data = b"".join(contents(entry, read(entry), hint=_CHANGED))
            if (changed := without_value(data, local, subject.base)) != data:
                made[entry.path] = changed
    files = [_made(path, data, work / f"made-{number}") for number, (path, data) in enumerate(made.items())]
    for number, entry in enumerate(subject.manifest.files):  # 4
        if entry.role is FileRole.SERVED and entry.path not in made:
            files.append(_copied(entry, read(entry), work / f"file-{number}"))
    for file in files:  # 5
        if file.path != CARD:
            findings += tuple(says_paths(file.path, _paths_in(file, local)))
    return tuple(sorted(files, key=lambda file: file.path)), findings


def _local_base(config: AdapterConfig) -> str | None:
    """Where the trainer had the base, if that is a path."""
    raw = config.raw.get(WHERE)
    return raw if isinstance(raw, str) and is_local(raw.strip()) else None


def _is_settings(entry: FileEntry) -> bool:
    return entry.role is FileRole.SERVED and entry.path.endswith(".json") and entry.size <= _MAX_SETTINGS


def _paths_in(file: OutgoingFile, local: str | None) -> tuple[str, ...]:
    if file.size > _MAX_SETTINGS or file.path in _VOCABULARIES or file.path.endswith(_NO_TEXT):
        return ()
    data = file.source.read_bytes()
    if file.path.endswith(".json"):
        return paths_in_json(data, local)
    return local_paths(data.decode("utf-8", "replace"), local)


def _sent_config(config: AdapterConfig, base: str | None) -> bytes | None:
    """None where the config may go as it is."""
    if config.raw.get(WHERE) == base:
        return None
    data = json.dumps({**config.raw, WHERE: base}, indent=2, ensure_ascii=False).encode() + b"\n"
    local = _local_base(config)
    return data if local is None or base is None else without_value(data, local, base)


def _made(path: str, data: bytes, place: Path) -> OutgoingFile:
    return _write(path, len(data), (data,), place)


def _copied(entry: FileEntry, chunks: Iterable[bytes], place: Path) -> OutgoingFile:
    return _write(entry.path, entry.size, contents(entry, chunks, hint=_CHANGED), place)


def _write(path: str, size: int, chunks: Iterable[bytes], place: Path) -> OutgoingFile:
    sha256, git_sha1 = Hasher(), git_hasher(size)
    try:
        with open(place, "xb") as file:
            for chunk in chunks:
                sha256.update(chunk)
                git_sha1.update(chunk)
                file.write(chunk)
    except OSError as error:
        raise UnavailableError(
            f"no room to copy {path}: {error.strerror or error}", hint="make room, or set TMPDIR to another place"
        ) from error
    return OutgoingFile(path, place, size, sha256.digest.hex, git_sha1.hexdigest())
