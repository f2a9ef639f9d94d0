"""The table at the start of a safetensors file, read by the letter.

Format (safetensors README, "Format"; dtypes of 0.8)::

    8 bytes    N, unsigned, little-endian
    N bytes    UTF-8 JSON that starts with "{", maybe padded with white space at its end:
               {"name": {"dtype": "F16", "shape": [16, 64], "data_offsets": [0, 2048]}, "__metadata__": {"k": "v"}}
    the rest   the tensors' bytes; offsets count from here, leave no hole and reach the last byte

Law: what ``read_header`` accepts, safetensors accepts with the same names, dtypes, shapes and metadata. The converse
does not hold, on purpose: safetensors 0.8 takes leading white space, a name given twice (the last one wins), unknown
fields, names like ``../x`` and headers of 100 MB. What two readers could understand differently is refused here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import BinaryIO, TypeGuard, cast

from registry.domain.tensors import DTYPE_BITS, TensorSpec
from registry.errors import MalformedHeaderError
from registry.formats.git_lfs import is_lfs_pointer, lfs_pointer_error
from registry.formats.json_text import load_json

#: Bytes of JSON. Adapters' headers take some 100 bytes per tensor and tens of kilobytes in all; one with factors for each of
#: a mixture's 6,144 experts (Qwen3-30B-A3B, three projections) takes 5 MiB. The library's own limit of
#: 100 MB lets a file without any data cost seconds and a gigabyte.
MAX_HEADER = 6 << 20
#: Entries. More than any adapter has, and a bound on what every later check may loop over.
MAX_TENSORS = 1 << 16
#: Dimensions of one tensor: what numpy 2 and torch's operators take.
MAX_RANK = 64
#: Exclusive, for dimensions, offsets and bits per tensor: signed 64-bit arithmetic in any reader stays exact.
MAX_INT = 1 << 63

#: Marks that the largest header has: what each tensor takes, and some for metadata. Counted before anything is made of the text.
_MOST = {b":": 4 * MAX_TENSORS + 4096, b'"': 10 * MAX_TENSORS + 16384}

_DEPTH = 3  # {name: {"shape": [...]}}
_FIELDS = ("data_offsets", "dtype", "shape")
_SEPARATOR = re.compile(r"[/\\]")
_ABSOLUTE = re.compile(r"[/\\]|[A-Za-z]:[/\\]")
_TEXT = re.compile(rb"(?:\xef\xbb\xbf)?[\t\n\r -~]+")
_HTML = re.compile(rb"\s*<(?:!doctype\s+html|html)", re.IGNORECASE)
_PICKLE = re.compile(rb"PK\x03\x04|\x80[\x02-\x05]")
_AGAIN = "get the file again: its download or save was interrupted"
_REWRITE = "write the file again with safetensors' own save_file"


@dataclass(frozen=True, slots=True)
class Header:
    """``tensors`` in the order of their bytes (then by name: tensors without bytes may share a place)."""

    tensors: tuple[TensorSpec, ...]
    metadata: Mapping[str, str]
    data_start: int


class _Odd(str):
    """A number that is no plain JSON integer, as it was written."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


# Objects arrive as tuples of (name, value), so that a repeated name can be judged by where it is.
_Pairs = tuple[tuple[str, object], ...]


def read_header(source: BinaryIO, *, size: int, where: str, max_header: int = MAX_HEADER) -> Header:
    """The table of the file of ``size`` bytes that ``source`` stands at the start of; reads its header and no data.

    :param max_header: bytes of JSON that are still read; a base model's shard may need more than an adapter.

    :raises MalformedHeaderError: whatever the bytes; its ``code`` is one of ``lfs-pointer``, ``pickle``,
        ``not-safetensors`` (another kind of file), ``truncated-file``, ``trailing-bytes`` (the file and its table
        differ in length), ``header-length``, ``header-too-large``, ``header-start``, ``header-json`` (the header as
        a whole, ``__metadata__`` included), ``too-many-tensors``, ``duplicate-tensor``, ``bad-tensor-name``,
        ``unknown-field`` (not exactly the three), ``bad-dtype``, ``bad-shape``, ``bad-offsets``, ``size-mismatch``
        (one entry), ``overlap``, ``hole`` (two entries).
    """
    text = _header_text(source, size, where, max_header)
    metadata: Mapping[str, str] = {}
    tensors: list[TensorSpec] = []
    seen: set[str] = set()
    for name, value in _entries(text, where):
        if name in seen:
            raise _bad(where, "duplicate-tensor", f"names {name!r:.80} twice", "keep one of the two entries")
        seen.add(name)
        if name == "__metadata__":
            metadata = _metadata(value, where)
        else:
            tensors.append(_tensor(name, value, where))
    tensors.sort(key=lambda spec: (spec.start, spec.end, spec.name))
    header = Header(tuple(tensors), metadata, 8 + len(text))
    _check_layout(header, size, where)
    return header


