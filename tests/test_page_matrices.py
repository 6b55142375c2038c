"""The matrices of the page against the page itself: its tables, its formula, its contradictions."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from harness import cli
from harness.catalog import DATASETS, MODELS
from harness.matrix import expand, load_matrix, origin
from harness.rehearsal import adapt
from harness.sizes import count_lora
from harness.spec import Matrix, RunSpec

TABLES = (Path(__file__).parent / "data" / "page" / "tables.md").read_text(encoding="utf-8")


def table(heading: str) -> list[list[str]]:
    """The rows under a heading of the page's tables, their header left out."""
    part = TABLES.split(f"## {heading}\n")[1].split("\n## ")[0]
    rows = [line for line in part.splitlines() if line.startswith("|")][2:]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def loaded(name: str, budget: str | None = None) -> Matrix:
    return adapt(load_matrix(name).matrix, budget)


def one_per_arm(matrix: Matrix) -> dict[tuple[str, str], RunSpec]:
    return {(s.pair, s.arm): s for s in expand(matrix)}


def linked(cell: str) -> tuple[str, str]:
    """The words and the repository of a link."""
    words, address = re.fullmatch(r"\[(.*)\]\(https://huggingface.co/(.*)\)", cell).groups()
    return words, address.removeprefix("datasets/")


def test_blog_has_every_row_of_the_pages_tables():
    pairs = [
        (pair.task, pair.model.source.split("/")[1].lower(), pair.dataset.name)
        for pair in loaded("blog").pairs.values()
    ]
    rows = []
    for task in ("sft", "grpo"):
        for model, dataset in table(task.upper()):
            name = linked(model)[0].lower()
            # Meta's base repositories carry no suffix.
            name = name.removesuffix("-base") if name.startswith("llama") else name
            rows.append((task, name, linked(dataset)[1]))
    assert pairs == rows


def test_where_the_name_and_the_link_differ_the_matrix_says_why():
    for pair, row in zip(loaded("blog").pairs.values(), table("SFT") + table("GRPO"), strict=True):
        link = linked(row[0])[1]
        assert (pair.model.reason is None) == (link.lower() == pair.model.source.lower())


def test_matrix_show_lists_seven_pairs_two_arms_every_seed(capfd):
    assert cli.run(["matrix", "show", "blog", "--json"]) == 0
    lines = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    matrix = loaded("blog")
    assert len({line["pair"] for line in lines}) == 7
    assert len(lines) == 7 * 2 * len(matrix.seeds) == len({line["run_id"] for line in lines})
    for line in lines:
        assert line["model"]["source"] in MODELS
        assert line["dataset"]["name"] in DATASETS
        assert "resolved to commits" in line["revision_policy"]
        assert line["learning_rate"] == line["trainer"]["learning_rate"]
        assert line["learning_rate_from"].startswith(
            "formula: " if line["task"] == "sft" else "page: "
        )
        assert line["origin"]["max_steps"] == f"pairs.{line['pair']}.budgets.standard"


def test_sft_rates_are_the_formulas_and_lora_takes_ten_times_as_much():
    for (_, arm), spec in one_per_arm(loaded("blog")).items():
        if spec.task != "sft":
            continue
        full = 5e-5 * (2000 / MODELS[spec.model.source].hidden) ** 0.781
        factor = 1 if arm == "full" else 10
        assert spec.trainer["learning_rate"] == pytest.approx(full * factor, rel=2e-3)


def test_arms_of_a_pair_learn_from_the_same_number_of_sequences():
    for name in ("blog", "smollm3"):
        matrix = loaded(name)
        for pair in matrix.pairs:
            sizes = {
                spec.trainer["per_device_train_batch_size"]
                * spec.trainer["gradient_accumulation_steps"]
                * (spec.parallel.processes if spec.parallel else 1)
                for spec in expand(matrix)
                if spec.pair == pair
            }
            assert len(sizes) == 1
            if matrix.pairs[pair].task == "sft":
                assert sizes < {*range(32)}, "the page advises fewer than 32"


def test_ranks_are_the_pages_and_every_linear_layer_is_adapted():
    for (_, arm), spec in one_per_arm(loaded("blog")).items():
        if arm == "full":
            assert spec.lora is None
            continue
        assert spec.lora.r == (256 if spec.task == "sft" else 1)
        assert (spec.lora.lora_alpha, spec.lora.target_modules) == (32, "all-linear")
        assert count_lora(MODELS[spec.model.source], spec.lora.r, "all-linear") > 0


def test_both_arms_hold_their_weights_in_float32_and_compute_in_bfloat16():
    for spec in one_per_arm(loaded("blog")).values():
        assert spec.model.dtype == "float32"
        assert spec.trainer["bf16"] is True
        assert spec.trainer["lr_scheduler_type"] == "constant"


