"""What one side lacks: metrics, steps, parameters, checks, probes."""

from __future__ import annotations

import pytest

from harness.compare.exact import Stacks
from harness.compare.missing import compare_contents, unsupported_reason
from harness.record import Status
from tests.comparison_sides import PACKAGES, change_steps, make_run

SAME = Stacks(PACKAGES, PACKAGES)
RELEASES = Stacks(PACKAGES, {**PACKAGES, "trl": "1.17.0"})
RUN = make_run("grpo-plain", "full", "full", 0)


def without_log(key):
    series = {k: v for k, v in RUN.series.items() if k != key}
    return RUN.model_copy(update={"series": series})


def found(base, candidate, stacks=RELEASES):
    return [(d.what, d.word) for d in compare_contents(base, candidate, stacks)]


def test_equal_runs_lack_nothing():
    assert found(RUN, RUN) == []


@pytest.mark.parametrize("key", ["loss", "grad_norm", "reward"])
def test_a_metric_that_training_is_judged_by_is_missed(key):
    assert found(RUN, without_log(key)) == [(f"log/{key}", "changed")]
    assert found(without_log(key), RUN) == [(f"log/{key}", "changed")]


def test_another_metric_is_a_note_between_releases_and_a_change_within_one():
    assert found(RUN, without_log("entropy")) == [("logged keys", "same")]
    assert found(RUN, without_log("entropy"), SAME) == [("log/entropy", "changed")]


def test_a_clock_is_not_missed():
    assert found(RUN, without_log("step_time"), SAME) == []


def test_a_metric_of_nothing_but_nulls_is_missing():
    series = {**RUN.series, "reward": (None,) * 12}
    empty = RUN.model_copy(update={"series": series})
    assert found(RUN, empty) == [("log/reward", "changed")]


def test_another_number_of_steps_is_a_change():
    shorter = make_run("grpo-plain", "full", "full", 0, steps=8)
    assert ("steps", "changed") in found(RUN, shorter)


def test_a_group_that_is_not_trained_any_more_is_a_change_of_the_weights():
    lost = change_steps(RUN, lambda s: {"gradient": {"mlp": s.gradient["mlp"]}})
    (difference,) = [d for d in compare_contents(RUN, lost, RELEASES) if d.word == "changed"]
    assert (difference.kind, difference.layer) == ("weights", "exact")
    assert difference.sentence == "the candidate trains no attention"


def test_a_missing_check_is_a_finding():
    probe = RUN.probe.model_copy(update={"checks": {}})
    names = dict(found(RUN, RUN.model_copy(update={"probe": probe})))
    assert names == {"check/resume": "changed", "check/merge/logits": "changed"}


def test_a_missing_probe_leaves_it_undecided():
    assert found(RUN, RUN.model_copy(update={"probe": None})) == [("probe", "undecided")]


def test_a_missing_lens_is_shown():
    assert found(RUN, RUN.model_copy(update={"peak_bytes": {}})) == [("memory", "same")]


def ended(status, reason):
    return RUN.model_copy(update={"status": status, "reason": reason})


@pytest.mark.parametrize(
    ("run", "packages", "is_unsupported"),
    [
        (None, PACKAGES, False),
        (RUN, PACKAGES, False),
        (ended(Status.CRASHED, "ValueError: no"), PACKAGES, False),
        (ended(Status.CRASHED, "ModuleNotFoundError: No module named 'mergekit'"), PACKAGES, True),
        (ended(Status.CRASHED, "AttributeError: apply"), {**PACKAGES, "trl": "1.15.0"}, True),
        (
            ended(Status.CRASHED, "AttributeError: apply"),
            {**PACKAGES, "trl": "1.15.0", "triton": "3.4"},
            False,
        ),
        (ended(Status.CONFIG, "GRPOConfig refuses the arguments"), PACKAGES, True),
        (ended(Status.UNAVAILABLE, "GatedRepoError"), PACKAGES, False),
        (ended(Status.UNAVAILABLE, "unsupported here: no"), PACKAGES, True),
        (ended(Status.NAN, "loss"), {**PACKAGES, "trl": "1.15.0"}, False),
    ],
)
def test_what_is_unsupported_and_what_has_failed(run, packages, is_unsupported):
    assert (unsupported_reason(run, packages) is not None) == is_unsupported


def test_runs_without_a_step_on_either_side_are_not_called_the_same():
    empty = RUN.model_copy(update={"series": {}, "tokens": (), "probe": None})
    assert ("steps", "undecided") in found(empty, empty)


def test_arguments_that_one_side_did_not_write_down_leave_it_undecided():
    assert found(RUN, RUN.model_copy(update={"config": {}})) == [("arguments", "undecided")]


def test_a_probe_without_steps_does_not_say_that_nothing_is_trained():
    probe = RUN.probe.model_copy(update={"steps": ()})
    assert found(RUN, RUN.model_copy(update={"probe": probe})) == [("probed steps", "changed")]
