"""Tokens for servers, kept for this user alone: one file, mode 0600, an entry for each origin."""

from __future__ import annotations

import json
import os
from pathlib import Path

from cli.rendering import note
from registry.errors import UnavailableError
from registry.remote.address import Address


def kept_token(address: str) -> str | None:
    return _kept().get(Address.parse(address).origin)


def keep_token(address: str, token: str | None) -> Path:
    """None forgets it. The file appears whole or not at all."""
    tokens = _kept()
    origin = Address.parse(address).origin
    tokens.pop(origin, None)
    if token is not None:
        tokens[origin] = token
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


def warn_if_overheard(address: str, *, quiet: bool) -> None:
    place = Address.parse(address)
    if place.is_overheard:
        text = f"warning: the token goes to {place.origin} over plain http, where whoever is on the way can read it"
        note(text, quiet=quiet, style="yellow")


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
