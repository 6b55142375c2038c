"""What happens while a matrix runs, as events, and the ways to show them.

Events go to every display: a live table on a terminal, plain lines in CI, JSON Lines with `--json`.
Displays write to stderr, JSON to stdout. Text from a run (a reason, a log line) is shown as text:
escape codes are removed before it reaches a terminal.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol, TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from harness.text import harmless

PLAIN_EVERY_S = 30.0
JSON_EVERY_S = 5.0


@dataclass(frozen=True)
class Active:
    """How far a running run is."""

    cell: str
    attempt: int
    step: int
    max_steps: int | None
    metric: str | None  # 'loss' or 'reward'
    value: float | None
    tokens_per_s: float | None
    rss_bytes: int | None
    seconds_left: float | None


EventKind = Literal["progress", "plan", "start", "end", "note", "problem", "report", "interrupt"]


@dataclass(frozen=True)
class Event:
    """Something that happened, in a sentence and as data."""

    kind: EventKind
    text: str
    data: dict[str, Any]


class Display(Protocol):
    """Shows a matrix running. A context manager around the whole of it."""

    has_bars: bool  # whether a download may draw its own bars on stderr before it

    def __enter__(self) -> Display: ...

    def __exit__(self, *exc: object) -> None: ...

    def emit(self, event: Event) -> None:
        """Show an event."""

    def tick(
        self, active: Sequence[Active], done: int, total: int, seconds_left: float | None
    ) -> None:
        """Show the runs under way."""


class Quiet:
    """Shows problems alone."""

    has_bars = False

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr

    def __enter__(self) -> Display:
        return self

    def __exit__(self, *exc: object) -> None:
        return

    def emit(self, event: Event) -> None:
        """Write a problem."""
        if event.kind == "problem":
            print(harmless(event.text), file=self._stream, flush=True)

    def tick(
        self, active: Sequence[Active], done: int, total: int, seconds_left: float | None
    ) -> None:
        """Show nothing."""


class Lines(Quiet):
    """Plain lines: every event, and now and then how far the runs are."""

    def __init__(self, stream: TextIO | None = None) -> None:
        super().__init__(stream)
        self._last = time.monotonic()

    def emit(self, event: Event) -> None:
        """Write an event as a line."""
        stamp = time.strftime("%H:%M:%S", time.gmtime())
        print(f"{stamp} {harmless(event.text)}", file=self._stream, flush=True)

    def tick(
        self, active: Sequence[Active], done: int, total: int, seconds_left: float | None
    ) -> None:
        """Write a line for every run under way, at most twice a minute."""
        if time.monotonic() - self._last < PLAIN_EVERY_S or not active:
            return
        self._last = time.monotonic()
        left = f", about {_clock(seconds_left)} left" if seconds_left is not None else ""
        runs = "; ".join(f"{a.cell} {_steps(a)}" for a in active)
        self.emit(Event("note", f"{done}/{total} runs done{left}: {runs}", {}))


class JsonLines(Quiet):
    """Every event as a JSON object on stdout; how far the runs are, every few seconds.

    A reader that goes away (`| head`) ends the output, never the training.
    """

    def __init__(self, out: TextIO | None = None) -> None:
        super().__init__()
        self._out: TextIO | None = out or sys.stdout
        self._last = time.monotonic()

    def emit(self, event: Event) -> None:
        """Write an event as one line of JSON."""
        if self._out is None:
            return
        try:
            print(json.dumps(asdict(event), allow_nan=False), file=self._out, flush=True)
        except BrokenPipeError:
            self._out = None
            # Or the interpreter would try to flush what is left when it ends, and complain.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

    def tick(
        self, active: Sequence[Active], done: int, total: int, seconds_left: float | None
    ) -> None:
        """Write how far every run is, every few seconds."""
        if time.monotonic() - self._last < JSON_EVERY_S or not active:
            return
        self._last = time.monotonic()
        data = {"done": done, "total": total, "seconds_left": seconds_left}
        runs = [asdict(a) for a in active]
        self.emit(Event("progress", f"{done}/{total} runs done", {**data, "active": runs}))


class LiveTable(Quiet):
    """A live table on a terminal: a line a run under way, a bar for the matrix."""

    has_bars = True

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console
        self._bar = Progress(
            TextColumn("runs"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.description}"),
            console=console,
        )
        self._task = self._bar.add_task("", total=None)
        self._live = Live(console=console, refresh_per_second=4, transient=True)

    def __enter__(self) -> Display:
        self._live.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._live.stop()

    def emit(self, event: Event) -> None:
        """Print an event above the table."""
        style = {"problem": "red", "interrupt": "yellow", "report": "bold"}.get(event.kind, "")
        self._console.print(Text(harmless(event.text), style=style))

    def tick(
        self, active: Sequence[Active], done: int, total: int, seconds_left: float | None
    ) -> None:
        """Draw the runs under way."""
        table = Table(box=None, pad_edge=False)
        for name in ("run", "step", "metric", "tokens/s", "memory", "left"):
            table.add_column(name, justify="left" if name == "run" else "right")
        for a in active:
            memory = "" if a.rss_bytes is None else f"{a.rss_bytes / 2**30:.2f} GiB"
            value = "" if a.value is None else f"{a.metric} {a.value:.4f}"
            speed = "" if a.tokens_per_s is None else f"{a.tokens_per_s:,.0f}"
            left = "" if a.seconds_left is None else _clock(a.seconds_left)
            table.add_row(Text(a.cell), _steps(a), value, speed, memory, left)
        left = "" if seconds_left is None else f"about {_clock(seconds_left)} left"
        self._bar.update(self._task, completed=done, total=total, description=left)
        self._live.update(Group(table, self._bar))


def choose_display(*, is_json: bool, is_quiet: bool) -> Display:
    """Pick the display: JSON, quiet, a live table on a terminal, plain lines elsewhere."""
    if is_json:
        return JsonLines()
    if is_quiet:
        return Quiet()
    console = Console(stderr=True)
    return LiveTable(console) if console.is_terminal else Lines()


def _steps(active: Active) -> str:
    if active.step == 0:
        return "starting"
    return f"step {active.step}" + (f"/{active.max_steps}" if active.max_steps else "")


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
