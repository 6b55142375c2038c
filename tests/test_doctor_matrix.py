"""What a matrix needs and whether it fits: the same figures and words as `harness plan` and `bench`."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from harness import cli
from harness.doctor_check import Check, gigabytes
from harness.doctor_matrix import check_extras, check_fit, check_needs, first_problem, line
from harness.doctor_needs import Needs, download_text, needs_of
from harness.matrix import expand, parse_matrix
from harness.measure.gpus import GpuList
from harness.plan import Request
from harness.planning import look_around
from tests.doctor_cases import H100, gpus, needs
from tests.plan_matrix import CARD
from tests.test_slots import matrix_text

SMALL = replace(H100, total_bytes=48 * 2**30)


def on(name: str, *there) -> tuple[Needs, GpuList]:
    """A matrix on other GPUs."""
    found = GpuList(there)
    ground, _ = look_around(CARD, None, found, None)
    return needs_of(Request(name), ground, lambda *_: None, has_token=True), found


def test_the_needs_of_a_gpu_matrix_in_a_sentence():
    check = check_needs(needs("blog", 0), "H100 80GB")
    assert (check.word, check.text) == (
        "ok",
        "84 runs of 14 arms, a run takes up to 4 GPUs and up to 72.78 GiB of each, 51.0 GB and 4 "
        "repositories of unknown size to download, about 344 GPU-hours, reckoned with H100 80GB",
    )
    assert check.advice == "`harness plan --matrix blog` says more"


def test_the_needs_of_a_matrix_on_the_cpu():
    check = check_needs(needs("cpu"), "H100 80GB")
    assert check.sentence == ("20 runs of 4 arms, on the CPU, 1 core a run, nothing to download")
    assert (check.value["gpus"], check.value["gpu_bytes"], check.value["gpu_hours"]) == (
        0,
        None,
        None,
    )


def test_the_figures_are_those_of_plan(capfd, monkeypatch):
    monkeypatch.setattr("harness.measure.gpus.list_gpus", lambda: GpuList((), "none"))
    for name in ("blog", "smollm3"):
        assert cli.run(["plan", "--formulas", "-m", name, "--json"]) == 0
        lines = [json.loads(text) for text in capfd.readouterr().out.splitlines()]
        total, arms = lines[-1], [x for x in lines if x["line"] == "arm"]
        figures = check_needs(needs(name, 0), "").value
        assert figures["download_bytes"] == total["known_download_bytes"]
        assert figures["gpu_hours"] == pytest.approx(total["gpu_hours"])
        assert figures["gpu_bytes"] == max(arm["memory_bytes"] for arm in arms)
        assert figures["gpus"] == max(arm["gpus"] for arm in arms)
        assert figures["runs"] == total["runs"]


def test_enough_gpus_fit_every_arm():
    (check,) = check_fit(needs("blog", 4), GpuList(gpus(4)))
    assert (check.word, check.text) == ("ok", "14 arms: each fits the GPUs here")


def test_too_few_gpus_are_said_as_bench_says_it():
    checks = check_fit(needs("blog", 1), GpuList(gpus(1)))
    assert {c.word for c in checks} == {"problem"}
    assert any("needs 4 GPUs, and 1 can be used here" in c.text for c in checks)


def test_gpus_that_are_too_small_are_said_as_plan_says_it():
    of, found = on("smollm3", SMALL)
    checks = [c for c in check_fit(of, found) if c.name == "fit"]
    assert [c.word for c in checks] == ["problem"] * len(checks)
    verdicts = {arm.verdict for arm in of.arms if arm.fits is False}
    assert any("does not fit one 52 GB GPU" in verdict for verdict in verdicts)
    assert {c.text.split(": ", 1)[1] for c in checks} == verdicts


def test_memory_nobody_knows_is_a_note():
    of = replace(needs("blog", 4))
    arms = tuple(arm.model_copy(update={"fits": None, "verdict": "unknown"}) for arm in of.arms)
    (check,) = check_fit(replace(of, arms=arms), GpuList(gpus(4)))
    assert check.word == "note"
    assert check.text.endswith("and 11 more: unknown")


def test_without_a_gpu_the_fit_is_not_argued():
    assert check_fit(needs("blog", 0), GpuList(())) == []
    assert check_fit(needs("cpu", 0), GpuList(())) == []


def test_sharding_on_a_cpu_is_a_problem():
    of = replace(needs("cpu"), specs=tuple(expand(parse_matrix(matrix_text("fsdp2", 2), "m"))))
    checks = check_fit(of, GpuList(()))
    assert {c.word for c in checks} == {"problem"}
    assert any("accelerate runs plain DDP on a CPU" in c.text for c in checks)


def test_what_runs_want_beside_trl_is_looked_for(monkeypatch):
    monkeypatch.setattr("harness.installed.find_spec", lambda _: None)
    (check,) = check_extras(needs("blog"))
    assert (check.section, check.word) == ("software", "problem")
    assert check.text.endswith("and vLLM is not installed beside this harness")
    assert check.advice.startswith("run `make vllm-env`")
    assert check_extras(needs("cpu")) == []


def test_a_line_says_what_a_matrix_needs_and_the_first_reason_against_it():
    fits = line(needs("cpu"), [Check("gpu", "gpu", "note", "none")])
    assert (fits.word, fits.name, fits.text) == (
        "ok",
        "cpu",
        "needs no GPU, nothing to download, 250 MB for results; fits here",
    )
    against = [
        Check("software", "packages", "problem", "missing trl"),
        Check("gpu", "gpu", "problem", "a long story", value={"reason": "no GPU here"}),
    ]
    no = line(needs("blog", 0), against)
    assert no.word == "note"  # another matrix's lack is no problem of the one that was asked about
    assert no.text == (
        "needs up to 4 GPUs of 72.78 GiB, 51.0 GB and 4 repositories of unknown size to download, 43.1 GB "
        "for results, 3 gated; not here: no GPU here"
    )
    assert (no.value["fits"], no.value["reason"]) == (False, "no GPU here")


def test_the_first_problem_is_the_most_urgent():
    checks = [Check(s, s, "problem", s) for s in ("software", "matrix", "disk", "machine")]
    assert first_problem(checks).section == "machine"
    assert first_problem(checks[:2]).section == "software"
    assert first_problem([Check("disk", "x", "note", "x")]) is None


@pytest.mark.parametrize(
    ("known", "unsized", "text"),
    [
        (0, 0, "nothing"),
        (5 * 10**9, 0, "5.0 GB"),
        (0, 1, "1 repository of unknown size"),
        (93 * 10**6, 2, "93 MB and 2 repositories of unknown size"),
    ],
)
def test_downloads_in_words(known, unsized, text):
    assert download_text(known, unsized) == text


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 kB"), (4096, "4 kB"), (64e6, "64 MB"), (1e9, "1.0 GB"), (2e12, "2,000.0 GB")],
)
def test_sizes_in_words(size, text):
    assert gigabytes(size) == text
