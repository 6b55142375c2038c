"""What a command asks for, resolved: which runs, and where they could execute.

What this leaves out: the study they join (`study_plan`).
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from harness.claim_checks import MOST_SEED, shared_seeds
from harness.errors import ConfigError
from harness.looks import looks_up_to, seeds_of_look
from harness.matrix import (
    Choices,
    LoadedMatrix,
    expand,
    load_matrix,
    select,
    with_overrides,
)
from harness.measure.pace import HZ
from harness.packages import without_place
from harness.rehearsal import BLOCK, adapt
from harness.selection import rate_key
from harness.slots import Device, Slot, count_places, find_slots, refuse_unfit
from harness.spec import Matrix, RunSpec


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
    sampler_hz: float = HZ
    exclusive_wait_s: int | None = None  # --exclusive: how long to wait for a GPU without strangers
    memory_limit_bytes: int | None = None
    timeout_s: int | None = None
    stall_s: int | None = None
    grace_s: float = 10.0
    renders_report: bool = True
    forecasts_memory: bool = True  # before the report, which then has the scorecard
    budget: str | None = None  # one of the pairs' budgets; the matrix's own if None
    rehearses: bool = False
    maps: dict[str, str] = field(default_factory=dict)  # repository → local folder
    command: str = "harness bench"
    until_decided: bool = False  # adds seeds in the matrix's looks until every claim is decided
    max_seeds: int | None = None  # of --until-decided; the last look's if None
    seed_block: int = 0  # shifts every seed, those of the grid too: the same study on other seeds
    stack: str | None = (
        None  # the environment that runs train in; this installation, or an image, if None
    )
    read: LoadedMatrix | None = None  # the matrix as the command read it; read anew if None

    def with_matrix(self) -> Request:
        """Read the matrix now, so that an edit while a command runs changes nothing of it.

        Raises: ConfigError if it can't be read.
        """
        return replace(self, read=self.load())

    def load(self) -> LoadedMatrix:
        """Return the matrix. Raises: ConfigError if it can't be read."""
        if self.read is not None:
            return self.read
        # A rehearsal takes vLLM out, and with it arguments that an older TRL may not have.
        return load_matrix(self.matrix, asks_trl=not self.rehearses)

    def looks(self, matrix: Matrix) -> tuple[int, ...]:
        """Return the numbers of seeds after which claims may be decided; none without --until-decided.

        Raises: ConfigError if not even the first fits.
        """
        return looks_up_to(matrix, self.max_seeds) if self.until_decided else ()


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
    slots = find_slots(found.loaded.matrix, request.device, named=found.loaded.named)
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
    read = request.load()
    matrix = adapt(
        read.matrix, request.budget, rehearses=request.rehearses, seed_block=request.seed_block
    )
    loaded = replace(read, matrix=matrix)
    where = f"rehearsal of {matrix.name}" if request.rehearses else "--set"
    with_overrides(matrix, request.overrides, where)
    if request.until_decided and request.seeds is not None:
        raise ConfigError(
            "--seeds and --until-decided: the looks of the matrix say which seeds run; keep one"
        )
    if request.max_seeds is not None and not request.until_decided:
        raise ConfigError("--max-seeds says where --until-decided ends; add --until-decided")
    looks = request.looks(matrix)
    _refuse_seeds(matrix, seeds_of_look(matrix, looks[-1]) if looks else asked_seeds(request))
    first = seeds_of_look(matrix, looks[0]) if looks else None
    specs, later = runs_with(matrix, request, {}, first)
    name = f"{matrix.name}-rehearsal" if request.rehearses else matrix.name
    name += f"-block{request.seed_block}" if request.seed_block else ""
    return Resolved(loaded, specs, request.output_dir or Path("results") / name, later=later)


def asked_seeds(request: Request) -> tuple[int, ...] | None:
    """Return the seeds that a command names, in its block of seeds; None if it names none."""
    if request.seeds is None:
        return None
    return tuple(seed + request.seed_block * BLOCK for seed in request.seeds)


def _refuse_seeds(matrix: Matrix, seeds: tuple[int, ...] | None) -> None:
    """Raise: ConfigError if runs can't be judged on the seeds that a command names."""
    if seeds is None:
        return
    if not seeds or len(set(seeds)) != len(seeds):
        raise ConfigError(f"--seeds gives {list(seeds)}; expected one or more distinct seeds")
    furthest = max(arm.seed_offset for pair in matrix.pairs.values() for arm in pair.arms.values())
    if min(seeds) < 0 or max(seeds) + furthest > MOST_SEED:
        raise ConfigError(f"--seeds gives {list(seeds)}; expected seeds from 0 to below 2^32")
    chosen_on = matrix.selection.seeds if matrix.selection else ()
    if set(seeds) & set(chosen_on):
        raise ConfigError(
            f"--seeds gives {list(seeds)}; {list(chosen_on)} are the matrix's selection seeds, on "
            "which rates are chosen and no arm is judged"
        )
    shared = [f"--seeds: {'.'.join(at)}: {what}" for at, what in shared_seeds(matrix, seeds)]
    if shared:
        raise ConfigError(*shared)


def runs_with(
    matrix: Matrix, request: Request, chosen: Choices, seeds: tuple[int, ...] | None = None
) -> tuple[tuple[RunSpec, ...], tuple[RunSpec, ...]]:
    """Return the runs that are asked for and known once these rates are chosen, and those to come.

    seeds: of a look; those that the command or the matrix names if None. Raises: ConfigError if a filter
    matches none of them.
    """
    stand_ins = {
        (name, arm): each.rates[len(each.rates) // 2]
        for name, pair in matrix.pairs.items()
        for arm, each in pair.arms.items()
        if each.rates and (name, arm) not in chosen
    }
    judged = seeds or asked_seeds(request)
    every = expand(matrix, request.overrides, judged, {**stand_ins, **chosen})
    asked = select(every, request.filters)
    later = {
        spec.run_id
        for spec in asked
        if spec.stage == "judge" and rate_key(matrix, spec.pair, spec.arm) in stand_ins
    }
    return (
        tuple(spec for spec in asked if spec.run_id not in later),
        tuple(spec for spec in asked if spec.run_id in later),
    )


def command_text(
    asked: Mapping[str, Any],
    launcher: str = "local",
    image: str | None = None,
    versions: Sequence[str] = (),
    extras: Sequence[str] = (),
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
    words += [w for version in versions for w in ("--trl", without_place(version))]
    words += [w for extra in extras for w in ("--with", without_place(extra))]
    return shlex.join(words)
