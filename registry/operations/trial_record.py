"""Trials on the disk, each before the next is made, so that an interrupted search goes on where it was."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Self

from registry.disk import sync
from registry.errors import ConflictError, OutputExistsError
from registry.formats.trials import Trial, line_of, parse_trials
from registry.operations.placing import cannot_write


class TrialRecord:
    """``making`` is everything that a score depends on. Nothing is written before some trial has a score, so that a search that
    never got one leaves nothing.

    Raises OutputExistsError where there is a record already and ``resume`` is not asked, ConflictError where somebody writes
    it now or it is of another search, MalformedFileError where it is none."""

    def __init__(self, path: Path, making: Mapping[str, object], *, resume: bool) -> None:
        self._path = path
        self._making = making
        self._file: IO[bytes] | None = None
        self._waiting: list[Trial] = []
        self.trials: dict[tuple[float, ...], Trial] = {}
        try:
            if os.path.lexists(path):
                if not resume:
                    raise OutputExistsError(
                        f"{path} is there already",
                        hint="go on with the search that it is the record of by --resume, or give another --trials",
                    )
                self._take_up()
        except OSError as error:
            self.close()
            raise cannot_write(path, error) from error
        except BaseException:
            self.close()
            raise

    def add(self, trial: Trial) -> None:
        """On the disk when this returns, together with failed ones from before."""
        self.trials[trial.weights] = trial
        self._waiting.append(trial)
        if trial.score is None and self._file is None:
            return
        try:
            file = self._file or self._begun()
            file.write(b"".join(line_of(one.document()) for one in self._waiting))
            file.flush()
            os.fsync(file.fileno())
        except OSError as error:
            raise cannot_write(self._path, error, hint="make room, and go on with --resume") from error
        self._waiting.clear()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _begun(self) -> IO[bytes]:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._file = open(self._path, "xb")  # noqa: SIM115  # stays open, locked, as long as the search
        fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._file.write(line_of({"search": self._making}))
        sync(self._path.parent)
        return self._file

    def _take_up(self) -> None:
        self._file = open(self._path, "r+b")  # noqa: SIM115
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConflictError(
                f"another search writes its trials to {self._path}", hint="wait for it to end"
            ) from None
        data = self._file.read()
        making, trials = parse_trials(data, where=str(self._path))
        for name in dict.fromkeys((*making, *self._making)):
            if making.get(name) != self._making.get(name):
                raise ConflictError(
                    f"{self._path} is of another search: its {name.replace('_', ' ')} is {making.get(name)}, and now it is "
                    f"{self._making.get(name)}",
                    hint="give the command of that search, or another --trials",
                )
        self.trials = {trial.weights: trial for trial in trials}
        self._file.seek(data.rfind(b"\n") + 1)
        self._file.truncate()
