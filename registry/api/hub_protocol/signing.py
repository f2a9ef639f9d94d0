"""Short texts that this server made, and that nobody else can make: addresses to upload to, and tokens of Xet.

Clients send no ``Authorization`` to the address of a Git-LFS upload, so the address itself has to say who may store what, until
when. The secret lies beside the store, for its owner alone, and all workers read the same.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import os
import secrets
import time
from collections.abc import Mapping
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

from registry.api.callers import UnauthenticatedError
from registry.disk import make_directory, unavailable, write_all

_BYTES = 32


class Signer:
    """``path`` holds the secret; it is made when it is needed first."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def signed(self, purpose: str, facts: Mapping[str, Any], *, seconds: float) -> str:
        """Letters, digits, ``-``, ``_`` and a dot. It holds for so many seconds and for this purpose alone."""
        document = {**facts, "for": purpose, "until": int(time.time() + seconds)}
        text = _encoded(json.dumps(document, separators=(",", ":"), sort_keys=True).encode())
        return f"{text}.{_encoded(self._seal(text))}"

    def read(self, purpose: str, text: str) -> Mapping[str, Any]:
        """Raises UnauthenticatedError for what was not signed for this purpose, or no longer holds."""
        body, _, seal = text.partition(".")
        try:
            genuine = hmac.compare_digest(_decoded(seal), self._seal(body))
            document = json.loads(_decoded(body)) if genuine else {}
        except (binascii.Error, ValueError):
            document = {}
        if document.get("for") != purpose or document.get("until", 0) < time.time():
            raise UnauthenticatedError("this address or token was not made here, or it has expired", hint="begin again")
        return dict(document)

    def _seal(self, text: str) -> bytes:
        return hmac.digest(self._secret, text.encode("ascii", "replace"), hashlib.sha256)

    @cached_property
    def _secret(self) -> bytes:
        try:
            make_directory(self._path.parent)
            if not self._path.exists():
                self._make()
            secret = self._path.read_bytes()
        except OSError as error:
            raise unavailable(error, "read the server's key", self._path) from error
        return secret

    def _make(self) -> None:
        """Whole or not at all, and the first one stays: workers start together."""
        draft = self._path.with_name(f"{self._path.name}-{secrets.token_hex(8)}")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            write_all(descriptor, secrets.token_bytes(_BYTES))
            os.fsync(descriptor)
            with suppress(FileExistsError):
                os.link(draft, self._path)
        finally:
            os.close(descriptor)
            draft.unlink(missing_ok=True)


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _decoded(text: str) -> bytes:
    return base64.b64decode(text.encode("ascii") + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
