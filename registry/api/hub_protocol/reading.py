"""What a repository is and holds, as JSON."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import parse_qs, urlencode

from starlette.responses import JSONResponse, Response

from registry.api.hub_protocol.errors import EntryMissingError, header_text
from registry.api.hub_protocol.models import model_document, stamp
from registry.api.hub_protocol.paths import path_asked_for
from registry.domain.names import MAIN
from registry.errors import InvalidInputError

if TYPE_CHECKING:
    from registry.api.hub_protocol.asked import Asked
    from registry.api.hub_protocol.revisions import History, Revision
    from registry.api.hub_protocol.trees import Tree, Trees

_PAGE, _EXPANDED_PAGE = 1000, 50
_MAX_PATHS = 1000
#: Commits; of so many the files are remembered.
_DEEPEST = 1000
#: Bytes of a question for paths.
MAX_PATHS_INFO = 1 << 20

T = TypeVar("T")


def model_info(asked: Asked) -> Response:
    revision = asked.repository.revision(asked.params.get("revision", MAIN))
    document = model_document(asked.repository, revision, asked.services)
    trees = asked.services.trees
    with_blobs = asked.flag("blobs")
    document["siblings"] = [
        {"rfilename": path} if not with_blobs else _sibling(trees.document(entry))
        for path, entry in revision.tree.items()
    ]
    version = asked.repository.history.version(revision.number)
    if version is None or version.yanked is None:
        return JSONResponse(document)
    warning = header_text(f"yanked; {version.reference} is yanked: {version.yanked}")
    return JSONResponse(document, headers={"X-HF-Warning": warning})


def tree(asked: Asked) -> Response:
    """The files below a directory; those of its sub-directories with ``recursive``."""
    repository = asked.repository
    revision = repository.revision(asked.params["revision"])
    directory = asked.params.get("path", "").strip("/")
    rows = listing(revision.tree, asked.services.trees, directory, recursive=asked.flag("recursive"))
    if directory and not rows:
        raise EntryMissingError(repository.shown, revision.commit, directory)
    expanded = asked.flag("expand")
    page, link = paged(asked, rows, _EXPANDED_PAGE if expanded else _PAGE)
    found = _expanded(page, revision, repository.history) if expanded else page
    return JSONResponse(found, headers={"Link": link} if link else None)


def paths_info(asked: Asked) -> Response:
    """Of the paths that are there; the others are left out. Clients send forms, and JSON."""
    revision = asked.repository.revision(asked.params["revision"])
    if asked.request.headers.get("content-type", "").startswith("application/json"):
        document: Mapping[str, Any] = asked.json(limit=MAX_PATHS_INFO)
    else:
        form = parse_qs(asked.body(limit=MAX_PATHS_INFO).decode("utf-8", "replace"), keep_blank_values=True)
        document = {"paths": form.get("paths", []), "expand": (form.get("expand") or [""])[0].lower() == "true"}
    paths = document.get("paths", [])
    if isinstance(paths, str):
        paths = [paths]
    if not isinstance(paths, list) or not all(isinstance(path, str) for path in paths) or len(paths) > _MAX_PATHS:
        raise InvalidInputError(f"paths are expected as a list of at most {_MAX_PATHS:,}", code="invalid-body")
    found = []
    for path in dict.fromkeys(paths):
        if path in revision.tree:
            found.append(asked.services.trees.document(revision.tree[path]))
        elif any(other.startswith(f"{path.rstrip('/')}/") for other in revision.tree):
            found.append(_directory(path.rstrip("/"), revision.tree))
    return JSONResponse(_expanded(found, revision, asked.repository.history) if document.get("expand") else found)


def refs(asked: Asked) -> Response:
    repository, history = asked.repository, asked.repository.history
    branches = {MAIN: repository.revision(MAIN)}
    tags = {}
    if repository.pinned is None:
        for alias, number in history.aliases.items():
            if alias.lower() != MAIN and (made := history.of_number(number)):
                branches[alias] = history.served(made)
        numbers = [version.number for version in history.versions]
    else:
        numbers = [repository.pinned]
    for number in numbers:
        if made := history.of_number(number):
            tags[f"v{number}"] = history.served(made)
    for name, commit in history.user_tags.items() if repository.pinned is None else ():
        if tagged := history.with_id(commit):
            tags[name] = history.served(tagged)
    document: dict[str, Any] = {
        "branches": [_ref("heads", name, revision) for name, revision in branches.items()],
        "converts": [],
        "tags": [_ref("tags", name, revision) for name, revision in tags.items()],
    }
    if asked.request.query_params.get("include_prs") in ("1", "true", "True"):
        document["pullRequests"] = []
    return JSONResponse(document)


def commits(asked: Asked) -> Response:
    """Newest first, from the revision on."""
    repository, history = asked.repository, asked.repository.history
    line = list(_line(repository.revision(asked.params["revision"]), history))
    page, link = paged(asked, line, _EXPANDED_PAGE)
    documents = [
        {
            "id": each.commit,
            "title": each.title.partition("\n")[0],
            "message": each.title.partition("\n")[2].strip(),
            "date": stamp(each.at),
            "authors": [{"user": each.author}],
        }
        for each in page
    ]
    return JSONResponse(documents, headers={"Link": link} if link else None)


def listing(tree: Tree, trees: Trees, directory: str, *, recursive: bool) -> list[dict[str, Any]]:
    below = f"{directory}/" if directory else ""
    rows: dict[str, dict[str, Any]] = {}
    for path, entry in tree.items():
        if not path.startswith(below):
            continue
        parts = path[len(below) :].split("/")
        for depth in range(1, len(parts) if recursive else min(2, len(parts))):
            folder = below + "/".join(parts[:depth])
            rows.setdefault(folder, _directory(folder, tree))
        if recursive or len(parts) == 1:
            rows[path] = trees.document(entry)
    return [rows[path] for path in sorted(rows)]


def paged(asked: Asked, rows: Sequence[T], most: int) -> tuple[Sequence[T], str | None]:
    """A page, and the ``Link`` to the next. ``cursor`` is how many rows came before."""
    query = asked.request.query_params
    wanted, text = query.get("limit", ""), query.get("cursor", "0")
    size = min(most, max(1, int(wanted))) if wanted.isascii() and wanted.isdecimal() and len(wanted) < 7 else most
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise InvalidInputError(f"{text!r:.80} is no cursor", code="invalid-cursor")
    start = int(text)
    if start + size >= len(rows):
        return rows[start : start + size], None
    following = [(key, value) for key, value in query.multi_items() if key != "cursor"]
    place = f"{asked.address}{path_asked_for(asked.request.scope)}"
    address = f"{place}?{urlencode([*following, ('cursor', str(start + size))])}"
    return rows[start : start + size], f'<{address}>; rel="next"'


def _sibling(row: dict[str, Any]) -> dict[str, Any]:
    """Of a listing's row: the same facts under the names that siblings have for them."""
    found = {"rfilename": row["path"], "size": row["size"], "blobId": row["oid"]}
    if lfs := row.get("lfs"):
        found["lfs"] = {"sha256": lfs["oid"], "size": lfs["size"], "pointerSize": lfs["pointerSize"]}
    return found


