"""A study as GPUs would leave it: torch's peaks, NVML's lenses, clocks; a pool, and others on the device.

The timelines of `study_factory`, with the sizes of a model of 1.2 billion fp32 parameters. What a run
holds at an instant is context + what torch reserved; the sampler reads that, torch's counters its peak.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from harness.record import Distributed, Generation, ParameterCounts, Result
from harness.samples import MEMORY_COLUMNS, DeviceSummary, PhaseRow, SamplerSummary
from harness.summary import summarise
from harness.view import RunView, StudyView
from tests.study_factory import Plan, build_matrix, build_study
from tests.study_parts import SECOND, START_NS

GIB, MIB = 2**30, 2**20
CONTEXT = int(0.75 * GIB)
WEIGHTS = 1_236_000_000
ADAPTER = 11_000_000
# What torch reserves at most in each phase, GiB, of full fine-tuning and of LoRA; a pool comes on top.
RESERVED = {
    "full": {"load": 4.7, "build": 4.7, "evaluate": 13, "generate": 19, "train": 22.5, "save": 19},
    "lora": {"load": 4.7, "build": 4.8, "evaluate": 9, "generate": 5.4, "train": 8.2, "save": 5},
}
HZ = 20.0
TASKS = ("sft", "grpo")


@dataclass(frozen=True)
class Hardware:
    """What stands behind a study."""

    gpus: int = 1
    pool_bytes: int = 0  # of a vLLM beside GRPO's trainer
    contaminated: tuple[str, ...] = ()  # cells beside which another process held 3 GiB
    has_trusted_pids: bool = True
    has_counter: bool = True
    idle_bytes: int = (
        0  # in use on every GPU, before the run and all along, by nobody that is listed
    )
    throttled: tuple[str, ...] = ()  # cells that heat slowed down


def build_gpu_study(
    hardware: Hardware | None = None, plan: Plan | None = None, tasks: Sequence[str] = TASKS
) -> StudyView:
    """Build a study of GPU runs, as the store would read it back; of some tasks, quicker."""
    machine, asked = hardware or Hardware(), plan or Plan(arms=3)
    matrix = build_matrix(asked)
    pairs = {name: pair for name, pair in matrix.pairs.items() if pair.task in tasks}
    study = build_study(asked, matrix.model_copy(update={"pairs": pairs}))
    return replace(study, runs=tuple(_on_gpus(machine, run) for run in study.runs))


def uuids(machine: Hardware) -> tuple[str, ...]:
    """The GPUs of every run, the first process's first."""
    return tuple(f"GPU-{chr(ord('a') + i) * 8}" for i in range(machine.gpus))


def _on_gpus(machine: Hardware, run: RunView) -> RunView:
    if run.record is None or run.spec is None or run.record.result is None:
        return run
    has_pool = run.spec.task == "grpo" and machine.pool_bytes > 0
    pool = machine.pool_bytes if has_pool else 0
    levels = {
        phase: int(size * GIB) + (0 if phase in ("load", "build") else pool)
        for phase, size in RESERVED[run.spec.method].items()
    }
    phases = tuple(_counted(row, levels) for row in run.phases)
    memory = _memory(machine, run, phases, levels)
    record = run.record.model_copy(
        update={
            "result": _result(machine, run, run.record.result, pool),
            "sampler": _sampler(machine, run, len(memory)),
        }
    )
    return replace(
        run,
        record=record,
        phases=phases,
        memory=memory,
        summary=summarise(run.spec, record, run.steps, phases, memory, 2),
        resolved_config={
            **run.resolved_config,
            "arguments": {**run.resolved_config["arguments"], "optim": "adamw_torch_fused"},
            "device": "cuda",
        },
    )


def _counted(row: PhaseRow, levels: dict[str, int]) -> PhaseRow:
    reserved = levels[row.phase]
    return row.model_copy(
        update={
            "torch_reserved_peak_bytes": reserved,
            "torch_allocated_peak_bytes": int(reserved * 0.96),
        }
    )


