"""How arguments reach releases that are not installed: their field names, by hand, are enough."""

from __future__ import annotations

import json
from typing import Any

import pytest

from harness.arguments import installed_arguments
from harness.errors import ConfigError
from harness.record import Translation
from harness.releases import installed_versions
from harness.translation import changed_defaults, resolve, translatable, translate

# Of GRPOConfig and SFTConfig, the fields that these tests speak of, as the releases have them.
_SHARED_4 = {"learning_rate", "warmup_steps", "warmup_ratio", "group_by_length", "use_liger_kernel"}
_SHARED_5 = {"learning_rate", "warmup_steps", "train_sampling_strategy", "use_liger_kernel"}
_GRPO = {"beta", "use_vllm", "vllm_mode", "loss_type", "scale_rewards", "top_k"}
_GRPO_0_24 = {
    *_SHARED_4, *_GRPO, "max_prompt_length", "use_liger_loss", "vllm_importance_sampling_cap",
    "use_transformers_paged", "vllm_guided_decoding_regex", "wandb_log_unique_prompts",
}  # fmt: skip
_GRPO_1_16 = {
    *_SHARED_5, *_GRPO, "vllm_importance_sampling_cap", "vllm_importance_sampling_clip_max",
    "use_transformers_continuous_batching", "pad_to_multiple_of", "use_bias_correction_kl",
    "vllm_structured_outputs_regex", "log_unique_prompts", "shuffle_dataset",
}  # fmt: skip
_SFT_0_22 = {*_SHARED_4, "max_length", "packing", "packing_strategy", "pad_to_multiple_of"}
_SFT_1_16 = {*_SFT_0_22 - _SHARED_4, *_SHARED_5, "loss_type", "shuffle_dataset", "truncation_mode"}
OLD = {"trl": "0.24.0", "transformers": "4.57.6"}
NEW = {"trl": "1.16.0", "transformers": "5.17.0"}


def of(version: str, transformers: str = "5.17.0") -> dict[str, str]:
    return {"trl": version, "transformers": transformers}


