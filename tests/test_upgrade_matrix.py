"""The matrix of probes: what it looks at, that its arms are comparable, and that older hashes stand."""

from __future__ import annotations

import hashlib
from collections import Counter

import pytest

from harness.errors import ConfigError
from harness.matrix import expand, load_matrix, margins_hash, matrix_hash, parse_matrix
from harness.settings import REWARDS
from tests.conftest import MATRIX

# Of the matrices that were there before probes were: (matrix, margins, run ids). A change here orphans
# every study that was made of one.
HASHES = {
    "blog": ("bf50373a15badfb2", "2296fa38bcb09188", "cc7952d941d86f54"),
    "cpu": ("daee37a520789f28", "35c5bb56fd01666f", "f404e4edeea4b9ae"),
    "doc-examples": ("1e3abb438a2a2edb", "4481fa99503da326", "2f69779798728d5a"),
    "findings": ("59ccb7a7464db712", "73726f1bdaf49c6e", "a5cf9d4a4019e0dd"),
    "findings-cpu": ("75075d07ff62f01e", "6a84b8fa32597404", "19f1f679f30a489e"),
    "smollm2": ("6b958e357e69079c", "462e1eb4bc60a35a", "ecd19038ed071abc"),
    "smollm3": ("15a089e9c0f53170", "92c420b9752ea7c2", "4a0fe90016636a23"),
}


@pytest.fixture(scope="module")
def matrix():
    return load_matrix("upgrade").matrix


@pytest.fixture(scope="module")
def runs(matrix):
    return {(s.pair, s.arm): s for s in expand(matrix)}


def arguments(runs, pair, arm):
    return runs[pair, arm].trainer


@pytest.mark.parametrize("name", HASHES)
def test_fields_of_probes_leave_the_hashes_of_older_matrices_as_they_were(name):
    matrix = load_matrix(name, asks_trl=False).matrix
    ids = hashlib.sha256("".join(s.run_id for s in expand(matrix)).encode()).hexdigest()
    found = (matrix_hash(matrix, {}), margins_hash(matrix), ids)
    assert tuple(each[:16] for each in found) == HASHES[name]


def test_every_run_is_probed_on_the_embedded_model_and_short(runs):
    for spec in runs.values():
        assert spec.probe is not None
        assert spec.model.source == "embedded:micro-llama"
        assert spec.trainer["max_steps"] <= 40
    assert Counter(s.task for s in runs.values()).keys() == {"sft", "grpo"}


def test_two_arms_of_each_task_are_trained_once_more(matrix, runs):
    repeats = [
        (pair.task, arm.method, name, arm_name, arm.again_of)
        for name, pair in matrix.pairs.items()
        for arm_name, arm in pair.arms.items()
        if arm.again_of
    ]
    assert Counter((task, method) for task, method, *_ in repeats) == {
        ("sft", "full"): 1, ("sft", "lora"): 1, ("grpo", "full"): 1, ("grpo", "lora"): 1,
    }  # fmt: skip
    for _, _, pair, again, first in repeats:
        assert runs[pair, again] == runs[pair, first].model_copy(update={"arm": again})


def test_every_setting_in_which_silent_faults_hide_is_there(runs):
    sft = {arm: s for (pair, arm), s in runs.items() if pair == "sft-plain"}
    assert {s.lora.r for s in sft.values() if s.lora} >= {1, 8}
    assert any(s.lora and s.lora.use_rslora for s in sft.values())
    assert any(s.lora and s.lora.lora_dropout for s in sft.values())
    trainers = [s.trainer for s in runs.values()]
    for name, value in {
        "packing": True,
        "assistant_only_loss": True,
        "completion_only_loss": True,
        "mask_truncated_completions": True,
        "num_iterations": 2,
        "scale_rewards": "batch",
    }.items():
        assert any(t.get(name) == value for t in trainers), name
    steps = [(t.get("steps_per_generation"), t["gradient_accumulation_steps"]) for t in trainers
             if "gradient_accumulation_steps" in t]  # fmt: skip
    assert any(per and per > 1 and per == accumulation for per, accumulation in steps)
    assert any(per and per != accumulation for per, accumulation in steps)
    assert any(t.get("temperature", 1.0) != 1.0 for t in trainers)
    assert any(t.get("beta") for t in trainers)
    assert any(t.get("weight_decay") and t.get("warmup_steps") for t in trainers)
    assert any(0 < t.get("max_grad_norm", 1) < 0.1 for t in trainers)
    assert {t.get("loss_type") for t in trainers} >= {"nll", "dapo", "grpo", "bnpo", "dr_grpo"}
    assert any(s.model.generation_config for s in runs.values())
    assert {s.model.dtype for s in runs.values()} == {"float32", "bfloat16"}
    assert {check for s in runs.values() for check in s.probe.checks} == {
        "resume", "reload", "merge", "generation",
    }  # fmt: skip
    rewards = {name for s in runs.values() for name in (s.reward, *s.other_rewards) if name}
    assert rewards == {name for name in REWARDS if name.startswith("probe_")}
    assert {s.dataset.options.get("form") for s in runs.values()} >= {
        "conversation", "continuation", "text",
    }  # fmt: skip


def test_what_decides_how_a_run_trains_is_pinned_but_for_the_defaults_pairs(matrix, runs):
    pinned = {"optim", "lr_scheduler_type", "warmup_steps", "weight_decay", "max_grad_norm", "bf16",
              "gradient_checkpointing", "loss_type", "shuffle_dataset"}  # fmt: skip
    defaults = {name for name, pair in matrix.pairs.items() if pair.leaves_defaults}
    assert defaults == {"defaults-sft", "defaults-grpo"}
    for (pair, _), spec in runs.items():
        given = pinned & spec.trainer.keys()
        assert given == (set() if pair in defaults else pinned)
        assert ("learning_rate" in spec.trainer) == (pair not in defaults)


def test_a_pair_may_leave_the_matrix_s_arguments_out():
    text = MATRIX.replace(
        "    margin: 0.02\n",
        "    leaves_defaults: true\n    trainer: {max_steps: 2}\n    margin: 0.02\n",
    )
    runs = {s.cell: s for s in expand(parse_matrix(text, "m"))}
    left, other = runs["sft-micro.full.s0"].trainer, runs["grpo-micro.full.s0"].trainer
    assert "bf16" not in left
    assert left["max_steps"] == 2
    assert other["bf16"] is False
    with pytest.raises(ConfigError, match="neither max_steps nor num_train_epochs"):
        parse_matrix(text.replace("    trainer: {max_steps: 2}\n", ""), "m")


SFT_MARGIN = "    margin: 0.02\n"
REWARD = "    reward: reasoning"


@pytest.mark.parametrize(
    ("at", "added", "said"),
    [
        (SFT_MARGIN, "    probe: {checks: [reload, reloat]}\n", "probe.checks"),
        (REWARD, "    other_rewards: [probe_lenght]\n", "did you mean 'probe_length'"),
        (SFT_MARGIN, "    other_rewards: [accuracy]\n", "sft pair has no reward"),
        (
            "      full: {method: full,",
            "      wide: {method: full, parallel: {processes: 2, strategy: ddp}}\n",
            "a probed run has one process",
        ),
    ],
)
def test_what_a_probe_can_t_have_is_refused(at, added, said):
    text = (
        MATRIX.replace(SFT_MARGIN, f"    probe: {{}}\n{SFT_MARGIN}") if "wide" in added else MATRIX
    )
    with pytest.raises(ConfigError, match=said):
        parse_matrix(text.replace(at, added + at, 1), "m")
