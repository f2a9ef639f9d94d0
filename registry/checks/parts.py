"""Which modules of the base the trained class is sure to have.

A base may have more than the class that an adapter was trained on: the decoder of an encoder's base, the head of another
task, a tower for images. Nobody misses tensors there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain

from registry.checks.brought import HEADS, OPTIONAL
from registry.checks.matching import Matching, path_of
from registry.checks.places import class_of, upwards
from registry.checks.rule import Subject
from registry.formats.base_heads import certain_heads

#: Parts of a head that only the class for pretraining has.
_APART = frozenset({"seq_relationship"})


def sure_of(subject: Subject, matching: Matching) -> Callable[[str], bool]:
    """Whether a module that the base has, by the name that the adapter would give it, is one of the trained class: in a part
    of the model that the adapter has tensors in, or a head that this class is known for."""
    places, config = matching.places, subject.config
    heads = certain_heads(places.base.model_type, config.task_type, class_of(config))
    tensors = (path_of(spec.name) for spec in subject.manifest.tensors)
    present = {above for path in tensors for above in upwards(path)} | {""}
    parts = {above for name in places.by_name for above in _above_numbers(places.spelled(name, matching.prefix))} | {""}

    def is_sure(path: str) -> bool:
        words = path.split(".")
        if not OPTIONAL.isdisjoint(words):
            return False
        if not HEADS.isdisjoint(words):
            return path in heads or (
                words[0] in heads and path.rpartition(".")[0] in present and words[-1] not in _APART
            )
        return next(above for above in chain(upwards(path.rpartition(".")[0]), ("",)) if above in parts) in present

    return is_sure


def _above_numbers(path: str) -> Iterator[str]:
    """What a layer's number stands below, and all above it: a part of the model that another class may lack."""
    words = path.split(".", 64)
    first = next((i for i, word in enumerate(words) if word.isdecimal()), 0)
    for length in range(1, first + 1):
        yield ".".join(words[:length])
