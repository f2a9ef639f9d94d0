"""Look-ups that were encoded, for requests that ask for many at once: kept by name as long as nothing happened to the adapter."""

from __future__ import annotations

import json
from collections import OrderedDict
from typing import TYPE_CHECKING

from registry.operations.resolve import Wanted, resolved

if TYPE_CHECKING:
    from registry.api.freshness import Freshness, Moment
    from registry.connect import EmbeddedRegistry
    from registry.domain.names import AdapterName

_KEPT = 20_000


class Documents:
    """For all callers: whether one may read an adapter is for the route to say, before it asks."""

    def __init__(self, freshness: Freshness) -> None:
        self._freshness = freshness
        self._encoded: OrderedDict[tuple[str, Wanted, str], tuple[Moment, str]] = OrderedDict()
        self._public: OrderedDict[str, tuple[Moment, bool]] = OrderedDict()

    def catch_up(self) -> None:
        """Before a request is answered."""
        if not self._freshness.is_current():
            self._freshness.catch_up()

    def is_public(self, registry: EmbeddedRegistry, adapter: AdapterName) -> bool:
        """Whether it is there, and not private."""
        known = self._public.get(adapter.key)
        if known is not None and self._freshness.holds(known[0], adapter.key):
            return known[1]
        begun = self._freshness.now
        found = registry.catalog.find_adapter(adapter)
        public = found is not None and not found.private
        self._public[adapter.key] = (begun, public)
        if len(self._public) > _KEPT:
            self._public.popitem(last=False)
        return public

    def encoded(self, registry: EmbeddedRegistry, adapter: AdapterName, wanted: Wanted, address: str) -> str:
        """JSON. Raises what :func:`registry.operations.resolve.resolved` raises."""
        key = (adapter.key, wanted, address)
        known = self._encoded.get(key)
        if known is not None and self._freshness.holds(known[0], adapter.key):
            return known[1]
        begun = self._freshness.now
        found = resolved(adapter, wanted, blobs=registry.blobs, catalog=registry.catalog)
        text = json.dumps(found.document(address), separators=(",", ":"))
        self._encoded[key] = (begun, text)
        if len(self._encoded) > _KEPT:
            self._encoded.popitem(last=False)
        return text
