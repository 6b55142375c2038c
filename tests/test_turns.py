"""Stacks in turn: A B, then B A, a seed more each time; what can't take turns is refused."""

from __future__ import annotations

import pytest

from harness.errors import ConfigError
from harness.matrix import parse_matrix
from harness.plan import Request
from harness.turns import in_turn
from tests.conftest import MATRIX

TINY = parse_matrix(MATRIX, "tiny.yaml")
STACKS = ("A", "B")


def turns(request: Request, stacks=STACKS):
    return [(stack, own.seeds, own.renders_report) for stack, own in in_turn(stacks, request, TINY)]


def test_the_order_turns_round_with_each_seed_and_the_last_turn_renders():
    assert turns(Request("tiny.yaml", seeds=(3, 4, 5))) == [
        ("A", (3,), False),
        ("B", (3,), False),
        ("B", (3, 4), False),
        ("A", (3, 4), False),
        ("A", (3, 4, 5), True),
        ("B", (3, 4, 5), True),
    ]


def test_the_matrix_says_the_seeds_where_the_command_does_not():
    assert [seeds for _, seeds, _ in turns(Request("tiny.yaml"))][-1] == tuple(TINY.seeds)


def test_no_report_is_no_report():
    request = Request("tiny.yaml", renders_report=False)
    assert not any(renders for *_, renders in turns(request))


@pytest.mark.parametrize(
    ("stacks", "fields", "expected"),
    [
        (("A",), {}, "found 1 stack and 2 seeds"),
        (STACKS, {"seeds": (1,)}, "found 2 stacks and 1 seed"),
        (STACKS, {"until_decided": True}, "--until-decided"),
    ],
)
def test_what_cannot_take_turns_is_refused(stacks, fields, expected):
    with pytest.raises(ConfigError, match=expected):
        turns(Request("tiny.yaml", **fields), stacks)