def test_a_base_model_gets_a_chat_template_and_a_reward_that_it_can_earn():
    for pair in loaded("blog").pairs.values():
        if MODELS[pair.model.source].is_base:
            assert pair.model.chat_template is not None
            assert pair.reward == "strip_reasoning_accuracy"


@pytest.mark.parametrize("name", ["blog", "smollm3"])
def test_a_budget_scales_steps_and_the_rows_suffice_for_one_pass(name):
    steps = {}
    for budget in ("short", "standard"):
        for key, spec in one_per_arm(loaded(name, budget)).items():
            steps.setdefault(key, []).append(spec.trainer["max_steps"])
            processes = spec.parallel.processes if spec.parallel else 1
            sequences = (
                spec.trainer["per_device_train_batch_size"]
                * spec.trainer["gradient_accumulation_steps"]
                * processes
            )
            prompts = sequences / spec.trainer.get("num_generations", 1)
            assert spec.dataset.train_rows >= spec.trainer["max_steps"] * prompts
            assert 0 < spec.evaluation.every_steps < spec.trainer["max_steps"]
    assert all(short < standard for short, standard in steps.values())


def test_smollm3_is_the_pages_parameter_table_line_by_line():
    matrix = loaded("smollm3")
    arms = one_per_arm(matrix)
    assert len(matrix.pairs) == 1
    (pair,) = matrix.pairs
    columns = {"lora": arms[pair, "lora-r1"], "full": arms[pair, "full"]}
    rows = table("SmolLM3")
    assert len(rows) == 9
    for parameter, *cells in rows:
        name = parameter.strip("`").removeprefix("--")
        for cell, (method, spec) in zip(cells, columns.items(), strict=True):
            assert spec.method == method
            assert _as_shown(spec, name) == _value(cell), (name, method)


def _value(cell: str) -> str | float | None:
    if cell == "-":
        return None
    try:
        return float(cell)
    except ValueError:
        return cell


def _as_shown(spec: RunSpec, name: str) -> str | float | None:
    if name == "model_name_or_path":
        return spec.model.source
    if name == "dataset_name":
        return spec.dataset.name
    if name.startswith("lora_"):
        field = {"lora_r": "r", "lora_target_modules": "target_modules"}.get(name, name)
        return None if spec.lora is None else getattr(spec.lora, field)
    return spec.trainer[name]


def test_smollm3_runs_for_the_pages_500_steps():
    specs = expand(loaded("smollm3"))
    assert {spec.trainer["max_steps"] for spec in specs} == {500}
    assert {spec.reward for spec in specs} == {"reasoning_accuracy"}


def test_doc_examples_hold_the_code_blocks_and_both_readings_of_the_command():
    arms = one_per_arm(loaded("doc-examples"))
    by_arm = {arm: spec for (_, arm), spec in arms.items() if spec.task == "sft"}
    shown = {
        arm: (
            spec.trainer["learning_rate"],
            spec.trainer["per_device_train_batch_size"],
            spec.trainer["gradient_accumulation_steps"],
            spec.trainer["packing"],
            spec.trainer["gradient_checkpointing"],
        )
        for arm, spec in by_arm.items()
    }
    assert shown == {
        "python": (2e-4, 1, 4, False, True),
        "cli-jobs": (2e-5, 2, 16, True, False),
        "cli-local": (2e-5, 2, 16, True, True),
    }
    assert {(s.lora.r, s.lora.lora_alpha) for s in by_arm.values()} == {(256, 16)}
    grpo = {arm: spec for (_, arm), spec in arms.items() if spec.task == "grpo"}
    assert (grpo["python"].lora.r, grpo["python"].trainer["num_generations"]) == (1, 8)
    literal, intended = grpo["cli-literal"], grpo["cli-intended"]
    assert (literal.method, literal.trainer["use_vllm"]) == ("full", False)
    assert (intended.method, intended.lora.r, intended.trainer["use_vllm"]) == ("lora", 1, True)
    for spec in (literal, intended):
        names = ("learning_rate", "num_generations", "max_completion_length", "max_steps")
        assert [spec.trainer[name] for name in names] == [1e-6, 16, 4096, 200]


def test_the_origin_of_a_budgets_steps_is_the_budget_unless_set_by_hand():
    matrix = loaded("blog", "short")
    spec = expand(matrix, {"max_steps": 7})[0]
    assert spec.trainer["max_steps"] == 7
    assert origin(matrix, spec, "max_steps", {"max_steps": 7}) == "--set"
    assert origin(matrix, spec, "max_steps", {}) == f"pairs.{spec.pair}.budgets.short"
