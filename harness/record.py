"""What happened when a run ran: statuses, and the models of every file of an attempt.

Two processes meet in these files. The worker writes `steps.jsonl`, `phases.jsonl`,
`resolved_config.json` and `result.json`; the sampler writes memory samples and `sampler.json`; the
supervisor seals all of it into `record.json`, last. Values are raw: anything that can be derived is
derived again by `summary`, so a better formula needs no new run. Missing is null.

Format history (the number in every file):
  1  first format
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import Field

from harness.frozen import Count, Frozen, absent
from harness.samples import FORMAT, SamplerSummary
from harness.spec import cell_name

Split = Literal["train", "validation", "test"]
MetricName = Literal["nll", "reward"]

# What the harness counts for a step beside what TRL logs, by its names in StepRow.logs: shares of the
# completions sampled for the step; null where it reuses an earlier generation.
UNPARSEABLE_SHARE = "integrity/unparseable"  # the reward found no answer in what it judges
UNCLOSED_SHARE = "integrity/unclosed_reasoning"  # no `</think>`
UNSCORED_SHARE = "integrity/unscored"  # the reward function returned None


class Status(StrEnum):
    """How an attempt ended. A failed run is data: it is shown and counted, never dropped."""

    OK = "ok"
    OOM_GPU = "oom-gpu"
    OOM_HOST = "oom-host"
    NAN = "nan"
    DIVERGED = "diverged"
    TIMEOUT = "timeout"
    STALLED = "stalled"
    CRASHED = "crashed"
    CONFIG = "config"
    UNAVAILABLE = "unavailable"
    CANCELLED = "cancelled"
    CONTAMINATED = "contaminated"


# What training itself came to: trying again would give the same, so the run is done.
OUTCOMES = frozenset({Status.OK, Status.NAN, Status.DIVERGED, Status.OOM_GPU, Status.OOM_HOST})
# Accidents around training: the same command tries again.
ACCIDENTS = frozenset(Status) - OUTCOMES


class EvaluationPoint(Frozen):
    """One held-out measurement."""

    step: Count = Field(description="optimizer steps done before it; 0 is the base model")
    split: Split
    metric: MetricName = Field(
        description="nll: nats per completion token, tokens pooled over rows; reward: mean over "
        "sampled completions"
    )
    value: float | None = Field(description="null when it was not finite or nothing was scored")
    rows: Count
    tokens: Count | None = Field(None, description="completion tokens it pools (nll)")
    unscored: Count = Field(0, description="completions the reward function returned None for")
    completions: Count | None = Field(
        None, exclude_if=absent(None), description="completions that were sampled (reward)"
    )
    unparseable: Count | None = Field(
        None,
        exclude_if=absent(None),
        description="completions in which the reward function found no answer",
    )
    unclosed: Count | None = Field(
        None,
        exclude_if=absent(None),
        description="completions without the end of a reasoning block",
    )
    wall_s: float


class ParameterCounts(Frozen):
    """Integers of the model that trained."""

    total: Count = Field(description="all parameters, adapter included, tied weights once")
    trainable: Count
    matmul: Count = Field(
        description="base weights that multiply activations, output head included"
    )
    matmul_trainable: Count = Field(description="those of them that are trained (0 under LoRA)")
    adapter: Count = Field(description="adapter weights")


class Source(Frozen):
    """A repository that a run read, and at which commit."""

    repository: str
    kind: Literal["model", "dataset"]
    commit: str | None = Field(
        None, description="null for a mapped folder, an embedded model, generated or fixture rows"
    )
    is_mapped: bool = Field(False, description="a local folder took the repository's place (--map)")


class Translation(Frozen):
    """A trainer argument that did not reach the installed TRL as the matrix gives it."""

    argument: str
    value: str = Field(description="as the matrix gives it, as JSON")
    became: str | None = Field(description="what was passed, as 'name=value'; null if nothing was")
    why: str = Field(description="one sentence")


class Generation(Frozen):
    """What sampled the completions of a GRPO run."""

    engine: Literal["transformers", "vllm"]
    version: str | None = None
    mode: str | None = Field(None, description="colocate or server (vllm)")
    pool_bytes: Count | None = Field(
        None, description="memory that the engine reserves for its key-value cache"
    )
    sleeps: bool | None = Field(None, description="whether it frees its pool while training runs")


class Distributed(Frozen):
    """How many processes trained, and what really wrapped the model."""

    processes: Annotated[int, Field(ge=1)]
    asked: str = Field(description="the strategy of the matrix")
    type: str = Field(description="accelerate's DistributedType")
    wrapper: str = Field(description="the class of the wrapped model, or of its sharded blocks")


class Result(Frozen):
    """`result.json`: the worker's last word, written by temp file and rename."""

    format: int = FORMAT
    status: Status
    reason: str | None = Field(None, description="one sentence for a status that is not ok")
    steps_done: Count = 0
    train_wall_s: float | None = Field(
        None, description="trainer.train() alone, evaluations on the way included"
    )
    parameters: ParameterCounts | None = None
    evaluations: tuple[EvaluationPoint, ...] = ()
    device: str | None = Field(None, description="'cpu', or the GPUs' UUIDs with commas between")
    started_warm: bool = Field(
        False, description="forked from a server that had imported the libraries"
    )
    adapter_sha256: str | None = Field(None, description="trainable weights before step 1, hashed")
    unusable_rows: tuple[str, ...] = Field(
        (), description="dataset rows left out, one sentence each"
    )
    notes: tuple[str, ...] = Field(
        (), description="what a reader must know, e.g. arguments not passed"
    )
    unusable_count: Count = Field(
        0,
        exclude_if=absent(0),
        description="rows left out in all; above 50, unusable_rows holds the first ones and the "
        "attempt's unusable_rows.txt every one",
    )
    sources: tuple[Source, ...] = Field((), exclude_if=absent(()))
    translations: tuple[Translation, ...] = Field((), exclude_if=absent(()))
    generation: Generation | None = Field(None, exclude_if=absent(None))
    distributed: Distributed | None = Field(None, exclude_if=absent(None))


