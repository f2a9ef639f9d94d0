"""The end of uploads that do not say it.

A tool that commits in any order never says that it is done. Its draft is finished as soon as every file of the adapter came, or
when no other was announced for a while: then those that are here already are meant to stay. Nor does an upload say it whose files
end where an asking does. Every draft of which nothing is known to be missing is looked at then, also by a server that started
meanwhile; and before the next commit, branch, tag or name, which comes after it, unless it is half an adapter: that waits, and if
another one comes meanwhile, it is none.
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
    from registry.api.hub_protocol.asked import Asked
    from registry.api.hub_protocol.services import Services

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
    """Unless something comes that it awaits, in the time that is left ``since`` then, in seconds of the clock; None is now."""
    now = time.time()
    timer = Timer(max(0.0, (now if since is None else since) + QUIET - now), _finish, (draft, services, actor, adapter))
    timer.daemon = True
    timer.start()


def finish_before(own: Upload | None, place: Place) -> None:
    """Whoever's uploads came before a commit that is of its ``own``, and await nothing. What it takes is not awaited by them."""
    services = place.services
    taken = own.askings if own is not None else ()
    found: list[tuple[Upload, str]] = []
    for actor, _, announced in services.announcements.everything(place.key):
        rest = replace(announced, askings=tuple(each for each in announced.askings if each not in taken))
        found += [(each, actor) for each in rest.uploads if each.draft and not each.is_half and not rest.awaits(each)]
    for upload, actor in sorted(found, key=lambda each: each[0].at):
        if own is None or upload.id != own.id:
            _finish_now(upload, replace(place, registry=services.registry.acting(actor), actor=actor))


def finish_uploads(repository: Repository, asked: Asked) -> None:
    """Before somebody gives what is there a name, or it another one."""
    place = Place(asked.services, asked.caller.registry, asked.caller.actor, repository)
    if any(each.draft for each in place.history.commits):
        with place.alone():
            finish_before(None, place)


def _finish(draft: str, services: Services, actor: str, adapter: str) -> None:
    """Unless the upload went on."""
    try:
        known = services.registry.catalog.find_adapter(AdapterName.parse(adapter))
        if known is None:
            services.announcements.forget(actor, adapter)
            return
        repository = Repository(known, adapter, services.histories)
        place = Place(services, services.registry.acting(actor), actor, repository)
        with place.alone():
            announced = place.announced()
            upload = next((each for each in announced.uploads if each.draft == draft), None)
            if upload is None:
                return
            if announced.awaits(upload):
                finish_later(draft, services, actor, adapter)
            else:
                _finish_now(upload, place)
    except UnavailableError:
        finish_later(draft, services, actor, adapter)
    except RegistryError as error:
        _log.warning("the end of an upload to %s: %s", adapter, error.message)


def _finish_now(upload: Upload, place: Place) -> None:
    """Nobody is there to hear of a refusal. Raises UnavailableError."""
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
    place.services.announcements.note(place.actor, place.key, ended, ended=not ended.goes_on, commit=commit)
