"""YAML from strangers: plain data no larger than its text, or one error of the family asked for."""

from __future__ import annotations

import contextlib
import json
import math
import time

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from registry.errors import MalformedConfigError, MalformedFileError, MalformedResultsError
from registry.formats.yaml_text import MAX_DEPTH, parse_yaml

# YAML folds or refuses these where JSON keeps them.
WORD = st.text(
    st.characters(exclude_categories=["Cc", "Cs", "Cn", "Co", "Zl", "Zp"], exclude_characters="\ufeff"), max_size=8
)
PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False, allow_infinity=False)
    | WORD,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORD, inner, max_size=4),
    max_leaves=12,
)

# name: (text, part of the sentence)
REFUSED = {
    "an anchor": ("a: &x 1", "anchor or alias 'x', line 1"),
    "an alias": ("a: 1\nb: *x", "anchor or alias 'x', line 2"),
    "billion laughs": ("a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]", "anchor or alias 'a', line 1"),
    "a value inside itself": ("&a [*a]", "anchor or alias"),
    "an object": ("!!python/object/apply:os.system [ls]", "'!!python/object/apply:os.system', which is not plain data"),
    "bytes": ("a: !!binary aGk=", "'!!binary'"),
    "a set": ("!!set {a, b}", "'!!set'"),
    "a date asked for": ("a: !!timestamp 2024-01-01", "'!!timestamp'"),
    "a tag of one's own": ("a: !mine x", "'!mine'"),
    "a word asked to be a number": ("\na: !!int x", "'!!int', which is not plain data, line 2"),
    "a mapping asked to be a list": ("!!seq {a: 1}", "'!!seq'"),
    "one key, two values": ("a: 1\nb: 2\na: 3", "gives 'a' twice, with different values, line 3"),
    "one key, 1 and true": ("a: 1\na: true", "gives 'a' twice"),
    "a list as a key": ("? [a]\n: 1", "a key that is not a single word"),
    "a nest": ("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1), "more than 32 deep, line 1"),
    "a bottomless nest": ("- " * 30_000, "more than 32 deep"),
    "a bottomless nest of braces": ("{" * 60_000, "more than 32 deep"),
    "two documents": ("a: 1\n---\nb: 2", "but found another document, line 2"),
    "a tab": ("a:\n\t- b", "line 2 column 1"),
    "a list that does not end": ("a: [1,\n  2", "line 2"),
    "a quote that does not end": ('a: "x', "line 1"),
    "half a character": (r'a: "\ud83d"', "lone surrogate, line 1"),
    "no character at all": (r'a: "\UFFFFFFFF"', "out of range"),
    "a version without end": ("%YAML " + "1" * 5000 + ".1\n--- a", "out of range"),
    "a control character": ("a: 1\nb: \x07", "U+0007 may not occur, line 2"),
    "too much": ("a" * (1 << 17), "131,072"),
}


@pytest.mark.parametrize(("text", "sentence"), REFUSED.values(), ids=REFUSED)
@pytest.mark.parametrize("error", [MalformedFileError, MalformedConfigError, MalformedResultsError])
def test_what_is_not_plain_data_is_refused_with_place_reason_and_hint(
    text: str, sentence: str, error: type[MalformedFileError]
) -> None:
    with pytest.raises(error) as refused:
        parse_yaml(text, where="README.md", error=error)
    assert type(refused.value) is error
    assert str(refused.value).startswith("README.md: ")
    assert sentence in str(refused.value)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 300
    assert refused.value.hint


# text: value
CORE_SCHEMA = {
    "": None,
    "# nothing": None,
    "~": None,
    "null": None,
    "no": "no",
    "on": "on",
    "yes": "yes",
    "true": True,
    "False": False,
    "12": 12,
    "-3": -3,
    "0o17": 15,
    "0x1F": 31,
    "007": 7,
    "1:30": "1:30",
    "1_000": "1_000",
    "1e-5": 1e-5,
    "1.0e-05": 1e-5,
    "2.": 2.0,
    ".5": 0.5,
    ".inf": math.inf,
    "-.inf": -math.inf,
    "1.2.3": "1.2.3",
    "2024-05-01": "2024-05-01",
    "2024-05-01T10:00:00Z": "2024-05-01T10:00:00Z",
    "'12'": "12",
    "!!str 12": "12",
    "! 12": 12,
    "<<": "<<",
    "=": "=",
    "é": "é",
    "{1: a, null: b, true: c}": {"1": "a", "null": "b", "true": "c"},
    "{a: 1, a: 1}": {"a": 1},
    "- a\n- [b, {c: }]": ["a", ["b", {"c": None}]],
    "|\n  x\n  y\n": "x\ny\n",
    "9" * 5000: math.inf,
}


@pytest.mark.parametrize(("text", "value"), CORE_SCHEMA.items(), ids=range(len(CORE_SCHEMA)))
def test_scalars_follow_the_core_schema_of_yaml_1_2(text: str, value: object) -> None:
    found = parse_yaml(text, where="x")
    assert found == value
    assert type(found) is type(value)


def test_not_a_number_is_a_number() -> None:
    found = parse_yaml(".nan", where="x")
    assert isinstance(found, float)
    assert math.isnan(found)


@given(PLAIN)
def test_json_is_yaml_and_means_the_same(value: object) -> None:
    assert parse_yaml(json.dumps(value, ensure_ascii=False), where="x") == value


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text("abc nyo-:#'\"\n", max_size=8),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", min_size=1), inner, max_size=3),
    )
)
def test_what_pyyaml_writes_is_read_back(value: object) -> None:
    class Plain(yaml.SafeDumper):  # one list written twice is an alias, which is refused
        def ignore_aliases(self, data: object) -> bool:
            return True

    assert parse_yaml(yaml.dump(value, Dumper=Plain), where="x") == value


@given(
    st.binary(max_size=200)
    | st.text(max_size=100).map(lambda text: text.encode("utf-8", "surrogatepass"))
    | st.text("[]{}:,-?&*!|>%@`'\"#\\ \n\taU0", max_size=60).map(str.encode)
)
@example(b'"\\ud800": 1')
@example(b"\xff")
@example(b"? ")
@example(b"%YAML 99999999999999.1\n---\n")
@example(b"version https://git-lfs.github.com/spec/v1\n")
def test_any_bytes_give_json_types_or_the_error(data: bytes) -> None:
    try:
        value = parse_yaml(data, where="x", error=MalformedResultsError)
    except MalformedResultsError as refused:
        assert "\n" not in refused.message
    else:
        json.dumps(value, ensure_ascii=False).encode()


@pytest.mark.parametrize(
    "text", ["[" + "1," * 30_000 + "]", "a: 1\n" * 12_000, '"' + "\\n" * 30_000 + '"', "{" * 60_000]
)
def test_time_grows_with_the_size_and_no_faster(text: str) -> None:
    started = time.process_time()
    with contextlib.suppress(MalformedFileError):
        parse_yaml(text, where="x")
    assert time.process_time() - started < 10


def test_lines_are_counted_in_the_file_the_text_was_cut_from() -> None:
    with pytest.raises(MalformedFileError, match=r"line 12$"):
        parse_yaml("a: 1\na: 2", where="x", first_line=11)
