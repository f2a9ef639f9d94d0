"""What a command says: JSON or a table on stdout, notes and progress on stderr.

Text from adapters (names of tensors, tags, notes, paths) is shown with control characters escaped, so that nothing a
stranger wrote moves the cursor or paints the terminal.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from cli.streams import is_unicode, let_go, put

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console
    from rich.text import Text

    from registry.domain.finding import Finding
    from registry.errors import RegistryError

_STYLES = {"error": "bold red", "warning": "yellow", "info": "dim"}
_NARROWEST = 6
#: Reasons of one refusal that are shown.
_REASONS = 10
_PATIENCE = 1.0  #: seconds before a progress bar appears


def emit(document: object) -> None:
    """The one JSON document."""
    put(json.dumps(document, ensure_ascii=not is_unicode(sys.stdout), allow_nan=False) + "\n", sys.stdout)


def say(text: str, style: str = "") -> None:
    _out().print(_text(safe(text), style), soft_wrap=True)


def note(text: str, *, quiet: bool, style: str = "dim") -> None:
    if not quiet:
        _err().print(_text(safe(text), style), soft_wrap=True)


def warn(findings: Iterable[Finding], *, quiet: bool) -> None:
    for finding in findings:
        if finding.severity.value == "warning":
            note(f"warning: {finding.message} [{finding.rule}]", quiet=quiet, style="yellow")


def complain(error: RegistryError) -> None:
    from rich.text import Text

    console = _err()
    findings = error.findings
    verdict = error.verdict if len(findings) > 1 else None
    said = (
        f"{verdict}, for {len(findings)} reasons" if verdict else error.message
    )  # which the reasons follow, each once
    console.print(Text.assemble(("error: ", "bold red"), safe(said)), soft_wrap=True)
    if len(findings) > 1:
        _show_reasons(console, findings)
    elif error.hint:
        console.print(Text.assemble(("hint: ", "bold"), safe(error.hint)), soft_wrap=True)


def _show_reasons(console: Console, findings: Sequence[Finding], *, allowed: bool = False) -> None:
    """The first of them, and what to do about each once."""
    fixes: set[str | None] = set()
    shown = list(dict.fromkeys(findings))
    for finding in shown[:_REASONS]:
        _show_finding(console, finding if finding.fix not in fixes else replace(finding, fix=None), allowed=allowed)
        fixes.add(finding.fix)
    if len(shown) > _REASONS:
        console.print(_text(f"… and {len(shown) - _REASONS:,} more (--json shows all)", "dim"), soft_wrap=True)


def show_findings(findings: Sequence[Finding], *, quiet: bool) -> None:
    """Of something that was stored: an error among them was allowed."""
    if not quiet:
        _show_reasons(_err(), [finding for finding in findings if finding.severity.value != "info"], allowed=True)


def table(
    headers: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    right: Sequence[str] = (),
    shrink: Sequence[str] = (),
) -> None:
    """A row a line, in columns that fit the terminal; whole when the output is not one. Columns without any value are left away.

    ``shrink`` names the columns that give way when it gets narrow, the widest first. If that is not enough the last ones go,
    but never the first, which is what one types.
    """
    from rich.table import Table

    console = _out()
    cells = [[_line(_cell(cell)) for cell in row] for row in rows]
    kept = [index for index, _ in enumerate(headers) if any(row[index] for row in cells)]
    widths = {index: max(len(headers[index]), *(len(row[index]) for row in cells)) for index in kept}
    if sys.stdout.isatty():
        _fit(widths, [index for index in kept if headers[index] in shrink], console.width)
    console.width = max(console.width, _total(widths))
    grid = Table(box=None, pad_edge=False, header_style="bold", show_edge=False, padding=(0, 2, 0, 0))
    for index in widths:
        justify: Literal["left", "right"] = "right" if headers[index] in right else "left"
        grid.add_column(headers[index], justify=justify, overflow="ellipsis", no_wrap=True, width=widths[index])
    for row in cells:
        grid.add_row(*(_text(row[index]) for index in widths))
    console.print(grid)


def _fit(widths: dict[int, int], giving: Sequence[int], room: int) -> None:
    while _total(widths) > room:
        widest = max(giving, key=lambda index: widths[index], default=None)
        if widest is not None and widths[widest] > _NARROWEST:
            widths[widest] -= 1
        elif len(widths) > 1:
            last = max(widths)
            del widths[last]
            giving = [index for index in giving if index != last]
        else:
            return


def _total(widths: Mapping[int, int]) -> int:
    return sum(widths.values()) + 2 * (len(widths) - 1)


def pairs(rows: Iterable[tuple[str, object]]) -> None:
    """``name  value`` lines, without the empty ones."""
    shown = [(name, _cell(value)) for name, value in rows if value not in (None, "", [], (), {})]
    from rich.text import Text

    width = max((len(name) for name, _ in shown), default=0)
    for name, value in shown:
        _out().print(Text.assemble((f"{name:<{width}}  ", "bold"), _line(value)), soft_wrap=True)


def size(count: object) -> str:
    """1234567 → ``1.2 MB`` (powers of ten, as disks and the Hub count)."""
    value = float(str(count))
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def counted(count: int, noun: str) -> str:
    """``1 layer``, ``2 layers``."""
    return f"{count:,} {noun}{'s' * (count != 1)}"


def safe(text: str) -> str:
    return "".join(char if char.isprintable() or char == "\n" else repr(char)[1:-1] for char in text)


class Meter:
    """To be called with the number of bytes done. ``expect`` says how many there will be."""

    def __call__(self, count: int) -> None: ...

    def expect(self, total: int) -> None: ...


@contextmanager
def progress(label: str, *, silent: bool) -> Iterator[Meter]:
    """A bar appears if it all takes longer than a second: with rate, and time left where it is known how much there is."""
    if silent or not sys.stderr.isatty():
        yield Meter()
        return
    meter = _Bar(label)
    try:
        yield meter
    finally:
        meter.close()


class _Bar(Meter):
    def __init__(self, label: str) -> None:
        self._label = label
        self._start = time.monotonic()
        self._done = 0
        self._total: int | None = None
        self._bar: Any = None
        self._task: Any = None

    def expect(self, total: int) -> None:
        self._total = total

    def __call__(self, count: int) -> None:
        self._done += count
        if self._bar is None:
            if time.monotonic() - self._start < _PATIENCE:
                return
            from rich import progress as rich

            known = (rich.BarColumn(), rich.TimeRemainingColumn()) if self._total is not None else ()
            columns = (
                rich.SpinnerColumn(),
                rich.TextColumn(self._label),
                rich.DownloadColumn(),
                rich.TransferSpeedColumn(),
                *known,
            )
            self._bar = rich.Progress(*columns, console=_err(), transient=True)
            self._task = self._bar.add_task(self._label, total=self._total)
            self._bar.start()
        self._bar.update(self._task, completed=self._done)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.stop()


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list | tuple):
        return ", ".join(_cell(item) for item in value)
    if isinstance(value, dict):
        return ", ".join(f"{key}={_nested(item)}" for key, item in value.items())
    return str(value)


def _nested(value: object) -> str:
    """Within a cell that names things already."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_nested, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key}: {_nested(item)}' for key, item in value.items())}}}"
    return _cell(value)


def _line(text: str) -> str:
    return safe(text).replace("\n", "\\n")


def _show_finding(console: Console, finding: Finding, *, allowed: bool = False) -> None:
    from rich.text import Text

    severity = finding.severity.value
    label = "allowed" if severity == "error" and allowed else severity
    line = Text.assemble((f"{label}: ", _STYLES[severity]), safe(finding.message), (f" [{finding.rule}]", "dim"))
    console.print(line, soft_wrap=True)
    if finding.fix:
        console.print(Text(f"  {safe(finding.fix)}", style="dim"), soft_wrap=True)


def _text(text: str, style: str = "") -> Text:
    from rich.text import Text

    return Text(text, style=style)


def _out() -> Console:
    return _console(sys.stdout)


def _err() -> Console:
    return _console(sys.stderr)


def _console(stream: Any) -> Console:
    """Colour only on a terminal, and not where NO_COLOR is set (rich looks); wide lines where nobody's eyes are."""
    from rich.console import Console

    console = Console(file=stream, highlight=False, width=None if stream.isatty() else 400)
    console.on_broken_pipe = partial(let_go, stream)  # type: ignore[method-assign]  # rich's own exits with 1
    return console
