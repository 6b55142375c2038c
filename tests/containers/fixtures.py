"""Fixtures of the tests marked `docker`: an engine with the harness's images, prepared once a session.

Where a daemon can't start the tests skip and say why; with CI=true that is a failure, unless the
surroundings are a sandbox that forbids containers.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.containers.boxes import Compose
from tests.containers.engine import CannotPrepare, stop_daemon
from tests.containers.prepare import Log, Ready, Step, build, prepare
from tests.scripted_nvml import build_library

# A made-up token that stands in the environment of every build and nowhere in an image.
CANARY = "hf_" + "Canary" * 5 + "Bird"
OLDER_TRL = "1.14.2"
LOG = Log()


@pytest.fixture(scope="session")
def ready() -> Iterator[Ready]:
    """An engine and the CPU image; a daemon that was started for it is stopped in the end."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_TOKEN", CANARY)
        try:
            found = prepare(LOG)
        except CannotPrepare as error:
            if os.environ.get("CI") == "true" and not error.is_sandbox:
                pytest.fail(f"container tests must run with CI=true: {error}")
            pytest.skip(f"container tests can't run here: {error}")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in found.engine.variables.items():
            patch.setenv(name, value)  # for code under test that calls the engine itself
        yield found
    stop_daemon()


@pytest.fixture(scope="session")
def older_image(ready: Ready) -> str:
    """The CPU image of another TRL release."""
    return build(ready.engine, ready.base, LOG, OLDER_TRL)


@pytest.fixture(scope="session")
def compose(ready: Ready) -> Iterator[Compose]:
    """The shipped compose file as a project of this session's own; its volumes go with it."""
    with Compose(ready, f"harness-tests-{os.getpid()}") as found:
        yield found


@pytest.fixture(scope="session")
def nvml_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the scripted NVML library."""
    return build_library(tmp_path_factory.mktemp("nvml"))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Take the time of a container test into the table that ends the session."""
    if "docker" in report.keywords and report.when == "call":
        LOG.steps.append(Step(report.nodeid.rpartition("::")[2], report.duration))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what was prepared and run in containers, with times and sizes."""
    if LOG.steps:
        terminalreporter.section("containers: times and sizes")
        for step in LOG.steps:
            terminalreporter.write_line(str(step))
        total = sum(step.seconds for step in LOG.steps)
        terminalreporter.write_line(f"{total:7.1f} s {'':>12}  in all")
