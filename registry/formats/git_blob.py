"""What git calls the bytes of a file: the SHA-1 of a header with their number, and of them.

Source: https://git-scm.com/book/en/v2/Git-Internals-Git-Objects ("Object Storage").
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hashlib import _Hash


def git_hasher(size: int) -> _Hash:
    """To be given all ``size`` bytes."""
    return hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
