"""The composite actions: what they declare, hand to their scripts, and are used with."""

from __future__ import annotations

import re

import pytest

from tests.workflow_files import ACTIONS, ROOT, load, steps


@pytest.mark.parametrize("name", ACTIONS)
def test_an_actions_inputs_are_declared_and_used(name: str) -> None:
    action = load(ACTIONS[name])
    used = set(re.findall(r"inputs\.([\w-]+)", ACTIONS[name].read_text()))
    assert used == set(action["inputs"])
    assert all("description" in i and "default" in i for i in action["inputs"].values())
    assert all(step.get("shell") == "bash" for step in action["runs"]["steps"] if "run" in step)


def test_an_action_hands_its_script_every_variable_that_the_script_reads() -> None:
    for name, path in ACTIONS.items():
        script = (ROOT / ".github" / "scripts" / f"{name}.py").read_text()
        given = {key for step in load(path)["runs"]["steps"] for key in step.get("env", {})}
        prefix = f"{name.upper()}_"
        read = set(re.findall(rf"\b{prefix}[A-Z_]*[A-Z]\b", script)) - {f"{prefix}CONTAINER"}
        assert read <= given, f"{name}.py reads what its action does not give"


def test_own_actions_are_used_with_inputs_that_they_have() -> None:
    used = set()
    for where, step in steps():
        if step.get("uses", "").startswith("./.github/actions/"):
            name = step["uses"].rpartition("/")[2]
            used.add(name)
            assert set(step["with"]) <= set(load(ACTIONS[name])["inputs"]), where
    assert used == set(ACTIONS)


def test_nightly_remembers_an_answer_and_tries_again_what_gave_none() -> None:
    nightly = load(ROOT / ".github" / "workflows" / "nightly.yml")["jobs"]
    (kept,) = (step for step in nightly["gate"]["steps"] if step.get("id") == "gate")
    *_, fetched, shown, _, remembered = nightly["side-by-side"]["steps"]
    assert fetched["with"]["name"] == kept["with"]["artifact"]
    assert fetched["with"]["path"] in shown["run"]
    assert remembered["if"].startswith(f"steps.{fetched['id']}.outcome == 'success' && ")
    assert "gate" in nightly["side-by-side"]["needs"]
    assert "fail-on" not in kept["with"], "red for a confirmed change alone, the action's default"
    assert load(ACTIONS["gate"])["inputs"]["fail-on"]["default"] == "changed"


def test_the_gates_comparison_comes_from_where_the_script_puts_it() -> None:
    action = load(ACTIONS["gate"])
    paths = [
        step["with"]["path"] for step in action["runs"]["steps"] if "path" in step.get("with", {})
    ]
    folder = "${{ inputs.output-dir }}/comparison"
    assert paths == [folder, f"{folder}/comparison.md"]
