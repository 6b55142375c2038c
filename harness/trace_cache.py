"""Traces of subjects, made once: a process of its own makes them, a folder of the cache keeps them.

The command line imports no torch, so `python -m harness.worker.tracing` does the work, one process for all
questions that the cache can't answer. A trace is kept by what it was made of: its subject, its length and
the versions of the libraries whose code ran.
"""

from __future__ import annotations

import gzip
import json
import os
import subprocess
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

RECIPE = 1  # counts up when the same subject gets another trace
LIBRARIES = ("torch", "transformers", "trl", "peft")
Question = tuple[Subject, int]  # a subject, and the length of its longest row
Progress = Callable[[int, int], None]


def can_trace() -> bool:
    """Whether the libraries whose code is traced are installed here."""
    return None not in _versions().values()


def traces(questions: Sequence[Question], progress: Progress | None = None) -> list[Trace | str]:
    """Return a trace for each question, or one sentence that says why there is none."""
    found: dict[str, Trace | str] = {}
    keys = [_key(*question) for question in questions]
    for key in keys:
        kept = _read(key)
        if kept is not None:
            found[key] = kept
    missing = {k: q for k, q in zip(keys, questions, strict=True) if k not in found}
    if missing:
        done = len(found)
        for key, answer in zip(missing, _ask(list(missing.values())), strict=True):
            found[key] = answer
            done += 1
            if progress is not None:
                progress(done, len(set(keys)))
            if isinstance(answer, Trace):
                _keep(key, answer)
    return [found[key] for key in keys]


def _ask(questions: Sequence[Question]) -> list[Trace | str]:
    """Let one process trace every question; what it could not answer says why."""
    text = "".join(
        json.dumps({"subject": s.model_dump(mode="json"), "length": n}) + "\n" for s, n in questions
    )
    done = subprocess.run(
        [sys.executable, "-m", "harness.worker.tracing"],
        input=text,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
    )
    answers: list[Trace | str] = []
    for line in done.stdout.splitlines():
        data = json.loads(line)
        answers.append(data["error"] if "error" in data else Trace.model_validate_json(line))
    lines = [line for line in done.stderr.splitlines() if line.strip()] or ["no message"]
    why = f"the tracer ended with exit code {done.returncode}: {lines[-1][:200]}"
    return answers + [why] * (len(questions) - len(answers))


def _key(subject: Subject, length: int) -> str:
    made_of = {
        "recipe": RECIPE,
        "subject": subject.model_dump(mode="json"),
        "length": length,
        "libraries": _versions(),
    }
    return content_hash(made_of)[:32]


def _versions() -> dict[str, str | None]:
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
