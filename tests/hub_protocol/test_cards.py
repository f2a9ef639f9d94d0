"""What a README says of its repository, as the Hub's own client reads it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard, ModelInfo
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from registry.api.hub_protocol import listing
from registry.formats.yaml_writer import write_yaml
from tests.hub_protocol.conftest import write_one
from tests.hub_protocol.in_process import Hub, hub, in_files

CARD = "README.md"
BASE = "openai-community/gpt2"
WRITTEN = """---
license: mit
language: [de, en]
datasets: [org/data]
tags: [mine, mine, "base_model:adapter:/home/me/x"]
base_model: /home/me/x
library_name: peft
model-index:
- name: x
  results:
  - task: {type: text-generation}
    dataset: {type: mmlu, name: mmlu}
    metrics: [{type: acc, value: 0.5}]
---
Of https://arxiv.org/abs/2106.09685v2 and [this](https://hf.co/papers/1910.09700), https://arxiv.org/pdf/2106.09685.
"""


@pytest.fixture
def here(tmp_path: Path) -> Hub:
    found = hub(tmp_path / "store", pushes_per_minute=1_000_000)
    found.create("team/x")
    found.committed("team/x", in_files(write_one(tmp_path / "a")))
    return found


def info(here: Hub, name: str = "team/x", revision: str = "main") -> ModelInfo:
    return ModelInfo(**here.get(f"/api/models/{name}/revision/{revision}"))


def listed(here: Hub, query: str) -> list[str]:
    found, path = [], f"/api/models?{query}"
    while path:
        answer = here.ask("GET", path)
        assert answer.status_code == 200, answer.text
        found += [each["id"] for each in answer.json()]
        path = answer.headers.get("link", "").partition(">")[0].removeprefix("<http://localhost")
    return found


def test_the_card_is_in_the_repositorys_facts(here: Hub) -> None:
    """Its own words as they are, but for what the base is."""
    before = info(here)
    here.committed("team/x", {CARD: WRITTEN.encode()})
    now, own = info(here), ModelCard(WRITTEN).data
    assert now.card_data is not None
    for name in ("license", "language", "datasets", "library_name", "eval_results", "model_name"):
        assert getattr(now.card_data, name) == getattr(own, name)
    assert now.card_data.base_model == BASE
    assert now.card_data.tags == ["mine", f"base_model:{BASE}", f"base_model:adapter:{BASE}"]
    derived = ["mine", "de", "en", "dataset:org/data", "arxiv:2106.09685", "arxiv:1910.09700", "license:mit"]
    assert now.tags == [*(before.tags or []), *derived]
    assert info(here, revision="v1").tags == info(here, "team/x.v1").tags == before.tags


def test_a_repository_without_a_version_has_its_cards_words(here: Hub) -> None:
    here.create("team/new")
    assert info(here, "team/new").tags == []
    here.committed("team/new", {CARD: b"---\nlicense: mit\nbase_model: org/base\npipeline_tag: text-generation\n---\n"})
    found = info(here, "team/new")
    assert (found.tags, found.pipeline_tag) == (["text-generation", "license:mit"], "text-generation")
    assert found.card_data is not None
    assert found.card_data.base_model == "org/base"


def test_the_base_that_is_served_is_the_one_that_is_said(here: Hub) -> None:
    here.committed("team/x", {CARD: WRITTEN.encode()})
    here.registry.alias_base(BASE, "org/renamed")
    found = info(here)
    assert found.card_data is not None
    assert found.card_data.base_model == "org/renamed"
    assert [tag for tag in found.tags or [] if tag.startswith("base_model:")] == [
        "base_model:org/renamed",
        "base_model:adapter:org/renamed",
    ]


def test_models_are_found_by_what_their_cards_say(here: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Page by page, and however many lie between."""
    for number in range(7):
        files = in_files(write_one(tmp_path / f"{number}", lora_alpha=number + 1))
        here.create(f"team/n{number}")
        words = "license: mit\ntags: [mine]" if number % 3 == 0 else "license: apache-2.0"
        here.committed(f"team/n{number}", {**files, CARD: f"---\n{words}\n---\n".encode()})
    monkeypatch.setattr(listing, "_LOOKED_THROUGH", 2)
    wanted = ["team/n0", "team/n3", "team/n6"]
    for query in ("filter=license:mit", "filter=license:mit&limit=1", "filter=license:mit,mine", "filter=license:mit&full=true"):
        assert listed(here, query) == wanted, query
    assert listed(here, "filter=license:mit&sort=createdAt") == wanted[::-1]
    assert listed(here, f"filter=license:mit&filter=base_model:adapter:{BASE}&filter=peft") == wanted
    assert listed(here, "filter=license:mit&search=n3") == ["team/n3"]
    assert listed(here, "filter=license:none") == []
    here.registry.set_tags("n1@1", {"stage": "done"})
    assert listed(here, "filter=stage") == listed(here, "filter=stage=done") == ["team/n1"]
    assert listed(here, "filter=stage=open") == []


