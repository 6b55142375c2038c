"""Causes go with where a change was seen, and notices say what a user sees."""

from __future__ import annotations

import pytest

from harness.compare.boundaries import BOUNDARIES
from harness.compare.evidence import gather
from harness.compare.explain import explain
from harness.compare.model import Control, Difference
from harness.compare.scores import overlap
from tests.comparison_pages import make, only


def explained(made):
    return explain(*made.all)


def doubled(value):
    return 2 * value


def set_argument(task, **arguments):
    def plant(run):
        if run.task == task:
            run.arguments.update(arguments)

    return plant


def together(*faults):
    def plant(run):
        for fault in faults:
            fault(run)

    return plant


def asked(argument, base, candidate):
    return Difference(
        layer="asked", kind="configuration", what=f"config/{argument}", word="changed", base=base,
        candidate=candidate, sentence=f"{argument} differs",
    )  # fmt: skip


def test_an_explanation_changes_no_word_of_the_comparison():
    made = make(only("grpo", gradients=doubled))
    found = explained(made)
    assert found.causes
    assert found.model_copy(update={"causes": (), "notices": ()}) == made.comparison


def test_nothing_that_changed_has_no_cause_and_no_notice():
    found = explained(make())
    assert (found.causes, found.notices) == ((), ())


def test_gradients_of_grpo_alone_between_0_22_1_and_0_22_2_are_the_groups_deviation():
    made = make(
        only("grpo", gradients=lambda g: g / 0.46, advantages=lambda a: a),
        trl=("0.22.1", "0.22.2"),
    )
    first = explained(made).causes[0]
    assert (first.kind, first.what) == ("release", "trl 0.22 until 0.22.2: scale_rewards")
    assert first.score > 0.9


def test_a_boundary_that_ended_before_the_candidate_is_no_cause():
    found = explained(make(only("grpo", gradients=doubled), trl=("0.21.0", "0.23.0")))
    assert not any("until 0.22.2" in cause.what for cause in found.causes)


def test_a_boundary_is_a_cause_in_both_directions():
    causes = explained(make(only("grpo", gradients=doubled), trl=("1.16.0", "0.22.1"))).causes
    assert any("until 0.22.2" in cause.what for cause in causes)


def test_the_window_of_1_9_1_is_the_cause_only_where_the_settings_let_it_act():
    windows = set_argument("grpo", steps_per_generation=4)
    fault = only("grpo", gradients=doubled)
    acting = explained(make(fault, both=windows, trl=("1.9.0", "1.9.1"))).causes
    assert acting[0].what == "trl 1.9.1: loss of dapo, cispo and vespo"
    assert acting[0].score == 1
    idle = explained(make(fault, trl=("1.9.0", "1.9.1"))).causes
    assert [c.what for c in idle] == ["trl 1.9.0 → 1.9.1"]


def test_a_default_that_moved_is_ranked_first_where_its_cells_are_the_changed_ones():
    fault = together(
        set_argument("grpo", use_bias_correction_kl=True, beta=0.1),
        only("grpo", gradients=lambda g: g * 1.3),
    )
    made = make(
        fault,
        both=set_argument("grpo", use_bias_correction_kl=False, beta=0.1),
        trl=("1.9.1", "1.10.0"),
        asked=(asked("use_bias_correction_kl", False, True),),
    )
    first = explained(made).causes[0]
    assert (first.kind, first.what) == ("default", "trl 1.10: use_bias_correction_kl")
    assert "beta is above 0" in first.sentence


def test_a_default_pinned_on_both_sides_is_no_cause():
    made = make(
        only("grpo", gradients=lambda g: g * 1.3),
        both=set_argument("grpo", use_bias_correction_kl=False, beta=0.1),
        trl=("1.9.1", "1.10.0"),
    )
    assert not any("bias_correction" in c.what for c in explained(made).causes)


