"""What the Python API is given and cannot mean is refused as the command line refuses it: in one sentence, with nothing done."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from registry.connect import Registry
from registry.domain.access import Action
from registry.errors import RegistryError, UnsuitableDirectoryError
from registry.plans.merge_plan import MergeOptions
from tests.operations.adapters import tree

VALUES: list[Callable[[Registry], Any]] = [
    lambda store: store.create_token("ci", "read"),  # type: ignore[arg-type]
    lambda store: store.create_token("ci", ["nope"]),  # type: ignore[list-item]
    lambda store: store.create_token("ci", []),
    lambda store: store.create_token("ci", [Action.ADMIN], patterns=[]),
    lambda store: store.create_token("ci", [Action.ADMIN], days=0),
    lambda store: store.create_token("ci", [Action.ADMIN], days=10**9),
    lambda store: store.create_token("ci", [Action.ADMIN], days="30"),  # type: ignore[arg-type]
    lambda _store: MergeOptions(base_view="nope"),
    lambda _store: MergeOptions(embeddings="nope"),
    lambda _store: MergeOptions(packing="nope"),
    lambda store: store.merge("org/base", [], "out"),
    lambda store: store.verify("out", "org/base", []),
    lambda store: store.interference([]),
    lambda store: store.combine([("a@1", 1.0)], "out", rank=2.5),  # type: ignore[arg-type]
    lambda store: store.combine([("a@1", 1.0)], "out", rank="2"),  # type: ignore[arg-type]
    lambda store: store.combine([("a@1", 1.0)], "out", energy="0.9"),  # type: ignore[arg-type]
    lambda store: store.combine([("a@1", 1.0)], "out", max_bytes="20MB"),  # type: ignore[arg-type]
    lambda store: store.extract("org/base", "org/tuned", "out", rank=2.5),  # type: ignore[arg-type]
]


@pytest.mark.parametrize("ask", VALUES)
def test_what_cannot_be_meant_is_refused(lived: Registry, tmp_path: Path, ask: Callable[[Registry], Any]) -> None:
    before = tree(tmp_path)
    with pytest.raises(RegistryError) as caught:
        ask(lived)
    assert caught.value.exit_code == 3
    assert tree(tmp_path) == before
    assert list(lived.tokens()) == []


def test_a_base_may_be_a_path(lived: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "base").mkdir()
    monkeypatch.chdir(tmp_path)
    for check in (lived.check, lambda subject, base: list(lived.check_all(base=base))):
        with pytest.raises(UnsuitableDirectoryError):
            check("a@1", base=Path("base"))
