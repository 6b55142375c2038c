from __future__ import annotations

from typing import Any

import click
import pytest
from click.testing import CliRunner

from harness.options import Seconds, WithNegatives, parse_maps, parse_seeds, parse_settings

CONTEXT = click.Context(click.Command("x"))
PARAMETER = click.Option(["--x"])


def settings(*pairs: str) -> dict[str, Any]:
    return parse_settings(CONTEXT, PARAMETER, pairs)


def refusal(parse: Any, given: Any) -> str:
    with pytest.raises(click.BadParameter) as caught:
        parse(CONTEXT, PARAMETER, given)
    assert caught.value.exit_code == 2
    return caught.value.message


def test_seeds_are_single_or_ranges():
    assert parse_seeds(CONTEXT, PARAMETER, "0, 2,4-6") == (0, 2, 4, 5, 6)
    assert parse_seeds(CONTEXT, PARAMETER, str(2**32 - 1)) == (2**32 - 1,)
    assert parse_seeds(CONTEXT, PARAMETER, None) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("9" * 5000, "below 2**32"),
        ("0-" + "9" * 5000, "below 2**32"),
        (str(2**32), "below 2**32"),
        ("0-20000", "at most 10,000 seeds"),
        ("-1", "such as 0,1,2"),
        ("x" * 5000, "such as 0,1,2"),
        ("5-3", "at least one seed"),
        ("", "such as 0,1,2"),
    ],
)
def test_impossible_seeds_are_one_short_sentence(text, expected):
    message = refusal(parse_seeds, text)
    assert expected in message
    assert len(message) < 250


def test_a_setting_is_read_as_yaml():
    assert settings("a=1e-4", "b=[x, true]", "c=", "d={k: null}", "e=x=y") == {
        "a": 1e-4,
        "b": ["x", True],
        "c": None,
        "d": {"k": None},
        "e": "x=y",
    }


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (".nan", "learning_rate: found nan, expected a finite number"),
        (".inf", "learning_rate: found inf, expected a finite number"),
        ("1e999", "learning_rate: found inf, expected a finite number"),
        ("[1, {a: .nan}]", "found nan"),
        ("2020-01-01", "found 2020-01-01 (date), expected text, a number"),
        ("1900-13-45", "expected a plain value"),
        ("{1: 2}", "found the key 1, expected text"),
        ("!!set {a}", "(set), expected text"),
        ("9" * 5000, "expected a plain value"),
        ("0x" + "f" * 5000, "beyond 64 bits"),
        ("[" * 3000, "nested deeper than"),
        ("&a [*a]", "inside of what it names"),
        ("{a: 1, a: 2}", "the key 'a' stands already in line 1"),
        ("'x", "expected a plain value"),
    ],
)
def test_a_value_that_json_has_no_form_for_is_one_short_sentence(text, expected):
    message = refusal(parse_settings, [f"learning_rate={text}"])
    assert expected in message
    assert "\n" not in message
    assert len(message) < 400


def test_all_settings_that_are_wrong_are_listed_at_once():
    message = refusal(parse_settings, ["a=.nan", "b", "c=1", "d=['"])
    assert len(message.splitlines()) == 3


def test_maps_are_repositories_with_a_folder_each():
    given = ("meta-llama/Llama-3.1-8B=/models/a=b", "a/b=/c")
    found = parse_maps(CONTEXT, PARAMETER, given)
    assert found == {"meta-llama/Llama-3.1-8B": "/models/a=b", "a/b": "/c"}
    said = refusal(parse_maps, ("a/b", "=/c", "c/d=", "e/f=/1", "e/f=/2"))
    assert said.count("expected REPOSITORY=FOLDER") == 3
    assert "e/f is given two folders" in said


@click.command(cls=WithNegatives)
@click.option("--wait", type=Seconds(), is_flag=False, flag_value=600)
@click.option("--count", "-1", "is_one", is_flag=True)
@click.argument("words", nargs=-1)
def waiter(wait: int | None, is_one: bool, words: tuple[str, ...]) -> None:
    """Stands for a command whose wait has an optional value."""
    click.echo(f"{wait} {is_one} {' '.join(words)}".strip())


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        ([], "None False"),
        (["--wait"], "600 False"),
        (["--wait", "5"], "5 False"),
        (["--wait=0", "a"], "0 False a"),
        (["--wait", "--count"], "600 True"),
        (["a", "-1"], "None True a"),
    ],
)
def test_whole_seconds_may_be_left_out(words, answer):
    assert CliRunner().invoke(waiter, words).output.strip() == answer


@pytest.mark.parametrize("joint", [" ", "="])
@pytest.mark.parametrize("value", ["-1", "-.5", "600.5", "abc", "nan", "inf", "9" * 5000])
def test_other_than_whole_seconds_is_refused_by_what_was_found(value, joint):
    done = CliRunner().invoke(waiter, f"--wait{joint}{value}".split())
    assert done.exit_code == 2
    shown = value if len(value) < 80 else "9" * 79 + "…"
    said = f"found {shown!r}, expected whole seconds, 0 or more, e.g. --wait 600"
    assert said in done.output
