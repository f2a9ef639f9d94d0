"""``model.safetensors.index.json``: which of a checkpoint's files holds which tensor.

Format, as transformers writes it::

    {"metadata": {…}, "weight_map": {"lm_head.weight": "model-00001-of-00002.safetensors"}}

A file name that leads out of the checkpoint's directory is refused, not followed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from registry.errors import MalformedFileError
from registry.formats.json_text import parse_json

NAME = "model.safetensors.index.json"
#: Some hundred bytes for a tensor; the mixtures with the most experts have a hundred thousand.
MAX_BYTES = 64 << 20

_FILE = re.compile(r"[\w.-]*\w\.safetensors", re.ASCII)
_AGAIN = "get the index again, or write the checkpoint again with save_pretrained"


def parse_shard_index(data: bytes, *, where: str = NAME) -> Mapping[str, str]:
    """Tensor name → file name. Raises :class:`MalformedFileError`: not JSON, no ``weight_map``, or a file elsewhere."""
    document = _document(data, where)
    weight_map = document.get("weight_map") if isinstance(document, dict) else None
    if not isinstance(weight_map, dict) or not weight_map:
        raise MalformedFileError(where, "has no weight_map of tensor to file", code="no-weight-map", hint=_AGAIN)
    for name, file in weight_map.items():
        if not isinstance(file, str) or _FILE.fullmatch(file) is None:
            found = f"puts {name!r:.80} into {file!r:.80}, expected the name of a .safetensors file beside the index"
            raise MalformedFileError(where, found, code="bad-shard-name", hint=_AGAIN)
    return weight_map


def parse_index_metadata(data: bytes, *, where: str = NAME) -> Mapping[str, object]:
    """What stands beside the map, such as ``total_size``; empty where there is nothing."""
    document = _document(data, where)
    metadata = document.get("metadata") if isinstance(document, dict) else None
    return metadata if isinstance(metadata, dict) else {}


def _document(data: bytes, where: str) -> object:
    return parse_json(data, where=where, max_bytes=MAX_BYTES, max_depth=8)
