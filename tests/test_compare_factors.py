"""A factor is recognised where it is one, and not where it is near one."""

from __future__ import annotations

import pytest

from harness.compare.evidence import gather
from harness.compare.factors import REWARD_STD, find_factors, is_divided_by_group, settings_values
from tests.comparison_pages import make, only


def factors(made, task="sft", method="full"):
    cell = next(
        c for c in gather(*made.all).cells if (c.cell.task, c.cell.method) == (task, method)
    )
    return {f.measure: f for f in find_factors(cell)}


@pytest.mark.parametrize("ratio", [2.0, 0.5, 2.003, 1.997, 3, 1 / 3, 16])
def test_a_whole_number_and_one_over_it_are_exact(ratio):
    found = factors(make(only("sft", gradients=lambda g: g * ratio)))["gradient norm"]
    assert found.exact is not None
    assert found.ratio == pytest.approx(ratio)


@pytest.mark.parametrize("ratio", [1.9, 2.1, 1.01, 0.97, 2.01])
def test_what_is_near_a_whole_number_is_not_exact(ratio):
    found = factors(make(only("sft", gradients=lambda g: g * ratio)))["gradient norm"]
    assert (found.exact, found.names) == (None, ())


def test_the_setting_with_that_value_is_named():
    found = factors(make(only("sft", gradients=lambda g: g * 3)))["gradient norm"]
    assert found.names == ("gradient_accumulation_steps",)


def test_a_temperature_is_no_whole_number_and_still_exact():
    made = make(only("grpo", gradients=lambda g: g / 0.7))
    found = factors(made, "grpo")["gradient norm"]
    assert found.names == ("temperature",)
    assert found.exact == pytest.approx(1 / 0.7)


def test_the_scale_of_an_adapter_is_alpha_over_rank():
    found = factors(make(only(method="lora", gradients=lambda g: g / 4)), method="lora")
    assert "lora_alpha / r" in found["gradient norm"].names


def test_rank_stabilised_adapters_are_scaled_by_the_root_of_the_rank():
    values = settings_values({"lora_alpha": 32, "r": 16, "use_rslora": True})
    assert values == {"lora_alpha / sqrt(r)": 8.0}


def test_a_factor_that_no_later_step_has_is_not_steady():
    first = iter([2.0, *[1.4 + 0.1 * n for n in range(9)]] * 2)
    once = factors(make(only("sft", gradients=lambda g: g * next(first))))["gradient norm"]
    always = factors(make(only("sft", gradients=lambda g: g * 2)))["gradient norm"]
    assert (once.exact, once.is_steady) == (2.0, False)
    assert (always.exact, always.is_steady) == (2.0, True)


def test_the_rewards_deviation_is_told_roughly():
    made = make(only("grpo", gradients=lambda g: g / 0.43))
    assert factors(made, "grpo")["gradient norm"].names == (REWARD_STD,)
    assert (
        factors(make(only("grpo", gradients=lambda g: g / 0.3)), "grpo")["gradient norm"].names
        == ()
    )


def test_a_loss_that_is_about_zero_has_no_factor():
    assert "loss" not in factors(make(only("grpo", losses=lambda v: v * 2)), "grpo")


def test_a_loss_that_is_multiplied_has_one():
    found = factors(make(only("sft", losses=lambda v: v * 3)))["loss"]
    assert (found.exact, found.step, found.names) == (3.0, 1, ("gradient_accumulation_steps",))


def test_missing_and_zero_values_are_passed_over():
    made = make(only("sft", gradients=lambda g: None if g < 0.82 else 2 * g))
    found = factors(made)["gradient norm"]
    assert (found.step, found.exact) == (2, 2.0)
    assert factors(make(only("sft", gradients=lambda g: 0.0))) == {}


def test_a_rounding_is_no_factor():
    assert factors(make(only("sft", gradients=lambda g: g * (1 + 1e-7)))) == {}


def test_groups_divided_by_their_deviation_are_told_from_others():
    runs = {r.task: r for r in make().base.runs}
    assert is_divided_by_group(runs["grpo"]) is True
    assert is_divided_by_group(runs["sft"]) is None
    values = iter([1.31, 0.87, 1.02, 1.45, 0.66, 1.21, 0.93, 1.12, 1.38, 0.71] * 2)
    other = make(only("grpo", advantages=lambda _: next(values))).candidate.runs
    assert is_divided_by_group(next(r for r in other if r.task == "grpo")) is False
