"""Looks into TRL's trainer while it trains, and writes `probe.json`.

TRL's own trainers run: their methods are wrapped one by one on the built trainer, called as they are, and
what goes in and comes out is noted. Nothing draws a random number, so a probed run trains as it would have
trained. What happens between the steps (evaluation, and the probe's own work) is not counted as a step's
processor time. What this leaves out: what is kept of a step (`probe_steps`), of a built trainer
(`probe_facts`), and what is tried after training (`probe_checks`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from transformers import (
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from harness.files import write_atomically
from harness.probe import PROBE_FILE, Check, Probe, ProbeStep
from harness.settings import Probing
from harness.worker import probe_facts as facts
from harness.worker.probe_batches import describe, shown_log_probs
from harness.worker.probe_memory import count_held, rss_after_giving_back
from harness.worker.probe_pace import fixed_work
from harness.worker.probe_parameters import (
    copies,
    count_dtypes,
    group_norms,
    hash_values,
    moved,
    precision,
    trainable,
)
from harness.worker.probe_steps import StepNotes


class Recorder(TrainerCallback):  # type: ignore[misc]
    """Notes what a trainer does, step by step."""

    def __init__(self, probing: Probing) -> None:
        self.probing = probing
        self.steps: list[ProbeStep] = []
        self.checks: dict[str, Check] = {}
        self._construct_cpu_s = 0.0
        self._dtypes: dict[str, int] = {}
        self._begin: dict[str, torch.Tensor] = {}
        self._initial_sha256 = ""
        self._notes = StepNotes()
        self._trainer: Any = None
        self._is_in_loss = False
        self._log_probs: Any = None
        self._begin_cpu_s = 0.0
        self._outside_cpu_s = 0.0
        self._gradient: dict[str, float | None] = {}

    @contextmanager
    def outside(self) -> Iterator[None]:
        """Leave what happens here out of a step's processor time."""
        begin = time.process_time()
        try:
            yield
        finally:
            self._outside_cpu_s += time.process_time() - begin

    def see_built(self, trainer: Trainer, construct_cpu_s: float) -> None:
        """Note what the constructor made, before the harness touches it."""
        self._construct_cpu_s = construct_cpu_s
        built = count_dtypes(trainable(trainer.model).values())
        self.checks["built/dtypes"] = Check(
            value=tuple(f"{dtype} {count}" for dtype, count in built.items()),
            what="precision of what is trained, as TRL and PEFT made it",
        )

    def watch(self, trainer: Trainer) -> None:
        """Wrap the trainer's methods, before it trains."""
        self._trainer = trainer
        parameters = trainable(trainer.model)
        self._begin = copies(parameters)
        self._dtypes = count_dtypes(parameters.values())
        self._initial_sha256 = hash_values(parameters)
        self.checks |= facts.rows(trainer) | facts.parameters(trainer.model)
        self.checks |= facts.reference(trainer)
        self._wrap_loss()
        self._wrap_log_probs()
        self._wrap_rewards()
        for model in (trainer.model, getattr(trainer, "ref_model", None)):
            if model is not None:
                model.get_input_embeddings().register_forward_hook(self._count_forward)
        trainer.add_callback(self)

    def probe(self) -> Probe:
        """Return what was noted."""
        return Probe(
            construct_cpu_s=self._construct_cpu_s,
            dtypes=self._dtypes,
            precision=precision(self._trainer),
            initial_sha256=self._initial_sha256,
            steps=tuple(self.steps),
            checks=self.checks,
        )

    def write(self, attempt: Path) -> None:
        """Write what was noted into the attempt's folder."""
        content = self.probe().model_dump_json(indent=1).encode()
        write_atomically(attempt / PROBE_FILE, content + b"\n")

    @property
    def is_on(self) -> bool:
        """Whether the step that runs is kept."""
        return self.probing.steps is None or len(self.steps) < self.probing.steps

    def _wrap_loss(self) -> None:
        trainer = self._trainer
        compute_loss, training_step = trainer.compute_loss, trainer.training_step

        def watched_loss(model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
            if not self.is_on:
                return compute_loss(model, inputs, *args, **kwargs)
            with self.outside():
                self._see_batch(inputs)
            self._is_in_loss, self._log_probs = True, None
            loss = compute_loss(model, inputs, *args, **kwargs)
            self._is_in_loss = False
            with self.outside():
                self._see_log_probs(inputs)
            return loss

        def watched_step(*args: Any, **kwargs: Any) -> Any:
            loss = training_step(*args, **kwargs)
            with self.outside():
                self._notes.losses.append(float(loss))
            return loss

        trainer.compute_loss, trainer.training_step = watched_loss, watched_step

    def _wrap_log_probs(self) -> None:
        """Keep the policy's log-probabilities, on which the value of an on-policy loss does not depend."""
        name = "_get_per_token_logps_and_entropies"
        original = getattr(self._trainer, name, None)
        if original is None:
            return

        def watched(*args: Any, **kwargs: Any) -> Any:
            found = original(*args, **kwargs)
            if self._is_in_loss:
                self._log_probs = found
            return found

        setattr(self._trainer, name, watched)

    def _wrap_rewards(self) -> None:
        functions = getattr(self._trainer, "reward_funcs", None)
        if functions is None:
            return
        names = [getattr(f, "__name__", type(f).__name__) for f in functions]
        self._trainer.reward_funcs = [
            _WatchedReward(name, function, self._notes_of_rewards)
            for name, function in zip(names, functions, strict=True)
        ]

    def _notes_of_rewards(self, name: str, scores: list[float | None]) -> None:
        with self.outside():
            self._notes.rewards.setdefault(name, []).extend(scores)

    def _count_forward(self, *_: Any) -> None:
        self._notes.forwards += 1

    def _see_batch(self, inputs: Any) -> None:
        if not self.steps and not self._notes.batches:
            self.checks |= facts.modes(self._trainer.model)
            self.checks |= facts.first_batch(self._trainer, inputs)
        self._notes.batches.append(describe(inputs, self._trainer.processing_class.pad_token_id))

    def _see_log_probs(self, inputs: Any) -> None:
        found = self._log_probs
        if found is None or not isinstance(found, tuple) or "completion_mask" not in inputs:
            return
        for name, values in zip(("policy", "entropy"), found, strict=False):
            if values is not None:
                shown = shown_log_probs(values, inputs["completion_mask"])
                self._notes.batches[-1].values[name] = shown

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,
    ) -> None:
        """Begin the first step."""
        if hasattr(self._trainer, "reward_funcs"):  # it samples while it trains
            facts.watch_sampling(self._trainer.model, self.checks.update)
        self._begin_step()

    def on_pre_optimizer_step(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,
    ) -> None:
        """Note the gradients as the optimizer is about to see them: accumulated and clipped."""
        if self.is_on:
            with self.outside():
                if not self.steps:
                    self.checks |= facts.optimizer(self._trainer)
                parameters = trainable(self._trainer.model)
                self._gradient = group_norms({n: p.grad for n, p in parameters.items()})
                self._notes.rates = [g["lr"] for g in self._trainer.optimizer.param_groups]

    def on_step_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,
    ) -> None:
        """Keep the step, and begin the next one."""
        cpu_s = time.process_time() - self._begin_cpu_s - self._outside_cpu_s
        if self.is_on:
            pace_s = fixed_work()
            rss_bytes, held = rss_after_giving_back(), count_held()
            parameters = trainable(self._trainer.model)
            self.steps.append(
                self._notes.step(
                    step=state.global_step,
                    cpu_s=max(0.0, cpu_s),
                    pace_s=pace_s,
                    rss_bytes=rss_bytes,
                    held=held,
                    gradient=self._gradient,
                    update=group_norms(moved(parameters, self._begin)),
                    sha256=hash_values(parameters),
                )
            )
        self._begin_step()

    def _begin_step(self) -> None:
        self._notes = StepNotes()
        self._gradient = {}
        self._begin_cpu_s, self._outside_cpu_s = time.process_time(), 0.0


def uncounted(recorder: Recorder | None) -> AbstractContextManager[None]:
    """Leave what happens in it out of a step's processor time, in a run that may not be probed."""
    return recorder.outside() if recorder is not None else nullcontext()


class _WatchedReward:
    """A reward function whose scores are noted."""

    def __init__(
        self,
        name: str,
        reward: Callable[..., list[float | None]],
        note: Callable[[str, list[float | None]], None],
    ) -> None:
        self.__name__ = name
        self._reward, self._note = reward, note

    def __call__(self, *args: Any, **kwargs: Any) -> list[float | None]:
        scores = self._reward(*args, **kwargs)
        self._note(self.__name__, list(scores))
        return scores
