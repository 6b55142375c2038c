"""The fork server: a process that has imported torch and trl once and forks a worker per run.

    python -m harness.worker.forkserver --control FD --entry MODULE:FUNCTION [--preload A,B]

Importing the libraries takes 8-11 s; a fork takes milliseconds. Three rules keep a forked worker
equal to a fresh one: one thread only (a pool of threads does not survive a fork), no CUDA (its
context does not either), and nothing seeded or configured here that a run would set itself.

The control socket carries JSON lines. In: {"start": N, "attempt": PATH, "env": {}, "threads": T}.
Out: {"ready": {...}}, {"started": N, "pid": P}, {"failed": N, "reason": TEXT},
{"exited": P, "code": C, "signal": S}. When the socket closes, the supervisor is gone: every worker
is killed with all it started. What this leaves out: limits, pinning and logs' content are the
worker's own (`confine`, `__main__`).
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import importlib
import json
import os
import select
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from harness.worker.confine import PARENT_VARIABLE, die_with_parent, set_parent_death_signal
from harness.worker.trl_versions import pairing_problem

Entry = Callable[[Path, bool], int]

# What a worker imports sooner or later; `module:name` also makes trl's lazy modules load the name.
PRELOAD = (
    "torch", "pandas", "psutil", "datasets", "peft", "math_verify", "safetensors.torch",
    "transformers:Trainer", "transformers:AutoTokenizer", "transformers:LlamaForCausalLM",
    "trl:SFTConfig", "trl:SFTTrainer", "trl:GRPOConfig", "trl:GRPOTrainer",
    "trl.rewards:accuracy_reward",
    "harness.worker.sft", "harness.worker.grpo", "harness.measure.environment",
)  # fmt: skip
_CUDA_NOT_STARTED = 3  # CUDA_ERROR_NOT_INITIALIZED (cuda.h, CUresult)
# Answers that transformers and accelerate keep about devices; a worker sees other devices than the
# server does.
_CACHED_ANSWERS = ("transformers.utils.import_utils", "accelerate.utils.imports")


class Server:
    """Forks workers on request and tells when they end. Single-threaded."""

    def __init__(self, control: socket.socket, entry: Entry) -> None:
        self._control = control
        self._entry = entry
        self._workers: set[int] = set()
        self._pending = b""
        # SIGCHLD wakes select(), so that an exit is told at once and nothing polls.
        self._wake_in, self._wake_out = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(self._wake_out, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)

    def serve(self) -> None:
        """Answer requests until the control socket closes."""
        while True:
            readable, _, _ = select.select([self._control, self._wake_in], [], [])
            if self._wake_in in readable:
                os.read(self._wake_in, 4096)
                self._reap()
            if self._control in readable and not self._read_requests():
                return

    def kill_all(self) -> None:
        """Kill every worker with its process group, and reap it."""
        for pid in self._workers:
            try:
                os.killpg(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        for pid in self._workers:
            os.waitpid(pid, 0)
        self._workers.clear()

    def tell(self, **message: Any) -> None:
        """Send one message to the supervisor."""
        self._control.sendall(json.dumps(message).encode() + b"\n")

    def _read_requests(self) -> bool:
        try:
            received = self._control.recv(65536)
        except ConnectionResetError:
            return False
        *lines, self._pending = (self._pending + received).split(b"\n")
        for line in lines:
            self._start(json.loads(line))
        return bool(received)

    def _start(self, request: Mapping[str, Any]) -> None:
        # The child writes a byte once it leads its own group and logs to its own files: a signal
        # to the group before that would miss it. A pipe closed without the byte is a failure.
        told_in, told_out = os.pipe2(os.O_CLOEXEC)
        try:
            pid = os.fork()
        except OSError as error:
            self.tell(failed=request["start"], reason=f"fork failed: {error}")
            return
        if pid == 0:
            os.close(told_in)
            self._become_worker(request, told_out)
        os.close(told_out)
        with os.fdopen(told_in, "rb") as pipe:
            word = pipe.read()
        self._workers.add(pid)
        if word == b".":
            self.tell(started=request["start"], pid=pid)
        else:
            self.tell(failed=request["start"], reason=word.decode() or "the worker died at once")

    def _reap(self) -> None:
        while self._workers:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            if pid in self._workers:
                self._workers.discard(pid)
                code = os.waitstatus_to_exitcode(status)
                is_signal = code < 0
                self.tell(
                    exited=pid,
                    code=None if is_signal else code,
                    signal=-code if is_signal else None,
                )

    def _become_worker(self, request: Mapping[str, Any], told: int) -> NoReturn:
        code = 1
        try:
            server_pid = os.getppid()
            os.setsid()
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            attempt = Path(request["attempt"])
            redirect_output(attempt)
            self._control.close()
            os.close(self._wake_in)
            os.close(self._wake_out)
            set_variables({**request["env"], PARENT_VARIABLE: str(server_pid)})
            adapt_libraries(int(request["threads"]))
            os.write(told, b".")
            os.close(told)
            code = run_entry(self._entry, attempt)
        except BaseException as error:  # noqa: BLE001 - no frame of the server may go on here
            os.write(told, f"{type(error).__name__}: {error}".encode())
        finally:
            # Not sys.exit: the server's exit handlers are not the worker's.
            os._exit(code)


def run_entry(entry: Entry, attempt: Path) -> int:
    """Run a worker as a fresh interpreter would: an exception is printed, and the code is 1."""
    try:
        return entry(attempt, True)
    except SystemExit as leaving:
        return exit_code(leaving)
    except BaseException:  # noqa: BLE001
        traceback.print_exc()
        return 1
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()


def set_variables(variables: Mapping[str, str | None]) -> None:
    """Set environment variables; None unsets one."""
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def redirect_output(attempt: Path) -> None:
    """Point stdin to nothing and stdout and stderr to an attempt's log files."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    for name, number in (("stdout.log", 1), ("stderr.log", 2)):
        opened = os.open(attempt / name, flags, 0o644)
        os.dup2(opened, number)
        os.close(opened)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)


