"""Results files: the form is told by the content, the error names the place."""

from __future__ import annotations

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from registry.domain.evaluation import Evaluation
from registry.errors import InvalidInputError, MalformedResultsError
from registry.formats.results import is_assignment, parse_assignment, read_results

# name: (file name, bytes, suite, task, metric, value)
FORMS: dict[str, tuple[str, bytes, str, str | None, str, float]] = {
    "lm-eval, new": (
        "results_2025.json",
        b'{"results": {"boolq": {"alias": "boolq", "acc,none": 0.5}}, "higher_is_better": {"boolq": {"acc": true}}}',
        "lm-evaluation-harness", "boolq", "acc", 0.5,
    ),
    "lm-eval, old": (
        "boolq-v1-res.json", b'{"results": {"boolq": {"acc": 0.25, "acc_stderr": 0.5}}, "versions": {"boolq": 1}}',
        "lm-evaluation-harness", "boolq", "acc", 0.25,
    ),
    "lighteval": (
        "results.json", b'{"config_general": {}, "results": {"a|b|0": {"acc": 1}, "all": {"acc": 1}}}',
        "lighteval", "a|b|0", "acc", 1.0,
    ),
    "trainer state": (
        "trainer_state.json", b'{"log_history": [{"eval_loss": 2.5, "step": 1}], "best_metric": null}',
        "trainer", None, "loss", 2.5,
    ),
    "trainer results": ("all_results.json", b'{"eval_wer": 0.5, "epoch": 1.0}', "trainer", None, "wer", 0.5),
    "trainer log": (
        "trainer_log.jsonl", b'{"loss": 3.0, "current_steps": 5}\n\n{"eval_loss": 1.5}\n', "trainer", None, "loss", 1.5,
    ),
    "eval_results": (
        "hle.yaml", b"- dataset: {id: cais/hle, task_id: default}\n  value: 20.9\n",
        "eval-results", "cais/hle:default", "score", 20.9,
    ),
    "eval_results as JSON": (
        "hle.json", b'[{"dataset": {"id": "cais/hle"}, "value": 20.9}]', "eval-results", "cais/hle", "score", 20.9,
    ),
    "card": (
        "README.md",
        b"---\nmodel-index:\n- name: x\n  results:\n  - task: {type: t}\n    dataset: {type: d, name: D}\n"
        b"    metrics:\n    - {type: acc, value: 0.5}\n---\n# x\n",
        "model-index", "d", "acc", 0.5,
    ),
    "model-index alone": (
        "index.yml", b"model-index:\n- results:\n  - task: {type: t}\n    metrics: [{type: f1, value: 0.5}]\n",
        "model-index", "t", "f1", 0.5,
    ),
    "a JSON without a name": ("-", b' \n {"eval_f1": 0.5}', "trainer", None, "f1", 0.5),
}  # fmt: skip


@pytest.mark.parametrize(("name", "data", "suite", "task", "metric", "value"), FORMS.values(), ids=FORMS)
def test_every_form_is_known_by_its_content(
    name: str, data: bytes, suite: str, task: str | None, metric: str, value: float
) -> None:
    (found,) = read_results(data, where=f"some/where/{name}")
    assert (found.suite, found.task, found.metric, found.value) == (suite, task, metric, value)
    assert found.source == name


@pytest.mark.parametrize("cut", [0.3, 0.6, 0.95])
@pytest.mark.parametrize("form", [name for name, form in FORMS.items() if form[0].endswith(".json")])
def test_a_json_file_cut_off_in_the_middle_is_an_error_that_names_the_place(form: str, cut: float) -> None:
    name, data, *_ = FORMS[form]
    with pytest.raises(MalformedResultsError, match=rf"^{name}: ends in the middle, line 1 column \d+$") as refused:
        read_results(data[: int(len(data) * cut)], where=name)
    assert refused.value.code == "truncated-file"
    assert refused.value.hint


def test_other_forms_cut_off_name_the_place_too() -> None:
    with pytest.raises(MalformedResultsError, match=r"^log\.jsonl:2: ends in the middle"):
        read_results(b'{"eval_loss": 1.5}\n{"eval_lo', where="log.jsonl")
    with pytest.raises(
        MalformedResultsError, match=r"^README\.md: ends in the middle: .* line 1 is not closed by line 2"
    ):
        read_results(b"---\nmodel-index:", where="README.md")


