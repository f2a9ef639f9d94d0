"""The state beside a packed weight: what agrees is read, anything else is one error."""

from __future__ import annotations

import json
import struct
from contextlib import suppress
from math import prod

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.domain.tensors import TensorSpec
from registry.errors import MalformedFileError
from registry.formats.model_config import ModelConfig
from registry.formats.nf4 import (
    LEVELS,
    MARK,
    MAX_STATE,
    QuantState,
    packed_names,
    parse_state,
    require_finite,
    require_levels,
    require_parts,
)
from registry.formats.packing import method_of, modules_left_out, packing_of

PLAIN = {"quant_type": "nf4", "blocksize": 64, "dtype": "bfloat16", "shape": [96, 50]}
NESTED = {**PLAIN, "nested_blocksize": 256, "nested_dtype": "float32", "nested_offset": 0.05131530761718751}


def state(**changes: object) -> bytes:
    document = {**PLAIN, **changes}
    return json.dumps({key: value for key, value in document.items() if value is not ...}).encode()


def test_a_state_is_read_as_it_was_written() -> None:
    assert parse_state(state(), where="x") == QuantState("BF16", (96, 50), 64)
    nested = parse_state(json.dumps(NESTED).encode(), where="x")
    assert (nested.elements, nested.scales, nested.nested_block) == (4800, 75, 256)
    assert nested.nested_offset == struct.unpack("<f", struct.pack("<f", NESTED["nested_offset"]))[0]


