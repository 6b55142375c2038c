"""The search by simulation: where the truth is known, it is found, in as few probes as promised."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.bisect import Answer, Outcome, judge, search_packages, search_releases
from harness.compare.model import Cell, Comparison, Difference

RELEASES = tuple(f"1.{i}.0" for i in range(42))
GOOD, BAD, SKIP = (Outcome(word=w, why=w) for w in ("good", "bad", "skip"))


class Probe:
    """Answers by a rule, and counts."""

    def __init__(self, rule: Callable[[int], Outcome]) -> None:
        self.rule = rule
        self.asked: list[str] = []

    def __call__(self, release: str) -> Outcome:
        assert release not in self.asked
        self.asked.append(release)
        return self.rule(RELEASES.index(release))


@pytest.mark.parametrize("change", range(1, 42))
def test_a_change_is_found_wherever_it_is(change):
    probe = Probe(lambda i: BAD if i >= change else GOOD)
    answer = search_releases(RELEASES, probe)
    assert (answer.word, answer.good, answer.bad) == ("found", *RELEASES[change - 1 : change + 1])
    assert answer.between == ()
    assert answer.notes == ()
    assert len(probe.asked) <= math.ceil(math.log2(len(RELEASES))) + 2
    assert RELEASES[0] not in probe.asked


@settings(deadline=None)
@given(data=st.data(), n=st.integers(2, 60))
def test_skips_widen_the_answer_by_no_more_than_themselves(data, n):
    releases = [str(i) for i in range(n)]
    change = data.draw(st.integers(1, n - 1))
    skips = data.draw(st.sets(st.integers(1, n - 1).filter(lambda i: i != n - 1)))
    asked: list[int] = []

    def probe(release: str) -> Outcome:
        i = int(release)
        asked.append(i)
        return SKIP if i in skips else BAD if i >= change else GOOD

    answer = search_releases(releases, probe)
    known = [i for i in range(n) if i not in skips]
    good, bad = max(i for i in known if i < change), min(i for i in known if i >= change)
    assert (answer.good, answer.bad) == (str(good), str(bad))
    assert answer.between == tuple(str(i) for i in range(good + 1, bad))
    assert answer.word == ("range" if bad - good > 1 else "found")
    assert len(asked) == len(set(asked))


def test_a_run_of_releases_that_cannot_be_tried_is_left_quickly():
    probe = Probe(lambda i: SKIP if 10 <= i <= 30 else BAD if i >= 35 else GOOD)
    answer = search_releases(RELEASES, probe)
    assert (answer.good, answer.bad) == (RELEASES[34], RELEASES[35])
    assert len(probe.asked) <= 12


@pytest.mark.parametrize(("end", "word"), [(GOOD, "nothing"), (SKIP, "unknown")])
def test_ends_that_do_not_differ_are_no_question(end, word):
    probe = Probe(lambda _i: end)
    assert search_releases(RELEASES, probe).word == word
    assert probe.asked == [RELEASES[-1]]


def test_two_changes_are_said_where_a_release_shows_them():
    both, one = ("a.full", "b.full"), ("a.full",)

    def rule(i: int) -> Outcome:
        if i < 5:
            return GOOD
        return Outcome(word="bad", why="bad", cells=both if i >= 30 else one)

    answer = search_releases(RELEASES, Probe(rule))
    assert (answer.good, answer.bad) == (RELEASES[4], RELEASES[5])
    assert "b.full had not changed yet" in answer.notes[0]
    assert "more than once" in answer.notes[0]


def test_a_release_that_differs_from_both_ends_shows_two_changes():
    def rule(i: int) -> Outcome:
        return GOOD if i < 5 else Outcome(word="bad", why="bad", is_between=i < 30)

    answer = search_releases(RELEASES, Probe(rule))
    assert (answer.good, answer.bad) == (RELEASES[4], RELEASES[5])
    assert "differs from both ends" in answer.notes[0]


@pytest.mark.parametrize("seed", range(20))
def test_of_a_change_that_comes_and_goes_one_edge_is_found(seed):
    rng = random.Random(seed)
    states = [True, *(rng.random() < 0.5 for _ in range(40)), False]
    answer = search_releases(RELEASES, Probe(lambda i: GOOD if states[i] else BAD))
    low = RELEASES.index(str(answer.good))
    assert (states[low], states[low + 1]) == (True, False)
    assert answer.bad == RELEASES[low + 1]


PACKAGES = tuple(f"p{i:02}" for i in range(20))


class Stack:
    """A set of packages changes training if it holds one of the causes whole."""

    def __init__(self, *causes: set[str], breaks: Callable[[frozenset[str]], bool] | None = None):
        self.causes = causes
        self.breaks = breaks
        self.asked: list[frozenset[str]] = []

    def __call__(self, names: frozenset[str]) -> Outcome:
        assert names not in self.asked
        self.asked.append(names)
        if self.breaks and self.breaks(names):
            return SKIP
        return BAD if any(cause <= names for cause in self.causes) else GOOD


@pytest.mark.parametrize("culprit", PACKAGES)
def test_the_one_package_that_changes_training_is_found(culprit):
    probe = Stack({culprit})
    answer = search_packages(PACKAGES, (), probe)
    assert (answer.word, answer.packages, answer.notes) == ("found", (culprit,), ())
    assert len(probe.asked) <= 2 * math.ceil(math.log2(len(PACKAGES))) + 2


@settings(deadline=None)
@given(st.sets(st.sampled_from(PACKAGES), min_size=1, max_size=4))
def test_packages_that_change_training_together_are_found_together(cause):
    answer = search_packages(PACKAGES, (), Stack(cause))
    assert answer.word == "found"
    assert set(answer.packages) == cause


@settings(deadline=None)
@given(st.lists(st.sets(st.sampled_from(PACKAGES), min_size=1, max_size=3), min_size=2, max_size=3))
def test_what_is_found_changes_training_and_nothing_less_of_it_does(causes):
    stack = Stack(*causes)
    answer = search_packages(PACKAGES, (), stack)
    found = set(answer.packages)
    assert found in causes
    assert not any(cause < found for cause in causes)


def test_a_second_cause_is_said():
    answer = search_packages(PACKAGES, (), Stack({"p03"}, {"p17"}))
    assert answer.packages in (("p03",), ("p17",))
    assert "more than one cause" in answer.notes[0]


def test_likely_packages_are_tried_before_all_others():
    probe = Stack({"p07"})
    answer = search_packages(PACKAGES, ("p07", "p19", "unknown"), probe)
    assert answer.packages == ("p07",)
    assert probe.asked[1] == frozenset({"p07", "p19"})
    assert len(probe.asked) <= 5


def test_packages_that_only_install_together_are_found_together_and_said():
    # p04 can't be installed without p05, and p05 is not to blame.
    probe = Stack({"p04"}, breaks=lambda names: "p04" in names and "p05" not in names)
    answer = search_packages(PACKAGES, (), probe)
    assert answer.packages == ("p04", "p05")
    assert answer.word == "range"
    assert "p05 are needed can't be told" in answer.notes[0]


@settings(deadline=None)
@given(st.sampled_from(PACKAGES), st.integers(0, 1000))
def test_sets_that_cannot_be_installed_never_hide_the_cause(culprit, seed):
    rng = random.Random(seed)
    broken: dict[frozenset[str], bool] = {}

    def breaks(names: frozenset[str]) -> bool:
        return broken.setdefault(names, len(names) < len(PACKAGES) and rng.random() < 0.4)

    answer = search_packages(PACKAGES, (), Stack({culprit}, breaks=breaks))
    assert culprit in answer.packages


@pytest.mark.parametrize(("end", "word"), [(GOOD, "nothing"), (SKIP, "unknown")])
def test_locks_that_train_the_same_are_no_question(end, word):
    answer = search_packages(PACKAGES, (), lambda _names: end)
    assert (answer.word, len(answer.tried)) == (word, 1)


def cell(name: str, word: str, *differences: Difference) -> Cell:
    pair, arm = name.split(".")
    return Cell(
        pair=pair,
        arm=arm,
        task="sft",
        method="full",
        seeds=(0,),
        word=word,  # type: ignore[arg-type]
        sentence=f"it is {word}",
        differences=differences,
    )


def comparison(word: str, *cells: Cell, **fields: object) -> Comparison:
    return Comparison(
        base="A",
        candidate="B",
        matrix_name="m",
        word=word,
        sentence=f"all {word}",
        cells=cells,
        **fields,
    )  # type: ignore[arg-type]


def difference(step: int | None, kind: str = "loss") -> Difference:
    return Difference(
        layer="exact",
        kind=kind,
        what="log/loss",
        word="changed",
        step=step,
        sentence=f"{kind} at {step}",
    )  # type: ignore[arg-type]


def test_a_cell_that_changed_is_bad_and_shows_its_first_difference():
    grave = difference(2)
    found = judge(
        comparison(
            "changed", cell("a.full", "same"), cell("b.full", "changed", difference(None), grave)
        )
    )
    assert (found.word, found.cells, found.difference) == ("bad", ("b.full",), grave)
    assert found.why == "loss at 2"


@pytest.mark.parametrize("word", ["same", "rounding"])
def test_rounding_is_good(word):
    assert judge(comparison(word, cell("a.full", word))).word == "good"
    assert judge(comparison(word, cell("a.full", word)), ("a.full",)).word == "good"


@pytest.mark.parametrize("word", ["undecided", "not comparable", "unsupported here"])
def test_what_cannot_be_told_is_skipped_with_its_reason(word):
    found = judge(comparison(word, cell("a.full", word)), ("a.full",))
    assert (found.word, found.why) == ("skip", f"a.full: it is {word}")


def test_only_watched_cells_decide():
    found = comparison("changed", cell("a.full", "rounding"), cell("b.full", "changed"))
    assert judge(found, ("a.full",)).word == "good"
    assert judge(found, ("b.full",)).word == "bad"


def test_a_watched_cell_that_did_not_run_is_no_good_sign():
    found = comparison("same", cell("a.full", "same"))
    assert judge(found, ("a.full", "b.full")).word == "skip"


def test_a_change_of_what_was_asked_for_decides_where_no_cell_changed():
    asked = (difference(None, "configuration"),)
    found = judge(comparison("changed", cell("a.full", "same"), asked=asked))
    assert (found.word, found.why, found.cells) == ("bad", "configuration at None", ())


def test_an_answer_shows_the_outcome_of_the_first_bad_release():
    outcomes = {i: Outcome(word="bad" if i >= 7 else "good", why=str(i)) for i in range(42)}
    answer: Answer = search_releases(RELEASES, Probe(outcomes.__getitem__))
    assert answer.decisive.why == "7"
