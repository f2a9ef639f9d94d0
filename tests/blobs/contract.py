"""What every blob store does. A backend's tests are a subclass with one fixture, ``blobs``."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from registry.blobs.protocol import BlobStore
from registry.domain.digest import Digest
from registry.errors import DigestMismatchError, MissingBlobError

DATA = b"0123456789" * 1000
DIGEST = Digest.of(DATA)
OTHER = b"other"


class BlobStoreContract:
    def test_what_was_put_is_read(self, blobs: BlobStore) -> None:
        blobs.put(DIGEST, (DATA[:7], b"", DATA[7:]))
        assert b"".join(blobs.read(DIGEST)) == DATA
        assert blobs.size(DIGEST) == len(DATA)
        assert list(blobs.digests()) == [DIGEST]

    def test_a_store_that_was_never_written_is_empty(self, blobs: BlobStore) -> None:
        assert list(blobs.digests()) == []
        blobs.delete(DIGEST)

    @pytest.mark.parametrize("start", [0, 1, 9990, 10_000, 20_000])
    def test_reading_may_start_in_the_middle_and_behind_the_end(self, blobs: BlobStore, start: int) -> None:
        blobs.put(DIGEST, (DATA,))
        assert b"".join(blobs.read(DIGEST, start=start)) == DATA[start:]

    def test_larger_than_a_chunk_is_read_in_chunks(self, blobs: BlobStore) -> None:
        large = bytes(range(256)) * 8192 + b"tail"
        blobs.put(Digest.of(large), (large,))
        assert b"".join(blobs.read(Digest.of(large), start=3)) == large[3:]

    def test_nothing_is_a_blob_too(self, blobs: BlobStore) -> None:
        blobs.put(Digest.of(b""), ())
        assert blobs.size(Digest.of(b"")) == 0
        assert b"".join(blobs.read(Digest.of(b""))) == b""
        assert list(blobs.digests()) == [Digest.of(b"")]

    def test_again_is_a_no_op_that_does_not_even_look(self, blobs: BlobStore) -> None:
        blobs.put(DIGEST, (DATA,))
        blobs.put(DIGEST, (pytest.fail("consumed") for _ in range(1)))
        assert b"".join(blobs.read(DIGEST)) == DATA

    @pytest.mark.parametrize("wrong", [(OTHER,), (), (DATA, b"!"), (DATA[:-1],)])
    def test_other_bytes_are_refused_and_leave_nothing(self, blobs: BlobStore, wrong: tuple[bytes, ...]) -> None:
        blobs.put(Digest.of(OTHER), (OTHER,))
        with pytest.raises(DigestMismatchError) as caught:
            blobs.put(DIGEST, wrong)
        assert (caught.value.expected, caught.value.actual) == (DIGEST, Digest.of(b"".join(wrong)))
        assert list(blobs.digests()) == [Digest.of(OTHER)]
        with pytest.raises(MissingBlobError):
            blobs.size(DIGEST)

    def test_a_source_that_breaks_leaves_nothing(self, blobs: BlobStore) -> None:
        def broken() -> Iterator[bytes]:
            yield DATA[:10]
            raise RuntimeError("unplugged")

        with pytest.raises(RuntimeError, match="unplugged"):
            blobs.put(DIGEST, broken())
        assert list(blobs.digests()) == []

    def test_what_was_refused_can_be_put_right(self, blobs: BlobStore) -> None:
        with pytest.raises(DigestMismatchError):
            blobs.put(DIGEST, (OTHER,))
        blobs.put(DIGEST, (DATA,))
        assert b"".join(blobs.read(DIGEST)) == DATA

    def test_what_is_not_there_is_missing_before_it_is_read(self, blobs: BlobStore) -> None:
        for ask in (blobs.size, blobs.read):
            with pytest.raises(MissingBlobError) as caught:
                ask(DIGEST)
            assert caught.value.digest == DIGEST

    def test_deleting_twice_is_deleting_once(self, blobs: BlobStore) -> None:
        blobs.put(DIGEST, (DATA,))
        blobs.put(Digest.of(OTHER), (OTHER,))
        blobs.delete(DIGEST)
        blobs.delete(DIGEST)
        assert list(blobs.digests()) == [Digest.of(OTHER)]

    def test_what_was_deleted_can_be_put_again(self, blobs: BlobStore) -> None:
        blobs.put(DIGEST, (DATA,))
        blobs.delete(DIGEST)
        blobs.put(DIGEST, (DATA,))
        assert b"".join(blobs.read(DIGEST)) == DATA

    def test_a_listing_may_be_changed_on_the_way(self, blobs: BlobStore) -> None:
        """A collector deletes while it goes through."""
        for count in range(5):
            data = bytes([count])
            blobs.put(Digest.of(data), (data,))
        for digest in blobs.digests():
            blobs.delete(digest)
        assert list(blobs.digests()) == []
