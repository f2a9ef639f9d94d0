"""A commit of the Hub's protocol: a whole tree of files under an id that looks like git's."""

from __future__ import annotations

from dataclasses import dataclass

from registry.domain.digest import Digest


@dataclass(frozen=True, slots=True)
class Commit:
    """``id`` is 40 hexadecimal digits. ``tree`` is the blob that lists the files. ``number`` is the version whose adapter the
    tree holds, 0 before the first and for a ``draft``, which waits for the rest of an upload and is not shown by ``main``."""

    id: str
    sequence: int
    parent: str | None
    tree: Digest
    title: str
    author: str
    at: str
    number: int
    draft: bool
