"""What nobody can mean by a combination is said before anything is read, whoever asks; and nothing is written."""

from __future__ import annotations

from collections.abc import Callable
from math import inf, nan
from pathlib import Path
from typing import Any

import pytest

from registry.connect import Registry
from registry.errors import InvalidInputError, InvalidValueError
from registry.operations.extract import ExtractRequest
from registry.operations.search import Search
from registry.plans.combining import Blend, Method
from registry.plans.merge_plan import MergeOptions
from tests.conftest import WriteAdapter

ODD = [
    ({"method": "banana"}, "'banana' is not a method: expected one of linear, ties, "),
    ({"method": "ties", "density": 0.0}, "'0.0' is not a density: expected a share above 0, at most 1"),
    ({"density": nan}, "'nan' is not a density"),
    ({"density": 1.5}, "'1.5' is not a density"),
    ({"rank": 0}, "'0' is not a rank: expected a whole number from 1"),
    ({"rank": -3}, "'-3' is not a rank"),
    ({"energy": 0.0}, "'0.0' is not an energy: expected a share above 0, at most 1"),
    ({"energy": nan}, "'nan' is not an energy"),
    ({"energy": inf}, "'inf' is not an energy"),
    ({"max_bytes": 0}, "'0' is not a number of bytes: expected a whole number from 1"),
    ({"dtype": "banana"}, "'banana' is not a type of weights: expected one of F64, F32, F16, BF16"),
    ({"dtype": "I32"}, "'I32' is not a type of weights"),
]


def unscored(_directory: Path) -> float:
    raise AssertionError("nothing is tried")


@pytest.mark.parametrize(("asked", "said"), ODD)
def test_a_value_that_cannot_be_is_refused(
    asked: dict[str, Any], said: str, store: Registry, write_adapter: WriteAdapter, tmp_path: Path
) -> None:
    one = write_adapter("one")
    before = sorted(tmp_path.rglob("*"))
    wanted = Search(unscored, "it", tmp_path / "record")
    for ask in (
        lambda: store.combine([one], tmp_path / "out", **asked),
        lambda: store.search_weights([one], tmp_path / "out", wanted=wanted, **asked),
    ):
        with pytest.raises(InvalidValueError) as caught:
            ask()
        assert caught.value.message.startswith(said)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_share_of_the_energy_and_a_budget_are_not_asked_together(
    store: Registry, write_adapter: WriteAdapter, tmp_path: Path
) -> None:
    """The budget could undercut the share."""
    one = write_adapter("one")
    with pytest.raises(InvalidInputError) as caught:
        store.combine([one], tmp_path / "out", energy=0.99, max_bytes=10_000)
    assert (caught.value.code, caught.value.hint) == ("energy-and-bytes", "give one of --energy and --max-bytes")
    assert not (tmp_path / "out").exists()


def test_a_result_that_would_go_nowhere_is_not_made(store: Registry, write_adapter: WriteAdapter, tmp_path: Path) -> None:
    one = write_adapter("one")
    before = sorted(tmp_path.rglob("*"))
    for ask in (
        lambda: store.combine([one]),
        lambda: store.search_weights([one], wanted=Search(unscored, "it", tmp_path / "record")),
    ):
        with pytest.raises(InvalidInputError) as caught:
            ask()
        assert (caught.value.code, caught.value.hint) == ("no-place", "give a directory, a name, or both")
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    "ask",
    [
        lambda: Blend("banana"),
        lambda: MergeOptions(dtype="banana"),
        lambda: ExtractRequest("base", "tuned", rank=0),
        lambda: ExtractRequest("base", "tuned", rank=1, energy=nan),
        lambda: ExtractRequest("base", "tuned", rank=1, dtype="banana"),
    ],
)
def test_neither_can_a_merge_or_an_extraction_mean_it(ask: Callable[[], object]) -> None:
    with pytest.raises(InvalidValueError):
        ask()


def test_task_arithmetic_is_another_word_for_the_sum(store: Registry, write_adapter: WriteAdapter, tmp_path: Path) -> None:
    one = write_adapter("one")
    assert Blend("task_arithmetic") == Blend("linear")
    store.combine([(one, 0.7)], tmp_path / "sum", name="sum")
    store.combine([(one, 0.7)], tmp_path / "other", name="other", method="task_arithmetic")
    assert store.show("other").manifest.digest == store.show("sum").manifest.digest


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("svd", "for svd write linear with a rank (--rank)"),
        ("cat", "for cat write linear, which is exact for any ranks"),
        ("dare_ties_svd", "for dare_ties_svd write dare_ties with a rank (--rank)"),
        ("banana", None),
    ],
)
def test_for_a_word_of_peft_the_own_one_is_said(word: str, hint: str | None) -> None:
    with pytest.raises(InvalidValueError) as caught:
        Blend(word)
    assert caught.value.hint == hint


@pytest.mark.parametrize(
    ("method", "is_exact"),
    [
        (Method(), True),
        (Method(Blend(seed=3, density=0.2)), True),
        (Method(Blend("ties")), False),
        (Method(rank=1), False),
        (Method(energy=1.0), False),
        (Method(max_bytes=1), False),
    ],
)
def test_the_sum_is_exact_until_something_is_left_away(method: Method, is_exact: bool) -> None:
    assert method.is_exact == is_exact
