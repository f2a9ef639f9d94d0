"""``gate.toml``: what is written is what is asked; what cannot be meant is refused with the key and the entry."""

from __future__ import annotations

import pytest
import tomli_w
from hypothesis import given
from hypothesis import strategies as st

from registry.domain.evaluation import NOISE
from registry.domain.gate import Gate, NoRegression
from registry.domain.query import OPERATORS, MetricCondition, MetricName
from registry.errors import InvalidValueError, MalformedFileError
from registry.formats.gate_file import MAX_BYTES, parse_gate

NAMES = st.builds(MetricName, st.sampled_from(["acc", "pass@1"]), st.none() | st.sampled_from(["arc", "a/b", "x|y:z|5"]))
MINIMUMS = st.builds(MetricCondition, NAMES, st.sampled_from(sorted(OPERATORS)), st.floats(allow_nan=False, allow_infinity=False))
TOLERATED = st.builds(NoRegression, NAMES, st.floats(0, 1e100))


def refused(text: str | bytes) -> str:
    with pytest.raises(MalformedFileError) as caught:
        parse_gate(text if isinstance(text, bytes) else text.encode(), where="gate.toml")
    assert caught.value.code == "malformed-gate"
    assert caught.value.hint
    assert caught.value.message.startswith("gate.toml: ")
    return caught.value.problem


@given(st.lists(MINIMUMS), st.lists(TOLERATED), st.none() | st.sampled_from(["production", "x@3"]), st.floats(0, 10))
def test_what_is_written_is_what_is_asked(
    minimums: list[MetricCondition], tolerated: list[NoRegression], against: str | None, noise: float
) -> None:
    document = {
        "min": [f"{each.name}{each.operator}{each.value!r}" for each in minimums],
        "no-regression": [f"{each.name}:{each.tolerance!r}" for each in tolerated],
        "noise": noise,
        **({"against": against} if against else {}),
    }
    gate = parse_gate(tomli_w.dumps(document).encode(), where="gate.toml")
    assert gate == Gate(tuple(minimums), tuple(tolerated), against, noise)


def test_every_key_may_be_left_away() -> None:
    assert parse_gate(b"", where="gate.toml") == Gate(noise=NOISE)
    assert parse_gate(b"", where="gate.toml").empty
    assert not parse_gate(b'no-regression = ["acc"]', where="gate.toml").empty


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ('minimum = ["acc>=0.8"]', "'minimum'"),
        ('no_regression = ["acc"]', "'no_regression'"),
        ("[extra]\nmin = []", "'extra'"),
        ('min = "acc>=0.8"', "min is not a list"),
        ('min = ["acc>=0.8", "acc"]', "min, entry 2"),
        ("min = [0.8]", "min, entry 1"),
        ('no-regression = ["acc", "f1", "loss:-1"]', "no-regression, entry 3"),
        ('no-regression = ["acc:nan"]', "no-regression, entry 1"),
        ("no-regression = [[]]", "no-regression, entry 1"),
        ('against = ""', "against"),
        ("against = 3", "against"),
        ("noise = -1", "noise"),
        ("noise = nan", "noise"),
        ("noise = inf", "noise"),
        ("noise = true", "noise"),
        ('noise = "1"', "noise"),
        ("min = [", "not TOML"),
        ("min = []\nmin = []", "not TOML"),
        ("noise = " + "1" * 5000, "not TOML"),
        ("min = " + "[" * 10_000, "not TOML"),
        (b"\xff", "UTF-8"),
        ("#" * (MAX_BYTES + 1), f"{MAX_BYTES:,}"),
    ],
)
def test_what_is_refused_is_named(text: str | bytes, named: str) -> None:
    assert named in refused(text)


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_any_bytes_are_a_gate_or_one_error(data: bytes) -> None:
    try:
        parse_gate(data, where="gate.toml")
    except MalformedFileError as error:
        assert error.code == "malformed-gate"


@pytest.mark.parametrize(
    ("text", "metric", "task", "tolerance"),
    [
        ("acc", "acc", None, 0),
        ("arc/acc:0.01", "acc", "arc", 0.01),
        ("acc: 1e-3", "acc", None, 0.001),
        ("pass@k:k=1&n=16", "pass@k:k=1&n=16", None, 0),
        ("f1:macro:0", "f1:macro", None, 0),
        ("lighteval|arc:challenge|25/acc", "acc", "lighteval|arc:challenge|25", 0),
        ("lighteval|arc:challenge|25/acc:0.5", "acc", "lighteval|arc:challenge|25", 0.5),
    ],
)
def test_a_tolerance_stands_behind_the_last_colon(text: str, metric: str, task: str | None, tolerance: float) -> None:
    assert NoRegression.parse(text) == NoRegression(MetricName(metric, task), tolerance)


@pytest.mark.parametrize("text", ["", ":0.1", "arc/:0.1", "acc:", "acc: ", "acc:0,01", "acc:1%", "acc:inf", "acc:-0.1", "acc:abc"])
def test_no_tolerance(text: str) -> None:
    with pytest.raises(InvalidValueError):
        NoRegression.parse(text)
