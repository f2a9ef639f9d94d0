"""Paths of a version's files: below its directory, wherever that is, and nowhere else."""

from __future__ import annotations

from collections.abc import Collection

_MAX_PATH, _MAX_PART, _MAX_DEPTH = 400, 255, 8


def is_plain(path: str) -> bool:
    """Names separated by slashes: nothing that leads out of a directory, or that one system reads otherwise than another."""
    parts = path.split("/")
    return (
        path.isprintable()
        and "\\" not in path
        and _length(path) <= _MAX_PATH
        and len(parts) <= _MAX_DEPTH
        and all(part not in ("", ".", "..") and part.lower() != ".git" and _length(part) <= _MAX_PART for part in parts)
    )


def clash(paths: Collection[str]) -> str | None:
    """One that is there twice, in any case, or is the folder of another."""
    seen: set[str] = set()
    for path in paths:
        if path.lower() in seen:
            return path
        seen.add(path.lower())
    folders = {folder for path in seen for folder in _above(path)}
    return next((path for path in paths if path.lower() in folders), None)


def _above(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:count]) for count in range(1, len(parts))]


def _length(text: str) -> int:
    return len(text.encode(errors="replace"))
