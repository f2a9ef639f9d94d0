"""What the server signs, nobody else can."""

from __future__ import annotations

import hashlib
import logging
import stat
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from registry.api.callers import UnauthenticatedError
from registry.api.hub_protocol import files, lfs
from registry.api.hub_protocol.signing import Signer
from registry.api.hub_protocol.table import ROUTES
from tests.api.sites import site
from tests.conftest import WriteAdapter


def test_all_workers_make_one_key_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "server" / "key"
    with ThreadPoolExecutor(8) as pool:
        texts = list(pool.map(lambda _: Signer(path).signed("lfs", {"size": 1}, seconds=60), range(16)))
    assert all(Signer(path).read("lfs", text)["size"] == 1 for text in texts)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [each.name for each in path.parent.iterdir()] == ["key"]


def test_it_holds_for_one_purpose_and_for_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    signer = Signer(tmp_path / "key")
    text = signer.signed("lfs", {"for": "xet", "until": 1e12}, seconds=60)
    assert signer.read("lfs", text)["for"] == "lfs"
    with pytest.raises(UnauthenticatedError):
        signer.read("xet", text)
    with pytest.raises(UnauthenticatedError):
        Signer(tmp_path / "other").read("lfs", text)
    later = time.time() + 62
    monkeypatch.setattr(time, "time", lambda: later)
    with pytest.raises(UnauthenticatedError):
        signer.read("lfs", text)


@given(st.integers(min_value=0), st.characters())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_changed_letter_passes(tmp_path: Path, at: int, letter: str) -> None:
    signer = Signer(tmp_path / "key")
    text = signer.signed("lfs", {"digest": "a", "size": 1}, seconds=60)
    at %= len(text) - 1  # the last letter of base 64 has bits that mean nothing
    changed = text[:at] + letter + text[at + 1 :]
    if changed != text:
        with pytest.raises(UnauthenticatedError):
            signer.read("lfs", changed)


def test_it_is_not_logged(tmp_path: Path, write_adapter: WriteAdapter, caplog: pytest.LogCaptureFixture) -> None:
    """Neither the signatures of downloads and uploads that hold, nor what stands where the routes have one."""
    caplog.set_level(logging.DEBUG)
    with site(tmp_path, write_adapter) as here:
        old = {"User-Agent": "unknown/None; hf_hub/0.20.3; python/3.11.7"}
        file = here.ask("GET", "/a/secret/resolve/main/adapter_model.safetensors", "alice", headers=old).headers["location"]
        wanted = {"operation": "upload", "objects": [{"oid": hashlib.sha256(b"new").hexdigest(), "size": 3}]}
        batch = here.ask("POST", "/a/secret.git/info/lfs/objects/batch", "alice", wanted).json
        upload = urlsplit(batch["objects"][0]["actions"]["upload"]["href"]).path
        assert here.ask("GET", file).status == here.ask("PUT", upload, body=b"new").status == 200
        signed = [route for route in ROUTES if "{signature}" in route.pattern]
        assert {route.handler for route in signed} == {files.signed, lfs.upload}
        for route in signed:
            for path in (route.pattern, f"/{route.pattern}", route.pattern.replace("_", "%5f", 1)):
                here.ask(route.methods[0], path.replace("{signature}", "facts-invented.seal-invented"), body=b"")
    # uvicorn's log of requests is off, and on here alone: pytest listens to loggers that tell nobody.
    lines = [record.message for record in caplog.records if record.name != "uvicorn.access"]
    assert len([line for line in lines if "/{signature}" in line]) == 2 + 3 * len(signed)
    for secret in (file.split("/")[2], upload.split("/")[2], "facts-invented.seal-invented"):
        assert not any(part in line for part in secret.split(".") for line in lines)
