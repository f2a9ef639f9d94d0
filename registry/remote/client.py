"""Requests to a registry's server.

A request that is known to change nothing, or to change the same once however often it arrives (it carries a key), is sent again
after a broken connection, a busy or a restarting server, with growing pauses that differ from client to client. The token goes to
the one origin it was given for: redirects are not followed. What the server refuses comes back as the error it is.
"""

from __future__ import annotations

import json
import random
import re
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar
from urllib.parse import urlsplit

import urllib3
from urllib3.exceptions import HTTPError

from registry.domain.finding import Finding, Severity
from registry.errors import (
    AliasMovedError,
    ChangedMeanwhileError,
    ConflictError,
    CorruptionError,
    DeniedError,
    InvalidInputError,
    NotFoundError,
    RegistryError,
    RejectedError,
    UnavailableError,
)

T = TypeVar("T")

#: Seconds for one request to begin to be answered, and for all attempts together.
_PATIENCE, _ALTOGETHER = 120.0, 60.0
_ATTEMPTS = 6
_TRANSIENT = frozenset([429, 502, 503, 504])
_FAMILIES: dict[int, type[RegistryError]] = {
    family.exit_code: family
    for family in (
        InvalidInputError,
        NotFoundError,
        ConflictError,
        RejectedError,
        CorruptionError,
        UnavailableError,
        DeniedError,
    )
}


class Client:
    """``address`` is the server's, such as ``https://registry.example``; ``token`` may be None for one that needs none."""

    def __init__(self, address: str, token: str | None = None) -> None:
        parts = urlsplit(address)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.username:
            raise InvalidInputError(
                f"{address!r:.120} is not the address of a server",
                hint="expected something like https://registry.example",
            )
        self.address = address.rstrip("/")
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        timeout = urllib3.Timeout(connect=10.0, read=_PATIENCE)
        self._pool = urllib3.PoolManager(num_pools=2, maxsize=8, timeout=timeout, retries=False)

    def __repr__(self) -> str:
        return f"Client({self.address!r})"

    def get(self, path: str) -> Any:
        return self._document(self._sent("GET", path))

    def post(self, path: str, document: object, *, method: str = "POST", once: bool = False) -> Any:
        """``once`` gives the request a key, so that the server does it a single time though it may be sent again; without it
        this must be a question."""
        headers = {"Content-Type": "application/json"}
        if once:
            headers["Idempotency-Key"] = secrets.token_hex(16)
        return self._document(self._sent(method, path, body=json.dumps(document).encode(), headers=headers))

    def head(self, path: str) -> Mapping[str, str] | None:
        """The headers of what is there; None if nothing is."""
        answer = self._sent("HEAD", path, accept=frozenset([404]))
        return None if answer.status == 404 else answer.headers

    def put(self, path: str, body: bytes) -> None:
        self._sent("PUT", path, body=body, headers={"Content-Type": "application/octet-stream"})

    def patch(self, path: str, body: Any, *, headers: Mapping[str, str]) -> None:
        """A single attempt: whoever sends pieces asks where the server stands before the next. Raises InterruptedTransferError."""
        try:
            answer = self._request("PATCH", path, body, {"Content-Type": "application/octet-stream", **headers})
        except UnavailableError as error:
            raise InterruptedTransferError(error.message) from error
        if answer.status in _TRANSIENT or answer.status == 409:
            raise InterruptedTransferError(f"the server answered {answer.status}")
        self._refuse(answer)

    @contextmanager
    def stream(self, path: str, *, start: int) -> Iterator[Iterator[bytes]]:
        """The bytes from ``start`` on. Raises InterruptedTransferError where they end too early, NotFoundError."""
        headers = {"Range": f"bytes={start}-"} if start else {}
        answer = self._sent("GET", path, headers=headers, accept=frozenset([416]), preload=False)
        if start and answer.status == 200:
            raise UnavailableError(f"{self.address} does not give parts of files, so the transfer cannot go on")
        try:
            yield iter(()) if answer.status == 416 else _chunks(answer)
        finally:
            answer.close()

    def _sent(
        self,
        method: str,
        path: str,
        *,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        accept: frozenset[int] = frozenset(),
        preload: bool = True,
    ) -> urllib3.BaseHTTPResponse:
        def attempt() -> urllib3.BaseHTTPResponse:
            answer = self._request(method, path, body, headers or {}, preload=preload)
            if answer.status in _TRANSIENT:
                raise _TryAgainError(self._error(answer), _pause_asked_for(answer))
            if answer.status not in accept:
                self._refuse(answer)
            return answer

        return patiently(attempt)

    def _request(
        self, method: str, path: str, body: Any, headers: Mapping[str, str], *, preload: bool = True
    ) -> urllib3.BaseHTTPResponse:
        try:
            return self._pool.request(
                method,
                f"{self.address}{path}",
                body=body,
                headers={**self._headers, **headers},
                preload_content=preload,
                redirect=False,
                decode_content=False,
            )
        except (HTTPError, OSError) as error:
            raise UnavailableError(
                f"{self.address} cannot be reached: {_reason(error)}",
                code="server-unreachable",
                hint="is the server running, and the address right?",
            ) from error

    def _document(self, answer: urllib3.BaseHTTPResponse) -> Any:
        if not answer.data:
            return None
        try:
            return json.loads(answer.data)
        except ValueError:
            raise self._stranger(answer) from None

    def _refuse(self, answer: urllib3.BaseHTTPResponse) -> None:
        if answer.status >= 300:
            raise self._error(answer)

    def _error(self, answer: urllib3.BaseHTTPResponse) -> RegistryError:
        try:
            document = json.loads(answer.data or answer.read())
            found = _error_of(document)
        except (ValueError, TypeError, KeyError, HTTPError, OSError):
            return self._by_status(answer)
        finally:
            answer.release_conn()
        return found

    def _by_status(self, answer: urllib3.BaseHTTPResponse) -> RegistryError:
        """A HEAD has no document, and a proxy's answer is its own."""
        if answer.status == 404:
            return NotFoundError(f"{self.address} has no such thing")
        if answer.status in (401, 403):
            return DeniedError(f"{self.address} wants a token", hint="ADAPTERS_TOKEN, or adapters login")
        return self._stranger(answer)

    def _stranger(self, answer: urllib3.BaseHTTPResponse) -> UnavailableError:
        return UnavailableError(
            f"{self.address} answered {answer.status} and not as a registry does",
            code="server-failed",
            hint="look at the server's log, and whether the address is that of adapters serve",
        )


