"""Forecasting a study's arms, once they have trained and before the report is rendered.

A forecast rests on an arm's spec and on the kind of device it ran on, and on nothing that was measured,
so it is the same before and after. It is made last because tracing takes a processor, and a run's times
would show it. Runs of a rehearsal are other models than their matrix says, and probes are not about
memory: neither is forecast.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from harness import __version__
from harness.arm_forecast import question, training_on_cpu, training_on_gpu
from harness.errors import NewerFormatError, StudyError
from harness.forecasts import (
    CPU,
    ArmMemory,
    Forecasts,
    device_of,
    read_forecasts,
    write_forecasts,
)
from harness.gpu_classes import is_hopper
from harness.memory_trace import Trace
from harness.rates import RateCard, load_rates
from harness.spec import Matrix, RunSpec
from harness.store import Store
from harness.subject import Device
from harness.trace_cache import Progress, traced_libraries, traces

Key = tuple[str, str, str]  # pair, arm, device


@dataclass(frozen=True)
class TrainedArm:
    """An arm that has trained, and on what."""

    spec: RunSpec
    device: str  # 'cpu', or a GPU's name
    gpu_bytes: int = 0

    @property
    def kind(self) -> Device:
        """Whose kernels ran."""
        return "cpu" if self.device == CPU else "cuda"


def trained_arms(store: Store) -> dict[Key, TrainedArm]:
    """Find a study's arms with each kind of device that a run of theirs says it ran on.

    Runs that can't be read are left out.
    """
    found: dict[Key, TrainedArm] = {}
    for planned in store.read_study().planned:
        try:
            spec = store.read_spec(planned.run_id)
            record = store.read_record(planned.run_id) if spec else None
        except StudyError:  # the report names it
            continue
        if spec is None or spec.probe is not None or record is None:
            continue
        attempt = store.run_dir(planned.run_id) / f"attempt-{record.attempt}"
        device = device_of(record, store.read_plain(attempt, "environment.json"))
        if device is not None:
            arm = TrainedArm(spec, device.name, device.gpu_bytes)
            found.setdefault((planned.pair, planned.arm, device.name), arm)
    return found


def keep_forecasts(
    store: Store,
    matrix: Matrix,
    *,
    is_anew: bool = False,
    tell: Callable[[int], None] = lambda _: None,
    progress: Progress | None = None,
    is_wanted: Callable[[], bool] = lambda: True,
) -> Forecasts | None:
    """Forecast the arms that have none yet, or all of them anew, and keep that; None if there are none.

    `tell` is called with the number of arms before any is traced. Raises: NewerFormatError if a newer
    harness wrote what is kept; StudyError if it can't be read and is not made anew.
    """
    kept = _kept(store, is_anew)
    known = {
        (arm.pair, arm.arm, arm.device): arm
        for each in kept
        for arm in each.arms
        if arm.forecast is not None
    }
    arms = {} if is_exempt(store, matrix) else trained_arms(store)
    missing = {key: arm for key, arm in arms.items() if key not in known}
    if not missing:
        return kept[0] if kept else None
    tell(len(missing))
    made = forecast_arms(missing, load_rates(None), progress, is_wanted)
    if not is_wanted():
        return None
    forecasts = Forecasts(
        made_utc=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        harness_version=__version__,
        libraries=traced_libraries(),
        arms=tuple({**known, **made}.values()),
    )
    write_forecasts(store, forecasts)
    return forecasts


def _kept(store: Store, is_anew: bool) -> tuple[Forecasts, ...]:
    """What stands and is added to. Made anew, it is replaced: damaged or not, but never a newer one."""
    try:
        kept = read_forecasts(store)
    except NewerFormatError:
        raise
    except StudyError:
        if not is_anew:
            raise
        return ()
    return () if is_anew else kept


def is_exempt(store: Store, matrix: Matrix) -> bool:
    """Whether a study's runs are not what memory is forecast for: toys of a rehearsal, or probes."""
    return store.read_study().is_rehearsal or matrix.scale == "rehearsal" or matrix.replays


def forecast_arms(
    arms: Mapping[Key, TrainedArm],
    card: RateCard,
    progress: Progress | None = None,
    is_wanted: Callable[[], bool] = lambda: True,
) -> dict[Key, ArmMemory]:
    """Forecast arms on the devices that they trained on; equal steps are traced once."""
    asked = {key: question(arm.spec, card, arm.kind) for key, arm in arms.items()}
    questions = {key: found for key, found in asked.items() if not isinstance(found, str)}
    answers = traces(list(questions.values()), progress, is_wanted)
    traced = dict(zip(questions, answers, strict=True))
    made = {}
    for key, arm in arms.items():
        answer = traced.get(key, str(asked[key]))
        if arm.device == CPU:
            forecast = training_on_cpu(arm.spec, answer, card)
        else:
            hopper = is_hopper(arm.device)
            forecast = training_on_gpu(arm.spec, answer, card, arm.gpu_bytes, hopper)
        why = None if isinstance(answer, Trace) else answer
        made[key] = ArmMemory(
            pair=key[0],
            arm=key[1],
            device=arm.device,
            gpu_bytes=arm.gpu_bytes or None,
            forecast=forecast,
            why=why,
        )
    return made
