"""Synthetic sides of a comparison: deterministic runs of SFT and GRPO, full and LoRA, with faults to order.

A run's numbers follow from its pair, method and seed alone, so two sides are identical to the last bit
until something is changed on purpose. GRPO's loss is about 1e-8, as on-policy losses are.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from harness.compare.side import RunSide, Side
from harness.probe import Check, Probe, ProbeStep
from harness.record import EvaluationPoint, Status

STEPS = 12
GROUPS = {"full": ("attention", "mlp"), "lora": ("attention.lora_A", "attention.lora_B")}
PACKAGES: dict[str, str | None] = {
    "trl": "1.16.0", "transformers": "5.17.0", "peft": "0.21.2", "torch": "2.13.0+cpu",
    "accelerate": "1.15.0", "triton": None,
}  # fmt: skip
PLATFORM = {"system": "Linux", "machine": "x86_64", "cpu_model": "Some CPU", "cpu_cores_logical": 2}
MIB = 2**20
Change = Callable[[RunSide], RunSide]


def make_side(
    change: Change = lambda run: run,
    *,
    label: str = "TRL 1.16.0",
    pairs: Sequence[str] = ("sft-plain", "sft-packed", "grpo-plain"),
    arms: Mapping[str, str] | None = None,
    seeds: Sequence[int] = (0,),
    packages: Mapping[str, str | None] = PACKAGES,
    noise: random.Random | None = None,
    steps: int = STEPS,
    **more: Any,
) -> Side:
    """Make a side; `change` is put over every run, `noise` makes memory and time unlike."""
    arms = arms or {"full": "full", "lora-r4": "lora"}
    runs = tuple(
        change(make_run(pair, arm, method, seed, steps=steps, noise=noise))
        for pair in pairs
        for arm, method in arms.items()
        for seed in seeds
    )
    return Side(
        label=label,
        matrix_name="upgrade",
        matrix_hash="0" * 64,
        harness_version="0.1.0",
        created_utc="2026-01-02T03:04:05Z",
        packages=dict(packages),
        runs=runs,
        margins=dict.fromkeys(pairs, 0.02),
        runs_count=len(runs),
        **{"platform": PLATFORM, "variables": {"OMP_NUM_THREADS": "1"}, **more},
    )


def make_run(
    pair: str,
    arm: str,
    method: str,
    seed: int,
    *,
    steps: int = STEPS,
    noise: random.Random | None = None,
) -> RunSide:
    """Make a run that ended ok."""
    task = pair.split("-", 1)[0]
    rng = random.Random(f"{pair}.{method}.{seed}")
    probe = make_probe(task, method, steps, rng, noise)
    losses = [0.5 * sum(v or 0.0 for v in step.losses) for step in probe.steps]
    series: dict[str, tuple[float | None, ...]] = {
        "loss": tuple(losses),
        "grad_norm": tuple(
            math.sqrt(sum((v or 0.0) ** 2 for v in s.gradient.values())) for s in probe.steps
        ),
        "learning_rate": (1e-3,) * steps,
        "num_tokens": tuple(float(900 * (i + 1)) for i in range(steps)),
        "entropy": tuple(2.0 - 0.05 * i + rng.gauss(0, 0.01) for i in range(steps)),
        "step_time": tuple(0.1 + rng.random() for _ in range(steps)),
    }
    if task == "grpo":
        series["reward"] = tuple(0.3 + 0.02 * i + rng.gauss(0, 0.01) for i in range(steps))
        series["reward_std"] = tuple(0.4 + rng.gauss(0, 0.01) for _ in range(steps))
        series["kl"] = (1e-9, *(abs(rng.gauss(0, 1e-3)) for _ in range(steps - 1)))
    metric: Any = "nll" if task == "sft" else "reward"
    value = 1.5 + rng.gauss(0, 0.005) if task == "sft" else 0.4 + rng.gauss(0, 0.005)
    points = tuple(
        EvaluationPoint(step=s, split="test", metric=metric, value=v, rows=64, wall_s=0.1)
        for s, v in ((0, value), (steps, 0.8 * value))
    )
    return RunSide(
        cell=f"{pair}.{arm}.s{seed}",
        pair=pair,
        arm=arm,
        seed=seed,
        task=task,  # type: ignore[arg-type]
        method=method,  # type: ignore[arg-type]
        spec_sha256=hashlib.sha256(f"{pair}.{arm}.{seed}".encode()).hexdigest(),
        status=Status.OK,
        config={
            "trainer": f"{task.upper()}Trainer",
            "arguments": {"learning_rate": 1e-3, "beta": 0.0, "seed": seed, "bf16": False},
            "lora": {"default": {"r": 4, "peft_version": "0.21.2"}} if method == "lora" else None,
            "device": "cpu",
        },
        series=series,
        tokens=(900,) * steps,
        step_wall_s=tuple(0.1 * _about(noise, 0.1) for _ in range(steps)),
        probe=probe,
        evaluations=points,
        peak_bytes={"rss": {"training": int(500 * MIB * _about(noise, 0.01))}},
        growth_bytes={"rss": int(110 * MIB * _about(noise, 0.04))},
        adapter_sha256="ab" * 32 if method == "lora" else None,
    )


def make_probe(
    task: str, method: str, steps: int, rng: random.Random, noise: random.Random | None
) -> Probe:
    """Make a probe: its times and RSS follow `noise` where it is given, as on a shared machine."""
    pace = _about(noise, 0.05)
    rss = 500.0 * MIB * _about(noise, 0.01)
    rows = []
    for step in range(1, steps + 1):
        if noise is not None:
            rss += max(0.0, noise.gauss(40e3, 60e3)) + (2 * MIB if noise.random() < 0.1 else 0)
        scale = 3e-8 if task == "grpo" else 2.0
        rows.append(
            ProbeStep(
                step=step,
                cpu_s=0.1 * (1 + 0.2 * (step % 3)) * pace * _about(noise, 0.06),
                rss_bytes=int(rss),
                losses=tuple(scale * (1 + rng.gauss(0, 0.1)) for _ in range(2)),
                batches=tuple(digest(f"{step}.{i}.{rng.random()}") for i in range(2)),
                counts={"sequences": 8, "input_tokens": 900 + step, "trained_tokens": 700 + step},
                numbers={"advantages/mean": 1e-9 * rng.random(), "advantages/l2": 2.0}
                if task == "grpo"
                else {},
                gradient={g: 0.3 + 0.1 * rng.random() for g in GROUPS[method]},
                update={g: 1e-3 * step + 1e-5 * rng.random() for g in GROUPS[method]},
                sha256=digest(f"weights {step} {rng.random()}"),
            )
        )
    return Probe(
        construct_cpu_s=0.8 * _about(noise, 0.12),
        dtypes={"torch.float32": 1000},
        initial_sha256=digest(f"initial {task} {method}"),
        steps=tuple(rows),
        checks={
            "resume": Check(value=True, what="A run resumed half way comes to the same weights."),
            "merge/logits": Check(
                value=(0.5, -1.25), is_exact=False, what="The logits of the merged model."
            ),
        },
    )


def digest(text: str) -> str:
    """A short stand-in for a hash."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def scale_log(run: RunSide, key: str, factor: float, begin: int = 1) -> RunSide:
    """Multiply a logged series from a step on."""
    series = tuple(
        None if v is None else v * (factor if i + 1 >= begin else 1.0)
        for i, v in enumerate(run.series[key])
    )
    return run.model_copy(update={"series": {**run.series, key: series}})


