"""Requests to a registry's server.

A request that is known to change nothing, or to change the same once however often it arrives (it carries a key), is sent again
after a broken connection, a busy or a restarting server, with growing pauses that differ from client to client. A server that
nobody has met yet and that is not there is said at once. The token goes to the one origin it was given for: redirects are not
followed. What the server refuses comes back as the error it is; what no registry answers is an UnavailableError.
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

import urllib3
from urllib3.exceptions import HTTPError, LocationParseError, NewConnectionError, SSLError

from registry.errors import DeniedError, InvalidInputError, NotFoundError, RegistryError, UnavailableError
from registry.remote.address import Address
from registry.remote.answers import Answer, UnreadableError, read_document, read_error, whole

T = TypeVar("T")

#: Seconds for one request to begin to be answered, and for all attempts together.
_PATIENCE, _ALTOGETHER = 120.0, 60.0
_ATTEMPTS = 6
_TRANSIENT = frozenset([429, 502, 503, 504])
_GET_ONE = "adapters login, or ADAPTERS_TOKEN; in Python: connect(…, token=…)"


def same(found: Any) -> Any:
    return found


class Client:
    """``address`` is the server's, such as ``https://registry.example``; ``token`` may be None for one that needs none. Where an
    answer has a document, ``read`` makes a value of it: whatever it cannot read is the server's fault."""

    def __init__(self, address: str, token: str | None = None) -> None:
        self._place = Address.parse(address)
        if token and not (token.isascii() and token.isprintable() and " " not in token):
            raise InvalidInputError(
                "the token holds a character that no token has", hint="copy it whole, from adr_ on, and nothing else"
            )
        self.address = address.rstrip("/")
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._met = False
        timeout = urllib3.Timeout(connect=10.0, read=_PATIENCE)
        self._pool = urllib3.PoolManager(num_pools=2, maxsize=8, timeout=timeout, retries=False)

    def __repr__(self) -> str:
        return f"Client({self.address!r})"

    def get(self, path: str, read: Callable[[Any], T] = same) -> T:
        return self._read(self._asked("GET", path), read)

    def post(
        self,
        path: str,
        document: object,
        read: Callable[[Any], T] = same,
        *,
        method: str = "POST",
        once: bool = False,
    ) -> T:
        """``once`` gives the request a key, so that the server does it a single time though it may be sent again; without it
        this must be a question."""
        headers = {"Content-Type": "application/json"}
        if once:
            headers["Idempotency-Key"] = secrets.token_hex(16)
        return self._read(self._asked(method, path, body=json.dumps(document).encode(), headers=headers), read)

    def head(self, path: str) -> Mapping[str, str] | None:
        """The headers of what is there; None if nothing is."""
        answer = self._asked("HEAD", path, accept=frozenset([404]))
        return None if answer.status == 404 else answer.headers

    def put(self, path: str, body: bytes) -> None:
        self._asked("PUT", path, body=body, headers={"Content-Type": "application/octet-stream"})

    def patch(self, path: str, body: Any, *, headers: Mapping[str, str]) -> None:
        """A single attempt: whoever sends pieces asks where the server stands before the next. Raises InterruptedTransferError."""
        try:
            answer = self._whole(
                self._request("PATCH", path, body, {"Content-Type": "application/octet-stream", **headers})
            )
        except UnavailableError as error:
            if error.code in _FINAL:
                raise
            raise InterruptedTransferError(error.message) from error
        if answer.status in _TRANSIENT or answer.status == 409:
            raise InterruptedTransferError(f"the server answered {answer.status}")
        self._refuse(answer)

    @contextmanager
    def stream(self, path: str, *, start: int) -> Iterator[Iterator[bytes]]:
        """The bytes from ``start`` on. Raises InterruptedTransferError where they end too early, NotFoundError."""
        headers = {"Range": f"bytes={start}-"} if start else {}

        def attempt() -> urllib3.BaseHTTPResponse:
            response = self._request("GET", path, None, headers)
            if response.status >= 300 and response.status != 416:
                self._judge(self._whole(response))
            return response

        response = patiently(attempt)
        if start and response.status == 200:
            response.close()
            raise UnavailableError(f"{self.address} does not give parts of files, so the transfer cannot go on")
        try:
            yield iter(()) if response.status == 416 else _chunks(response)
        finally:
            response.close()

    def failed(self, how: str) -> UnavailableError:
        """The server did what no registry does."""
        return UnavailableError(
            f"{self.address} answered {how}, and not as a registry does",
            code="server-failed",
            hint="look at the server's log, whether the address is that of adapters serve, and of which version it is",
        )

    def unknown_token(self) -> DeniedError:
        return DeniedError(
            f"this token is not known at {self.address}, or has ended",
            code="unauthenticated",
            hint=f"ask an administrator for another; then {_GET_ONE}",
        )

    def _asked(
        self,
        method: str,
        path: str,
        *,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        accept: frozenset[int] = frozenset(),
    ) -> Answer:
        def attempt() -> Answer:
            answer = self._whole(self._request(method, path, body, headers or {}))
            if answer.status not in accept:
                self._judge(answer)
            return answer

        return patiently(attempt)

    def _request(self, method: str, path: str, body: Any, headers: Mapping[str, str]) -> urllib3.BaseHTTPResponse:
        try:
            response = self._pool.request(
                method,
                f"{self.address}{path}",
                body=body,
                headers={**self._headers, **headers},
                preload_content=False,
                redirect=False,
                decode_content=False,
            )
        except SSLError as error:
            raise UnavailableError(
                f"{self.address} cannot be reached safely: {_reason(error)}",
                code="tls-failed",
                hint="is this https to a server that speaks http? Else its certificate is not one that this machine trusts",
            ) from error
        except (NewConnectionError, LocationParseError) as error:
            raise (self._unreachable(error) if self._met else self._unreachable(error, AbsentServerError)) from error
        except (HTTPError, OSError) as error:
            raise self._unreachable(error) from error
        self._met = True
        return response

    def _whole(self, response: urllib3.BaseHTTPResponse) -> Answer:
        try:
            return whole(response)
        except UnreadableError as error:
            raise self.failed(f"{response.status} {error}") from None
        except (HTTPError, OSError) as error:
            raise self._unreachable(error) from error

    def _unreachable(self, error: Exception, kind: type[UnavailableError] = UnavailableError) -> UnavailableError:
        return kind(
            f"{self.address} cannot be reached: {_reason(error)}",
            code="server-unreachable",
            hint="is the server running, and the address right?",
        )

    def _read(self, answer: Answer, read: Callable[[Any], T]) -> T:
        try:
            return read_document(answer.body, read)
        except UnreadableError as error:
            raise self.failed(f"{answer.status} {error}") from error

    def _judge(self, answer: Answer) -> None:
        """Raises _TryAgainError for trouble that passes."""
        if answer.status in _TRANSIENT:
            raise _TryAgainError(self._error(answer), _pause_asked_for(answer))
        self._refuse(answer)

    def _refuse(self, answer: Answer) -> None:
        if answer.status >= 300:
            raise self._error(answer)

    def _error(self, answer: Answer) -> RegistryError:
        if answer.status == 401:
            return self.unknown_token() if self._headers else self._nobody()
        try:
            return read_document(answer.body, read_error)
        except UnreadableError as error:
            return self._by_status(answer, error)

    def _by_status(self, answer: Answer, why: UnreadableError) -> RegistryError:
        """A HEAD has no document, and a proxy's answer is its own."""
        if answer.status in (404, 405):
            behind = self._place.path.strip("/")
            hint = f"the address should be that of the server itself, perhaps {self._place.origin}" if behind else None
            return NotFoundError(
                f"{self.address} has no such thing", hint=hint or "is the address that of adapters serve?"
            )
        if answer.status == 403:
            return DeniedError(f"{self.address} does not allow this", hint=_GET_ONE)
        return self.failed(f"{answer.status} {why}")

    def _nobody(self) -> DeniedError:
        return DeniedError(f"{self.address} wants a token", code="unauthenticated", hint=_GET_ONE)


