"""Two whole sides: every word, the place of a change, what is asked for, machines, acknowledgements."""

from __future__ import annotations

import pytest

from harness.compare.concluding import exit_code
from harness.compare.limits import Limits
from harness.compare.model import Acknowledged
from harness.compare.verdict import compare_sides
from harness.probe import Check
from harness.record import Status
from tests.comparison_sides import (
    PACKAGES,
    PLATFORM,
    STEPS,
    change_steps,
    digest,
    make_side,
    only,
    round_all,
    scale_gradient,
    scale_log,
)

BASE = make_side()
NEWER = {**PACKAGES, "trl": "1.17.0"}


def compare(change, *, base=BASE, limits=None, acknowledged=(), **more):
    candidate = make_side(change, label="TRL 1.17.0", **{"packages": NEWER, **more})
    return compare_sides(base, candidate, limits, acknowledged)


def doubled(run):
    return scale_gradient(run, 2.0)


def unchanged(run):
    return run


def is_lora(run):
    return run.method == "lora"


def is_grpo(run):
    return run.task == "grpo"


def is_sft(run):
    return run.task == "sft"


def with_argument(name, value):
    def change(run):
        arguments = {**run.config["arguments"], name: value}
        return run.model_copy(update={"config": {**run.config, "arguments": arguments}})

    return change


def ended(status, reason=None):
    return lambda run: run.model_copy(update={"status": status, "reason": reason, "probe": None})


def test_identical_sides_are_the_same():
    found = compare(unchanged)
    assert found.word == "same"
    assert found.place is None
    assert all(cell.differences == () and cell.curves == () for cell in found.cells)
    assert "every number identical" in found.sentence
    assert exit_code(found) == 0


def test_rounding_everywhere_is_rounding():
    found = compare(round_all)
    assert {cell.word for cell in found.cells} == {"rounding"}
    assert exit_code(found) == 0


@pytest.mark.parametrize(
    ("where", "tasks", "methods", "sentence"),
    [
        (
            is_grpo,
            ("grpo",),
            ("full", "lora"),
            "GRPO, full and LoRA alike: gradients from step 1, rewards the same",
        ),
        (
            is_sft,
            ("sft",),
            ("full", "lora"),
            "SFT, full and LoRA alike: gradients from step 1, loss the same",
        ),
        (
            lambda r: is_lora(r) and is_sft(r),
            ("sft",),
            ("lora",),
            "SFT, LoRA only: gradients from step 1, loss the same",
        ),
        (
            lambda r: not is_lora(r) and is_grpo(r),
            ("grpo",),
            ("full",),
            "GRPO, full fine-tuning only: gradients from step 1, rewards the same",
        ),
        (
            lambda r: r.pair == "sft-packed",
            ("sft",),
            ("full", "lora"),
            "SFT, full and LoRA alike, in sft-packed only: gradients from step 1, loss the same",
        ),
    ],
)
def test_a_change_is_placed(where, tasks, methods, sentence):
    found = compare(only(where, doubled))
    assert found.word == "changed"
    assert (found.place.tasks, found.place.methods) == (tasks, methods)
    assert found.place.kinds == ("gradient",)
    assert found.place.sentence == sentence
    assert exit_code(found) == 4


def test_cells_that_are_only_slower_are_told_apart_from_those_that_train_otherwise():
    def slower(run):
        return change_steps(run, lambda s: {"cpu_s": 9 * s.cpu_s})

    found = compare(
        lambda r: doubled(r) if is_grpo(r) and is_lora(r) else slower(r) if is_sft(r) else r
    )
    assert (found.place.tasks, found.place.methods) == (("grpo",), ("lora",))
    assert found.place.kinds == ("gradient", "speed")
    assert found.place.sentence == (
        "GRPO, LoRA only: gradients from step 1, rewards the same; besides SFT, full and LoRA alike: speed"
    )


