from __future__ import annotations

import os
from datetime import date
from pathlib import Path

import pytest

from harness.errors import ConfigError
from harness.matrix import (
    expand,
    load_matrix,
    margins_hash,
    matrix_hash,
    origin,
    parse_matrix,
    select,
    shipped_matrices,
    with_overrides,
)


def problems_of(text: str) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        parse_matrix(text, "m.yaml")
    return caught.value.problems


def test_arms_run_interleaved_a_b_b_a(matrix_text):
    cells = [s.cell for s in expand(parse_matrix(matrix_text, "m"))][:4]
    assert cells == [
        "sft-micro.full.s0",
        "sft-micro.lora.s0",
        "sft-micro.lora.s1",
        "sft-micro.full.s1",
    ]


def test_later_layers_win_and_say_where_a_value_came_from(matrix_text):
    matrix = parse_matrix(matrix_text, "m")
    overrides = {"max_steps": 7}
    spec = expand(matrix, overrides)[0]
    assert spec.trainer["max_steps"] == 7
    assert spec.trainer["learning_rate"] == 1e-4
    assert spec.trainer["logging_steps"] == 1
    assert origin(matrix, spec, "max_steps", overrides) == "--set"
    assert origin(matrix, spec, "bf16", overrides) == "trainer.sft"
    assert origin(matrix, spec, "learning_rate", {}) == "pairs.sft-micro.arms.full.trainer"
    assert origin(matrix, spec, "logging_steps", {}) == "harness"


def test_an_override_reaches_only_the_tasks_that_know_it(matrix_text):
    specs = expand(parse_matrix(matrix_text, "m"), {"num_generations": 2})
    assert {s.trainer.get("num_generations") for s in specs if s.task == "sft"} == {None}
    assert {s.trainer["num_generations"] for s in specs if s.task == "grpo"} == {2}


@pytest.mark.parametrize(
    ("before", "after", "line", "expected"),
    [
        ("r: 4", "r: 0", 18, "found 0, expected greater than or equal to 1"),
        ("r: 4", "rank: 4", 18, "is no key of a matrix"),
        ("lora: {r: 4}", "lora: {r: 4, lora_alph: 1}", 18, "did you mean 'lora_alpha'"),
        ("test_rows: 8}\n    margin: 0.02", "test_rows: x}\n    margin: 0.02", 14, "found 'x'"),
        ("seeds: [0, 1]", "seeds: []", 6, "at least 1 item"),
        ("seeds: [0, 1]", "seeds: [1, 1]", 6, "hold a value twice"),
        ("seeds: [0, 1]", "seeds: [-1]", 6, "found -1"),
        ("method: full, trainer", "method: ful, trainer", 17, "found 'ful'"),
        ("format: 1", "format: 9", 1, "found 9"),
        ("scale: embedded", "scal: embedded", 4, "did you mean 'scale'"),
        ("margin: 0.02", "margin: 0", 15, "found 0"),
    ],
)
def test_a_bad_value_is_named_with_its_line(matrix_text, before, after, line, expected):
    assert before in matrix_text
    found = problems_of(matrix_text.replace(before, after, 1))
    assert any(expected in p for p in found), found
    assert any(f"m.yaml:{line}" in p or expected in p for p in found)


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ("micro-steps", "micro-step", "did you mean 'micro-steps'"),
        ("reasoning_accuracy", "reasoning_acuracy", "did you mean 'reasoning_accuracy'"),
        ("learning_rate: 1e-4", "learning_rat: 1e-4", "did you mean 'learning_rate'"),
        ("learning_rate: 1e-4", "learning_rate: -1", "expected a number above 0"),
        ("learning_rate: 1e-4", "learning_rate: fast", "found 'fast', expected float"),
        ("num_generations: 4", "num_generations: 3", "can't be split into groups of num_generations=3"),
        ("{max_steps: 3, per_device_train_batch_size: 4", "{packing: false", "neither max_steps"),
        ("    margin: 0.02", "    baseline: ful\n    margin: 0.02", "did you mean 'full'"),
        ("bf16: false}\n  grpo", "seed: 1}\n  grpo", "is set by the matrix's `seeds`"),
        ("bf16: false}\n  grpo", "logging_steps: 10}\n  grpo", "one step's tokens and time"),
        ("embedded:micro-llama", "embedded:micro-lama", "did you mean 'embedded:micro-llama'"),
        ("train_rows: 16", "train_rows: 10000001", "less than or equal to 10000000"),
        ("seeds: [0, 1]", "seeds: [4294967296]", "less than 4294967296"),
        ("{learning_rate: 1e-3}}\n  grpo", "{weight_decay: 0.1}}\n  grpo", "differ only in learning_rate"),
    ],
)  # fmt: skip
def test_an_impossible_request_is_refused(matrix_text, before, after, expected):
    assert before in matrix_text
    found = problems_of(matrix_text.replace(before, after, 1))
    assert any(expected in p for p in found), found