def scale_gradient(run: RunSide, factor: float, begin: int = 1) -> RunSide:
    """What a gradient that is scaled wrongly does: norms, logged norm and weights, from a step on."""
    return change_steps(
        scale_log(run, "grad_norm", factor, begin),
        lambda step: {
            "gradient": {g: None if v is None else v * factor for g, v in step.gradient.items()},
            "update": {g: None if v is None else v * factor for g, v in step.update.items()},
            "sha256": digest(step.sha256),
        },
        begin,
    )


def round_all(run: RunSide, size: float = 1e-7) -> RunSide:
    """Move every number of the run by a share of itself, either way, as another order of sums does."""
    rng = random.Random(run.cell)

    def moved(value: float | None) -> float | None:
        return None if value is None else value * (1 + size * rng.choice((-1, 1)) * rng.random())

    series = {
        key: values if key in ("num_tokens", "step_time") else tuple(map(moved, values))
        for key, values in run.series.items()
    }
    changed = change_steps(
        run,
        lambda step: {
            "losses": tuple(map(moved, step.losses)),
            "gradient": {g: moved(v) for g, v in step.gradient.items()},
            "update": {g: moved(v) for g, v in step.update.items()},
            "sha256": digest(step.sha256),
        },
    )
    return changed.model_copy(update={"series": series})


def change_steps(
    run: RunSide, change: Callable[[ProbeStep], dict[str, Any]], begin: int = 1
) -> RunSide:
    """Change the probe's steps from one on."""
    assert run.probe is not None
    steps = tuple(s.model_copy(update=change(s)) if s.step >= begin else s for s in run.probe.steps)
    return run.model_copy(update={"probe": run.probe.model_copy(update={"steps": steps})})


def only(condition: Callable[[RunSide], bool], change: Change) -> Change:
    """Change the runs that meet a condition."""
    return lambda run: change(run) if condition(run) else run


def _about(noise: random.Random | None, spread: float) -> float:
    return 1.0 if noise is None else math.exp(noise.gauss(0, spread))
