"""Which releases of TRL a workflow is asked for: words in, a JSON list out.

    versions.py "pinned newest 1.14.2"

`pinned` is the one of constraints.txt, `newest` the one that pip finds in its package index (releases
only), anything else is a version as it stands. Writes the outputs `versions`, and `pinned` and `newest`
where they were asked for. `versions` has no release twice: if the newest one is the pinned one, it has one.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

PACKAGE = "trl"
CONSTRAINTS = Path(__file__).resolve().parents[2] / "constraints.txt"
VERSION = re.compile(r"\d+(?:\.\d+)*(?:(?:a|b|rc)\d+)?(?:\.post\d+)?(?:\.dev\d+)?")


def main() -> None:
    """Print the outputs, and hand them to the workflow where there is one."""
    words = re.split(r"[\s,]+", " ".join(sys.argv[1:]).strip()) if sys.argv[1:] else []
    found = resolve([word for word in words if word])
    outputs = {"versions": json.dumps(list(dict.fromkeys(found.values())))}
    outputs.update({word: version for word, version in found.items() if word != version})
    text = "".join(f"{name}={value}\n" for name, value in outputs.items())
    sys.stdout.write(text)
    if path := os.environ.get("GITHUB_OUTPUT"):
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(text)


def resolve(words: list[str]) -> dict[str, str]:
    """Find the release of every word."""
    found = {}
    for word in words or ["pinned"]:
        if word == "pinned":
            found[word] = pinned(CONSTRAINTS.read_text(encoding="utf-8"))
        elif word == "newest":
            found[word] = newest()
        elif VERSION.fullmatch(word):
            found[word] = word
        else:
            raise SystemExit(
                f"versions.py: {word!r} is no release of TRL; expected a version such as 1.16.0, or one of "
                "the words pinned and newest, with spaces or commas between them"
            )
    return found


def pinned(constraints: str) -> str:
    """Read the pinned release out of a constraints file."""
    match = re.search(rf"^{PACKAGE}==(\S+)", constraints, re.MULTILINE)
    if match is None:
        raise SystemExit(
            f"versions.py: constraints.txt pins no {PACKAGE}; expected a line {PACKAGE}==…"
        )
    return match[1]


def newest() -> str:
    """Ask pip, and so whatever package index it is set up for."""
    command = [
        sys.executable,
        "-m",
        "pip",
        "--disable-pip-version-check",
        "index",
        "versions",
        PACKAGE,
    ]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    match = re.search(rf"^{PACKAGE} \((\S+)\)", answer.stdout, re.MULTILINE)
    if answer.returncode or match is None:
        raise SystemExit(
            f"versions.py: pip could not say which {PACKAGE} is the newest (exit {answer.returncode}): "
            f"{answer.stderr.strip() or answer.stdout.strip()}"
        )
    return match[1]


if __name__ == "__main__":
    main()
