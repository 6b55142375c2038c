"""What a run asks of its GPUs, read from its arguments: sizes of batches, lengths, who generates.

TRL's defaults fill in what a matrix leaves to TRL. Lengths are bounds for memory and rough means for
work; where neither the matrix nor the catalog says, the rate card's assumption stands in.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from harness.catalog import DATASETS, OWN_ROWS, DatasetFacts, RowTokens
from harness.rates import RateCard
from harness.settings import DatasetSpec
from harness.spec import RunSpec, Task

# Defaults of TRL 1.16's SFTConfig and GRPOConfig, read in their documentation.
_DEFAULTS: dict[str, Any] = {
    "per_device_train_batch_size": 8,
    "gradient_accumulation_steps": 1,
    "gradient_checkpointing": True,
    "fp16": False,
    "optim": "adamw_torch_fused",
    "num_train_epochs": 3,
    "max_steps": -1,
}
_TASK_DEFAULTS: dict[Task, dict[str, Any]] = {
    "sft": {"max_length": 1024, "packing": False},
    "grpo": {
        "max_completion_length": 512,
        "num_generations": 8,
        "num_iterations": 1,
        "beta": 0.0,
        "use_vllm": False,
        "vllm_mode": "colocate",
        "vllm_gpu_memory_utilization": 0.3,
        "vllm_tensor_parallel_size": 1,
        "vllm_enable_sleep_mode": False,
        "vllm_importance_sampling_correction": True,
    },
}
FACTS = "micro-facts"
CHECKPOINT_BYTES = 2  # a weight in the page's repositories: bfloat16


@dataclass(frozen=True)
class Pool:
    """Memory that a colocated vLLM takes for itself when it starts."""

    share: float  # of the GPU's memory
    tensor_parallel: int
    sleeps: bool  # gives it back while training
    longest: int | None  # tokens of one sequence that it has to hold; None is the model's context


@dataclass(frozen=True)
class Workload:
    """A run's arguments, resolved to what memory and work depend on."""

    processes: int
    strategy: str | None  # of several processes
    batch: int  # rows of a micro batch, per GPU
    accumulation: int  # micro batches of an optimizer step
    length: int | None  # tokens of the longest row, prompt and completion; None is without a bound
    scored: int | None  # tokens of it that the output head scores
    mean_length: int | None  # tokens of a row on average
    mean_completion: int  # of them sampled (grpo)
    weight_bytes: int  # of a weight in master precision
    has_autocast: bool  # bfloat16 compute over those weights
    has_checkpointing: bool
    optim: str
    pool: Pool | None
    generates: int  # completions that transformers samples at once, per GPU; 0 with vLLM and in sft
    steps: int | None  # optimizer steps
    rows: int | None  # training rows

    @property
    def is_sharded(self) -> bool:
        """Whether weights, gradients and moments are split over the processes."""
        return self.strategy in ("fsdp2", "zero3")

    @property
    def shards(self) -> int:
        """Over how many GPUs they are split."""
        return self.processes if self.is_sharded else 1

    @property
    def batches(self) -> int | None:
        """How many micro batches the run has on a GPU; None where that is unknown."""
        return None if self.steps is None else self.steps * self.accumulation

    @property
    def rows_per_step(self) -> int:
        """Rows of an optimizer step, over all processes."""
        return self.batch * self.accumulation * self.processes


def argument(spec: RunSpec, name: str) -> Any:
    """A trainer argument of a run, TRL's default where the matrix has none."""
    return spec.trainer.get(name, {**_DEFAULTS, **_TASK_DEFAULTS[spec.task]}.get(name))


def workload(spec: RunSpec, card: RateCard) -> Workload:
    """Read what a run asks of its GPUs."""
    facts = DATASETS.get(spec.dataset.name)
    parallel = spec.parallel
    batch = int(argument(spec, "per_device_train_batch_size"))
    accumulation = int(argument(spec, "gradient_accumulation_steps"))
    processes = parallel.processes if parallel else 1
    length, scored, mean, completion = _lengths(spec, card, facts)
    rows = _rows(spec, facts)
    bf16 = spec.trainer.get("bf16")
    uses_vllm = bool(argument(spec, "use_vllm"))
    return Workload(
        processes=processes,
        strategy=parallel.strategy if parallel else None,
        batch=batch,
        accumulation=accumulation,
        length=length,
        scored=scored,
        mean_length=mean,
        mean_completion=completion,
        weight_bytes=4 if spec.model.dtype == "float32" else 2,
        has_autocast=bool(argument(spec, "fp16")) or bf16 is None or bool(bf16),
        has_checkpointing=bool(argument(spec, "gradient_checkpointing")),
        optim=str(argument(spec, "optim")),
        pool=_pool(spec) if uses_vllm else None,
        generates=0 if spec.task == "sft" or uses_vllm else _generation_batch(spec, processes),
        steps=_steps(spec, rows, mean, batch * accumulation * processes),
        rows=rows,
    )