def test_what_is_counted_places_a_change_too():
    """A second pass through the model changes what dropout draws; full fine-tuning only takes longer."""

    def passes(n):
        return lambda r: change_steps(r, lambda s: {"counts": {**s.counts, "forwards": n}})

    def twice(run):
        return passes(2)(doubled(run) if is_lora(run) else run) if is_sft(run) else passes(1)(run)

    found = compare(twice, base=make_side(passes(1)), packages=PACKAGES)
    assert (found.place.tasks, found.place.methods) == (("sft",), ("full", "lora"))
    assert found.place.sentence.endswith("; besides SFT, full fine-tuning only: speed")


def test_an_arm_alone_is_named():
    arms = {"full": "full", "lora-r4": "lora", "lora-dropout": "lora"}
    found = compare(
        only(lambda r: r.arm == "lora-dropout" and r.pair == "sft-plain", doubled),
        base=make_side(arms=arms),
        arms=arms,
    )
    assert found.place.sentence == (
        "SFT, LoRA only, in sft-plain (lora-dropout) only: gradients from step 1, loss the same"
    )


def with_check(name, value, is_exact=True):
    def change(run):
        checks = {**run.probe.checks, name: Check(value=value, is_exact=is_exact, what=name)}
        return run.model_copy(update={"probe": run.probe.model_copy(update={"checks": checks})})

    return change


def test_other_means_to_the_same_end_are_a_note_between_releases_and_a_change_within_one():
    base, moved = make_side(with_check("optimizer/class", "A")), with_check("optimizer/class", "B")
    between = compare(moved, base=base)
    assert between.word == "same"
    assert "the same with either" in between.cells[0].differences[0].sentence
    within = compare(moved, base=base, packages=PACKAGES)
    assert within.word == "changed"
    assert within.place.kinds == ("weights",)


def test_means_that_training_shows_are_part_of_the_place():
    base = make_side(with_check("rows/count", 24))
    found = compare(lambda r: with_check("rows/count", 23)(doubled(r)), base=base)
    assert found.place.kinds == ("data", "gradient")


def test_what_training_comes_to_always_counts():
    base = make_side(with_check("reload/names", "a"))
    assert compare(with_check("reload/names", "b"), base=base).place.kinds == ("checkpoint",)


def test_more_passes_through_the_model_are_a_note_between_releases():
    def passes(n):
        return lambda r: change_steps(r, lambda s: {"counts": {**s.counts, "forwards": n}})

    base = make_side(passes(4))
    assert compare(passes(5), base=base).word == "same"
    within = compare(passes(5), base=base, packages=PACKAGES)
    assert within.place.kinds == ("speed",)


def test_hashes_of_a_step_say_what_differs():
    def hashed(value):
        return lambda r: change_steps(r, lambda s: {"hashes": {"masks": value}})

    base = make_side(hashed("a"))
    assert compare(hashed("b"), base=base).word == "rounding"
    found = compare(lambda r: hashed("b")(doubled(r)), base=base)
    assert found.place.kinds == ("data", "gradient")


def test_a_fault_of_adapters_leaves_full_fine_tuning_the_same():
    found = compare(only(is_lora, doubled))
    assert {c.word for c in found.cells if c.method == "full"} == {"same"}
    assert found.place.methods == ("lora",)
    assert "SFT, LoRA only" in found.place.sentence
    assert "GRPO, LoRA only" in found.place.sentence


def test_the_same_in_both_tasks_is_said_once():
    found = compare(doubled, base=make_side(pairs=["sft-a", "grpo-a"]), pairs=["sft-a", "grpo-a"])
    # The two differ in what they say is the same, so they stay apart; without it they are one.
    assert found.place.sentence.startswith("SFT, full and LoRA alike")
    lost = compare(
        lambda r: scale_log(r, "learning_rate", 2.0),
        base=make_side(pairs=["sft-a", "grpo-a"]),
        pairs=["sft-a", "grpo-a"],
    )
    assert lost.place.sentence == "SFT and GRPO, full and LoRA alike: arguments from step 1"


def test_what_was_not_compared_is_not_called_the_same():
    arms = {"lora-r4": "lora"}
    found = compare(only(is_grpo, doubled), base=make_side(arms=arms), arms=arms)
    assert "LoRA (the only method compared there)" in found.place.sentence


