"""Each arm of a pair against its baseline arm: quality, memory, speed, and a word.

The rule, the same for every pair: the paired difference of the held-out metric over seeds, turned so
that positive is worse, against the margin that the matrix fixed before the first run.

* supported: the whole interval lies below the margin. The arm matches within it.
* refuted: the whole interval lies above the margin.
* inconclusive: anything else, fewer than three seeds, or nothing was learned.
* not tested: no seed finished in both arms.

A run that failed counts against its arm: with any seed lost, 'supported' becomes 'inconclusive'.
What this leaves out: the page's other claims, equivalence tests, corrections for many claims.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from pydantic import Field

from harness.record import Status
from harness.spec import Count, Frozen, Matrix, Pair
from harness.stats import Estimate, paired_difference, paired_ratio
from harness.summary import LENS_NAMES, Lens, RunSummary

Word = Literal["supported", "refuted", "inconclusive", "not tested"]
MINIMUM_SEEDS = 3
# The lens a pair is judged by: the first of these that every compared run has.
LENS_ORDER: tuple[Lens, ...] = ("nvml-device", "torch-reserved", "rss")

# How the sentence calls the first comparison of a lens; the table gives the statistic in full.
SHORT_STATISTICS: dict[str, str] = {
    "nvml-device": "NVML device peak in training",
    "torch-reserved": "torch reserved peak in training",
    "rss": "growth of peak RSS in training",
}


class Interval(Frozen):
    """An estimate with its 95 % t interval over seeds."""

    value: float
    low: float | None
    high: float | None
    n: Count


class MemoryComparison(Frozen):
    """Memory of an arm over its baseline, one lens, named statistic."""

    lens: str
    statistic: str
    arm_bytes: float | None = Field(description="mean over seeds")
    baseline_bytes: float | None
    ratio: Interval | None


class Finding(Frozen):
    """One arm of a pair, judged against the pair's baseline arm."""

    pair: str
    arm: str
    baseline: str
    metric: Literal["nll", "reward"]
    unit: str
    margin: float
    margin_reason: str
    word: Word
    reason: str = Field(description="why that word, in a sentence")
    base_model: float | None = Field(description="metric of the untrained model, mean over runs")
    arm_final: float | None = Field(description="mean over seeds that both arms finished")
    baseline_final: float | None
    worse_by: Interval | None = Field(
        description="paired difference turned so that positive means the arm is worse"
    )
    memory: tuple[MemoryComparison, ...] = Field(description="the judged comparison first")
    tokens_per_s_ratio: Interval | None = Field(
        description="trained tokens per second, arm / baseline"
    )
    step_time_ratio: Interval | None = Field(description="median step time, arm / baseline")
    seeds: tuple[int, ...] = Field(description="seeds that both arms finished")
    lost: tuple[str, ...] = Field(description="cells that did not end ok, with their status")


Cells = Mapping[tuple[str, str, int], tuple[Status | None, RunSummary | None]]


def judge(matrix: Matrix, cells: Cells) -> list[Finding]:
    """Judge every arm that is not its pair's baseline.

    cells: (pair, arm, seed) → the run's status (None: not run yet) and its summary.
    """
    return [
        _judge_arm(name, pair, arm, cells)
        for name, pair in matrix.pairs.items()
        for arm in pair.arms
        if arm != pair.baseline
    ]


def sentence(findings: Sequence[Finding]) -> str:
    """Say in one sentence what the study found; without a finding, that there is none."""
    judged = [f for f in findings if f.word != "not tested"]
    if not judged:
        return "Nothing was measured in both arms yet, so there is no finding."
    supported, refuted, open_ones = (
        sum(f.word == word for f in judged) for word in ("supported", "refuted", "inconclusive")
    )
    total = f"{len(judged)} comparison{'s' if len(judged) > 1 else ''}"
    if open_ones == len(judged):
        text = f"Whether LoRA matches full fine-tuning can't be decided in any of {total}"
    else:
        text = f"LoRA matches full fine-tuning within the margin in {supported} of {total}"
        text += f", falls short in {refuted}" if refuted else ""
        text += f", and {open_ones} can't be decided" if open_ones else ""
    return f"{text}{_memory_clause(judged)}."


def _memory_clause(judged: Sequence[Finding]) -> str:
    """Name the range of memory ratios, over the findings that share the first one's lens."""
    compared = [f.memory[0] for f in judged if f.memory and f.memory[0].ratio]
    ratios = [m.ratio.value for m in compared if m.ratio and m.statistic == compared[0].statistic]
    if not ratios:
        return ""
    low, high = f"{min(ratios):.0%}", f"{max(ratios):.0%}"
    span = low if low == high else f"{low} to {high}"
    return f"; LoRA takes {span} of the memory ({SHORT_STATISTICS[compared[0].lens]})"


