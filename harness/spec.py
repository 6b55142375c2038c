"""What to run: a matrix, its pairs and arms, and one run resolved to the last argument.

Everything here is a frozen pydantic model that refuses unknown keys. A run's id is a hash of its
resolved spec, so the same training is the same run wherever and whenever it is asked for, and any
change of an argument is another run. What this leaves out: reading YAML and merging defaults
(`matrix`), and what happened when a run ran (`record`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, model_validator

from harness.claim_spec import Claim
from harness.frozen import Count, Frozen, Name, PositiveInt, absent, content_hash
from harness.settings import (
    REWARDS,
    Budget,
    DatasetSpec,
    Evaluation,
    Lora,
    Model,
    Parallel,
    Probing,
    Value,
)

Task = Literal["sft", "grpo"]
Method = Literal["full", "lora"]
Scale = Literal["embedded", "small", "full", "rehearsal"]
BudgetName = Literal["short", "standard", "full"]
Objective = Literal["trl", "blog"]
Stage = Literal["select", "judge"]

# What numpy takes; a worker seeds it with the same number as torch.
Seed = Annotated[int, Field(ge=0, lt=2**32)]


class Arm(Frozen):
    """One way to train a pair."""

    method: Method = Field(description="full fine-tuning, or LoRA")
    lora: Lora | None = Field(None, description="the adapter; required by method 'lora'")
    rate_reason: str | None = Field(
        None, exclude_if=absent(None), description="where the learning rate comes from"
    )
    parallel: Parallel | None = Field(
        None, exclude_if=absent(None), description="several processes; one if null"
    )
    rates: tuple[Annotated[float, Field(ge=1e-12, lt=1)], ...] = Field(
        (),
        exclude_if=absent(()),
        description="learning rates to choose from, on the matrix's selection seeds and the "
        "validation rows; in place of trainer.learning_rate",
    )
    rate_of: Name | None = Field(
        None,
        exclude_if=absent(None),
        description="an arm of the pair with rates, whose choice this arm takes too",
    )
    seed_offset: Count = Field(
        0,
        exclude_if=absent(0),
        description="added to each seed: an arm that differs from another in nothing else is a control",
    )
    again_of: Name | None = Field(
        None,
        exclude_if=absent(None),
        description="an arm of the pair that is trained once more, the same to the last bit; everything "
        "else is that arm's (see `again`)",
    )
    trainer: dict[str, Value] = Field(
        default_factory=dict, description="arguments of TRL's config, on top of the pair's"
    )

    @model_validator(mode="after")
    def _rates_are_a_grid(self) -> Arm:
        given = [n for n in ("rates", "rate_of") if getattr(self, n)]
        given += ["trainer.learning_rate"] if "learning_rate" in self.trainer else []
        if len(given) > 1:
            raise ValueError(f"gives {' and '.join(given)}; keep one")
        if list(self.rates) != sorted(set(self.rates)) or len(self.rates) == 1:
            raise ValueError(
                f"rates {list(self.rates)}; expected two or more, lowest first, each once"
            )
        if len({rate_text(rate) for rate in self.rates}) < len(self.rates):
            raise ValueError(
                f"rates {list(self.rates)}; expected rates that differ in their first three digits, by "
                "which runs are named"
            )
        return self

    @property
    def is_swept(self) -> bool:
        """Whether its learning rate is chosen from a grid, its own or another arm's."""
        return bool(self.rates or self.rate_of)

    @model_validator(mode="after")
    def _adapter_matches_method(self) -> Arm:
        if self.method == "lora" and self.lora is None:
            raise ValueError("method 'lora' needs a `lora:` block with at least `r`")
        if self.method == "full" and self.lora is not None:
            raise ValueError("method 'full' takes no `lora:` block")
        return self


