"""A merge plan becomes files, one block of rows at a time.

For every file of the output the header is written first, since the plan knows names, types and places. Then untouched
tensors are copied by the system, and changed ones block by block: read, widened to float32, changed, rounded once to the
stored type, written. Blocks are independent of each other, so that threads take them in any order and reading, computing
and writing overlap; how a block is computed does not depend on who else is at work, so the bytes are the same every time.
Memory is that of the blocks under way, whatever the size of the model and of its largest tensor.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from math import prod
from pathlib import Path
from threading import Lock

import torch
from torch import Tensor

from registry.disk import sync
from registry.domain.tensors import TensorSpec
from registry.numerics.precision import is_rounding
from registry.plans.merging import Change, MergePlan, Origin, PlannedShard, PlannedTensor
from registry.transforms.crew import Crew, crew, workers_for
from registry.transforms.outputs import Held, Output, Range, Written
from registry.transforms.recipes import Block, Load, Recipe, prepared
from registry.transforms.workers import Worker
from registry.weights.dtypes import TORCH_DTYPES
from registry.weights.rows import read_into
from registry.weights.streams import Sources, sources
from registry.weights.writing import header_of, in_order

#: Bytes that one job copies.
_RANGE = 64 << 20
#: Bytes of a process that has imported torch, and this program.
_TORCH = 300 << 20
#: What a file is called behind its name until it is complete and on the disk.
PARTIAL = ".partial"

Progress = Callable[[int], None]


def write_merged(
    plan: MergePlan,
    into: Path,
    *,
    device: str = "cpu",
    finished: Collection[str] = (),
    progress: Progress = lambda _count: None,
) -> None:
    """Write every file of weights into the directory ``into``. Those in ``finished`` are there already: each stays if it is byte
    for byte what would be written, and is made again if not.

    ``device`` is ``cpu``, ``cuda``, ``cuda:1`` or ``auto``. ``progress`` hears of bytes written or held against what is there. A
    file has its name once it is complete and on the disk. Raises MalformedFileError where an input changes, is cut off or holds
    what is no number, and RejectedError where a result is too large for the type it is stored in.
    """
    lock = Lock()

    def done(count: int) -> None:
        with lock:
            progress(count)

    with sources(plan.sources) as files, _settling() as settle, crew(device) as workers:
        files.require_as_read(one.origin.shard for one in plan.tensors)
        files.require_as_read(plan.adapters)
        for shard in plan.shards:
            if shard.name in finished:
                if _is_as_planned(shard, plan, into / shard.name, files, workers, done):
                    files.require_unchanged()
                    continue
                (into / shard.name).unlink()  # its room is needed
            path = into / f"{shard.name}{PARTIAL}"
            _write(shard, plan, path, files, workers, done)
            files.require_unchanged()
            settle(path)


def peak_memory(plan: MergePlan, device: str) -> int:
    """An estimate in bytes, for this process: torch itself, the blocks under way, and the factors of the largest tensor."""
    kind, count = workers_for(device)
    computed = [one for one in plan.tensors if not one.is_copy]
    row = max((one.matrix[1] for one in computed), default=0)
    block = max(kind.elements, row) * 24  # as stored, in float32, a delta, and what becomes of them
    if any(one.origin.is_seen for one in computed):
        block *= 2  # shares of the scale, codes, levels
    factors = max((_factors(one) for one in plan.changed), default=0)
    dense = max((_dense(change) for one in plan.changed for change in one.changes), default=0)
    return _TORCH + count * (block + dense) + 2 * factors


def _factors(one: PlannedTensor) -> int:
    return sum(
        {factor.spec.name: factor.spec.elements * 4 for c in one.changes for factor in c.factors.values()}.values()
    )


def _dense(change: Change) -> int:
    """Of what a method works on in one thread: each adapter's delta, and what it is pruned to; draws and order of one, which are
    twice as wide; the result."""
    if change.dense is None:
        return 0
    share = change.dense.shares[0]
    return prod((*share.down.spec.shape[1:], share.up.spec.shape[0])) * 4 * (2 * len(change.dense.shares) + 9)


def same_numbers(one: Origin, other: Origin, *, transposed: bool = False) -> bool:
    """Whether one tensor is the other (or its transpose), stored in its own type or rounded to the other's."""
    with sources({*one.files, *other.files}) as files:
        a, b = (read(files, each) for each in (one, other))
    return is_rounding(a, b.mT if transposed else b)


def read(files: Sources, origin: Origin) -> Tensor:
    """A whole tensor in its own type, on the CPU."""
    found = torch.empty(origin.spec.elements, dtype=TORCH_DTYPES[origin.spec.dtype])
    read_into(files, origin, 0, found)
    return found.reshape(origin.spec.shape)


