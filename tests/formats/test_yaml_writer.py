"""What is written is read back the same, by our reader and by PyYAML's of another YAML."""

from __future__ import annotations

import json

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from registry.formats.yaml_text import parse_yaml
from registry.formats.yaml_writer import write_yaml

_texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30) | st.sampled_from(
    ["no", "1e-5", "0o17", "0x1f", "~", "", " a", "---", "a: b", "a #b", "- x", "'", '"', "\n---\nx: y", "2024-05-01", "!!a", "&a"]
)
_scalars = st.none() | st.booleans() | st.integers(-(10**30), 10**30) | st.floats(allow_nan=False, allow_infinity=False) | _texts
_values = st.recursive(
    _scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_texts, inner, max_size=4), max_leaves=12
)


@given(st.dictionaries(_texts, _values, max_size=5))
def test_what_is_written_is_read_back(document: dict[str, object]) -> None:
    text = write_yaml(document)
    assert parse_yaml(text, where="x") == (document or None)
    assert yaml.safe_load(text) == (document or None)


@given(_texts)
def test_no_text_leaves_its_line(text: str) -> None:
    assert len(write_yaml({"key": text}).splitlines()) == 1


@pytest.mark.parametrize("value", [float("inf"), float("-inf")])
def test_infinities_are_yamls(value: float) -> None:
    assert yaml.safe_load(write_yaml({"a": value})) == {"a": value}
    assert json.dumps(parse_yaml(write_yaml({"a": value}), where="x")) == json.dumps({"a": value})
