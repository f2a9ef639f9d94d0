"""What every blob store does. A backend's tests are a subclass with one fixture, ``blobs``."""

from __future__ import annotations

import pytest

from registry.blobs.protocol import BlobStore
from registry.domain.digest import Digest
from registry.errors import DigestMismatchError, MissingBlobError

DATA = b"0123456789" * 1000
DIGEST = Digest.of(DATA)


class BlobStoreContract:
    def test_what_was_put_is_read(self, blobs: BlobStore) -> None:
        blobs.put(DIGEST, (DATA[:7], DATA[7:]))
        assert b"".join(blobs.read(DIGEST)) == DATA
        assert blobs.size(DIGEST) == len(DATA)
        assert list(blobs.digests()) == [DIGEST]

    def test_reading_may_start_in_the_middle(self, blobs: BlobStore) -> None:
        blobs.put(DIGEST, (DATA,))
        assert b"".join(blobs.read(DIGEST, start=9990)) == DATA[9990:]

    def test_nothing_is_a_blob_too(self, blobs: BlobStore) -> None:
        blobs.put(Digest.of(b""), ())
        assert blobs.size(Digest.of(b"")) == 0

    def test_again_is_a_no_op_that_does_not_even_look(self, blobs: BlobStore) -> None:
        blobs.put(DIGEST, (DATA,))
        blobs.put(DIGEST, (pytest.fail("consumed") for _ in range(1)))

    def test_other_bytes_are_refused_and_leave_nothing(self, blobs: BlobStore) -> None:
        with pytest.raises(DigestMismatchError):
            blobs.put(DIGEST, (b"other",))
        assert list(blobs.digests()) == []

    def test_a_source_that_breaks_leaves_nothing(self, blobs: BlobStore) -> None:
        def broken():
            yield DATA[:10]
            raise RuntimeError("unplugged")

        with pytest.raises(RuntimeError):
            blobs.put(DIGEST, broken())
        assert list(blobs.digests()) == []

    def test_what_is_not_there_is_missing_before_it_is_read(self, blobs: BlobStore) -> None:
        for ask in (blobs.size, blobs.read):
            with pytest.raises(MissingBlobError):
                ask(DIGEST)

    def test_deleting_twice_is_deleting_once(self, blobs: BlobStore) -> None:
        blobs.put(DIGEST, (DATA,))
        blobs.delete(DIGEST)
        blobs.delete(DIGEST)
        assert list(blobs.digests()) == []
