"""Work, time and money of a run, before it runs.

FLOPs count matrix multiplications as `summary.model_flops` does: 6 per weight and token in full
fine-tuning, 4 per weight and 6 per adapter weight with LoRA; a forward pass alone is 2. Attention
scores and recomputation are left out of the work and paid for in the rate card's utilisation.
Held-out completions that transformers samples are priced by the memory that is read, since a step of
its generate() takes about as long for one row as for a batch: all weights once per token position, and
each batch runs to its longest completion.
"""

from __future__ import annotations

from pydantic import Field

from harness.catalog import ModelFacts
from harness.frozen import Count, Frozen
from harness.rates import GpuRates
from harness.sizes import count_groups, count_lora
from harness.spec import RunSpec
from harness.workload import Workload, argument


class Work(Frozen):
    """Tokens and FLOPs of a run, over all its GPUs."""

    steps: Count
    trained_tokens: Count = Field(description="prompt and completion, of the rows trained on")
    generated_tokens: Count = Field(description="sampled for training (grpo)")
    evaluated_tokens: Count = Field(description="of the held-out rows, before, during and after")
    train_flops: float
    score_flops: float = Field(description="forward passes beside training: reference, old policy")
    prefill_flops: float = Field(description="reading prompts to sample from (grpo)")
    decode_flops: float = Field(description="sampling token by token (grpo)")
    evaluation_flops: float
    evaluation_decode_flops: float = Field(description="sampling held-out completions (grpo)")
    evaluation_read_bytes: float = Field(
        description="weights read to sample them with transformers; 0 where vLLM samples"
    )

    @property
    def total_flops(self) -> float:
        """All of it."""
        return (
            self.train_flops
            + self.score_flops
            + self.prefill_flops
            + self.decode_flops
            + self.evaluation_flops
            + self.evaluation_decode_flops
        )


class Cost(Frozen):
    """What a run takes at a rate card's assumptions."""

    wall_s: float
    gpu_hours: float
    usd: float


def estimate_work(spec: RunSpec, facts: ModelFacts, load: Workload) -> Work | None:
    """Count a run's tokens and FLOPs; None if its steps or lengths are unknown."""
    if load.steps is None or load.mean_length is None:
        return None
    weights = count_groups(facts).matmul
    adapter = (
        count_lora(facts, spec.lora.r, spec.lora.target_modules) if spec.lora is not None else 0
    )
    rows = load.steps * load.rows_per_step
    trained = rows * load.mean_length
    per_token = 6 * weights if spec.lora is None else 4 * weights + 6 * adapter
    sampled = -(-rows // int(argument(spec, "num_iterations") or 1)) if spec.task == "grpo" else 0
    held_out = sum(n * rows for n, rows in _measures(spec, load.steps))
    prompt = load.mean_length - load.mean_completion
    evaluated = held_out * load.mean_length
    decoded = held_out * load.mean_completion
    return Work(
        steps=load.steps,
        trained_tokens=trained,
        generated_tokens=sampled * load.mean_completion,
        evaluated_tokens=evaluated,
        train_flops=float(per_token * trained),
        score_flops=float(_scorings(spec) * 2 * weights * trained),
        prefill_flops=float(2 * weights * sampled * prompt),
        decode_flops=float(2 * weights * sampled * load.mean_completion),
        evaluation_flops=float(2 * weights * (evaluated - decoded)),
        evaluation_decode_flops=float(2 * weights * decoded),
        evaluation_read_bytes=float(
            _held_out_batches(spec, load) * (load.scored or 0) * weights * load.weight_bytes
        ),
    )


def price(spec: RunSpec, work: Work, load: Workload, gpu: GpuRates) -> Cost:
    """Turn work into time and money. Several GPUs share training and sampling, not evaluation."""
    peak = gpu.peak_bf16_flops.value
    in_batches = peak * gpu.training_utilization.value
    uses_vllm = argument(spec, "use_vllm")
    sampler = gpu.vllm_utilization if uses_vllm else gpu.transformers_utilization
    sampling = peak * sampler.value
    shared_s = (work.train_flops + work.score_flops + work.prefill_flops) / in_batches
    shared_s += work.decode_flops / sampling
    alone_s = work.evaluation_flops / in_batches
    if work.evaluation_read_bytes:
        alone_s += work.evaluation_read_bytes / gpu.memory_bytes_per_s.value
    else:
        alone_s += work.evaluation_decode_flops / sampling
    wall_s = shared_s / load.processes + alone_s
    gpu_hours = wall_s * load.processes / 3600
    return Cost(wall_s=wall_s, gpu_hours=gpu_hours, usd=gpu_hours * gpu.usd_per_hour.value)


def _scorings(spec: RunSpec) -> int:
    """Forward passes over every trained row beside the one that is trained on. Source: GRPOTrainer.

    A reference model if beta is not 0; the old policy's probabilities where a row is trained on more
    than once, or where vLLM sampled it and its probabilities are corrected for.
    """
    if spec.task != "grpo":
        return 0
    accumulation = int(argument(spec, "gradient_accumulation_steps"))
    per_generation = int(argument(spec, "steps_per_generation") or accumulation)
    is_reused = accumulation % (per_generation * int(argument(spec, "num_iterations"))) != 0
    corrects = argument(spec, "use_vllm") and argument(spec, "vllm_importance_sampling_correction")
    return int(bool(argument(spec, "beta"))) + int(bool(is_reused or corrects))


def _measures(spec: RunSpec, steps: int) -> tuple[tuple[int, int], ...]:
    """How often each split is measured, and its rows: both before and after, one on the way too."""
    rows, every = spec.dataset, spec.evaluation.every_steps
    between = (steps - 1) // every if every else 0
    samples = spec.evaluation.samples_per_prompt if spec.task == "grpo" else 1
    return (2, rows.test_rows * samples), (2 + between, rows.validation_rows * samples)


def _held_out_batches(spec: RunSpec, load: Workload) -> int:
    """Batches of held-out completions that transformers samples. Source: `worker.held_out`."""
    is_by_vllm = load.pool is not None and load.pool.tensor_parallel == 1
    if spec.task != "grpo" or is_by_vllm or load.steps is None:
        return 0
    size = spec.evaluation.batch_size
    return sum(n * -(-rows // size) for n, rows in _measures(spec, load.steps))
