"""The verbs that say whether adapters fit. What does not fit is an answer, not an exception: see ``Verdict.failure``."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from registry.disk import path_of
from registry.errors import InvalidInputError, UnavailableError
from registry.verbs.store import Store

if TYPE_CHECKING:
    from registry.checks.profile import Profile
    from registry.operations.bases import CheckedBase
    from registry.operations.check import Verdict


class CheckVerbs(Store):
    """What holds adapters against bases and engines."""

    __slots__ = ()

    def checked_base(self, base: str | Path) -> CheckedBase:
        """A checkpoint's directory, or a base by its name, as the Hub has it if nobody here has; to be looked up once for many
        checks. Raises InvalidInputError for a directory that holds no sound checkpoint."""
        from registry.operations.bases import base_called

        return base_called(os.path.join(".", base) if isinstance(base, Path) else base, self.shelf(online=True))

    def check(
        self,
        subject: str | Path,
        *,
        base: str | Path | CheckedBase | None = None,
        engine: str | Profile | None = None,
        allow: Collection[str] = (),
    ) -> Verdict:
        """Does a version, or a directory (a Path, or a text that looks like one), fit ``base``, and will ``engine``
        (``vllm``, ``llama.cpp==b6000``) serve it? Errors of the rules in ``allow`` are warnings.

        Raises InvalidInputError for an adapter that cannot be read, NotFoundError, CorruptionError."""
        from registry.operations.bases import is_path
        from registry.operations.check import adapter_in, adapter_stored, check, under_alias

        known, profile = self._against(base, engine)
        text = str(subject)
        if isinstance(subject, Path) or is_path(text):
            adapter = adapter_in(path_of(text))
        else:
            adapter = adapter_stored(self.reference(text), blobs=self.blobs, catalog=self.catalog)
        if known is not None and known.id.id is not None:  # names are compared as this registry understands them
            adapter = under_alias(adapter, self.shelf())
        return check(adapter, known, profile, allow=allow)

    def check_all(
        self,
        *,
        base: str | Path | CheckedBase | None = None,
        engine: str | Profile | None = None,
        allow: Collection[str] = (),
        progress: Callable[[int], None] = lambda _count: None,
    ) -> Iterator[Verdict]:
        """The newest version of every adapter that was trained on ``base``, or of every adapter. One that cannot be read gets a
        verdict too. Raises UnavailableError for a base that nobody knows, and for a directory that nothing ties to an adapter:
        neither must pass for want of adapters."""
        from registry.operations.survey import survey

        known, profile = self._against(base, engine)
        is_empty = True
        for verdict in survey(known, profile, blobs=self.blobs, catalog=self.catalog, allow=allow, progress=progress):
            is_empty = False
            yield verdict
        if is_empty and known is not None:
            self._require_known(known)

    def _against(
        self, base: str | Path | CheckedBase | None, engine: str | Profile | None
    ) -> tuple[CheckedBase | None, Profile | None]:
        from registry.checks.profile import find_profile

        if base is None and engine is None:
            raise InvalidInputError("give a base, an engine, or both: what shall it fit?", code="nothing-to-check")
        known = self.checked_base(base) if isinstance(base, str | Path) else base
        return known, find_profile(engine) if isinstance(engine, str) else engine

    def _require_known(self, base: CheckedBase) -> None:
        from registry.domain.query import VersionQuery

        if base.problem is not None:
            raise UnavailableError(base.problem.message, code=base.problem.rule, hint=base.problem.fix)
        if base.id.id is None and self.catalog.search(VersionQuery(limit=1)):
            raise UnavailableError(
                f"{base.id.raw} has no name, and nothing says which adapters were trained on it, so that none was checked",
                code="base-unnamed",
                hint=f"adapters base add {base.id.raw} --name OWNER/NAME@REVISION, then check --all --base OWNER/NAME@REVISION",
            )
