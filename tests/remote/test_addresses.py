"""Where a server is said to be, and with which token: what is wrong with that, and with nobody being there."""

from __future__ import annotations

import socket
from collections.abc import Callable
from functools import partial

import pytest

from registry.blobs.remote import RemoteBlobs
from registry.catalog.remote import RemoteCatalog
from registry.connect import connect
from registry.domain.digest import Digest
from registry.errors import DeniedError, InvalidInputError, NotFoundError, UnavailableError
from registry.remote import client as remote_client
from registry.remote.client import Client
from tests.remote.liars import Request, liar

DIGEST = Digest("sha256:" + "1" * 64)


def always(body: bytes, status: int = 200) -> Callable[[Request], None]:
    return lambda request: request.say(body, status=status)


def test_a_token_that_is_not_known_is_said_and_where_to_get_one() -> None:
    problem = {"code": "unauthenticated", "detail": "this needs a token", "exit_code": 9}
    with liar(lambda request: request.document(problem, status=401)) as address:
        for token, said in (("adr_x", "not known"), (None, "wants a token")):
            for ask in (RemoteCatalog(Client(address, token)).bases, partial(RemoteBlobs(Client(address, token)).size, DIGEST)):
                with pytest.raises(DeniedError, match=said) as caught:
                    ask()
                assert "adapters login" in (caught.value.hint or "")
                assert "token=" in (caught.value.hint or "")


def test_an_address_below_the_servers_is_told_from_it() -> None:
    with liar(always(b"Not Found", 404)) as address:
        with pytest.raises(NotFoundError) as caught:
            RemoteCatalog(Client(f"{address}/foo/bar")).bases()
        assert f"perhaps {address}" in (caught.value.hint or "")


def test_what_the_server_would_do_is_passed_on() -> None:
    problem = {"code": "unknown-adapter", "detail": "no such", "exit_code": 4, "hint": "did you mean team/my-lora?"}
    with liar(lambda request: request.document(problem, status=404)) as address:
        with pytest.raises(NotFoundError) as caught:
            connect(address).show("team/my-lor")
        assert caught.value.hint == "did you mean team/my-lora?"


@pytest.mark.parametrize("text", ["http://[::1", "http://127.0.0.1:99999", "http://", "http://u:p@h", "http://h/?q", "http://h#f", "https://h:x"])
def test_what_is_no_address_is_said(text: str) -> None:
    with pytest.raises(InvalidInputError, match="is not the address of a server"):
        connect(text)


@pytest.mark.parametrize(
    "text", ["http://bob:s3cret@h", "http://h:1?token=s3cret", "http://h/#s3cret", "http://h?a\ns3cret", "http://bob:s3cret@h:x"]
)
def test_a_secret_in_an_address_is_not_said(text: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        connect(text)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("token", ["adr_\u2026", "adr_x\n", "adr_ x", "adr_\u00fc"])
def test_what_cannot_be_a_token_is_not_sent(token: str) -> None:
    with pytest.raises(InvalidInputError, match="token"):
        connect("http://127.0.0.1:1", token=token)


class Turns:
    """Counts attempts; sleeping takes no time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.slept: list[float] = []
        monkeypatch.setattr(remote_client.time, "sleep", self.slept.append)


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@pytest.mark.parametrize("host", ["127.0.0.1", "no-such-host.invalid"])
def test_nobody_there_is_said_after_one_more_look(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    turns = Turns(monkeypatch)
    with pytest.raises(UnavailableError, match="cannot be reached"):
        RemoteCatalog(Client(f"http://{host}:{closed_port()}")).bases()
    assert len(turns.slept) == 1
    assert turns.slept[0] < 0.5


def test_a_server_that_was_there_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    turns = Turns(monkeypatch)
    with liar(lambda request: request.document({"answer": []})) as address:
        catalog = RemoteCatalog(Client(address))
        assert catalog.bases() == []
    catalog._client._pool.clear()
    with pytest.raises(UnavailableError, match="cannot be reached"):
        catalog.bases()
    assert len(turns.slept) == 5


def test_https_to_a_server_that_speaks_http_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    turns = Turns(monkeypatch)
    with liar(always(b"{}")) as address, pytest.raises(UnavailableError) as caught:
        RemoteCatalog(Client(address.replace("http://", "https://"))).bases()
    assert (caught.value.code, turns.slept) == ("tls-failed", [])
    assert "speaks http" in (caught.value.hint or "")
