"""What a verb is handed to work on: adapters and bases, as directories, references or repositories of the Hub; each becomes a
directory that was read."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from registry.disk import path_of
from registry.domain.base_model import BaseModelId
from registry.domain.digest import Digest
from registry.domain.manifest import MERGED
from registry.domain.names import Reference
from registry.errors import InvalidNameError, NotFoundError, UnavailableError
from registry.formats.adapter_directory import WEIGHTS
from registry.formats.base_model_text import is_repository, resolve_base
from registry.operations.bases import CheckedBase, Shelf, is_path, repository_and_revision
from registry.operations.check import CheckedAdapter, adapter_in, recorded_weights, require_adapter, under_alias
from registry.operations.fetch import fetch
from registry.operations.know_base import read_shard
from registry.operations.manifests import manifest_of
from registry.plans.merge_draft import Ingredient

Subject = Path | Reference | str


@dataclass(frozen=True, slots=True)
class Found:
    """``base_weights`` is the weights fingerprint of a version's base: as it was when the version was pushed, else as the
    registry has it now."""

    directory: Path
    adapter: CheckedAdapter
    base_weights: Digest | None = None

    def ingredient(self, number: int, weight: float) -> Ingredient:
        one = self.adapter
        return Ingredient(number, one.name, one.manifest, one.config, read_shard(self.directory / WEIGHTS), weight)


def find_adapter(subject: Subject, work: Path, shelf: Shelf) -> Found:
    """A text is a repository of the Hub. What has to be fetched is put into ``work``, which must not exist.

    Raises NotFoundError, InvalidInputError for what is no adapter, CorruptionError for a version that is damaged.
    """
    if isinstance(subject, Path):
        if not subject.is_dir():
            raise NotFoundError(
                f"{subject} is not a directory", code="no-directory", hint="give the adapter's directory"
            )
        return Found(subject, under_alias(adapter_in(subject), shelf))
    if isinstance(subject, str):
        from registry.hub.snapshots import ADAPTER, snapshot

        shutil.copytree(snapshot(*repository_and_revision(subject), ADAPTER), work)  # the cache is made of links
        return Found(work, replace(under_alias(adapter_in(work), shelf), name=subject))
    version = shelf.catalog.resolve(subject)
    require_adapter(version.reference, manifest_of(version.digest, shelf.blobs))
    version, manifest = fetch(subject, work, blobs=shelf.blobs, catalog=shelf.catalog)
    checked = adapter_in(work)
    recorded = replace(checked.manifest, base_model=manifest.base_model, lineage=manifest.lineage)
    base = manifest.base_model
    own = recorded_weights(version)
    known = shelf.named(base.id, base.revision).spec if base.id and own is None else None
    weights = known.weights_fingerprint if known is not None else own
    checked = replace(checked, name=version.reference, manifest=recorded, trained_weights=own)
    return Found(work, under_alias(checked, shelf), weights)


def base_directory(text: str, shelf: Shelf, work: Path) -> tuple[Path, CheckedBase]:
    """The directory of a checkpoint with its weights: a path, a merged version of this registry, which is put into ``work``, or a
    Hub repository in the cache or fetched into it."""
    if is_path(text):
        directory = path_of(text)
        if not directory.is_dir():
            raise NotFoundError(f"{text} is not a directory", code="no-directory", hint="give the base's checkpoint")
        return directory, CheckedBase(shelf.same_name(_identity(directory, text)))
    stored = _merged_version(text, shelf) if not text.startswith("hf://") else None
    if stored is not None:
        directory = work / "base"
        version, manifest = fetch(stored, directory, blobs=shelf.blobs, catalog=shelf.catalog)
        return directory, CheckedBase(replace(manifest.base_model, id=None, revision=None, raw=version.reference))
    if not is_repository(text.removeprefix("hf://").partition("@")[0]) or _is_bare_and_unknown(text, shelf):
        raise NotFoundError(
            f"{text} is neither a directory here, nor a version or base that this registry knows, nor OWNER/NAME of the Hub",
            code="unknown-base",
            hint="give the base's checkpoint, a merged version, or hf://OWNER/NAME@REVISION",
        )
    from registry.hub.snapshots import CHECKPOINT, snapshot

    name, revision = repository_and_revision(text)
    directory = snapshot(name, revision, CHECKPOINT)
    return directory, CheckedBase(shelf.same_name(_identity(directory, text)))


def _is_bare_and_unknown(text: str, shelf: Shelf) -> bool:
    """A word without an owner, which is rather a directory or a version misspelt than one of the Hub's oldest repositories;
    those have owners by now, and the aliases know them."""
    name, revision = repository_and_revision(text)
    if "/" in text:
        return False
    canonical = shelf.same_name(resolve_base(name, revision)[0]).id or name
    if "/" in canonical or shelf.catalog.find_base(canonical, revision) is not None:
        return False
    from registry.hub.bases import base_in_cache

    return base_in_cache(name, revision) is None


def _merged_version(text: str, shelf: Shelf) -> Reference | None:
    """What the text refers to in this registry, if that is a merged checkpoint."""
    try:
        version = shelf.catalog.resolve(Reference.parse(text))
    except (InvalidNameError, NotFoundError):
        return None
    is_merged = manifest_of(version.digest, shelf.blobs).peft_type == MERGED
    return Reference(version.adapter, number=version.number) if is_merged else None


def _identity(directory: Path, text: str) -> BaseModelId:
    """As far as the directory's own name tells: a snapshot in the Hub's cache says repository and commit."""
    return replace(resolve_base(str(directory.absolute()), None)[0], raw=text)


@contextmanager
def temporary() -> Iterator[Path]:
    """What cannot be removed, because there is no descriptor left for it, hides no reason."""
    try:
        place = TemporaryDirectory(prefix="adapters-", ignore_cleanup_errors=True)
    except OSError as error:
        raise UnavailableError(
            f"no room for temporary files: {error.strerror or error}", hint="make room, or set TMPDIR to another place"
        ) from error
    with place as work:
        yield Path(work)
