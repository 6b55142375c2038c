"""The forecast scorecard as a sentence and two tables: by lens, and run by run.

What this leaves out: the sums (`scorecard`), and the figure (`scorecard_chart`).
"""

from __future__ import annotations

from collections.abc import Sequence

from harness import text
from harness.forecasts import Forecasts
from harness.lenses import LENS_NAMES, RSS
from harness.report_tables import Table, make_table
from harness.scorecard import FullGpu, LensScore, Ran, Score, Tally, by_lens, score, tally
from harness.view import StudyView

COMMAND = "harness forecast --study STUDY"


def scores(view: StudyView) -> list[Score]:
    """Set a study's runs beside the forecasts that were kept with it."""
    return score(view.forecasts, _every_run(view))


def compared(view: StudyView) -> Tally:
    """Count the runs that are compared, and say what became of the others."""
    return tally(view.forecasts, _every_run(view))


def _every_run(view: StudyView) -> list[Ran]:
    return [Ran(r.planned, r.record, r.summary, r.environment) for r in view.every_run]


def scorecard_sentence(view: StudyView) -> str:
    """Say how good the forecast was, or why there is nothing to say."""
    kept = view.forecasts
    if kept is None:
        return f"No forecast of memory was kept with this study; `{COMMAND}` makes one."
    rows = scores(view)
    sums = by_lens(rows)
    counted = compared(view)
    said = [_counted(counted), *_full(counted), *(_said(each) for each in sums)]
    untold = {(arm.pair, arm.arm): arm for arm in kept.arms if arm.forecast is None}
    if untold:
        first = next(iter(untold.values()))
        arms, which = text.plural(len(untold), "arm"), "the first, " if len(untold) > 1 else ""
        said.append(f"Not forecast: {arms} ({which}{first.pair}.{first.arm}: {first.why}).")
    formulas = len({(row.pair, row.arm) for row in rows if row.source == "formulas"})
    if formulas:
        said.append(f"By formulas alone, not traced: {text.plural(formulas, 'arm')}.")
    return text.clean(" ".join([*said, *_other_versions(view, kept)]))


def scorecard_tables(view: StudyView) -> tuple[Table, ...]:
    """Give a row a lens, and one a run that ended oom-gpu; nothing where nothing was forecast."""
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
    lenses = (make_table(caption, columns, rows, {1, 2, 3}),) if rows else ()
    return (*lenses, *_full_tables(view))


def _full_tables(view: StudyView) -> tuple[Table, ...]:
    full = compared(view).full if view.forecasts is not None else ()
    rows = [
        (
            each.cell,
            text.clean(each.device or text.MISSING),
            text.memory(each.gpu_bytes),
            text.memory(each.forecast_bytes),
            _interval(each.low_bytes, each.high_bytes),
            each.fits or "not forecast",
        )
        for each in full
    ]
    columns = ("Run", "GPU", "Its memory", "Forecast in training", "Interval", "Forecast to fit")
    caption = "Runs that ended oom-gpu"
    return (make_table(caption, columns, rows, {2, 3, 4}),) if rows else ()


def scorecard_runs_tables(view: StudyView) -> tuple[Table, ...]:
    """Give a row a run and lens; nothing without a forecast that a run can be held against."""
    rows = [
        (
            row.cell,
            lens_name(row.lens),
            row.source,
            text.memory(row.forecast_bytes),
            _interval(row.low_bytes, row.high_bytes),
            text.memory(row.measured_bytes),
            row.grade or text.MISSING,
            f"{row.forecast_bytes / row.measured_bytes:.3f}",
            ("yes" if row.is_inside else "no") if row.is_judged else "not judged",
        )
        for row in scores(view)
    ]
    columns = (
        "Run", "Lens", "By", "Forecast", "Interval", "Measured in training", "Grade",
        "Forecast / measured", "Inside",
    )  # fmt: skip
    caption = "Forecast scorecard of every run"
    return (make_table(caption, columns, rows, {3, 4, 5, 7}, is_long=True),) if rows else ()


def lens_name(lens: str) -> str:
    """Name a lens as it was compared."""
    name = next((name for key, name in LENS_NAMES.items() if key == lens), lens)
    return f"growth of {name}" if lens == RSS else name


def _interval(low: int | None, high: int | None) -> str:
    return text.MISSING if low is None else f"{text.memory(low)} to {text.memory(high)}"


def _counted(counted: Tally) -> str:
    """Say how many runs the figures are of: those that fell out are no sample of the others."""
    reasons = "; ".join(f"{runs} {reason}" for reason, runs in counted.left_out.items())
    left_out = f" (left out: {reasons})" if reasons else ""
    return f"Compared: {counted.compared} of {text.plural(counted.runs, 'run')}{left_out}."


def _full(counted: Tally) -> list[str]:
    """Say of the runs whose GPU was full what the forecast had said: to fit is the worst miss."""
    if not counted.full:
        return []
    words = {"yes": "to fit", "perhaps": "perhaps to fit", "no": "not to fit", None: "not at all"}
    said = []
    for fits, word in words.items():
        own = [each for each in counted.full if each.fits == fits]
        if own:
            named = f" ({_named(own)})" if fits == "yes" else ""
            said.append(f"{len(own)} {word}{named}")
    worst = " One that was forecast to fit and did not is the worst miss, and in no error below."
    missed = any(each.fits == "yes" for each in counted.full)
    runs = text.plural(len(counted.full), "run")
    return [
        f"Of {runs} that ended oom-gpu, forecast were: {', '.join(said)}.{worst if missed else ''}"
    ]


def _named(full: Sequence[FullGpu]) -> str:
    by_device: dict[str, list[str]] = {}
    for each in full:
        by_device.setdefault(each.device or "a GPU", []).append(each.cell)
    return "; ".join(f"{', '.join(cells)} on {device}" for device, cells in by_device.items())


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
