"""A command that scores an adapter: what a search for weights asks about every trial."""

from __future__ import annotations

import shlex
import subprocess
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Self

from registry.errors import InvalidValueError, ScoreFailedError

_PLACE = "{dir}"
#: Bytes at the end of what a command says in which its last line is looked for.
_TAIL = 1 << 16


@dataclass(frozen=True, slots=True)
class ScoreCommand:
    """``arguments`` are run without a shell, ``{dir}`` in them replaced by the adapter's directory. The last line on stdout that is
    not empty is the score."""

    text: str
    arguments: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises InvalidValueError for a text without ``{dir}``, or with a quote that is never closed."""
        try:
            arguments = tuple(shlex.split(text))
        except ValueError:
            arguments = ()
        if not any(_PLACE in argument for argument in arguments[1:]):
            raise InvalidValueError(
                "score command",
                text,
                f"a program and its arguments, {_PLACE} among them, such as 'python score.py {_PLACE}'",
            )
        return cls(text, arguments)

    def __call__(self, directory: Path) -> float:
        """Raises ScoreFailedError where it cannot be run, does not end with 0, or says no finite number."""
        with TemporaryFile() as said, TemporaryFile() as complained:
            try:
                done = subprocess.run(
                    [argument.replace(_PLACE, str(directory)) for argument in self.arguments],
                    stdin=subprocess.DEVNULL,
                    stdout=said,
                    stderr=complained,
                    check=False,
                )
            except (OSError, ValueError) as error:
                why = (error.strerror if isinstance(error, OSError) else None) or str(error)
                raise ScoreFailedError(self.text, f"cannot be run: {why}") from error
            if done.returncode:
                how = f"with exit code {done.returncode}" if done.returncode > 0 else f"by signal {-done.returncode}"
                why = _last_line(complained)
                raise ScoreFailedError(self.text, f"ended {how}" + (f": {why}" if why else ""))
            return self._score(_last_line(said))

    def _score(self, line: str) -> float:
        try:
            score = float(line)
        except ValueError:
            score = float("nan")
        if not isfinite(score):
            found = f"ended with the line {line!r:.80}" if line else "said nothing on stdout"
            raise ScoreFailedError(self.text, f"{found}, and its last line has to be the score")
        return score


def _last_line(file: IO[bytes]) -> str:
    file.seek(max(file.seek(0, 2) - _TAIL, 0))
    lines = [line.strip() for line in file.read().decode("utf-8", "replace").splitlines()]
    return next((line for line in reversed(lines) if line), "")[:200]