def test_an_argument_without_a_known_boundary_is_named_with_both_values():
    fault = together(set_argument("sft", weight_decay=0.1), only("sft", gradients=doubled))
    made = make(
        fault, both=set_argument("sft", weight_decay=0.0), asked=(asked("weight_decay", 0.0, 0.1),)
    )
    cause = next(c for c in explained(made).causes if c.what == "weight_decay")
    assert cause.kind == "default"
    assert "0.0 in the base and 0.1 in the candidate" in cause.sentence


def test_the_same_difference_between_two_matrices_was_asked_for():
    fault = together(set_argument("sft", weight_decay=0.1), only("sft", gradients=doubled))
    made = make(
        fault,
        both=set_argument("sft", weight_decay=0.0),
        asked=(asked("weight_decay", 0.0, 0.1),),
        candidate_fields={"matrix_hash": "9" * 64},
    )
    runs = tuple(r.model_copy(update={"spec_sha256": "3" * 64}) for r in made.candidate.runs)
    other = made.candidate.model_copy(update={"runs": runs})
    causes = explain(made.comparison, made.base, other).causes
    assert next(c.kind for c in causes if c.what == "weight_decay") == "configuration"


def test_a_field_that_only_one_release_has_and_that_is_off_is_no_cause():
    fault = together(
        set_argument("grpo", entropy_coef=0, pad_to_multiple_of="auto", vllm_mode="colocate"),
        only("grpo", gradients=doubled),
    )
    causes = explained(make(fault)).causes
    named = {"entropy_coef", "pad_to_multiple_of"}
    assert named.isdisjoint(c.what for c in causes)


def test_peft_comes_before_transformers_where_only_lora_changed():
    made = make(
        only(method="lora", gradients=doubled),
        trl=("1.16.0", "1.16.0"),
        packages={"peft": ("0.18.0", "0.21.2"), "transformers": ("5.16.0", "5.17.0")},
    )
    causes = explained(made).causes
    assert [c.what.split()[0] for c in causes[:2]] == ["peft", "transformers"]
    assert {c.kind for c in causes[:2]} == {"dependency"}


def test_peft_is_no_cause_where_only_full_fine_tuning_changed():
    made = make(only(method="full", gradients=doubled), packages={"peft": ("0.18.0", "0.21.2")})
    assert not any(c.what.startswith("peft") for c in explained(made).causes)


def test_an_edited_package_of_the_same_release_is_code():
    made = make(only("sft", gradients=lambda g: 3 * g), trl=("1.16.0", "1.16.0+edited.4f2a"))
    first = explained(made).causes[0]
    assert first.kind == "code"
    assert "The release of trl is the same, its code is not" in first.sentence


def test_where_no_release_differs_the_place_says_where_to_look():
    found = explained(make(only(method="lora", gradients=doubled), trl=("1.16.0", "1.16.0")))
    assert [c.kind for c in found.causes] == ["code"]
    assert "look into PEFT first" in found.causes[0].sentence


def test_sides_of_the_same_releases_and_other_names_differ_in_code():
    made = make(only("grpo", gradients=doubled), trl=("1.16.0", "1.16.0"))
    named = made.candidate.model_copy(update={"label": "TRL 1.16.0 (folder trl, abc12345)"})
    (plain,) = explain(made.comparison, made.base, made.candidate).causes
    (edited,) = explain(made.comparison, made.base, named).causes
    assert (edited.kind, plain.kind) == ("code", "code")
    assert edited.score > plain.score
    assert (
        "the code of TRL 1.16.0 (folder trl, abc12345) differs from that of TRL" in edited.sentence
    )
    assert edited.what == "the edited trl"
    assert edited.sentence.endswith("Look into the folder of trl first.")
    assert "Only GRPO changed" in plain.sentence


def test_another_machine_is_likelier_for_costs_than_for_gradients():
    machine = Difference(
        layer="asked", kind="machine", what="machine", word="same", sentence="cpu_model 'A' became 'B'"
    )  # fmt: skip
    slow = make(only(gradients=doubled), kind="speed", what="cpu/step", asked=(machine,))
    odd = make(only(gradients=doubled), asked=(machine,))
    scores = [next(c for c in explained(m).causes if c.kind == "machine") for m in (slow, odd)]
    assert scores[0].score > scores[1].score
    assert "cpu_model 'A' became 'B'" in scores[0].sentence
    assert not any(c.kind == "machine" for c in explained(make(only(gradients=doubled))).causes)


