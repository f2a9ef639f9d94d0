"""Python's own regular expression engine, for patterns from strangers, in a process that can be stopped.

It exists for the few patterns that no linear-time engine can express (``registry.variants.patterns`` decides which).
The child knows neither the environment nor site-packages, gets its questions on stdin, has little memory and little
time, and is killed if it does not keep to them.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from math import ceil

MAX_MEMORY = 256 << 20

#: One line in: ``[memory, CPU seconds, seconds per expression, [[expression, [names]], …]]``. One line out for each
#: expression: a list of booleans, or null. ``re`` looks for signals while it matches, so the timer stops a match that
#: runs away; the resource limits and the parent's patience are for what it does not stop (compiling).
_CHILD = """
import json, re, resource, signal, sys, warnings
memory, cpu, seconds, questions = json.loads(sys.stdin.readline())
resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
resource.setrlimit(resource.RLIMIT_CPU, (cpu, cpu))
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
warnings.simplefilter("ignore")
def stop(*_):
    raise TimeoutError
signal.signal(signal.SIGALRM, stop)
for expression, names in questions:
    try:
        signal.setitimer(signal.ITIMER_REAL, seconds)
        compiled = re.compile(expression)
        answer = [compiled.match(name) is not None for name in names]
    except Exception:
        answer = None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    sys.stdout.write(json.dumps(answer) + "\\n")
    sys.stdout.flush()
"""


def slow_matcher(seconds: float = 2.0) -> Callable[[Sequence[tuple[str, str]]], Sequence[bool | None]]:
    """A function from (expression, name) pairs to what ``re.match`` says of each; None if it did not say in time.

    ``seconds`` is what all its calls may take together. One expression may take a quarter of that, so that a hostile
    one does not take the others with it; what it cannot answer for one name it does not answer for any.
    """
    left = seconds

    def ask(questions: Sequence[tuple[str, str]]) -> list[bool | None]:
        nonlocal left
        names: dict[str, list[str]] = {}
        for expression, name in questions:
            names.setdefault(expression, []).append(name)
        answers: dict[tuple[str, str], bool] = {}
        if names and left > 0:
            started = time.monotonic()
            lines = _run_child(json.dumps([MAX_MEMORY, ceil(left) + 1, seconds / 4, list(names.items())]), left)
            left -= time.monotonic() - started
            for (expression, asked), line in zip(names.items(), lines, strict=False):
                answers |= {(expression, name): found for name, found in zip(asked, line or (), strict=False)}
        return [answers.get(question) for question in questions]

    return ask


def _run_child(question: str, seconds: float) -> list[list[bool] | None]:
    """The lines that the child wrote before it ended or was killed."""
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", _CHILD],
            input=question + "\n",
            env={},
            cwd="/",
            timeout=seconds,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            encoding="ascii",
            check=False,
        )
        written = done.stdout
    except subprocess.TimeoutExpired as late:
        written = late.stdout.decode("ascii") if isinstance(late.stdout, bytes) else late.stdout or ""
    except OSError:
        written = ""
    whole, _, _ = written.rpartition("\n")
    return [json.loads(line) for line in whole.splitlines()]
