"""A measured number about one version. Append-only: a better measurement is another evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import hypot, isfinite

from registry.domain import texts
from registry.errors import InvalidInputError, InvalidValueError

#: Metrics whose direction is common knowledge; anything else has none unless its source says so.
_HIGHER = frozenset(
    [
        "acc",
        "acc_norm",
        "accuracy",
        "auc",
        "bertscore",
        "bleu",
        "chrf",
        "em",
        "exact",
        "exact_match",
        "f1",
        "mcc",
        "mrr",
        "ndcg",
        "pass@1",
        "pass@10",
        "pass_rate",
        "precision",
        "recall",
        "reward",
        "rouge",
        "rouge1",
        "rouge2",
        "rougel",
        "rougelsum",
        "roc_auc",
        "score",
        "spearman",
        "spearmanr",
        "pearson",
        "pearsonr",
        "win_rate",
        "matthews_correlation",
        "map",
        "mean_token_accuracy",
    ]
)
_LOWER = frozenset(
    [
        "bits_per_byte",
        "brier_score",
        "byte_perplexity",
        "cer",
        "loss",
        "mae",
        "mse",
        "nll",
        "perplexity",
        "ppl",
        "rmse",
        "ter",
        "train_loss",
        "wer",
        "word_perplexity",
    ]
)


#: So many are added at once.
MOST_SCORES = 10_000
#: How many combined standard errors two values may differ by and still be chance.
NOISE = 1.0


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One score: what was measured (suite, task, metric, filter, split), the value, and how sure it is.

    ``value`` is in the unit its source uses (lm-eval: fractions; some cards: per cent); nothing is rescaled.
    ``n`` is the number of examples that really counted, ``at`` an ISO 8601 time in UTC, or None if the source
    does not say.
    """

    metric: str
    value: float
    task: str | None = None
    suite: str | None = None
    stderr: float | None = None
    n: int | None = None
    higher_is_better: bool | None = None
    filter: str | None = None
    split: str | None = None
    source: str | None = None
    at: str | None = None

    def document(self) -> dict[str, str | float | int | bool | None]:
        return {
            "suite": self.suite,
            "task": self.task,
            "metric": self.metric,
            "value": self.value,
            "stderr": self.stderr,
            "n": self.n,
            "higher_is_better": self.higher_is_better,
            "filter": self.filter,
            "split": self.split,
            "source": self.source,
            "at": self.at,
        }

    @property
    def key(self) -> tuple[str, str, str, str, str]:
        """Two evaluations with the same key measure the same thing and may be compared."""
        return (self.suite or "", self.task or "", self.metric, self.filter or "", self.split or "")


def checked_evaluations(found: Sequence[Evaluation]) -> Sequence[Evaluation]:
    """The same. Raises InvalidInputError for more than are added at once, InvalidValueError for the first that cannot be kept."""
    if len(found) > MOST_SCORES:
        raise InvalidInputError(
            f"these are {len(found):,} scores, expected at most {MOST_SCORES:,} at once",
            code="too-many-scores",
            hint="give the summary, not the samples",
        )
    for each in found:
        texts.METRIC.checked(each.metric)
        for wording, text in (
            (texts.TASK, each.task),
            (texts.SUITE, each.suite),
            (texts.SPLIT, each.split),
            (texts.FILTER, each.filter),
            (texts.SOURCE, each.source),
        ):
            if text is not None:
                wording.checked(text)
        if not isfinite(each.value):
            raise InvalidValueError("score", str(each.value), "a finite number")
        if each.stderr is not None and not (isfinite(each.stderr) and each.stderr >= 0):
            raise InvalidValueError("standard error", str(each.stderr), "a finite number, 0 or more")
        if each.n is not None and not 1 <= each.n < 1 << 53:
            raise InvalidValueError("number of examples", str(each.n), "a whole number from 1")
    return found


def usual_direction(metric: str) -> bool | None:
    """True where higher is better, False where lower is, None where nobody can know: ``eval_loss`` → False."""
    name = metric.lower().removeprefix("eval_").removeprefix("test_").removeprefix("train_").replace("-", "_")
    if name in _HIGHER:
        return True
    if name in _LOWER or name.endswith(("_loss", "_perplexity", "_error")):
        return False
    return None


def combined_stderr(one: Evaluation, other: Evaluation) -> float | None:
    """√(se₁² + se₂²), the standard error of a difference of independent measurements; None if either is unknown."""
    if one.stderr is None or other.stderr is None:
        return None
    return hypot(one.stderr, other.stderr)


def exceeds_noise(one: Evaluation, other: Evaluation, *, noise: float = NOISE) -> bool | None:
    """|Δ| > noise · √(se₁² + se₂²); None where a standard error is unknown."""
    error = combined_stderr(one, other)
    return None if error is None else abs(one.value - other.value) > noise * error