class Pair(Frozen):
    """One row of the page's tables: a task, a model and a dataset, trained by several arms."""

    task: Task = Field(description="sft or grpo")
    model: Model = Field(description="what is trained")
    dataset: DatasetSpec = Field(description="what it is trained on")
    reward: str | None = Field(
        None, description="TRL's reward function (grpo): " + ", ".join(REWARDS)
    )
    other_rewards: tuple[str, ...] = Field(
        (),
        exclude_if=absent(()),
        description="reward functions beside it, weighed by trainer.reward_weights; not in the held-out "
        "reward",
    )
    objective: Objective = Field(
        "trl",
        exclude_if=absent("trl"),
        description="'blog' sets TRL's GRPO arguments to the blog's objective; 'trl' leaves TRL's",
    )
    budgets: dict[BudgetName, Budget] = Field(
        default_factory=dict,
        exclude_if=absent({}),
        description="max_steps and evaluation.every_steps by `--budget`",
    )
    trainer: dict[str, Value] = Field(
        default_factory=dict, description="arguments of TRL's SFTConfig or GRPOConfig, both arms"
    )
    leaves_defaults: bool = Field(
        False,
        exclude_if=absent(False),
        description="the matrix's arguments for the task don't apply: TRL's own defaults stay",
    )
    evaluation: Evaluation = Field(default_factory=Evaluation, description="held-out evaluation")
    probe: Probing | None = Field(
        None, exclude_if=absent(None), description="keep what happens inside of a step (probe.json)"
    )
    arms: dict[Name, Arm] = Field(min_length=1, description="how the pair is trained")
    baseline: str = Field("full", description="the arm the others are compared with")
    declared_differences: tuple[str, ...] = Field(
        ("learning_rate",),
        description="trainer arguments in which arms may differ; any other difference stops",
    )
    margin: Annotated[float, Field(gt=0)] = Field(
        description="how much worse than the baseline still counts as a match: nats per completion "
        "token (sft) or reward (grpo)"
    )
    margin_reason: str = Field(min_length=1, description="why that margin")

    def shared(self, matrix_trainer: Mapping[Task, dict[str, Value]]) -> dict[str, Value]:
        """Return the matrix's arguments that apply to this pair."""
        return {} if self.leaves_defaults else matrix_trainer.get(self.task, {})


DEFAULT_LOOKS = (3, 5, 8, 12, 16)


class Selection(Frozen):
    """How arms with several `rates` get theirs: the best on validation rows, over seeds of its own."""

    seeds: tuple[Seed, ...] = Field(
        min_length=1, description="seeds that no arm is judged on; every rate runs with each"
    )


class Matrix(Frozen):
    """A matrix file, parsed: pairs × arms × seeds."""

    format: Literal[1] = Field(description="version of the matrix format")
    name: Name = Field(description="the matrix's name, also the study's default folder")
    title: str = Field(description="one line for humans")
    description: str = Field("", description="what it shows and what it can't")
    scale: Scale = Field(description="what the verdicts may speak for")
    device: Literal["auto", "cpu", "gpu"] = Field(
        "auto", description="where it runs; auto takes a GPU where there is one"
    )
    seeds: tuple[Seed, ...] = Field(min_length=1, description="one training run per seed and arm")
    looks: tuple[Annotated[int, Field(ge=3)], ...] = Field(
        DEFAULT_LOOKS,
        exclude_if=absent(DEFAULT_LOOKS),
        min_length=1,
        description="for --until-decided: after so many seeds claims may be decided",
    )
    selection: Selection | None = Field(
        None, exclude_if=absent(None), description="how arms with several rates get theirs"
    )
    budget: BudgetName | None = Field(
        None, exclude_if=absent(None), description="the pairs' budget that counts unless asked"
    )
    keeps_adapters: bool = Field(
        False,
        exclude_if=absent(False),
        description="save each trained adapter in its attempt's folder, for `harness publish`",
    )
    replays: bool = Field(
        False,
        exclude_if=absent(False),
        description="play the harness's frozen corpus back when all has run, for `harness compare`: "
        "rewards, chat templates, tokens, and the evaluation of one checkpoint",
    )
    timeout_s: PositiveInt = Field(3600, description="a run longer than this is ended: timeout")
    stall_s: PositiveInt = Field(600, description="a run silent for this long is ended: stalled")
    warmup_steps_excluded: Count = Field(
        5, description="first optimizer steps left out of step times and throughput"
    )
    trainer: dict[Task, dict[str, Value]] = Field(
        default_factory=dict, description="arguments for every pair of a task"
    )
    pairs: dict[Name, Pair] = Field(min_length=1, description="what is trained")
    claims: dict[Name, Claim] = Field(
        default_factory=dict,
        exclude_if=absent({}),
        description="the sentences that are judged; without any, each arm's match with its baseline",
    )

    @model_validator(mode="after")
    def _seeds_are_distinct(self) -> Matrix:
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"seeds {list(self.seeds)} hold a value twice; expected distinct ones")
        if list(self.looks) != sorted(set(self.looks)):
            raise ValueError(f"looks {list(self.looks)}; expected ascending numbers of seeds")
        chosen_on = set(self.selection.seeds) if self.selection else set()
        if chosen_on & set(self.seeds):
            raise ValueError(
                f"seeds {sorted(chosen_on & set(self.seeds))} are selection seeds too; rates are chosen "
                "on other seeds than arms are judged on"
            )
        return self


