"""A foreign adapter's files, from a repository of the Hub into a directory: those that an adapter has, and no others.

1. The revision is looked up once; from there on everything is asked of its commit.
2. Of the names that are listed those are taken that we would keep; a list with a name that points out of a directory is
   refused whole.
3. Size and digest of each come from the commit's tree.
4. Each file is received, no longer than announced, and hashed: what is not what the tree says is refused.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from registry.domain.finding import Finding, Severity
from registry.errors import CorruptionError, DigestMismatchError, UnsuitableDirectoryError
from registry.formats.adapter_directory import (
    CONFIG,
    EVALUATIONS_FOLDER,
    MAX_SERVED_FILE,
    MAX_SIDECAR_FILE,
    PICKLED_WEIGHTS,
    WEIGHTS,
    Disposition,
    disposition,
)
from registry.formats.git_blob import git_hasher
from registry.formats.training import SIDECARS
from registry.hub.protocol import Hub, RemoteFile, RemoteRevision
from registry.operations.hub_address import HubAddress
from registry.operations.placing import placed

#: Files taken of one adapter; the largest seen has some twenty.
MAX_FILES = 500
_NAME = re.compile(r"[A-Za-z0-9_.][A-Za-z0-9_.+ -]{0,200}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Fetched:
    """``address`` has the commit; ``files`` were received and agree with it."""

    address: HubAddress
    files: tuple[RemoteFile, ...]
    findings: tuple[Finding, ...] = ()

    def document(self, directory: Path) -> dict[str, object]:
        """``pull --json`` of a repository. Keys are only ever added."""
        return {
            "reference": str(self.address),
            "repository": self.address.repository,
            "commit": self.address.revision,
            "directory": str(directory),
            "files": [
                {"path": file.path, "size": file.size, "sha256": file.sha256, "git_sha1": file.git_sha1}
                for file in self.files
            ],
            "findings": [finding.document() for finding in self.findings],
        }


def fetch_from_hub(
    address: HubAddress,
    into: Path,
    *,
    hub: Hub,
    adapter: str | None = None,
    progress: Callable[[int], None] = lambda _count: None,
) -> Fetched:
    """``into`` must not exist, or be an empty directory; it appears complete or not at all. ``adapter`` is a folder of the
    repository. Raises NotFoundError, DeniedError, UnavailableError, InvalidInputError, CorruptionError."""
    found = hub.look_up(address.repository, address.revision)
    with placed(into) as complete:
        return receive(found, complete, hub=hub, adapter=adapter, progress=progress)


def receive(
    found: RemoteRevision,
    into: Path,
    *,
    hub: Hub,
    adapter: str | None = None,
    progress: Callable[[int], None] = lambda _count: None,
) -> Fetched:
    """Into an empty directory, at a revision that was looked up."""
    address = HubAddress(found.repository, found.commit)  # 1
    wanted = _wanted(found.paths, adapter, str(address))  # 2
    files = hub.files(found.repository, found.commit, list(wanted))  # 3
    absent = [path for path in wanted if path not in files]
    if absent:
        raise CorruptionError(
            f"{address} lists {absent[0]!r:.200} and does not have it",
            code="hub-changed",
            hint="the Hub contradicts itself; nothing of it was kept",
        )
    findings = []
    taken = []
    for path, name in wanted.items():
        most = MAX_SERVED_FILE if disposition(name) is Disposition.SERVED else MAX_SIDECAR_FILE
        if name != WEIGHTS and files[path].size > most:
            message = f"{name} has {files[path].size:,} bytes; it is left out"
            findings.append(Finding("left-out", Severity.WARNING, message, name))
            continue
        place = into / name
        place.parent.mkdir(exist_ok=True)
        hub.download(found.repository, found.commit, files[path], place, progress)  # 4
        _prove(files[path], place, str(address))
        taken.append(files[path])
    return Fetched(address, tuple(taken), tuple(findings))


def _wanted(paths: Sequence[str], adapter: str | None, where: str) -> Mapping[str, str]:
    """Path in the repository → path in the directory."""
    unsafe = next((path for path in paths if _points_outside(path)), None)
    if unsafe is not None:
        raise UnsuitableDirectoryError(
            f"{where} lists a file {unsafe!r:.200}, a name that points out of its directory",
            code="unsafe-path",
            hint="nothing of it was fetched; do not trust what else is in it",
        )
    prefix = f"{adapter}/" if adapter else ""
    names = {path.removeprefix(prefix): path for path in paths if path.startswith(prefix)}
    wanted = {path: name for name, path in names.items() if _is_ours(name)}
    if CONFIG not in names:
        raise _no_config(paths, adapter, where)
    if WEIGHTS not in names:
        raise _no_weights(names, where)
    if len(wanted) > MAX_FILES:
        raise UnsuitableDirectoryError(
            f"{where} has {len(wanted):,} files that an adapter could have, more than the {MAX_FILES} that are taken",
            code="too-many-files",
            hint="fetch those that you want with `hf download`, then push the directory",
        )
    return wanted


def _points_outside(path: str) -> bool:
    steps = path.split("/")
    return path.startswith("/") or "\\" in path or ".." in steps or "" in steps or not path.isprintable()


def _is_ours(name: str) -> bool:
    folder, slash, last = name.rpartition("/")
    if not _NAME.fullmatch(last):
        return False
    if slash:
        return folder == EVALUATIONS_FOLDER and last.endswith((".yaml", ".yml"))
    return disposition(name) is Disposition.SERVED or name in SIDECARS


def _no_config(paths: Sequence[str], adapter: str | None, where: str) -> UnsuitableDirectoryError:
    inside = sorted(path.removesuffix(f"/{CONFIG}") for path in paths if path.endswith(f"/{CONFIG}"))
    place = f"{where}/{adapter}" if adapter else where
    if inside:
        return UnsuitableDirectoryError(
            f"{place} has no {CONFIG}, but {', '.join(map(repr, inside[:5]))} {'has' if len(inside) == 1 else 'have'} one",
            code="no-config",
            hint=f"name the one you mean: --adapter {inside[0]}",
        )
    return UnsuitableDirectoryError(
        f"{place} has no {CONFIG}, so it is no PEFT adapter", code="no-config", hint="check the name and the revision"
    )


def _no_weights(names: Mapping[str, str], where: str) -> UnsuitableDirectoryError:
    pickled = next((name for name in PICKLED_WEIGHTS if name in names), None)
    if pickled:
        return UnsuitableDirectoryError(
            f"{where} has its weights in {pickled}, a pickle, which can run code when it is opened; it was not fetched",
            code="pickle",
            hint="ask its author for adapter_model.safetensors, or convert it on a machine that trusts it",
        )
    return UnsuitableDirectoryError(
        f"{where} has {CONFIG} but no {WEIGHTS}",
        code="no-weights",
        hint="was the upload interrupted? try another revision",
    )


def _prove(file: RemoteFile, place: Path, where: str) -> None:
    size = place.stat().st_size
    if size != file.size:
        raise CorruptionError(
            f"{where}/{file.path} has {size:,} bytes, where the Hub lists {file.size:,}",
            code="size-mismatch",
            hint="try again; if it stays so, the Hub contradicts itself",
        )
    kind = hashlib.sha256 if file.sha256 else partial(git_hasher, size)  # all that git tells of a small file
    with open(place, "rb") as data:
        actual = hashlib.file_digest(data, kind).hexdigest()
    expected = file.sha256 or file.git_sha1
    if actual != expected:
        raise DigestMismatchError(
            f"{where}/{file.path}",
            expected=expected,
            actual=actual,
            hint="what came is not what the commit holds, and was not kept; try again, and trust nothing else of it if it stays",
        )
