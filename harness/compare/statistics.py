"""Paired seeds: what training came to, how fast it learned, what it took, as differences with intervals.

For sides whose runs don't repeat to the bit, on a GPU above all. One number a seed; at least three seeds.
Equal is shown (two one-sided tests within the pair's margin), never concluded from a difference that isn't
significant. The error rate is shared by the cells. A difference found here is a suspicion: it is confirmed
by running the cells again. What this leaves out: running them (`confirming`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from harness.compare.grouping import CellRuns
from harness.compare.limits import Limits
from harness.compare.model import Difference, Kind, Word
from harness.compare.side import RunSide
from harness.compare.trust import own_lenses, refusal
from harness.equivalence import p_above, p_below, p_within
from harness.stats import Estimate, paired_difference, paired_ratio
from harness.text import signed, span

LEAST_SEEDS = 3
TRAINING = "training"
Measure = Callable[[RunSide], float | None]


@dataclass(frozen=True)
class Terms:
    """What the statistics of a comparison share."""

    limits: Limits
    cells: int  # that share the error rate
    has_times: bool  # whether both sides ran on machines whose times may be compared

    @property
    def alpha(self) -> float:
        """The two-sided error rate of one cell."""
        return self.limits.alpha / max(1, self.cells)

    @property
    def confidence(self) -> float:
        """Of an interval that ends beyond a bound with that error."""
        return 1 - self.alpha


def compare_seeds(cell: CellRuns, margin: float | None, terms: Terms) -> list[Difference]:
    """Compare a cell over its seeds; nothing with fewer than three."""
    if len(cell.ok_pairs) < LEAST_SEEDS:
        return []
    metric = "NLL" if cell.task == "sft" else "reward"
    found = [
        _difference(cell, f"final {metric}", final_value, margin, terms),
        _difference(cell, f"mean {_LOGGED[cell.task]} over the run", mean_logged, margin, terms),
        _difference(cell, "step at which half of the gain is reached", half_gain_step, None, terms),
        *_memory(cell, terms),
    ]
    if terms.has_times:
        found.append(_throughput(cell, terms))
    return [each for each in found if each is not None]


def has_enough_seeds(cell: CellRuns) -> bool:
    """Whether statistics can say anything of a cell."""
    return len(cell.ok_pairs) >= LEAST_SEEDS


def final_value(run: RunSide) -> float | None:
    """Return the held-out metric after training, on the test rows where there are any."""
    ended = [p for p in run.evaluations if p.step > 0 and p.value is not None]
    judged = [p for p in ended if p.split == "test"] or ended
    return judged[-1].value if judged else None


def mean_logged(run: RunSide) -> float | None:
    """Return the mean training reward (grpo) or loss (sft) over the run: lower or higher all along."""
    known = [v for v in run.series.get(_LOGGED[run.task], ()) if v is not None]
    return sum(known) / len(known) if known else None


def half_gain_step(run: RunSide) -> float | None:
    """Return the first step at which the smoothed training curve has come half of its way; None if flat."""
    known = [v for v in run.series.get(_LOGGED[run.task], ()) if v is not None]
    window = max(1, len(known) // 10)
    smooth = [sum(known[i : i + window]) / window for i in range(len(known) - window + 1)]
    if len(smooth) < 2 or smooth[0] == smooth[-1]:
        return None
    half = (smooth[0] + smooth[-1]) / 2
    rises = smooth[-1] > smooth[0]
    reached = (i for i, v in enumerate(smooth) if (v >= half if rises else v <= half))
    return float(next(reached) + window)


def tokens_per_s(run: RunSide, warmup_steps: int) -> float | None:
    """Return the trained tokens a second of the steps after warm-up."""
    rows = list(zip(run.tokens, run.step_wall_s, strict=False))[warmup_steps:]
    known = [(t, s) for t, s in rows if t is not None and s is not None]
    seconds = sum(s for _, s in known)
    return sum(t for t, _ in known) / seconds if known and seconds > 0 else None


_LOGGED = {"sft": "loss", "grpo": "reward"}


def _difference(
    cell: CellRuns, what: str, measure: Measure, margin: float | None, terms: Terms
) -> Difference | None:
    ours, theirs = _by_seed(cell, measure)
    estimate = paired_difference(theirs, ours, terms.confidence)
    if estimate is None or estimate.n < LEAST_SEEDS or not any(ours[s] != theirs[s] for s in ours):
        return None
    word = difference_word(estimate, margin, terms.alpha)
    allowed = "" if margin is None else f"; {margin:g} is allowed"
    text = (
        f"{what}: {signed(estimate.mean, 4)} over {estimate.n} seeds, "
        f"{span(estimate.low, estimate.high, 'signed', 4)}{allowed}"
    )
    base = sum(ours.values()) / len(ours)
    return _found("metric", what, word, base, base + estimate.mean, text)


def difference_word(estimate: Estimate, margin: float | None, alpha: float) -> Word:
    """Say what a paired difference shows: equal within the margin, a change, or neither.

    Without a margin nothing can be shown to be equal: what isn't significant is `same` there, as one
    measure of several.
    """
    if margin is not None:
        within = p_within(estimate, -margin, margin)
        is_within = within <= 0.05 if within is not None else abs(estimate.mean) < margin
        if is_within:
            return "same"
    tests = (p_below(estimate, 0.0), p_above(estimate, 0.0))
    # Without a spread every seed moved by the same number.
    p = 0.0 if None in tests else 2 * min(t for t in tests if t is not None)
    if p <= alpha:
        return "changed"
    return "same" if margin is None else "undecided"


def _throughput(cell: CellRuns, terms: Terms) -> Difference | None:
    ours, theirs = _by_seed(cell, lambda run: tokens_per_s(run, terms.limits.warmup_steps))
    ratio = paired_ratio(theirs, ours, terms.confidence)
    if ratio is None or ratio.n < LEAST_SEEDS or ratio.high is None or ratio.low is None:
        return None
    limit = 1 / terms.limits.throughput_ratio
    word: Word = "changed" if ratio.high < limit else "same"
    text = (
        f"tokens a second: {ratio.mean:.3f} times over {ratio.n} seeds, {ratio.low:.3f} to "
        f"{ratio.high:.3f}; {limit:.2f} is allowed"
    )
    if not _took_turns(cell):
        text += (
            "; one side was trained after the other, and not in turn (`harness bench --interleave`)"
        )
    return _found("speed", "tokens/s", word, _mean(ours), _mean(theirs), text)


def _took_turns(cell: CellRuns) -> bool:
    """Whether neither side was trained wholly before the other, as far as it is known."""
    ours, theirs = (
        sorted(run.started_utc for run in each if run.started_utc)
        for each in zip(*cell.ok_pairs.values(), strict=True)
    )
    return not ours or not theirs or (ours[0] <= theirs[-1] and theirs[0] <= ours[-1])


def _memory(cell: CellRuns, terms: Terms) -> list[Difference]:
    """Compare peaks by lens and phase, of runs whose lens can be trusted; growth is `memory`'s."""
    places = {
        (lens, phase)
        for pair in cell.ok_pairs.values()
        for run in pair
        for lens in own_lenses(run)
        for phase in run.peak_bytes.get(lens, {})
    }
    found = []
    for lens, phase in sorted(places):
        ours, theirs = _by_seed(cell, _peak(lens, phase))
        ratio = paired_ratio(theirs, ours, terms.confidence)
        if ratio is None or ratio.n < LEAST_SEEDS or ratio.low is None:
            continue
        more = _mean(theirs) - _mean(ours)
        if ratio.low > terms.limits.peak_ratio and more >= terms.limits.peak_bytes:
            text = (
                f"peak by {lens} in {phase}: {ratio.mean:.2f} times over {ratio.n} seeds, "
                f"{ratio.low:.2f} to {ratio.high:.2f}"
            )
            found.append(
                _found(
                    "memory", f"peak/{lens}/{phase}", "changed", _mean(ours), _mean(theirs), text
                )
            )
    return found


