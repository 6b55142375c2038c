"""What is noted in the course of one optimizer step, and the row that it becomes.

Numbers of several micro-batches are pooled over their tokens, never averaged twice. What this leaves out:
who notes (`probing`).
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from harness.probe import ProbeStep
from harness.worker.callbacks import finite
from harness.worker.probe_batches import Batch, digest, summary


@dataclass
class StepNotes:
    """Notes of a step that is still running."""

    batches: list[Batch] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    rewards: dict[str, list[float | None]] = field(default_factory=dict)
    rates: list[float] = field(default_factory=list)  # learning rate by the optimizer's group
    forwards: int = 0  # passes through the model, generation included

    def step(
        self,
        *,
        step: int,
        cpu_s: float,
        pace_s: float,
        rss_bytes: int,
        held: dict[str, int],
        gradient: dict[str, float | None],
        update: dict[str, float | None],
        sha256: str,
    ) -> ProbeStep:
        """Return the step's row."""
        return ProbeStep(
            step=step,
            cpu_s=cpu_s,
            pace_s=pace_s,
            rss_bytes=rss_bytes,
            held=held,
            losses=tuple(finite(loss) for loss in self.losses),
            batches=tuple(batch.sha256 for batch in self.batches),
            counts=self._counts(),
            numbers=self._numbers(),
            hashes=self._hashes(),
            gradient=gradient,
            update=update,
            sha256=sha256,
        )

    def _counts(self) -> dict[str, int]:
        counts = {"forwards": self.forwards}
        for batch in self.batches:
            for name, count in batch.counts.items():
                counts[name] = counts.get(name, 0) + count
        for name, scores in self.rewards.items():
            counts[f"rewards/{name}/none"] = sum(score is None for score in scores)
        return counts

    def _numbers(self) -> dict[str, float | None]:
        numbers: dict[str, float | None] = {
            f"lr/{group}": rate for group, rate in enumerate(self.rates)
        }
        for name in sorted({name for batch in self.batches for name in batch.values}):
            values = [batch.values[name] for batch in self.batches if name in batch.values]
            numbers |= summary(name, values)
        for name, scores in self.rewards.items():
            known = [score for score in scores if score is not None]
            mean = finite(sum(known) / len(known)) if known else None
            numbers[f"rewards/{name}/mean"] = mean
        return numbers

    def _hashes(self) -> dict[str, str]:
        hashes = {
            part: digest(batch.parts[part] for batch in self.batches if part in batch.parts)
            for part in sorted({part for batch in self.batches for part in batch.parts})
        }
        for name, scores in self.rewards.items():
            hashes[f"rewards/{name}"] = digest([json.dumps(scores)])
        return hashes
