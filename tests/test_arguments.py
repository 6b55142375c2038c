from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.arguments import (
    check_arguments,
    check_batches,
    check_translation,
    installed_arguments,
    known_arguments,
)
from harness.errors import ConfigError
from harness.matrix import parse_matrix, with_overrides
from tests.conftest import MATRIX


def test_names_are_read_from_trl_and_transformers():
    sft, grpo = installed_arguments("sft"), installed_arguments("grpo")
    assert {"packing", "max_length", "learning_rate", "warmup_steps"} <= sft.keys()
    assert {"num_generations", "beta", "learning_rate", "max_steps"} <= grpo.keys()
    assert "num_generations" not in sft


@pytest.mark.slow
def test_the_names_are_those_of_the_real_classes():
    from dataclasses import fields

    from trl import GRPOConfig, SFTConfig

    assert set(installed_arguments("sft")) == {f.name for f in fields(SFTConfig)}
    assert set(installed_arguments("grpo")) == {f.name for f in fields(GRPOConfig)}


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
    assert check_batches("grpo", {**fits, "generation_batch_size": 16}, "t") == []
    (odd,) = check_batches("grpo", {**fits, "num_generations": 2, "generation_batch_size": 10}, "t")
    assert "per_device_train_batch_size=4" in odd
    both = {**fits, "generation_batch_size": 8, "steps_per_generation": 2}
    assert "one of the two" in check_batches("grpo", both, "t")[0]
    assert check_batches("grpo", {**both, "steps_per_generation": None}, "t") == []
    halves = {**fits, "steps_per_generation": 1}
    assert check_batches("grpo", halves, "t", processes=2) == []
    assert "× 3 processes" in check_batches("grpo", halves, "t", processes=3)[0]


def test_reading_the_names_imports_no_ml_library():
    code = (
        "import sys; from harness.arguments import known_arguments; known_arguments('grpo');"
        "sys.exit(any(m in sys.modules for m in ('trl', 'torch', 'transformers')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# Of the page's commands, what TRL has renamed or dropped since.
PAGE = {
    "warmup_ratio": 0.0,
    "max_prompt_length": 1024,
    "gradient_checkpointing": True,
    "generation_batch_size": 16,
}


def test_the_pages_arguments_are_known_and_fit_under_any_release():
    assert known_arguments("grpo") >= PAGE.keys()
    assert check_arguments("grpo", PAGE, "t") == []
    assert check_translation("grpo", [("t", PAGE)]) == []


def test_a_translated_value_is_checked_as_it_is_passed():
    assert check_arguments("grpo", {"top_k": None}, "t") == []  # an int under another spelling
    (found,) = check_arguments("sft", {"max_seq_length": "long"}, "t")
    assert found == "t.max_seq_length: found 'long', expected int | None"
    (low,) = check_arguments("sft", {"max_seq_length": 0}, "t")
    assert "at least 1" in low


def test_a_refusal_names_the_layer_that_set_the_argument():
    layers = [
        ("matrix", {"warmup_ratio": 1.5, "max_steps": 3}),
        ("pair", {"warmup_ratio": 2}),
        ("arm", {"learning_rate": 1e-4}),
    ]
    (found,) = check_translation("sft", layers)
    assert found.startswith("pair.warmup_ratio=2: expected a share of the steps")


def test_a_matrix_with_an_untranslatable_argument_is_refused_before_anything_runs():
    text = MATRIX.replace("sft: {max_steps: 3,", "sft: {max_steps: 3, warmup_ratio: 1.5,")
    with pytest.raises(ConfigError) as refused:
        parse_matrix(text, "m.yaml")
    (problem,) = refused.value.problems
    assert problem.startswith("m.yaml: trainer.sft.warmup_ratio=1.5: expected a share")


def test_an_override_may_be_translated_too():
    matrix = parse_matrix(MATRIX, "m")
    with_overrides(matrix, {"warmup_ratio": 0.1})
    with pytest.raises(ConfigError, match=r"--set\.warmup_ratio=7: expected a share of the steps"):
        with_overrides(matrix, {"warmup_ratio": 7})


OLD_CONFIG = """
@dataclass
class GRPOConfig(TrainingArguments):
    beta: float = field(default=0.0)
    max_prompt_length: Optional[int] = field(default=512)
    top_k: Optional[int] = field(default=None)
    vllm_importance_sampling_cap: float = field(default=2.0)
"""


def test_an_older_release_first_on_the_path_is_the_one_that_counts(tmp_path: Path):
    """Its configs have no base class of TRL's own, and its metadata lies beside it."""
    for file, content in {
        "trl/__init__.py": "",
        "trl/trainer/grpo_config.py": OLD_CONFIG,
        "trl-0.24.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: trl\nVersion: 0.24.0\n",
    }.items():
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(content)
    code = """
from harness.arguments import check_arguments, check_translation, installed_arguments
assert "learning_rate" in installed_arguments("grpo")
assert "num_generations" not in installed_arguments("grpo")
fine = {"max_prompt_length": 64, "use_bias_correction_kl": True, "top_k": 0}
assert check_arguments("grpo", fine, "t") == check_translation("grpo", [("t", fine)]) == []
(no,) = check_translation("grpo", [("t", {"beta": 0.1}), ("u", {"use_bias_correction_kl": True})])
print(no)
"""
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{os.environ['PYTHONPATH']}"}
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, env=environment
    )
    assert done.stdout.startswith("u.use_bias_correction_kl=true: GRPOConfig (trl 0.24.0, ")
    assert "came with TRL 0.26" in done.stdout
