from __future__ import annotations

import os
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
