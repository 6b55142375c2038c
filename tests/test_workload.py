"""Arguments to sizes: what a matrix leaves out is TRL's default, what nobody bounds is unknown."""

from __future__ import annotations

from dataclasses import MISSING, fields

import pytest
from trl import GRPOConfig, SFTConfig

from harness.workload import argument
from tests.plan_matrix import CARD, load_of, run_of

CONFIGS = {"sft-8b.full": SFTConfig, "grpo-8b.full": GRPOConfig}
ASKED = (
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "gradient_checkpointing",
    "optim",
    "num_train_epochs",
    "max_length",
    "packing",
    "max_completion_length",
    "num_generations",
    "num_iterations",
    "beta",
    "use_vllm",
    "vllm_mode",
    "vllm_gpu_memory_utilization",
    "vllm_tensor_parallel_size",
    "vllm_enable_sleep_mode",
    "vllm_importance_sampling_correction",
)


@pytest.mark.parametrize("cell", CONFIGS)
def test_defaults_are_the_installed_trl_s(cell):
    spec = run_of(cell).model_copy(update={"trainer": {}})
    defaults = {f.name: f.default for f in fields(CONFIGS[cell]) if f.default is not MISSING}
    for name in ASKED:
        if name in defaults:
            assert argument(spec, name) == defaults[name], name


def test_a_grpo_row_is_bounded_by_prompt_and_completion():
    load = load_of(run_of("grpo-8b.lora-r1"))
    assert (load.length, load.scored) == (512 + 1024, 1024)
    assert load.mean_completion == round(1024 * CARD.completion_share.value)
    assert load.mean_length == 100 + load.mean_completion  # GSM8K's prompts, by the catalog
    assert load.rows_per_step == 32
    assert load.generates == 0  # vLLM samples
    by_transformers = load_of(run_of("grpo-8b.lora-r1", use_vllm=False))
    assert by_transformers.pool is None
    assert by_transformers.generates == 32
    assert load_of(run_of("grpo-8b.full", use_vllm=False, generation_batch_size=64)).generates == 16


def test_an_sft_row_is_bounded_by_max_length_and_means_the_catalog_s():
    load = load_of(run_of("sft-8b.full"))
    assert (load.length, load.mean_length) == (2048, 600)
    assert load_of(run_of("sft-8b.full", packing=True)).mean_length == 2048
    assert load_of(run_of("sft-8b.full", max_length=None)).length is None


def test_epochs_become_steps():
    load = load_of(run_of("sft-8b.full", max_steps=-1, num_train_epochs=1))
    assert load.steps == 16000 // 2
    grpo = load_of(run_of("grpo-8b.full", max_steps=-1, num_train_epochs=1))
    assert grpo.rows == 7473 - 64  # GSM8K has a test split of its own
    assert grpo.steps == -(-(7473 - 64) * 8 // 32)


def test_a_server_takes_no_memory_of_the_training_gpus():
    assert load_of(run_of("grpo-8b.lora-r1", vllm_mode="server")).pool is None
    assert load_of(run_of("grpo-8b.lora-r1")).pool is not None
