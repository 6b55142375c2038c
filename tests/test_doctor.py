"""`harness doctor` as a whole: every part is asked, and what is printed can be acted upon."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import pytest

from harness import caches, cli
from harness.doctor import Asked, Machine, examine, survey
from harness.doctor_check import Check
from harness.doctor_disk import Room
from harness.doctor_driver import Torch
from harness.doctor_engine import Answer
from harness.doctor_host import Shared
from harness.doctor_text import closing, print_checks
from harness.errors import ConfigError
from harness.hub_token import HubToken
from harness.matrix import shipped_matrices
from harness.measure.container import Limits, Ram
from harness.measure.gpus import GpuList
from harness.planning import look_around
from tests.doctor_cases import GIB, exit_code_for, gpus
from tests.plan_matrix import CARD
from tests.test_doctor_engine import GPU_INFO, LABELS, Docker


def room(folder: Path) -> Room:
    return Room(folder.absolute(), Path("/"), (0, 0), None, 10**12, 10**12, 1)


@pytest.fixture(scope="module")
def host() -> Machine:
    """A large host without GPU, token and cached repositories; the rest is this machine."""
    machine = replace(
        survey(),
        signs=(),
        environ={},
        limits=Limits(),
        ram=Ram(64 * GIB, 64 * GIB, 64 * GIB),
        shared=Shared(32 * GIB, 32 * GIB),
        token=HubToken(),
        is_offline=False,
        cached_bytes=lambda *_: None,
        hub_cache=room(Path("/cache/hub")),
        harness_cache=room(Path("/cache/harness")),
        scratch=replace(room(Path("/tmp")), there=Path("/tmp")),
        look=room,
    )
    return with_gpus(machine, 0)


def with_gpus(machine: Machine, count: int) -> Machine:
    found = GpuList(gpus(count), None if count else "no NVML: a test")
    ground, _ = look_around(CARD, None, found, None)
    torch = Torch("the installed torch", "2.13.0+cu130", "13.0")
    return replace(machine, gpus=found, visible=found.gpus, ground=ground, torch=torch)


def no_docker(_):
    return None


def words(checks: list[Check]) -> dict[str, str]:
    return {f"{c.section}/{c.name}": c.word for c in checks}


def test_every_part_of_the_machine_is_asked(host):
    checks = examine(Asked("cpu"), host, no_docker)
    assert list(words(checks)) == [
        "software/packages",
        "machine/place",
        "machine/cpu",
        "machine/memory",
        "machine/shared memory",
        "gpu/gpu",
        "disk/results",
        "disk/Hub cache",
        "disk/harness cache",
        "disk/temporary files",
        "hub/token",
        "hub/model",
        "hub/dataset",
        "matrix/needs",
        "docker/engine",
    ]


@pytest.mark.slow
def test_a_matrix_that_needs_gpus_has_problems_without_and_fits_with_them(host):
    bare = words(examine(Asked("blog"), host, no_docker))
    assert (bare["gpu/gpu"], bare["hub/token"]) == ("problem", "problem")
    assert "matrix/fit" not in bare
    large = replace(with_gpus(host, 4), token=HubToken("the file x"), has_host_pids=True)
    rich = words(examine(Asked("blog"), large, no_docker))
    assert (rich["gpu/gpu"], rich["gpu/driver"], rich["matrix/fit"]) == ("ok", "ok", "ok")
    assert rich["hub/token"] == "ok"


def test_an_unknown_matrix_is_refused(host):
    with pytest.raises(ConfigError, match="did you mean 'blog'"):
        examine(Asked("blgo"), host, no_docker)


@pytest.mark.slow
def test_only_what_is_chosen_of_a_matrix_is_judged(host):
    def found(**options):
        checks = {c.name: c for c in examine(Asked("blog", **options), host, no_docker)}
        return checks["needs"].value, checks["token"].word

    whole, token = found()
    assert (whole["runs"], token) == (84, "problem")
    part, token = found(
        filters=("grpo-qwen8b-*",), seeds=(0,)
    )  # the only pair without a gated model
    assert (part["runs"], token) == (2, "ok")
    assert part["download_bytes"] < whole["download_bytes"]
    short, _ = found(budget="short")
    assert short["gpu_hours"] < whole["gpu_hours"]
    with pytest.raises(ConfigError, match="matches no run"):
        examine(Asked("blog", filters=("sfft-*",)), host, no_docker)


@pytest.mark.slow
def test_a_map_of_what_no_chosen_run_reads_is_refused_as_bench_refuses_it(host, tmp_path):
    maps = {"meta-llama/Llama-3.1-8B": str(tmp_path)}
    examine(Asked("blog", maps=maps, lists_all=True), host, no_docker)
    with pytest.raises(ConfigError, match="no selected run reads"):
        examine(Asked("blog", maps=maps, filters=("sft-*",)), host, no_docker)


def test_the_disk_of_the_named_folder_is_looked_at(host, tmp_path):
    def results(**options):
        checks = examine(Asked("cpu", **options), host, no_docker)
        return next(c for c in checks if c.name == "results").value["folder"]

    assert results(output_dir=tmp_path / "elsewhere") == str(tmp_path / "elsewhere")
    assert results() == str(Path.cwd() / "results" / "cpu")


def test_in_a_container_an_engine_that_can_not_be_reached_is_no_news(host):
    inside = replace(host, signs=("/.dockerenv",))
    down = Docker(Answer(1, "", "Cannot connect to the Docker daemon"))
    assert "docker/engine" not in words(examine(Asked("cpu"), inside, no_docker))
    assert "docker/engine" not in words(examine(Asked("cpu"), inside, down))
    assert words(examine(Asked("cpu"), inside, Docker()))["docker/engine"] == "ok"
    assert words(examine(Asked("cpu", image="i"), inside, down))["docker/engine"] == "problem"


def test_an_image_counts_instead_of_what_is_installed(host):
    labels = {**LABELS, "io.lora-harness.variant": "cuda", "io.lora-harness.torch": "2.9.0+cu128"}
    docker = Docker(GPU_INFO, {"i": labels})
    one = with_gpus(host, 1)
    checks = {c.name: c for c in examine(Asked("smollm3", image="i"), one, docker)}
    assert "the image's torch, built for CUDA 12.8" in checks["driver"].text
    here = {c.name: c for c in examine(Asked("smollm3"), one, docker)}
    assert "the installed torch, built for CUDA 13.0" in here["driver"].text


def test_what_is_missing_here_is_a_note_where_an_image_trains(host, monkeypatch):
    monkeypatch.setattr("harness.installed.find_spec", lambda _: None)
    four = with_gpus(host, 4)
    assert words(examine(Asked("blog"), four, no_docker))["software/extras"] == "problem"
    docker = Docker(GPU_INFO, {"i": LABELS})
    assert words(examine(Asked("blog", image="i"), four, docker))["software/extras"] == "note"


@pytest.mark.slow
def test_all_matrices_are_a_line_each_and_never_change_the_exit_code(host):
    checks = examine(Asked("cpu", lists_all=True), host, no_docker)
    lines = {c.name: c for c in checks if c.section == "matrices"}
    assert list(lines) == list(shipped_matrices())
    assert lines["cpu"].value["fits"] is True
    assert lines["blog"].value["reason"] == "no GPU here"
    assert max(c.exit_code for c in lines.values()) == 0
    assert checks[: -len(lines)] == examine(Asked("cpu"), host, no_docker)


@pytest.mark.slow
def test_a_line_agrees_with_asking_about_that_matrix(host, monkeypatch):
    monkeypatch.setattr("harness.installed.find_spec", lambda _: Mock(origin="x"))
    four = replace(with_gpus(host, 4), token=HubToken("x"))
    fitting = []
    for machine in (host, four):
        checks = examine(Asked("cpu", lists_all=True), machine, no_docker)
        for line in [c for c in checks if c.section == "matrices"]:
            asked = examine(Asked(line.name), machine, no_docker)
            assert line.value["fits"] == all(c.word != "problem" for c in asked)
            fitting += [line.name] if line.value["fits"] else []
    assert fitting.count("cpu") == 2
    assert fitting.count("blog") == 1


def test_a_matrix_that_the_installed_trl_refuses_is_still_a_line(host, monkeypatch, tmp_path):
    bad = tmp_path / "bad.yaml"
    bad.write_text("format: 1\n")
    monkeypatch.setattr("harness.matrix.shipped_matrices", lambda: {"bad": bad})
    monkeypatch.setattr("harness.doctor.shipped_matrices", lambda: {"bad": bad})
    (line,) = [
        c
        for c in examine(
            Asked(str(Path("benchmarks/cpu.yaml").absolute()), lists_all=True), host, no_docker
        )
        if c.section == "matrices"
    ]
    assert (line.name, line.word) == ("bad", "note")
    assert line.text.startswith("can't be read: ")


def test_survey_sees_this_machine():
    machine = survey()
    assert machine.cores >= 1
    assert machine.torch is not None
    assert machine.scratch.free_bytes > 0


PROBLEM = Check("gpu", "driver", "problem", "it is old", "update it")
NOTE = Check("hub", "model", "note", "is to be \x1b[31mfetched [bold]now[/bold]")


def test_the_closing_line_counts_and_says_what_to_do_first():
    assert closing([NOTE], "cpu") == (
        "no problems for matrix 'cpu' (1 note): `harness bench --matrix cpu` can start"
    )
    software = Check("software", "packages", "problem", "missing trl")
    assert closing([software, PROBLEM, NOTE, NOTE], "blog") == (
        "2 problems for matrix 'blog' (2 notes). First, driver: update it"
    )
    assert closing([software], "blog").endswith("First, packages: missing trl")
    assert closing([], "blog", is_whole=False) == (
        "no problems for what was chosen of matrix 'blog': `harness bench --matrix blog` with the same "
        "--filter, --seeds and --budget can start"
    )


def test_findings_are_printed_in_groups(capsys):
    line = Check("matrices", "bad", "note", "can't be read: why")
    print_checks([Check("gpu", "gpu", "ok", "one"), PROBLEM, NOTE, line], "blog")
    out = capsys.readouterr().out
    assert [text.rstrip() for text in out.splitlines()] == [
        "GPU",
        "  ok       gpu     one",
        "  problem  driver  it is old; update it",
        "Hub",
        "  note     model   is to be fetched [bold]now[/bold]",
        "matrices",
        "  matrix  GPUs  download  results  gated  GPU-hours  here",
        "  bad                                                can't be read: why",
        "1 problem for matrix 'blog' (1 note). First, driver: update it",
    ]


@pytest.mark.slow
def test_all_matrices_are_a_table(host, capsys):
    print_checks(examine(Asked("cpu", lists_all=True), host, no_docker), "cpu")
    rows = capsys.readouterr().out.partition("matrices\n")[2]
    assert "  blog          4 × 72.78 GiB  51.0 GB and 4 repositories of unknown size" in rows
    assert "no GPU here" in rows
    assert "fits" in rows


def test_the_command_answers_in_json_and_in_words(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))  # no docker
    code = cli.run(["doctor", "--json", "-o", "there"])
    rows = [json.loads(text) for text in capfd.readouterr().out.splitlines()]
    assert code == exit_code_for(rows)
    assert all(row.keys() == {"section", "name", "word", "text", "advice", "value"} for row in rows)
    assert {"packages", "gpu", "results", "needs"} <= {row["name"] for row in rows}
    results = next(row for row in rows if row["name"] == "results")
    assert results["value"]["folder"] == str(tmp_path / "there")
    assert list(tmp_path.iterdir()) == []
    assert cli.run(["doctor", "--image", "x"]) == 7
    assert "First, engine: install Docker Engine" in capfd.readouterr().out
    assert cli.run(["doctor", "-m", "cpuu"]) == 2
    assert cli.run(["doctor", "--json", "--filter", "grpo-*", "--seeds", "0,1"]) == code
    rows = [json.loads(text) for text in capfd.readouterr().out.splitlines()]
    assert next(row for row in rows if row["name"] == "needs")["value"]["runs"] == 4
    assert cli.run(["doctor", "--seeds", "0-1"]) == code
    closing_line = capfd.readouterr().out.splitlines()[-1]
    count = "no problems" if code == 0 else r"\d problems?"
    assert re.match(f"{count} for what was chosen of matrix 'cpu'", closing_line)
    assert cli.run(["doctor", "--budget", "short"]) == 2
    assert cli.run(["doctor", "--map", "x"]) == 2


def test_the_cache_counts_only_if_it_is_whole(tmp_path):
    assert not caches.smollm2_is_cached(tmp_path)
    folder = caches.smollm2_dir(tmp_path)
    folder.mkdir()
    for name in caches.FILES:
        (folder / name).write_bytes(b"12345")
    note = {"gguf_sha256": caches.SMOLLM2_SHA256, "bytes": dict.fromkeys(caches.FILES, 5)}
    (folder / caches.SOURCE_NOTE).write_text(json.dumps(note))
    assert caches.smollm2_is_cached(tmp_path)
    (folder / caches.WEIGHTS).write_bytes(b"123")
    assert not caches.smollm2_is_cached(tmp_path)
