"""Running the shipped compose file, and plain containers as hardened as its services are."""

from __future__ import annotations

import os
import subprocess
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.containers.prepare import ROOT, Ready

CPU, GPU = "harness-cpu", "harness"
HOLD = """
import time
from harness.matrix import load_matrix
from harness.slots import Slot, find_slots, hold
with hold({slots}, 1) as (_, shared):
    print("held", shared, flush=True)
    time.sleep(60)
"""
HARDENED = (
    "--network", "none", "--read-only", "--cap-drop", "ALL", "--init",
    "--security-opt", "no-new-privileges",
)  # fmt: skip


def short(steps: int = 4, cells: str = "*") -> tuple[str, ...]:
    """A bench of the embedded matrix, one seed for a few steps: all that a study has, in seconds."""
    asked = ("--matrix", "cpu", "--seeds", "0", "--set", f"max_steps={steps}")
    return ("bench", *asked, "--filter", cells)


def me() -> str:
    """The calling user, as compose's HARNESS_USER wants it."""
    return f"{os.geteuid()}:{os.getegid()}"


def fresh_name(word: str) -> str:
    """A container name that nobody has."""
    return f"harness-tests-{word}-{uuid.uuid4().hex[:8]}"


def give(ready: Ready, folder: Path, owner: str) -> None:
    """Give a folder and all in it to a user; without root on the host through a container."""
    words = ["run", "--rm", "--network", "none", "--user", "0:0", "--entrypoint", "chown"]
    words += ["--volume", f"{folder}:/given", ready.image, "-R", owner, "/given"]
    ready.engine.docker(*words, what=f"giving a folder to {owner}")


@dataclass(frozen=True)
class Compose:
    """The shipped compose file as a project. A context manager: leaving it removes what it made."""

    ready: Ready
    project: str
    started: list[str] = field(default_factory=list)  # containers that outlive their command

    def command(self, *words: str) -> list[str]:
        """A compose command line for this project."""
        file = str(ROOT / "docker-compose.yml")
        return [*self.ready.engine.compose, "--project-name", self.project, "--file", file, *words]

    def environment(self, variables: Mapping[str, str]) -> dict[str, str]:
        """The environment of a compose command: its images, no network, and `variables`."""
        return {
            **self.ready.engine.environment,
            "HARNESS_IMAGE": self.ready.image,  # the GPU's is too large to build here
            "HARNESS_IMAGE_CPU": self.ready.image,
            "HARNESS_NETWORK": "none",
            "HARNESS_USER": me(),
            **variables,
        }

    def call(
        self, *words: str, variables: Mapping[str, str] | None = None, timeout_s: float = 300.0
    ) -> subprocess.CompletedProcess[str]:
        """Run a compose command to its end."""
        return subprocess.run(
            self.command(*words),
            env=self.environment(variables or {}),
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout_s,
            cwd=ROOT,
        )

    def run(
        self,
        *words: str,
        results: Path | None = None,
        user: str | None = None,
        service: str = CPU,
        options: Sequence[str] = (),
        variables: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """`compose run --rm` a service with these words; results on the host, as a user."""
        chosen = {**_places(results, user), **(variables or {})}
        return self.call("run", "--rm", "-T", *options, service, *words, variables=chosen)

    def start(
        self,
        name: str,
        *words: str,
        results: Path | None = None,
        user: str | None = None,
        options: Sequence[str] = (),
    ) -> subprocess.Popen[str]:
        """Start a service in a container of that name, which stays there when it has ended."""
        self.started.append(name)
        return subprocess.Popen(
            self.command("run", "-T", "--name", name, *options, CPU, *words),
            env=self.environment(_places(results, user)),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=ROOT,
        )

    @contextmanager
    def hold(self, slots: str, options: Sequence[str] = ()) -> Iterator[str]:
        """Hold places in a container of this project, as a study does; yields what it says of them."""
        name = fresh_name("holder")
        options = (*options, "--entrypoint", "python")
        with self.start(name, "-c", HOLD.format(slots=slots), options=options) as process:
            assert process.stdout is not None
            said = [""]
            while not said[-1].startswith("held"):
                said.append(process.stdout.readline())
                assert said[-1], f"no place was held: {said}"
            try:
                yield said[-1].strip()
            finally:
                self.ready.engine.run("kill", name)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for name in self.started:
            self.ready.engine.run("rm", "--force", name)
        self.call("down", "--volumes", "--remove-orphans")


def _places(results: Path | None, user: str | None) -> dict[str, str]:
    chosen = {"HARNESS_RESULTS": str(results)} if results else {}
    return {**chosen, **({"HARNESS_USER": user} if user else {})}
