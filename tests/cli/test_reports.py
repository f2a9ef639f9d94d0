"""Reports for a CI: complete, well-formed whatever an adapter calls its tensors, and never greener than the verdict."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic_sarif.model import StaticAnalysisResultsFormatSarifVersion210JsonSchema as SarifLog

from cli.rendering import safe
from cli.reports.checked import Checked
from cli.reports.github import github
from cli.reports.junit import junit
from cli.reports.sarif import sarif
from cli.reports.table import REPORTS
from registry.checks.table import RULES
from tests.cli.conftest import Adapters
from tests.conftest import WriteAdapter, lora_tensors

POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'a' * 64}\nsize 123\n"
Q = "model.layers.0.self_attn.q_proj"
#: Everything a text could break out with: XML's forbidden characters, markup, commands of a log, links.
HOSTILE = "x\x00\x1b\x0b\ufffe\udc80<b>&]]>\"'\r\n::error title=forged::%0A::warning::y\n##[error]z [click](https://evil)\u2028"
texts = st.text() | st.just(HOSTILE) | st.text(st.sampled_from("\x00\x08\r\n:,%<>&]'\" a[(\ud800\uffff\u2028#"))


def document(verdict: str = "does-not-fit", subject: str = "my-lora", **finding: str | None) -> dict[str, Any]:
    keys = dict.fromkeys(("target", "tensor", "expected", "found", "fix"))
    found = {"rule": "wrong-shape", "severity": "error", "message": "too wide", **keys, **finding}
    said = [] if verdict == "fits" else [found]
    accounted = {"tensors": 2, "matched": None}
    return {"subject": subject, "base": None, "profile": "vllm", "verdict": verdict, "findings": said, "accounted": accounted}


def commands(text: str) -> list[tuple[str, dict[str, str], str]]:
    """What GitHub's runner makes of a log: in each line that begins with ``::``, name, properties and message."""
    found = []
    for line in re.split(r"\r\n|\r|\n", text):
        if line.lstrip().startswith("::"):
            head, _, message = line.lstrip()[2:].partition("::")
            name, _, rest = head.partition(" ")
            properties = dict(pair.split("=", 1) for pair in rest.split(",")) if rest else {}
            found.append((name, {key: unquote(value) for key, value in properties.items()}, unquote(message)))
        else:
            assert "##[" not in line
    return found


def demanded_by_code_scanning(text: str) -> list[dict[str, Any]]:
    """The results, if the file has all that GitHub's table of supported properties marks as required, none of it empty."""
    SarifLog.model_validate_json(text)  # made of the standard's own schema; knows no other keys
    log = json.loads(text)
    assert (log["$schema"], log["version"]) == ("https://json.schemastore.org/sarif-2.1.0.json", "2.1.0")
    (run,) = log["runs"]
    driver = run["tool"]["driver"]
    assert driver["name"]
    assert re.fullmatch(r"\d+\.\d+\.\d+\S*", driver["version"])
    for rule in driver["rules"]:
        assert rule["id"]
        for words in ("shortDescription", "fullDescription"):
            assert 0 < len(rule[words]["text"]) <= 1024
        assert rule["help"]["text"]
        assert rule["defaultConfiguration"]["level"] in ("error", "warning", "note")
    assert len({rule["id"] for rule in driver["rules"]}) == len(driver["rules"])
    assert {rule.id for rule in RULES} <= {rule["id"] for rule in driver["rules"]}
    for result in run["results"]:
        assert driver["rules"][result["ruleIndex"]]["id"] == result["ruleId"]
        assert result["level"] in ("error", "warning", "note")
        assert result["message"]["text"]
        (location,) = result["locations"]
        physical = location["physicalLocation"]
        assert re.fullmatch(r"[A-Za-z0-9._~!$&'()*+,;=:@/%-]+", physical["artifactLocation"]["uri"])
        assert physical["region"].keys() == {"startLine", "startColumn", "endLine", "endColumn"}
        assert min(physical["region"].values()) >= 1
        assert result["partialFingerprints"]["primaryLocationLineHash"]
    prints = [result["partialFingerprints"]["primaryLocationLineHash"] for result in run["results"]]
    assert len(set(prints)) == len(prints)
    results: list[dict[str, Any]] = run["results"]
    return results


