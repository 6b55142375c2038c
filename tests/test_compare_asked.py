"""Resolved arguments and packages: flattened, compared, folded over cells."""

from __future__ import annotations

from harness.compare.asked import (
    NOWHERE,
    Argument,
    argument_difference,
    differing_arguments,
    flatten,
    fold,
)
from tests.comparison_sides import make_run

RUN = make_run("sft-plain", "lora", "lora", 0)


def with_config(**config):
    return RUN.model_copy(update={"config": {**RUN.config, **config}})


def names(base, candidate):
    return [a.name for a in differing_arguments(base, candidate)]


def test_arguments_go_by_their_own_names_and_the_rest_by_its_place():
    flat = flatten({"arguments": {"beta": 0.1, "a": {"b": 1}}, "lora": {"default": {"r": 4}}})
    assert flat == {"beta": 0.1, "a.b": 1, "lora.default.r": 4}


def test_equal_configurations_differ_in_nothing():
    assert names(RUN, RUN) == []


def test_a_value_and_an_argument_of_one_side_differ():
    arguments = {**RUN.config["arguments"], "beta": 0.1, "epsilon": 0.2}
    found = differing_arguments(RUN, with_config(arguments=arguments))
    assert found == [Argument("beta", 0.0, 0.1), Argument("epsilon", NOWHERE, 0.2)]
    assert [a.is_moved for a in found] == [True, False]


def test_places_seeds_devices_and_what_repeats_a_version_are_left_out():
    other = with_config(
        arguments={**RUN.config["arguments"], "output_dir": "elsewhere", "seed": 7},
        lora={"default": {"r": 4, "peft_version": "0.20.0"}},
        device="cuda",
    )
    assert names(RUN, other) == []


def test_the_layers_of_an_adapter_are_a_set():
    one = with_config(lora={"default": {"target_modules": ["a", "b"]}})
    other = with_config(lora={"default": {"target_modules": ["b", "a"]}})
    assert names(one, other) == []


def test_a_configuration_that_is_missing_differs_in_nothing():
    assert names(RUN, RUN.model_copy(update={"config": {}})) == []


def test_what_is_the_same_in_several_cells_is_said_once():
    moved = argument_difference(Argument("beta", 0.0, 0.1), counts=False, seed=None)
    cells = ["a.full", "a.lora", "b.full"]
    (everywhere,) = fold([(cell, moved) for cell in cells], cells)
    assert everywhere.sentence.endswith("[everywhere]")
    (somewhere,) = fold([(cell, moved) for cell in cells[:2]], cells)
    assert somewhere.sentence.endswith("[a.full, a.lora]")


def test_what_counts_comes_first():
    shown = argument_difference(Argument("alpha", 1, 2), counts=False, seed=None)
    counted = argument_difference(Argument("beta", 0.0, 0.1), counts=True, seed=None)
    found = fold([("a.full", shown), ("a.full", counted)], ["a.full"])
    assert [d.word for d in found] == ["changed", "same"]


def test_a_value_that_is_no_number_on_both_sides_is_the_same():
    arguments = [{**RUN.config["arguments"], "beta": float("nan")} for _ in range(2)]
    assert names(*(with_config(arguments=each) for each in arguments)) == []
