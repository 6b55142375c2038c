"""What each rule's claims are shown with: the figure, its caption, the tables beneath.

What this leaves out: the numbers (`finding_series`, `finding_tables`), their looks (`finding_charts`)
and the order of the sections (`finding_sections`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from harness import text
from harness.chart_parts import Figure, make_figure
from harness.claim_spec import (
    BatchClaim,
    CapacityClaim,
    ComputeClaim,
    LayersClaim,
    MemoryClaim,
    RankFreeClaim,
    RateClaim,
)
from harness.finding_charts import Axes, Reference, capacity_spec, dots_spec, rates_spec
from harness.finding_series import (
    LORA,
    Dots,
    MeanPoint,
    Place,
    capacity_curves,
    dots_of,
    failed_rates,
    finals,
    frame,
    gap_dots,
    joined,
    optima,
    rank_dots,
    rank_of,
    rate_arms,
    rate_dots,
    ratio_dots,
)
from harness.finding_tables import (
    adapter_parameters,
    batch_sizes,
    batch_table,
    by_rank_table,
    flops_table,
    layers_table,
    ratios_table,
)
from harness.report_tables import Table, mean
from harness.trust import GRADED_D
from harness.verdicts.evidence import Evidence, what_is
from harness.verdicts.model import ClaimVerdict
from harness.view import StudyView

SEEDS_CAPTION = "Points: seeds; bars: lowest to highest seed"
NOT_SHOWN = 6  # runs named in a caption


@dataclass(frozen=True)
class Subject:
    """A study, one of its claims, and what was found of it."""

    view: StudyView
    evidence: Evidence
    name: str
    claim: Any  # of the rule that the builder is for
    verdict: ClaimVerdict


@dataclass(frozen=True)
class Shown:
    """What a claim adds to its section."""

    figures: tuple[Figure, ...] = ()
    tables: tuple[Table, ...] = ()
    notes: tuple[str, ...] = ()


def _capacity(subject: Subject) -> Shown:
    claim: CapacityClaim = subject.claim
    evidence, pair = subject.evidence, claim.pair
    baseline = evidence.baseline(pair, claim.baseline)
    line, departures = capacity_curves(evidence, claim)
    figures = []
    if line:
        figures.append(
            _figure(
                f"{subject.name}-curves",
                f"Held-out metric by rank, {pair}",
                "Line: validation rows, mean over seeds; band: lowest to highest seed. Diamond: where an "
                f"arm leaves {baseline}'s curve by more than {claim.margin:g} for good, median of the "
                "seeds in which it does.",
                lambda h: capacity_spec(
                    line, departures, [baseline, *claim.arms], _metric(evidence, pair), has_hover=h
                ),
            )
        )
    figures += _by_rank(subject, pair, claim.arms, baseline)
    return Shown(tuple(figures), (by_rank_table(evidence, claim, departures),))


def _rank_free(subject: Subject) -> Shown:
    claim: RankFreeClaim = subject.claim
    baseline = subject.evidence.baseline(claim.pair, None)
    figures = _by_rank(subject, claim.pair, claim.arms, baseline)
    return Shown(tuple(figures), (by_rank_table(subject.evidence, claim),))


def _by_rank(subject: Subject, pair: str, arms: tuple[str, ...], baseline: str) -> list[Figure]:
    evidence = subject.evidence
    dots = rank_dots(evidence, pair, arms)
    if not dots.means:
        return []
    level = mean(finals(evidence, pair, baseline).values())
    references = [] if level is None else [Reference(level, arm=baseline)]
    axes = Axes("rank, logarithmic", _metric(evidence, pair))
    return [
        _figure(
            f"{subject.name}-ranks",
            f"After training by rank, {pair}",
            f"Test rows. Line: mean over seeds. {SEEDS_CAPTION}. Level line: {baseline}.",
            lambda h: dots_spec(dots, [baseline, LORA], axes, references=references, has_hover=h),
        )
    ]


def _rates(subject: Subject) -> Shown:
    claim: RateClaim = subject.claim
    evidence, pair = subject.evidence, claim.pair
    arms = rate_arms(evidence, claim)
    dots, best = rate_dots(evidence, pair, arms), optima(evidence, pair, arms)
    failed = failed_rates(evidence, pair, arms)
    notes = []
    if failed:
        more = f" and {len(failed) - NOT_SHOWN} more" if len(failed) > NOT_SHOWN else ""
        notes.append(
            f"Without a number, so not in the figure: {'; '.join(failed[:NOT_SHOWN])}{more}."
        )
    if not dots.seeds:
        return Shown(notes=tuple(notes))
    axes = Axes(
        "learning rate, logarithmic",
        f"validation metric,|{evidence.unit(pair)}",
        x_format="~e",
        y_domain=frame([point.value for point in dots.seeds], evidence.sign(pair)),
        top=9 * len(arms) + 10,
    )
    figure = _figure(
        f"{subject.name}-rates",
        f"Validation metric by learning rate, {pair}",
        "Line: mean over selection seeds, where each has a value; points: seeds. On top: each arm's best "
        "rate by the parabola through its lowest points, and the 95% interval over seeds. What lies far "
        "off is drawn at the frame's edge.",
        lambda h: rates_spec(dots, best, arms, axes, has_hover=h),
    )
    return Shown((figure,), notes=tuple(notes))


def _batch(subject: Subject) -> Shown:
    claim: BatchClaim = subject.claim
    batches = batch_sizes(subject.view, claim)
    is_known = len(set(batches.values())) == len(claim.pairs)
    places: Mapping[str, Place] = batches if is_known else {pair: pair for pair in claim.pairs}
    dots = gap_dots(subject.evidence, claim, places)
    table = batch_table(subject.evidence, claim, batches)
    if not dots.means:
        return Shown(tables=(table,))
    axes = Axes(
        "effective batch size, logarithmic" if is_known else "pair",
        f"worse than the baseline by,|{subject.evidence.unit(claim.pairs[0])}",
        x="log" if is_known else "category",
    )
    figure = _figure(
        f"{subject.name}-gaps",
        "Gap between LoRA and full fine-tuning by batch size",
        "Line: mean over seeds, paired; bars: 95% interval; points: seeds. Above 0, LoRA is worse.",
        lambda h: dots_spec(
            dots, [claim.arm, claim.raised], axes, references=[Reference(0.0)], has_hover=h
        ),
    )
    return Shown((figure,), (table,))


def _layers(subject: Subject) -> Shown:
    claim: LayersClaim = subject.claim
    evidence = subject.evidence
    arms = (claim.attention, claim.mlp, claim.every)
    counts = {arm: adapter_parameters(subject.view, claim.pair, arm) for arm in arms}
    names = {
        arm: f"{arm}|rank {rank_of(evidence, claim.pair, arm)}|{text.count(counts[arm])}"
        for arm in arms
    }
    dots = joined(dots_of(names[arm], LORA, finals(evidence, claim.pair, arm)) for arm in arms)
    table = layers_table(subject.view, evidence, claim)
    if not dots.means:
        return Shown(tables=(table,))
    axes = Axes(
        "arm, rank, and parameters of its adapter", _metric(evidence, claim.pair), x="category"
    )
    figure = _figure(
        f"{subject.name}-layers",
        f"After training by layers, {claim.pair}",
        f"Test rows; large: mean over seeds. {SEEDS_CAPTION}.",
        lambda h: dots_spec(dots, [LORA], axes, has_hover=h),
    )
    return Shown((figure,), (table,))


def _compute(subject: Subject) -> Shown:
    claim: ComputeClaim = subject.claim
    view = subject.view
    beside = [part for part in subject.verdict.parts if not part.decides]
    tables = [flops_table(view)]
    if beside:
        tables.append(ratios_table("Step time, measured on this machine", beside))
    counted = [ratio for ratio in view.flops if ratio.model in claim.models]
    if not counted:
        return Shown(tables=tuple(tables))
    names = {ratio.model: ratio.model.rpartition("/")[2] for ratio in counted}
    dots = Dots(
        tuple(MeanPoint(float(r.rank), names[r.model], r.linear, None, None, 0) for r in counted)
    )
    axes = Axes("rank, logarithmic", "FLOPs of the linear layers, LoRA over full")
    figure = _figure(
        f"{subject.name}-flops",
        "Compute of a training step by rank",
        "Counted on the models' own code, linear layers alone; no runs and no time in it.",
        lambda h: dots_spec(
            dots, list(names.values()), axes, references=[Reference(2 / 3, "2/3")], has_hover=h
        ),
    )
    return Shown((figure,), tuple(tables))


def _memory(subject: Subject) -> Shown:
    claim: MemoryClaim = subject.claim
    parts = subject.verdict.parts
    dots = ratio_dots(parts)
    table = ratios_table("Memory, LoRA over full fine-tuning, by lens and phase", parts)
    if not dots.means:
        return Shown(tables=(table,))
    shown = [point.value for point in dots.seeds] + [point.mean for point in dots.means]
    ends = [e for point in dots.means for e in (point.low, point.high) if e is not None and e > 0]
    axes = Axes(
        "comparison",
        "memory over the baseline's, logarithmic",
        x="category",
        is_y_log=True,
        y_domain=(min(*shown, *ends, claim.at_most) / 1.1, max(*shown, *ends, claim.at_most) * 1.1),
    )
    lenses = dict.fromkeys(
        p.effect.name.split(",")[0] for p in parts if p.decides and not p.is_refused
    )
    poor = [p.effect.name.rpartition(", ")[2] for p in parts if p.decides and p.is_refused]
    missing = f" Not drawn, as its memory is {GRADED_D}: {', '.join(poor)}." if poor else ""
    figure = _figure(
        f"{subject.name}-ratios",
        "Memory over the baseline's",
        f"Statistic: {'; '.join(lenses)}. Large: geometric mean over seeds; bars: 95% interval; points: "
        f"seeds.{missing}",
        lambda h: dots_spec(
            dots,
            [LORA],
            axes,
            references=[Reference(claim.at_most, f"{claim.at_most:.0%}")],
            has_hover=h,
        ),
    )
    return Shown((figure,), (table,))


def _metric(evidence: Evidence, pair: str) -> str:
    """A pair's metric and its unit, as an axis says it."""
    unit = evidence.unit(pair)
    return what_is(evidence, pair) + ("" if unit == "reward" else f", {unit}")


def _figure(
    identity: str, title: str, caption: str, draw: Callable[[bool], dict[str, Any]]
) -> Figure:
    return make_figure(
        f"finding-{identity}", text.clean(title), text.clean(caption), draw(False), draw(True)
    )


BUILDERS: dict[str, Callable[[Subject], Shown]] = {
    "capacity": _capacity,
    "rate-ratio": _rates,
    "batch": _batch,
    "layers": _layers,
    "rank-free": _rank_free,
    "compute": _compute,
    "memory": _memory,
}
