"""Tokens, FLOPs and money by hand-made sums."""

from __future__ import annotations

import pytest

from harness.costs import estimate_work, price
from harness.record import ParameterCounts
from harness.sizes import count_groups, count_lora
from harness.summary import model_flops
from tests.plan_matrix import CARD, facts_of, load_of, run_of

GPU = CARD.gpus["H100 80GB"]


def worked(cell, changes=None, **trainer):
    spec = run_of(cell, **trainer)
    load = load_of(spec, **(changes or {}))
    return spec, load, estimate_work(spec, facts_of(spec), load)


@pytest.mark.parametrize("cell", ["sft-8b.full", "sft-8b.lora-r256"])
def test_training_counts_what_a_summary_counts_after_the_run(cell):
    spec, _, work = worked(cell)
    facts = facts_of(spec)
    matmul = count_groups(facts).matmul
    adapter = count_lora(facts, 256, "all-linear") if spec.lora else 0
    counts = ParameterCounts(
        total=facts.parameters + adapter,
        trainable=adapter or facts.parameters,
        matmul=matmul,
        matmul_trainable=0 if adapter else matmul,
        adapter=adapter,
    )
    assert work.trained_tokens == 100 * 2 * 600
    assert work.train_flops == model_flops(counts, work.trained_tokens)
    assert work.score_flops == work.decode_flops == 0


def test_grpo_adds_sampling_and_the_old_policy():
    spec, load, work = worked("grpo-8b.lora-r1")
    forward = 2 * count_groups(facts_of(spec)).matmul
    rows = 100 * 32
    assert work.trained_tokens == rows * load.mean_length
    assert work.generated_tokens == rows * 512
    assert work.decode_flops == forward * rows * 512
    assert work.prefill_flops == forward * rows * 100
    assert work.score_flops == forward * work.trained_tokens  # vLLM's samples are corrected for
    *_, plain = worked("grpo-8b.lora-r1", use_vllm=False)
    assert plain.score_flops == 0  # on policy, beta 0: no reference model
    *_, reference = worked("grpo-8b.lora-r1", use_vllm=False, beta=0.04)
    assert reference.score_flops == forward * reference.trained_tokens
    *_, twice = worked("grpo-8b.lora-r1", use_vllm=False, num_iterations=2)
    assert twice.generated_tokens == plain.generated_tokens // 2
    assert twice.score_flops == forward * twice.trained_tokens


def test_held_out_rows_are_scored_before_during_and_after():
    spec, load, _ = worked("grpo-8b.full")
    evaluation = spec.evaluation.model_copy(update={"every_steps": 25, "samples_per_prompt": 2})
    work = estimate_work(spec.model_copy(update={"evaluation": evaluation}), facts_of(spec), load)
    rows = 2 * (2 * (64 + 256) + 3 * 64)
    assert work.evaluated_tokens == rows * load.mean_length


def test_money_is_gpu_hours_at_the_card_s_price():
    spec, load, work = worked("sft-8b.full")
    cost = price(spec, work, load, GPU)
    rate = GPU.peak_bf16_flops.value * GPU.training_utilization.value
    assert cost.wall_s == pytest.approx(work.total_flops / rate)
    assert cost.usd == pytest.approx(cost.wall_s / 3600 * GPU.usd_per_hour.value)


def test_several_gpus_share_training_and_repeat_the_evaluation():
    spec, _, work = worked("grpo-8b.full")
    four, one = (price(spec, work, load_of(spec, processes=n), GPU) for n in (4, 1))
    evaluation_s = work.evaluation_decode_flops / (
        GPU.peak_bf16_flops.value * GPU.vllm_utilization.value
    ) + work.evaluation_flops / (GPU.peak_bf16_flops.value * GPU.training_utilization.value)
    assert four.wall_s - evaluation_s == pytest.approx((one.wall_s - evaluation_s) / 4)
    assert four.gpu_hours == pytest.approx(four.wall_s * 4 / 3600)


def test_held_out_completions_of_transformers_cost_a_read_of_all_weights_per_token_of_a_batch():
    """64 and 256 rows in batches of 16, before and after: 40 batches of 1,024 steps."""
    spec, load, work = worked("grpo-8b.full-alone", use_vllm=False)
    weights = count_groups(facts_of(spec)).matmul * load.weight_bytes
    assert work.evaluation_read_bytes == 40 * 1024 * weights
    idle = {"steps": 0, "train_flops": 0.0, "score_flops": 0.0, "prefill_flops": 0.0}
    rest = work.model_copy(update={**idle, "decode_flops": 0.0, "evaluation_flops": 0.0})
    expected_s = 40 * 1024 * weights / GPU.memory_bytes_per_s.value
    assert price(spec, rest, load, GPU).wall_s == pytest.approx(expected_s)
    larger = spec.model_copy(
        update={"evaluation": spec.evaluation.model_copy(update={"batch_size": 48})}
    )
    batches = 2 * (2 + 6)  # the last batch of either split is not full
    again = estimate_work(larger, facts_of(spec), load)
    assert again.evaluation_read_bytes == batches * 1024 * weights


@pytest.mark.parametrize(
    ("trainer", "samples_by_vllm"),
    [({}, True), ({"vllm_mode": "server"}, False), ({"vllm_tensor_parallel_size": 2}, False)],
)
def test_vllm_samples_held_out_completions_where_every_process_has_one(trainer, samples_by_vllm):
    *_, work = worked("grpo-8b.full", **trainer)
    assert (work.evaluation_read_bytes == 0) is samples_by_vllm


def test_unknown_steps_have_no_work():
    *_, work = worked("sft-8b.full", changes={"steps": None})
    assert work is None