def test_all_problems_are_listed_at_once(matrix_text):
    text = matrix_text.replace("r: 4", "r: 0").replace("seeds: [0, 1]", "seeds: []")
    text = text.replace("learning_rate: 1e-4", "learning_rate: -1", 1)
    assert len(problems_of(text)) == 3


def test_meaning_is_checked_in_a_file_that_is_malformed_elsewhere(matrix_text):
    text = matrix_text.replace("scale: embedded", "scal: embedded")
    for before, after in (
        ("micro-steps", "micro-step"),
        ("reasoning_accuracy", "reasoning_acuracy"),
        ("num_generations: 4", "num_generations: 3"),
        ("embedded:micro-llama", "embedded:micro-lama"),
        ("    margin: 0.02", "    baseline: ful\n    margin: 0.02"),
    ):
        assert before in text
        text = text.replace(before, after, 1)
    found = "\n".join(problems_of(text))
    for expected in (
        "did you mean 'scale'", "scale: is missing", "did you mean 'micro-steps'",
        "did you mean 'reasoning_accuracy'", "groups of num_generations=3",
        "did you mean 'embedded:micro-llama'", "did you mean 'full'",
    ):  # fmt: skip
        assert expected in found


@pytest.mark.parametrize(
    "broken",
    ["pairs: 3", "pairs: {a: 3}", "pairs: {a: {task: sft, arms: [1]}}", "trainer: {sft: 3}",
     "pairs: {a: {task: [], reward: [], dataset: {name: []}, model: {source: 3}, baseline: []}}",
     "pairs: {a: {task: grpo, arms: {b: {trainer: {x: 1}}}, declared_differences: [3]}}"],
)  # fmt: skip
def test_any_shape_is_refused_and_never_crashes(broken):
    assert problems_of(broken)


@pytest.mark.parametrize("value", [".nan", "-.inf", "2020-01-01", "!!set {a}"])
def test_a_value_that_json_has_no_form_for_is_one_problem_with_its_line(matrix_text, value):
    text = matrix_text.replace("learning_rate: 1e-4", f"learning_rate: {value}", 1)
    (found,) = problems_of(text)
    assert found.startswith("m.yaml:19: pairs.sft-micro.arms.full.trainer.learning_rate")
    assert "expected" in found
    nested = text.replace(f"learning_rate: {value}", "lr_scheduler_kwargs: {a: [1, .nan]}")
    assert "lr_scheduler_kwargs.a.1: found nan" in problems_of(nested)[0]
    limit = matrix_text.replace("max_steps: 3", "max_steps: .nan", 1)
    assert len(problems_of(limit)) == 1


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (float("nan"), "learning_rate: found nan, expected a finite number"),
        (float("-inf"), "learning_rate: found -inf, expected a finite number"),
        (date(2020, 1, 1), "learning_rate: found 2020-01-01 (date)"),
        ({1: 2}, "learning_rate.1: found the key 1, expected text"),
        ({"a": [0, float("nan")]}, "learning_rate.a.1: found nan"),
        ("\ud800", "expected valid Unicode"),
    ],
)
def test_an_override_that_json_has_no_form_for_is_one_problem(matrix_text, value, expected):
    with pytest.raises(ConfigError) as caught:
        with_overrides(parse_matrix(matrix_text, "m"), {"learning_rate": value})
    (found,) = caught.value.problems
    assert expected in found


