"""From a location to a registry: the one file that knows every backend, and the Python API.

    from registry.connect import connect

    adapters = connect("./my-registry")
    pushed = adapters.push("./my-lora", alias="production", tags={"customer": "acme"})
    adapters.list(base="Qwen/Qwen2.5-0.5B-Instruct", metrics=["acc>=0.8"])
    adapters.check("my-lora", base="./llama-3.1-8b", engine="vllm").answer
    adapters.pull("my-lora:production", "./back")

    team = connect("https://registry.example", token=os.environ["ADAPTERS_TOKEN"])  # the library reads no environment itself

Every verb of the command line that works on a registry is a method, see :mod:`registry.verbs`. Failures are
:class:`registry.errors.RegistryError`.
"""

from __future__ import annotations

import os
import re
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Unpack

from registry.blobs.filesystem import FilesystemBlobs
from registry.catalog.journal import FileJournal
from registry.catalog.sql import SqlCatalog
from registry.disk import path_of
from registry.domain.digest import Digest
from registry.domain.names import DEFAULT_NAMESPACE
from registry.errors import InvalidInputError, NotFoundError, UnavailableError
from registry.operations.manifests import surviving
from registry.verbs.access import AccessVerbs
from registry.verbs.changing import ChangeVerbs
from registry.verbs.checking import CheckVerbs
from registry.verbs.hub import HubVerbs
from registry.verbs.pushing import Failed, PushOptions, PushVerbs
from registry.verbs.reading import ReadVerbs
from registry.verbs.tensors import TensorVerbs

if TYPE_CHECKING:
    from registry.blobs.remote import RemoteBlobs
    from registry.catalog.remote import RemoteCatalog
    from registry.operations.collect import Collected
    from registry.operations.diagnose import Diagnosis
    from registry.operations.publish import Published

__all__ = ["EmbeddedRegistry", "Failed", "Registry", "connect", "embedded"]

_DAY = 24 * 3600.0
#: What a registry's directory holds, as soon as it is one.
_PARTS = ("catalog.db", "journal", "blobs")
_LIKE_HOST_AND_PORT = re.compile(r"[^/\\]+:[0-9]{1,5}", re.ASCII)
Progress = Callable[[int], None]


class Registry(PushVerbs, ReadVerbs, CheckVerbs, ChangeVerbs, TensorVerbs, HubVerbs, AccessVerbs, ABC):
    """All verbs, over whatever blobs and catalog there are; and the upkeep, which is another thing here and there."""

    __slots__ = ()

    @abstractmethod
    def doctor(self, *, deep: bool = False, progress: Progress = lambda _count: None) -> Diagnosis:
        """``deep`` hashes every blob; ``progress`` hears of the bytes."""

    @abstractmethod
    def gc(self, *, grace: float = _DAY, dry_run: bool = False) -> Collected:
        """``grace`` in seconds: blobs and unfinished uploads younger than that are left alone."""

    @abstractmethod
    def migrate(self) -> tuple[str | None, str]:
        """Bring the catalog to the schema of this version; the one before, None if there was none, and the one after."""

    @abstractmethod
    def rebuild(self) -> int:
        """Make the catalog again from the journal and the manifests; returns how many events were replayed."""


@dataclass(frozen=True, slots=True)
class EmbeddedRegistry(Registry):
    """In files and SQLite, without a service, below ``root``. Reading one that is not there finds nothing; upkeep says so."""

    blobs: FilesystemBlobs
    catalog: SqlCatalog
    root: Path = field(kw_only=True)

    def receive(self, files: Mapping[str, Digest], *, name: str, **options: Unpack[PushOptions]) -> Published:
        """Store blobs that are here already, by the paths they shall have, as the next version of ``name``: see :meth:`push`."""
        from registry.operations.receive import laid_out

        with laid_out(files, self.blobs, called=name) as directory:
            return self.push(directory, name=name, **options)

    def received(self, files: Mapping[str, Digest], *, name: str) -> Digest:
        """What :meth:`receive` would make a version of, by the digest of its manifest; nothing is stored. Raises what that does of
        what is wrong with the files."""
        from registry.operations.publish import refuse_errors
        from registry.operations.receive import laid_out

        with laid_out(files, self.blobs, called=name) as directory:
            package = self._submission(directory, name=name).package
            refuse_errors(package, ())
            return package.manifest.digest

    def acting(self, actor: str) -> EmbeddedRegistry:
        """The same registry; what it writes from now on is on record as this actor's."""
        return replace(self, catalog=self.catalog.acting(actor))

    def doctor(self, *, deep: bool = False, progress: Progress = lambda _count: None) -> Diagnosis:
        from registry.operations.diagnose import diagnose

        self._require_registry()
        return diagnose(blobs=self.blobs, catalog=self.catalog, deep=deep, progress=progress)

    def gc(self, *, grace: float = _DAY, dry_run: bool = False) -> Collected:
        from registry.operations.collect import collect

        self._require_registry()
        return collect(blobs=self.blobs, catalog=self.catalog, grace=grace, now=time.time(), dry_run=dry_run)

    def migrate(self) -> tuple[str | None, str]:
        self._require_registry()
        return self.catalog.migrate()

    def rebuild(self) -> int:
        self._require_registry()
        return self.catalog.rebuild(surviving(self.blobs))

    def _require_registry(self) -> None:
        if not any(os.path.lexists(self.root / part) for part in _PARTS):
            raise NotFoundError(
                f"there is no registry at {self.root}",
                code="no-registry",
                hint="name another with --registry or ADAPTERS_REGISTRY; adapters push DIR makes one",
            )


