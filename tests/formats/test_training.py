"""How an adapter was trained: what its sidecars say, and a warning for each that cannot be read."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from registry.domain.finding import Severity
from registry.formats.training import SIDECARS, training_facts

FILES = {
    "trainer_state.json": b'{"global_step": 40, "epoch": 2.0, "max_steps": 40, "log_history": [{"loss": 1.0},'
    b' {"eval_loss": 0.5}], "train_batch_size": 8, "best_metric": NaN, "num_input_tokens_seen": 0}',
    "train_results.json": b'{"train_loss": 0.75, "train_runtime": 9.5, "epoch": 1.99}',
    "all_results.json": b'{"train_loss": 0.75, "eval_loss": 0.5, "eval_samples": 12}',
    "training_args.yaml": b"learning_rate: 1.0e-4\nstage: sft\nfinetuning_type: lora\ndataset: a,b\ncutoff_len: 2048\n"
    b"model_name_or_path: org/base\nlr_scheduler_type: cosine\noptim: adamw_torch\nlora_target: all\nwarmup_steps: 0\n",
    "llamaboard_config.yaml": b"top.model_name: Base-7B\ntrain.learning_rate: 5e-5\ntrain.num_train_epochs: '3.0'\n"
    b"train.seed: '7'\ntrain.dataset: [c]\n",
    "trainer_log.jsonl": b'{"current_steps": 10, "total_steps": 40, "loss": 2.0, "epoch": 0.5}\n',
    "README.md": b"---\nlicense: mit\ntags: [llama-factory, lora]\n---\n### Framework versions\n\n- PEFT 0.15.1\n",
    "args.json": b'{"train_type": "lora", "per_device_train_batch_size": 4, "gradient_accumulation_steps": 16,'
    b' "dataset": ["d"], "max_steps": -1, "weight_decay": 0.1}',
    "optimizer.pt": b"\x80",
}


def test_the_facts_of_all_files_are_one_document() -> None:
    facts, findings = training_facts(FILES)
    assert findings == ()
    assert facts == {
        "base_model": "org/base",
        "datasets": ["a", "b"],
        "epoch": 2.0,
        "eval_loss": 0.5,
        "eval_samples": 12,
        "framework_versions": {"peft": "0.15.1"},
        "global_step": 40,
        "gradient_accumulation_steps": 16,
        "last_loss": 1.0,
        "learning_rate": 1e-4,
        "license": "mit",
        "lr_scheduler": "cosine",
        "max_steps": 40,
        "method": "lora",
        "num_train_epochs": 3.0,
        "optimizer": "adamw_torch",
        "seed": 7,
        "sequence_length": 2048,
        "stage": "sft",
        "tags": ["llama-factory", "lora"],
        "tools": ["llama-factory"],
        "train_batch_size": 8,
        "train_loss": 0.75,
        "train_runtime": 9.5,
        "warmup_steps": 0,
        "weight_decay": 0.1,
    }
    assert list(facts) == sorted(facts)


def test_the_order_in_which_files_are_given_changes_nothing() -> None:
    assert json.dumps(training_facts(FILES)[0]) == json.dumps(training_facts(dict(reversed(FILES.items())))[0])


def test_no_files_no_facts() -> None:
    assert training_facts({}) == ({}, ())
    assert training_facts({"notes.txt": b"x"}) == ({}, ())


def test_a_sidecar_that_cannot_be_read_is_a_warning_and_the_others_still_count() -> None:
    broken = {**FILES, "trainer_state.json": FILES["trainer_state.json"][:50], "README.md": b"---\na: &x 1\n---\n"}
    facts, findings = training_facts(broken)
    assert [(finding.rule, finding.severity, finding.where) for finding in findings] == [
        ("unreadable-sidecar", Severity.WARNING, "trainer_state.json"),
        ("unreadable-sidecar", Severity.WARNING, "README.md"),
    ]
    assert "trainer_state.json: ends in the middle, line 1 column" in findings[0].message
    assert all(finding.fix for finding in findings)
    assert facts["train_loss"] == 0.75
    assert facts["last_loss"] == 2.0
    assert "license" not in facts


def test_sidecars_of_another_shape_say_nothing() -> None:
    shapes = {
        "trainer_state.json": b"[]",
        "all_results.json": b"1",
        "training_args.yaml": b"- a",
        "README.md": b"\xff\xfe",
        "args.json": b'{"learning_rate": "auto", "seed": true, "dataset": [1, {"path": null}], "optim": ["a"]}',
    }
    assert training_facts(shapes) == ({"tools": ["llama-factory"]}, ())


@given(st.data())
def test_it_never_raises_and_speaks_json(data: st.DataObject) -> None:
    files = {}
    for name in data.draw(st.sets(st.sampled_from(list(SIDECARS)))):
        whole = FILES.get(name, b"{}")
        start = data.draw(st.integers(0, len(whole)))
        end = data.draw(st.integers(start, len(whole)))
        inserted = data.draw(
            st.binary(max_size=8) | st.sampled_from([b"NaN", b"1e400", b"9" * 400, b'"\\ud800"', b"[", b"null"])
        )
        files[name] = whole[:start] + inserted + whole[end:]
    facts, findings = training_facts(files)
    assert json.loads(json.dumps(facts, allow_nan=False, ensure_ascii=False).encode()) == facts
    assert {finding.where for finding in findings} <= set(files)


def test_what_is_longer_than_anybody_would_write_is_not_a_fact() -> None:
    card = "---\nlicense: " + "x" * 501 + "\ntags: [" + ", ".join(f"t{i}" for i in range(200)) + "]\n---\n"
    facts, findings = training_facts({"README.md": card.encode()})
    assert findings == ()
    assert facts == {"tags": [f"t{i}" for i in range(100)]}
