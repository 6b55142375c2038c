"""`forecast.json`: what each arm of a study was forecast to hold while it trains.

It stands beside the records and enters no hash (docs/decisions/0009): a study without it is whole. An arm
whose runs ran on several kinds of device has a forecast of each. What this leaves out: making it
(`study_forecast`), and how far it was off (`scorecard`).

Format history:
  1  first format
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from pydantic import Field

from harness.forecast import Forecast
from harness.frozen import Count, Frozen, absent
from harness.record import Record
from harness.samples import FORMAT
from harness.store import Store, read_model

FILE = "forecast.json"
CPU = "cpu"  # record.Result.device of a run that trained without a GPU


class ArmMemory(Frozen):
    """One arm's forecast."""

    pair: str
    arm: str
    device: str = Field(description="'cpu', or the name of the GPU that it is reckoned with")
    gpu_bytes: Count | None = Field(
        None, exclude_if=absent(None), description="all memory of that GPU; null on a CPU"
    )
    forecast: Forecast | None = Field(
        description="the training phases, held-out evaluations left out; null: see `why`"
    )
    why: str | None = Field(description="why it is not traced; null where it is")


class Forecasts(Frozen):
    """The whole file."""

    format: int = FORMAT
    made_utc: str
    harness_version: str
    libraries: dict[str, str | None] = Field(description="whose code was traced, and its versions")
    arms: tuple[ArmMemory, ...]

    def of(self, pair: str, arm: str, device: str | None = None) -> ArmMemory | None:
        """Return an arm's forecast, on a kind of device or on the first that it has one of."""
        own = (a for a in self.arms if (a.pair, a.arm) == (pair, arm))
        return next((a for a in own if device in (None, a.device)), None)


class Device(NamedTuple):
    """What a run ran on: 'cpu', or the name of its GPUs and the memory of one of them."""

    name: str
    gpu_bytes: int = 0


def device_of(record: Record, environment: Mapping[str, Any]) -> Device | None:
    """Say on what a run ran; None if neither its worker nor its sampler told.

    A run that an exception ended, as a full GPU does, leaves no device in its result: the GPUs that its
    sampler read are then meant. `environment` is its environment.json.
    """
    told = record.result.device if record.result else None
    if told == CPU:
        return Device(CPU)
    sampler = record.sampler
    uuids = told.split(",") if told else list(sampler.gpus) if sampler else []
    if not uuids:
        return None
    known = dict(_described(environment))
    if sampler:
        noted = {
            d.uuid: Device(d.name or "GPU", d.total_bytes) for d in sampler.devices if d.total_bytes
        }
        known = {**noted, **known}
    own = [known[uuid] for uuid in uuids if uuid in known]
    # A GPU that is not listed can be told only where all that are listed are alike.
    alike = set(known.values())
    return own[0] if own else alike.pop() if len(alike) == 1 else None


def _described(environment: Mapping[str, Any]) -> Iterator[tuple[str, Device]]:
    """The GPUs and their slices whose size an environment tells, by UUID."""
    gpus = [gpu for gpu in environment.get("gpus") or () if isinstance(gpu, dict)]
    slices = [
        part for gpu in gpus for part in gpu.get("mig_slices") or () if isinstance(part, dict)
    ]
    for gpu in (*gpus, *slices):
        if isinstance(gpu.get("total_bytes"), int):
            yield str(gpu.get("uuid")), Device(str(gpu.get("name") or "GPU"), gpu["total_bytes"])


def read_forecasts(store: Store) -> tuple[Forecasts, ...]:
    """Read what was forecast; nothing if nothing was kept.

    Raises: StudyError if it is there and can't be read.
    """
    path = store.root / FILE
    return (read_model(path, Forecasts),) if path.is_file() else ()


def write_forecasts(store: Store, forecasts: Forecasts) -> None:
    """Write what was forecast."""
    store.write_json(store.root / FILE, forecasts.model_dump(mode="json"))
