"""Every row of the list with the real clients, each generation in a process of its own.

The installed client and the last one before 1.0 are always there; the others are, after ``make conformance``.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from registry.connect import connect
from tests.hub_protocol.conftest import write_one
from tests.hub_protocol.running import CLIENTS, INSTALLED, run_client, serving

#: Of each generation that speaks differently, see the client's own releases.
GENERATIONS = ("0.20.3", "0.26.5", "0.36.2", "1.16.4", "1.33.0")
ALWAYS = "0.36.2"
ROWS = sorted(
    line[4:].partition("(")[0]
    for module in Path(__file__).parent.glob("rows_*.py")
    for line in module.read_text().splitlines()
    if line.startswith("def row_")
)
#: Methods that these did not have yet.
UNKNOWN = {
    "0.20.3": {"row_16_copy", "row_25_revision_exists", "row_35_checksums", "row_57_upload_large_folder"},
    "0.26.5": {"row_35_checksums"},
    "0.36.2": {"row_35_checksums"},
    INSTALLED: {"row_57_upload_large_folder"},
}

pytestmark = pytest.mark.slow

Outcomes = Callable[[str], dict[str, str]]


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory, write_adapters: Callable[[Path], None]) -> Iterator[Outcomes]:
    """What became of the rows with a client, run once."""
    known: dict[str, dict[str, str]] = {}
    with ExitStack() as servers:

        def of(version: str) -> dict[str, str]:
            if version not in known:
                place = tmp_path_factory.mktemp("client")
                write_adapters(place / "adapters")
                server = servers.enter_context(serving(place / "store", anonymous_read=True, page=4))
                facts = {
                    "tokens": dict(server.tokens),
                    "adapters": str(place / "adapters"),
                    "store": str(server.store),
                    "work": str(place),
                }
                done = run_client(server, place / "home", "-m", "tests.hub_protocol.probe", json.dumps(facts), version=version)
                assert done.returncode == 0, done.stderr
                known[version] = json.loads(done.stdout.splitlines()[-1])
            return known[version]

        yield of


@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize("version", [INSTALLED, *GENERATIONS])
def test_row(version: str, row: str, outcomes: Outcomes) -> None:
    if version not in (INSTALLED, ALWAYS) and not os.environ.get("ALL_CLIENTS"):
        pytest.skip(f"huggingface_hub {version}: make conformance")
    assert version == INSTALLED or (CLIENTS / version).is_dir(), f"huggingface_hub {version} is not there: make setup"
    outcome = outcomes(version)[row]
    if row in UNKNOWN.get(version, ()):
        assert outcome.startswith("not in this client")
    else:
        assert outcome == "ok", outcome


DOWNLOAD = """
import sys
from huggingface_hub import ModelCard, hf_hub_download
for name in ("team/x", "team/x@v1", "team/x@production", "team/x.v1", "team/x.production"):
    name, _, revision = name.partition("@")
    print(hf_hub_download(name, "adapter_model.safetensors", revision=revision or None))
if sys.argv[1] == "card":
    ModelCard("# x").push_to_hub("team/x")
"""


@pytest.mark.parametrize("version", [INSTALLED, *GENERATIONS])
def test_a_server_that_wants_a_token_gets_it_for_every_request(version: str, tmp_path: Path) -> None:
    """The oldest client sends none to where it was redirected, and the newest has cards looked at without it."""
    if version not in (INSTALLED, ALWAYS) and not os.environ.get("ALL_CLIENTS"):
        pytest.skip(f"huggingface_hub {version}: make conformance")
    source = write_one(tmp_path / "source")
    connect(tmp_path / "store").push(source, name="team/x", alias="production")
    with serving(tmp_path / "store") as server:
        card = "card" if version == INSTALLED else ""  # older ones ask huggingface.co
        done = run_client(server, tmp_path / "home", "-c", DOWNLOAD, card, version=version)
        assert done.returncode == 0, done.stderr
        for path in done.stdout.split()[:5]:
            assert Path(path).read_bytes() == (source / "adapter_model.safetensors").read_bytes()
        nobody = run_client(server, tmp_path / "other", "-c", DOWNLOAD, "", version=version, token=None)
        assert nobody.returncode != 0
