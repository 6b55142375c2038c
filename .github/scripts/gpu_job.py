"""The names that a GPU job works with: where its study lies, under which user, in which container.

    gpu_job.py                 BENCH_MATRIX, TRL, STUDY (empty: the workflow run's number), STATE_FOLDER

A study lies outside the checkout, in a folder of the runner's, under a name that a second attempt of the
same workflow run finds again: what is finished is not run twice. Writes GITHUB_ENV. Standard library only.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
PARTS = {
    "BENCH_MATRIX": "the name of a shipped matrix, e.g. smollm3; a file is not in the image",
    "TRL": "a release of TRL",
    "STUDY": "a name for the study, of letters, digits, dots, - and _",
}


def main() -> None:
    """Make the study's folder and hand the names to the steps that follow."""
    inputs = {
        **os.environ,
        "STUDY": os.environ.get("STUDY") or f"run-{os.environ['GITHUB_RUN_ID']}",
    }
    found = names(inputs)
    results = Path(found["HARNESS_RESULTS"])
    results.mkdir(parents=True, exist_ok=True)
    found["HARNESS_USER"] = f"{os.getuid()}:{os.getgid()}"
    found["STUDY_IS_NEW"] = str(not Path(found["STUDY_FOLDER"]).exists()).lower()
    text = "".join(f"{name}={value}\n" for name, value in found.items())
    sys.stdout.write(text)
    if path := os.environ.get("GITHUB_ENV"):
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(text)


def names(inputs: Mapping[str, str]) -> dict[str, str]:
    """Put the names together; refuse what could leave the folder or a line."""
    wrong = [
        f"{part} is {inputs.get(part, '')!r}; expected {expected}"
        for part, expected in PARTS.items()
        if not NAME.fullmatch(inputs.get(part, ""))
    ]
    state = inputs.get("STATE_FOLDER") or f"{inputs['HOME']}/lora-harness"
    if "\n" in state or not state.startswith("/"):
        wrong.append(f"the state folder is {state!r}; expected an absolute path on the runner")
    if wrong:
        raise SystemExit("gpu_job.py: " + "; ".join(wrong))
    study = f"{inputs['BENCH_MATRIX']}-trl-{inputs['TRL']}"
    attempt = f"{inputs['GITHUB_RUN_ID']}-{inputs['GITHUB_RUN_ATTEMPT']}"
    return {
        "HARNESS_RESULTS": f"{state}/{inputs['STUDY']}",
        "STUDY_NAME": study,
        "STUDY_FOLDER": f"{state}/{inputs['STUDY']}/{study}",
        "BENCH_OUTPUT_DIR": f"results/{study}",  # the container mounts HARNESS_RESULTS there
        "BENCH_CONTAINER": f"harness-{attempt}-{study}",
    }


if __name__ == "__main__":
    main()
