"""Which modules of a fine-tuned model an adapter has to save whole (``modules_to_save``), by what of them changed.

PEFT takes every module whose path ends in what is listed, and wants all of each from the file: with ``classifier`` come
``pre_classifier`` and whatever else is called so, changed or not, and none of them may have a LoRA besides. An embedding that is
saved takes its other side along, the output that is the same matrix.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

from registry.checks.places import upwards
from registry.plans.extracting import Extract


def saved_whole(modules: Mapping[str, Sequence[Extract]], changed: Mapping[str, Collection[str]]) -> Mapping[str, str]:
    """The module that is saved for each of the ``modules`` that lie in one or are one; ``changed`` are their tensors' tails."""
    listed = {entry for path, parts in modules.items() for entry in _asked(path, parts, changed[path])}
    while True:
        found = _taken(modules, listed)
        ties = {one.head for path in found for one in modules[path] if one.head is not None and one.head not in listed}
        if not ties:
            return found
        listed |= ties


def _asked(path: str, parts: Sequence[Extract], changed: Collection[str]) -> Iterator[str]:
    own = [one for one in parts if not one.alias]
    yield from (one.task_head for one in own if one.task_head is not None)
    changed = {one.tail for one in own if one.tail in changed}
    matrix = next((one for one in own if one.low_rank), None)
    if changed and (matrix is None or _is_more(matrix, changed)):
        yield path


def _is_more(matrix: Extract, changed: Collection[str]) -> bool:
    """Whether a LoRA of the matrix would lose some of what changed: a buffer beside it, the bias of a bare parameter, modules
    below it."""
    if matrix.mixed:
        return True
    said = {matrix.tail} if matrix.bare else {matrix.tail, "bias"}
    return matrix.tail not in changed or not said.issuperset(changed)


def _taken(modules: Collection[str], listed: Collection[str]) -> dict[str, str]:
    """Each of the modules that PEFT takes for what is listed, with the outermost that it takes them by."""
    ends = tuple(listed)
    found: dict[str, str] = {}
    for path in modules:
        above = [each for each in upwards(path) if each.endswith(ends)]
        if above:
            found[path] = above[-1]
    return found
