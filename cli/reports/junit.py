"""JUnit XML, as GitLab, Jenkins and others read it: a suite for each adapter, a case for each rule that spoke."""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree import ElementTree as ET

from cli.reports.checked import CANNOT_CHECK, Checked, Finding, by_rule


def junit(checked: Sequence[Checked]) -> str:
    """An error is a failure; where nothing could be checked it is an error of the test, never a pass and never a skip.

    ASCII with character references: right in whatever encoding it is written.
    """
    suites = ET.Element("testsuites", name="adapters check")
    several = len({one.document["profile"] for one in checked}) > 1
    suites.extend(
        _suite(one, f"{one.subject} for {one.document['profile']}" if several else one.subject) for one in checked
    )
    for total in ("tests", "failures", "errors"):
        suites.set(total, str(sum(int(suite.get(total, "0")) for suite in suites)))
    ET.indent(suites)
    written: bytes = ET.tostring(suites, encoding="us-ascii", xml_declaration=True)
    return written.decode("ascii") + "\n"


def _suite(checked: Checked, name: str) -> ET.Element:
    suite = ET.Element("testsuite", name=name)
    problem = "error" if checked.verdict == CANNOT_CHECK else "failure"
    for rule, findings in by_rule(checked.findings):
        suite.append(_case(checked, rule, findings, problem))
    if checked.verdict == "fits":
        suite.append(_named(checked, "fits"))
    suite.set("tests", str(len(suite)))
    suite.set("failures", str(len(suite.findall("testcase/failure"))))
    suite.set("errors", str(len(suite.findall("testcase/error"))))
    suite.set("skipped", "0")
    return suite


def _case(checked: Checked, rule: str, findings: Sequence[Finding], problem: str) -> ET.Element:
    case = _named(checked, rule)
    if checked.directory is not None:
        case.set("file", findings[0]["file"] or "")
    errors = [finding for finding in findings if finding["severity"] == "error"]
    if errors:
        case.append(ET.Element(problem, type=rule, message=errors[0]["message"] or ""))
        case[0].text = "\n".join(map(_words, errors))
    if said := [finding for finding in findings if finding not in errors]:
        ET.SubElement(case, "system-out").text = "\n".join(map(_words, said))
    return case


def _named(checked: Checked, name: str) -> ET.Element:
    return ET.Element("testcase", classname=checked.subject, name=name)


def _words(finding: Finding) -> str:
    fix = f"\n  {finding['fix']}" if finding["fix"] else ""
    return f"{finding['severity']}: {finding['message']}{fix}"
