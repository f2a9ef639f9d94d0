"""Where a server is."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Self
from urllib.parse import urlsplit

from registry.errors import InvalidInputError

_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Address:
    """``origin`` is scheme, host and port: what a token is for. ``path`` is what stands behind it, as behind a proxy."""

    scheme: str
    host: str
    port: int
    path: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises InvalidInputError."""
        try:
            parts = urlsplit(text)
            port = parts.port
        except ValueError as error:  # half an IPv6 address, a port that no machine has
            raise _no_address(text, f": {error}") from None
        if parts.scheme not in _PORTS or not parts.hostname or parts.query or parts.fragment or parts.username:
            raise _no_address(text)
        return cls(parts.scheme, parts.hostname, port if port is not None else _PORTS[parts.scheme], parts.path)

    @property
    def origin(self) -> str:
        return f"{self.scheme}://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"

    @property
    def is_overheard(self) -> bool:
        """What is sent there can be read on the way: it is neither encrypted nor kept on this machine."""
        return self.scheme == "http" and not _is_loopback(self.host)


def _is_loopback(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False  # a name


def _no_address(text: str, why: str = "") -> InvalidInputError:
    """What stands before an @ or behind a ? may be a secret, and is not shown."""
    shown = re.sub(r"//[^/?#]*@", "//…@", re.sub(r"[?#].+", "?…", text, flags=re.DOTALL))
    return InvalidInputError(
        f"{shown!r:.120} is not the address of a server{why}", hint="expected something like https://registry.example"
    )
