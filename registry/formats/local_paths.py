"""Paths of somebody's machine in text that others will read.

A path is only itself where its last name ends: ``/home/me/llama`` is neither in ``/home/me/llama-2`` nor in
``/mnt/home/me/llama``; in ``/home/me/llama/config.json`` it is.
"""

from __future__ import annotations

import re

#: What goes on with a name; a full stop does if a name goes on behind it.
_GOES_ON = r"(?![\w+@%~-]|\.[\w-])"
_BEGINS = r"(?<![\w.+@%~/\\-])"


def without_path(text: str, path: str, instead: str) -> str:
    """``text`` with ``instead`` wherever ``path`` stands. A path without a separator may be any word, and is left."""
    stem = path.rstrip("/\\")
    if "/" not in stem and "\\" not in stem:
        return text
    return re.sub(_BEGINS + re.escape(stem) + _GOES_ON, lambda _found: instead, text)