def _header_text(source: BinaryIO, size: int, where: str, max_header: int) -> bytes:
    start = _read(source, min(size, 8))
    length = int.from_bytes(start, "little")
    if len(start) < 8 or length > max_header:
        _refuse_other_kinds(start + _read(source, min(size, 512) - len(start)), where)
    if len(start) < 8:
        raise _bad(where, "truncated-file", f"is {len(start)} bytes long, too short for a safetensors file", _AGAIN)
    if length > max_header:
        found = f"declares a header of {length:,} bytes (the whole file has {size:,}), more than {max_header:,}"
        raise _bad(where, "header-too-large", found, "check that it is the right safetensors file")
    if length < 2:
        found = f"declares a header of {length} bytes, expected at least 2 for {{}}"
        raise _bad(where, "header-length", found, _AGAIN if length == 0 else _REWRITE)
    text = _read(source, min(length, size - 8))
    if len(text) < length:
        found = f"ends inside its header, after {8 + len(text):,} of at least {8 + length:,} bytes"
        raise _bad(where, "truncated-file", found, _AGAIN)
    if not text.startswith(b"{"):
        raise _bad(where, "header-start", f"has a header that starts with {text[:8]!r}, expected b'{{'", _REWRITE)
    return text


def _entries(text: bytes, where: str) -> _Pairs:
    def fail(problem: str, code: str | None, hint: str | None) -> MalformedHeaderError:
        del code, hint  # those are about text files that people edit
        return _bad(where, "header-json", f"has a header that {problem}", _REWRITE)

    def integer(digits: str) -> object:
        return _Odd(digits) if digits.startswith("-") else int(digits)  # int would take -0 for 0

    if any(text.count(mark) > most for mark, most in _MOST.items()):
        raise _bad(where, "too-many-tensors", f"lists more than the {MAX_TENSORS:,} tensors that are read", _REWRITE)
    parsed = load_json(
        text,
        fail=fail,
        max_depth=_DEPTH,
        object_pairs_hook=tuple,
        parse_constant=_Odd,
        parse_float=_Odd,
        parse_int=integer,
    )
    entries = cast("_Pairs", parsed)  # text starts with a brace
    if len(entries) > MAX_TENSORS:
        found = f"lists {len(entries):,} tensors, more than the {MAX_TENSORS:,} that are read"
        raise _bad(where, "too-many-tensors", found, "check that it is an adapter's safetensors file")
    return entries


def _metadata(value: object, where: str) -> dict[str, str]:
    def is_text(item: object) -> bool:
        return type(item) is str and item.encode(errors="replace").decode() == item  # no lone surrogate

    if not isinstance(value, tuple):
        raise _bad(where, "header-json", f"has {_shown(value)} as __metadata__, expected an object", _REWRITE)
    for key, item in value:
        if not is_text(key) or not is_text(item):
            found = f"has {_shown(item)} in __metadata__ under {key!r:.80}, expected text"
            raise _bad(where, "header-json", found, "write every value of the metadata as a string")
    metadata = dict(value)
    if len(metadata) < len(value):
        raise _bad(where, "header-json", "gives a key of __metadata__ twice", "keep one of the two")
    return metadata


