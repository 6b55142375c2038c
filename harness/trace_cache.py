"""Traces of subjects, made once: a process of its own makes them, a folder of the cache keeps them.

The command line imports no torch, so processes of their own do the work (`tracers`), for the questions
that the cache can't answer. A trace is kept by what it was made of: its subject, its length and the
versions of the libraries whose code ran.
"""

from __future__ import annotations

import gzip
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pydantic import ValidationError

from harness.caches import cache_dir
from harness.files import write_atomically
from harness.frozen import content_hash
from harness.memory_trace import Trace
from harness.subject import Subject
from harness.tracers import MODULE, Question, Tracers

RECIPE = 3  # counts up when the same subject gets another trace
LIBRARIES = ("torch", "transformers", "trl", "peft")
Progress = Callable[[int, int], None]
COMMAND = (sys.executable, "-m", MODULE)


def can_trace() -> bool:
    """Whether the libraries whose code is traced are installed here."""
    return None not in traced_libraries().values()


def traces(
    questions: Sequence[Question],
    progress: Progress | None = None,
    is_wanted: Callable[[], bool] = lambda: True,
    command: Sequence[str] = COMMAND,
) -> list[Trace | str]:
    """Return a trace for each question, or one sentence that says why there is none.

    Once `is_wanted` says no, what is left is given up within a second.
    """
    found: dict[str, Trace | str] = {}
    keys = [_key(*question) for question in questions]
    for key in keys:
        kept = _read(key)
        if kept is not None:
            found[key] = kept
    missing = {k: q for k, q in zip(keys, questions, strict=True) if k not in found}
    if not missing:
        return [found[key] for key in keys]
    names = list(missing)
    with Tracers(list(missing.values()), is_wanted, command) as tracers:
        for place, answer in tracers.answers():
            found[names[place]] = answer
            if progress is not None:
                progress(len(found), len(set(keys)))
            if isinstance(answer, Trace):
                _keep(names[place], answer)
    return [found.get(key, tracers.why) for key in keys]


def _key(subject: Subject, length: int) -> str:
    made_of = {
        "recipe": RECIPE,
        "subject": subject.model_dump(mode="json"),
        "length": length,
        "libraries": traced_libraries(),
    }
    return content_hash(made_of)[:32]


def traced_libraries() -> dict[str, str | None]:
    """Return the versions of the libraries whose code is traced; null for one that is missing."""
    found: dict[str, str | None] = {}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


def _file(key: str) -> Path:
    return cache_dir() / "traces" / f"{key}.json.gz"


def _read(key: str) -> Trace | None:
    try:
        return Trace.model_validate_json(gzip.decompress(_file(key).read_bytes()))
    except (OSError, ValueError, EOFError, ValidationError):
        return None


def _keep(key: str, trace: Trace) -> None:
    """Keep a trace; a cache that can't be written costs time, and no answer."""
    try:
        _file(key).parent.mkdir(parents=True, exist_ok=True)
        write_atomically(_file(key), gzip.compress(trace.model_dump_json().encode(), 1))
    except OSError:
        return