def _peak(lens: str, phase: str) -> Measure:
    def peak(run: RunSide) -> float | None:
        is_told = lens in own_lenses(run) and refusal(run, lens) is None
        return run.peak_bytes.get(lens, {}).get(phase) if is_told else None

    return peak


def _by_seed(cell: CellRuns, measure: Measure) -> tuple[dict[int, float], dict[int, float]]:
    """Return seed → value of the base and of the candidate, for the seeds that both have."""
    ours: dict[int, float] = {}
    theirs: dict[int, float] = {}
    for seed, (b, c) in cell.ok_pairs.items():
        first, second = measure(b), measure(c)
        if first is not None and second is not None:
            ours[seed], theirs[seed] = first, second
    return ours, theirs


def _mean(values: Mapping[int, float] | Sequence[float]) -> float:
    found = list(values.values()) if isinstance(values, Mapping) else list(values)
    return sum(found) / len(found) if found else 0.0


def _found(
    kind: Kind, what: str, word: Word, base: float, candidate: float, text: str
) -> Difference:
    larger = max(abs(base), abs(candidate))
    return Difference(
        layer="statistics",
        kind=kind,
        what=what,
        word=word,
        base=base,
        candidate=candidate,
        relative=abs(candidate - base) / larger if larger else None,
        sentence=text,
    )
