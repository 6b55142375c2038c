"""A rate card says where each number comes from, and a bad one is refused in sentences."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import ConfigError
from harness.rates import SHIPPED, Assumed, load_rates, parse_rates

TEXT = SHIPPED.read_text(encoding="utf-8")


def test_every_number_of_the_shipped_card_names_its_source():
    card = load_rates()
    numbers = [v for gpu in card.gpus.values() for _, v in gpu if isinstance(v, Assumed)]
    numbers += [value for _, value in card if isinstance(value, Assumed)]
    assert len(numbers) == 7 * len(card.gpus) + 5
    assert all(number.source and number.value > 0 for number in numbers)
    assert set(card.gpus) == {"H100 80GB", "H200 141GB", "A100 80GB", "L40S 48GB"}


@pytest.mark.parametrize(
    ("device", "mebibytes", "name"),
    [
        ("NVIDIA H100 80GB HBM3", 81559, "H100 80GB"),
        ("NVIDIA A100-SXM4-80GB", 81920, "A100 80GB"),
        ("NVIDIA A100-SXM4-40GB", 40960, None),
        ("NVIDIA H200", 143771, "H200 141GB"),
        ("NVIDIA L40S", 46068, "L40S 48GB"),
        ("NVIDIA L40", 46068, None),
        ("Tesla T4", 15360, None),
    ],
)
def test_a_driver_s_name_finds_its_rates(device, mebibytes, name):
    assert load_rates().named_like(device, mebibytes * 2**20) == name


def test_an_unknown_gpu_lists_the_known():
    with pytest.raises(ConfigError, match=r"did you mean 'H200 141GB'.*--rate-card"):
        load_rates().gpu("H200 140GB")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (TEXT.replace("value: 4.0", "value: -4"), "found -4, expected greater than 0"),
        (TEXT.replace("gigabytes: 141", "gigabits: 141"), "no key of a rate card (did you mean"),
        (TEXT.replace("default_gpu: H100 80GB", "default_gpu: H300"), "default_gpu is 'H300'"),
        (TEXT.replace('source: "as H100; edit me"', 'source: ""'), "source"),
        (TEXT.replace("format: 1", "format: 2"), "format"),
        (TEXT.replace("value: 0.05", "value: .nan"), "expected a finite number"),
        ("gpus: [", "not readable YAML"),
        ("- 1", "expected a mapping of keys"),
    ],
)
def test_a_bad_card_says_what_and_where(text, expected):
    with pytest.raises(ConfigError) as caught:
        parse_rates(text, "mine.yaml")
    assert expected in str(caught.value)
    assert "mine.yaml" in str(caught.value)


def test_a_card_that_is_not_there_is_one_sentence(tmp_path: Path):
    with pytest.raises(ConfigError, match="can't be read: No such file"):
        load_rates(tmp_path / "none.yaml")