def test_a_redefined_log_goes_with_that_series_alone():
    entropy = explained(
        make(only("sft", gradients=doubled), kind="metric", what="log/entropy", trl=("1.2.0", "1.3.0"))
    ).causes  # fmt: skip
    other = explained(
        make(only("sft", gradients=doubled), kind="metric", what="log/kl", trl=("1.2.0", "1.3.0"))
    ).causes  # fmt: skip
    assert entropy[0].what == "trl 1.3: entropy"
    assert entropy[0].score > 0.9
    assert other[0].what != "trl 1.3: entropy"


def test_a_cause_loses_where_it_foretells_cells_that_did_not_change():
    made = make(only("grpo", "lora", gradients=doubled))
    evidence = gather(*made.all)
    one = frozenset({("grpo-plain", "lora")})
    assert overlap(evidence, one) == 1
    assert overlap(evidence, one | {("grpo-plain", "full")}) == 0.5
    assert overlap(evidence, frozenset()) == 0


def test_undecided_cells_have_causes_where_none_changed():
    made = make(only("grpo", gradients=doubled), word="undecided")
    assert explained(made).causes


def test_every_boundary_says_what_moved_and_where_that_is_known_from():
    for boundary in BOUNDARIES:
        assert boundary.sentence
        assert boundary.source
        assert boundary.kinds
        assert boundary.sentence[0].isupper() or boundary.sentence.startswith(
            ("vLLM", "shuffle_dataset")
        )
        assert not boundary.sentence.endswith(".")
    assert len({(b.release, b.what, b.package) for b in BOUNDARIES}) == len(BOUNDARIES)


def test_twice_the_gradient_is_said_with_the_setting_that_is_two():
    (notice,) = explained(make(only("grpo", gradients=doubled))).notices
    assert notice.startswith("GRPO gradients are exactly twice as large at every step (")
    assert "(gradient_accumulation_steps, steps_per_generation): " in notice
    assert "Adam evens it out, and weights have moved as far as before; " in notice


def test_a_setting_that_left_another_cell_alone_is_not_named():
    made = make(only(method="lora", gradients=lambda g: g / 4))
    first = explained(made).notices[0]
    assert first.startswith("SFT gradients are exactly 1/4 as large at every step (lora_alpha / r)")


def test_cells_that_are_scaled_about_alike_share_a_sentence():
    def fault(run):
        if run.task == "grpo":
            run.gradients = [g / (0.45 if run.method == "full" else 0.49) for g in run.gradients]

    (notice,) = explained(make(fault)).notices
    assert notice.startswith(
        "GRPO gradients are about 2 to 2.2 times as large at every step, about"
    )


def test_a_gradient_whose_factor_is_nothing_known_has_no_sentence_of_its_own():
    notices = explained(make(only("sft", gradients=lambda g: 1.9 * g))).notices
    assert not any("as large" in n for n in notices)


def test_weights_that_move_further_make_training_faster():
    fault = only("sft", gradients=lambda g: 3 * g, updates=lambda u: 1.5 * u)
    assert explained(make(fault)).notices == (
        "SFT gradients are exactly 3 times as large at every step (gradient_accumulation_steps): the "
        "same learning rate trains faster and less stably.",
    )


def test_advantages_that_lose_their_groups_deviation_are_told_from_their_squares():
    values = iter([1.31, 0.87, 1.02, 1.45, 0.66, 1.21, 0.93, 1.12, 1.38, 0.71] * 2)
    fault = only("grpo", gradients=lambda g: 0.46 * g, advantages=lambda _: next(values))
    notices = explained(make(fault)).notices
    assert any("no longer divided by their group's deviation" in n for n in notices)
    assert any(
        "as if advantages were no longer divided by the rewards' deviation" in n for n in notices
    )


