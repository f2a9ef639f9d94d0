"""Look-ups that were encoded, for requests that ask for many at once: kept by name as long as nothing happened to the adapter."""

from __future__ import annotations

import json
import secrets
from collections import OrderedDict
from typing import TYPE_CHECKING

from registry.errors import NotFoundError, RegistryError, RejectedError
from registry.operations.resolve import Wanted, resolved

if TYPE_CHECKING:
    from registry.api.freshness import Freshness, Moment
    from registry.connect import EmbeddedRegistry
    from registry.domain.names import AdapterName

_KEPT, _KEPT_BYTES = 20_000, 64 << 20


class Documents:
    """For all callers: whether one may read an adapter is for the route to say, before it asks."""

    def __init__(self, freshness: Freshness) -> None:
        self._freshness = freshness
        self._encoded: OrderedDict[tuple[str, Wanted], tuple[Moment, str | RegistryError]] = OrderedDict()
        self._bytes = 0
        self._here = secrets.token_hex(16)  # stands where the address will
        self._public: OrderedDict[str, tuple[Moment, bool | None]] = OrderedDict()

    def catch_up(self) -> None:
        """Before a request is answered."""
        if not self._freshness.is_current():
            self._freshness.catch_up()

    def is_public(self, registry: EmbeddedRegistry, adapter: AdapterName) -> bool:
        """Whether it is there, and not private."""
        known = self._public.get(adapter.key)
        if known is None or not self._freshness.holds(known[0], adapter.key):
            begun = self._freshness.now
            found = registry.catalog.find_adapter(adapter)
            known = (begun, None if found is None else not found.private)
            self._public[adapter.key] = known
            if len(self._public) > _KEPT:
                self._public.popitem(last=False)
        return bool(known[1])

    def is_there(self, registry: EmbeddedRegistry, adapter: AdapterName) -> bool:
        self.is_public(registry, adapter)
        return self._public[adapter.key][1] is not None

    def encoded(self, registry: EmbeddedRegistry, adapter: AdapterName, wanted: Wanted, address: str) -> str:
        """JSON. Raises what :func:`registry.operations.resolve.resolved` raises; that is kept as well."""
        key = (adapter.key, wanted)
        known = self._encoded.get(key)
        if known is None or not self._freshness.holds(known[0], adapter.key):
            begun = self._freshness.now
            known = (begun, self._made(registry, adapter, wanted))
            self._keep(key, known)
        if isinstance(known[1], RegistryError):
            raise known[1]
        return known[1].replace(self._here, json.dumps(address)[1:-1])

    def _made(self, registry: EmbeddedRegistry, adapter: AdapterName, wanted: Wanted) -> str | RegistryError:
        try:
            found = resolved(adapter, wanted, blobs=registry.blobs, catalog=registry.catalog)
        except (NotFoundError, RejectedError) as error:
            return error.with_traceback(None)
        return json.dumps(found.document(self._here), separators=(",", ":"))

    def _keep(self, key: tuple[str, Wanted], made: tuple[Moment, str | RegistryError]) -> None:
        before = self._encoded.pop(key, None)
        self._encoded[key] = made
        self._bytes += _size(made[1]) - (_size(before[1]) if before else 0)
        while len(self._encoded) > _KEPT or self._bytes > _KEPT_BYTES:
            _, (_, oldest) = self._encoded.popitem(last=False)
            self._bytes -= _size(oldest)


def _size(made: str | RegistryError) -> int:
    return len(made) + 500 if isinstance(made, str) else 2000