def test_kinds_are_those_of_the_first_step_that_differs():
    def data_then_all(run):
        moved = change_steps(
            run,
            lambda s: {
                "batches": (digest("x"),),
                "losses": (9.0,),
                "counts": {"trained_tokens": 1},
            },
            begin=2,
        )
        return scale_log(scale_gradient(moved, 3.0, begin=4), "entropy", 2.0, begin=5)

    found = compare(only(is_sft, data_then_all))
    assert found.place.kinds == ("data", "loss")
    assert "training data and loss from step 2" in found.place.sentence


def test_what_is_looked_at_after_training_counts_only_where_training_is_the_same():
    def merged_wrong(run):
        check = Check(value=(0.5, 9.0), is_exact=False, what="The logits of the merged model.")
        probe = run.probe.model_copy(update={"checks": {**run.probe.checks, "merge/logits": check}})
        return run.model_copy(update={"probe": probe})

    alone = compare(only(is_lora, merged_wrong))
    assert alone.place.kinds == ("checkpoint",)
    assert alone.place.methods == ("lora",)
    assert "(place 2 of 2)" in alone.cells[1].sentence
    with_training = compare(only(is_lora, lambda r: doubled(merged_wrong(r))))
    assert with_training.place.kinds == ("gradient",)


def test_an_evaluation_of_the_untrained_model_is_no_change_of_training():
    def evaluates_otherwise(run):
        points = tuple(p.model_copy(update={"value": p.value * 1.1}) for p in run.evaluations)
        return run.model_copy(update={"evaluations": points})

    found = compare(only(is_sft, evaluates_otherwise))
    assert found.place.kinds == ("evaluation",)
    assert "nll on test rows before training" in found.cells[0].sentence


def test_dtypes_that_differ_are_a_change_before_step_1():
    def in_bfloat16(run):
        probe = run.probe.model_copy(update={"dtypes": {"torch.bfloat16": 1000}})
        return run.model_copy(update={"probe": probe})

    found = compare(only(is_lora, in_bfloat16))
    assert found.place.methods == ("lora",)
    assert found.place.kinds == ("weights",)
    assert "1000 float32 became 1000 bfloat16" in found.cells[1].sentence


def test_curves_show_what_differs():
    found = compare(only(is_grpo, doubled))
    cell = next(c for c in found.cells if c.task == "grpo")
    names = [curve.what for curve in cell.curves]
    assert "log/grad_norm" in names
    assert "gradient/attention" in names
    assert all(len(c.base) == len(c.candidate) == STEPS for c in cell.curves)


def test_other_requests_are_not_comparable_and_nothing_else_of_them_is_compared():
    def other(run):
        moved = with_argument("learning_rate", 2e-3)(doubled(run))
        return moved.model_copy(update={"spec_sha256": "f" * 64})

    found = compare(only(is_grpo, other))
    cells = [c for c in found.cells if c.task == "grpo"]
    assert {c.word for c in cells} == {"not comparable"}
    assert "learning_rate" in cells[0].sentence
    assert found.word == "not comparable"
    assert exit_code(found) == 6


def test_a_default_that_moved_between_releases_without_effect_is_shown_and_no_change():
    found = compare(with_argument("pad_to_multiple_of", "auto"), base=make_side(
        with_argument("pad_to_multiple_of", None)
    ))  # fmt: skip
    assert found.word == "same"
    (moved,) = [d for d in found.asked if d.kind == "configuration"]
    assert moved.word == "same"
    assert moved.sentence.endswith("[everywhere]")
    assert exit_code(found) == 0


def test_a_default_that_moved_with_training_counts():
    base = make_side(with_argument("scale_rewards", "group"))
    found = compare(
        lambda r: with_argument("scale_rewards", "none")(doubled(r) if is_grpo(r) else r), base=base
    )
    assert "configuration" in found.place.kinds
    assert found.place.tasks == ("grpo",)
    assert [d.word for d in found.asked if d.kind == "configuration"] == ["changed", "same"]


