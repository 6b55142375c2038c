"""A verdict in a sentence for people: no p values, no intervals."""

from __future__ import annotations

from collections.abc import Sequence

from harness.claim_spec import Claim, MatchClaim
from harness.rule import Word
from harness.spec import Matrix
from harness.verdicts.model import Part

_SUPPORTED: dict[str, str] = {
    "match": "{arm} ends as good as {baseline}, within the margin.",
    "memory": "LoRA takes less memory than full fine-tuning.",
    "compute": "The count agrees with the claim, for every model and rank.",
    "layers": "With as many parameters, adapters on attention alone learn less; the MLP is what counts.",
    "capacity": "Small ranks run out of room, the smaller the earlier; the largest keeps up.",
    "rate-ratio": "LoRA's best learning rate is about ten times that of full fine-tuning, at any rank.",
    "batch": "LoRA loses ground as the batch grows, and more rank does not win it back.",
    "rank-free": "The rank makes no difference that counts.",
}
_REFUTED: dict[str, str] = {
    "match": "{arm} ends worse than {baseline}.",
    "memory": "LoRA takes no less memory than full fine-tuning here.",
    "compute": "The count disagrees with the claim, for at least one model and rank.",
    "layers": "Where the adapters sit does not matter as the claim says.",
    "capacity": "Rank does not limit what is learned as the claim says.",
    "rate-ratio": "LoRA's best learning rate is not about ten times that of full fine-tuning, or it moves "
    "with the rank.",
    "batch": "The batch size does not hurt LoRA as the claim says, or more rank mends it.",
    "rank-free": "The rank makes a difference.",
}
_OPEN: dict[str, str] = {
    "not tested": "Nothing that was run can tell.",
    "inconclusive": "What was run can't tell.",
}


def plain_words(matrix: Matrix, claim: Claim, word: Word, parts: Sequence[Part]) -> str:
    """Say a verdict in one sentence without statistics."""
    templates = {"supported": _SUPPORTED, "refuted": _REFUTED}.get(word)
    if templates is not None:
        text = templates[claim.rule]
        if not isinstance(claim, MatchClaim):
            return text
        pair = matrix.pairs[claim.pair]
        baseline = claim.baseline or pair.baseline
        is_full = pair.arms[baseline].method == "full"
        return text.format(arm=claim.arm, baseline="full fine-tuning" if is_full else baseline)
    open_parts = [part for part in parts if part.decides and part.word != "supported"]
    settled = [part for part in parts if part.decides and part.word == "supported"]
    if word == "inconclusive" and settled and open_parts:
        return f"Part of it holds; still open: {open_parts[0].effect.name}."
    return _OPEN[word]
