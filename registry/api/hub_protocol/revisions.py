"""What the revisions of a repository mean: an adapter's versions, aliases and commits as one history.

1. ``main`` is the last commit that holds the newest version which is not yanked, or that version itself; before the first
   version the last commit, or the empty commit that every repository begins with.
2. An alias is a branch, ``vN`` a tag: both are the commit that made the version, or the version itself.
3. What a user tagged is kept as a tag of the version, ``hub-tag/NAME``, with the commit's id as its value. It does not move: no
   branch is made of its name in whatever spelling, and where an alias of that name was made elsewhere, the tag wins.
4. A commit is found by its id, and by the beginning of it if no other begins so. Ids name what is stored and what is served
   with another base (see :mod:`~registry.api.hub_protocol.rewriting`).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from threading import Lock

from registry.api.hub_protocol.rewriting import Rewriting
from registry.api.hub_protocol.trees import Tree, Trees
from registry.catalog.protocol import Catalog
from registry.catalog.sql import SqlCatalog
from registry.domain.commit import Commit
from registry.domain.names import MAIN, AdapterName, Reference
from registry.domain.version import Version
from registry.errors import NotFoundError

USER_TAG = "hub-tag/"
_VERSION = re.compile(r"v?([1-9][0-9]{0,8})", re.ASCII)
_HEX = re.compile(r"[0-9a-f]{7,40}", re.ASCII)
_PAGE = 1000
_KEPT = 1024
_TRIED = 3


@dataclass(frozen=True)
class Revision:
    """A commit. ``listed`` gives its files. ``number`` is the version it holds, 0 before the first. ``at`` is ISO 8601 in UTC."""

    commit: str
    listed: Callable[[], Tree]
    number: int
    title: str
    author: str
    at: str

    @cached_property
    def tree(self) -> Tree:
        return self.listed()


class History:
    """Of one adapter, as the catalog had it at one moment."""

    def __init__(self, adapter: AdapterName, catalog: Catalog, trees: Trees, rewriting: Rewriting) -> None:
        self.adapter = adapter
        self._catalog, self._trees, self._rewriting = catalog, trees, rewriting
        self.commits: tuple[Commit, ...] = tuple(catalog.commits(adapter))
        self.aliases: Mapping[str, int] = catalog.aliases(adapter)
        self._numbers = {name.lower(): number for name, number in self.aliases.items()}
        self._bases = catalog.base_aliases()
        try:
            self.newest: Version | None = catalog.resolve(Reference(adapter))
        except NotFoundError:  # none yet, or all are yanked
            self.newest = None
        self._known: dict[int, Version | None] = {self.newest.number: self.newest} if self.newest else {}

    @cached_property
    def versions(self) -> tuple[Version, ...]:
        """Newest first, yanked ones too."""
        found: list[Version] = []
        while len(page := self._catalog.versions(self.adapter, below=found[-1].number if found else None, limit=_PAGE)):
            found += page
            if len(page) < _PAGE:
                break
        self._known |= {version.number: version for version in found}
        return tuple(found)

    @cached_property
    def main(self) -> Revision:
        """As it is stored."""
        number = self.newest.number if self.newest else 0
        latest = next((each for each in reversed(self.commits) if each.number == number and not each.draft), None)
        if latest is not None:
            return self.of_commit(latest)
        return self.of_version(self.newest) if self.newest else self.initial

    @cached_property
    def initial(self) -> Revision:
        identity = hashlib.sha256(json.dumps(["initial", self.adapter.key]).encode()).hexdigest()[:40]
        return Revision(identity, dict, 0, "initial commit", str(self.adapter.namespace), self.created_at)

    def of_commit(self, commit: Commit) -> Revision:
        listed = partial(self._trees.of_commit, commit.tree)
        return Revision(commit.id, listed, commit.number, commit.title, commit.author, commit.at)

    def of_version(self, version: Version) -> Revision:
        """The version itself: every file that its manifest names."""
        listed = partial(self._trees.of_manifest, version.digest)
        title = version.note or f"version {version.number}"
        author = str(version.adapter.namespace)
        return Revision(version.digest.hex[:40], listed, version.number, title, author, version.created_at)

    def of_number(self, number: int) -> Revision | None:
        """The commit that made a version, or the version."""
        version = self.version(number)
        if version is None:
            return None
        made = self._made.get(number)
        return self.of_commit(made) if made is not None else self.of_version(version)

    def served(self, revision: Revision) -> Revision:
        if not self._bases.names:
            return revision
        commit, tree = self._rewriting.served(revision.commit, revision.tree, self._bases)
        return revision if commit == revision.commit else replace(revision, commit=commit, listed=lambda: tree)

    def find(self, text: str, *, main: int | None = None) -> Revision | None:
        """``main`` is the version that ``main`` means in a repository of one version."""
        name = text.removeprefix("refs/heads/")
        if name == MAIN:
            found = self.main if main is None else self.of_number(main)
        elif name.lower() in self._numbers and text not in self.user_tags:
            found = self.of_number(self._numbers[name.lower()])
        else:
            found = self.tagged(text.removeprefix("refs/tags/"))
        if found is not None:
            return self.served(found)
        return self.with_id(text.lower()) if _HEX.fullmatch(text.lower()) else None

    def tagged(self, name: str) -> Revision | None:
        """As it is stored."""
        if match := _VERSION.fullmatch(name):
            return self.of_number(int(match[1]))
        commit = self.user_tags.get(name)
        return self.with_id(commit) if commit is not None else None

    def with_id(self, start: str) -> Revision | None:
        """The only commit whose id begins so."""
        if start in self._by_id:
            return self._by_id[start]()
        found = [commit for commit in self._by_id if commit.startswith(start)]
        if found or not self._bases.names:
            return self._by_id[found[0]]() if len(found) == 1 else None
        served = {each.commit: each for each in (self.served(made()) for made in self._by_id.values())}
        renamed = [commit for commit in served if commit.startswith(start)]
        return served[renamed[0]] if len(renamed) == 1 else None

    @cached_property
    def _by_id(self) -> Mapping[str, Callable[[], Revision]]:
        """Everything that is stored; files are listed when somebody asks for them."""
        return {
            self.initial.commit: lambda: self.initial,
            **{each.digest.hex[:40]: partial(self.of_version, each) for each in self.versions},
            **{each.id: partial(self.of_commit, each) for each in self.commits},
        }

    @cached_property
    def user_tags(self) -> Mapping[str, str]:
        """Name → commit."""
        return {
            key.removeprefix(USER_TAG): commit
            for version in self.versions
            for key, commit in version.tags.items()
            if key.startswith(USER_TAG)
        }

    def line(self) -> Iterator[Revision]:
        """What ``main`` was, newest first: the versions, each with the commits that hold it; drafts are nobody's."""
        by_number: dict[int, list[Commit]] = {}
        for commit in self.commits:
            if not commit.draft:
                by_number.setdefault(commit.number, []).append(commit)
        for version in self.versions:
            holding = by_number.get(version.number, [])
            yield from (self.of_commit(each) for each in reversed(holding))
            if (made := self.of_number(version.number)) and made.commit not in [each.id for each in holding]:
                yield made
        yield from (self.of_commit(each) for each in reversed(by_number.get(0, [])))
        yield self.initial

    @cached_property
    def _made(self) -> Mapping[int, Commit]:
        """Version → the first commit that holds it and came neither from one that did nor from the version itself, whatever drafts
        lie between."""
        by_id = {commit.id: commit for commit in self.commits}
        of_version = {version.digest.hex[:40]: version.number for version in self.versions}
        found: dict[int, Commit] = {}
        for commit in self.commits:
            before = commit.parent or ""
            while before in by_id and by_id[before].draft:
                before = by_id[before].parent or ""
            number = by_id[before].number if before in by_id else of_version.get(before)
            if not commit.draft and number != commit.number:
                found.setdefault(commit.number, commit)
        return found

    @cached_property
    def created_at(self) -> str:
        first = self.version(1) or self.newest
        moments = [each.at for each in self.commits[:1]] + ([first.created_at] if first else [])
        return min(moments) if moments else self._catalog.audit(self.adapter)[-1].at

    def version(self, number: int) -> Version | None:
        if number not in self._known:
            try:
                self._known[number] = self._catalog.resolve(Reference(self.adapter, number=number)) if number else None
            except NotFoundError:
                self._known[number] = None
        return self._known[number]


class Histories:
    """The last of them, each for as long as nothing is written."""

    def __init__(self, catalog: SqlCatalog, trees: Trees, rewriting: Rewriting) -> None:
        self._catalog, self._trees, self._rewriting = catalog, trees, rewriting
        self._kept: OrderedDict[str, tuple[bytes, History]] = OrderedDict()
        self._lock = Lock()

    def of(self, adapter: AdapterName) -> History:
        """Raises NotFoundError for an adapter that is not there."""
        for _ in range(_TRIED):
            generation = self._catalog.generation()
            with self._lock:
                kept = self._kept.get(adapter.key)
                if kept is not None and kept[0] == generation:
                    return kept[1]
            history = History(adapter, self._catalog, self._trees, self._rewriting)
            if self._catalog.generation() == generation:  # all of it was read at one moment
                with self._lock:
                    self._kept[adapter.key] = (generation, history)
                    self._kept.move_to_end(adapter.key)
                    if len(self._kept) > _KEPT:
                        self._kept.popitem(last=False)
                break
        return history  # others write all the time: of more than one moment, as it may have been when it was asked for
