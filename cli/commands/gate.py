"""``adapters gate``"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from typer import Argument, BadParameter, Exit, Option

from cli.context import Session
from cli.rendering import emit, say, table

if TYPE_CHECKING:
    from registry.domain.evaluation import Evaluation
    from registry.domain.gate import Gate, Outcome

REF = Annotated[str, Argument(metavar="REF", help="[ns/]name, name@3, name:alias or sha256:…")]
FILE = Annotated[str | None, Option("--gate", metavar="FILE", help="A gate.toml; options add to it.")]
AGAINST = Annotated[
    str | None, Option(metavar="ALIAS|REF", help="What it must not be worse than: production, other:alias, name@3.")
]
MINIMUM = Annotated[
    list[str] | None, Option("--min", metavar="COND", help='A score that must hold: "acc>=0.80", "arc_easy/acc>=0.8".')
]
NO_REGRESSION = Annotated[
    list[str] | None,
    Option(metavar="METRIC[:TOL]", help="A score that must not be worse, by more than TOL, beyond noise."),
]
NOISE = Annotated[
    float | None, Option(metavar="N", help="How many combined standard errors are noise (default: 1, as in compare).")
]


def gate(
    session: Session,
    reference: REF,
    against: AGAINST = None,
    minimum: MINIMUM = None,
    no_regression: NO_REGRESSION = None,
    file: FILE = None,
    noise: NOISE = None,
) -> None:
    """Do the scores of a version hold what is asked of them?

    A drop within noise is not a regression. Every score of a metric must hold, a missing one never does.
    Exit codes: 0 the gate holds, 6 it is closed.

    Example: adapters gate my-lora --against production --min "acc>=0.80" --no-regression acc:0.01
    """
    wanted = conditions(file, against, minimum, no_regression, noise)
    if wanted.no_regressions and wanted.against is None:
        raise BadParameter("--no-regression needs --against: what must it not be worse than?")
    outcome = session.registry.gate(reference, wanted)
    if session.json:
        emit(outcome.document())
    else:
        show(outcome)
    if outcome.failure is not None:
        raise Exit(outcome.failure.exit_code)


def conditions(
    file: str | None,
    against: str | None,
    minimum: list[str] | None,
    no_regression: list[str] | None,
    noise: float | None,
) -> Gate:
    from registry.operations.gate import asked

    wanted = asked(file, against=against, minimum=minimum or (), no_regression=no_regression or (), noise=noise)
    if wanted.empty:
        raise BadParameter("the gate has no condition: give --min, --no-regression or --gate FILE")
    return wanted


def show(outcome: Outcome) -> None:
    """A row for each score, a sentence for what does not hold or holds for a reason, and the verdict."""
    rows = [
        (
            f"{'✓' if check.holds else '✗'} {check.reason.value.replace('-', ' ')}",
            check.condition,
            check.measured.task if check.measured else None,
            _value(check.score),
            _value(check.baseline),
        )
        for check in outcome.checks
    ]
    table(["verdict", "condition", "task", "value", "against"], rows, shrink=["condition", "task"])
    for check in outcome.checks:
        if check.reason.value not in ("met", "not-worse"):
            say(f"{'' if check.holds else '✗ '}{check.sentence}", "dim" if check.holds else "red")
    against = f" against {outcome.against}" if outcome.against else ""
    say(f"{'holds' if outcome.holds else 'closed'}: {outcome.reference}{against}", "bold")


def _value(score: Evaluation | None) -> str:
    if score is None:
        return ""
    return f"{score.value:.6g}" if score.stderr is None else f"{score.value:.6g} ± {score.stderr:.4g}"
