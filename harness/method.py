"""How a study of claims was judged, in a paragraph; docs/verdicts.md says it at length."""

from __future__ import annotations

from harness import text
from harness.view import StudyView


def method_text(view: StudyView) -> str:
    """Say how rates were chosen, arms compared and words held back."""
    evidence = view.evidence
    confidence, alpha = (f"{100 * share:.3g}%" for share in (evidence.confidence, evidence.alpha))
    lines = [
        "One number a seed, paired by seed; intervals are two-sided t intervals of "
        f"{confidence}, so {alpha} of error on the side that counts.",
        "A claim is supported if all of its parts are, refuted if any is. Holm over the claims of the "
        "study holds 5% and can turn a word into inconclusive. Failed and diverged runs count against "
        "their arm. Controls are comparisons whose answer is known.",
    ]
    if view.matrix.selection:
        lines.insert(
            0,
            "Arms with several learning rates were judged at the one that was best on selection seeds "
            f"({_listed(view.matrix.selection.seeds)}) and validation rows; every arm is judged on other "
            "seeds and on test rows.",
        )
    if view.study.looks:
        lines.append(
            f"Claims may be decided after {_listed(view.study.looks)} seeds: looks that were fixed before "
            "the first run and share the error in equal parts."
        )
    return text.clean(" ".join(lines), limit=2000)


def _listed(values: tuple[int, ...]) -> str:
    return ", ".join(map(str, values))
