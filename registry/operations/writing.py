"""Small files of an output, each on the disk before the next."""

from __future__ import annotations

import os
from pathlib import Path


def write_new(data: bytes, path: Path) -> None:
    """``path`` must not exist."""
    with open(path, "xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
