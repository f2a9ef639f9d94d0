"""Model cards, read back by huggingface_hub and by our own reader."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from huggingface_hub import EvalResult, ModelCard
from hypothesis import given
from hypothesis import strategies as st

from registry.connect import Registry
from registry.domain.base_model import BaseModelId
from registry.domain.digest import Digest
from registry.domain.evaluation import Evaluation
from registry.domain.lineage import LineageEdge
from registry.domain.manifest import Manifest, Target
from registry.formats.model_card import parse_card
from registry.formats.model_index import read_model_index, write_model_index
from registry.operations.card import CardSubject, model_card
from tests.conftest import WriteAdapter
from tests.hub.conftest import Command


def manifest(**facts: object) -> Manifest:
    known: dict[str, object] = {
        "peft_type": "LORA", "variant": "lora", "base_model": BaseModelId("org/base", raw="org/base"), "task_type": "CAUSAL_LM",
        "targets": (Target("model.layers.0.q_proj", 8, 16.0, 2.0),), "tensors": (), "files": (),
        "tensor_identity": Digest.of(b"[]"),
    }  # fmt: skip
    return Manifest(**{**known, **facts})  # type: ignore[arg-type]


def test_the_hubs_own_reader_finds_what_was_stated(store: Registry, write_adapter: WriteAdapter) -> None:
    directory = write_adapter("support", base_model_name_or_path="org/base")
    fields = ["license: mit", "language: [no, en]", "tags: [chat, 'base_model:adapter:/tmp/x']", "datasets: [org/data, /home/d]"]
    (directory / "README.md").write_text("\n".join(["---", *fields, "eval_results: 5", "---", "# Hi", ""]))
    store.push(directory, evaluations=["arc_easy/acc=0.81"])
    store.add_evaluations("support", "arc_easy/acc=0.83", "openai/gsm8k:main/exact_match=1e-5")
    text, findings = store.card("support", to="hf://acme/support")
    card = ModelCard(text)
    assert findings == ()
    assert card.data.to_dict() == {
        "library_name": "peft",
        "base_model": "org/base",
        "base_model_relation": "adapter",
        "pipeline_tag": "text-generation",
        "license": "mit",
        "language": ["no", "en"],
        "datasets": ["org/data"],
        "tags": ["chat", "peft", "lora", "base_model:adapter:org/base"],
        "model-index": card.data.to_dict()["model-index"],
    }
    assert card.data.model_name == "local/support"
    assert card.data.eval_results == [
        EvalResult("text-generation", "arc_easy", "arc_easy", "acc", 0.83),
        EvalResult("text-generation", "openai/gsm8k", "openai/gsm8k:main", "exact_match", 1e-5, dataset_config="main"),
    ]
    assert "# Hi" in card.content
    assert 'PeftModel.from_pretrained(base, "acme/support", revision="v1")' in text
    assert store.card("support", to="hf://acme/support") == (text, ())


_words = st.from_regex(r"[A-Za-z][A-Za-z0-9_/.-]{0,20}", fullmatch=True)
_scores = st.lists(
    st.builds(
        Evaluation,
        metric=_words,
        value=st.floats(allow_nan=False, allow_infinity=False),
        task=_words,
        split=st.none() | _words,
        stderr=st.none() | st.floats(0, 1),
        n=st.none() | st.integers(1, 10**9),
    ),
    max_size=6,
    unique_by=lambda each: (each.task, each.metric, each.split),
)


@given(_scores)
def test_every_score_is_read_back_as_it_was(scores: list[Evaluation]) -> None:
    text, _ = model_card(CardSubject("acme/x", manifest(), "org/base", scores))
    stated = {(each.task, each.metric, each.split, each.value) for each in scores}
    ours = read_model_index(parse_card(text.encode()).model_index, where="README.md")
    assert {(each.task, each.metric, each.split, each.value) for each in ours} == stated
    theirs = ModelCard(text).data.eval_results or []
    assert {(each.dataset_name, each.metric_type, each.dataset_split, each.metric_value) for each in theirs} == stated
    args = {"stderr", "n"}
    assert all(set(each.metric_args or {}) <= args for each in theirs)


def test_two_filters_of_a_metric_are_two_scores() -> None:
    scores = [Evaluation("exact_match", value, task="gsm8k", filter=each) for value, each in ((0.1, "strict"), (0.2, "flexible"))]
    index = write_model_index(scores, name="x", task_type="text-generation")
    assert [(each.metric, each.value) for each in read_model_index(index, where="x")] == [
        ("exact_match,strict", 0.1),
        ("exact_match,flexible", 0.2),
    ]


def test_a_score_that_only_the_card_states_is_kept() -> None:
    index = write_model_index(
        [Evaluation("acc", 0.5, task="arc"), Evaluation("f1", 0.6, task="squad")], name="x", task_type="other"
    )
    written = f"---\nmodel-index: {json.dumps(index)}\n---\n".encode()
    text, _ = model_card(CardSubject("acme/x", manifest(), "org/base", [Evaluation("acc", 0.9, task="arc")], written))
    assert [(one.metric_type, one.metric_value) for one in ModelCard(text).data.eval_results] == [("acc", 0.9), ("f1", 0.6)]


HOSTILE = [
    "]: x\n---\nlicense: stolen", "a: b\n- c", "` <script>alert(1)</script> `", "|---|\n# Heading", "[x](javascript:alert(1))",
    "\u202egnp.exe", "\x1b[31mred", "&anchor", "*alias", "!!python/object:os.system", "{{ config }}", "'", '"', "#", "```\n\n# out",
    "<!-- /adapter-registry -->",
]  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE)
def test_what_strangers_wrote_stays_text(text: str) -> None:
    """Nothing that an adapter brings adds a key, ends the front matter, or is Markdown or HTML in our section."""
    hostile = manifest(
        variant=text,
        targets=(Target(f"model.{text}", 8, 16.0, 2.0),),
        extra_modules=(text,),
        training={"optimizer": text, "license": text, "datasets": [text], "framework_versions": {text: text}},
        lineage=(LineageEdge(Digest.of(b"parent"), text if text.isprintable() else "merged-with", 0.5, text),),
    )
    scores = [Evaluation(text, 0.5, task=text, filter=text, split=text)]
    card, _ = model_card(CardSubject(text, hostile, "org/base", scores, reference=text))
    read = ModelCard(card)
    assert set(read.data.to_dict()) == {
        "library_name", "base_model", "base_model_relation", "pipeline_tag", "license", "tags", "model-index",
    }  # fmt: skip
    assert read.data.license == text
    body = card.partition("<!-- adapter-registry -->")[2]
    outside = re.sub(r"`[^`\n]*`", "", body.partition("```python")[0] + body.partition("```\n")[2])
    for sign in ("<script", "javascript:", "\x1b", "\u202e", "# Heading", "# out", "alert"):
        assert sign not in outside
    assert card.count("<!-- adapter-registry -->") == 1
    assert all(line.isprintable() for line in body.split("\n"))


@given(st.text(max_size=200))
def test_whatever_was_written_there_is_a_card(written: str) -> None:
    """No README makes a card that the Hub's reader refuses, and none changes what the registry knows."""
    data = written.encode("utf-8", "surrogatepass")
    text, _ = model_card(CardSubject("acme/x", manifest(), "org/base", written=b"---\n" + data + b"\n---\n" + data))
    assert ModelCard(text).data.base_model == "org/base"


