"""A gate's conditions held against scores. No catalog: what comes in are evaluations, what goes out are checks.

1. The latest score counts, of each suite, task, metric, filter and split, as in a comparison.
2. A metric named without a task means every score of that name that the candidate has, and that the baseline has: each
   must hold by itself.
3. A drop is measured in the direction in which the metric is better. Where nobody knows it, or the two sides disagree,
   any change counts as a drop.
4. A drop holds within the tolerance, and within the noise: both standard errors known, and combined not exceeded.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from decimal import Decimal
from math import isfinite

from registry.domain.evaluation import Evaluation, combined_stderr, exceeds_noise, usual_direction
from registry.domain.gate import Gate, GateCheck, NoRegression, Reason
from registry.domain.query import OPERATORS, MetricCondition, MetricName

#: Names of other scores that a sentence about a missing one gives.
_NAMED = 6

_UNSURE = "; which way is better is not known, so any change counts: eval add takes --higher- and --lower-is-better"

_Scores = dict[tuple[str, str, str, str, str], Evaluation]


def hold(wanted: Gate, candidate: Sequence[Evaluation], baseline: Sequence[Evaluation] | None) -> tuple[GateCheck, ...]:
    """Every condition against every score it is about. ``baseline=None``: there is no version to compare with."""
    scores = _latest(candidate)
    before = None if baseline is None else _latest(baseline)
    checks: list[GateCheck] = []
    for minimum in wanted.minimums:
        checks += _minimum(minimum, scores)
    for each in wanted.no_regressions:
        checks += _no_regression(each, scores, before, wanted)
    return tuple(checks)


def _latest(evaluations: Sequence[Evaluation]) -> _Scores:
    """By what was measured; the order is that of the keys, so that the order of adding changes nothing."""
    return dict(sorted({each.key: each for each in evaluations}.items()))


def _named(name: MetricName, scores: _Scores) -> _Scores:
    return {key: each for key, each in scores.items() if each.metric == name.metric and name.task in (None, each.task)}


def _minimum(condition: MetricCondition, scores: _Scores) -> Iterator[GateCheck]:
    wanted = f"{condition.operator}{condition.value:.12g}"
    shown = f"{condition.name}{wanted}"
    found = _named(condition.name, scores)
    if not found:
        yield GateCheck(shown, Reason.MISSING, _lacking(condition.name, scores))
    for score in found.values():
        if not isfinite(score.value):
            yield _not_a_number(shown, score)
        elif OPERATORS[condition.operator](score.value, condition.value):
            yield GateCheck(shown, Reason.MET, f"{_label(score)} is {score.value:g}", score)
        else:
            yield GateCheck(shown, Reason.NOT_MET, f"{_label(score)} is {score.value:g}, not {wanted}", score)


def _no_regression(
    condition: NoRegression, scores: _Scores, before: _Scores | None, wanted: Gate
) -> Iterator[GateCheck]:
    shown = f"no-regression {condition}"
    found = _named(condition.name, scores)
    known = _named(condition.name, before or {})
    if not found and not known:
        yield GateCheck(shown, Reason.MISSING, _lacking(condition.name, scores))
    for key in sorted({*found, *known}):
        score, baseline = found.get(key), known.get(key)
        if score is None and baseline is not None:
            sentence = f"{_label(baseline)} was {baseline.value:g} and is not measured by the same yardstick now"
            yield GateCheck(shown, Reason.MISSING, sentence, None, baseline)
        elif score is not None and not isfinite(score.value):
            yield _not_a_number(shown, score, baseline)
        elif score is not None and baseline is None:
            lacking = (
                f"{wanted.against} points at nothing yet" if before is None else f"{wanted.against} has no such score"
            )
            sentence = f"{_label(score)} is {score.value:g}; nothing to compare with, {lacking}"
            yield GateCheck(shown, Reason.NO_BASELINE, sentence, score)
        elif score is not None and baseline is not None:
            yield _held(shown, score, baseline, condition.tolerance, wanted.noise)


def _held(shown: str, score: Evaluation, baseline: Evaluation, tolerance: float, noise: float) -> GateCheck:
    if not isfinite(baseline.value):
        return _not_a_number(shown, baseline, baseline, "the baseline of ")
    direction = _direction(score, baseline)
    fall = Decimal(str(baseline.value)) - Decimal(str(score.value))  # as written: 0.81 - 0.80 is 0.01
    drop = abs(fall) if direction is None else fall if direction else -fall
    error = combined_stderr(score, baseline)
    width = noise * error if error is not None and isfinite(noise * error) else None
    exceeds = None if width is None else exceeds_noise(score, baseline, noise=noise)
    start = f"{_label(score)} is {score.value:g}, was {baseline.value:g}"
    chance = f"{noise:g} × combined standard error = {width:.3g}" if width is not None else ""
    worse = f"{start}: {'worse' if direction is not None else 'changed'} by {float(drop):g}"

    def check(reason: Reason, sentence: str) -> GateCheck:
        return GateCheck(shown, reason, sentence, score, baseline, width)

    if drop <= 0:
        return check(Reason.NOT_WORSE, start)
    if drop <= Decimal(str(tolerance)):
        return check(Reason.WITHIN_TOLERANCE, f"{worse}, within the tolerance of {tolerance:g}")
    if width is not None and exceeds is False:
        return check(Reason.WITHIN_NOISE, f"{worse}, within noise ({chance})")
    why = "a standard error is unknown, so noise is no excuse" if width is None else f"more than noise ({chance})"
    return check(Reason.REGRESSION, f"{worse}, {why}{_UNSURE if direction is None else ''}")


def _direction(score: Evaluation, baseline: Evaluation) -> bool | None:
    stated = {each.higher_is_better for each in (score, baseline)} - {None}
    if not stated:
        return usual_direction(score.metric)
    return stated.pop() if len(stated) == 1 else None


def _not_a_number(shown: str, score: Evaluation, baseline: Evaluation | None = None, whose: str = "") -> GateCheck:
    return GateCheck(shown, Reason.NOT_A_NUMBER, f"{whose}{_label(score)} is {score.value}", score, baseline)


def _lacking(name: MetricName, scores: _Scores) -> str:
    others = list(dict.fromkeys(str(MetricName(each.metric, each.task)) for each in scores.values()))
    more = f" and {len(others) - _NAMED} more" if len(others) > _NAMED else ""
    return f"there is no score {name}; there is {', '.join(others[:_NAMED]) or 'none at all'}{more}"


def _label(score: Evaluation) -> str:
    """``arc_easy/acc (lm-eval, none, test)``: what tells it from its neighbours."""
    apart = ", ".join(part for part in (score.suite, score.filter, score.split) if part not in (None, "none"))
    return f"{MetricName(score.metric, score.task)}{f' ({apart})' if apart else ''}"
