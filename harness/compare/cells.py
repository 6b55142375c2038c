"""One pair and arm of two sides: all layers, and the word that the gravest difference gives.

What this leaves out: what takes several cells to judge (`burden`, `controls`), and the whole (`verdict`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from harness.compare.asked import argument_counts, argument_difference, differing_arguments
from harness.compare.controls import Noise, demote_noise
from harness.compare.curves import curves_of
from harness.compare.exact import Stacks
from harness.compare.grouping import CellRuns
from harness.compare.limits import Limits
from harness.compare.machine import MEASURED, demote
from harness.compare.missing import compare_statuses
from harness.compare.model import Cell, Difference, Word
from harness.compare.runs import compare_runs, is_coarse, is_training_change
from harness.compare.side import RunSide, Side
from harness.compare.statistics import Terms, compare_seeds, has_enough_seeds
from harness.compare.words import GRAVITY, gravest
from harness.text import plural

MOST_NAMED = 4


@dataclass(frozen=True)
class Setting:
    """What the cells of a comparison share."""

    base: Side
    candidate: Side
    stacks: Stacks
    limits: Limits
    terms: Terms
    noise: Noise
    loose: str | None  # why small differences prove nothing
    burdens: Mapping[str, Sequence[Difference]] = field(
        default_factory=dict
    )  # cell → memory, speed


def compare_all_runs(cells: Sequence[CellRuns], setting: Setting) -> dict[str, list[Difference]]:
    """Compare the runs of every cell, and return the differences by the cell's name.

    In bfloat16 rounding is coarse. Whether there is any rounding, the cells in float32 of the same task
    say: where those are identical to the bit, so is the arithmetic, and a difference in bfloat16 is real.
    """
    found: dict[str, list[Difference]] = {}
    coarse = {cell.name for cell in cells if is_coarse(_runs(cell))}
    for cell in (c for c in cells if c.name not in coarse):
        found[cell.name] = _compare_runs(cell, setting, setting.limits.tolerance)
    rounded = {
        cell.task
        for cell in cells
        if any(d.word != "same" and is_stepped(d) for d in found.get(cell.name, ()))
    }
    tasks_in_fine = {cell.task for cell in cells if cell.name not in coarse and cell.ok_pairs}
    for cell in (c for c in cells if c.name in coarse):
        is_free = cell.task in tasks_in_fine and cell.task not in rounded
        limits = setting.limits
        tolerance = limits.tolerance if is_free else limits.coarse_tolerance
        found[cell.name] = _compare_runs(cell, setting, max(tolerance, limits.tolerance))
    return found


def is_stepped(found: Difference) -> bool:
    """Whether a difference is of training steps."""
    return found.layer in ("exact", "trajectory") and found.step is not None


def build_cell(cell: CellRuns, compared: Sequence[Difference], setting: Setting) -> Cell:
    """Bring all that is known of a cell together. `compared` are the differences of its runs."""
    found = compare_statuses(cell, setting.base.packages, setting.candidate.packages)
    found += _other_requests(cell)
    found += _settle_by_seeds(cell, compared, setting)
    found += setting.burdens.get(cell.name, ())
    trains_otherwise = any(is_training_change(d) for d in found)
    found += _arguments(cell, setting, trains_otherwise=trains_otherwise)
    found = sorted(fold_seeds(demote_noise(found, setting.noise), cell), key=_rank)
    word = gravest([d.word for d in found])
    return Cell(
        pair=cell.pair,
        arm=cell.arm,
        task=cell.task,
        method=cell.method,
        seeds=cell.seeds,
        word=word,
        sentence=_sentence(cell, word, found),
        differences=tuple(found),
        curves=() if word == "same" else curves_of(cell, found),
    )


def fold_seeds(found: Sequence[Difference], cell: CellRuns) -> list[Difference]:
    """Keep of what differs in several seeds the gravest and earliest, and say in how many it does."""
    groups: dict[tuple[str, str, str], list[Difference]] = {}
    for each in found:
        groups.setdefault((each.layer, each.kind, each.what), []).append(each)
    folded = []
    for group in groups.values():
        first = min(group, key=_rank)
        seeds = sorted({d.seed for d in group if d.seed is not None and d.word == first.word})
        if len(cell.seeds) > 1 and seeds:
            where = "in each seed" if len(seeds) == len(cell.seeds) else _seeds_text(seeds)
            first = first.model_copy(update={"sentence": f"{first.sentence} ({where})"})
        folded.append(first)
    return folded


def comparable_pairs(cell: CellRuns) -> dict[int, tuple[RunSide, RunSide]]:
    """Return the seeds that ended ok on both sides and were asked for the same."""
    return {
        seed: (b, c) for seed, (b, c) in cell.ok_pairs.items() if b.spec_sha256 == c.spec_sha256
    }


def _compare_runs(cell: CellRuns, setting: Setting, tolerance: float) -> list[Difference]:
    found = []
    for base, candidate in comparable_pairs(cell).values():
        each = compare_runs(base, candidate, setting.stacks, setting.limits, tolerance)
        found += demote(each, base, setting.loose) if setting.loose else each
    return found


def _other_requests(cell: CellRuns) -> list[Difference]:
    """Name the seeds whose matrices asked for different training."""
    found = []
    for seed, (base, candidate) in cell.ok_pairs.items():
        if base.spec_sha256 == candidate.spec_sha256:
            continue
        names = [a.name for a in differing_arguments(base, candidate)]
        what = ", ".join(names[:MOST_NAMED]) + (" …" if names[MOST_NAMED:] else "")
        text = "the two matrices ask for different training"
        text += f" ({what})" if what else ""
        found.append(
            Difference(
                layer="asked",
                kind="configuration",
                what="matrix",
                word="not comparable",
                base=base.spec_sha256[:12],
                candidate=candidate.spec_sha256[:12],
                sentence=f"{text}; run one matrix, without other --set, on both sides",
                seed=seed,
            )
        )
    return found


def _settle_by_seeds(
    cell: CellRuns, compared: Sequence[Difference], setting: Setting
) -> list[Difference]:
    """Let the seeds decide where numbers need not repeat; elsewhere they are told beside the steps."""
    found = list(compared)
    if len(comparable_pairs(cell)) < len(cell.ok_pairs) or not has_enough_seeds(cell):
        return found
    margins = {**setting.base.margins, **setting.candidate.margins}
    noisy = setting.loose is not None or bool(setting.noise.kinds - set(MEASURED))
    seeds = compare_seeds(cell, margins.get(cell.pair), setting.terms)
    if noisy:
        noise = setting.noise.kinds
        return seeds + [
            d.model_copy(update={"word": "same"})
            if d.word == "undecided" or (d.word == "changed" and d.kind in noise)
            else d
            for d in found
        ]
    is_changed = any(is_training_change(d) for d in found)
    return found + [
        d.model_copy(update={"word": "same"})
        if d.kind == "metric" and (d.word == "undecided" or not is_changed)
        else d
        for d in seeds
    ]


def _arguments(cell: CellRuns, setting: Setting, *, trains_otherwise: bool) -> list[Difference]:
    return [
        argument_difference(
            argument,
            counts=argument_counts(argument, setting.stacks, trains_otherwise=trains_otherwise),
            seed=seed,
        )
        for seed, (base, candidate) in comparable_pairs(cell).items()
        for argument in differing_arguments(base, candidate)
    ]


def _rank(found: Difference) -> tuple[int, int, int]:
    """Order differences: the gravest first, then by step, training before what follows from it."""
    step = found.step if found.step is not None else 10**9
    return (-GRAVITY.index(found.word), step, 0 if is_training_change(found) else 1)


def _sentence(cell: CellRuns, word: Word, found: Sequence[Difference]) -> str:
    if word == "same":
        steps = max((len(s) for r in _runs(cell) for s in r.series.values()), default=0)
        return f"the same in {plural(steps, 'step')} of {plural(len(cell.seeds), 'seed')}"
    ours = [d for d in found if d.word == word]
    if word == "rounding":
        largest = max((d.relative or 0.0 for d in ours), default=0.0)
        return f"the same up to rounding (at most {largest:.1e})"
    more = len(ours) - 1
    return ours[0].sentence + (f"; and {plural(more, 'more difference')}" if more else "")


def _runs(cell: CellRuns) -> list[RunSide]:
    return [run for pair in cell.ok_pairs.values() for run in pair]


def _seeds_text(seeds: Sequence[int]) -> str:
    shown = ", ".join(map(str, seeds[:MOST_NAMED])) + (" …" if seeds[MOST_NAMED:] else "")
    return f"seed {shown}" if len(seeds) == 1 else f"seeds {shown}"
