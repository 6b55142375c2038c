"""Claims as data: what a sentence of the page says, in terms of arms, a margin and a rule.

A claim is fixed before the first run: whatever decides its verdict is hashed into study.json, so that
a margin that moves afterwards is seen. Its `rule` says which of the models below it is; each names the
arms it compares, what it allows, and why. What this leaves out: the rules themselves (`verdicts`).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from harness.frozen import Frozen, Name, PositiveInt

Role = Literal["claim", "positive-control", "negative-control"]
Measure = Literal["held-out", "train-reward"]
Positive = Annotated[float, Field(gt=0)]
# An arm where the pair is not said: `pair.arm`.
PairArm = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*\.[A-Za-z0-9][A-Za-z0-9_-]*$")]

ROLE_NOTES: dict[Role, str] = {
    "claim": "",
    "positive-control": "must be refuted: if it is not, the study could not have seen a difference",
    "negative-control": "must be supported: if it is not, the study sees differences where there are none",
}
# What a control must come out as.
EXPECTED: dict[Role, str] = {"positive-control": "refuted", "negative-control": "supported"}
# Words of a claim that decide nothing: they may be mended after the runs.
_WORDS = frozenset({"sentence", "page", "blog", "estimand", "margin_reason", "speaks_for"})


class _Claim(Frozen):
    """What every claim says of itself."""

    sentence: str = Field(min_length=1, description="the claim, in one sentence")
    page: str | None = Field(None, description="the section of TRL's page that it stands in")
    blog: str | None = Field(None, description="the section of the blog that it stands in")
    estimand: str = Field(min_length=1, description="the quantity that decides, in words")
    unit: str = Field(min_length=1, description="unit of the margin")
    margin_reason: str = Field(min_length=1, description="why that margin")
    minimum_seeds: Annotated[int, Field(ge=2)] = Field(
        3, description="with fewer seeds the verdict is inconclusive, whatever they show"
    )
    speaks_for: str = Field(min_length=1, description="the models and data a verdict speaks for")
    role: Role = Field(
        "claim", description="a claim, or a control: a comparison whose answer is known"
    )

    def deciding(self) -> dict[str, Any]:
        """Return what decides the verdict: everything but the words for people."""
        return self.model_dump(mode="json", exclude=set(_WORDS))


class MatchClaim(_Claim):
    """An arm is not worse than its baseline by the margin."""

    rule: Literal["match"]
    pair: Name
    arm: Name
    baseline: Name | None = Field(
        None, description="the arm it is compared with; the pair's if null"
    )
    measures: tuple[Measure, ...] = Field(
        ("held-out",), min_length=1, description="every one of them has to match"
    )
    margin: Positive = Field(description="how much worse still counts as a match")
    gain_margins: Positive = Field(
        1.0,
        description="both arms must beat the untrained model by so many margins, or nothing counts",
    )


class MemoryClaim(_Claim):
    """An arm's peak memory over its baseline's stays below a ratio."""

    rule: Literal["memory"]
    comparisons: tuple[PairArm, ...] = Field(min_length=1, description="arms, as pair.arm")
    at_most: Positive = Field(1.0, description="the ratio that the whole interval must stay below")


class ComputeClaim(_Claim):
    """LoRA's FLOPs of a training step over full fine-tuning's, counted on the models themselves."""

    rule: Literal["compute"]
    models: tuple[str, ...] = Field(min_length=1, description="models that `harness flops` knows")
    ranks: tuple[PositiveInt, ...] = Field(min_length=1)
    ratio: Positive | None = Field(
        None,
        description="the ratio that is claimed, of the linear layers' FLOPs; 2/3 + rank term if null",
    )
    margin: Positive = Field(
        description="how far from it still counts; a share of it where the ratio is null"
    )
    comparisons: tuple[PairArm, ...] = Field(
        (), description="arms whose step times stand beside it"
    )


class LayersClaim(_Claim):
    """At matched parameters adapters on attention alone are worse; those on the MLP alone are not."""

    rule: Literal["layers"]
    pair: Name
    attention: Name = Field(description="arm with adapters on attention alone")
    mlp: Name = Field(description="arm with adapters on the MLP alone")
    every: Name = Field(description="arm with adapters on every linear layer")
    margin: Positive


class CapacityClaim(_Claim):
    """Low ranks leave full fine-tuning's curve, the lower the earlier; the highest does not."""

    rule: Literal["capacity"]
    pair: Name
    arms: tuple[Name, ...] = Field(min_length=2, description="LoRA arms, lowest rank first")
    baseline: Name | None = None
    margin: Positive


class RateClaim(_Claim):
    """LoRA's best learning rate is a multiple of full fine-tuning's, whatever the rank."""

    rule: Literal["rate-ratio"]
    pair: Name
    arm: Name
    baseline: Name | None = None
    low: Positive = Field(5.0, description="the whole interval of the ratio must lie above it")
    high: Positive = Field(20.0, description="and below it")
    ranks: tuple[Name, ...] = Field((), description="LoRA arms whose optima may drift")
    drift: Annotated[float, Field(gt=1)] = Field(
        2.0, description="by less than this factor, largest over smallest"
    )


class BatchClaim(_Claim):
    """LoRA's gap to full fine-tuning grows with the batch size, and more rank does not mend it."""

    rule: Literal["batch"]
    pairs: tuple[Name, ...] = Field(min_length=2, description="pairs, smallest batch first")
    arm: Name
    baseline: Name | None = None
    raised: Name = Field(description="a LoRA arm of higher rank, in the pair of the largest batch")
    margin: Positive = Field(description="the growth of the gap that counts as none")


class RankFreeClaim(_Claim):
    """Arms of different rank are equivalent: no two differ by the margin."""

    rule: Literal["rank-free"]
    pair: Name
    arms: tuple[Name, ...] = Field(min_length=2, description="LoRA arms, lowest rank first")
    margin: Positive
    gain_margins: Positive = 3.0


Claim = Annotated[
    MatchClaim
    | MemoryClaim
    | ComputeClaim
    | LayersClaim
    | CapacityClaim
    | RateClaim
    | BatchClaim
    | RankFreeClaim,
    Field(discriminator="rule"),
]


def arms_of_claim(claim: Claim) -> list[tuple[str, str | None]]:
    """List the arms a claim compares as (pair, arm); an arm of None is the pair's baseline."""
    if isinstance(claim, MemoryClaim | ComputeClaim):
        split = [each.split(".", 1) for each in claim.comparisons]
        return [cell for pair, arm in split for cell in ((pair, arm), (pair, None))]
    if isinstance(claim, BatchClaim):
        everywhere = [(pair, arm) for pair in claim.pairs for arm in (claim.arm, claim.baseline)]
        return [*everywhere, (claim.pairs[-1], claim.raised)]
    if isinstance(claim, LayersClaim):
        return [(claim.pair, arm) for arm in (claim.attention, claim.mlp, claim.every)]
    if isinstance(claim, RankFreeClaim):
        return [(claim.pair, arm) for arm in claim.arms]
    if isinstance(claim, CapacityClaim):
        return [(claim.pair, arm) for arm in (*claim.arms, claim.baseline)]
    if isinstance(claim, RateClaim):
        return [(claim.pair, arm) for arm in (claim.arm, *claim.ranks, claim.baseline)]
    return [(claim.pair, arm) for arm in (claim.arm, claim.baseline)]
