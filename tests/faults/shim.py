"""The injector, compiled once a session, and what it can be told. See ``shim.c``."""

from __future__ import annotations

import ctypes
import errno
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

#: Calls that change what is on disk. Between two of them a kill finds the same state.
MUTATING = "create,write,sync,rename,unlink,mkdir,truncate,chmod"
EVERY = MUTATING + ",open,read,list,close"


@dataclass(frozen=True, slots=True)
class Fault:
    """From the ``nth`` call of these kinds on, ``times`` of them (0: all) meet ``action``. ``nth`` 0 only counts."""

    action: str
    nth: int
    kinds: str = MUTATING
    times: int = 1
    value: int = 0
    only: str = ""

    def __str__(self) -> str:
        what = errno.errorcode.get(self.value, "") if self.action == "errno" else self.value or ""
        return f"{self.action} {what} at call {self.nth}{' and all after' if self.times == 0 else ''}"

    def environment(self, library: Path, root: Path) -> dict[str, str]:
        """For a whole program, from its start."""
        mine = {f"FAULT_{key.upper()}": str(value) for key, value in asdict(self).items()}
        return {**mine, "FAULT_ROOT": str(root), "LD_PRELOAD": str(library)}


@dataclass(frozen=True, slots=True)
class Call:
    """A line of the trace. ``number`` counts the calls that matter, ``result`` is negative for an errno."""

    name: str
    number: int
    result: int
    path: str
    second: str


def build(into: Path) -> Path:
    library = into / "shim.so"
    source = Path(__file__).with_name("shim.c")
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], check=True)
    return library


def arm(root: Path, fault: Fault) -> None:
    """In a process that was started under the shim."""
    library = _loaded()
    library.fault_arm(
        str(root).encode(), fault.only.encode(), fault.kinds.encode(),
        ctypes.c_long(fault.nth), ctypes.c_long(fault.times), fault.action.encode(), ctypes.c_long(fault.value),
    )  # fmt: skip


def trace(path: Path) -> None:
    _loaded().fault_trace(str(path).encode())


def mark(text: str) -> None:
    """A line of our own in the trace."""
    _loaded().fault_mark(text.encode())


def _loaded() -> Any:
    return ctypes.CDLL(None)


def read_trace(path: Path) -> list[Call]:
    calls = []
    for line in path.read_text().splitlines():
        name, number, result, first, second = line.split("\t")
        calls.append(Call(name, int(number), int(result), first, second))
    return calls
