"""Every claim of a study as formatted text: a row for the first screen, its parts one click below.

The terminal, the HTML page and the Markdown show these same rows. What this leaves out: the rules
behind the words (`verdicts`), the sentence over all claims (`claim_sentence`), figures and tables by
subject (`finding_sections`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from harness import text
from harness.claim_checks import NATS
from harness.claim_spec import ROLE_NOTES, Claim
from harness.report_tables import Table, make_table
from harness.verdicts.model import ClaimVerdict, Effect, Part, leading
from harness.view import StudyView

WIDTH = 168.0  # of an interval's drawing
LABEL_ROOM = 26.0  # between two labels under a drawing
SIGNIFICANT = 3


@dataclass(frozen=True)
class Label:
    """A number under a drawing's axis."""

    x: float
    words: str


@dataclass(frozen=True)
class ClaimDrawing:
    """An interval against what a claim allows, as x positions in a drawing WIDTH wide."""

    value: float
    low: float | None
    high: float | None
    reference: float | None  # no difference: 0, or a ratio of 1
    floor: float | None
    ceiling: float | None
    labels: tuple[Label, ...]
    words: str  # what it shows, for those who can't see it


@dataclass(frozen=True)
class ClaimRow:
    """One claim, every value already text."""

    name: str
    role: str
    sentence: str
    word: str
    plain: str
    note: str  # of a control: what it must come out as
    effect: str
    value: str
    interval: str
    margin: str
    seeds: str
    drawing: ClaimDrawing | None
    reason: str
    against: tuple[str, ...]
    facts: tuple[tuple[str, str], ...]  # term and explanation
    parts: Table

    @property
    def is_control(self) -> bool:
        """Whether its answer is known beforehand."""
        return self.role != "claim"


def claim_rows(view: StudyView) -> list[ClaimRow]:
    """Format every claim of a study, in the matrix's order; controls last."""
    claims = view.matrix.claims
    verdicts = [v for v in view.verdicts if v.claim in claims]
    rows = [_row(claims[verdict.claim], verdict) for verdict in verdicts]
    return sorted(rows, key=lambda row: row.is_control)


def _row(claim: Claim, verdict: ClaimVerdict) -> ClaimRow:
    effect = verdict.effect
    interval = interval_text(effect) if effect else text.MISSING
    return ClaimRow(
        name=verdict.claim,
        role=verdict.role.replace("-", " "),
        sentence=text.clean(verdict.sentence),
        word=verdict.word,
        plain=text.clean(verdict.plain),
        note=ROLE_NOTES[verdict.role],
        effect=text.clean(effect.name if effect else ""),
        value=value_text(effect, effect.value) if effect else text.MISSING,
        interval=interval,
        margin=text.clean(verdict.margin).replace(NATS, "nats/token"),
        seeds=seeds_text(verdict),
        drawing=draw(effect) if effect else None,
        reason=text.clean(verdict.reason),
        against=tuple(text.clean(line) for line in verdict.against),
        facts=tuple((term, text.clean(words)) for term, words in _facts(claim, verdict) if words),
        parts=parts_table(verdict),
    )


def seeds_text(verdict: ClaimVerdict) -> str:
    """Say on how many seeds a word rests."""
    part = leading(verdict.parts, verdict.alone)
    if verdict.rule == "compute":
        return "counted"
    if part is None or (not part.effect.n and part.effect.value is None):
        return "none"
    more = verdict.seeds_needed
    return str(part.effect.n) + (f" of about {more}" if more and more > part.effect.n else "")


def value_text(effect: Effect, value: float | None) -> str:
    """Write a number in the way of its effect: ratios plain, differences signed."""
    if value is None:
        return text.MISSING
    if effect.unit == "ratio":
        size = math.log10(abs(effect.value or value) or 1.0)
        return f"{value:.{max(0, SIGNIFICANT - 1 - math.floor(size))}f}"
    bounds = [abs(b) for b in (effect.floor, effect.ceiling) if b]
    scale = min(bounds, default=0.0) or abs(effect.value or value)
    return text.signed(value, text.decimals(scale))


def interval_text(effect: Effect) -> str:
    """Write an effect's interval."""
    if effect.low is None or effect.high is None:
        return "no interval" if effect.value is not None else text.MISSING
    return f"{value_text(effect, effect.low)} to {value_text(effect, effect.high)}"


def allowed_text(effect: Effect) -> str:
    """Write the range that a claim asks an interval to lie in."""
    floor, ceiling = effect.floor, effect.ceiling
    if floor is not None and ceiling is not None:
        return f"{floor:.3g} to {ceiling:.3g}"
    if ceiling is not None:
        return f"below {ceiling:.3g}"
    return text.MISSING if floor is None else f"above {floor:.3g}"


