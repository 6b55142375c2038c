"""What each arm of a matrix would need and cost, and whether the machine can give it.

Values in, values out: the GPU is passed in, so that a plan for a machine without one reckons with a
GPU of the rate card.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from pydantic import Field

from harness.catalog import MODELS, ModelFacts
from harness.costs import Cost, Work, estimate_work, price
from harness.estimate import Memory, estimate_memory, pool_note, pool_problem, smallest_sharding
from harness.frozen import Frozen
from harness.rates import GpuRates, RateCard
from harness.spec import Method, RunSpec, Task
from harness.text import memory as in_gib
from harness.workload import Workload, workload

_STRATEGIES = {"ddp": "DDP", "fsdp2": "FSDP2", "zero3": "ZeRO-3"}


@dataclass(frozen=True)
class Ground:
    """The GPUs that a plan reckons with."""

    card: RateCard
    rates: GpuRates  # speed and price
    name: str  # of the GPU whose memory counts
    memory_bytes: int
    gigabytes: int  # its size as sold
    here: int | None  # how many this machine has; None if the plan is for another machine
    has_tiles: bool  # whether TRL scores tokens in tiles

    @property
    def size(self) -> str:
        """Its size in a sentence."""
        return f"{self.gigabytes} GB"


class ArmOutlook(Frozen):
    """One arm: what each of its runs needs and costs."""

    pair: str
    arm: str
    task: Task
    method: Method
    model: str
    dataset: str
    cells: tuple[str, ...] = Field(description="its runs")
    gpus: int = Field(description="how many a run asks for; 0 on the CPU")
    strategy: str | None
    memory: Memory | None = Field(description="of one GPU; null: unknown")
    gpu_bytes: int = Field(description="what one GPU has")
    fits: bool | None = Field(description="the GPUs it asks for; null: unknown")
    fewest_gpus: int | None = Field(description="on how many it fits, sharded by FSDP2 beyond one")
    verdict: str
    work: Work | None = Field(description="of one run; null: unknown")
    cost: Cost | None = Field(description="of one run; null: unknown")
    skips: tuple[str, ...] = Field(description="why its runs would not train here")
    notes: tuple[str, ...] = Field(description="what to look at before it runs")

    @property
    def runs(self) -> int:
        """How many runs it has."""
        return len(self.cells)

    @property
    def usd(self) -> float | None:
        """Price of all its runs."""
        return None if self.cost is None else self.cost.usd * self.runs


class Purse(Frozen):
    """Which runs an amount of money pays for, in the order they would run."""

    limit_usd: float
    spent_usd: float
    paid: tuple[str, ...] = Field(description="cells that it pays for")
    unpaid: tuple[str, ...] = Field(description="cells after the money is gone")
    unknown: tuple[str, ...] = Field(description="cells whose price is not known")
    skipped: tuple[str, ...] = Field(description="cells too large for their GPUs, at no price")


def outlook(
    specs: Sequence[RunSpec], ground: Ground, device: str, missing: dict[str, str]
) -> list[ArmOutlook]:
    """Look at every arm once. `missing` says which cells lack access to a repository, and why."""
    arms: dict[tuple[str, str], list[RunSpec]] = {}
    for spec in specs:
        arms.setdefault((spec.pair, spec.arm), []).append(spec)
    return [_arm(runs, ground, device, missing) for runs in arms.values()]


def spend(specs: Sequence[RunSpec], arms: Sequence[ArmOutlook], limit_usd: float) -> Purse:
    """Pay for runs in plan order until the first that the money does not reach; none after it."""
    by_name = {(arm.pair, arm.arm): arm for arm in arms}
    paid: list[str] = []
    unpaid: list[str] = []
    unknown: list[str] = []
    skipped: list[str] = []
    spent = 0.0
    for spec in specs:
        arm = by_name[spec.pair, spec.arm]
        if arm.fits is False:
            skipped.append(spec.cell)
        elif arm.cost is None:
            unknown.append(spec.cell)
        elif unpaid or spent + arm.cost.usd > limit_usd:
            unpaid.append(spec.cell)
        else:
            paid.append(spec.cell)
            spent += arm.cost.usd
    return Purse(
        limit_usd=limit_usd,
        spent_usd=spent,
        paid=tuple(paid),
        unpaid=tuple(unpaid),
        unknown=tuple(unknown),
        skipped=tuple(skipped),
    )


def _arm(
    runs: Sequence[RunSpec], ground: Ground, device: str, missing: dict[str, str]
) -> ArmOutlook:
    spec = runs[0]
    facts = MODELS.get(spec.model.source)
    load = workload(spec, ground.card)
    memory = fewest = work = cost = problem = note = None
    if facts is not None:
        memory = _memory(spec, facts, load, ground)
        fewest = smallest_sharding(
            spec, facts, load, ground.memory_bytes, ground.card, has_tiles=ground.has_tiles
        )
        problem = pool_problem(facts, load, ground.memory_bytes)
        note = pool_note(facts, load, ground.memory_bytes)
        work = estimate_work(spec, facts, load)
        cost = price(spec, work, load, ground.rates) if work else None
    fits = None if memory is None else memory.total_bytes <= ground.memory_bytes
    if problem is not None:
        fewest = cost = None  # more GPUs hold no larger pool each, and nothing would be paid for
    skips = [*_skips(load, ground, device, fits), *([problem] if problem else [])]
    skips += dict.fromkeys(missing[r.cell] for r in runs if r.cell in missing)
    return ArmOutlook(
        pair=spec.pair,
        arm=spec.arm,
        task=spec.task,
        method=spec.method,
        model=spec.model.source,
        dataset=spec.dataset.name,
        cells=tuple(r.cell for r in runs),
        gpus=0 if device == "cpu" else load.processes,
        strategy=load.strategy,
        memory=memory,
        gpu_bytes=ground.memory_bytes,
        fits=fits if problem is None else False,
        fewest_gpus=fewest,
        verdict=_verdict(spec, facts, load, ground, memory, fewest) if problem is None else problem,
        work=work,
        cost=cost,
        skips=tuple(skips),
        notes=(note,) if note else (),
    )


def _memory(spec: RunSpec, facts: ModelFacts, load: Workload, ground: Ground) -> Memory | None:
    return estimate_memory(
        spec, facts, load, ground.memory_bytes, ground.card, has_tiles=ground.has_tiles
    )


def _verdict(
    spec: RunSpec,
    facts: ModelFacts | None,
    load: Workload,
    ground: Ground,
    memory: Memory | None,
    fewest: int | None,
) -> str:
    if facts is None:
        ships = spec.model.source.startswith(("embedded:", "toy:"))
        return f"{'ships with the harness; ' * ships}shape not in the catalog: memory unknown"
    if memory is None:
        return "no bound on the length of a row: memory unknown"
    need = f"{in_gib(memory.total_bytes)} of {in_gib(ground.memory_bytes)}"
    fits = memory.total_bytes <= ground.memory_bytes
    asked, several = load.processes, f"{load.processes} × {ground.size}"
    how = _STRATEGIES.get(load.strategy or "", "")
    others = f"{fewest} × {ground.size} with FSDP2 do" if fewest else "no number of them does"
    if fewest == 1:
        others = "one does"
    one = f"does not fit one {ground.size} GPU"
    if asked == 1 and fits:
        return f"fits one {ground.size} GPU ({need})"
    if asked == 1:
        return f"{one} ({need}); {others}{_remedy(spec, facts, load, ground)}"
    if fits:
        lead = "fits one GPU too" if fewest == 1 else one
        asks = f"the {several} with {how} that it asks for hold it ({need} each)"
        return f"{lead}; {asks}{f', {fewest} would do' if fewest and 1 < fewest < asked else ''}"
    asks = f"does not fit the {several} with {how} that it asks for ({need} each)"
    return f"{asks}; {others}{_remedy(spec, facts, load, ground)}"


def _remedy(spec: RunSpec, facts: ModelFacts, load: Workload, ground: Ground) -> str:
    """Name the first single argument with which a run would fit where it is to run."""
    for name, tried, changed in _changes(spec, load):
        memory = _memory(tried, facts, changed, ground)
        if memory is not None and memory.total_bytes <= ground.memory_bytes:
            return f"; or with {name} ({in_gib(memory.total_bytes)})"
    return ""


def _changes(spec: RunSpec, load: Workload) -> Iterator[tuple[str, RunSpec, Workload]]:
    size = spec.evaluation.batch_size // 2
    while size:
        evaluation = spec.evaluation.model_copy(update={"batch_size": size})
        smaller = spec.model_copy(update={"evaluation": evaluation})
        yield f"evaluation.batch_size {size}", smaller, load
        size //= 2
    if load.pool and not load.pool.sleeps:
        sleeping = replace(load, pool=replace(load.pool, sleeps=True))
        yield "vllm_enable_sleep_mode", spec, sleeping
    if not load.has_checkpointing:
        yield "gradient_checkpointing", spec, replace(load, has_checkpointing=True)
    if load.batch > 1:
        yield "per_device_train_batch_size 1", spec, replace(load, batch=1)


def _skips(load: Workload, ground: Ground, device: str, fits: bool | None) -> Iterator[str]:
    if device == "cpu":
        return
    if ground.here == 0 and device == "gpu":
        yield "no GPU here"
    elif ground.here and load.processes > ground.here:
        yield f"asks for {load.processes} GPUs, this machine has {ground.here}"
    if fits is False:
        yield f"too large for {load.processes} × {ground.size}, by formulas"