def _judge_arm(name: str, pair: Pair, arm: str, cells: Cells) -> Finding:
    seeds = sorted({s for p, a, s in cells if p == name and a in (arm, pair.baseline)})
    ours = {s: _summary(cells, name, arm, s) for s in seeds}
    theirs = {s: _summary(cells, name, pair.baseline, s) for s in seeds}
    shared = tuple(
        s for s in seeds if _final(ours[s]) is not None and _final(theirs[s]) is not None
    )
    sign = 1.0 if pair.task == "sft" else -1.0  # a higher NLL is worse, a higher reward is better
    a = {s: v for s in shared if (v := _final(ours[s])) is not None}
    b = {s: v for s in shared if (v := _final(theirs[s])) is not None}
    worse = paired_difference(
        {s: sign * v for s, v in a.items()}, {s: sign * v for s, v in b.items()}
    )
    lost = _lost(cells, name, (arm, pair.baseline), seeds)
    bases = [
        r.base_value for r in (*ours.values(), *theirs.values()) if r and r.base_value is not None
    ]
    base = sum(bases) / len(bases) if bases else None
    gains = [sign * (base - v) for v in b.values()] if base is not None else []
    gain = sum(gains) / len(gains) if gains else None
    word, reason = _word(worse, pair.margin, lost, gain)
    return Finding(
        pair=name,
        arm=arm,
        baseline=pair.baseline,
        metric="nll" if pair.task == "sft" else "reward",
        unit="nats per completion token" if pair.task == "sft" else "reward",
        margin=pair.margin,
        margin_reason=pair.margin_reason,
        word=word,
        reason=reason,
        base_model=base,
        arm_final=sum(a.values()) / len(a) if a else None,
        baseline_final=sum(b.values()) / len(b) if b else None,
        worse_by=_interval(worse),
        memory=_compare_memory(ours, theirs, shared),
        tokens_per_s_ratio=_ratio(ours, theirs, shared, "trained_tokens_per_s"),
        step_time_ratio=_ratio(ours, theirs, shared, "step_s_median"),
        seeds=shared,
        lost=lost,
    )


def _word(
    worse: Estimate | None, margin: float, lost: tuple[str, ...], gain: float | None
) -> tuple[Word, str]:
    if worse is None:
        return "not tested", "No seed finished in both arms."
    if worse.n < MINIMUM_SEEDS or worse.low is None or worse.high is None:
        return (
            "inconclusive",
            f"{worse.n} seed{'s' if worse.n > 1 else ''} in both arms; at least {MINIMUM_SEEDS} are "
            "needed for an interval that means something.",
        )
    if worse.low > margin:
        return "refuted", f"Even the interval's favourable end is worse by more than {margin:g}."
    if gain is None or gain < margin:
        return (
            "inconclusive",
            "The baseline arm itself did not improve on the untrained model by the margin, so a "
            "match would mean nothing.",
        )
    if worse.high >= margin:
        return (
            "inconclusive",
            f"The interval reaches {worse.high:+.3g}, beyond the margin of {margin:g}; more seeds "
            "would narrow it.",
        )
    if lost:
        return (
            "inconclusive",
            f"{len(lost)} run(s) did not finish, and they count against their arm.",
        )
    return "supported", f"The whole interval stays below the margin of {margin:g}."


def _compare_memory(
    ours: Mapping[int, RunSummary | None],
    theirs: Mapping[int, RunSummary | None],
    seeds: Sequence[int],
) -> tuple[MemoryComparison, ...]:
    rows = []
    for lens in LENS_ORDER:
        kinds = ("growth", "peak") if lens == "rss" else ("peak",)
        for kind in kinds:
            a = {s: v for s in seeds if (v := _memory(ours[s], lens, kind)) is not None}
            b = {s: v for s in seeds if (v := _memory(theirs[s], lens, kind)) is not None}
            if not a or not b:
                continue
            what = (
                f"peak growth of {LENS_NAMES[lens]} in training, above the worker before loading"
                if kind == "growth"
                else f"peak {LENS_NAMES[lens]} in training"
            )
            rows.append(
                MemoryComparison(
                    lens=lens,
                    statistic=what,
                    arm_bytes=sum(a.values()) / len(a),
                    baseline_bytes=sum(b.values()) / len(b),
                    ratio=_interval(paired_ratio(a, b)),
                )
            )
    return tuple(rows)


def _memory(run: RunSummary | None, lens: str, kind: str) -> float | None:
    if run is None:
        return None
    value = run.growth(lens) if kind == "growth" else run.peak_bytes.get(lens, {}).get("training")
    return None if value is None else float(value)


def _ratio(
    ours: Mapping[int, RunSummary | None],
    theirs: Mapping[int, RunSummary | None],
    seeds: Sequence[int],
    field: str,
) -> Interval | None:
    a = {s: v for s in seeds if (v := getattr(ours[s], field)) is not None}
    b = {s: v for s in seeds if (v := getattr(theirs[s], field)) is not None}
    return _interval(paired_ratio(a, b))


def _interval(estimate: Estimate | None) -> Interval | None:
    if estimate is None:
        return None
    return Interval(value=estimate.mean, low=estimate.low, high=estimate.high, n=estimate.n)


def _summary(cells: Cells, pair: str, arm: str, seed: int) -> RunSummary | None:
    status, summary = cells.get((pair, arm, seed), (None, None))
    return summary if status is Status.OK else None


def _final(run: RunSummary | None) -> float | None:
    return run.final_value if run else None


def _lost(cells: Cells, pair: str, arms: Sequence[str], seeds: Sequence[int]) -> tuple[str, ...]:
    rows = []
    for arm in arms:
        for seed in seeds:
            status, summary = cells.get((pair, arm, seed), (None, None))
            if status is Status.OK and _final(summary) is not None:
                continue
            word = "not run" if status is None else status.value
            if status is Status.OK:
                word = "no final value"
            rows.append(f"{pair}.{arm}.s{seed}: {word}")
    return tuple(rows)
