from __future__ import annotations

import io

from rich.console import Console

from harness.progress import Active, Event, JsonLines, Lines, LiveTable, Quiet

ACTIVE = Active(
    cell="p.a.s0",
    attempt=1,
    step=3,
    max_steps=10,
    metric="loss",
    value=0.5,
    tokens_per_s=123.0,
    rss_bytes=2**30,
    seconds_left=70.0,
)
BAD = Event("problem", "crashed \x1b[31m[red]x[/red]\x1b]0;title\x07", {"a": 1})


def test_lines_are_plain_text_without_escape_codes():
    out = io.StringIO()
    display = Lines(out)
    display.emit(BAD)
    display.tick([ACTIVE], 1, 2, 60.0)
    text = out.getvalue()
    assert "crashed [red]x[/red]" in text
    assert "\x1b" not in text
    assert len(text.splitlines()) == 1


def test_quiet_shows_problems_alone():
    out = io.StringIO()
    display = Quiet(out)
    display.emit(Event("start", "hello", {}))
    display.emit(BAD)
    assert out.getvalue().splitlines() == ["crashed [red]x[/red]"]


def test_json_is_one_object_an_event():
    out = io.StringIO()
    JsonLines(out).emit(BAD)
    assert out.getvalue().count("\n") == 1
    assert '"kind": "problem"' in out.getvalue()


def test_the_live_table_shows_step_metric_speed_memory_and_time_left():
    console = Console(file=io.StringIO(), force_terminal=True, width=120)
    with LiveTable(console) as display:
        display.emit(BAD)
        display.tick([ACTIVE], 1, 2, 60.0)
    text = console.file.getvalue()
    for part in (
        "p.a.s0",
        "step 3/10",
        "loss 0.5000",
        "123",
        "1.00 GiB",
        "1:10",
        "about 1:00 left",
    ):
        assert part in text
    assert "\x1b]0;title" not in text