class StepRow(Frozen):
    """A line of `steps.jsonl`: one optimizer step. Times are time.monotonic_ns of the host."""

    step: int = Field(ge=1)
    begin_ns: int
    end_ns: int
    tokens: Count | None = Field(description="non-padding tokens of the batch: prompt + completion")
    samples: Count | None = Field(description="sequences trained on in this step")
    generated_tokens: Count | None = Field(
        None, description="completion tokens sampled for it (grpo)"
    )
    logs: dict[str, float | None] = Field(description="what TRL logged for it, by TRL's names")


class Exit(Frozen):
    """How a worker process ended."""

    code: int | None = Field(None, description="exit code, null when a signal ended it")
    signal: int | None = None
    ended_by: Literal["itself", "supervisor", "outside"] = "itself"


class Container(Frozen):
    """The container that an attempt ran in, as it was asked for."""

    name: str = Field(description="unique; how the engine and a left-over's finder know it")
    engine: str = Field(description="the engine and its version, e.g. 'docker 20.10.24'")
    image: str = Field(description="as the command named it")
    image_id: str = Field(description="the engine's own digest of the image: sha256:…")
    digest: str | None = Field(
        None, description="a registry's digest of it (repository@sha256:…); null if never pushed"
    )
    user: str = Field(description="uid:gid that the worker runs as")
    network: str = Field("none", description="the engine's network mode")
    memory_limit_bytes: Count | None = Field(
        None, description="the container's limit, enforced by its cgroup; null is unlimited"
    )


class Attempt(Frozen):
    """One try at a run."""

    number: int = Field(ge=1)
    status: Status
    reason: str | None = None
    launcher: str
    started_utc: str = Field(description="ISO 8601, seconds, Z")
    ended_utc: str
    wall_s: float = Field(ge=0)
    exit: Exit
    container: Container | None = Field(
        None, exclude_if=absent(None), description="null: a process of the supervisor's own machine"
    )


class Record(Frozen):
    """`record.json`: a run is done when this file is valid and its status is an outcome."""

    format: int = FORMAT
    run_id: str
    harness_version: str
    status: Status
    reason: str | None = None
    attempt: int = Field(ge=1, description="the attempt that this record speaks of")
    attempts: tuple[Attempt, ...] = Field(min_length=1)
    result: Result | None = None
    sampler: SamplerSummary | None = None
    files: dict[str, str] = Field(
        default_factory=dict, description="SHA-256 of the attempt's raw files when it was sealed"
    )
    sha256: str | None = Field(None, description="of this record's canonical JSON, this field null")

    @property
    def is_done(self) -> bool:
        """Whether the same command leaves this run alone."""
        return self.status in OUTCOMES


class PlannedRun(Frozen):
    """A run as study.json lists it."""

    run_id: str
    pair: str
    arm: str
    seed: int
    grid_rate: float | None = Field(
        None,
        exclude_if=absent(None),
        description="the learning rate that the run tries, for an arm that chooses from several; null "
        "for a run that its arm is judged by",
    )
    chosen_rate: float | None = Field(
        None,
        exclude_if=absent(None),
        description="the learning rate that was chosen from a grid for a run that its arm is judged "
        "by; null where there is no grid. A grid that is tried again may choose another",
    )

    @property
    def cell(self) -> str:
        """The readable name that selectors match."""
        return cell_name(self.pair, self.arm, self.seed, self.grid_rate)


class Study(Frozen):
    """`study.json`: written before the first run."""

    format: int = FORMAT
    matrix_name: str
    matrix_text: str = Field(description="the matrix file as it was read")
    matrix_hash: str = Field(
        description="of the parsed matrix and the overrides, without the seeds"
    )
    margins_hash: str = Field(description="of the pairs' margins alone: a later change is post hoc")
    overrides: dict[str, Any] = Field(default_factory=dict, description="--set key=value")
    planned: tuple[PlannedRun, ...]
    created_utc: str
    harness_version: str
    command: str = Field(description="the command that made it, paths left out")
    budget: str | None = Field(None, exclude_if=absent(None), description="--budget")
    is_rehearsal: bool = Field(False, exclude_if=absent(False), description="--rehearse")
    seed_block: Count = Field(0, exclude_if=absent(0), description="--seed-block")
    stack: str | None = Field(
        None,
        exclude_if=absent(None),
        description="what an environment of its own made of it, e.g. 'TRL 0.22.2, transformers 4.57.6'; "
        "null: what was installed beside the harness, or in the image",
    )
    looks: tuple[int, ...] = Field(
        (),
        exclude_if=absent(()),
        description="--until-decided: the numbers of seeds after which claims may be decided, fixed before "
        "the first run; they share the error rate. Empty: claims are judged once",
    )
