"""What was found as JUnit XML, which build servers show: a suite a form, a test case a check."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from prunec.deploy.checks.check import Check
from prunec.deploy.checks.render import expected_text, value_text
from prunec.deploy.checks.report import ExportReport, Report

_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML 1.0 cannot hold, escaped or not."""


def junit_xml(report: ExportReport) -> str:
    """Return the checks of every form as JUnit XML; what was not checked is a skipped case."""
    root = ElementTree.Element("testsuites", name="prunec")
    for form, found in report.forms.items():
        root.append(_suite(form, found))
    for key in ("tests", "failures", "skipped"):
        root.set(key, str(sum(int(suite.get(key, "0")) for suite in root)))
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _suite(form: str, found: Report) -> ElementTree.Element:
    suite = ElementTree.Element("testsuite", name=_text(form))
    for check in found.checks:
        case = _case(suite, form, check.name)
        if not check.passed:
            failure = ElementTree.SubElement(case, "failure", message=_text(check.message))
            failure.text = _text(_values(check))
    for reason in found.not_checked:
        case = _case(suite, form, reason.partition(":")[0])
        ElementTree.SubElement(case, "skipped", message=_text(reason))
    suite.set("tests", str(len(suite)))
    suite.set("failures", str(len(found.failures)))
    suite.set("skipped", str(len(found.not_checked)))
    return suite


def _values(check: Check) -> str:
    return f"expected {expected_text(check)}, found {value_text(check.found)}"


def _case(suite: ElementTree.Element, form: str, name: str) -> ElementTree.Element:
    said = {"classname": _text(f"prunec.{form}"), "name": _text(name)}
    return ElementTree.SubElement(suite, "testcase", said)


def _text(text: str) -> str:
    return _FORBIDDEN.sub("\N{REPLACEMENT CHARACTER}", text)
