"""Pulling: what was pushed, byte for byte, complete and verified, or nothing at all."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from registry.connect import Registry
from registry.domain.digest import Digest
from registry.domain.manifest import FileEntry
from registry.errors import CorruptionError, NotFoundError, OutputExistsError, RegistryError, UnavailableError
from registry.operations.contents import contents as contents_of
from tests.operations.adapters import blob_path, tree, write


def contents(directory: Path) -> dict[str, bytes]:
    return {path.relative_to(directory).as_posix(): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def leftovers(root: Path) -> list[str]:
    return [path.name for path in root.iterdir() if "partial" in path.name]


@pytest.mark.parametrize("reference", ["a@1", "a:production", "local/A@1", "sha256"])
def test_what_is_pulled_is_what_was_pushed(lived: Registry, tmp_path: Path, reference: str) -> None:
    if reference == "sha256":
        reference = lived.show("a@1").version.digest.short
    version, manifest = lived.pull(reference, tmp_path / "out")
    assert version.reference == "local/a@1"
    assert contents(tmp_path / "out") == contents(tmp_path / "one")
    assert sum(len(data) for data in contents(tmp_path / "out").values()) == manifest.bytes
    assert leftovers(tmp_path) == []


def test_what_is_pulled_pushes_as_the_same_version(lived: Registry, tmp_path: Path) -> None:
    lived.pull("a@1", tmp_path / "out")
    assert lived.push(tmp_path / "out", name="a").version.reference == "local/a@1"


def test_pulling_changes_nothing_in_the_store(lived: Registry, tmp_path: Path) -> None:
    before = tree(tmp_path / "registry")
    lived.pull("a", tmp_path / "deep" / "down" / "out")
    assert tree(tmp_path / "registry") == before


def test_files_in_folders_and_sidecars_come_back(lived: Registry, tmp_path: Path) -> None:
    directory = write(tmp_path / "x", lora_alpha=1)
    (directory / ".eval_results").mkdir()
    (directory / ".eval_results" / "a.yaml").write_text("[]")
    (directory / "all_results.json").write_text("{}")
    lived.push(directory)
    lived.pull("x", tmp_path / "out")
    assert contents(tmp_path / "out") == contents(directory)
    lived.pull("x", tmp_path / "served", served_only=True)
    assert set(contents(directory)) - set(contents(tmp_path / "served")) == {"all_results.json"}


def test_an_empty_directory_is_a_place(lived: Registry, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    lived.pull("a", tmp_path / "out")
    assert contents(tmp_path / "out") == contents(tmp_path / "two")


def full(place: Path) -> None:
    place.mkdir()
    (place / "mine").write_text("mine")


@pytest.mark.parametrize(
    "occupy",
    [
        full,
        lambda place: place.write_text("mine"),
        lambda place: place.symlink_to(place.parent),
        lambda place: place.symlink_to("nowhere"),
    ],
    ids=["full", "a file", "a link to a directory", "a dangling link"],
)
def test_a_place_that_is_taken_is_left_alone(lived: Registry, tmp_path: Path, occupy: Callable[[Path], object]) -> None:
    occupy(tmp_path / "out")
    before = tree(tmp_path)
    with pytest.raises(OutputExistsError) as caught:
        lived.pull("a", tmp_path / "out")
    assert caught.value.exit_code == 5
    assert tree(tmp_path) == before


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)


def cut(path: Path) -> None:
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-1])


def grow(path: Path) -> None:
    path.chmod(0o644)
    path.write_bytes(path.read_bytes() + b"x")


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def link(path: Path) -> None:
    moved = path.rename(path.parent.parent / "elsewhere")
    path.symlink_to(moved)


@pytest.mark.parametrize("harm", [flip, cut, grow, pipe, link, Path.unlink])
@pytest.mark.parametrize("name", ["adapter_model.safetensors", "adapter_config.json", None])
def test_damage_is_7_and_nothing_is_handed_out(
    lived: Registry, tmp_path: Path, harm: Callable[[Path], object], name: str | None
) -> None:
    harm(blob_path(lived, tmp_path / "registry", "b", name))
    with pytest.raises(CorruptionError) as caught:
        lived.pull("b", tmp_path / "out")
    assert caught.value.exit_code == 7
    assert not (tmp_path / "out").exists()
    assert leftovers(tmp_path) == []
    lived.pull("a", tmp_path / "out")


@pytest.mark.parametrize("reference", ["a@9", "nobody", "a:staging", "sha256:" + "0" * 64])
def test_what_is_not_there_leaves_nothing(lived: Registry, tmp_path: Path, reference: str) -> None:
    with pytest.raises(NotFoundError):
        lived.pull(reference, tmp_path / "below" / "out")
    assert not (tmp_path / "below").exists()


@pytest.mark.parametrize("call", ["fsync", "rename"])
def test_a_disk_that_refuses_leaves_nothing(
    lived: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def refuse(*_arguments: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, call, refuse)
        with pytest.raises(UnavailableError) as caught:
            lived.pull("a", tmp_path / "out")
    assert caught.value.exit_code == 8
    assert not (tmp_path / "out").exists()
    assert leftovers(tmp_path) == []


def test_an_interrupt_leaves_nothing(lived: Registry, tmp_path: Path) -> None:
    def interrupt(_count: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        lived.pull("a", tmp_path / "out", progress=interrupt)
    assert not (tmp_path / "out").exists()
    assert leftovers(tmp_path) == []


def test_what_a_killed_pull_left_is_swept_by_the_next_to_the_same_place(lived: Registry, tmp_path: Path) -> None:
    for name in (".out.partial-dead", ".other.partial-dead"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "half").write_text("x")
    lived.pull("a", tmp_path / "out")
    assert leftovers(tmp_path) == [".other.partial-dead"]


def test_a_pull_at_work_is_not_swept_and_the_later_one_loses(lived: Registry, tmp_path: Path) -> None:
    nested: list[str] = []

    def meanwhile(_count: int) -> None:
        if not nested:
            nested.append("begun")
            lived.pull("b", tmp_path / "out")

    with pytest.raises(RegistryError) as caught:
        lived.pull("a", tmp_path / "out", progress=meanwhile)
    assert caught.value.exit_code == 5
    assert contents(tmp_path / "out") == contents(tmp_path / "three")
    assert leftovers(tmp_path) == []


def test_yanked_is_pulled_by_its_exact_name(lived: Registry, tmp_path: Path) -> None:
    lived.yank("a@2", "broken")
    version, _ = lived.pull("a@2", tmp_path / "out")
    assert version.yanked == "broken"
    version, _ = lived.pull("a", tmp_path / "newest")
    assert version.reference == "local/a@1"


def test_more_bytes_than_the_version_has_are_not_written(lived: Registry, tmp_path: Path) -> None:
    """A store elsewhere that sends without end fills no disk: the first piece too much is not kept."""
    given = []

    def endless() -> Iterator[bytes]:
        while len(given) < 100:
            given.append(1)
            yield b"x" * 1000

    with pytest.raises(CorruptionError, match="2,500 bytes"):
        kept = [len(piece) for piece in contents_of(FileEntry("a", Digest.of(b"a"), 2500), endless(), hint="")]
        assert kept is None
    assert len(given) == 3
