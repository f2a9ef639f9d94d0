"""The strict header reader: what it accepts, safetensors accepts alike; all else is one named refusal."""

from __future__ import annotations

import io
import json
import random
import re
import time
import tracemalloc
from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Any, BinaryIO, cast

import pytest
import safetensors
from hypothesis import given
from hypothesis import strategies as st
from safetensors import SafetensorError, safe_open

from registry.domain.tensors import DTYPE_BITS, TensorSpec
from registry.errors import MalformedHeaderError
from registry.formats.safetensors_header import MAX_HEADER, MAX_RANK, Header, read_header

#: The reference: name and {dtype, shape, data} of every tensor.
deserialize: Callable[[bytes], list[tuple[str, dict[str, Any]]]] = safetensors.deserialize

CODES = frozenset(
    re.findall(r"``([a-z]+(?:-[a-z]+)*)``", (read_header.__doc__ or "").partition("its ``code`` is one of")[2])
)


def entry(dtype: object = "F32", shape: object = (1,), offsets: object = (0, 4), **more: object) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets, **more}


def file(header: object, data: int = 4, *, declared: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if declared is None else declared).to_bytes(8, "little") + text + bytes(data)


def read(data: bytes) -> Header:
    return read_header(io.BytesIO(data), size=len(data), where="a.safetensors")


def table(text: str, data: int = 4) -> bytes:
    """A file whose header is ``text`` with ``E`` standing for one sound entry."""
    return file(text.replace("E", json.dumps(entry())).encode(), data)


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 1234\n"
ONE = file({"a": entry()})

