"""`harness environments`: which environments of other releases this machine keeps, and removing them.

What this leaves out: making them, which `harness bench --trl` does by itself (`environments`).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from harness.errors import ConfigError
from harness.options import JSON, Commands

if TYPE_CHECKING:
    from harness.environments import Environment


@click.group(cls=Commands)
def environments() -> None:
    """Look at the environments that `bench --trl` made, and remove them."""


@environments.command("ls")
@JSON
def environments_ls(is_json: bool) -> int:
    """List every environment, the one that was used last first."""
    from harness.environments import list_environments
    from harness.recovery import utc_text
    from harness.terminal import answer_console, plain_table
    from harness.text import memory

    table = plain_table("name", "environment", "size", "last used")
    for each in list_environments():
        size, used = each.size_bytes(), utc_text(each.used_utc)
        table.add_row(each.name, each.note.label, memory(size), used)
        if is_json:
            packages = {p.name: p.version for p in each.note.packages}
            line = {"name": each.name, "label": each.note.label, "packages": packages}
            click.echo(json.dumps({**line, "bytes": size, "used_utc": used}))
    if not is_json:
        answer_console().print(table)
    return 0


@environments.command("rm")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--all", "is_all", is_flag=True, help="every environment")
def environments_rm(names: tuple[str, ...], is_all: bool) -> int:
    """Remove environments by name, or by how the name begins; `bench` makes them again."""
    from harness.environments import list_environments, remove_environment

    found = list_environments()
    if bool(names) is is_all:
        raise ConfigError("name the environments to remove (`harness environments ls`), or --all")
    for each in found if is_all else _chosen(found, names):
        remove_environment(each)
        click.echo(f"removed {each.name}: {each.note.label}")
    return 0


def _chosen(found: Sequence[Environment], names: Sequence[str]) -> list[Environment]:
    problems: list[str] = []
    chosen: dict[str, Environment] = {}
    for name in names:
        fitting = [each for each in found if each.name.startswith(name)]
        if len(fitting) == 1:
            chosen[fitting[0].name] = fitting[0]
        else:
            which = "no environment" if not fitting else f"{len(fitting)} environments"
            problems.append(f"{which} has a name that begins with {name!r}; see `environments ls`")
    if problems:
        raise ConfigError(*problems)
    return list(chosen.values())