@pytest.mark.parametrize(
    ("task", "known", "versions", "arguments", "passed"),
    [
        # another name
        ("grpo", _GRPO_0_24, OLD, {"vllm_importance_sampling_clip_max": 2.0},
         {"vllm_importance_sampling_cap": 2.0}),
        ("grpo", _GRPO_1_16 - {"vllm_importance_sampling_cap"}, of("2.0.0"),
         {"vllm_importance_sampling_cap": 2.0}, {"vllm_importance_sampling_clip_max": 2.0}),
        ("sft", _SFT_1_16, NEW, {"max_seq_length": 64}, {"max_length": 64}),
        ("grpo", _GRPO_1_16, NEW, {"use_liger_loss": False}, {"use_liger_kernel": False}),
        ("grpo", _GRPO_0_24, OLD, {"use_transformers_continuous_batching": True},
         {"use_transformers_paged": True}),
        ("grpo", _GRPO_1_16, NEW, {"use_transformers_paged": True},
         {"use_transformers_continuous_batching": True}),
        ("grpo", _GRPO_0_24, OLD, {"vllm_structured_outputs_regex": "a+"},
         {"vllm_guided_decoding_regex": "a+"}),
        # another name and another value
        ("sft", _SFT_1_16, NEW, {"group_by_length": True},
         {"train_sampling_strategy": "group_by_length"}),
        ("sft", _SFT_0_22, of("0.22.0", "4.57.6"), {"train_sampling_strategy": "random"},
         {"group_by_length": False}),
        # a ratio of warm-up
        ("sft", _SFT_1_16, NEW, {"warmup_ratio": 0.1}, {"warmup_steps": 0.1}),
        ("sft", _SFT_1_16, NEW, {"warmup_steps": 5, "warmup_ratio": 0.1}, {"warmup_steps": 5}),
        ("grpo", _GRPO_0_24, OLD, {"warmup_steps": 0.1}, {"warmup_ratio": 0.1}),
        ("grpo", _GRPO_0_24, OLD, {"warmup_steps": 3.0}, {"warmup_steps": 3}),
        # another spelling
        ("grpo", _GRPO, of("0.21.0", "4.57.6"), {"scale_rewards": "none"}, {"scale_rewards": False}),
        ("grpo", _GRPO, of("0.21.0", "4.57.6"), {"scale_rewards": "group"}, {"scale_rewards": True}),
        ("grpo", _GRPO_0_24, OLD, {"top_k": 0}, {"top_k": None}),
        ("grpo", _GRPO_1_16, NEW, {"top_k": None}, {"top_k": 0}),
        ("sft", _SFT_1_16, NEW, {"loss_type": "chunked_nll"}, {"loss_type": "nll"}),
        ("sft", _SFT_1_16, of("1.0.0"), {"loss_type": "chunked_nll"}, {"loss_type": "nll"}),
        ("sft", _SFT_1_16, of("0.29.0"), {"packing_strategy": "bfd_split"},
         {"packing_strategy": "bfd-requeue"}),
        ("sft", _SFT_1_16 | {"pad_to_multiple_of"}, of("1.0.0"), {"pad_to_multiple_of": "auto"},
         {"pad_to_multiple_of": None}),
        # the release does so anyway
        ("sft", _SFT_0_22, of("0.22.0", "4.57.6"), {"shuffle_dataset": False}, {}),
        ("sft", _SFT_0_22, of("0.22.0", "4.57.6"), {"loss_type": "nll"}, {}),
        ("sft", _SFT_0_22, of("0.22.0", "4.57.6"), {"loss_type": "chunked_nll"}, {}),
        ("grpo", _GRPO_0_24, OLD, {"pad_to_multiple_of": "auto"}, {}),
        # without effect
        ("grpo", _GRPO_0_24, OLD, {"use_bias_correction_kl": True, "beta": 0.0}, {"beta": 0.0}),
        ("grpo", _GRPO_0_24, OLD, {"vllm_importance_sampling_mode": "token_mask"}, {}),
        ("grpo", _GRPO_0_24, OLD, {"sapo_temperature_neg": 2.0, "loss_type": "dapo"},
         {"loss_type": "dapo"}),
        # applied by the harness
        ("grpo", _GRPO_1_16, NEW, {"max_prompt_length": 512}, {}),
    ],
)  # fmt: skip
def test_what_is_passed_and_said(task, known, versions, arguments, passed):
    given, translations = translate(task, arguments, known, versions)
    assert given == passed
    assert all(type(given[k]) is type(passed[k]) for k in passed)  # 0 is not false
    as_it_was = {k for k, v in arguments.items() if passed.get(k) is v and k in passed}
    assert {t.argument for t in translations} == arguments.keys() - as_it_was
    for t in translations:
        assert json.loads(t.value) == arguments[t.argument]
        assert t.why


def test_a_translation_says_what_was_asked_what_was_passed_and_why():
    _, (found,) = translate("sft", {"warmup_ratio": 0.1}, _SFT_1_16, NEW)
    why = "transformers 5 takes a ratio as a warmup_steps below 1"
    assert found == Translation(
        argument="warmup_ratio", value="0.1", became="warmup_steps=0.1", why=why
    )


def test_a_prompt_limit_becomes_the_datasets():
    _, (found,) = translate("grpo", {"max_prompt_length": 512}, _GRPO_1_16, NEW)
    assert found.became == "dataset.max_prompt_tokens=512"
    _, (none,) = translate("grpo", {"max_prompt_length": None}, _GRPO_1_16, NEW)
    assert none.became is None
    assert translate("grpo", {"max_prompt_length": 512}, _GRPO_0_24, OLD) == (
        {"max_prompt_length": 512}, (),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("task", "known", "versions", "arguments", "words"),
    [
        ("sft", _SFT_0_22, of("0.22.0", "4.57.6"), {"shuffle_dataset": True},
         ["shuffle_dataset=true", "SFTConfig (trl 0.22.0", "came with TRL 0.26", "false"]),
        ("grpo", _GRPO_0_24, OLD, {"use_bias_correction_kl": True, "beta": 0.1},
         ["use_bias_correction_kl=true", "GRPOConfig (trl 0.24.0", "0.26"]),
        ("grpo", _GRPO_0_24, OLD, {"vllm_importance_sampling_mode": "x", "use_vllm": True},
         ["vllm_importance_sampling_mode", "0.26"]),
        ("grpo", _GRPO_0_24, OLD, {"loss_type": "sapo"}, ["loss_type=\"sapo\"", "TRL 0.26"]),
        ("grpo", _GRPO, of("0.21.0"), {"scale_rewards": "batch"}, ["TRL 0.22"]),
        ("sft", _SFT_0_22, of("0.22.0", "4.57.6"), {"train_sampling_strategy": "sequential"},
         ["\"sequential\"", "\"random\"", "group_by_length"]),
        ("sft", _SFT_1_16, NEW, {"max_seq_length": 64, "max_length": 128},
         ["max_seq_length", "max_length=64", "128", "remove one"]),
        ("sft", _SFT_1_16, NEW, {"warmup_ratio": 1.0}, ["below 1"]),
        ("sft", _SFT_1_16, NEW, {"max_prompt_length": 64}, ["has no such argument"]),
        ("grpo", _GRPO_1_16, NEW, {"max_prompt_length": 0}, ["above 0"]),
        ("sft", _SFT_1_16, NEW, {"learning_rat": 1}, ["did you mean 'learning_rate'"]),
    ],
)  # fmt: skip
def test_what_a_release_cannot_be_given_is_refused(task, known, versions, arguments, words):
    with pytest.raises(ConfigError) as refused:
        translate(task, arguments, known, versions)
    assert all(word in str(refused.value) for word in words)


