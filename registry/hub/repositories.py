"""Repositories of adapters on the Hub: looked up, fetched from and committed to.

Files are received by us and not put into the library's cache: no name, ETag or size that a hub makes up becomes a path or a
file here. Listing is one answer without pages, because the library follows a page's address with the token wherever that
leads; redirects to another host lose the token.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Self, TypeVar, cast

from registry.errors import CorruptionError, UnavailableError, UnsuitableDirectoryError
from registry.hub.patience import NEVER, PASSING, REFUSED, ask
from registry.hub.protocol import SERVICE, Change, RemoteFile, RemoteRevision
from registry.hub.trouble import asking, malformed, shown

if TYPE_CHECKING:
    from huggingface_hub import HfApi

#: More than any adapter's repository has, with all its checkpoints.
MAX_PATHS = 10_000
_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_LIBRARY = "adapter-registry"
_PUBLIC = "https://huggingface.co"

T = TypeVar("T")


class HuggingFaceHub:
    """The Hub at ``endpoint`` (default: the library's own, HF_ENDPOINT) with the library's token; a context that keeps the
    library from writing bars and notes to the terminal. It satisfies :class:`registry.hub.protocol.Hub`."""

    def __init__(
        self,
        endpoint: str | None = None,
        *,
        token: str | bool | None = None,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._endpoint = endpoint
        self._token = token
        self._pause = pause
        self._silence: ExitStack | None = None

    def __enter__(self) -> Self:
        with asking("the Hub"), ExitStack() as stack:
            stack.enter_context(_silent())
            self._silence = stack.pop_all()
        return self

    def __exit__(self, *_reason: object) -> None:
        if self._silence is not None:
            self._silence.close()

    def pausing(self, pause: Callable[[float], None]) -> Self:
        return type(self)(self._endpoint, token=self._token, pause=pause)

    def look_up(self, repository: str, revision: str | None = None) -> RemoteRevision:
        where = shown(repository, revision)

        def question() -> tuple[object, bool, list[str]]:
            info = self._api.model_info(repository, revision=revision)
            return info.sha, bool(info.private), [sibling.rfilename for sibling in info.siblings or ()]

        commit, private, paths = self._ask(where, question)
        if not isinstance(commit, str) or not _COMMIT.fullmatch(commit):
            raise malformed(where, f"its commit is {commit!r:.80}")
        if len(paths) > MAX_PATHS:
            raise UnsuitableDirectoryError(
                f"{where} lists {len(paths):,} files, more than the {MAX_PATHS:,} that are looked through",
                code="too-many-files",
                hint="an adapter has a handful: fetch those that you want with `hf download`, then push the directory",
            )
        if not all(isinstance(path, str) for path in paths):
            raise malformed(where, "a file's name is no text")
        return RemoteRevision(repository, commit, tuple(paths), private)

    def files(self, repository: str, commit: str, paths: Sequence[str]) -> dict[str, RemoteFile]:
        if not paths:
            return {}
        where = shown(repository, commit)

        def question() -> list[tuple[Any, ...]]:
            found: list[Any] = list(self._api.get_paths_info(repository, list(paths), revision=commit))
            return [
                (
                    one.path,
                    one.size,
                    one.blob_id,
                    one.lfs.sha256 if one.lfs else None,
                    one.lfs.size if one.lfs else None,
                )
                for one in found
                if hasattr(one, "blob_id")  # a folder has none
            ]

        files = {}
        for path, size, git_sha1, sha256, stored in self._ask(where, question):
            if path not in paths:
                raise malformed(where, f"it tells of {path!r:.120}, which nobody asked for")
            files[path] = RemoteFile(
                path, _size(size, stored, path, where), _hex(git_sha1, _COMMIT, path, where), sha256
            )
            if sha256 is not None:
                _hex(sha256, _SHA256, path, where)
        return files

    def download(
        self, repository: str, commit: str, file: RemoteFile, into: Path, progress: Callable[[int], None]
    ) -> None:
        where = f"{shown(repository, commit)}/{file.path}"

        def question() -> None:
            from huggingface_hub import hf_hub_url
            from huggingface_hub.file_download import http_get

            target.seek(0)
            target.truncate()
            url = hf_hub_url(repository, file.path, revision=commit, endpoint=self._endpoint)
            headers = self._headers()
            headers["Accept-Encoding"] = "identity"  # so that a size is a size
            http_get(url, cast(BinaryIO, _Receiving(target, file, where, progress)), headers=headers)

        with asking(where), open(into, "xb") as target:
            self._ask(where, question)

    def require_writable(self, repository: str) -> None:
        """The library's ``auth_check`` asks about reading alone in older generations; a hub without the route says nothing."""
        self._ask(
            shown(repository),
            lambda: self._get(f"/api/models/{repository}/auth-check/write", refused=(401, 403, *PASSING)),
        )

    def create(self, repository: str, *, private: bool) -> None:
        self._ask(shown(repository), lambda: self._api.create_repo(repository, private=private, exist_ok=True))

    def commit(self, repository: str, change: Change, *, parent: str) -> str:
        where = shown(repository)

        def question() -> str:
            from huggingface_hub import CommitOperationAdd, CommitOperationDelete

            by_path = self._takes_xet(repository)
            with ExitStack() as opened:
                operations: list[CommitOperationAdd | CommitOperationDelete] = [
                    CommitOperationAdd(file.path, str(file.source) if by_path else _opened(file.source, opened))
                    for file in change.adds
                ]
                operations += [CommitOperationDelete(path, is_folder=False) for path in change.deletes]
                return self._api.create_commit(
                    repository,
                    cast(Any, operations),
                    commit_message=change.title,
                    commit_description=change.description,
                    parent_commit=parent,
                ).oid

        commit = self._ask(where, question, again=NEVER)
        if not _COMMIT.fullmatch(commit):
            raise malformed(where, f"its new commit is {commit!r:.80}")
        return commit

    def numbers_versions(self) -> bool:
        def question() -> object:
            if self._api.endpoint == _PUBLIC:
                return None
            answer = self._get("/healthz", refused=PASSING)
            try:
                return answer.json()
            except ValueError:  # a page for people
                return None

        said = self._ask("the Hub", question)
        return isinstance(said, dict) and said.get("service") == SERVICE

    def tags(self, repository: str) -> Mapping[str, str]:
        def question() -> dict[str, str]:
            return {tag.name: tag.target_commit for tag in self._api.list_repo_refs(repository).tags}

        return self._ask(shown(repository), question)

    def add_tag(self, repository: str, tag: str, commit: str) -> None:
        where = shown(repository, tag)
        self._ask(where, lambda: self._api.create_tag(repository, tag=tag, revision=commit), again=REFUSED)

    def remove_tag(self, repository: str, tag: str) -> None:
        self._ask(shown(repository, tag), lambda: self._api.delete_tag(repository, tag=tag), again=REFUSED)

    def _ask(self, where: str, question: Callable[[], T], again: Container[int] = PASSING) -> T:
        return ask(where, question, endpoint=self._endpoint, again=again, pause=self._pause)

    def _get(self, path: str, *, refused: Container[int]) -> Any:
        """An answer of the Hub, whatever its status, unless that is one of ``refused``: of what the library has no function for."""
        answer = _utils().get_session().get(f"{self._api.endpoint}{path}", headers=self._headers())
        if answer.status_code in refused:
            _utils().hf_raise_for_status(answer)
        return answer

    @property
    def _api(self) -> HfApi:
        from huggingface_hub import HfApi

        return HfApi(endpoint=self._endpoint, token=self._token, library_name=_LIBRARY)

    def _takes_xet(self, repository: str) -> bool:
        """The library sends large files to Xet storage unasked, and fails where a hub has none; of open files it knows that
        they go by Git-LFS (huggingface_hub issues 4507 and 4786)."""
        return bool(self._get(f"/api/models/{repository}/xet-write-token/main", refused=()).status_code < 400)

    def _headers(self) -> dict[str, str]:
        return dict(_utils().build_hf_headers(token=self._token, library_name=_LIBRARY))


class _Receiving:
    """A file being received; more than was announced is not taken, and a restarted transfer begins anew."""

    def __init__(self, target: BinaryIO, file: RemoteFile, where: str, progress: Callable[[int], None]) -> None:
        self._target = target
        self._file = file
        self._where = where
        self._progress = progress

    def write(self, data: bytes) -> int:
        if self._target.tell() + len(data) > self._file.size:
            raise CorruptionError(
                f"{self._where} is longer than the {self._file.size:,} bytes that the Hub lists",
                code="size-mismatch",
                hint="the Hub contradicts itself; what it sends is not used",
            )
        self._progress(len(data))
        try:
            return self._target.write(data)
        except OSError as error:
            raise UnavailableError(
                f"no room for {self._where}: {error.strerror or error}",
                hint="make room, or set TMPDIR to another place",
            ) from error

    def seek(self, position: int, whence: int = 0) -> int:
        return self._target.seek(position, whence)

    def tell(self) -> int:
        return self._target.tell()

    def truncate(self, size: int | None = None) -> int:
        return self._target.truncate(size)


@contextmanager
def _silent() -> Iterator[None]:
    """Our own words say what happens. The settings are the process's, so they are put back."""
    utils = _utils()
    shown, verbosity = not utils.are_progress_bars_disabled(), utils.logging.get_verbosity()
    if shown:
        utils.disable_progress_bars()
    utils.logging.set_verbosity_error()
    try:
        yield
    finally:
        utils.logging.set_verbosity(verbosity)
        if shown:
            utils.enable_progress_bars()


def _utils() -> Any:
    """Which names these modules mean to export differs from generation to generation."""
    return import_module("huggingface_hub.utils")


def _opened(path: Path, stack: ExitStack) -> BinaryIO:
    return stack.enter_context(open(path, "rb"))


def _size(size: object, stored: object, path: str, where: str) -> int:
    whole = isinstance(size, int) and not isinstance(size, bool) and 0 <= size < 1 << 53
    if not isinstance(size, int) or not whole or (stored is not None and stored != size):
        raise malformed(where, f"{path!r:.120} has the size {size!r:.40}, in storage {stored!r:.40}")
    return size


def _hex(digest: object, pattern: re.Pattern[str], path: str, where: str) -> str:
    if not isinstance(digest, str) or not pattern.fullmatch(digest):
        raise malformed(where, f"{path!r:.120} has the digest {digest!r:.80}")
    return digest
