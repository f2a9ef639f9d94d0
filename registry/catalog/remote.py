"""The catalog of a registry's server.

A transaction here is a list of steps. Each step is asked for as it comes: the server carries out all steps so far, answers, and
takes everything back. At the end they are sent once more, to stay. Each time a digest goes along of what was answered before; if
another writer came between so that it would be answered otherwise now, nothing is done and the caller is told. So nobody holds the
server's one write transaction while a network is in the middle of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from registry.catalog.protocol import ANYTHING, Anything
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
from registry.errors import UnavailableError
from registry.remote import asks, values
from registry.remote.asks import Ask
from registry.remote.client import Client

T = TypeVar("T")


class RemoteWriter:
    """See :class:`registry.catalog.protocol.CatalogWriter`."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._steps: list[dict[str, Any]] = []
        self._answered: str | None = None

    def finish(self) -> None:
        """Send all steps once more, to stay."""
        if self._steps:
            only = self._steps[0]["do"] if len(self._steps) == 1 else None
            alone = only not in (None, "add_version")  # so nothing hangs on what it answered
            document = {"steps": self._steps, "commit": True, "answered": None if alone else self._answered}
            self._client.post("/v1/transactions", document, _results(len(self._steps)), once=True)

    def resolve(self, reference: Reference) -> Version:
        return _meant(reference, self._step(asks.RESOLVE, reference=str(reference)), self._client)

    def aliases(self, adapter: AdapterName) -> dict[str, int]:
        return self._step(asks.ALIASES, adapter=str(adapter))

    def evaluations(self, version: Version) -> list[Evaluation]:
        return self._step(asks.EVALUATIONS, version=version.reference)

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
        found = self._step(
            asks.ADD_VERSION,
            adapter=str(adapter),
            manifest=manifest.canonical_bytes.decode("ascii"),
            note=note,
            fingerprint=fingerprint,
            weights_fingerprint=weights_fingerprint,
            findings=[finding.document() for finding in findings],
        )
        _meant(Reference(adapter, digest_start=manifest.digest), found[0], self._client)
        return found

    def move_alias(
        self,
        adapter: AdapterName,
        alias: AliasName,
        to: int | None,
        *,
        expected: int | Anything | None = ANYTHING,
        gate: Mapping[str, object] | None = None,
    ) -> AliasMove | None:
        only = {} if expected is ANYTHING else {"expected": expected}
        return self._step(asks.MOVE_ALIAS, adapter=str(adapter), alias=alias, to=to, gate=gate, **only)

    def set_tags(self, version: Version, tags: Mapping[str, str]) -> None:
        if tags:
            self._step(asks.SET_TAGS, version=version.reference, tags=dict(tags))

    def remove_tags(self, version: Version, keys: Sequence[str]) -> None:
        self._step(asks.REMOVE_TAGS, version=version.reference, keys=list(keys))

    def yank(self, version: Version, reason: str) -> None:
        self._step(asks.YANK, version=version.reference, reason=reason)

    def unyank(self, version: Version) -> None:
        self._step(asks.UNYANK, version=version.reference)

    def delete(self, version: Version, reason: str) -> None:
        self._step(asks.DELETE, version=version.reference, reason=reason)

    def add_evaluations(self, version: Version, evaluations: Sequence[Evaluation], *, raw: Digest | None = None) -> int:
        scores = [evaluation.document() for evaluation in evaluations]
        return self._step(asks.ADD_EVALUATIONS, version=version.reference, evaluations=scores, raw=raw)

    def add_base(self, base: StoredBase) -> bool:
        return self._step(asks.ADD_BASE, base=values.base_document(base))

    def alias_base(self, name: str, canonical: str | None) -> bool:
        return self._step(asks.ALIAS_BASE, name=name, canonical=canonical)

    def create_adapter(self, adapter: AdapterName, *, private: bool) -> bool:
        return self._step(asks.CREATE_ADAPTER, adapter=str(adapter), private=private)

    def set_private(self, adapter: AdapterName, *, private: bool) -> None:
        self._step(asks.SET_PRIVATE, adapter=str(adapter), private=private)

    def remove_adapter(self, adapter: AdapterName, reason: str) -> None:
        self._step(asks.REMOVE_ADAPTER, adapter=str(adapter), reason=reason)

    def rename_adapter(self, adapter: AdapterName, to: AdapterName) -> None:
        self._step(asks.RENAME_ADAPTER, adapter=str(adapter), to=str(to))

    def drop_drafts(self, before: str) -> None:
        raise _on_the_server(f"forgetting uploads of before {before}")

    def add_token(self, token: Token) -> Token:
        return self._step(asks.ADD_TOKEN, token=values.token_document(token))

    def revoke_token(self, token_id: str) -> Token:
        return self._step(asks.REVOKE_TOKEN, token_id=token_id)

    def add_commit(self, adapter: AdapterName, **_facts: object) -> None:
        raise _on_the_server(f"a commit to {adapter}")

    def note_collection(self, digests: Sequence[Digest]) -> None:
        raise _on_the_server(f"collecting {len(digests)} blobs")

    def unreferenced(self, digests: Sequence[Digest]) -> list[Digest]:
        """None: what was sent and is not used ends by the server's clock."""
        return []

    def _step(self, ask: Ask[T], /, **arguments: Any) -> T:
        steps = [*self._steps, {"do": ask.name, **arguments}]

        def read(document: Any) -> tuple[T, str]:
            results = _results(len(steps))(document)
            return ask.codec.read(results[-1]), values.shaped(document["answered"], str)

        document = {"steps": steps, "commit": False, "answered": self._answered}
        result, answered = self._client.post("/v1/transactions", document, read)
        self._steps, self._answered = steps, answered
        return result


