"""The blog's objective against its formula: one real GRPO step on the embedded model."""

from __future__ import annotations

import pytest
import torch
from datasets import Dataset

from harness.objective import objective_arguments
from harness.settings import Model
from harness.worker.models import load_model

LONGEST = 6  # tokens of a completion
RATE = 0.5


def test_a_step_follows_the_sum_of_advantages_times_log_probabilities(tmp_path):
    """θ moves by rate · ∇ Σ advantage · log p / (completions · max_completion_length)."""
    from trl import GRPOConfig, GRPOTrainer

    loaded = load_model(Model(source="embedded:micro-llama"))
    seen: list[tuple[list, list, list]] = []

    def reward(prompts, completion_ids, **_):
        scores = [float(sum(ids) % 5) for ids in completion_ids]
        seen.append((prompts, completion_ids, scores))
        return scores

    batches = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2}
    blog = objective_arguments("blog", batches)
    config = GRPOConfig(
        output_dir=str(tmp_path), max_steps=1, num_generations=4, max_completion_length=LONGEST,
        learning_rate=RATE, optim="sgd", max_grad_norm=0.0, logging_steps=1, report_to="none",
        save_strategy="no", use_cpu=True, bf16=False, gradient_checkpointing=False,
        dataloader_pin_memory=False, disable_tqdm=True, **batches, **blog,
    )  # fmt: skip
    rows = [{"prompt": [{"role": "user", "content": f"{n}+{n}=?"}]} for n in range(2, 6)]
    before = {n: p.detach().clone() for n, p in loaded.model.named_parameters()}
    trainer = GRPOTrainer(
        model=loaded.model, reward_funcs=reward, args=config,
        train_dataset=Dataset.from_list(rows), processing_class=loaded.tokenizer,
    )  # fmt: skip
    trainer.train()

    ((prompts, completions, scores),) = seen
    grouped = torch.tensor(scores).view(-1, 4)
    advantages = (grouped - grouped.mean(dim=1, keepdim=True)).flatten()
    assert advantages.abs().max() > 0.2
    assert list(trainer._logs["advantages"]) == pytest.approx(advantages.tolist())

    fresh = load_model(Model(source="embedded:micro-llama")).model
    objective = sum(
        advantage * log_probability(fresh, loaded.tokenizer, prompt, ids)
        for prompt, ids, advantage in zip(prompts, completions, advantages, strict=True)
    )
    (objective / (len(completions) * LONGEST)).backward()
    for name, parameter in fresh.named_parameters():
        moved = trainer.model.get_parameter(name).detach() - before[name]
        assert torch.allclose(moved, RATE * parameter.grad, atol=2e-5), name


def log_probability(model, tokenizer, prompt, completion_ids):
    """Sum the log-probabilities of a completion's tokens."""
    text = tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True)
    head = tokenizer(text, add_special_tokens=False)["input_ids"]
    ids = torch.tensor([head + list(completion_ids)])
    log_p = model(ids).logits[0, :-1].log_softmax(-1)
    return log_p.gather(1, ids[0, 1:, None])[len(head) - 1 :].sum()
