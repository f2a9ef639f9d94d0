"""``adapters rules``"""

from __future__ import annotations

from cli.context import Session
from cli.rendering import emit, say


def rules(session: Session) -> None:
    """Every rule that a check or a push can name.

    How grave it is, why it exists, what to do, and which --allow takes.

    Example: adapters rules --json
    """
    from registry.checks.misfit import WORDS
    from registry.checks.table import RULES

    if session.json:
        rows = [(rule.id, WORDS[rule.severity], rule.reason, rule.fix) for rule in RULES]
        emit([dict(zip(("rule", "severity", "reason", "fix"), row, strict=True)) for row in rows])
        return
    for rule in RULES:
        say(f"{rule.id} ({WORDS[rule.severity]})", "bold")
        say(f"  {rule.reason}")
        say(f"  {rule.fix}", "dim")
