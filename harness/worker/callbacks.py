"""What listens to TRL's trainer while it trains: the step journal, NaN, evaluation on the way."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from harness.record import StepRow
from harness.worker.journal import Journal
from harness.worker.progress import Progress


class StepJournal(TrainerCallback):  # type: ignore[misc]
    """Writes a line per optimizer step: when it began and ended, its tokens, what TRL logged.

    `num_tokens` in TRL's log is the running total of non-padding tokens; a step's own are the
    difference. The log of a step arrives after its end, so the line is written then.

    GRPO counts when it generates, and may train on a generation for several steps (`num_iterations`,
    `steps_per_generation`): then a step's tokens are its share of the completions that it trains on.
    Source: `GRPOTrainer._generate` and `_prepare_inputs`, TRL 1.16.

    `counted` gives what else was counted since the step before, by the names it has in the row.
    """

    def __init__(
        self,
        journal: Journal,
        progress: Progress,
        samples_per_step: int,
        completions_per_generation: int = 0,
        counted: Callable[[], dict[str, float | None]] = dict,
    ) -> None:
        self._journal = journal
        self._progress = progress
        self._samples = samples_per_step
        self._completions = completions_per_generation
        self._counted = counted
        self._begin_ns = 0
        self._end_ns = 0
        self._tokens_before = 0.0
        self._tokens_per_completion: float | None = None  # of the newest generation
        self._generations_before = 0

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Note when the step began."""
        self._journal.current_step = state.global_step + 1
        self._begin_ns = self._journal.now_ns()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Note when the step ended."""
        self._end_ns = self._journal.now_ns()

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Write the step's line; stop training when its loss is not a number."""
        if not logs or "loss" not in logs or state.global_step <= self._progress.steps_done:
            return  # the summary at the end of training is not a step
        values = {k: finite(v) for k, v in logs.items() if isinstance(v, int | float)}
        self._progress.steps_done = state.global_step
        generations = self._new_generations()
        self._journal.step(
            StepRow(
                step=state.global_step,
                begin_ns=self._begin_ns,
                end_ns=self._end_ns,
                tokens=self._trained_tokens(logs, generations),
                samples=self._samples,
                generated_tokens=self._generated_tokens(logs, generations),
                logs={**values, **self._counted()},
            )
        )
        if values["loss"] is None or ("grad_norm" in values and values["grad_norm"] is None):
            self._progress.nan_step = state.global_step
            control.should_training_stop = True

    def _new_generations(self) -> int:
        """How many generation batches were sampled since the last step."""
        done = self._journal.spans.get("generate", 0)
        new, self._generations_before = done - self._generations_before, done
        return new

    def _trained_tokens(self, logs: dict[str, Any], generations: int) -> int | None:
        total = logs.get("num_tokens")
        new = 0.0
        if total is not None:
            new, self._tokens_before = total - self._tokens_before, total
        if not self._completions:
            return round(new) if total is not None else None
        if new:
            self._tokens_per_completion = new / (max(1, generations) * self._completions)
        per_completion = self._tokens_per_completion
        return None if per_completion is None else round(per_completion * self._samples)

    def _generated_tokens(self, logs: dict[str, Any], generations: int) -> int | None:
        """Completion tokens sampled for this step: none when it reuses an earlier generation."""
        mean_length = logs.get("completions/mean_length")
        if mean_length is None or generations == 0:
            return None
        return round(mean_length * self._completions * generations)


class EvaluateOnTheWay(TrainerCallback):  # type: ignore[misc]
    """Calls a function every N optimizer steps, except after the last, which is evaluated anyway.

    `begins_untrained` has it called for step 0 too, for a model that is only wrapped in train().

    It does so when the next step begins, before that step's clock is read (so it is added before
    StepJournal): by then the loss is logged, and a step whose loss was not a number has no next.
    """

    def __init__(
        self,
        every_steps: int,
        evaluate: Callable[[int], None],
        begins_untrained: bool = False,
    ) -> None:
        self._every = every_steps
        self._evaluate = evaluate
        self._begins_untrained = begins_untrained

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Evaluate if it is time."""
        step = state.global_step
        is_due = bool(self._every) and step % self._every == 0
        if is_due if step else self._begins_untrained:
            self._evaluate(step)


def finite(value: float) -> float | None:
    """Return a number, or None if it is NaN or infinite: JSON and a reader know what null means."""
    return float(value) if math.isfinite(value) else None
