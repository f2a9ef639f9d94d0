"""From a location to a registry: the one file that knows every backend, and the Python API.

    from registry.connect import connect

    adapters = connect("./my-registry")
    pushed = adapters.push("./my-lora", alias="production", tags={"customer": "acme"})
    adapters.list(base="Qwen/Qwen2.5-0.5B-Instruct", metrics=["acc>=0.8"])
    adapters.pull("my-lora:production", "./back")

Every verb of the command line is a method here. Failures are :class:`registry.errors.RegistryError`. What only a push needs is
imported by the push: look-ups start faster.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite, nan
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, TypeVar, Unpack, cast

from registry.blobs.filesystem import FilesystemBlobs
from registry.catalog.journal import FileJournal
from registry.catalog.protocol import ANYTHING, Anything
from registry.catalog.sql import SqlCatalog
from registry.domain.digest import Digest
from registry.domain.evaluation import Evaluation
from registry.domain.lineage import LineageEdge
from registry.domain.manifest import Manifest
from registry.domain.names import (
    DEFAULT_NAMESPACE,
    AdapterName,
    AliasName,
    Reference,
    fitted,
)
from registry.domain.tags import checked_tags
from registry.domain.version import AliasMove, AuditEntry, Version
from registry.errors import (
    ConflictError,
    InvalidInputError,
    InvalidNameError,
    NotFoundError,
    RegistryError,
    RejectedError,
    UnavailableError,
)
from registry.hub_verbs import HubVerbs
from registry.operations.fetch import fetch
from registry.operations.find import Conditions, asked, canonical_base
from registry.operations.manifests import surviving
from registry.operations.show import Details, show
from registry.tensor_verbs import TensorVerbs

if TYPE_CHECKING:
    from registry.catalog.remote import RemoteCatalog
    from registry.domain.base_model import BaseModelSpec, StoredBase
    from registry.domain.gate import Outcome
    from registry.operations.bases import Shelf
    from registry.operations.collect import Collected
    from registry.operations.compare import Comparison
    from registry.operations.diagnose import Diagnosis
    from registry.operations.evaluate import Measured
    from registry.operations.promote import Promotion
    from registry.operations.publish import Published, Submission

T = TypeVar("T")

DirectoryOrRecord = str | Path | Mapping[str, object]
_BATCH = 64
_DAY = 24 * 3600.0


class PushOptions(TypedDict, total=False):
    """What goes with a push, see :meth:`Registry.push`."""

    base: str | None
    alias: str | Sequence[str]
    tags: Mapping[str, str] | None
    evaluations: Sequence[str | Path | Measured]
    note: str | None
    parents: Sequence[str]
    parent_kind: str
    allow: Sequence[str]


@dataclass(frozen=True, slots=True)
class Failed:
    """An adapter of a bulk push that was refused; the others went on."""

    directory: Path
    error: RegistryError


@dataclass(frozen=True, slots=True)
class Registry(TensorVerbs, HubVerbs):
    """Blobs, a catalog, and the namespace that names without one belong to. ``here=False`` is for a server: what adapters and
    callers name are never this machine's directories."""

    blobs: FilesystemBlobs
    catalog: SqlCatalog
    namespace: str = DEFAULT_NAMESPACE
    here: bool = True

    def push(
        self,
        directory: str | Path,
        *,
        name: str | None = None,
        base: str | None = None,
        alias: str | Sequence[str] = (),
        tags: Mapping[str, str] | None = None,
        evaluations: Sequence[str | Path | Measured] = (),
        note: str | None = None,
        adapter: str | None = None,
        parents: Sequence[str] = (),
        parent_kind: str = "continued-from",
        allow: Sequence[str] = (),
        progress: Callable[[int], None] = lambda _count: None,
    ) -> Published:
        """Store a directory as the next version of ``name`` (default: the directory's name made to fit).

        ``parents`` are references, with ``*WEIGHT`` behind if it matters. ``allow`` names rules whose errors are accepted.
        The same content again is the same version. Raises InvalidInputError with nothing written.
        """
        from registry.operations.publish import publish

        submission = self._submission(
            Path(directory),
            name=name,
            base=base,
            adapter=adapter,
            parents=parents,
            parent_kind=parent_kind,
            aliases=[alias] if isinstance(alias, str) else alias,
            tags=tags or {},
            evaluations=evaluations,
            note=note,
            progress=progress,
        )
        return publish([submission], blobs=self.blobs, catalog=self.catalog, allow=allow, progress=progress)[0]

    def receive(self, files: Mapping[str, Digest], *, name: str, **options: Unpack[PushOptions]) -> Published:
        """Store blobs that are here already, by the paths they shall have, as the next version of ``name``: see :meth:`push`."""
        from registry.operations.receive import laid_out

        with laid_out(files, self.blobs, called=name) as directory:
            return self.push(directory, name=name, **options)

    def push_many(
        self, adapters: Iterable[DirectoryOrRecord], *, allow: Sequence[str] = (), batch: int = _BATCH
    ) -> Iterator[Published | Failed]:
        """Push thousands: directories, or mappings with ``directory`` and the arguments of :meth:`push`.

        ``batch`` adapters share one transaction. What is refused is yielded as :class:`Failed` and stops nobody else.
        """
        from registry.operations.publish import refuse_errors

        waiting: list[Submission] = []
        shelf = self.shelf()
        for item in adapters:
            options = dict(item) if isinstance(item, Mapping) else {"directory": item}
            directory = Path(str(options.pop("directory")))
            try:
                submission = self._submission(directory, shelf=shelf, **_with_aliases(options))  # type: ignore[arg-type]
                refuse_errors(submission.package, allow)
                waiting.append(submission)
            except (InvalidInputError, NotFoundError, RejectedError) as error:
                yield Failed(directory, error)
            if len(waiting) >= batch:
                yield from self._publish(waiting, allow)
                waiting = []
        yield from self._publish(waiting, allow)

    def pull(
        self,
        reference: str,
        into: str | Path,
        *,
        served_only: bool = False,
        progress: Callable[[int], None] = lambda _count: None,
    ) -> tuple[Version, Manifest]:
        return fetch(
            self.reference(reference),
            Path(into),
            blobs=self.blobs,
            catalog=self.catalog,
            served_only=served_only,
            progress=progress,
        )

    def show(self, reference: str) -> Details:
        return show(self.reference(reference), blobs=self.blobs, catalog=self.catalog)

    def list(self, text: str | None = None, **conditions: Unpack[Conditions]) -> Sequence[Version]:
        """One page; ``text`` is part of a name. Raises InvalidNameError for a condition outside its grammar."""
        return self.catalog.search(asked(text, namespace_of_names=self.namespace, **conditions))

    def compare(self, *references: str) -> Comparison:
        from registry.operations.compare import compare

        return compare([self.reference(reference) for reference in references], catalog=self.catalog)

    def gate(
        self,
        reference: str,
        file: str | Path | None = None,
        *,
        against: str | None = None,
        minimum: Sequence[str] = (),
        no_regression: Sequence[str] = (),
        noise: float | None = None,
    ) -> Outcome:
        """``file`` is a gate.toml, ``minimum`` are conditions such as ``acc>=0.8``, ``no_regression`` such as ``acc:0.01``."""
        from registry.operations.gate import asked as wanted_gate
        from registry.operations.gate import gate

        wanted = wanted_gate(file, against=against, minimum=minimum, no_regression=no_regression, noise=noise)
        return gate(self.reference(reference), wanted, namespace=self.namespace, catalog=self.catalog)

    def promote(
        self,
        reference: str,
        alias: str,
        file: str | Path | None = None,
        *,
        against: str | None = None,
        minimum: Sequence[str] = (),
        no_regression: Sequence[str] = (),
        noise: float | None = None,
        expected: int | Anything | None = ANYTHING,
    ) -> Promotion:
        """Move an alias if the gate holds, in one transaction. Raises GateClosedError, AliasMovedError with nothing moved."""
        from registry.operations.gate import asked as wanted_gate
        from registry.operations.promote import promote

        promotion = promote(
            self.reference(reference),
            AliasName(alias),
            wanted_gate(file, against=against, minimum=minimum, no_regression=no_regression, noise=noise),
            namespace=self.namespace,
            catalog=self.catalog,
            expected=expected,
        )
        if promotion.outcome.failure is not None:
            raise promotion.outcome.failure
        return promotion

    def add_evaluations(self, reference: str, *sources: str | Path | Measured) -> tuple[Version, int]:
        """Results files, ``metric=value`` texts or :class:`Measured` values; returns how many scores were new."""
        from registry.operations.evaluate import Measured, evaluate, measured

        found = [source if isinstance(source, Measured) else measured(source) for source in sources]
        return evaluate(self.reference(reference), found, blobs=self.blobs, catalog=self.catalog)

    def evaluations(self, reference: str) -> Sequence[Evaluation]:
        return self.catalog.evaluations(self.catalog.resolve(self.reference(reference)))

    def set_alias(
        self, name: str, alias: str, version: int, *, expected: int | Anything | None = ANYTHING
    ) -> AliasMove | None:
        """Compare and set; None if it pointed there already. Raises AliasMovedError, NotFoundError."""
        with self.catalog.writing() as writer:
            return writer.move_alias(self.adapter(name), AliasName(alias), version, expected=expected)

    def remove_alias(self, name: str, alias: str, *, expected: int | Anything | None = ANYTHING) -> AliasMove | None:
        with self.catalog.writing() as writer:
            return writer.move_alias(self.adapter(name), AliasName(alias), None, expected=expected)

    def aliases(self, name: str) -> dict[str, int]:
        return self.catalog.aliases(self.adapter(name))

    def alias_history(self, name: str, alias: str) -> Sequence[AliasMove]:
        return self.catalog.alias_history(self.adapter(name), AliasName(alias))

    def set_tags(self, reference: str, tags: Mapping[str, str]) -> Version:
        wanted = checked_tags(tags)
        with self.catalog.writing() as writer:
            version = writer.resolve(self.reference(reference))
            writer.set_tags(version, wanted)
            return writer.resolve(Reference(version.adapter, number=version.number))

    def remove_tags(self, reference: str, *keys: str) -> Version:
        with self.catalog.writing() as writer:
            version = writer.resolve(self.reference(reference))
            writer.remove_tags(version, keys)
            return writer.resolve(Reference(version.adapter, number=version.number))

    def yank(self, reference: str, reason: str) -> Version:
        """Hide from search; whoever names the version exactly still gets it, with a warning."""
        if not reason.strip():
            raise InvalidInputError(
                "a yank needs a reason", hint="say it with --reason: people who pinned the version will read it"
            )
        with self.catalog.writing() as writer:
            version = writer.resolve(self.reference(reference))
            writer.yank(version, reason)
            return writer.resolve(Reference(version.adapter, number=version.number))

    def unyank(self, reference: str) -> Version:
        with self.catalog.writing() as writer:
            version = writer.resolve(self.reference(reference))
            writer.unyank(version)
            return writer.resolve(Reference(version.adapter, number=version.number))

    def delete(self, reference: str, reason: str) -> Version:
        """Leave a tombstone: the number is never used again, the content goes with the next collection."""
        with self.catalog.writing() as writer:
            version = writer.resolve(self.reference(reference))
            writer.delete(version, reason)
            return version

    def log(self, name: str | None = None, *, limit: int | None = None) -> Sequence[AuditEntry]:
        return self.catalog.audit(self.adapter(name) if name else None, limit=limit)

    def doctor(self, *, deep: bool = False, progress: Callable[[int], None] = lambda _count: None) -> Diagnosis:
        from registry.operations.diagnose import diagnose

        return diagnose(blobs=self.blobs, catalog=self.catalog, deep=deep, progress=progress)

    def gc(self, *, grace: float = _DAY, dry_run: bool = False) -> Collected:
        """``grace`` in seconds: blobs younger than that are left alone."""
        from registry.operations.collect import collect

        return collect(
            blobs=self.blobs,
            catalog=self.catalog,
            grace=grace,
            now=time.time(),
            dry_run=dry_run,
        )

    def migrate(self) -> tuple[str | None, str]:
        """Bring the catalog to the schema of this version; the one before, None if there was none, and the one after."""
        return self.catalog.migrate()

    def rebuild(self) -> int:
        """Make the catalog again from the journal and the manifests; returns how many events were replayed."""

        return self.catalog.rebuild(surviving(self.blobs))

    def add_base(
        self, source: str | Path, *, name: str | None = None, hash_weights: bool = False
    ) -> tuple[StoredBase, BaseModelSpec, bool]:
        """Store what can be known of a base model without its weights, so that pushes are checked against it: a checkpoint's
        directory, or a repository on the Hub. ``name`` (``ID[@REVISION]``) where the source has none of its own."""
        from registry.operations.stored_bases import add_base

        return add_base(str(source), name=name, hash_weights=hash_weights, blobs=self.blobs, catalog=self.catalog)

    def bases(self) -> Sequence[StoredBase]:
        return self.catalog.bases()

    def base(self, name: str) -> tuple[StoredBase, BaseModelSpec]:
        """Raises NotFoundError."""
        from registry.operations.stored_bases import show_base

        return show_base(name, blobs=self.blobs, catalog=self.catalog)

    def base_aliases(self) -> Mapping[str, str]:
        return self.catalog.base_aliases()

    def alias_base(self, name: str, canonical: str | None) -> bool:
        """From now on ``name`` means the base ``canonical``, in checks and in search; None takes that back."""
        from registry.operations.bases import repository_and_revision

        known, _ = repository_and_revision(name)
        meant = canonical_base(repository_and_revision(canonical)[0]) if canonical is not None else None
        with self.catalog.writing() as writer:
            return writer.alias_base(known, meant)

    def shelf(self, *, online: bool = False) -> Shelf:
        """Where checks find bases by name: in the registry and the Hub's cache; ``online`` asks the Hub too."""
        from registry.operations.bases import Shelf

        return Shelf(self.blobs, self.catalog, online, self.here)

    def acting(self, actor: str) -> Registry:
        """The same registry; what it writes from now on is on record as this actor's."""
        return replace(self, catalog=self.catalog.acting(actor))

    def reference(self, text: str) -> Reference:
        return Reference.parse(text, namespace=self.namespace)

    def adapter(self, text: str) -> AdapterName:
        return AdapterName.parse(text, namespace=self.namespace)

    def _publish(self, submissions: Sequence[Submission], allow: Sequence[str]) -> Iterator[Published | Failed]:
        """In one transaction; if one of them changed under it, one by one, and that one fails alone."""
        from registry.operations.publish import publish

        if not submissions:
            return
        try:
            yield from publish(submissions, blobs=self.blobs, catalog=self.catalog, allow=allow)
        except ConflictError as error:
            if len(submissions) == 1:
                yield Failed(submissions[0].package.directory, error)
                return
            for submission in submissions:
                yield from self._publish([submission], allow)

    def _submission(
        self,
        directory: Path,
        *,
        name: str | None = None,
        base: str | None = None,
        adapter: str | None = None,
        parents: Sequence[str] = (),
        parent_kind: str = "continued-from",
        aliases: Sequence[str] = (),
        tags: Mapping[str, str] | None = None,
        evaluations: Sequence[str | Path | Measured] = (),
        note: str | None = None,
        shelf: Shelf | None = None,
        progress: Callable[[int], None] = lambda _count: None,
    ) -> Submission:
        """Everything that can be refused without looking into the store is refused here."""
        from registry.operations.bases import is_path
        from registry.operations.check import against_base
        from registry.operations.describe import describe
        from registry.operations.evaluate import Measured, measured
        from registry.operations.publish import Attachments, Submission

        wanted = self.adapter(name) if name is not None else self._named_after(directory, adapter)
        attachments = Attachments(
            aliases=[AliasName(alias) for alias in aliases],
            tags=checked_tags(tags or {}),
            evaluations=[source if isinstance(source, Measured) else measured(source) for source in evaluations],
            note=note,
        )
        lineage = [self._edge(parent, parent_kind) for parent in parents]
        at = base if base is not None and self.here and is_path(base) else None
        named = base if at is None else None
        package = describe(directory, adapter=adapter, base=named, lineage=lineage, progress=progress)
        return Submission(against_base(package, at, shelf or self.shelf()), wanted, attachments)

    def _named_after(self, directory: Path, adapter: str | None) -> AdapterName:
        own = adapter or Path(directory).absolute().resolve().name
        name = fitted(own)
        if not name:
            raise InvalidNameError(
                "name",
                own,
                "ASCII letters and digits, of which nothing is left here",
                hint="name it yourself: --name my-adapter",
            )
        return self.adapter(name)

    def _edge(self, parent: str, kind: str) -> LineageEdge:
        text, star, weight = parent.partition("*")
        version = self.catalog.resolve(self.reference(text))
        try:
            share = float(weight) if star else None
        except ValueError:
            share = nan
        if share is not None and not isfinite(share):
            raise InvalidNameError("parent", parent, "REF or REF*WEIGHT with a finite weight, such as my-lora@3*0.5")
        return LineageEdge(version.digest, kind, share, version.reference)


