"""Tokens for servers, kept for this user alone: one file, mode 0600, an entry for each origin."""

from __future__ import annotations

import json
import os
from pathlib import Path
from urllib.parse import urlsplit

from registry.errors import InvalidInputError, UnavailableError


def kept_token(address: str) -> str | None:
    return _kept().get(origin(address))


def keep_token(address: str, token: str | None) -> Path:
    """None forgets it. The file appears whole or not at all."""
    tokens = _kept()
    tokens.pop(origin(address), None)
    if token is not None:
        tokens[origin(address)] = token
    path = _path()
    staged = path.with_suffix(f".{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        with open(descriptor, "w", encoding="utf-8") as file:
            json.dump(tokens, file)
        staged.replace(path)
    except OSError as error:
        raise UnavailableError(
            f"cannot keep the token in {path}: {error.strerror}", hint="use ADAPTERS_TOKEN"
        ) from error
    return path


def origin(address: str) -> str:
    """Scheme, host and port: what a token is for. Raises InvalidInputError."""
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InvalidInputError(f"{address!r:.120} is not the address of a server", hint="https://registry.example")
    port = parts.port or {"http": 80, "https": 443}[parts.scheme]
    return f"{parts.scheme}://{parts.hostname}:{port}"


def _kept() -> dict[str, str]:
    path = _path()
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise UnavailableError(f"cannot read the tokens in {path}: {error}", hint="use ADAPTERS_TOKEN") from error
    return {str(key): str(value) for key, value in found.items()} if isinstance(found, dict) else {}


def _path() -> Path:
    from platformdirs import user_config_dir

    return Path(user_config_dir("adapter-registry", appauthor=False)) / "tokens.json"
