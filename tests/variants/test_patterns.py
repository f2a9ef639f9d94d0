"""Patterns mean what Python's ``re`` says they mean, and cost little whatever they are."""

from __future__ import annotations

import re
import time
import warnings
from collections.abc import Sequence

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from registry.operations.bounded_regex import slow_matcher
from registry.variants.patterns import MAX_LINEAR, MAX_PATTERN, Patterns

NAMES = [f"model.layers.{i}.self_attn.{name}" for i in (0, 1, 10, 11) for name in ("q_proj", "k_proj", "o_proj")]
HOSTILE = [r"(a+)+$", r"(.*)*x", r"(([a-z._0-9])+)+!", r"(a|a?)+b", r"(?:a*)*c", r"(x+x+)+y"]
HOSTILE_AND_SLOW = [r"(a+)+(?=$)b", r"(a*)*\1b", r"(?!b)(a|aa)+$b", r"((a+)+)(?<!a)"]


def in_this_process(questions: Sequence[tuple[str, str]]) -> Sequence[bool | None]:
    """A slow matcher for harmless patterns."""
    return [re.match(expression, name) is not None for expression, name in questions]


def by_peft(keys: Sequence[str], name: str) -> str | None:
    """``peft.utils.other.get_pattern_key``, written again."""
    return next((key for key in keys if re.match(rf"(.*\.)?({key})$", name)), None)


# The alphabet of real patterns, with the pieces that RE2 reads differently or not at all.
atoms = st.sampled_from(
    [
        "a", "b", "q", "_", "0", "1", "9", ".", r"\.", r"\d", r"\w", r"\s", r"\D", r"\W", r"\b", r"\B", "^", "$", r"\Z",
        r"\A", "[ab]", "[^a]", "[0-9]", r"[\w.]", "[[:alpha:]]", "[a-b.]", "(a)", "(?:a|b)", "(a|)", "(?P<x>a)", r"\1",
        r"\01", "(?=a)", "(?!a)", "(?<=a)", "(?<!b)", "(?i:A)", "(?>a)", "a{2}", "a{,2}", "a{1,}", "a{01}", "{", "}",
        "|", r"\x61", r"\u0061", "(?#c)", "é", r"[é-ü]", "q_proj",
    ]
)  # fmt: skip
patterns = st.lists(
    st.builds(str.__add__, atoms, st.sampled_from(["", "", "", "*", "+", "?", "{1,2}", "*?"])), max_size=6
)
names = st.one_of(
    st.lists(st.text("abq_019.A", max_size=6), max_size=3).map(".".join),
    st.text("aé. \n\x1cB", max_size=6),
    st.sampled_from(NAMES),
)


