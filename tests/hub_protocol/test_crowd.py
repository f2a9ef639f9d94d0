"""Several clients, several workers, and limits."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from registry.connect import connect
from tests.hub_protocol.conftest import write_one
from tests.hub_protocol.in_process import hub, in_files
from tests.hub_protocol.running import ROOT, Server, make_tokens, run_client, serving

pytestmark = pytest.mark.slow
WEIGHTS = "adapter_model.safetensors"


def test_commits_at_once_are_one_after_the_other(tmp_path: Path) -> None:
    """Of those made for the same parent one wins; the others are told."""
    here = hub(tmp_path / "store")
    here.create("team/x")
    here.committed("team/x", in_files(write_one(tmp_path / "a")))
    parent = here.sha("team/x")

    def commit(number: int) -> int:
        return here.commit("team/x", {f"notes/{number}.txt": b"x"}, title=f"{number}", parent=parent).status_code

    with ThreadPoolExecutor(6) as pool:
        assert sorted(pool.map(commit, range(6))) == [200, 412, 412, 412, 412, 412]

    def add(number: int) -> int:
        return here.commit("team/x", {f"more/{number}.txt": b"x"}, title=f"{number}").status_code

    with ThreadPoolExecutor(6) as pool:
        assert set(pool.map(add, range(6))) == {200}
    assert len([path for path in here.files("team/x") if path.startswith("more/")]) == 6
    assert not here.registry.doctor(deep=True).problems


PUSH = """
import sys
from pathlib import Path
from huggingface_hub import HfApi
api = HfApi()
name = sys.argv[2]
api.create_repo(name, exist_ok=True)
for number in range(3):
    folder = Path(sys.argv[1]) / name.replace("/", "-") / str(number)
    api.upload_folder(repo_id=name, folder_path=str(folder))
print(len(api.list_repo_refs(name).tags))
"""


def test_four_clients_push_to_two_workers(tmp_path: Path) -> None:
    """Through ``adapters serve``, and every acknowledged version is there."""
    names = [f"team/x{number}" for number in range(4)]
    for at, name in enumerate(names):
        for number in range(3):
            write_one(tmp_path / name.replace("/", "-") / str(number), value=0.1 + at + number / 8)
    store = tmp_path / "store"
    tokens = make_tokens(store)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(Path(sys.executable).with_name("adapters")), "serve", "--port", str(port), "--workers", "2"]
    environment = {**os.environ, "ADAPTERS_REGISTRY": str(store)}
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        server = Server(f"http://127.0.0.1:{port}", store, tokens)
        wait_for(server)
        with ThreadPoolExecutor(4) as pool:
            done = list(
                pool.map(lambda name: run_client(server, tmp_path / f"home-{name[5:]}", "-c", PUSH, str(tmp_path), name), names)
            )
        assert [each.stdout.strip() for each in done] == ["3"] * 4, [each.stderr for each in done]
    finally:
        process.terminate()
        process.wait(60)
    registry = connect(store, namespace="team")
    assert [len(registry.catalog.versions(registry.adapter(name), limit=9)) for name in names] == [3] * 4
    assert not registry.doctor(deep=True).problems


def wait_for(server: Server) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            with urllib.request.urlopen(f"{server.address}/readyz"):
                return
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.1)


def test_who_is_told_to_wait_waits(tmp_path: Path) -> None:
    """A client backs off for as long as it is told, and its push succeeds."""
    with serving(tmp_path / "store", pushes_per_minute=30) as server:
        authorized = {"Authorization": f"Bearer {server.tokens['writer']}"}

        def preupload() -> tuple[int, str | None, str | None]:
            url = f"{server.address}/api/models/team/x/preupload/main"
            try:
                with urllib.request.urlopen(urllib.request.Request(url, b"{}", authorized)) as answer:
                    return answer.status, None, None
            except urllib.error.HTTPError as error:
                error.close()
                return error.code, error.headers["RateLimit"], error.headers["Retry-After"]

        make = "from huggingface_hub import HfApi; HfApi().create_repo('team/x')"
        assert run_client(server, tmp_path / "home", "-c", make).returncode == 0
        while (refused := preupload())[0] != 429:
            pass
        assert refused[1:] == (f'"api";r=0;t={refused[2]}', "2")
        push = "from huggingface_hub import HfApi; HfApi().upload_file(repo_id='team/x', path_in_repo='a', path_or_fileobj=b'1')"
        done = run_client(server, tmp_path / "home", "-c", push)
        assert done.returncode == 0, done.stderr
        statuses = [each["status"] for each in server.requests if each["path"].endswith("/preupload/main")]
        assert statuses[-1] == 200
