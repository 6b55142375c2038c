"""What a verdict is made of: tests, each with an effect, an interval and what the claim allows."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from harness.claim_spec import Role
from harness.frozen import Count, Frozen, absent
from harness.rule import Word


class Effect(Frozen):
    """A number that a claim rests on, its interval over seeds, and the range that the claim allows."""

    name: str = Field(description="what it is: the arms and the quantity")
    unit: str
    value: float | None
    low: float | None = Field(None, description="lower end of the two-sided t interval")
    high: float | None = None
    n: Count = Field(0, description="seeds in it; 0 where nothing is random, as in a count")
    floor: float | None = Field(None, description="the claim asks the interval to lie above it")
    ceiling: float | None = Field(None, description="the claim asks the interval to lie below it")
    by_seed: tuple[tuple[int, float], ...] = Field((), description="seed and its own value")


class Part(Frozen):
    """One test of a claim. A claim is supported if all of its parts are, refuted if any is."""

    effect: Effect
    word: Word
    reason: str = Field(description="why that word, with numbers")
    decides: bool = Field(True, description="whether the claim's word rests on it")
    is_refused: bool = Field(
        False,
        exclude_if=absent(False),
        description="whether its measurement is graded too low for any word",
    )
    p_supported: float | None = Field(
        None, description="one-sided p value against the claim's denial"
    )
    p_refuted: float | None = Field(None, description="one-sided p value against the claim")
    p_equal: float | None = Field(
        None,
        description="p value of two one-sided tests (TOST): equal within the margin, both ways",
    )
    seeds_needed: int | None = Field(
        None, description="about how many seeds would decide, by the spread that was seen"
    )
    against: tuple[str, ...] = Field((), description="what speaks against the word")


class ClaimVerdict(Frozen):
    """What a study says of one claim."""

    claim: str
    rule: str
    role: Role
    sentence: str
    margin: str = Field(description="what the claim allows, as text with its unit")
    word: Word
    alone: Word = Field(description="the word before it was corrected for there being many claims")
    plain: str = Field(description="the verdict in a sentence, without statistics")
    reason: str = Field(description="why that word, with numbers")
    parts: tuple[Part, ...]
    against: tuple[str, ...] = Field((), description="what speaks against the word, or weakens it")
    lost: tuple[str, ...] = Field((), description="cells without a result, and why")
    p_supported: float | None = None
    p_refuted: float | None = None
    p_adjusted: float | None = Field(
        None,
        description="Holm's p value of the word, over all claims of the study; null for controls",
    )
    seeds_needed: int | None = None
    is_as_expected: bool | None = Field(
        None, description="of a control: whether it came out as it must; null for a claim"
    )

    @property
    def effect(self) -> Effect | None:
        """The number that is drawn: that of the part the word hangs on."""
        part = leading(self.parts, self.alone)
        return part.effect if part else None


def leading(parts: Sequence[Part], word: Word) -> Part | None:
    """Return the part that a word hangs on: the first that has it, or the first that is not settled."""
    deciding = [part for part in parts if part.decides]
    ordered = [
        *(part for part in deciding if part.word == word),
        *(part for part in deciding if part.word != "supported"),
        *deciding,
    ]
    return ordered[0] if ordered else None


def combine(parts: Sequence[Part]) -> Word:
    """Return a claim's word: refuted if any part is, supported if all are."""
    words = [part.word for part in parts if part.decides]
    if "refuted" in words:
        return "refuted"
    if words and all(word == "supported" for word in words):
        return "supported"
    return "not tested" if not words or set(words) == {"not tested"} else "inconclusive"


def combined_p(parts: Sequence[Part]) -> tuple[float | None, float | None]:
    """Return the p values of a claim whose parts all have to hold: (supported, refuted).

    Supported: the largest, which needs no correction (intersection-union). Refuted: any part will do, so
    the smallest counts as often as there are parts (Bonferroni); once parts are refuted, theirs alone,
    since a part whose word was withheld speaks for nothing. None where a part that is needed has none.
    """
    deciding = [part for part in parts if part.decides]
    support = [part.p_supported for part in deciding]
    refuting = [part for part in deciding if part.word == "refuted"] or deciding
    refute = [part.p_refuted for part in refuting if part.p_refuted is not None]
    known = [p for p in support if p is not None]
    supported = max(known) if known and len(known) == len(support) else None
    refuted = min(1.0, min(refute) * len(deciding)) if refute else None
    return supported, refuted
