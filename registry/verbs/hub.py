"""The verbs that work with the Hugging Face Hub as a peer, as methods of a registry; and the lazy door to its client.

Endpoint, token and offline mode are huggingface_hub's own settings: HF_ENDPOINT, HF_TOKEN or `hf auth login`, HF_HUB_OFFLINE.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from registry.disk import path_of
from registry.domain.names import AdapterName, AliasName, fitted
from registry.domain.tags import checked_tags
from registry.errors import UnavailableError
from registry.verbs.store import Store

if TYPE_CHECKING:
    from registry.domain.finding import Finding
    from registry.hub.repositories import HuggingFaceHub
    from registry.operations.hub_address import HubAddress
    from registry.operations.hub_fetch import Fetched
    from registry.operations.hub_import import Imported, NotImported
    from registry.operations.hub_push import Sent

#: Fetched at a time, unless somebody says otherwise.
JOBS = 4


class HubVerbs(Store):
    """What sends to the Hub and fetches from it."""

    __slots__ = ()

    def push_to_hub(
        self,
        subject: str | Path,
        to: str,
        *,
        private: bool | None = None,
        base: str | None = None,
        adapter: str | None = None,
        allow: Sequence[str] = (),
        force: bool = False,
        dry_run: bool = False,
    ) -> Sent:
        """Send a version, or a directory (a Path, or a text that looks like one), to ``hf://OWNER/NAME``: one commit, and for a
        version a tag, unless a server of this project gives it a number of its own. ``private`` is about a repository that is
        made for it (None: yes). A directory is described and checked as :meth:`push` does; ``allow`` and ``adapter`` are as
        there. ``base`` is the repository to name.

        Raises ConflictError, DeniedError, UnavailableError and InvalidInputError with nothing sent.
        """
        from registry.errors import InvalidNameError
        from registry.operations.bases import is_path
        from registry.operations.check import against_base
        from registry.operations.describe import describe
        from registry.operations.hub_address import HubAddress
        from registry.operations.hub_push import push_to_hub, record_push
        from registry.operations.ingredients import temporary
        from registry.operations.parcel import parcel_of_directory, parcel_of_version
        from registry.operations.publish import refuse_errors

        address, shelf = HubAddress.parse(to), self.shelf()
        if address.revision is not None or "/" not in address.repository:
            raise InvalidNameError(
                "destination",
                to,
                "hf://OWNER/NAME, with an owner and without a revision",
                hint="a push goes to main, and tags the version",
            )
        with temporary() as work, _hub() as hub:
            if isinstance(subject, Path) or is_path(str(subject)):
                package = describe(path_of(subject), adapter=adapter, base=base)
                package = against_base(package, None, shelf)
                refuse_errors(package, allow)
                parcel = parcel_of_directory(package, address.repository, work, base=base, shelf=shelf)
                return push_to_hub(parcel, address.repository, hub=hub, private=private, force=force, dry_run=dry_run)
            version = self.resolve(str(subject))
            parcel = parcel_of_version(
                version, address.repository, work, base=base, shelf=shelf, is_numbered=hub.numbers_versions
            )
            sent = push_to_hub(parcel, address.repository, hub=hub, private=private, force=force, dry_run=dry_run)
        record_push(version, sent, self.catalog)
        return sent

    def pull_from_hub(
        self,
        source: str,
        into: str | Path,
        *,
        adapter: str | None = None,
        progress: Callable[[int], None] = lambda _count: None,
    ) -> Fetched:
        """A foreign adapter's files, ``hf://OWNER/NAME[@REVISION]``, each held against the commit's digests. ``adapter`` is a
        folder of the repository. Nothing is recorded."""
        from registry.operations.hub_address import HubAddress
        from registry.operations.hub_fetch import fetch_from_hub

        with _hub() as hub:
            return fetch_from_hub(HubAddress.parse(source), Path(into), hub=hub, adapter=adapter, progress=progress)

    def import_from_hub(
        self,
        source: str,
        *,
        name: str | None = None,
        base: str | None = None,
        adapter: str | None = None,
        alias: str | Sequence[str] = (),
        tags: Mapping[str, str] | None = None,
        note: str | None = None,
        allow: Sequence[str] = (),
        progress: Callable[[int], None] = lambda _count: None,
    ) -> Imported:
        """Record a foreign adapter as a version of ``name`` (default: what the repository is called), checked as a push. What
        was imported at the same commit is not fetched again."""
        from registry.operations.hub_address import HubAddress
        from registry.operations.hub_import import Wanted, import_from_hub

        address = HubAddress.parse(source)
        wanted = Wanted(
            address,
            self._called(address, name),
            adapter,
            base,
            [AliasName(each) for each in ([alias] if isinstance(alias, str) else alias)],
            checked_tags(tags or {}),
            note,
        )
        with _hub() as hub:
            return import_from_hub(wanted, hub=hub, shelf=self.shelf(), allow=allow, progress=progress)

    def import_list(
        self,
        file: str | Path,
        *,
        jobs: int = JOBS,
        allow: Sequence[str] = (),
        progress: Callable[[int], None] = lambda _count: None,
    ) -> Iterator[Imported | NotImported]:
        """Many: a file with ``hf://OWNER/NAME[@REVISION] [NS/NAME]`` a line. What is refused stops nobody else. Raises
        InvalidInputError for the list itself, with nothing fetched."""
        from registry.operations.hub_import import import_many, read_list

        wanted = read_list(Path(file), name=self._called)
        with _hub() as hub:
            yield from import_many(wanted, hub=hub, shelf=self.shelf(), jobs=jobs, allow=allow, progress=progress)

    def card(
        self, reference: str, *, to: str | None = None, base: str | None = None
    ) -> tuple[str, tuple[Finding, ...]]:
        """The model card that :meth:`push_to_hub` gives a version. ``to`` is where it would stand; a server that is not the public
        Hub is asked whether it numbers versions itself, and a warning says so if it does not answer."""
        from registry.operations.card import model_card
        from registry.operations.check import require_adapter
        from registry.operations.hub_address import HubAddress
        from registry.operations.manifests import manifest_of
        from registry.operations.parcel import card_subject

        repository = HubAddress.parse(to).repository if to is not None else None
        version = self.resolve(reference)
        manifest = manifest_of(version.digest, self.blobs)
        require_adapter(version.reference, manifest)
        scores = self.catalog.evaluations(version)
        subject, _ = card_subject(version, manifest, scores, base, self.shelf(), repository, needs_base=False)
        is_numbered, unasked = _numbering() if to is not None else (False, ())
        text, findings = model_card(replace(subject, revision=None) if is_numbered else subject)
        return text, (*unasked, *findings)

    def _called(self, address: HubAddress, name: str | None) -> AdapterName:
        """The name that was given, else the repository's, made to fit."""
        if name is not None:
            return self.adapter(name)
        return self.adapter("/".join(fitted(part) for part in address.repository.split("/")))


def _hub() -> HuggingFaceHub:
    """The lazy door to huggingface_hub."""
    from registry.hub.repositories import HuggingFaceHub

    return HuggingFaceHub()


def _numbering() -> tuple[bool, tuple[Finding, ...]]:
    """Whether the Hub makes the numbers of versions, and a warning where it could not be asked."""
    from registry.domain.finding import Finding, Severity

    try:
        with _hub() as hub:
            return hub.numbers_versions(), ()
    except UnavailableError as error:
        message = f"whether the Hub numbers versions itself is not known ({error.message}); the card takes it that it does not"
        return False, (Finding("hub-not-asked", Severity.WARNING, message, "README.md", error.hint),)
