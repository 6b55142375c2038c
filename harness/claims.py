"""Each arm of a pair against its baseline arm: quality, memory, speed, and a word.

The rule behind the word stands in `rule`, what memory and speed are compared by in `ratios`.
What this leaves out: what a matrix claims, with corrections for many claims (`verdicts`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from pydantic import Field

from harness.claim_checks import UNITS
from harness.frozen import Frozen
from harness.ratios import (
    Interval,
    MemoryComparison,
    compare_field,
    compare_memory,
    interval_of,
)
from harness.rule import Cells, Side, Verdict, Word, decide, gather
from harness.spec import Matrix, Method, Pair
from harness.stats import paired_difference

REHEARSED: Verdict = (
    "not tested",
    "a rehearsal shows that both arms run; its toys learn nothing that could be judged",
)
UNDECLARED: Verdict = (
    "inconclusive",
    "The arms differ in trainer arguments that the matrix does not declare, so a difference would not "
    "be the method's alone.",
)

# How the sentence calls the first comparison of a lens; the table gives the statistic in full.
SHORT_STATISTICS: dict[str, str] = {
    "nvml-device": "NVML device peak in training",
    "nvml-above-idle": "NVML device peak above idle in training",
    "torch-reserved": "torch reserved peak in training",
    "rss": "growth of peak RSS in training",
}


class Finding(Frozen):
    """One arm of a pair, judged against the pair's baseline arm."""

    pair: str
    arm: str
    method: Method
    baseline: str
    baseline_method: Method
    metric: Literal["nll", "reward"]
    unit: str
    margin: float
    margin_reason: str
    word: Word
    reason: str = Field(description="why that word, in a sentence")
    is_comparable: bool = Field(description="the arms differ only in what the matrix declared")
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
    lost: tuple[str, ...] = Field(description="cells without a result to compare, and why")


def judge(
    matrix: Matrix, cells: Cells, undeclared_pairs: frozenset[str] = frozenset()
) -> list[Finding]:
    """Judge every planned arm that is not its pair's baseline.

    cells: (pair, arm, seed) → the run's status (None: not run yet) and its summary, for every planned
    run; an arm that a filter left out has none and is not judged.
    undeclared_pairs: pairs whose arms differ in arguments that the matrix did not declare.
    """
    planned = {(name, arm) for name, arm, _ in cells}
    return [
        _judge_arm(
            name, pair, arm, cells, name not in undeclared_pairs, matrix.scale == "rehearsal"
        )
        for name, pair in matrix.pairs.items()
        for arm in pair.arms
        if arm != pair.baseline and (name, arm) in planned
    ]


def sentence(findings: Sequence[Finding]) -> str:
    """Say in one sentence what the study found; without a finding, that there is none.

    Only LoRA against full fine-tuning counts in it; other comparisons are named as such.
    """
    ours = [f for f in findings if (f.method, f.baseline_method) == ("lora", "full")]
    others = len(findings) - len(ours)
    stand = "stands" if others == 1 else "stand"
    rest = f"; {_comparisons(others, 'other ')} {stand} in the table" if others else ""
    if not ours:
        return f"No arm compares LoRA with full fine-tuning, so there is no finding{rest}."
    words = Counter(f.word for f in ours)
    untested = words["not tested"]
    if untested == len(ours):
        return f"No seed finished in both arms of a comparison, so there is no finding{rest}."
    total = _comparisons(len(ours))
    if words["supported"] + words["refuted"] == 0:
        where = f" in any of {total}" if len(ours) > 1 else ""
        text = f"Whether LoRA matches full fine-tuning can't be decided{where}"
        text += f", and {untested} of them could not be tested" if untested else ""
    else:
        parts = [
            f"LoRA matches full fine-tuning within the margin in {words['supported']} of {total}",
            f"falls short in {words['refuted']}" if words["refuted"] else "",
            f"{words['inconclusive']} can't be decided" if words["inconclusive"] else "",
            f"{untested} could not be tested" if untested else "",
        ]
        text = ", ".join(part for part in parts if part)
    return f"{text}{_memory_clause(ours)}{rest}."


def _comparisons(n: int, kind: str = "") -> str:
    return f"{n} {kind}comparison{'' if n == 1 else 's'}"


def _memory_clause(findings: Sequence[Finding]) -> str:
    """Name the range of memory ratios, over the findings that share the first one's lens."""
    compared = [
        f.memory[0]
        for f in findings
        if f.is_comparable and f.memory and f.memory[0].ratio and not f.memory[0].refused
    ]
    ratios = [m.ratio.value for m in compared if m.ratio and m.statistic == compared[0].statistic]
    if not ratios:
        return ""
    low, high = f"{min(ratios):.0%}", f"{max(ratios):.0%}"
    span = low if low == high else f"{low} to {high}"
    return f"; LoRA takes {span} of the memory ({SHORT_STATISTICS[compared[0].lens]})"


def _judge_arm(
    name: str, pair: Pair, arm: str, cells: Cells, is_comparable: bool, is_rehearsal: bool
) -> Finding:
    seeds = sorted({s for p, a, s in cells if p == name and a in (arm, pair.baseline)})
    ours, theirs = (gather(cells, name, a, seeds) for a in (arm, pair.baseline))
    shared = tuple(s for s in seeds if s not in ours.lost and s not in theirs.lost)
    a, b = ours.finals(shared), theirs.finals(shared)
    sign = 1.0 if pair.task == "sft" else -1.0  # a higher NLL is worse, a higher reward is better
    worse = paired_difference(_turned(a, sign), _turned(b, sign))
    base = _untrained(ours, theirs)
    gain = None if base is None else _mean(sign * (base - v) for v in b.values())
    verdict = decide(worse, pair.margin, gain, ours, theirs) if is_comparable else UNDECLARED
    if is_rehearsal:
        verdict = REHEARSED
    metric: Literal["nll", "reward"] = "nll" if pair.task == "sft" else "reward"
    return Finding(
        pair=name,
        arm=arm,
        method=pair.arms[arm].method,
        baseline=pair.baseline,
        baseline_method=pair.arms[pair.baseline].method,
        metric=metric,
        unit=UNITS[metric],
        margin=pair.margin,
        margin_reason=pair.margin_reason,
        word=verdict[0],
        reason=verdict[1],
        is_comparable=is_comparable,
        base_model=base,
        arm_final=_mean(a.values()),
        baseline_final=_mean(b.values()),
        worse_by=interval_of(worse),
        memory=compare_memory(ours.runs, theirs.runs, shared),
        tokens_per_s_ratio=compare_field(ours.runs, theirs.runs, shared, "trained_tokens_per_s"),
        step_time_ratio=compare_field(ours.runs, theirs.runs, shared, "step_s_median"),
        seeds=shared,
        lost=(*cell_losses(name, ours), *cell_losses(name, theirs)),
    )


def _turned(values: Mapping[int, float], sign: float) -> dict[int, float]:
    return {seed: sign * value for seed, value in values.items()}


def _untrained(*sides: Side) -> float | None:
    """Average what the untrained model scored, over all runs that ended ok."""
    runs = [run for side in sides for run in side.runs.values() if run is not None]
    return _mean(run.base_value for run in runs if run.base_value is not None)


def cell_losses(pair: str, side: Side) -> list[str]:
    """Name an arm's runs that gave nothing to compare, and why."""
    return [f"{pair}.{side.name}.s{seed}: {why}" for seed, why in side.lost.items()]


def _mean(values: Iterable[float]) -> float | None:
    known = list(values)
    return sum(known) / len(known) if known else None
