"""The table of engines: which row applies, what it may hold, and the words that it quotes."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.checks.profile import (
    OneRank,
    Profile,
    Scaling,
    find_profile,
    parse_version,
    profiles,
    with_rank_cap,
)
from registry.checks.serving_features import _DECLARATIONS, _KINDS
from registry.errors import InvalidValueError

ENGINES = tuple(dict.fromkeys(row.engine for row in profiles()))

#: The engines' own words, copied from their sources: vllm/lora/{peft_helper,utils,lora_model}.py, sglang's
#: lora_manager.py, llama.cpp's convert_lora_to_gguf.py and llama-adapter.cpp, ollama's convert.go.
OWN_WORDS = {
    "vllm": {
        "LoRA rank {rank} is greater than max_lora_rank {cap}.",
        "vLLM only supports modules_to_save being None.",
        "vLLM only supports modules_to_save being either None or "
        '["classifier", "score"] for classification models. Unsupported modules_to_save: {names}',
        "vLLM does not yet support DoRA.",
        "Adapter bias is not supported.",
        "Missing required configuration fields: {names}",
        "{name} is unsupported LoRA weight",
        "The embedding LoRA size({rows}) must be consistent with the base model's vocabulary size({vocabulary}).",
        "vLLM does not support LoRA bias (lora_bias).",
        "vLLM does not support init_lora_weights={value}.",
        "vLLM does not support Activated LoRA (aLoRA).",
        "vLLM does not support layer_replication.",
        "vLLM does not support block-diagonal LoRA (BD-LoRA).",
        "vLLM does not support QALoRA.",
    },
    "sglang": {"LoRA serving currently doesn't support DoRA adapters"},
    "lorax": set(),
    "llama.cpp": {
        "Unexpected name '{name}': Not a lora_A or lora_B tensor",
        "lm_head is present in adapter, but is ignored in base model",
        "Can not map tensor '{name}'",
    },
    "ollama": {
        "LoRA tensor '{name}' has unexpected suffix",
        "LoRA tensor '{name}' does not exist in base model (hint: maybe wrong base model?)",
        "unsupported architecture",
    },
    "tgi": set(),
    "peft": set(),
}


# Which row applies -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("vllm", "vllm>=0.7,<0.33"),
        ("vllm==0.33", "vllm==0.33"),
        (" VLLM == v0.33.0rc1+cu128 ", "vllm==v0.33.0rc1+cu128"),
        ("vllm==0.32.9.post1", "vllm==0.32.9.post1"),
        ("sglang", "sglang>=0.5"),
        ("sglang==0.5.23", "sglang==0.5.23"),
        ("gguf", "llama.cpp>=0"),
        ("llama.cpp==b6391", "llama.cpp==b6391"),
        ("ollama==0.13", "ollama==0.13"),
        ("text-generation-inference==3.3.4", "tgi==3.3.4"),
        ("lorax", "lorax>=0"),
        ("peft", "peft>=0.14,<0.15"),
        ("peft==0.21.2", "peft==0.21.2"),
    ],
)
def test_an_engine_with_or_without_a_version_has_a_row(text: str, name: str) -> None:
    assert find_profile(text).name == name


@pytest.mark.parametrize(("version", "since"), [("0.7", "0.7"), ("0.32.99", "0.7"), ("0.33", "0.33"), ("1.0", "0.33")])
def test_a_version_belongs_to_the_row_whose_range_holds_it(version: str, since: str) -> None:
    found = find_profile(f"vllm=={version}")
    assert (found.since, found.asked) == (since, version)


@pytest.mark.parametrize(
    "text", ["", "vllm==", "vllm==x", "vllm>=0.30", "vllm=0.33", "vllm@0.33", "triton", "==0.33", "vllm==0.33==1"]
)
def test_an_unknown_engine_is_refused_with_the_engines_that_there_are(text: str) -> None:
    with pytest.raises(InvalidValueError) as refused:
        find_profile(text)
    assert all(engine in refused.value.message for engine in ENGINES)


@pytest.mark.parametrize(
    ("text", "known"), [("vllm==0.6.6", "vllm>=0.7,<0.33, vllm>=0.33"), ("peft==0.13.2", "peft>=0.21")]
)
def test_a_version_that_nobody_has_read_is_refused_with_those_that_there_are(text: str, known: str) -> None:
    with pytest.raises(InvalidValueError, match="a version that somebody has read") as refused:
        find_profile(text)
    assert known in refused.value.message


@given(st.text(max_size=20) | st.from_regex(r"(vllm|peft|gguf)==[vb]?[0-9.]{1,12}(rc1)?", fullmatch=True))
def test_any_text_has_a_row_or_is_refused(text: str) -> None:
    try:
        assert isinstance(find_profile(text), Profile)
    except InvalidValueError as refused:
        assert refused.text == text


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("0.33.0", (0, 33)),
        ("v0.33", (0, 33)),
        ("0.33rc1", (0, 33)),
        ("0.10.2.post1", (0, 10, 2)),
        ("b6391", (6391,)),
        ("0", ()),
    ],
)
def test_versions_are_compared_by_their_numbers(text: str, version: tuple[int, ...]) -> None:
    assert parse_version(text) == version


@pytest.mark.parametrize("text", ["", ".", "0..1", "latest", "0.1.x", "1" * 40])
def test_what_is_no_version_is_refused(text: str) -> None:
    with pytest.raises(InvalidValueError):
        parse_version(text)


# The rank that an engine was started with ------------------------------------------------------------------------------


@pytest.mark.parametrize("rank", [1, 8, 16, 32, 64, 128, 256, 320, 512])
def test_vllm_takes_these_ranks_and_16_by_default(rank: int) -> None:
    vllm = find_profile("vllm==0.33")
    assert vllm.max_lora_rank == 16
    assert with_rank_cap(vllm, rank) == replace(vllm, max_lora_rank=rank)


@pytest.mark.parametrize(
    ("engine", "rank"), [("vllm", 24), ("vllm", 0), ("vllm", 1024), ("sglang", 0), ("llama.cpp", 16)]
)
def test_a_rank_that_the_engine_would_not_take_is_wrong_usage(engine: str, rank: int) -> None:
    with pytest.raises(InvalidValueError, match="--max-lora-rank"):
        with_rank_cap(find_profile(engine), rank)


def test_sglang_takes_any_rank_and_has_no_default() -> None:
    assert find_profile("sglang").max_lora_rank is None
    assert with_rank_cap(find_profile("sglang"), 24).max_lora_rank == 24


# Laws of the table -----------------------------------------------------------------------------------------------------


def test_the_versions_of_an_engine_do_not_overlap_and_leave_no_gap() -> None:
    for engine in ENGINES:
        rows = [row for row in profiles() if row.engine == engine]
        for earlier, later in pairwise(rows):
            assert earlier.until == later.since, engine
        assert rows[-1].until is None
        for row in rows:
            assert row.until is None or parse_version(row.since) < parse_version(row.until)
            if row.read is not None:
                assert find_profile(f"{engine}=={row.read}").since == row.since


@pytest.mark.parametrize("row", profiles(), ids=lambda row: row.name)
def test_what_fits_the_row_without_a_version_fits_every_row(row: Profile) -> None:
    strictest = find_profile(row.engine)
    silently_different = (
        row.ignores.keys() | row.refuses_tensors.keys() | row.refuses_config.keys() | row.doubtful.keys()
    )
    assert silently_different - {"lora"} <= strictest.limits
    assert set(strictest.modules_to_save) <= set(row.modules_to_save)
    assert row.scaling in {strictest.scaling, Scaling.PEFT}
    assert row.one_rank in {strictest.one_rank, OneRank.NOWHERE}
    assert row.max_lora_rank == strictest.max_lora_rank
    assert set(row.requires) <= set(strictest.requires)


def test_the_tables_know_no_feature_that_no_rule_asks_for() -> None:
    asked_for = {*_DECLARATIONS, *(feature for _, feature in _KINDS), "lora", "whole_embedding", "other"}
    for row in profiles():
        assert row.limits <= asked_for, row.name


def test_names_are_lower_case_and_mean_one_engine() -> None:
    meant = {name: row.engine for row in profiles() for name in row.names}
    assert all(name == name.lower() for name in meant)
    assert all(meant[row.engine] == row.engine for row in profiles())
    for one, other in combinations(ENGINES, 2):
        assert not {n for n, e in meant.items() if e == one} & {n for n, e in meant.items() if e == other}


@pytest.mark.parametrize("row", profiles(), ids=lambda row: row.name)
def test_what_is_quoted_are_the_engines_own_words(row: Profile) -> None:
    quoted = {*row.refuses_config.values(), *row.refuses_tensors.values(), *row.messages.values()}
    assert quoted <= OWN_WORDS[row.engine]