class RunSpec(Frozen):
    """One training execution, every argument resolved."""

    format: Literal[1] = 1
    pair: Name
    arm: Name
    seed: Seed
    task: Task
    method: Method
    model: Model
    dataset: DatasetSpec
    reward: str | None
    lora: Lora | None
    trainer: dict[str, Value]
    evaluation: Evaluation
    parallel: Parallel | None = Field(None, exclude_if=absent(None))
    keeps_adapter: bool = Field(False, exclude_if=absent(False))
    stage: Stage = Field("judge", exclude_if=absent("judge"))
    seed_offset: Count = Field(0, exclude_if=absent(0))
    other_rewards: tuple[str, ...] = Field((), exclude_if=absent(()))
    probe: Probing | None = Field(None, exclude_if=absent(None))

    @property
    def training_seed(self) -> int:
        """What torch, numpy and TRL are seeded with."""
        return self.seed + self.seed_offset

    @property
    def judged_split(self) -> Literal["validation", "test"]:
        """The rows that decide what the run came to: choices never see the test rows."""
        return "validation" if self.stage == "select" else "test"

    @property
    def measured_splits(self) -> tuple[Literal["validation", "test"], ...]:
        """The rows that the run is measured on before and after training."""
        return ("validation",) if self.stage == "select" else ("validation", "test")

    @property
    def cell(self) -> str:
        """The readable name that selectors match: `pair.arm.sSEED`, or `pair.arm.lrRATE.sSEED`."""
        return cell_name(self.pair, self.arm, self.seed, self.grid_rate)

    @property
    def grid_rate(self) -> float | None:
        """The rate that a run of the selection stage tries; None for a run that is judged."""
        return float(str(self.trainer["learning_rate"])) if self.stage == "select" else None

    @property
    def run_id(self) -> str:
        """The cell's name and a hash of the resolved spec."""
        return f"{self.cell}-{content_hash(self)[:8]}"


def cell_name(pair: str, arm: str, seed: int, grid_rate: float | None = None) -> str:
    """Name a run for people and selectors; `grid_rate` only where it tries a rate of a grid."""
    rate = "" if grid_rate is None else f".lr{rate_text(grid_rate)}"
    return f"{pair}.{arm}{rate}.s{seed}"


def rate_text(rate: float) -> str:
    """Write a learning rate shortly: 5e-4, 1.78e-3."""
    digits, _, exponent = f"{rate:.2e}".partition("e")
    return f"{digits.rstrip('0').rstrip('.')}e{int(exponent)}"
