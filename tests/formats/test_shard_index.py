"""Which file holds which tensor, and no file elsewhere."""

from __future__ import annotations

import json

import pytest

from registry.errors import MalformedFileError
from registry.formats.shard_index import parse_shard_index


def test_tensors_by_file() -> None:
    weight_map = {"a.weight": "model-00001-of-00002.safetensors", "b.weight": "model-00002-of-00002.safetensors"}
    document = {"metadata": {"total_size": 8}, "weight_map": weight_map}
    assert parse_shard_index(json.dumps(document).encode()) == weight_map


@pytest.mark.parametrize(
    "file",
    ["../model.safetensors", "/etc/passwd.safetensors", "a/b.safetensors", "a\\b.safetensors", "model.bin", "", ".safetensors", 1],
)  # fmt: skip
def test_a_file_elsewhere_is_refused(file: object) -> None:
    with pytest.raises(MalformedFileError) as refused:
        parse_shard_index(json.dumps({"weight_map": {"a.weight": file}}).encode())
    assert refused.value.code == "bad-shard-name"


@pytest.mark.parametrize("document", [[], {}, {"weight_map": {}}, {"weight_map": []}])
def test_an_index_without_a_map_is_refused(document: object) -> None:
    with pytest.raises(MalformedFileError) as refused:
        parse_shard_index(json.dumps(document).encode())
    assert refused.value.code == "no-weight-map"
