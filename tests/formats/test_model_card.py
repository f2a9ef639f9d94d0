"""Model cards: front matter, model-index, and what the generated prose says about the training."""

from __future__ import annotations

import json

import pytest
from huggingface_hub import EvalResult, ModelCard, ModelCardData
from hypothesis import given, settings
from hypothesis import strategies as st

from registry.domain.evaluation import Evaluation
from registry.errors import MalformedFileError, MalformedResultsError
from registry.formats.model_card import Card, card_facts, front_matter, parse_card
from registry.formats.model_index import read_model_index

AXOLOTL = b"""---
library_name: peft
license: mit
base_model: org/base
tags: [axolotl, generated_from_trainer]
datasets:
- /data/made-up.jsonl
---

[<img src="badge.png" alt="Built with Axolotl"/>](https://github.com/axolotl-ai-cloud/axolotl)
<details><summary>See axolotl config</summary>

axolotl version: `0.9.1.post1`
```yaml
base_model: org/base-in-config
adapter: qlora
sequence_len: 2048 # reduced
learning_rate: 2e-4
num_epochs: 3
micro_batch_size: 2
gradient_accumulation_steps: 4
optimizer: adamw_bnb_8bit
lr_scheduler: cosine
datasets:
  - path: org/instructions
    type: alpaca
  - path: org/more
wandb_project:
```

</details><br>

The following hyperparameters were used during training:
- learning_rate: 0.1
- train_batch_size: 2
- seed: 42
- optimizer: Use adamw_bnb_8bit with betas=(0.9,0.999)
- lr_scheduler_warmup_steps: 10
- mixed_precision_training: Native AMP

### Framework versions

- PEFT 0.15.1
- Pytorch 2.5.1+cu124
"""

TRL = b"""---
base_model: org/base
tags:
- trl
- sft
---
# Model Card for x

It has been trained using [TRL](https://github.com/huggingface/trl).

This model was trained with GRPO, a method introduced in [a paper](https://huggingface.co/papers/1).

### Framework versions

- TRL: 0.16.0
- Transformers: 4.51.0
"""


def test_front_matter_is_what_stands_between_the_first_two_fences() -> None:
    assert front_matter(b"---\na: 1\n---\n# x\n---\n") == "a: 1"
    assert front_matter("\ufeff\r\n---\r\na: 1\r\nb: 2\r\n--- \r\n".encode()) == "a: 1\nb: 2"
    assert front_matter(b"---\n---\n") == ""
    assert front_matter(b"# x\n\n---\na: 1\n---\n") is None
    assert front_matter(b"") is None
    assert front_matter(b"----\na\n----\n") is None


def test_front_matter_that_is_not_closed_was_cut_off() -> None:
    with pytest.raises(MalformedResultsError, match=r"begins in line 2 is not closed by line 4") as refused:
        front_matter(b"\n---\na: 1\nb: 2", error=MalformedResultsError)
    assert refused.value.code == "truncated-file"


def test_the_card_says_what_it_is_made_of() -> None:
    card = parse_card(AXOLOTL)
    assert (card.base_model, card.library_name, card.license) == (("org/base",), "peft", "mit")
    assert card.tags == ("axolotl", "generated_from_trainer")
    assert card.datasets == ("/data/made-up.jsonl",)


def test_fields_of_another_type_are_as_good_as_absent() -> None:
    card = parse_card(b"---\nbase_model: 7\ntags: {a: b}\nlicense: [mit]\ndatasets: [1, x, x, '']\n---\nhello")
    assert card == Card(datasets=("x",), body="hello", body_line=7)
    assert parse_card(b"---\n- a\n- b\n---\n").tags == ()


@pytest.mark.parametrize("line", ["a: &x 1", "a: [", "a: 1\na: 2", "a: !!python/name:os.system x"])
def test_broken_front_matter_is_an_error_with_its_line_in_the_file(line: str) -> None:
    with pytest.raises(MalformedFileError, match=r"^README\.md: .* line [3456]") as refused:
        parse_card(f"---\n\n{line}\n---\n".encode())
    assert refused.value.hint


def test_an_axolotl_config_counts_more_than_the_list_and_the_front_matter() -> None:
    assert card_facts(parse_card(AXOLOTL)) == {
        "base_model": "org/base-in-config",
        "datasets": ["org/instructions", "org/more"],
        "framework_versions": {"axolotl": "0.9.1.post1", "peft": "0.15.1", "pytorch": "2.5.1+cu124"},
        "gradient_accumulation_steps": 4,
        "learning_rate": 2e-4,
        "library_name": "peft",
        "license": "mit",
        "lr_scheduler": "cosine",
        "method": "qlora",
        "mixed_precision": "Native AMP",
        "num_train_epochs": 3,
        "optimizer": "adamw_bnb_8bit",
        "seed": 42,
        "sequence_length": 2048,
        "tags": ["axolotl", "generated_from_trainer"],
        "tools": ["axolotl"],
        "train_batch_size": 2,
        "warmup_steps": 10,
    }


