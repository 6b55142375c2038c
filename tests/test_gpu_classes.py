"""Classes of GPUs: each a little less than it is sold with, and in order."""

from __future__ import annotations

import pytest

from harness.gpu_classes import classes, is_hopper
from harness.rates import load_rates

SIZES = classes(load_rates(None))


def test_classes_come_smallest_first():
    assert list(SIZES.values()) == sorted(SIZES.values())


@pytest.mark.parametrize(("name", "size"), SIZES.items())
def test_a_class_shows_no_more_than_it_is_sold_with_and_not_much_less(name, size):
    sold = int(name.split()[0])
    assert 0.93 * sold * 2**30 < size <= sold * 2**30


def test_only_hoppers_are_hopper():
    assert is_hopper("H100 80GB")
    assert is_hopper("NVIDIA H200")
    assert not is_hopper("L40S 48GB")
    assert not is_hopper("NVIDIA A100-SXM4-80GB")
