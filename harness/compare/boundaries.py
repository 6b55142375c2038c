"""What moved between the releases of TRL and transformers without a word in a training log, as data.

Each row is a release from which on something is otherwise, what of a step it touches first and under
which settings. `suspects` holds them against where a change was seen. A field that was only renamed is
no row.

Source: the dataclasses of TRL 0.20 to 1.16 and of transformers' TrainingArguments 4.57 and 5; each
release run for some steps on a CPU; where a row names one, the sources of two adjacent releases or a
pull request.
"""

from __future__ import annotations

from harness.compare.boundary import (
    Boundary,
    all_of,
    is_from,
    is_not_in,
    is_older,
    is_on,
    is_one_of,
    windows_differ,
)
from harness.compare.model import Kind
from harness.translation_table import BOTH, GRPO, SFT

_FIELDS = "TRL's config classes, release by release"
_RUN = "each release run for five steps on a CPU"
_UPDATE: tuple[Kind, ...] = ("loss", "gradient", "weights")
_VLLM = is_on("use_vllm")
_TOKEN_LOSSES = is_one_of("loss_type", "dapo", "cispo", "vespo")

BOUNDARIES: tuple[Boundary, ...] = (
    Boundary(
        "0.22",
        GRPO,
        _UPDATE,
        "loss_type",
        "GRPO's default loss went from bnpo to dapo: a token's weight now comes from the whole "
        "accumulated batch instead of its micro-batch",
        _FIELDS,
        arguments=("loss_type",),
    ),
    Boundary(
        "0.22",
        GRPO,
        ("reward", *_UPDATE),
        "scale_rewards",
        "With scale_rewards='group', the default, TRL 0.22.0 and 0.22.1 did not divide "
        "advantages by the group's "
        "deviation; releases before and after do, so gradients differ by that deviation, about "
        "twice for "
        "rewards of 0 and 1",
        "grpo_trainer.py of TRL 0.22.1 and 0.22.2",
        factor="reward_std",
        when=is_one_of("scale_rewards", "group", True),
        until="0.22.2",
    ),
    Boundary(
        "0.22",
        BOTH,
        ("memory", "speed"),
        "gradient_checkpointing",
        "Gradient checkpointing became the default: less memory for activations, a second forward pass",
        _FIELDS,
        arguments=("gradient_checkpointing",),
    ),
    Boundary(
        "0.23",
        GRPO,
        _UPDATE,
        "vllm_importance_sampling_correction",
        "The ratio between vLLM's and the trainer's probabilities weighs the loss by default (cap 2.0)",
        _FIELDS,
        when=_VLLM,
    ),
    Boundary(
        "0.26",
        GRPO,
        _UPDATE,
        "vllm_importance_sampling_mode",
        "The correction for vLLM's probabilities works on sequences and masks them "
        "(sequence_mask), its cap went "
        "from 2.0 to 3.0",
        _FIELDS,
        arguments=("vllm_importance_sampling_mode", "vllm_importance_sampling_cap"),
        when=_VLLM,
    ),
    Boundary(
        "0.26",
        GRPO,
        ("data", "sampling"),
        "max_prompt_length",
        "Prompts are no longer cut at 512 tokens",
        _FIELDS,
        arguments=("max_prompt_length",),
    ),
    Boundary(
        "0.26",
        SFT,
        ("data",),
        "shuffle_dataset",
        "shuffle_dataset=True takes effect from here on: another order of the rows",
        "TRL pull request 4564; " + _RUN,
        when=is_on("shuffle_dataset"),
    ),
    Boundary(
        "0.26",
        BOTH,
        (*_UPDATE, "memory"),
        "dtype of the model",
        "TRL 0.26 loads a model that is named by a string in its checkpoint's dtype; from 0.27 "
        "on it is float32 "
        "whatever the checkpoint has, which is twice the memory of a bfloat16 one",
        _RUN,
        arguments=("dtypes", "trainable_dtypes"),
        until="0.27",
    ),
    Boundary(
        "0.27",
        BOTH,
        ("memory", "speed"),
        "use_reentrant",
        "Gradient checkpointing is not reentrant by default",
        _FIELDS,
        arguments=("gradient_checkpointing_kwargs",),
        when=is_on("gradient_checkpointing"),
    ),
    Boundary(
        "0.27",
        GRPO,
        ("metric",),
        "reward_std",
        "The log's reward_std is the deviation over all rewards, before it was the mean of the "
        "groups' deviations",
        _RUN,
        series=("reward_std",),
    ),
    Boundary(
        "1.0",
        GRPO,
        ("sampling", "memory", "speed"),
        "vllm_mode",
        "vLLM runs inside the trainer's process by default (colocate), before it was a server",
        _FIELDS,
        arguments=("vllm_mode",),
        when=_VLLM,
    ),
    Boundary(
        "1.3",
        SFT,
        ("metric",),
        "entropy",
        "The log's entropy is shifted and taken over the tokens of the loss only",
        _RUN,
        series=("entropy",),
    ),
    Boundary(
        "1.7",
        SFT,
        ("memory", "speed", "loss", "gradient"),
        "loss_type",
        "TRL 1.7 to 1.14 compute SFT's default loss in chunks (chunked_nll): no full logits in "
        "memory, the same "
        "loss but for rounding",
        "TRL pull request 5846; " + _FIELDS,
        arguments=("loss_type",),
        until="1.15",
    ),
    Boundary(
        "1.7",
        BOTH,
        _UPDATE,
        "router_aux_loss_coef",
        "TRL 1.7 to 1.13 add the router's auxiliary loss (0.001) to mixture-of-experts models by "
        "default",
        _FIELDS,
        arguments=("router_aux_loss_coef",),
        until="1.14",
    ),
    Boundary(
        "1.9",
        GRPO,
        ("metric",),
        "clip_ratio, kl, entropy",
        "The log's clip_ratio, kl and entropy are weighted by tokens",
        _RUN,
        series=("clip_ratio", "kl", "entropy"),
    ),
    Boundary(
        "1.9.1",
        GRPO,
        _UPDATE,
        "loss of dapo, cispo and vespo",
        "The loss is normalised by the tokens of an accumulation window instead of the "
        "generation batch, where "
        "steps_per_generation and gradient_accumulation_steps differ",
        "TRL pull request 6024; grpo_trainer.py of TRL 1.9.0 and 1.9.1",
        factor="steps_per_generation / gradient_accumulation_steps",
        when=all_of(_TOKEN_LOSSES, windows_differ),
    ),
    Boundary(
        "1.10",
        GRPO,
        ("sampling", "memory", "speed"),
        "max_completion_length",
        "Completions may have 512 tokens by default, before 256",
        _FIELDS,
        arguments=("max_completion_length",),
    ),
    Boundary(
        "1.10",
        GRPO,
        _UPDATE,
        "use_bias_correction_kl",
        "The KL term is corrected for importance sampling by default, where beta is above 0",
        _FIELDS,
        arguments=("use_bias_correction_kl",),
        when=is_on("beta"),
    ),
    Boundary(
        "1.10",
        GRPO,
        _UPDATE,
        "loss of luspo",
        "The loss masks padding before it sums, which matters with importance sampling by token",
        "grpo_trainer.py of TRL 1.9.1 and 1.10.0",
        when=is_one_of("loss_type", "luspo"),
    ),
    Boundary(
        "1.15",
        BOTH,
        ("missing",),
        "needs Triton",
        "TRL 1.15 can't train on a torch without Triton, which every CPU wheel is; 1.16 can again",
        _RUN,
        until="1.16",
    ),
    Boundary(
        "1.15",
        SFT,
        ("memory", "speed"),
        "loss of nll",
        "The loss nll is always computed in chunks, so full logits are no longer held in memory",
        _FIELDS,
        when=is_one_of("loss_type", "nll"),
    ),
    Boundary(
        "1.16",
        GRPO,
        (*_UPDATE, "memory"),
        "dtype of the reference model",
        "With beta > 0 the reference model of full fine-tuning is loaded in the policy's "
        "precision, before in float32: a bfloat16 policy was held against a float32 copy of "
        "itself, so that the KL penalty did not begin at zero",
        "grpo_trainer.py of TRL 1.14.2, 1.15.0 and 1.16.0",
        when=all_of(is_on("beta"), is_not_in("float32")),
        methods=("full",),
    ),
    Boundary(
        "5.0",
        BOTH,
        (*_UPDATE, "memory"),
        "dtype of from_pretrained",
        "A checkpoint is loaded in its own dtype by from_pretrained, before in float32",
        "transformers' from_pretrained, 4.57 and 5",
        arguments=("dtypes", "trainable_dtypes"),
        package="transformers",
    ),
    Boundary(
        "5.0",
        SFT,
        ("data", "loss"),
        "apply_chat_template",
        "The chat template's method returns a mapping, whose length TRL before 0.27 takes for the "
        "prompt's: it "
        "trains on prompts too",
        "SFTTrainer of TRL 0.26 under transformers 5",
        when=is_older("trl", "0.27"),
        package="transformers",
    ),
    Boundary(
        "5.0",
        GRPO,
        ("missing",),
        "GRPOTrainer's import",
        "GRPOTrainer of TRL before 0.29 can't be imported under transformers 5",
        _RUN,
        when=is_older("trl", "0.29"),
        package="transformers",
    ),
    Boundary(
        "0.29",
        GRPO,
        ("missing",),
        "GRPOTrainer's import",
        "GRPOTrainer of TRL before 0.29 can't be imported under transformers 5, from 0.29 on it can",
        _RUN,
        when=is_from("transformers", "5.0"),
    ),
    Boundary(
        "0.27",
        SFT,
        ("data", "loss"),
        "prompts in the loss",
        "Under transformers 5 TRL before 0.27 trains on prompts too, without a word; from 0.27 "
        "on it doesn't",
        "SFTTrainer of TRL 0.26 under transformers 5",
        when=is_from("transformers", "5.0"),
    ),
)