@given(subject=texts, rule=texts, message=texts, fix=texts, tensor=texts, severity=st.sampled_from(["error", "warning", "note"]))
def test_xml_can_be_read_back_whatever_was_said(
    subject: str, rule: str, message: str, fix: str, tensor: str, severity: str
) -> None:
    said = document("fits", subject)
    said["findings"] = document(rule=rule, message=message, fix=fix, tensor=tensor, severity=severity)["findings"]
    root = ET.fromstring(junit([Checked(said, directory=subject or None)]).encode())
    assert [(suite.get("name"), len(suite)) for suite in root] == [(safe(subject), 2)]
    assert root[0][0].get("name") == safe(rule)
    assert safe(message) in "".join(root[0][0].itertext())


@given(subject=texts, rule=texts, message=texts, fix=texts, severity=st.sampled_from(["error", "warning", "note"]))
def test_a_text_cannot_forge_a_command(subject: str, rule: str, message: str, fix: str, severity: str) -> None:
    said = document(subject=subject, rule=rule, message=message, fix=fix, severity=severity)
    one = Checked(said, 6, directory="some/where, else: 100%")
    ((name, properties, text),) = commands(github([one]))
    assert name == {"note": "notice"}.get(severity, severity)
    assert properties == {"file": "some/where, else: 100%/adapter_config.json", "title": safe(rule)}
    assert text.startswith(f"{safe(subject)}: {safe(message)}")


@given(subject=texts, rule=texts, message=texts, fix=texts, tensor=texts)
def test_sarif_says_what_was_said_and_links_nowhere(subject: str, rule: str, message: str, fix: str, tensor: str) -> None:
    said = document(subject=subject, rule=rule or "r", message=message or "m", fix=fix, tensor=tensor)
    (result,) = demanded_by_code_scanning(sarif([Checked(said, 6)]))
    assert "](" not in result["message"]["text"]
    assert result["level"] == "error"


@pytest.mark.parametrize("severity", ["warning", "note"])
def test_what_could_not_be_checked_is_an_error_whatever_was_noticed(severity: str) -> None:
    one = Checked(document("cannot-check", severity=severity, rule="base-shapes-unknown"), 8)
    (suite,) = ET.fromstring(junit([one]))
    assert (suite.get("errors"), suite.get("failures"), suite.get("skipped")) == ("1", "0", "0")
    assert [case.get("name") for case in suite if case.find("error") is not None] == ["cannot-check"]
    assert "fits" not in [case.get("name") for case in suite]
    assert [result["level"] for result in demanded_by_code_scanning(sarif([one]))] == ["error", severity]
    assert json.loads(sarif([one]))["runs"][0]["invocations"] == [{"executionSuccessful": False}]
    assert commands(github([one]))[0][:2] == ("error", {"title": "cannot-check"})


def test_what_fits_passes(adapters: Adapters, write_adapter: WriteAdapter) -> None:
    said = {name: adapters("check", str(write_adapter(name)), "--for", "peft", "--format", name) for name in REPORTS}
    assert {one.code for one in said.values()} == {0}
    (suite,) = ET.fromstring(said["junit"].out)
    assert [(case.get("name"), len(case)) for case in suite] == [("fits", 0)]
    assert demanded_by_code_scanning(said["sarif"].out) == []
    assert commands(said["github"].out) == []
    assert said["github"].err == ""