def is_flattened(spec: RunSpec) -> bool:
    """Whether TRL lays the rows of a batch end to end, as it does where it packs by best fit."""
    is_packed = bool(argument(spec, "packing")) and argument(spec, "packing_strategy") != "wrapped"
    return spec.task == "sft" and (is_packed or bool(argument(spec, "padding_free")))


def has_padding(spec: RunSpec, load: Workload) -> bool:
    """Whether rows of a batch may differ in length, so that shorter ones are padded.

    Prompts of GRPO are padded to the longest that was sampled for together, in a batch of one too.
    """
    is_filled = bool(argument(spec, "packing")) or is_flattened(spec)
    return spec.task == "grpo" or (load.batch > 1 and not is_filled)


def _lengths(
    spec: RunSpec, card: RateCard, facts: DatasetFacts | None
) -> tuple[int | None, int | None, int | None, int]:
    """Longest row, tokens of it that are scored, mean row, mean completion."""
    own = own_rows(spec.dataset) if spec.model.source.startswith("embedded:") else None
    if spec.task == "grpo":
        cap = argument(spec, "max_completion_length")
        longest = int(cap) if cap is not None else None
        assumed = own.prompt if own else card.prompt_tokens.value
        bound = spec.dataset.max_prompt_tokens or argument(spec, "max_prompt_length") or assumed
        prompt = min(facts.tokens_per_row if facts else assumed, int(bound))
        if longest is None:
            return None, None, None, 0
        completion = max(1, round(longest * card.completion_share.value))
        return int(bound) + longest, longest, prompt + completion, completion
    limit = argument(spec, "max_length")
    if limit is None:
        return None, None, facts.tokens_per_row if facts else None, 0
    if own and not argument(spec, "packing"):
        limit = min(limit, own.row)
    mean = limit if argument(spec, "packing") or facts is None else min(limit, facts.tokens_per_row)
    return int(limit), int(limit), int(mean), 0


def own_rows(dataset: DatasetSpec) -> RowTokens | None:
    """Return how long the rows of the embedded model's own datasets are; None for others."""
    if dataset.name != FACTS:
        return OWN_ROWS.get(dataset.name)
    key = int(str(dataset.options.get("key_digits", 3)))
    value = int(str(dataset.options.get("value_digits", 4)))
    # A token a digit; three for roles and the turn's end, one for the end of the answer.
    return RowTokens(prompt=key + 3, row=key + value + 4)


def _generation_batch(spec: RunSpec, processes: int) -> int:
    """Completions that one process samples at once. Source: GRPOConfig.__post_init__."""
    size = argument(spec, "generation_batch_size")
    if size:
        return max(1, int(size) // processes)
    per_generation = argument(spec, "steps_per_generation")
    micro_batches = per_generation or argument(spec, "gradient_accumulation_steps")
    return int(argument(spec, "per_device_train_batch_size")) * int(micro_batches)


def _pool(spec: RunSpec) -> Pool | None:
    if argument(spec, "vllm_mode") != "colocate":
        return None  # a server has GPUs of its own
    longest = argument(spec, "vllm_max_model_length")
    return Pool(
        share=float(argument(spec, "vllm_gpu_memory_utilization")),
        tensor_parallel=int(argument(spec, "vllm_tensor_parallel_size")),
        sleeps=bool(argument(spec, "vllm_enable_sleep_mode")),
        longest=int(longest) if longest else None,
    )


def _rows(spec: RunSpec, facts: DatasetFacts | None) -> int | None:
    if spec.dataset.train_rows is not None:
        return spec.dataset.train_rows
    rows = facts.rows.get("train") if facts else None
    if facts is None or rows is None:
        return None
    held_out = spec.dataset.validation_rows
    held_out += 0 if "test" in facts.rows else spec.dataset.test_rows
    return max(1, rows - held_out)


def _steps(spec: RunSpec, rows: int | None, mean_length: int | None, per_step: int) -> int | None:
    """Optimizer steps: as many as the matrix says, or an epoch's worth of rows."""
    if int(argument(spec, "max_steps")) > 0:
        return int(argument(spec, "max_steps"))
    if rows is None:
        return None
    samples = rows * int(argument(spec, "num_generations") or 1) if spec.task == "grpo" else rows
    if argument(spec, "packing") and mean_length:
        facts = DATASETS.get(spec.dataset.name)
        samples = -(-samples * facts.tokens_per_row // mean_length) if facts else samples
    epochs = float(argument(spec, "num_train_epochs")) * int(argument(spec, "num_iterations") or 1)
    return max(1, -(-round(samples * epochs) // per_step))
