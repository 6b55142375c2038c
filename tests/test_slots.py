"""Places for runs: how many a command takes, and what is refused before anything trains."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from harness.errors import ConfigError, MachineError
from harness.matrix import expand, parse_matrix
from harness.measure.container import Ram
from harness.plan import Request, make_plan
from harness.slots import (
    Slot,
    count_jobs,
    count_places,
    find_slots,
    hold,
    processes,
    refuse_unfit,
)
from harness.spec import RunSpec
from tests.conftest import MATRIX

CORES = tuple(Slot(core, None) for core in range(4))
GPUS = tuple(Slot(None, f"GPU-{i}") for i in range(4))
LINE = "full: {method: full, trainer: {learning_rate: 1e-4}}"


def matrix_text(strategy: str, count: int) -> str:
    """The small matrix, its sft arm `full` over several processes."""
    asked = f"parallel: {{processes: {count}, strategy: {strategy}}}"
    text = MATRIX.replace(LINE, LINE.replace("full,", f"full, {asked},", 1), 1)
    return of_one_update(text, count)


def of_one_update(text: str, count: int) -> str:
    """The matrix with both arms of its sft pair learning from as many sequences an update."""
    lora = "lora: {method: lora, lora: {r: 4}, trainer: {learning_rate: 1e-3"
    own = "    declared_differences: [learning_rate, gradient_accumulation_steps]\n    arms:"
    text = text.replace(lora, f"{lora}, gradient_accumulation_steps: {count}", 1)
    return text.replace("    arms:", own, 1)


def specs(strategy: str = "ddp", count: int = 2) -> list[RunSpec]:
    return expand(parse_matrix(matrix_text(strategy, count), "m"))


def refusal(of: list[RunSpec], slots: tuple[Slot, ...]) -> str:
    with pytest.raises(MachineError) as caught:
        refuse_unfit(of, slots)
    assert caught.value.exit_code == 7
    return str(caught.value)


def test_a_run_takes_a_place_for_each_process():
    assert sorted({processes(s) for s in specs(count=3)}) == [1, 3]


def test_what_fits_is_not_refused():
    refuse_unfit(specs(), CORES)
    refuse_unfit(specs("fsdp2", 4), GPUS)


@pytest.mark.parametrize("strategy", ["fsdp2", "zero3"])
def test_sharding_on_a_cpu_is_refused(strategy):
    words = refusal(specs(strategy), CORES)
    assert words == (
        f"sft-micro.full asks for {strategy}, but accelerate runs plain DDP on a CPU: run it on 2 "
        "GPUs, or ask for strategy ddp"
    )


def test_too_few_gpus_say_what_each_arm_needs():
    other = [s.model_copy(update={"pair": "other"}) for s in specs("ddp", 6) if s.parallel]
    both = [*specs("fsdp2", 8), *other]
    assert refusal(both, GPUS).splitlines() == [
        "sft-micro.full needs 8 GPUs, and 4 can be used here",
        "other.full needs 6 GPUs, and 4 can be used here",
    ]


def test_zero3_needs_deepspeed():
    from importlib.util import find_spec

    if find_spec("deepspeed") is not None:
        pytest.skip("deepspeed is installed here")
    assert "deepspeed is not installed" in refusal(specs("zero3"), GPUS)


@pytest.mark.parametrize(
    ("slots", "jobs", "count", "places"),
    [
        (GPUS, None, 2, 4),  # all GPUs, two runs side by side
        (GPUS, 1, 2, 2),  # one run at a time
        (GPUS, 1, 3, 3),
        (GPUS, 3, 2, 4),  # no more places than there are
        (CORES, 1, 4, 4),
        (CORES, 2, 2, 4),
    ],
)
def test_a_command_takes_places_for_the_runs_that_go_side_by_side(slots, jobs, count, places):
    assert count_places(slots, jobs, specs(count=count)) == places


def test_more_runs_than_places_are_refused():
    with pytest.raises(ConfigError, match="--jobs 5"):
        count_places(GPUS, 5, specs())


def test_side_by_side_runs_share_what_a_cgroup_leaves(monkeypatch):
    for gibibytes, fit in ((64, 4), (9, 2), (2, 1)):
        ram = Ram(gibibytes * 2**30, 64 * 2**30, 64 * 2**30)
        monkeypatch.setattr("harness.slots.Ram.here", lambda ram=ram: ram)
        assert count_jobs(CORES, None) == fit


def test_without_a_folder_for_temporary_files_there_is_a_sentence(monkeypatch):
    def full():
        raise FileNotFoundError(2, "No usable temporary directory found")

    monkeypatch.setattr("tempfile.gettempdir", full)
    with pytest.raises(MachineError, match=r"set TMPDIR to another, .*--tmpfs"), hold(CORES, 1):
        pass


def test_a_plan_refuses_before_anything_is_written(tmp_path: Path):
    (tmp_path / "tiny.yaml").write_text(matrix_text("fsdp2", 2))
    request = Request(matrix=str(tmp_path / "tiny.yaml"), output_dir=tmp_path / "study")
    with pytest.raises(MachineError, match="accelerate runs plain DDP on a CPU"):
        make_plan(request)
    assert not (tmp_path / "study").exists()
    cpus = find_slots(parse_matrix(MATRIX, "m"), "cpu")
    (tmp_path / "tiny.yaml").write_text(matrix_text("ddp", len(cpus) + 1))
    with pytest.raises(MachineError, match=f"needs {len(cpus) + 1} usable CPU cores"):
        make_plan(request)


def test_the_completions_of_all_processes_make_whole_groups():
    """Half of num_generations in each of two processes; in one it would be refused."""
    line = "full: {method: full, trainer: {learning_rate: 1e-4}}"
    head, tail = MATRIX.rsplit(line, 1)
    two = line.replace("full,", "full, parallel: {processes: 2, strategy: ddp},", 1)
    halves = "num_generations: 16"
    text = (head + two + tail).replace("num_generations: 4", halves, 1)
    with pytest.raises(ConfigError) as caught:
        parse_matrix(text, "m")
    assert [p.split(":")[1].strip() for p in caught.value.problems] == [
        "pairs.grpo-micro.arms.lora-r1",
        "pairs.grpo-micro",  # and the arms' updates differ in size
    ]


def test_more_processes_may_not_mean_more_sequences_an_update():
    uneven = matrix_text("ddp", 2).replace("gradient_accumulation_steps: 2", "weight_decay: 0.0", 1)
    uneven = uneven.replace("gradient_accumulation_steps]", "weight_decay]", 1)
    with pytest.raises(ConfigError, match=r"an update \(full 8, lora 4\)"):
        parse_matrix(uneven, "m")
    parse_matrix(matrix_text("ddp", 2), "m")


def test_studies_that_share_the_folder_of_locks_see_each_other(tmp_path: Path, monkeypatch):
    """As containers do: each has a temporary folder of its own."""
    for name in ("temporary", "another", "shared"):
        (tmp_path / name).mkdir()
    slots = [Slot(9100, None)]
    monkeypatch.delenv("HARNESS_LOCKS")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    with hold(slots, 1) as (_, alone):
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "another"))
        with hold(slots, 1) as (_, apart):
            assert alone == apart == ()
        monkeypatch.setenv("HARNESS_LOCKS", str(tmp_path / "shared"))
        with hold(slots, 1) as (_, first), hold(slots, 1) as (_, second):
            assert (first, second) == ((), ("core 9100",))
        with hold(slots, 1) as (_, after):
            assert after == ()
    monkeypatch.setenv("HARNESS_LOCKS", str(tmp_path / "not there"))
    with hold(slots, 1) as (_, shared):
        assert shared == ()
    assert (tmp_path / "another" / "harness-core-9100.lock").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be another user")
def test_a_lock_that_another_user_left_in_a_folder_of_all_is_free(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("HARNESS_LOCKS", str(tmp_path))
    tmp_path.chmod(0o1777)
    left = tmp_path / "harness-core-9101.lock"
    left.touch(0o644)
    os.chown(left, 4242, 4242)
    with hold([Slot(9101, None)], 1) as (_, shared):
        assert shared == ()