def test_a_card_made_of_a_card_is_the_same() -> None:
    subject = CardSubject("acme/x", manifest(), "org/base", [Evaluation("acc", 0.5, task="arc")], b"# Mine\n\nWords.\n")
    text, _ = model_card(subject)
    again = CardSubject("acme/x", manifest(), "org/base", subject.evaluations, text.encode())
    assert model_card(again) == (text, ())


def test_an_empty_template_goes_and_a_broken_card_is_said() -> None:
    template = "---\nbase_model: /home/me/x\n---\n# Model Card for Model ID\n\n[More Information Needed]\n"
    text, findings = model_card(CardSubject("acme/x", manifest(), "org/base", written=template.encode()))
    assert ("More Information Needed" in text, "/home" in text, findings) == (False, False, ())
    _, findings = model_card(CardSubject("acme/x", manifest(), "org/base", written=b"---\na: [\n---\n"))
    assert [each.rule for each in findings] == ["unreadable-card"]


LOCAL = "/home/alice/secret/llama"


@pytest.mark.parametrize(
    ("written", "sent"),
    [
        (f"Of {LOCAL}.", "Of org/base."),
        (f'`AutoModel.from_pretrained("{LOCAL}/")`', '`AutoModel.from_pretrained("org/base/")`'),
        (f"{LOCAL}, and {LOCAL}/config.json", "org/base, and org/base/config.json"),
        (f"{LOCAL}-2 is newer", f"{LOCAL}-2 is newer"),
        (f"{LOCAL}.v2, {LOCAL}2 and {LOCAL}_old", f"{LOCAL}.v2, {LOCAL}2 and {LOCAL}_old"),
        (f"a copy: /mnt{LOCAL}", f"a copy: /mnt{LOCAL}"),
    ],
)
def test_only_the_base_itself_is_called_by_its_repository(written: str, sent: str) -> None:
    """Another directory whose name begins so is another model."""
    for raw in (LOCAL, f"{LOCAL}/"):
        local = manifest(base_model=BaseModelId(None, raw=raw))
        text, _ = model_card(CardSubject("acme/x", local, "org/base", written=f"# Mine\n{written}\n".encode()))
        assert f"# Mine\n{sent}\n" in text


