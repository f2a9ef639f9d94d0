"""What may be uploaded where: asked before anything is sent, and once more when it is committed."""

from __future__ import annotations

import re
from collections.abc import Collection, Container, Iterable
from enum import Enum, auto
from typing import TYPE_CHECKING

from registry.api.hub_protocol.errors import ReadOnlyRevisionError, RevisionMissingError, UnsupportedError
from registry.domain.names import MAIN
from registry.domain.paths import require_plain
from registry.errors import UnsuitableDirectoryError
from registry.formats.adapter_directory import (
    CONFIG,
    EVALUATIONS_FOLDER,
    PICKLED_WEIGHTS,
    WEIGHTS,
    Disposition,
    disposition,
)

if TYPE_CHECKING:
    from registry.api.hub_protocol.asked import Asked
    from registry.api.hub_protocol.repositories import Repository
    from registry.api.hub_protocol.trees import Tree

_CARDS = re.compile(r"[^/]+\.md|(?:LICENSE|NOTICE|USE_POLICY)[^/]*")


_MODELS = re.compile(r"(?:pytorch_)?model(?:-[0-9]+-of-[0-9]+)?\.(?:safetensors|bin)", re.ASCII)


class Welcome(Enum):
    KEPT = auto()
    LEFT_OUT = auto()  #: pickles beside the weights: optimizer states, training arguments


def require_writable(repository: Repository, revision: str, asked: Asked) -> None:
    """Only ``main`` takes commits. Raises ReadOnlyRevisionError, RevisionMissingError, UnsupportedError."""
    if asked.flag("create_pr") or revision.startswith("refs/pr/"):
        raise UnsupportedError("there are no pull requests here; commit to main", hint="leave create_pr away")
    name = revision.removeprefix("refs/heads/")
    if name == MAIN:
        return
    if name.lower() in {alias.lower() for alias in repository.history.aliases}:
        raise ReadOnlyRevisionError(
            f"{name} is an alias of {repository.name} and takes no commits",
            hint=f"push to main, then promote what it became: adapters alias set {repository.name} {name} VERSION",
        )
    if repository.history.find(revision) is not None:
        raise ReadOnlyRevisionError(
            f"{revision} of {repository.name} is a version, and a version does not change", hint="push to main"
        )
    raise RevisionMissingError(repository.shown, revision)


def welcome(path: str) -> Welcome:
    """Raises InvalidInputError for a path that leaves the repository, and for what is never kept."""
    require_plain(path)
    name = path.rpartition("/")[2]
    what = disposition(name)
    if path in PICKLED_WEIGHTS:
        raise UnsuitableDirectoryError(
            f"{path} is a pickle, which can run code when it is opened",
            code="pickle",
            hint="convert it on a machine that trusts it: load it with PEFT, and save_pretrained(..., safe_serialization=True) "
            "writes adapter_model.safetensors",
        )
    if what is Disposition.CODE:
        raise UnsuitableDirectoryError(
            f"{path} is code, and code is never stored with weights",
            code="code-file",
            hint="leave it out: ignore_patterns",
        )
    pickled = what is Disposition.PICKLE or name.endswith((".bin", ".pt", ".pth", ".ckpt", ".pkl"))
    return Welcome.LEFT_OUT if pickled else Welcome.KEPT


def require_adapter_beside(brought: Iterable[str], tree: Collection[str], shown: str) -> None:
    """The weights of a whole model that come into a repository are beside an adapter, or nobody would ever find them in a
    version. ``tree`` are the paths that are there and those that are still to come. Raises UnsuitableDirectoryError."""
    model = next((path for path in sorted(brought) if _MODELS.fullmatch(path)), None)
    if model is not None and CONFIG not in tree and WEIGHTS not in tree:
        raise UnsuitableDirectoryError(
            f"{shown} would hold no adapter: {model} is a whole model, and versions are made of {CONFIG} and {WEIGHTS}; "
            "nothing was recorded",
            code="no-config",
            hint="upload what PEFT's save_pretrained wrote; a checkpoint that adapters were merged into is recorded by adapters "
            "merge --name, and a base by adapters base add",
        )


def is_described(path: str) -> bool:
    """Whether a version's manifest would keep the file."""
    folder, slash, name = path.rpartition("/")
    if slash:
        return folder == EVALUATIONS_FOLDER and name.endswith((".yaml", ".yml"))
    return disposition(name) in (Disposition.SERVED, Disposition.SIDECAR)


def makes_version(path: str) -> bool:
    """Whether a change of the file changes the adapter. Cards and licences speak about it, and are not it."""
    return is_described(path) and "/" not in path and not _CARDS.fullmatch(path)


def adapter_in(tree: Tree) -> dict[str, str]:
    """What the tree's version would be, by path: equal for trees that differ in side files alone."""
    return {path: entry.digest for path, entry in tree.items() if makes_version(path)}


def lost_from(version: Tree, tree: Tree) -> str | None:
    """A file of the version that the tree lacks, or has another of: cards and sub-folders are nobody's loss."""
    own = (entry for path, entry in version.items() if "/" not in path and not _CARDS.fullmatch(path))
    return next(
        (entry.path for entry in own if entry.path not in tree or tree[entry.path].digest != entry.digest), None
    )


def is_whole(paths: Container[str]) -> bool:
    """Whether an adapter is among them."""
    return CONFIG in paths and WEIGHTS in paths
