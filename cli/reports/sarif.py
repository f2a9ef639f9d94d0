"""SARIF 2.1.0, with what GitHub code scanning demands beyond it: a place in a file, a region, a fingerprint, a level.

https://docs.oasis-open.org/sarif/sarif/v2.1.0/sarif-v2.1.0.html
https://docs.github.com/en/code-security/code-scanning/integrating-with-code-scanning/sarif-support-for-code-scanning
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from urllib.parse import quote

from cli.reports.checked import CANNOT_CHECK, Checked, Finding, by_rule, once

_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
#: Code scanning shows the gravest 5,000 results and refuses a file of more than 25,000.
_MOST = 5_000
_LEVELS = ("error", "warning", "note")
#: An adapter's files have no lines; a region must be given.
_REGION = {"startLine": 1, "startColumn": 1, "endLine": 1, "endColumn": 2}

Json = dict[str, object]


def sarif(checked: Sequence[Checked]) -> str:
    findings = list(once(checked))
    findings.sort(key=lambda pair: _LEVELS.index(pair[1]["severity"] or "note"))
    rules = _rules([finding for _, finding in findings])
    places = {str(rule["id"]): index for index, rule in enumerate(rules)}
    seen: Counter[tuple[object, ...]] = Counter()
    invocation: Json = {"executionSuccessful": all(one.verdict != CANNOT_CHECK for one in checked)}
    if len(findings) > _MOST:
        text = (
            f"{len(findings) - _MOST:,} more findings, none of them graver, were left out; --format json has them all"
        )
        invocation["toolExecutionNotifications"] = [{"level": "warning", "message": {"text": text}}]
    driver: Json = {"name": "adapters check", "version": version("adapter-registry"), "rules": rules}
    run: Json = {
        "tool": {"driver": driver},
        "invocations": [invocation],
        "columnKind": "unicodeCodePoints",
        "results": [_result(one, finding, places, seen) for one, finding in findings[:_MOST]],
    }
    return json.dumps({"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]}, indent=1) + "\n"


def _rules(findings: Sequence[Finding]) -> list[Json]:
    """The table of rules, and what else spoke: findings of a push, and refusals, which have no table."""
    from registry.checks.misfit import WORDS
    from registry.checks.table import RULES

    known = [_rule(rule.id, WORDS[rule.severity], rule.reason, rule.fix) for rule in RULES]
    ids = {rule["id"] for rule in known}
    for rule, said in by_rule(findings):
        if rule not in ids:
            words = rule.replace("-", " ").capitalize()
            fix = next((finding["fix"] for finding in said if finding["fix"]), None)
            known.append(_rule(rule, said[0]["severity"] or "note", words, fix or words))
    return known


def _rule(name: str, level: str, reason: str, fix: str) -> Json:
    return {
        "id": name,
        "shortDescription": {"text": reason},
        "fullDescription": {"text": reason},
        "help": {"text": fix},
        "defaultConfiguration": {"level": level},
    }


def _result(checked: Checked, finding: Finding, places: Mapping[str, int], seen: Counter[tuple[object, ...]]) -> Json:
    rule, tensor, target = finding["rule"] or "", finding["tensor"], finding["target"]
    names = [(name, kind) for name, kind in ((target, "module"), (tensor, "member")) if name]
    logical: list[Json] = [{"fullyQualifiedName": name, "kind": kind} for name, kind in names]
    physical: Json = {"artifactLocation": {"uri": _uri(finding["file"] or "")}, "region": _REGION}
    location: Json = {"physicalLocation": physical, **({"logicalLocations": logical} if logical else {})}
    identity = (finding["file"], rule, target, tensor)
    seen[identity] += 1
    return {
        "ruleId": rule,
        "ruleIndex": places[rule],
        "level": finding["severity"],
        "message": {"text": _unlinked("\n".join(part for part in (finding["message"], finding["fix"]) if part))},
        "locations": [location],
        "partialFingerprints": {"primaryLocationLineHash": _fingerprint(*identity, seen[identity])},
    }


def _fingerprint(*identity: object) -> str:
    """Which results of two runs are the same: not by their sentences, whose numbers change. Lines, by which code scanning
    would tell them apart, are all the same here."""
    return hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:32] + ":1"


def _unlinked(text: str) -> str:
    """``[words](address)`` would be shown as a link; what an adapter says links nowhere."""
    return text.replace("](", "] (")


def _uri(path: str) -> str:
    return ("file://" if path.startswith("/") else "") + quote(path, safe="/@+=")
