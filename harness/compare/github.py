"""What a comparison tells GitHub Actions: annotations of a run, and its summary.

A step shows ten annotations of each kind, so the last says how many more there are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from harness import text
from harness.compare import outline
from harness.compare.markdown import render_markdown
from harness.compare.model import Comparison
from harness.errors import MachineError

ANNOTATIONS_MAX = 10  # of each kind, a step
SUMMARY_MAX = 200_000  # characters; a summary ends at 1 MiB, and a character may have four bytes
KINDS = {"changed": "error", "undecided": "warning", "not comparable": "warning"}


def list_annotations(comparison: Comparison) -> list[str]:
    """List the workflow commands that annotate a run: a line each."""
    told: dict[str, list[tuple[str, str]]] = {"error": [], "warning": [], "notice": []}
    for row in outline.rows_of(comparison):
        if row.cell.word in outline.GRAVE:
            kind = "notice" if row.is_accepted else KINDS.get(row.cell.word, "notice")
            accepted = ", acknowledged" if row.is_accepted else ""
            told[kind].append((f"{row.name}: {row.cell.word}{accepted}", row.sentence))
    for difference in comparison.replay:
        if difference.word == "changed":
            told["notice" if difference.accepted else "error"].append(
                (f"replay: {difference.what}", difference.sentence)
            )
    if any(control.alarms for control in comparison.controls):
        told["warning"].insert(0, ("A/A", outline.control_line(comparison)))
    if not told["error"]:
        answer = f"{comparison.base} → {comparison.candidate}: {comparison.word}"
        told["notice"].insert(0, (answer, comparison.sentence))
    return [line for kind, each in told.items() for line in _lines(kind, each)]


def step_summary(comparison: Comparison) -> str:
    """Render what the job's page shows."""
    return render_markdown(comparison, SUMMARY_MAX)


def tell_github(
    comparison: Comparison, environ: Mapping[str, str], write: Callable[[str], object]
) -> None:
    """In GitHub Actions print annotations by `write` and append the summary; elsewhere do nothing.

    Raises: MachineError if the summary's file can't be written.
    """
    if environ.get("GITHUB_ACTIONS") == "true":
        for line in list_annotations(comparison):
            write(line)
    summary = environ.get("GITHUB_STEP_SUMMARY")
    if summary:
        try:
            with Path(summary).open("a", encoding="utf-8") as file:
                file.write(step_summary(comparison) + "\n")
        except OSError as error:
            raise MachineError(
                "can't append to the file that GITHUB_STEP_SUMMARY names: "
                f"{error.strerror or error}; expected "
                "the file that GitHub gives each step; unset the variable where there is none"
            ) from error


def _lines(kind: str, told: list[tuple[str, str]]) -> list[str]:
    shown = told if len(told) <= ANNOTATIONS_MAX else told[: ANNOTATIONS_MAX - 1]
    lines = [f"::{kind} title={_property(title)}::{_message(message)}" for title, message in shown]
    left = len(told) - len(shown)
    if left:
        lines.append(
            f"::{kind} "
            f"title={_property(f'{left} more')}::{_message('The summary of this job has them.')}"
        )
    return lines


def _message(value: str) -> str:
    """Escape a workflow command's message: it ends at a line's end."""
    plain = text.clean(value)
    return plain.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(value: str) -> str:
    """Escape a workflow command's property: it ends at a comma or a colon too."""
    return _message(value).replace(":", "%3A").replace(",", "%2C")
