"""All claims of a study at once: each by its rule, then Holm over those that are claims.

What this leaves out: reading a study (`view`), and how a verdict is shown (`claim_tables`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from harness.claim_checks import NATS, REWARD, unit_of
from harness.claim_spec import (
    EXPECTED,
    BatchClaim,
    Claim,
    ComputeClaim,
    LayersClaim,
    MatchClaim,
    MemoryClaim,
    RateClaim,
    arms_of_claim,
)
from harness.claims import cell_losses
from harness.multiplicity import holm
from harness.rule import Word
from harness.selection import rate_key
from harness.spec import Matrix
from harness.verdicts.capacity import judge_capacity
from harness.verdicts.costs import judge_compute, judge_memory
from harness.verdicts.evidence import Evidence
from harness.verdicts.matching import judge_layers, judge_match, judge_rank_free
from harness.verdicts.model import ClaimVerdict, Part, combine, combined_p, leading
from harness.verdicts.sweeps import judge_batch, judge_rates
from harness.verdicts.words import plain_words

NAMED = 3  # parts that a sentence names
FAMILY_ERROR = 0.05  # one-sided, over all claims of a study
REHEARSED = "A rehearsal shows that each arm runs; its toys learn nothing that could be judged."

_RULES: dict[str, Callable[[Evidence, Any], list[Part]]] = {
    "match": judge_match,
    "memory": judge_memory,
    "compute": judge_compute,
    "layers": judge_layers,
    "capacity": judge_capacity,
    "rate-ratio": judge_rates,
    "batch": judge_batch,
    "rank-free": judge_rank_free,
}


def judge_claims(evidence: Evidence) -> list[ClaimVerdict]:
    """Judge every claim of a matrix; a matrix without any is judged by each arm's match."""
    claims = claims_of(evidence.matrix)
    verdicts = [_judge(evidence, name, claim) for name, claim in claims.items()]
    if evidence.matrix.scale == "rehearsal":
        return verdicts
    return _with_controls(_corrected(verdicts, FAMILY_ERROR / max(1, len(evidence.looks))))


def claims_of(matrix: Matrix) -> dict[str, Claim]:
    """Return a matrix's claims, or what it says without any: each arm matches its pair's baseline."""
    if matrix.claims:
        return dict(matrix.claims)
    return {
        f"{name}.{arm}": MatchClaim(
            rule="match",
            sentence=f"{arm} matches {pair.baseline} on {name}.",
            estimand=f"{'held-out NLL' if pair.task == 'sft' else 'held-out reward'}, {arm} minus "
            f"{pair.baseline}, paired by seed",
            pair=name,
            arm=arm,
            margin=pair.margin,
            unit=NATS if pair.task == "sft" else REWARD,
            margin_reason=pair.margin_reason,
            speaks_for=f"{pair.model.shown} on {pair.dataset.name}",
        )
        for name, pair in matrix.pairs.items()
        for arm in pair.arms
        if arm != pair.baseline
    }


def margin_text(matrix: Matrix, claim: Claim) -> str:
    """Say what a claim allows."""
    if isinstance(claim, MemoryClaim):
        return f"ratio below {claim.at_most:.0%}"
    if isinstance(claim, ComputeClaim):
        around = "2/3 + rank term" if claim.ratio is None else f"{claim.ratio:.3g}"
        margin = f"{claim.margin:.0%} of it" if claim.ratio is None else f"{claim.margin:g}"
        return f"{around}, give or take {margin}"
    if isinstance(claim, RateClaim):
        drift = f"; drift below {claim.drift:g}×" if claim.ranks else ""
        return f"ratio {claim.low:g} to {claim.high:g}{drift}"
    margin = f"{claim.margin:g} {unit_of(matrix, claim)}"
    if isinstance(claim, LayersClaim | BatchClaim):
        return f"above 0 ({margin} counts)"
    return margin


def _judge(evidence: Evidence, name: str, claim: Claim) -> ClaimVerdict:
    matrix = evidence.matrix
    is_rehearsal = matrix.scale == "rehearsal"
    parts = [] if is_rehearsal else _RULES[claim.rule](evidence, claim)
    word: Word = "not tested" if is_rehearsal else combine(parts)
    p_supported, p_refuted = combined_p(parts)
    hangs_on = leading(parts, word)
    return ClaimVerdict(
        claim=name,
        rule=claim.rule,
        role=claim.role,
        sentence=claim.sentence,
        margin=margin_text(matrix, claim),
        word=word,
        alone=word,
        plain=plain_words(matrix, claim, word, parts),
        reason=REHEARSED if is_rehearsal else _reason(parts, word),
        parts=tuple(parts),
        against=tuple(_against(evidence, claim, parts, word)),
        lost=_lost(evidence, claim),
        p_supported=p_supported,
        p_refuted=p_refuted,
        seeds_needed=hangs_on.seeds_needed if hangs_on and word == "inconclusive" else None,
    )


