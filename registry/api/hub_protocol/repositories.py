"""From a repository's name in a path to an adapter, for somebody who may know of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from registry.api.hub_protocol.errors import (
    EntryMissingError,
    ForeignRepositoryError,
    HiddenRepositoryError,
    ReadOnlyRevisionError,
    RepositoryMissingError,
    RevisionMissingError,
)
from registry.domain.access import Action
from registry.domain.names import AdapterName, AliasName, version_number
from registry.domain.version import Adapter
from registry.errors import InvalidNameError, RegistryError

if TYPE_CHECKING:
    from registry.api.callers import Caller
    from registry.api.hub_protocol.revisions import Histories, History, Revision
    from registry.api.hub_protocol.trees import Entry


@dataclass(frozen=True, slots=True)
class Repository:
    """``shown`` is the id it was asked for by. ``pinned`` is the version it consists of, if its name has a suffix."""

    adapter: Adapter
    shown: str
    histories: Histories
    pinned: int | None = None

    @property
    def name(self) -> AdapterName:
        return self.adapter.name

    @property
    def history(self) -> History:
        return self.histories.of(self.name)

    def revision(self, text: str) -> Revision:
        """As it is served. Raises RevisionMissingError."""
        found = self.history.find(text, main=self.pinned)
        if found is None:
            raise RevisionMissingError(self.shown, text)
        return found

    def entry(self, revision: Revision, path: str) -> Entry:
        """Raises EntryMissingError."""
        if path not in revision.tree:
            raise EntryMissingError(self.shown, revision.commit, path)
        return revision.tree[path]


def find_repository(caller: Caller, shown: str, histories: Histories, *, action: Action = Action.READ) -> Repository:
    """Raises RepositoryMissingError for what is not there and what the caller may not know of, ForeignRepositoryError for a
    look into a namespace of others, DeniedError."""
    found = _named(caller, shown, histories)
    if found is None or not (caller.may(Action.READ, found.name) or caller.may(action, found.name)):
        raise missing(caller, shown, action)
    if action is not Action.READ and found.pinned is not None:
        raise ReadOnlyRevisionError(
            f"{shown} is version {found.pinned} of {found.name}, and a version does not change",
            hint=f"push to {found.name}, then promote what it became: adapters alias set",
        )
    caller.require(action, found.name)
    return found


def missing(caller: Caller, shown: str, action: Action = Action.READ) -> RegistryError:
    """The error for a repository that is not there for this caller."""
    nobody = caller.token is None and not caller.open and not caller.anonymous_read
    if action is Action.READ and not is_ours(caller, shown):
        return ForeignRepositoryError(shown)
    return HiddenRepositoryError(shown) if nobody else RepositoryMissingError(shown)


def is_ours(caller: Caller, shown: str) -> bool:
    """Whether the namespace is one of this registry: something is or was in it, or the caller's token is for it."""
    namespace, slash, _ = shown.partition("/")
    if not slash:
        return False
    patterns = caller.token.patterns if caller.token else ()
    named = {pattern.partition("/")[0].lower() for pattern in patterns if pattern != "*"}
    return namespace.lower() in named or caller.registry.catalog.has_namespace(namespace)


def _named(caller: Caller, shown: str, histories: Histories) -> Repository | None:
    """An alias or a version wins over an adapter that an older registry let have its name, also where the caller may not see
    it."""
    try:
        name = AdapterName.parse(shown)
    except InvalidNameError:
        return None
    if (pinned := _with_suffix(caller, shown, histories)) is not None:
        return pinned
    adapter = caller.registry.catalog.find_adapter(name)
    return Repository(adapter, shown, histories) if adapter is not None else None


def _with_suffix(caller: Caller, shown: str, histories: Histories) -> Repository | None:
    stem, dot, suffix = shown.rpartition(".")
    if not dot:
        return None
    try:
        adapter = caller.registry.catalog.find_adapter(AdapterName.parse(stem))
        if adapter is None:
            return None
        number = _pinned(suffix, histories.of(adapter.name))
    except InvalidNameError:
        return None
    return Repository(adapter, shown, histories, number) if number is not None else None


def _pinned(suffix: str, history: History) -> int | None:
    """The version that a suffix means: ``v3``, or an alias. Raises InvalidNameError."""
    if suffix[:1] in ("v", "V") and suffix[1:].isdecimal():
        number = version_number(suffix[1:])
        return number if history.of_number(number) is not None else None
    alias = AliasName(suffix).key
    return next((number for name, number in history.aliases.items() if name.lower() == alias), None)
