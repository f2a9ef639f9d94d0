"""The catalog of a server, over a real one on loopback. What its store makes of a manifest it reads itself, so the manifests of
the suite are those of real adapters here."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from registry.api.settings import Settings
from registry.blobs.remote import RemoteBlobs
from registry.catalog.remote import RemoteCatalog
from registry.connect import connect
from registry.domain.access import Action, NamespacePattern, new_token
from registry.domain.digest import Digest
from registry.domain.finding import Finding, Severity
from registry.domain.lineage import LineageEdge
from registry.domain.manifest import Manifest
from registry.domain.names import AdapterName, AliasName, Reference
from registry.domain.query import VersionQuery
from registry.errors import ConflictError, DefectiveAdapterError, InvalidInputError, NotFoundError, UnavailableError
from registry.operations.describe import AdapterPackage, describe
from registry.operations.publish import Submission, publish
from registry.remote.client import Client
from tests.api.served import served
from tests.catalog import contract
from tests.catalog.conftest import NAME
from tests.catalog.contract import UNKNOWN, CatalogContract, add, move
from tests.catalog.contract_names import NamesContract


def adapter(folder: Path, salt: int, *, value: float | None = None, parents: Sequence[Digest] = ()) -> AdapterPackage:
    """Another one for each ``salt``; all have the same config."""
    place = folder / f"{salt}-{value}"
    if not place.exists():
        place.mkdir(parents=True)
        config = {"peft_type": "LORA", "r": 8, "lora_alpha": 8, "target_modules": ["q_proj"], "task_type": "CAUSAL_LM"}
        (place / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": "Org/A"}))
        module = "base_model.model.layers.0.q_proj"
        numbers = np.full((8, 4), 1.0 + salt if value is None else value, np.float32)
        tensors = {f"{module}.lora_A.weight": numbers, f"{module}.lora_B.weight": np.ascontiguousarray(numbers.T)}
        save_file(tensors, place / "adapter_model.safetensors")
    return describe(place, lineage=[LineageEdge(parent, "combined-from") for parent in parents])


@pytest.fixture
def store(tmp_path: Path) -> Path:
    with connect(tmp_path / "registry").catalog.writing():
        pass
    return tmp_path / "registry"


@pytest.fixture
def client(store: Path) -> Iterator[Client]:
    with served(Settings(store)) as address:
        yield Client(address)


def as_whom(catalog: RemoteCatalog, store: Path, actions: list[Action], pattern: str) -> RemoteCatalog:
    """The same server, asked with a new token."""
    text, kept = new_token("somebody", actions, [NamespacePattern(pattern)], expires_at=None)
    with connect(store).catalog.writing() as writer:
        writer.add_token(kept)
    return RemoteCatalog(Client(catalog._client.address, text))


class Hashed:
    """A catalog whose tokens are those of the store: no server gives away their hashes."""

    def __init__(self, catalog: RemoteCatalog, store: Path) -> None:
        self._catalog, self._store = catalog, store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._catalog, name)

    def find_token(self, token_id: str) -> Any:
        assert self._catalog.find_token(token_id).hash == ""  # type: ignore[union-attr]
        return connect(self._store).catalog.find_token(token_id)

    def tokens(self) -> Any:
        return [token for token in self._catalog.tokens() if token.name == "ci"]


class TestOverHttp(CatalogContract, NamesContract):
    actor = "local"

    @pytest.fixture
    def catalog(self, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RemoteCatalog:
        blobs = RemoteBlobs(client)

        def manifest(salt: int = 0, *, parents: Sequence[Digest] = (), **_other: Any) -> Manifest:
            package = adapter(tmp_path / "made", salt, parents=parents)
            for digest, path in package.paths.items():
                blobs.put(digest, [path.read_bytes()])
            blobs.put(package.manifest.digest, [package.manifest.canonical_bytes])
            return package.manifest

        monkeypatch.setattr(contract, "manifest", manifest)
        return RemoteCatalog(client)

    def test_one_that_was_never_written_is_empty(self, catalog: Any) -> None:
        assert [catalog.bases(), catalog.base_aliases().names, list(catalog.live_versions()), catalog.audit()] == [[], {}, [], []]

    def test_what_was_recorded_is_read(self, catalog: Any) -> None:
        """The server's own findings, not those that it was told."""
        finding = Finding("made-up", Severity.WARNING, "nothing", "x", None)
        package = contract.manifest(0)
        with catalog.writing() as writer:
            written, created = writer.add_version(NAME, package, note="first", findings=[finding])
            writer.set_tags(written, {"b": "2", "a": "1"})
        version = catalog.resolve(Reference(NAME, number=1))
        assert (created, version.digest, version.note, dict(version.tags)) == (True, package.digest, "first", {"a": "1", "b": "2"})
        assert version.summary.target_modules == ("q_proj",)

    def test_who_needs_a_blob_is_known(self, catalog: Any) -> None:
        first, _ = add(catalog, 0, 1)
        add(catalog, 0, name=UNKNOWN)
        assert catalog.owners(first.digest) == ["team/adapter@1", "team/unknown@1"]
        assert catalog.owners(Digest.of(b"nobody")) == []

    def test_the_same_results_file_adds_nothing(self, catalog: Any) -> None:
        """The file is sent before what was read from it."""
        RemoteBlobs(catalog._client).put(Digest.of(b"results"), [b"results"])
        super().test_the_same_results_file_adds_nothing(catalog)

    def test_only_what_may_be_seen_is_found(self, catalog: Any, store: Path) -> None:
        """That is for the server to say, by the token."""
        hidden, shown = AdapterName.parse("team/hidden"), AdapterName.parse("other/one")
        with catalog.writing() as writer:
            writer.create_adapter(hidden, private=True)
        add(catalog, 1, name=hidden)
        add(catalog, 2, name=shown)
        for pattern, found in {"team/*": ["team/hidden"], "other/*": ["other/one"], "*": ["other/one", "team/hidden"]}.items():
            seen = as_whom(catalog, store, [Action.READ], pattern)
            assert [str(version.adapter) for version in seen.search(VersionQuery())] == found
            assert [str(known.name) for known in seen.adapters()] == found
            assert (seen.find_adapter(hidden) is not None) == ("team/hidden" in found)
            if "team/hidden" not in found:
                for question in (lambda seen=seen: seen.resolve(Reference(hidden)), lambda seen=seen: seen.aliases(hidden)):
                    with pytest.raises(NotFoundError) as caught:
                        question()
                    assert caught.value.message == "there is no adapter team/hidden"

    def test_a_token_is_kept_without_its_secret_and_can_be_revoked(self, catalog: Any, store: Path) -> None:
        admin = as_whom(catalog, store, [Action.ADMIN], "*")
        super().test_a_token_is_kept_without_its_secret_and_can_be_revoked(Hashed(admin, store))  # type: ignore[arg-type]

    def test_a_commit_keeps_its_blobs(self, catalog: Any) -> None:
        """Commits are the server's own to make."""
        with pytest.raises(UnavailableError), catalog.writing() as writer:
            writer.add_commit(NAME, commit="a" * 40)


