"""How much two sides may differ before a comparison says so: every limit, with why it is that.

Rounding between releases was up to 2e-6 over 30 steps of the micro model on a CPU; reruns are identical to
the bit. Memory and time are of a shared machine and never repeat, so their limits are wide, and a cell that
is alone beyond one has to be beyond it by far.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from harness.frozen import Frozen, PositiveInt

Positive = Annotated[float, Field(gt=0)]
Ratio = Annotated[float, Field(ge=1)]


class Limits(Frozen):
    """What counts as a difference."""

    tolerance: Annotated[float, Field(gt=0, lt=1)] = Field(
        1e-5, description="relative difference of a number above which it changed"
    )
    coarse_tolerance: Annotated[float, Field(gt=0, lt=1)] = Field(
        2.0**-7,
        description="the same for runs in bfloat16 or float16, where rounding is this coarse",
    )
    growth: Ratio = Field(30, description="times as much is rounding a step after rounding began")
    grown: Positive = Field(1e-2, description="and at most so much")
    coarse_growth: Ratio = Field(4, description="the same for runs in bfloat16 or float16")
    coarse_grown: Positive = Field(0.125, description="likewise")
    steps: PositiveInt = Field(8, description="first optimizer steps that are compared exactly")
    across_machines: bool = Field(
        False, description="whether what two machines measured counts as if one had"
    )
    warmup_steps: PositiveInt = Field(1, description="first steps left out of times")
    warmup_memory_steps: PositiveInt = Field(
        5, description="first steps left out of a leak's slope"
    )
    step_ratio: Ratio = Field(1.25, description="processor time of steps, candidate over base")
    step_s: float = Field(0.005, description="and at least so many seconds a step more")
    construct_ratio: Ratio = Field(1.5, description="processor time of the trainer's constructor")
    construct_s: float = Field(0.05, description="and at least so many seconds more")
    construct_heavy_s: float = Field(
        0.3, description="so many seconds more in all arms of a pair are that pair's own"
    )
    leak_bytes: PositiveInt = Field(
        256 * 1024, description="growth of the worker's RSS a step, more than the base's"
    )
    leak_tensors: Positive = Field(
        0.5, description="live tensors that a step adds, more than the base's"
    )
    leak_tensor_bytes: Positive = Field(1024, description="and bytes of their storages")
    leak_objects: Positive = Field(2.5, description="objects tracked by Python's collector")
    leak_blocks: Positive = Field(
        16, description="blocks of Python's allocator: a row of a log is some"
    )
    leak_blocks_a_key: Positive = Field(4, description="and so many for each value logged anew")
    peak_ratio: Ratio = Field(1.25, description="growth of memory up to its peak")
    peak_bytes: PositiveInt = Field(32 * 2**20, description="and at least so many bytes more")
    throughput_ratio: Ratio = Field(1.25, description="tokens a second, base over candidate")
    in_a_pair: Ratio = Field(
        1.4,
        description="how many times further beyond it the step time of all arms of a pair has to be: they "
        "run side by side, when the machine is busy both are",
    )
    alone: Ratio = Field(
        2.0,
        description="how many times further beyond a limit a cell has to be that is alone beyond it",
    )
    alpha: Annotated[float, Field(gt=0, lt=0.5)] = Field(
        0.05, description="two-sided error rate of the statistics over seeds, shared by all cells"
    )
