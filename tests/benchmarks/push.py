"""What a push costs: ``python -m tests.benchmarks.push``.

One 50 MB adapter (all linear layers of a 1.1B Llama: r = 16 in F32, r = 32 in BF16), the whole command, into a registry
that holds one small adapter, and into none, which makes it. The peer is ``sha256sum`` and ``cp`` of the weights; a push
also makes sure they are on the disk, so the peer is timed with ``sync`` of the copy as well. Target: at most twice the
peer plus start-up (``adapters list`` where there is no registry). Then what the second push of the same, and of the same
weights with another config, writes; and a thousand small adapters at once, against the bare cost of writing, fsyncing and
renaming as many files.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from pathlib import Path

from registry.connect import Failed, connect
from tests.benchmarks.adapters import LLAMA_1B, TINY, write_config, write_lora
from tests.benchmarks.measure import (
    ADAPTERS,
    Contestant,
    Sample,
    Series,
    command,
    inside,
    mebibytes,
    milliseconds,
    own_peak,
    per_cent,
    print_machine,
    print_table,
    race,
    verdict,
)

TARGET = 2.0
STARTUP, PUSH, FIRST_PUSH = "adapters list, no registry", "adapters push", "adapters push, makes the registry"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--bulk", type=int, default=1000, metavar="N", help="adapters of the bulk push")
    parser.add_argument("--folder", type=Path, help="where the registries are made (default: a temporary directory)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="adapters-bench-", dir=options.folder) as folder:
        many_adapters(Path(folder), count=options.bulk)  # first: the peak memory of this process is still its own
        one_adapter(Path(folder), dtype="F32", rank=16, rounds=options.rounds)
        one_adapter(Path(folder), dtype="BF16", rank=32, rounds=options.rounds)


def one_adapter(folder: Path, *, dtype: str, rank: int, rounds: int) -> None:
    adapter = write_lora(folder / f"lora-{dtype.lower()}", rank=rank, dtype=dtype)
    weights, copy, store = adapter / "adapter_model.safetensors", folder / "copy", folder / "registry"
    template = folder / "template"
    connect(template).push(write_lora(folder / "tiny", modules=TINY, layers=1, rank=2))
    push = command(ADAPTERS, "push", str(adapter), "--quiet", ADAPTERS_REGISTRY=str(store))
    size = weights.stat().st_size
    print_machine(
        f"Push of one adapter, {dtype}",
        {"weights": f"{size / 1e6:.1f} MB, {2 * 7 * 22} tensors", "rounds": rounds},
    )

    def peer(line: str) -> Contestant:
        return afresh(copy, command("sh", "-c", line, FILE=str(weights), COPY=str(copy)))

    def new_config() -> Sample:
        """The store holds one version; the second has the same tensors and another alpha."""
        if not store.exists():
            push()
        write_config(adapter, modules=LLAMA_1B, rank=rank, alpha=next(alphas))
        return push()

    alphas = iter(range(64, 1000))
    found = race(
        {
            "sha256sum + cp": peer('sha256sum "$FILE" && cp "$FILE" "$COPY"'),
            "sha256sum + cp + sync": peer('sha256sum "$FILE" && cp "$FILE" "$COPY" && sync "$COPY"'),
            "python, hashing the file in steps": command(sys.executable, "-c", _HASH, str(weights)),
            STARTUP: command(ADAPTERS, "list", ADAPTERS_REGISTRY=str(folder / "none")),
            PUSH: afresh(store, push, template),
            FIRST_PUSH: afresh(store, push),
        },
        rounds=rounds,
    )
    push()
    again = race({"push again, same content": push, "push again, other config": new_config}, rounds=rounds)
    one_push(found, again, size)
    for path in (store, template, adapter, folder / "tiny"):
        shutil.rmtree(path)


_HASH = """
import hashlib, sys
hasher = hashlib.sha256()
with open(sys.argv[1], "rb", buffering=0) as file:
    while piece := file.read(1 << 20):
        hasher.update(piece)
