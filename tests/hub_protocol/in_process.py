"""The server without sockets, and the few requests of the protocol that tests make by hand."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from httpx2 import Response
from starlette.testclient import TestClient

from registry.api.app import create_app
from registry.api.settings import Settings
from registry.connect import Registry, connect
from tests.hub_protocol.running import make_tokens

WEIGHTS, CONFIG, CARD = "adapter_model.safetensors", "adapter_config.json", "README.md"
#: How ``upload_large_folder`` calls its commits, and how many files a client's first commit of many has, see huggingface_hub's
#: _upload_large_folder.py and _upload_pipeline.py.
TOOL, CUT = "Add files using upload-large-folder tool", 250


@dataclass
class Hub:
    store: Path
    client: TestClient
    tokens: dict[str, str] = field(default_factory=dict)
    who: str | None = "writer"

    @property
    def registry(self) -> Registry:
        return connect(self.store, namespace="team")

    def ask(self, method: str, path: str, *, who: str | None = "", **more: Any) -> Response:
        name = self.who if who == "" else who
        headers = {"Authorization": f"Bearer {self.tokens[name]}"} if name and self.tokens else {}
        headers |= more.pop("headers", {})
        found: Response = self.client.request(method, path, headers=headers, follow_redirects=False, **more)
        return found

    def get(self, path: str, *, who: str | None = "", **more: Any) -> Any:
        found = self.ask("GET", path, who=who, **more)
        assert found.status_code == 200, (found.status_code, found.text)
        return found.json()

    def create(self, name: str, *, private: bool = False) -> None:
        namespace, _, short = name.partition("/")
        wanted = {"organization": namespace, "name": short, "private": private}
        assert self.ask("POST", "/api/repos/create", json=wanted).status_code == 200

    def announce(self, name: str, files: Mapping[str, bytes]) -> Response:
        rows = [
            {"path": path, "size": len(data), "sample": base64.b64encode(data[:512]).decode()} for path, data in files.items()
        ]
        return self.ask("POST", f"/api/models/{name}/preupload/main", json={"files": rows})

    def commit(
        self,
        name: str,
        files: Mapping[str, bytes],
        *,
        title: str = "a commit",
        parent: str | None = None,
        deleted: tuple[str, ...] = (),
        folders: tuple[str, ...] = (),
        who: str | None = "",
    ) -> Response:
        """Every file inside the commit."""
        lines = [{"key": "header", "value": {"summary": title, **({"parentCommit": parent} if parent else {})}}]
        for path, data in files.items():
            content = base64.b64encode(data).decode()
            lines.append({"key": "file", "value": {"path": path, "encoding": "base64", "content": content}})
        lines += [{"key": "deletedFile", "value": {"path": path}} for path in deleted]
        lines += [{"key": "deletedFolder", "value": {"path": path}} for path in folders]
        body = b"\n".join(json.dumps(line).encode() for line in lines)
        return self.ask("POST", f"/api/models/{name}/commit/main", content=body, who=who)

    def committed(self, name: str, files: Mapping[str, bytes], **more: Any) -> str:
        found = self.commit(name, files, **more)
        assert found.status_code == 200, found.text
        oid: str = found.json()["commitOid"]
        return oid

    def sha(self, name: str, revision: str = "main") -> str:
        found: str = self.get(f"/api/models/{name}/revision/{revision}")["sha"]
        return found

    def files(self, name: str, revision: str = "main") -> list[str]:
        return [row["path"] for row in self.get(f"/api/models/{name}/tree/{revision}?recursive=true") if row["type"] == "file"]

    def read(self, name: str, path: str, revision: str = "main") -> bytes:
        found = self.ask("GET", f"/{name}/resolve/{self.sha(name, revision)}/{path}")
        assert found.status_code == 200
        content: bytes = found.content
        return content

    def tags(self, name: str) -> list[str]:
        return sorted(each["name"] for each in self.get(f"/api/models/{name}/refs")["tags"])


def hub(store: Path, **options: Any) -> Hub:
    """With tokens, unless they are not wanted."""
    with_tokens = options.pop("tokens", True)
    connect(store).catalog.prepare()
    tokens = make_tokens(store) if with_tokens else {}
    client = TestClient(create_app(Settings(location=store, **options)), base_url="http://localhost")
    return Hub(store, client, tokens)


def reopened(here: Hub) -> Hub:
    """Another server of the same store."""
    client = TestClient(create_app(Settings(location=here.store)), base_url="http://localhost")
    return Hub(here.store, client, here.tokens, here.who)


def in_files(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir() if path.is_file()}


def soon(is_so: Callable[[], bool], *, seconds: float = 20) -> bool:
    deadline = time.monotonic() + seconds
    while not is_so() and time.monotonic() < deadline:
        time.sleep(0.05)
    return is_so()
