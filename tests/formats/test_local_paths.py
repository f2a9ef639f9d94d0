"""Paths of a machine in text: found where they stand, and nowhere else."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.formats.local_paths import local_paths, paths_in_json, without_path, without_value

BASE = "/home/me/llama"


@pytest.mark.parametrize(
    ("text", "paths"),
    [
        ("Data: /home/me/data.jsonl.", ["/home/me/data.jsonl"]),
        ('load("/mnt/x/y")', ["/mnt/x/y"]),
        ("`~/models`", ["~/models"]),
        ("path=/data/a, path:/data/a", ["/data/a"]),
        (r"C:\Users\me\llama and D:/models/x here", [r"C:\Users\me\llama", "D:/models/x"]),
        ("file:///home/me/x", ["/home/me/x"]),
        ("https://example.com/a/b?c=/d/e", ["/d/e"]),
        ("https://example.com/a/b, hf://org/name, org/name/x, and/or/not, 1/2/3", []),
        ("/v1, /think, <a></b></c>, // a comment/of/code, ratio a: /b", []),
        ("s3://bucket/a/b ../x/y ./a/b", []),
    ],
)
def test_what_names_a_place_on_a_machine_is_found(text: str, paths: list[str]) -> None:
    assert list(local_paths(text)) == paths
    assert list(paths_in_json(json.dumps({"a": [text]}).encode())) == paths
    assert list(paths_in_json(f"{text} {{".encode())) == paths


def test_a_known_one_may_be_relative() -> None:
    assert local_paths("of out/llama/final.", "out/llama/final/") == ("out/llama/final/",)
    assert local_paths("of out/llama/final-2", "out/llama/final") == ()
    assert local_paths("one. two", ".") == ()


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.sampled_from([BASE, f"{BASE}/", f"{BASE}-2", f'"{BASE}"']),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.just(BASE), inner),
)


def renamed(value: object) -> object:
    if isinstance(value, dict):
        return {key: renamed(each) for key, each in value.items()}
    if isinstance(value, list):
        return [renamed(each) for each in value]
    return "org/base" if value in (BASE, f"{BASE}/") else value


@given(_json, st.booleans(), st.sampled_from([None, 2]))
def test_only_values_that_are_the_path_change(value: object, plain: bool, indent: int | None) -> None:
    data = json.dumps(value, ensure_ascii=plain, indent=indent).encode("utf-8", "surrogatepass")
    changed = without_value(data, BASE, "org/base")
    assert json.loads(changed) == renamed(value)
    assert without_value(changed, BASE, "org/base") == changed
    if value == renamed(value):
        assert changed == data


def test_what_is_no_json_stays_as_it_is() -> None:
    for data in (f'{{"a": "{BASE}"'.encode(), b"\xff", b"[" * 5000):
        assert without_value(data, BASE, "org/base") == data
    assert without_value(b'["."]', ".", "org/base") == b'["."]'


@given(st.text(), st.text())
def test_no_text_is_an_error(text: str, path: str) -> None:
    found = [*local_paths(text, path), *paths_in_json(text.encode(), path)]
    assert all(each in text or each == path for each in found)
    assert without_path(text, path, "x") == text or path.strip().rstrip("/\\") in text
