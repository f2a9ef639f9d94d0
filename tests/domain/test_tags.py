"""Tags: keys are short ASCII, values one line of text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.domain.tags import checked_tags, parse_tag
from registry.errors import InvalidNameError


@pytest.mark.parametrize(
    ("text", "tag"),
    [
        ("customer=acme", ("customer", "acme")),
        ("k=a=b", ("k", "a=b")),
        ("git/sha=0af", ("git/sha", "0af")),
        ("name=Zoë Ünal", ("name", "Zoë Ünal")),
        ("k= ", ("k", " ")),
        ("k" * 96 + "=" + "v" * 1024, ("k" * 96, "v" * 1024)),
    ],
)
def test_tags(text: str, tag: tuple[str, str]) -> None:
    assert parse_tag(text) == tag


@pytest.mark.parametrize(
    "text",
    ["", "customer", "=acme", "k=", "k\n=v", "k=v\n", "k=a\x00b", "k=a\u202eb", "k=a\u2028b", "-k=v", "k-=v", "ключ=v", "k k=v"]
    + ["k" * 97 + "=v", "k=" + "v" * 1025, "k=\ud800"],
)
def test_not_tags(text: str) -> None:
    with pytest.raises(InvalidNameError):
        parse_tag(text)


@given(st.dictionaries(st.text(), st.text()))
def test_what_is_accepted_is_unchanged_and_prints_on_one_line(tags: dict[str, str]) -> None:
    try:
        accepted = checked_tags(tags)
    except InvalidNameError:
        return
    assert accepted == tags
    for key, value in tags.items():
        assert key.isascii()
        assert len(f"{key}={value}".splitlines()) == 1
        assert parse_tag(f"{key}={value}") == (key, value)