def _reason(parts: Sequence[Part], word: Word) -> str:
    """Say what the word hangs on: every part that has it, or what keeps the claim from being decided."""
    deciding = [part for part in parts if part.decides]
    open_words = ("inconclusive", "not tested")  # a claim with a part untested is inconclusive
    wanted = open_words if word == "inconclusive" else (word,)
    shown = [part for part in deciding if part.word in wanted]
    lines = [f"{part.effect.name}: {part.reason}" for part in shown[:NAMED]]
    more = len(shown) - len(lines)
    return " ".join(lines) + (f" And {more} more." if more > 0 else "")


def _against(evidence: Evidence, claim: Claim, parts: Sequence[Part], word: Word) -> list[str]:
    """List what speaks against a word, or weakens it."""
    lines = [
        f"{part.effect.name}: {line}" for part in parts if part.decides for line in part.against
    ]
    if word == "refuted":
        lines += _supported_parts(parts)
    if word == "supported" and claim.rule == "match":
        lines += [
            f"{part.effect.name}: that both arms are equal within the margin is not shown "
            f"(TOST p = {part.p_equal:.2g})."
            for part in parts
            if part.p_equal is not None and part.p_equal > evidence.alpha
        ]
    judged = [] if claim.rule == "compute" else _resolved(evidence, claim)  # counts have no rate
    for pair, arm in dict.fromkeys(judged):
        edge = evidence.edges.get(rate_key(evidence.matrix, pair, arm))
        if edge:
            lines.append(edge)
    return list(dict.fromkeys(lines))


def _supported_parts(parts: Sequence[Part]) -> list[str]:
    """Name the parts that hold all the same; of many their number."""
    deciding = [part for part in parts if part.decides]
    names = [part.effect.name for part in deciding if part.word == "supported"]
    if len(names) > NAMED:
        return [f"{len(names)} of its {len(deciding)} parts are supported."]
    return [f"{name}: this part is supported." for name in names]


def _resolved(evidence: Evidence, claim: Claim) -> list[tuple[str, str]]:
    """The arms of a claim, its baselines by name; none of a claim that rests on counts alone."""
    found = []
    for pair, arm in arms_of_claim(claim):
        name = arm or evidence.matrix.pairs[pair].baseline
        found.append((pair, name))
    return found


def _lost(evidence: Evidence, claim: Claim) -> tuple[str, ...]:
    lost: dict[str, None] = {}
    for pair, arm in dict.fromkeys(_resolved(evidence, claim)):
        side = evidence.side(pair, arm, evidence.seeds(pair, arm))
        lost |= dict.fromkeys(cell_losses(pair, side))
    return tuple(lost)


def _corrected(verdicts: Sequence[ClaimVerdict], error: float) -> list[ClaimVerdict]:
    """Withhold words that would not stand among so many claims (Holm); controls are no claims.

    error: of the whole family, at this look.
    """
    # A count is no test. A claim whose runs are missing still belongs to the family.
    family = [v for v in verdicts if v.role == "claim" and v.rule != "compute"]
    names = [v.claim for v in family]
    supported = dict(zip(names, holm([v.p_supported for v in family]), strict=True))
    refuted = dict(zip(names, holm([v.p_refuted for v in family]), strict=True))
    result = []
    for verdict in verdicts:
        by_word = {"supported": supported, "refuted": refuted}.get(verdict.word, {})
        adjusted = by_word.get(verdict.claim)
        if adjusted is None:
            result.append(verdict)
        elif adjusted <= error:
            result.append(verdict.model_copy(update={"p_adjusted": adjusted}))
        else:
            result.append(
                verdict.model_copy(
                    update={
                        "word": "inconclusive",
                        "p_adjusted": adjusted,
                        "plain": "Alone it would be decided, but not among so many claims.",
                        "reason": f"By itself it would be {verdict.word}; among {len(family)} claims its "
                        f"p value is {adjusted:.2g} (Holm), above {error:g}. {verdict.reason}",
                    }
                )
            )
    return result


def _with_controls(verdicts: Sequence[ClaimVerdict]) -> list[ClaimVerdict]:
    """Say of each control whether it came out as it must, and to every claim if one did not."""
    judged = [
        v.model_copy(update={"is_as_expected": v.word == EXPECTED[v.role]})
        if v.role in EXPECTED
        else v
        for v in verdicts
    ]
    failed = [v for v in judged if v.is_as_expected is False]
    if not failed:
        return judged
    line = "; ".join(f"{v.claim} is {v.word}, not {EXPECTED[v.role]}" for v in failed)
    return [
        v
        if v.role in EXPECTED
        else v.model_copy(update={"against": (*v.against, f"A control did not come out: {line}.")})
        for v in judged
    ]
