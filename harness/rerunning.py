"""Trains the cells of a suspicion again, on both sides and on seeds of their own.

Other seeds, because those that raised the suspicion may be what was lucky. The two sides keep what they
were asked for: the matrix as their study holds it, its overrides, its budget. What this leaves out: making
an environment for a release that is not installed here; what launches each side is passed in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from harness.bench import bench
from harness.compare.reading import read_side
from harness.compare.side import Side
from harness.errors import ConfigError, MachineError
from harness.files import disk_errors, write_atomically
from harness.launch import Launcher
from harness.launch.local import LocalLauncher
from harness.plan import Request
from harness.progress import Display
from harness.record import Study
from harness.releases import installed_versions
from harness.store import Store

LauncherOf = Callable[[Side], Launcher]


def rerun_cells(
    folders: Sequence[Path],
    cells: Sequence[str],
    display_of: Callable[[], Display],
    launcher_of: LauncherOf,
) -> tuple[Side, Side]:
    """Train cells (pair.arm) of two studies again, in folders beside them; return both as sides.

    Raises: ConfigError if one of the two is no study.
    """
    stores = [Store(folder) for folder in folders]
    missing = [store.root.name for store in stores if not store.exists()]
    if missing:
        raise ConfigError(
            f"{', '.join(missing)} is no study, so nothing of it can be trained again; expected two "
            "studies with --rerun: run the matrix with the base's release, and compare with that"
        )
    sides = [read_side(folder) for folder in folders]
    launchers = [launcher_of(side) for side in sides]
    again = []
    for store, launcher in zip(stores, launchers, strict=True):
        study = store.read_study()
        folder = store.root.with_name(f"{store.root.name}-again")
        bench(_request(study, folder, cells), launcher, display_of())
        again.append(read_side(folder))
    return again[0], again[1]


def local_launcher(side: Side) -> Launcher:
    """Return the launcher of this installation, for a side that was trained with what is installed.

    Raises: MachineError saying what else is installed, and what to do.
    """
    differing = [
        f"{name} {side.packages.get(name)} there, {version} here"
        for name, version in installed_versions().items()
        if side.packages.get(name) != version
    ]
    if differing:
        raise MachineError(
            f"{side.label} can't be trained again with this installation ({'; '.join(differing)}); run "
            "its matrix with `harness bench` and its releases, with --filter for these cells and "
            "--seed-block 1, and compare the new studies"
        )
    return LocalLauncher(is_cold=False)


def _request(study: Study, folder: Path, cells: Sequence[str]) -> Request:
    """Ask for the same as a study, for some cells, on the next block of seeds."""
    matrix = folder / "matrix.yaml"
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    write_atomically(matrix, study.matrix_text.encode())
    return Request(
        matrix=str(matrix),
        output_dir=folder,
        overrides=study.overrides,
        filters=tuple(f"{cell}.s*" for cell in cells),
        renders_report=False,
        budget=study.budget,
        rehearses=study.is_rehearsal,
        seed_block=study.seed_block + 1,
        command="harness compare --rerun",
    )