def test_an_axolotl_config_that_is_no_yaml_is_an_error_with_its_line_in_the_file() -> None:
    broken = AXOLOTL.replace(b"adapter: qlora", b"adapter: [")
    with pytest.raises(MalformedFileError, match=r"README\.md \(Axolotl config\): .* line 18 column 1$"):
        card_facts(parse_card(broken))


def test_trl_says_its_method_and_versions() -> None:
    facts = card_facts(parse_card(TRL))
    assert facts["stage"] == "grpo"
    assert facts["tools"] == ["trl"]
    assert facts["framework_versions"] == {"transformers": "4.51.0", "trl": "0.16.0"}


def test_prose_that_merely_sounds_like_trl_says_nothing() -> None:
    assert card_facts(parse_card(b"This model was trained with care.")) == {}


def test_a_card_that_the_trainer_wrote_is_read_back() -> None:
    from transformers import modelcard

    written = modelcard.TrainingSummary(
        "x",
        license="mit",
        tags=["generated_from_trainer"],
        finetuned_from="org/base",
        tasks="text-classification",
        dataset="GLUE",
        dataset_tags="glue",
        dataset_args="mrpc",
        dataset_metadata=[{"config": "mrpc", "split": "validation"}],
        eval_results={"Loss": 0.25, "Accuracy": 0.75},
        hyperparameters={
            "learning_rate": 5e-05,
            "train_batch_size": 8,
            "num_epochs": 3.0,
            "lr_scheduler_type": "linear",
        },
    ).to_model_card()
    card = parse_card(written.encode())
    facts = card_facts(card)
    assert facts["base_model"] == "org/base"
    assert facts["datasets"] == ["glue"]
    assert (facts["learning_rate"], facts["train_batch_size"]) == (5e-05, 8)
    assert (facts["num_train_epochs"], facts["lr_scheduler"]) == (3.0, "linear")
    assert "transformers" in dict(facts["framework_versions"])  # type: ignore[call-overload]
    assert read_model_index(card.model_index, where="README.md") == (
        Evaluation(
            suite="model-index", task="glue:mrpc", metric="accuracy", value=0.75, higher_is_better=True,
            split="validation", source="README.md",
        ),
    )  # fmt: skip


RESULT = st.builds(
    EvalResult,
    task_type=st.just("text-generation"),
    dataset_type=st.sampled_from(["openai/gsm8k", "boolq"]),
    dataset_name=st.just("A name"),
    dataset_config=st.none() | st.just("main"),
    dataset_split=st.none() | st.just("test"),
    metric_type=st.sampled_from(["accuracy", "wer", "f1"]),
    metric_value=st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(10**6), 10**6),
)


@settings(max_examples=50)
@given(st.lists(RESULT, min_size=1, max_size=4, unique_by=lambda r: (r.unique_identifier, r.metric_type)))
def test_what_huggingface_hub_writes_is_read_back(results: list[EvalResult]) -> None:
    data = ModelCardData(model_name="x", eval_results=results, license="mit", tags=["lora"])
    card = parse_card(str(ModelCard(f"---\n{data.to_yaml()}\n---\n# x")).encode())
    found = read_model_index(card.model_index, where="README.md")
    assert sorted((e.task or "", e.metric, e.split or "", e.value) for e in found) == sorted(
        (
            r.dataset_type + (f":{r.dataset_config}" if r.dataset_config else ""),
            r.metric_type,
            r.dataset_split or "",
            float(r.metric_value),
        )
        for r in results
    )
    assert card.tags == ("lora",)


def test_the_name_tells_metrics_of_one_type_apart() -> None:
    index = [
        {
            "results": [
                {
                    "dataset": {"name": "Summaries"},
                    "metrics": [
                        {"type": "rouge", "name": "Rouge1", "value": 0.5},
                        {"type": "rouge", "name": "Rouge2", "value": 0.25},
                        {"type": "wer", "name": "Wer", "value": 3},
                        {"type": "bleu", "value": "0.5"},
                    ],
                }
            ]
        }
    ]
    found = read_model_index(index, where="README.md")
    assert [(e.task, e.metric, e.value, e.higher_is_better) for e in found] == [
        ("Summaries", "Rouge1", 0.5, True),
        ("Summaries", "Rouge2", 0.25, True),
        ("Summaries", "wer", 3.0, False),
    ]


def test_a_score_that_is_not_finite_is_an_error_that_names_it() -> None:
    index = [{"results": [{"dataset": {"type": "boolq"}, "metrics": [{"type": "acc", "value": float("nan")}]}]}]
    with pytest.raises(MalformedResultsError, match="acc of boolq is nan"):
        read_model_index(index, where="README.md")


@given(st.data())
def test_any_bytes_give_a_card_with_json_facts_or_the_error(data: st.DataObject) -> None:
    sample = data.draw(st.sampled_from([AXOLOTL, TRL, b"---\n---\n"]))
    start = data.draw(st.integers(0, len(sample)))
    end = data.draw(st.integers(start, min(len(sample), start + 40)))
    changed = sample[:start] + data.draw(st.binary(max_size=12) | st.just(b"```yaml\n")) + sample[end:]
    try:
        facts = card_facts(parse_card(changed))
    except MalformedFileError:
        return
    json.dumps(facts, allow_nan=False, ensure_ascii=False).encode()
