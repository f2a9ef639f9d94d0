"""The doctor finds what is wrong, says which invariant it breaks and who suffers, and finds nothing where nothing is."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from registry.connect import Registry, connect
from registry.domain.digest import Digest
from registry.errors import NotFoundError
from tests.operations.adapters import blob_path, tree
from tests.operations.test_fetch import cut, flip, grow, link, pipe

BOTH = ("local/a@1", "local/a@2")


def examined(root: Path, *, deep: bool = False) -> list[tuple[str, str, tuple[str, ...]]]:
    """(invariant, message, owners) of each problem, as another process sees them; looking changes nothing."""
    before = tree(root / "registry")
    found = connect(root / "registry").doctor(deep=deep).problems
    assert tree(root / "registry") == before
    return [(problem.invariant, problem.message, problem.owners) for problem in found]


def test_a_sound_registry_has_nothing(lived: Registry, tmp_path: Path) -> None:
    assert examined(tmp_path) == examined(tmp_path, deep=True) == []
    found = lived.doctor()
    assert (found.versions, found.blobs, found.unreferenced) == (3, 8, 0)


def test_a_registry_that_is_not_there_is_not_sound(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="there is no registry at"):
        connect(tmp_path / "registry").doctor(deep=True)
    assert not (tmp_path / "registry").exists()


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (cut, "adapter_model.safetensors has 303 bytes, expected 304"),
        (grow, "adapter_model.safetensors has 305 bytes, expected 304"),
        (Path.unlink, "adapter_model.safetensors is missing"),
        (pipe, "adapter_model.safetensors is missing"),
        (link, "adapter_model.safetensors is missing"),
    ],
)
def test_weights_of_another_length_are_found_without_reading(
    lived: Registry, tmp_path: Path, harm: Callable[[Path], object], message: str
) -> None:
    path = blob_path(lived, tmp_path / "registry", "a@1", "adapter_model.safetensors")
    size = path.stat().st_size
    harm(path)
    if path.is_file() and not path.is_symlink():
        path.chmod(0o444)
    found = [problem for problem in examined(tmp_path) if problem[0] == "I1"]
    assert found == [("I1", message.replace("304", str(size)).replace("303", str(size - 1)).replace("305", str(size + 1)), BOTH)]


def test_a_flipped_bit_is_found_by_reading(lived: Registry, tmp_path: Path) -> None:
    path = blob_path(lived, tmp_path / "registry", "a@1", "adapter_model.safetensors")
    flip(path)
    path.chmod(0o444)
    assert examined(tmp_path) == []
    ((invariant, message, owners),) = examined(tmp_path, deep=True)
    assert (invariant, owners) == ("I1", BOTH)
    assert "adapter_model.safetensors was changed: its bytes hash to sha256:" in message


@pytest.mark.parametrize("harm", [flip, cut, Path.unlink])
def test_a_damaged_manifest_is_found_at_once(lived: Registry, tmp_path: Path, harm: Callable[[Path], object]) -> None:
    path = blob_path(lived, tmp_path / "registry", "b")
    harm(path)
    if path.exists():
        path.chmod(0o444)
    for deep in (False, True):
        found = examined(tmp_path, deep=deep)
        assert ("I1", ("local/b@1",)) in [(invariant, owners) for invariant, _, owners in found]


@pytest.mark.parametrize("harm", [flip, Path.unlink])
def test_a_damaged_results_file_is_found(lived: Registry, tmp_path: Path, harm: Callable[[Path], object]) -> None:
    digest = Digest.of((tmp_path / "results.json").read_bytes())
    path = tmp_path / "registry" / "blobs" / "sha256" / digest.hex[:2] / digest.hex
    harm(path)
    if path.exists():
        path.chmod(0o444)
    ((invariant, message, owners),) = examined(tmp_path, deep=True)
    assert (invariant, owners) == ("I1", ("local/a@2",))
    assert message.startswith("a recorded results file")


def test_a_writable_blob_is_found(lived: Registry, tmp_path: Path) -> None:
    blob_path(lived, tmp_path / "registry", "b", "adapter_model.safetensors").chmod(0o644)
    ((invariant, message, _),) = examined(tmp_path)
    assert (invariant, "is writable (mode 0644, expected 0444)" in message) == ("I2", True)


@pytest.mark.parametrize(
    "plant",
    [
        lambda blobs: (blobs / "notes.txt").write_text("x"),
        lambda blobs: (blobs / "ab").mkdir() or (blobs / "ab" / "notes.txt").write_text("x"),
        lambda blobs: (blobs / "ab").mkdir() or (blobs / "ab" / ("cd" + "0" * 62)).write_text("x"),
        lambda blobs: (blobs / "zz").mkdir(),
        lambda blobs: (blobs / "ab").symlink_to("/etc"),
        lambda blobs: (blobs / "ab").mkdir() or os.mkfifo(blobs / "ab" / ("ab" + "0" * 62)),
    ],
)
def test_a_stranger_is_found_and_not_entered(lived: Registry, tmp_path: Path, plant: Callable[[Path], object]) -> None:
    blobs = tmp_path / "registry" / "blobs" / "sha256"
    for shard in blobs.iterdir():
        assert shard.name not in {"ab", "zz"}, "the template's digests moved: choose other names"
    plant(blobs)
    ((invariant, _, owners),) = examined(tmp_path, deep=True)[:1]
    assert (invariant, owners) == ("I2", ())


def test_an_unreferenced_blob_is_no_problem_unless_it_lies_about_its_name(lived: Registry, tmp_path: Path) -> None:
    lived.blobs.put(Digest.of(b"x"), (b"x",))
    assert lived.doctor(deep=True).problems == ()
    assert lived.doctor().unreferenced == 1
    path = tmp_path / "registry" / "blobs" / "sha256" / Digest.of(b"x").hex[:2] / Digest.of(b"x").hex
    path.chmod(0o644)
    path.write_bytes(b"y")
    path.chmod(0o444)
    ((invariant, message, _),) = examined(tmp_path, deep=True)
    assert (invariant, message.startswith("an unreferenced blob was changed")) == ("I2", True)


@pytest.mark.parametrize(
    "edit",
    [
        "UPDATE version SET rank = 64 WHERE adapter = 'local/a'",
        "UPDATE alias SET number = 2",
        "DELETE FROM version WHERE adapter = 'local/b'",
        "UPDATE audit SET hash = 'x' WHERE sequence = 1",
        "DROP TABLE tag",
        "DELETE FROM alembic_version",
    ],
)
def test_an_edited_row_is_found(lived: Registry, tmp_path: Path, edit: str) -> None:
    connection = sqlite3.connect(tmp_path / "registry" / "catalog.db")
    connection.execute(edit)
    connection.commit()
    connection.close()
    assert examined(tmp_path) != []


@pytest.mark.parametrize(
    "harm",
    [
        Path.unlink,
        lambda catalog: catalog.write_bytes(b"not a database at all" * 1000),
        lambda catalog: catalog.write_bytes(catalog.read_bytes()[:8192]),
    ],
    ids=["gone", "rubbish", "cut off"],
)
def test_a_catalog_that_cannot_answer_is_one_problem_and_the_blobs_are_looked_at(
    lived: Registry, tmp_path: Path, harm: Callable[[Path], object]
) -> None:
    harm(tmp_path / "registry" / "catalog.db")
    (tmp_path / "registry" / "blobs" / "sha256" / "notes.txt").write_text("x")
    found = examined(tmp_path)
    assert [message for invariant, message, _ in found if invariant == "I2"] != []
    assert any("adapters rebuild" in message for invariant, message, _ in found if invariant == "I9"), found
    connect(tmp_path / "registry").rebuild()
    assert [invariant for invariant, _, _ in examined(tmp_path)] == ["I2"]


def test_an_emptied_store_names_every_version(lived: Registry, tmp_path: Path) -> None:
    for path in (tmp_path / "registry" / "blobs").rglob("*"):
        if path.is_file():
            path.unlink()
    owners = {owner for _, _, owned in examined(tmp_path) for owner in owned}
    assert owners == {"local/a@1", "local/a@2", "local/b@1"}


def test_what_killed_commands_left_is_no_problem(lived: Registry, tmp_path: Path) -> None:
    (tmp_path / "registry" / "staging" / "dead").write_bytes(b"x")
    (tmp_path / "registry" / "journal" / "000000" / "000000009.ab.tmp").write_bytes(b"x")
    assert examined(tmp_path, deep=True) == []


def test_progress_counts_every_byte_that_is_read(lived: Registry, tmp_path: Path) -> None:
    counted: list[int] = []
    lived.doctor(deep=True, progress=counted.append)
    assert sum(counted) == sum(lived.blobs.size(digest) for digest in lived.blobs.digests())


def test_blobs_without_catalog_and_journal_are_a_loss(lived: Registry, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "registry" / "journal")
    for path in (tmp_path / "registry").glob("catalog.db*"):
        path.unlink()
    assert [(invariant, message[:16]) for invariant, message, _ in examined(tmp_path)] == [("I9", "there are 8 blob")]
