"""A digest is ``sha256:`` and 64 lower-case hexadecimal digits, and nothing else is."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.domain.digest import Digest, Hasher
from registry.errors import InvalidNameError

WHOLE = "sha256:" + "0123456789abcdef" * 4


@given(st.binary())
def test_the_digest_of_bytes_is_their_sha256(data: bytes) -> None:
    digest = Digest.of(data)
    assert digest == f"sha256:{hashlib.sha256(data).hexdigest()}"
    assert Digest(digest) == digest


@given(st.lists(st.binary()))
def test_chunks_have_the_digest_of_the_whole(chunks: list[bytes]) -> None:
    hasher, whole = Hasher(chunks), b"".join(chunks)
    assert (hasher.digest, hasher.size) == (Digest.of(whole), len(whole))


def test_its_parts() -> None:
    digest = Digest(WHOLE)
    assert digest.hex == WHOLE[7:]
    assert digest.short == "sha256:0123456789ab"


@pytest.mark.parametrize(
    "text",
    ["", "sha256:", WHOLE[7:], WHOLE[:-1], WHOLE + "0", WHOLE.upper(), "md5:" + WHOLE[7:], WHOLE + "\n", " " + WHOLE]
    + [WHOLE[:-1] + "g", WHOLE[:-1] + "٠", "sha256:../" + WHOLE[10:], WHOLE[:20] + "/" + WHOLE[21:]],
)
def test_nothing_else_is_one(text: str) -> None:
    with pytest.raises(InvalidNameError):
        Digest(text)
