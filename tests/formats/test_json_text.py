"""JSON from strangers: any bytes give a value or one error of the family asked for."""

from __future__ import annotations

import contextlib
import json
import math
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from registry.errors import MalformedConfigError, MalformedFileError, MalformedResultsError
from registry.formats.json_text import parse_json

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)

# name: (bytes, part of the sentence)
REFUSED = {
    "no UTF-8": (b'{"a":\n "\xff"}', "byte 0xff in line 2, at byte 3"),
    "UTF-16": ('{"a": 1}'.encode("utf-16"), "not UTF-8 text: byte 0xff in line 1"),
    "a surrogate in UTF-8": (b'"\xed\xa0\x80"', "not UTF-8 text"),
    "a lone high surrogate": (rb'{"a": "\ud800"}', r"lone surrogate \ud800"),
    "a lone low surrogate as a name": (rb'{"\uDC00": 1}', r"lone surrogate \udc00"),
    "halves in the wrong order": (rb'["\udc00\ud800"]', "lone surrogate"),
    "one name, two values": (b'{"r": 8, "r": 16}', "gives 'r' twice"),
    "one name by two spellings": (rb'{"r": 8, "\u0072": 16}', "gives 'r' twice"),
    "one name, 1 and true": (b'{"r": 1, "r": true}', "gives 'r' twice"),
    "one name, 1 and 1.0": (b'{"r": 1, "r": 1.0}', "gives 'r' twice"),
    "one name, two values, far inside": (b'[{"a": [{"r": {}, "r": []}]}]', "gives 'r' twice"),
    "a nest": (b"[" * 33 + b"]" * 33, "more than 32 deep"),
    "a nest of objects": (b'{"a":' * 40 + b"1" + b"}" * 40, "more than 32 deep"),
    "a bottomless nest": (b"[" * 100_000, "more than 32 deep"),
    "a nest after a string of brackets": (b'["]]]]]",' + b"[" * 32, "more than 32 deep"),
    "a number without end": (b'{"r": ' + b"9" * 5000 + b"}", "more than 1,000 digits"),
    "a single quote": (b"{'r': 8}", "line 1 column 2"),
    "a last comma": (b'{\n  "r": 8,\n}', "line 3 column 1"),
    "one word": (b"hello", "expecting value, line 1 column 1"),
    "a word behind": (b"{} tru", "extra data, line 1 column 4"),
    "two documents": (b"{} {}", "extra data, line 1 column 4"),
    "Python": (b'{"r": None}', "expecting value, line 1 column 7"),
    "a raw newline in a string": (b'{"r": "a\nb"}', "invalid control character, line 1 column 9"),
    "too many bytes": (b'"' + b"a" * (1 << 20) + b'"', "1,048,578 bytes long, more than the 1,048,576"),
}


@pytest.mark.parametrize(("data", "sentence"), REFUSED.values(), ids=REFUSED)
@pytest.mark.parametrize("error", [MalformedFileError, MalformedConfigError, MalformedResultsError])
def test_what_cannot_be_trusted_is_refused_with_place_reason_and_hint(
    data: bytes, sentence: str, error: type[MalformedFileError]
) -> None:
    with pytest.raises(error) as refused:
        parse_json(data, where="adapter_config.json", error=error)
    assert type(refused.value) is error
    assert str(refused.value).startswith("adapter_config.json: ")
    assert sentence in str(refused.value)
    assert len(str(refused.value)) < 300
    assert str(refused.value).isprintable()
    assert refused.value.hint
    assert refused.value.code == error.default_code


@pytest.mark.parametrize(
    ("data", "place"),
    [
        (b'{\n  "r": 8,\n  "tar', "line 3 column 7"),
        (b'{\n  "r": 8,\n', "line 2 column 10"),
        (b'{"r": tru', "line 1 column 10"),
        (b'{"r": -', "line 1 column 8"),
        (b'{"r": 1.', "line 1 column 9"),
        (rb'{"r": "\u12', "line 1 column 12"),
        (b'{"r": "\\', "line 1 column 9"),
    ],
)
def test_text_that_ends_in_the_middle_is_called_so_with_the_place(data: bytes, place: str) -> None:
    with pytest.raises(MalformedFileError, match=f"ends in the middle, {place}") as refused:
        parse_json(data, where="x")
    assert refused.value.code == "truncated-file"


