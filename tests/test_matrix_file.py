from __future__ import annotations

import contextlib
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import ConfigError
from harness.matrix_file import MOST_LEVELS, as_mapping, keep_plain, read_yaml


def problems_of(text: str) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        read_yaml(text, "m.yaml")
    return caught.value.problems


def test_every_key_that_stands_twice_is_named_with_both_lines():
    assert problems_of("a: 1\nb:\n  c: 2\n  c: 3\na: 4\n") == (
        "m.yaml:4: the key 'c' stands already in line 3; keep one",
        "m.yaml:5: the key 'a' stands already in line 1; keep one",
    )


@pytest.mark.parametrize("levels", [MOST_LEVELS + 1, 400, 5000])
@pytest.mark.parametrize("bracket", ["[", "{a: "])
def test_deep_nesting_is_one_short_sentence_with_its_line(bracket, levels):
    closing = {"[": "]", "{a: ": "}"}[bracket]
    (found,) = problems_of("x:\n" + " " + bracket * levels + closing * levels)
    assert found == "m.yaml:2: is nested deeper than 50 levels; write it flatter"


def bomb(levels: int, merge: str = "") -> str:
    """Ten aliases a line, each of the line before."""
    lines = ["l0: &l0 {k: v}"]
    for i in range(1, levels):
        aliases = ", ".join([f"*l{i - 1}"] * 10)
        lines.append(f"l{i}: &l{i} " + (f"{{<<: [{aliases}]}}" if merge else f"[{aliases}]"))
    return "\n".join(lines)


@pytest.mark.parametrize("merge", ["", "<<"])
@pytest.mark.parametrize("levels", [7, 30])
def test_a_bomb_of_aliases_is_refused_at_once(levels, merge):
    begin = time.process_time()
    found = problems_of(bomb(levels, merge))
    assert time.process_time() - begin < 1
    assert "aliases stand for more than 100,000 values" in found[0]
    assert found[0].startswith("m.yaml:6")


def test_aliases_that_nest_deeper_than_brackets_may_are_refused():
    lines = ["l0: &l0 [x]", *(f"l{i}: &l{i} [*l{i - 1}]" for i in range(1, 2000))]
    assert "aliases nest deeper than 50 levels" in problems_of("\n".join(lines))[0]


def test_an_alias_inside_of_what_it_names_is_refused():
    assert problems_of("a: 1\nb: &b [*b]") == (
        "m.yaml:2: an alias stands inside of what it names; write it out",
    )


def test_ordinary_aliases_and_merges_are_read():
    data, _ = read_yaml("a: &a {x: 1, y: 2}\nb: {<<: *a, x: 3}\nc: [*a, *a]", "m")
    assert data == {"a": {"x": 1, "y": 2}, "b": {"x": 3, "y": 2}, "c": [{"x": 1, "y": 2}] * 2}


@pytest.mark.parametrize("text", ["a: 1900-13-45", "a: " + "9" * 5000])
def test_a_value_that_python_refuses_is_one_problem(text):
    (found,) = problems_of(text)
    assert found.startswith("m.yaml")
    assert len(found) < 200


@given(st.text(alphabet="abc:,&*<>{}[]!|-? 019.\"'\n#", max_size=40))
def test_any_text_is_read_or_refused(text):
    with contextlib.suppress(ConfigError):
        keep_plain(read_yaml(text, "m")[0])


def test_what_json_has_a_form_for_is_kept_and_the_rest_is_named_by_its_path():
    data = {"a": 1, "b": [1, float("nan")], "c": {"d": float("inf"), "e": None}, 3: 4, "f": 2**63}
    kept, problems = keep_plain(data)
    assert kept == {"a": 1, "b": [1, None], "c": {"e": None}}
    assert set(problems) == {("b", 1), ("c", "d"), ("3",), ("f",)}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "the file is empty"),
        ("# nothing\n", "the file is empty"),
        ("words", "found text"),
        ("7", "found a number"),
        ("true", "found true or false"),
        ("[a]", "found a list"),
        ("2020-01-01", "found a value"),
    ],
)
def test_what_is_no_mapping_of_keys_is_called_what_it_is(text, said):
    with pytest.raises(ConfigError) as caught:
        as_mapping(read_yaml(text, "m.yaml")[0], "m.yaml")
    assert str(caught.value) == f"m.yaml: {said}; expected a mapping of keys, `key: value` a line"
