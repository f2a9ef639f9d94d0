"""JSON Lines: one JSON value a line (``trainer_log.jsonl``). https://jsonlines.org"""

from __future__ import annotations

from registry.errors import MalformedFileError
from registry.formats.git_lfs import is_lfs_pointer, lfs_pointer_error
from registry.formats.json_text import parse_json


def parse_json_lines(
    data: bytes, *, where: str, max_bytes: int = 1 << 20, error: type[MalformedFileError] = MalformedFileError
) -> list[object]:
    """The values, in order; empty lines are skipped. Raises ``error`` naming the first line that is no JSON."""
    if is_lfs_pointer(data):
        raise lfs_pointer_error(where, error)
    if len(data) > max_bytes:
        raise error(
            where,
            f"is {len(data):,} bytes long, more than the {max_bytes:,} that are read",
            hint="check that this is the right file",
        )
    return [_line(line, f"{where}:{number}", error) for number, line in enumerate(data.splitlines(), 1) if line.strip()]


def _line(line: bytes, where: str, error: type[MalformedFileError]) -> object:
    return parse_json(line, where=where, error=error)
