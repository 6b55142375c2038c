"""Parts of the command line that several commands share: the group, options, and their parsers."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from harness.errors import ConfigError, did_you_mean


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


class WithNegatives(click.Command):
    """A command whose options of `Seconds` are told of '-1' themselves.

    Where the value may be left out, click takes what begins with '-' for another option, even after '='.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put a blank before a negative number, which is then the option's value."""
        names = {
            name
            for option in self.get_params(ctx)
            if isinstance(option, click.Option) and isinstance(option.type, Seconds)
            for name in option.opts
        }
        told: list[str] = []
        for arg in args:
            name, _, value = arg.partition("=")
            if name in names and value.startswith("-"):
                told.append(f"{name}= {value}")
            elif told and told[-1] in names and re.match(r"-[\d.]", arg):
                told[-1] += f"= {arg}"
            else:
                told.append(arg)
        return super().parse_args(ctx, told)


class Seconds(click.IntRange):
    """Whole seconds, 0 or more."""

    def __init__(self) -> None:
        super().__init__(min=0)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Read digits, and refuse all else in a sentence."""
        digits = str(value).strip()
        if not digits.isdecimal() or len(digits) > 9:
            example = f", e.g. {param.opts[0]} 600" if param else ""
            found = f"found {_short(digits)}, expected whole seconds, 0 or more{example}"
            self.fail(found, param, ctx)
        return int(digits)


def parse_seeds(
    _ctx: click.Context, _param: click.Parameter, text: str | None
) -> tuple[int, ...] | None:
    """Parse '0,1,4-6' as seeds."""
    if text is None:
        return None
    seeds: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        low, high = _seed(first, text), _seed(last if dash else first, text)
        if high - low > 10_000:
            raise click.BadParameter(f"found {_short(text)}, expected at most 10,000 seeds")
        seeds += range(low, high + 1)
    if not seeds:
        raise click.BadParameter(f"found {_short(text)}, expected at least one seed")
    return tuple(seeds)


def parse_settings(
    _ctx: click.Context, _param: click.Parameter, pairs: Sequence[str]
) -> dict[str, Any]:
    """Parse key=value pairs, values as YAML."""
    from harness.matrix_file import keep_plain, read_yaml

    values: dict[str, Any] = {}
    problems: list[str] = []
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key:
            problems.append(f"found {_short(pair)}, expected key=value, e.g. learning_rate=3e-4")
            continue
        try:
            values[key], unplain = keep_plain(read_yaml(text, key)[0])
            problems += [f"{key}: {what}" for what in unplain.values()]
        except ConfigError as error:
            why = "; ".join(error.problems)
            problems.append(f"found {_short(pair)}, expected a plain value after '=' ({why})")
    if problems:
        raise click.BadParameter("\n".join(problems))
    return values


def parse_maps(
    _ctx: click.Context, _param: click.Parameter, pairs: Sequence[str]
) -> dict[str, str]:
    """Parse REPOSITORY=FOLDER pairs; the first '=' parts them."""
    folders: dict[str, str] = {}
    problems: list[str] = []
    for pair in pairs:
        name, _, folder = pair.partition("=")
        if not name or not folder:
            problems.append(
                f"found {_short(pair)}, expected REPOSITORY=FOLDER, e.g. "
                "meta-llama/Llama-3.1-8B=/models/llama"
            )
        elif folders.setdefault(name, folder) != folder:
            problems.append(f"{name} is given two folders; expected one")
    if problems:
        raise click.BadParameter("\n".join(problems))
    return folders


def go_offline(_ctx: click.Context, _param: click.Parameter, is_offline: bool) -> None:
    """Keep this process, and those it starts, from the Hub."""
    if is_offline:  # read by huggingface_hub when it is imported, here and in every worker
        os.environ["HF_HUB_OFFLINE"] = "1"


def _seed(digits: str, text: str) -> int:
    if not digits.isdecimal():
        raise click.BadParameter(f"found {_short(text)}, expected seeds such as 0,1,2 or 0-4")
    # Longer text is no number below 2**32, and Python refuses to read thousands of digits.
    if len(digits) > 20 or int(digits) >= 2**32:
        raise click.BadParameter(
            f"found {_short(digits)}, expected seeds below 2**32 = {2**32}, which is what numpy takes"
        )
    return int(digits)


def _short(text: str) -> str:
    """A value as a message can show it, however long it is."""
    return repr(text if len(text) <= 80 else text[:79] + "…")


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
BUDGET = click.option(
    "--budget",
    metavar="short|standard|full",
    help="how long each pair trains, where the matrix has budgets; default the matrix's own",
)
JSON = click.option("--json", "is_json", is_flag=True, help="machine-readable answer on stdout")
MAP = click.option(
    "--map",
    "maps",
    multiple=True,
    callback=parse_maps,
    metavar="REPOSITORY=FOLDER",
    help="a folder that takes a repository's place, e.g. meta-llama/Llama-3.1-8B=/models/llama",
)
OFFLINE = click.option(
    "--offline",
    is_flag=True,
    expose_value=False,
    callback=go_offline,
    help="use what is in the cache; never touch the network (as HF_HUB_OFFLINE=1)",
)
STUDY = click.argument("study", type=click.Path(path_type=Path), default=Path("results/cpu"))
POSITIVE = click.IntRange(min=1)
SETTINGS = click.option(
    "--set",
    "overrides",
    multiple=True,
    callback=parse_settings,
    metavar="KEY=VALUE",
    help="a trainer argument, by TRL's own name; for every run that knows it",
)
FILTER = click.option(
    "--filter",
    "filters",
    multiple=True,
    metavar="PATTERN",
    help="only runs whose pair.arm.sSEED matches, e.g. 'grpo-*' or '*.full.*'",
)
SEEDS = click.option(
    "--seeds",
    callback=parse_seeds,
    metavar="LIST",
    help="instead of the matrix's, e.g. 0,1,2 or 0-4",
)
