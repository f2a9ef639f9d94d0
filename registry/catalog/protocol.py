"""What a catalog is, to the operations: reads, and one writer at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from enum import Enum
from typing import Final, Protocol

from registry.domain.access import Token
from registry.domain.base_model import BaseAliases, StoredBase
from registry.domain.commit import Commit
from registry.domain.digest import Digest
from registry.domain.evaluation import Evaluation
from registry.domain.finding import Finding
from registry.domain.manifest import Manifest
from registry.domain.names import AdapterName, AliasName, Reference
from registry.domain.query import VersionQuery
from registry.domain.version import Adapter, AliasMove, AuditEntry, Version


class Anything(Enum):
    """The caller does not care where an alias points before it is moved."""

    ANYTHING = "anything"


ANYTHING: Final = Anything.ANYTHING


class CatalogWriter(Protocol):
    """The one open transaction. Nothing of it is visible before it ends, and all of it afterwards."""

    def add_version(
        self,
        adapter: AdapterName,
        manifest: Manifest,
        *,
        note: str | None = None,
        fingerprint: Digest | None = None,
        weights_fingerprint: Digest | None = None,
        findings: Sequence[Finding] = (),
    ) -> tuple[Version, bool]:
        """The version with this manifest, and whether it is new. Numbers count up and are never used again.

        ``fingerprint`` is that of the base it was checked against, ``weights_fingerprint`` that of the numbers which its base
        had in this registry then: a name may come to mean other bytes, and the version was made for these. Raises
        ConflictError for a new name that means a version or an alias of another adapter to clients of the Hub's protocol,
        as everything does that makes an adapter, and that makes an alias where an adapter has its name."""

    def move_alias(
        self,
        adapter: AdapterName,
        alias: AliasName,
        to: int | None,
        *,
        expected: int | Anything | None = ANYTHING,
        gate: Mapping[str, object] | None = None,
    ) -> AliasMove | None:
        """Compare and set; ``to=None`` removes. None if nothing had to move. ``gate`` is what the audit keeps of the gate
        that let it move. Raises AliasMovedError, NotFoundError."""

    def set_tags(self, version: Version, tags: Mapping[str, str]) -> None: ...
    def remove_tags(self, version: Version, keys: Sequence[str]) -> None: ...
    def yank(self, version: Version, reason: str) -> None: ...
    def unyank(self, version: Version) -> None: ...
    def delete(self, version: Version, reason: str) -> None: ...

    def add_evaluations(self, version: Version, evaluations: Sequence[Evaluation], *, raw: Digest | None = None) -> int:
        """How many were new: a results file that was added before adds nothing."""

    def add_base(self, base: StoredBase) -> bool:
        """Whether anything changed: what was known of the same base and revision is replaced."""

    def alias_base(self, name: str, canonical: str | None) -> bool:
        """``name`` is another name for the base ``canonical``; None takes that back. Raises ConflictError for a circle."""

    def create_adapter(self, adapter: AdapterName, *, private: bool) -> bool:
        """A name without a version; whether it is new."""

    def set_private(self, adapter: AdapterName, *, private: bool) -> None: ...
    def remove_adapter(self, adapter: AdapterName, reason: str) -> None:
        """With all its versions and aliases; the numbers are never used again."""

    def rename_adapter(self, adapter: AdapterName, to: AdapterName) -> None:
        """Raises ConflictError for a name that anything ever had."""

    def add_commit(
        self,
        adapter: AdapterName,
        *,
        commit: str,
        parent: str | None,
        tree: Digest,
        files: Sequence[Digest],
        title: str,
        number: int,
        draft: bool,
    ) -> None:
        """Put a commit of the Hub's protocol on record, see :class:`~registry.domain.commit.Commit`; the blobs are kept."""

    def drop_drafts(self, before: str) -> None:
        """Forget the dead drafts, see :meth:`Catalog.dead_drafts`: their blobs are kept no longer."""

    def add_token(self, token: Token) -> Token:
        """Raises ConflictError for an id that a token has or had, InvalidInputError for an administrator of a part."""

    def revoke_token(self, token_id: str) -> Token:
        """Raises NotFoundError. Again is a no-op."""

    def note_collection(self, digests: Sequence[Digest]) -> None:
        """Put on record that these blobs are being removed."""

    def unreferenced(self, digests: Sequence[Digest]) -> list[Digest]:
        """Those of the digests that no version and no evaluation needs, as of this transaction."""

    def resolve(self, reference: Reference) -> Version: ...
    def aliases(self, adapter: AdapterName) -> dict[str, int]: ...
    def evaluations(self, version: Version) -> list[Evaluation]: ...


