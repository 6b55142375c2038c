"""The forecast scorecard as a sentence and two tables: by lens, and run by run.

What this leaves out: the sums (`scorecard`), and the figure (`scorecard_chart`).
"""

from __future__ import annotations

from harness import text
from harness.forecasts import Forecasts
from harness.lenses import LENS_NAMES, RSS
from harness.report_tables import Table, make_table
from harness.scorecard import LensScore, Score, by_lens, score
from harness.view import StudyView

COMMAND = "harness forecast --study STUDY"


def scores(view: StudyView) -> list[Score]:
    """Set a study's runs beside the forecasts that were kept with it."""
    return score(view.forecasts, ((r.planned, r.record, r.summary) for r in view.every_run))


def scorecard_sentence(view: StudyView) -> str:
    """Say how good the forecast was, or why there is nothing to say."""
    kept = view.forecasts
    if kept is None:
        return f"No forecast of memory was kept with this study; `{COMMAND}` makes one."
    rows = scores(view)
    sums = by_lens(rows)
    said = [_said(each) for each in sums] or [
        "No run that ended ok has both a forecast of its memory and a measured value."
    ]
    untold = [arm for arm in kept.arms if arm.forecast is None]
    if untold:
        first = untold[0]
        arms = text.plural(len(untold), "arm")
        said.append(f"Not forecast: {arms} ({first.pair}.{first.arm}: {first.why}).")
    formulas = len({(row.pair, row.arm) for row in rows if row.source == "formulas"})
    if formulas:
        said.append(f"By formulas alone, not traced: {text.plural(formulas, 'arm')}.")
    return text.clean(" ".join([*said, *_other_versions(view, kept)]))


def scorecard_tables(view: StudyView) -> tuple[Table, ...]:
    """Give a row a lens; nothing without a forecast that a run can be held against."""
    rows = [
        (
            lens_name(each.lens),
            f"{each.inside} of {each.runs}",
            text.percent(each.median_error, 1),
            f"{100 * each.largest_error:+.1f}%",
        )
        for each in by_lens(scores(view))
    ]
    columns = ("Lens", "Runs inside the interval", "Median error", "Largest error")
    caption = "Forecast of memory against what training held"
    return (make_table(caption, columns, rows, {1, 2, 3}),) if rows else ()


def scorecard_runs_tables(view: StudyView) -> tuple[Table, ...]:
    """Give a row a run and lens; nothing without a forecast that a run can be held against."""
    rows = [
        (
            row.cell,
            lens_name(row.lens),
            row.source,
            text.memory(row.forecast_bytes),
            f"{text.memory(row.low_bytes)} to {text.memory(row.high_bytes)}",
            text.memory(row.measured_bytes),
            f"{row.forecast_bytes / row.measured_bytes:.3f}",
            "yes" if row.is_inside else "no",
        )
        for row in scores(view)
    ]
    columns = (
        "Run", "Lens", "By", "Forecast", "Interval", "Measured in training", "Forecast / measured",
        "Inside",
    )  # fmt: skip
    caption = "Forecast scorecard of every run"
    return (make_table(caption, columns, rows, {3, 4, 5, 6}, is_long=True),) if rows else ()


def lens_name(lens: str) -> str:
    """Name a lens as it was compared."""
    name = next((name for key, name in LENS_NAMES.items() if key == lens), lens)
    return f"growth of {name}" if lens == RSS else name


def _said(each: LensScore) -> str:
    name = lens_name(each.lens)
    return (
        f"Forecast of {name}: {each.inside} of {text.plural(each.runs, 'run')} inside the interval, "
        f"median error {text.percent(each.median_error, 1)}, largest {100 * each.largest_error:+.1f}%."
    )


def _other_versions(view: StudyView, kept: Forecasts) -> list[str]:
    """Say where the code that was traced is of another release than what trained."""
    found = set()
    for run in view.every_run:
        packages = run.environment.get("packages")
        trained = packages if isinstance(packages, dict) else {}
        found |= {
            f"{name} {traced} (trained with {trained[name]})"
            for name, traced in kept.libraries.items()
            if traced and trained.get(name) and _release(trained[name]) != _release(traced)
        }
    return [f"Traced with {', '.join(sorted(found))}."] if found else []


def _release(version: object) -> str:
    """A version without its build: torch's CPU and CUDA builds run the same code here."""
    return str(version).split("+", 1)[0]
