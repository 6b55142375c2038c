"""What a pair is made of: its adapter, model, rows, evaluation, processes and budget.

Each field says beneath it what it means; a default stands here and nowhere else. What this leaves out:
arms, pairs and matrices, which put them together (`spec`).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from harness.frozen import Count, Frozen, PositiveInt, absent

Precision = Literal["float32", "bfloat16"]
Strategy = Literal["ddp", "fsdp2", "zero3"]
ChatTemplate = Literal["plain", "reasoning"]
ProbeCheck = Literal["resume", "reload", "merge", "generation"]
Value = bool | int | float | str | None | list[Any] | dict[str, Any]

# The dataset names a matrix may use, and the module in worker/data that serves each.
DATASETS: dict[str, str] = {
    "micro-arithmetic": "micro_arithmetic",
    "micro-steps": "micro_steps",
    "micro-facts": "micro_facts",
    "micro-probes": "micro_probes",
    "gsm_symbolic": "gsm_symbolic",
    "chain_sum": "chain_sum",
    "allenai/tulu-3-sft-mixture": "tulu3",
    "open-thoughts/OpenThoughts-114k": "openthoughts",
    "openai/gsm8k": "gsm8k",
    "zwhe99/DeepMath-103K": "deepmath",
    "HuggingFaceH4/OpenR1-Math-220k-default-verified": "openr1_math",
}

# The reward functions a GRPO pair may name: TRL's own, and the page's first version, which did not
# demand `</think>`; then those of probes, which look at a completion's text and at no answer.
REWARDS = (
    "reasoning_accuracy",
    "accuracy",
    "strip_reasoning_accuracy",
    "probe_length",
    "probe_digits",
    "probe_parity",
    "probe_partial",
    "probe_scale",
)

# All rows of a split are in memory at once.
MOST_ROWS = 10_000_000


class Lora(Frozen):
    """A LoRA adapter, in PEFT's own names (`peft.LoraConfig`)."""

    r: PositiveInt = Field(description="rank of the update B·A")
    lora_alpha: Annotated[float, Field(gt=0)] = Field(
        32, description="numerator of the scale alpha / r; the blog keeps 32 at every rank"
    )
    lora_dropout: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0, description="dropout on the adapter's input"
    )
    target_modules: str | tuple[str, ...] = Field(
        "all-linear",
        description="all-linear (every linear layer but the output head), attention, mlp, "
        "all-linear+lm_head, or a list of layer names",
    )
    use_rslora: bool = Field(
        False,
        exclude_if=absent(False),
        description="scale the update by alpha / sqrt(r) instead (rank-stabilised LoRA)",
    )


class Model(Frozen):
    """The model of a pair."""

    source: str = Field(
        min_length=1,
        description="'embedded:NAME' ships with the harness, 'smollm2' is the cached SmolLM2-135M, "
        "anything else is a Hub repository or a local folder",
    )
    label: str | None = Field(None, description="the name shown in reports; the source if null")
    reason: str | None = Field(
        None,
        exclude_if=absent(None),
        description="why this repository, where the page names or links another",
    )
    chat_template: ChatTemplate | None = Field(
        None,
        exclude_if=absent(None),
        description="a template of the harness's own, for a base model that has none; the "
        "tokenizer's own if null",
    )
    revision: str | None = Field(None, description="commit, branch or tag on the Hub")
    dtype: Precision = Field(
        "float32",
        description="master precision of the weights that are trained and of those that are not, "
        "the same in every arm; autocast is the trainer argument `bf16`",
    )
    generation_config: dict[str, Value] = Field(
        default_factory=dict,
        exclude_if=absent({}),
        description="fields set on the loaded model's generation_config, as a checkpoint may bring them",
    )

    @property
    def shown(self) -> str:
        """The name a report shows."""
        return self.label or self.source


class DatasetSpec(Frozen):
    """The rows of a pair. Splits depend on this alone, never on a run's seed."""

    name: str = Field(min_length=1, description="one of the dataset modules in worker/data")
    revision: str | None = Field(
        None, exclude_if=absent(None), description="commit, branch or tag on the Hub"
    )
    rows_from: Literal["source", "fixture"] = Field(
        "source",
        exclude_if=absent("source"),
        description="'fixture' is a few rows of the same schema in our own words, shipped with the "
        "harness (rehearsal)",
    )
    train_rows: Annotated[int, Field(ge=1, le=MOST_ROWS)] | None = Field(
        description="rows that are trained on; null is all that the held-out splits leave"
    )
    validation_rows: Count = Field(0, le=MOST_ROWS, description="rows that choices are made on")
    test_rows: PositiveInt = Field(le=MOST_ROWS, description="rows that arms are judged on")
    seed: int = Field(0, description="seed of the split and of generated rows")
    max_prompt_tokens: PositiveInt | None = Field(
        None,
        exclude_if=absent(None),
        description="rows with a longer prompt are left out, counted and listed",
    )
    options: dict[str, Value] = Field(
        default_factory=dict, description="parameters of the dataset module"
    )


class Evaluation(Frozen):
    """How an arm is judged on held-out rows, before, during and after training."""

    every_steps: Count = Field(
        0, description="evaluate the validation rows every N optimizer steps; 0 is never"
    )
    batch_size: PositiveInt = Field(32, description="rows per forward pass or generation call")
    samples_per_prompt: PositiveInt = Field(1, description="completions per prompt (grpo)")
    temperature: Annotated[float, Field(gt=0)] = Field(
        1.0, description="sampling temperature of held-out completions (grpo)"
    )


class Parallel(Frozen):
    """Several processes for one run, started by `accelerate launch`, each with a GPU of its own."""

    processes: Annotated[int, Field(ge=2)] = Field(description="how many, a GPU (or core) each")
    strategy: Strategy = Field(
        description="ddp copies the model, fsdp2 and zero3 shard it; files in benchmarks/accelerate"
    )


class Budget(Frozen):
    """How long a pair trains under one `--budget`."""

    max_steps: PositiveInt = Field(description="optimizer steps")
    every_steps: Count = Field(0, description="evaluate the validation rows every N of them")
    train_rows: Annotated[int, Field(ge=1, le=MOST_ROWS)] | None = Field(
        None, description="rows to read for them, drawn at random; as the dataset says if null"
    )
    reason: str = Field(min_length=1, description="what that length stands for")


class Probing(Frozen):
    """What a probed run keeps of its insides, in probe.json beside its steps."""

    steps: PositiveInt | None = Field(
        None, description="the first N optimizer steps whose insides are kept; all if null"
    )
    checks: tuple[ProbeCheck, ...] = Field(
        (),
        description="what is tried after training: resume (from a checkpoint half way), reload (what "
        "was saved), merge (the adapter into its base), generation (greedy and sampled)",
    )
    adapter_precision: Literal["model", "built"] = Field(
        "model",
        description="'built' leaves a new adapter in the precision that TRL and PEFT gave it; 'model' is "
        "the model's dtype, as in every run that is compared with full fine-tuning",
    )