class InterruptedTransferError(UnavailableError):
    """Bytes stopped coming or going: the transfer may go on where it stands."""

    default_code = "interrupted"


class AbsentServerError(UnavailableError):
    """Nobody listens there, or there is no such host, and this process has never had an answer from there."""


class _TryAgainError(Exception):
    def __init__(self, error: RegistryError, pause: float) -> None:
        super().__init__(error.message)
        self.error = error
        self.pause = pause


#: Codes of what another attempt does not change.
_FINAL = frozenset(["server-failed", "tls-failed"])


def patiently(attempt: Callable[[], T]) -> T:
    """Again after trouble that passes, for at most a minute altogether; once, quickly, where there is nobody."""
    deadline = time.monotonic() + _ALTOGETHER
    for turn in range(_ATTEMPTS):
        seconds = _pause_after(turn)
        last = turn == _ATTEMPTS - 1
        try:
            return attempt()
        except _TryAgainError as again:
            seconds = max(seconds, again.pause)
            if last or time.monotonic() + seconds > deadline:
                raise again.error from None
        except UnavailableError as error:
            is_final = error.code in _FINAL or (turn > 0 and isinstance(error, AbsentServerError))
            if last or is_final or time.monotonic() + seconds > deadline:
                raise
        time.sleep(seconds)
    raise AssertionError("the last turn returns or raises")


def pause(turn: int) -> None:
    """Before another attempt; longer with every turn."""
    time.sleep(_pause_after(turn))


def _pause_after(turn: int) -> float:
    """Seconds, which differ so that clients do not come back all at once."""
    seconds: float = random.uniform(0.1, 0.4) * 2**turn  # noqa: S311
    return seconds


def _chunks(response: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
    """As they come: what came before a break is not lost."""
    try:
        while chunk := response.read1(1 << 20):
            yield chunk
    except (HTTPError, OSError) as error:
        raise InterruptedTransferError(f"the connection broke: {_reason(error)}") from error


def _pause_asked_for(answer: Answer) -> float:
    text = answer.headers.get("Retry-After", "")
    return float(text) if text.isdecimal() else 0.0


def _reason(error: Exception) -> str:
    causes = (each for each in error.args if isinstance(each, Exception))
    reason = getattr(error, "reason", None) or next(causes, error)
    words = re.sub(r"\[Errno -?\d+\] ", "", str(reason).rpartition(": ")[2])
    return words.lower() or type(error).__name__