"""


def one_push(found: dict[str, Series], again: dict[str, Series], size: int) -> None:
    rows = []
    for name, series in {**found, **again}.items():
        per_size = f"{series.written / size:.2f}×" if series.written else "0"
        rows.append(
            (
                name,
                milliseconds(series.median),
                per_cent(series.spread),
                milliseconds(series.cpu),
                mebibytes(series.peak),
                mebibytes(series.written),
                per_size,
            )
        )
    print_table(["command", "median", "spread", "CPU", "peak", "written", "of the weights"], rows)
    startup, rows = found[STARTUP], []
    for name in (PUSH, FIRST_PUSH):
        for peer in ("sha256sum + cp", "sha256sum + cp + sync"):
            ratio = (found[name].median - startup.median) / found[peer].median
            cpu = (found[name].cpu - startup.cpu) / found[peer].cpu
            rows.append((f"{name} : {peer}", f"{ratio:.2f}×", f"{cpu:.2f}×", f"≤ {TARGET}×: {verdict(ratio, TARGET)}"))
    print_table(["(push − start-up) of its peer", "wall clock", "CPU", "target"], rows)


def many_adapters(folder: Path, *, count: int) -> None:
    sources = [
        write_lora(folder / f"small-{seed}", modules=TINY, layers=4, rank=4, alpha=8 + seed % 8, seed=seed)
        for seed in range(count)
    ]
    store, floor = folder / "registry", folder / "floor"
    print_machine(f"Bulk push of {count:,} small adapters", {"one adapter": f"{size_of(sources[0]):,} bytes, 16 tensors"})

    def push_many() -> None:
        for pushed in connect(store).push_many(sources):
            if isinstance(pushed, Failed):
                raise pushed.error

    afresh(store, inside(push_many))()
    peak = own_peak()
    blobs = [path for path in (store / "blobs").rglob("*") if path.is_file()]
    contents = [path.read_bytes() for path in blobs]
    sizes = f"{len(blobs):,} blobs, {mebibytes(sum(map(len, contents)))}"
    found = race(
        {
            f"write, fsync, rename, fsync directory: {sizes}": afresh(floor, inside(lambda: bare(floor, contents))),
            "push_many": afresh(store, inside(push_many)),
        },
        rounds=3,
    )
    bare_series, ours = found.values()
    for path in (store, floor, *sources):
        shutil.rmtree(path)
    rows = [
        (name, milliseconds(series.median), per_cent(series.spread), milliseconds(series.cpu), f"{count / series.median:,.0f}")
        for name, series in found.items()
    ]
    print_table(["bulk", "median", "spread", "CPU", "adapters/s"], rows)
    print(f"* push_many is {ours.median / bare_series.median:.1f}× the bare file operations; peak {mebibytes(peak)}\n")


def bare(folder: Path, contents: list[bytes]) -> None:
    """The least that makes files durable one by one, spread over as many directories as blobs are."""
    for number, data in enumerate(contents):
        shard = folder / f"{number % 256:02x}"
        shard.mkdir(parents=True, exist_ok=True)
        staged = folder / f"staged-{number}"
        descriptor = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        os.write(descriptor, data)
        os.fsync(descriptor)
        os.close(descriptor)
        os.rename(staged, shard / f"{number}")
        directory = os.open(shard, os.O_RDONLY | os.O_DIRECTORY)
        os.fsync(directory)
        os.close(directory)


def afresh(path: Path, contestant: Contestant, template: Path | None = None) -> Contestant:
    """At ``path`` lies nothing before, or what lies at ``template``; and nobody's dirty pages wait for the disk."""

    def run() -> Sample:
        remove(path)
        if template is not None:
            shutil.copytree(template, path)
        os.sync()
        return contestant()

    return run


def remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def size_of(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())


if __name__ == "__main__":
    main()
