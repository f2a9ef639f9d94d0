"""Git-LFS pointers: the few lines of text that a clone holds in place of a large file until ``git lfs pull``.

Source: https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md ("The Pointer": the first line is always ``version``).
"""

from __future__ import annotations

from typing import TypeVar

from registry.errors import MalformedFileError

#: How every pointer begins, whatever the version of its specification.
POINTER_START = b"version https://git-lfs.github.com/spec/"

_Error = TypeVar("_Error", bound=MalformedFileError)


def is_lfs_pointer(data: bytes) -> bool:
    """Whether ``data``, the beginning of a file, is a pointer; its first 40 bytes are enough to tell."""
    return data.startswith(POINTER_START)


def lfs_pointer_error(where: str, error: type[_Error] = MalformedFileError) -> _Error:  # type: ignore[assignment]
    """What to raise about a pointer; ``error`` picks the member of the family, the code is always ``lfs-pointer``."""
    return error(
        where,
        "is a Git-LFS pointer, a small text that stands for the real file, not the file itself",
        code="lfs-pointer",
        hint="run `git lfs pull` and try again",
    )
