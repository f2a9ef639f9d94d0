"""An alias moves only through a gate that holds, from exactly where the gate looked; a refusal leaves everything as it was."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from registry.connect import Registry, connect
from registry.domain.gate import Reason
from registry.errors import (
    AliasMovedError,
    InvalidInputError,
    InvalidNameError,
    NotFoundError,
    RegistryError,
    RejectedError,
)
from tests.conftest import lora_tensors
from tests.operations.adapters import tree, write


@pytest.fixture
def scored(lived: Registry, tmp_path: Path) -> Registry:
    """production → a@1 (f1 0.80); a@2 is worse within noise, a@3 beyond it."""
    lived.push(write(tmp_path / "four", lora_tensors(value=0.75)), name="a")
    for reference, score in {"a@1": "f1=0.80±0.01", "a@2": "f1=0.79±0.01", "a@3": "f1=0.70±0.01"}.items():
        lived.add_evaluations(reference, score)
    return lived


def test_a_gate_that_holds_moves_the_alias_and_the_audit_keeps_what_held(scored: Registry) -> None:
    done = scored.promote("a@2", "production", minimum=["f1>=0.75"], no_regression=["f1"])
    assert (done.before, done.after, done.moved, done.outcome.against) == (1, 2, True, "local/a@1")
    assert [check.reason for check in done.outcome.checks] == [Reason.MET, Reason.WITHIN_NOISE]
    assert scored.aliases("a")["production"] == 2
    facts = scored.log("a", limit=1)[0].body
    assert {key: facts[key] for key in ("alias", "before", "after")} == {"alias": "production", "before": 1, "after": 2}
    assert facts["gate"] == done.outcome.facts()
    assert facts["gate"]["against"] == "local/a@1"  # type: ignore[index]
    assert set(facts["gate"]["conditions"]) == {"f1>=0.75", "no-regression f1"}  # type: ignore[index]
    before = (scored.aliases("a"), scored.log(), scored.alias_history("a", "production"))
    scored.rebuild()
    assert (scored.aliases("a"), scored.log(), scored.alias_history("a", "production")) == before
    assert scored.doctor(deep=True).problems == ()


def test_a_closed_gate_names_what_closed_it_and_nothing_moves(scored: Registry, tmp_path: Path) -> None:
    before = tree(tmp_path / "registry" / "journal"), scored.log(), scored.aliases("a")
    closed = scored.promote("a@3", "production", minimum=["f1>=0.5", "f1>=0.9"], no_regression=["f1", "bleu"])
    error = closed.outcome.failure
    assert error is not None
    assert (closed.before, closed.after, closed.moved) == (1, 1, False)
    assert (error.code, error.exit_code, error.http_status) == ("gate-closed", 6, 422)
    for named in ("local/a@3", "f1>=0.9", "no-regression f1", "there is no score bleu"):
        assert named in error.message
    assert "f1>=0.5" not in error.message
    assert [check.holds for check in error.outcome.checks] == [True, False, False, False]
    assert (tree(tmp_path / "registry" / "journal"), scored.log(), scored.aliases("a")) == before


@pytest.mark.parametrize(
    ("reference", "alias", "options", "error"),
    [
        ("a@2", "production", {"expected": 2}, AliasMovedError),
        ("a@2", "production", {"expected": None}, AliasMovedError),
        ("a@9", "production", {}, NotFoundError),
        ("nobody", "production", {}, NotFoundError),
        ("a@2", "production", {"against": "a@9"}, NotFoundError),
        ("a@2", "v2", {}, InvalidNameError),
        ("a@2", "production", {"no_regression": ()}, InvalidInputError),
    ],
)
def test_what_is_refused_changes_nothing(
    scored: Registry, reference: str, alias: str, options: dict[str, object], error: type[RegistryError]
) -> None:
    before = scored.log(), scored.aliases("a")
    with pytest.raises(error):
        scored.promote(reference, alias, **{"no_regression": ["f1"], **options})  # type: ignore[arg-type]
    assert (scored.log(), scored.aliases("a")) == before


def test_a_yanked_version_is_not_promoted(scored: Registry) -> None:
    scored.yank("a@2", "trained on the wrong split")
    before = scored.log()
    with pytest.raises(RejectedError) as caught:
        scored.promote("a@2", "production", no_regression=["f1"])
    assert caught.value.code == "version-yanked"
    assert "trained on the wrong split" in caught.value.message
    assert scored.log() == before
    scored.unyank("a@2")
    assert scored.promote("a@2", "production", no_regression=["f1"]).moved


def test_what_production_runs_may_be_yanked_and_is_still_what_counts(scored: Registry) -> None:
    scored.yank("a@1", "old")
    assert not scored.promote("a@3", "production", no_regression=["f1"]).outcome.holds


def test_a_first_promotion_needs_its_scores_and_nothing_to_compare_with(scored: Registry) -> None:
    assert not scored.promote("a@3", "canary", no_regression=["bleu"]).outcome.holds
    assert "canary" not in scored.aliases("a")
    done = scored.promote("a@3", "canary", no_regression=["f1"], expected=None)
    assert (done.before, done.after, done.outcome.against) == (None, 3, None)


def test_another_alias_may_be_what_it_is_held_against(scored: Registry) -> None:
    assert not scored.promote("a@3", "canary", against="production", no_regression=["f1"]).outcome.holds
    assert scored.promote("a@2", "canary", against="production", no_regression=["f1"]).after == 2


def test_where_the_alias_points_already_nothing_is_written(scored: Registry) -> None:
    before = scored.log()
    done = scored.promote("a@1", "PRODUCTION", no_regression=["f1"])
    assert (done.before, done.after, done.moved) == (1, 1, False)
    assert scored.log() == before


def test_a_registry_that_is_not_there_is_not_made(store: Registry, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        store.promote("a", "production", minimum=["acc>=0"])
    assert not (tmp_path / "registry").exists()


def test_the_later_of_two_promotions_is_held_against_the_earlier(scored: Registry, tmp_path: Path) -> None:
    """Both were better than what production was; of the second nobody asks that any more."""
    other = connect(tmp_path / "registry")
    for reference, score in {"a@2": "f1=0.90", "a@3": "f1=0.85"}.items():
        scored.add_evaluations(reference, score)
    assert other.gate("a@3", against="production", no_regression=["f1"]).holds
    assert scored.promote("a@2", "production", no_regression=["f1"]).moved
    closed = other.promote("a@3", "production", no_regression=["f1"]).outcome
    assert (closed.holds, closed.against) == (False, "local/a@2")
    assert other.aliases("a")["production"] == 2


@pytest.mark.parametrize("seed", range(3))
def test_of_many_at_once_the_best_stays_and_every_move_was_an_improvement(
    scored: Registry, tmp_path: Path, seed: int
) -> None:
    scores = {number: number / 10 for number in range(4, 10)}
    for number, score in scores.items():
        scored.push(write(tmp_path / f"many-{number}", lora_tensors(value=float(number))), name="a")
        scored.add_evaluations(f"a@{number}", f"em={score}")
    order = random.Random(seed).sample(sorted(scores), len(scores))
    barrier = Barrier(len(order))

    def promoted(number: int) -> bool:
        mine = connect(tmp_path / "registry", actor=f"thread-{number}")
        barrier.wait()
        done = mine.promote(f"a@{number}", "best", no_regression=["em"])
        if not done.outcome.holds:
            assert done.outcome.against is not None
            assert int(done.outcome.against.rpartition("@")[2]) > number
        return done.moved

    with ThreadPoolExecutor(len(order)) as pool:
        moved = {number for number, done in zip(order, pool.map(promoted, order), strict=True) if done}
    history = scored.alias_history("a", "best")
    assert [move.after for move in history] == sorted(moved)
    assert [move.before for move in history] == [None, *sorted(moved)[:-1]]
    assert scored.aliases("a")["best"] == max(scores)
    assert scored.doctor().problems == ()
