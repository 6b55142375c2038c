"""The rate card: what a plan assumes of GPUs, their memory, speed and price.

Every number is an assumption and carries its source; none is measured here. The shipped card is
`rates.yaml` beside this module, and `--rate-card FILE` replaces it whole.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Generic, Literal, TypeVar

from pydantic import Field, ValidationError, model_validator

from harness.errors import ConfigError, did_you_mean
from harness.frozen import Frozen, PositiveInt
from harness.matrix_file import as_mapping, explain, keep_plain, place, read_yaml

SHIPPED = Path(__file__).parent / "rates.yaml"

Share = Annotated[float, Field(gt=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
T = TypeVar("T")


class Assumed(Frozen, Generic[T]):
    """A number nobody measured here, and where it comes from."""

    value: T
    source: str = Field(min_length=1, description="where it comes from, or 'edit me'")


class GpuRates(Frozen):
    """One kind of GPU."""

    gigabytes: PositiveInt = Field(description="its size as it is sold, for sentences only")
    memory_bytes: Assumed[PositiveInt] = Field(description="all of its memory")
    peak_bf16_flops: Assumed[Positive] = Field(description="bf16 FLOP/s without sparsity")
    memory_bytes_per_s: Assumed[Positive] = Field(
        description="bandwidth of its memory, which bounds a step of generate() from below"
    )
    training_utilization: Assumed[Share] = Field(
        description="share of the peak that a training step reaches, recomputation not counted as work"
    )
    vllm_utilization: Assumed[Share] = Field(description="share that vLLM reaches when sampling")
    transformers_utilization: Assumed[Share] = Field(
        description="share that transformers' generate() reaches when sampling"
    )
    usd_per_hour: Assumed[Positive] = Field(description="price of one GPU for an hour")


class RateCard(Frozen):
    """What a plan assumes."""

    format: Literal[1]
    default_gpu: str = Field(description="the GPU that a plan reckons with unless asked")
    context_bytes: Assumed[Annotated[int, Field(ge=0)]] = Field(
        description="CUDA's context, workspaces and NCCL's buffers, per GPU"
    )
    bare_context_bytes: Assumed[Annotated[int, Field(ge=0)]] = Field(
        default=Assumed(value=805_306_368, source="0.75 GiB, measured on an H100 (docs/gpu.md)"),
        description="what NVML shows beyond torch's reserved memory, per GPU: CUDA's context and "
        "libraries that torch does not account for",
    )
    fragmentation: Assumed[Annotated[float, Field(ge=0, lt=1)]] = Field(
        description="what the caching allocator holds beyond the tensors in use, as a share"
    )
    completion_share: Assumed[Share] = Field(
        description="mean completion length over max_completion_length"
    )
    prompt_tokens: Assumed[PositiveInt] = Field(
        description="length of a prompt where neither the matrix nor the catalog bounds it"
    )
    gpus: dict[str, GpuRates] = Field(min_length=1, description="by name")

    @model_validator(mode="after")
    def _default_is_listed(self) -> RateCard:
        if self.default_gpu not in self.gpus:
            raise ValueError(
                f"default_gpu is {self.default_gpu!r}, expected one of {', '.join(self.gpus)}"
            )
        return self

    def gpu(self, name: str | None) -> tuple[str, GpuRates]:
        """Return a GPU's name and rates, the default's if none is named.

        Raises: ConfigError if the card has no such GPU.
        """
        name = name or self.default_gpu
        if name not in self.gpus:
            known = ", ".join(repr(n) for n in self.gpus)
            raise ConfigError(
                f"--gpu {name!r} is not on the rate card{did_you_mean(name, self.gpus)}; expected one "
                f"of {known}, or a card that has it with --rate-card FILE"
            )
        return name, self.gpus[name]

    def named_like(self, device: str, memory_bytes: int) -> str | None:
        """Name the GPU that a driver calls 'NVIDIA H100 80GB HBM3': same model, same memory."""
        words = device.replace("-", " ").split()
        for name, rates in self.gpus.items():
            is_near = abs(memory_bytes / rates.memory_bytes.value - 1) < 0.1
            if is_near and name.split()[0] in words:
                return name
        return None


def load_rates(path: Path | None = None) -> RateCard:
    """Read a rate card, the shipped one unless a file is given.

    Raises: ConfigError listing everything that is wrong with it.
    """
    file = path or SHIPPED
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        what = getattr(error, "strerror", None) or "not UTF-8 text"
        raise ConfigError(
            f"rate card {str(file)!r} can't be read: {what}; expected a YAML file like the shipped "
            f"{SHIPPED.name}"
        ) from None
    return parse_rates(text, file.name)


def parse_rates(text: str, where: str) -> RateCard:
    """Parse a rate card's text; `where` names it in messages.

    Raises: ConfigError listing everything that is wrong with it.
    """
    data, root = read_yaml(text, where)
    data, unplain = keep_plain(as_mapping(data, where))
    problems = [f"{place(path, where, root)}: {what}" for path, what in unplain.items()]
    try:
        card = RateCard.model_validate_json(json.dumps(data))
    except ValidationError as error:
        problems += [
            explain(detail, where, root, RateCard, "a rate card") for detail in error.errors()
        ]
        raise ConfigError(*dict.fromkeys(problems)) from None
    if problems:
        raise ConfigError(*problems)
    return card
