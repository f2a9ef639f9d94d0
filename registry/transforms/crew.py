"""Threads that work on blocks, of which only so many are under way at a time."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import torch

from registry.errors import InvalidValueError, UnavailableError
from registry.transforms.workers import Cpu, Cuda, Worker

#: Streams on a device: one that reads, one on either direction of the bus, one that computes.
_STREAMS = 4
_AHEAD = 2
_DEVICE = re.compile(r"cpu|cuda(?::\d{1,3})?")


class Crew:
    """``with crew(device) as it``: jobs are handed in by one thread and done by as many as there are cores. A job gets the
    worker of the thread it runs on."""

    def __init__(self, device: torch.device, threads: int, pool: ThreadPoolExecutor) -> None:
        self._pool = pool
        self._device = device
        self._own = threading.local()
        self._room = threading.Semaphore(threads * _AHEAD)
        self._running: set[Future[None]] = set()
        self._failed: BaseException | None = None

    @property
    def device(self) -> torch.device:
        return self._device

    @property
    def elements(self) -> int:
        return Cpu.elements if self._device.type == "cpu" else Cuda.elements

    def do(self, job: Callable[[Worker], None]) -> None:
        """Hand a job in; waits while too many are under way. Raises what an earlier one failed with."""
        self._room.acquire()
        if self._failed is not None:
            self._room.release()
            raise self._failed
        future = self._pool.submit(self._run, job)
        self._running.add(future)
        future.add_done_callback(self._done)

    def wait(self) -> None:
        """Until all is done. Raises what the first failed with."""
        for future in tuple(self._running):
            self._note(future)  # waiters are told before callbacks are
        if self._failed is not None:
            raise self._failed

    def _run(self, job: Callable[[Worker], None]) -> None:
        if self._failed is None:
            if not hasattr(self._own, "worker"):
                self._own.worker = Cpu() if self._device.type == "cpu" else Cuda(self._device)
            job(self._own.worker)

    def _note(self, future: Future[None]) -> None:
        error = None if future.cancelled() else future.exception()
        if error is not None and self._failed is None:
            self._failed = error

    def _done(self, future: Future[None]) -> None:
        self._note(future)
        self._running.discard(future)
        self._room.release()


def workers_for(device: str) -> tuple[type[Worker], int]:
    """Which kind of worker computes there, and how many at a time."""
    place = _device(device)
    return (Cpu, len(os.sched_getaffinity(0))) if place.type == "cpu" else (Cuda, _STREAMS)


@contextmanager
def crew(device: str) -> Iterator[Crew]:
    place = _device(device)
    threads = workers_for(device)[1]
    with one_core_each(threads) as pool:
        yield Crew(place, threads, pool)


@contextmanager
def one_core_each(threads: int) -> Iterator[ThreadPoolExecutor]:
    """A pool of threads, while torch computes on one core in each of them: how a number is summed does not depend on how many
    cores there are, and no thread waits busily for another."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    pool = ThreadPoolExecutor(threads, thread_name_prefix="merge")
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        torch.set_num_threads(before)


def _device(text: str) -> torch.device:
    if text == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if not _DEVICE.fullmatch(text):
        raise InvalidValueError("device", text, "auto, cpu, cuda, or cuda:N")
    device = torch.device(text)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UnavailableError(
            f"this machine has no device {text} that torch can use",
            code="no-device",
            hint="leave --device away, or say --device cpu: the result is the same",
        )
    return device