def test_weights_alone_are_told_from_losses():
    notices = explained(
        make(only("sft", "lora", gradients=doubled), kind="weights", what="sha256")
    ).notices
    assert "In SFT the losses are the same and the weights are not." in notices
    assert "Only LoRA changed in SFT: full fine-tuning is as it was." in notices


def test_evaluation_alone_is_not_training():
    notices = explained(make(only("sft", gradients=doubled), kind="evaluation", what="nll")).notices
    assert any(n.startswith("Evaluation changed, training did not") for n in notices)
    both = explained(make(only("sft", gradients=doubled))).notices
    assert not any(n.startswith("Evaluation changed") for n in both)


def test_tokens_that_are_trained_on_are_counted():
    made = make(only("sft", gradients=doubled), kind="data", what="count/trained_tokens")
    notices = explained(made).notices
    assert any("SFT trains on other tokens" in n for n in notices)
    assert "SFT trains on 1.626 tokens instead of 0.813 in step 1 of sft-plain.full." in notices


@pytest.mark.parametrize("kind", ["reward", "data", "loss", "evaluation"])
def test_what_was_replayed_is_told_by_its_kind(kind):
    replayed = Difference(layer="replay", kind=kind, what="x", word="changed", sentence="s")
    (notice,) = explained(make(replay=(replayed,))).notices
    assert notice.startswith("The same ")


def test_memory_that_grows_with_every_step_is_said_in_mebibytes():
    def leak(run):
        if (run.task, run.method) == ("sft", "full"):
            run.rss_bytes = [b + s * 3 * 2**20 for s, b in enumerate(run.rss_bytes)]

    notices = explained(make(leak, kind="memory", what="rss")).notices
    assert (
        "Memory grows by 3.0 MiB a step in sft-plain.full: a long run ends out of memory."
        in notices
    )


@pytest.mark.parametrize(
    ("kind", "what", "sentence"),
    [
        ("speed", "cpu/step", "A step takes 25% more of the processor's time"),
        ("speed", "cpu/construct", "Building the trainer takes 25% more time"),
        ("memory", "growth/rss", "Training needs 25% more memory above what loading takes"),
    ],
)
def test_costs_are_said_in_percent(kind, what, sentence):
    made = make(only("sft", gradients=lambda g: 1.25 * g), kind=kind, what=what)
    assert f"{sentence} in 2 cells, in the median." in explained(made).notices


def test_a_slope_of_memory_is_no_percentage():
    made = make(only("sft", gradients=doubled), kind="memory", what="rss/slope")
    assert not any("%" in notice for notice in explained(made).notices)


def test_a_log_that_a_release_redefined_is_told_even_where_training_is_the_same():
    notices = explained(make(trl=("1.2.0", "1.3.0"))).notices
    assert len(notices) == 1
    assert notices[0].startswith("The log's entropy is shifted")
    assert "(SFT, from TRL 1.3 on)" in notices[0]


def test_arguments_do_not_hide_where_a_change_began():
    made = make(only("grpo", gradients=doubled))
    moved = Difference(
        layer="asked",
        kind="configuration",
        what="argument/beta",
        word="changed",
        sentence="beta moved",
    )
    cells = tuple(
        c.model_copy(update={"differences": (moved, *c.differences)})
        for c in made.comparison.cells[2:]
    )
    comparison = made.comparison.model_copy(update={"cells": cells})
    assert [c.root for c in gather(comparison, made.base, made.candidate).seen] == ["gradient"] * 2


def test_what_is_only_logged_otherwise_is_said_to_be_only_that():
    notices = explained(
        make(only("sft", gradients=doubled), kind="metric", what="log/entropy")
    ).notices
    assert any("SFT trains as before and logs otherwise (entropy)" in n for n in notices)


def test_a_release_that_can_not_train_here_is_no_regression_and_has_its_cause():
    made = make(
        only("grpo", gradients=doubled),
        kind="missing",
        word="unsupported here",
        trl=("1.14.2", "1.15.0"),
    )
    found = explained(made)
    assert any(n.startswith("GRPO can't train here: It differs") for n in found.notices)
    assert found.causes[0].what == "trl 1.15 until 1.16: needs Triton"