@given(keys=st.lists(patterns.map("".join), min_size=1, max_size=3, unique=True), name=names)
def test_first_key_is_pefts(keys: list[str], name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        valid = [key for key in keys if _compiles(rf"(.*\.)?({key})$")]
        assume(valid)
        expected = by_peft(valid, name)
        assert Patterns(slow=in_this_process).first_key(valid, name) == expected
        without = Patterns()
        found = without.matching_keys(valid, name)
    assert found == [key for key in valid if key not in without.unresolved and by_peft([key], name) is not None]


@given(pattern=patterns.map("".join), flags=st.sampled_from(["", "", "(?i)", "(?s)", "(?x)", "(?a)"]), name=names)
def test_fullmatch_is_pythons(pattern: str, flags: str, name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pattern = flags + pattern
        assume(_compiles(pattern))
        expected = re.fullmatch(pattern, name) is not None
        assert Patterns(slow=in_this_process).fullmatch(pattern, name) == expected
        without = Patterns()
        assert without.fullmatch(pattern, name) == expected or pattern in without.unresolved


@given(
    keys=st.lists(
        st.lists(st.sampled_from(["a", "b", ".", r"\.", "1"]), min_size=1, max_size=5).map("".join),
        max_size=5,
        unique=True,
    ),
    name=st.text("ab1.", max_size=8),
)
def test_plain_keys_are_found_without_an_engine(keys: list[str], name: str) -> None:
    ours = Patterns()
    assert ours.matching_keys(keys, name) == [key for key in keys if by_peft([key], name) is not None]
    assert not ours.unresolved


@pytest.mark.parametrize(
    "pattern",
    [
        r"layers\.(?!1\.)\d+\..*",
        r".*(?<=q)_proj",
        r"(?i).*Q_PROJ(?=$)",
        r"(.)\.?.*\1",
        r"[a-z._\d]++",
        r"(?x) .* q_proj  # all q",
    ],
)
def test_what_re2_cannot_say_is_answered_by_another_process(pattern: str) -> None:
    ours = Patterns(slow=slow_matcher(seconds=10))
    ours.expect(NAMES)
    assert [ours.fullmatch(pattern, name) for name in NAMES] == [
        re.fullmatch(pattern, name) is not None for name in NAMES
    ]
    assert not ours.unresolved


def test_one_process_answers_for_all_expected_names() -> None:
    calls: list[int] = []

    def counting(questions: Sequence[tuple[str, str]]) -> Sequence[bool | None]:
        calls.append(len(questions))
        return in_this_process(questions)

    ours = Patterns(slow=counting)
    ours.expect(NAMES)
    keys = (r"(?!o)\w+_proj", "q_proj", r"(?=q)q_proj")
    assert [ours.first_key(keys, name) for name in NAMES] == [by_peft(keys, name) for name in NAMES]
    assert calls == [2 * len(NAMES)]


def test_without_a_slow_matcher_such_a_pattern_is_unresolved_and_matches_nothing() -> None:
    ours = Patterns()
    assert ours.first_key(["(?=q)q_proj", "k_proj"], "a.k_proj") == "k_proj"
    assert ours.first_key(["(?=q)q_proj", "k_proj"], "a.q_proj") is None
    assert ours.unresolved.keys() == {"(?=q)q_proj"}


@pytest.mark.parametrize(
    "pattern", ["(", "a(?i)", "*", "[", r"\q", "a" * (MAX_PATTERN + 1) + "[", "(" * 5_000 + ")" * 5_000]
)
def test_what_is_no_expression_is_unresolved(pattern: str) -> None:
    ours = Patterns(slow=slow_matcher())
    assert ours.first_key([pattern, "q_proj"], "q_proj") == "q_proj"
    assert not ours.fullmatch("a(", "a")
    assert pattern in ours.unresolved


@pytest.mark.parametrize("pattern", HOSTILE)
def test_hostile_patterns_are_linear(pattern: str) -> None:
    ours = Patterns()
    started = time.monotonic()
    for length in range(20, 320, 10):
        assert not ours.fullmatch(pattern, "a" * length + "?")
        assert ours.first_key([pattern], "a" * length + "?") is None
    assert time.monotonic() - started < 10
    assert not ours.unresolved


def test_hostile_patterns_that_need_python_cost_seconds_in_all_and_leave_the_others_alone() -> None:
    ours = Patterns(slow=slow_matcher(seconds=2))
    names = ["a" * length for length in range(30, 130)] + ["x.q_proj"]
    ours.expect(names)
    keys = ("(?=q)q_proj", *HOSTILE_AND_SLOW)
    started = time.monotonic()
    assert [ours.first_key(keys, name) for name in names] == [None] * 100 + ["(?=q)q_proj"]
    assert time.monotonic() - started < 20
    assert set(HOSTILE_AND_SLOW) >= ours.unresolved.keys() != set()


def test_a_pattern_that_timed_out_is_not_asked_about_again() -> None:
    asked: list[tuple[str, str]] = []

    def never(questions: Sequence[tuple[str, str]]) -> Sequence[bool | None]:
        asked.extend(questions)
        return [None for _ in questions]

    ours = Patterns(slow=never)
    for name in NAMES:
        assert not ours.fullmatch("(?=m).*", name)
        assert ours.first_key(["(?=m).*"], name) is None
    assert len(asked) == 1
    assert ours.unresolved.keys() == {"(?=m).*"}


def test_a_large_character_set_is_not_compiled_here() -> None:
    r"""``(?i:[\0-\uffff])`` takes ``re`` 10 ms to compile, and a config has room for 50,000 of them."""
    ours = Patterns()
    started = time.monotonic()
    for i in range(50):
        ours.first_key([r"(?i:[\0-\uffff])" * 500 + str(i)], "a")
    assert time.monotonic() - started < 10
    assert len(ours.unresolved) == 50


@pytest.mark.parametrize("key", [r"layers\.({i}|x{i})\..*_proj", "model.layers.{i}.self_attn.q_proj", r".*\.{i}\..*"])
def test_a_thousand_patterns_and_a_thousand_names(key: str) -> None:
    keys = tuple(key.format(i=i) for i in range(1000))
    names = [f"model.layers.{i}.self_attn.q_proj" for i in range(1000)]
    ours = Patterns()
    started = time.process_time()
    found = [ours.first_key(keys, name) for name in names]
    assert time.process_time() - started < 10
    assert found == list(keys)


def test_there_is_a_limit_to_the_number_of_patterns() -> None:
    keys = [f"[a]{i}" for i in range(MAX_LINEAR + 1)]
    ours = Patterns()
    assert ours.first_key(keys, "a7") == "[a]7"
    assert ours.unresolved.keys() == {keys[-1]}


@pytest.mark.parametrize("seconds", [0.0, 0.4])
def test_the_child_is_given_no_more_than_its_time(seconds: float) -> None:
    ask = slow_matcher(seconds)
    started = time.monotonic()
    for _ in range(5):
        assert ask([(r"(a|aa)+$(?<=b)", "a" * 60)]) == [None]
    assert time.monotonic() - started < seconds + 20


def test_the_child_survives_what_is_no_expression() -> None:
    assert slow_matcher(10)([("(", "a"), ("(?=a)a", "a"), ("(?=a)a", "b"), ("é", "é")]) == [None, True, False, True]


def _compiles(pattern: str) -> bool:
    try:
        re.compile(pattern)
    except (re.error, OverflowError):
        return False
    return True
