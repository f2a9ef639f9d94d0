"""A fork server: everything is imported once, and each act runs in a child of its own, which may be killed.

A request is a line of JSON, ``{"jobs": [...]}``; all jobs of a request start together, through one gate. The answer is a
list with one document per job: ``{"answer": …}``, ``{"error": …}`` for an exception, or ``{"signal": …}``.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any

from registry.errors import RegistryError
from tests.faults import plants, shim, warm
from tests.faults.acts import ACTS
from tests.faults.programs import PROGRAMS, warm_up_merges
from tests.faults.scenes import NAME, write_contents

_PATIENCE = 120  # seconds, then a child is stuck


def serve() -> None:
    for line in sys.stdin:
        answers = _run(json.loads(line)["jobs"])
        sys.stdout.write(json.dumps(answers) + "\n")
        sys.stdout.flush()


def _run(jobs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    gate, opener = os.pipe()
    children = []
    for job in jobs:
        result, answer = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(opener)
            _live(job, gate, answer)
        os.close(answer)
        children.append((child, result))
    os.close(gate)
    os.close(opener)
    return [_await(child, result) for child, result in children]


def _await(child: int, result: int) -> dict[str, Any]:
    with os.fdopen(result, "rb") as pipe:
        said = pipe.read()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return {"signal": os.WTERMSIG(status)}
    return json.loads(said)


def _live(job: dict[str, Any], gate: int, answer: int) -> None:
    signal.alarm(_PATIENCE)
    try:
        said = json.dumps(_perform(job, gate))
    except BaseException:  # noqa: BLE001 - the test shows it
        said = json.dumps({"error": {"type": "harness", "exit": -1, "message": traceback.format_exc()}})
    os.write(answer, said.encode())
    os._exit(0)


def _perform(job: dict[str, Any], gate: int) -> dict[str, Any]:
    if job["plant"]:
        plants.PLANTS[job["plant"]]()
    if job["trace"]:
        shim.trace(Path(job["trace"]))
    os.read(gate, 1)
    for name, value in job["limits"].items():
        resource.setrlimit(getattr(resource, name), (value, resource.getrlimit(getattr(resource, name))[1]))
    if job["fault"]:
        shim.arm(Path(job["work"]), shim.Fault(**job["fault"]))
    try:
        document = {**ACTS, **PROGRAMS}[job["act"]](**job["arguments"])
        shim.mark("acknowledged")
        return {"answer": document}
    except RegistryError as error:
        return {"error": _described(error, error.exit_code, error.message)}
    except Exception as error:  # noqa: BLE001 - the test shows it
        return {"error": _described(error, 1, "".join(traceback.format_exception(error)))}
    finally:
        shim.arm(Path("/"), shim.Fault("nothing", 0, kinds=""))


def _described(error: Exception, code: int, message: str) -> dict[str, Any]:
    return {"type": type(error).__name__, "exit": code, "message": message, "code": getattr(error, "code", "")}


def _warm_up() -> None:
    """Once through the verbs, so that no child has to import or compile anything."""
    warm.share_compiled_statements()
    with tempfile.TemporaryDirectory() as place:
        content = write_contents(Path(place))["E"]
        registry = str(Path(place) / "registry")
        ACTS["push"](registry, str(content), NAME, ["production"])
        ACTS["alias"](registry, NAME, "staging", 1)
        ACTS["pull"](registry, NAME, str(Path(place) / "out"))
        ACTS["look"](registry)
        ACTS["gc"](registry)


if __name__ == "__main__":
    {"verbs": _warm_up, "merges": warm_up_merges}[sys.argv[1]]()
    serve()
