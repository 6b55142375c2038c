"""What a command asks for, resolved: which runs, where they could execute, and the study they join."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import count, islice
from pathlib import Path
from typing import Any

from harness import __version__
from harness.errors import ConfigError
from harness.matrix import (
    Choices,
    LoadedMatrix,
    expand,
    load_matrix,
    margins_hash,
    matrix_hash,
    select,
    with_overrides,
)
from harness.record import PlannedRun, Study
from harness.recovery import utc_text
from harness.rehearsal import adapt
from harness.slots import Device, Slot, count_places, find_slots, refuse_unfit
from harness.spec import Matrix, RunSpec
from harness.store import Store


@dataclass(frozen=True)
class Request:
    """What `harness bench` was asked for."""

    matrix: str
    output_dir: Path | None = None
    overrides: dict[str, Any] = field(default_factory=dict)
    filters: tuple[str, ...] = ()
    seeds: tuple[int, ...] | None = None
    jobs: int | None = None
    device: Device = "auto"
    retries_failed: bool = False
    sampler_hz: float = 20.0
    memory_limit_bytes: int | None = None
    timeout_s: int | None = None
    stall_s: int | None = None
    grace_s: float = 10.0
    renders_report: bool = True
    budget: str | None = None  # one of the pairs' budgets; the matrix's own if None
    rehearses: bool = False
    maps: dict[str, str] = field(default_factory=dict)  # repository → local folder
    command: str = "harness bench"
    until_decided: bool = False  # adds seeds in the matrix's looks until every claim is decided
    max_seeds: int | None = None  # of --until-decided; the last look's if None
    seed_block: int = 0  # shifts every seed, those of the grid too: the same study on other seeds


@dataclass(frozen=True)
class Resolved:
    """A matrix resolved to the runs of a command, wherever they may run."""

    loaded: LoadedMatrix  # its matrix as this command runs it: budget and rehearsal applied
    specs: tuple[RunSpec, ...]
    output_dir: Path
    # Runs of arms whose learning rate is still to be chosen, at a rate of their grid: how many there
    # will be, and what they read. They themselves never run.
    later: tuple[RunSpec, ...] = field(default=(), kw_only=True)

    @property
    def foreseen(self) -> tuple[RunSpec, ...]:
        """Every run, as far as it can be known."""
        return (*self.specs, *self.later)


@dataclass(frozen=True)
class Plan(Resolved):
    """The runs of a command, and the places of this machine for them."""

    slots: tuple[Slot, ...]  # where it could run
    places: int  # how many of them it takes, one for each process
    jobs: int  # how many runs go side by side at most


def make_plan(request: Request) -> Plan:
    """Resolve a request, and find where it could run, without touching a study.

    Raises: ConfigError listing what is wrong with it; MachineError if the device is missing, or has
    too few GPUs for an arm.
    """
    found = resolve(request)
    slots = find_slots(found.loaded.matrix, request.device)
    refuse_unfit(found.foreseen, slots)
    places = count_places(slots, request.jobs, found.foreseen)
    return Plan(
        found.loaded,
        found.specs,
        found.output_dir,
        slots,
        places,
        request.jobs or places,
        later=found.later,
    )


def resolve(request: Request) -> Resolved:
    """Resolve a request without a look at the machine.

    Raises: ConfigError listing what is wrong with it.
    """
    # A rehearsal takes vLLM out, and with it arguments that an older TRL may not have.
    read = load_matrix(request.matrix, asks_trl=not request.rehearses)
    matrix = adapt(
        read.matrix, request.budget, rehearses=request.rehearses, seed_block=request.seed_block
    )
    loaded = replace(read, matrix=matrix)
    where = f"rehearsal of {matrix.name}" if request.rehearses else "--set"
    with_overrides(matrix, request.overrides, where)
    seeds = request.seeds
    if request.until_decided and seeds is not None:
        raise ConfigError(
            "--seeds and --until-decided: the looks of the matrix say which seeds run; keep one"
        )
    if request.max_seeds is not None and not request.until_decided:
        raise ConfigError("--max-seeds says where --until-decided ends; add --until-decided")
    if request.until_decided:
        first = seeds_of_look(matrix, looks_of(matrix, request)[0])
        request = replace(request, seeds=first)
    if seeds is not None and (not seeds or len(set(seeds)) != len(seeds)):
        raise ConfigError(f"--seeds gives {list(seeds)}; expected one or more distinct seeds")
    chosen_on = matrix.selection.seeds if matrix.selection else ()
    if set(seeds or ()) & set(chosen_on):
        raise ConfigError(
            f"--seeds gives {list(seeds or ())}; {list(chosen_on)} are the matrix's selection seeds, on "
            "which rates are chosen and no arm is judged"
        )
    specs, later = runs_with(matrix, request, {})
    name = f"{matrix.name}-rehearsal" if request.rehearses else matrix.name
    name += f"-block{request.seed_block}" if request.seed_block else ""
    return Resolved(loaded, specs, request.output_dir or Path("results") / name, later=later)


def runs_with(
    matrix: Matrix, request: Request, chosen: Choices
) -> tuple[tuple[RunSpec, ...], tuple[RunSpec, ...]]:
    """Return the runs that are asked for and known once these rates are chosen, and those to come.

    Raises: ConfigError if a filter matches none of them.
    """
    stand_ins = {
        (name, arm): each.rates[len(each.rates) // 2]
        for name, pair in matrix.pairs.items()
        for arm, each in pair.arms.items()
        if each.rates and (name, arm) not in chosen
    }
    every = expand(matrix, request.overrides, request.seeds, {**stand_ins, **chosen})
    asked = select(every, request.filters)
    later = {
        spec.run_id
        for spec in asked
        if spec.stage == "judge" and _rate_key(matrix, spec) in stand_ins
    }
    return (
        tuple(spec for spec in asked if spec.run_id not in later),
        tuple(spec for spec in asked if spec.run_id in later),
    )


def _rate_key(matrix: Matrix, spec: RunSpec) -> tuple[str, str]:
    """The arm whose grid a run's rate is chosen from."""
    return spec.pair, matrix.pairs[spec.pair].arms[spec.arm].rate_of or spec.arm


