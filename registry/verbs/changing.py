"""The verbs that move what may move: aliases, tags, scores, bases; and those that take back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING

from registry.catalog.protocol import ANYTHING, Anything
from registry.domain.names import MAX_NUMBER, AliasName, Reference
from registry.domain.tags import checked_tags
from registry.errors import InvalidInputError, InvalidValueError
from registry.operations.find import canonical_base
from registry.verbs.store import Store

if TYPE_CHECKING:
    from registry.domain.base_model import BaseModelSpec, StoredBase
    from registry.domain.gate import Gate, Outcome
    from registry.domain.version import AliasMove, Version
    from registry.operations.evaluate import Measured
    from registry.operations.promote import Promotion


class ChangeVerbs(Store):
    """What changes a version's surroundings, never the version."""

    __slots__ = ()

    def gate(
        self,
        reference: str,
        wanted: str | Path | Gate | None = None,
        *,
        against: str | None = None,
        minimum: Sequence[str] = (),
        no_regression: Sequence[str] = (),
        noise: float | None = None,
    ) -> Outcome:
        """``wanted`` is a gate.toml, or conditions that were read already; ``minimum`` are more of them such as ``acc>=0.8``,
        ``no_regression`` such as ``acc:0.01``. A closed gate is an answer, not an exception: see :attr:`Outcome.failure`."""
        from registry.operations.gate import asked, gate

        wanted = asked(wanted, against=against, minimum=minimum, no_regression=no_regression, noise=noise)
        return gate(self.reference(reference), wanted, namespace=self.namespace, catalog=self.catalog)

    def promote(
        self,
        reference: str,
        alias: str,
        wanted: str | Path | Gate | None = None,
        *,
        against: str | None = None,
        minimum: Sequence[str] = (),
        no_regression: Sequence[str] = (),
        noise: float | None = None,
        expected: int | Anything | None = ANYTHING,
    ) -> Promotion:
        """Move an alias if the gate holds, in one transaction. The conditions are those of :meth:`gate`; without ``against`` the
        version is held against what the alias points at. Raises AliasMovedError, RejectedError for one that is yanked."""
        from registry.operations.gate import asked
        from registry.operations.promote import promote

        return promote(
            self.reference(reference),
            AliasName(alias),
            asked(wanted, against=against, minimum=minimum, no_regression=no_regression, noise=noise),
            namespace=self.namespace,
            catalog=self.catalog,
            expected=expected,
        )

    def add_evaluations(self, reference: str, *sources: str | Path | Measured) -> tuple[Version, int]:
        """Results files, ``metric=value`` texts or :class:`Measured` values; returns how many scores were new."""
        from registry.operations.evaluate import Measured, evaluate, measured

        found = [source if isinstance(source, Measured) else measured(source) for source in sources]
        return evaluate(self.reference(reference), found, blobs=self.blobs, catalog=self.catalog)

    def set_alias(
        self, name: str, alias: str, version: int, *, expected: int | Anything | None = ANYTHING
    ) -> AliasMove | None:
        """Compare and set; None if it pointed there already. Raises AliasMovedError, NotFoundError."""
        number = _number(version)
        with self.catalog.writing() as writer:
            return writer.move_alias(self.adapter(name), AliasName(alias), number, expected=_expected(expected))

    def remove_alias(self, name: str, alias: str, *, expected: int | Anything | None = ANYTHING) -> AliasMove | None:
        with self.catalog.writing() as writer:
            return writer.move_alias(self.adapter(name), AliasName(alias), None, expected=_expected(expected))

    def set_tags(self, reference: str, tags: Mapping[str, str]) -> Version:
        wanted = checked_tags(tags)
        with self.catalog.writing() as writer:
            version = writer.resolve(self.reference(reference))
            writer.set_tags(version, wanted)
            return writer.resolve(Reference(version.adapter, number=version.number))

    def remove_tags(self, reference: str, *keys: str) -> Version:
        with self.catalog.writing() as writer:
            version = writer.resolve(self.reference(reference))
            writer.remove_tags(version, keys)
            return writer.resolve(Reference(version.adapter, number=version.number))

    def yank(self, reference: str, reason: str) -> Version:
        """Hide from search; whoever names the version exactly still gets it, with a warning."""
        if not reason.strip():
            raise InvalidInputError(
                "a yank needs a reason", hint="say it with --reason: people who pinned the version will read it"
            )
        with self.catalog.writing() as writer:
            version = writer.resolve(self.reference(reference))
            writer.yank(version, reason)
            return writer.resolve(Reference(version.adapter, number=version.number))

    def unyank(self, reference: str) -> Version:
        with self.catalog.writing() as writer:
            version = writer.resolve(self.reference(reference))
            writer.unyank(version)
            return writer.resolve(Reference(version.adapter, number=version.number))

    def delete(self, reference: str, reason: str) -> Version:
        """Leave a tombstone: the number is never used again, the content goes with the next collection."""
        with self.catalog.writing() as writer:
            version = writer.resolve(self.reference(reference))
            writer.delete(version, reason)
            return version

    def add_base(
        self, source: str | Path, *, name: str | None = None, hash_weights: bool = False
    ) -> tuple[StoredBase, BaseModelSpec, bool]:
        """Store what can be known of a base model without its weights, so that pushes are checked against it: a checkpoint's
        directory, or a repository on the Hub. ``name`` (``ID[@REVISION]``) where the source has none of its own."""
        from registry.operations.stored_bases import add_base

        return add_base(str(source), name=name, hash_weights=hash_weights, blobs=self.blobs, catalog=self.catalog)

    def alias_base(self, name: str, canonical: str | None) -> bool:
        """From now on ``name`` means the base ``canonical``, in checks and in search; None takes that back."""
        from registry.operations.bases import repository_and_revision

        known, _ = repository_and_revision(name)
        meant = canonical_base(repository_and_revision(canonical)[0]) if canonical is not None else None
        with self.catalog.writing() as writer:
            return writer.alias_base(known, meant)


def _number(version: int) -> int:
    """Raises InvalidValueError for what no version's number is."""
    if not isinstance(version, Integral) or isinstance(version, bool) or not 1 <= version < MAX_NUMBER:
        raise InvalidValueError("version number", str(version), "a whole number from 1, such as 3")
    return int(version)


def _expected(version: int | Anything | None) -> int | Anything | None:
    return version if version is None or isinstance(version, Anything) else _number(version)
