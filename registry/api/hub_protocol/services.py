"""What all requests share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from registry.api.hub_protocol.announcements import Announcements
from registry.api.hub_protocol.cards import Cards
from registry.api.hub_protocol.revisions import Histories
from registry.api.hub_protocol.rewriting import Rewriting
from registry.api.hub_protocol.signing import Signer
from registry.api.hub_protocol.trees import Trees
from registry.api.hub_protocol.xet_staging import Staging
from registry.api.possessions import Possessions

if TYPE_CHECKING:
    from registry.api.callers import Gatekeeper
    from registry.api.settings import Settings
    from registry.api.tidying import Keeper
    from registry.connect import EmbeddedRegistry

#: Seconds a token of Xet lives; what was staged with it stays twice as long.
XET_LIFETIME = 3600.0


class Services:
    def __init__(self, registry: EmbeddedRegistry, settings: Settings, gatekeeper: Gatekeeper) -> None:
        self.registry = registry
        self.settings = settings
        self.gatekeeper = gatekeeper
        self.trees = Trees(registry.blobs)
        self.cards = Cards(self.trees)
        self.rewriting = Rewriting(self.trees)
        self.histories = Histories(registry.catalog, self.trees, self.rewriting)
        place = settings.location / "server"
        self.place = place
        self.signer = Signer(place / "key")
        self.announcements = Announcements(place / "announced")
        self.staging = Staging(registry.blobs.xorbs, lifetime=2 * XET_LIFETIME)
        self.possessions = Possessions(place / "possessions", registry.blobs, lifetime=settings.upload_lifetime)

    @property
    def keepers(self) -> tuple[Keeper, ...]:
        """Of what uploads leave behind."""
        return self.staging, self.announcements
