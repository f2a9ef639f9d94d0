"""A server that is killed while clients push, again and again: what it acknowledged is there, and nothing is half there."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from registry.connect import connect
from tests.hub_protocol.conftest import write_one
from tests.hub_protocol.running import Server, client_environment, make_tokens, started

pytestmark = pytest.mark.slow
CLIENTS, PUSHES, KILLS = 4, 4, 5

PUSH = """
import json, sys, time
from pathlib import Path
from huggingface_hub import HfApi, constants
constants.HF_HUB_DISABLE_XET = len(sys.argv) > 3
api = HfApi()
name, folders = sys.argv[1], Path(sys.argv[2])

def until_it_works(call):
    while True:
        try:
            return call()
        except Exception as error:
            if getattr(getattr(error, "response", None), "status_code", 500) < 500:
                raise
            time.sleep(0.2)

until_it_works(lambda: api.create_repo(name, exist_ok=True))
for folder in sorted(folders.iterdir()):
    made = until_it_works(lambda: api.upload_folder(repo_id=name, folder_path=str(folder)))
    print(json.dumps([folder.name, made.oid]), flush=True)
    time.sleep(0.5)
"""


def test_what_was_acknowledged_survives(tmp_path: Path) -> None:
    store = tmp_path / "store"
    connect(store).catalog.prepare()
    tokens = make_tokens(store)
    process, port = started(store)
    server = Server(f"http://127.0.0.1:{port}", store, tokens)
    pushers = []
    for number in range(CLIENTS):
        for push in range(PUSHES):
            write_one(tmp_path / f"{number}" / f"{push}", value=0.1 + number + push / 16, width=20_000)
        arguments = [sys.executable, "-c", PUSH, f"team/x{number}", str(tmp_path / f"{number}"), *(["lfs"] * (number % 2))]
        environment = client_environment(server, tmp_path / f"home{number}")
        pushers.append(subprocess.Popen(arguments, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
    moments = random.Random(4)
    try:
        for _ in range(KILLS):
            time.sleep(moments.uniform(0.5, 2.0))
            process.kill()
            process.wait()
            process, _ = started(store, port=port)
        told = [each.communicate(timeout=300) for each in pushers]
    finally:
        process.kill()
        process.wait()
        for each in pushers:
            each.kill()
    registry = connect(store, namespace="team")
    for number, (out, err) in enumerate(told):
        acknowledged = dict(json.loads(line) for line in out.splitlines())
        assert len(acknowledged) == PUSHES, err
        versions = registry.catalog.versions(registry.adapter(f"x{number}"), limit=99)
        assert len(versions) == PUSHES
        assert {version.digest.hex[:40] for version in versions} == set(acknowledged.values())
    assert not registry.doctor(deep=True).problems
