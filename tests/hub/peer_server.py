"""A hub that can be written to, on loopback: enough of the wire protocol for huggingface_hub to create repositories, commit
(inline and by Git-LFS), tag, list and download. Everything asked is on record, and it can be told to lie."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote

TOKEN = "hf_the-secret"
Tree = dict[str, bytes]
Refusal = tuple[int, bytes] | tuple[int, bytes, Mapping[str, str]]


def git_sha1(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def is_large(path: str) -> bool:
    """What the Hub's .gitattributes keep in large-file storage."""
    return path.endswith((".safetensors", ".bin", ".pt"))


@dataclass
class Repository:
    private: bool = False
    commits: dict[str, Tree] = field(default_factory=dict)
    titles: list[str] = field(default_factory=list)
    head: str = ""
    tags: dict[str, str] = field(default_factory=dict)

    def add(self, tree: Mapping[str, bytes], title: str = "someone") -> str:
        self.titles.append(title)
        facts = [self.head, len(self.commits), title, sorted((path, git_sha1(data)) for path, data in tree.items())]
        self.head = hashlib.sha1(json.dumps(facts).encode(), usedforsecurity=False).hexdigest()
        self.commits[self.head] = dict(tree)
        return self.head

    @property
    def tree(self) -> Tree:
        return self.commits[self.head]

    def resolve(self, revision: str) -> str | None:
        if revision in self.commits:
            return revision
        return self.head if revision == "main" else self.tags.get(revision)


@dataclass(frozen=True)
class Asked:
    method: str
    path: str
    token: str | None


@dataclass
class Lies:
    """What the server says that is not so; paths are those of files."""

    listed: list[str] | None = None  #: names instead of the tree's
    sizes: dict[str, object] = field(default_factory=dict)
    digests: dict[str, object] = field(default_factory=dict)
    sent: dict[str, bytes] = field(default_factory=dict)  #: bytes that come instead
    redirects: dict[str, str] = field(default_factory=dict)
    commit: object = None  #: instead of the commit's id
    keeps: Callable[[str, bytes], bytes] | None = None  #: what a commit does to a file


