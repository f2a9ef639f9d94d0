"""Whoever may do one thing and not another, and what it costs the others."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from threading import BoundedSemaphore, Event, Thread
from typing import Any

import pytest

from registry.api.limits import Limits
from registry.api.routes import transactions
from registry.connect import connect
from registry.domain.access import Action, NamespacePattern, new_token
from registry.errors import DeniedError, NotFoundError
from tests.api.sites import Site, site
from tests.conftest import WriteAdapter

A = "/v1/adapters/a/secret"


@pytest.fixture
def here(tmp_path: Path, write_adapter: WriteAdapter) -> Iterator[Site]:
    with site(tmp_path, write_adapter, anonymous_read=True) as found:
        tokens: dict[str, str] = dict(found.tokens)
        with found.shelf.catalog.writing() as writer:
            for action in Action:
                scope = NamespacePattern("*" if action is Action.ADMIN else "a/*")
                tokens[action.value], kept = new_token(action.value, [action], [scope], expires_at=None)
                writer.add_token(kept)
        yield Site(found.shelf, found.place, found.address, tokens)


def transact(here: Site, who: str | None, *steps: dict[str, Any], commit: bool = False) -> Any:
    return here.ask("POST", "/v1/transactions", who, {"steps": list(steps), "commit": commit})


ALIASES = {"do": "aliases", "adapter": "b/open"}


def test_only_who_may_change_something_makes_transactions(here: Site) -> None:
    assert transact(here, None, ALIASES).code == "unauthenticated"
    assert transact(here, "read", ALIASES).code == "forbidden"
    for who in ("push", "tag", "yank", "delete", "admin", "bob"):
        assert transact(here, who, ALIASES).status == 200, who  # anybody may read b/open


def test_whoever_may_do_one_thing_does_it_elsewhere_too(here: Site) -> None:
    """As over REST; and is told which version it was, and not what is in it."""
    for action, does, done in (
        ("push", lambda shelf: shelf.add_evaluations("a/secret@1", "acc=0.5"), lambda: here.shelf.show("a/secret@1").evaluations),
        ("tag", lambda shelf: shelf.set_tags("a/secret@1", {"k": "w"}), lambda: here.shelf.resolve("a/secret@1").tags),
        ("tag", lambda shelf: shelf.remove_tags("a/secret@1", "k"), lambda: not here.shelf.resolve("a/secret@1").tags),
        ("yank", lambda shelf: shelf.yank("a/secret@1", "bad"), lambda: here.shelf.resolve("a/secret@1").yanked),
        ("yank", lambda shelf: shelf.unyank("a/secret@1"), lambda: not here.shelf.resolve("a/secret@1").yanked),
    ):
        for who in ("bob", next(other for other in ("tag", "yank") if other != action)):
            with here.unchanged(), pytest.raises((NotFoundError, DeniedError)):
                does(connect(here.address, token=here.tokens[who]))
        does(connect(here.address, token=here.tokens[action]))
        assert done(), action
    found = transact(here, "tag", {"do": "resolve", "reference": "a/secret@1"}).json["results"][0]
    known = here.shelf.resolve("a/secret@1")
    assert (found["number"], found["digest"]) == (1, known.digest)
    assert "my-lora" not in json.dumps(found)
    assert (found["summary"]["rank"], found["aliases"], found["score"]) == (None, [], None)
    assert transact(here, "bob", {"do": "resolve", "reference": "a/secret@1"}).code == "unknown-adapter"
    assert here.ask("POST", "/v1/catalog/resolve", "tag", {"reference": "a/secret@1"}).json["answer"] == found
    assert here.ask("POST", "/v1/catalog/resolve", "bob", {"reference": "a/secret@1"}).code == "unknown-adapter"


def test_whoever_may_push_is_told_what_else_it_takes(here: Site) -> None:
    """And not whether there is an adapter."""
    for name in ("a/secret", "a/none"):
        for action, step in (
            ("tag", {"do": "move_alias", "adapter": name, "alias": "production", "to": 1}),
            ("delete", {"do": "remove_adapter", "adapter": name, "reason": "x"}),
        ):
            refused = transact(here, "push", step, commit=True)
            assert (refused.status, refused.code) == (403, "forbidden")
            assert refused.json["detail"] == f"this token may not {action} in a"
            assert transact(here, "yank", step, commit=True).code == "unknown-adapter"


def test_steps_that_only_read_wait_for_nobody(here: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """And change nothing, though they are to stay."""
    steps = [{"do": "resolve", "reference": "b/open@1"}, ALIASES, {"do": "evaluations", "version": "b/open@1"}]
    before = transact(here, "bob", *steps)
    monkeypatch.setattr(transactions, "_WAITING", BoundedSemaphore(1))
    transactions._WAITING.acquire()
    with here.shelf.catalog.writing(), here.unchanged():
        for commit in (False, True):
            assert transact(here, "bob", *steps, commit=commit).json == before.json


def test_those_that_would_wait_in_too_long_a_line_are_told_at_once(here: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transactions, "_WAITING", BoundedSemaphore(1))
    tag = {"do": "set_tags", "version": "b/open@1", "tags": {"x": "1"}}
    answers: list[Any] = []
    with here.shelf.catalog.writing():
        first = Thread(target=lambda: answers.append(transact(here, "bob", tag, commit=True)))
        first.start()
        waited = Event()
        while transactions._WAITING.acquire(blocking=False):
            transactions._WAITING.release()
            waited.wait(0.01)
        refused = transact(here, "bob", tag, commit=True)
        assert (refused.status, refused.code, refused.headers["retry-after"]) == (503, "busy", "1")
    first.join(30)
    assert [answer.status for answer in answers] == [200]
    assert transact(here, "bob", tag, commit=True).status == 200


def test_each_transaction_is_counted(tmp_path: Path, write_adapter: WriteAdapter, monkeypatch: pytest.MonkeyPatch) -> None:
    with site(tmp_path, write_adapter) as here:
        monkeypatch.setattr(Limits, "take", lambda _self, who, _now: 7 if who.startswith("bob ") else None)
        assert transact(here, "bob", ALIASES).status == 429
        assert transact(here, "root", ALIASES).status == 200


@pytest.mark.parametrize("way", ["route", "step", "hub"])
def test_to_show_what_is_hidden_takes_more_than_to_hide_it(here: Site, way: str) -> None:
    def put(who: str, *, private: bool) -> int:
        if way == "route":
            return here.ask("PUT", A, who, {"private": private}).status
        if way == "step":
            return transact(here, who, {"do": "set_private", "adapter": "a/secret", "private": private}, commit=True).status
        return here.ask("PUT", "/api/models/a/secret/settings", who, {"private": private}).status

    def is_hidden() -> bool:
        return here.ask("GET", "/v1/resolve/a/secret").status == 404

    with_read, kept = new_token("writer", [Action.READ, Action.PUSH], [NamespacePattern("a/*")], expires_at=None)
    with here.shelf.catalog.writing() as writer:
        writer.add_token(kept)
    here.tokens["writer"] = with_read  # type: ignore[index]
    for who in ("push", "writer"):
        assert put(who, private=False) in (403, 404)
        assert is_hidden()
    assert put("alice", private=False) == 200
    assert not is_hidden()
    assert put("writer", private=True) == 200
    assert is_hidden()


def test_who_may_not_read_is_told_no_more_than_that_it_was_done(here: Site) -> None:
    here.shelf.set_tags("a/secret@1", {"customer": "acme"})
    here.shelf.set_alias("a/secret", "staging", 1)
    short = {"adapter", "version", "digest", "reference"}
    for method, path, who, body in (
        ("PUT", f"{A}/versions/1/tags", "tag", {"x": "y"}),
        ("DELETE", f"{A}/versions/1/tags/x", "tag", None),
        ("PUT", f"{A}/versions/1/yank", "yank", {"reason": "x"}),
        ("DELETE", f"{A}/versions/1/yank", "yank", None),
    ):
        answer = here.ask(method, path, who, body)
        assert (answer.status, set(answer.json)) == (200, short), answer
        assert set(here.ask(method, path, "alice", body).json) > short or method == "DELETE"
    digest = here.shelf.show("a/secret@1").version.digest
    asked = ("POST", "/v1/catalog/find_version")
    found = here.ask(*asked, "push", {"adapter": "a/secret", "digest": digest})
    assert found.status == 200
    all_of_it = here.ask(*asked, "alice", {"adapter": "a/secret", "digest": digest})
    for told in ("acme", "staging", '"value": 0.77'):
        assert told not in json.dumps(found.json)
        assert told in json.dumps(all_of_it.json)
    gate = {"version": 1, "minimum": ["acc>=0.1"]}
    promoted = here.ask("POST", f"{A}/aliases/z/promote", "tag", gate)
    assert (promoted.status, b"0.77" in promoted.body) == (404, False)
    assert here.ask("POST", f"{A}/aliases/z/promote", "alice", gate).status == 200


def test_what_is_published_without_reading_is_told_shortly(here: Site) -> None:
    sent = here.shelf.show("b/open@1").manifest.files
    for file in sent:
        data = b"".join(here.shelf.blobs.read(file.digest))
        assert here.ask("PUT", f"/v1/blobs/{file.digest}", "push", data).status in (200, 201)
    files = [{"path": file.path, "digest": file.digest} for file in sent]
    with here.shelf.catalog.writing() as writer:
        writer.create_adapter(here.shelf.adapter("a/new"), private=True)
    made = here.ask("POST", "/v1/adapters/a/new/versions", "push", {"files": files})
    assert (made.status, set(made.json)) == (201, {"adapter", "version", "digest", "reference", "created", "findings"})
