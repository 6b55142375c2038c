"""The held-out reward of a GRPO run: completions of held-out prompts, sampled and scored.

What samples for training samples here too where it can: a vLLM beside the trainer, given the weights
as they are; else transformers, where long completions of a large model take hours. The random numbers
are the evaluation's own (seeded by the run's seed), so that training's stay as they were.

Source: `trl/generation/vllm_generation.py`, TRL 1.16; vLLM 0.31.
"""

from __future__ import annotations

import io
import random
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from datasets import Dataset
from tqdm import tqdm
from trl import GRPOTrainer

from harness.record import EvaluationPoint, Split
from harness.settings import Evaluation
from harness.worker.reward_counts import CountedReward
from harness.worker.rewards import Reward
from harness.worker.session import autocast


class HeldOutReward:
    """Samples completions of held-out prompts and scores them."""

    def __init__(
        self,
        trainer: GRPOTrainer,
        reward: Reward,
        evaluation: Evaluation,
        seed: int,
        is_sharded: bool = False,
        beat: Callable[[], object] = lambda: None,
    ) -> None:
        self._trainer = trainer
        self._tokenizer = trainer.processing_class
        self._reward = CountedReward(reward)
        self._evaluation = evaluation
        self._seed = seed
        self._is_sharded = is_sharded
        self._beat = beat  # called whenever something was sampled: a sign of life
        self._engine = engine_beside(trainer)

    def notes(self) -> list[str]:
        """Say in a sentence what samples, where a run has two engines to choose from."""
        if self._engine is not None:
            return ["Held-out completions were sampled by vLLM."]
        if getattr(self._trainer.args, "use_vllm", False):
            return ["Held-out completions were sampled by transformers, those of training by vLLM."]
        return []

    @torch.no_grad()
    def measure(self, rows: Dataset, split: Split, step: int) -> EvaluationPoint:
        """Return the mean reward over rows × samples_per_prompt completions."""
        begin = time.monotonic()
        model = self._trainer.model
        was_training = model.training
        model.eval()
        examples = [rows[i] for i in range(len(rows))] * self._evaluation.samples_per_prompt
        prompts = [
            self._tokenizer.apply_chat_template(
                e["prompt"], tokenize=False, add_generation_prompt=True
            )
            for e in examples
        ]
        devices = [model.device] if model.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(self._seed)
            texts = self._sample_by_vllm(prompts) if self._engine else self._sample(prompts)
        model.train(was_training)
        columns = {k: [e[k] for e in examples] for k in rows.column_names if k != "prompt"}
        completions = [[{"role": "assistant", "content": text}] for text in texts]
        scores = self._reward(completions=completions, **columns)
        known = [s for s in scores if s is not None]
        counts = self._reward.take()
        return EvaluationPoint(
            step=step,
            split=split,
            metric="reward",
            value=sum(known) / len(known) if known else None,
            rows=len(rows),
            unscored=len(scores) - len(known),
            completions=counts.completions,
            unparseable=counts.unparseable,
            unclosed=counts.unclosed,
            wall_s=time.monotonic() - begin,
        )

    def _sample(self, prompts: list[str]) -> list[str]:
        """Sample a completion of each prompt with transformers, in batches."""
        model, size, texts = self._trainer.model, self._evaluation.batch_size, []
        for first in range(0, len(prompts), size):
            batch = self._tokenizer(
                prompts[first : first + size],
                return_tensors="pt",
                padding=True,
                padding_side="left",
                add_special_tokens=False,
                return_token_type_ids=False,
            ).to(model.device)
            with autocast(self._trainer):
                output = model.generate(
                    **batch,
                    do_sample=True,
                    temperature=self._evaluation.temperature,
                    top_p=1.0,
                    top_k=0,
                    max_new_tokens=self._trainer.args.max_completion_length,
                    pad_token_id=self._tokenizer.pad_token_id,
                    # No process may stop before the others: each forward pass gathers what all hold.
                    synced_gpus=self._is_sharded,
                )  # (B, P + C)
            texts += self._tokenizer.batch_decode(
                output[:, batch["input_ids"].shape[1] :], skip_special_tokens=True
            )
            self._beat()
        return texts

    def _sample_by_vllm(self, prompts: list[str]) -> list[str]:
        """Sample a completion of each prompt with vLLM, which makes batches of its own.

        A seed for each request, so that its noise depends neither on the others beside it nor on what
        was sampled before. No autocast: TRL samples without.
        """
        from vllm import SamplingParams

        engine, trainer = self._engine, self._trainer
        engine.sync_weights()
        # TRL need not sync these weights again. It should not, either: merging an adapter and taking
        # it out rounds the base, and an evaluation may not change what is trained.
        trainer._last_loaded_step = trainer.state.global_step
        seeds = random.Random(self._seed)
        sampling = [
            SamplingParams(
                temperature=self._evaluation.temperature,
                top_p=1.0,
                max_tokens=trainer.args.max_completion_length,
                seed=seeds.getrandbits(63),
                detokenize=False,
            )
            for _ in prompts
        ]
        ids = self._tokenizer(prompts, add_special_tokens=False)["input_ids"]
        if engine.enable_sleep_mode:
            engine.llm.wake_up(tags=["kv_cache"])
        outputs = engine.llm.generate(
            [{"prompt_token_ids": i} for i in ids],
            sampling_params=sampling,
            use_tqdm=partial(SilentProgress, self._beat),
        )
        if engine.enable_sleep_mode:  # as TRL leaves it: without its weights, which it then syncs
            engine.llm.sleep(level=2)
            engine._llm_weights_sleeping = True
        return self._tokenizer.batch_decode(
            [list(output.outputs[0].token_ids) for output in outputs], skip_special_tokens=True
        )


class SilentProgress(tqdm):
    """A progress bar that shows nothing and gives a sign of life for every completion.

    vLLM computes speeds from the bar's clock, which a disabled bar does not have.
    """

    monitor_interval = 0  # no thread that watches the bar

    def __init__(self, beat: Callable[[], object], *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, file=io.StringIO(), **kwargs)
        self._beat = beat

    def display(self, *_args: Any, **_kwargs: Any) -> bool:
        """Show nothing."""
        return True

    def update(self, n: float = 1) -> bool | None:
        """Count what is done."""
        self._beat()
        return super().update(n)


def engine_beside(trainer: GRPOTrainer) -> Any:
    """Return TRL's holder of a vLLM that each process has for itself, None if there is none.

    A server is asked for completions by all processes together, and so is an engine that is split
    over several; older releases of TRL keep their engine somewhere else.
    """
    engine = getattr(trainer, "vllm_generation", None)
    if getattr(engine, "mode", None) != "colocate" or engine.tensor_parallel_size != 1:
        return None
    return engine