class PeerServer(ThreadingHTTPServer):
    """``refuse`` answers a request before anything else does: a status, a body and maybe headers, ``drop`` for a connection
    that is cut, or None.
    ``before_commit`` and ``after_commit`` run around a commit; the latter may ask to ``drop`` the answer."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories: dict[str, Repository] = {}
        self.stored: dict[str, bytes] = {}
        self.asked: list[Asked] = []
        self.lies = Lies()
        self.storage = self.address
        self.refuse: Callable[[str, str], Refusal | str | None] = lambda _method, _path: None
        self.before_commit: Callable[[Repository], None] = lambda _repository: None
        self.after_commit: Callable[[Repository], str | None] = lambda _repository: None

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def have(self, name: str, tree: Mapping[str, bytes], *, private: bool = False) -> Repository:
        repository = self.repositories.setdefault(name, Repository(private))
        repository.add(tree)
        return repository

    def writes(self) -> list[Asked]:
        """What was asked that changes something."""
        harmless = ("paths-info", "validate-yaml", "preupload")
        return [
            one for one in self.asked if one.method not in ("GET", "HEAD") and not any(h in one.path for h in harmless)
        ]

    def handle_error(self, *_arguments: object) -> None: ...  # a client that hung up is what some tests are about


class _Handler(BaseHTTPRequestHandler):
    server: PeerServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *_arguments: object) -> None: ...

    def _serve(self) -> None:
        path = unquote(self.path.partition("?")[0])
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ") or None
        if path != "/api/agent-harnesses":  # which the library asks once a day, for itself
            self.server.asked.append(Asked(self.command, path, token))
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        refused = self.server.refuse(self.command, path)
        if refused == "drop":
            self.close_connection = True
            return
        if isinstance(refused, tuple):
            self._answer(*refused)
            return
        for pattern, act in _ROUTES:
            if match := re.fullmatch(pattern, f"{self.command} {path}"):
                act(self, *match.groups())
                return
        self._answer(404, b"{}")

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _serve  # noqa: N815 - the names are the library's

    def create(self) -> None:
        asked = json.loads(self.body)
        name = f"{asked.get('organization') or 'me'}/{asked['name']}"
        there = name in self.server.repositories
        if not there:
            repository = Repository(asked.get("visibility") == "private" or bool(asked.get("private")))
            repository.add({".gitattributes": b"*.safetensors filter=lfs\n"}, "initial commit")
            self.server.repositories[name] = repository
        self._json({"url": f"{self.server.address}/{name}", "name": name}, 409 if there else 200)

    def model(self, name: str, revision: str | None) -> None:
        if (found := self._found(name, revision or "main")) is None:
            return
        repository, commit = found
        lies = self.server.lies
        names = lies.listed if lies.listed is not None else list(repository.commits[commit])
        self._json(
            {
                "id": name, "sha": lies.commit or commit, "private": repository.private,
                "siblings": [{"rfilename": each} for each in names],
            }
        )  # fmt: skip

    def paths_info(self, name: str, revision: str) -> None:
        if (found := self._found(name, revision)) is None:
            return
        repository, commit = found
        tree = repository.commits[commit]
        asked = parse_qs(self.body.decode()).get("paths", [])
        self._json([self._about(path, tree[path]) for path in asked if path in tree])

    def _about(self, path: str, data: bytes) -> dict[str, object]:
        lies = self.server.lies
        size = lies.sizes.get(path, len(data))
        digest = lies.digests.get(path)
        if not is_large(path):
            return {"type": "file", "path": path, "size": size, "oid": digest or git_sha1(data)}
        large = {"oid": digest or hashlib.sha256(data).hexdigest(), "size": size, "pointerSize": 130}
        return {"type": "file", "path": path, "size": size, "oid": git_sha1(b"pointer"), "lfs": large}

    def refs(self, name: str) -> None:
        repository = self.server.repositories[name]
        tags = [{"name": tag, "ref": f"refs/tags/{tag}", "targetCommit": at} for tag, at in repository.tags.items()]
        head = {"name": "main", "ref": "refs/heads/main", "targetCommit": repository.head}
        self._json({"branches": [head], "converts": [], "tags": tags})

    def add_tag(self, name: str, revision: str) -> None:
        repository = self.server.repositories[name]
        tag = json.loads(self.body)["tag"]
        if tag in repository.tags:
            self._json({"error": "Tag reference exists already"}, 409)
        else:
            repository.tags[tag] = repository.resolve(revision) or ""
            self._json({}, 201)

    def remove_tag(self, name: str, tag: str) -> None:
        del self.server.repositories[name].tags[tag]
        self._answer(204, b"")

    def validate(self) -> None:
        self._json({"errors": [], "warnings": []})

    def preupload(self, name: str, revision: str) -> None:
        if (found := self._found(name, revision)) is None:
            return
        tree = found[0].commits[found[1]]
        files = []
        for file in json.loads(self.body)["files"]:
            path, large = file["path"], is_large(file["path"])
            there: dict[str, str] = {}
            if path in tree:
                there["oid"] = hashlib.sha256(tree[path]).hexdigest() if large else git_sha1(tree[path])
            files.append({"path": path, "uploadMode": "lfs" if large else "regular", "shouldIgnore": False, **there})
        self._json({"files": files})

    def batch(self, _name: str) -> None:
        objects = []
        for one in json.loads(self.body)["objects"]:
            href = f"{self.server.storage}/storage/{one['oid']}"
            known = one["oid"] in self.server.stored
            verify = {"href": f"{self.server.address}/storage-verify"}
            objects.append({**one, **({} if known else {"actions": {"upload": {"href": href}, "verify": verify}})})
        self._json({"transfer": "basic", "objects": objects})

    def put(self, oid: str) -> None:
        self.server.stored[oid] = self.body
        self._answer(200 if hashlib.sha256(self.body).hexdigest() == oid else 400, b"")

    def verify(self) -> None:
        self._json({})

    def commit(self, name: str, revision: str) -> None:
        repository = self.server.repositories[name]
        lines = [json.loads(line) for line in self.body.splitlines()]
        self.server.before_commit(repository)
        header = lines[0]["value"]
        if header.get("parentCommit", repository.head) != repository.head:
            self._json({"error": "main has moved"}, 412)
            return
        tree = dict(repository.tree)
        for line in lines[1:]:
            value, path = line["value"], line["value"]["path"]
            if line["key"] == "deletedFile":
                del tree[path]
                continue
            data = base64.b64decode(value["content"]) if line["key"] == "file" else self.server.stored[value["oid"]]
            keeps = self.server.lies.keeps
            tree[path] = keeps(path, data) if keeps else data
        oid = repository.add(tree, header["summary"])
        if self.server.after_commit(repository) == "drop":
            self.close_connection = True
            return
        self._json({"success": True, "commitOid": oid, "commitUrl": f"{self.server.address}/{name}/commit/{oid}"})

    def file(self, name: str, revision: str, path: str) -> None:
        if (found := self._found(name, revision)) is None:
            return
        repository, commit = found
        lies = self.server.lies
        if path in lies.redirects:
            self._answer(302, b"", {"Location": lies.redirects[path]})
            return
        data = lies.sent.get(path, repository.commits[commit].get(path))
        if data is None:
            self._answer(404, b"{}", {"X-Error-Code": "EntryNotFound"})
            return
        about = {"ETag": f'"{git_sha1(data)}"', "X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
        if match := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "")):
            start = int(match[1])
            about["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
            self._answer(206, data[start:], about)
        else:
            self._answer(200, data, about)

    def _found(self, name: str, revision: str) -> tuple[Repository, str] | None:
        repository = self.server.repositories.get(name)
        if repository is None or (repository.private and self.headers.get("Authorization") != f"Bearer {TOKEN}"):
            self._answer(404, b"{}", {"X-Error-Code": "RepoNotFound"})
            return None
        commit = repository.resolve(revision)
        if commit is None:
            self._answer(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
            return None
        return repository, commit

    def _json(self, document: object, status: int = 200) -> None:
        self._answer(status, json.dumps(document).encode(), {"Content-Type": "application/json"})

    def _answer(self, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


_MODEL = r"/api/models/([^/]+/[^/]+)"
_ROUTES: list[tuple[str, Any]] = [
    ("POST /api/repos/create", _Handler.create),
    ("POST /api/validate-yaml", _Handler.validate),
    (f"GET {_MODEL}(?:/revision/(.+))?", _Handler.model),
    (f"POST {_MODEL}/paths-info/(.+)", _Handler.paths_info),
    (f"GET {_MODEL}/refs", _Handler.refs),
    (f"POST {_MODEL}/tag/(.+)", _Handler.add_tag),
    (f"DELETE {_MODEL}/tag/(.+)", _Handler.remove_tag),
    (f"POST {_MODEL}/preupload/(.+)", _Handler.preupload),
    (f"POST {_MODEL}/commit/(.+)", _Handler.commit),
    (r"POST /([^/]+/[^/]+)\.git/info/lfs/objects/batch", _Handler.batch),
    (r"PUT /storage/([0-9a-f]{64})", _Handler.put),
    ("POST /storage-verify", _Handler.verify),
    (r"(?:GET|HEAD) /([^/]+/[^/]+)/resolve/([^/]+)/(.+)", _Handler.file),
]


@contextmanager
def peer() -> Iterator[PeerServer]:
    server = PeerServer()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