def adapt_libraries(threads: int) -> None:
    """Make the imported libraries forget the server's devices, and set the worker's threads."""
    for name in _CACHED_ANSWERS:
        for value in list(vars(sys.modules[name]).values()) if name in sys.modules else ():
            if hasattr(value, "cache_clear"):
                value.cache_clear()
    # The OpenMP runtime read its variable when the server started, with 1.
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)


def exit_code(leaving: SystemExit) -> int:
    """Return the exit code that Python itself would give for a SystemExit."""
    if leaving.code is None:
        return 0
    if isinstance(leaving.code, int):
        return leaving.code & 0xFF
    sys.stderr.write(f"{leaving.code}\n")
    return 1


def resolve(name: str) -> Any:
    """Import `module` or `module:attribute`."""
    module, _, attribute = name.partition(":")
    imported = importlib.import_module(module)
    return getattr(imported, attribute) if attribute else imported


def preloads() -> list[str]:
    """Return what to import: without GRPO where the installed releases can't even import it."""
    is_fit = pairing_problem("grpo") is None
    return [name for name in PRELOAD if is_fit or "grpo" not in name.lower()]


def native_threads() -> int:
    """Return the number of threads of this process, those of C libraries included."""
    try:
        return len(os.listdir("/proc/self/task"))  # noqa: PTH208 - names only
    except OSError:
        return 1


def has_started_cuda() -> bool:
    """Whether the CUDA driver was started here, after which a forked child could not use it.

    That its library is mapped says nothing: torch's CUDA builds map it when they are imported. Asked
    before `cuInit`, the driver answers that it was not initialised, and starts nothing.
    """
    try:
        lines = Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()
    except OSError:
        return False
    mapped = next((line.split(maxsplit=5)[5] for line in lines if "/libcuda.so" in line), None)
    if mapped is None:
        return False
    try:
        answer = ctypes.CDLL(mapped).cuDeviceGetCount(ctypes.byref(ctypes.c_int()))
    except (OSError, AttributeError):
        return True  # a driver that can't be asked
    return bool(answer != _CUDA_NOT_STARTED)


def main(arguments: Sequence[str] | None = None) -> int:
    """Import everything once, then fork workers until the supervisor is gone."""
    parser = argparse.ArgumentParser(prog="harness.worker.forkserver")
    parser.add_argument("--control", type=int, required=True, help="inherited socket")
    parser.add_argument("--entry", required=True, help="MODULE:FUNCTION(attempt, is_warm) -> code")
    parser.add_argument("--preload", default=None, help="comma-separated modules to import")
    options = parser.parse_args(arguments)
    # While importing, nothing listens to the socket: the kernel has to end an orphaned server.
    die_with_parent(int(os.environ.pop(PARENT_VARIABLE, os.getppid())))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the supervisor's to handle
    begin = time.monotonic()
    control = socket.socket(fileno=options.control)
    control.set_inheritable(False)
    names = preloads() if options.preload is None else options.preload.split(",")
    for name in filter(None, names):
        resolve(name)
    server = Server(control, resolve(options.entry))
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
    gc.collect()
    gc.freeze()  # the collector would write to, and so copy, pages shared with the children
    # From here on a closed socket ends the server, which then ends its workers' groups first.
    set_parent_death_signal(0)
    state = {"threads": native_threads(), "has_started_cuda": has_started_cuda()}
    server.tell(ready={**state, "import_s": time.monotonic() - begin})
    try:
        server.serve()
    except BrokenPipeError:
        pass  # the supervisor died while it was being told something
    finally:
        server.kill_all()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
