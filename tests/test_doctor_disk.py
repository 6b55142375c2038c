"""Folders: who may write where, what fits, and what a person in a container has to do about it."""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from pathlib import Path

import pytest

from harness.doctor_disk import (
    Folder,
    Room,
    check_folder,
    check_scratch,
    check_together,
    harness_folder,
    hub_folder,
    look,
    results_folder,
)
from tests.doctor_cases import changed, needs

GB = 10**9
LARGE = Room(Path("/r/cpu"), Path("/r"), (0, 0), None, 900 * GB, 1000 * GB, 1)


def results(room: Room, uid: int = 1000, *, is_container: bool = False, matrix: str = "cpu"):
    folder = results_folder(needs(matrix), room)
    return check_folder(folder, uid, is_container=is_container)


def test_a_folder_is_looked_at_where_it_is_or_will_be(tmp_path):
    room = look(tmp_path / "results" / "cpu")
    assert (room.there, room.error, room.owner) == (tmp_path, None, (os.getuid(), os.getgid()))
    (tmp_path / "results").mkdir()
    assert look(tmp_path / "results" / "cpu").there == tmp_path / "results"
    assert 0 < room.free_bytes <= room.total_bytes
    assert [p.name for p in tmp_path.iterdir()] == ["results"]  # looking leaves nothing behind


def test_a_relative_folder_is_looked_at_from_here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert look(Path("results")).folder == tmp_path / "results"


def test_a_file_in_the_way_is_said(tmp_path):
    (tmp_path / "results").write_text("")
    check = results(look(tmp_path / "results" / "cpu"))
    assert (check.word, check.exit_code) == ("problem", 7)
    assert check.text == f"{tmp_path}/results is a file; expected a folder"
    assert "--output-dir" in check.advice


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="no /proc")
def test_a_place_where_nobody_can_write_is_said():
    assert results(look(Path("/proc/harness/cpu"))).word == "problem"


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_folder_that_may_not_be_written_is_said(tmp_path):
    (tmp_path / "ro").mkdir(mode=0o500)
    check = results(look(tmp_path / "ro" / "cpu"), os.geteuid())
    assert f"{tmp_path}/ro can't be written: Permission denied" in check.text


def test_results_of_another_owner_in_a_container_name_the_way_out():
    room = replace(LARGE, there=Path("/work/results"), owner=(0, 0), error=errno.EACCES)
    check = results(room, 1000, is_container=True)
    assert (check.word, check.sentence) == (
        "problem",
        "/work/results is owned by uid 0, and this container runs as 1000: Permission denied; put "
        "HARNESS_USER=0:0 into .env, or chown the folder to 1000 on the host",
    )
    assert check.value["owner_uid"] == 0
    assert check.value["is_writable"] is False
    on_host = results(room, 1000)
    assert "this process runs as 1000" in on_host.text
    assert "HARNESS_USER" not in on_host.advice


def test_a_read_only_file_system_is_told_from_a_lack_of_rights():
    room = replace(LARGE, there=Path("/cache"), error=errno.EROFS)
    check = results(room, is_container=True)
    assert check.text == "/cache is on a read-only file system"
    assert check.advice.startswith(
        "mount a folder or a volume there, as docker-compose.yml does, or "
    )
    assert results(room).advice == "name a folder elsewhere with --output-dir"


def test_room_is_measured_by_what_the_matrix_writes():
    assert results(replace(LARGE, free_bytes=GB)).word == "ok"
    assert results(replace(LARGE, free_bytes=GB), matrix="smollm2").word == "problem"
    check = results(replace(LARGE, free_bytes=40 * GB), matrix="blog")
    assert (check.word, check.sentence) == (
        "problem",
        "/r/cpu has 40.0 GB free; a study takes up to 43.1 GB; make room, or name a folder elsewhere with "
        "--output-dir",
    )


def test_adapters_are_counted_where_the_matrix_keeps_them():
    """Llama 3.2 1B at rank 256 is 180,355,072 weights of 4 bytes, as `harness plan` counts them."""
    of = needs("blog")
    one = tuple(s for s in of.specs if s.cell.startswith("sft-llama1b-tulu3.lora") and s.seed == 0)
    assert replace(of, specs=one).results_bytes == 2 * GB + 4 * 180_355_072
    dropped = tuple(s.model_copy(update={"keeps_adapter": False}) for s in one)
    assert replace(of, specs=dropped).results_bytes == 2 * GB


def test_a_disk_that_takes_no_byte_is_full_whatever_it_tells():
    assert results(replace(LARGE, error=errno.ENOSPC)).word == "problem"


def hub(room: Room, **options):
    return check_folder(hub_folder(needs(**options), room), 1000, is_container=False)