def _directory(path: str, tree: Tree) -> dict[str, Any]:
    """No git tree is kept: its name is made of what lies below."""
    inside = "\n".join(f"{each.path} {each.digest}" for each in tree.values() if each.path.startswith(f"{path}/"))
    oid = hashlib.sha256(f"{path}\n{inside}".encode()).hexdigest()[:40]
    return {"type": "directory", "path": path, "oid": oid, "size": 0}


def _line(start: Revision, history: History) -> Iterator[Revision]:
    """As they are served, from the revision on to the initial commit; one that ``main`` never was is alone."""
    yield start
    served = map(history.served, history.line())
    yield from itertools.islice(itertools.dropwhile(lambda each: each.commit != start.commit, served), 1, None)


def _expanded(rows: Sequence[dict[str, Any]], revision: Revision, history: History) -> list[dict[str, Any]]:
    last = _last_commits({row["path"] for row in rows}, revision, history)
    return [
        {**row, "lastCommit": {"id": commit.commit, "title": commit.title.partition("\n")[0], "date": stamp(commit.at)}}
        for row in rows
        for commit in (last[row["path"]],)
    ]


def _last_commits(paths: set[str], revision: Revision, history: History) -> dict[str, Revision]:
    """For each path the last commit up to the revision after which it is another than before. No older one is looked at than
    the paths need, and none behind so many that their files are no longer remembered: there the last that was looked at stands.
    """
    found: dict[str, Revision] = {}
    newer = revision
    for older in itertools.islice(_line(revision, history), 1, _DEEPEST):
        touched = _touched(newer.tree, older.tree)
        found |= {path: newer for path in paths - found.keys() if path in touched}
        if len(found) == len(paths):
            return found
        newer = older
    return {**dict.fromkeys(paths, newer), **found}


def _touched(newer: Tree, older: Tree) -> set[str]:
    """Files that differ, and the folders above them."""
    files = [path for path in newer.keys() | older.keys() if newer.get(path) != older.get(path)]
    return {
        "/".join(parts[:depth]) for parts in (path.split("/") for path in files) for depth in range(1, len(parts) + 1)
    }


def _ref(kind: str, name: str, revision: Revision) -> dict[str, str]:
    return {"name": name, "ref": f"refs/{kind}/{name}", "targetCommit": revision.commit}
