"""The store in memory."""

from __future__ import annotations

import pytest

from registry.blobs.memory import MemoryBlobs
from tests.blobs.contract import BlobStoreContract


class TestMemoryBlobs(BlobStoreContract):
    @pytest.fixture
    def blobs(self) -> MemoryBlobs:
        return MemoryBlobs()
