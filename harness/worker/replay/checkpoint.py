"""One saved checkpoint, evaluated by the harness's own evaluation and never trained.

The same weights and rows under two stacks: whatever differs here is a change in evaluation, and the final
metric of a run would differ by it though training is the same. NLL and reward go the way they go in a run:
a trainer is built, and `held_out_nll` or `HeldOutReward` measures with it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from harness.launch import Launch
from harness.settings import DatasetSpec, Evaluation, Model
from harness.spec import RunSpec, Task
from harness.worker.models import load_model
from harness.worker.progress import Progress
from harness.worker.replay.chats import MODEL
from harness.worker.replay.items import Items
from harness.worker.rewards import STRIP
from harness.worker.trl_versions import pairing_problem

QUESTIONS = ("3+5+4=?", "9+9+9=?", "0+0+0=?", "say a;7", "")
NEW_TOKENS = 24
ARGUMENTS: dict[str, Any] = {
    "per_device_train_batch_size": 8,
    "max_steps": 1,
    "bf16": False,
    "gradient_checkpointing": False,
    "report_to": "none",
}
TASKS: dict[Task, dict[str, Any]] = {
    "sft": {"max_length": 64, "loss_type": "nll"},
    "grpo": {"num_generations": 8, "max_completion_length": NEW_TOKENS, "beta": 0.0},
}
COUNTS: dict[Task, tuple[str, ...]] = {
    "sft": ("rows", "tokens"),
    "grpo": ("completions", "unscored", "unparseable", "unclosed"),
}
DATASETS: dict[Task, str] = {"sft": "micro-steps", "grpo": "micro-arithmetic"}


def replay_checkpoint(items: Items, checkpoint: str = MODEL) -> None:
    """Evaluate a checkpoint: the embedded model, or a folder."""
    _answer(items, checkpoint)
    for task, measure in (("sft", _measure_nll), ("grpo", _measure_reward)):
        problem = pairing_problem(task)
        if problem:
            items.notes.append(f"The checkpoint's {task} evaluation was left out: {problem}.")
        else:
            _measure(items, spec_of(task, checkpoint), measure)


def spec_of(task: Task, checkpoint: str) -> RunSpec:
    """Return the run that would be trained, were it trained."""
    return RunSpec(
        pair="replay",
        arm="full",
        seed=0,
        task=task,
        method="full",
        model=Model(source=checkpoint),
        dataset=DatasetSpec(name=DATASETS[task], train_rows=8, test_rows=40),
        reward=STRIP if task == "grpo" else None,
        lora=None,
        trainer={**ARGUMENTS, **TASKS[task]},
        evaluation=Evaluation(batch_size=40),
    )


@torch.no_grad()
def _answer(items: Items, checkpoint: str) -> None:
    """Keep the logits after some prompts, and the likeliest answers."""
    loaded = load_model(Model(source=checkpoint))
    model, tokenizer = loaded.model.eval(), loaded.tokenizer
    for number, question in enumerate(QUESTIONS):
        prompt = tokenizer.apply_chat_template(
            [{"role": "user", "content": question}], tokenize=False, add_generation_prompt=True
        )
        batch = tokenizer(
            prompt, return_tensors="pt", add_special_tokens=False, return_token_type_ids=False
        )
        items.put(f"evaluation/logits/{number}", model(**batch).logits)
        output = model.generate(
            **batch, do_sample=False, max_new_tokens=NEW_TOKENS, pad_token_id=tokenizer.pad_token_id
        )
        answer = output[0, batch["input_ids"].shape[1] :]
        items.put(f"evaluation/greedy/{number}", tokenizer.decode(answer))


def _measure(items: Items, spec: RunSpec, measure: Callable[..., Any]) -> None:
    """Evaluate with a trainer that is built as in a run."""
    from harness.worker.session import open_session

    with tempfile.TemporaryDirectory() as folder:
        session = open_session(spec, Launch(waits_for_sampler=False), Path(folder), Progress())
        try:
            point = measure(session)
        finally:
            session.journal.close()
    group = f"evaluation/{point.metric}"
    items.put(f"{group}/value", point.value)
    for name in COUNTS[spec.task]:
        items.put(f"{group}/{name}", getattr(point, name))


def _measure_nll(session: Any) -> Any:
    from trl import SFTConfig, SFTTrainer

    from harness.worker.session import build, configure
    from harness.worker.sft import held_out_nll

    config = configure(session, SFTConfig)
    trainer = build(
        session,
        lambda: SFTTrainer(
            model=session.loaded.model,
            args=config,
            train_dataset=session.splits.train,
            eval_dataset={"test": session.splits.test},
            processing_class=session.loaded.tokenizer,
        ),
    )
    return held_out_nll(trainer, "test", 0, session.spec.evaluation.batch_size)


def _measure_reward(session: Any) -> Any:
    from trl import GRPOConfig, GRPOTrainer

    from harness.worker.held_out import HeldOutReward
    from harness.worker.rewards import reward_function
    from harness.worker.session import build, configure

    config = configure(session, GRPOConfig)
    reward = reward_function(session.spec.reward)
    trainer = build(
        session,
        lambda: GRPOTrainer(
            model=session.loaded.model,
            reward_funcs=reward,
            args=config,
            train_dataset=session.splits.train,
            processing_class=session.loaded.tokenizer,
        ),
    )
    judge = HeldOutReward(trainer, reward, session.spec.evaluation, session.spec.training_seed)
    return judge.measure(session.splits.test, "test", 0)
