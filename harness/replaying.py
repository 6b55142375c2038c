"""Having the frozen corpus played back by the stack that a study trains with.

In a process of its own and with that stack's interpreter: one process can hold one TRL. What this leaves
out: containers, whose stack no interpreter of this machine has.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from pydantic import ValidationError

import harness
from harness.errors import MachineError, NewerFormatError, StudyError
from harness.launch import Launcher
from harness.launch.local import FIXED_VARIABLES, thread_variables
from harness.probe import Value
from harness.progress import Display, Event
from harness.replays import FILE, Played, Replay, read_replay
from harness.spec import Matrix
from harness.store import Store, read_model
from harness.text import harmless

MODULE = "harness.worker.replay"
TIMEOUT_S = 1800.0  # 20 s of a processor; a busy machine takes its time
Record = Callable[[Path, str], dict[str, Value]]


def record_replay(
    study_dir: Path,
    python: str | None = None,
    checkpoint: str | None = None,
    timeout_s: float = TIMEOUT_S,
) -> dict[str, Value]:
    """Play the corpus back with an interpreter, this one if None, and keep it in a study's folder.

    A replay that is there already, of the same installation, is returned as it is. `checkpoint` is the
    folder of a model to evaluate in place of the embedded one; it is always played anew. Raises:
    MachineError with the program's last words; StudyError if the folder has a replay that can't be read.
    """
    command = (python or sys.executable, "-m", MODULE)
    installed = _ask((*command, "--fingerprint"), timeout_s).strip()
    kept = _kept(study_dir)
    if kept is not None and kept.fingerprint == installed and checkpoint is None:
        return dict(kept.values)
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / FILE
        chosen = ("--checkpoint", checkpoint) if checkpoint else ()
        _ask((*command, str(output), *chosen), timeout_s)
        played = _read(output)
    replay = Replay(**{**dict(played), "fingerprint": installed})
    Store(study_dir).write_json(study_dir / FILE, replay.model_dump(mode="json"))
    return dict(replay.values)


def replay_study(
    store: Store,
    matrix: Matrix,
    launcher: Launcher,
    display: Display,
    record: Record = record_replay,
) -> None:
    """Have the corpus played back if a study's matrix asks for it.

    A replay that fails is said, and leaves a comparison without it: what was trained counts all the same.
    """
    if not matrix.replays or matrix.scale == "rehearsal":
        return
    if launcher.python is None:
        text = (
            f"the frozen corpus is not played back: launcher {launcher.name!r} trains with a stack "
        )
        display.emit(Event("note", f"{text}that is not installed here", {}))
        return
    _set_aside_unreadable(store, display)
    display.emit(Event("note", "playing the frozen corpus back", {}))
    try:
        record(store.root, launcher.python)
    except MachineError as error:
        display.emit(Event("problem", f"the frozen corpus was not played back: {error}", {}))


def _set_aside_unreadable(store: Store, display: Display) -> None:
    try:
        read_replay(store.root)
    except NewerFormatError:
        raise
    except StudyError as error:
        name = store.set_aside(store.root / FILE)
        display.emit(Event("problem", f"{error}; set aside as {name}", {"file": name}))


def _kept(study_dir: Path) -> Replay | None:
    path = study_dir / FILE
    return read_model(path, Replay) if path.is_file() else None


def _read(output: Path) -> Played:
    try:
        return Played.model_validate_json(output.read_bytes())
    except (OSError, ValidationError) as error:
        raise MachineError(
            f"the replay of the frozen corpus left an answer that can't be read ({type(error).__name__}); "
            "run `harness doctor`"
        ) from error


def _ask(command: Sequence[str], timeout_s: float) -> str:
    """Run the program, which sees no GPU and no network, and return what it prints."""
    try:
        done = subprocess.run(
            list(command),
            capture_output=True,
            check=False,
            timeout=timeout_s,
            env=_variables(),
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        raise MachineError(
            f"the replay of the frozen corpus took longer than {timeout_s:.0f} s; expected about 20 s of "
            "a processor that is free: try again when the machine is less busy"
        ) from None
    except OSError as error:
        raise MachineError(
            f"the replay of the frozen corpus can't be started with {Path(command[0]).name} "
            f"({error.strerror or error}); expected a Python in which the harness is installed"
        ) from error
    if done.returncode:
        said = [harmless(x)[:300] for x in done.stderr.decode(errors="replace").splitlines()[-5:]]
        raise MachineError(
            f"the replay of the frozen corpus ended with {done.returncode}; it said:"
            + "".join(f"\n    {line}" for line in said)
            + "\nRun `harness doctor`."
        )
    return done.stdout.decode(errors="replace")


def _variables() -> dict[str, str]:
    """The program's environment; the harness's own source tree is on its path, if it runs from one."""
    tree = Path(harness.__file__).parent.parent
    paths = [os.environ.get("PYTHONPATH", "")]
    if (tree / "pyproject.toml").is_file() and str(tree) not in paths[0].split(os.pathsep):
        paths.append(str(tree))
    return {
        **os.environ,
        **thread_variables(1),
        **FIXED_VARIABLES,
        "CUDA_VISIBLE_DEVICES": "",
        "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": os.pathsep.join(path for path in paths if path),
    }
