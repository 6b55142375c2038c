"""How far a run has come: what is kept of it when it fails on the way.

Filled while the run trains and read by `__main__` when an exception ends it. Imports no ML library,
so that a broken one can still be reported.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from harness.record import (
    Distributed,
    EvaluationPoint,
    Generation,
    Result,
    Source,
    Status,
    Translation,
)

LISTED = 50  # unusable rows that a result lists itself; unusable_rows.txt lists every one


@dataclass
class Progress:
    """What a run has reached so far."""

    steps_done: int = 0
    nan_step: int | None = None  # the first step whose loss or gradient was not a number
    evaluations: list[EvaluationPoint] = field(default_factory=list)
    sources: tuple[Source, ...] = ()
    translations: tuple[Translation, ...] = ()
    notes: list[str] = field(default_factory=list)  # what a reader must know of this run
    unusable: tuple[str, ...] = ()  # dataset rows left out, one sentence each
    distributed: Distributed | None = None  # known once the model is wrapped
    generation: Generation | None = None  # what samples, once it is there

    def failed(self, status: Status, reason: str) -> Result:
        """Return the result of a run that an exception ended here.

        An exception after a loss that was not a number is its consequence: sampling from NaN raises.
        """
        if self.nan_step is not None:
            status, reason = Status.NAN, f"{self.nan_reason}; then {reason}"
        return Result(
            status=status,
            reason=reason,
            steps_done=self.steps_done,
            evaluations=tuple(self.evaluations),
            sources=self.sources,
            translations=self.translations,
            notes=tuple(self.notes),
            unusable_rows=self.unusable[:LISTED],
            unusable_count=len(self.unusable),
            distributed=self.distributed,
            generation=self.generation,
        )

    @property
    def nan_reason(self) -> str:
        """The sentence for a loss that was not a number."""
        return f"the loss or its gradient was not a number at step {self.nan_step}"
