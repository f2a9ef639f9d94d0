"""A verdict as the reports see it."""

from __future__ import annotations

import os.path
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cli.rendering import safe
from registry.formats.adapter_directory import CONFIG, WEIGHTS

#: The rule of a verdict that is none: in no report may it look like one that fits.
CANNOT_CHECK = "cannot-check"
_GRAVITY = ("error", "warning", "note")

#: A verdict's finding, and the ``file`` it is about.
Finding = Mapping[str, str | None]


@dataclass(frozen=True, slots=True)
class Checked:
    """``document`` is what ``check --json`` says. ``directory`` is where the adapter's files lie, None for a version in the
    registry; ``file`` is the one that findings without a tensor are about."""

    document: Mapping[str, Any]
    exit_code: int = 0
    directory: str | None = None
    file: str = CONFIG

    @property
    def subject(self) -> str:
        return safe(str(self.document["subject"]))

    @property
    def verdict(self) -> str:
        return str(self.document["verdict"])

    @property
    def against(self) -> str:
        """The base and the engine, as far as they were given."""
        base = self.document["base"]
        return " for ".join(safe(str(part)) for part in (base and base["raw"], self.document["profile"]) if part)

    @property
    def findings(self) -> Sequence[Finding]:
        """The gravest first. Where nothing could be checked one is an error, whatever else was noticed."""
        found = [self._finding(finding) for finding in self.document["findings"]]
        if self.verdict == CANNOT_CHECK and all(finding["severity"] != "error" for finding in found):
            reasons = [finding["message"] or "" for finding in found if finding["severity"] == "warning"]
            message = f"{self.subject} could not be checked against {self.against}"
            why = {"rule": CANNOT_CHECK, "severity": "error", "message": ": ".join([message, *reasons[-1:]])}
            found.append(
                {**dict.fromkeys(("target", "tensor", "expected", "found", "fix")), **why, "file": self._path(None)}
            )
        return sorted(found, key=lambda finding: _GRAVITY.index(finding["severity"] or "note"))

    def _finding(self, finding: Mapping[str, str | None]) -> Finding:
        safely = {key: None if value is None else safe(value) for key, value in finding.items()}
        return {**safely, "file": self._path(finding["tensor"])}

    def _path(self, tensor: str | None) -> str:
        """A version in the registry has no files here: its reference stands for their directory."""
        name = WEIGHTS if tensor is not None else self.file
        return safe(os.path.normpath(os.path.join(self.directory or self.subject, name)))


def once(checked: Sequence[Checked]) -> Iterator[tuple[Checked, Finding]]:
    """Every finding; what an adapter was blamed for with another engine before, not again."""
    said: dict[str, list[Finding]] = {}
    for one in checked:
        before = said.setdefault(one.subject, [])
        new = [finding for finding in one.findings if finding not in before]
        before += new
        yield from ((one, finding) for finding in new)


def by_rule(findings: Sequence[Finding]) -> Iterator[tuple[str, Sequence[Finding]]]:
    """Each rule that spoke, with what it said."""
    for rule in dict.fromkeys(finding["rule"] or "" for finding in findings):
        yield rule, [finding for finding in findings if finding["rule"] == rule]


def tally(checked: Sequence[Checked]) -> str:
    """How many have which verdict, in a sentence without a stranger's words."""
    count = {word: sum(one.verdict == word for one in checked) for word in ("fits", "does-not-fit", CANNOT_CHECK)}
    return (
        f"{len(checked):,} checked: {count['fits']:,} fit, {count['does-not-fit']:,} do not fit, "
        f"{count[CANNOT_CHECK]:,} could not be checked"
    )
