"""Whether an image is fit to train a study's runs, found out by starting it once.

Labels could lie, so a container of the image says itself what it holds, writes to the study's folder as
the user that runs will be, and shows whether its processes are ones of this machine. What this leaves
out: building images.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

from harness import __version__
from harness.errors import MachineError
from harness.launch.engine import (
    Engine,
    EngineGone,
    EngineRefused,
    Image,
    Order,
    State,
    explain,
    reached,
)
from harness.pins import make_command
from harness.text import clean

# What the container does; a file in the study's folder, if there is one yet, is its argument.
_PROBE = 'if [ -n "$1" ]; then touch "$1" || exit 9; fi; exec timeout 300 harness env'
_CAN_NOT_WRITE = 9


@dataclass(frozen=True)
class Looked:
    """What was found out about an image and its engine."""

    engine: str
    image: Image
    packages: Mapping[str, str | None]
    pids_are_local: bool


@dataclass(frozen=True)
class Answer:
    """How a probing container ended."""

    started: State | None
    ended: State | None
    out: bytes
    errors: str
    is_seen: bool  # what it wrote arrived here, or nothing was to be written

    @property
    def exit_code(self) -> int | None:
        """The shell's exit code; None if the container was taken away."""
        return self.ended.exit_code if self.ended else None


def look(
    connect: Callable[[], Engine],
    name: str,
    trl: str | None,
    study: Path | None,
    labels: Mapping[str, str],
) -> Looked:
    """Find out whether an image holds this harness, and the release of TRL that was asked for.

    Raises: MachineError saying what is found, what is expected and what to do.
    """
    user = owner_of(study or Path.cwd())
    with reached(connect) as engine:
        image = engine.image(name)
        if image is None:
            raise MachineError(
                f"{engine.name} has no image {name}; build it ({_how_to_build(name)}), or name another "
                "with --image"
            )
        answer = _probe(engine, name, image, study, user, labels)
        found = _read(answer, name, user)
        engine_name = engine.name
    version, packages = found["harness"]["version"], found["packages"]
    if version != __version__:
        raise MachineError(
            f"image {name} holds harness {version}, and this is {__version__}; they must be the same: "
            f"build the image again ({_how_to_build(name)})"
        )
    if trl is not None and packages.get("trl") != trl:
        raise MachineError(
            f"image {name} holds TRL {packages.get('trl')}, expected {trl}; build one with it "
            f"({_how_to_build(name, trl)}) and leave --image out, or name another with --image"
        )
    started = answer.started
    return Looked(
        engine_name, image, packages, started is not None and is_local(started.pid, started.id)
    )


def _probe(
    engine: Engine,
    name: str,
    image: Image,
    study: Path | None,
    user: str,
    labels: Mapping[str, str],
) -> Answer:
    container = f"harness-probe-{secrets.token_hex(6)}"
    # Named so that a study's next command sweeps it, should this one die here.
    nonce = study.resolve() / f".{container}.tmp" if study else None
    out, errors = BytesIO(), BytesIO()
    order = Order(
        name=container,
        image=image.id,
        command=["sh", "-c", _PROBE, "sh", str(nonce or "")],
        user=user,
        labels=labels,
        writable=[nonce.parent] if nonce else [],
    )
    try:
        engine.start(order)
        started = engine.state(container)
        engine.read(container, out, errors)
        said = clean(errors.getvalue().decode(errors="replace").strip(), 300)
        is_seen = nonce is None or nonce.exists()
        return Answer(started, engine.state(container), out.getvalue(), said, is_seen)
    except EngineRefused as error:
        raise MachineError(explain(str(error), name)) from None
    finally:
        remove(engine, container)
        if nonce:
            nonce.unlink(missing_ok=True)


def _read(answer: Answer, name: str, user: str) -> dict[str, Any]:
    code = answer.exit_code
    if code == _CAN_NOT_WRITE or (code == 0 and not answer.is_seen):
        where = answer.errors if code else "what it writes there does not arrive here"
        raise MachineError(
            f"a container (user {user}) can't write to the study's folder: {where}; the engine must run "
            "on this machine and the folder belong to that user: name another with --output-dir"
        )
    try:
        found = json.loads(answer.out) if code == 0 else {}
    except ValueError:
        found = {}
    if not {"harness", "packages"} <= found.keys():
        said = f": {answer.errors}" if answer.errors else ""
        raise MachineError(
            f"image {name} does not say what it holds (`harness env` in it ended with {code}{said}); "
            "expected an image built from this project's Dockerfile"
        )
    return dict(found)


def remove(engine: Engine, name: str) -> None:
    """Remove a container if the engine will; the reaper, or the next command, tries again."""
    try:
        engine.remove(name)
    except (EngineGone, EngineRefused):
        return


def owner_of(folder: Path) -> str:
    """Who a worker has to be to write where the supervisor does: the folder's owner, as uid:gid."""
    status = folder.stat()
    return f"{status.st_uid}:{status.st_gid}"


def is_local(pid: int | None, container_id: str) -> bool:
    """Whether a container's process is this machine's: the kernel names the container for it."""
    try:
        return pid is not None and container_id in Path(f"/proc/{pid}/cgroup").read_text()
    except OSError:
        return False


def _how_to_build(image: str, trl: str | None = None) -> str:
    """Name the command that builds an image of ours, or one that would do in another's place."""
    word = f" TRL={trl}" if trl else ""
    return make_command(image, trl) or f"`make image{word}` or `make image-cpu{word}`"
