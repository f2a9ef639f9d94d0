"""What no caller of the Python API can mean is refused in the same words by the embedded registry and by one elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from registry.api.settings import Settings
from registry.connect import Registry, connect
from registry.errors import InvalidValueError
from tests.api.served import served
from tests.conftest import lora_tensors
from tests.operations.adapters import write

Act = Callable[[Any], object]
MEANINGLESS: dict[str, Act] = {
    "log of fewer than none": lambda adapters: adapters.log(limit=-1),
    "log of none": lambda adapters: adapters.log(limit=0),
    "log of more than can be counted": lambda adapters: adapters.log(limit=1 << 70),
    "version 0": lambda adapters: adapters.set_alias("x", "production", 0),
    "version -1": lambda adapters: adapters.set_alias("x", "production", -1),
    "version 2^70": lambda adapters: adapters.set_alias("x", "production", 1 << 70),
    "expected 0": lambda adapters: adapters.set_alias("x", "production", 1, expected=0),
    "expected text": lambda adapters: adapters.set_alias("x", "production", 1, expected="1"),
    "removed from 0": lambda adapters: adapters.remove_alias("x", "production", expected=0),
    "a number for a tag": lambda adapters: adapters.set_tags("x", {"k": 1}),
    "a number for a tag's key": lambda adapters: adapters.set_tags("x", {1: "k"}),
}


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Registry, Registry]]:
    place = tmp_path_factory.mktemp("both")
    one = write(place / "x", lora_tensors())
    here, store = connect(place / "here"), connect(place / "there")
    for registry in (here, store):
        registry.push(one)
    with served(Settings(place / "there")) as address:
        yield here, connect(address)


@pytest.mark.parametrize("act", MEANINGLESS.values(), ids=MEANINGLESS)
def test_what_cannot_be_meant_is_refused_alike(both: tuple[Registry, Registry], act: Act) -> None:
    said = []
    for registry in both:
        with pytest.raises(InvalidValueError) as refused:
            act(registry)
        said.append((refused.value.code, refused.value.message, refused.value.hint))
        assert registry.aliases("x") == {}
        assert registry.show("x").version.tags == {}
    assert said[0] == said[1]
