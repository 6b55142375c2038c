"""The whole run of one seed: where it parts after the first steps, and shifts too small to see at one.

Two identical programs stay identical, so a run that parts after identical first steps changed there: at a
new epoch, a checkpoint, a buffer that is used again. After rounding the residuals grow by themselves, and
only a jump says more. A shift below the tolerance that is there from the first step on and always points
one way is no rounding: rounding has no side. What this leaves out: the first steps (`exact`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from scipy import stats

from harness.compare.exact import difference_at, row_gaps, track_pairs
from harness.compare.limits import Limits
from harness.compare.model import Difference, Word
from harness.compare.side import RunSide
from harness.compare.tracks import Track

# A shift: residuals of this share of the tolerance from the start, at so many steps, all but never of the
# other sign.
SHIFT_SHARE = 0.1
LEAST_STEPS = 8
SHIFT_P = 1e-3
FIRST = 3
# After rounding: a residual this large, and this many times the largest of the three steps before.
JUMP = 1e-3
JUMP_TIMES = 100.0
_SHIFTED = ("loss", "gradient", "weights", "metric", "reward")


@dataclass(frozen=True)
class Residuals:
    """Candidate minus base, relative, a value a step; null where a side has none."""

    values: tuple[float | None, ...]

    @property
    def largest(self) -> float:
        """The largest size."""
        return max((abs(v) for v in self.values if v is not None), default=0.0)


def compare_trajectory(
    base: RunSide,
    candidate: RunSide,
    limits: Limits,
    exact: Sequence[Difference],
    tolerance: float,
) -> list[Difference]:
    """Compare what the first steps leave open; nothing where they have settled it.

    `exact` is what the first steps came to.
    """
    if any(d.word in ("changed", "undecided") for d in exact):
        return []
    noted = {d.what for d in exact if d.word == "same"}
    pairs = [(b, c) for b, c in track_pairs(base, candidate) if b.what not in noted]
    was_rounded = any(d.word == "rounding" for d in exact)
    found = _parted(base, pairs, limits.steps, tolerance, was_rounded=was_rounded)
    if any(d.word == "changed" for d in found):
        return found
    return found + [d for b, c in pairs if (d := _shift(b, c, tolerance))]


def residuals(base: Track, candidate: Track) -> Residuals:
    """Return the residual series of a track that has one number a step."""
    values: list[float | None] = []
    for b, c, scale in zip(base.rows, candidate.rows, base.scales, strict=False):
        first, second = (b[0] if len(b) == 1 else None), (c[0] if len(c) == 1 else None)
        if first is None or second is None:
            values.append(None)
        else:
            size = max(abs(first), abs(second), scale)
            values.append((second - first) / size if size else 0.0)
    return Residuals(tuple(values))


def one_sided_p(values: Sequence[float]) -> float:
    """Return the sign test's two-sided p value of residuals; 1 of none."""
    signs = [v > 0 for v in values if v]
    if not signs:
        return 1.0
    return float(stats.binomtest(sum(signs), len(signs), 0.5).pvalue)


def _parted(
    run: RunSide,
    pairs: Sequence[tuple[Track, Track]],
    steps: int,
    tolerance: float,
    *,
    was_rounded: bool,
) -> list[Difference]:
    """Report the tracks that part at the first step, after the exact ones, at which any does."""
    gaps = {b.what: row_gaps(b, c) for b, c in pairs}
    crossings = {
        what: next((i for i, g in enumerate(each) if i >= steps and g > tolerance), None)
        for what, each in gaps.items()
    }
    first = min((i for i in crossings.values() if i is not None), default=None)
    if first is None:
        return []
    found = []
    for base, candidate in pairs:
        if crossings[base.what] != first:
            continue
        each = gaps[base.what]
        word: Word = "changed"
        if was_rounded and (run.task == "grpo" or not _jumps(each, first)):
            word = "rounding"
        found.append(difference_at(base, candidate, first, word, max(each), layer="trajectory"))
    if was_rounded and any(d.word == "rounding" for d in found):
        why = "; rounding came before and grew"
        found = [d.model_copy(update={"sentence": d.sentence + why}) for d in found]
    return found


def _jumps(gaps: Sequence[float], index: int) -> bool:
    before = max(gaps[max(0, index - 3) : index], default=0.0)
    return gaps[index] > JUMP and gaps[index] > JUMP_TIMES * before


def _shift(base: Track, candidate: Track, tolerance: float) -> Difference | None:
    """Find a systematic shift that stays under the tolerance at each step."""
    if base.kind not in _SHIFTED or base.is_counted:
        return None
    values = residuals(base, candidate).values
    least = SHIFT_SHARE * tolerance
    known = [v for v in values if v is not None]
    seen = [v for v in known if abs(v) >= least]
    starts = [abs(v) >= least for v in known[:FIRST]]
    if len(seen) < LEAST_STEPS or len(seen) < 0.8 * len(known) or not all(starts):
        return None
    if any(abs(v) > tolerance for v in known) or one_sided_p(seen) > SHIFT_P:
        return None
    way = "up" if sum(v > 0 for v in seen) > len(seen) / 2 else "down"
    largest = max(map(abs, seen))
    same_way = max(sum(v > 0 for v in seen), sum(v < 0 for v in seen))
    text = (
        f"{base.what}: shifted {way} at {same_way} of {len(seen)} steps from step 1 on, by up to "
        f"{largest:.2g}: under the tolerance at each, and no rounding"
    )
    index = next(i for i, v in enumerate(values) if v is not None)
    return difference_at(
        base, candidate, index, "changed", largest, layer="trajectory", sentence=text
    )