BROKEN = {
    "nothing": b"",
    "no-json": b"\x80\x04K\x01.",
    "cut-off": state()[:-7],
    "a-list": b"[1]",
    "deep": b'{"a":' * 5 + b"1" + b"}" * 5,
    "long": state(quant_type="nf4" + " " * MAX_STATE),
    "fp4": state(quant_type="fp4"),
    "no-type": state(quant_type=...),
    "unknown-key": state(group_size=64),
    "no-shape": state(shape=...),
    "null-shape": state(shape=None),
    "empty-shape": state(shape=[]),
    "many-dimensions": state(shape=[1] * 9),
    "zero-size": state(shape=[0, 4]),
    "negative-size": state(shape=[-4, 4]),
    "fraction-size": state(shape=[4.0, 4]),
    "true-size": state(shape=[True, 4]),
    "huge-size": state(shape=[1 << 60, 4]),
    "odd-dtype": state(dtype="float64"),
    "list-dtype": state(dtype=["bfloat16"]),
    "odd-block": state(blocksize=63),
    "true-block": state(blocksize=True),
    "zero-block": state(blocksize=0),
    "text-block": state(blocksize="64"),
    "half-nested": state(nested_offset=0.1),
    "nested-half-type": json.dumps({**NESTED, "nested_dtype": "float16"}).encode(),
    "nested-odd-block": json.dumps({**NESTED, "nested_blocksize": 100}).encode(),
    "nested-nan": json.dumps({**NESTED, "nested_offset": float("nan")}).encode(),
    "nested-huge": json.dumps({**NESTED, "nested_offset": 1e300}).encode(),
    "nested-long": json.dumps({**NESTED, "nested_offset": 10**400}).encode(),
    "nested-text": json.dumps({**NESTED, "nested_offset": "0.1"}).encode(),
    "twice": b'{"quant_type": "nf4", "quant_type": "fp4"}',
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_state_is_refused(name: str) -> None:
    with pytest.raises(MalformedFileError) as caught:
        parse_state(BROKEN[name], where="model.safetensors")
    assert caught.value.exit_code == 3
    assert caught.value.hint
    assert len(caught.value.message) < 500


@given(st.binary(max_size=300) | st.text(max_size=200).map(str.encode))
def test_any_bytes_give_a_state_or_that_error(data: bytes) -> None:
    with suppress(MalformedFileError):
        parse_state(data, where="x")


@given(
    st.dictionaries(
        st.sampled_from([*NESTED, "other"]),
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.lists(st.integers()),
        max_size=8,
    )
)
def test_any_document_gives_a_state_or_that_error(changes: dict[str, object]) -> None:
    try:
        found = parse_state(json.dumps({**NESTED, **changes}).encode(), where="x")
    except MalformedFileError:
        return
    assert found.block >= 32
    assert found.elements > 0


def spec(name: str, dtype: str, *shape: int, bits: int = 8) -> TensorSpec:
    return TensorSpec(name, dtype, shape, 0, prod(shape) * bits // 8)


def parts(*, nested: bool = False, **changes: TensorSpec | None) -> dict[str, TensorSpec]:
    found: dict[str, TensorSpec | None] = {
        "absmax": spec("x.absmax", "U8", 75) if nested else spec("x.absmax", "F32", 75, bits=32),
        "quant_map": spec("x.quant_map", "F32", 16, bits=32),
    }
    if nested:
        found["nested_absmax"] = spec("x.nested_absmax", "F32", 1, bits=32)
        found["nested_quant_map"] = spec("x.nested_quant_map", "F32", 256, bits=32)
    return {name: each for name, each in {**found, **changes}.items() if each is not None}


CODES = spec("x", "U8", 2400, 1)


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("codes", [CODES, spec("x", "BF16", 1200, 1, bits=16), spec("x", "F32", 600, 1, bits=32)])
def test_parts_that_agree_are_accepted_whatever_type_stores_the_codes(codes: TensorSpec, nested: bool) -> None:
    described = parse_state(json.dumps(NESTED if nested else PLAIN).encode(), where="x")
    require_parts("x", codes, parts(nested=nested), described, "x")


DISAGREEING = {
    "short-codes": (spec("x", "U8", 2399, 1), parts()),
    "long-codes": (spec("x", "U8", 2401, 1), parts()),
    "turned-codes": (spec("x", "U8", 1, 2400), parts()),
    "odd-storage": (spec("x", "I64", 300, 1, bits=64), parts()),
    "no-scales": (CODES, parts(absmax=None)),
    "few-scales": (CODES, parts(absmax=spec("x.absmax", "F32", 74, bits=32))),
    "half-scales": (CODES, parts(absmax=spec("x.absmax", "F16", 75, bits=16))),
    "byte-scales": (CODES, parts(absmax=spec("x.absmax", "U8", 75))),
    "no-levels": (CODES, parts(quant_map=None)),
    "many-levels": (CODES, parts(quant_map=spec("x.quant_map", "F32", 256, bits=32))),
    "nested-without-state": (CODES, parts(nested=True)),
    "stranger": (CODES, parts(SCB=spec("x.SCB", "F32", 96, bits=32))),
}


@pytest.mark.parametrize("name", DISAGREEING)
def test_parts_that_disagree_with_the_state_are_refused(name: str) -> None:
    codes, beside = DISAGREEING[name]
    with pytest.raises(MalformedFileError) as caught:
        require_parts("x", codes, beside, parse_state(state(), where="x"), "model.safetensors")
    assert caught.value.code == "nf4-state"


@pytest.mark.parametrize(
    ("part", "wrong"),
    [
        ("absmax", spec("x.absmax", "F32", 75, bits=32)),
        ("nested_absmax", spec("x.nested_absmax", "F32", 2, bits=32)),
        ("nested_quant_map", spec("x.nested_quant_map", "F32", 16, bits=32)),
        ("nested_absmax", None),
    ],
)
def test_nested_parts_that_disagree_are_refused(part: str, wrong: TensorSpec | None) -> None:
    described = parse_state(json.dumps(NESTED).encode(), where="x")
    with pytest.raises(MalformedFileError):
        require_parts("x", CODES, parts(nested=True, **{part: wrong}), described, "x")


def test_levels_are_those_of_nf4() -> None:
    require_levels(struct.pack("<16f", *LEVELS), where="x")
    with pytest.raises(MalformedFileError):
        require_levels(struct.pack("<16f", *LEVELS[:-1], 0.99), where="x")
    with pytest.raises(MalformedFileError):
        require_levels(struct.pack("<16f", *LEVELS[:-1], float("nan")), where="x")
    with pytest.raises(MalformedFileError):
        require_finite(struct.pack("<3f", 0, 1, float("inf")), where="x")


def test_packed_weights_are_known_by_their_state() -> None:
    assert packed_names(["a.weight", f"a.weight{MARK}", "b.weight.quant_state.bitsandbytes__fp4"]) == ("a.weight",)


@pytest.mark.parametrize(
    ("settings", "method", "packing"),
    [
        (None, None, None),
        ({}, None, None),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}, "bitsandbytes",
         "bitsandbytes NF4"),
        ({"_load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}, "bitsandbytes", "bitsandbytes NF4"),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "bitsandbytes", "bitsandbytes FP4"),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True, "bnb_4bit_quant_type": "nf4"}, "bitsandbytes",
         "bitsandbytes 8-bit"),
        ({"quant_method": "bitsandbytes", "load_in_4bit": False, "load_in_8bit": False}, "bitsandbytes",
         "bitsandbytes"),
        ({"quant_method": "gptq", "bits": 4}, "gptq", "gptq 4-bit"),
        ({"quant_method": "compressed-tensors", "bits": True}, "compressed-tensors", "compressed-tensors"),
        ({"quant_method": "FP8"}, "fp8", "fp8"),
        ({"quant_method": "\x1b[31m"}, "\x1b[31m", "31m"),
        ({"weights": "int4"}, "unknown", "unknown"),
    ],
)  # fmt: skip
def test_a_packing_is_named(settings: object, method: str | None, packing: str | None) -> None:
    for config in ({"quantization_config": settings}, {"text_config": {"quantization_config": settings}}):
        assert method_of(ModelConfig(config)) == method
        assert packing_of(ModelConfig(config)) == packing


def test_modules_that_were_left_out_are_listed() -> None:
    config = ModelConfig({"quantization_config": {"llm_int8_skip_modules": ["lm_head", 3, "", None]}})
    assert modules_left_out(config) == ("lm_head",)
    assert modules_left_out(ModelConfig({"quantization_config": {"llm_int8_skip_modules": "lm_head"}})) == ()
