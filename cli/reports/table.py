"""The reports by the name of their format."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from cli.reports.checked import Checked
from cli.reports.github import github
from cli.reports.junit import junit
from cli.reports.sarif import sarif

REPORTS: Mapping[str, Callable[[Sequence[Checked]], str]] = {"sarif": sarif, "junit": junit, "github": github}
