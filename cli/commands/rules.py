"""``adapters rules``"""

from __future__ import annotations

from cli.context import Session
from cli.rendering import emit, say


def rules(session: Session) -> None:
    """Every rule that a command can name, and how grave it is.

    Errors that end in "--allow takes it" may be let pass by name: at a push, an import, a check and a merge.

    Example: adapters rules --json
    """
    from cli.other_rules import FIX, OTHER_RULES
    from registry.checks.misfit import WORDS
    from registry.checks.table import RULES
    from registry.plans.merge_refusals import PARTIAL

    rows: list[tuple[str, str, str, str, str, bool]] = [
        (rule.id, WORDS[rule.severity], rule.reason, rule.fix, "check, push", WORDS[rule.severity] == "error")
        for rule in RULES
    ]
    rows += [(rule.id, rule.severity, rule.reason, FIX, rule.said_by, rule.may_be_allowed) for rule in OTHER_RULES]
    if session.json:
        keys = ("rule", "severity", "reason", "fix", "said_by", "may_be_allowed")
        emit([dict(zip(keys, row, strict=True)) for row in rows])
        return
    for name, severity, reason, fix, said_by, may_be_allowed in rows:
        say(f"{name} ({severity}), {said_by}{'; --allow takes it' if may_be_allowed else ''}", "bold")
        say(f"  {reason}")
        if fix != FIX:
            say(f"  {fix}", "dim")
    say(f"merge --allow partial lets these pass: {', '.join(sorted(PARTIAL))}")
