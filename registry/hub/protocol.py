"""What a hub is, to the operations: repositories of files under commits, where nothing that it says is believed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self

#: How a server of this project calls itself where it is asked for its health.
SERVICE = "adapter-registry"


@dataclass(frozen=True, slots=True)
class RemoteRevision:
    """What a revision stood for when it was asked: ``commit`` is 40 hexadecimal digits, ``paths`` are all files, as listed."""

    repository: str
    commit: str
    paths: tuple[str, ...]
    private: bool


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """``sha256`` is that of a file in large-file storage, in hexadecimal; of any other only git's blob id is known."""

    path: str
    size: int
    git_sha1: str
    sha256: str | None = None

    def is_same(self, other: OutgoingFile) -> bool:
        if self.sha256 is not None:
            return (self.sha256, self.size) == (other.sha256, other.size)
        return (self.git_sha1, self.size) == (other.git_sha1, other.size)


@dataclass(frozen=True, slots=True)
class OutgoingFile:
    """A file to be sent: where its bytes lie, and both of its digests in hexadecimal."""

    path: str
    source: Path
    size: int
    sha256: str
    git_sha1: str


@dataclass(frozen=True, slots=True)
class Change:
    """One commit: files that come, and paths that go."""

    adds: Sequence[OutgoingFile]
    deletes: Sequence[str]
    title: str
    description: str


class Hub(Protocol):
    """Every method raises NotFoundError, DeniedError, ConflictError or UnavailableError, and names the repository.

    What may be answered later is waited for and asked again."""

    def pausing(self, pause: Callable[[float], None]) -> Self:
        """The same hub, waiting by ``pause``, which takes seconds; what it raises goes through."""

    def look_up(self, repository: str, revision: str | None = None) -> RemoteRevision: ...

    def files(self, repository: str, commit: str, paths: Sequence[str]) -> dict[str, RemoteFile]:
        """Those of the paths that are there, each with its size and digests."""

    def download(
        self, repository: str, commit: str, file: RemoteFile, into: Path, progress: Callable[[int], None]
    ) -> None:
        """To ``into``, which must not exist; never more bytes than were announced. Whoever calls checks them."""

    def require_writable(self, repository: str) -> None:
        """Raises DeniedError for one that is there and that a commit to ``main`` would be refused by."""

    def create(self, repository: str, *, private: bool) -> None:
        """Again is a no-op."""

    def commit(self, repository: str, change: Change, *, parent: str) -> str:
        """The new commit of ``main``. Raises ConflictError where ``main`` is not at ``parent``."""

    def numbers_versions(self) -> bool:
        """Whether it makes the tags v1, v2, … itself and lets nobody else, as a server of this project does."""

    def tags(self, repository: str) -> Mapping[str, str]:
        """Name → commit."""

    def add_tag(self, repository: str, tag: str, commit: str) -> None: ...
    def remove_tag(self, repository: str, tag: str) -> None: ...
