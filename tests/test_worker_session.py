"""What SFT and GRPO share, on toy trainers; and one real run whose weights stop being numbers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from datasets import Dataset

from harness.launch import Launch
from harness.launch.local import LocalLauncher
from harness.matrix import expand, parse_matrix
from harness.parity import undeclared_differences
from harness.record import EvaluationPoint, Split, Status
from harness.settings import Evaluation, Model
from harness.worker.callbacks import StepJournal
from harness.worker.data import Splits, limited
from harness.worker.held_out import HeldOutReward
from harness.worker.journal import Journal
from harness.worker.models import Loaded, load_model
from harness.worker.progress import Progress
from harness.worker.session import Session, autocast, resolved_config, train
from harness.worker.sft import held_out_nll
from tests.conftest import MATRIX


class Toy(torch.nn.Module):
    """A base layer and an adapter; says in which precision it computed."""

    def __init__(self, dtype: torch.dtype = torch.float32, has_adapter: bool = False) -> None:
        super().__init__()
        self.base = torch.nn.Linear(4, 8, dtype=dtype)
        if has_adapter:
            self.lora_A = torch.nn.Linear(4, 1, dtype=torch.float32)
        self.device = torch.device("cpu")
        self.computed_in: list[torch.dtype] = []

    def forward(self, input_ids: torch.Tensor, **_: Any) -> Any:
        logits = self.base(torch.ones(*input_ids.shape, 4))
        self.computed_in.append(logits.dtype)
        return SimpleNamespace(logits=logits)


def trainer_of(model: Any, bf16: bool = False, fp16: bool = False, **more: Any) -> Any:
    arguments = {"bf16": bf16, "fp16": fp16, "max_completion_length": 4}
    args = SimpleNamespace(**arguments, to_dict=lambda: arguments)
    return SimpleNamespace(args=args, model=model, add_callback=lambda c: None, **more)


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    rows = Dataset.from_dict({"x": [1, 2]})
    journal = Journal(tmp_path, is_cuda=False)
    yield Session(
        spec=expand(parse_matrix(MATRIX, "m"))[0],
        launch=Launch(),
        attempt=tmp_path,
        journal=journal,
        progress=Progress(),
        loaded=Loaded(None, None),
        splits=Splits(rows, rows, rows),
    )
    journal.close()


def point(split: Split, step: int) -> EvaluationPoint:
    return EvaluationPoint(step=step, split=split, metric="nll", value=1.0, rows=2, wall_s=0.0)


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({}, torch.float32),
        ({"bf16": True}, torch.bfloat16),
        ({"fp16": True}, torch.float16),
    ],
)
def test_an_untrained_model_is_judged_in_the_precision_that_trains(flags, expected):
    model = Toy()
    with autocast(trainer_of(model, **flags)):
        model(torch.ones(1, 2, dtype=torch.long))
    assert model.computed_in == [expected]


def test_held_out_nll_computes_in_the_precision_that_trains():
    tokens = torch.ones(1, 3, dtype=torch.long)
    trainer = trainer_of(
        Toy(),
        bf16=True,
        eval_dataset={"test": [0]},
        data_collator=lambda _: {"input_ids": tokens, "labels": tokens.clone()},
    )
    assert held_out_nll(trainer, "test", 0, 1).value is not None
    assert trainer.model.computed_in == [torch.bfloat16]


def test_a_long_evaluation_gives_a_sign_of_life_after_every_batch():
    tokens = torch.ones(1, 3, dtype=torch.long)
    trainer = trainer_of(
        Toy(),
        eval_dataset={"test": [0] * 5},
        data_collator=lambda _: {"input_ids": tokens, "labels": tokens.clone()},
    )
    batches: list[int] = []
    held_out_nll(trainer, "test", 0, 2, lambda: batches.append(len(trainer.model.computed_in)))
    assert batches == [1, 2, 3]
    loaded = load_model(Model(source="embedded:micro-llama"))
    trainer = trainer_of(loaded.model, processing_class=loaded.tokenizer)
    row = {"prompt": [{"role": "user", "content": "1+2=?"}], "solution": "3"}
    scored: list[str] = []

    def reward(completions: Any, solution: list[str], **_: Any) -> list[float]:
        scored.extend(solution)
        return [1.0] * len(completions)

    evaluation = Evaluation(batch_size=2, samples_per_prompt=2)
    held_out = HeldOutReward(trainer, reward, evaluation, 0, beat=lambda: batches.append(4))
    held_out.measure(Dataset.from_list([row] * 3), "test", 0)
    assert batches == [1, 2, 3, 4, 4, 4]
    assert scored == ["3"] * 6
    assert held_out.notes() == []


def test_held_out_reward_samples_in_the_precision_that_trains():
    loaded = load_model(Model(source="embedded:micro-llama"))
    seen: set[torch.dtype] = set()
    layer = loaded.model.model.layers[0].mlp.down_proj
    layer.register_forward_hook(lambda _m, _i, output: seen.add(output.dtype))
    trainer = trainer_of(loaded.model, bf16=True, processing_class=loaded.tokenizer)
    rows = Dataset.from_list([{"prompt": [{"role": "user", "content": "1+2=?"}], "solution": "3"}])
    held_out = HeldOutReward(trainer, lambda completions, **_: [1.0], Evaluation(), seed=0)
    assert held_out.measure(rows, "test", 0).value == 1.0
    assert seen == {torch.bfloat16}


def test_an_arm_whose_trained_weights_have_another_precision_is_a_difference(session):
    full = resolved_config(session, trainer_of(Toy(torch.bfloat16)))
    lora = resolved_config(session, trainer_of(Toy(torch.bfloat16, has_adapter=True)))
    assert full["dtypes"] == lora["dtypes"] == ["torch.bfloat16"]
    assert lora["trainable_dtypes"] == ["torch.bfloat16", "torch.float32"]
    found = undeclared_differences(full, lora, ())
    assert [f.partition(":")[0] for f in found] == ["trainable_dtypes"]
    assert undeclared_differences(full, lora, ["trainable_dtypes"]) == []
    other = resolved_config(session, trainer_of(Toy(torch.float32)))
    assert len(undeclared_differences(full, other, ())) == 2


def test_a_run_whose_training_raises_keeps_its_steps_and_evaluations(session):

    def fail() -> None:
        session.progress.steps_done = 5
        raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"):
        train_toy(session, fail)
    result = session.progress.failed(Status.CRASHED, "boom")
    assert result.steps_done == 5
    assert [(p.split, p.step) for p in result.evaluations] == [("validation", 0), ("test", 0)]


def test_weights_that_are_no_numbers_are_not_evaluated(session):

    def diverge() -> None:
        session.progress.steps_done = session.progress.nan_step = 2

    result = train_toy(session, diverge)
    assert result.status is Status.NAN
    assert result.steps_done == 2
    assert [p.step for p in result.evaluations] == [0, 0]
    assert "not a number at step 2" in (result.reason or "")


def test_a_whole_run_is_evaluated_before_and_after(session):
    result = train_toy(session, lambda: setattr(session.progress, "steps_done", 3))
    assert result.status is Status.OK
    assert [p.step for p in result.evaluations] == [0, 0, 3, 3]


def test_a_run_that_tries_a_rate_sees_no_test_rows_and_is_judged_on_those_of_validation(session):
    tries = replace(session, spec=session.spec.model_copy(update={"stage": "select"}))
    result = train_toy(tries, lambda: setattr(session.progress, "steps_done", 3))
    assert result.status is Status.OK
    assert [(p.split, p.step) for p in result.evaluations] == [("validation", 0), ("validation", 3)]


def test_a_rate_at_which_the_validation_rows_get_worse_diverged(session):
    tries = replace(session, spec=session.spec.model_copy(update={"stage": "select"}))

    def rises(split: Split, step: int) -> EvaluationPoint:
        return point(split, step).model_copy(update={"value": 1.0 + step})

    result = train_toy(tries, lambda: setattr(session.progress, "steps_done", 3), rises)
    assert result.status is Status.DIVERGED
    assert result.reason == "held-out NLL rose by 3.00 nats over the untrained model's"


def train_toy(session: Session, training: Any, measure: Any = point) -> Any:
    steps = StepJournal(session.journal, session.progress, 1)
    return train(session, trainer_of(Toy(), train=training), steps, measure)


@pytest.mark.slow
def test_grpo_that_loses_its_numbers_ends_as_nan_and_is_not_tried_again(tmp_path):
    """For real: at this rate the first step leaves weights that nothing can be sampled from."""
    from harness.bench import bench
    from harness.plan import Request
    from harness.progress import Quiet
    from harness.view import load_view

    (tmp_path / "tiny.yaml").write_text(MATRIX)
    request = Request(
        matrix=str(tmp_path / "tiny.yaml"),
        output_dir=tmp_path / "study",
        overrides={"learning_rate": 1e38},
        filters=("grpo-micro.full.s0",),
        seeds=(0,),
    )
    outcome = bench(request, LocalLauncher(is_cold=True), Quiet())
    run = next(r for r in load_view(outcome.store).runs if r.record is not None)
    assert run.record is not None
    assert run.record.status is Status.NAN, run.record.reason
    assert run.record.is_done
    assert run.record.result is not None
    assert run.record.result.steps_done >= 1
    assert [p.step for p in run.record.result.evaluations] == [0]


def test_a_prompt_limit_of_the_trainer_limits_the_rows_too():
    spec = expand(parse_matrix(MATRIX, "m"))[-1]

    def limit(own: int | None, trainer: dict[str, int | None]) -> int | None:
        dataset = spec.dataset.model_copy(update={"max_prompt_tokens": own})
        asked = spec.model_copy(update={"dataset": dataset, "trainer": trainer})
        return limited(asked).max_prompt_tokens

    assert limit(None, {}) is None
    assert limit(None, {"max_prompt_length": None}) is None
    assert limit(None, {"max_prompt_length": 64}) == 64
    assert limit(32, {"max_prompt_length": 64}) == 32
    assert limit(128, {"max_prompt_length": 64}) == 64
