"""The manifest: equal documents have equal bytes, and what is written is read again."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.domain.base_model import BaseModelId
from registry.domain.digest import Digest
from registry.domain.lineage import LineageEdge
from registry.domain.manifest import FileEntry, FileRole, Manifest, Target, commonest, parse_manifest
from registry.domain.tensors import TensorSpec
from registry.errors import CorruptionError, InvalidInputError

ZERO = Digest.of(b"")
TARGETS = st.builds(
    Target,
    st.from_regex(r"[a-z]+(\.[0-9]{1,2})?\.[a-z_]+", fullmatch=True),
    st.none() | st.integers(1, 512),
    st.none() | st.floats(0.5, 512),
    st.none() | st.floats(0.01, 64),
)
WORDS = st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=40)
PATHS = st.from_regex(r"[a-z]{1,8}\.(json|safetensors)", fullmatch=True) | st.just("eval_results/ä b.yaml")
MANIFESTS = st.builds(
    Manifest,
    peft_type=st.sampled_from(["LORA", "IA3"]),
    variant=st.sampled_from(["lora", "dora"]),
    base_model=st.builds(BaseModelId, st.none() | st.text(), st.none() | st.text(), st.none() | st.text()),
    task_type=st.none() | st.text(),
    targets=st.lists(TARGETS, max_size=4).map(tuple),
    tensors=st.lists(st.builds(TensorSpec, st.text(), st.just("F32"), st.tuples(st.integers(0, 9))), max_size=3).map(tuple),
    tensor_identity=st.just(ZERO),
    files=st.lists(
        st.builds(FileEntry, PATHS, st.just(ZERO), st.integers(0), st.sampled_from(FileRole)),
        max_size=3,
        unique_by=lambda entry: entry.path.lower(),
    ).map(tuple),
    training=st.dictionaries(st.text(), st.integers() | st.text() | st.floats(allow_nan=False, allow_infinity=False)),
    lineage=st.lists(st.builds(LineageEdge, st.just(str(ZERO)), WORDS, st.none() | st.floats(-2, 2))).map(tuple),
)


@given(MANIFESTS)
def test_what_is_written_is_read_again(manifest: Manifest) -> None:
    again = parse_manifest(manifest.canonical_bytes)
    assert again == manifest
    assert again.digest == manifest.digest


@given(st.dictionaries(st.text(), st.integers() | st.text(), min_size=2))
def test_equal_manifests_have_equal_bytes(training: dict[str, object]) -> None:
    """Also where equal values were made in another order."""
    one, other = (
        Manifest("LORA", "lora", BaseModelId(None), None, (), (), ZERO, (), training=facts)
        for facts in (training, dict(reversed(training.items())))
    )
    assert one == other
    assert one.canonical_bytes == other.canonical_bytes
    assert one.canonical_bytes.isascii()


LEAD_OUT = [
    "/etc/passwd", "../x", "a/../../x", "a/./b", "a//b", "a/", "", ".", "..", ".git/config", "x/.GIT/hooks/post-checkout",
    "C:\\x", "..\\x", "a\0b", "a\nb", "\x1b[2J", "\ud800", "a\u202egpj.exe", "a" * 256, "/".join("abcdefghi"), "ä" * 200,
]  # fmt: skip


@pytest.mark.parametrize(
    "paths",
    [*([path] for path in LEAD_OUT), ["a", "a"], ["A.json", "a.json"], ["a", "a/b"], ["a/B/c", "A/b"]],
)
def test_a_manifest_names_no_file_outside_of_its_directory_and_none_twice(paths: list[str]) -> None:
    """Whoever wrote it: whoever reads it puts files there. What could not be read again cannot be made either."""
    document = json.loads(Manifest("MERGED", "merged", BaseModelId(None), None, (), (), ZERO, ()).canonical_bytes)
    document["files"] = [[path, ZERO, 0, "served"] for path in paths]
    with pytest.raises(CorruptionError, match="a manifest cannot be read"):
        parse_manifest(json.dumps(document).encode())
    with pytest.raises(InvalidInputError):
        Manifest("MERGED", "merged", BaseModelId(None), None, (), (), ZERO, tuple(FileEntry(path, ZERO, 0) for path in paths))


@pytest.mark.parametrize("size", [-1, 1.5, True, "1", None])
def test_a_file_has_a_size(size: object) -> None:
    manifest = Manifest("LORA", "lora", BaseModelId(None), None, (), (), ZERO, (FileEntry("a", ZERO, size),))  # type: ignore[arg-type]
    with pytest.raises(CorruptionError):
        parse_manifest(manifest.canonical_bytes)


@pytest.mark.parametrize(
    "edge",
    [
        {"parent": "x"}, {"kind": "k" * 61}, {"kind": "\n"}, {"reference": "r" * 5000}, {"kind": 1},
        {"weight": "1"}, {"weight": True}, {"weight": [1]}, {"weight": float("inf")}, {"reference": 7},
    ],
)
def test_an_edge_of_the_lineage_is_a_digest_and_short_words(edge: dict[str, object]) -> None:
    manifest = Manifest("LORA", "lora", BaseModelId(None), None, (), (), ZERO, (), lineage=(LineageEdge(ZERO, "merged-with"),))
    document = json.loads(manifest.canonical_bytes)
    document["lineage"][0] |= edge
    with pytest.raises(CorruptionError):
        parse_manifest(json.dumps(document).encode())


@pytest.mark.parametrize(
    "odd",
    [{"training": []}, {"training": "x"}, {"tensors": [[["a"], "F32", [1], 0, 4]]}, {"tensors": [["a", 1, [1], 0, 4]]}],
)
def test_what_a_manifest_says_is_of_the_kind_that_it_should_be(odd: dict[str, object]) -> None:
    manifest = Manifest("LORA", "lora", BaseModelId(None), None, (), (), ZERO, ())
    with pytest.raises(CorruptionError):
        parse_manifest(json.dumps(json.loads(manifest.canonical_bytes) | odd).encode())


def test_a_manifest_that_is_nested_without_end_is_none() -> None:
    with pytest.raises(CorruptionError):
        parse_manifest(b"[" * 200_000)


def test_what_is_no_json_number_is_no_manifest() -> None:
    manifest = Manifest("LORA", "lora", BaseModelId(None), None, (), (), ZERO, (), training={"loss": float("nan")})
    with pytest.raises(ValueError, match="JSON"):
        manifest.digest  # noqa: B018


def test_the_format_does_not_drift() -> None:
    """This digest is in people's registries. If it has to change, the schema's number has to change with it."""
    manifest = Manifest(
        peft_type="LORA",
        variant="lora",
        base_model=BaseModelId("openai-community/gpt2", "main", "gpt2"),
        task_type="CAUSAL_LM",
        targets=(Target("h.0.attn.c_attn", 8, 16.0, 2.0),),
        tensors=(TensorSpec("base_model.model.h.0.attn.c_attn.lora_A.weight", "F32", (8, 768), 0, 24576),),
        tensor_identity=ZERO,
        files=(FileEntry("adapter_config.json", ZERO, 7),),
        training={"epoch": 3},
        lineage=(LineageEdge(str(ZERO), "continued-from", None, "local/x@1"),),
    )
    assert json.loads(manifest.canonical_bytes)["schema"] == "adapter-registry/manifest/1"
    assert manifest.digest == "sha256:f3bef22552f40e54166153029f182f2a8cbcd33fbf5328886ffaeaaca25a669b"


def test_summaries_are_of_what_is_commonest() -> None:
    targets = tuple(Target(f"layers.{layer}.q", rank, 8.0, 8.0 / rank) for layer, rank in enumerate((4, 8, 8)))
    manifest = Manifest("LORA", "lora", BaseModelId(None), None, targets, (), ZERO, ())
    assert (manifest.rank, manifest.alpha, manifest.scaling) == (8, 8.0, 1.0)
    assert (manifest.layers, manifest.target_modules) == ([0, 1, 2], ["q"])
    assert commonest([]) is None


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"null", b"\xff", b'{"schema": "adapter-registry/manifest/2"}'])
def test_anything_else_is_corruption(data: bytes) -> None:
    with pytest.raises(CorruptionError):
        parse_manifest(data)
