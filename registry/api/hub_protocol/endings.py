"""The end of uploads that do not say it.

A tool that commits in any order never says that it is done. Its draft is finished as soon as every file of the adapter came, or
when no other was announced for a while: then those that are here already are meant to stay. Nor does an upload say it whose files
end where an asking does. Every draft of which nothing is known to be missing is looked at then, also by a server that started
meanwhile; and before the next change to the adapter, which comes after it, unless it is half an adapter: that waits, and if another
one comes meanwhile, it is none. An adapter that got another name meanwhile is known by the commit.
"""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from threading import Timer
from typing import TYPE_CHECKING

from registry.api.hub_protocol.drafts import draft_of
from registry.api.hub_protocol.policy import adapter_in
from registry.api.hub_protocol.recording import Place, finished
from registry.api.hub_protocol.repositories import Repository
from registry.domain.names import AdapterName
from registry.errors import RegistryError, UnavailableError

if TYPE_CHECKING:
    from registry.api.hub_protocol.announcements import Upload
    from registry.api.hub_protocol.services import Services
    from registry.domain.version import Adapter

_log = logging.getLogger("adapters.server")
#: Seconds without an announcement after which a tool that says nothing of its end is taken to be done with an adapter.
QUIET = 120.0


def finish_begun(services: Services) -> None:
    """What is to be done for uploads that a server before this one left."""
    for actor, adapter, announced in services.announcements.everything():
        for upload in announced.uploads:
            if upload.may_end:
                finish_later(upload.draft, services, actor, adapter, since=upload.at)


def finish_later(draft: str, services: Services, actor: str, adapter: str, *, since: float | None = None) -> None:
    """What the actor announced for the ``adapter``, unless something comes that it awaits, in the time that is left ``since`` then,
    in seconds of the clock; None is now."""
    now = time.time()
    timer = Timer(max(0.0, (now if since is None else since) + QUIET - now), _finish, (draft, services, actor, adapter))
    timer.daemon = True
    timer.start()


def finish_before(own: Upload | None, place: Place) -> None:
    """Whoever's uploads came before a commit that is of its ``own``, and await nothing. What it takes is not awaited by them."""
    services = place.services
    taken = own.askings if own is not None else ()
    drafts = {commit.id for commit in place.history.commits if commit.draft}
    found: list[tuple[Upload, str]] = []
    for actor, _, announced in services.announcements.everything(place.key):
        rest = replace(announced, askings=tuple(each for each in announced.askings if each not in taken))
        found += [
            (each, actor)
            for each in rest.uploads
            if each.draft in drafts and not each.is_half and not rest.awaits(each)
        ]
    for upload, actor in sorted(found, key=lambda each: each[0].at):
        if own is None or upload.id != own.id:
            _finish_now(upload, replace(place, registry=services.registry.acting(actor), actor=actor), place.key)


def finish_uploads(adapter: AdapterName, services: Services) -> None:
    """Before it is changed otherwise. Raises UnavailableError."""
    if any(commit.draft for commit in services.registry.catalog.commits(adapter)):
        known = services.registry.catalog.find_adapter(adapter)
        if known is not None:
            place = Place(services, services.registry, "", Repository(known, str(adapter), services.histories))
            with place.alone():
                finish_before(None, place)


def finish_uploads_if_possible(adapter: AdapterName, services: Services) -> None:
    """For a change that matters more: an alias's way back must not fail for somebody's upload, which can still end later."""
    try:
        finish_uploads(adapter, services)
    except RegistryError as error:
        _log.warning("the end of an upload to %s: %s", adapter, error.message)


def _finish(draft: str, services: Services, actor: str, adapter: str) -> None:
    """Unless the upload went on."""
    try:
        known = _with_commit(draft, services, AdapterName.parse(adapter))
        if known is None:
            services.announcements.forget(actor, adapter)
            return
        repository = Repository(known, str(known.name), services.histories)
        place = Place(services, services.registry.acting(actor), actor, repository)
        with place.alone():
            announced = services.announcements.of(actor, adapter)
            upload = next((each for each in announced.uploads if each.draft == draft), None)
            if upload is None:
                return
            if announced.awaits(upload):
                finish_later(draft, services, actor, adapter)
            else:
                _finish_now(upload, place, adapter)
    except UnavailableError:
        finish_later(draft, services, actor, adapter)
    except RegistryError as error:
        _log.warning("the end of an upload to %s: %s", adapter, error.message)


def _with_commit(commit: str, services: Services, name: AdapterName) -> Adapter | None:
    """The adapter of that name, unless another one has the commit; None if there is neither."""
    catalog = services.registry.catalog
    known = catalog.find_adapter(name)
    candidates = [*([known] if known is not None else []), *catalog.adapters()]
    holders = (each for each in candidates if any(made.id == commit for made in catalog.commits(each.name)))
    return next(holders, known)


def _finish_now(upload: Upload, place: Place, adapter: str) -> None:
    """It was announced for the ``adapter``, as that was called then. Nobody is there to hear of a refusal. Raises
    UnavailableError."""
    history, commit = place.history, upload.draft
    head, before = draft_of(upload, history, place.actor, history.main), history.with_id(upload.main)
    is_mixed = upload.is_half and (before is None or adapter_in(before.tree) != adapter_in(history.main.tree))
    try:
        if is_mixed:
            _log.warning("the end of an upload to %s: half an adapter, and another one came meanwhile", place.key)
        elif head is not None:
            commit = finished(head.title, head.tree, head, place).id
    except UnavailableError:
        raise
    except RegistryError as error:
        _log.warning("the end of an upload to %s: %s", place.key, error.message)
    ended = replace(upload, draft="", number=place.history.main.number)
    place.services.announcements.note(place.actor, adapter, ended, ended=not ended.goes_on, commit=commit)
