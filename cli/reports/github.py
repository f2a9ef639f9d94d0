"""Workflow commands: GitHub Actions shows each as an annotation, at its file.

https://docs.github.com/en/actions/reference/workflows-and-actions/workflow-commands
"""

from __future__ import annotations

from collections.abc import Sequence

from cli.reports.checked import Checked, Finding, once, tally

_COMMANDS = {"error": "error", "warning": "warning", "note": "notice"}
#: Escapes of the message; the properties before it have two more.
_MESSAGE = str.maketrans({"%": "%25", "\r": "%0D", "\n": "%0A"})
_PROPERTY = _MESSAGE | str.maketrans({":": "%3A", ",": "%2C"})


def github(checked: Sequence[Checked]) -> str:
    """A line for each finding, and one that counts. No text of an adapter begins a line."""
    lines = [_command(one, finding) for one, finding in once(checked)]
    return "\n".join([*lines, tally(checked), ""])


def _command(checked: Checked, finding: Finding) -> str:
    properties = {"title": finding["rule"] or ""}
    if checked.directory is not None:
        properties = {"file": finding["file"] or "", **properties}
    shown = ",".join(f"{key}={value.translate(_PROPERTY)}" for key, value in properties.items())
    message = "\n".join(part for part in (f"{checked.subject}: {finding['message']}", finding["fix"]) if part)
    return f"::{_COMMANDS[finding['severity'] or 'note']} {shown}::{message.translate(_MESSAGE)}"