def draw(effect: Effect) -> ClaimDrawing | None:
    """Place an effect, its interval and what the claim allows; ratios on a logarithmic axis."""
    is_ratio = effect.unit == "ratio"
    if effect.value is None or (is_ratio and effect.value <= 0):
        return None
    scale = math.log if is_ratio else float
    reference = 1.0 if is_ratio else 0.0
    bounds = [b for b in (effect.floor, effect.ceiling) if b is not None]
    shown = [effect.value, reference, *bounds]
    shown += [
        end for end in (effect.low, effect.high) if end is not None and (end > 0 or not is_ratio)
    ]
    # A drift bounded by 1/2 and 2, or a count close to 2/3, needs no 1 in the frame.
    if is_ratio and len(bounds) == 2 and not bounds[0] <= 1 <= bounds[1]:
        shown.remove(reference)
    place = _placer([scale(v) for v in shown], scale)
    inside = [reference] if reference in shown else []
    return ClaimDrawing(
        value=place(effect.value),
        low=_maybe(place, effect.low, is_ratio),
        high=_maybe(place, effect.high, is_ratio),
        reference=place(reference) if inside else None,
        floor=_maybe(place, effect.floor, is_ratio),
        ceiling=_maybe(place, effect.ceiling, is_ratio),
        labels=_labels(place, [*bounds, *inside]),
        words=text.clean(
            f"{effect.name}: {value_text(effect, effect.value)} {effect.unit}, interval "
            f"{interval_text(effect)}, allowed {allowed_text(effect)}"
        ),
    )


def _placer(values: list[float], scale: Callable[[float], float]) -> Callable[[float], float]:
    low, high = min(values), max(values)
    pad = 0.14 * (high - low) or 1.0

    def place(value: float) -> float:
        share = (scale(value) - low + pad) / (high - low + 2 * pad)
        return round(share * WIDTH, 1)

    return place


def _maybe(place: Callable[[float], float], value: float | None, is_ratio: bool) -> float | None:
    return None if value is None or (is_ratio and value <= 0) else place(value)


def _labels(place: Callable[[float], float], values: list[float]) -> tuple[Label, ...]:
    """Write the bounds, then the reference where there is room left beside them."""
    found: list[Label] = []
    for value in values:
        label = Label(place(value), f"{value:.3g}".replace("-", text.MINUS))
        if all(abs(label.x - other.x) >= LABEL_ROOM for other in found):
            found.append(label)
    return tuple(found)


def _facts(claim: Claim, verdict: ClaimVerdict) -> list[tuple[str, str]]:
    """What a claim says of itself, and what its word rests on."""
    adjusted = verdict.p_adjusted
    reason_of_margin = f"{verdict.margin}: {claim.margin_reason}"
    effect, needed = verdict.effect, verdict.seeds_needed
    if (
        effect and needed and needed <= effect.n
    ):  # so many would have done, had the spread been less
        needed = None
    return [
        ("Why this word", verdict.reason),
        ("Quantity that decides", claim.estimand),
        ("What it allows", reason_of_margin),
        ("In TRL's page", claim.page or ""),
        ("In the blog", claim.blog or ""),
        ("Speaks for", claim.speaks_for),
        ("Control", ROLE_NOTES[claim.role]),
        ("Holm's p over all claims", p_text(adjusted) if adjusted is not None else ""),
        ("Seeds that would decide, about", str(needed) if needed else ""),
        ("Runs without a result", "; ".join(verdict.lost)),
    ]


def p_text(p: float | None) -> str:
    """Write a p value."""
    if p is None:
        return "\u2013"
    return "< 0.0001" if p < 1e-4 else f"{p:.2g}"


def parts_table(verdict: ClaimVerdict) -> Table:
    """List the tests that a claim is made of."""
    columns = (
        "Part", "Effect", "95% interval", "Allowed", "Seeds", "p supported", "p refuted",
        "p equal (TOST)", "Word", "Why", "Each seed",
    )  # fmt: skip
    rows = [_part_row(part) for part in verdict.parts]
    caption = f"Parts of the claim {verdict.claim}"
    return make_table(caption, columns, rows, numeric={1, 2, 4, 5, 6, 7})


def _part_row(part: Part) -> tuple[str, ...]:
    effect = part.effect
    return (
        effect.name,
        value_text(effect, effect.value) if effect.value is not None else "\u2013",
        interval_text(effect) if effect.value is not None else "\u2013",
        allowed_text(effect)
        if effect.floor is not None or effect.ceiling is not None
        else "\u2013",
        str(effect.n) if effect.n else "\u2013",
        p_text(part.p_supported),
        p_text(part.p_refuted),
        p_text(part.p_equal),
        part.word if part.decides else f"beside it: {part.word}",
        part.reason,
        ", ".join(f"{seed}: {value_text(effect, value)}" for seed, value in effect.by_seed)
        or "\u2013",
    )
