"""An adapter of the Hub becomes a version here, as if its directory had been pushed.

1. Look the revision up. What was imported at that commit already is not fetched again.
2. Fetch it aside, and describe it.
3. Hold it against its base, and publish it; where it came from is a label of the version.

Of a list some are fetched at a time, and each is published as soon as it is there: who interrupts loses what was on the way,
and the same list again goes on behind what is done.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from threading import Event, Lock

from registry.domain.finding import Finding
from registry.domain.names import AdapterName, AliasName, Reference
from registry.domain.query import VersionQuery
from registry.domain.version import Version
from registry.errors import InvalidValueError, MalformedFileError, RegistryError
from registry.hub.protocol import Hub
from registry.operations.bases import Shelf, is_path
from registry.operations.check import against_base
from registry.operations.describe import AdapterPackage, describe
from registry.operations.directory import open_regular
from registry.operations.hub_address import HubAddress
from registry.operations.hub_fetch import receive
from registry.operations.ingredients import temporary
from registry.operations.publish import Attachments, Submission, publish

#: The label that says where a version came from: ``hf://OWNER/NAME@COMMIT``, with ``/FOLDER`` behind if it was in one.
SOURCE = "hub.source"
#: Bytes of a list: some ten thousand lines.
MAX_LIST = 1 << 20


@dataclass(frozen=True, slots=True)
class Wanted:
    """``adapter`` is a folder of the repository, ``base`` (``ID[@REVISION]`` or a directory) overrides the config."""

    address: HubAddress
    name: AdapterName
    adapter: str | None = None
    base: str | None = None
    aliases: Sequence[AliasName] = ()
    tags: Mapping[str, str] = field(default_factory=dict)
    note: str | None = None

    def source(self, commit: str) -> str:
        return f"{self.address.at(commit)}{f'/{self.adapter}' if self.adapter else ''}"


@dataclass(frozen=True, slots=True)
class Imported:
    """``created`` is False if this content was that version already, ``fetched`` if nothing had to be fetched to know it."""

    source: str
    version: Version
    created: bool
    fetched: bool
    findings: tuple[Finding, ...] = ()

    def document(self) -> dict[str, object]:
        """``import --json``. Keys are only ever added."""
        return {
            "source": self.source,
            "adapter": str(self.version.adapter),
            "version": self.version.number,
            "digest": self.version.digest,
            "reference": self.version.reference,
            "created": self.created,
            "fetched": self.fetched,
            "findings": [finding.document() for finding in self.findings],
        }


@dataclass(frozen=True, slots=True)
class NotImported:
    """One of a list that was refused; the others went on."""

    source: str
    error: RegistryError

    def document(self) -> dict[str, object]:
        error = self.error
        return {
            "source": self.source,
            "error": {
                "code": error.code,
                "message": error.message,
                "hint": error.hint,
                "exit_code": error.exit_code,
            },
        }


@dataclass(frozen=True, slots=True)
class _Arrived:
    source: str
    package: AdapterPackage


def import_from_hub(
    wanted: Wanted,
    *,
    hub: Hub,
    shelf: Shelf,
    allow: Sequence[str] = (),
    progress: Callable[[int], None] = lambda _count: None,
) -> Imported:
    """Raises NotFoundError, DeniedError, UnavailableError; InvalidInputError and RejectedError as a push; CorruptionError
    for files that are not what the commit holds. Nothing is recorded then."""
    with temporary() as work:
        place = work / "adapter"
        arrived = _arrive(wanted, place, hub, shelf, progress)
        return _settle(wanted, arrived, place, shelf, allow)


def import_many(
    wanted: Sequence[Wanted],
    *,
    hub: Hub,
    shelf: Shelf,
    jobs: int,
    allow: Sequence[str] = (),
    progress: Callable[[int], None] = lambda _count: None,
) -> Iterator[Imported | NotImported]:
    """``jobs`` are fetched at a time, so that no more than that lie on this disk twice. In the order they finish, those of one
    adapter in the order given."""
    waiting = list(wanted)
    numbers = count()
    stopped, one_at_a_time = Event(), Lock()

    def advance(received: int) -> None:
        if stopped.is_set():
            raise _StoppedError
        with one_at_a_time:
            progress(received)

    def pause(seconds: float) -> None:
        if stopped.wait(seconds):
            raise _StoppedError

    hub = hub.pausing(pause)
    with temporary() as work, ThreadPoolExecutor(jobs) as pool:
        running: dict[Future[_Arrived | Version], tuple[Wanted, Path]] = {}
        try:
            while waiting or running:
                while len(running) < jobs and (one := _next(waiting, [each for each, _ in running.values()])):
                    place = work / f"{next(numbers)}"
                    running[pool.submit(_arrive, one, place, hub, shelf, advance)] = (one, place)
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    one, place = running.pop(future)
                    try:
                        yield _settle(one, future.result(), place, shelf, allow)
                    except RegistryError as error:
                        yield NotImported(str(one.address), error)
                    shutil.rmtree(place, ignore_errors=True)
        finally:
            stopped.set()


class _StoppedError(Exception):
    """Somebody interrupted: what is on the way is not waited for."""


def _next(waiting: list[Wanted], running: Sequence[Wanted]) -> Wanted | None:
    """The first whose adapter has none on the way: the versions of one adapter come in the order of the list."""
    busy = {one.name.key for one in running}
    found = next((one for one in waiting if one.name.key not in busy), None)
    if found is not None:
        waiting.remove(found)
    return found


def read_list(file: Path, *, name: Callable[[HubAddress, str | None], AdapterName]) -> list[Wanted]:
    """``hf://OWNER/NAME[@REVISION] [NS/NAME]``, one a line; what follows a ``#`` is for people. What stands there twice counts
    once. Raises UnsuitableDirectoryError, MalformedFileError with the number of the line."""
    with open_regular(file) as opened:
        data = opened.read(MAX_LIST + 1)
    if len(data) > MAX_LIST:
        raise MalformedFileError(
            str(file), f"is longer than the {MAX_LIST:,} bytes of a list", hint="make several of it"
        )
    found: dict[tuple[HubAddress, str], Wanted] = {}
    for number, line in enumerate(data.decode("utf-8-sig", errors="replace").splitlines(), 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        try:
            if len(words) > 2:
                raise InvalidValueError("line of a list", line.strip(), "hf://OWNER/NAME[@REVISION] [NS/NAME]")
            address = HubAddress.parse(words[0])
            adapter = name(address, words[1] if len(words) == 2 else None)
        except InvalidValueError as error:
            raise MalformedFileError(
                f"{file}, line {number}", error.message, code=error.code, hint=error.hint
            ) from error
        found.setdefault((address, adapter.key), Wanted(address, adapter))
    return list(found.values())


def _arrive(wanted: Wanted, place: Path, hub: Hub, shelf: Shelf, progress: Callable[[int], None]) -> _Arrived | Version:
    """The version that this is already, or what it will be one of."""
    found = hub.look_up(wanted.address.repository, wanted.address.revision)  # 1
    source = wanted.source(found.commit)
    known = _known(wanted.name, source, shelf)
    if known is not None:
        return known
    place.mkdir()
    fetched = receive(found, place, hub=hub, adapter=wanted.adapter, progress=progress)  # 2
    with _called(source, place):
        package = describe(place, base=None if _at(wanted) else wanted.base)
    return _Arrived(source, replace(package, findings=(*fetched.findings, *package.findings)))


def _settle(wanted: Wanted, arrived: _Arrived | Version, place: Path, shelf: Shelf, allow: Sequence[str]) -> Imported:
    if isinstance(arrived, Version):
        return Imported(arrived.tags[SOURCE], _labelled(arrived, wanted, shelf), created=False, fetched=False)
    tags = {**wanted.tags, SOURCE: arrived.source}
    attachments = Attachments(wanted.aliases, tags, note=wanted.note or f"imported from {arrived.source}")
    with _called(arrived.source, place):
        package = against_base(arrived.package, _at(wanted), shelf)  # 3
        submission = Submission(package, wanted.name, attachments)
        done = publish([submission], blobs=shelf.blobs, catalog=shelf.catalog, allow=allow)[0]
    return Imported(arrived.source, done.version, done.created, fetched=True, findings=done.findings)


def _at(wanted: Wanted) -> str | None:
    """The directory of the base, where one was given."""
    return wanted.base if wanted.base is not None and is_path(wanted.base) else None


def _known(name: AdapterName, source: str, shelf: Shelf) -> Version | None:
    query = VersionQuery(text=str(name), tags=((SOURCE, source),), all_versions=True, limit=1000)
    return next((version for version in shelf.catalog.search(query) if version.adapter.key == name.key), None)


def _labelled(version: Version, wanted: Wanted, shelf: Shelf) -> Version:
    """What else was asked of it holds for a version that was there, too."""
    if not wanted.tags and not wanted.aliases:
        return version
    reference = Reference(version.adapter, number=version.number)
    with shelf.catalog.writing() as writer:
        writer.set_tags(writer.resolve(reference), wanted.tags)
        for alias in wanted.aliases:
            writer.move_alias(version.adapter, alias, version.number)
        return writer.resolve(reference)


@contextmanager
def _called(source: str, place: Path) -> Iterator[None]:
    """What is wrong with a fetched file is said of where it came from, not of where it lay for a moment."""
    try:
        yield
    except RegistryError as error:
        error.message = error.message.replace(str(place), source)
        error.args = (error.message,)
        raise
