"""Processes that trace training steps, side by side: a question at a time each, the longest first.

Importing torch and TRL takes longer than a trace, so a process is asked again and again, and what takes
longest is begun first, or the last question would be answered alone. There are at most two, a core each:
each holds the libraries (half a GiB and more). One that ends while it traces leaves that question without
a trace, and another takes its place, unless two in a row had no answer to give: then none would have.
Whatever ends this process, SIGTERM or SIGKILL, ends them.
What this leaves out: keeping traces (`trace_cache`).
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import IO, Any, Self

from harness.memory_trace import Trace
from harness.subject import Subject

Question = tuple[Subject, int]  # a subject, and the length of its longest row

MODULE = "harness.worker.tracer"
MOST_PROCESSES = 2
MOST_FRUITLESS = 2  # processes in a row that end before their first answer
POLL_S = 0.2
VARIABLES = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"}


class Tracers:
    """Processes at work on questions. A context manager: leaving it ends them."""

    def __init__(
        self,
        questions: Sequence[Question],
        is_wanted: Callable[[], bool] = lambda: True,
        command: Sequence[str] = (sys.executable, "-m", MODULE),
    ) -> None:
        self.why = "the tracer was ended before it came to this step"
        self._questions, self._is_wanted, self._command = questions, is_wanted, list(command)
        order = sorted(range(len(questions)), key=lambda i: effort(*questions[i]), reverse=True)
        self._waiting = deque(order)
        self._answers: queue.Queue[tuple[int, Trace | str] | None] = queue.Queue()
        self._processes: list[subprocess.Popen[bytes]] = []
        self._threads: list[threading.Thread] = []
        self._starting = threading.Lock()
        self._is_over = False

    def __enter__(self) -> Self:
        for _ in range(min(MOST_PROCESSES, _cores(), len(self._questions))):
            self._threads.append(threading.Thread(target=self._work))
            self._threads[-1].start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._starting:
            self._is_over = True
            for process in self._processes:
                process.kill()
        for thread in self._threads:
            thread.join()

    def answers(self) -> Iterator[tuple[int, Trace | str]]:
        """Give (place of a question, trace or sentence) as they come; stops where no process is left."""
        working = len(self._threads)
        while working and self._is_wanted():
            with suppress(queue.Empty):
                found = self._answers.get(timeout=POLL_S)
                if found is None:
                    working -= 1
                else:
                    yield found

    def _work(self) -> None:
        """Put questions to one process after the other until none is left, or none would answer."""
        fruitless = 0
        try:
            while self._waiting and fruitless < MOST_FRUITLESS:
                with tempfile.TemporaryFile() as errors:
                    process = self._start(errors)
                    if process is None:
                        break
                    fruitless = 0 if self._serve(process, errors) else fruitless + 1
        finally:
            self._answers.put(None)

    def _start(self, errors: IO[bytes]) -> subprocess.Popen[bytes] | None:
        """Start a process, unless all have been ended."""
        with self._starting:
            if self._is_over:
                return None
            # It dies with the thread that started it: this one, which waits for its end.
            process = subprocess.Popen(
                [*self._command, "--parent", str(os.getpid())],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env={**os.environ, **VARIABLES},
                start_new_session=True,  # Ctrl-C is its supervisor's to act on
            )
            self._processes.append(process)
            return process

    def _serve(self, process: subprocess.Popen[bytes], errors: IO[bytes]) -> int:
        """Put questions to one process until none is left or it ends; return how many it answered."""
        answered = 0
        assert process.stdin is not None  # noqa: S101 - both are pipes
        assert process.stdout is not None  # noqa: S101
        with process:
            while self._waiting:
                try:
                    place = self._waiting.popleft()
                except IndexError:  # the other process took it
                    break
                with suppress(OSError):  # it has ended: reading says so
                    process.stdin.write(_line(*self._questions[place]))
                    process.stdin.flush()
                line = process.stdout.readline()
                if not line.endswith(b"\n"):
                    words = _last_words(process, errors)
                    # One that was ended from here died of nothing of its own.
                    if not self._is_over:
                        self.why = words
                    self._answers.put((place, self.why))
                    break
                self._answers.put((place, _answer(line)))
                answered += 1
            with suppress(OSError):
                process.stdin.close()
        return answered


def effort(subject: Subject, length: int) -> int:
    """Order questions by how long they take: layers, an adapter's operations, micro batches."""
    per_layer = (2 if subject.adapter else 1) * (2 if subject.has_checkpointing else 1)
    return subject.facts.layers * per_layer * subject.accumulation * max(1, length.bit_length())


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _line(subject: Subject, length: int) -> bytes:
    question = {"subject": subject.model_dump(mode="json"), "length": length}
    return json.dumps(question).encode() + b"\n"


def _answer(line: bytes) -> Trace | str:
    try:
        data: dict[str, Any] = json.loads(line)
        return str(data["error"]) if "error" in data else Trace.model_validate_json(line)
    except ValueError as error:  # a library that prints
        return f"the tracer's answer can't be read: {str(error)[:200]}"


def _last_words(process: subprocess.Popen[bytes], errors: IO[bytes]) -> str:
    process.wait()
    errors.seek(0)
    said = [x for x in errors.read().decode(errors="replace").splitlines() if x.strip()]
    return f"the tracer ended with exit code {process.returncode}: {(said or ['no message'])[-1][:200]}"