def test_a_default_that_moved_within_one_release_is_a_change_of_itself():
    base = make_side(with_argument("epsilon", 0.2))
    found = compare(with_argument("epsilon", 0.3), base=base, packages=PACKAGES)
    assert found.word == "changed"
    assert found.place.kinds == ("configuration",)
    assert exit_code(found) == 4


def test_an_argument_of_one_release_alone_is_shown():
    found = compare(with_argument("log_multimodal", True))
    assert found.word == "same"
    (moved,) = [d for d in found.asked if d.kind == "configuration"]
    assert "an argument of the candidate alone" in moved.sentence


def test_packages_that_differ_are_listed():
    found = compare(unchanged, packages={**NEWER, "peft": None})
    assert ("trl", "1.16.0", "1.17.0") in found.packages
    assert ("peft", "0.21.2", None) in found.packages


def test_crashed_runs_are_a_change_and_accidents_are_undecided():
    crashed = compare(only(is_sft, ended(Status.CRASHED, "TypeError: no")))
    assert crashed.word == "changed"
    assert crashed.place.kinds == ("missing",)
    stalled = compare(only(is_sft, ended(Status.TIMEOUT)))
    assert stalled.word == "undecided"
    killed = compare(only(is_sft, ended(Status.CRASHED, "ended by SIGKILL from outside")))
    assert killed.word == "undecided"


def test_what_cannot_be_trained_here_is_unsupported_with_its_cause():
    reason = "TRL 1.15.0 can't train without Triton, which is not installed here"
    found = compare(ended(Status.UNAVAILABLE, reason), packages={**PACKAGES, "trl": "1.15.0"})
    assert {c.word for c in found.cells} == {"unsupported here"}
    assert reason in found.sentence
    assert exit_code(found) == 7


def test_a_base_that_cannot_be_trained_leaves_nothing_to_compare():
    base = make_side(ended(Status.UNAVAILABLE, "unsupported here: no"))
    found = compare(unchanged, base=base)
    assert found.word == "unsupported here"
    assert exit_code(found) == 6


def test_a_gated_repository_is_no_unsupported_release():
    found = compare(ended(Status.UNAVAILABLE, "GatedRepoError: ask for access"))
    assert found.word == "undecided"


def test_no_runs_is_not_comparable():
    found = compare_sides(make_side(pairs=[]), make_side(pairs=[]))
    assert found.word == "not comparable"
    assert exit_code(found) == 6


def test_runs_of_one_side_alone_are_a_finding():
    found = compare(unchanged, pairs=["sft-plain", "grpo-plain"])
    missing = [c for c in found.cells if c.pair == "sft-packed"]
    assert {c.word for c in missing} == {"not comparable"}
    assert exit_code(found) == 6


# Other machines.

OTHER = {**PLATFORM, "cpu_model": "Another CPU"}


def test_small_differences_of_two_machines_are_undecided():
    found = compare(lambda r: scale_log(r, "entropy", 1.0001), platform=OTHER)
    assert found.word == "undecided"
    assert "another machine" in found.cells[0].sentence
    assert any("--across-machines" in note for note in found.notes)
    assert exit_code(found) == 6


def test_a_doubled_gradient_is_a_change_on_any_machine():
    assert compare(only(is_grpo, doubled), platform=OTHER).word == "changed"


def test_identical_numbers_are_the_same_on_any_machine():
    assert compare(unchanged, platform=OTHER).word == "same"


def test_asked_to_two_machines_count_as_one():
    limits = Limits(across_machines=True)
    found = compare(lambda r: scale_log(r, "entropy", 1.0001), platform=OTHER, limits=limits)
    assert found.word == "changed"


# Precision.


def in_bfloat16(run):
    probe = run.probe.model_copy(update={"dtypes": {"torch.bfloat16": 1000}})
    return run.model_copy(update={"probe": probe})


def test_in_bfloat16_a_difference_is_rounding_where_float32_rounds_too():
    def coarse(run):
        return round_all(in_bfloat16(run), 2e-3)

    where = only(lambda r: r.pair == "sft-packed", in_bfloat16)
    moved = only(lambda r: r.pair == "sft-packed", coarse)
    found = compare(lambda r: moved(r) if r.pair == "sft-packed" else round_all(r),
                    base=make_side(where))  # fmt: skip
    assert found.word == "rounding"