def test_a_manifest_that_is_not_what_its_files_make_is_refused(client: Client, tmp_path: Path, store: Path) -> None:
    package = adapter(tmp_path / "made", 0)
    blobs, catalog = RemoteBlobs(client), RemoteCatalog(client)
    for digest, path in package.paths.items():
        blobs.put(digest, [path.read_bytes()])
    lie = package.manifest.canonical_bytes.replace(b'"variant":"lora"', b'"variant":"dora"')
    blobs.put(Digest.of(lie), [lie])
    step = {"do": "add_version", "adapter": "team/x", "manifest": lie.decode(), "note": None, "fingerprint": None,
            "weights_fingerprint": None, "findings": []}  # fmt: skip
    with pytest.raises(InvalidInputError) as caught:
        client.post("/v1/transactions", {"steps": [step], "commit": True})
    assert caught.value.code == "manifest-differs"
    assert list(catalog.live_versions()) == []


def test_bytes_that_were_never_sent_make_no_version(client: Client, tmp_path: Path) -> None:
    """Not even if the store has them: whoever knows a digest does not have the bytes."""
    package = adapter(tmp_path / "made", 0)
    with pytest.raises(NotFoundError) as caught, RemoteCatalog(client).writing() as writer:
        writer.add_version(NAME, package.manifest)
    assert caught.value.code == "not-uploaded"


def test_what_the_server_finds_wrong_is_refused_whatever_the_client_says(client: Client, tmp_path: Path) -> None:
    package = adapter(tmp_path / "made", 0, value=float("nan"))
    blobs, catalog = RemoteBlobs(client), RemoteCatalog(client)
    for digest, path in package.paths.items():
        blobs.put(digest, [path.read_bytes()])
    blobs.put(package.manifest.digest, [package.manifest.canonical_bytes])
    with pytest.raises(InvalidInputError) as caught, catalog.writing() as writer:
        writer.add_version(NAME, package.manifest)
    assert caught.value.code == "nonfinite"
    assert [finding.rule for finding in caught.value.findings] == ["nonfinite"]  # type: ignore[attr-defined]
    with pytest.raises(DefectiveAdapterError):
        publish([Submission(package, NAME)], blobs=blobs, catalog=catalog)  # type: ignore[arg-type]
    allowed = publish([Submission(package, NAME)], blobs=blobs, catalog=catalog, allow=["nonfinite"])  # type: ignore[arg-type]
    assert allowed[0].version.number == 1


