"""What earlier runs left behind: is it there, and may it be published?

    artifacts.py exists NAME         writes the output `exists`: true or false
    artifacts.py trusted RUN_ID      exit 1 unless the run was of this repository's own code

A pull request's run executes a stranger's code, so that its artifacts are a stranger's pages; only runs
that someone with write access started may be published. Standard library only.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import api

OWN_EVENTS = ("workflow_dispatch", "schedule", "push")


def main() -> None:
    """Answer the question that was asked."""
    match sys.argv[1:]:
        case ["exists", name]:
            answer(exists(name))
        case ["trusted", run_id] if run_id.isdecimal():
            check(run_id)
        case _:
            raise SystemExit(
                "artifacts.py: expected `exists NAME`, or `trusted RUN_ID` with a number"
            )


def exists(name: str) -> bool:
    """Whether any run left an artifact of this name that can still be downloaded."""
    listed = api.get("actions/artifacts", name=name, per_page="100")["artifacts"]
    return any(not artifact["expired"] for artifact in listed)


def check(run_id: str) -> None:
    """Refuse a run that could have executed somebody else's code."""
    run = api.get(f"actions/runs/{run_id}")
    origin = (run["head_repository"] or {}).get("full_name")
    repository = os.environ["GITHUB_REPOSITORY"]
    if run["event"] not in OWN_EVENTS or origin != repository:
        raise SystemExit(
            f"run {run_id} was started by {run['event']} from {origin}; expected "
            f"{' or '.join(OWN_EVENTS)} from {repository}: its artifacts are not published"
        )
    sys.stdout.write(f"run {run_id}: {run['event']} at {run['head_sha']}\n")


def answer(is_there: bool) -> None:
    """Hand the answer to the workflow."""
    text = f"exists={str(is_there).lower()}\n"
    sys.stdout.write(text)
    if path := os.environ.get("GITHUB_OUTPUT"):
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(text)


if __name__ == "__main__":
    main()
