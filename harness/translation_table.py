"""What TRL and transformers changed about their arguments, release by release, as data.

Each row says what a release newer or older than a matrix does with an argument; `translation` reads
it. A field that no row names is passed if the installed config has it and refused if it has not.

Source: the dataclasses of TRL 0.20 to 1.16, and transformers' TrainingArguments 4.57, 5.0 and 5.17.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from harness.spec import Task

BOTH: tuple[Task, ...] = ("sft", "grpo")
SFT: tuple[Task, ...] = ("sft",)
GRPO: tuple[Task, ...] = ("grpo",)


@dataclass(frozen=True)
class Renamed:
    """One argument under two names; it works both ways."""

    tasks: tuple[Task, ...]
    new: str
    old: str
    when: str
    values: tuple[tuple[Any, Any], ...] = ()  # (new, old), where the values changed too


@dataclass(frozen=True)
class Respelt:
    """A value that some releases spell otherwise."""

    tasks: tuple[Task, ...]
    argument: str
    values: tuple[tuple[Any, Any], ...]  # (as a matrix may write it, as the release takes it)
    why: str
    before: str | None = None
    since: str | None = None
    package: str = "trl"


@dataclass(frozen=True)
class NewValue:
    """A value that older releases refuse, some of them only in mid-run."""

    task: Task
    argument: str
    value: Any
    since: str


@dataclass(frozen=True)
class Omissible:
    """An argument that some releases lack, and when leaving it out changes nothing.

    It may be left out if its value is one of `same`; or if the argument `matters_with` is not one of
    `matters_when` (not truthy, if that is None); or whatever its value, if `why` says so.
    """

    tasks: tuple[Task, ...]
    argument: str
    when: str
    same: tuple[Any, ...] = ()
    matters_with: str | None = None
    matters_when: tuple[Any, ...] | None = None
    why: str | None = None


@dataclass(frozen=True)
class Default:
    """A default that changed, and what it was."""

    task: Task
    argument: str
    until: str
    was: str
    now: str
    matters_with: str | None = None


RENAMED = (
    Renamed(GRPO, "vllm_importance_sampling_clip_max", "vllm_importance_sampling_cap", "TRL 1.6"),
    Renamed(GRPO, "use_transformers_continuous_batching", "use_transformers_paged", "TRL 1.7"),
    Renamed(GRPO, "vllm_structured_outputs_regex", "vllm_guided_decoding_regex", "TRL 0.27"),
    Renamed(GRPO, "log_unique_prompts", "wandb_log_unique_prompts", "TRL 0.26"),
    Renamed(GRPO, "use_liger_kernel", "use_liger_loss", "TRL 0.25"),
    Renamed(SFT, "max_length", "max_seq_length", "TRL 0.16"),
    Renamed(
        BOTH,
        "train_sampling_strategy",
        "group_by_length",
        "transformers 5",
        (("group_by_length", True), ("random", False)),
    ),
)

RESPELT = (
    Respelt(
        GRPO,
        "scale_rewards",
        (("group", True), ("none", False)),
        "before TRL 0.22 it was true or false",
        before="0.22",
    ),
    Respelt(
        GRPO, "top_k", ((0, None),), "before TRL 0.27 null turned the filter off", before="0.27"
    ),
    Respelt(GRPO, "top_k", ((None, 0),), "from TRL 0.27 0 turns the filter off", since="0.27"),
    Respelt(
        SFT,
        "loss_type",
        (("chunked_nll", "nll"),),
        "from TRL 1.15 nll is always computed in chunks",
        since="1.15",
    ),
    Respelt(
        SFT,
        "loss_type",
        (("chunked_nll", "nll"),),
        "before TRL 1.4 the same loss is computed with all logits in memory at once",
        before="1.4",
    ),
    Respelt(
        SFT,
        "packing_strategy",
        (("bfd_split", "bfd-requeue"),),
        "TRL 1.0 renamed bfd-requeue to bfd_split",
        before="1.0",
    ),
    Respelt(
        BOTH,
        "pad_to_multiple_of",
        (("auto", None),),
        "before TRL 1.16 there was no 'auto', which is null on CPUs and GPUs",
        before="1.16",
    ),
)

NEW_VALUES = (
    NewValue("grpo", "scale_rewards", "batch", "0.22"),
    NewValue("grpo", "loss_type", "dapo", "0.22"),
    NewValue("grpo", "loss_type", "cispo", "0.26"),
    NewValue("grpo", "loss_type", "sapo", "0.26"),
    NewValue("grpo", "loss_type", "luspo", "0.28"),
    NewValue("grpo", "loss_type", "vespo", "1.0"),
    NewValue("grpo", "use_liger_kernel", True, "0.25"),  # patched the model, not the loss
    NewValue("sft", "packing_strategy", "bfd-requeue", "0.29"),
)


def _since(release: str, *arguments: str, **rest: Any) -> tuple[Omissible, ...]:
    when = f"it came with TRL {release}"
    tasks = rest.pop("tasks", GRPO)
    return tuple(Omissible(tasks, argument, when, **rest) for argument in arguments)


def _gone(*arguments: str, **rest: Any) -> tuple[Omissible, ...]:
    return tuple(Omissible(BOTH, a, "transformers 5 removed it", **rest) for a in arguments)


def _new_in_transformers(*arguments: str, **rest: Any) -> tuple[Omissible, ...]:
    return tuple(Omissible(BOTH, a, "it came with transformers 5", **rest) for a in arguments)


_VLLM = {"matters_with": "use_vllm"}
_ADAPTIVE = {"matters_with": "use_adaptive_entropy"}
_SAPO = {"matters_with": "loss_type", "matters_when": ("sapo",)}
_VESPO = {"matters_with": "loss_type", "matters_when": ("vespo",)}

OMISSIBLE: tuple[Omissible, ...] = (
    *_since("0.21", "vllm_model_impl", same=("vllm",), **_VLLM),
    *_since("0.23", "loss_type", same=("nll",), tasks=SFT),
    *_since("0.23", "vllm_enable_sleep_mode", same=(False,), **_VLLM),
    *_since("0.23", "vllm_importance_sampling_correction", same=(False,), **_VLLM),
    *_since("0.23", "vllm_importance_sampling_cap", **_VLLM),
    *_since("0.25", "cast_lm_head_to_fp32", same=(False,)),
    *_since("0.25", "chat_template_kwargs", same=(None, {})),
    *_since("0.26", "shuffle_dataset", same=(False,), tasks=SFT),
    *_since("0.26", "num_generations_eval", why="the harness evaluates held-out prompts by itself"),
    *_since("0.26", "vllm_max_model_length", same=(None,), **_VLLM),
    *_since("0.26", "vllm_importance_sampling_mode", **_VLLM),
    *_since("0.26", "use_bias_correction_kl", same=(False,), matters_with="beta"),
    *_since("0.26", "sapo_temperature_neg", "sapo_temperature_pos", **_SAPO),
    *_since("0.26", "log_unique_prompts", same=(False, None)),
    *_since("0.27", "vllm_group_port", "vllm_structured_outputs_regex", same=(None,), **_VLLM),
    *_since("0.27", "multi_objective_aggregation", same=("sum_then_normalize",)),
    *_since("0.27", "max_tool_calling_iterations", why="a pair of the harness has no tools"),
    *_since("0.27", "off_policy_mask_threshold", "log_completions_hub_repo", same=(None,)),
    *_since("1.0", "pad_to_multiple_of", same=(None,)),
    *_since("1.0", "truncation_mode", same=("keep_start",), tasks=SFT),
    *_since("1.0", "vespo_k_pos", "vespo_lambda_pos", "vespo_k_neg", "vespo_lambda_neg", **_VESPO),
    *_since("1.6", "vllm_importance_sampling_clip_max", **_VLLM),
    *_since("1.6", "vllm_importance_sampling_clip_min", same=(None,), **_VLLM),
    *_since("1.7", "trust_remote_code", same=(False,), tasks=BOTH),
    *_since("1.7", "router_aux_loss_coef", same=(None, 0), tasks=BOTH),
    *_since("1.7", "use_transformers_continuous_batching", same=(False,)),
    *_since("1.7", "transformers_continuous_batching_config", same=(None,)),
    *_since("1.8", "entropy_coef", same=(0,)),
    *_since("1.8", "use_adaptive_entropy", same=(False,)),
    *_since("1.8", "entropy_coef_min", "entropy_coef_max", **_ADAPTIVE),
    *_since("1.8", "entropy_coef_delta", "entropy_target", **_ADAPTIVE),
    *_since("1.9", "log_multimodal", why="it only chooses what is logged, and rows hold text"),
    *_gone("overwrite_output_dir", "logging_dir", why="every attempt has a new folder of its own"),
    *_gone("include_tokens_per_second", "jit_mode_eval", "adafactor", same=(False,)),
    *_gone("save_safetensors", same=(True,)),
    *_gone("half_precision_backend", "fp16_backend", same=("auto",)),
    *_gone("torchdynamo", "fp16_opt_level", same=(None, "O1")),
    *_new_in_transformers("dataloader_in_order", same=(True,)),
    *_new_in_transformers("dataloader_multiprocessing_context", "ddp_static_graph", same=(None,)),
    *_new_in_transformers("trackio_bucket_id", "trackio_static_space_id", same=(None,)),
    *_new_in_transformers("enable_jit_checkpoint", same=(False,)),
)

DEFAULTS = (
    Default("grpo", "loss_type", "0.22", "bnpo", "dapo"),
    Default("grpo", "max_prompt_length", "0.26", "512, so longer prompts are cut", "no limit"),
    Default("grpo", "vllm_importance_sampling_cap", "0.26", "2.0", "3.0", "use_vllm"),
    Default("grpo", "vllm_mode", "1.0", "server", "colocate", "use_vllm"),
    Default("grpo", "max_completion_length", "1.10", "256", "512"),
    Default("grpo", "use_bias_correction_kl", "1.10", "false", "true", "beta"),
    Default("sft", "gradient_checkpointing", "0.22", "false", "true"),
    Default("grpo", "gradient_checkpointing", "0.22", "false", "true"),
)
