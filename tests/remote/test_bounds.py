"""What may be written has the same bounds with a server and without: the same sentence, the same exit code, nothing done."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from registry.api.settings import Settings
from registry.connect import Registry, connect
from registry.domain.access import Action
from registry.domain.evaluation import Evaluation
from registry.errors import RegistryError
from registry.operations.evaluate import Measured
from tests.api.served import served
from tests.operations.adapters import write

X = "local/x@1"
MANY = [f"k{number}" for number in range(101)]
ADMIN = [Action.ADMIN]


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Registry, Registry, Registry]]:
    """Two stores with the same content; a server of the second, and what it has."""
    folder = tmp_path_factory.mktemp("places")
    pushed = write(folder / "x")
    for place in ("here", "there"):
        connect(folder / place).push(pushed)
    with served(Settings(folder / "there")) as address:
        yield connect(folder / "here"), connect(address), connect(folder / "there")


def outcome(do: Callable[[Registry], object], shelf: Registry) -> tuple[object, ...]:
    try:
        do(shelf)
    except RegistryError as error:
        return type(error).exit_code, error.code, error.message, error.hint
    return ("done",)


def scored(**facts: Any) -> Measured:
    return Measured((Evaluation(**{"metric": "acc", "value": 0.5, **facts}),))


def written(shelf: Registry, name: str, *arguments: Any) -> None:
    """Past the verbs, which refuse some of it themselves."""
    with shelf.catalog.writing() as writer:
        getattr(writer, name)(writer.resolve(shelf.reference(X)), *arguments)


@pytest.mark.parametrize(
    ("do", "refused"),
    [
        (lambda shelf: shelf.add_evaluations(X, scored(metric="m" * 200)), False),
        (lambda shelf: shelf.add_evaluations(X, scored(metric="m" * 201)), True),
        (lambda shelf: shelf.add_evaluations(X, scored(metric="")), True),
        (lambda shelf: shelf.add_evaluations(X, scored(metric="\x1b[31m")), True),
        (lambda shelf: shelf.add_evaluations(X, scored(task="t" * 201)), True),
        (lambda shelf: shelf.add_evaluations(X, scored(suite="t" * 201)), True),
        (lambda shelf: shelf.add_evaluations(X, scored(split="t" * 201)), True),
        (lambda shelf: shelf.add_evaluations(X, scored(filter="t" * 201)), True),
        (lambda shelf: shelf.add_evaluations(X, scored(source="s" * 1001)), True),
        (lambda shelf: shelf.add_evaluations(X, scored(stderr=-1.0)), True),
        (lambda shelf: shelf.add_evaluations(X, scored(n=0)), True),
        (lambda shelf: shelf.add_evaluations(X, Measured((Evaluation("acc", 0.5),) * 10_001)), True),
        (lambda shelf: shelf.set_tags(X, dict.fromkeys(MANY[:100], "v")), False),
        (lambda shelf: shelf.set_tags(X, dict.fromkeys(MANY, "v")), True),
        (lambda shelf: written(shelf, "set_tags", {"bad key": "v"}), True),
        (lambda shelf: shelf.remove_tags(X, *MANY), True),
        (lambda shelf: shelf.remove_tags(X, "k" * 300), True),
        (lambda shelf: shelf.remove_tags(X, *MANY[:100]), False),
        (lambda shelf: shelf.yank(X, "r" * 1000), False),
        (lambda shelf: shelf.yank(X, "r" * 1001), True),
        (lambda shelf: shelf.yank(X, "\x00"), True),
        (lambda shelf: written(shelf, "yank", ""), True),
        (lambda shelf: shelf.delete(X, "r" * 1001), True),
        (lambda shelf: shelf.delete(X, ""), True),
        (lambda shelf: shelf.alias_base("x" * 1001, "org/base"), True),
        (lambda shelf: shelf.list("t" * 300), False),
        (lambda shelf: shelf.list("t" * 1001), True),
        (lambda shelf: shelf.list("t" * 60_000), True),
        (lambda shelf: shelf.list(tags=MANY), True),
        (lambda shelf: shelf.list(targets=MANY), True),
        (lambda shelf: shelf.list(metrics=[f"{key}>=1" for key in MANY]), True),
        (lambda shelf: shelf.list(metrics=[" " * 60_000]), True),
        (lambda shelf: shelf.list(sort="m" * 450), False),
        (lambda shelf: shelf.list(base="x" * 500), False),
        (lambda shelf: shelf.promote(X, "canary", minimum=[f"m{number}>=1" for number in range(201)]), True),
        (lambda shelf: shelf.promote(X, "canary", minimum=["m" * 1200 + ">=1"]), True),
        (lambda shelf: shelf.create_token("x", ADMIN, patterns=["*", *(f"a{number}/*" for number in range(100))]), True),
        (lambda shelf: shelf.base("x" * 1500), True),
    ],
)  # fmt: skip
def test_what_is_refused_there_is_refused_here(
    places: tuple[Registry, Registry, Registry], do: Callable[[Registry], object], refused: bool
) -> None:
    here, there, stored = places
    before = [shelf.catalog.generation() for shelf in (here, stored)]  # type: ignore[attr-defined]
    found = outcome(do, here)
    assert found == outcome(do, there)
    assert (found != ("done",)) == refused
    if refused:
        assert [shelf.catalog.generation() for shelf in (here, stored)] == before  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "options",
    [
        {"note": "n" * 10_001},
        {"note": "\x1b"},
        {"evaluations": ["m" * 201 + "=0.5"]},
        {"tags": dict.fromkeys(MANY, "v")},
    ],
)
def test_a_push_is_refused_before_anything_is_stored(
    places: tuple[Registry, Registry, Registry], tmp_path: Path, options: dict[str, Any]
) -> None:
    here, there, stored = places
    another = write(tmp_path / "y", r=2, lora_alpha=7)
    before = list(here.blobs.digests()), list(stored.blobs.digests())
    found = outcome(lambda shelf: shelf.push(another, **options), here)
    assert found[0] == 3
    assert found == outcome(lambda shelf: shelf.push(another, **options), there)
    assert (list(here.blobs.digests()), list(stored.blobs.digests())) == before
