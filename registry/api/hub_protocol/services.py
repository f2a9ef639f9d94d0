"""What all requests share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from registry.api.hub_protocol.announcements import Announcements
from registry.api.hub_protocol.revisions import Histories
from registry.api.hub_protocol.rewriting import Rewriting
from registry.api.hub_protocol.signing import Signer
from registry.api.hub_protocol.trees import Trees
from registry.api.hub_protocol.xet_staging import Staging
from registry.api.possessions import Possessions
from registry.domain.access import Action

if TYPE_CHECKING:
    from registry.api.callers import Caller, Gatekeeper
    from registry.api.settings import Settings
    from registry.connect import Registry
    from registry.domain.digest import Digest

#: Seconds a token of Xet lives; what was staged with it stays twice as long.
XET_LIFETIME = 3600.0


class Services:
    def __init__(self, registry: Registry, settings: Settings, gatekeeper: Gatekeeper) -> None:
        self.registry = registry
        self.settings = settings
        self.gatekeeper = gatekeeper
        self.trees = Trees(registry.blobs)
        self.rewriting = Rewriting(self.trees)
        self.histories = Histories(registry.catalog, self.trees, self.rewriting)
        place = settings.location / "server"
        self.place = place
        self.signer = Signer(place / "key")
        self.announcements = Announcements(place / "announced")
        self.staging = Staging(place / "xet", lifetime=2 * XET_LIFETIME)
        self.possessions = Possessions(place / "possessions", lifetime=settings.upload_lifetime)

    def may_use(self, caller: Caller, digest: Digest) -> bool:
        """Whether a commit of theirs may be made of a blob: they sent it, or may read it."""
        if self.possessions.has(caller.actor, digest):
            return True
        return any(caller.may(Action.READ, adapter) for adapter in self.registry.catalog.holders(digest))

    def canonical_base(self, name: str) -> str:
        """By the registry's own table."""
        aliases = {key.lower(): value for key, value in self.registry.catalog.base_aliases().items()}
        return aliases.get(name.lower(), name)
