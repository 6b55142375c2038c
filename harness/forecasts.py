"""`forecast.json`: what each arm of a study was forecast to hold while it trains.

It stands beside the records and enters no hash (docs/decisions/0009): a study without it is whole. What
this leaves out: making it (`study_forecast`), and how far it was off (`scorecard`).

Format history:
  1  first format
"""

from __future__ import annotations

from pydantic import Field

from harness.forecast import Forecast
from harness.frozen import Frozen
from harness.samples import FORMAT
from harness.store import Store, read_model

FILE = "forecast.json"


class ArmMemory(Frozen):
    """One arm's forecast."""

    pair: str
    arm: str
    device: str = Field(description="'cpu', or the name of the GPU that it is reckoned with")
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

    def of(self, pair: str, arm: str) -> ArmMemory | None:
        """Return an arm's forecast."""
        return next((a for a in self.arms if (a.pair, a.arm) == (pair, arm)), None)


def read_forecasts(store: Store) -> tuple[Forecasts, ...]:
    """Read what was forecast; nothing if nothing was kept.

    Raises: StudyError if it is there and can't be read.
    """
    path = store.root / FILE
    return (read_model(path, Forecasts),) if path.is_file() else ()


def write_forecasts(store: Store, forecasts: Forecasts) -> None:
    """Write what was forecast."""
    store.write_json(store.root / FILE, forecasts.model_dump(mode="json"))
