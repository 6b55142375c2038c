"""Stacks tried with a stand-in for training: releases are numbers, and what they train is known."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from harness.bisect import search_packages, search_releases
from harness.bisect_question import Question
from harness.compare.model import Cell, Comparison
from harness.compare.side import RunSide, Side
from harness.errors import ConfigError, MachineError, StudyError
from harness.trial import Trial, label, restrict
from tests.side_factory import make_run, make_side

CELLS = ("sft-plain.full", "grpo-plain.lora-r1")
Losses = Callable[[Mapping[str, str]], Mapping[str, float]]  # of a stack: cell → loss


class World:
    """Trains as a rule says, keeps studies on the disk, and compares their losses."""

    def __init__(self, losses: Losses, broken: Callable[[Mapping[str, str]], bool] | None = None):
        self.losses = losses
        self.broken = broken or (lambda _stack: False)
        self.trained: list[tuple[str, tuple[str, ...]]] = []
        self.told: list[str] = []
        self.interrupts_at: int | None = None

    def train(self, stack: Mapping[str, str], cells: Sequence[str], folder: Path) -> None:
        if self.broken(stack):
            raise ConfigError(f"{label(stack)} can't be installed")
        done = folder / "losses"
        if done.exists() and len(cells or CELLS) <= len(done.read_text().splitlines()):
            return
        if len(self.trained) == self.interrupts_at:
            raise KeyboardInterrupt
        self.trained.append((label(stack), tuple(cells)))
        folder.mkdir(parents=True, exist_ok=True)
        found = self.losses(stack)
        done.write_text("".join(f"{c} {found[c]}\n" for c in cells or CELLS))

    def read(self, folder: Path) -> Side:
        rows = [line.split() for line in (folder / "losses").read_text().splitlines()]
        runs = tuple(make_run(f"{cell}.s0", series={"loss": (float(loss),)}) for cell, loss in rows)
        return make_side(runs=runs, label=folder.name)

    def compare(self, base: Side, candidate: Side) -> Comparison:
        theirs = {run.cell: run for run in candidate.runs}
        cells = tuple(_cell(run, theirs.get(run.cell)) for run in base.runs)
        words = {cell.word for cell in cells}
        word = "changed" if "changed" in words else min(words, default="same")
        return Comparison(
            base=base.label,
            candidate=candidate.label,
            matrix_name="upgrade",
            word=word,
            sentence=f"{word} overall",
            cells=cells,
        )

    def trial(self, root: Path, question: Question) -> Trial:
        return Trial(
            root,
            question.good,
            question.bad,
            train=self.train,
            read=self.read,
            compare=self.compare,
            tell=self.told.append,
        )


def _cell(ours: RunSide, theirs: RunSide | None) -> Cell:
    is_same = theirs is not None and theirs.series == ours.series
    word = "same" if is_same else "changed" if theirs else "not comparable"
    return Cell(
        pair=ours.pair,
        arm=ours.arm,
        task=ours.task,
        method=ours.method,
        seeds=(ours.seed,),
        word=word,  # type: ignore[arg-type]
        sentence=f"{ours.cell} {word}",
    )


RELEASES = tuple(f"1.{i}.0" for i in range(12))
QUESTION = Question({"trl": "1.0.0"}, {"trl": "1.11.0"}, RELEASES)


def minor(stack: Mapping[str, str]) -> int:
    return int(stack["trl"].split(".")[1])


def sft_changes_at(change: int) -> Losses:
    return lambda stack: {CELLS[0]: 2.0 if minor(stack) >= change else 1.0, CELLS[1]: 3.0}


def test_the_ends_train_everything_and_the_rest_only_what_differs(tmp_path):
    world = World(sft_changes_at(5))
    trial = world.trial(tmp_path, QUESTION)
    answer = search_releases(RELEASES, lambda name: trial.probe(QUESTION.stack(name)))
    assert (answer.good, answer.bad) == ("1.4.0", "1.5.0")
    assert [cells for _, cells in world.trained] == [(), (), *[("sft-plain.full",)] * 4]
    assert answer.decisive.cells == ("sft-plain.full",)


def test_no_stack_is_trained_twice(tmp_path):
    world = World(sft_changes_at(5))
    trial = world.trial(tmp_path, QUESTION)
    search_releases(RELEASES, lambda name: trial.probe(QUESTION.stack(name)))
    stacks = [stack for stack, _ in world.trained]
    assert len(stacks) == len(set(stacks))


@pytest.mark.parametrize("interrupted", range(6))
def test_a_search_that_was_killed_goes_on_where_it_stopped(tmp_path, interrupted):
    world = World(sft_changes_at(5))
    world.interrupts_at = interrupted
    trial = world.trial(tmp_path, QUESTION)
    with pytest.raises(KeyboardInterrupt):
        search_releases(RELEASES, lambda name: trial.probe(QUESTION.stack(name)))
    world.interrupts_at = None
    again = world.trial(tmp_path, QUESTION)
    answer = search_releases(RELEASES, lambda name: again.probe(QUESTION.stack(name)))
    assert answer.bad == "1.5.0"
    assert len(world.trained) == 6


def test_a_release_that_cannot_be_installed_is_skipped_with_its_reason(tmp_path):
    world = World(sft_changes_at(5), broken=lambda stack: minor(stack) == 4)
    trial = world.trial(tmp_path, QUESTION)
    answer = search_releases(RELEASES, lambda name: trial.probe(QUESTION.stack(name)))
    assert (answer.word, answer.good, answer.between, answer.bad) == (
        "range",
        "1.3.0",
        ("1.4.0",),
        "1.5.0",
    )
    skipped = next(t.outcome for t in answer.tried if t.names == ("1.4.0",))
    assert skipped.why == "TRL 1.4.0 can't be installed"


@pytest.mark.parametrize("end", [0, 11])
def test_an_end_that_cannot_be_trained_stops_the_search(tmp_path, end):
    world = World(sft_changes_at(5), broken=lambda stack: minor(stack) == end)
    with pytest.raises(ConfigError, match=rf"end, TRL 1\.{end}\.0"):
        world.trial(tmp_path, QUESTION).probe(QUESTION.stack("1.11.0"))


def test_a_damaged_study_is_no_reason_to_skip(tmp_path):
    world = World(sft_changes_at(5))
    trial = world.trial(tmp_path, QUESTION)
    trial.probe(QUESTION.stack("1.11.0"))

    def fail(_stack: Mapping[str, str]) -> bool:
        raise StudyError("locked")

    world.broken = fail
    with pytest.raises(StudyError):
        trial.probe(QUESTION.stack("1.6.0"))


def test_a_release_unlike_both_ends_shows_a_second_change(tmp_path):
    world = World(lambda stack: {CELLS[0]: float(min(minor(stack) // 4, 2)), CELLS[1]: 3.0})
    trial = world.trial(tmp_path, QUESTION)
    answer = search_releases(RELEASES, lambda name: trial.probe(QUESTION.stack(name)))
    assert (answer.good, answer.bad) == ("1.3.0", "1.4.0")
    assert "differs from both ends" in answer.notes[0]


def test_ends_that_train_the_same_train_nothing_else(tmp_path):
    world = World(sft_changes_at(99))
    trial = world.trial(tmp_path, QUESTION)
    answer = search_releases(RELEASES, lambda name: trial.probe(QUESTION.stack(name)))
    assert answer.word == "nothing"
    assert len(world.trained) == 2


def test_packages_are_found_that_change_training_together(tmp_path):
    good = dict.fromkeys("abcdefgh", "1.0")
    question = Question(good, dict.fromkeys(good, "2.0"))
    world = World(
        lambda s: {CELLS[0]: 2.0 if (s["b"], s["g"]) == ("2.0", "2.0") else 1.0, CELLS[1]: 3.0}
    )
    trial = world.trial(tmp_path, question)
    answer = search_packages(question.packages, (), lambda n: trial.probe(question.mixture(n)))
    assert answer.packages == ("b", "g")


def test_an_unfit_machine_skips_one_stack(tmp_path):
    world = World(sft_changes_at(5))
    trial = world.trial(tmp_path, QUESTION)
    trial.probe(QUESTION.stack("1.11.0"))

    def fail(_stack: Mapping[str, str]) -> bool:
        raise MachineError("no room\nsecond line")

    world.broken = fail
    outcome = trial.probe(QUESTION.stack("1.6.0"))
    assert (outcome.word, outcome.why) == ("skip", "no room")


def test_a_study_lies_in_a_folder_named_after_its_stack(tmp_path):
    trial = World(sft_changes_at(5)).trial(tmp_path, QUESTION)
    assert trial.folder_of({"trl": "1.9.1"}) == tmp_path / "trl-1.9.1"
    many = dict.fromkeys("abc", "1.0")
    assert trial.folder_of(many) == trial.folder_of(dict(reversed(many.items())))
    assert trial.folder_of(many) != trial.folder_of({**many, "a": "1.1"})


def test_a_restricted_side_has_its_cells_and_whole_repeats():
    side = make_side(
        "a.full.s0", "a.again.s0", "b.full.s0", repeats={"a.again": "a.full", "b.again": "b.full"}
    )
    found = restrict(side, ["a.full", "a.again", "b.full"])
    assert found.repeats == {"a.again": "a.full"}
    assert [run.cell for run in restrict(side, ["b.full"]).runs] == ["b.full.s0"]
    assert restrict(side, []) == side


def test_the_comparison_that_ships_finds_the_change(tmp_path):
    engine = pytest.importorskip("harness.compare.verdict")
    world = World(sft_changes_at(5))
    trial = Trial(
        tmp_path,
        QUESTION.good,
        QUESTION.bad,
        train=world.train,
        read=world.read,
        compare=engine.compare_sides,
        tell=world.told.append,
    )
    answer = search_releases(RELEASES, lambda name: trial.probe(QUESTION.stack(name)))
    assert (answer.word, answer.good, answer.bad) == ("found", "1.4.0", "1.5.0")
    assert answer.decisive.cells == ("sft-plain.full",)
    found = answer.decisive.difference
    assert found is not None
    assert (found.kind, found.step, found.base, found.candidate) == ("loss", 1, 1.0, 2.0)
