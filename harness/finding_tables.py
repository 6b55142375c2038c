"""The tables under the findings' figures: ranks, layers, batches, FLOPs, memory.

What this leaves out: the figures (`finding_charts`) and each claim's own parts (`claim_rows`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from harness import text
from harness.claim_checks import facts_of
from harness.claim_rows import interval_text, value_text
from harness.claim_spec import BatchClaim, CapacityClaim, Claim, LayersClaim, RankFreeClaim
from harness.errors import ConfigError
from harness.finding_series import MeanPoint, arms_in, finals, gap_dots, rank_of
from harness.report_tables import Table, argument, arm_parameters, make_table
from harness.rule import Word
from harness.sizes import count_lora
from harness.spec import Task
from harness.stats import mean_interval
from harness.trust import GRADED_D
from harness.verdicts.evidence import Evidence, match_part
from harness.verdicts.model import ClaimVerdict, Part
from harness.view import StudyView

# What TRL's page recommends ('The adapter needs sufficient capacity'): dataset size, ranks.
PAGE_RANKS: dict[Task, tuple[str, str]] = {
    "sft": ("Post-training scale", "256"),
    "grpo": ("Any size", "1\u201332"),
}
TASK_NAMES: dict[Task, str] = {"sft": "SFT", "grpo": "RL"}
MATCHES: dict[Word, str] = {
    "supported": "matches",
    "refuted": "falls short",
    "inconclusive": "open",
    "not tested": "not tested",
}
DASH = "\u2013"
LONGEST = 12  # rows that are not folded away


def by_rank_table(
    evidence: Evidence,
    claim: CapacityClaim | RankFreeClaim,
    departures: Sequence[MeanPoint] = (),
) -> Table:
    """Give the final metric of each rank, and where it left the baseline's curve."""
    left = {point.arm: point for point in departures}
    baseline = evidence.baseline(claim.pair, getattr(claim, "baseline", None))
    rows = []
    for arm in (baseline, *claim.arms):
        row: tuple[str, ...] = (
            arm,
            str(rank_of(evidence, claim.pair, arm) or DASH),
            *_final(evidence, claim.pair, arm),
        )
        if isinstance(claim, CapacityClaim):
            planned = len(evidence.seeds(claim.pair, arm))
            row = (*row, DASH if arm == baseline else _left(left.get(arm), planned))
        rows.append(row)
    columns: tuple[str, ...] = ("Arm", "Rank", "Mean", "95% interval", "Seeds")
    if isinstance(claim, CapacityClaim):
        columns = (*columns, "Leaves the baseline's curve for good")
    caption = f"Held-out metric of the test rows by rank, {claim.pair}"
    return make_table(caption, columns, rows, {1, 2, 4})


def _final(evidence: Evidence, pair: str, arm: str) -> tuple[str, str, str]:
    """An arm's metric after training: mean, interval, seeds."""
    estimate = mean_interval(list(finals(evidence, pair, arm).values()), evidence.confidence)
    if estimate is None:
        return (text.MISSING, text.MISSING, "0")
    ends = (estimate.low, estimate.high)
    shown = DASH if None in ends else " to ".join(text.number(end) for end in ends)
    return (text.number(estimate.mean), shown, str(estimate.n))


def _left(point: MeanPoint | None, planned: int) -> str:
    if point is None:
        return "in no seed"
    return f"at step {point.x:g} (median), in {point.seeds} of {text.plural(planned, 'seed')}"


def page_ranks_table(
    evidence: Evidence, claims: Mapping[str, Claim], verdicts: Mapping[str, ClaimVerdict]
) -> Table:
    """Set what TRL's page recommends beside what this study found."""
    rows = []
    for task, (size, ranks) in PAGE_RANKS.items():
        found = [
            (name, claim)
            for name, claim in claims.items()
            if isinstance(claim, CapacityClaim | RankFreeClaim)
            and evidence.pair(claim.pair).task == task
        ]
        head = (TASK_NAMES[task], size, ranks)
        rows += [
            (*head, claim.pair, _found(evidence, claim), verdicts[name].plain)
            for name, claim in found
        ] or [(*head, DASH, "not tried", DASH)]
    columns = (
        "Task", "Dataset size", "Rank, says the page", "Tried here on", "Against full fine-tuning",
        "What the claim on ranks says",
    )  # fmt: skip
    return make_table("Ranks: the page's table and this study", columns, rows)


def _found(evidence: Evidence, claim: CapacityClaim | RankFreeClaim) -> str:
    """Say of each rank whether it matches the baseline, one comparison each."""
    if evidence.matrix.scale == "rehearsal":
        return MATCHES["not tested"]
    baseline = evidence.baseline(claim.pair, getattr(claim, "baseline", None))
    said = []
    for arm in claim.arms:
        part = match_part(
            evidence,
            claim.pair,
            arm,
            baseline,
            claim.margin,
            minimum_seeds=claim.minimum_seeds,
        )
        said.append(f"rank {rank_of(evidence, claim.pair, arm)} {MATCHES[part.word]}")
    return ", ".join(said)


