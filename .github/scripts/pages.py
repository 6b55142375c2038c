"""The published reports as a static site: one page that lists them, and each report's own files.

    pages.py REPORTS SITE       e.g. pages.py reports _site

Only a report's known files are taken. Standard library only.
"""

from __future__ import annotations

import json
import shutil
import sys
from html import escape
from pathlib import Path

FILES = ("index.html", "report.md", "brief.md", "data.json", "runs.csv", "comparison.md")
FIGURES = "figures"
PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Reports</title>
<style>body{{font:1rem/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}}
li{{margin:1rem 0}}</style>
<h1>Reports</h1>
<ul>
{entries}
</ul>
</html>
"""


def main() -> None:
    """Build the site."""
    if len(sys.argv) != 3:
        raise SystemExit("pages.py: expected the folder of the reports and the one for the site")
    build(Path(sys.argv[1]), Path(sys.argv[2]))


def build(reports: Path, site: Path) -> None:
    """Copy every report and write the page that lists them."""
    found = sorted(folder for folder in reports.iterdir() if (folder / "index.html").is_file())
    if not found:
        raise SystemExit(f"pages.py: no folder in {reports} holds a report (index.html)")
    for folder in found:
        copy(folder, site / folder.name)
    entries = "\n".join(map(entry, found))
    (site / "index.html").write_text(PAGE.format(entries=entries), encoding="utf-8")
    sys.stdout.write(f"{len(found)} reports in {site}\n")


def copy(report: Path, target: Path) -> None:
    """Copy what belongs to a report."""
    target.mkdir(parents=True)
    for name in FILES:
        if (report / name).is_file():
            shutil.copyfile(report / name, target / name)
    if (report / FIGURES).is_dir():
        shutil.copytree(
            report / FIGURES, target / FIGURES, ignore=lambda _, names: not_figures(names)
        )


def not_figures(names: list[str]) -> set[str]:
    """Of a folder's names, those that are no figure."""
    return {name for name in names if not name.endswith((".svg", ".png"))}


def entry(report: Path) -> str:
    """A report's line in the list: its title and its finding in a sentence."""
    try:
        data = json.loads((report / "data.json").read_bytes())
        title, sentence = str(data["study"]["title"]), str(data["sentence"])
    except (OSError, ValueError, KeyError, TypeError):
        title, sentence = compared(report)
    return f'<li><a href="{escape(report.name)}/">{escape(title)}</a><br>{escape(sentence)}</li>'


def compared(report: Path) -> tuple[str, str]:
    """Of a comparison, what was compared and the answer; of anything else the folder's name."""
    try:
        lines = (report / "comparison.md").read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        lines = []
    titles = [line[4:] for line in lines if line.startswith("### ")]
    answers = [line.strip("*") for line in lines if line.startswith("**")]
    return (titles or [report.name])[0], (answers or [""])[0]


if __name__ == "__main__":
    main()
