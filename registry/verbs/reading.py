"""The verbs that change nothing in the registry."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from registry.domain.names import AliasName
from registry.errors import InvalidValueError
from registry.operations.fetch import fetch
from registry.operations.find import Conditions, asked
from registry.operations.show import Details, show
from registry.verbs.store import Store

if TYPE_CHECKING:
    from registry.domain.base_model import BaseAliases, BaseModelSpec, StoredBase
    from registry.domain.evaluation import Evaluation
    from registry.domain.manifest import Manifest
    from registry.domain.version import AliasMove, AuditEntry, Version
    from registry.operations.compare import Comparison

#: What a database counts to.
_MOST_ROWS = (1 << 63) - 1


class ReadVerbs(Store):
    """What finds, shows and brings back."""

    __slots__ = ()

    def pull(
        self,
        reference: str,
        into: str | Path,
        *,
        served_only: bool = False,
        progress: Callable[[int], None] = lambda _count: None,
    ) -> tuple[Version, Manifest]:
        return fetch(
            self.reference(reference),
            Path(into),
            blobs=self.blobs,
            catalog=self.catalog,
            served_only=served_only,
            progress=progress,
        )

    def show(self, reference: str) -> Details:
        return show(self.reference(reference), blobs=self.blobs, catalog=self.catalog)

    def list(
        self, text: str | None = None, *, parent: str | None = None, **conditions: Unpack[Conditions]
    ) -> Sequence[Version]:
        """One page; ``text`` is part of a name, ``parent`` a reference to what it was made from. Raises InvalidNameError for a
        condition outside its grammar, NotFoundError."""
        digest = self.resolve(parent).digest if parent is not None else None
        return self.catalog.search(asked(text, namespace_of_names=self.namespace, parent=digest, **conditions))

    def compare(self, *references: str) -> Comparison:
        from registry.operations.compare import compare

        return compare([self.reference(reference) for reference in references], catalog=self.catalog)

    def evaluations(self, reference: str) -> Sequence[Evaluation]:
        return self.catalog.evaluations(self.resolve(reference))

    def aliases(self, name: str) -> dict[str, int]:
        return self.catalog.aliases(self.adapter(name))

    def alias_history(self, name: str, alias: str) -> Sequence[AliasMove]:
        return self.catalog.alias_history(self.adapter(name), AliasName(alias))

    def log(self, name: str | None = None, *, limit: int | None = None) -> Sequence[AuditEntry]:
        """Newest first; raises InvalidValueError for a limit that is none."""
        if limit is not None and not 1 <= limit <= _MOST_ROWS:
            raise InvalidValueError("limit", str(limit), "a whole number from 1")
        return self.catalog.audit(self.adapter(name) if name else None, limit=limit)

    def bases(self) -> Sequence[StoredBase]:
        return self.catalog.bases()

    def base(self, name: str) -> tuple[StoredBase, BaseModelSpec]:
        """Raises NotFoundError."""
        from registry.operations.stored_bases import show_base

        return show_base(name, blobs=self.blobs, catalog=self.catalog)

    def base_aliases(self) -> BaseAliases:
        return self.catalog.base_aliases()
