"""The rule that turns one comparison into a word, and the reason for it.

The paired difference of the held-out metric over seeds, turned so that positive is worse, against the
margin that the matrix fixed before the first run.

* supported: the whole interval lies below the margin. The arm matches within it.
* refuted: the whole interval lies above the margin; or the arm can't be trained at these settings:
  each of its runs ran out of memory, diverged or became NaN, while every run of the baseline, in at
  least three seeds, did not.
* inconclusive: anything else, fewer than three seeds, no spread between seeds, nothing was learned,
  or arms that differ in what the matrix did not declare.
* not tested: no seed finished in both arms.

A run without a result is never dropped silently: the seeds that remain may flatter its arm. So any
lost run withholds 'supported', and a lost run of the baseline withholds 'refuted' too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from harness.power import MOST_SEEDS, seeds_needed
from harness.record import OUTCOMES, Status
from harness.stats import NO_SPREAD, Estimate
from harness.summary import RunSummary

Word = Literal["supported", "refuted", "inconclusive", "not tested"]
Verdict = tuple[Word, str]
Cells = Mapping[tuple[str, str, int], tuple[Status | None, RunSummary | None]]

MINIMUM_SEEDS = 3
FAILURES = frozenset(status.value for status in OUTCOMES - {Status.OK})


@dataclass(frozen=True)
class Side:
    """The runs of one arm of a comparison, seed by seed."""

    name: str
    runs: Mapping[int, RunSummary | None]  # None where the run did not end ok
    lost: Mapping[int, str]  # seed → why there is no result to compare

    @property
    def finished(self) -> int:
        """In how many seeds the arm has a result."""
        return len(self.runs) - len(self.lost)

    @property
    def has_failed(self) -> bool:
        """Whether training itself failed in every seed: accidents and runs to come don't count."""
        return bool(self.runs) and not self.finished and FAILURES.issuperset(self.lost.values())

    def finals(self, seeds: Sequence[int]) -> dict[int, float]:
        """Return the trained model's metric in these seeds, where there is one."""
        found = {s: run.final_value for s in seeds if (run := self.runs[s]) is not None}
        return {s: value for s, value in found.items() if value is not None}


def gather(cells: Cells, pair: str, arm: str, seeds: Sequence[int]) -> Side:
    """Collect an arm's runs; every seed without a result says why."""
    runs: dict[int, RunSummary | None] = {}
    lost: dict[int, str] = {}
    for seed in seeds:
        status, summary = cells.get((pair, arm, seed), (None, None))
        runs[seed] = summary if status is Status.OK else None
        if status is not Status.OK:
            lost[seed] = "not run" if status is None else status.value
        elif summary is None or summary.final_value is None:
            lost[seed] = "no final value"
    return Side(arm, runs, lost)


def decide(
    worse: Estimate | None, margin: float, gain: float | None, arm: Side, baseline: Side
) -> Verdict:
    """Choose the word for one comparison and say why.

    worse: paired difference, positive where the arm is worse. gain: how much the baseline improved on
    the untrained model.
    """
    if worse is None:
        return _without_a_shared_seed(arm, baseline)
    if worse.n < MINIMUM_SEEDS or worse.low is None or worse.high is None or worse.sd is None:
        return "inconclusive", (
            f"{worse.n} seed{'s' if worse.n > 1 else ''} in both arms; at least {MINIMUM_SEEDS} are "
            "needed for an interval that means something."
        )
    if worse.sd <= NO_SPREAD * margin:
        return "inconclusive", (
            "No spread between seeds: the metric may sit at its ceiling, or the runs are copies."
        )
    if worse.low > margin:
        if baseline.lost:
            return "inconclusive", f"{_loss(baseline)}, so the others can't refute a match."
        return "refuted", f"Even the interval's favourable end is worse by more than {margin:g}."
    lossy = [side for side in (arm, baseline) if side.lost]
    return _match(worse.high, margin, gain, lossy, _more_seeds(worse.n, worse.sd, margin))


def _more_seeds(seeds: int, sd: float, margin: float) -> str:
    """Say how many seeds would tell, going by the spread of those that are there."""
    needed = seeds_needed(margin, sd)
    if needed is None:
        return f"at this spread more than {MOST_SEEDS} seeds would be needed"
    if needed <= seeds:  # so many would have done, had the difference been none
        return "more seeds would narrow it"
    return f"at this spread about {needed} seeds would show a match, if there is one"


def _match(
    high: float, margin: float, gain: float | None, lossy: Sequence[Side], more: str
) -> Verdict:
    """Decide between 'supported' and what keeps an arm from it."""
    # Asked this way round, here and below, so that NaN is never a match: it compares as false.
    if gain is None or not gain >= margin:
        return "inconclusive", (
            "The baseline arm itself did not improve on the untrained model by the margin, so a "
            "match would mean nothing."
        )
    if not high < margin:
        return "inconclusive", (
            f"The interval reaches {high:+.3g}, beyond the margin of {margin:g}; {more}."
        )
    if lossy:
        losses = "; ".join(_loss(side) for side in lossy)
        return "inconclusive", f"{losses}, so the others can't support a match."
    return "supported", f"The whole interval stays below the margin of {margin:g}."


def _without_a_shared_seed(arm: Side, baseline: Side) -> Verdict:
    if arm.has_failed:
        how = f"every run of the arm ended {_words(arm)}"
        if baseline.finished >= MINIMUM_SEEDS and not baseline.lost:
            return "refuted", (
                f"It can't be trained at these settings: {how}, while the baseline finished in all "
                f"{baseline.finished} seeds."
            )
        return "not tested", f"No seed finished in both arms: {how}."
    if baseline.has_failed:
        how = f"every run of the baseline ended {_words(baseline)}"
        return "not tested", f"No seed finished in both arms: {how}."
    return "not tested", "No seed finished in both arms."


def _words(side: Side) -> str:
    return " or ".join(sorted(set(side.lost.values())))


def _loss(side: Side) -> str:
    """Say how many runs of an arm gave nothing to compare: '2 runs of full (1 nan, 1 not run)'."""
    n = len(side.lost)
    kinds = ", ".join(
        f"{count} {why}" for why, count in sorted(Counter(side.lost.values()).items())
    )
    return f"{n} run{'' if n == 1 else 's'} of {side.name} gave no result to compare ({kinds})"
