"""Values to text, and text from outside made harmless."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import text
from tests.study_factory import HOSTILE


@pytest.mark.parametrize(
    ("got", "expected"),
    [
        (text.memory(3 * 2**29), "1.50 GiB"),
        (text.memory(2**29), "512 MiB"),
        (text.memory(-(2**20)), "−1 MiB"),
        (text.signed(0.0123, 3), "+0.012"),
        (text.signed(-0.0004, 3), "0.000"),
        (text.signed(-1.5, 1), "−1.5"),
        (text.percent(0.666), "67%"),
        (text.share(0.0042), "0.42%"),
        (text.duration(0.1234), "123 ms"),
        (text.duration(90), "90.0 s"),
        (text.duration(3725), "62 min 5 s"),
        (text.duration(7260), "2 h 1 min"),
        (text.number(1234.56), "1\u202f235"),
        (text.number(0.012345), "0.01235"),
        (text.number(0), "0"),
        (text.scaled(3.1e9, "FLOP"), "3.1 GFLOP"),
        (text.plural(1, "seed"), "1 seed"),
        (text.span(None, None, "signed"), "no interval from one seed"),
    ],
)
def test_values_read_well(got, expected):
    assert got == expected


@pytest.mark.parametrize("write", [text.memory, text.signed, text.percent, text.share, text.number,
                                   text.duration, text.count])  # fmt: skip
def test_missing_says_so(write):
    assert write(None) == "not measured"


@pytest.mark.parametrize(("scale", "digits"), [(0.05, 3), (0.02, 3), (0.1, 2), (2.0, 1), (500, 0)])
def test_decimals_show_a_tenth_of_the_margin(scale, digits):
    assert text.decimals(scale) == digits


@pytest.mark.parametrize(
    ("found", "shown"),
    [
        ("at /home/someone/run.py:3", "at .../run.py:3"),
        ("--out=/srv/data/x", "--out=.../x"),
        ("C:\\Users\\me\\run.py", ".../run.py"),
        ("file:///home/me/x", ".../x"),
        ("https://example.org/a/b", "https://example.org/a/b"),
        ("HuggingFaceTB/SmolLM2-135M", "HuggingFaceTB/SmolLM2-135M"),
        ("tokens/s, ./here/it/is", "tokens/s, ./here/it/is"),
        ("\x1b[31mred\x1b[0m \x1b]0;title\x07end", "red end"),
        ("a\u202eb", "a\ufffdb"),
        ("a\ud800b", "a\ufffdb"),
    ],
)
def test_clean_drops_codes_and_places(found, shown):
    assert text.clean(found) == shown


@given(st.text())
def test_cleaned_text_is_encodable_and_has_no_controls(found):
    shown = text.clean(found)
    shown.encode()
    assert not any(ord(c) < 32 and c not in "\t\n" for c in shown)
    assert "\u2028" not in shown


@given(st.text(alphabet="ab 1.<>&|`*_[]()#+-=~{}\\\n\r$!@:/\u2028"))
def test_markdown_stays_one_line_and_every_sign_is_escaped(found):
    line = text.markdown(found)
    assert "\n" not in line
    assert "<" not in line
    assert ">" not in line
    for i, character in enumerate(line):
        if character in "|`*_[]{}~$!":
            before = line[:i]
            assert (len(before) - len(before.rstrip("\\"))) % 2 == 1, line


@pytest.mark.parametrize("found", ["# x", "- x", "+ x", "1. x", "12) x", "---", "==="])
def test_markdown_can_not_start_a_block(found):
    assert "\\" in text.markdown(found)[:3]


@pytest.mark.parametrize("found", ["+0.02", "0.05", "−1", "1 seed"])
def test_markdown_leaves_numbers_readable(found):
    assert text.markdown(found) == found


def test_markdown_makes_neither_links_nor_mentions():
    line = text.markdown("see https://x.org, www.x.org and @someone")
    assert "://" not in line.replace("\\://", "")
    assert "www." not in line
    assert "@someone" not in line


@pytest.mark.parametrize("found", ["=1+1", "+1", "-1", "@x", "\t=1", "\r=1", "−1", " =1"])
def test_a_csv_cell_starts_no_formula(found):
    assert text.csv_cell(found).startswith("'")


def test_hostile_text_in_a_table_cell():
    line = text.markdown(HOSTILE)
    assert "&lt;script&gt;" in line
    assert "\\{\\{7\\*7\\}\\}" in line
    assert "\x1b" not in line
