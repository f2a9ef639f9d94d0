"""A config that names its base as only this registry knows it is served with the name everybody knows.

An adapter trained on a copy of ``meta-llama/Llama-3.1-8B`` under another name would make every client load that copy. Where the
registry's own table (``adapters base alias``) says what the name means, that one field of ``adapter_config.json`` is replaced,
byte for byte nothing else, and the result is a commit of its own: no commit ever has two contents. What the table does not name
is served as it was pushed.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping

from registry.api.hub_protocol.trees import Entry, Remembered, Trees, tree_of
from registry.domain.base_model import BaseAliases
from registry.domain.digest import Digest
from registry.formats.adapter_config import MAX_BYTES
from registry.formats.adapter_directory import CONFIG

FIELD = "base_model_name_or_path"
_FIELD = re.compile(rb'("base_model_name_or_path"\s*:\s*)("(?:[^"\\]|\\.)*")')


class Rewriting:
    def __init__(self, trees: Trees) -> None:
        self._trees = trees
        self._base_in = Remembered(self._read_base)
        self._rewritten = Remembered(self._rewrite)

    def base_of(self, entry: Entry) -> str | None:
        """What a config names as its base."""
        return self._base_in(entry.digest) if entry.size <= MAX_BYTES else None

    def served(self, commit: str, files: Mapping[str, Entry], aliases: BaseAliases) -> tuple[str, Mapping[str, Entry]]:
        """A commit's id and its files, both as they are unless the base has another name."""
        config = files.get(CONFIG)
        if not aliases.names or config is None or config.data is not None:
            return commit, files
        base = self.base_of(config)
        canonical = aliases.canonical(base) if base is not None else None
        if canonical is None or canonical == base:
            return commit, files
        data = self._rewritten((config.digest, canonical))
        entry = Entry(CONFIG, Digest.of(data), len(data), data)
        identity = json.dumps([commit, entry.digest], separators=(",", ":")).encode("ascii")
        return hashlib.sha256(identity).hexdigest()[:40], tree_of({**files, CONFIG: entry}.values())

    def _read_base(self, digest: Digest) -> str | None:
        try:
            document = json.loads(self._bytes(digest))
        except (ValueError, RecursionError):
            return None
        base = document.get(FIELD) if isinstance(document, dict) else None
        return base if isinstance(base, str) else None

    def _rewrite(self, wanted: tuple[Digest, str]) -> bytes:
        digest, canonical = wanted
        return with_base(self._bytes(digest), canonical)

    def _bytes(self, digest: Digest) -> bytes:
        return b"".join(self._trees.chunks(Entry(CONFIG, digest, 0)))


def with_base(config: bytes, base: str) -> bytes:
    """The same JSON object with another base; its spelling is kept, unless the field stands where only a parser finds it."""
    document = json.loads(config)
    wanted = {**document, FIELD: base}
    for match in _FIELD.finditer(config):
        candidate = config[: match.start(2)] + json.dumps(base).encode() + config[match.end(2) :]
        if json.loads(candidate) == wanted:
            return candidate
    return json.dumps(wanted, indent=2, ensure_ascii=False).encode()
