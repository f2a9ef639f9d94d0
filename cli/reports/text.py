"""The report for eyes: it goes to the terminal, in colours, and so is not in the table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from cli.rendering import note, say, table
from cli.reports.checked import Checked, tally

_STYLES = {"error": "bold red", "warning": "yellow", "note": "dim"}
_WORDS = {"fits": "fits", "does-not-fit": "does not fit", "cannot-check": "could not be checked against"}
#: Findings of one rule that are shown; JSON has them all.
_SHOWN = 5


def show(checked: Checked, *, quiet: bool, said: set[str]) -> None:
    """What was noticed, and the verdict. What was ``said`` of an adapter for another engine is not said again."""
    shown: Counter[str] = Counter()
    for finding in checked.document["findings"]:
        severity, rule = finding["severity"], finding["rule"]
        sentence = f"{checked.subject}: {severity}: {finding['message']} [{rule}]"
        if (severity == "note" and quiet) or sentence in said:
            continue
        said.add(sentence)
        shown[rule] += 1
        if shown[rule] <= _SHOWN:
            say(f"{severity}: {finding['message']} [{rule}]", _STYLES[severity])
            if finding["fix"] and severity != "note":
                say(f"  {finding['fix']}", "dim")
    for rule, count in shown.items():
        if count > _SHOWN:
            say(f"… and {count - _SHOWN:,} more of {rule}; --json lists them all", "dim")
    say(f"{checked.subject} {_WORDS[checked.verdict]} {checked.against}".rstrip(), "bold")
    accounted = checked.document["accounted"]
    if accounted["matched"] is not None:
        note(f"{accounted['matched']:,} of {accounted['tensors']:,} tensors have a place in the base", quiet=quiet)


def show_all(checked: Sequence[Checked]) -> None:
    """A line for each adapter, then the counts."""
    rows = []
    engines = {one.document["profile"] for one in checked}
    for one in checked:
        errors = [finding for finding in one.findings if finding["severity"] == "error"]
        first = f"{errors[0]['message']} [{errors[0]['rule']}]" if errors else None
        engine = one.document["profile"] if len(engines) > 1 else None
        rows.append((one.subject, engine, one.verdict.replace("-", " "), len(errors) or None, first))
    headers = ["adapter", "for", "verdict", "errors", "first error"]
    table(headers, rows, right=["errors"], shrink=["first error"])
    say(tally(checked), "bold")
