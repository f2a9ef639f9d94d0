"""An expression for some paths takes each of them, and nothing else."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from registry.plans.exact_targets import expression_of

paths = st.lists(st.sampled_from(["a", "b+", "layers", "0", "1", "12"]), min_size=1, max_size=5).map(".".join)


@given(st.sets(paths, min_size=1), st.sets(paths))
def test_it_takes_these_paths_and_no_other(wanted: set[str], others: set[str]) -> None:
    expression = expression_of(sorted(wanted))
    assert {path for path in wanted | others if re.fullmatch(expression, path)} == wanted


def test_layers_that_are_alike_are_said_once() -> None:
    layers = [f"model.layers.{layer}.{name}" for layer in range(100) for name in ("q_proj", "k_proj")]
    assert len(expression_of(layers)) < 400
