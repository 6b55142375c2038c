from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness.worker.callbacks import EvaluateOnTheWay, StepJournal
from harness.worker.journal import Journal
from harness.worker.progress import Progress


class Training:
    """What transformers' loop and TRL's logs do to callbacks, without a model."""

    def __init__(self, folder: Path, **journal: Any) -> None:
        self.folder = folder
        self.journal = Journal(folder, is_cuda=False, **journal)
        self.progress = Progress()
        self.control = SimpleNamespace(should_training_stop=False)
        self.callbacks: list[Any] = []
        self.total = 0

    def step(self, number: int, logs: dict[str, Any], generations: tuple[int, ...] = ()) -> None:
        """One optimizer step, with generation batches of so many tokens sampled in it."""
        self._call("on_step_begin", number - 1)
        for tokens in generations:
            with self.journal.phase("generate"):
                self.total += tokens
        if generations:  # TRL logs these only where it generated
            logs = {**logs, "num_tokens": self.total, "completions/mean_length": 2.0}
        self._call("on_step_end", number)
        self._call("on_log", number, logs=logs)

    def rows(self) -> list[dict[str, Any]]:
        lines = (self.folder / "steps.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]

    def _call(self, event: str, done: int, **kwargs: Any) -> None:
        state = SimpleNamespace(global_step=done, max_steps=100)
        for callback in self.callbacks:
            getattr(callback, event)(None, state, self.control, **kwargs)


@pytest.fixture
def training(tmp_path: Path) -> Iterator[Callable[..., Training]]:
    """Make a training with a step journal."""
    made: list[Training] = []

    def make(samples: int, completions: int = 0, **journal: Any) -> Training:
        it = Training(tmp_path, **journal)
        it.callbacks.append(StepJournal(it.journal, it.progress, samples, completions))
        made.append(it)
        return it

    yield make
    for it in made:
        it.journal.close()


def test_sft_tokens_are_the_growth_of_the_total(training):
    it = training(samples=4)
    for number, total in enumerate((100, 250, 300), start=1):
        it.step(number, {"loss": 1.0, "num_tokens": total})
    it.step(4, {"loss": 1.0})
    assert [r["tokens"] for r in it.rows()] == [100, 150, 50, None]


@pytest.mark.parametrize(
    ("samples", "completions", "generations", "trained"),
    [
        # one generation a step: gradient_accumulation_steps = steps_per_generation, num_iterations 1
        (8, 8, [(80,), (40,)], [80, 40]),
        # num_iterations = 2: each generation is trained on whole, twice
        (8, 8, [(80,), (), (40,), ()], [80, 80, 40, 40]),
        # steps_per_generation = 2 × gradient_accumulation_steps: half of it a step
        (8, 16, [(160,), (), (80,), ()], [80, 80, 40, 40]),
        # both: a half of it a step, for four steps
        (8, 16, [(160,), (), (), (), (80,)], [80, 80, 80, 80, 40]),
        # gradient_accumulation_steps = 2 × steps_per_generation: two generations a step
        (16, 8, [(80, 40), (20, 20)], [120, 40]),
        # the same with num_iterations = 2: one generation a step, trained on twice within it
        (16, 8, [(80,), (40,)], [160, 80]),
    ],
)
def test_grpo_tokens_are_those_that_a_step_trains_on(
    training, samples, completions, generations, trained
):
    it = training(samples, completions)
    for number, sampled in enumerate(generations, start=1):
        it.step(number, {"loss": 0.1}, sampled)
    rows = it.rows()
    assert [r["tokens"] for r in rows] == trained
    assert [r["generated_tokens"] for r in rows] == [
        round(2 * completions * len(sampled)) or None for sampled in generations
    ]


def test_a_step_begins_and_ends_when_the_gpu_is_done(training):
    waits: list[int] = []
    it = training(1, wait_for_gpu=lambda: waits.append(1))
    it.step(1, {"loss": 1.0})
    assert len(waits) == 2


@pytest.mark.parametrize("logs", [{"loss": float("nan")}, {"loss": 1.0, "grad_norm": float("inf")}])
def test_a_loss_that_is_no_number_stops_training_and_is_remembered(training, logs):
    it = training(1)
    it.step(1, {"loss": 1.0})
    assert not it.control.should_training_stop
    it.step(2, logs)
    assert it.control.should_training_stop
    assert (it.progress.steps_done, it.progress.nan_step) == (2, 2)


def test_an_evaluation_on_the_way_comes_once_the_step_is_logged_and_not_after_the_last(training):
    it = training(1)
    seen: list[tuple[int, int]] = []
    it.callbacks.insert(0, EvaluateOnTheWay(2, lambda s: seen.append((s, it.progress.steps_done))))
    for number in range(1, 7):
        it.step(number, {"loss": 1.0})
    assert seen == [(2, 2), (4, 4)]


def test_an_evaluation_on_the_way_is_not_within_a_step(training):
    it = training(1)
    ends: list[int] = []
    it.callbacks.insert(0, EvaluateOnTheWay(1, lambda _: ends.append(it.journal.now_ns())))
    it.step(1, {"loss": 1.0})
    it.step(2, {"loss": 1.0})
    first, second = it.rows()
    assert first["end_ns"] < ends[0] < second["begin_ns"]