def test_every_refusal_is_listed_and_the_rest_is_still_resolved():
    arguments = {"a_b": 1, "c_d": 2, "learning_rate": 1e-4}
    with pytest.raises(ConfigError) as refused:
        translate("sft", arguments, _SFT_1_16, NEW)
    assert len(refused.value.problems) == 2
    found = resolve("sft", arguments, _SFT_1_16, NEW)
    assert (found.passed, found.refused.keys()) == ({"learning_rate": 1e-4}, {"a_b", "c_d"})


def test_a_ratio_of_warmup_takes_the_place_of_no_warmup_steps():
    arguments = {"warmup_steps": 0, "warmup_ratio": 0.1}  # from two layers of a matrix
    given, said = translate("sft", arguments, _SFT_1_16, NEW)
    assert given == {"warmup_steps": 0.1}
    assert [t.argument for t in said] == ["warmup_ratio"]


def test_two_names_with_one_value_are_one_argument():
    given, said = translate("sft", {"max_seq_length": 64, "max_length": 64}, _SFT_1_16, NEW)
    assert given == {"max_length": 64}
    assert [t.argument for t in said] == ["max_seq_length"]


def test_null_gives_way_to_a_value_under_either_name():
    for arguments in (
        {"max_seq_length": 64, "max_length": None},
        {"max_seq_length": None, "max_length": 64},
    ):
        assert translate("sft", arguments, _SFT_1_16, NEW)[0] == {"max_length": 64}


@pytest.mark.parametrize("task", ["sft", "grpo"])
def test_under_the_installed_release_its_own_arguments_pass_untouched(task):
    known = installed_arguments(task)
    plain: dict[str, Any] = {name: "x" for name in known if not name.startswith("warmup")}
    given, said = translate(task, plain, known, installed_versions())
    assert (given, said) == (plain, ())


@pytest.mark.parametrize("task", ["sft", "grpo"])
@pytest.mark.parametrize("version", ["0.20.0", "0.24.0", "0.28.0", "1.0.0", "1.16.0", "3.0.0"])
def test_no_argument_of_the_table_is_ever_dropped_in_silence(task, version):
    for known in (frozenset(), frozenset({"learning_rate"}), translatable(task)):
        for name in translatable(task):
            for value in (None, False, True, 0, 1, 0.5, "auto", "nll", "x"):
                found = resolve(task, {name: value}, known, of(version))
                is_same = found.passed.get(name, "absent") is value
                assert is_same or found.translations or found.refused


def test_a_changed_default_is_named_only_where_a_run_rests_on_it():
    (prompt, length) = changed_defaults("grpo", {"loss_type": "dapo"}, OLD)
    assert "max_prompt_length is not set and is 512" in prompt
    assert "max_completion_length is not set and is 256 in TRL 0.24.0" in length
    set_by_hand = {"max_prompt_length": 64, "max_completion_length": 64}
    assert changed_defaults("grpo", set_by_hand, OLD) == ()
    assert len(changed_defaults("grpo", {**set_by_hand, "beta": 0.1}, OLD)) == 1
    assert changed_defaults("grpo", {}, NEW) == ()
