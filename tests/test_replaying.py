"""The corpus is played back by the stack's own interpreter; here a stand-in that answers at once."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from harness.bench import bench
from harness.errors import MachineError
from harness.launch.local import LocalLauncher
from harness.matrix import parse_matrix
from harness.plan import Request
from harness.progress import Event, Quiet
from harness.replaying import record_replay, replay_study
from harness.replays import FILE, read_replay
from harness.store import Store
from tests.fake_worker import COMMAND

# An interpreter that knows one program: it notes each call beside itself and answers.
PYTHON = """\
#!{python}
import json, sys
from pathlib import Path
here = Path(__file__).parent
arguments = sys.argv[3:]
with (here / "calls").open("a") as calls:
    print(*arguments, file=calls)
assert sys.argv[1:3] == ["-m", "harness.worker.replay"], sys.argv
if arguments == ["--fingerprint"]:
    print((here / "installed").read_text())
else:
    {answer}
"""
ANSWER = 'Path(arguments[0]).write_text(json.dumps({"format": 1, "values": {"reward/a/x": 1.0}}))'


class Listener(Quiet):
    """Keeps the events."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[Event] = []

    def emit(self, event: Event) -> None:
        self.events.append(event)


@pytest.fixture
def stack(tmp_path: Path) -> Path:
    """A folder with an interpreter."""
    folder = tmp_path / "stack"
    folder.mkdir()
    (folder / "installed").write_text("trl 1\n")
    return write_python(folder, ANSWER)


def write_python(folder: Path, answer: str) -> Path:
    path = folder / "python"
    path.write_text(PYTHON.format(python=sys.executable, answer=answer))
    path.chmod(0o755)
    return path


def replays_asked(stack: Path) -> int:
    calls = (stack.parent / "calls").read_text().splitlines()
    return sum(call != "--fingerprint" for call in calls)


@pytest.fixture
def study(tmp_path: Path) -> Path:
    Store(tmp_path / "study").prepare()
    return tmp_path / "study"


def test_what_the_interpreter_answers_is_kept_in_the_study(stack, study):
    assert record_replay(study, str(stack)) == {"reward/a/x": 1.0}
    assert read_replay(study) == {"reward/a/x": 1.0}
    assert json.loads((study / FILE).read_text())["fingerprint"] == "trl 1"


def test_the_same_installation_is_not_asked_twice_and_another_is(stack, study):
    record_replay(study, str(stack))
    record_replay(study, str(stack))
    assert replays_asked(stack) == 1
    (stack.parent / "installed").write_text("trl 2")
    record_replay(study, str(stack))
    assert replays_asked(stack) == 2


def test_a_checkpoint_is_passed_on_and_always_played_anew(stack, study):
    for _ in range(2):
        record_replay(study, str(stack), checkpoint="somewhere")
    assert replays_asked(stack) == 2
    assert (stack.parent / "calls").read_text().rstrip().endswith("--checkpoint somewhere")


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("sys.exit('no trl here')", "ended with 1; it said:\n    no trl here"),
        ("pass", "left an answer that can't be read"),
        ("Path(arguments[0]).write_text('{}')", "left an answer that can't be read"),
    ],
)
def test_a_program_that_gives_no_answer_is_quoted_and_leaves_nothing(stack, study, answer, said):
    write_python(stack.parent, answer)
    with pytest.raises(MachineError) as caught:
        record_replay(study, str(stack))
    assert said in str(caught.value)
    assert not (study / FILE).exists()


@pytest.mark.slow
def test_a_program_that_takes_too_long_is_ended(stack, study):
    write_python(stack.parent, "import time; time.sleep(600)")
    with pytest.raises(MachineError, match="took longer than 2 s; expected about 20 s"):
        record_replay(study, str(stack), timeout_s=2)
    assert not (study / FILE).exists()


def test_an_interpreter_that_is_not_there_is_named(study, tmp_path):
    with pytest.raises(MachineError, match="can't be started with python-of-nowhere"):
        record_replay(study, str(tmp_path / "python-of-nowhere"))


def matrix(text: str, **changes):
    return parse_matrix(text.replace("seeds:", "replays: true\nseeds:", 1), "m").model_copy(
        update=changes
    )


def test_a_matrix_that_does_not_ask_has_no_replay_and_keeps_its_hash(matrix_text, study):
    plain = parse_matrix(matrix_text, "m")
    assert "replays" not in plain.model_dump()
    replay_study(Store(study), plain, LocalLauncher(is_cold=True), Listener(), refuse)
    replay_study(
        Store(study),
        matrix(matrix_text, scale="rehearsal"),
        LocalLauncher(is_cold=True),
        Listener(),
        refuse,
    )


def refuse(folder: Path, python: str | None) -> dict:
    raise AssertionError("was asked")


class Elsewhere(LocalLauncher):
    """A launcher whose runs are not on this machine."""

    name = "docker"

    def __init__(self) -> None:
        super().__init__(is_cold=True)
        self.python = None


def test_the_launchers_interpreter_is_asked_and_a_container_is_left_out(matrix_text, study):
    asked: list[tuple[Path, str]] = []

    def record(folder: Path, python: str) -> dict:
        asked.append((folder, python))
        return {}

    told = Listener()
    for launcher in (
        LocalLauncher(is_cold=True),
        LocalLauncher(is_cold=True, python="/opt/stack/bin/python"),
        Elsewhere(),
    ):
        replay_study(Store(study), matrix(matrix_text), launcher, told, record)
    assert asked == [(study, sys.executable), (study, "/opt/stack/bin/python")]
    assert "'docker' trains with a stack that is not installed here" in told.events[-1].text


def test_a_replay_that_is_damaged_or_fails_does_not_cost_the_study(matrix_text, study):
    (study / FILE).write_text("{torn")

    def fails(folder: Path, python: str | None) -> dict:
        raise MachineError("no trl here")

    told = Listener()
    replay_study(Store(study), matrix(matrix_text), LocalLauncher(is_cold=True), told, fails)
    problems = [e.text for e in told.events if e.kind == "problem"]
    assert "set aside as replay.json.corrupt-1" in problems[0]
    assert problems[1] == "the frozen corpus was not played back: no trl here"


def test_a_bench_whose_matrix_asks_leaves_a_replay_and_another_bench_keeps_it(
    matrix_text, stack, tmp_path
):
    text = matrix_text.replace("seeds: [0, 1]", "replays: true\nseeds: [0]")
    (tmp_path / "m.yaml").write_text(text)
    request = Request(
        matrix=str(tmp_path / "m.yaml"),
        output_dir=tmp_path / "study",
        grace_s=1,
        renders_report=False,
        filters=("sft-micro.full.s0",),
    )
    for _ in range(2):
        bench(request, LocalLauncher(is_cold=True, command=COMMAND, python=str(stack)), Listener())
    assert read_replay(tmp_path / "study") == {"reward/a/x": 1.0}
    assert replays_asked(stack) == 1