class InterruptedTransferError(UnavailableError):
    """Bytes stopped coming or going: the transfer may go on where it stands."""

    default_code = "interrupted"


class _TryAgainError(Exception):
    def __init__(self, error: RegistryError, pause: float) -> None:
        super().__init__(error.message)
        self.error = error
        self.pause = pause


def patiently(attempt: Callable[[], T]) -> T:
    """Again after trouble that passes, for at most a minute altogether."""
    deadline = time.monotonic() + _ALTOGETHER
    for turn in range(_ATTEMPTS):
        pause = random.uniform(0.1, 0.4) * 2**turn  # noqa: S311 - so that clients do not come back all at once
        last = turn == _ATTEMPTS - 1
        try:
            return attempt()
        except _TryAgainError as again:
            pause = max(pause, again.pause)
            if last or time.monotonic() + pause > deadline:
                raise again.error from None
        except UnavailableError as error:
            if last or error.code == "server-failed" or time.monotonic() + pause > deadline:
                raise
        time.sleep(pause)
    raise AssertionError("the last turn returns or raises")


def _chunks(answer: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
    """As they come: what came before a break is not lost."""
    try:
        while chunk := answer.read1(1 << 20):
            yield chunk
    except (HTTPError, OSError) as error:
        raise InterruptedTransferError(f"the connection broke: {_reason(error)}") from error


def _pause_asked_for(answer: urllib3.BaseHTTPResponse) -> float:
    text = answer.headers.get("Retry-After", "")
    return float(text) if text.isdecimal() else 0.0


def _error_of(document: Mapping[str, Any]) -> RegistryError:
    code, detail, hint = document["code"], document["detail"], document.get("hint")
    if code == AliasMovedError.default_code:
        moved = AliasMovedError("", expected=document.get("expected"), actual=document.get("actual"))
        moved.message, moved.args, moved.hint = detail, (detail,), hint
        return moved
    if code == ChangedMeanwhileError.default_code:
        return ChangedMeanwhileError()
    family = _FAMILIES[document["exit_code"]]
    error = family(detail, code=code, hint=hint)
    if findings := document.get("findings"):
        found = [Finding(**{**each, "severity": Severity(each["severity"])}) for each in findings]
        error.findings = tuple(found)  # type: ignore[attr-defined]  # as the leaves that have them
    return error


def _reason(error: Exception) -> str:
    causes = (each for each in error.args if isinstance(each, Exception))
    reason = getattr(error, "reason", None) or next(causes, error)
    words = re.sub(r"\[Errno -?\d+\] ", "", str(reason).rpartition(": ")[2])
    return words.lower() or type(error).__name__
