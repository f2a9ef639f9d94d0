"""The body of a commit: a line of JSON an operation, read as it comes. Files that travel inside it are stored as they are met, so
that a large commit is never in memory as a whole; nothing refers to them before the commit is on record."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from registry.api.hub_protocol.asked import text_of
from registry.api.hub_protocol.errors import EntryMissingError, NotUploadedError, TooLargeError
from registry.api.hub_protocol.policy import Welcome, is_described, welcome
from registry.api.hub_protocol.trees import Entry, Tree, tree_of
from registry.domain.digest import Digest
from registry.domain.paths import require_apart, require_no_folder
from registry.errors import InvalidInputError, MissingBlobError

if TYPE_CHECKING:
    from registry.api.hub_protocol.asked import Asked

#: Bytes of one line: files that clients were told to send inside are smaller by far.
_MAX_LINE = 64 << 20
_MAX_OPERATIONS = 20_000
_MAX_FILES = 20_000
_MAX_TITLE = 1000
#: How ``upload_large_folder`` calls every commit, see huggingface_hub's _upload_large_folder.py, which newer clients do not have.
_TOOL = "Add files using upload-large-folder tool"
_PART = re.compile(r" \(part [0-9]{1,6}\)\Z", re.ASCII)
_OID = re.compile(r"[0-9a-f]{64}", re.ASCII)
_PARENT = re.compile(r"[0-9a-f]{5,40}", re.ASCII | re.IGNORECASE)


@dataclass
class Changes:
    """``files`` are put in place after ``deleted`` files and folders are gone. ``parent`` is the beginning of a commit's id.
    ``summary`` is what the client calls the upload, and ``is_part`` whether it says that this is not its first commit."""

    title: str = ""
    summary: str = ""
    is_part: bool = False
    parent: str | None = None
    files: dict[str, Entry] = field(default_factory=dict)
    deleted: list[str] = field(default_factory=list)
    deleted_folders: list[str] = field(default_factory=list)

    @property
    def is_scattered(self) -> bool:
        """Whether a tool made it that commits what it has when it has it, and says nothing of its last one."""
        return self.summary == _TOOL

    def applied_to(self, tree: Tree, shown: str, commit: str) -> Tree:
        """Raises EntryMissingError, InvalidInputError for paths that cannot be there side by side."""
        files = dict(tree)
        for path in self.deleted:
            if path not in files:
                raise EntryMissingError(shown, commit, path)
            del files[path]
        for folder in self.deleted_folders:
            inside = [path for path in files if not folder or path.startswith(f"{folder}/")]
            if not inside:
                raise EntryMissingError(shown, commit, folder)
            for path in inside:
                del files[path]
        files |= self.files
        _require_tree(files)
        return tree_of(files.values())


def read_changes(asked: Asked) -> Changes:
    """Raises members of InvalidInputError; names the file where one is to blame."""
    changes = Changes()
    for count, line in enumerate(_lines(asked.chunks(limit=asked.settings.max_blob))):
        if count > _MAX_OPERATIONS:
            raise TooLargeError("a commit with so many operations", _MAX_OPERATIONS)
        try:
            document = json.loads(line)
            key, value = document["key"], document["value"]
        except (ValueError, KeyError, TypeError, RecursionError):
            raise InvalidInputError(f"line {count + 1} of the commit is no operation", code="invalid-body") from None
        if not isinstance(value, dict):
            raise InvalidInputError(f"line {count + 1} of the commit is no operation", code="invalid-body")
        _read(str(key), value, changes, asked)
    return changes


def _read(key: str, value: Mapping[str, Any], changes: Changes, asked: Asked) -> None:
    if key == "header":
        summary, description = text_of(value, "summary", default=""), value.get("description")
        changes.title = _one_text(summary, description if isinstance(description, str) else "")
        whole = _PART.sub("", summary)
        changes.summary, changes.is_part = whole[:_MAX_TITLE], whole != summary
        parent = value.get("parentCommit")
        if parent is not None:
            if not isinstance(parent, str) or not _PARENT.fullmatch(parent):
                raise InvalidInputError(f"parentCommit is {parent!r:.80}, expected hex digits", code="invalid-body")
            changes.parent = parent.lower()
        return
    path = text_of(value, "path")
    if key == "deletedFile":
        changes.deleted.append(path)
    elif key == "deletedFolder":
        changes.deleted_folders.append(_folder(path))
    elif key in ("file", "lfsFile"):
        if welcome(path) is Welcome.LEFT_OUT:
            raise InvalidInputError(
                f"{path} is a pickle, which can run code when it is opened; it is not stored",
                code="pickle",
                hint="leave it out: ignore_patterns",
            )
        changes.files[path] = _inline(path, value, asked) if key == "file" else _uploaded(path, value, asked)
    else:
        raise InvalidInputError(f"{key!r:.60} is no operation of a commit", code="invalid-body")


def _folder(path: str) -> str:
    """Empty for the repository's root."""
    plain = path.removeprefix("./").strip("/")
    return "" if plain == "." else plain


def _inline(path: str, value: Mapping[str, Any], asked: Asked) -> Entry:
    content = text_of(value, "content")
    try:
        data = (
            base64.b64decode(content, validate=True)
            if value.get("encoding", "base64") == "base64"
            else content.encode()
        )
    except (binascii.Error, ValueError):
        raise InvalidInputError(f"the content of {path} is no base64", code="invalid-body") from None
    digest = Digest.of(data)
    asked.caller.registry.blobs.put(digest, iter((data,)))
    return Entry(path, digest, len(data))


def _uploaded(path: str, value: Mapping[str, Any], asked: Asked) -> Entry:
    """Only what the caller uploaded, or may read: knowing a digest gives nobody its bytes."""
    oid = text_of(value, "oid")
    if not _OID.fullmatch(oid) or value.get("algo", "sha256") != "sha256":
        raise InvalidInputError(f"the oid of {path} is {oid!r:.80}, expected a SHA-256", code="invalid-body")
    digest = Digest.of_hex(oid)
    try:
        size = asked.services.possessions.size(asked.caller, digest)
    except MissingBlobError:
        raise NotUploadedError(path, oid) from None
    if value.get("size") not in (None, size):
        raise InvalidInputError(
            f"{path} has {size:,} bytes, the commit says {value['size']!r:.40}", code="size-mismatch"
        )
    return Entry(path, digest, size)


def _require_tree(files: Mapping[str, Entry]) -> None:
    if len(files) > _MAX_FILES:
        raise TooLargeError("a repository with so many files", _MAX_FILES)
    require_apart([path for path in files if is_described(path)])
    require_no_folder(files)


def _one_text(summary: str, description: str) -> str:
    first = "".join(letter if letter.isprintable() else " " for letter in summary).strip()[:_MAX_TITLE]
    rest = "".join(letter if letter.isprintable() or letter == "\n" else " " for letter in description).strip()
    return f"{first}\n\n{rest[:_MAX_TITLE]}" if rest else first


def _lines(chunks: Iterator[bytes]) -> Iterator[bytes]:
    kept: list[bytes] = []
    length = 0
    for chunk in chunks:
        *whole, rest = chunk.split(b"\n")
        for part in whole:
            line = b"".join([*kept, part])
            kept, length = [], 0
            if line.strip():
                yield line
        kept.append(rest)
        length += len(rest)
        if length > _MAX_LINE:
            raise TooLargeError("a line of the commit", _MAX_LINE)
    if (line := b"".join(kept)).strip():
        yield line


def digests_of(tree: Tree) -> Sequence[Digest]:
    return sorted({entry.digest for entry in tree.values()})
