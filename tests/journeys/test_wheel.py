"""The built wheel, in an empty virtual environment outside any checkout, does the main job.

The environment has the wheel and, on its path behind it, the third-party packages of the one the tests run in: nothing is
downloaded, and nothing of this checkout can be imported.
"""

from __future__ import annotations

import filecmp
import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from tests.conftest import WriteAdapter

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_the_wheel_does_the_main_job(tmp_path: Path, write_adapter: WriteAdapter) -> None:
    wheel = built(tmp_path / "dist")
    names = zipfile.ZipFile(wheel).namelist()
    assert "registry/catalog/migrations/versions/0001_registry.py" in names
    assert "registry/formats/base_aliases.toml" in names
    assert {name.split("/")[0] for name in names} == {"registry", "cli", names[-1].split("/")[0]}

    home = tmp_path / "empty"
    venv.create(home, with_pip=False, symlinks=True)
    python = home / "bin" / "python"
    site = next((home / "lib").glob("python*/site-packages"))
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--target", site, wheel], check=True)
    (site / "lent.pth").write_text(sysconfig.get_path("purelib") + "\n")

    adapter = write_adapter("my-lora")
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "XDG_DATA_HOME": str(tmp_path / "data")}

    def adapters(*arguments: str) -> str:
        line = [python, "-c", "from cli.main import main; main()", *arguments]
        done = subprocess.run(line, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    where = [python, "-c", "import registry, cli; print(registry.__file__, cli.__file__)"]
    found = subprocess.run(where, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True).stdout
    assert found.count(str(site)) == 2
    assert "local/my-lora@1" in adapters("push", str(adapter))
    assert "local/my-lora@1" in adapters("list")
    assert "openai-community/gpt2" in adapters("show", "my-lora")
    adapters("pull", "my-lora", "-o", "back")
    same, different, missing = filecmp.cmpfiles(adapter, tmp_path / "back", os.listdir(adapter), shallow=False)
    assert (len(same), different, missing) == (2, [], [])
    assert "sound" in adapters("doctor", "--deep")
    assert (tmp_path / "data" / "adapter-registry" / "registry" / "catalog.db").is_file()


def built(into: Path) -> Path:
    line = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "--no-index", "-w", into, ROOT]
    subprocess.run(line, check=True)
    return next(into.glob("*.whl"))
