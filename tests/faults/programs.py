"""The whole command line inside a forked child: the exit code and every word, without the seconds of starting torch."""

from __future__ import annotations

import io
import os
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

from tests.faults.spaces import Tmpfs, obey_modes
from tests.faults.warm import share_compiled_statements

Document = dict[str, Any]


def program(arguments: Sequence[str], temporary: str, umask: int = 0o022) -> Document:
    """``adapters …``. ``temporary`` is its system temp directory."""
    from cli.main import main

    tempfile.tempdir = temporary
    os.umask(umask)
    sys.argv = ["adapters", *arguments]
    code, out, err = 0, io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        try:
            main()
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else 1
        except BaseException as error:  # noqa: BLE001 - as the interpreter does
            code = 1
            traceback.print_exception(error)
    return {"exit": code, "stdout": out.getvalue(), "stderr": err.getvalue()}


def unprivileged_program(arguments: Sequence[str], temporary: str) -> Document:
    obey_modes()
    return program(arguments, temporary)


def program_in_a_small_space(place: str, size: int, arguments: Sequence[str], temporary: str, out: str) -> Document:
    """The command on a file system of ``size`` bytes that is seen here alone; then, once there is room, with --resume."""
    from tests.faults.checkpoints import digests, inodes, loadable

    space = Tmpfs(Path(place), size)
    first = program(arguments, temporary)
    facts: Document = {"first": first, "loadable": len(loadable(Path(place))), "exists": Path(out).exists()}
    facts["used"] = sum(path.stat().st_blocks * 512 for path in Path(place).rglob("*") if path.is_file())
    before = inodes(Path(out).parent / f".{Path(out).name}.partial-merge")
    space.grow()
    if first["exit"]:
        facts["second"] = program([*arguments, "--resume"], temporary)
    after = inodes(Path(out))
    facts["kept"] = len(before), all(after.get(name) == inode for name, inode in before.items())
    facts["digests"] = digests(Path(out))
    return facts


def small_pieces(replace: Callable[[object, str, int], None]) -> None:
    """So that a tiny checkpoint has as many blocks and ranges as a large one."""
    import registry.transforms.streaming as streaming
    from registry.transforms.workers import Cpu

    for where, name, value in ((Cpu, "elements", 100), (streaming, "_RANGE", 1000)):
        assert hasattr(where, name)
        replace(where, name, value)


def warm_up_merges() -> None:
    """Once through, so that no child has to import or compile anything."""
    import torch

    from tests.faults.checkpoints import write_adapter, write_base

    share_compiled_statements()
    torch.set_num_threads(1)
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # one worker: calls come in nearly the same order each time
    small_pieces(setattr)
    with tempfile.TemporaryDirectory() as place:
        base, adapter = write_base(Path(place) / "base"), write_adapter(Path(place) / "adapter")
        common = ["--registry", str(Path(place) / "registry")]
        out = str(Path(place) / "out")
        program(["merge", str(base), str(adapter), "-o", out, *common], place)
        program(["merge", str(base), str(adapter), "-o", out, *common], place)  # says what an error is
        program(["verify", out, "--base", str(base), "--adapter", str(adapter), *common], place)


PROGRAMS: dict[str, Callable[..., Document]] = {
    act.__name__: act for act in (program, unprivileged_program, program_in_a_small_space)
}
