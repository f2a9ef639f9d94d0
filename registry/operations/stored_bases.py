"""The bases that a registry keeps: what can be known of one is stored once, for every later check.

1. Read the source: a directory, or a repository on the Hub.
2. Find the name that it is kept under; a copy does not take the place of what it copies.
3. Store the description as a blob, and in one transaction the row that names it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from registry.disk import path_of
from registry.domain.base_model import BaseModelSpec, StoredBase
from registry.domain.digest import Digest
from registry.errors import ConflictError, InvalidInputError, InvalidNameError, NotFoundError
from registry.formats.base_model_text import resolve_base
from registry.operations.bases import from_hub, is_path, repository_and_revision, stored_spec
from registry.operations.know_base import know_base

if TYPE_CHECKING:
    from registry.blobs.protocol import BlobStore
    from registry.catalog.protocol import Catalog


def add_base(
    source: str,
    *,
    name: str | None = None,
    hash_weights: bool = False,
    blobs: BlobStore,
    catalog: Catalog,
) -> tuple[StoredBase, BaseModelSpec, bool]:
    """Store what can be known of a base, under ``name`` (``ID[@REVISION]``; default: the source's own), for later checks.

    ``source`` is a directory or a repository on the Hub. ``hash_weights`` reads every byte of a directory. Returns whether
    anything changed. Raises UnavailableError where the shapes cannot be known, InvalidNameError where a name is needed, and what
    asking the Hub raises.
    """
    stated = repository_and_revision(name) if name is not None else (None, None)
    if is_path(source):
        spec = know_base(path_of(source), hash_weights=hash_weights)
    elif hash_weights:
        raise InvalidInputError(
            f"the weights of {source} are not fetched from the Hub, so that they cannot be hashed",
            code="no-weights",
            hint="add the directory of its snapshot, or leave --hash-weights away",
        )
    else:
        repository, revision = repository_and_revision(source)
        identity, _ = resolve_base(repository, revision)
        spec = from_hub(identity, online=True)
    identity, _ = resolve_base(stated[0] or spec.id.id, stated[1] or spec.id.revision)
    if identity.id is None:
        raise InvalidNameError(
            "base model",
            stated[0] or source,
            "a Hub repository such as meta-llama/Llama-3.1-8B",
            hint="name it: --name OWNER/NAME[@REVISION]",
        )
    known = catalog.find_base(identity.id, identity.revision or "")
    if known is not None and stated[0] is not None and stated[0].lower() != identity.id.lower():
        raise ConflictError(
            f"{stated[0]} is a copy of {identity.id}, which is known already; a copy does not take its place",
            code="base-known",
            hint=f"nothing is to be done: {stated[0]} means {identity.id}; to replace it, name that one",
        )
    spec = replace(spec, id=replace(identity, raw=None, fingerprint=spec.fingerprint))
    data = spec.canonical_bytes
    stored = StoredBase(identity, Digest.of(data))
    catalog.prepare()
    blobs.put(stored.digest, iter((data,)))
    with catalog.writing() as writer:
        blobs.put(stored.digest, iter((data,)))  # a collector may have run meanwhile
        created = writer.add_base(stored)
    return stored, spec, created


def show_base(text: str, *, blobs: BlobStore, catalog: Catalog) -> tuple[StoredBase, BaseModelSpec]:
    """Raises NotFoundError for a base that this registry does not know, CorruptionError."""
    name, revision = repository_and_revision(text)
    identity, _ = resolve_base(name, revision)
    stored = catalog.find_base(identity.id or name, revision)
    if stored is None:
        raise NotFoundError(
            f"there is no base {text}",
            code="unknown-base",
            hint="`adapters base list` shows them; add it: adapters base add",
        )
    return stored, stored_spec(stored, blobs)
