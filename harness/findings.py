"""The first screen as formatted text: the sentence, the banners, a row per judged arm.

The terminal, the HTML page and the Markdown show these same rows. What this leaves out: the rules
behind the words (`claims`) and the tables further down (`report_tables`).
"""

from __future__ import annotations

from dataclasses import dataclass

from harness import text
from harness.claim_sentence import claims_sentence, control_problems, has_claims
from harness.claims import Finding, sentence
from harness.device_notes import beside_notice
from harness.grade_tables import refusal_notice
from harness.ratios import Interval, MemoryComparison
from harness.record import Status
from harness.reward_tables import cautions
from harness.view import StudyView

SCALE_NOTES = {
    "embedded": "A micro model embedded in the harness: this says nothing about 8B models.",
    "small": "A small model (about 135M parameters): this does not speak for the 1B to 8B models "
    "of the page.",
    "full": "",
    "rehearsal": "A rehearsal of two steps, with toys in place of real models. It shows that each run goes "
    "through; no number here says anything about the models.",
}
NOT_THEIRS = "The GPU that was read trained nothing."
POST_HOC = "Margins were changed after the first run: post hoc."
UNDECLARED_SHOWN = 3  # sentences in the banner; the tables of arguments have them all
DRAWING_WIDTH = 132.0


@dataclass(frozen=True)
class Drawing:
    """An interval against its margin, as x positions in a drawing DRAWING_WIDTH wide."""

    zero: float
    margin: float
    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class FindingRow:
    """One arm against its baseline, every value already text."""

    pair: str
    pair_label: str
    arm: str
    baseline: str
    gap: str
    interval: str
    margin: str
    unit: str
    memory: str
    memory_interval: str
    memory_statistic: str
    memory_basis: str
    speed: str
    speed_interval: str
    word: str
    reason: str
    lost: tuple[str, ...]
    drawing: Drawing | None
    cautions: tuple[str, ...] = ()  # why the numbers may mean less than they seem to


@dataclass(frozen=True)
class Banner:
    """A line over everything else: what the study can't be taken to say."""

    kind: str  # 'scale', 'incomplete', 'problem'
    text: str


def headline(view: StudyView) -> str:
    """Return the finding as one sentence."""
    if scale_of(view) == "rehearsal":
        ok = sum(r.record is not None and r.record.status is Status.OK for r in view.every_run)
        return f"Rehearsal: {ok} of {text.plural(len(view.every_run), 'run')} went through."
    found = claims_sentence(view) if has_claims(view) else sentence(view.findings)
    # What is quoted is this line, without the banner under it.
    return text.clean(f"{found} {NOT_THEIRS}" if beside_notice(view) else found)


def findings_rows(view: StudyView) -> list[FindingRow]:
    """Format every finding of a study."""
    return [_row(view, finding) for finding in view.findings]


def finding_cautions(view: StudyView, finding: Finding) -> tuple[str, ...]:
    """Say what makes a finding worth less than its numbers: a reward that could hardly teach."""
    arms = (finding.baseline, finding.arm)
    if scale_of(view) == "rehearsal":  # a toy's reward says nothing of the model's
        return ()
    return tuple(text.clean(line) for line in cautions(view, finding.pair, arms))


def pair_label(view: StudyView, pair: str) -> str:
    """Name a pair for people: task, model, dataset."""
    spec = view.matrix.pairs[pair]
    return text.clean(f"{spec.task.upper()} · {spec.model.shown} · {spec.dataset.name}", limit=160)


def banners(view: StudyView) -> list[Banner]:
    """List what a reader must know before the numbers."""
    rows = [("scale", SCALE_NOTES[scale_of(view)]), ("problem", text.clean(beside_notice(view)))]
    if view.post_hoc:
        rows.append(("problem", POST_HOC))
    if view.undeclared:
        shown = " ".join(f"{line.rstrip('.')}." for line in view.undeclared[:UNDECLARED_SHOWN])
        more = len(view.undeclared) - UNDECLARED_SHOWN
        rest = f" And {text.plural(more, 'difference')} more." if more > 0 else ""
        rows.append(("problem", text.clean(f"Arms differ in undeclared arguments: {shown}{rest}")))
    if has_claims(view):
        rows += [(kind, text.clean(line)) for kind, line in control_problems(view)]
    rows.append(("problem", text.clean(refusal_notice(view))))
    rows.append(("incomplete", _shortfall(view)))
    rows.append(("scale", _budget(view)))
    if view.study.overrides:
        changed = ", ".join(f"{k}={v}" for k, v in sorted(view.study.overrides.items()))
        rows.append(("incomplete", text.clean(f"Arguments were overridden: {changed}.")))
    if view.problems:
        found = text.plural(len(view.problems), "file problem")
        rows.append(("problem", f"{found}: what could not be read is listed under Problems."))
    return [Banner(kind, line) for kind, line in rows if line]


