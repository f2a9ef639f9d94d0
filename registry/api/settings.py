"""What an operator decides, in the environment or on the command line."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Self

from registry.errors import InvalidInputError

#: A bind to one of these is reached by this machine alone.
LOOPBACK = frozenset(["127.0.0.1", "::1", "localhost"])
_PREFIX = "ADAPTERS_SERVER_"
_TRUE, _FALSE = frozenset(["1", "true", "yes", "on"]), frozenset(["0", "false", "no", "off", ""])


@dataclass(frozen=True, slots=True)
class Settings:
    """``public_url`` is where clients reach the server, if a proxy stands before it; without it the request's own Host counts.

    ``anonymous_read`` shows adapters that are not private to everybody. ``hosts`` are the names (without ports) that a request
    may be addressed to, empty for any once there are tokens. ``upstream`` is another hub whose repositories are passed through;
    empty: what is not here is not found. ``connections_per_address`` is of a worker, does not bound this machine nor a server with
    a ``public_url``, and is 0 for any number; ``unfinished_uploads`` and ``unfinished_bytes`` are each caller's. Sizes are bytes,
    times seconds.
    """

    location: Path = Path()
    host: str = "127.0.0.1"
    port: int = 8000
    workers: int = 1
    public_url: str = ""
    anonymous_read: bool = False
    hosts: tuple[str, ...] = ()
    upstream: str = ""
    max_blob: int = 20 << 30
    upload_lifetime: float = 24 * 3600.0
    pushes_per_minute: int = 600
    failures_per_minute: int = 10
    connections_per_address: int = 256
    unfinished_uploads: int = 64
    unfinished_bytes: int = 100 << 30
    log_requests: bool = False

    @property
    def is_loopback(self) -> bool:
        return self.host in LOOPBACK

    def environment(self) -> dict[str, str]:
        """For the workers: what :meth:`from_environment` reads back."""
        return {
            f"{_PREFIX}{name.upper()}": ",".join(value) if isinstance(value, tuple) else str(value)
            for name, value in asdict(self).items()
        }

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Self:
        """Raises InvalidInputError for a value that cannot be read."""
        found = os.environ if environment is None else environment
        values: dict[str, object] = {}
        for field in fields(cls):
            text = found.get(f"{_PREFIX}{field.name.upper()}")
            if text is not None:
                values[field.name] = _read(field.name, str(field.type), text)
        return cls(**values)  # type: ignore[arg-type]


def _read(name: str, kind: str, text: str) -> object:
    try:
        if kind == "bool":
            if text.lower() not in _TRUE | _FALSE:
                raise ValueError(text)
            return text.lower() in _TRUE
        if kind.startswith("tuple"):
            return tuple(part.strip() for part in text.split(",") if part.strip())
        readers = {"int": int, "float": float, "Path": Path, "str": str}
        return readers[kind](text)
    except ValueError:
        raise InvalidInputError(f"{_PREFIX}{name.upper()} is {text!r:.80}, expected {kind}") from None