@pytest.mark.parametrize("raw", [".", "./", "~", "a.b\\", r"C:\models\llama"])
def test_a_base_that_could_be_any_word_changes_no_word(raw: str) -> None:
    local = manifest(base_model=BaseModelId(None, raw=raw))
    words = "One. Two, a.b ~ three; C:\\models\\llama-2."
    text, _ = model_card(CardSubject("acme/x", local, "org/base", written=f"# Mine\n{words}\n".encode()))
    assert words in text


def test_fields_that_the_hub_takes_in_several_shapes_are_kept() -> None:
    written = b"---\nlicense: [mit, apache-2.0]\nlicense_name: own\nwidget: [{text: hi}]\ntags: {a: b}\nself: 1\n---\n"
    data = ModelCard(model_card(CardSubject("acme/x", manifest(), "org/base", written=written))[0]).data.to_dict()
    assert (data["license"], data["license_name"], data["widget"]) == (["mit", "apache-2.0"], "own", [{"text": "hi"}])
    assert data["tags"] == ["peft", "lora", "base_model:adapter:org/base"]


def test_a_base_that_nobody_knows_is_left_open(store: Registry, write_adapter: WriteAdapter) -> None:
    store.push(write_adapter("mine", base_model_name_or_path="/home/me/base"))
    text, _ = store.card("mine")
    assert "base_model" not in ModelCard(text).data.to_dict()
    assert "/home/me" not in text
    assert ModelCard(store.card("mine", base="org/base")[0]).data.base_model == "org/base"


def test_the_command_prints_what_a_file_should_have(command: Command, write_adapter: WriteAdapter, tmp_path: Path) -> None:
    directory = write_adapter("mine", base_model_name_or_path="org/base")
    (directory / "README.md").write_text("Fahne: \U0001f3f4\u200d\u2620\ufe0f\n")
    command("push", directory)
    printed = command("card", "mine", json=False)
    assert (printed.code, printed.out) == (0, command("card", "mine").document["card"])
    refused = command("card", "other")
    assert (refused.code, refused.error["code"]) == (4, "unknown-adapter")


def test_a_hub_that_does_not_answer_is_said(command: Command, write_adapter: WriteAdapter) -> None:
    """The card is what the public Hub would get."""
    command("push", write_adapter("mine", base_model_name_or_path="org/base"))
    away = Command(command.place, "http://127.0.0.1:9")("card", "mine", "--to", "hf://acme/mine").document
    assert [each["rule"] for each in away["findings"]] == ["hub-not-asked"]
    assert 'from_pretrained(base, "acme/mine", revision="v1")' in away["card"]
    assert command("card", "mine", "--to", "hf://acme/mine").document == {"card": away["card"], "findings": []}
