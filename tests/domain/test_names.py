"""The grammar of names, and references as people type them."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.domain.names import AdapterName, AliasName, Reference, Word, fitted, version_number
from registry.errors import InvalidNameError

DIGEST = "sha256:" + "0123456789ab" + "0" * 52


@pytest.mark.parametrize("text", ["a", "A", "0", "a.b", "a_b", "a-b", "a-_.b", "x" * 96, "CON", "v1", "deadbeef"])
def test_names(text: str) -> None:
    assert Word(text) == text


@pytest.mark.parametrize(
    "text",
    ["", "-a", "a-", ".a", "a.", "_a", "a_", "a--b", "a..b", "x" * 97, "a b", "a\n", "\na", "a/b", "ａ", "аdapter", "a\x00"]
    + ["١", "é", "a%2eb", "a\\b", "C:", "..", "a:b", "a@b", "a\u202eb"],
)
def test_not_names(text: str) -> None:
    with pytest.raises(InvalidNameError):
        Word(text)


@pytest.mark.parametrize("text", ["production", "staging", "canary-2", "v", "v1x", "abcdef", "3", "123456"])
def test_aliases(text: str) -> None:
    assert AliasName(text) == text


@pytest.mark.parametrize("text", ["v1", "V12", "a.b", "abcdef0", "ABCDEF0", "1234567", "0" * 40])
def test_not_aliases(text: str) -> None:
    with pytest.raises(InvalidNameError):
        AliasName(text)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("x", "local/x"),
        ("Team/X", "Team/X"),
        ("x@3", "local/x@3"),
        ("t/x:production", "t/x:production"),
        (DIGEST, DIGEST),
        (DIGEST[:19], DIGEST[:19]),
        ("sha256", "local/sha256"),
    ],
)
def test_references(text: str, shown: str) -> None:
    assert str(Reference.parse(text)) == shown
    assert Reference.parse(shown) == Reference.parse(text)


@pytest.mark.parametrize(
    "text",
    ["", "@1", "x@", "x@0", "x@01", "x@-1", "x@1.0", "x@١", "x@1@2", "x:", ":p", "x:v1", "a/b/c", "/x", "x/", "./x", "../x"]
    + ["/etc/passwd", "hf://a/b", "~/x", "sha256:abc", DIGEST.upper(), DIGEST + "0", "sha256:" + "g" * 64, "x@9999999999"],
)
def test_not_references(text: str) -> None:
    with pytest.raises(InvalidNameError):
        Reference.parse(text)


WORDS = st.from_regex(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,6}[A-Za-z0-9])?", fullmatch=True).filter(
    lambda text: "--" not in text and ".." not in text
)
ALIASES = st.sampled_from(["production", "staging", "canary-2"])
DIGEST_STARTS = st.from_regex(r"sha256:[0-9a-f]{12,64}", fullmatch=True)
REFERENCES = st.builds("{}/{}".format, WORDS, WORDS) | WORDS
REFERENCES = (
    REFERENCES
    | st.builds("{}@{}".format, REFERENCES, st.integers(1, 10**9 - 1))
    | st.builds("{}:{}".format, REFERENCES, ALIASES)
    | DIGEST_STARTS
)


@given(REFERENCES)
def test_what_a_reference_shows_means_the_same(text: str) -> None:
    reference = Reference.parse(text, namespace="team")
    assert Reference.parse(str(reference), namespace="other") == reference


@given(st.text() | st.builds("{}{}{}".format, WORDS, st.text(max_size=2), WORDS))
def test_any_text_is_a_reference_in_the_grammar_or_refused(text: str) -> None:
    try:
        reference = Reference.parse(text)
    except InvalidNameError as error:
        assert "\n" not in error.message
        return
    assert text.isascii()
    assert text.isprintable()
    assert Reference.parse(str(reference)) == reference


@given(st.text(max_size=8))
def test_no_alias_can_be_taken_for_a_version_or_a_digest(text: str) -> None:
    try:
        alias = AliasName(text)
    except InvalidNameError:
        return
    assert "." not in alias
    assert not re.fullmatch(r"v[0-9]+|[0-9a-f]{7,}", alias.key)


@pytest.mark.parametrize("start", [12, 13, 63])
def test_the_beginning_of_a_digest_is_no_digest_yet(start: int) -> None:
    assert Reference.parse(DIGEST[: 7 + start]).digest is None
    assert Reference.parse(DIGEST).digest == DIGEST


@pytest.mark.parametrize("namespace", ["", "a/b", "-x", "x\n", ".."])
def test_the_namespace_is_in_the_grammar_too(namespace: str) -> None:
    for parse in (AdapterName.parse, Reference.parse):
        with pytest.raises(InvalidNameError):
            parse("x", namespace=namespace)


def test_names_that_differ_only_in_case_are_the_same() -> None:
    assert AdapterName.parse("Team/My-LoRA").key == AdapterName.parse("team/my-lora").key


@given(st.text())
def test_what_is_accepted_is_in_the_grammar(text: str) -> None:
    try:
        Word(text)
    except InvalidNameError:
        return
    assert re.fullmatch(r"[A-Za-z0-9._-]{1,96}", text, re.ASCII)
    assert text.isascii()
    assert text[0].isalnum()
    assert text[-1].isalnum()


@given(st.text())
def test_a_fitted_name_fits_or_is_empty(text: str) -> None:
    name = fitted(text)
    assert name == "" or Word(name).key == name


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("My LoRA (v2)!", "my-lora-v2"),
        ("Modèle--fr", "modele-fr"),
        ("日本語", ""),
        ("..hidden..", "hidden"),
        ("a" * 200, "a" * 96),
        ("a.-.-b", "a.-.-b"),
        ("checkpoint-500", "checkpoint-500"),
    ],
)
def test_fitted(text: str, name: str) -> None:
    assert fitted(text) == name


def test_numbers() -> None:
    assert version_number("12") == 12
    for text in ("", "0", "v1", "1 ", "+1", "1e3"):
        with pytest.raises(InvalidNameError):
            version_number(text)
