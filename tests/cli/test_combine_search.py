"""``adapters combine --search``: weights are found, trials recorded and taken up, and what fails leaves nothing."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from registry.connect import connect
from registry.errors import ConflictError, ScoreFailedError
from registry.formats.trials import parse_trials
from registry.operations.score_command import ScoreCommand
from registry.operations.search import Search
from tests.cli.conftest import Adapters

#: Where the score is best: what two adapters, each one number of a diagonal, are wanted with.
WANTED = (0.3, 0.8)
#: Reads lora_B without torch, which takes seconds to import.
SCORE = """
import json, os, struct, sys
place = sys.argv[1]
with open(os.path.join(place, "adapter_model.safetensors"), "rb") as file:
    (size,) = struct.unpack("<Q", file.read(8))
    header = json.loads(file.read(size))
    start, stop = header["base_model.model.q_proj.lora_B.weight"]["data_offsets"]
    file.seek(8 + size + start)
    b = struct.unpack("<4f", file.read(stop - start))
assert os.path.isfile(os.path.join(place, "adapter_config.json"))
with open(os.path.join(os.path.dirname(__file__), "calls"), "a") as calls:
    calls.write(place + "\\n")
print("scored", b)
print(-((b[0] - 0.3) ** 2) - (b[3] - 0.8) ** 2)
print()
"""


def adapter(into: Path, at: int) -> Path:
    into.mkdir()
    one = torch.zeros(2)
    one[at] = 1
    name = "base_model.model.q_proj.lora_"
    tensors = {f"{name}A.weight": one.reshape(1, 2), f"{name}B.weight": one.clone().reshape(2, 1)}
    save_file(tensors, into / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": 1, "lora_alpha": 1, "target_modules": ["q_proj"], "task_type": "CAUSAL_LM"}
    (into / "adapter_config.json").write_text(json.dumps(config))
    return into


@pytest.fixture
def pair(tmp_path: Path) -> list[str]:
    return [f"{adapter(tmp_path / 'one', 0)}=0.5", f"{adapter(tmp_path / 'two', 1)}=0.5"]


@pytest.fixture
def score(tmp_path: Path) -> str:
    (tmp_path / "score.py").write_text(SCORE)
    return shlex.join([sys.executable, "-S", str(tmp_path / "score.py"), "{dir}"])


def python(code: str) -> str:
    return shlex.join([sys.executable, "-S", "-c", code, "{dir}"])


def calls(tmp_path: Path) -> list[str]:
    file = tmp_path / "calls"
    return file.read_text().splitlines() if file.exists() else []


def weights_of(directory: Path) -> list[float]:
    up = load_file(directory / "adapter_model.safetensors")["base_model.model.q_proj.lora_B.weight"]
    return [float(up[0, 0]), float(up[1, 1])]


def files(place: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(place.iterdir())}


def test_the_weights_that_score_best_are_found(adapters: Adapters, pair: list[str], score: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = adapters.json("combine", *pair, "--search", "--score", score, "--budget", "25", "-o", str(out), "--name", "mixed")
    assert weights_of(out) == pytest.approx(WANTED, abs=0.02)
    trials = done["search"]["trials"]
    assert [trial["trial"] for trial in trials] == [*range(1, 26)]
    assert trials[0]["weights"] == [0.5, 0.5]
    assert done["search"]["best"] == max(trials, key=lambda trial: trial["score"])
    assert [one["weight"] for one in done["adapters"]] == done["search"]["best"]["weights"]
    lines = (tmp_path / "out.trials.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines[1:]] == trials
    recipe = adapters.json("show", "mixed")["training"]["combine"]
    assert recipe["search"]["trials"] == trials
    assert recipe["search"]["best"] == done["search"]["best"]
    assert len(calls(tmp_path)) == 25
    assert not any(Path(place).exists() for place in calls(tmp_path))


def test_what_was_recorded_is_not_run_again(adapters: Adapters, pair: list[str], score: str, tmp_path: Path) -> None:
    ask = ["combine", *pair, "--search", "--score", score, "--budget", "12"]
    whole, begun = tmp_path / "whole", tmp_path / "begun"
    wanted = adapters.json(*ask, "-o", str(whole))
    before = len(calls(tmp_path))
    record = (tmp_path / "whole.trials.jsonl").read_bytes()
    cut = b"\n".join(record.split(b"\n")[:6])  # what a search leaves that was killed while it wrote: the fifth has no end
    (tmp_path / "begun.trials.jsonl").write_bytes(cut)
    refused = adapters.refusal(*ask, "-o", str(begun))
    assert (refused["exit_code"], refused["code"]) == (5, "output-exists")
    assert (tmp_path / "begun.trials.jsonl").read_bytes() == cut
    found = adapters.json(*ask, "-o", str(begun), "--resume")
    assert len(calls(tmp_path)) == before + 8
    assert found["search"]["trials"] == wanted["search"]["trials"]
    assert files(begun) == files(whole)
    assert (tmp_path / "begun.trials.jsonl").read_bytes() == record
    # and where nothing is left to try, the score is not asked at all
    (tmp_path / "third.trials.jsonl").write_bytes(record)
    adapters.json(*ask, "-o", str(tmp_path / "third"), "--resume")
    assert len(calls(tmp_path)) == before + 8
    # a larger budget goes on
    (tmp_path / "fourth.trials.jsonl").write_bytes(record)
    more = adapters.json(*ask[:-1], "14", "-o", str(tmp_path / "fourth"), "--resume")
    assert more["search"]["trials"][:12] == wanted["search"]["trials"]
    assert len(calls(tmp_path)) == before + 10


def test_a_record_of_another_search_is_not_taken_up(adapters: Adapters, pair: list[str], score: str, tmp_path: Path) -> None:
    ask = ["combine", *pair, "--search", "--score", score, "--budget", "3"]
    adapters.json(*ask, "-o", str(tmp_path / "a"))
    record = (tmp_path / "a.trials.jsonl").read_bytes()
    for other in (["--seed", "1"], ["--bounds", "0..1"], ["--lower-is-better"], ["--rank", "1"], ["--dtype", "bfloat16"]):
        (tmp_path / "b.trials.jsonl").write_bytes(record)
        refused = adapters.refusal(*ask, *other, "-o", str(tmp_path / "b"), "--resume")
        assert (refused["exit_code"], refused["code"]) == (5, "conflict"), other
        assert not (tmp_path / "b").exists()
        assert (tmp_path / "b.trials.jsonl").read_bytes() == record


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("no-such-program {dir}", "cannot be run: No such file"),
        (python("raise SystemExit('out of memory')"), "ended with exit code 1: out of memory"),
        (python("print('done')"), "ended with the line 'done'"),
        (python("print('nan')"), "ended with the line 'nan'"),
        (python(""), "said nothing on stdout"),
        (python("import os; os.kill(os.getpid(), 9)"), "ended by signal 9"),
    ],
)
def test_a_score_that_always_fails_ends_after_a_few_trials(
    command: str, says: str, adapters: Adapters, pair: list[str], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    refused = adapters.refusal("combine", *pair, "--search", "--score", command, "-o", str(out))
    assert (refused["exit_code"], refused["code"]) == (3, "score-failed")
    assert "gave none of the first 3 trials a score" in refused["message"]
    assert says in refused["message"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "two"]


def test_a_trial_that_fails_is_recorded_and_no_other(pair: list[str], tmp_path: Path) -> None:
    def score(directory: Path) -> float:
        one, other = weights_of(directory)
        if one > 0.6:
            raise ScoreFailedError("it", "was out of luck")
        return (one - WANTED[0]) ** 2 + (other - WANTED[1]) ** 2

    wanted = Search(score, "it", tmp_path / "record", budget=25, lower_is_better=True)
    asked: Any = [(text.rpartition("=")[0], 0.5) for text in pair]
    done = connect(tmp_path / "registry").search_weights(asked, tmp_path / "out", wanted=wanted)
    failed = [trial for trial in done.trials if trial.score is None]
    assert {trial.error for trial in failed} == {"was out of luck"}
    assert all(trial.weights[0] > 0.6 for trial in failed)
    assert weights_of(tmp_path / "out") == pytest.approx(WANTED, abs=0.05)
    assert parse_trials((tmp_path / "record").read_bytes(), where="record")[1] == list(done.trials)


def test_an_interrupted_search_keeps_its_record_and_nothing_else(pair: list[str], tmp_path: Path) -> None:
    tried = 0
    seen: list[Path] = []

    def score(directory: Path) -> float:
        nonlocal tried
        seen.append(directory)
        tried += 1
        if tried == 4:
            raise KeyboardInterrupt
        return float(tried)

    asked: Any = [(text.rpartition("=")[0], 0.5) for text in pair]
    registry, wanted = connect(tmp_path / "registry"), Search(score, "it", tmp_path / "record", budget=9)
    with pytest.raises(KeyboardInterrupt):
        registry.search_weights(asked, tmp_path / "out", wanted=wanted)
    assert len(parse_trials((tmp_path / "record").read_bytes(), where="record")[1]) == 3
    assert not (tmp_path / "out").exists()
    assert not any(path.exists() for path in seen)


def test_two_searches_do_not_write_one_record(pair: list[str], tmp_path: Path) -> None:
    asked: Any = [(text.rpartition("=")[0], 0.5) for text in pair]
    registry = connect(tmp_path / "registry")

    def again(_directory: Path) -> float:
        second = Search(lambda _place: 0.0, "it", tmp_path / "record", budget=3, resume=True)
        if (tmp_path / "record").exists():
            with pytest.raises(ConflictError, match="another search"):
                registry.search_weights(asked, tmp_path / "other", wanted=second)
        return 1.0

    done = registry.search_weights(asked, tmp_path / "out", wanted=Search(again, "it", tmp_path / "record", budget=3))
    assert len(done.trials) == 3
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        (["--search"], 2, "--score"),
        (["--score", "x {dir}"], 2, "--search"),
        (["--budget", "3"], 2, "--search"),
        (["--resume"], 2, "--search"),
        (["--search", "--score", "python score.py"], 3, "{dir}"),
        (["--search", "--score", "python 'score.py {dir}"], 3, "score command"),
        (["--search", "--score", "{dir}"], 3, "score command"),
        (["--search", "--score", "x {dir}", "--bounds", "1"], 2, "range"),
        (["--search", "--score", "x {dir}", "--bounds", "0..1_0"], 2, "range"),
        (["--search", "--score", "x {dir}", "--bounds", "1..0"], 3, "range"),
        (["--search", "--score", "x {dir}", "--bounds", "0..nan"], 3, "range"),
        (["--search", "--score", "x {dir}", "--bounds", "0.6..1"], 3, "weight to start from"),
        (["--search", "--score", "x {dir}", "--budget", "0"], 2, "budget"),
    ],
)
def test_what_is_asked_the_wrong_way_is_said_in_a_sentence(
    options: list[str], code: int, says: str, adapters: Adapters, pair: list[str], tmp_path: Path
) -> None:
    said = adapters("combine", *pair, *options, "-o", str(tmp_path / "out"))
    assert (said.code, "Traceback" in said.err) == (code, False)
    assert says in said.err
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "registry") == ["one", "two"]


def test_adapters_without_a_sum_are_refused_before_anything_is_scored(
    adapters: Adapters, pair: list[str], score: str, tmp_path: Path
) -> None:
    config = tmp_path / "two" / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"task_type": "SEQ_CLS"}))
    refused = adapters.refusal("combine", *pair, "--search", "--score", score, "-o", str(tmp_path / "out"))
    assert (refused["exit_code"], refused["code"]) == (6, "different-tasks")
    assert calls(tmp_path) == []
    assert not (tmp_path / "out.trials.jsonl").exists()


def test_a_place_that_is_taken_is_refused_before_anything_is_scored(
    adapters: Adapters, pair: list[str], score: str, tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("")
    refused = adapters.refusal("combine", *pair, "--search", "--score", score, "-o", str(tmp_path / "out"))
    assert refused["exit_code"] == 5
    assert calls(tmp_path) == []


@pytest.mark.parametrize("data", [b"", b"{}\n", b"[1]\n", b'{"search": {}}\n{"trial": 1}\n', b"\xff\n"])
def test_a_file_that_is_no_record_is_left_as_it_is(
    data: bytes, adapters: Adapters, pair: list[str], score: str, tmp_path: Path
) -> None:
    record = tmp_path / "mine"
    record.write_bytes(data)
    ask = ["combine", *pair, "--search", "--score", score, "-o", str(tmp_path / "out"), "--trials", str(record)]
    assert adapters.refusal(*ask)["exit_code"] == 5
    assert adapters.refusal(*ask, "--resume")["exit_code"] == 3
    assert record.read_bytes() == data
    assert calls(tmp_path) == []


def test_no_shell_reads_the_command(tmp_path: Path) -> None:
    text = shlex.join([sys.executable, "-S", "-c", "import sys; print(len(sys.argv[1:]))", f"$(touch {tmp_path}/x); {{dir}}"])
    assert ScoreCommand.parse(text)(tmp_path) == 1
    assert [*tmp_path.iterdir()] == []


def test_without_scipy_a_sentence_names_the_extra(
    adapters: Adapters, pair: list[str], score: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "registry.numerics.weight_search", raising=False)
    monkeypatch.setitem(sys.modules, "scipy.optimize", None)
    refused = adapters.refusal("combine", *pair, "--search", "--score", score, "-o", str(tmp_path / "out"))
    assert (refused["exit_code"], refused["code"]) == (8, "search-missing")
    assert "adapter-registry[search]" in refused["hint"]
    assert calls(tmp_path) == []


def test_any_seed_will_do_and_a_record_inside_the_output_will_not(
    adapters: Adapters, pair: list[str], score: str, tmp_path: Path
) -> None:
    ask = ["combine", *pair, "--search", "--score", score, "--budget", "2", "-o", str(tmp_path / "out")]
    for place in (tmp_path / "out", tmp_path / "out" / "trials"):
        assert adapters.refusal(*ask, "--trials", str(place))["exit_code"] == 3
    assert calls(tmp_path) == []
    assert adapters.json(*ask, "--seed", "-1")["search"]["best"]