# name: (file name, bytes)
WITHOUT_A_SCORE = {
    "no task": ("r.json", b'{"results": {}}'),
    "no number": ("r.json", b'{"results": {"boolq": {"alias": "boolq", "acc,none": "N/A"}}}'),
    "nothing evaluated": ("trainer_state.json", b'{"log_history": [{"loss": 1.0}]}'),
    "only speeds": ("all_results.json", b'{"epoch": 1.0, "train_runtime": 3.5}'),
    "another object": ("r.json", b'{"a": 1}'),
    "a number": ("r.json", b"1"),
    "an empty list": ("r.json", b"[]"),
    "a card without model-index": ("README.md", b"---\nlicense: mit\n---\n# x"),
    "a card without front matter": ("README.md", b"# x"),
    "a word": ("r.yaml", b"hello"),
    "nothing in YAML": ("r.yaml", b""),
    "a file of another kind": ("r.csv", b"task,acc\nboolq,0.5\n"),
    "an empty file without a name": ("-", b""),
}


@pytest.mark.parametrize(("name", "data"), WITHOUT_A_SCORE.values(), ids=WITHOUT_A_SCORE)
def test_a_file_without_a_known_score_is_an_error_that_names_it_and_the_forms(name: str, data: bytes) -> None:
    with pytest.raises(MalformedResultsError, match=f"^{name}: holds no known score") as refused:
        read_results(data, where=name)
    assert refused.value.code == "no-score"
    assert refused.value.hint is not None
    assert "lm-evaluation-harness" in refused.value.hint


@pytest.mark.parametrize("name", ["r.json", "r.yaml", "r.jsonl", "README.md", "r"])
def test_a_git_lfs_pointer_is_called_one(name: str) -> None:
    with pytest.raises(MalformedResultsError) as refused:
        read_results(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", where=name)
    assert refused.value.code == "lfs-pointer"


@given(st.data())
def test_whatever_happens_to_a_file_it_gives_scores_or_the_error(data: st.DataObject) -> None:
    name, whole, *_ = data.draw(st.sampled_from(list(FORMS.values())))
    start = data.draw(st.integers(0, len(whole)))
    end = data.draw(st.integers(start, len(whole)))
    inserted = data.draw(
        st.binary(max_size=8) | st.sampled_from([b"NaN", b"[", b"{}", b"1e999", b"\n---\n", b"&a ", b"null"])
    )
    changed = whole[:start] + inserted + whole[end:]
    try:
        found = read_results(changed, where=name)
    except MalformedResultsError as refused:
        assert refused.message.startswith(name)
        assert refused.hint
        return
    assert found
    json.dumps([evaluation.document() for evaluation in found], allow_nan=False, ensure_ascii=False).encode()


@given(st.binary(max_size=60), st.sampled_from(["r.json", "r.yaml", "r.jsonl", "README.md", "r", ""]))
@example(b"\xef\xbb\xbf{}", "r")
def test_any_bytes_give_scores_or_the_error(data: bytes, name: str) -> None:
    try:
        read_results(data, where=name)
    except MalformedResultsError:
        return


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_an_assignment_says_metric_and_value(value: float) -> None:
    assert parse_assignment(f"acc={value!r}") == Evaluation(metric="acc", value=value, higher_is_better=True)


def test_an_assignment_may_say_filter_and_error() -> None:
    assert parse_assignment("acc,none=0.81±0.02") == Evaluation(
        metric="acc", filter="none", value=0.81, stderr=0.02, higher_is_better=True
    )
    assert parse_assignment("eval_loss=2+-1e-1").stderr == 0.1
    assert parse_assignment("pass@1=1").higher_is_better is True
    assert parse_assignment("win-rate-mine=.5").higher_is_better is None


@pytest.mark.parametrize(
    "text",
    ["acc", "acc=", "=1", "acc=nan", "acc=inf", "acc=1e999", "acc=1_0", "acc=81%", "acc=٣", "a b=1", "acc=1=2",
     "acc= 1", "acc=1±-1", "acc=1±1e999", "acc=1\n", "a/b=1", "acc=0x1", ""],
)  # fmt: skip
def test_what_is_no_finite_number_is_no_assignment(text: str) -> None:
    with pytest.raises(InvalidInputError) as refused:
        parse_assignment(text)
    assert refused.value.code == "malformed-assignment"


def test_a_path_is_not_meant_as_an_assignment() -> None:
    assert is_assignment("acc=0.5")
    assert is_assignment("acc=oops")
    assert not is_assignment("results.json")
    assert not is_assignment("./run=3/results.json")
    assert not is_assignment("run/lr=3.json")