def _tensor(name: str, entry: object, where: str) -> TensorSpec:
    def bad(code: str, found: str, hint: str = _REWRITE) -> MalformedHeaderError:
        return _bad(where, code, f"tensor {name!r:.80} {found}", hint)

    if not _is_plain_name(name):
        found = "has a name that is empty, not printable, or a path that leads elsewhere"
        raise bad("bad-tensor-name", found, "rename the tensor; names look like model.layers.0.self_attn.q_proj.weight")
    if not isinstance(entry, tuple):
        raise bad("unknown-field", f"is {_shown(entry)}, expected an object of dtype, shape and data_offsets")
    if tuple(sorted(key for key, _ in entry)) != _FIELDS:
        found = ", ".join(f"{key!r:.40}" for key, _ in entry[:5]) or "nothing"
        raise bad("unknown-field", f"has the fields {found}, expected exactly dtype, shape and data_offsets")
    fields = dict(entry)

    dtype = fields["dtype"]
    if type(dtype) is not str or dtype not in DTYPE_BITS:
        raise bad("bad-dtype", f"has dtype {_shown(dtype)}, expected one of {', '.join(DTYPE_BITS)}")

    shape = fields["shape"]
    if not _is_integers(shape) or len(shape) > MAX_RANK:
        found = f"has shape {_shown(shape)}, expected a list of at most {MAX_RANK} plain integers from 0 to 2^63 - 1"
        raise bad("bad-shape", found)
    bits = DTYPE_BITS[dtype]
    for dimension in shape:  # a zero does not excuse the other dimensions: readers multiply in different orders
        bits *= dimension or 1
        if bits >= MAX_INT:
            raise bad("bad-shape", f"has shape {_shown(shape)} of {dtype}, which is 2^63 bits or more")
    bits = 0 if 0 in shape else bits

    offsets = fields["data_offsets"]
    if not _is_integers(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        found = f"has data_offsets {_shown(offsets)}, expected two plain integers [begin, end] with begin <= end < 2^63"
        raise bad("bad-offsets", found)
    start, end = offsets
    if bits != 8 * (end - start):
        needs = f"{bits // 8:,} bytes" if bits % 8 == 0 else f"{bits:,} bits, not a whole number of bytes"
        found = f"needs {needs} for {dtype} {_shown(shape)}, but its data_offsets hold {end - start:,} bytes"
        raise bad("size-mismatch", found)
    return TensorSpec(name, dtype, tuple(shape), start, end)


def _check_layout(header: Header, size: int, where: str) -> None:
    reached, before = 0, "the header"
    for spec in header.tensors:
        if spec.start != reached:
            code, what = ("overlap", "overlaps") if spec.start < reached else ("hole", "leaves a hole after")
            found = f"tensor {spec.name!r:.80} starts at byte {spec.start:,} of the data and {what} {before}"
            raise _bad(where, code, f"{found}, which ends at {reached:,}", _REWRITE)
        reached, before = spec.end, repr(spec.name)[:80]
    expected = header.data_start + reached
    if size < expected:
        found = f"is {size:,} bytes long, but its header describes {expected:,}"
        raise _bad(where, "truncated-file", found, _AGAIN)
    if size > expected:
        found = f"has {size - expected:,} bytes after the last tensor, which ends at byte {expected:,}"
        raise _bad(where, "trailing-bytes", found, "get the file again or write it again; nothing may follow the data")


def _refuse_other_kinds(head: bytes, where: str) -> None:
    if is_lfs_pointer(head):
        raise lfs_pointer_error(where, MalformedHeaderError)
    if _PICKLE.match(head):
        how = "convert it: load it with torch.load(..., weights_only=True), write it with safetensors.torch.save_file"
        raise _bad(where, "pickle", "is a Python pickle (PyTorch .bin or .pt), which can run code when it is read", how)
    if _HTML.match(head):
        how = "download the file itself, not the page about it (on the Hugging Face Hub: /resolve/, not /blob/)"
        raise _bad(where, "not-safetensors", "is a web page (HTML), not a safetensors file", how)
    if head.startswith(b"GGUF"):
        found = "is a GGUF file, not a safetensors file"
        raise _bad(where, "not-safetensors", found, "use the adapter's safetensors file")
    if _TEXT.fullmatch(head[:8]):
        found = f"is text, not a safetensors file; it starts with {head[:40]!r}"
        raise _bad(where, "not-safetensors", found, "check that this is the right file, and get it again")


def _is_plain_name(name: str) -> bool:
    """No control character, lone surrogate or invisible sign, and harmless where somebody takes it for a path."""
    return name.isprintable() and name != "" and not _ABSOLUTE.match(name) and ".." not in _SEPARATOR.split(name)


def _is_integers(value: object) -> TypeGuard[list[int]]:
    return isinstance(value, list) and all(type(item) is int and item < MAX_INT for item in value)


def _shown(value: object) -> str:
    """Safe to print: one line, escaped, short."""
    if isinstance(value, list):
        return f"[{', '.join(_shown(item) for item in value[:8])}{', ...' if len(value) > 8 else ''}]"
    return "an object" if isinstance(value, tuple) else f"{value!r:.40}"


def _bad(where: str, code: str, problem: str, hint: str) -> MalformedHeaderError:
    return MalformedHeaderError(where, problem, code=code, hint=hint)


def _read(source: BinaryIO, count: int) -> bytes:
    """``count`` bytes, fewer only at the end of the file: one read of a raw file or a socket may stop early."""
    data = b""
    while len(data) < count and (more := source.read(count - len(data))):
        data += more
    return data
