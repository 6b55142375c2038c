from __future__ import annotations

import subprocess
import sys

import pytest

from harness.arguments import check_arguments, check_batches, known_arguments


def test_names_are_read_from_trl_and_transformers():
    sft, grpo = known_arguments("sft"), known_arguments("grpo")
    assert {"packing", "max_length", "learning_rate", "warmup_steps"} <= sft.keys()
    assert {"num_generations", "beta", "learning_rate", "max_steps"} <= grpo.keys()
    assert "num_generations" not in sft


@pytest.mark.slow
def test_the_names_are_those_of_the_real_classes():
    from dataclasses import fields

    from trl import GRPOConfig, SFTConfig

    assert set(known_arguments("sft")) == {f.name for f in fields(SFTConfig)}
    assert set(known_arguments("grpo")) == {f.name for f in fields(GRPOConfig)}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"learning_rate": 1}, []),
        ({"bf16": None}, []),
        ({"report_to": ["trackio"]}, []),
        ({"packing": "yes"}, ["found 'yes', expected bool"]),
        ({"max_steps": True}, ["expected int"]),
        ({"max_steps": 0}, ["at least 1"]),
        ({"output_dir": "/x"}, ["is set by the attempt's folder"]),
        ({"save_strategy": "steps"}, []),
    ],
)
def test_values_are_checked_by_type_and_range(arguments, expected):
    found = check_arguments("sft", arguments, "t")
    assert len(found) == len(expected)
    assert all(e in f for e, f in zip(expected, found, strict=True))


@pytest.mark.parametrize("task", ["sft", "grpo"])
@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("logging_steps", 10, "one step's tokens and time"),
        ("logging_strategy", "epoch", "is one step"),
        ("logging_nan_inf_filter", True, "has to be seen"),
        ("eval_strategy", "steps", "use the pair's `evaluation`"),
        ("eval_steps", 5, "use `evaluation.every_steps`"),
        ("eval_on_start", True, "within the time of training"),
        ("resume_from_checkpoint", "x", "starts from its model"),
        ("push_to_hub", True, "upload"),
        ("hub_model_id", "me/mine", "upload"),
        ("hub_token", "hf_secret", "is a secret"),
    ],
)
def test_what_would_falsify_a_record_is_refused_with_its_reason(task, name, value, reason):
    (found,) = check_arguments(task, {name: value}, "--set")
    assert found.startswith(f"--set.{name}: ")
    assert reason in found
    assert "hf_secret" not in found


def test_a_generation_batch_holds_whole_groups():
    fits = {
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 2,
        "num_generations": 8,
    }
    assert check_batches("grpo", fits, "t") == []
    assert check_batches("grpo", {**fits, "num_generations": 3}, "t")
    assert check_batches("grpo", {**fits, "steps_per_generation": 1}, "t")
    assert check_batches("grpo", {**fits, "generation_batch_size": 12}, "t")
    halves = {**fits, "steps_per_generation": 1}
    assert check_batches("grpo", halves, "t", processes=2) == []
    assert "× 3 processes" in check_batches("grpo", halves, "t", processes=3)[0]


def test_reading_the_names_imports_no_ml_library():
    code = (
        "import sys; from harness.arguments import known_arguments; known_arguments('grpo');"
        "sys.exit(any(m in sys.modules for m in ('trl', 'torch', 'transformers')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
