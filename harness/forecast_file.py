"""A file of runs whose memory is to be forecast: what `harness forecast FILE` reads.

It takes runs of any training loop, not only those of a matrix, so that a forecast can be held against what
others measured. `tests/data/forecast-public.yaml` is one.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from harness.catalog import MODELS, ModelFacts
from harness.errors import ConfigError, did_you_mean
from harness.forecast import Rows
from harness.frozen import Frozen, Name, PositiveInt
from harness.matrix_file import explain, keep_plain, place, read_yaml
from harness.settings import Precision
from harness.subject import Adapter, Device, Loop, Subject


class Measured(Frozen):
    """What somebody measured of the run."""

    gib: Annotated[float, Field(gt=0)] = Field(description="highest value of the lens, in GiB")
    lens: Literal["torch-reserved", "torch-allocated", "nvml-device", "rss"] = "torch-reserved"
    source: str = Field("", description="who measured it, and where it stands")


class AskedRun(Frozen):
    """One run."""

    model: str | ModelFacts = Field(description="a name of the catalog, or a shape")
    dtype: Precision = Field("bfloat16", description="of the base weights")
    lora: Adapter | None = Field(None, description="the adapter; absent is full fine-tuning")
    loop: Loop = Field(
        "sft", description="sft or grpo: TRL's loss; transformers: labels passed to it"
    )
    batch: PositiveInt = Field(description="rows of a micro batch")
    accumulation: PositiveInt = 1
    length: Rows = Field(description="of a row, in tokens")
    has_autocast: bool = Field(False, description="bf16=True of a Trainer, or torch.autocast")
    has_checkpointing: bool = Field(False, description="gradient checkpointing")
    optim: str = Field(
        "adamw_torch", description="by transformers' names; torch.optim.AdamW is this one"
    )
    scored_share: Annotated[float, Field(gt=0, le=1)] = 1.0
    keeps_gradients: bool = Field(
        False, description="zero_grad() when the next step begins, instead of at the end of one"
    )
    empties_cache_every: Annotated[int, Field(ge=0)] = Field(
        0, description="steps between calls of empty_cache(); 0: never"
    )
    gpu: str | None = Field(
        None, description="a GPU of the rate card; absent is the card's default"
    )
    device: Device = "cuda"
    measured: Measured | None = None

    def subject(self, where: str) -> Subject:
        """Say what the run's step is made of.

        Raises: ConfigError for a model that the catalog does not have.
        """
        facts = MODELS.get(self.model) if isinstance(self.model, str) else self.model
        if facts is None:
            raise ConfigError(
                f"{where}: model: {self.model!r} is not in the catalog"
                f"{did_you_mean(str(self.model), MODELS)}; expected one of {', '.join(MODELS)}, or a shape"
            )
        return Subject(
            facts=facts,
            dtype=self.dtype,
            adapter=self.lora,
            loop=self.loop,
            batch=self.batch,
            accumulation=min(2, self.accumulation),
            has_autocast=self.has_autocast,
            has_checkpointing=self.has_checkpointing,
            optim=self.optim,
            scored_share=self.scored_share,
            keeps_gradients=self.keeps_gradients,
            device=self.device,
        )


class ForecastFile(Frozen):
    """The whole file."""

    format: Literal[1]
    runs: dict[Name, AskedRun] = Field(min_length=1)


def load_forecast_file(path: Path) -> ForecastFile:
    """Read a file of runs.

    Raises: ConfigError listing everything that is wrong with it.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        what = getattr(error, "strerror", None) or "not UTF-8 text"
        raise ConfigError(
            f"{str(path)!r} can't be read: {what}; expected a YAML file of runs"
        ) from None
    data, root = read_yaml(text, path.name)
    if not isinstance(data, dict):
        raise ConfigError(f"{path.name}: found {type(data).__name__}, expected a mapping of keys")
    data, unplain = keep_plain(data)
    problems = [f"{place(at, path.name, root)}: {what}" for at, what in unplain.items()]
    try:
        read = ForecastFile.model_validate_json(json.dumps(data))
    except ValidationError as error:
        problems += [
            explain(detail, path.name, root, ForecastFile, "a forecast file")
            for detail in error.errors()
        ]
        raise ConfigError(*dict.fromkeys(problems)) from None
    if problems:
        raise ConfigError(*problems)
    return read