@dataclass(frozen=True, slots=True)
class RemoteRegistry(Registry):
    """Behind a server: the same verbs over the server's blobs and catalog, each with its own checks there. Upkeep needs an
    administrator's token; what touches the store's files happens on the server's machine alone."""

    blobs: RemoteBlobs
    catalog: RemoteCatalog
    together: ClassVar[bool] = False

    def doctor(self, *, deep: bool = False, progress: Progress = lambda _count: None) -> Diagnosis:
        return self.catalog.diagnosis(_read_diagnosis, deep=deep)

    def gc(self, *, grace: float = _DAY, dry_run: bool = False) -> Collected:
        return self.catalog.collection(_read_collected, grace=grace, dry_run=dry_run)

    def migrate(self) -> tuple[str | None, str]:
        raise _on_the_server("a catalog is brought up to date", "adapters migrate")

    def rebuild(self) -> int:
        raise _on_the_server("a lost catalog is made again", "adapters rebuild")


def connect(
    location: str | Path, *, namespace: str = DEFAULT_NAMESPACE, actor: str = "", token: str | None = None
) -> Registry:
    """A directory: an embedded registry in files and SQLite, made at the first write; ``actor`` goes into the audit. The address
    of a server, ``http://…``: a registry there, as whom the ``token`` says. ADAPTERS_TOKEN and what ``adapters login`` kept are
    the command line's: the library reads neither.

    Raises UnavailableError for a location this version has no backend for, InvalidInputError for one that is none.
    """
    text = str(location)
    if text.startswith(("http://", "https://")):
        from registry.blobs.remote import RemoteBlobs
        from registry.catalog.remote import RemoteCatalog
        from registry.remote.client import Client

        client = Client(text, token)
        return RemoteRegistry(RemoteBlobs(client), RemoteCatalog(client), namespace)
    if "://" in text:
        raise UnavailableError(
            f"there is no backend for {text.partition('://')[0]}:// in this version",
            code="unknown-backend",
            hint="give a directory, or the http(s):// address of a server",
        )
    if _LIKE_HOST_AND_PORT.fullmatch(text) and not os.path.isdir(text):
        raise InvalidInputError(
            f"{text!r:.120} is no directory of a registry and, without http://, no address of a server",
            code="no-scheme",
            hint=f"did you mean http://{text}? For a directory of that name: ./{text}",
        )
    return embedded(Path(location), namespace=namespace, actor=actor)


def embedded(location: Path, *, namespace: str = DEFAULT_NAMESPACE, actor: str = "") -> EmbeddedRegistry:
    """The registry in a directory of this machine, as :func:`connect` gives it. Raises InvalidInputError for a file."""
    root = path_of(location)
    if os.path.exists(root) and not os.path.isdir(root):
        raise InvalidInputError(
            f"{root} is a file, not the directory of a registry",
            code="not-a-directory",
            hint="name a directory with --registry or ADAPTERS_REGISTRY",
        )
    blobs = FilesystemBlobs(root / "blobs", staging=root / "staging")
    journal = FileJournal(root / "journal")
    catalog = SqlCatalog(root / "catalog.db", journal, actor=actor, manifest_of=surviving(blobs))
    return EmbeddedRegistry(blobs, catalog, namespace, root=root)


def _read_diagnosis(document: Any) -> Diagnosis:
    from registry.operations.diagnose import Diagnosis
    from registry.remote.values import record

    return record(Diagnosis, document)


def _read_collected(document: Any) -> Collected:
    from registry.operations.collect import Collected
    from registry.remote.values import record

    return record(Collected, document)


def _on_the_server(what: str, command: str) -> UnavailableError:
    return UnavailableError(
        f"{what} on the machine of its store",
        code="only-on-the-server",
        hint=f"run `{command} --registry DIR` there, while the server is stopped",
    )
