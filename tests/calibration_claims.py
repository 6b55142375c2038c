"""The tests of further claims on studies whose truth is known; `tests.calibration` prints the tables.

Equivalence, looks before the last seed, many claims at once, best learning rates, and studies that can
show nothing. Each error rate is asked to be 5 %. What this leaves out: the trend test, whose p value is
counted out exactly.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from harness.equivalence import p_below, p_within
from harness.multiplicity import holm, plan_looks
from harness.optimum import rate_ratio
from harness.record import Status
from harness.rule import FAILURES, Cells, decide, gather
from harness.stats import mean_interval, paired_difference
from harness.summary import RunSummary
from tests.simulated import DRAWS, MARGIN, NOISES, SEEDS, draw, stream

ALPHA = 0.05
CLAIMS = 9
Row = tuple[str | int | float, ...]


def equivalence_row(noise: str, seeds: int, draws: int = DRAWS) -> Row:
    """Count how often 'equal within the margin' is said at either edge, and without a difference."""
    shares = []
    for truth in (MARGIN, -MARGIN, 0.0):
        studies = draw(noise, (draws, seeds), truth, stream(f"equal {noise} {seeds} {truth:g}"))
        p_values = [p_within(mean_interval(study.tolist()), -MARGIN, MARGIN) for study in studies]
        shares.append(sum(p is not None and p <= ALPHA for p in p_values) / draws)
    return noise, seeds, *shares


def looks_row(noise: str, draws: int = DRAWS) -> Row:
    """Count how often any look says 'below the margin', at the margin.

    Three shares: each look at the full error, each at its planned part, and so without a difference.
    """
    looks = plan_looks(SEEDS, ALPHA)
    shares = []
    for truth in (MARGIN, 0.0):
        naive = planned = 0
        for study in draw(noise, (draws, max(SEEDS)), truth, stream(f"looks {noise} {truth:g}")):
            values = study.tolist()
            p_values = [p_below(mean_interval(values[: look.seeds]), MARGIN) for look in looks]
            pairs = [(p, look.alpha) for p, look in zip(p_values, looks, strict=True)]
            naive += any(p is not None and p <= ALPHA for p, _ in pairs)
            planned += any(p is not None and p <= alpha for p, alpha in pairs)
        shares += [naive / draws, planned / draws]
    return noise, shares[0], shares[1], shares[3]


def holm_row(noise: str, seeds: int, draws: int = DRAWS) -> Row:
    """Count studies with any false 'supported' among nine claims, all of them at the margin."""
    studies = draw(noise, (draws, CLAIMS, seeds), MARGIN, stream(f"holm {noise} {seeds}"))
    plain = adjusted = 0
    for study in studies.tolist():
        p_values = [p_below(mean_interval(claim), MARGIN) for claim in study]
        plain += any(p is not None and p <= ALPHA for p in p_values)
        adjusted += any(p is not None and p <= ALPHA for p in holm(p_values))
    return noise, seeds, plain / draws, adjusted / draws


# Sweeps of seven rates. Curvature as of an SFT loss: 0.05 nats a decade off the best rate.
RATES = 7
CURVATURE = 0.05
LOPSIDED = 0.3  # the third power's share: losses rise faster above the best rate than below it
BEST = (3.3, 2.9)  # LoRA's and full's, in steps of the grid: off its points, each by another part


def optimum_row(shape: str, step: float, noise: float, seeds: int, draws: int = DRAWS // 4) -> Row:
    """Return the share of intervals that hold the true ratio, and of studies with a lost seed.

    step: decades between two rates. noise: a run's spread in nats.
    """
    third = LOPSIDED if shape == "lopsided" else 0.0
    generator = stream(f"optimum {shape} {step:g} {noise:g} {seeds}")
    decades = step * np.arange(RATES)
    rates = (10.0 ** (decades - 6.0)).tolist()
    truth = 10.0 ** (step * (BEST[0] - BEST[1]))
    covered = intervals = lost = 0
    for _ in range(draws):
        arms = []
        for best in BEST:
            off = decades - step * best
            losses = CURVATURE * (off**2 + third * off**3)
            swept = losses + generator.normal(0.0, noise, (seeds, RATES))
            arms.append({s: dict(zip(rates, row, strict=True)) for s, row in enumerate(swept)})
        ratio = rate_ratio(*arms)
        lost += bool(ratio.lost)
        if (estimate := ratio.estimate) and estimate.low and estimate.high:
            intervals += 1
            covered += estimate.low <= truth <= estimate.high
    return shape, f"{step:g}", f"{noise:g}", seeds, covered / intervals, lost / draws


def _cells(
    lora: Sequence[tuple[Status, float | None]], full: Sequence[tuple[Status, float | None]]
) -> Cells:
    """Make a study's cells from how each seed's run ended and its last value."""
    return {
        ("pair", arm, seed): (status, RunSummary.model_construct(final_value=value))
        for arm, runs in (("lora", lora), ("full", full))
        for seed, (status, value) in enumerate(runs)
    }


FULL = [(Status.OK, 1.0 + 0.001 * seed) for seed in range(5)]
LORA = [(Status.OK, 1.0 - 0.01 * seed) for seed in range(5)]
SOUND = _cells(LORA, FULL)  # nothing is wrong with it: at the default margin a match


def degenerate() -> Iterator[tuple[str, list[Cells]]]:
    """Make studies that can't show a match, by what is wrong with them."""
    failed = [(Status(status), None) for status in sorted(FAILURES)]
    yield "every LoRA run failed", [_cells([run] * 5, FULL) for run in failed]
    yield "every full run failed", [_cells(LORA, [run] * 5) for run in failed]
    yield "every run failed", [_cells([run] * 5, [run] * 5) for run in failed]
    yield "one LoRA run failed", [_cells([*LORA[:4], run], FULL) for run in failed]
    yield "one full run failed", [_cells(LORA, [*FULL[:4], run]) for run in failed]
    yield "no LoRA run has a last value", [_cells([(Status.OK, None)] * 5, FULL)]
    yield "one or two seeds", [_cells(LORA[:n], FULL[:n]) for n in (1, 2)]
    yield "identical arms", [_cells(FULL, FULL)]
    yield "identical differences", [_cells([(Status.OK, 1.0)] * 5, [(Status.OK, 1.1)] * 5)]
    yield "no runs", [_cells([], [])]


