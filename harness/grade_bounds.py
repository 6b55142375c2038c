"""From where on a measurement is graded lower, each bound with its reason.

A: nothing was found. B: a figure is a little uncertain, or something was not measured. C: an order
of size. D: no verdict may rest on it. The bounds are the harness's own choice where no source is
named; what they rest on stands beside them.
"""

from __future__ import annotations

from typing import Literal

Grade = Literal["A", "B", "C", "D"]
GRADES: tuple[Grade, ...] = ("A", "B", "C", "D")

# --- Gaps. Training repeats itself, so a peak that one step hides is seen in another: a gap longer than
# a step is a doubt, one of ten steps a large one; half of training unseen is no measurement. Nor is one
# that ended before training did, as a lost GPU's does, if more than a tenth was left.
GAP_STEPS_C = 10.0
GAP_SHARE_C, GAP_SHARE_D = 0.1, 0.5  # of the training time, evaluations left out on both sides
FEWEST_SAMPLES_C, FEWEST_SAMPLES_D = 10, 2  # in training
# A missed peak that torch bounds at so small a share of what was seen makes a gap harmless.
HARMLESS_MISS = 0.01

# --- Rate, achieved over asked for. On a machine whose cores are busy a sampler process kept 98 % of
# 100 Hz and 96 % of 200 Hz, so less than 90 % is a machine short of time.
RATE_B, RATE_C, RATE_D = 0.9, 0.5, 0.1

# --- Steps that were counted after warm-up. AdamW's state is there from the first step on; what varies
# after it is the length of rows, which a few steps do not cover.
FEWEST_STEPS_B, FEWEST_STEPS_C = 10, 3

# --- Throttling, shares of the samples in training. Bits of nvmlClocksEventReasons (nvml.h).
SLOWED_BITS = (
    0x8 | 0x20 | 0x40 | 0x80
)  # hardware slowdown, thermal (software, hardware), power brake
CAPPED_BITS = (
    0x4 | 0x10
)  # software power cap, sync boost: usual under load, and slower all the same
SLOWED_B, SLOWED_C = 0.01, 0.1
CAPPED_B = 0.1

# --- Clock drift: SM clock of the last fifth of training over that of the first.
DRIFT_FIFTH = 0.2
DRIFT_B, DRIFT_C = 0.05, 0.15

# --- Contamination: what others hold on the device while training, as a share of the lens's own peak.
# Less than this leaves a ratio of two peaks where it was, to a percent.
FOREIGN_D = 0.01
# In use before a run by nobody that is listed. An idle driver holds less: 0 to 38 MiB by version 2 of the
# memory query; version 1 counts in what the driver keeps for itself, 0.5 to 0.9 GiB.
DRIVER_BYTES = 64 * 2**20
OLD_DRIVER_BYTES = 2**30

# --- Disagreement of NVML with torch. A CUDA context took 0.51 GiB and workspaces of libraries 0.24 more
# on an H100 (docs/gpu.md): 0.75 above torch's reservation in each of six runs. The rate card assumes 1.5;
# what is left is for other drivers and cards. Processes that communicate (NCCL) keep buffers of their own.
CONTEXT_BYTES = 2 * 2**30
COMMUNICATION_BYTES = 2**30
BEYOND_C = 0.25  # share of NVML's figure that nothing explains
SHORT_SLACK_BYTES = 64 * 2**20  # torch's counter and a sample are not of the same instant
SHORT_B, SHORT_C, SHORT_D = 0.02, 0.1, 0.5  # share of torch's reservation that NVML did not see


def worst(grades: list[Grade]) -> Grade:
    """Return the lowest of several grades; A of none."""
    return max(grades, key=GRADES.index, default="A")
