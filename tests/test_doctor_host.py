"""The machine, or what a container leaves of it: each finding from values that are passed in."""

from __future__ import annotations

from dataclasses import replace
from importlib.metadata import PackageNotFoundError

import pytest

from harness.doctor_host import (
    Shared,
    check_compiler,
    check_cores,
    check_memory,
    check_packages,
    check_place,
    check_shared,
    compiler_lack,
    read_shared,
)
from harness.matrix import expand, parse_matrix
from harness.measure.container import Limits, Ram
from tests.doctor_cases import GIB, needs
from tests.test_slots import matrix_text

IN_IMAGE = {"HARNESS_IMAGE_VARIANT": "cpu"}
SIGNS = ("/.dockerenv", "HARNESS_IMAGE_VARIANT")


def only(*absent):
    def find(name):
        if name in absent:
            raise PackageNotFoundError(name)
        return "1.0"

    return find


def test_packages_that_the_matrix_uses_are_missed():
    lacking = only("gguf", "reasoning-gym")
    assert check_packages(needs("cpu"), find_version=lacking).word == "ok"
    check = check_packages(needs("smollm2", cached=("smollm2",)), find_version=lacking)
    assert (check.word, check.exit_code) == ("problem", 7)
    assert "missing reasoning-gym" in check.text
    assert check_packages(needs("cpu"), find_version=only("trl")).word == "problem"


def test_gguf_is_needed_only_until_the_cache_is_built(monkeypatch):
    for is_cached, word in ((False, "problem"), (True, "ok")):
        monkeypatch.setattr(
            "harness.downloads.smollm2_is_cached", lambda is_cached=is_cached: is_cached
        )
        of = needs.__wrapped__("smollm2")
        assert check_packages(of, find_version=only("gguf")).word == word


def test_missing_packages_are_mended_where_they_come_from():
    missing = only("trl")
    assert check_packages(needs("cpu"), find_version=missing).advice == "run `make setup`"
    inside = check_packages(needs("cpu"), is_container=True, find_version=missing)
    assert inside.advice == "build the image again"


def test_triton_lacks_a_compiler_that_is_named_or_found_or_pythons_headers(tmp_path):
    def which(*there):
        return lambda name: f"/usr/bin/{name}" if name in there else None

    (tmp_path / "Python.h").touch()
    assert compiler_lack({}, which("gcc"), tmp_path) is None
    assert compiler_lack({}, which("clang"), tmp_path) is None
    assert compiler_lack({"CC": "icx"}, which("icx"), tmp_path) is None
    assert "no C compiler" in compiler_lack({}, which(), tmp_path)
    assert "CC names 'icx'" in compiler_lack({"CC": "icx"}, which("gcc"), tmp_path)
    assert "Python.h" in compiler_lack({}, which("gcc"), tmp_path / "elsewhere")


def test_a_compiler_is_missed_where_a_run_would_end_without_it():
    lack = "there is no C compiler"
    (check,) = check_compiler(needs("blog"), lack, has_tiles=True)
    assert (check.word, check.name) == ("problem", "compiler")
    assert check.text.startswith(lack)
    assert "python3-dev" in check.advice
    assert check_compiler(needs("blog"), None, has_tiles=True) == []
    assert check_compiler(needs("blog"), lack, has_tiles=False) == []  # TRL before 1.15
    assert check_compiler(needs("cpu"), lack, has_tiles=True) == []


def test_a_host_is_told_from_a_container_and_its_image():
    host = check_place(needs("cpu"), (), {}, 1000, 1000)
    assert (host.word, host.text) == ("ok", "a host, as far as can be seen; user 1000:1000")
    ours = check_place(needs("cpu"), SIGNS, IN_IMAGE, 1234, 0)
    assert ours.text == (
        "a container, of the harness's image, variant cpu (seen by /.dockerenv, HARNESS_IMAGE_VARIANT); "
        "user 1234:0"
    )
    assert ours.value == {"container": list(SIGNS), "variant": "cpu", "uid": 1234, "gid": 0}
    assert "not of the harness's image" in check_place(needs("cpu"), SIGNS[:1], {}, 0, 0).text