def loader(plan: MergePlan, files: Sources) -> Load:
    def load(adapter: int, spec: TensorSpec) -> Tensor:
        return read(files, Origin(plan.adapters[adapter], spec))

    return load


def _write(shard: PlannedShard, plan: MergePlan, path: Path, files: Sources, workers: Crew, progress: Progress) -> None:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
    try:
        os.ftruncate(descriptor, _header(shard)[2])
        _fill(shard, plan, Written(descriptor), files, workers, progress)
    finally:
        os.close(descriptor)


def _is_as_planned(
    shard: PlannedShard, plan: MergePlan, path: Path, files: Sources, workers: Crew, progress: Progress
) -> bool:
    """What ``progress`` heard of a file that is not is taken back."""
    lock, heard = Lock(), 0

    def hear(count: int) -> None:
        nonlocal heard
        with lock:
            heard += count
        progress(count)

    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        held = Held(descriptor)
        if os.fstat(descriptor).st_size == _header(shard)[2]:
            _fill(shard, plan, held, files, workers, hear)
            if held.is_open:
                return True
    finally:
        os.close(descriptor)
    progress(-heard)
    return False


def _header(shard: PlannedShard) -> tuple[bytes, list[int], int]:
    """The file's first bytes, where each of its tensors begins, and how long it is."""
    specs = in_order(TensorSpec(one.name, one.dtype, one.shape) for one in shard.tensors)
    header = header_of(specs, shard.metadata)
    return header, [len(header) + spec.start for spec in specs], len(header) + shard.bytes


def _fill(
    shard: PlannedShard, plan: MergePlan, output: Output, files: Sources, workers: Crew, progress: Progress
) -> None:
    header, starts, _ = _header(shard)
    output.put(memoryview(header), 0)
    places = list(zip(shard.tensors, starts, strict=True))
    for piece in _ranges((one, at) for one, at in places if one.is_copy):
        workers.do(partial(_copy, piece, files, output, progress))
    load = loader(plan, files)
    for one, at in places:
        if not one.is_copy and one.bytes and output.is_open:
            recipe = prepared(one, load, workers.device)
            if recipe.needs_statistic:
                _know(recipe, files, workers)
            for block in recipe.blocks(workers.elements):
                workers.do(partial(_make, recipe, block, files, output, at, progress))
    workers.wait()


def _copy(piece: Range, files: Sources, output: Output, progress: Progress, _worker: Worker) -> None:
    output.copy(piece, files)
    progress(piece.count)


def _make(
    recipe: Recipe, block: Block, files: Sources, output: Output, at: int, progress: Progress, worker: Worker
) -> None:
    if output.is_open:
        progress(worker.make(recipe, block, files, output.put, at))


def _know(recipe: Recipe, files: Sources, workers: Crew) -> None:
    """Look at the whole tensor once; the parts are summed in their order, whoever was first."""
    blocks = list(recipe.blocks(workers.elements))
    found: dict[int, Tensor] = {}

    def look(block: Block, worker: Worker) -> None:
        found[block.start] = worker.look(recipe, block, files)

    for block in blocks:
        workers.do(partial(look, block))
    workers.wait()
    total = found[blocks[0].start]
    for block in blocks[1:]:
        total = total + found[block.start]
    recipe.know(total)


def _ranges(copies: Iterator[tuple[PlannedTensor, int]]) -> Iterator[Range]:
    """What lies side by side in both files is copied in one go, in pieces of which several can be under way."""
    run: Range | None = None
    for one, at in copies:
        start = one.origin.shard.data_start + one.origin.spec.start
        if run and (run.source, run.start + run.count, run.at + run.count) == (one.origin.shard.path, start, at):
            run = Range(run.source, run.start, run.count + one.bytes, run.at)
            continue
        yield from _pieces(run)
        run = Range(one.origin.shard.path, start, one.bytes, at)
    yield from _pieces(run)


def _pieces(run: Range | None) -> Iterator[Range]:
    if run is not None:
        for offset in range(0, run.count, _RANGE):
            yield Range(run.source, run.start + offset, min(_RANGE, run.count - offset), run.at + offset)


@contextmanager
def _settling() -> Iterator[Callable[[Path], None]]:
    """Files reach the disk while the next is computed. Only then they get their name."""

    def settle(path: Path) -> None:
        sync(path)
        os.rename(path, path.with_name(path.name.removesuffix(PARTIAL)))

    with ThreadPoolExecutor(1, thread_name_prefix="settle") as thread:
        waiting = []
        yield lambda path: waiting.append(thread.submit(settle, path))
        for each in waiting:
            each.result()
