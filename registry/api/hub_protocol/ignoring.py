"""Which files of an upload its ``.gitignore`` leaves out. Clients send its text and rely on the server to say so of each file:
what it says nothing of is uploaded, secrets too.

Patterns are a stranger's. RE2 matches them, in time that grows with a path's length alone; how many there are and how long they
may take is bounded. What is beyond is refused, since a rule that is passed over would publish what it was made for. A line that
is no pattern means nothing, as in Git.

The patterns: https://git-scm.com/docs/gitignore#_pattern_format
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import re2
from pathspec.patterns.gitignore.spec import GitIgnoreSpecPattern

from registry.domain.paths import require_plain
from registry.errors import InvalidInputError

GITIGNORE = ".gitignore"
MAX_BYTES = 64 << 10
_MAX_PATTERNS = 1000
#: Characters; a path has fewer.
_LONGEST = 1000
#: Seconds for the files of one request.
_PATIENCE = 5.0
_OPTIONS = re2.Options()
_OPTIONS.log_errors = False


class IgnoreRulesError(InvalidInputError):
    default_code = "gitignore"

    def __init__(self, trouble: str) -> None:
        super().__init__(
            f"{GITIGNORE} {trouble}, so nobody knows what it leaves out; nothing was recorded",
            hint="shorten it, or leave it out and name what is to stay at home: ignore_patterns",
        )


def ignored_by(text: str) -> Callable[[str], bool]:
    """Whether a path is left out, for all the files of one request. Raises IgnoreRulesError; so does the function, and for what is
    no path InvalidInputError."""
    if len(text.encode("utf-8", "replace")) > MAX_BYTES:
        raise IgnoreRulesError(f"is larger than {MAX_BYTES:,} bytes")
    rules = list(_patterns(text))[::-1]
    until = time.monotonic() + _PATIENCE

    @cache
    def left_out(path: str) -> bool:
        """The last pattern decides, but below a folder that is left out nothing is taken in again. A folder ends with a slash."""
        if time.monotonic() > until:
            raise IgnoreRulesError("has patterns that take too long")
        above = path.rstrip("/").rpartition("/")[0]
        if above and left_out(f"{above}/"):
            return True
        return next((leaves_out for pattern, leaves_out in rules if pattern.search(path)), False)

    def ignored(path: str) -> bool:
        require_plain(path)
        return left_out(path)

    return ignored


def _patterns(text: str) -> Iterator[tuple[Any, bool]]:
    """Each as an expression that is found in what it means itself, and whether that is left out."""
    count = 0
    for line in text.removeprefix("\ufeff").split("\n"):
        if not line.strip() or line.startswith("#"):
            continue
        count += 1
        if count > _MAX_PATTERNS or len(line) > _LONGEST:
            most = f"{_MAX_PATTERNS:,} patterns" if count > _MAX_PATTERNS else f"{_LONGEST:,} characters in a pattern"
            raise IgnoreRulesError(f"has more than {most}")
        try:
            expression, leaves_out = GitIgnoreSpecPattern.pattern_to_regex(line)
            if expression is not None:
                yield re2.compile(_of_itself(expression), _OPTIONS), bool(leaves_out)
        except (ValueError, re2.error):
            continue


def _of_itself(expression: str) -> str:
    """The library's expression is found in all that lies below a folder too; ``a/**`` is of what is inside ``a``, and not ``a``."""
    exact = expression.replace("(?:(?P<ps_d>/)|$)", "/?$").replace("(?P<ps_d>/)", "/$")
    return f"{exact}." if exact.endswith("/") else exact