class Catalog(Protocol):
    def prepare(self) -> None:
        """Make room for a first write. Raises UnavailableError where none will succeed."""

    def exists(self) -> bool:
        """Whether anybody ever began to write: before that there are no blobs either."""

    def writing(self) -> AbstractContextManager[CatalogWriter]:
        """Wait for other writers (30 s, then UnavailableError), and commit at the end unless an exception passes. A catalog
        elsewhere may raise ChangedMeanwhileError at the end: nothing was done, and the whole may be done again."""

    def resolve(self, reference: Reference) -> Version:
        """The version a reference means. Raises NotFoundError."""

    def find_version(self, adapter: AdapterName, digest: Digest) -> Version | None:
        """The adapter's version with this manifest, if it has one that is not deleted."""

    def versions(self, adapter: AdapterName, *, below: int | None = None, limit: int) -> list[Version]:
        """Newest first, without those that are deleted. Raises NotFoundError for an adapter that is not there."""

    def search(self, query: VersionQuery) -> list[Version]: ...
    def aliases(self, adapter: AdapterName) -> dict[str, int]: ...
    def alias_history(self, adapter: AdapterName, alias: AliasName) -> list[AliasMove]: ...
    def evaluations(self, version: Version) -> list[Evaluation]: ...
    def audit(self, adapter: AdapterName | None = None, *, limit: int | None = None) -> list[AuditEntry]:
        """Newest first."""

    def live_versions(self) -> Iterator[Version]:
        """Every version that is not deleted, yanked ones too."""

    def dead_drafts(self, before: str) -> Mapping[AdapterName, Sequence[str]]:
        """The ids of the commits of uploads that nobody went on with since a moment, newest first. What a younger draft or a
        commit that is none came of is not among them."""

    def references(self, *, dead_before: str | None = None) -> Iterator[Digest]:
        """Every digest that a version, an evaluation, a base or a commit needs: manifests, files, raw results. Without what only
        :meth:`dead_drafts` of before a moment need, if one is given."""

    def owners(self, digest: Digest) -> list[str]:
        """References of the versions that need a blob."""

    def find_base(self, name: str, revision: str | None) -> StoredBase | None:
        """The base under any of its names; without a revision the one that was added last."""

    def bases(self) -> list[StoredBase]: ...
    def base_aliases(self) -> BaseAliases: ...

    def events(self, after: int, *, limit: int) -> list[AuditEntry]:
        """Oldest first, those numbered above ``after``."""

    def find_adapter(self, name: AdapterName) -> Adapter | None: ...
    def adapters(self, *, namespace: str | None = None) -> list[Adapter]: ...
    def has_namespace(self, namespace: str) -> bool:
        """Whether anything is, or was, in it."""

    def commits(self, adapter: AdapterName) -> list[Commit]:
        """Oldest first."""

    def holders(self, digest: Digest) -> list[AdapterName]:
        """The adapters with a version or a commit that needs a blob."""

    def find_token(self, token_id: str) -> Token | None: ...
    def tokens(self) -> list[Token]: ...

    def sweep(self, *, dry_run: bool) -> list[str]:
        """Remove, or with ``dry_run`` name, what killed writers left."""

    def verify(self, manifest_of: Callable[[Digest], Manifest | None]) -> list[str]:
        """What is wrong with the catalog itself, one sentence each: integrity, audit chain, journal, replay."""