def layers_table(view: StudyView, evidence: Evidence, claim: LayersClaim) -> Table:
    """Give rank, parameters and metric of adapters on different layers."""
    rows = []
    for arm in (claim.attention, claim.mlp, claim.every):
        lora = evidence.pair(claim.pair).arms[arm].lora
        targets = lora.target_modules if lora else DASH
        rows.append(
            (
                arm,
                targets if isinstance(targets, str) else ", ".join(targets),
                str(lora.r) if lora else DASH,
                text.count(adapter_parameters(view, claim.pair, arm)),
                *_final(evidence, claim.pair, arm),
            )
        )
    columns = ("Arm", "Layers", "Rank", "Adapter parameters", "Mean", "95% interval", "Seeds")
    caption = f"Held-out metric of the test rows by layers at matched parameters, {claim.pair}"
    return make_table(caption, columns, rows, {2, 3, 4, 6})


def adapter_parameters(view: StudyView, pair: str, arm: str) -> int | None:
    """Count an adapter's parameters from the model's shape, or as the first run reported them."""
    spec = view.matrix.pairs[pair]
    facts, lora = facts_of(spec.model.source), spec.arms[arm].lora
    if facts is not None and lora is not None:
        try:
            return count_lora(facts, lora.r, lora.target_modules)
        except ConfigError:
            return None
    reported = arm_parameters(view, pair, arm)
    return reported.adapter if reported else None


def batch_sizes(view: StudyView, claim: BatchClaim) -> dict[str, float]:
    """Return the effective batch size of each pair, where the arguments say it."""
    found = {}
    for pair in claim.pairs:
        names = ("per_device_train_batch_size", "gradient_accumulation_steps")
        asked = [argument(view, pair, claim.arm, name) for name in names]
        numbers = [int(value) if value.isdigit() else None for value in asked]
        parallel = view.matrix.pairs[pair].arms[claim.arm].parallel
        per_device, accumulated = numbers
        if per_device is not None:
            processes = parallel.processes if parallel else 1
            found[pair] = float(per_device * (accumulated or 1) * processes)
    return found


def batch_table(evidence: Evidence, claim: BatchClaim, batches: Mapping[str, float]) -> Table:
    """Give the gap between LoRA and its baseline at each batch size."""
    found = gap_dots(evidence, claim, {pair: pair for pair in claim.pairs}).means
    gaps = {(point.x, point.arm): point for point in found}
    rows = []
    for pair in claim.pairs:
        for arm in arms_in(evidence, claim, pair):
            gap = gaps.get((pair, arm))
            digits = text.decimals(claim.margin)
            rows.append(
                (
                    pair,
                    f"{batches[pair]:g}" if pair in batches else text.MISSING,
                    arm,
                    text.signed(gap.mean if gap else None, digits),
                    text.span(gap.low, gap.high, "signed", digits) if gap else text.MISSING,
                    str(gap.seeds if gap else 0),
                )
            )
    columns = ("Pair", "Batch size", "Arm", "Worse than baseline by", "95% interval", "Seeds")
    return make_table("Gap to the baseline by batch size", columns, rows, {1, 3, 5})


def flops_table(view: StudyView) -> Table:
    """Give the counted compute of a training step, LoRA over full fine-tuning."""
    rows = [
        (
            ratio.model,
            str(ratio.rank),
            *(
                f"{share:.3f}"
                for share in (ratio.linear, ratio.closed_form, ratio.whole, ratio.attention_share)
            ),
            text.count(ratio.tokens),
        )
        for ratio in view.flops
    ]
    columns = (
        "Model", "Rank", "Linear layers, counted", "2/3 + rank term", "Whole step, counted",
        "Attention's share of the full step", "Tokens",
    )  # fmt: skip
    caption = "FLOPs of a training step, LoRA over full fine-tuning"
    return make_table(caption, columns, rows, set(range(1, 7)))


def ratios_table(caption: str, parts: Iterable[Part]) -> Table:
    """Give measured ratios: what was compared, and whether a claim rests on it."""
    rows = []
    for part in parts:
        effect = part.effect
        what, _, compared = effect.name.rpartition(", ")
        rows.append(
            (
                compared,
                what,
                value_text(effect, effect.value),
                interval_text(effect),
                str(effect.n),
                (part.word if part.decides else "beside it")
                + (f" ({GRADED_D})" if part.is_refused else ""),
            )
        )
    columns = ("Compared", "What", "Ratio", "95% interval", "Seeds", "For the claim")
    return make_table(caption, columns, rows, {2, 3, 4}, is_long=len(rows) > LONGEST)
