"""Hand-made timelines: phases, steps and samples in seconds, whose figures can be worked out on paper."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd

from harness.record import StepRow
from harness.samples import MEMORY_COLUMNS, PhaseRow

S = 10**9
EMPTY = pd.DataFrame()


def span(phase: str, begin_s: float, end_s: float, **more: Any) -> PhaseRow:
    """A phase from one second to another."""
    return PhaseRow(phase=phase, begin_ns=int(begin_s * S), end_ns=int(end_s * S), **more)


def step(
    number: int,
    begin_s: float,
    end_s: float,
    tokens: int | None = 100,
    samples: int = 4,
    generated: int | None = None,
    **logs: float,
) -> StepRow:
    """An optimizer step."""
    return StepRow(
        step=number,
        begin_ns=int(begin_s * S),
        end_ns=int(end_s * S),
        tokens=tokens,
        samples=samples,
        generated_tokens=generated,
        logs=logs,
    )


def samples(rows: Iterable[Sequence[Any]]) -> pd.DataFrame:
    """Rows (second, device, RSS or None, NVML device memory or None)."""
    return _frame(
        {"t_ns": int(t * S), "device": d, "rss_bytes": rss, "nvml_device_bytes": nvml}
        for t, d, rss, nvml in rows
    )


def gpu(seconds: Iterable[float], device: str = "GPU-a", **columns: Any) -> pd.DataFrame:
    """A GPU's samples: a column is a value for all of them, or a list with one for each."""
    times = list(seconds)
    every = {
        name: value if isinstance(value, list) else [value] * len(times)
        for name, value in columns.items()
    }
    return _frame(
        {"t_ns": int(t * S), "device": device, **{name: every[name][i] for name in every}}
        for i, t in enumerate(times)
    )


def _frame(rows: Iterable[dict[str, Any]]) -> pd.DataFrame:
    return pd.DataFrame(list(rows), columns=list(MEMORY_COLUMNS))