def _memory(
    machine: Hardware, run: RunView, phases: Sequence[PhaseRow], levels: dict[str, int]
) -> pd.DataFrame:
    rng = random.Random(run.planned.run_id)
    end_ns = max(row.end_ns for row in phases)
    rows: list[dict[str, Any]] = []
    for i, t in enumerate(range(START_NS, end_ns, int(SECOND / HZ))):
        rows.append({"t_ns": t, "device": "host", "rss_bytes": 3 * GIB + i * MIB, "processes": 1})
        inside = [p for p in phases if p.begin_ns <= t <= p.end_ns]
        phase = max(inside, key=lambda p: p.begin_ns).phase if inside else None
        # What torch holds rises and falls with the length of rows; the peak is reached now and then.
        held = levels[phase] * rng.choice((0.82, 0.9, 0.95, 1.0)) if phase else 0
        for place, uuid in enumerate(uuids(machine)):
            used = int(held * (1 - 0.03 * place)) + (CONTEXT if phase else 0)
            rows.append(
                {"t_ns": t, "device": uuid, **dict(_readings(machine, run, used, i, end_ns, t))}
            )
    return pd.DataFrame(rows, columns=list(MEMORY_COLUMNS))


def _readings(
    machine: Hardware, run: RunView, used: int, place: int, end_ns: int, t: int
) -> Iterator[tuple[str, Any]]:
    """What NVML says at an instant; the slow readings once a second."""
    others = (
        3 * GIB if run.planned.cell in machine.contaminated and t > START_NS + 5 * SECOND else 0
    )
    yield "nvml_device_bytes", used + others + machine.idle_bytes
    if machine.has_trusted_pids:
        yield "nvml_process_bytes", used or None
        yield "foreign_bytes", others
    if place % int(HZ) == 0 or end_ns - t < SECOND / HZ:
        watts = 300.0
        yield "power_w", watts
        yield "utilization_percent", 85.0
        yield "temperature_c", 61.0
        yield "sm_clock_mhz", 1980.0
        yield "memory_clock_mhz", 2619.0
        yield "throttle_reasons", 0x40 if run.planned.cell in machine.throttled else 0x1
        if machine.has_counter:
            yield "energy_j", watts * (t - START_NS) / SECOND


def _result(machine: Hardware, run: RunView, result: Result, pool: int) -> Result:
    is_full = run.spec is not None and run.spec.method == "full"
    several = machine.gpus > 1
    return result.model_copy(
        update={
            "device": ",".join(uuids(machine)),
            "parameters": ParameterCounts(
                total=WEIGHTS + (0 if is_full else ADAPTER),
                trainable=WEIGHTS if is_full else ADAPTER,
                matmul=WEIGHTS,
                matmul_trainable=WEIGHTS if is_full else 0,
                adapter=0 if is_full else ADAPTER,
            ),
            "generation": Generation(
                engine="vllm", version="0.31.0", mode="colocate", pool_bytes=pool, sleeps=False
            )
            if pool
            else None,
            "distributed": Distributed(
                processes=machine.gpus,
                asked="ddp",
                type="MULTI_GPU",
                wrapper="DistributedDataParallel",
            )
            if several
            else None,
        }
    )


def _sampler(machine: Hardware, run: RunView, samples: int) -> SamplerSummary:
    is_shared = run.planned.cell in machine.contaminated
    return SamplerSummary(
        requested_hz=HZ,
        achieved_hz=HZ,
        longest_gap_s=0.05,
        samples=samples,
        cpu_s=0.5,
        sampling_cpu_s=0.2,
        wall_s=20.0,
        lenses=("rss", "nvml-device"),
        gpus=uuids(machine),
        devices=tuple(
            DeviceSummary(
                uuid=uuid,
                name="A GPU of the tests",
                total_bytes=80 * GIB,
                idle_bytes=machine.idle_bytes,
                memory_version=2,
                has_trusted_pids=machine.has_trusted_pids,
                has_energy_counter=machine.has_counter,
                foreign_bytes_max=(3 * GIB if is_shared else 0)
                if machine.has_trusted_pids
                else None,
            )
            for uuid in uuids(machine)
        ),
    )
