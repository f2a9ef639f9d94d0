"""What the server signs, nobody else can."""

from __future__ import annotations

import stat
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from registry.api.callers import UnauthenticatedError
from registry.api.hub_protocol.signing import Signer


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
