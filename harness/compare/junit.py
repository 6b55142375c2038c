"""A comparison as JUnit XML: a test case a cell, so that CI lists what changed by name.

A changed cell fails, unless every change in it was acknowledged. What could not be decided, compared or
trained here is skipped, with its reason. A suite of its own holds the replay and the A/A reruns.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Sequence

from harness import text
from harness.compare import outline
from harness.compare.model import Comparison, Difference

# Code points that XML 1.0 has no way to write; `clean` replaces the other ones.
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def render_junit(comparison: Comparison) -> str:
    """Render a comparison as JUnit XML."""
    root = ET.Element("testsuites", {"name": _xml(_title(comparison))})
    suites = [_cells(root, comparison), _checks(root, comparison)]
    for key in ("tests", "failures", "skipped", "errors"):
        root.set(key, str(sum(int(suite.get(key, "0")) for suite in suites)))
    ET.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _cells(root: ET.Element, comparison: Comparison) -> ET.Element:
    suite = ET.SubElement(root, "testsuite", {"name": _xml(comparison.matrix_name)})
    properties = ET.SubElement(suite, "properties")
    for name, value in _properties(comparison):
        ET.SubElement(properties, "property", {"name": _xml(name), "value": _xml(value)})
    for row in outline.rows_of(comparison):
        case = _case(suite, row.cell.pair, row.name)
        lines = [_line(d) for d in row.differences if d.word != "same"]
        if row.is_accepted:
            reasons = "; ".join(row.reasons)
            _end(case, "skipped", "acknowledged", f"{row.sentence} Acknowledged: {reasons}", lines)
        elif row.cell.word == "changed":
            _end(case, "failure", "changed", row.sentence, lines)
        elif row.cell.word in outline.GRAVE:
            _end(case, "skipped", row.cell.word, f"{row.cell.word}: {row.sentence}", lines)
    return _count(suite)


def _checks(root: ET.Element, comparison: Comparison) -> ET.Element:
    """What belongs to no cell: the replay, and the reruns that must be the same."""
    suite = ET.SubElement(root, "testsuite", {"name": "comparison"})
    changed = [d for d in comparison.replay if d.word == "changed" and not d.accepted]
    case = _case(suite, "comparison", "replay")
    if changed:
        what = f"{text.plural(len(changed), 'item')} of the frozen corpus came out otherwise"
        _end(case, "failure", "changed", what, [_line(d) for d in changed])
    case = _case(suite, "comparison", "A/A")
    line = outline.control_line(comparison)
    if any(control.alarms for control in comparison.controls):
        _end(case, "failure", "alarm", line, [s for c in comparison.controls for s in c.sentences])
    elif not any(control.compared for control in comparison.controls):
        _end(case, "skipped", "not run", line, [])
    return _count(suite)


def _properties(comparison: Comparison) -> list[tuple[str, str]]:
    found = [
        ("base", comparison.base),
        ("candidate", comparison.candidate),
        ("word", comparison.word),
    ]
    for name, base, candidate in comparison.packages:
        found.append((f"package.{name}.base", base or "not installed"))
        found.append((f"package.{name}.candidate", candidate or "not installed"))
    return found


def _case(suite: ET.Element, classname: str, name: str) -> ET.Element:
    return ET.SubElement(
        suite, "testcase", {"classname": _xml(classname), "name": _xml(name), "time": "0"}
    )


def _end(case: ET.Element, tag: str, kind: str, message: str, lines: Sequence[str]) -> None:
    ended = ET.SubElement(case, tag, {"type": kind, "message": _xml(message)})
    ended.text = "\n".join(_xml(line) for line in lines) or None


def _count(suite: ET.Element) -> ET.Element:
    suite.set("tests", str(len(suite.findall("testcase"))))
    suite.set("failures", str(len(suite.findall("testcase/failure"))))
    suite.set("skipped", str(len(suite.findall("testcase/skipped"))))
    suite.set("errors", "0")
    return suite


def _line(difference: Difference) -> str:
    step = "" if difference.step is None else f", step {difference.step}"
    return (
        f"{difference.what}{step}: {outline.show(difference.base)} → "
        f"{outline.show(difference.candidate)} ({difference.word}). {difference.sentence}"
    )


def _title(comparison: Comparison) -> str:
    return f"{comparison.base} against {comparison.candidate}"


def _xml(value: object) -> str:
    return _NOT_XML.sub("\ufffd", text.clean(value))
