"""Another hub behind ours: what is not here comes from there, as if it were here, with nothing of the caller's told to it."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs

import pytest
from huggingface_hub.utils import parse_ratelimit_headers

from registry.connect import connect
from tests.hub_protocol.in_process import Hub, hub
from tests.hub_protocol.running import Server, run_client, serving

pytestmark = pytest.mark.slow

SHA = "c" * 40
CONFIG, WEIGHTS = b'{"model_type": "tiny"}', b"\x07" * 300_000
OID = hashlib.sha256(WEIGHTS).hexdigest()
FILES = [
    {"type": "file", "path": "config.json", "size": len(CONFIG), "oid": "1" * 40},
    {"type": "file", "path": "model.safetensors", "size": len(WEIGHTS), "oid": "2" * 40, "xetHash": "3" * 64,
     "lfs": {"oid": OID, "size": len(WEIGHTS), "pointerSize": 130}},
]  # fmt: skip


class LikeTheHub(BaseHTTPRequestHandler):
    """Large files lie elsewhere, every answer speaks of Xet, listings come in pages, and one name has moved."""

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        if "/paths-info/" not in self.path:
            self.answer()
            return
        self.server.seen.append((self.path, self.headers.get("Authorization")))  # type: ignore[attr-defined]
        if "json" in self.headers.get("Content-Type", ""):
            asked = json.loads(body)["paths"]
        else:
            asked = parse_qs(body)["paths"]
        found = [each for each in FILES if each["path"] in asked]
        self.reply(200, json.dumps(found).encode(), {"Content-Type": "application/json", "X-Xet-Hash": "3" * 64})

    def answer(self) -> None:
        place, address = self.path, f"http://127.0.0.1:{self.server.server_address[1]}"
        seen: list[tuple[str, str | None]] = self.server.seen  # type: ignore[attr-defined]
        seen.append((self.path, self.headers.get("Authorization")))
        about = {"X-Repo-Commit": SHA, "X-Xet-Hash": "3" * 64, "Link": '<https://cas/x>; rel="xet-auth"'}
        if place.startswith("/api/models/org/base/tree"):
            first = "cursor=" not in place
            link = {"Link": f'<{address}/api/models/org/base/tree/{SHA}?recursive=true&cursor=1>; rel="next"'} if first else {}
            self.reply(200, json.dumps(FILES[:1] if first else FILES[1:]).encode(), link | {"Content-Type": "application/json"})
        elif place.startswith("/api/models/org/base"):
            info = {"id": "org/base", "sha": SHA, "xetEnabled": True, "siblings": [{"rfilename": each["path"]} for each in FILES]}
            self.reply(200, json.dumps(info).encode(), {"Content-Type": "application/json; charset=utf-8"})
        elif place.startswith("/org/old/"):
            self.reply(307, b"", {"Location": place.replace("/org/old/", "/org/base/")})
        elif place.endswith("config.json"):
            self.reply(200, CONFIG, about | {"ETag": '"' + "1" * 40 + '"'})
        elif place.endswith("model.safetensors"):
            linked = {"X-Linked-ETag": f'"{OID}"', "X-Linked-Size": str(len(WEIGHTS))}
            target = address.replace("127.0.0.1", "localhost") + "/cdn"
            self.reply(302, b"", about | linked | {"ETag": f'"{OID}"', "Location": target})
        elif place == "/cdn":
            self.reply(200, WEIGHTS, {})
        else:
            self.reply(404, b"{}", {"X-Error-Code": "RepoNotFound"})

    def reply(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        del format, args


@pytest.fixture
def upstream() -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), LikeTheHub)
    server.seen = []  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def server(tmp_path: Path, upstream: ThreadingHTTPServer) -> Iterator[Server]:
    with serving(tmp_path / "store", upstream=f"http://127.0.0.1:{upstream.server_address[1]}") as found:
        yield found


SCRIPT = """
import hashlib, os, sys
from pathlib import Path
from huggingface_hub import HfApi, HfFileSystem, hf_hub_download, snapshot_download
found = Path(snapshot_download("org/base"))
assert sorted(os.listdir(found)) == ["config.json", "model.safetensors"], os.listdir(found)
assert hashlib.sha256((found / "model.safetensors").read_bytes()).hexdigest() == sys.argv[1]
assert (found / "model.safetensors").resolve().name == sys.argv[1]
assert HfApi().file_exists("org/base", "config.json")
assert not HfApi().file_exists("org/base", "nothing.json")
assert hf_hub_download("org/old", "config.json")
assert len(HfApi().list_repo_files("org/base")) == 2
for name in ("org/base", "gpt2"):
    found = HfApi().get_paths_info(name, ["model.safetensors", "nothing"])
    assert [(each.path, each.size, each.lfs.sha256) for each in found] == [("model.safetensors", 300_000, sys.argv[1])], found
    assert getattr(found[0], "xet_hash", None) is None