HOSTILE: dict[str, tuple[str, bytes]] = {
    "a Git-LFS pointer": ("lfs-pointer", LFS),
    "a torch zip": ("pickle", b"PK\x03\x04\x00\x00\x08\x08" + bytes(200)),
    "an ordinary zip": ("pickle", b"PK\x03\x04\x14\x00\x00\x00" + bytes(200)),
    "a pickle of protocol 2": ("pickle", b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."),
    "a pickle of protocol 5": ("pickle", b"\x80\x05\x95\x05\x00\x00\x00\x00\x00\x00\x00]\x94."),
    "a tiny pickle": ("pickle", b"\x80\x02K\x01."),
    "a web page": ("not-safetensors", b"\n<!DOCTYPE HTML><html><body>404</body></html>"),
    "plain English": ("not-safetensors", b"Entry not found\n"),
    "one word": ("not-safetensors", b"oops"),
    "its own JSON": ("not-safetensors", b'{"error": "Repository not found"}'),
    "GGUF": ("not-safetensors", b"GGUF\x03\x00\x00\x00" + bytes(100)),
    "nothing": ("truncated-file", b""),
    "seven bytes": ("truncated-file", bytes(7)),
    "zeros": ("header-length", bytes(4096)),
    "a header of one byte": ("header-length", file(b"{", 0)),
    "a header of 2^63 bytes": ("header-too-large", file(b"{}", declared=1 << 63)),
    "a header of 2^64 - 1 bytes": ("header-too-large", file(b"{}", declared=(1 << 64) - 1)),
    "a header above safetensors' own limit": ("header-too-large", file(b"{}", declared=100_000_001)),
    "a header one byte above ours": ("header-too-large", file(b"{}" + b" " * (MAX_HEADER - 1))),
    "a file that ends in its header": ("truncated-file", file(b"{}", declared=1000)),
    "a leading space": ("header-start", table(' {"a": E}')),
    "a leading newline": ("header-start", table('\n{"a": E}')),
    "a leading byte-order mark": ("header-start", table('\ufeff{"a": E}')),
    "a list": ("header-start", file(b"[]", 0)),
    "a header that goes on": ("header-json", table('{"a": E}{}')),
    "padding of zeros": ("header-json", table('{"a": E}\0\0')),
    "half a header": ("header-json", file(b'{"a":{"dtype":"F32"', 0)),
    "no UTF-8": ("header-json", file(b'{"\xff":1}', 0)),
    "a nest of 5,000": ("header-json", file(b'{"a":' + b"[" * 5000, 0)),
    "a nest inside a shape": ("header-json", file({"a": entry(shape=[[1]])})),
    "a number of 5,000 digits": ("header-json", file(b'{"a":' + b"9" * 5000 + b"}", 0)),
    "metadata that is a list": ("header-json", file({"__metadata__": ["pt"], "a": entry()})),
    "metadata that is null": ("header-json", file({"__metadata__": None, "a": entry()})),
    "metadata of numbers": ("header-json", file({"__metadata__": {"epoch": 1}, "a": entry()})),
    "metadata of odd numbers": ("header-json", file({"__metadata__": {"loss": 1.5}, "a": entry()})),
    "metadata with a lone surrogate": ("header-json", table(r'{"__metadata__": {"k": "\ud800"}, "a": E}')),
    "a metadata key with a lone surrogate": ("header-json", table(r'{"__metadata__": {"\ud800": "v"}, "a": E}')),
    "a metadata key twice": ("header-json", table('{"__metadata__": {"k": "1", "k": "2"}, "a": E}')),
    "70,000 names": ("too-many-tensors", file(b"{" + b",".join(b'"%x":0' % i for i in range(70_000)) + b"}", 0)),
    "a name twice": ("duplicate-tensor", table('{"a": E, "a": E}')),
    "a name twice by an escape": ("duplicate-tensor", table(r'{"a": E, "\u0061": E}')),
    "metadata twice": ("duplicate-tensor", table('{"__metadata__": {}, "__metadata__": {}, "a": E}')),
    "no name": ("bad-tensor-name", file({"": entry()})),
    "a NUL in a name": ("bad-tensor-name", file({"a\0b": entry()})),
    "a newline in a name": ("bad-tensor-name", file({"a\nb": entry()})),
    "a right-to-left override in a name": ("bad-tensor-name", file({"a\u202eb": entry()})),
    "a lone surrogate in a name": ("bad-tensor-name", table(r'{"\ud800": E}')),
    "a name that climbs": ("bad-tensor-name", file({"../../etc/passwd": entry()})),
    "a name that climbs by backslash": ("bad-tensor-name", file({"a\\..\\b": entry()})),
    "an absolute name": ("bad-tensor-name", file({"/etc/passwd": entry()})),
    "an absolute name with a drive": ("bad-tensor-name", file({"C:\\a": entry()})),
    "an unknown field": ("unknown-field", file({"a": entry(device="cuda")})),
    "a field missing": ("unknown-field", file(b'{"a":{"dtype":"F32","shape":[1]}}')),
    "a field twice": ("unknown-field", file(b'{"a":{"dtype":"F32","dtype":"F32","shape":[1],"data_offsets":[0,4]}}')),
    "a number as a tensor": ("unknown-field", file({"a": 1})),
    "an unknown dtype": ("bad-dtype", file({"a": entry("F31")})),
    "a dtype in small letters": ("bad-dtype", file({"a": entry("f32")})),
    "a number as a dtype": ("bad-dtype", file({"a": entry(1.5)})),
    "a list as a dtype": ("bad-dtype", file({"a": entry(["F32"])})),
    "a float in a shape": ("bad-shape", file({"a": entry(shape=[1.0])})),
    "1e0 in a shape": ("bad-shape", file(b'{"a":{"dtype":"F32","shape":[1e0],"data_offsets":[0,4]}}')),
    "-0 in a shape": ("bad-shape", file(b'{"a":{"dtype":"F32","shape":[-0],"data_offsets":[0,0]}}', 0)),
    "true in a shape": ("bad-shape", file({"a": entry(shape=[True])})),
    "NaN in a shape": ("bad-shape", file({"a": entry(shape=[float("nan")])})),
    "a negative dimension": ("bad-shape", file({"a": entry(shape=[-1])})),
    "a dimension of 2^63": ("bad-shape", file({"a": entry(shape=[1 << 63])})),
    "a dimension of 30 digits": ("bad-shape", file({"a": entry(shape=[10**29])})),
    "a product beyond 2^64": ("bad-shape", file({"a": entry(shape=[1 << 62, 1 << 62, 4])})),
    "a product that wraps to the right size": ("bad-shape", file({"a": entry(shape=[(1 << 62) + 1, 4])}, 16)),
    "a giant behind a zero": ("bad-shape", file({"a": entry(shape=[0, 1 << 62, 4], offsets=[0, 0])}, 0)),
    "a giant before a zero": ("bad-shape", file({"a": entry(shape=[1 << 62, 4, 0], offsets=[0, 0])}, 0)),
    "too many dimensions": ("bad-shape", file({"a": entry(shape=[1] * (MAX_RANK + 1))})),
    "an object as a shape": ("bad-shape", file({"a": entry(shape={})})),
    "three offsets": ("bad-offsets", file({"a": entry(offsets=[0, 4, 4])})),
    "offsets backwards": ("bad-offsets", file({"a": entry(offsets=[4, 0])})),
    "float offsets": ("bad-offsets", file({"a": entry(offsets=[0.0, 4.0])})),
    "an offset of 2^63": ("bad-offsets", file({"a": entry(offsets=[0, 1 << 63])})),
    "a text as offsets": ("bad-offsets", file({"a": entry(offsets="04")})),
    "more bytes than the shape": ("size-mismatch", file({"a": entry(offsets=[0, 8])}, 8)),
    "fewer bytes than the shape": ("size-mismatch", file({"a": entry(offsets=[0, 2])}, 2)),
    "half a byte": ("size-mismatch", file({"a": entry("F4", [3], [0, 2])}, 2)),
    "a hole at the start": ("hole", file({"a": entry(offsets=[4, 8])}, 8)),
    "a hole between": ("hole", file({"a": entry(), "b": entry(offsets=[8, 12])}, 12)),
    "two tensors in one place": ("overlap", file({"a": entry(), "b": entry()})),
    "a tensor inside another": (
        "overlap",
        file({"a": entry(shape=[2], offsets=[0, 8]), "b": entry(offsets=[4, 8])}, 8),
    ),
    "an empty tensor inside another": ("overlap", file({"a": entry(), "b": entry(shape=[0], offsets=[2, 2])})),
    "one byte too few": ("truncated-file", ONE[:-1]),
    "data that never came": ("truncated-file", file({"a": entry(shape=[1 << 40], offsets=[0, 4 << 40])})),
    "one byte too many": ("trailing-bytes", ONE + b"\0"),
    "a zip behind the data": ("trailing-bytes", ONE + b"PK\x03\x04"),
    "data without tensors": ("trailing-bytes", file({}, 4)),
}


@pytest.mark.parametrize(("code", "data"), HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_file_is_refused_by_its_code_in_one_clear_sentence(code: str, data: bytes) -> None:
    with pytest.raises(MalformedHeaderError) as refused:
        read(data)
    assert refused.value.code == code
    assert str(refused.value).startswith("a.safetensors: ")
    assert str(refused.value).isprintable()
    assert len(str(refused.value)) < 400
    assert refused.value.hint


def test_every_documented_code_is_met_by_some_hostile_file() -> None:
    assert {code for code, _ in HOSTILE.values()} == CODES


def test_safetensors_still_takes_what_we_refuse_on_purpose() -> None:
    """If one of these fails, the library has become stricter and the docstring of the reader says too much."""
    for name in ("a leading space", "a name twice", "an unknown field", "a name that climbs", "a giant behind a zero"):
        deserialize(HOSTILE[name][1])


ACCEPTED = {
    "no tensors": file({}, 0),
    "a scalar": file({"a": entry(shape=[])}),
    "an empty tensor": file({"a": entry(shape=[0], offsets=[0, 0])}, 0),
    "empty tensors among others": file(
        {"z": entry(), "b": entry(shape=[3, 0], offsets=[4, 4]), "a": entry(offsets=[4, 8])}, 8
    ),
    "an order of its own": file({"b": entry(offsets=[4, 8]), "a": entry()}, 8),
    "padding": file(json.dumps({"a": entry()}).encode() + b" " * 7),
    "white space inside": file(json.dumps({"a": entry()}, indent=2).encode()),
    "half bytes that fill bytes": file({"a": entry("F6_E2M3", [4], [0, 3])}, 3),
    "metadata": file({"__metadata__": {"format": "pt", "": "line\nline \0 \U0001f600"}, "a": entry()}),
    "a name with dots and letters of the world": file({"a..b/…/ä.重": entry()}),
    "the largest header": file(json.dumps({"a": entry()}).encode().ljust(MAX_HEADER)),
}


@pytest.mark.parametrize("data", ACCEPTED.values(), ids=ACCEPTED)
def test_an_unusual_but_sound_file_is_read_as_safetensors_reads_it(data: bytes, tmp_path: Path) -> None:
    header = read(data)
    assert_same_as_safetensors(header, data)
    path = tmp_path / "a.safetensors"
    path.write_bytes(data)
    with safe_open(path, framework="np") as opened:
        assert {spec.name for spec in header.tensors} == set(opened.keys())
        assert dict(header.metadata) == (opened.metadata() or {})


def assert_same_as_safetensors(header: Header, data: bytes) -> None:
    theirs = dict(deserialize(data))
    assert {spec.name for spec in header.tensors} == set(theirs)
    for spec in header.tensors:
        assert (spec.dtype, list(spec.shape)) == (theirs[spec.name]["dtype"], theirs[spec.name]["shape"])
        place = slice(header.data_start + spec.start, header.data_start + spec.end)
        assert data[place] == bytes(theirs[spec.name]["data"])


def test_the_header_tells_names_places_and_metadata() -> None:
    data = file({"b": entry("F16", [2, 3], [4, 16]), "__metadata__": {"format": "pt"}, "a": entry()}, 16)
    assert read(data) == Header(
        (TensorSpec("a", "F32", (1,), 0, 4), TensorSpec("b", "F16", (2, 3), 4, 16)),
        {"format": "pt"},
        len(data) - 16,
    )


def test_the_table_of_dtypes_is_that_of_safetensors() -> None:
    with pytest.raises(SafetensorError) as refused:
        deserialize(HOSTILE["an unknown dtype"][1])
    known = str(refused.value).partition("expected one of")[2]
    assert set(DTYPE_BITS) == set(re.findall(r"`(\w+)`", known))


@pytest.mark.parametrize("dtype", DTYPE_BITS)
def test_every_dtype_has_the_width_that_safetensors_gives_it(dtype: str) -> None:
    data = file({"a": entry(dtype, [4], [0, DTYPE_BITS[dtype] // 2])}, DTYPE_BITS[dtype] // 2)
    assert_same_as_safetensors(read(data), data)


class Drip(io.BytesIO):
    """Gives at most three bytes a read, as a raw file or a socket may."""

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(min(3, -1 if size is None else size))


def test_only_the_header_is_read_however_the_bytes_arrive() -> None:
    data = file({"a": entry(shape=[1000], offsets=[0, 4000])}, 4000)
    source = Drip(data)
    header = read_header(source, size=len(data), where="x")
    assert source.tell() == header.data_start == len(data) - 4000


def test_a_source_shorter_than_promised_is_truncated() -> None:
    with pytest.raises(MalformedHeaderError) as refused:
        read_header(io.BytesIO(ONE[:20]), size=len(ONE), where="x")
    assert refused.value.code == "truncated-file"


# Laws


def is_harmless(name: str) -> bool:
    return (
        name.isprintable() and ".." not in name and ":" not in name and name[0] not in "/\\" and name != "__metadata__"
    )


NAMES = st.text(min_size=1, max_size=12).filter(is_harmless)
SHAPES = st.lists(st.integers(0, 5), max_size=4)


@st.composite
def sound_files(draw: st.DrawFn) -> bytes:
    offset = 0
    entries: dict[str, object] = {}
    for name in draw(st.lists(NAMES, max_size=4, unique=True)):
        dtype, shape = draw(st.sampled_from(list(DTYPE_BITS))), draw(SHAPES)
        if prod(shape) * DTYPE_BITS[dtype] % 8:
            shape.append(4)
        end = offset + prod(shape) * DTYPE_BITS[dtype] // 8
        entries[name] = entry(dtype, shape, (offset, end))
        offset = end
    items = draw(st.permutations(list(entries.items())))
    if draw(st.booleans()):
        items = [("__metadata__", draw(st.dictionaries(st.text(max_size=4), st.text(max_size=4), max_size=2))), *items]
    text = json.dumps(dict(items), ensure_ascii=draw(st.booleans()))
    header = text.encode() + b" " * draw(st.integers(0, 8))
    seed = draw(st.integers(0, 9))
    return len(header).to_bytes(8, "little") + header + random.Random(seed).randbytes(offset)


@given(sound_files())
def test_a_sound_file_is_read_as_safetensors_reads_it(data: bytes) -> None:
    header = read(data)
    assert_same_as_safetensors(header, data)
    assert [spec.start for spec in header.tensors] == sorted(spec.start for spec in header.tensors)


def assert_accepted_only_if_safetensors_does(data: bytes) -> None:
    try:
        header = read(data)
    except MalformedHeaderError as refused:
        assert refused.code in CODES
        assert refused.hint
        assert str(refused).isprintable()
    else:
        assert_same_as_safetensors(header, data)


@given(sound_files(), st.data())
def test_flipped_bytes_are_accepted_only_if_safetensors_accepts_them_alike(data: bytes, draws: st.DataObject) -> None:
    flipped = bytearray(data)
    for _ in range(draws.draw(st.integers(1, 3))):
        flipped[draws.draw(st.integers(0, len(data) - 1))] = draws.draw(st.integers(0, 255))
    assert_accepted_only_if_safetensors_does(bytes(flipped))


TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|-?\d+|\s+|.', re.DOTALL)
TOKENS = [
    "0", "1", "4", "-0", "-1", "1.0", "1e0", "9223372036854775807", "9223372036854775808", "18446744073709551615",
    "true", "null", "NaN", "Infinity", "{", "}", "[", "]", ",", ":", " ", "\n", "\ufeff", "\x00", "\x0b", "\xa0",
    '""', '"a"', r'"\u0061"', r'"\ud800"', r'"\ud83d\ude00"', r'"\/"', r'"\x61"', '"\x7f"', '"__metadata__"', "{}",
    "[]", '"dtype"', '"shape"', '"data_offsets"', '"F32"', '"F4"', "/**/", "'a'", "01", "+1", "1_0", '"\t"', "[0,0]",
]  # fmt: skip


@given(sound_files(), st.data())
def test_edited_tokens_are_accepted_only_if_safetensors_accepts_them_alike(data: bytes, draws: st.DataObject) -> None:
    end = 8 + int.from_bytes(data[:8], "little")
    tokens = TOKEN.findall(data[8:end].decode())
    for _ in range(draws.draw(st.integers(1, 3))):
        place = draws.draw(st.integers(0, len(tokens)))
        keep = draws.draw(st.sampled_from([place, place + 1, place + 2]))  # insert, replace, replace two
        tokens[place:keep] = draws.draw(st.lists(st.sampled_from(TOKENS + tokens), max_size=2))
    header = "".join(tokens).encode()
    assert_accepted_only_if_safetensors_does(len(header).to_bytes(8, "little") + header + data[end:])


@given(st.binary(max_size=64) | st.binary(max_size=64).map(lambda text: file(b"{" + text, 0)))
def test_any_bytes_raise_nothing_but_a_malformed_header(data: bytes) -> None:
    assert_accepted_only_if_safetensors_does(data)


class Endless(io.RawIOBase):
    """A file whose header is ``unit`` over and over for ``length`` bytes; nothing of it is kept in memory."""

    def __init__(self, length: int, unit: bytes) -> None:
        self.length, self.unit, self.place = length, unit, 0

    def read(self, count: int = -1, /) -> bytes:
        if self.place == 0:
            chunk = self.length.to_bytes(8, "little")
        else:
            chunk = (b"{" + self.unit * (count // len(self.unit) + 1))[:count]
        self.place += len(chunk)
        return chunk


EMPTY_TENSOR = b'"t":{"dtype":"F32","shape":[0],"data_offsets":[0,0]},'


@pytest.mark.parametrize(
    ("length", "unit", "mebibytes"),
    [
        (90_000_000, EMPTY_TENSOR, 1),
        (10_000_000, b'"name":0,', 1),  # more than a million names
        *((MAX_HEADER, unit, 64) for unit in (b"[", b'"', b"1", b'"a":0,', b'"a":{},', b'"a":[{},{}],', EMPTY_TENSOR)),
    ],
)
def test_a_header_bomb_is_refused_at_once_and_without_its_memory(length: int, unit: bytes, mebibytes: int) -> None:
    """90 MB of it cost safetensors seconds and a gigabyte."""

    def refused() -> None:
        with pytest.raises(MalformedHeaderError):
            read_header(cast("BinaryIO", Endless(length, unit)), size=length + 8, where="x")

    began = time.process_time()
    refused()
    assert time.process_time() - began < 20  # a second at most; what is traced takes twenty times as long
    tracemalloc.start()
    try:
        refused()
        assert tracemalloc.get_traced_memory()[1] < mebibytes << 20
    finally:
        tracemalloc.stop()
