"""`python -m harness.worker ATTEMPT`: train one run, in the order a person would tell it.

Reads `../spec.json` and `launch.json`; writes `environment.json`, `resolved_config.json`,
`steps.jsonl`, `phases.jsonl` and, last, `result.json`. An exception of any kind ends as a status and
a sentence in the result; its traceback goes to stderr.log. The fork server calls `run_attempt` in a
child that has the libraries imported already; everything else is the same. Of several processes of a
run (`distributed` starts them) the first one writes; the others train in step with it.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

from harness.errors import ConfigError, MachineError
from harness.files import write_atomically
from harness.launch import Launch
from harness.measure.environment import capture_environment
from harness.measure.gpus import ANSWER_S
from harness.record import Result, Status
from harness.spec import RunSpec
from harness.worker.confine import confine
from harness.worker.progress import Progress
from harness.worker.ranks import Rank, leave_word, rank_of
from harness.worker.trl_versions import check_pairing

SAMPLER_PATIENCE_S = 10.0
# For the list of GPUs of a run that uses none, where their driver hangs.
UNUSED_ANSWER_S = 10.0


# What trains a run: its spec, the conditions it runs under, the attempt's folder, how far it has come.
Train = Callable[[RunSpec, Launch, Path, Progress], Result]


def run_attempt(attempt: Path, is_warm: bool = False, train: Train | None = None) -> int:
    """Train the run of an attempt's folder and return the process's exit code.

    `train` takes TRL's place.
    """
    train = train or _train
    launch = Launch.model_validate_json((attempt / "launch.json").read_text(encoding="utf-8"))
    spec = RunSpec.model_validate_json((attempt.parent / "spec.json").read_text(encoding="utf-8"))
    rank = rank_of(launch)
    confine(launch, os.getppid(), rank.index)
    signal.signal(signal.SIGTERM, _end)
    notes = _wait_for_sampler(attempt) if launch.waits_for_sampler else []
    if not rank.is_first:
        return _follow(rank, attempt, lambda progress: train(spec, launch, attempt, progress))
    answer_s = ANSWER_S if launch.gpus else UNUSED_ANSWER_S
    environment = json.dumps(capture_environment(answer_s=answer_s), indent=1).encode()
    write_atomically(attempt / "environment.json", environment)
    result = conclude(lambda progress: train(spec, launch, attempt, progress))
    result = result.model_copy(update={"started_warm": is_warm, "notes": (*notes, *result.notes)})
    write_atomically(attempt / "result.json", result.model_dump_json(indent=1).encode() + b"\n")
    return 0 if result.status is Status.OK else 1


def _follow(rank: Rank, attempt: Path, train: Callable[[Progress], Result]) -> int:
    """Train in step with the first process; leave a word only if an exception ends it here.

    What training came to is the first process's to say: an exit code other than 0 would end it.
    """
    failures: list[Exception] = []

    def keep_failure(progress: Progress) -> Result:
        try:
            return train(progress)
        except Exception as error:
            failures.append(error)
            raise

    result = conclude(keep_failure)
    if failures:
        leave_word(attempt, rank, result)
    return len(failures)


def conclude(train: Callable[[Progress], Result]) -> Result:
    """Train; an exception of any kind becomes a status, with what was reached before it."""
    progress = Progress()
    try:
        return train(progress)
    except Exception as error:  # noqa: BLE001 - every failure becomes a status that is kept
        traceback.print_exc()
        return progress.failed(*classify(error))


def classify(error: Exception) -> tuple[Status, str]:
    """Name the status of an exception, and its reason in one line."""
    text = " ".join(str(error).split())[:300] or type(error).__name__
    name = type(error).__name__
    if name == "OutOfMemoryError" or any(sign in text for sign in _GPU_IS_FULL):
        return Status.OOM_GPU, text
    if isinstance(error, MemoryError) or "can't allocate memory" in text:
        return Status.OOM_HOST, f"the worker ran out of memory: {text}"
    if isinstance(error, ConfigError):
        return Status.CONFIG, text
    if isinstance(error, FloatingPointError) or any(sign in text for sign in _NOT_A_NUMBER):
        return Status.NAN, text
    if isinstance(error, MachineError) or any(
        type(link).__name__ in _UNAVAILABLE for link in _chain(error)
    ):
        return Status.UNAVAILABLE, text
    if isinstance(error, OSError) and _NO_SUCH_MODEL in text:
        return Status.UNAVAILABLE, text
    return Status.CRASHED, f"{name}: {text}"


# What torch says of a full GPU: the allocator's words, and the driver's.
_GPU_IS_FULL = ("CUDA out of memory", "CUDA error: out of memory")
# What torch says when it is to sample from weights that are no longer numbers.
_NOT_A_NUMBER = ("probability tensor contains either `inf`, `nan` or element < 0",)
# What transformers says of a name that is neither a folder nor a repository.
_NO_SUCH_MODEL = "is not a local folder and is not a valid model identifier"
# What huggingface_hub raises for a repository that is missing, gated or out of reach.
_UNAVAILABLE = frozenset(
    {
        "EntryNotFoundError",
        "GatedRepoError",
        "LocalEntryNotFoundError",
        "OfflineModeIsEnabled",
        "RepositoryNotFoundError",
        "RevisionNotFoundError",
    }
)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An exception and what it was raised from: transformers wraps the Hub's errors in OSError."""
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        link = link.__cause__ or link.__context__


def _train(spec: RunSpec, launch: Launch, attempt: Path, progress: Progress) -> Result:
    # Imported here so that a broken environment becomes a record with a reason, not a lost process;
    # and only the task's own, for some pairings of releases can do one of the two.
    check_pairing(spec.task)
    if spec.task == "sft":
        from harness.worker.sft import train_sft

        result = train_sft(spec, launch, attempt, progress)
    else:
        from harness.worker.grpo import train_grpo

        result = train_grpo(spec, launch, attempt, progress)
    if launch.parallel:
        from torch import distributed

        distributed.destroy_process_group()
    return result


def _wait_for_sampler(attempt: Path) -> list[str]:
    """Hold the run until memory is being sampled, so that loading is seen too."""
    deadline = time.monotonic() + SAMPLER_PATIENCE_S
    while not (attempt / "sampler.ready").exists():
        if time.monotonic() > deadline:
            return ["The sampler was not ready in time; the start of the run was not sampled."]
        time.sleep(0.01)
    return []


def _end(number: int, _frame: FrameType | None) -> None:
    """Leave on SIGTERM: every line written so far is on disk already."""
    sys.exit(128 + number)


if __name__ == "__main__":
    sys.exit(run_attempt(Path(sys.argv[1])))
