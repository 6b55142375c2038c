"""A file of runs whose memory is to be forecast: what `harness forecast FILE` reads.

It takes runs of any training loop, not only those of a matrix, so that a forecast can be held against what
others measured. `tests/data/forecast-public.yaml` is one.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Discriminator, Field, Tag, ValidationError, model_validator

from harness.catalog import MODELS, ModelFacts
from harness.errors import ConfigError, did_you_mean
from harness.frozen import Frozen, Name, PositiveInt
from harness.matrix_file import as_mapping, explain, keep_plain, place, read_yaml
from harness.row_lengths import Rows
from harness.settings import DatasetSpec, Evaluation, Lora, Model, Precision
from harness.sizes import count_groups
from harness.spec import RunSpec
from harness.subject import LEAST_TOKENS, Adapter, Device, Loop, Subject
from harness.workload import Pool, Workload


class Measured(Frozen):
    """What somebody measured of the run."""

    gib: Annotated[float, Field(gt=0)] = Field(description="highest value of the lens, in GiB")
    lens: Literal["torch-reserved", "torch-allocated", "nvml-device", "rss"] = "torch-reserved"
    source: str = Field("", description="who measured it, and where it stands")


class Sampling(Frozen):
    """What samples the completions of a GRPO run, and the memory that this takes beside the step."""

    by: Literal["vllm", "transformers", "server"] = Field(
        description="vllm: in the same process, with a share of the card; server: on other GPUs"
    )
    share: Annotated[float, Field(gt=0, le=1)] | None = Field(
        None, description="of the card that vLLM takes (vllm_gpu_memory_utilization)"
    )
    sleeps: bool = Field(
        False, description="vLLM gives its share back while training (vllm_enable_sleep_mode)"
    )
    completions: PositiveInt | None = Field(
        None,
        description="that transformers samples at once; null: those of an optimizer step, as in TRL",
    )

    @model_validator(mode="after")
    def _fields_are_of_the_engine(self) -> Self:
        if (self.by == "vllm") != (self.share is not None):
            raise ValueError("expected a share with by: vllm, and with nothing else")
        if self.sleeps and self.by != "vllm":
            raise ValueError("only by: vllm sleeps; leave sleeps out")
        if self.completions is not None and self.by != "transformers":
            raise ValueError("completions are of by: transformers; leave them out")
        return self


class Shape(ModelFacts):
    """The shape of a model that is not in the catalog; what no memory hangs on may be absent."""

    hidden: PositiveInt
    layers: PositiveInt
    heads: PositiveInt
    kv_heads: PositiveInt
    head_dim: PositiveInt
    ffn: PositiveInt
    vocab: PositiveInt
    repository: str = "a model of this shape"
    parameters: Annotated[int, Field(ge=0)] = Field(0, description="0: counted from the shape")
    licence: str = ""
    is_gated: bool = False
    is_base: bool = True

    @property
    def facts(self) -> ModelFacts:
        """The shape as the catalog would have it."""
        facts = ModelFacts(**self.model_dump())
        return facts.model_copy(update={"parameters": self.parameters or count_groups(facts).total})


# Told apart by what stands there, so that what is wrong with a shape is not also called no name.
ModelName = Annotated[
    Annotated[str, Tag("name")] | Annotated[Shape, Tag("shape")],
    Discriminator(lambda found: "name" if isinstance(found, str) else "shape"),
]


class AskedRun(Frozen):
    """One run."""

    model: ModelName = Field(description="a name of the catalog, or a shape")
    dtype: Precision = Field("bfloat16", description="of the base weights")
    lora: Adapter | None = Field(None, description="the adapter; absent is full fine-tuning")
    loop: Loop = Field(
        "sft", description="sft or grpo: TRL's loss; transformers: labels passed to it"
    )
    batch: PositiveInt = Field(description="rows of a micro batch")
    accumulation: PositiveInt = 1
    steps: PositiveInt | None = Field(
        None, description="optimizer steps of the run; null: unknown, 200 batches are drawn"
    )
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
    beta: Annotated[float, Field(ge=0)] = Field(
        0.0, description="of GRPO, TRL's default; above 0 full fine-tuning holds a reference model"
    )
    sampling: Sampling | None = Field(
        None, description="of GRPO; absent: the training step alone is forecast, and said to be"
    )
    gpu: str | None = Field(
        None, description="a GPU of the rate card; absent is the card's default"
    )
    device: Device = "cuda"
    measured: Measured | None = None

    @model_validator(mode="after")
    def _fields_go_together(self) -> Self:
        rows, is_cpu, is_grpo = self.length, self.device == "cpu", self.loop == "grpo"
        has_vllm = self.sampling is not None and self.sampling.by == "vllm"
        problems = (
            (
                rows.longest < LEAST_TOKENS,
                f"length.longest: expected {LEAST_TOKENS} or more: shorter rows are traced too, and each "
                "needs a token to predict",
            ),
            (
                rows.mean is not None and rows.mean > rows.longest,
                "length.mean: expected no more than length.longest",
            ),
            (
                rows.mean is None and rows.sorted_batches is not None,
                "length.sorted_batches: rows of one length have no order; add length.mean",
            ),
            (
                not is_grpo and (self.beta > 0 or self.sampling is not None),
                "beta and sampling are of loop: grpo; leave them out",
            ),
            (
                is_cpu and (self.gpu is not None or self.empties_cache_every > 0),
                "gpu and empties_cache_every are of a GPU, and device is cpu; leave them out",
            ),
            (is_cpu and has_vllm, "sampling: by: vllm is of a GPU, and device is cpu"),
        )
        found = [said for is_wrong, said in problems if is_wrong]
        if found:
            raise ValueError("; ".join(found))
        return self

    @property
    def is_whole(self) -> bool:
        """Whether all that the run holds while it trains is known, and not its training step alone."""
        return self.loop != "grpo" or self.sampling is not None

    @property
    def has_padding(self) -> bool:
        """Whether rows of a batch differ in length."""
        return self.batch > 1 and self.length.mean is not None

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader must know of the forecast."""
        found = []
        if not self.is_whole:
            found.append(
                "the training step alone: what samples the completions is not given, so no GPU is said to "
                "hold the run; add sampling: {by: vllm, share: 0.3}, transformers or server"
            )
        if self.device == "cpu" and self.length.mean is not None:
            used = "says only that attention has a mask" if self.has_padding else "is not used"
            found.append(f"on a CPU every row counts as the longest; length.mean {used}")
        return tuple(found)

    def subject(self, where: str) -> Subject:
        """Say what the run's step is made of.

        Raises: ConfigError for a model that the catalog does not have.
        """
        return Subject(
            facts=self.facts(where),
            dtype=self.dtype,
            adapter=self.lora,
            loop=self.loop,
            batch=self.batch,
            accumulation=min(2, self.accumulation),
            has_autocast=self.has_autocast,
            has_checkpointing=self.has_checkpointing,
            optim=self.optim,
            scored_share=self.scored_share,
            has_padding=self.has_padding,
            keeps_gradients=self.keeps_gradients,
            device=self.device,
            has_reference=self.beta > 0 and self.lora is None,
        )

    def facts(self, where: str) -> ModelFacts:
        """Return the model's shape.

        Raises: ConfigError for a model that the catalog does not have.
        """
        facts = MODELS.get(self.model) if isinstance(self.model, str) else self.model.facts
        if facts is None:
            raise ConfigError(
                f"{where}: model: {self.model!r} is not in the catalog"
                f"{did_you_mean(str(self.model), MODELS)}; expected one of {', '.join(MODELS)}, or a shape"
            )
        return facts

    def workload(self) -> Workload:
        """Say what the run asks of its GPU, in the words of a matrix's runs."""
        sampling, longest = self.sampling, self.length.longest
        pool = None
        if sampling is not None and sampling.share is not None:
            pool = Pool(sampling.share, tensor_parallel=1, sleeps=sampling.sleeps, longest=None)
        generates = 0
        if sampling is not None and sampling.by == "transformers":
            generates = sampling.completions or self.batch * self.accumulation
        return Workload(
            processes=1,
            strategy=None,
            batch=self.batch,
            accumulation=self.accumulation,
            length=longest,
            scored=max(1, round(longest * self.scored_share)),
            mean_length=self.length.mean or longest,
            mean_completion=0,
            weight_bytes=4 if self.dtype == "float32" else 2,
            has_autocast=self.has_autocast,
            has_checkpointing=self.has_checkpointing,
            optim=self.optim,
            pool=pool,
            generates=generates,
            steps=self.steps,
            rows=None,
        )

    def spec(self, name: str) -> RunSpec:
        """Return the run as one of a matrix, as far as what stands beside a step asks; it has no rows."""
        lora = self.lora
        adapter = None
        if lora is not None:
            adapter = Lora(r=lora.r, lora_alpha=lora.lora_alpha, target_modules=lora.target_modules)
        return RunSpec(
            pair=name,
            arm=name,
            seed=0,
            task="grpo" if self.loop == "grpo" else "sft",
            method="full" if lora is None else "lora",
            model=Model(source="a file of runs", dtype=self.dtype),
            dataset=DatasetSpec(name="none", train_rows=1, test_rows=1),
            reward=None,
            lora=adapter,
            trainer={},
            evaluation=Evaluation(),
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
    data, unplain = keep_plain(as_mapping(data, path.name))
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