assert HfFileSystem().info("org/base/config.json")["size"] == 22
print("same")
"""


@pytest.mark.parametrize("version", ["installed", "0.36.2", "0.26.5"])
def test_a_base_of_another_hub_is_read_through_ours(
    server: Server, upstream: ThreadingHTTPServer, tmp_path: Path, version: str
) -> None:
    if version == "0.26.5" and not os.environ.get("ALL_CLIENTS"):
        pytest.skip(f"huggingface_hub {version}: make conformance")
    done = run_client(server, tmp_path / "home", "-c", SCRIPT, OID, version=version)
    assert done.stdout.endswith("same\n"), done.stderr
    seen: list[tuple[str, str | None]] = upstream.seen  # type: ignore[attr-defined]
    assert seen
    assert {token for _, token in seen} == {None}
    for asked in server.requests:
        assert not [name for name in asked["headers"] if "xet" in name]
        assert "xet" not in asked["headers"].get("link", "")
    assert not [path for path, _ in seen if path.startswith(("/org/base/resolve", "/cdn")) and "Range" in path]


def test_a_name_of_ours_never_comes_from_elsewhere(
    server: Server, upstream: ThreadingHTTPServer, tmp_path: Path, write_adapters: Callable[[Path], None]
) -> None:
    """Nor does an upload go there, nor does a stranger make us ask."""
    import urllib.error
    import urllib.request

    write_adapters(tmp_path / "adapters")
    connect(server.store, namespace="org").push(tmp_path / "adapters" / "a", name="mine")

    def status(method: str, path: str, token: str | None, body: bytes | None = None) -> int:
        headers = {"Authorization": f"Bearer {server.tokens[token]}"} if token else {}
        body = body or (b"{}" if method == "POST" else None)
        try:
            with urllib.request.urlopen(urllib.request.Request(server.address + path, body, headers, method=method)) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            error.close()
            return error.code

    assert status("GET", "/api/models/org/base", "admin") == 404
    assert status("POST", "/api/models/elsewhere/base/preupload/main", "admin") == 404
    assert status("GET", "/elsewhere/base/resolve/main/config.json", None) == 401
    assert status("POST", "/api/models/elsewhere/base/paths-info/main", None) == 401
    assert status("POST", "/api/models/gpt2/preupload/main", "admin") == 404
    assert status("POST", "/api/models/elsewhere/base/paths-info/main", "admin", b"paths=" + b"x" * (1 << 20)) == 413
    assert not upstream.seen  # type: ignore[attr-defined]
    assert status("GET", "/api/models/gpt2", "admin") == 404
    assert [path for path, _ in upstream.seen] == ["/api/models/gpt2"]  # type: ignore[attr-defined]


def test_an_adapter_of_another_server_is_pulled_through_ours(
    tmp_path: Path, write_adapters: Callable[[Path], None]
) -> None:
    """By our own command, every byte held against its digest."""
    write_adapters(tmp_path / "adapters")
    connect(tmp_path / "there", namespace="org").push(tmp_path / "adapters" / "a", name="theirs")
    command = str(Path(sys.executable).with_name("adapters"))
    with (
        serving(tmp_path / "there", anonymous_read=True) as there,
        serving(tmp_path / "here", upstream=there.address) as here,
    ):
        done = run_client(here, tmp_path / "home", command, "pull", "hf://org/theirs", "-o", str(tmp_path / "got"))
    assert done.returncode == 0, done.stderr
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        assert (tmp_path / "got" / name).read_bytes() == (tmp_path / "adapters" / "a" / name).read_bytes()
    assert not [each for each in there.requests if each["authorized"]]


PREFIX = "/artifactory/api/huggingfaceml/models"


class BelowAPath(LikeTheHub):
    """As Artifactory and Nexus stand in for the Hub; ``org/busy`` is asked too often."""

    def answer(self) -> None:
        assert self.path.startswith(f"{PREFIX}/")
        self.path = self.path.removeprefix(PREFIX)
        if self.path == "/api/models/org/busy":
            window = {"RateLimit": '"api";r=0;t=17', "RateLimit-Policy": '"fixed window";"api";q=500;w=300'}
            self.reply(429, b"{}", {"Content-Type": "application/json", "Retry-After": "17", **window})
        else:
            super().answer()


@pytest.fixture
def through(tmp_path: Path) -> Iterator[Hub]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), BelowAPath)
    server.seen = []  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    found = hub(tmp_path / "store", upstream=f"http://127.0.0.1:{server.server_address[1]}{PREFIX}")
    with found.client:
        yield found
    server.shutdown()
    server.server_close()
    thread.join()


def test_an_upstream_below_a_path_says_nothing_of_xet_either(through: Hub) -> None:
    paths = {"paths": [each["path"] for each in FILES]}
    answers = [
        through.ask("GET", "/api/models/org/base"),
        through.ask("GET", "/api/models/org/base/tree/main"),
        through.ask("GET", "/api/models/org/base/tree/main?cursor=1"),
        through.ask("POST", "/api/models/org/base/paths-info/main", json=paths),
    ]
    for answer in answers:
        assert answer.status_code == 200
        assert b"xet" not in answer.content.lower()
    assert [each["path"] for each in answers[2].json()] == ["model.safetensors"]
    assert through.ask("GET", "/org/base/resolve/main/config.json").content == CONFIG


def test_how_long_upstream_asks_to_wait_is_passed_on(through: Hub) -> None:
    answer = through.ask("GET", "/api/models/org/busy")
    assert answer.status_code == 429
    limit = parse_ratelimit_headers(answer.headers)
    assert limit is not None
    assert (limit.remaining, limit.reset_in_seconds, limit.limit) == (0, 17, 500)
    assert answer.headers["Retry-After"] == "17"
