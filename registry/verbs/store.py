"""What every verb has at hand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from registry.domain.names import DEFAULT_NAMESPACE, AdapterName, Reference

if TYPE_CHECKING:
    from registry.blobs.protocol import BlobStore
    from registry.catalog.protocol import Catalog
    from registry.domain.version import Version
    from registry.operations.bases import Shelf


@dataclass(frozen=True, slots=True)
class Store:
    """Blobs, a catalog, and the namespace that names without one belong to. A server does not trust
    paths: what adapters and callers name are never this machine's directories."""

    blobs: BlobStore
    catalog: Catalog
    namespace: str = DEFAULT_NAMESPACE
    trusts_paths: bool = True

    def shelf(self, *, online: bool = False) -> Shelf:
        """Where checks find bases by name: in the registry and the Hub's cache; ``online`` asks the Hub too."""
        from registry.operations.bases import Shelf

        return Shelf(self.blobs, self.catalog, online, self.trusts_paths)

    def reference(self, text: str) -> Reference:
        return Reference.parse(text, namespace=self.namespace)

    def resolve(self, text: str) -> Version:
        """The version that a reference means. Raises NotFoundError."""
        return self.catalog.resolve(self.reference(text))

    def adapter(self, text: str) -> AdapterName:
        return AdapterName.parse(text, namespace=self.namespace)