def test_in_bfloat16_the_same_difference_is_a_change_where_float32_is_identical():
    where = only(lambda r: r.pair == "sft-packed", in_bfloat16)
    moved = only(
        lambda r: r.pair == "sft-packed", lambda r: scale_log(in_bfloat16(r), "loss", 1.002)
    )
    found = compare(moved, base=make_side(where))
    assert found.word == "changed"
    assert "in sft-packed only" in found.place.sentence


# Acknowledgements.


def test_an_acknowledged_change_is_shown_and_exits_0():
    entry = Acknowledged(what="grpo-*:*", reason="the loss is right now", version="trl 1.17.0")
    found = compare(only(is_grpo, doubled), acknowledged=[entry])
    assert found.word == "changed"
    assert found.acknowledged == (entry,)
    assert "every change was acknowledged" in found.sentence
    assert exit_code(found) == 0


@pytest.mark.parametrize(
    "entry",
    [
        Acknowledged(what="sft-*:*", reason="r", version="trl 1.17.0"),
        Acknowledged(what="grpo-*:loss", reason="r", version="trl 1.17.0"),
        Acknowledged(what="grpo-*:*", reason="r", version="trl 1.18.0"),
    ],
)
def test_an_acknowledgement_of_something_else_changes_nothing(entry):
    found = compare(only(is_grpo, doubled), acknowledged=[entry])
    assert exit_code(found) == 4


def test_what_was_not_acknowledged_is_placed_alone():
    entry = Acknowledged(what="grpo-*:*", reason="r", version="")
    found = compare(doubled, acknowledged=[entry])
    assert found.place.tasks == ("sft",)
    assert exit_code(found) == 4


def test_a_frozen_corpus_that_is_read_otherwise_is_a_change():
    base = make_side(replay={"chat/plain": "abc", "reward/accuracy/0": 1.0})
    found = compare(unchanged, base=base, replay={"chat/plain": "abd", "reward/accuracy/0": 1.0})
    assert found.word == "changed"
    assert [(d.what, d.kind) for d in found.replay] == [("chat/plain", "data")]
    assert exit_code(found) == 4


def test_several_seeds_are_one_cell():
    seeds = (0, 1, 2)
    where = only(lambda r: is_grpo(r) and r.seed == 1, doubled)
    found = compare(where, base=make_side(seeds=seeds), seeds=seeds)
    cell = next(c for c in found.cells if c.task == "grpo")
    assert cell.seeds == seeds
    assert cell.word == "changed"
    assert "(seed 1)" in cell.sentence


def test_sides_of_one_label_are_told_apart():
    found = compare_sides(BASE, make_side(packages={**PACKAGES, "transformers": "4.57.6"}))
    assert found.base == "TRL 1.16.0 (transformers 5.17.0)"
    assert found.candidate == "TRL 1.16.0 (transformers 4.57.6)"
    assert compare_sides(BASE, BASE).candidate == "TRL 1.16.0 (candidate)"


def test_a_replay_that_one_side_lacks_is_named_beside_cells_that_are_the_same():
    base = make_side(replay={"corpus/sha256": "c", "reward/f/0": 1.0})
    found = compare_sides(base, make_side(label="TRL 1.17.0", packages=NEWER))
    assert found.word == "not comparable"
    assert "6 cells the same. The candidate has no replay" in found.sentence
    assert exit_code(found) == 6


def test_a_digest_is_told_by_its_beginning():
    def rows(letter):
        def change(run):
            check = Check(value=letter * 64, what="hash of every prepared row.")
            checks = {**run.probe.checks, "rows/sha256": check}
            probe = run.probe.model_copy(update={"checks": checks})
            return run.model_copy(update={"probe": probe})

        return change

    found = compare(rows("b"), base=make_side(rows("a")), packages=PACKAGES)
    assert f"hash of every prepared row: {'a' * 12} became {'b' * 12}" in found.cells[0].sentence
