"""What the forked children do: the verbs of the registry, and small programs of them for the races.

Each act takes plain values, opens its own registry and answers a document: that answer is the acknowledgement.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from registry.connect import Registry, connect
from registry.domain.digest import Digest
from registry.errors import AliasMovedError, MissingBlobError, RegistryError
from tests.faults.holdings import holdings, same_files
from tests.faults.spaces import Quota, Space, Tmpfs, enter_namespace, make_read_only, obey_modes

NAME = "local/my-lora"

Document = dict[str, Any]


def push(registry: str, directory: str, name: str, alias: Sequence[str] = ()) -> Document:
    pushed = _open(registry).push(directory, name=name, alias=alias)
    return {
        "reference": pushed.version.reference,
        "number": pushed.version.number,
        "created": pushed.created,
    }


def pull(registry: str, reference: str, into: str) -> Document:
    version, _ = _open(registry).pull(reference, into)
    return {"reference": version.reference}


def gc(registry: str, grace: float = 0) -> Document:
    collected = _open(registry).gc(grace=grace)
    return {"blobs": list(collected.blobs), "leftovers": list(collected.leftovers)}


def alias(registry: str, name: str, alias: str, version: int) -> Document:
    move = _open(registry).set_alias(name, alias, version)
    return {"moved": move is not None}


def look(registry: str) -> Document:
    """Everything that only reads."""
    store = _open(registry)
    listed = [version.reference for version in store.list(all_versions=True)]
    for reference in listed:
        store.show(reference)
    is_begun = Path(registry).is_dir() and any(Path(registry).iterdir())
    problems = store.doctor(deep=True).problems if is_begun else ()
    return {"listed": listed, "problems": [problem.message for problem in problems]}


def fill_up(space: str, place: str, original: str, contents: Document, room: int) -> Document:
    """Push into a file system with ``room`` bytes left; look around there while it is full; grow it; push again."""
    registry = Path(place) / "registry"
    if space == "tmpfs":
        medium: Space = Tmpfs(Path(place), _occupied(Path(original)) + room)
        shutil.copytree(original, registry)
    else:
        shutil.copytree(original, registry)
        medium = Quota(Path(place), room)
    facts: Document = {}
    before = holdings(registry)
    try:
        facts["pushed"] = push(str(registry), contents["E"], NAME, ["production"])
    except RegistryError as error:
        facts["refused"] = {"exit": error.exit_code, "code": error.code, "message": error.message}
        facts["nothing_written"] = holdings(registry) == before
    facts["full"] = look(str(registry))
    pulled = Path(original).parent / f"pulled-{room}"
    pull(str(registry), f"{NAME}@1", str(pulled))
    facts["pulled"] = same_files(Path(contents["A"]), pulled)
    shutil.rmtree(pulled)
    medium.grow()
    facts["again"] = push(str(registry), contents["E"], NAME, ["production"])
    gc(str(registry))
    facts["left"] = [path.name for path in (registry / "staging").iterdir()]
    facts["grown"] = look(str(registry))
    return facts


def tidy_up(place: str, contents: Document) -> Document:
    """What makes room, and an alias that goes back, where there is no byte of it."""
    Tmpfs(Path(place), 6 << 20)
    registry = Path(place) / "registry"
    for content in "AE":
        push(str(registry), contents[content], NAME)
    alias(str(registry), NAME, "production", 2)
    orphan = bytes(1 << 20)
    _open(str(registry)).blobs.put(Digest.of(orphan), [orphan])
    filler = os.open(Path(place) / "filler", os.O_CREAT | os.O_WRONLY)
    os.posix_fallocate(filler, 0, shutil.disk_usage(place).free)
    facts: Document = {"free": shutil.disk_usage(place).free, "back": alias(str(registry), NAME, "production", 1)}
    _open(str(registry)).delete(f"{NAME}@2", "too large")
    facts["collected"] = Digest.of(orphan) in gc(str(registry))["blobs"]
    facts["freed"] = shutil.disk_usage(place).free
    facts["reserve"] = (registry / "catalog.db.reserve").stat().st_size
    return {**facts, **look(str(registry))}


def try_to_mount(place: str) -> Document:
    Tmpfs(Path(place), 4096)
    return {}


def refused_everywhere(place: str, registry: str, how: str, contents: Document) -> Document:
    """Each verb on a registry that cannot be written."""
    if how == "mount":
        enter_namespace()
        make_read_only(Path(place))
    elif how == "modes":
        for path in [Path(registry), *Path(registry).rglob("*")]:
            path.chmod(0o555 if path.is_dir() else 0o444)
        obey_modes()
    writers: dict[str, Callable[[], object]] = {
        "push": lambda: push(registry, contents["B"], NAME),
        "alias": lambda: alias(registry, NAME, "staging", 1),
        "gc": lambda: gc(registry),
    }
    refusals = {}
    for verb, run in writers.items():
        try:
            run()
        except RegistryError as error:
            refusals[verb] = error.exit_code
        except OSError as error:
            refusals[verb] = repr(error)
    return {"refusals": refusals, "looked": look(registry)}


def _occupied(original: Path) -> int:
    """In pages, as a tmpfs counts: two more than the files, for itself."""
    return sum(-(-path.stat().st_size // 4096) * 4096 for path in original.rglob("*") if path.is_file()) + 2 * 4096


def compete_for_alias(registry: str, name: str, alias: str, version: int, expected: int) -> Document:
    try:
        _open(registry).set_alias(name, alias, version, expected=expected)
    except AliasMovedError as error:
        return {"won": None, "found": error.actual}
    return {"won": version}


def push_and_forget(registry: str, directory: str, name: str, rounds: int) -> Document:
    """Push, read back every byte, delete, and push the same again: what a collector must never get in between of."""
    store = _open(registry)
    wanted = {path.name: path.read_bytes() for path in Path(directory).iterdir()}
    lost = 0
    for _ in range(rounds):
        version = store.push(directory, name=name).version
        try:
            details = store.show(version.reference)
            for entry in details.manifest.files:
                lost += b"".join(store.blobs.read(entry.digest)) != wanted[entry.path]
        except MissingBlobError:
            lost += 1
        store.delete(version.reference, "next round")
    return {"lost": lost, "last": store.push(directory, name=name).version.reference}


def collect_often(registry: str, rounds: int) -> Document:
    return {"removed": sum(len(_open(registry).gc(grace=0).blobs) for _ in range(rounds))}


def _open(registry: str) -> Registry:
    return connect(registry, actor="tester")


ACTS: dict[str, Callable[..., Document]] = {
    act.__name__: act
    for act in (
        push, pull, gc, alias, look, fill_up, tidy_up, try_to_mount, refused_everywhere, compete_for_alias, push_and_forget,
        collect_often,
    )
}  # fmt: skip
