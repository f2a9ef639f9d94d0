"""Paths that are refused say why."""

from __future__ import annotations

import pytest

from registry.domain.paths import is_plain, why_not_plain


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("a\u3000b.txt", "U+3000"),
        ("a\u200db", "U+200D"),
        ("a\nb", "U+000A"),
        ("a\\b", "backslash"),
        ("a//b", "empty"),
        ("../b", "'..'"),
        ("", "empty"),
        ("a/.GIT/config", ".git"),
        ("/".join("abcdefghi"), "9 names deep"),
        ("a" * 256, "255"),
        ("/".join(["é" * 100] * 3), "400 bytes"),
    ],
)
def test_a_path_that_is_not_plain_says_why(path: str, why: str) -> None:
    assert not is_plain(path)
    assert why in str(why_not_plain(path))


@pytest.mark.parametrize("path", ["a", "a/b", "é/ü.txt", "a b", ".hidden/x", "/".join("abcdefgh"), "checkpoint-1/x.json"])
def test_a_plain_path_is_one(path: str) -> None:
    assert is_plain(path)
