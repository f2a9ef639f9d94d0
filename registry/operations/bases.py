"""Which base is meant, and what is known of it: from a directory, from this registry, from the Hub.

1. A directory is read. Where its shapes are those of a base that the registry has hashed, its bytes say whether it is that base.
2. A name is looked up in the registry, under its own name and the aliases that people gave it.
3. Else on the Hub, or only in the Hub's cache on this machine; what was found there is not stored.
4. Else only the name is known, and the answer says why.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from registry.checks.misfit import Misfit, warning
from registry.disk import path_of
from registry.domain.base_model import BaseAliases, BaseModelId, BaseModelSpec, StoredBase, parse_base_model_spec
from registry.domain.digest import Digest
from registry.errors import (
    DigestMismatchError,
    InvalidInputError,
    InvalidNameError,
    RegistryError,
    UnavailableError,
)
from registry.formats.base_model_text import is_repository, resolve_base
from registry.formats.model_config import parse_model_config
from registry.operations.build_base import built
from registry.operations.know_base import has_weights, know_base, read_checkpoint, spec_of, weights_fingerprint

#: Bytes of weights that are hashed for a check, which takes about a second.
_MOST_HASHED = 2 << 30
_GIVE_DIRECTORY = "give the directory of a checkpoint: --base DIR"

if TYPE_CHECKING:
    from registry.blobs.protocol import BlobStore
    from registry.catalog.protocol import Catalog


@dataclass(frozen=True, slots=True)
class CheckedBase:
    """A base as far as it is known: with ``spec`` module by module, else by its name, and ``problem`` says why."""

    id: BaseModelId
    spec: BaseModelSpec | None = None
    problem: Misfit | None = None

    def document(self) -> dict[str, object]:
        spec = self.spec
        return {
            **self.id.document(),
            "model_type": spec.model_type if spec else None,
            "architectures": list(spec.architectures) if spec else [],
            "modules": len(spec.modules) if spec else None,
            "quantized": spec.is_quantized if spec else None,
            "weights_fingerprint": spec.weights_fingerprint if spec else None,
        }


@dataclass(frozen=True)
class Shelf:
    """Where bases are looked up by name, for the length of one command or batch.

    ``online`` may ask the Hub; without it only its cache on this machine is. Unless it ``trusts_paths`` no directory of this
    machine is meant by anything an adapter says: on a server, that is somebody else's machine.
    """

    blobs: BlobStore
    catalog: Catalog
    online: bool = False
    trusts_paths: bool = True
    known: dict[tuple[str, str | None], CheckedBase] = field(default_factory=dict)  #: looked up once for a whole batch
    weights: dict[tuple[str, str], Digest | None] = field(default_factory=dict)  #: likewise

    def named(self, name: str, revision: str | None) -> CheckedBase:
        key = (name.lower(), revision)
        if key not in self.known:
            self.known[key] = self._look_up(name, revision)
        return self.known[key]

    def same_name(self, identity: BaseModelId) -> BaseModelId:
        """The identity under the name that this registry's aliases give it."""
        return replace(identity, id=self._aliases.canonical(identity.id)) if identity.id is not None else identity

    def weights_of(self, identity: BaseModelId) -> Digest | None:
        """The weights fingerprint of exactly this base, at exactly this revision, where the registry has hashed it."""
        if identity.id is None:
            return None
        key = (identity.id.lower(), identity.revision or "")
        if key not in self.weights:
            stored = self.catalog.find_base(identity.id, key[1])
            self.weights[key] = stored_spec(stored, self.blobs).weights_fingerprint if stored is not None else None
        return self.weights[key]

    def has_hashed(self, shapes: Digest) -> bool:
        """Whether weights of these shapes can be told by their bytes."""
        return shapes in self._hashed

    def with_weights(self, shapes: Digest, weights: Digest, says: Collection[str | None]) -> BaseModelId | None:
        """The base that has these weights here. Where several do, the one that an adapter ``says``, or none."""
        found = [base for own, base in self._hashed.get(shapes, ()) if own == weights]
        if len({(base.id or "").lower() for base in found}) > 1:
            named = {(name or "").lower() for name in says}
            found = [base for base in found if (base.id or "").lower() in named]
        return found[0] if found else None

    @cached_property
    def _hashed(self) -> Mapping[Digest, Sequence[tuple[Digest, BaseModelId]]]:
        """By the fingerprint of their shapes. A registry that cannot be asked keeps nobody from looking at directories."""
        found: dict[Digest, list[tuple[Digest, BaseModelId]]] = {}
        try:
            for stored in self.catalog.bases():
                spec = stored_spec(stored, self.blobs)
                if spec.weights_fingerprint is not None:
                    found.setdefault(spec.fingerprint, []).append((spec.weights_fingerprint, self.same_name(stored.id)))
        except RegistryError:
            return {}
        return found

    @cached_property
    def _aliases(self) -> BaseAliases:
        return self.catalog.base_aliases()

    def _look_up(self, name: str, revision: str | None) -> CheckedBase:
        identity = self.same_name(resolve_base(name, revision)[0])
        if identity.id is None:
            return CheckedBase(
                identity, problem=_unknown(f"{name} is neither a directory here nor a repository's name", None)
            )
        stored = self.catalog.find_base(identity.id, revision)  # 2
        if stored is None and revision == "":
            return CheckedBase(identity, problem=_unknown(f"{name} is not known without a revision", None))
        if stored is not None:
            spec = stored_spec(stored, self.blobs)
            return CheckedBase(replace(stored.id, id=identity.id, fingerprint=spec.fingerprint), spec)
        try:
            spec = from_hub(identity, online=self.online)  # 3
        except RegistryError as error:
            return CheckedBase(identity, problem=_unknown(error.message, error.hint))  # 4
        return CheckedBase(spec.id, spec)


