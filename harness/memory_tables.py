"""Tables of memory: peaks by lens and phase, every statistic, peaks taken apart.

Figures of an arm are means over its runs that ended ok; what a lens measured with grade D is left out
(`trust`). What this leaves out: ratios (`same_pair`) and how far the figures can be trusted otherwise
(`grade_tables`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from harness import text
from harness.lenses import (
    ABOVE_IDLE,
    DEVICE,
    LENS_NAMES,
    PROCESS,
    RSS,
    TRAINING,
    WHOLE_RUN,
)
from harness.memory_figures import ByPhase, LensStatistics
from harness.report_tables import (
    NOT_APPLICABLE,
    Table,
    arms_of,
    cell,
    make_table,
    mean,
    runs_of,
)
from harness.same_pair import STATISTICS, same_pair_table
from harness.samples import PHASES
from harness.series import is_ok
from harness.traces import utilization_of
from harness.trust import GRADED_D, is_graded_d, trusted
from harness.view import RunView, StudyView
from harness.waterfall import PARTS, waterfall_of

GRPO_PHASES = ("generate", "weight_sync")
STANDS_FOR = "stands for the run: process ids are foreign"
HELD_BEFORE = "stands for the run: memory was in use before it"


def memory_tables(view: StudyView) -> tuple[Table, ...]:
    """Build the tables of arms: peaks first, then how a ratio depends on lens and statistic."""
    pairs = [table for pair in view.matrix.pairs if (table := statistics_table(view, pair)).rows]
    pair = same_pair_table(view)
    return (memory_table(view), *((pair,) if pair.rows else ()), *pairs)


def memory_table(view: StudyView) -> Table:
    """Give each arm's peak memory per lens and phase."""
    phases = [
        phase
        for phase in PHASES
        if any(phase in by for r in view.runs if r.summary for by in r.summary.peak_bytes.values())
    ]
    rows = []
    for pair, arm in arms_of(view):
        ok = [r.summary for r in runs_of(view, pair, arm) if is_ok(r) and r.summary]
        for lens, lens_name in LENS_NAMES.items():
            kept, note = trusted([s for s in ok if lens in s.peak_bytes], lens)
            if not kept:
                continue
            columns = [*phases, "training", WHOLE_RUN]
            peaks = [mean(s.peak_bytes[lens].get(c) for s in kept) for c in columns]
            before = mean(s.baseline_bytes.get(lens) for s in kept)
            skip = () if view.matrix.pairs[pair].task == "grpo" else GRPO_PHASES
            shown = [
                NOT_APPLICABLE if name in skip else text.memory(peak)
                for name, peak in zip(columns, peaks, strict=True)
            ]
            several = max(len(s.device_statistics) for s in ok)
            summed = f", sum of {several} GPUs" if several and lens in (DEVICE, PROCESS) else ""
            rows.append((pair, arm, lens_name + summed + note, text.memory(before), *shown))
        rows += _above_idle_row(view, pair, arm, phases)
        rows += _pool_row(view, pair, arm, phases)
    names = ("Pair", "Arm", "Lens", "Before loading", *phases, "All training phases", "Whole run")
    return make_table(
        "Peak memory per lens and phase, means over seeds",
        tuple(c.replace("_", " ") for c in names),
        rows,
        numeric=set(range(3, len(names))),
    )


def _above_idle_row(
    view: StudyView, pair: str, arm: str, phases: Sequence[str]
) -> list[tuple[str, ...]]:
    """Give what stands for the runs where the device's own figure does not; nothing elsewhere."""
    ok = [r for r in runs_of(view, pair, arm) if is_ok(r) and _why_above_idle(r)]
    read = [r.summary for r in ok if r.summary and ABOVE_IDLE in r.summary.memory_statistics]
    kept, note = trusted(read, ABOVE_IDLE)
    found = [s.memory_statistics[ABOVE_IDLE] for s in kept]
    if not found:
        return []
    skip = () if view.matrix.pairs[pair].task == "grpo" else GRPO_PHASES
    shown = [
        NOT_APPLICABLE
        if name in skip
        else text.memory(mean(_value(by_phase.get(name), "peak") for by_phase in found))
        for name in (*phases, TRAINING, WHOLE_RUN)
    ]
    name = f"{LENS_NAMES[ABOVE_IDLE]} ({_why_above_idle(ok[0])}){note}"
    return [(pair, arm, name, NOT_APPLICABLE, *shown)]


def _pool_row(view: StudyView, pair: str, arm: str, phases: Sequence[str]) -> list[tuple[str, ...]]:
    """Give what an arm's vLLM reserves, in the phases that have it: all after the engine is built.

    An engine that sleeps frees it outside generation, so that at a peak of another phase it is not there.
    """
    ok = [r for r in runs_of(view, pair, arm) if is_ok(r) and r.record and r.record.result]
    made = [r.record.result.generation for r in ok if r.record and r.record.result]
    held = mean(g.pool_bytes for g in made if g)
    if held is None:
        return []
    shares = {u for u in (utilization_of(r) for r in ok) if u is not None}
    sleeps = any(g.sleeps for g in made if g)
    name = "vLLM pool, reserved while it generates" if sleeps else "vLLM pool, reserved"
    if len(shares) == 1:
        name += f" (vllm_gpu_memory_utilization {shares.pop():g})"
    shown = [
        text.memory(held)
        if p == "generate" or not (sleeps or p in ("load", "build"))
        else NOT_APPLICABLE
        for p in (*phases, TRAINING, WHOLE_RUN)
    ]
    return [(pair, arm, name, NOT_APPLICABLE, *shown)]


