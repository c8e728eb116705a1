"""JUnit XML of a verification, for build servers: one suite per form, one test case per check."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from prunec.deploy.checks.check import Check
from prunec.deploy.checks.render import expected_text, value_text
from prunec.deploy.checks.report import ExportReport, Report

_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML 1.0 cannot hold, escaped or not."""


def junit_xml(report: ExportReport) -> str:
    """Return the checks of every form as JUnit XML; unchecked items become skipped cases."""
    root = ElementTree.Element("testsuites", name="prunec")
    for form, checked in report.forms.items():
        root.append(_suite(form, checked))
    for key in ("tests", "failures", "skipped"):
        root.set(key, str(sum(int(suite.get(key, "0")) for suite in root)))
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _suite(form: str, checked: Report) -> ElementTree.Element:
    suite = ElementTree.Element("testsuite", name=_text(form))
    for check in checked.checks:
        case = _case(suite, form, check.name)
        if not check.passed:
            failure = ElementTree.SubElement(case, "failure", message=_text(check.message))
            failure.text = _text(_values(check))
    for reason in checked.not_checked:
        case = _case(suite, form, reason.partition(":")[0])
        ElementTree.SubElement(case, "skipped", message=_text(reason))
    suite.set("tests", str(len(suite)))
    suite.set("failures", str(len(checked.failures)))
    suite.set("skipped", str(len(checked.not_checked)))
    return suite


def _values(check: Check) -> str:
    return f"expected {expected_text(check)}, found {value_text(check.found)}"


def _case(suite: ElementTree.Element, form: str, name: str) -> ElementTree.Element:
    attributes = {"classname": _text(f"prunec.{form}"), "name": _text(name)}
    return ElementTree.SubElement(suite, "testcase", attributes)


def _text(text: str) -> str:
    return _FORBIDDEN.sub("\N{REPLACEMENT CHARACTER}", text)