def test_the_cpu_image_is_the_wrong_one_for_a_gpu_matrix():
    check = check_place(needs("blog", 0), SIGNS, IN_IMAGE, 1000, 1000)
    assert (check.word, check.advice) == (
        "problem",
        "use the CUDA image: service `harness` instead of `harness-cpu`",
    )
    cuda = {"HARNESS_IMAGE_VARIANT": "cuda"}
    assert check_place(needs("blog", 0), SIGNS, cuda, 1000, 1000).word == "ok"
    assert check_place(needs("cpu"), SIGNS, cuda, 1000, 1000).word == "ok"


def test_a_quota_below_the_cores_is_noted():
    assert check_cores(2, Limits()).text.startswith("2 usable cores, one worker each")
    assert check_cores(2, Limits(cpus=2.0)).word == "ok"
    check = check_cores(4, Limits(cpus=1.5))
    assert check.word == "note"
    assert "4 usable cores, and a cgroup quota of 1.5 CPUs" in check.text
    assert "--jobs 1" in check.advice
    assert "--jobs 1" in check_cores(4, Limits(cpus=0.5)).advice


def ram(free: float, total: float = 64, machine: float = 64) -> Ram:
    return Ram(int(free * GIB), int(total * GIB), int(machine * GIB))


@pytest.mark.parametrize(
    ("matrix", "free", "word"),
    [
        ("cpu", 0.5, "problem"),
        ("cpu", 1.5, "ok"),
        ("smollm2", 3, "problem"),
        ("smollm2", 5, "ok"),
        ("blog", 3, "problem"),
        ("blog", 20, "note"),
        ("blog", 40, "ok"),
    ],
)
def test_memory_is_measured_by_a_worker_and_by_loading_the_largest_model(matrix, free, word):
    check = check_memory(needs(matrix), ram(free))
    assert check.word == word
    assert ("a worker needs up to" in check.text) == (word == "problem")
    assert ("largest model's weights take 30.51 GiB" in check.text) == (word == "note")


def test_a_limit_of_a_cgroup_is_named():
    check = check_memory(needs("smollm2"), ram(1, 2, 24))
    assert check.sentence == (
        "1.00 GiB of 2.00 GiB free, by the limit of a cgroup (the machine has 24.00 GiB); a worker needs "
        "up to 4.00 GiB; raise the container's limit (--memory, mem_limit)"
    )


DOCKERS_DEFAULT = Shared(64 * 2**20, 64 * 2**20)


def test_dockers_default_of_shared_memory_is_too_small_for_gpus():
    check = check_shared(needs("blog"), DOCKERS_DEFAULT, is_container=True)
    assert (check.word, check.exit_code) == ("problem", 7)
    assert check.text == (
        "/dev/shm has 64 MiB of 64 MiB free; NCCL, vLLM and data loaders share memory there, and want "
        "1.00 GiB"
    )
    assert "--shm-size=8g" in check.advice
    on_host = check_shared(needs("blog"), DOCKERS_DEFAULT, is_container=False)
    assert "mount -o remount,size=8g /dev/shm" in on_host.advice


def test_shared_memory_is_a_note_on_the_cpu_unless_a_run_has_several_processes():
    cpu = needs("cpu")
    assert check_shared(cpu, DOCKERS_DEFAULT, is_container=True).word == "note"
    several = replace(cpu, specs=tuple(expand(parse_matrix(matrix_text("ddp", 2), "m"))))
    assert check_shared(several, DOCKERS_DEFAULT, is_container=True).word == "problem"


def test_what_is_free_counts_and_none_is_none():
    assert check_shared(needs("blog"), Shared(GIB, 24 * GIB), is_container=True).word == "ok"
    assert check_shared(needs("blog"), Shared(2**20, 24 * GIB), is_container=True).word == "problem"
    gone = check_shared(needs("blog"), None, is_container=False)
    assert (gone.word, gone.text.split(";")[0]) == ("problem", "there is no /dev/shm")


def test_shared_memory_is_read_for_real(tmp_path):
    found = read_shared(tmp_path)
    assert found is not None
    assert 0 < found.free_bytes <= found.total_bytes
    assert read_shared(tmp_path / "none") is None
