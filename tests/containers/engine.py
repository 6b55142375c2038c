"""The container engine's client, its compose, and a daemon that is started where none answers.

Nothing is assumed of a machine: of every `docker` in PATH the first is taken whose BuildKit works (a
newer client without buildx can't build), and compose is the client's own or `docker-compose`. What
this leaves out: engines other than Docker.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

PACKAGES = {
    "dockerd": "docker.io",
    "debootstrap": "debootstrap",
    "docker-compose": "docker-compose",
}
# A daemon that only builds with the host's network and runs without one needs no rule of the kernel's.
DAEMON = ("dockerd", "--iptables=false", "--ip6tables=false", "--bridge=none")
START_S = 30.0
# Daemons run on behind whoever started them; a child that nobody holds would be warned of.
STARTED: list[subprocess.Popen[bytes]] = []
# What dockerd says where a sandbox withholds what containers need.
SANDBOX_SIGNS = ("permission denied", "operation not permitted", "devices cgroup isn't mounted")


class CannotPrepare(Exception):  # noqa: N818 - it says what could not be done
    """Containers can't be had here; `is_sandbox` if the surroundings forbid them."""

    def __init__(self, reason: str, is_sandbox: bool = False) -> None:
        super().__init__(reason)
        self.is_sandbox = is_sandbox


def state_folder() -> Path:
    """The folder of what is kept between two calls: the base's tarball and a daemon's pid."""
    base = os.environ.get("XDG_CACHE_HOME")
    folder = (Path(base) if base else Path.home() / ".cache") / "harness-lora" / "containers"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def install(commands: Sequence[str]) -> list[str]:
    """Install the packages of commands that are missing; returns their names. Debian, as root."""
    packages = [PACKAGES[command] for command in commands if shutil.which(command) is None]
    if not packages:
        return []
    words = " ".join(packages)
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise CannotPrepare(
            f"missing {words}: install them as root, e.g. `apt-get install {words}`"
        )
    for command in (
        ["apt-get", "update", "-qq"],
        ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages],
    ):
        call(command, {"DEBIAN_FRONTEND": "noninteractive"}, what=f"installing {words}")
    return packages


def call(
    command: Sequence[str],
    variables: Mapping[str, str] | None = None,
    *,
    what: str,
    cwd: Path | None = None,
) -> str:
    """Run a command that must succeed; returns its stdout.

    Raises: CannotPrepare with its last words.
    """
    environment = {**os.environ, **(variables or {})}
    done = subprocess.run(
        list(command), capture_output=True, text=True, env=environment, cwd=cwd, check=False
    )
    if done.returncode:
        tail = "\n".join((done.stdout + done.stderr).strip().splitlines()[-25:])
        raise CannotPrepare(f"{what} failed ({' '.join(command[:4])} …):\n{tail}")
    return done.stdout


@dataclass(frozen=True)
class Engine:
    """A client with a working BuildKit, its compose, and the daemon that they talk to."""

    client: str
    compose: tuple[str, ...]
    variables: Mapping[str, str] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        """The environment in which client and compose find each other and the daemon."""
        return {**os.environ, **self.variables}

    def docker(self, *words: str, what: str = "docker") -> str:
        """Run a client command that must succeed; returns its stdout."""
        return call([self.client, *words], self.variables, what=what).strip()

    def size_of(self, image: str) -> int | None:
        """The bytes of an image, None if there is no such image."""
        done = self.run("image", "inspect", "--format", "{{.Size}}", image)
        return int(done.stdout) if done.returncode == 0 else None

    def run(self, *words: str, timeout_s: float = 300.0) -> subprocess.CompletedProcess[str]:
        """Run a client command; returns how it ended."""
        return subprocess.run(
            [self.client, *words],
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout_s,
        )


def connect() -> tuple[Engine, list[str]]:
    """Find or start an engine; returns it, and what was done for it in words.

    Raises: CannotPrepare.
    """
    done = [
        f"installed {name}" for name in install(["docker-compose"] if _compose() is None else [])
    ]
    variables = {} if _answers({}) else _remembered_socket()
    if not _answers(variables):
        done += [f"installed {name}" for name in install(["dockerd"])]
        variables = start_daemon()
        done.append("started a daemon")
    client = _client(variables)
    variables = {**variables, "DOCKER_BUILDKIT": "1", "COMPOSE_DOCKER_CLI_BUILD": "1"}
    # Compose 1 calls the first `docker` in PATH to build.
    links = state_folder() / "bin"
    links.mkdir(exist_ok=True)
    link = links / "docker"
    if not link.is_symlink() or os.readlink(link) != client:  # noqa: PTH115 - the text as it is
        link.unlink(missing_ok=True)
        link.symlink_to(client)
    variables["PATH"] = f"{links}{os.pathsep}{os.environ['PATH']}"
    compose = _compose()
    if compose is None:
        raise CannotPrepare("no compose: neither `docker compose` nor `docker-compose` answers")
    return Engine(client, compose, variables), done


