"""What goes wrong around a container has a sentence and an exit code, and loses nothing finished."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.containers.boxes import HARDENED, Compose, fresh_name, give, me, short
from tests.containers.prepare import Ready

pytestmark = pytest.mark.docker

FOREIGN = "4242:4242"


def test_a_results_folder_of_another_user_is_refused_with_both_users_named(
    compose: Compose, ready: Ready, tmp_path: Path
):
    results = tmp_path / "results"
    results.mkdir()
    give(ready, results, "1000:1000")
    results.chmod(0o755) if me() == "1000:1000" else None
    done = compose.run(*short(), results=results, user=FOREIGN)
    assert done.returncode == 7
    assert "results belongs to user 1000:1000 and this is user 4242:4242" in done.stderr
    assert "HARNESS_USER=1000:1000" in done.stderr
    assert "Traceback" not in done.stderr
    give(ready, results, me())
    assert list(results.iterdir()) == []


class Disk:
    """A results volume of 4 MiB in memory that a keeper holds while other containers come and go."""

    def __init__(self, ready: Ready) -> None:
        self._ready = ready
        self.name, self._keeper = fresh_name("disk"), fresh_name("keeper")

    def make(self) -> None:
        options = ["type=tmpfs", "device=tmpfs", "o=size=4m,uid=4242,gid=4242"]
        words = [word for option in options for word in ("--opt", option)]
        self._ready.engine.docker("volume", "create", *words, self.name)
        self._ready.engine.docker(
            "run", "--detach", "--name", self._keeper, *HARDENED, *self._mount(),
            "--user", FOREIGN, "--entrypoint", "sleep", self._ready.image, "600",
        )  # fmt: skip

    def fill_but(self, free_kib: int) -> None:
        """Leave only so much room."""
        program = (
            f"head -c $(( $(df --output=avail -k . | tail -1) - {free_kib} ))k /dev/zero > ballast"
        )
        self.inside("sh", "-c", f"rm -f ballast; {program}")

    def inside(self, *words: str) -> str:
        """Run a command in the keeper, in the results folder."""
        return self._ready.engine.docker("exec", "--workdir", "/work/results", self._keeper, *words)

    def bench(self) -> subprocess.CompletedProcess[str]:
        """Run a short study into the volume."""
        return self._ready.engine.run(
            "run", "--rm", *HARDENED, *self._mount(), "--tmpfs", "/tmp:exec,mode=1777",
            "--user", FOREIGN, self._ready.image, *short(cells="sft-steps"),
        )  # fmt: skip

    def finished(self) -> set[str]:
        """The attempts that have the worker's last word."""
        return set(self.inside("find", ".", "-name", "result.json", "-size", "+0").split())

    def remove(self) -> None:
        self._ready.engine.run("rm", "--force", self._keeper)
        self._ready.engine.run("volume", "rm", self.name)

    def _mount(self) -> list[str]:
        return ["--volume", f"{self.name}:/work/results"]


@pytest.fixture
def disk(ready: Ready) -> Iterator[Disk]:
    disk = Disk(ready)
    try:
        disk.make()
        yield disk
    finally:
        disk.remove()


def test_a_full_results_volume_loses_nothing_finished_and_room_is_all_it_takes(disk: Disk):
    disk.fill_but(40)
    full = disk.bench()
    assert full.returncode == 7
    assert "No space left on device" in full.stderr
    assert "run the same command again" in full.stderr
    assert "Traceback" not in full.stderr
    before = disk.finished()
    disk.inside("rm", "ballast")
    done = disk.bench()
    assert done.returncode == 0, done.stderr
    assert before <= disk.finished()
    assert len(disk.finished()) == 2, "a finished run was run again"


@pytest.mark.parametrize("options", [["--tmpfs", "/tmp:exec,mode=1777,size=4k"], []])
def test_a_temporary_folder_may_be_full_but_not_missing(ready: Ready, options: list[str]):
    room = ["--tmpfs", "/work/results:mode=1777"]
    words = ["run", "--rm", *HARDENED, *room, *options, "--user", FOREIGN, ready.image]
    done = ready.engine.run(*words, *short(2, "sft-steps.full.*"))
    if options:
        assert done.returncode == 0, done.stderr
    else:
        assert done.returncode == 7
        assert "--tmpfs /tmp:exec" in done.stderr
    assert "Traceback" not in done.stderr


def test_without_a_results_folder_a_read_only_container_says_what_to_mount(ready: Ready):
    words = ["run", "--rm", *HARDENED, "--tmpfs", "/tmp:exec,mode=1777", ready.image]
    done = ready.engine.run(*words, *short())
    assert done.returncode == 7
    assert "mount a folder there that can be written" in done.stderr


def test_what_is_wrong_with_the_command_is_told_as_on_a_host(compose: Compose):
    done = compose.run("bench", "--matrix", "no-such-matrix")
    assert done.returncode == 2
    assert "no-such-matrix" in done.stderr
    assert "Traceback" not in done.stderr
    assert json.loads(compose.run("env").stdout)["platform"]["container"] == "container"
