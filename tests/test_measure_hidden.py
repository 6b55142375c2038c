"""Why CUDA would show no GPU is said with the value that was found."""

from __future__ import annotations

import pytest

from harness.measure.gpus import GpuList, describe_gpus, visible_gpus
from harness.measure.hidden import explain_none
from tests.fake_nvml import FakeNvml

HIDES = "CUDA_VISIBLE_DEVICES hides the 2 GPUs of this machine: "


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("", "it is empty"),
        (" ", "it is empty"),
        (",0", "',0' begins with an empty entry"),
        ("7", "it says '7', and they are numbered 0, 1"),
        ("7,0", "it says '7', and they are numbered 0, 1"),
        ("-1", "it says '-1', and they are numbered 0, 1"),
        ("GPU-zzz", "no GPU here has a UUID that begins with 'GPU-zzz'"),
        ("MIG-1", "no MIG slice here has a UUID that begins with 'MIG-1'"),
        ("GPU-a", "'GPU-a' fits 2 of them, GPU-aaaa and GPU-abbb"),
        ("foo", "'foo' is neither the number of one nor the beginning of its UUID (GPU-…, MIG-…)"),
        ("0,0", "'0,0' names a GPU twice"),
    ],
)
def test_a_value_that_leaves_no_gpu_is_said_with_what_is_wrong_in_it(value, why):
    found = describe_gpus(FakeNvml())
    assert visible_gpus(found.gpus, value) == ()
    assert explain_none(found, value) == HIDES + why


def test_where_no_gpu_is_the_driver_s_own_words_say_why():
    assert explain_none(GpuList((), "no NVML: nothing there"), "7") == "no NVML: nothing there"
    assert explain_none(GpuList(()), None) == "NVML lists no GPU"
