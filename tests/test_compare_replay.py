"""Two replays are told apart a function at a time; text exactly, numbers up to rounding."""

from __future__ import annotations

import pytest

from harness.compare.replay import (
    evaluation_changed,
    is_used,
    kind_of,
    replay_differences,
)

BASE = {
    "corpus/sha256": "abc",
    "reward/accuracy_reward/fraction": 1.0,
    "reward/accuracy_reward/percent": 0.0,
    "reward/accuracy_reward/no-gold": None,
    "template/plain/single": "Question: How many?\nAnswer:",
    "data/sft/completion-only/labels": "[[-100, 7]]",
    "loss/sft/completion-only/loss": 8.080146789550781,
    "loss/entropy_from_logits/bfloat16/value/0": 1.6796875,
    "evaluation/nll/value": 3.1591651778504524,
    "evaluation/greedy/0": "<think>3+5=8</think>\\boxed{12}<|end|>",
    "shipped/template-rendered/qwen3": "27 conversations, 0 refused, sha256 1f2e",
}


def differ(**changes: object):
    """The differences from BASE once some items are other; `None` as a name's value takes it away."""
    candidate = dict(BASE)
    for name, value in changes.items():
        candidate[name] = value
    return replay_differences(BASE, candidate)


def without(*names: str):
    return {name: value for name, value in BASE.items() if name not in names}


def test_equal_replays_differ_in_nothing():
    assert replay_differences(BASE, dict(BASE)) == ()


def test_a_replay_that_one_side_lacks_is_said_and_not_comparable():
    for found, who in (
        (replay_differences({}, BASE), "base"),
        (replay_differences(BASE, {}), "candidate"),
    ):
        assert [d.word for d in found] == ["not comparable"]
        assert f"the {who} has no replay" in found[0].sentence
    assert replay_differences({}, {}) == ()


def test_a_score_that_differs_is_a_changed_reward_and_is_shown():
    (found,) = differ(**{"reward/accuracy_reward/percent": 1.0})
    assert (found.layer, found.kind, found.word) == ("replay", "reward", "changed")
    assert found.what == "reward/accuracy_reward"
    assert found.base == {"reward/accuracy_reward/percent": 0.0}
    assert found.candidate == {"reward/accuracy_reward/percent": 1.0}
    assert found.sentence == (
        "reward/accuracy_reward differs in 1 of 3 items: percent: 0.0 became 1.0"
    )


def test_a_function_is_told_once_with_its_first_three_rows():
    base = {f"reward/accuracy_reward/{i}": 0.0 for i in range(5)}
    (found,) = replay_differences(base, dict.fromkeys(base, 1.0))
    assert list(found.base) == [f"reward/accuracy_reward/{i}" for i in range(3)]
    assert "5 of 5 items" in found.sentence
    assert found.sentence.endswith("; and 2 more")


@pytest.mark.parametrize("score", [0.0, 1.0, "raises TypeError"])
def test_a_score_in_place_of_none_is_a_change(score):
    (found,) = differ(**{"reward/accuracy_reward/no-gold": score})
    assert found.word == "changed"


def test_none_and_zero_are_not_the_same_score_either_way():
    (found,) = differ(**{"reward/accuracy_reward/percent": None})
    assert (found.word, found.relative) == ("changed", None)


def test_one_character_of_a_template_is_a_change_of_the_data_and_its_place_is_shown():
    (found,) = differ(**{"template/plain/single": "Question: How many?\nAnswer: "})
    assert (found.kind, found.word) == ("data", "changed")
    assert "Answer:' became" in found.sentence


