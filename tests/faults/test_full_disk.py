"""A disk that is really full: what makes room can be done there, and an alias goes back."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from registry.catalog.reserve import SIZE
from tests.conftest import WriteAdapter, lora_tensors

ROOT = Path(__file__).parents[2]
#: In a name space of its own, so that nobody else sees the file system that is mounted.
APART = ["unshare", "--mount", "--map-root-user"]
FULL = """
import json, os, shutil, subprocess, sys
from pathlib import Path
from registry.connect import connect
from registry.domain.digest import Digest
from registry.errors import UnavailableError

disk, first, second, third = map(Path, sys.argv[1:])
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", disk], check=True)
registry = connect(disk / "registry", namespace="team")
registry.push(first, name="x")
registry.push(second, name="x")
registry.set_alias("x", "production", 2)
orphan = bytes(1 << 20)
registry.blobs.put(Digest.of(orphan), [orphan])
filler = os.open(disk / "filler", os.O_CREAT | os.O_WRONLY)
os.posix_fallocate(filler, 0, shutil.disk_usage(disk).free)
said = {"free": shutil.disk_usage(disk).free}
registry = connect(disk / "registry", namespace="team")
registry.set_alias("x", "production", 1)
registry.delete("x@2", "it is too large")
try:
    registry.push(third, name="x")
except UnavailableError as error:
    said["push"] = error.code
collected = registry.gc(grace=0)
said["collected"] = str(Digest.of(orphan)) in map(str, collected.blobs)
said["freed"] = shutil.disk_usage(disk).free
said["aliases"] = registry.aliases("x")
said["reserve"] = (disk / "registry" / "catalog.db.reserve").stat().st_size
said["problems"] = list(registry.doctor(deep=True).problems)
print(json.dumps(said))
"""


def test_what_makes_room_needs_none(write_adapter: WriteAdapter, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = [*APART, "mount", "-t", "tmpfs", "tmpfs", str(disk)]
    if not shutil.which(APART[0]) or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("nobody may mount a file system here")
    adapters = [str(write_adapter(f"a{value}", lora_tensors(value=value))) for value in (0.5, 0.25, 0.75)]
    done = subprocess.run(
        [*APART, sys.executable, "-c", FULL, str(disk), *adapters],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert (said["free"], said["push"], said["collected"]) == (0, "no-space", True)
    assert said["aliases"] == {"production": 1}
    assert said["freed"] > 1_000_000
    assert said["reserve"] == SIZE
    assert said["problems"] == []