def test_the_hubs_cache_is_measured_by_what_is_to_be_fetched():
    check = hub(replace(LARGE, free_bytes=50 * GB), name="blog")
    assert (check.word, check.text) == (
        "problem",
        "/r/cpu has 50.0 GB free; 51.0 GB and 4 repositories of unknown size to download",
    )
    assert "HF_HOME" in check.advice
    assert hub(replace(LARGE, free_bytes=52 * GB), name="blog").word == "ok"
    partly = ("meta-llama/Llama-3.1-8B", "meta-llama/Llama-3.1-8B-Instruct", "openai/gsm8k")
    assert "18.9 GB and 3 repositories" in hub(LARGE, name="blog", cached=partly).text
    assert "nothing to download" in hub(LARGE, name="cpu").text


def test_a_cache_that_can_not_be_written_matters_where_something_goes_there():
    room = replace(LARGE, owner=(1000, 1000), error=errno.EACCES)
    assert hub(room, name="blog").word == "problem"
    assert hub(room, name="cpu").word == "note"
    mapped = tuple((r.name, "/models/x") for r in needs("blog").repositories)
    assert hub(room, name="blog", maps=mapped).word == "note"


def test_the_harness_cache_takes_smollm2_and_rows_of_the_hub(monkeypatch):
    def check(of, room):
        return check_folder(harness_folder(of, room), 1000, is_container=False)

    unwritable = replace(LARGE, error=errno.EACCES)
    assert check(needs("blog"), unwritable).word == "problem"
    assert check(needs("cpu"), unwritable).word == "note"
    monkeypatch.setattr("harness.downloads.smollm2_is_cached", lambda: False)
    fresh = needs.__wrapped__("smollm2")
    assert "SmolLM2 takes 610 MB" in check(fresh, LARGE).text
    assert check(fresh, replace(LARGE, free_bytes=GB // 2)).word == "problem"
    assert "HARNESS_CACHE" in check(fresh, replace(LARGE, free_bytes=GB // 2)).advice


def test_folders_on_one_disk_must_fit_together():
    def folder(name: str, device: int, gigabytes: int) -> Folder:
        room = replace(LARGE, free_bytes=60 * GB, device=device)
        return Folder(name, room, gigabytes * GB, "", True, "move it")

    (check,) = check_together([folder("results", 1, 40), folder("Hub cache", 1, 30)])
    assert (check.word, check.text) == (
        "problem",
        "results and Hub cache share a disk with 60.0 GB free, and together want 70.0 GB",
    )
    assert check_together([folder("results", 1, 40), folder("Hub cache", 2, 30)]) == []
    assert check_together([folder("results", 1, 40), folder("Hub cache", 1, 20)]) == []
    # One that does not fit by itself has its own sentence.
    assert check_together([folder("results", 1, 70), folder("Hub cache", 1, 30)]) == []


def scratch(matrix: str = "cpu", environ: dict[str, str] | None = None, **changes):
    room = replace(LARGE, folder=Path("/tmp"), there=Path("/tmp"), **changes)
    return check_scratch(needs(matrix), room, environ or {})


@pytest.mark.parametrize(
    ("matrix", "free", "word"),
    [
        ("cpu", 60 * 10**6, "ok"),
        ("cpu", 20 * 10**6, "note"),
        ("cpu", 10**6, "problem"),
        ("blog", 60 * 10**6, "problem"),
        ("blog", 500 * 10**6, "note"),
        ("blog", 2 * GB, "ok"),
    ],
)
def test_a_tiny_tmpfs_is_found(matrix, free, word):
    check = scratch(matrix, free_bytes=free, total_bytes=2 * GB)
    assert check.word == word
    assert ("give it a larger tmpfs" in check.advice) == (word != "ok")


def test_a_full_tmpfs_is_a_problem():
    check = scratch(error=errno.ENOSPC, free_bytes=0, total_bytes=64 * 10**6)
    assert (check.word, check.text) == (
        "problem",
        "/tmp has 0 kB of 64 MB free; a study wants 50 MB there",
    )


def test_a_tmpdir_that_is_not_there_or_not_ours_is_named():
    room = replace(LARGE, folder=Path("/scratch/me"), there=Path("/"))
    check = check_scratch(needs("cpu"), room, {"TMPDIR": "/scratch/me"})
    assert (check.word, check.text) == ("problem", "TMPDIR=/scratch/me is not there")
    refused = scratch(environ={"TMPDIR": "/tmp"}, error=errno.EACCES)
    assert refused.text == "TMPDIR=/tmp can't be written: Permission denied"


def test_noexec_is_noted_where_kernels_are_compiled():
    assert "mounted noexec" in scratch("blog", is_noexec=True).text
    assert scratch("blog", is_noexec=True).word == "note"
    assert scratch("cpu", is_noexec=True).word == "ok"


def test_a_matrix_of_real_models_takes_more_than_an_embedded_one():
    assert needs("cpu").results_bytes < changed(needs("cpu"), scale="small").results_bytes
