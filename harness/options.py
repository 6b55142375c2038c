"""Parts of the command line that several commands share: the group, options, and their parsers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from harness.errors import did_you_mean


class Commands(click.Group):
    """A group that suggests the nearest command and shows errors without a traceback."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find a command, with a suggestion for a misspelt one."""
        if args and self.get_command(ctx, args[0]) is None and not args[0].startswith("-"):
            known = self.list_commands(ctx)
            raise click.UsageError(
                f"no command {args[0]!r}{did_you_mean(args[0], known)}; expected one of "
                + ", ".join(known),
                ctx,
            )
        return super().resolve_command(ctx, args)


def parse_seeds(
    _ctx: click.Context, _param: click.Parameter, text: str | None
) -> tuple[int, ...] | None:
    """Parse '0,1,4-6' as seeds."""
    if text is None:
        return None
    seeds: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise click.BadParameter(f"found {text!r}, expected seeds such as 0,1,2 or 0-4")
        if dash and int(last) - int(first) > 10_000:
            raise click.BadParameter(f"found {text!r}, expected at most 10,000 seeds")
        seeds += range(int(first), int(last) + 1) if dash else [int(first)]
    if not seeds:
        raise click.BadParameter(f"found {text!r}, expected at least one seed")
    return tuple(seeds)


def parse_settings(
    _ctx: click.Context, _param: click.Parameter, pairs: Sequence[str]
) -> dict[str, Any]:
    """Parse key=value pairs, values as YAML."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    values: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key:
            raise click.BadParameter(f"found {pair!r}, expected key=value, e.g. learning_rate=3e-4")
        try:
            values[key] = YAML(typ="safe", pure=True).load(text)
        except YAMLError:
            raise click.BadParameter(f"found {pair!r}, expected a plain value after '='") from None
    return values


def gib_to_bytes(_ctx: click.Context, _param: click.Parameter, gib: float | None) -> int | None:
    """Turn GiB, as a person types them, into bytes."""
    return None if gib is None else round(gib * 2**30)


def complete_matrix(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Complete the name of a shipped matrix."""
    from harness.matrix import shipped_matrices

    return [name for name in shipped_matrices() if name.startswith(incomplete)]


MATRIX = click.option(
    "--matrix",
    "-m",
    default="cpu",
    show_default=True,
    metavar="NAME|PATH",
    shell_complete=complete_matrix,
    help="a shipped matrix, or a YAML file",
)
JSON = click.option("--json", "is_json", is_flag=True, help="machine-readable answer on stdout")
STUDY = click.argument("study", type=click.Path(path_type=Path), default=Path("results/cpu"))
POSITIVE = click.IntRange(min=1)
