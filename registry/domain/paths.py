"""Paths of a version's files: below its directory, wherever that is, and nowhere else."""

from __future__ import annotations

from collections.abc import Collection

from registry.errors import InvalidInputError

_MAX_PATH, _MAX_PART, _MAX_DEPTH = 400, 255, 8


def is_plain(path: str) -> bool:
    """Names separated by slashes: nothing that leads out of a directory, or that one system reads otherwise than another."""
    return why_not_plain(path) is None


def why_not_plain(path: str) -> str | None:
    """In words, behind the path; None where it is plain."""
    parts = path.split("/")
    odd = next((character for character in path if not character.isprintable()), None)
    if odd is not None:
        return f"has the character U+{ord(odd):04X}, which cannot be seen"
    if "\\" in path:
        return "has a backslash, which separates folders on some systems"
    if any(part in ("", ".", "..") for part in parts):
        return "has an empty name, '.' or '..'"
    if any(part.lower() == ".git" for part in parts):
        return "lies in .git"
    if len(parts) > _MAX_DEPTH:
        return f"is {len(parts)} names deep, expected at most {_MAX_DEPTH}"
    if _length(path) > _MAX_PATH or any(_length(part) > _MAX_PART for part in parts):
        return f"is too long, expected at most {_MAX_PATH} bytes and {_MAX_PART} for each name"
    return None


def require_plain(path: str) -> None:
    """Raises InvalidInputError for anything but names separated by slashes."""
    why = why_not_plain(path)
    if why is not None:
        raise InvalidInputError(
            f"{path!r:.120} is no path below an adapter: it {why}",
            code="invalid-path",
            hint="names separated by slashes, no '..'",
        )


def require_apart(paths: Collection[str]) -> None:
    """Raises InvalidInputError for two paths that are one where capitals do not count, and for a file where a folder is."""
    seen: dict[str, str] = {}
    for path in paths:
        if (lower := path.lower()) in seen:
            raise InvalidInputError(
                f"{seen[lower]!r:.200} and {path!r:.200} are one file on systems where capitals do not count",
                code="clashing-paths",
                hint="remove one of the two, or give it another name",
            )
        seen[lower] = path
    require_no_folder(seen)


def require_no_folder(paths: Collection[str]) -> None:
    """Raises InvalidInputError for a file where another has a folder."""
    folder = next((above for path in paths for above in _above(path) if above in paths), None)
    if folder is not None:
        raise InvalidInputError(f"{folder!r:.200} would be a file and a folder", code="clashing-paths")


def _above(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:count]) for count in range(1, len(parts))]


def _length(text: str) -> int:
    return len(text.encode(errors="replace"))
