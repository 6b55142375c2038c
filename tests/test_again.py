"""An arm that trains another arm once more is that arm, and says so where it can't be."""

import pytest

from harness.errors import ConfigError
from harness.frozen import content_hash
from harness.matrix import expand, matrix_hash, parse_matrix, with_overrides
from tests.conftest import MATRIX

LORA = "      lora: {method: lora, lora: {r: 4}, trainer: {learning_rate: 1e-3}}\n"


def with_arm(text):
    return MATRIX.replace(LORA, f"{LORA}      again: {text}\n")


def test_an_arm_that_repeats_another_resolves_to_the_same_run_but_for_its_name():
    matrix = parse_matrix(with_arm("{again_of: lora}"), "m")
    runs = {s.cell: s for s in expand(matrix)}
    for seed in matrix.seeds:
        first, again = runs[f"sft-micro.lora.s{seed}"], runs[f"sft-micro.again.s{seed}"]
        assert again == first.model_copy(update={"arm": "again"})
        assert again.training_seed == first.training_seed
    assert matrix.pairs["sft-micro"].arms["again"].again_of == "lora"


def test_an_arm_that_repeats_none_keeps_the_hash_it_had():
    bare = parse_matrix(MATRIX, "m")
    assert "again_of" not in bare.pairs["sft-micro"].arms["lora"].model_dump()
    more = parse_matrix(with_arm("{again_of: lora}"), "m")
    assert matrix_hash(more, {}) != matrix_hash(bare, {})
    kept = {s.run_id for s in expand(more)} - {s.run_id for s in expand(bare)}
    assert {name.partition(".s")[0] for name in kept} == {"sft-micro.again"}


def test_overrides_reach_both(matrix_text):
    matrix = parse_matrix(with_arm("{again_of: lora}"), "m")
    with_overrides(matrix, {"max_steps": 9})
    runs = {s.cell: s for s in expand(matrix, {"max_steps": 9})}
    dumps = [
        content_hash(runs[f"sft-micro.{arm}.s0"].model_copy(update={"arm": "x"}))
        for arm in ("lora", "again")
    ]
    assert dumps[0] == dumps[1]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "{again_of: lorra}",
            r"again_of: found 'lorra' \(did you mean 'lora'\?\), expected another arm",
        ),
        (
            "{again_of: again}",
            "again_of: found 'again'.*expected another arm of the pair: full, lora",
        ),
        ("{again_of: lora, method: lora}", "repeats 'lora' and gives its own method"),
        ("{again_of: full, trainer: {learning_rate: 1}}", "gives its own trainer"),
        (
            "{again_of: lora}\n      third: {again_of: again}",
            "repeats 'lora' itself; name that one",
        ),
    ],
)
def test_a_repeat_that_could_differ_is_refused(text, said):
    with pytest.raises(ConfigError, match=said):
        parse_matrix(with_arm(text), "m")


def test_the_line_of_a_mistaken_repeat_is_said():
    text = with_arm("{again_of: lora, seed_offset: 3}")
    line = 1 + next(i for i, row in enumerate(text.splitlines()) if "again_of" in row)
    with pytest.raises(
        ConfigError, match=rf"^m:{line}: pairs.sft-micro.arms.again.again_of: repeats"
    ):
        parse_matrix(text, "m")
