"""The main job on real input: what PEFT trained goes through the registry and behaves as before, bit for bit."""

from __future__ import annotations

import filecmp
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.journeys.real_adapters import minilm, smollm2, train_minilm, train_smollm2


class Adapters:
    """The installed command, in a directory and with a registry of its own."""

    def __init__(self, work: Path) -> None:
        self._work = work

    def __call__(self, *arguments: str) -> Any:
        command = [str(Path(sys.executable).with_name("adapters")), *arguments, "--json", "--registry", "registry"]
        done = subprocess.run(command, cwd=self._work, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


def through_the_registry(work: Path) -> dict[str, Any]:
    """push, list, show, eval, alias, pull; returns what show says."""
    adapters = Adapters(work)
    pushed = adapters("push", "my-lora")
    assert pushed["reference"] == "local/my-lora@1"
    assert pushed["created"] is True
    assert [finding for finding in pushed["findings"] if finding["severity"] == "error"] == []
    assert [row["digest"] for row in adapters("list")] == [pushed["digest"]]
    assert adapters("eval", "add", "my-lora", "acc=0.5", "--task", "t", "--stderr", "0.1")["added"] == 1
    assert adapters("alias", "set", "my-lora", "production", "1", "--expect", "none")["moved"] is True
    pulled = adapters("pull", "my-lora:production", "-o", "back")
    names = sorted(path.name for path in (work / "my-lora").iterdir())
    assert sorted(entry["path"] for entry in pulled["files"]) == names
    same, _, _ = filecmp.cmpfiles(work / "my-lora", work / "back", names, shallow=False)
    assert sorted(same) == names
    assert adapters("push", "back", "--name", "my-lora") == {**pushed, "created": False}
    assert adapters("doctor", "--deep")["ok"] is True
    shown: dict[str, Any] = adapters("show", "my-lora")
    assert shown["aliases"] == ["production"]
    assert [each["value"] for each in shown["evaluations"]] == [0.5]
    return shown


def test_minilm_comes_back_with_bit_equal_states(tmp_path: Path) -> None:
    import torch
    from peft import PeftModel

    trained, tokenizer = train_minilm(tmp_path / "my-lora")
    shown = through_the_registry(tmp_path)
    assert shown["base_model"]["id"] == "sentence-transformers/all-MiniLM-L6-v2"
    assert (shown["rank"], shown["alpha"], shown["scaling"]) == (4, 8, 2)
    assert shown["target_modules"] == ["query", "value"]
    assert shown["layers"] == [0, 1, 2, 3, 4, 5]
    batch = tokenizer("Does it still say the same?", return_tensors="pt")
    with torch.no_grad():
        back = PeftModel.from_pretrained(minilm()[0], tmp_path / "back").eval()
        base = minilm()[0](**batch).last_hidden_state
        assert torch.equal(back(**batch).last_hidden_state, trained(**batch).last_hidden_state)
        assert not torch.equal(back(**batch).last_hidden_state, base)


@pytest.mark.slow
def test_smollm2_comes_back_with_bit_equal_logits(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    import torch
    from peft import PeftModel

    cache = tmp_path_factory.getbasetemp() / "models"
    trained, tokenizer = train_smollm2(tmp_path / "my-lora", cache)
    shown = through_the_registry(tmp_path)
    assert shown["base_model"]["id"] == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert shown["rank"] == 8
    assert shown["scaling"] == pytest.approx(16 / 8**0.5)
    assert len(shown["ranks"]) == 90
    assert shown["layers"] == list(range(30))
    batch = tokenizer("The capital of France is", return_tensors="pt")
    with torch.no_grad():
        back = PeftModel.from_pretrained(smollm2(cache)[0], tmp_path / "back").eval()
        logits = back(**batch).logits
        assert torch.equal(logits, trained(**batch).logits)
        assert not torch.equal(logits, smollm2(cache)[0](**batch).logits)