def test_a_misfit_is_named_with_its_file(
    adapters: Adapters, write_adapter: WriteAdapter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    place = write_adapter("some lora", lora_tensors(Q, rank=16), r=16)
    line = ("check", str(place), "--for", "vllm", "--max-lora-rank", "8", "--format")
    said = {name: adapters(*line, name) for name in REPORTS}
    assert {one.code for one in said.values()} == {6}
    results = [one for one in demanded_by_code_scanning(said["sarif"].out) if one["level"] == "error"]
    assert {result["ruleId"] for result in results} == {"serve-rank"}
    uri = results[0]["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]
    assert (urlsplit(uri).scheme, tmp_path / unquote(uri)) == ("", place / "adapter_config.json")
    (suite,) = ET.fromstring(said["junit"].out)
    assert [case.get("name") for case in suite if case.find("failure") is not None] == ["serve-rank"]
    assert suite.get("name") == str(place)
    annotated = [command for command in commands(said["github"].out) if command[0] == "error"]
    assert [command[1] for command in annotated] == [{"file": "some lora/adapter_config.json", "title": "serve-rank"}]


def test_tensors_are_places_in_the_weights(adapters: Adapters, write_adapter: WriteAdapter) -> None:
    said = adapters("check", str(write_adapter(r=4)), "--for", "peft", "--format", "sarif")
    assert said.code == 3
    result = next(one for one in demanded_by_code_scanning(said.out) if one["ruleId"] == "rank-mismatch")
    (location,) = result["locations"]
    assert location["physicalLocation"]["artifactLocation"]["uri"].endswith("my-lora/adapter_model.safetensors")
    assert location["logicalLocations"][-1]["fullyQualifiedName"].startswith(f"base_model.model.{Q}.lora_")


@pytest.mark.parametrize("format", REPORTS)
def test_a_refusal_is_an_error_in_the_report_too(adapters: Adapters, write_adapter: WriteAdapter, format: str) -> None:
    broken = write_adapter("broken")
    (broken / "adapter_model.safetensors").write_text(POINTER)
    sound = write_adapter("sound")
    cases = [
        (3, "lfs-pointer", "failure", ("check", str(broken), "--for", "peft")),
        (4, "unknown-adapter", "error", ("check", "nobody", "--for", "peft")),
        (3, "no-directory", "error", ("check", str(sound), "--base", "./no-such-base")),
    ]
    for code, rule, problem, line in cases:
        assert adapters(*line).code == code
        said = adapters(*line, "--format", format)
        assert said.code == code
        if format == "sarif":
            assert [(one["ruleId"], one["level"]) for one in demanded_by_code_scanning(said.out)] == [(rule, "error")]
        elif format == "junit":
            assert [one.get("type") for one in ET.fromstring(said.out).iter(problem)] == [rule]
        else:
            assert [(name, properties["title"]) for name, properties, _ in commands(said.out)] == [("error", rule)]
            assert said.err == ""


def test_one_broken_adapter_hides_no_other(adapters: Adapters, write_adapter: WriteAdapter) -> None:
    broken, sound = write_adapter("broken"), write_adapter("sound")
    (broken / "adapter_model.safetensors").write_text(POINTER)
    files = [broken / "adapter_config.json", sound / "adapter_config.json", sound / "adapter_model.safetensors"]
    said = adapters("check", *map(str, files), "--for", "peft", "--json")
    assert said.code == 3
    found = json.loads(said.out)
    assert [one["verdict"] for one in found] == ["does-not-fit", "fits"]  # as one whose numbers are broken
    assert [one["subject"] for one in found] == [str(broken), str(sound)]


def test_a_file_means_its_directory(adapters: Adapters, write_adapter: WriteAdapter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(write_adapter())
    for name in ("adapter_config.json", "./adapter_model.safetensors"):
        said = adapters("check", name, "--for", "peft", "--json")
        assert (said.code, json.loads(said.out)["subject"]) == (0, ".")


def test_more_results_than_code_scanning_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cli.reports.sarif._MOST", 3)
    said = document()
    severities = ["note", "warning", "error", "error", "note"]
    said["findings"] = [{**said["findings"][0], "severity": severity} for severity in severities]
    text = sarif([Checked(said, 6)])
    assert [result["level"] for result in demanded_by_code_scanning(text)] == ["error", "error", "warning"]
    (notification,) = json.loads(text)["runs"][0]["invocations"][0]["toolExecutionNotifications"]
    assert "2 more findings" in notification["message"]["text"]


def test_two_formats_at_once_are_wrong_usage(adapters: Adapters, write_adapter: WriteAdapter) -> None:
    place = str(write_adapter())
    assert adapters("check", place, "--for", "peft", "--json", "--format", "sarif").code == 2
    assert adapters("check", "--for", "peft").code == 2
    assert adapters("check", place, "--all", "--for", "peft").code == 2
