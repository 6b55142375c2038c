"""The instrument tested before it is trusted: studies with a known truth, put through the real rule.

    python -m tests.calibration              print the tables of docs/calibration.md (two minutes)
    python -m tests.calibration --draws 2000 quicker, coarser

Each draw is a comparison: every seed has a full and a LoRA run, each with noise of its own, and a true
difference between the arms. `stats` and `rule` then say what they would say of such a study; the tests of
other claims follow in `calibration_claims`. What this leaves out: everything before a run's one number.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from harness.power import seeds_needed
from harness.rule import Side, decide
from harness.stats import mean_interval
from tests.calibration_claims import tables
from tests.simulated import DRAWS, MARGIN, NOISES, SEEDS, draw, stream


@dataclass(frozen=True)
class Row:
    """What was said of many studies with one truth."""

    noise: str
    seeds: int
    truth: float  # the arm is worse by so much, in units of the paired spread
    margin: float
    covered: float  # share of intervals that hold the truth
    supported: float
    refuted: float
    inconclusive: float


def judge(differences: Sequence[float], margin: float) -> tuple[str, float, float]:
    """Put one study through the rule; returns the word and the interval's ends."""
    sides = [Side(name, dict.fromkeys(range(len(differences))), {}) for name in ("lora", "full")]
    worse = mean_interval(list(differences))
    word, _ = decide(worse, margin, 100 * margin, *sides)
    assert worse is not None
    assert worse.low is not None
    assert worse.high is not None
    return word, worse.low, worse.high


def measure(
    noise: str, seeds: int, truth: float, draws: int = DRAWS, margin: float = MARGIN
) -> Row:
    """Judge many studies with one truth."""
    generator = stream(f"{noise} {seeds} {truth:g} {margin:g}")
    studies = draw(noise, (draws, seeds), truth, generator)
    words, covered = Counter[str](), 0
    for study in studies.tolist():
        word, low, high = judge(study, margin)
        words[word] += 1
        covered += low <= truth <= high
    shares = {w: words[w] / draws for w in ("supported", "refuted", "inconclusive")}
    return Row(noise, seeds, truth, margin, covered / draws, **shares)


def errors(draws: int = DRAWS) -> Iterator[Row]:
    """At a true difference of exactly the margin: 'supported' and 'refuted' are both errors."""
    for noise in NOISES:
        for seeds in SEEDS:
            yield measure(noise, seeds, MARGIN, draws)


def powers(draws: int = DRAWS) -> Iterator[Row]:
    """At no difference, with as many seeds as the power calculator asks for at that margin."""
    for margin in (3.3, 1.5, 1.0):
        seeds = seeds_needed(margin, 1.0)
        assert seeds is not None
        for noise in NOISES:
            yield measure(noise, seeds, 0.0, draws, margin)


def table(rows: Sequence[Row]) -> str:
    """Write rows as Markdown."""
    head = "| noise | seeds | truth | margin | interval holds the truth | supported | refuted |"
    lines = [head, "|---|---|---|---|---|---|---|"]
    for row in rows:
        shares = (row.covered, row.supported, row.refuted)
        cells = [row.noise, str(row.seeds), f"{row.truth:g}", f"{row.margin:g}"]
        lines.append("| " + " | ".join([*cells, *(f"{share:.1%}" for share in shares)]) + " |")
    return "\n".join(lines)


def main() -> None:
    """Print all tables."""
    parser = argparse.ArgumentParser(
        description="how often the rule is wrong, and how often it decides"
    )
    parser.add_argument("--draws", type=int, default=DRAWS, help="studies a row")
    draws = parser.parse_args().draws
    print(f"At the margin ({draws} studies a row):\n\n{table(list(errors(draws)))}\n")
    print(f"No difference, seeds by the power calculator:\n\n{table(list(powers(draws)))}\n")
    for further in tables(draws):
        print(f"{further.title}:\n\n{further.text()}\n")


if __name__ == "__main__":
    main()
