"""How much higher than its highest sample a lens may have been while training.

A sampler sees instants. torch's counters see every allocation, so on CUDA they bound what was missed:
what the device holds beside torch's reservation (context, libraries, a pool) is read in every phase,
as the highest sample minus the reserved peak there; no device held more in training than the most of
that and torch's reserved peak of training together. This takes that what stands beside torch never
rose above all that was seen of it. Without counters that can be believed, the longest gap says how
short a rise can have been and yet not be seen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from pydantic import Field

from harness.frozen import Count, Frozen
from harness.lenses import RESERVED, TRAINING, WHOLE_RUN, passed_within, training_spans
from harness.memory_figures import ByPhase, counted_peaks
from harness.samples import PhaseRow


class MissedPeak(Frozen):
    """What one sampled lens can have missed while training."""

    longest_gap_s: float | None = Field(
        description="most of training between two neighbouring samples, or before the first or after the "
        "last; an evaluation in between does not count"
    )
    at_most_bytes: Count | None = Field(
        None, description="by torch's reserved peak; null: no counter of torch bounds it"
    )


def longest_training_gap(times_ns: Sequence[int], phases: Sequence[PhaseRow]) -> float | None:
    """Return the most of training, in s, that passed without a sample; None without training.

    What passed before the first sample and after the last counts too. An evaluation in the middle of a
    gap does not: nothing of training is unseen there.
    """
    spans = training_spans(phases)
    if not spans:
        return None
    edges = np.unique(np.asarray([spans[0][0], *times_ns, spans[-1][1]], dtype="int64"))
    return float(np.diff(passed_within(edges, spans)).max()) / 1e9


def missed_peak(
    series: pd.Series[float],
    statistics: ByPhase,
    phases: Sequence[PhaseRow],
    *,
    is_counted: bool,
    parts: Sequence[pd.Series[float]] = (),
) -> MissedPeak:
    """Bound what a lens missed in training.

    series, statistics: of the device on which torch counted. is_counted: whether torch's counters
    speak of this lens; they don't of RSS, nor beside an engine that sleeps. parts: the devices of
    which the series is the sum; the worst of their gaps counts.
    """
    reserved = counted_peaks(phases, RESERVED) if is_counted else {}
    gaps = [longest_training_gap(part.index.tolist(), phases) for part in parts or (series,)]
    return MissedPeak(
        longest_gap_s=max((gap for gap in gaps if gap is not None), default=None),
        at_most_bytes=_bound(statistics, reserved),
    )


def _bound(statistics: ByPhase, reserved: Mapping[str, int]) -> int | None:
    seen = statistics.get(TRAINING)
    if seen is None or TRAINING not in reserved:
        return None
    beside = [
        figures.peak_bytes - reserved[phase]
        for phase, figures in statistics.items()
        if phase in reserved and phase not in (TRAINING, WHOLE_RUN)
    ]
    most = max([*beside, seen.peak_bytes - reserved[TRAINING], 0])
    return max(0, reserved[TRAINING] + most - seen.peak_bytes)
