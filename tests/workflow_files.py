"""The workflows and actions under .github, read for tests of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

ROOT = Path(__file__).parent.parent
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
ACTIONS = {
    path.parent.name: path for path in sorted((ROOT / ".github" / "actions").glob("*/action.yml"))
}


def load(path: Path) -> Any:
    return YAML(typ="safe").load(path)


def jobs() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Every job: its workflow's name, its own, and what it is."""
    for path in WORKFLOWS:
        for name, job in load(path)["jobs"].items():
            yield path.stem, name, job


def steps() -> Iterator[tuple[str, dict[str, Any]]]:
    """Every step of every workflow and of every action, with a name for messages."""
    for workflow, name, job in jobs():
        for step in job.get("steps", []):
            yield f"{workflow}/{name}", step
    for name, path in ACTIONS.items():
        for step in load(path)["runs"]["steps"]:
            yield f"action {name}", step