def _budget(view: StudyView) -> str:
    """Say how long the pairs trained, where the matrix has budgets to choose from."""
    name = view.study.budget
    if name is None or view.study.is_rehearsal:
        return ""
    lengths = [
        f"{pair_name} {pair.budgets[name].max_steps:,} steps ({pair.budgets[name].reason})"
        for pair_name, pair in view.matrix.pairs.items()
        if name in pair.budgets
    ]
    return text.clean(f"Training budget '{name}': {'; '.join(lengths)}.", limit=2000)


def scale_of(view: StudyView) -> str:
    """Return what the study may speak for: embedded models stay embedded, whatever a file claims."""
    models = [pair.model for pair in view.matrix.pairs.values()]
    if view.matrix.scale != "rehearsal" and all(
        model.source.startswith("embedded:") for model in models
    ):
        return "embedded"
    return view.matrix.scale


def _shortfall(view: StudyView) -> str:
    """Say how many runs are missing or did not end ok; nothing if none."""
    total = len(view.every_run)
    records = [r.record for r in view.every_run if r.record is not None]
    finished = sum(record.is_done for record in records)
    bad = sum(record.status is not Status.OK for record in records)
    parts = []
    if finished < total:
        parts.append(f"Incomplete study: {finished} of {total} runs finished.")
    if bad:
        parts.append(f"{text.plural(bad, 'run')} did not end ok; every run is listed below.")
    return " ".join(parts)


def _row(view: StudyView, finding: Finding) -> FindingRow:
    digits = text.decimals(finding.margin)
    worse = finding.worse_by
    judged = finding.memory[0] if finding.memory else None
    return FindingRow(
        pair=finding.pair,
        pair_label=pair_label(view, finding.pair),
        arm=finding.arm,
        baseline=finding.baseline,
        gap=text.signed(worse.value if worse else None, digits),
        interval=_signed_interval(worse, digits),
        margin=f"{finding.margin:g}",
        unit=finding.unit,
        memory=text.percent(judged.ratio.value if judged and judged.ratio else None),
        memory_interval=_ratio_interval(judged.ratio if judged else None),
        memory_statistic=judged.statistic if judged else "",
        memory_basis=_basis(judged),
        speed=text.percent(
            finding.tokens_per_s_ratio.value if finding.tokens_per_s_ratio else None
        ),
        speed_interval=_ratio_interval(finding.tokens_per_s_ratio),
        word=finding.word,
        reason=text.clean(finding.reason),
        lost=tuple(text.clean(cell) for cell in finding.lost),
        drawing=_draw(worse, finding.margin),
        cautions=(*finding_cautions(view, finding), *memory_cautions(finding)),
    )


def memory_cautions(finding: Finding) -> tuple[str, ...]:
    """Say why the memory column is worth nothing, where its measurement is graded D."""
    refused = finding.memory[0].refused if finding.memory else None
    return (text.clean(f"Memory: {refused.rstrip('.')}"),) if refused else ()


def _signed_interval(estimate: Interval | None, digits: int) -> str:
    if estimate is None:
        return text.MISSING
    seeds = text.plural(estimate.n, "seed")
    return f"{text.span(estimate.low, estimate.high, 'signed', digits)} ({seeds})"


def _ratio_interval(estimate: Interval | None) -> str:
    if estimate is None:
        return ""
    if estimate.low is None:
        return text.plural(estimate.n, "seed")
    return text.span(estimate.low, estimate.high, "percent", 0)


def _basis(judged: MemoryComparison | None) -> str:
    if judged is None:
        return ""
    return (
        f"{text.memory(judged.arm_bytes)} against {text.memory(judged.baseline_bytes)}, "
        f"{judged.statistic}"
    )


def _draw(estimate: Interval | None, margin: float) -> Drawing | None:
    if estimate is None:
        return None
    ends = [e for e in (estimate.low, estimate.value, estimate.high) if e is not None]
    low, high = min(*ends, -0.6 * margin), max(*ends, 1.4 * margin)
    pad = 0.06 * (high - low)
    low, high = low - pad, high + pad

    def place(value: float) -> float:
        return round((value - low) / (high - low) * DRAWING_WIDTH, 1)

    return Drawing(
        zero=place(0.0),
        margin=place(margin),
        value=place(estimate.value),
        low=None if estimate.low is None else place(estimate.low),
        high=None if estimate.high is None else place(estimate.high),
    )
