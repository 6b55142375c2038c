"""A file of runs: what it may ask, what does not go together, and what each run is made of."""

from __future__ import annotations

import pytest

from harness.errors import ConfigError
from harness.forecast_file import AskedRun, load_forecast_file
from harness.sizes import count_groups
from harness.subject import LEAST_TOKENS
from tests.test_forecast import write

SMALL = "model: smollm2, batch: 2"


def one(tmp_path, run: str) -> AskedRun:
    return load_forecast_file(write(tmp_path, f"format: 1\nruns:\n  a: {{{run}}}\n")).runs["a"]


@pytest.mark.parametrize(
    ("run", "said"),
    [
        ("length: {longest: 2}", "length.longest: expected 3 or more"),
        ("length: {longest: 64, mean: 65}", "length.mean: expected no more than"),
        ("length: {longest: 64, sorted_batches: 4}", "add length.mean"),
        ("length: {longest: 64}, beta: 0.1", "are of loop: grpo"),
        ("length: {longest: 64}, sampling: {by: server}", "are of loop: grpo"),
        ("length: {longest: 64}, device: cpu, gpu: L40S 48GB", "leave them out"),
        ("length: {longest: 64}, device: cpu, empties_cache_every: 10", "leave them out"),
        (
            "length: {longest: 64}, device: cpu, loop: grpo, sampling: {by: vllm, share: 0.3}",
            "by: vllm is of a GPU",
        ),
        ("length: {longest: 64}, loop: grpo, sampling: {by: vllm}", "expected a share"),
        (
            "length: {longest: 64}, loop: grpo, sampling: {by: server, share: 0.3}",
            "expected a share",
        ),
        (
            "length: {longest: 64}, loop: grpo, sampling: {by: server, sleeps: true}",
            "only by: vllm",
        ),
        (
            "length: {longest: 64}, loop: grpo, sampling: {by: server, completions: 8}",
            "leave them out",
        ),
    ],
)
def test_what_does_not_go_together_is_refused_with_its_line(tmp_path, run, said):
    with pytest.raises(ConfigError, match=rf"runs.yaml:3: runs.a.*{said}"):
        one(tmp_path, f"{SMALL}, {run}")


SHAPE = (
    "architecture: llama, hidden: 64, layers: 2, heads: 4, kv_heads: 2, head_dim: 16, ffn: 128, "
    "vocab: 99"
)


def test_a_shape_says_what_memory_hangs_on_and_no_more(tmp_path):
    run = f"model: {{{SHAPE}, is_tied: true}}, batch: 2, length: {{longest: 64}}"
    facts = one(tmp_path, run).facts("runs.yaml: a")
    assert facts.parameters == count_groups(facts).total > 0
    assert facts.repository == "a model of this shape"
    told = one(tmp_path, run.replace("is_tied: true", "is_tied: true, parameters: 5"))
    assert told.facts("runs.yaml: a").parameters == 5
    assert told.subject("runs.yaml: a").facts.hidden == 64


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (f"{{{SHAPE}}}", ["runs.yaml:3: runs.a.model.is_tied: is missing; add it"]),
        (
            f"{{{SHAPE}, is_tied: true, hiden: 3}}",
            [
                "runs.yaml:3: runs.a.model.hiden: is no key of a forecast file (did you mean 'hidden'?)"
            ],
        ),
        (
            f"{{{SHAPE}, is_tied: true}}".replace("heads: 4", "heads: 0"),
            ["runs.yaml:3: runs.a.model.heads: found 0, expected greater than or equal to 1"],
        ),
        ("[smollm2]", ["runs.yaml:3: runs.a.model: expected an object"]),
        ("7", ["runs.yaml:3: runs.a.model: found 7, expected an object"]),
    ],
)
def test_a_shape_that_is_wrong_is_told_by_its_fields_alone(tmp_path, model, said):
    with pytest.raises(ConfigError) as raised:
        one(tmp_path, f"model: {model}, batch: 2, length: {{longest: 64}}")
    assert list(raised.value.problems) == said


def test_a_reference_model_is_held_where_beta_weighs_it_and_all_weights_train(tmp_path):
    def has_reference(run: str) -> bool:
        asked = one(tmp_path, f"{SMALL}, length: {{longest: 64}}, loop: grpo, {run}")
        return asked.subject("runs.yaml: a").has_reference

    assert has_reference("beta: 0.04")
    assert not has_reference("beta: 0.0")
    assert not has_reference("beta: 0.04, lora: {r: 8, target_modules: all-linear}")


def test_transformers_samples_the_completions_of_a_step_unless_told_otherwise(tmp_path):
    run = f"{SMALL}, accumulation: 4, length: {{longest: 64}}, loop: grpo"
    assert one(tmp_path, f"{run}, sampling: {{by: transformers}}").workload().generates == 8
    told = one(tmp_path, f"{run}, sampling: {{by: transformers, completions: 3}}")
    assert told.workload().generates == 3
    assert one(tmp_path, f"{run}, sampling: {{by: server}}").workload().generates == 0
    assert not one(tmp_path, run).is_whole


def test_what_a_mean_length_is_used_for_on_a_cpu_is_said(tmp_path):
    """It decides whether a mask is traced; a batch of one row has none."""
    lengths = "length: {longest: 64, mean: 20}"
    padded = one(tmp_path, f"{SMALL}, {lengths}, device: cpu")
    assert padded.subject("runs.yaml: a").has_padding
    assert "length.mean says only that attention has a mask" in padded.notes[0]
    single = one(tmp_path, f"model: smollm2, batch: 1, {lengths}, device: cpu")
    assert not single.subject("runs.yaml: a").has_padding
    assert "length.mean is not used" in single.notes[0]
    assert one(tmp_path, f"{SMALL}, {lengths}").notes == ()


def test_the_shortest_rows_that_are_traced_are_taken(tmp_path):
    assert one(tmp_path, f"{SMALL}, length: {{longest: {LEAST_TOKENS}}}").length.longest == 3


def test_a_run_has_as_many_batches_as_its_steps_accumulate(tmp_path):
    run = f"{SMALL}, accumulation: 4, length: {{longest: 64}}"
    assert one(tmp_path, f"{run}, steps: 30").workload().batches == 120
    assert one(tmp_path, run).workload().batches is None
