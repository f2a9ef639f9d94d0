"""Tokens: what they look like, what they allow, and that nothing gives them away."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.domain.access import Action, NamespacePattern, Presented, new_token
from registry.domain.names import AdapterName
from registry.errors import InvalidNameError

NAME = AdapterName.parse("Team/Support-DE")


def test_the_text_has_a_prefix_an_id_and_a_checksum() -> None:
    text, token = new_token("ci", [Action.READ], [NamespacePattern("*")], expires_at=None)
    presented = Presented.parse(text)
    assert presented is not None
    assert text.startswith(f"adr_{token.id}_")
    assert presented.is_of(token)
    assert presented.secret not in repr(presented)
    assert presented.secret not in repr(token)
    assert not presented.is_of(None)
    assert not presented.is_of(new_token("other", [], [], expires_at=None)[1])


@given(st.integers(0, 66), st.sampled_from("abz019-_"))
def test_a_changed_letter_is_noticed_without_asking(position: int, letter: str) -> None:
    text, _ = new_token("ci", [], [], expires_at=None)
    changed = text[:position] + letter + text[position + 1 :]
    assert (Presented.parse(changed) is None) == (changed != text)


@given(st.text())
def test_other_text_is_no_token(text: str) -> None:
    assert Presented.parse(text) is None


@pytest.mark.parametrize(
    ("pattern", "covered"),
    [
        ("*", True), ("team/*", True), ("TEAM/*", True), ("team/support-*", True), ("team/support-de", True),
        ("team/support", False), ("tea/*", False), ("other/*", False), ("team/x*", False),
    ],
)  # fmt: skip
def test_a_pattern_covers_names(pattern: str, covered: bool) -> None:
    assert NamespacePattern(pattern).covers(NAME) is covered


@pytest.mark.parametrize("text", ["", "team", "team/", "*/x", "*/*", "team/*x", "team/a*b", "team/[ab]", "a/b/c", "té/*", "team/?"])
def test_other_patterns_are_refused(text: str) -> None:
    with pytest.raises(InvalidNameError):
        NamespacePattern(text)


@pytest.mark.parametrize("text", ["", " ", "two\nlines", "a\x1b[31m", "a\u202eb", "x" * 97])
def test_a_token_has_a_name_of_one_line(text: str) -> None:
    with pytest.raises(InvalidNameError):
        new_token(text, [], [], expires_at=None)


def test_only_admin_is_everything() -> None:
    def allowed(actions: list[Action], pattern: str, adapter: AdapterName | None) -> set[Action]:
        _, token = new_token("t", actions, [NamespacePattern(pattern)], expires_at=None)
        return {action for action in Action if token.may(action, adapter)}

    assert allowed([Action.PUSH], "team/*", NAME) == {Action.PUSH}
    assert allowed([Action.PUSH], "other/*", NAME) == set()
    assert allowed([Action.ADMIN], "other/*", NAME) == set(Action)
    assert allowed([Action.READ, Action.PUSH], "team/*", None) == {Action.READ}
    assert allowed([Action.READ, Action.PUSH], "*", None) == {Action.READ, Action.PUSH}


@pytest.mark.parametrize(
    ("now", "live"), [("2026-01-01T00:00:00Z", True), ("2026-06-01T00:00:00Z", False), ("2027-01-01T00:00:00Z", False)]
)
def test_a_token_expires(now: str, live: bool) -> None:
    _, token = new_token("t", [], [], expires_at="2026-06-01T00:00:00Z")
    assert token.is_live(now) is live
