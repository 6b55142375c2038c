"""A matrix of 8B pairs that no machine of the tests could run: for plans only."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from harness.catalog import MODELS, ModelFacts
from harness.matrix import expand, parse_matrix
from harness.rates import RateCard, load_rates
from harness.spec import RunSpec
from harness.workload import Workload, workload

MATRIX = """\
format: 1
name: eight
title: 8B pairs for tests
scale: full
device: gpu
seeds: [0, 1]
trainer:
  grpo:
    per_device_train_batch_size: 1
    num_generations: 8
    max_completion_length: 1024
    max_steps: 100
    bf16: true
    use_vllm: true
    vllm_max_model_length: 1536
pairs:
  grpo-8b:
    task: grpo
    model: {source: meta-llama/Llama-3.1-8B}
    dataset:
      {name: openai/gsm8k, train_rows: null, validation_rows: 64, test_rows: 256, max_prompt_tokens: 512}
    reward: strip_reasoning_accuracy
    evaluation: {batch_size: 16}
    declared_differences: [learning_rate, gradient_accumulation_steps]
    margin: 0.03
    margin_reason: a test
    arms:
      full:
        method: full
        parallel: {processes: 4, strategy: fsdp2}
        trainer: {learning_rate: 1e-6, gradient_accumulation_steps: 8}
      full-alone:
        method: full
        trainer: {learning_rate: 1e-6, gradient_accumulation_steps: 32}
      lora-r1:
        method: lora
        lora: {r: 1}
        trainer: {learning_rate: 1e-5, gradient_accumulation_steps: 32}
  sft-8b:
    task: sft
    model: {source: Qwen/Qwen3-8B-Base}
    dataset: {name: allenai/tulu-3-sft-mixture, train_rows: 16000, test_rows: 64}
    trainer: {per_device_train_batch_size: 2, max_steps: 100, max_length: 2048, bf16: true}
    evaluation: {batch_size: 2}
    margin: 0.01
    margin_reason: a test
    arms:
      full: {method: full, trainer: {learning_rate: 4.73e-5}}
      lora-r256: {method: lora, lora: {r: 256}, trainer: {learning_rate: 4.73e-4}}
"""
CARD: RateCard = load_rates()
H100 = CARD.gpus["H100 80GB"].memory_bytes.value


def run_of(cell: str, **trainer: Any) -> RunSpec:
    """One run of the matrix, some of its trainer arguments replaced."""
    spec = next(s for s in expand(parse_matrix(MATRIX, "eight")) if s.cell == f"{cell}.s0")
    return spec.model_copy(update={"trainer": {**spec.trainer, **trainer}})


def facts_of(spec: RunSpec) -> ModelFacts:
    """The shape of a run's model."""
    return MODELS[spec.model.source]


def load_of(spec: RunSpec, **changes: Any) -> Workload:
    """What a run asks for, some of it replaced."""
    return replace(workload(spec, CARD), **changes)