def test_an_adapter_and_a_merged_checkpoint_are_of_a_base_in_their_own_way(here: Hub, tmp_path: Path) -> None:
    """As their own tags say."""
    from safetensors.torch import save_file
    from torch import ones

    base = tmp_path / "base"
    base.mkdir()
    (base / "config.json").write_text('{"model_type": "llama"}')
    save_file({"model.layers.0.self_attn.q_proj.weight": ones(64, 64)}, base / "model.safetensors")
    here.registry.merge(base, [str(tmp_path / "a")], tmp_path / "merged", name="whole")
    assert f"base_model:merge:{BASE}" in (info(here, "team/whole").tags or [])
    assert listed(here, f"filter=base_model:{BASE}") == ["team/whole", "team/x"]
    relations = {"merge": ["team/whole"], "adapter": ["team/x"], "finetune": [], "quantized": []}
    for relation, found in relations.items():
        assert listed(here, f"filter=base_model:{relation}:{BASE}&author=team") == found
    assert listed(here, f"filter=base_model:adapter:{BASE}&filter=base_model:merge:{BASE}") == []
    assert listed(here, f"filter=base_model:merge:{BASE}&filter=lora") == []


def test_what_has_no_version_yet_is_listed_with_its_namespace(here: Hub) -> None:
    """For those who may see it, and where nothing is asked that only a version has."""
    for name in ("team/empty", "other/empty"):
        assert here.ask("POST", "/api/repos/create", who="admin", json={"organization": name.split("/")[0], "name": "empty"})
    here.create("team/hidden", private=True)
    here.committed("team/empty", {CARD: b"---\nlicense: mit\n---\n"})
    assert listed(here, "author=team") == ["team/x", "team/empty", "team/hidden"]
    assert listed(here, "author=team&limit=1")[:2] == ["team/x", "team/empty"]
    assert listed(here, "author=team&search=EMP") == listed(here, "author=team&filter=license:mit") == ["team/empty"]
    for query in ("filter=peft", "filter=lora", "pipeline_tag=text-generation", f"filter=base_model:{BASE}", "filter=license:none"):
        assert "team/empty" not in listed(here, f"author=team&{query}")
    assert listed(here, "search=empty") == []
    assert here.get("/api/models?author=team", who="other") == []
    here.registry.yank("x@1", "a test")
    assert listed(here, "author=team") == ["team/empty", "team/hidden"]


def test_a_card_that_lies_damaged_does_not_keep_others_from_being_listed(here: Hub) -> None:
    data = b"---\nlicense: mit\n---\n"
    here.committed("team/x", {CARD: data})
    from registry.domain.digest import Digest

    digest = Digest.of(data).hex
    (lost,) = [path for path in here.store.rglob("*") if path.is_file() and digest in str(path).replace("/", "")]
    lost.unlink()
    assert listed(here, "author=team") == ["team/x"]


_plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
_result = st.fixed_dictionaries(
    {},
    optional={
        "task": _plain | st.just({"type": "x"}),
        "dataset": _plain | st.just({"type": "x", "name": "x"}),
        "metrics": _plain | st.just([{"type": "acc", "value": 1}]),
        "source": _plain | st.just({"name": "x"}) | st.just({"name": "x", "url": "y"}),
    },
)
_index = _plain | st.lists(st.fixed_dictionaries({"name": st.just("x") | _plain, "results": st.lists(_result, max_size=2)}))
_names = st.sampled_from(
    ["tags", "license", "language", "datasets", "base_model", "pipeline_tag", "library_name", "model_name", "eval_results",
     "self", "ignore_metadata_errors", "to_dict", "__class__", "_id", "metrics"]
) | st.text(max_size=5)  # fmt: skip


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(fields=st.dictionaries(_names, _plain, max_size=6), index=st.none() | _index)
def test_no_card_breaks_whoever_reads_it(here: Hub, fields: dict[str, Any], index: object) -> None:
    text = json.dumps({**fields, "model-index": index})
    here.committed("team/x", {CARD: f"---\n{text}\n---\n".encode()}, title=text[:50])
    found = info(here)
    assert found.card_data is not None
    found.card_data.to_dict()
    assert found.card_data.base_model == BASE
    assert {"peft", f"base_model:adapter:{BASE}"} <= set(found.tags or [])
    assert listed(here, "author=team") == ["team/x"]


@pytest.mark.parametrize(
    "written",
    [b"---\na: [\n---\n", b"---\na: &x 1\nb: *x\n---\n", b"---\n- 5\n---\n", b"\xff\xfe", b"", b"---\nlicense: mit\n",
     b"---\nlicense: \"\\ud800\"\nx: .nan\n---\n", b"---\nlicense: mit\n" + b"#" * (1 << 21), b"---\nx: " + b"y" * (1 << 17)],
)  # fmt: skip
def test_a_card_that_cannot_be_read_is_as_good_as_none(here: Hub, written: bytes) -> None:
    here.committed("team/x", {CARD: written})
    found = info(here)
    assert found.card_data is not None
    assert found.card_data.base_model == BASE
    assert "license:mit" not in (found.tags or [])
    assert write_yaml(found.card_data.to_dict())