@pytest.mark.parametrize(
    ("name", "factor", "word"),
    [
        ("evaluation/nll/value", 1 + 1e-7, "rounding"),
        ("evaluation/nll/value", 1 + 1e-4, "changed"),
        ("loss/sft/completion-only/loss", 1 - 2e-6, "rounding"),
        ("loss/sft/completion-only/loss", 1 - 2e-4, "changed"),
        ("loss/entropy_from_logits/bfloat16/value/0", 1 + 4e-3, "rounding"),
        ("loss/entropy_from_logits/bfloat16/value/0", 1 + 4e-2, "changed"),
        ("reward/accuracy_reward/fraction", 1 + 1e-12, "rounding"),
        ("reward/accuracy_reward/fraction", 1 + 1e-7, "changed"),
    ],
)
def test_how_far_numbers_may_be_apart_depends_on_how_they_are_computed(name, factor, word):
    (found,) = differ(**{name: BASE[name] * factor})
    assert found.word == word
    assert found.relative == pytest.approx(abs(factor - 1), rel=0.05)


def test_a_row_beyond_the_tolerance_is_shown_before_those_within_it():
    base = {f"loss/sft/case/{i}": 1.0 for i in range(5)}
    near = dict.fromkeys(base, 1.0 + 1e-08)
    (found,) = replay_differences(base, {**near, "loss/sft/case/4": 2.0})
    assert found.word == "changed"
    assert list(found.base) == ["loss/sft/case/4"]
    assert found.relative == 0.5


def test_a_number_is_shown_before_a_text_that_only_a_hash_stands_for():
    long = "[[4, 29… (2716 characters, sha256 3d97e83ad0618fcb)"
    base = {f"data/sft/case/{column}": long for column in ("attention", "ids", "labels")}
    base |= {"data/sft/case/rows": 14, "data/sft/case/text": "ab"}
    (found,) = replay_differences(base, {**dict.fromkeys(base, "other"), "data/sft/case/rows": 13})
    assert list(found.base)[:2] == ["data/sft/case/rows", "data/sft/case/text"]
    assert "case/rows: 14 became 13" in found.sentence


def test_an_evaluation_that_differs_with_the_same_weights_is_no_change_of_training():
    changed = differ(**{"evaluation/nll/value": 3.2})
    assert [d.kind for d in changed] == ["evaluation"]
    assert evaluation_changed(changed)
    assert not evaluation_changed(differ(**{"evaluation/nll/value": 3.1591651778504520}))
    assert not evaluation_changed(differ(**{"reward/accuracy_reward/percent": 1.0}))


def test_a_function_that_a_release_lacks_is_shown_and_changes_nothing():
    names = [n for n in BASE if n.startswith("reward/")]
    (lost,) = replay_differences(BASE, without(*names))
    (gained,) = replay_differences(without(*names), BASE)
    assert (lost.layer, lost.word) == (gained.layer, gained.word) == ("missing", "same")
    assert "only the base has fraction, percent, no-gold" in lost.sentence
    assert "only the candidate has" in gained.sentence


def test_an_evaluation_that_a_side_lacks_is_not_comparable():
    (found,) = replay_differences(BASE, without("evaluation/nll/value"))
    assert (found.layer, found.word) == ("missing", "not comparable")
    assert not evaluation_changed([found])


def test_replays_of_different_corpora_are_not_set_against_each_other():
    (found,) = differ(**{"corpus/sha256": "xyz", "reward/accuracy_reward/percent": 1.0})
    assert (found.what, found.word) == ("corpus", "not comparable")


def test_templates_that_no_run_goes_through_are_shown_and_change_nothing():
    (found,) = differ(**{"shipped/template-rendered/qwen3": "27 conversations, 1 refused"})
    assert (found.layer, found.word) == ("replay", "same")
    assert "no run of the harness goes through it" in found.sentence


@pytest.mark.parametrize(
    ("name", "kind", "used"),
    [
        ("reward/accuracy_reward/x", "reward", True),
        ("template/plain/x", "data", True),
        ("token/ids/x", "data", True),
        ("data/sft/packed/labels", "data", True),
        ("data/clone_chat_template/end", "data", False),
        ("loss/nanstd/x", "loss", True),
        ("evaluation/reward/value", "evaluation", True),
        ("shipped/template-answers/x", "data", False),
    ],
)
def test_an_item_says_by_its_name_what_it_is_about(name, kind, used):
    assert (kind_of(name), is_used(name)) == (kind, used)
