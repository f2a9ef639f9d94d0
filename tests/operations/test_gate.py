"""When a gate holds. The laws: nothing missing passes, order changes nothing, a better score closes nothing, and noise is
what the standard errors explain and no more."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from registry.connect import Registry
from registry.domain.evaluation import Evaluation
from registry.domain.gate import Gate, NoRegression, Outcome, Reason
from registry.domain.query import MetricCondition, MetricName
from registry.errors import InvalidInputError, InvalidValueError, NotFoundError, UnsuitableDirectoryError
from registry.operations.compare import difference
from registry.operations.evaluate import Measured
from registry.operations.gate import asked
from registry.operations.hold import hold

ACC = MetricName("acc")
NUMBERS = st.floats(-1e6, 1e6)
#: Two tasks, two filters, two metrics: few enough that both sides often measured the same.
SCORES = st.builds(
    Evaluation,
    st.sampled_from(["acc", "loss", "odd"]),
    st.integers(0, 10).map(lambda tenths: tenths / 10),
    st.sampled_from(["arc", "boolq"]),
    stderr=st.none() | st.floats(0, 0.2),
    higher_is_better=st.none(),
    filter=st.sampled_from([None, "strict"]),
)
DISTINCT = st.lists(SCORES, max_size=6, unique_by=lambda each: each.key)
SOME = st.lists(SCORES, min_size=1, max_size=6, unique_by=lambda each: each.key)
CONDITIONS = st.builds(
    Gate,
    minimums=st.lists(st.sampled_from(["acc>=0.5", "arc/acc>0.2", "loss<0.7"]).map(MetricCondition.parse)).map(tuple),
    no_regressions=st.lists(st.sampled_from(["acc", "acc:0.2", "loss:0.1", "odd", "arc/acc"]).map(NoRegression.parse)).map(
        tuple
    ),
    against=st.just("production"),
    noise=st.sampled_from([0.0, 1.0, 1.96]),
)


def verdict(gate: Gate, candidate: list[Evaluation], baseline: list[Evaluation] | None = None) -> bool:
    return Outcome("local/a@2", "local/a@1", hold(gate, candidate, baseline)).holds


def reason(one: Evaluation, before: Evaluation, *, tolerance: float = 0, noise: float = 1) -> Reason:
    gate = Gate(no_regressions=(NoRegression(MetricName(one.metric), tolerance),), against="production", noise=noise)
    (check,) = hold(gate, [one], [before])
    return check.reason


@given(CONDITIONS, DISTINCT, DISTINCT, st.randoms())
def test_the_order_of_scores_and_conditions_changes_nothing(gate: Gate, now: list, before: list, random) -> None:  # type: ignore[no-untyped-def,type-arg]
    expected = set(hold(gate, now, before))
    for each in (now, before):
        random.shuffle(each)
    turned = replace(gate, minimums=gate.minimums[::-1], no_regressions=gate.no_regressions[::-1])
    assert set(hold(turned, now, before)) == expected


@given(CONDITIONS, SOME, DISTINCT, st.data())
def test_a_better_score_closes_nothing(
    gate: Gate, now: list[Evaluation], before: list[Evaluation], data: st.DataObject
) -> None:
    place = data.draw(st.sampled_from([place for place, each in enumerate(now) if each.metric != "odd"] or [None]))
    if place is None:
        return
    step = data.draw(st.floats(0, 5)) * (1 if now[place].metric == "acc" else -1)
    better = [*now[:place], replace(now[place], value=now[place].value + step), *now[place + 1 :]]
    for old, new in zip(hold(gate, now, before), hold(gate, better, before), strict=True):
        assert new.holds or not old.holds, (old, new)


@given(CONDITIONS, SOME, DISTINCT, st.data())
def test_a_score_that_is_taken_away_makes_nothing_hold(
    gate: Gate, now: list[Evaluation], before: list[Evaluation], data: st.DataObject
) -> None:
    gone = data.draw(st.sampled_from(now))
    left = hold(gate, [each for each in now if each is not gone], before)
    assert all(check.score is not None for check in left if check.holds)
    kept = {(check.condition, check.score): check for check in hold(gate, now, before)}
    assert all(kept[check.condition, check.score] == check for check in left if check.score is not None)


@given(CONDITIONS, DISTINCT)
def test_nothing_is_worse_than_itself(gate: Gate, now: list[Evaluation]) -> None:
    for check in hold(replace(gate, minimums=()), now, now):
        assert check.reason is (Reason.MISSING if check.score is None else Reason.NOT_WORSE)


@given(NUMBERS, NUMBERS, st.floats(0, 1e5), st.floats(0, 1e5), st.sampled_from([0.5, 1.0, 1.96]))
def test_noise_is_what_the_standard_errors_explain(
    now: float, before: float, one: float, other: float, noise: float
) -> None:
    """The oracle: z = Δ/√(se₁²+se₂²)."""
    error = math.sqrt(one**2 + other**2)
    assume(error > 1e-6)
    z = (before - now) / error
    assume(abs(z - noise) > 1e-9)
    found = reason(Evaluation("acc", now, stderr=one), Evaluation("acc", before, stderr=other), noise=noise)
    assert found is (Reason.NOT_WORSE if now >= before else Reason.WITHIN_NOISE if z < noise else Reason.REGRESSION)


@given(NUMBERS, st.floats(0, 1e5), NUMBERS, st.floats(0, 1e5))
def test_what_a_comparison_marks_is_what_a_gate_does_not_excuse(
    first: float, error: float, value: float, stderr: float
) -> None:
    one = Evaluation("acc", first, stderr=error, higher_is_better=True)
    other = replace(one, value=value, stderr=stderr)
    found = difference(one, other)
    assert found is not None
    closed = bool(found.exceeds_stderr) and found.better is False
    assert (reason(other, one) is Reason.REGRESSION) == closed


@pytest.mark.parametrize(
    ("before", "now", "tolerance", "expected"),
    [
        (0.81, 0.80, 0.01, Reason.WITHIN_TOLERANCE),  # as floats the difference is 0.010000000000000009
        (0.3, 0.2, 0.1, Reason.WITHIN_TOLERANCE),
        (0.81, 0.7999, 0.01, Reason.REGRESSION),
        (0.81, 0.81, 0, Reason.NOT_WORSE),
        (0.81, 0.82, 0, Reason.NOT_WORSE),
        (0.81, 0.8099999, 0, Reason.REGRESSION),
    ],
)
def test_a_tolerance_is_exact_about_numbers_as_written(
    before: float, now: float, tolerance: float, expected: Reason
) -> None:
    assert reason(Evaluation("acc", now), Evaluation("acc", before), tolerance=tolerance) is expected


@pytest.mark.parametrize(
    ("metric", "directions", "up", "down"),
    [
        ("acc", (None, None), True, False),
        ("loss", (None, None), False, True),
        ("acc", (False, None), False, True),
        ("odd", (None, True), True, False),
        ("odd", (None, None), False, False),
        ("acc", (True, False), False, False),
    ],
)
def test_worse_is_against_the_direction_and_any_change_where_nobody_knows_it(
    metric: str, directions: tuple[bool | None, bool | None], up: bool, down: bool
) -> None:
    one, before = (Evaluation(metric, 0.5, higher_is_better=each) for each in directions)
    assert reason(replace(one, value=0.6), before).holds is up
    assert reason(replace(one, value=0.4), before).holds is down
    assert reason(one, before) is Reason.NOT_WORSE
    assert reason(replace(one, value=0.6), before, tolerance=0.2) in (Reason.NOT_WORSE, Reason.WITHIN_TOLERANCE)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_a_number_closes_on_either_side(value: float) -> None:
    good, bad = Evaluation("acc", 0.5, stderr=0.1), Evaluation("acc", value, stderr=0.1)
    assert reason(bad, good) is reason(good, bad) is reason(bad, bad) is Reason.NOT_A_NUMBER
    gate = Gate(minimums=(MetricCondition(ACC, ">=", -1.0), MetricCondition(ACC, "<=", 1.0)))
    checks = hold(gate, [bad], None)
    assert [check.reason for check in checks] == [Reason.NOT_A_NUMBER] * 2
    json.dumps([check.document() for check in checks], allow_nan=False)


@pytest.mark.parametrize("stderrs", [(None, 1.0), (1.0, None), (None, None), (math.inf, 1.0), (math.nan, 1.0)])
def test_noise_that_is_unknown_excuses_nothing_and_that_is_said(stderrs: tuple[float | None, float | None]) -> None:
    one, before = Evaluation("acc", 0.5, stderr=stderrs[0]), Evaluation("acc", 0.6, stderr=stderrs[1])
    (check,) = hold(Gate(no_regressions=(NoRegression(ACC),), against="x"), [one], [before])
    assert (check.reason, check.noise) == (Reason.REGRESSION, None)
    assert "standard error is unknown" in check.sentence


def test_every_score_of_a_metric_must_hold_and_one_task_can_be_named() -> None:
    scores = [Evaluation("acc", 0.9, "arc"), Evaluation("acc", 0.1, "boolq"), Evaluation("acc", 0.9, "arc", filter="s")]
    assert not verdict(Gate((MetricCondition(ACC, ">=", 0.8),)), scores)
    assert verdict(Gate((MetricCondition(MetricName("acc", "arc"), ">=", 0.8),)), scores)
    (missing,) = hold(Gate((MetricCondition(MetricName("f1"), ">=", 0),)), scores, None)
    assert (missing.reason, missing.sentence) == (Reason.MISSING, "there is no score f1; there is arc/acc, boolq/acc")


def test_the_latest_measurement_counts() -> None:
    gate = Gate((MetricCondition(ACC, ">=", 0.8),))
    assert verdict(gate, [Evaluation("acc", 0.1), Evaluation("acc", 0.9)])
    assert not verdict(gate, [Evaluation("acc", 0.9), Evaluation("acc", 0.1)])


def test_what_the_baseline_has_and_the_candidate_lacks_closes() -> None:
    gate = Gate(no_regressions=(NoRegression(ACC),), against="production")
    arc, boolq = Evaluation("acc", 0.5, "arc"), Evaluation("acc", 0.5, "boolq")
    assert not verdict(gate, [arc], [arc, boolq])
    assert not verdict(gate, [replace(arc, suite="other")], [arc])
    assert verdict(gate, [arc, boolq], [arc])
    assert not verdict(gate, [], [])


def test_a_gate_without_conditions_never_holds() -> None:
    assert not verdict(Gate(), [Evaluation("acc", 1)])


def test_a_first_promotion_has_nothing_to_compare_with_and_a_typo_is_not_found(lived: Registry) -> None:
    lived.add_evaluations("a@2", "acc=0.5")
    lived.remove_alias("a", "production")
    with pytest.raises(NotFoundError, match="no alias production"):  # or a slip of the pen would open the gate
        lived.gate("a@2", against="production", no_regression=["acc"])
    outcome = lived.promote("a@2", "production", no_regression=["acc"]).outcome
    assert (outcome.holds, outcome.against) == (True, None)
    assert {check.reason for check in outcome.checks} == {Reason.NO_BASELINE}
    assert "production points at nothing yet" in outcome.checks[0].sentence
    lived.remove_alias("a", "production")
    with pytest.raises(NotFoundError, match="no alias staging"):
        lived.promote("a@2", "production", against="staging", no_regression=["acc"])
    for against in ("a@9", "a:production", "nobody:production", "other/a", "sha256:" + "0" * 12):
        with pytest.raises(NotFoundError):
            lived.gate("a@2", against=against, no_regression=["acc"])
    with pytest.raises(InvalidValueError):
        lived.gate("a@2", against="v2", no_regression=["acc"])


def test_against_is_an_alias_in_any_case_or_a_reference(lived: Registry) -> None:
    lived.add_evaluations("a@1", Measured((Evaluation("acc", 0.4, "arc", "lm-eval", filter="none"),)))
    digest = lived.show("a@1").version.digest
    for against in ("production", "PRODUCTION", "a:production", "a@1", "local/a@1", str(digest)):
        assert lived.gate("a@2", against=against, minimum=["acc>=0.5"]).against == "local/a@1", against
    assert lived.gate("a@2", against="b@1", minimum=["acc>=0.5"]).against == "local/b@1"


def test_a_gate_that_asks_nothing_is_refused(lived: Registry) -> None:
    for options in ({}, {"against": "production"}, {"no_regression": ["acc"]}):
        with pytest.raises(InvalidInputError) as caught:
            lived.gate("a@2", **options)  # type: ignore[arg-type]
        assert caught.value.code == "empty-gate"


def test_what_is_given_adds_to_the_file_and_overrules_what_is_said_once(tmp_path: Path) -> None:
    path = tmp_path / "gate.toml"
    path.write_text('against = "production"\nmin = ["acc>=0.8"]\nno-regression = ["acc"]\nnoise = 2')
    assert asked(path) == Gate((MetricCondition(ACC, ">=", 0.8),), (NoRegression(ACC),), "production", 2.0)
    gate = asked(path, against="staging", minimum=["acc>=0.8", "f1>0"], no_regression=["acc:0.1"], noise=0)
    assert (len(gate.minimums), len(gate.no_regressions), gate.against, gate.noise) == (2, 2, "staging", 0)
    with pytest.raises(UnsuitableDirectoryError):
        asked(tmp_path / "nothing.toml")
    with pytest.raises(InvalidInputError):
        asked(noise=math.nan)


def test_the_document_is_json(lived: Registry) -> None:
    document = lived.gate("a@2", against="a@1", minimum=["acc>=0.5", "f1>0"], no_regression=["acc"]).document()
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    assert document["holds"] is False
