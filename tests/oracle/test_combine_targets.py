"""The config of a combination targets exactly the modules that have tensors, whatever else the base has: PEFT loads it silently,
and adapts no other module."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from registry.connect import connect
from registry.variants.patterns import MAX_PATTERN
from tests.oracle.test_combine_against_peft import changes, same, total, train

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


class Part(nn.Module):
    def __init__(self, *names: str) -> None:
        super().__init__()
        for name in names:
            self.add_module(name, nn.Linear(6, 6))


class Nested(nn.Module):
    """Whose paths are the ends of others, with numbered layers and without, and the ends of words of others."""

    def __init__(self, depth: int = 3) -> None:
        super().__init__()
        self.q_proj, self.proj, self.gate = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 6)
        self.layers = nn.ModuleList(Part("q_proj", "xq_proj", "proj") for _ in range(depth))
        self.a, self.b, self.enc = Part("q_proj", "proj"), Part("gate"), Part()
        self.b.a = Part("q_proj")
        self.enc.layers = nn.ModuleList(Part("q_proj", "proj") for _ in range(2))

    def forward(self, x: Any) -> Any:
        return x


def deep() -> nn.Module:
    return Nested(depth=300)


def loads_as_the_sum(make: Callable[[], nn.Module], asked: list[dict[str, Any]], place: Path) -> list[str] | str:
    """``target_modules`` of the result."""
    adapters = [train(make, place / str(number), number, options) for number, options in enumerate(asked)]
    connect(place / "registry").combine(adapters, place / "sum")
    wanted = total([(changes(make, one), 1.0) for one in adapters])
    found = changes(make, place / "sum", silently=True)
    assert found.keys() == wanted.keys()
    same(found, wanted, 1e-5)
    targets: list[str] | str = json.loads((place / "sum" / "adapter_config.json").read_text())["target_modules"]
    return targets


CASES: dict[str, list[dict[str, Any]]] = {
    "a name of some layers is that of a module": [{"target_modules": ["q_proj"], "layers_to_transform": 1}],
    "the first layer alone": [{"target_modules": ["q_proj", "enc.layers.0.proj"], "layers_to_transform": 0}],
    "a gate that is no router": [{"target_modules": "gate|proj"}, {"target_modules": "proj"}],
    "a layer's path is the end of another's": [
        {"target_modules": r"layers\.1\.q_proj"},
        {"target_modules": r"layers\.[01]\.q_proj"},
    ],
    "a name that is excluded elsewhere": [{"target_modules": ["q_proj"], "exclude_modules": r".*layers\.1.*"}],
}


@pytest.mark.parametrize("case", CASES)
def test_modules_without_tensors_are_left_alone(case: str, tmp_path: Path) -> None:
    loads_as_the_sum(Nested, CASES[case], tmp_path)


def test_many_layers_need_no_long_expression(tmp_path: Path) -> None:
    asked = [{"target_modules": r"layers\.\d+\.q_proj"}, {"target_modules": r"layers\.\d+\.(q_proj|xq_proj)"}]
    targets = loads_as_the_sum(deep, asked, tmp_path)
    assert isinstance(targets, str)
    assert len(targets) < MAX_PATTERN < 300 * len(r"layers\.1\.q_proj|layers\.1\.xq_proj|")


@pytest.mark.parametrize(
    "asked",
    [
        [{"target_modules": ["q_proj"]}, {"target_modules": ["q_proj", "xq_proj"]}],
        [{"target_modules": ["q_proj", "a.proj"]}, {"target_modules": r".*layers\.1.*proj"}],
    ],
)
def test_where_names_are_enough_no_expression_is_written(asked: list[dict[str, Any]], tmp_path: Path) -> None:
    """Which more programs read than expressions."""
    assert isinstance(loads_as_the_sum(Nested, asked, tmp_path), list)


NAMES = ["q_proj", "xq_proj", "proj", "gate", "a.q_proj", "b.a.q_proj", "layers.1.q_proj", "layers.0.proj", "enc.layers.0.proj"]
lists = st.fixed_dictionaries(
    {"target_modules": st.lists(st.sampled_from(NAMES), min_size=1, max_size=4, unique=True)},
    optional={
        "exclude_modules": st.sampled_from([["a.q_proj"], r".*layers\.1.*", ["layers.1.q_proj"], ["gate"]]),
        "layers_to_transform": st.sampled_from([0, 1, [1], [0, 2]]),
    },
)
EXPRESSIONS = ["q_proj", r"a\..*", r"layers\.1.*q_proj", r"(b\.)?a\.q_proj", "gate|proj", r".*layers\.[12]\.x.*", ".*gate"]
expressions = st.fixed_dictionaries({"target_modules": st.sampled_from(EXPRESSIONS)})


@settings(max_examples=15, deadline=None)
@given(st.lists(lists | expressions, min_size=1, max_size=3))
def test_however_the_parents_say_what_they_are_of(asked: list[dict[str, Any]]) -> None:
    with tempfile.TemporaryDirectory() as place:
        trainable = [options for options in asked if can_be_trained(options, Path(place) / "tried")]
        if trainable:
            loads_as_the_sum(Nested, [{"r": 1 + n, **options} for n, options in enumerate(trainable)], Path(place))


def can_be_trained(options: dict[str, Any], into: Path) -> bool:
    """Whether PEFT finds a module that the options choose."""
    try:
        train(Nested, into, 0, options)
    except ValueError:
        return False
    return True