def study_of(store: Store, plan: Plan, request: Request) -> Study:
    """Return the study as it is from now on: new, or the one that is there with more runs planned.

    Raises: ConfigError if the folder holds a study of another matrix.
    """
    matrix = plan.loaded.matrix
    planned = [planned_run(spec) for spec in plan.specs]
    hashed = matrix_hash(matrix, request.overrides)
    if store.exists():
        study = store.read_study()
        if study.matrix_hash != hashed or study.seed_block != request.seed_block:
            what = (
                f"was made by matrix {study.matrix_name!r}"
                if study.matrix_name != matrix.name
                else f"was made by another version of matrix {matrix.name!r}, or with other --set, "
                "--budget, --seed-block or --rehearse"
            )
            raise ConfigError(
                f"study folder {str(store.root)!r} {what}; name another folder with --output-dir"
            )
        looks = looks_of(matrix, request)
        if request.until_decided and looks != study.looks:
            fixed = f"looks at {list(study.looks)} seeds" if study.looks else "one look"
            raise ConfigError(
                f"study folder {str(store.root)!r} was planned with {fixed}, the command asks for "
                f"{list(looks)}; looks share the error rate and are fixed before the first run: "
                "name another folder with --output-dir"
            )
        have = {p.run_id for p in study.planned}
        more = [p for p in planned if p.run_id not in have]
        return study.model_copy(update={"planned": (*study.planned, *more)})
    if store.has_runs():
        raise ConfigError(
            f"{str(store.root)!r} holds runs but no study.json, which fixes their margins; restore it, "
            "or name another folder with --output-dir"
        )
    return Study(
        matrix_name=matrix.name,
        matrix_text=plan.loaded.text,
        matrix_hash=hashed,
        margins_hash=margins_hash(matrix),
        overrides=request.overrides,
        planned=tuple(planned),
        created_utc=utc_text(datetime.now(UTC)),
        harness_version=__version__,
        command=request.command,
        budget=matrix.budget,
        is_rehearsal=request.rehearses,
        seed_block=request.seed_block,
        looks=looks_of(matrix, request),
    )


def looks_of(matrix: Matrix, request: Request) -> tuple[int, ...]:
    """Return the numbers of seeds after which claims may be decided; none without --until-decided.

    Raises: ConfigError if not even the first fits.
    """
    if not request.until_decided:
        return ()
    most = request.max_seeds or matrix.looks[-1]
    looks = tuple(look for look in matrix.looks if look <= most)
    if not looks:
        raise ConfigError(
            f"--max-seeds {most}: the first look of matrix {matrix.name!r} is at {matrix.looks[0]} seeds; "
            "expected as many or more"
        )
    return looks


def seeds_of_look(matrix: Matrix, look: int) -> tuple[int, ...]:
    """Return the first seeds of a matrix, and the numbers that follow them where it has too few."""
    taken = {*matrix.seeds, *(matrix.selection.seeds if matrix.selection else ())}
    more = (seed for seed in count(max(matrix.seeds) + 1) if seed not in taken)
    return (*matrix.seeds, *islice(more, max(0, look - len(matrix.seeds))))[:look]


def planned_run(spec: RunSpec) -> PlannedRun:
    """Return a run as study.json lists it."""
    return PlannedRun(
        run_id=spec.run_id,
        pair=spec.pair,
        arm=spec.arm,
        seed=spec.seed,
        grid_rate=spec.grid_rate,
    )


def command_text(
    asked: Mapping[str, Any],
    launcher: str = "local",
    image: str | None = None,
    versions: Sequence[str] = (),
) -> str:
    """Return the command that makes a study again from what `harness bench` was asked, places left out."""
    name = asked["matrix"]
    words = ["harness", "bench", "--matrix", Path(name).name if "/" in name else name]
    words += [w for f in asked["filters"] for w in ("--filter", f)]
    words += [w for k, v in asked["overrides"].items() for w in ("--set", f"{k}={json.dumps(v)}")]
    words += ["--budget", asked["budget"]] if asked["budget"] else []
    words += ["--rehearse"] if asked["rehearses"] else []
    words += ["--seeds", ",".join(map(str, asked["seeds"]))] if asked["seeds"] else []
    words += ["--until-decided"] if asked["until_decided"] else []
    words += ["--max-seeds", str(asked["max_seeds"])] if asked["max_seeds"] else []
    words += ["--seed-block", str(asked["seed_block"])] if asked["seed_block"] else []
    words += ["--launcher", launcher] if launcher != "local" else []
    words += ["--image", image] if image else []
    words += [w for version in versions for w in ("--trl", version)]
    return shlex.join(words)
