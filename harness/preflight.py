"""What the data and models of a matrix turn out to be, before a run trains on them.

`python -m harness.worker.preflight` reads the real files with the worker's own code, in a process of
its own because that needs the ML libraries. It is given `{"places": …, "specs": […]}` and answers in
JSON lines, `{"kind": "problem" | "note", "cell": …, "what": …}`; every problem is listed at once.
Embedded models and generated rows can't be wrong in this way, so a matrix of those alone skips it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence

from harness.asking import ask_worker
from harness.catalog import DATASETS
from harness.errors import ConfigError
from harness.frozen import Frozen
from harness.sources import is_repository
from harness.spec import RunSpec
from harness.text import harmless, plural

COMMAND = (sys.executable, "-m", "harness.worker.preflight")


class Finding(Frozen):
    """A line of the answer."""

    kind: str
    cell: str | None = None
    what: str


def check_sources(
    specs: Sequence[RunSpec], places: Mapping[str, str], command: Sequence[str] = COMMAND
) -> list[str]:
    """Have the worker's code look at what runs would read; returns its notes.

    Raises: ConfigError with every problem it found; MachineError if it could not look.
    """
    looked_at = [s for s in specs if s.dataset.name in DATASETS or is_repository(s.model.source)]
    if not looked_at:
        return []
    question = {"places": dict(places), "specs": [s.model_dump(mode="json") for s in looked_at]}
    findings = ask_worker(command, question, Finding, "the check of models and datasets")
    problems = _joined(f for f in findings if f.kind == "problem")
    if problems:
        raise ConfigError(*problems)
    return _joined(f for f in findings if f.kind == "note")


def _joined(findings: Iterable[Finding]) -> list[str]:
    """One sentence per finding, with the cells that it holds for."""
    cells: dict[str, list[str]] = {}
    for finding in findings:
        cells.setdefault(harmless(finding.what), []).append(finding.cell or "")
    return [_sentence(what, [c for c in named if c]) for what, named in cells.items()]


def _sentence(what: str, cells: Sequence[str]) -> str:
    if not cells:
        return what
    more = f" and {plural(len(cells) - 1, 'run')} more" if len(cells) > 1 else ""
    return f"{cells[0]}{more}: {what}"
