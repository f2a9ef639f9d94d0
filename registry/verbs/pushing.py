"""The verbs that make versions of files. What only a push needs is imported by the push: look-ups start faster."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, TypedDict

from registry.domain.lineage import LineageEdge, finite_weight
from registry.domain.names import AdapterName, AliasName, fitted
from registry.domain.tags import checked_tags
from registry.errors import (
    ConflictError,
    DeniedError,
    InvalidInputError,
    InvalidNameError,
    NotFoundError,
    RegistryError,
    RejectedError,
)
from registry.verbs.store import Store

if TYPE_CHECKING:
    from registry.operations.bases import Shelf
    from registry.operations.evaluate import Measured
    from registry.operations.publish import Published, Submission

Parent = str | tuple[str, float | None]
DirectoryOrRecord = str | Path | Mapping[str, object]
_BATCH = 64
#: What a push of many takes of each.
_OF_ONE = ("name", "base", "alias", "tags", "evaluations", "note", "adapter", "parents", "parent_kind")


class PushOptions(TypedDict, total=False):
    """What goes with a push, see :meth:`Registry.push`."""

    base: str | None
    alias: str | Sequence[str]
    tags: Mapping[str, str] | None
    evaluations: Sequence[str | Path | Measured]
    note: str | None
    parents: Sequence[Parent]
    parent_kind: str
    allow: Sequence[str]


@dataclass(frozen=True, slots=True)
class Failed:
    """An adapter of a bulk push that was refused; the others went on."""

    directory: Path
    error: RegistryError


class PushVerbs(Store):
    """What makes versions."""

    __slots__ = ()
    #: Whether several of them share a transaction.
    together: ClassVar[bool] = True

    def push(
        self,
        directory: str | Path,
        *,
        name: str | None = None,
        base: str | None = None,
        alias: str | Sequence[str] = (),
        tags: Mapping[str, str] | None = None,
        evaluations: Sequence[str | Path | Measured] = (),
        note: str | None = None,
        adapter: str | None = None,
        parents: Sequence[Parent] = (),
        parent_kind: str = "continued-from",
        allow: Sequence[str] = (),
        progress: Callable[[int], None] = lambda _count: None,
    ) -> Published:
        """Store a directory as the next version of ``name`` (default: the directory's name made to fit).

        ``parents`` are references, each alone or with its weight. ``allow`` names rules whose errors are accepted.
        The same content again is the same version. Raises InvalidInputError with nothing written.
        """
        from registry.operations.publish import publish

        submission = self._submission(
            Path(directory),
            name=name,
            base=base,
            adapter=adapter,
            parents=parents,
            parent_kind=parent_kind,
            aliases=[alias] if isinstance(alias, str) else alias,
            tags=tags or {},
            evaluations=evaluations,
            note=note,
            progress=progress,
        )
        return publish([submission], blobs=self.blobs, catalog=self.catalog, allow=allow, progress=progress)[0]

    def push_many(
        self, adapters: Iterable[DirectoryOrRecord], *, allow: Sequence[str] = (), batch: int = _BATCH
    ) -> Iterator[Published | Failed]:
        """Push thousands: directories, or mappings with ``directory`` and the arguments of :meth:`push`, but for those given here.

        At most ``batch`` adapters share one transaction. A server is asked for all of a transaction with each of its steps: there
        every adapter has its own. What is refused is yielded as :class:`Failed` and stops nobody else.
        """
        from registry.operations.publish import refuse_errors

        waiting: list[Submission] = []
        shelf = self.shelf()
        for item in adapters:
            options = dict(item) if isinstance(item, Mapping) else {"directory": item}
            directory = Path(str(options.pop("directory", "")))
            try:
                _require_known(options, directory)
                submission = self._submission(directory, shelf=shelf, **_with_aliases(options))  # type: ignore[arg-type]
                refuse_errors(submission.package, allow)
                waiting.append(submission)
            except (InvalidInputError, NotFoundError, RejectedError) as error:
                yield Failed(directory, error)
            if len(waiting) >= (batch if self.together else 1):
                yield from self._publish(waiting, allow)
                waiting = []
        yield from self._publish(waiting, allow)

    def _publish(self, submissions: Sequence[Submission], allow: Sequence[str]) -> Iterator[Published | Failed]:
        """In one transaction; if one of them is refused, one by one, and that one fails alone."""
        from registry.operations.publish import publish

        if not submissions:
            return
        try:
            yield from publish(submissions, blobs=self.blobs, catalog=self.catalog, allow=allow)
        except (ConflictError, DeniedError, InvalidInputError, NotFoundError, RejectedError) as error:
            if len(submissions) == 1:
                yield Failed(submissions[0].package.directory, error)
                return
            for submission in submissions:
                yield from self._publish([submission], allow)

    def _submission(
        self,
        directory: Path,
        *,
        name: str | None = None,
        base: str | None = None,
        adapter: str | None = None,
        parents: Sequence[Parent] = (),
        parent_kind: str = "continued-from",
        aliases: Sequence[str] = (),
        tags: Mapping[str, str] | None = None,
        evaluations: Sequence[str | Path | Measured] = (),
        note: str | None = None,
        shelf: Shelf | None = None,
        progress: Callable[[int], None] = lambda _count: None,
    ) -> Submission:
        """Everything that can be refused without looking into the store is refused here."""
        from registry.operations.bases import is_path
        from registry.operations.check import against_base
        from registry.operations.describe import describe
        from registry.operations.evaluate import Measured, measured
        from registry.operations.publish import Attachments, Submission

        wanted = self.adapter(name) if name is not None else self._named_after(directory, adapter)
        attachments = Attachments(
            aliases=[AliasName(alias) for alias in aliases],
            tags=checked_tags(tags or {}),
            evaluations=[source if isinstance(source, Measured) else measured(source) for source in evaluations],
            note=note,
        )
        lineage = [self._edge(parent, parent_kind) for parent in parents]
        at = base if base is not None and self.trusts_paths and is_path(base) else None
        named = base if at is None else None
        package = describe(directory, adapter=adapter, base=named, lineage=lineage, progress=progress)
        return Submission(against_base(package, at, shelf or self.shelf()), wanted, attachments)

    def _named_after(self, directory: Path, adapter: str | None) -> AdapterName:
        own = adapter or Path(directory).absolute().resolve().name
        name = fitted(own)
        if not name:
            raise InvalidNameError(
                "name",
                own,
                "ASCII letters and digits, of which nothing is left here",
                hint="name it yourself: --name my-adapter",
            )
        return self.adapter(name)

    def _edge(self, parent: Parent, kind: str) -> LineageEdge:
        text, weight = (parent, None) if isinstance(parent, str) else parent
        share = finite_weight(weight) if weight is not None else None
        version = self.resolve(text)
        return LineageEdge(version.digest, kind, share, version.reference)


def _require_known(options: Mapping[str, object], directory: Path) -> None:
    odd = next((name for name in options if name not in _OF_ONE), None)
    if odd is not None or directory == Path():
        problem = f"{odd!r:.80}, which is no argument of one" if odd is not None else "no directory"
        raise InvalidInputError(f"an adapter to push has {problem}", hint=f"directory, and any of {', '.join(_OF_ONE)}")


def _with_aliases(options: dict[str, object]) -> dict[str, object]:
    alias = options.pop("alias", ())
    return {**options, "aliases": [alias] if isinstance(alias, str) else alias}