@pytest.mark.parametrize("data", [b"", b"\n \n", b"\xef\xbb\xbf"])
def test_an_empty_file_is_called_empty(data: bytes) -> None:
    with pytest.raises(MalformedFileError, match="is empty") as refused:
        parse_json(data, where="x")
    assert refused.value.code == "truncated-file"


def test_a_git_lfs_pointer_is_recognised() -> None:
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 1234\n"
    with pytest.raises(MalformedConfigError, match="Git-LFS pointer") as refused:
        parse_json(pointer, where="x", error=MalformedConfigError)
    assert refused.value.code == "lfs-pointer"
    assert refused.value.hint == "run `git lfs pull` and try again"


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (b'\xef\xbb\xbf{"r": 8}', {"r": 8}),
        (b'{"r": 8, "r": 8}', {"r": 8}),
        (b'{"r": {"a": 1, "b": [NaN]}, "r": {"b": [NaN], "a": 1}}', None),
        (rb'["\ud83d\ude00", "\\ud800"]', ["\U0001f600", r"\ud800"]),
        (b"[" * 32 + b"]" * 32, None),
        (b'["[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[\\"[[[[{{{"]', None),
        (rb'["\n' + b"[" * 40 + b'"]', None),
        (b"9" * 1000, int("9" * 1000)),
    ],
)
def test_what_every_reader_understands_alike_is_accepted(data: bytes, value: object) -> None:
    parsed = parse_json(data, where="x")
    assert value is None or parsed == value


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e400", "-1e400"])
def test_numbers_that_are_not_finite_are_refused_only_where_forbidden(number: str) -> None:
    data = f'{{"score": {number}}}'.encode()
    parsed = parse_json(data, where="x")
    assert isinstance(parsed, dict)
    assert not math.isfinite(parsed["score"])
    with pytest.raises(MalformedFileError, match=f"{number}, which is not finite"):
        parse_json(data, where="x", forbid_constants=True)


@given(JSON, st.sampled_from([None, 2]), st.booleans())
def test_what_json_writes_is_read_back(value: object, indent: int | None, ascii_only: bool) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=ascii_only)
    assert parse_json(text.encode(), where="x", forbid_constants=True) == value


@given(st.dictionaries(st.text(max_size=4), JSON, min_size=1, max_size=3), st.booleans(), st.data())
def test_an_object_cut_anywhere_ends_in_the_middle(value: object, ascii_only: bool, data: st.DataObject) -> None:
    text = json.dumps(value, indent=1, ensure_ascii=ascii_only)
    cut = data.draw(st.integers(1, len(text) - 1))
    with pytest.raises(MalformedFileError, match="ends in the middle"):
        parse_json(text[:cut].encode(), where="x")


@given(st.binary(max_size=40) | st.text('[]{}",:\\ud80e+-.1tfnNI ', max_size=40).map(str.encode))
@example(b'"' + b"\\" * 1001)
@example(b"\x00")
def test_any_bytes_give_a_value_that_can_be_written_back_or_one_error(data: bytes) -> None:
    try:
        value = parse_json(data, where="x")
    except MalformedFileError as refused:
        assert refused.hint
        assert str(refused).isprintable()
    else:
        json.dumps(value, ensure_ascii=False).encode()


MIB = 1 << 20


@pytest.mark.parametrize(
    ("start", "unit", "end"),
    [
        (b"", b"[", b""),
        (b"", b"]", b""),
        (b"", b'"', b""),
        (b"", b"9", b""),
        (b"", b"-", b""),
        (b'"', b"\\", b""),
        (b'"', b"\\n", b'"'),
        (b'"', rb"\ud83d\ude00", b'"'),
        (b"[", b"{},", b"{}]"),
        (b"[", b"[[]],", b"[]]"),
        (b"[", b"1.5,", b"1]"),
        (b"{", b'"a":1.5,', b'"a":1.5}'),
    ],
)
def test_no_text_within_the_limit_is_slow_to_read(start: bytes, unit: bytes, end: bytes) -> None:
    data = start + unit * ((MIB - len(start) - len(end)) // len(unit)) + end
    began = time.process_time()
    with contextlib.suppress(MalformedFileError):
        parse_json(data, where="x", max_bytes=MIB)
    assert time.process_time() - began < 20