def test_an_alarm_of_the_reruns_is_said():
    made = make(only("sft", gradients=doubled), controls=(Control(compared=4, alarms=2),))
    alarm = "Reruns of one and the same side gave 2 alarms, so what is above may be"
    assert any(alarm in n for n in explained(made).notices)


def test_runs_that_one_side_lacks_are_explained_without_numbers():
    made = make(only("sft", gradients=doubled))
    lost = made.candidate.model_copy(update={"runs": ()})
    found = explain(made.comparison, made.base, lost)
    assert found.causes


def test_alarms_of_time_alone_put_only_what_is_said_of_time_in_doubt():
    control = Control(compared=4, alarms=2, kinds=("speed",))
    notices = explained(make(only("sft", gradients=doubled), controls=(control,))).notices
    assert any("so what is said of speed may be this machine's noise" in n for n in notices)


def test_missing_runs_alone_have_no_cause():
    made = make(only("sft", gradients=doubled), trl=("1.16.0", "1.16.0"))
    missing = Difference(
        layer="missing", kind="missing", what="probe", word="undecided", sentence="left no probe"
    )
    cells = tuple(
        cell.model_copy(update={"word": "undecided", "differences": (missing,)})
        for cell in made.comparison.cells
    )
    comparison = made.comparison.model_copy(update={"cells": cells, "word": "undecided"})
    assert explain(comparison, made.base, made.candidate).causes == ()


def test_an_argument_that_moved_within_one_release_is_code():
    fault = together(set_argument("sft", weight_decay=0.1), only("sft", gradients=doubled))
    made = make(
        fault,
        both=set_argument("sft", weight_decay=0.0),
        trl=("1.16.0", "1.16.0"),
        asked=(asked("weight_decay", 0.0, 0.1),),
    )
    cause = next(c for c in explained(made).causes if c.what == "weight_decay")
    assert cause.kind == "code"
    assert "a default moved" not in cause.sentence


def test_losses_that_differ_by_no_factor_are_said_with_both_values():
    values = iter([1.7, 3.4, 1.2, 2.9, 1.1] * 20)
    made = make(only("sft", losses=lambda loss: loss * next(values)), kind="loss", what="log/loss")
    notices = explained(made).notices
    assert any(n.startswith("SFT has other losses on the same rows (") for n in notices)
    assert any(n.endswith("loss curves can't be laid over one another.") for n in notices)


def test_a_second_pass_through_the_model_is_said():
    made = make(only("sft", gradients=doubled), kind="speed", what="count/forwards")
    notices = explained(made).notices
    assert any(
        n.startswith("SFT passes through the model more often, ") and "and 1 cell more" in n
        for n in notices
    )


def test_another_number_of_steps_is_said():
    made = make(only("sft", gradients=doubled))
    steps = Difference(
        layer="exact", kind="data", what="steps", word="changed", base=7, candidate=4, sentence="s"
    )
    cells = tuple(
        cell.model_copy(update={"differences": (*cell.differences, steps)})
        if cell.word == "changed"
        else cell
        for cell in made.comparison.cells
    )
    comparison = made.comparison.model_copy(update={"cells": cells})
    notices = explain(comparison, made.base, made.candidate).notices
    assert any(n.startswith("SFT takes 4 optimizer steps where it took 7 in sft-") for n in notices)


def test_a_default_that_moved_is_no_request_though_the_matrices_differ_elsewhere():
    fault = together(set_argument("sft", weight_decay=0.1), only("sft", gradients=doubled))
    made = make(
        fault,
        both=set_argument("sft", weight_decay=0.0),
        asked=(asked("weight_decay", 0.0, 0.1),),
        candidate_fields={"matrix_hash": "9" * 64},
    )
    cause = next(c for c in explained(made).causes if c.what == "weight_decay")
    assert cause.kind == "default"
    assert "both were asked for the same" in cause.sentence