class RemoteCatalog:
    """See :class:`registry.catalog.protocol.Catalog`."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def prepare(self) -> None: ...

    def exists(self) -> bool:
        return True

    @contextmanager
    def writing(self) -> Iterator[RemoteWriter]:
        writer = RemoteWriter(self._client)
        yield writer
        writer.finish()

    def resolve(self, reference: Reference) -> Version:
        return _meant(reference, self._ask(asks.RESOLVE, reference=str(reference)), self._client)

    def find_version(self, adapter: AdapterName, digest: Digest) -> Version | None:
        found = self._ask(asks.FIND_VERSION, adapter=str(adapter), digest=digest)
        return None if found is None else _meant(Reference(adapter, digest_start=digest), found, self._client)

    def versions(self, adapter: AdapterName, *, below: int | None = None, limit: int) -> list[Version]:
        return self._ask(asks.VERSIONS, adapter=str(adapter), below=below, limit=limit)

    def search(self, query: VersionQuery) -> list[Version]:
        return self._ask(asks.SEARCH, query=values.query_document(query))

    def aliases(self, adapter: AdapterName) -> dict[str, int]:
        return self._ask(asks.ALIASES, adapter=str(adapter))

    def alias_history(self, adapter: AdapterName, alias: AliasName) -> list[AliasMove]:
        return self._ask(asks.ALIAS_HISTORY, adapter=str(adapter), alias=alias)

    def evaluations(self, version: Version) -> list[Evaluation]:
        return self._ask(asks.EVALUATIONS, version=version.reference)

    def audit(self, adapter: AdapterName | None = None, *, limit: int | None = None) -> list[AuditEntry]:
        name = str(adapter) if adapter is not None else None
        return self._ask(asks.AUDIT, adapter=name, limit=limit)

    def live_versions(self) -> Iterator[Version]:
        query = VersionQuery(all_versions=True, limit=500)
        while page := self.search(query):
            yield from page
            if query.after is not None and page[-1].reference == query.after.reference:
                raise self._client.failed("the same page twice")
            query = query.behind(page[-1])

    def dead_drafts(self, before: str) -> Mapping[AdapterName, Sequence[str]]:
        raise _on_the_server(f"looking for uploads of before {before}")

    def references(self, *, dead_before: str | None = None) -> Iterator[Digest]:
        if dead_before is not None:
            raise _on_the_server(f"looking for what uploads of before {dead_before} need")
        found = self._ask(asks.REFERENCES)
        return iter(found)

    def owners(self, digest: Digest) -> list[str]:
        return self._ask(asks.OWNERS, digest=digest)

    def holders(self, digest: Digest) -> list[AdapterName]:
        return self._ask(asks.HOLDERS, digest=digest)

    def find_base(self, name: str, revision: str | None) -> StoredBase | None:
        return self._ask(asks.FIND_BASE, name=name, revision=revision)

    def bases(self) -> list[StoredBase]:
        return self._ask(asks.BASES)

    def base_aliases(self) -> BaseAliases:
        return self._ask(asks.BASE_ALIASES)

    def events(self, after: int, *, limit: int) -> list[AuditEntry]:
        return self._ask(asks.EVENTS, after=after, limit=limit)

    def find_adapter(self, name: AdapterName) -> Adapter | None:
        return self._ask(asks.FIND_ADAPTER, adapter=str(name))

    def adapters(self, *, namespace: str | None = None) -> list[Adapter]:
        return self._ask(asks.ADAPTERS, namespace=namespace)

    def has_namespace(self, namespace: str) -> bool:
        return self._ask(asks.HAS_NAMESPACE, namespace=namespace)

    def commits(self, adapter: AdapterName) -> list[Commit]:
        return self._ask(asks.COMMITS, adapter=str(adapter))

    def find_token(self, token_id: str) -> Token | None:
        return self._ask(asks.FIND_TOKEN, token_id=token_id)

    def tokens(self) -> list[Token]:
        return self._ask(asks.TOKENS)

    def sweep(self, *, dry_run: bool) -> list[str]:
        raise _on_the_server("what killed writers left" + (" is looked for" if dry_run else " is removed"))

    def verify(self, manifest_of: Callable[[Digest], Manifest | None]) -> list[str]:
        """What the server finds wrong with its catalog."""
        return self._client.post("/v1/store/verify", {}, lambda found: values.shaped(found["problems"], list[str]))

    def diagnosis(self, read: Callable[[Any], T], *, deep: bool) -> T:
        """What ``doctor`` finds on the server."""
        return self._client.post("/v1/store/doctor", {"deep": deep}, read)

    def collection(self, read: Callable[[Any], T], *, grace: float, dry_run: bool) -> T:
        """What ``gc`` removes on the server, or would."""
        return self._client.post("/v1/store/gc", {"grace": grace, "dry_run": dry_run}, read)

    def _ask(self, ask: Ask[T], /, **arguments: Any) -> T:
        return self._client.post(f"/v1/catalog/{ask.name}", arguments, lambda found: ask.codec.read(found["answer"]))


def _results(count: int) -> Callable[[Any], list[Any]]:
    def read(document: Any) -> list[Any]:
        results: list[Any] = values.shaped(document["results"], list[object])
        if len(results) != count:
            raise ValueError(f"{len(results)} results of {count} steps")
        return results

    return read


def _meant(reference: Reference, version: Version, client: Client) -> Version:
    """The version, if it can be what was asked for: a digest is a promise about bytes, whoever answers."""
    if (
        (reference.digest_start and not version.digest.startswith(reference.digest_start))
        or (reference.number is not None and version.number != reference.number)
        or (reference.adapter is not None and version.adapter.key != reference.adapter.key)
    ):
        asked = (
            f"{reference.adapter} {reference.digest_start}"
            if reference.digest_start and reference.adapter
            else reference
        )
        raise client.failed(f"{version.reference} with {version.digest} when it was asked for {asked}")
    return version


def _on_the_server(what: str) -> UnavailableError:
    return UnavailableError(
        f"{what}: only on the machine of the store", hint="run the command there, with --registry DIR"
    )
