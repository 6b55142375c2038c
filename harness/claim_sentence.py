"""A study of claims in one sentence, and whether its controls came out as they must.

Only what has the role of a claim counts; controls are named apart. What this leaves out: the row of
each claim (`claim_rows`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from harness import text
from harness.claim_spec import EXPECTED, MatchClaim
from harness.spec import Matrix
from harness.verdicts.model import ClaimVerdict
from harness.view import StudyView

CONTROL_NAMES = {"positive-control": "positive control", "negative-control": "negative control"}
_CAME_OUT = {  # one of them, several
    "positive-control": ("was refuted", "were refuted"),
    "negative-control": ("matched", "matched"),
}


def has_claims(view: StudyView) -> bool:
    """Whether a study's matrix says what it claims."""
    return bool(view.matrix.claims)


def claims_sentence(view: StudyView) -> str:
    """Say what became of a study's claims, what LoRA takes of the memory, and how controls came out."""
    claims = [v for v in view.verdicts if v.role == "claim"]
    matches = [v for v in claims if _is_lora_match(view.matrix, v)]
    others = [v for v in claims if v not in matches]
    parts = [
        _matches(matches),
        _others(others, has_matches=bool(matches)),
        _memory(claims),
        _controls(view),
    ]
    said = "; ".join(part for part in parts if part)
    return f"{said[:1].upper()}{said[1:]}." if said else "No claim was judged."


def control_problems(view: StudyView) -> list[tuple[str, str]]:
    """Say of each control that did not come out as it must what that means: (kind, sentence)."""
    found = []
    for verdict in view.verdicts:
        if verdict.is_as_expected is not False or view.matrix.scale == "rehearsal":
            continue
        name = CONTROL_NAMES[verdict.role]
        if verdict.word == "not tested":
            line = f"The {name} {verdict.claim} could not be tested, so nothing vouches for the verdicts."
            found.append(("incomplete", line))
            continue
        why = (
            "the study may be unable to see a difference"
            if verdict.role == "positive-control"
            else "the study may see differences where there are none"
        )
        line = f"The {name} {verdict.claim} is {verdict.word}, not {EXPECTED[verdict.role]}: {why}."
        found.append(("problem", line))
    return found


def _is_lora_match(matrix: Matrix, verdict: ClaimVerdict) -> bool:
    """Whether a claim says that LoRA matches full fine-tuning."""
    claim = matrix.claims.get(verdict.claim)
    if not isinstance(claim, MatchClaim):
        return False
    pair = matrix.pairs[claim.pair]
    arms = (pair.arms[claim.arm], pair.arms[claim.baseline or pair.baseline])
    return [arm.method for arm in arms] == ["lora", "full"]


def _matches(verdicts: Sequence[ClaimVerdict]) -> str:
    words = Counter(v.word for v in verdicts)
    total = len(verdicts)
    if not total:
        return ""
    parts = [
        f"LoRA matches full fine-tuning in {words['supported']} of {text.plural(total, 'match claim')}",
        f"falls short in {words['refuted']}" if words["refuted"] else "",
        f"{words['inconclusive']} undecided" if words["inconclusive"] else "",
        f"{words['not tested']} not tested" if words["not tested"] else "",
    ]
    return ", ".join(part for part in parts if part)


def _others(verdicts: Sequence[ClaimVerdict], *, has_matches: bool) -> str:
    if not verdicts:
        return ""
    words = Counter(v.word for v in verdicts)
    counts = [
        f"{words['supported']} {'is' if words['supported'] == 1 else 'are'} supported",
        f"{words['refuted']} refuted",
        f"{words['inconclusive']} undecided",
        *([f"{words['not tested']} not tested"] if words["not tested"] else []),
    ]
    which = f"{len(verdicts)} other claims" if has_matches else text.plural(len(verdicts), "claim")
    if len(verdicts) == 1 and has_matches:
        return f"the one other claim is {verdicts[0].word}"
    return f"of the {which} {', '.join(counts)}"


def _memory(verdicts: Sequence[ClaimVerdict]) -> str:
    """Name the range of the memory claims' ratios, over those with the first one's statistic."""
    effects = [
        part.effect
        for verdict in verdicts
        if verdict.rule == "memory"
        for part in verdict.parts
        if part.decides and part.effect.value is not None and not part.is_refused
    ]
    named = [(effect.name.split(",")[0], effect.value or 0.0) for effect in effects]
    ratios = [ratio for name, ratio in named if name == named[0][0]]
    if not ratios:
        return ""
    low, high = text.percent(min(ratios)), text.percent(max(ratios))
    span = low if low == high else f"{low[:-1]} to {high}"
    return f"LoRA takes {span} of the memory ({named[0][0]})"


def _controls(view: StudyView) -> str:
    """Name the controls where all came out as they must; a banner says so where one did not."""
    parts = []
    controls = [v for v in view.verdicts if v.is_as_expected is not None]
    if not controls or not all(v.is_as_expected for v in controls):
        return ""
    for role, name in CONTROL_NAMES.items():
        n = sum(v.role == role for v in controls)
        if n:
            many = {1: f"the {name}", 2: f"both {name}s"}.get(n, f"all {n} {name}s")
            parts.append(f"{many} {_CAME_OUT[role][n > 1]}")
    return f"{' and '.join(parts)}, as {'it' if len(controls) == 1 else 'they'} must"