def word_for(cells: Cells, margin: float = 10.0) -> str:
    """Put a study's cells through the rule as `claims` does; the baseline learned enough."""
    seeds = sorted({seed for _, _, seed in cells})
    ours, theirs = (gather(cells, "pair", arm, seeds) for arm in ("lora", "full"))
    shared = [s for s in seeds if s not in ours.lost and s not in theirs.lost]
    worse = paired_difference(ours.finals(shared), theirs.finals(shared))
    return decide(worse, margin, 100 * margin, ours, theirs)[0]


def equivalences(draws: int = DRAWS) -> Iterator[Row]:
    """Make the table of equivalence."""
    return (equivalence_row(noise, seeds, draws) for noise in NOISES for seeds in SEEDS)


def sequences(draws: int = DRAWS) -> Iterator[Row]:
    """Make the table of looks."""
    return (looks_row(noise, draws) for noise in NOISES)


def families(draws: int = DRAWS) -> Iterator[Row]:
    """Make the table of many claims."""
    return (holm_row(noise, seeds, draws) for noise in NOISES for seeds in (3, 8))


def optima(draws: int = DRAWS) -> Iterator[Row]:
    """Make the table of best rates; a quarter of the draws, for each takes whole sweeps."""
    return (
        optimum_row(shape, step, noise, seeds, draws // 4)
        for shape in ("even", "lopsided")
        for step in (0.25, 0.5)
        for noise in (3e-4, 1e-2)
        for seeds in (3, 5)
    )


def words() -> Iterator[Row]:
    """Make the table of studies that can show nothing."""
    for name, studies in degenerate():
        yield name, " or ".join(sorted({word_for(cells) for cells in studies}))


@dataclass(frozen=True)
class Table:
    """Rows with a title and a head; a share is a float."""

    title: str
    head: tuple[str, ...]
    rows: tuple[Row, ...]

    def text(self) -> str:
        """Write the table as Markdown."""
        lines = [f"| {' | '.join(self.head)} |", "|" + "---|" * len(self.head)]
        for row in self.rows:
            cells = [f"{cell:.1%}" if isinstance(cell, float) else str(cell) for cell in row]
            lines.append(f"| {' | '.join(cells)} |")
        return "\n".join(lines)


EQUIVALENCE = ("noise", "seeds", "equal, at +margin", "equal, at −margin", "equal, no difference")
LOOKS = (
    "noise",
    "at the margin, 5 % each look",
    "at the margin, planned",
    "no difference, planned",
)
FAMILIES = ("noise", "seeds", "any of nine, 5 % each", "any of nine, Holm")
OPTIMA = (
    "losses",
    "step, decades",
    "noise, nats",
    "seeds",
    "interval holds the truth",
    "at an edge",
)


def tables(draws: int = DRAWS) -> Iterator[Table]:
    """Make every table."""
    yield Table("Equal within the margin", EQUIVALENCE, tuple(equivalences(draws)))
    yield Table("Looks at 3, 5 and 8 seeds", LOOKS, tuple(sequences(draws)))
    yield Table("Nine claims at the margin", FAMILIES, tuple(families(draws)))
    yield Table("Ratio of best learning rates", OPTIMA, tuple(optima(draws)))
    yield Table("Studies that can show nothing", ("study", "word"), tuple(words()))