def _clients() -> list[str]:
    folders = os.environ["PATH"].split(os.pathsep)
    found = [shutil.which("docker", path=folder) for folder in folders if folder]
    return list(dict.fromkeys(client for client in found if client))


def _answers(variables: Mapping[str, str]) -> bool:
    return any(
        _succeeds([client, "version", "--format", "{{.Server.Version}}"], variables)
        for client in _clients()
    )


def _client(variables: Mapping[str, str]) -> str:
    """The first client in PATH that can build with BuildKit."""
    for client in _clients():
        command = [client, "build", "--quiet", "--network", "none", "-"]
        dockerfile = "FROM scratch\nLABEL harness.probe=1\n"
        done = subprocess.run(
            command,
            input=dockerfile,
            env={**os.environ, **variables, "DOCKER_BUILDKIT": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode == 0:
            _succeeds([client, "rmi", done.stdout.strip()], variables)
            return client
    raise CannotPrepare(f"no docker client with a working BuildKit among {_clients() or 'none'}")


def _compose() -> tuple[str, ...] | None:
    for client in _clients():
        if _succeeds([client, "compose", "version"], {}):
            return (client, "compose")
    found = shutil.which("docker-compose")
    return (found,) if found else None


def _succeeds(command: Sequence[str], variables: Mapping[str, str]) -> bool:
    environment = {**os.environ, **variables}
    return (
        subprocess.run(list(command), env=environment, capture_output=True, check=False).returncode
        == 0
    )


def start_daemon() -> dict[str, str]:
    """Start a daemon with the default data folder, else with one of its own.

    Returns the variables with which a client finds it. Raises: CannotPrepare.
    """
    state = state_folder()
    pid_file = state / "dockerd.pid"
    if daemon_pid() is None:
        pid_file.unlink(missing_ok=True)  # of one that was killed
    words = [*DAEMON, "--pidfile", str(pid_file)]
    if _start(words, {}):
        return {}
    private = Path(tempfile.mkdtemp(prefix="dockerd-"))
    socket = f"unix://{private / 'd.sock'}"
    words += ["--data-root", str(private / "data"), "--exec-root", str(private / "exec")]
    if _start([*words, "--host", socket], {"DOCKER_HOST": socket}):
        (state / "docker-host").write_text(socket)
        return {"DOCKER_HOST": socket}
    log = (state / "dockerd.log").read_text(errors="replace")
    last = next(
        (line for line in reversed(log.splitlines()) if "failed" in line or "error" in line), log
    )
    is_sandbox = any(sign in log.lower() for sign in SANDBOX_SIGNS)
    raise CannotPrepare(f"a docker daemon can't be started here: {last[-300:]}", is_sandbox)


def _start(words: Sequence[str], variables: Mapping[str, str]) -> bool:
    with (state_folder() / "dockerd.log").open("ab") as log:
        process = subprocess.Popen(
            list(words), stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
    STARTED.append(process)
    deadline = time.monotonic() + START_S
    while process.poll() is None and time.monotonic() < deadline:
        if _answers(variables):
            return True
        time.sleep(0.2)
    if process.poll() is None:
        process.terminate()
        process.wait(20)
    return False


def _remembered_socket() -> dict[str, str]:
    file = state_folder() / "docker-host"
    return {"DOCKER_HOST": file.read_text()} if file.is_file() else {}


def daemon_pid() -> int | None:
    """The process id of the daemon that `start_daemon` started, None if none runs."""
    pid_file = state_folder() / "dockerd.pid"
    try:
        pid = int(pid_file.read_text())
        command = Path(f"/proc/{pid}/cmdline").read_text()
    except (OSError, ValueError):
        return None
    # Else the number is another process's by now.
    return pid if str(pid_file) in command.split("\0") else None


def stop_daemon() -> bool:
    """Stop the daemon that `start_daemon` started, if it still runs; says whether it did."""
    (state_folder() / "docker-host").unlink(missing_ok=True)
    pid = daemon_pid()
    if pid is None:
        return False
    os.kill(pid, signal.SIGTERM)
    for process in STARTED:
        process.wait(START_S)  # SIGTERM has reached it, or it has ended before
    deadline = time.monotonic() + START_S
    while daemon_pid() and time.monotonic() < deadline:
        time.sleep(0.1)
    return True
