"""NaN, infinity and zero found in the bytes alone, against torch, which knows what the bytes mean."""

from __future__ import annotations

import io
import struct
from itertools import permutations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from registry.domain.tensors import DTYPE_BITS, TensorSpec
from registry.formats.tensor_scan import STEP, Scan, scan

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "C64": torch.complex64,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E8M0": torch.float8_e8m0fnu,
    "F8_E4M3FNUZ": torch.float8_e4m3fnuz,
    "F8_E5M2FNUZ": torch.float8_e5m2fnuz,
}
#: Formats without an infinity or a NaN: every pattern is a number.
ALWAYS_FINITE = sorted(set(DTYPE_BITS) - set(DTYPES))


def scanned(*tensors: tuple[str, str, bytes]) -> Scan:
    """The scan of tensors (name, dtype, data) lying one behind the other."""
    specs, position = [], 0
    for name, dtype, data in tensors:
        elements = len(data) * 8 // DTYPE_BITS[dtype]
        specs.append(TensorSpec(name, dtype, (elements,), position, position + len(data)))
        position += len(data)
    return scan(io.BytesIO(b"".join(data for _, _, data in tensors)).read, specs)


def finite_for_torch(dtype: str, data: bytes) -> torch.Tensor:
    values = torch.frombuffer(bytearray(data), dtype=DTYPES[dtype])
    return torch.isfinite(values if dtype in ("F64", "C64") else values.float())


@pytest.mark.parametrize("dtype", [name for name in DTYPES if DTYPE_BITS[name] <= 16])
def test_every_pattern_of_a_small_format(dtype: str) -> None:
    width = DTYPE_BITS[dtype] // 8
    patterns = [number.to_bytes(width, "little") for number in range(256**width)]
    finite = finite_for_torch(dtype, b"".join(patterns)).tolist()
    found = scanned(*((f"{number:05}", dtype, pattern) for number, pattern in enumerate(patterns)))
    assert list(found.nonfinite) == [f"{number:05}" for number, is_finite in enumerate(finite) if not is_finite]
    values = torch.frombuffer(bytearray(b"".join(patterns)), dtype=DTYPES[dtype]).float().tolist()
    zeros = {f"{number:05}" for number, value in enumerate(values) if value == 0}  # 0.0 and −0.0
    assert set(found.zero) == zeros | {"00000"}


@pytest.mark.parametrize("dtype", ["F32", "F64", "C64"])
@pytest.mark.parametrize("kind", ["top", "random", "all ones but one"])
def test_patterns_of_a_large_format(dtype: str, kind: str) -> None:
    """Every pattern of the two bytes that hold sign and exponent, over mantissas of all kinds."""
    width = 8 if dtype == "F64" else 4
    below = {"top": bytes(width - 2), "random": b"\x01\x80\xff\x00\x7f\x10"[: width - 2], "all ones but one": b"\xff" * (width - 2)}
    patterns = [below[kind] + number.to_bytes(2, "little") for number in range(0x7E00, 0x8100)]
    patterns += [below[kind] + number.to_bytes(2, "little") for number in [*range(0x100), *range(0xFE00, 0x10000)]]
    data = [pattern * (2 if dtype == "C64" else 1) for pattern in patterns]
    finite = finite_for_torch(dtype, b"".join(data)).tolist()
    found = scanned(*((f"{number:05}", dtype, each) for number, each in enumerate(data)))
    assert list(found.nonfinite) == [f"{number:05}" for number, is_finite in enumerate(finite) if not is_finite]


EXTREMES = {
    "F32": [3.4028234663852886e38, -3.4028234663852886e38, 1e-45, -1e-45, 1.1754943508222875e-38, -0.0, 1.0],
    "F64": [1.7976931348623157e308, -1.7976931348623157e308, 5e-324, -5e-324, 2.2250738585072014e-308, -0.0, 1.0],
    "F16": [65504.0, -65504.0, 5.960464477539063e-08, -0.0, 1.0],
}
FORMS = {"F32": "f", "F64": "d", "F16": "e"}