def test_a_writer_that_came_between_is_noticed(client: Client, tmp_path: Path, store: Path) -> None:
    catalog = RemoteCatalog(client)
    publish([Submission(adapter(tmp_path / "made", 0), NAME)], blobs=RemoteBlobs(client), catalog=catalog)  # type: ignore[arg-type]
    before = catalog.audit()
    with pytest.raises(ConflictError) as caught, catalog.writing() as writer:
        seen = writer.resolve(Reference(NAME))
        writer.set_tags(seen, {"a": "1"})
        connect(store).set_tags("team/adapter@1", {"b": "2"})
    assert caught.value.code == "changed-meanwhile"
    assert len(catalog.audit()) == len(before) + 1


def test_what_others_push_elsewhere_is_no_writer_that_came_between(client: Client, tmp_path: Path, store: Path) -> None:
    """A version's place is the catalog's count of versions, and all else that it is answered with is its own."""
    package, other = adapter(tmp_path / "made", 0), tmp_path / "made" / "1-None"
    adapter(tmp_path / "made", 1)
    blobs, catalog = RemoteBlobs(client), RemoteCatalog(client)
    for digest, path in package.paths.items():
        blobs.put(digest, [path.read_bytes()])
    blobs.put(package.manifest.digest, [package.manifest.canonical_bytes])
    with catalog.writing() as writer:
        writer.add_version(NAME, package.manifest)
        connect(store).push(other, name="team/other")
    assert [str(version.adapter) for version in connect(store).list()] == ["team/adapter", "team/other"]


@pytest.mark.parametrize("alias", ["place", "at", "created_at"])
def test_an_alias_that_moved_is_noticed_whatever_it_is_called(client: Client, tmp_path: Path, store: Path, alias: str) -> None:
    catalog = RemoteCatalog(client)
    for salt in (0, 1):
        publish([Submission(adapter(tmp_path / "made", salt), NAME)], blobs=RemoteBlobs(client), catalog=catalog)  # type: ignore[arg-type]
    connect(store).set_alias("team/adapter", alias, 1)
    with pytest.raises(ConflictError) as caught, catalog.writing() as writer:
        assert writer.aliases(NAME) == {alias: 1}
        writer.move_alias(NAME, AliasName("production"), 1)
        connect(store).set_alias("team/adapter", alias, 2)
    assert caught.value.code == "changed-meanwhile"
    assert catalog.aliases(NAME) == {alias: 2}


def test_what_was_answered_to_an_earlier_step_holds_for_the_later_ones(client: Client, tmp_path: Path, store: Path) -> None:
    """Somebody may have decided by it to go on."""
    catalog = RemoteCatalog(client)
    publish([Submission(adapter(tmp_path / "made", 0), NAME)], blobs=RemoteBlobs(client), catalog=catalog)  # type: ignore[arg-type]
    with pytest.raises(ConflictError) as caught, catalog.writing() as writer:
        assert writer.evaluations(writer.resolve(Reference(NAME, number=1))) == []
        connect(store).add_evaluations("team/adapter@1", "acc=0.1")
        writer.move_alias(NAME, AliasName("production"), 1)
    assert caught.value.code == "changed-meanwhile"
    assert catalog.aliases(NAME) == {}


def test_a_commit_that_is_sent_twice_is_done_once(client: Client, tmp_path: Path) -> None:
    """The answer was lost, and the client sent it again with the same key."""
    publish([Submission(adapter(tmp_path / "made", 0), NAME)], blobs=RemoteBlobs(client), catalog=RemoteCatalog(client))  # type: ignore[arg-type]
    move(RemoteCatalog(client), 1)  # type: ignore[arg-type]
    moves = len(RemoteCatalog(client).audit())
    steps = [{"do": "move_alias", "adapter": "team/adapter", "alias": "production", "to": None}]
    body = json.dumps({"steps": steps, "commit": True}).encode()
    headers = {"Content-Type": "application/json", "Idempotency-Key": "once"}
    answers = [client._request("POST", "/v1/transactions", body, headers) for _ in range(2)]
    assert [answer.status for answer in answers] == [200, 200]
    assert answers[0].data == answers[1].data
    assert len(RemoteCatalog(client).audit()) == moves + 1




def test_a_digest_means_the_version_that_one_may_read(client: Client, tmp_path: Path, store: Path) -> None:
    """The same content lies in an adapter that is hidden, and was stored there first."""
    package = adapter(tmp_path / "made", 0)
    hidden = AdapterName.parse("secret/x")
    for name in (hidden, NAME):
        publish([Submission(package, name)], blobs=RemoteBlobs(client), catalog=RemoteCatalog(client))  # type: ignore[arg-type]
    reader = as_whom(RemoteCatalog(client), store, [Action.READ], "team/*")
    found = reader.resolve(Reference.parse(package.manifest.digest))
    assert found.reference == "team/adapter@1"
