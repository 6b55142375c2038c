"""What a job shows of a study: the report's first screen, how the runs ended, the versions they ran with.

    summary.py FOLDER …        a study's folder, a report's, or a comparison's; prints Markdown

Of a comparison it shows the top: the answer, what a user will notice, likely causes. For two or more
folders, a table with the studies' findings side by side comes first; whether a difference there is real is
not its question. A folder without a report is said to have none. Standard library only, since a runner
calls it before anything is installed.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

PACKAGES = ("trl", "transformers", "peft", "torch", "vllm")
MAX_BRIEF_BYTES = 64 * 1024  # a step summary ends at 1 MiB; a brief has two kilobytes
COMPARISON = "comparison.md"
HEADING = "\n#### "  # of a section of a comparison; the first says what a user will notice
TOP_SECTIONS = 2  # and the likely causes


def main() -> None:
    """Print the summary of every folder that was named."""
    folders = [Path(argument) for argument in sys.argv[1:]]
    if not folders:
        raise SystemExit("summary.py: expected the folder of a study or of a report")
    parts = [side_by_side(folders)] if len(folders) > 1 else []
    sys.stdout.write("\n\n".join([*parts, *map(summarise, folders)]) + "\n")


def summarise(folder: Path) -> str:
    """One study in Markdown: its title, its brief, its runs, its versions; or a comparison's top."""
    if (folder / COMPARISON).is_file():
        return top_of(folder / COMPARISON)
    report = report_of(folder)
    data = read_data(folder)
    brief = report / "brief.md"
    if data is None or not brief.is_file():
        return (
            f"### {folder.name}\n\nNo report in `{folder}`: the benchmark ended before it wrote one. "
            "The log of its step says why."
        )
    text = brief.read_bytes()[:MAX_BRIEF_BYTES].decode(errors="replace").strip()
    return f"### {data['study']['title']}\n\n{text}\n\n{endings(data)} {surroundings(data)}"


def top_of(comparison: Path) -> str:
    """The first sections of a comparison, and where the others are."""
    text = comparison.read_bytes()[:MAX_BRIEF_BYTES].decode(errors="replace")
    shown = HEADING.join(text.split(HEADING)[: 1 + TOP_SECTIONS]).strip()
    return f"{shown}\n\nThe artifact `{comparison.parent.name}` has the rest: `index.html` is the page."


def side_by_side(folders: list[Path]) -> str:
    """A table: a row per pair and arm, a group of columns per study."""
    studies = [(folder, read_data(folder)) for folder in folders]
    known = [(label(folder, data), data) for folder, data in studies if data is not None]
    if len({name for name, _ in known}) < len(known):
        known = [(folder.name, data) for folder, data in studies if data is not None]
    rows: dict[tuple[str, str], None] = {}
    for _, data in known:
        rows.update({(f["pair"], f["arm"]): None for f in data["findings"]})
    if not rows:
        return "### Side by side\n\nNo study here has a finding."
    head = ["Pair, arm"]
    head += [f"{name}: {what}" for name, _ in known for what in ("worse by", "memory", "matches?")]
    lines = [head, ["---"] * len(head)]
    for pair, arm in rows:
        cells = [cell for _, data in known for cell in finding_cells(data, pair, arm)]
        lines.append([f"{pair}, {arm}", *cells])
    table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    lenses = dict.fromkeys(
        m["statistic"] for _, d in known for f in d["findings"] for m in f["memory"][:1]
    )
    return (
        f"### Side by side\n\n{table}\n\n"
        f"Memory, of the baseline: {'; or '.join(lenses) or 'not measured'}. "
        "Nothing here is judged: whether a difference between the columns is real is for the reader."
    )


def finding_cells(data: dict[str, Any], pair: str, arm: str) -> list[str]:
    """The gap, the memory ratio and the word of one pair and arm, as a table shows them."""
    for finding in data["findings"]:
        if (finding["pair"], finding["arm"]) == (pair, arm):
            memory = finding["memory"][0]["ratio"] if finding["memory"] else None
            return [gap(finding["worse_by"], finding["unit"]), share(memory), finding["word"]]
    return ["–", "–", "–"]


def gap(estimate: dict[str, Any] | None, unit: str) -> str:
    """A difference with its interval, or what there is of it."""
    if not estimate or estimate["value"] is None:
        return "–"
    text = f"{estimate['value']:+.3g} {unit}"
    if estimate["low"] is None or estimate["high"] is None:
        return text
    return f"{text}, {estimate['low']:+.3g} to {estimate['high']:+.3g}"


def share(ratio: dict[str, Any] | None) -> str:
    """A ratio in percent."""
    return "–" if not ratio or ratio["value"] is None else f"{100 * ratio['value']:.0f}%"


def endings(data: dict[str, Any]) -> str:
    """How the runs ended, counted."""
    counts = Counter(run["status"] or "not finished" for run in data["runs"])
    others = ", ".join(f"{n} {status}" for status, n in sorted(counts.items()) if status != "ok")
    text = f"{counts['ok']} of {len(data['runs'])} runs ended ok"
    return f"{text}; {others}." if others else f"{text}."


def surroundings(data: dict[str, Any]) -> str:
    """The versions and the machine that the runs had; runs that differ are named one after the other."""
    texts = []
    for environment in data["environments"]:
        packages = [f"{p} {v}" for p in PACKAGES if (v := environment["packages"].get(p))]
        gpus = [gpu["name"] for gpu in environment["gpus"]]
        machine = (
            " + ".join(gpus) or environment["platform"].get("cpu_model") or "unknown processor"
        )
        texts.append(f"{', '.join(packages)} on {machine}")
    return f"With {'; and with '.join(dict.fromkeys(texts))}." if texts else ""


def label(folder: Path, data: dict[str, Any]) -> str:
    """What tells a study from another one: its TRL, else its folder."""
    releases = {e["packages"].get("trl") for e in data["environments"]} - {None}
    return f"TRL {releases.pop()}" if len(releases) == 1 else folder.name


def read_data(folder: Path) -> dict[str, Any] | None:
    """The report's numbers, or None if there are none."""
    try:
        data = json.loads((report_of(folder) / "data.json").read_bytes())
    except (OSError, ValueError):
        return None
    return data if isinstance(data, dict) else None


def report_of(folder: Path) -> Path:
    """Where a folder keeps its report: a study's lies inside it, a downloaded one is the folder."""
    return folder / "report" if (folder / "report").is_dir() else folder


if __name__ == "__main__":
    main()
