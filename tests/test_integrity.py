"""Reward integrity on hand-made step rows whose figures can be worked out on paper."""

from __future__ import annotations

import pytest

from harness.integrity import RewardIntegrity, Share, average, doubts, reward_integrity
from harness.record import UNCLOSED_SHARE, UNPARSEABLE_SHARE, UNSCORED_SHARE, StepRow


def rows(*logs):
    return [
        StepRow(step=i, begin_ns=0, end_ns=1, tokens=1, samples=1, logs=values)
        for i, values in enumerate(logs, start=1)
    ]


def figures(**shares):
    given = {name: Share(all_steps=value, last_fifth=value) for name, value in shares.items()}
    names = ("unparseable", "unclosed", "unscored", "clipped", "zero_variance")
    empty = {name: Share() for name in names if name not in given}
    lengths = dict.fromkeys(("length_tokens", "length_drift_tokens", "length_drift_ratio"))
    return RewardIntegrity(**given, **empty, **lengths)


def test_shares_are_means_over_steps_and_over_the_last_fifth():
    # ten steps: a fifth is two of them
    got = reward_integrity(rows(*({UNPARSEABLE_SHARE: i / 10} for i in range(10))))
    assert got.unparseable.all_steps == pytest.approx(0.45)
    assert got.unparseable.last_fifth == pytest.approx(0.85)


def test_a_step_that_reuses_a_generation_is_left_out():
    """Two steps a generation: the second has nothing of its own, which is not a share of 0."""
    logs = ({UNCLOSED_SHARE: 1.0, "frac_reward_zero_std": 0.5}, {UNCLOSED_SHARE: None}) * 5
    got = reward_integrity(rows(*logs))
    assert got.unclosed == Share(all_steps=1.0, last_fifth=1.0)
    assert got.zero_variance == Share(all_steps=0.5, last_fifth=0.5)


def test_drift_is_the_last_fifth_of_steps_less_the_first():
    lengths = [100, 120, *[7] * 6, 160, 170]
    got = reward_integrity(rows(*({"completions/mean_length": float(v)} for v in lengths)))
    assert got.length_tokens == pytest.approx(165)
    assert got.length_drift_tokens == pytest.approx(55)
    assert got.length_drift_ratio == pytest.approx(0.5)


def test_one_step_has_a_length_and_no_drift():
    got = reward_integrity(rows({"completions/mean_length": 9.0, UNSCORED_SHARE: 0.25}))
    assert (got.length_tokens, got.length_drift_tokens, got.length_drift_ratio) == (9.0, None, None)
    assert got.unscored.all_steps == 0.25


def test_what_was_not_logged_is_not_measured():
    assert reward_integrity(rows({"loss": 0.1}, {"loss": 0.2})) == figures()
    assert reward_integrity([]) == figures()


def test_an_arm_is_the_mean_of_its_runs_and_passes_over_what_is_missing():
    got = average([figures(clipped=0.2, unparseable=0.4), figures(clipped=0.4)])
    assert got.clipped.all_steps == pytest.approx(0.3)
    assert got.unparseable.all_steps == pytest.approx(0.4)
    assert got.unscored == Share()


@pytest.mark.parametrize(
    ("shares", "expected"),
    [
        ({}, []),
        ({"unparseable": 0.5, "zero_variance": 0.9}, []),
        ({"unparseable": 0.51}, ["no answer could be read in 51% of the completions"]),
        ({"zero_variance": 0.95}, ["all completions scored the same in 95% of the groups"]),
        ({"unparseable": 1.0, "zero_variance": 1.0}, ["no answer", "all completions"]),
        ({"clipped": 1.0, "unclosed": 1.0}, []),
    ],
)
def test_a_reward_that_can_hardly_teach_is_doubted(shares, expected):
    found = doubts(figures(**shares))
    assert len(found) == len(expected)
    assert all(line.startswith(start) for line, start in zip(found, expected, strict=True))