def statistics_table(view: StudyView, pair: str) -> Table:
    """Give a pair's memory by arm, lens, statistic and phase; of several GPUs each and their sum."""
    runs = [r for r in view.runs if r.planned.pair == pair and is_ok(r) and r.summary]
    phases = [
        phase
        for phase in (*PHASES, TRAINING, WHOLE_RUN)
        if any(
            phase in by_phase
            for r in runs
            if r.summary
            for by_phase in r.summary.memory_statistics.values()
        )
    ]
    rows = []
    for name, arm in arms_of(view):
        if name == pair:
            rows += _arm_rows(arm, [r for r in runs if r.planned.arm == arm], phases)
    columns = ("Arm", "Lens", "Statistic", *(p.replace("_", " ") for p in phases[:-2]))
    return make_table(
        f"Memory by lens, statistic and phase, {pair}: means over seeds",
        (*columns, "All training phases", "Whole run"),
        rows,
        numeric=set(range(3, len(phases) + 3)),
        is_long=True,
    )


def _arm_rows(arm: str, runs: Sequence[RunView], phases: Sequence[str]) -> list[tuple[str, ...]]:
    ok = [r.summary for r in runs if r.summary]
    skip = () if any(r.spec and r.spec.task == "grpo" for r in runs) else GRPO_PHASES
    rows = []
    for lens, lens_name in LENS_NAMES.items():
        kept, note = trusted([s for s in ok if lens in s.memory_statistics], lens)
        found = [s.memory_statistics[lens] for s in kept]
        title = lens_name
        why = next((why for r in runs if (why := _why_above_idle(r))), "")
        if lens == ABOVE_IDLE and why:
            title += f" ({why})"
        several = max((len(s.device_statistics) for s in kept), default=0)
        for place in range(several):
            each = [list(s.device_statistics.values())[place:] for s in kept]
            own = [by_lens[0][lens] for by_lens in each if by_lens and lens in by_lens[0]]
            rows += _statistic_rows(arm, f"{title}, GPU {place + 1}{note}", own, phases, skip)
        is_sum = several and lens in (DEVICE, ABOVE_IDLE, PROCESS)
        title += ", sum" if is_sum else ""
        rows += _statistic_rows(arm, title + note, found, phases, skip)
    return rows


def _statistic_rows(
    arm: str, title: str, found: Sequence[ByPhase], phases: Sequence[str], skip: Iterable[str]
) -> list[tuple[str, ...]]:
    """A row a statistic that the lens has."""
    rows = []
    for statistic, words in STATISTICS.items():
        values = [mean(_value(by_phase.get(p), statistic) for by_phase in found) for p in phases]
        if all(value is None for value in values):
            continue
        shown = [
            NOT_APPLICABLE if phase in skip else text.memory(value)
            for phase, value in zip(phases, values, strict=True)
        ]
        rows.append((arm, title, words, *shown))
    return rows


def _value(figures: LensStatistics | None, statistic: str) -> float | None:
    value: int | None = getattr(figures, f"{statistic}_bytes") if figures else None
    return value


def _why_above_idle(run: RunView) -> str:
    """Say why the device above idle stands for a run; empty where it does not."""
    sampler = run.record.sampler if run.record else None
    if any(d.has_trusted_pids is False for d in (sampler.devices if sampler else ())):
        return STANDS_FOR
    return HELD_BEFORE if run.summary and run.summary.is_judged_above_idle else ""


def _size(size: int) -> str:
    """Write the bytes of a part; a small one is still there."""
    return text.memory(size) if size >= 2**20 else "below 1 MiB"


def parts_tables(view: StudyView) -> tuple[Table, ...]:
    """Take the peak of every run that ended ok apart, part by part; nothing if none was read."""
    found = [
        (run, parts)
        for run in view.runs
        if is_ok(run) and (parts := waterfall_of(run, view.forecasts)) is not None
    ]
    present = [name for name in PARTS if any(p.name == name for _, w in found for p in w.parts)]
    rows = []
    for run, waterfall in found:
        sizes = {part.name: part.bytes for part in waterfall.parts}
        lens = next((n for key, n in LENS_NAMES.items() if key == waterfall.lens), waterfall.lens)
        of = f"growth of {lens}" if waterfall.lens == RSS else lens
        is_poor = run.summary is not None and is_graded_d(run.summary, waterfall.lens)
        poor = f" ({GRADED_D})" if is_poor else ""
        rows.append(
            (
                cell(run),
                of + (", GPU 1" if waterfall.device else "") + poor,
                text.memory(waterfall.total_bytes),
                *(_size(sizes[n]) if n in sizes else NOT_APPLICABLE for n in present),
                " ".join(waterfall.notes),
            )
        )
    columns = (
        "Run",
        "Lens",
        "Peak in training",
        *(n.capitalize() if n != "vLLM pool" else n for n in present),
        "Notes",
    )
    caption = "What the peak in training is made of, run by run"
    numeric = set(range(2, len(present) + 3))
    return (make_table(caption, columns, rows, numeric, is_long=True),) if rows else ()