class RemoteRegistry(Registry):
    """A registry behind a server: the same verbs over the server's blobs and catalog, each with its own checks there."""

    def doctor(self, *, deep: bool = False, progress: Callable[[int], None] = lambda _count: None) -> Diagnosis:
        """What the server finds; needs an administrator's token."""
        from registry.operations.diagnose import Diagnosis, Problem

        found = self._remote.diagnosis(deep=deep)
        problems = tuple(Problem(**{**each, "owners": tuple(each["owners"])}) for each in found["problems"])
        return Diagnosis(problems, found["versions"], found["blobs"], found["unreferenced"])

    def gc(self, *, grace: float = _DAY, dry_run: bool = False) -> Collected:
        from registry.operations.collect import Collected

        found = self._remote.collection(grace=grace, dry_run=dry_run)
        return Collected(tuple(map(Digest, found["blobs"])), found["bytes"], tuple(found["leftovers"]))

    def rebuild(self) -> int:
        raise UnavailableError(
            "a lost catalog is made again on the machine of its store",
            code="only-on-the-server",
            hint="run `adapters rebuild --registry DIR` there, while the server is stopped",
        )

    @property
    def _remote(self) -> RemoteCatalog:
        return cast("RemoteCatalog", self.catalog)


def connect(
    location: str | Path, *, namespace: str = DEFAULT_NAMESPACE, actor: str = "", token: str | None = None
) -> Registry:
    """A directory: an embedded registry in files and SQLite, made at the first write; ``actor`` goes into the audit. The address
    of a server, ``http://…``: a registry there, as whom the ``token`` says.

    Raises UnavailableError for a location this version has no backend for.
    """
    text = str(location)
    if text.startswith(("http://", "https://")):
        from registry.blobs.remote import RemoteBlobs
        from registry.catalog.remote import RemoteCatalog
        from registry.remote.client import Client

        client = Client(text, token)
        blobs, catalog = cast("FilesystemBlobs", RemoteBlobs(client)), cast("SqlCatalog", RemoteCatalog(client))
        return RemoteRegistry(blobs, catalog, namespace)
    if "://" in text:
        raise UnavailableError(
            f"there is no backend for {text.partition('://')[0]}:// in this version",
            code="unknown-backend",
            hint="give a directory, or the http(s):// address of a server",
        )
    root = Path(location).expanduser()
    files = FilesystemBlobs(root / "blobs", staging=root / "staging")
    journal = FileJournal(root / "journal")
    return Registry(
        files, SqlCatalog(root / "catalog.db", journal, actor=actor, manifest_of=surviving(files)), namespace
    )


def _with_aliases(options: dict[str, object]) -> dict[str, object]:
    alias = options.pop("alias", ())
    return {**options, "aliases": [alias] if isinstance(alias, str) else alias}
