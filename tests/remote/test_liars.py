"""Servers that lie, break off, or never end: one error that says so, and nothing of theirs is believed or kept."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import fields
from itertools import repeat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.commands.list import _row
from registry.blobs.remote import RemoteBlobs
from registry.catalog.remote import RemoteCatalog, RemoteWriter
from registry.connect import RemoteRegistry, connect
from registry.domain.base_model import StoredBase
from registry.domain.commit import Commit
from registry.domain.digest import Digest
from registry.domain.evaluation import Evaluation
from registry.domain.names import AdapterName, AliasName, Reference
from registry.domain.query import VersionQuery
from registry.domain.version import Adapter, AliasMove, AuditEntry, Version
from registry.errors import RegistryError, UnavailableError
from registry.operations.show import summary_document
from registry.remote import answers, values
from registry.remote.answers import Answer
from registry.remote.client import Client
from tests.catalog.conftest import manifest
from tests.conftest import WriteAdapter
from tests.remote.liars import Request, liar, version

NAME = AdapterName.parse("b/open")
DIGEST = Digest("sha256:" + "1" * 64)
OTHER = Digest("sha256:" + "9" * 64)


def failed(act: Callable[[], object]) -> UnavailableError:
    with pytest.raises(UnavailableError) as caught:
        act()
    assert caught.value.code == "server-failed"
    return caught.value


@pytest.mark.parametrize("text", [OTHER, OTHER[:19], "b/open@7", "b/other", "c/open:production"])
def test_another_version_than_was_asked_for_is_no_answer(text: str) -> None:
    reference = Reference.parse(text)
    with liar(lambda request: request.document({"answer": version()})) as address:
        failed(lambda: RemoteCatalog(Client(address)).resolve(reference))
    with liar(lambda request: request.document({"answered": "x", "results": [version()]})) as address:
        failed(lambda: RemoteWriter(Client(address)).resolve(reference))


@pytest.mark.parametrize("text", [DIGEST, DIGEST[:19], "b/open@1", "B/Open", "b/open:production"])
def test_the_version_that_was_asked_for_is(text: str) -> None:
    with liar(lambda request: request.document({"answer": version()})) as address:
        assert RemoteCatalog(Client(address)).resolve(Reference.parse(text)).reference == "b/open@1"


def test_what_was_pushed_is_what_is_there() -> None:
    """Else the push would say that it was there already, and store nothing."""
    with liar(lambda request: request.document({"answer": version()})) as address:
        catalog = RemoteCatalog(Client(address))
        failed(lambda: catalog.find_version(NAME, OTHER))
        failed(lambda: catalog.find_version(AdapterName.parse("b/other"), DIGEST))
        found = catalog.find_version(NAME, DIGEST)
        assert found is not None and found.number == 1


def test_nothing_is_pulled_for_a_digest_that_the_server_does_not_have(tmp_path: Path, write_adapter: WriteAdapter) -> None:
    """The other version is whole and sound."""
    store = connect(tmp_path / "store")
    pushed = store.push(write_adapter("open"), name="b/open").version

    def answer(request: Request) -> None:
        if request.command == "POST":
            request.document({"answer": values.version_document(pushed)})
        else:
            request.say(b"".join(store.blobs.read(Digest(request.path.rpartition("/")[2]))))

    with liar(answer) as address:
        failed(lambda: connect(address).pull(OTHER, tmp_path / "back"))
        assert not (tmp_path / "back").exists()
        connect(address).pull(pushed.digest, tmp_path / "back")


@pytest.mark.parametrize("status", [200, 404])
def test_a_document_without_an_end_is_not_read_to_it(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "MOST_BYTES", 4 << 20)
    sent = [0]

    def pieces() -> Iterator[bytes]:
        for piece in repeat(b" " * (1 << 20), 200):
            sent[0] += 1
            yield piece

    with liar(lambda request: request.pieces(pieces(), status=status)) as address:
        error = failed(RemoteCatalog(Client(address)).bases)
    assert "4 MiB" in error.message
    assert sent[0] < 100


def test_a_document_that_drips_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "PATIENCE", 0.2)

    def drops() -> Iterator[bytes]:
        for drop in repeat(b" ", 500):
            time.sleep(0.02)
            yield drop

    with liar(lambda request: request.pieces(drops())) as address:
        assert "slowly" in failed(RemoteCatalog(Client(address)).bases).message


def test_a_blob_ends_at_its_size() -> None:
    sent = [0]

    def pieces() -> Iterator[bytes]:
        for piece in repeat(b"x" * (1 << 16), 2000):
            sent[0] += 1
            yield piece

    def answer(request: Request) -> None:
        if request.command == "HEAD":
            request.say(b"x" * 100_000)
        else:
            request.pieces(pieces())

    received = 0
    with liar(answer) as address, pytest.raises(UnavailableError) as caught:
        for chunk in RemoteBlobs(Client(address)).read(DIGEST):
            received += len(chunk)
    assert (caught.value.code, received <= 100_000, sent[0] < 1000) == ("server-failed", True, True)


@pytest.mark.parametrize("length", ["x", "-1", "1_0", "9" * 400, "٣", None])
def test_an_odd_length_is_no_length(length: str | None) -> None:
    headers = {"Transfer-Encoding": "chunked"} if length is None else {"X-Length": "1"}

    def answer(request: Request) -> None:
        request.send_response(200)
        for name, value in headers.items():
            request.send_header(name, value)
        if length is not None:
            request.wfile.write(b"".join([*request._headers_buffer, f"Content-Length: {length}\r\n\r\n".encode()]))  # type: ignore[attr-defined]
            request._headers_buffer.clear()  # type: ignore[attr-defined]
        else:
            request.end_headers()
        request.close_connection = True

    with liar(answer) as address, pytest.raises(UnavailableError):
        RemoteBlobs(Client(address)).size(DIGEST)


@pytest.mark.parametrize("offset", [-5, 10**9, "x", None, 1.5, True, [], {}])
def test_an_upload_stands_nowhere_else_than_in_it(offset: object) -> None:
    def answer(request: Request) -> None:
        if request.command == "HEAD":
            request.say(b"", status=404)
        else:
            request.document({"offset": offset})

    data = b"x" * (9 << 20)
    with liar(answer) as address:
        failed(lambda: RemoteBlobs(Client(address)).put(Digest.of(data), [data]))


ODD = [b"null", b"[]", b'"x"', b"{}", b'{"answer":null}', b'{"answer":[null]}', b'{"answer":"abc"}', b'{"answer":[["a","b"]]}',
       b"\xff\xfe", b"[" * 100_000, b'{"answer":' + b"9" * 6000 + b"}", b"", b"NaN", b'{"answer":1e400}',
       b'{"answer":{"a":"\\ud800"}}', b"<html>", b"5", b"true"]  # fmt: skip
QUESTIONS: dict[str, Callable[[RemoteCatalog], object]] = {
    "resolve": lambda catalog: catalog.resolve(Reference(NAME)),
    "find_version": lambda catalog: catalog.find_version(NAME, DIGEST),
    "versions": lambda catalog: catalog.versions(NAME, limit=3),
    "search": lambda catalog: catalog.search(VersionQuery()),
    "aliases": lambda catalog: catalog.aliases(NAME),
    "alias_history": lambda catalog: catalog.alias_history(NAME, AliasName("production")),
    "evaluations": lambda catalog: catalog.evaluations(values.read_version(version())),
    "audit": lambda catalog: catalog.audit(),
    "live_versions": lambda catalog: list(catalog.live_versions()),
    "references": lambda catalog: list(catalog.references()),
    "owners": lambda catalog: catalog.owners(DIGEST),
    "holders": lambda catalog: catalog.holders(DIGEST),
    "find_base": lambda catalog: catalog.find_base("a/b", None),
    "bases": lambda catalog: catalog.bases(),
    "base_aliases": lambda catalog: catalog.base_aliases(),
    "events": lambda catalog: catalog.events(0, limit=3),
    "find_adapter": lambda catalog: catalog.find_adapter(NAME),
    "adapters": lambda catalog: catalog.adapters(),
    "has_namespace": lambda catalog: catalog.has_namespace("b"),
    "commits": lambda catalog: catalog.commits(NAME),
    "find_token": lambda catalog: catalog.find_token("x"),
    "tokens": lambda catalog: catalog.tokens(),
    "verify": lambda catalog: catalog.verify(lambda _digest: None),
    "doctor": lambda catalog: RemoteRegistry(RemoteBlobs(catalog._client), catalog).doctor(),
    "gc": lambda catalog: RemoteRegistry(RemoteBlobs(catalog._client), catalog).gc(),
    "digests": lambda catalog: list(RemoteBlobs(catalog._client).digests()),
}
VERSION = values.read_version(version())
STEPS: dict[str, Callable[[RemoteWriter], object]] = {
    "resolve": lambda writer: writer.resolve(Reference(NAME)),
    "aliases": lambda writer: writer.aliases(NAME),
    "evaluations": lambda writer: writer.evaluations(VERSION),
    "add_version": lambda writer: writer.add_version(NAME, manifest()),
    "move_alias": lambda writer: writer.move_alias(NAME, AliasName("production"), 1),
    "add_evaluations": lambda writer: writer.add_evaluations(VERSION, []),
    "create_adapter": lambda writer: writer.create_adapter(NAME, private=False),
    "alias_base": lambda writer: writer.alias_base("a", "b"),
    "revoke_token": lambda writer: writer.revoke_token("x"),
}


class Told(Client):
    """What it is told is answered, without a network."""

    def __init__(self, body: bytes) -> None:
        super().__init__("http://127.0.0.1:1")
        self.body = body

    def _asked(self, *_args: Any, **_options: Any) -> Answer:
        return Answer(200, {}, self.body)


@pytest.mark.parametrize("question", QUESTIONS)
@pytest.mark.parametrize("body", ODD, ids=lambda body: repr(body[:30]))
def test_what_no_registry_answers_is_an_error(question: str, body: bytes) -> None:
    if body == b'{"answer":null}' and question in ("find_version", "find_base", "find_adapter", "find_token"):
        assert QUESTIONS[question](RemoteCatalog(Told(body))) is None
    else:
        failed(lambda: QUESTIONS[question](RemoteCatalog(Told(body))))


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize(
    "document",
    [
        {},
        None,
        {"answered": "x", "results": []},
        {"answered": "x", "results": [{"x": []}]},
        {"answered": "x", "results": [[5]]},
        {"answered": "x", "results": {"-1": 1}},
        {"answered": 5, "results": [None]},
        {"results": [None]},
    ],
)
def test_what_no_registry_answers_to_a_step_is_an_error(step: str, document: object) -> None:
    writer = RemoteWriter(Told(json.dumps(document).encode()))
    failed(lambda: STEPS[step](writer))
    writer.finish()  # nothing, for the step was not answered


def test_a_commit_that_is_not_answered_as_one_is_not_believed() -> None:
    client = Told(b'{"answered": "x", "results": [true]}')
    with pytest.raises(UnavailableError), RemoteCatalog(client).writing() as writer:
        assert writer.create_adapter(NAME, private=False) is True
        client.body = b"{}"


WORDS = st.sampled_from([DIGEST, "b/open", "error", "read", "*"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
KINDS = (Version, Evaluation, AliasMove, AuditEntry, Commit, Adapter, StoredBase)
FIELDS = sorted({field.name for kind in KINDS for field in fields(kind)})
RECORDS = st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=4).map(lambda odd: version(**odd)) | st.fixed_dictionaries(
    dict.fromkeys(("id", "name", "actions", "namespaces", "created_at", "expires_at", "revoked_at"), JSON)
)
MEMBERS = ("answer", "problems", "versions", "blobs", "unreferenced", "bytes", "leftovers", "digests", "results", "answered")
DOCUMENTS = JSON | st.dictionaries(st.sampled_from(MEMBERS), JSON | RECORDS | st.lists(RECORDS, max_size=2), max_size=10)


@given(DOCUMENTS)
def test_every_question_is_answered_by_an_error_or_a_value_that_can_be_shown(document: object) -> None:
    client = Told(json.dumps(document).encode())
    for ask in QUESTIONS.values():
        try:
            found = ask(RemoteCatalog(client))
        except RegistryError as error:
            assert error.exit_code == 8
            continue
        for each in found if isinstance(found, list) else [found]:
            if isinstance(each, Version):
                json.dumps(summary_document(each), allow_nan=False).encode()
                assert len(_row(each)) == 8
    for do in STEPS.values():
        try:
            do(RemoteWriter(client))
        except RegistryError as error:
            assert error.exit_code == 8


PROBLEM = {"code": "x", "detail": "d", "exit_code": 6}


@pytest.mark.parametrize(
    ("document", "code"),
    [
        ({**PROBLEM, "detail": None}, "server-failed"),
        ({**PROBLEM, "detail": {"a": 1}}, "server-failed"),
        ({**PROBLEM, "hint": 7}, "server-failed"),
        ({**PROBLEM, "exit_code": 77}, "server-failed"),
        ({**PROBLEM, "exit_code": []}, "server-failed"),
        ({**PROBLEM, "findings": [{"severity": "error"}]}, "server-failed"),
        ({**PROBLEM, "findings": [{"severity": "nonsense", "rule": "r", "message": "m"}]}, "server-failed"),
        ({**PROBLEM, "findings": 5}, "server-failed"),
        ({**PROBLEM, "code": "alias-moved", "expected": "x"}, "server-failed"),
        ([], "server-failed"),
        (PROBLEM, "x"),
        ({**PROBLEM, "findings": [{"severity": "error", "rule": "r", "message": "m"}], "hint": "do"}, "x"),
    ],
)
def test_an_error_that_cannot_be_read_is_the_servers_own(document: object, code: str) -> None:
    with liar(lambda request: request.document(document, status=422)) as address, pytest.raises(RegistryError) as caught:
        RemoteCatalog(Client(address)).bases()
    assert caught.value.code == code
