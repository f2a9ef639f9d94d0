"""``adapters check``: a verdict, an exit code and findings that agree."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import WriteAdapter, floats, lora_tensors, safetensors_bytes

WIDTH = 3
Q = "model.layers.0.self_attn.q_proj"
K = "model.layers.0.self_attn.k_proj"


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """Its q_proj is square; its k_proj has one row less."""
    directory = tmp_path / "gpt2"
    directory.mkdir()
    tensors = {
        f"{Q}.weight": ("F32", (WIDTH, WIDTH), floats(0.5, count=WIDTH * WIDTH)),
        f"{K}.weight": ("F32", (WIDTH - 1, WIDTH), floats(0.5, count=(WIDTH - 1) * WIDTH)),
    }
    (directory / "model.safetensors").write_bytes(safetensors_bytes(tensors))
    (directory / "config.json").write_text(json.dumps({"model_type": "llama", "architectures": ["LlamaForCausalLM"]}))
    return directory


def checked(adapters: Any, *arguments: object) -> tuple[int, dict[str, Any]]:
    done = adapters("check", *map(str, arguments), "--format", "json")
    return done.code, json.loads(done.out)


def rules(document: dict[str, Any], severity: str = "error") -> list[str]:
    return [finding["rule"] for finding in document["findings"] if finding["severity"] == severity]


def test_what_fits(adapters: Any, write_adapter: WriteAdapter, base: Path) -> None:
    code, document = checked(adapters, write_adapter(), "--base", base)
    assert (code, document["verdict"]) == (0, "fits")
    assert document.keys() == {"subject", "base", "profile", "verdict", "findings", "accounted"}
    assert document["accounted"] == {"tensors": 2, "matched": 2}
    assert document["base"]["raw"] == str(base)
    assert document["profile"] is None


def test_what_does_not(adapters: Any, write_adapter: WriteAdapter, base: Path) -> None:
    adapter = write_adapter("wrong", lora_tensors(Q, K), target_modules=["q_proj", "k_proj"])
    code, document = checked(adapters, adapter, "--base", base)
    assert (code, document["verdict"], rules(document)) == (6, "does-not-fit", ["wrong-shape"])
    finding = next(one for one in document["findings"] if one["rule"] == "wrong-shape")
    assert finding.keys() == {"rule", "severity", "target", "tensor", "message", "expected", "found", "fix"}
    assert finding["target"] == K
    assert finding["tensor"] == f"base_model.model.{K}.lora_B.weight"
    assert (finding["expected"], finding["found"]) == ("(2, r)", "[3, 2]")


def test_an_error_that_is_allowed_is_a_warning(adapters: Any, write_adapter: WriteAdapter, base: Path) -> None:
    adapter = write_adapter("wrong", lora_tensors(Q, K), target_modules=["q_proj", "k_proj"])
    code, document = checked(adapters, adapter, "--base", base, "--allow", "wrong-shape")
    assert (code, document["verdict"], rules(document)) == (0, "fits", [])
    assert "wrong-shape" in rules(document, "warning")


def test_a_base_of_which_only_the_name_is_known(adapters: Any, write_adapter: WriteAdapter) -> None:
    adapter = write_adapter()
    code, document = checked(adapters, adapter, "--base", "gpt2")
    assert (code, document["verdict"], rules(document)) == (8, "cannot-check", [])
    assert document["accounted"] == {"tensors": 2, "matched": None}
    code, document = checked(adapters, adapter, "--base", "hf://Qwen/Qwen2.5-0.5B@main")
    assert (code, document["verdict"], rules(document)) == (6, "does-not-fit", ["base-id"])


def test_a_broken_adapter_is_broken_input(adapters: Any, write_adapter: WriteAdapter, base: Path) -> None:
    code, document = checked(adapters, write_adapter(r=4), "--base", base)
    assert (code, document["verdict"], rules(document)) == (3, "does-not-fit", ["rank-mismatch"])


def test_an_engine_is_asked_with_and_without_a_base(adapters: Any, write_adapter: WriteAdapter, base: Path) -> None:
    adapter = write_adapter()
    for arguments in ((), ("--base", base)):
        code, document = checked(adapters, adapter, "--for", "vllm==0.8.0", "--max-lora-rank", 1, *arguments)
        assert (code, document["profile"]) == (6, "vllm==0.8.0")
        assert rules(document) == ["serve-rank"]
        code, document = checked(adapters, adapter, "--for", "vllm==0.8.0", *arguments)
        assert (code, document["verdict"]) == (0, "fits")


def test_a_version_in_the_registry(adapters: Any, write_adapter: WriteAdapter, base: Path) -> None:
    adapters("push", str(write_adapter()))
    code, document = checked(adapters, "my-lora", "--base", base)
    assert (code, document["subject"], document["verdict"]) == (0, "local/my-lora@1", "fits")


def test_text_says_the_same(adapters: Any, write_adapter: WriteAdapter, base: Path) -> None:
    adapter = write_adapter("wrong", lora_tensors(Q, K), target_modules=["q_proj", "k_proj"])
    done = adapters("check", str(adapter), "--base", str(base))
    assert done.code == 6
    assert "[wrong-shape]" in done.out
    assert "does not fit" in done.out
    assert "fits" in adapters("check", str(write_adapter()), "--base", str(base)).out


def test_nothing_to_fit_is_wrong_usage(adapters: Any, write_adapter: WriteAdapter) -> None:
    assert adapters("check", str(write_adapter())).code == 2
    assert adapters("check", str(write_adapter("two")), "--base", "gpt2", "--max-lora-rank", "8").code == 2


def test_every_rule_is_listed_with_what_to_do(adapters: Any) -> None:
    document = json.loads(adapters("rules", "--json").out)
    assert {"base-id", "prefix-drift", "wrong-shape", "serve-rank"} <= {rule["rule"] for rule in document}
    assert all(rule["reason"] and rule["fix"] for rule in document)
    assert len({rule["rule"] for rule in document}) == len(document)
    assert "prefix-drift (error)" in adapters("rules").out


def test_what_is_allowed_in_vain_is_said(adapters: Any, write_adapter: WriteAdapter, base: Path) -> None:
    code, document = checked(adapters, write_adapter(), "--base", base, "--allow", "wrong-shappe")
    assert (code, rules(document, "warning").count("nothing-to-allow")) == (0, 1)


def test_a_pattern_that_cannot_be_evaluated_ends_in_an_error_that_can_be_allowed(
    adapters: Any, write_adapter: WriteAdapter, base: Path
) -> None:
    hostile = write_adapter("hostile", None, alpha_pattern={r"(?!x)((\w|\.)+)+!": 8})
    code, document = checked(adapters, hostile, "--base", base)
    assert (code, rules(document)) == (3, ["pattern-unresolved"])
    code, document = checked(adapters, hostile, "--base", base, "--allow", "pattern-unresolved")
    assert (code, document["verdict"]) == (0, "fits")
    assert adapters.json("push", str(hostile))["created"]  # to keep it is another matter


def test_a_method_that_nobody_knows_fits_nothing_and_can_be_kept(
    adapters: Any, write_adapter: WriteAdapter, base: Path
) -> None:
    foo = write_adapter("foo", None, peft_type="FOO")
    for arguments in (("--base", base), ("--for", "peft"), ("--base", base, "--for", "peft")):
        code, document = checked(adapters, foo, *arguments)
        assert (code, document["verdict"], rules(document)) == (8, "cannot-check", [])
        assert "method-unknown" in rules(document, "warning")
    pushed = adapters.json("push", str(foo))
    assert pushed["created"]
    assert "method-not-understood" in {finding["rule"] for finding in pushed["findings"]}
    assert checked(adapters, "foo", "--base", base)[0] == 8
    assert checked(adapters, write_adapter("known", None, peft_type="LORA"), "--base", base)[0] == 0


def test_a_null_that_peft_refuses_is_broken_input(adapters: Any, write_adapter: WriteAdapter, base: Path) -> None:
    code, document = checked(adapters, write_adapter("null", None, lora_alpha=None), "--base", base)
    assert (code, document["verdict"], rules(document)) == (3, "does-not-fit", ["config-refused"])


def test_an_error_before_the_verdict_is_json_either_way(adapters: Any, tmp_path: Path, base: Path) -> None:
    line = ("check", str(tmp_path / "nowhere"), "--base", str(base))
    said, same = adapters(*line, "--json"), adapters(*line, "--format", "json")
    assert (said.code, said.out, said.err) == (same.code, same.out, same.err)
    assert json.loads(same.err)["error"]["exit_code"] == same.code == 3


ONE, TWO = "a" * 40, "b" * 40


@pytest.fixture
def revisions(adapters: Any, base: Path) -> None:
    """Two revisions of equal shapes and other numbers, both hashed."""
    for revision, value in ((ONE, 0.5), (TWO, 0.25)):
        tensors = {f"{Q}.weight": ("F32", (WIDTH, WIDTH), floats(value, count=WIDTH * WIDTH))}
        (base / "model.safetensors").write_bytes(safetensors_bytes(tensors))
        adapters.json("base", "add", str(base), "--name", f"acme/tiny@{revision}", "--hash-weights")


def test_the_weights_of_the_base_are_those_that_were_trained_on(
    adapters: Any, write_adapter: WriteAdapter, revisions: None
) -> None:
    pinned = write_adapter("pinned", None, base_model_name_or_path="acme/tiny", revision=ONE)
    adapters.json("push", str(pinned))
    for subject in (pinned, "pinned"):
        assert checked(adapters, subject, "--base", f"acme/tiny@{ONE}")[0] == 0
        code, document = checked(adapters, subject, "--base", f"acme/tiny@{TWO}")
        assert (code, rules(document)) == (6, ["base-weights"])
        code, document = checked(adapters, subject, "--base", f"acme/tiny@{TWO}", "--allow", "base-weights")
        assert (code, document["verdict"], rules(document)) == (0, "fits", [])
    said = adapters("check", "--all", "--base", f"acme/tiny@{TWO}", "--json")
    assert (said.code, [one["verdict"] for one in json.loads(said.out)]) == (6, ["does-not-fit"])
    elsewhere = write_adapter("elsewhere", None, base_model_name_or_path="acme/tiny", revision="c" * 40)
    code, document = checked(adapters, elsewhere, "--base", f"acme/tiny@{TWO}")
    assert (code, rules(document)) == (0, [])
    assert "base-revision" in rules(document, "warning")


def test_several_engines_are_all_asked(adapters: Any, write_adapter: WriteAdapter) -> None:
    adapter = write_adapter("wide", lora_tensors(rank=128), r=128)
    code, documents = checked(adapters, adapter, "--for", "vllm", "--for", "peft", "--for", "vllm")
    assert code == 6
    assert [re.split("[=>]", one["profile"])[0] for one in documents] == ["vllm", "peft"]
    assert [one["verdict"] for one in documents] == ["does-not-fit", "fits"]
    assert checked(adapters, adapter, "--for", "peft", "--for", "vllm")[0] == 6
    said = adapters("check", str(adapter), "--for", "vllm", "--for", "peft").out
    assert "does not fit vllm" in said
    assert "fits peft" in said


def test_what_several_engines_would_say_alike_is_said_once(adapters: Any, write_adapter: WriteAdapter, base: Path) -> None:
    adapter = write_adapter("wrong", lora_tensors(Q, K), target_modules=["q_proj", "k_proj"])
    line = ("check", str(adapter), "--base", str(base), "--for", "vllm", "--for", "peft")
    assert adapters(*line).out.count("[wrong-shape]") == 1
    assert adapters(*line, "--format", "github").out.count("title=wrong-shape") == 1
    run = json.loads(adapters(*line, "--format", "sarif").out)["runs"][0]
    assert [one["ruleId"] for one in run["results"]].count("wrong-shape") == 1
    junit = adapters(*line, "--format", "junit").out
    assert len(set(re.findall(r'<testsuite name="([^"]*)"', junit))) == 2