def test_a_name_longer_than_a_file_name_may_be_is_an_unknown_matrix():
    with pytest.raises(ConfigError, match="is unknown"):
        load_matrix("x" * 300)


@pytest.mark.parametrize("name", ["", " "])
def test_an_empty_name_is_no_folder(name):
    with pytest.raises(ConfigError, match=r"--matrix is empty; expected one of .*cpu.*\.yaml file"):
        load_matrix(name)


@pytest.mark.parametrize(
    "text",
    [
        "a: [",
        "- 1\n- 2",
        "",
        "just text",
        "? [1, 2]\n: 3",
        "a: 1\na: 2",
        "\x00",
        "a: *missing",
        "[" * 5000,
    ],
)
def test_unreadable_yaml_is_one_clear_problem(text):
    assert problems_of(text)


def test_a_yaml_tag_never_builds_an_object(tmp_path: Path):
    proof = tmp_path / "proof"
    for tag in ("!!python/object/apply:os.system", "!!python/object/new:os.system"):
        assert problems_of(f"name: {tag} ['touch {proof}']")
    assert not proof.exists()


def test_an_unknown_matrix_gets_a_suggestion():
    with pytest.raises(ConfigError, match="did you mean 'cpu'"):
        load_matrix("cpuu")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_file_is_refused(tmp_path: Path, matrix_text):
    path = tmp_path / "m.yaml"
    path.write_text(matrix_text)
    path.chmod(0)
    with pytest.raises(ConfigError, match="can't be read"):
        load_matrix(str(path))


def test_a_missing_or_binary_file_is_refused(tmp_path: Path):
    with pytest.raises(ConfigError, match="can't be read"):
        load_matrix(str(tmp_path / "none.yaml"))
    (tmp_path / "b.yaml").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(ConfigError, match="not UTF-8"):
        load_matrix(str(tmp_path / "b.yaml"))


def test_a_filter_selects_by_cell_pair_or_arm(matrix_text):
    specs = expand(parse_matrix(matrix_text, "m"))
    assert len(select(specs, ["grpo-*"])) == 4
    assert {s.arm for s in select(specs, ["lora-r1"])} == {"lora-r1"}
    assert [s.cell for s in select(specs, ["*.full.s1"])] == [
        "sft-micro.full.s1",
        "grpo-micro.full.s1",
    ]
    with pytest.raises(ConfigError, match="did you mean 'sft-micro'"):
        select(specs, ["sft-micr"])


def test_overrides_are_checked_like_the_file(matrix_text):
    matrix = parse_matrix(matrix_text, "m")
    with_overrides(matrix, {"learning_rate": 1e-3})
    with pytest.raises(ConfigError, match="did you mean 'learning_rate'"):
        with_overrides(matrix, {"learning_rte": 1e-3})
    with pytest.raises(ConfigError, match="groups of num_generations=5"):
        with_overrides(matrix, {"num_generations": 5})


def test_more_seeds_make_the_same_study_and_another_margin_does_not(matrix_text):
    matrix = parse_matrix(matrix_text, "m")
    seeds = parse_matrix(matrix_text.replace("[0, 1]", "[0, 1, 2]"), "m")
    margin = parse_matrix(matrix_text.replace("margin: 0.02", "margin: 0.03"), "m")
    assert matrix_hash(matrix, {}) == matrix_hash(seeds, {})
    assert matrix_hash(matrix, {}) != matrix_hash(margin, {})
    assert matrix_hash(matrix, {}) != matrix_hash(matrix, {"max_steps": 1})
    assert margins_hash(matrix) == margins_hash(seeds) != margins_hash(margin)


@pytest.mark.parametrize("name", sorted(shipped_matrices()))
def test_every_shipped_matrix_is_valid(name):
    loaded = load_matrix(name)
    assert loaded.matrix.name == name
    assert expand(loaded.matrix)