def base_called(text: str, shelf: Shelf | None = None, *, says: str | None = None) -> CheckedBase:
    """A directory, or a repository's name ``[hf://]OWNER/NAME[@REVISION]``, of which no more is known without a ``shelf``.
    ``says`` is the base that the adapter names.

    Raises UnsuitableDirectoryError and MalformedFileError for a directory that holds no sound checkpoint.
    """
    if (shelf is None or shelf.trusts_paths) and is_path(text):  # 1
        directory = path_of(text)
        try:
            spec = know_base(directory)
        except UnavailableError as error:
            identity, _ = resolve_base(str(directory.absolute()), None)
            return CheckedBase(replace(identity, raw=text), problem=_unknown(error.message, error.hint))
        spec = _recognised(spec, directory, shelf, says) if shelf is not None else spec
        return CheckedBase(spec.id, spec)
    name, revision = repository_and_revision(text)
    if shelf is not None:
        found = shelf.named(name, revision)
        return replace(found, id=replace(found.id, raw=text))
    identity, _ = resolve_base(name, revision)
    message = f"{text} is not a directory here, so only its name was compared, not its modules and shapes"
    return CheckedBase(identity, problem=_unknown(message, _GIVE_DIRECTORY))


def _recognised(spec: BaseModelSpec, directory: Path, shelf: Shelf, says: str | None) -> BaseModelSpec:
    """With name and weights of the base that the registry has hashed, if the bytes are the same. Large ones are not read."""
    if spec.id.id is not None or not shelf.has_hashed(spec.fingerprint) or not has_weights(directory):
        return spec
    shards = read_checkpoint(directory).shards
    if sum(shard.size for shard in shards) > _MOST_HASHED:
        return spec
    weights = weights_fingerprint(shards)
    found = shelf.with_weights(spec.fingerprint, weights, (says,))
    if found is None:
        return spec
    own = replace(spec.id, id=found.id, revision=found.revision)
    return replace(spec, id=own, weights_fingerprint=weights)


def base_of(recorded: BaseModelId, shelf: Shelf) -> CheckedBase:
    """The base that an adapter says it was trained on, as far as it is at hand: in the registry, in the Hub's cache, or where
    the trainer had it, if that is this machine. Nobody is asked, and no model is built."""
    raw = recorded.raw or ""
    if shelf.trusts_paths and os.path.isabs(raw) and os.path.isdir(raw) and has_weights(Path(raw)):
        try:
            return CheckedBase(recorded, know_base(Path(raw)))
        except InvalidInputError as error:
            return CheckedBase(recorded, problem=_unknown(error.message, error.hint))
    if recorded.id is None:
        return CheckedBase(recorded, problem=_unknown("nobody can tell which base it was trained on", None))
    exact = shelf.named(recorded.id, recorded.revision or "")
    return exact if exact.spec is not None else shelf.named(recorded.id, None)


def stored_spec(stored: StoredBase, blobs: BlobStore) -> BaseModelSpec:
    """Raises MissingBlobError, DigestMismatchError."""
    data = b"".join(blobs.read(stored.digest))
    actual = Digest.of(data)
    if actual != stored.digest:
        raise DigestMismatchError(
            f"what is stored of the base {stored.id.id}",
            expected=stored.digest,
            actual=actual,
            hint="`adapters base add` it again",
        )
    return parse_base_model_spec(data)


def repository_and_revision(text: str) -> tuple[str, str | None]:
    """``[hf://]OWNER/NAME[@REVISION]``. Raises InvalidNameError."""
    name, _, revision = text.removeprefix("hf://").partition("@")
    if not is_repository(name):
        raise InvalidNameError(
            "base model",
            text,
            "a directory, or a Hub repository such as meta-llama/Llama-3.1-8B, with or without @REVISION",
        )
    return name, revision or None


def is_path(text: str) -> bool:
    return os.path.isdir(text) or text.startswith((".", "/", "~"))


def from_hub(identity: BaseModelId, *, online: bool) -> BaseModelSpec:
    """Raises UnavailableError where the Hub may not be asked and its cache on this machine has not got it, and what asking
    raises."""
    from registry.hub.bases import base_in_cache, base_on_hub

    repository = identity.id or ""
    problem: RegistryError | None = None
    if online:
        try:
            found = base_on_hub(repository, identity.revision)
        except RegistryError as error:
            problem = error
        else:
            where = f"{repository}@{found.commit[:12]}"
            config = parse_model_config(found.config, where=f"{where}/config.json")
            tensors = built(where, config) if found.tensors is None else found.tensors
            return spec_of(replace(identity, revision=found.commit), config, tensors)
    snapshot = base_in_cache(repository, identity.revision)
    if snapshot is None or not (online or has_weights(snapshot)):
        raise problem or UnavailableError(
            f"{repository} is neither in this registry nor in the Hub's cache on this machine, so only its name is known",
            code="base-unknown",
            hint=f"adapters base add {repository}, or {_GIVE_DIRECTORY}",
        )
    spec = know_base(snapshot)
    return replace(spec, id=replace(spec.id, id=repository, raw=identity.raw))


def _unknown(message: str, hint: str | None) -> Misfit:
    return warning("base-shapes-unknown", message, fix=hint or _GIVE_DIRECTORY)