@pytest.mark.parametrize("dtype", EXTREMES)
def test_the_largest_and_the_smallest_numbers_are_numbers(dtype: str) -> None:
    values = EXTREMES[dtype]
    assert scanned(("x", dtype, struct.pack(f"<{len(values)}{FORMS[dtype]}", *values))).nonfinite == ()
    for bad in (float("inf"), float("-inf"), float("nan")):
        assert scanned(("x", dtype, struct.pack(f"<{len(values) + 1}{FORMS[dtype]}", *values, bad))).nonfinite == ("x",)


@given(st.sampled_from(["F32", "F64", "BF16", "F16", "C64"]), st.binary(min_size=8, max_size=160))
def test_any_bytes_are_what_torch_takes_them_for(dtype: str, data: bytes) -> None:
    data = data[: len(data) // 8 * 8]
    assert bool(scanned(("x", dtype, data)).nonfinite) == (not finite_for_torch(dtype, data).all())


@given(st.lists(st.floats(width=32), min_size=1))
def test_any_floats_are_what_python_takes_them_for(values: list[float]) -> None:
    data = struct.pack(f"<{len(values)}f", *values)
    found = scanned(("x", "F32", data))
    assert bool(found.nonfinite) == any(value - value != 0 for value in values)
    assert bool(found.zero) == all(value == 0 for value in values)


@pytest.mark.parametrize("dtype", ALWAYS_FINITE)
def test_what_has_no_nan_is_never_blamed_for_one(dtype: str) -> None:
    assert scanned(("x", dtype, b"\xff" * 24)).nonfinite == ()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("where", [0, STEP // 8 - 1, STEP // 8, -1])
def test_one_bad_value_in_a_large_tensor_is_found_wherever_it_is(dtype: str, where: int) -> None:
    width = DTYPE_BITS[dtype] // 8
    bad = {1: b"\x80" if "FNUZ" in dtype else b"\xff", 2: b"\xff\x7f", 4: b"\x00\x00\x80\x7f", 8: b"\x00" * 6 + b"\xf0\x7f"}
    pattern = bad[4] * 2 if dtype == "C64" else bad[width]
    data = bytearray(STEP + 8 * width)
    start = where * 8 if where >= 0 else len(data) - width
    data[start : start + width] = pattern
    assert scanned(("good", dtype, bytes(16)), ("bad", dtype, bytes(data))).nonfinite == ("bad",)
    assert scanned(("good", dtype, bytes(16)), ("bad", dtype, bytes(data))).zero == ("good",)


def test_one_number_in_a_large_tensor_of_zeros_makes_it_no_zero() -> None:
    for where in (0, STEP - 1, STEP, STEP + 7):
        data = bytearray(STEP + 8)
        data[where] = 1
        assert scanned(("x", "F32", bytes(data))).zero == ()
    assert scanned(("x", "F32", bytes(STEP + 8))).zero == ("x",)


def test_a_tensor_without_elements_is_neither() -> None:
    found = scanned(("x", "F32", b""))
    assert (found.nonfinite, found.zero) == ((), ())


def test_a_file_that_ends_too_soon_is_said() -> None:
    with pytest.raises(EOFError):
        scan(io.BytesIO(bytes(7)).read, [TensorSpec("x", "F32", (2,), 0, 8)])


PARTS = [("a", "F32", b"\x01\x00\x00\x00"), ("b", "F32", b"\x02\x00\x00\x00"), ("ä\n", "BF16", b"\x01\x00\x02\x00")]


def test_identity_does_not_depend_on_the_order_in_the_file() -> None:
    assert len({scanned(*order).identity for order in permutations(PARTS)}) == 1


def test_identity_is_of_names_dtypes_shapes_and_bytes() -> None:
    name, dtype, data = PARTS[0]
    square = scan(io.BytesIO(data).read, [TensorSpec(name, dtype, (1, 1), 0, 4)])
    others = [
        scanned((name, dtype, data)).identity,
        scanned(("b", dtype, data)).identity,
        scanned((name, "I32", data)).identity,
        scanned((name, dtype, b"\x00" + data[1:])).identity,
        scanned((name, dtype, data), (name + "2", dtype, b"")).identity,
        scanned(*PARTS).identity,
        square.identity,
    ]
    assert len(set(others)) == len(others)


def test_identity_does_not_drift() -> None:
    """Registries hold it, and versions are found by it."""
    assert scanned(*PARTS).identity == "sha256:318b7768996ead0b467f8d87ef52c9a2a05f9668e1b31b2495a070a03257adc7"
