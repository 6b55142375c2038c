"""`harness bisect`: which release, or which package, changed training.

What this leaves out: the search (`bisect`), a stack's training and judgement (`trial`), the words
(`bisect_text`).
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness.errors import EXIT_INTERRUPTED, ConfigError, HarnessError, RunsFailed, StudyError
from harness.options import FILTER, JSON, POSITIVE, SEEDS, SETTINGS, complete_matrix

if TYPE_CHECKING:
    from harness.bisect import Answer
    from harness.bisect_question import Question
    from harness.trial import Train, Trial

EXIT_UNDECIDED = 6
EXAMPLES = """\b
Examples:
  harness bisect --good 1.16.0 --bad 1.8.0
  harness bisect --good 0.22.1 --bad 0.24.0 --with transformers==4.57.6 --filter 'grpo-*'
  harness bisect --package transformers --good 5.17.0 --bad 5.23.0
  harness bisect --good-lock constraints.old.txt --bad-lock constraints.txt
  harness bisect --good 'peft==0.20.0 numpy==2.3.5' --bad 'peft==0.21.2 numpy==2.4.1'
"""
FILE = click.Path(path_type=Path, exists=True, dir_okay=False)


@click.command(epilog=EXAMPLES)
@click.option("--good", metavar="RELEASE|SET", help="an end; 'a==1 b==2' for a set of packages")
@click.option("--bad", metavar="RELEASE|SET", help="the other end; either may be the newer")
@click.option("--good-lock", type=FILE, metavar="FILE", help="a lock of name==version lines")
@click.option("--bad-lock", type=FILE, metavar="FILE", help="the lock with which training changed")
@click.option("--package", default="trl", show_default=True, help="whose releases are searched")
@click.option(
    "--releases", metavar="LIST", help="search these, e.g. 1.8.0,1.9.0; default what pip lists"
)
@click.option(
    "--matrix",
    "-m",
    default="upgrade",
    show_default=True,
    metavar="NAME|PATH",
    shell_complete=complete_matrix,
    help="what is trained",
)
@FILTER
@SEEDS
@SETTINGS
@click.option(
    "--with",
    "extras",
    multiple=True,
    metavar="NAME==VERSION",
    help="another package, in all stacks",
)
@click.option("--jobs", "-j", type=POSITIVE, help="runs side by side; as for `harness bench`")
@click.option(
    "--output-dir",
    "-o",
    type=click.Path(path_type=Path),
    help="where the studies of the stacks go; default results/bisect-MATRIX",
)
@JSON
def bisect(
    good: str | None,
    bad: str | None,
    good_lock: Path | None,
    bad_lock: Path | None,
    package: str,
    releases: str | None,
    extras: tuple[str, ...],
    output_dir: Path | None,
    is_json: bool,
    **asked: Any,
) -> int:
    """Find the release, or the package, that changed training.

    Trains the ends first, then only what differs between them. Exit 6 if the ends train the same, or
    can't be told. The same command again goes on where it stopped.
    """
    from harness.matrix import load_matrix
    from harness.terminal import complain
    from harness.trial import Trial

    question = read_question(good, bad, good_lock, bad_lock, package, releases, extras)
    loaded = load_matrix(asked["matrix"], asks_trl=False)
    for note in question.notes:
        complain(note)
    from harness.compare.reading import read_side
    from harness.compare.verdict import compare_sides

    trial = Trial(
        output_dir or Path("results") / f"bisect-{loaded.matrix.name}",
        question.good,
        question.bad,
        train=bench_trainer(asked),
        read=read_side,
        compare=compare_sides,
        tell=complain,
    )
    return tell_answer(search(question, trial), question, trial, is_json=is_json)


def read_question(
    good: str | None,
    bad: str | None,
    good_lock: Path | None,
    bad_lock: Path | None,
    package: str,
    releases: str | None,
    extras: Sequence[str],
) -> Question:
    """Understand the ends. Raises: ConfigError."""
    from harness.bisect_question import about_packages, about_releases, is_set, read_set
    from harness.pins import read_pins
    from harness.release_list import current_releases

    fixed = read_set("--with", " ".join(extras))
    if good_lock and bad_lock and not good and not bad:
        locks = [read_pins(path.read_text(encoding="utf-8")) for path in (good_lock, bad_lock)]
        return about_packages(locks[0], locks[1], fixed)
    if not good or not bad or good_lock or bad_lock:
        raise ConfigError(
            "expected two ends: --good and --bad (two releases, or two sets such as 'peft==0.20.0'), or "
            "--good-lock and --bad-lock"
        )
    if is_set(good) != is_set(bad):
        raise ConfigError(f"--good {good!r} and --bad {bad!r}: expected two releases, or two sets")
    if is_set(good):
        return about_packages(read_set("--good", good), read_set("--bad", bad), fixed)
    listed = releases.split(",") if releases else ()
    return about_releases(package, (good, bad), listed, fixed, current_releases)


def search(question: Question, trial: Trial) -> Answer:
    """Search what a question asks for."""
    from harness.bisect import search_packages, search_releases
    from harness.measure.environment import PACKAGES

    if question.releases:
        return search_releases(question.releases, lambda name: trial.probe(question.stack(name)))
    return search_packages(
        question.packages, PACKAGES, lambda names: trial.probe(question.mixture(names))
    )


def bench_trainer(asked: Mapping[str, Any]) -> Train:
    """Return what trains a stack: `harness bench`, in this process, so that its signals stay its own."""
    from harness.benching import bench

    def train(stack: Mapping[str, str], cells: Sequence[str], folder: Path) -> None:
        words = bench_words(asked, stack, cells, folder)
        with contextlib.redirect_stdout(sys.stderr):
            code = bench.main(args=words, prog_name="harness bench", standalone_mode=False)
        if code == EXIT_INTERRUPTED:
            raise KeyboardInterrupt
        if code not in (0, RunsFailed.exit_code):  # a run that failed is seen by the comparison
            kind = StudyError if code == StudyError.exit_code else HarnessError
            raise kind(f"`harness bench {' '.join(words)}` ended with {code}")

    return train


def bench_words(
    asked: Mapping[str, Any], stack: Mapping[str, str], cells: Sequence[str], folder: Path
) -> list[str]:
    """Write the words of `harness bench` that train some cells with a stack into a folder."""
    words = ["--matrix", asked["matrix"], "--output-dir", str(folder), "--no-report", "--quiet"]
    for name, version in sorted(stack.items()):
        words += ["--trl", version] if name == "trl" else ["--with", f"{name}=={version}"]
    filters = [f"{cell}.s*" for cell in cells] or asked["filters"]
    words += [word for pattern in filters for word in ("--filter", pattern)]
    if asked["seeds"]:
        words += ["--seeds", ",".join(map(str, asked["seeds"]))]
    for key, value in asked["overrides"].items():
        words += ["--set", f"{key}={json.dumps(value)}"]
    return [*words, "--jobs", str(asked["jobs"])] if asked["jobs"] else words


def tell_answer(answer: Answer, question: Question, trial: Trial, *, is_json: bool) -> int:
    """Print an answer and return the exit code."""
    from harness.bisect_text import as_json, details, next_steps, sentence
    from harness.terminal import answer_console, plain_table
    from harness.text import harmless

    if is_json:
        click.echo(as_json(answer, question, trial))
    else:
        table = plain_table("tried", "", "")
        for each in answer.tried:
            table.add_row(", ".join(each.names), each.outcome.word, harmless(each.outcome.why))
        answer_console().print(table)
        for line in (sentence(answer, question), *details(answer)):
            click.echo(harmless(line))
        for command in next_steps(answer, question, trial):
            click.echo(f"see: {command}")
    return 0 if answer.word in ("found", "range") else EXIT_UNDECIDED
