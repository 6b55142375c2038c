"""Two sides held against each other: every layer, cell by cell, and the answer in a word and a sentence.

What this leaves out: where sides come from (`reading`), likely causes and what a user notices, which
are filled in afterwards, and pages.
"""

from __future__ import annotations

from collections.abc import Sequence

from harness.compare.accepting import accept
from harness.compare.asked import compare_stacks, fold, package_changes
from harness.compare.cells import Setting, build_cell, comparable_pairs, compare_all_runs
from harness.compare.concluding import conclude
from harness.compare.confirming import suspected_cells
from harness.compare.controls import control_of, demote_noise, noise_of
from harness.compare.exact import Stacks
from harness.compare.grouping import CellRuns, group
from harness.compare.limits import Limits
from harness.compare.machine import looseness, machine_differences
from harness.compare.memory import compare_memory
from harness.compare.model import Acknowledged, Cell, Comparison, Control, Difference
from harness.compare.replay import replay_differences
from harness.compare.side import Side
from harness.compare.speed import compare_speed
from harness.compare.statistics import Terms
from harness.compare.trust import refusal_note
from harness.text import plural


def compare_sides(
    base: Side,
    candidate: Side,
    limits: Limits | None = None,
    acknowledged: Sequence[Acknowledged] = (),
) -> Comparison:
    """Compare two sides. Causes and notices are left empty."""
    limits = limits or Limits()
    base, candidate = _told_apart(base, candidate)
    runs = group(base, candidate)
    machines = machine_differences(base, candidate)
    controls = (control_of(base, limits), control_of(candidate, limits))
    setting = _setting(base, candidate, limits, runs, machines, controls)
    compared = compare_all_runs(runs, setting)
    built = [build_cell(cell, compared.get(cell.name, ()), setting) for cell in runs]
    suspected = suspected_cells(built)
    comparison = Comparison(
        base=base.label,
        candidate=candidate.label,
        matrix_name=base.matrix_name,
        word="same",
        sentence="",
        cells=tuple(suspected.cells),
        asked=(*_folded_arguments(built), *compare_stacks(base, candidate, machines)),
        replay=tuple(
            demote_noise(replay_differences(base.replay, candidate.replay), setting.noise)
        ),
        controls=controls,
        packages=package_changes(base, candidate),
        notes=tuple(_notes(base, candidate, setting, machines, controls)),
        suspected=suspected.names,
    )
    return conclude(accept(comparison, acknowledged, candidate.packages))


def _setting(
    base: Side,
    candidate: Side,
    limits: Limits,
    runs: Sequence[CellRuns],
    machines: Sequence[str],
    controls: tuple[Control, Control],
) -> Setting:
    noise = noise_of(base, candidate, controls, limits)
    has_times = not machines or limits.across_machines
    burdens: dict[str, list[Difference]] = {}
    if has_times:
        alike = [cell for cell in runs if len(comparable_pairs(cell)) == len(cell.ok_pairs)]
        for layer in (
            compare_memory(alike, limits, noise.spread),
            compare_speed(alike, limits, noise.spread),
        ):
            for name, found in layer.items():
                burdens.setdefault(name, []).extend(found)
    has_controls = any(control.compared for control in controls)
    return Setting(
        base=base,
        candidate=candidate,
        stacks=Stacks(base.packages, candidate.packages),
        limits=limits,
        terms=Terms(limits, len(runs), has_times),
        noise=noise,
        loose=looseness(base, candidate, machines, limits, has_controls=has_controls),
        burdens=burdens,
    )


def _folded_arguments(cells: Sequence[Cell]) -> list[Difference]:
    """Say once which arguments differ, with the cells they differ in."""
    found = [
        (f"{cell.pair}.{cell.arm}", d)
        for cell in cells
        for d in cell.differences
        if d.layer == "asked" and d.what.startswith("argument/")
    ]
    return fold(found, [f"{cell.pair}.{cell.arm}" for cell in cells])


def _notes(
    base: Side,
    candidate: Side,
    setting: Setting,
    machines: Sequence[str],
    controls: Sequence[Control],
) -> list[str]:
    notes = [f"{side.label}: {text}" for side in (base, candidate) for text in side.unreadable]
    if base.matrix_hash != candidate.matrix_hash:
        notes.append(
            "The two studies are of different matrices or --set; cells that were asked for the same are "
            "compared."
        )
    if machines and not setting.limits.across_machines:
        notes.append(
            "Measured on different machines, so memory, time and throughput are not compared; "
            "--across-machines compares them all the same."
        )
    if setting.terms.has_times and (refused := refusal_note((base, candidate))):
        notes.append(refused)
    if setting.loose:
        notes.append(f"Small differences prove nothing here: {setting.loose}.")
    compared, alarms = sum(c.compared for c in controls), sum(c.alarms for c in controls)
    if not compared:
        notes.append(
            "No run was repeated, so there is no A/A comparison; an arm with `again_of` in the matrix "
            "makes one."
        )
    elif alarms:
        notes.append(f"A/A: {plural(alarms, 'alarm')} in {plural(compared, 'rerun')}.")
    return notes


def _told_apart(base: Side, candidate: Side) -> tuple[Side, Side]:
    """Give two sides of one label labels that tell them apart: by what differs, or by their place."""
    if base.label != candidate.label:
        return base, candidate
    changed = [c for c in package_changes(base, candidate) if c[1] and c[2]][:2]
    ours = ", ".join(f"{name} {b}" for name, b, _ in changed) or "base"
    theirs = ", ".join(f"{name} {c}" for name, _, c in changed) or "candidate"
    return (
        base.model_copy(update={"label": f"{base.label} ({ours})"}),
        candidate.model_copy(update={"label": f"{candidate.label} ({theirs})"}),
    )
