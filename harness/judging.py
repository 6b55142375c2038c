"""Commands about claims: what a matrix says, and what a study says of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness.errors import ConfigError, StudyError, did_you_mean
from harness.options import JSON, MATRIX, STUDY, Commands

if TYPE_CHECKING:
    from harness.claim_spec import Claim
    from harness.verdicts.model import ClaimVerdict
    from harness.view import StudyView

EXIT_REFUTED = 5
EXIT_UNDECIDED = 6
# What --fail-on takes, and the exit code of each; the first that applies wins.
FAILURES = {"refuted": EXIT_REFUTED, "inconclusive": EXIT_UNDECIDED, "control": EXIT_UNDECIDED}
VERDICT_EXAMPLES = """\b
Examples:
  harness verdict results/findings-cpu
  harness verdict results/findings-cpu --json | jq 'select(.word == "refuted")'
  harness verdict results/findings --fail-on refuted,inconclusive
"""


def parse_words(_ctx: click.Context, _param: click.Parameter, text: str | None) -> tuple[str, ...]:
    """Parse 'refuted,inconclusive'."""
    words = tuple(word.strip() for word in text.split(",")) if text else ()
    unknown = [word for word in words if word not in FAILURES]
    if unknown:
        raise click.BadParameter(
            f"found {unknown[0][:80]!r}{did_you_mean(unknown[0], FAILURES)}, expected some of "
            + ",".join(FAILURES)
        )
    return words


@click.command(epilog=VERDICT_EXAMPLES)
@STUDY
@click.option(
    "--fail-on",
    "fail_on",
    callback=parse_words,
    metavar="WORDS",
    help="exit 5 if a claim is refuted, 6 if one is inconclusive or not tested (inconclusive), or if a "
    "control did not come out as it must (control); several, with commas",
)
@click.option(
    "--repeated-by",
    "repeated_by",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="STUDY",
    help="a study of the same matrix on other seeds (bench --seed-block); several. Their verdicts are kept "
    "with this study and shown in its report; exit 6 if a claim is supported in one and refuted in another",
)
@JSON
def verdict(
    study: Path, fail_on: tuple[str, ...], repeated_by: tuple[Path, ...], is_json: bool
) -> int:
    """Say of every claim of a study whether it is supported, and by what."""
    from harness.store import Store
    from harness.terminal import complain
    from harness.view import load_view

    view = load_view(Store(study))
    if is_json:
        for each in view.verdicts:
            line = {**each.model_dump(mode="json"), "is_post_hoc": view.post_hoc}
            click.echo(json.dumps(line))
    else:
        _print_verdicts(view)
    for problem in view.problems:
        complain(problem)
    against = _repeat(view, study, repeated_by) if repeated_by else []
    if view.problems:
        return StudyError.exit_code
    return exit_code(view.verdicts, fail_on) or (EXIT_UNDECIDED if against else 0)


def _repeat(view: StudyView, study: Path, others: Sequence[Path]) -> list[str]:
    """Keep the verdicts of other studies with this one, print the table, and name contradictions."""
    from rich.text import Text

    from harness.repeat_tables import contradictions, keep_repeats, repeats_table
    from harness.store import Store
    from harness.terminal import complain, message_console, plain_table
    from harness.text import harmless

    repeats = keep_repeats(Store(study), view, others)
    found = repeats_table(view, repeats)
    table = plain_table(*found.columns)
    for row in found.rows:
        table.add_row(*(Text(harmless(cell)) for cell in row))
    console = message_console()
    console.print(found.caption)
    console.print(table)
    against = contradictions(view, repeats)
    for claim in against:
        complain(f"{claim} is supported on some seeds and refuted on others")
    return against


def exit_code(verdicts: Sequence[ClaimVerdict], fail_on: Sequence[str]) -> int:
    """Return the exit code for what was asked to fail: a refuted control is no refuted claim."""
    claims = [v for v in verdicts if v.role == "claim"]
    found = {
        "refuted": any(v.word == "refuted" for v in claims),
        "inconclusive": any(v.word in ("inconclusive", "not tested") for v in claims) or not claims,
        "control": any(v.is_as_expected is False for v in verdicts),
    }
    return next((code for word, code in FAILURES.items() if word in fail_on and found[word]), 0)


@click.group(cls=Commands)
def claims() -> None:
    """Look at what the matrices claim."""


@claims.command("ls")
@MATRIX
@JSON
def claims_ls(matrix: str, is_json: bool) -> int:
    """List a matrix's claims and controls, with what each allows."""
    from harness.matrix import load_matrix
    from harness.terminal import answer_console, plain_table
    from harness.verdicts.judge import claims_of, margin_text

    loaded = load_matrix(matrix).matrix
    found = claims_of(loaded)
    if is_json:
        for name, claim in found.items():
            click.echo(json.dumps({"claim": name, **claim.model_dump(mode="json")}))
        return 0
    table = plain_table("claim", "rule", "role", "allows", "sentence")
    for name, claim in found.items():
        role = "" if claim.role == "claim" else claim.role
        table.add_row(name, claim.rule, role, margin_text(loaded, claim), claim.sentence)
    answer_console().print(table)
    return 0


@claims.command("show")
@click.argument("claim")
@MATRIX
@JSON
def claims_show(claim: str, matrix: str, is_json: bool) -> int:
    """Show one claim: its sentence, where it stands, what decides it and why."""
    from harness.matrix import load_matrix
    from harness.verdicts.judge import claims_of, margin_text

    loaded = load_matrix(matrix).matrix
    found = claims_of(loaded)
    if claim not in found:
        raise ConfigError(
            f"claim {claim!r} is not in matrix {loaded.name!r}{did_you_mean(claim, found)}; expected one "
            f"of {', '.join(found)}"
        )
    shown = found[claim]
    if is_json:
        click.echo(json.dumps({"claim": claim, **shown.model_dump(mode="json")}, indent=1))
        return 0
    click.echo(f"{claim}: {shown.sentence}")
    for label, value in _facts(shown, margin_text(loaded, shown)).items():
        click.echo(f"  {label:13} {value}")
    return 0


def _facts(claim: Claim, margin: str) -> dict[str, Any]:
    """A claim's fields for people, in the order of reading."""
    from harness.claim_spec import ROLE_NOTES, arms_of_claim

    arms = [f"{pair}.{arm or 'baseline'}" for pair, arm in dict.fromkeys(arms_of_claim(claim))]
    facts = {
        "role": f"{claim.role}: {ROLE_NOTES[claim.role]}" if claim.role != "claim" else "claim",
        "rule": claim.rule,
        "estimand": claim.estimand,
        "arms": ", ".join(arms) or "counted on the models, no runs",
        "allows": margin,
        "because": claim.margin_reason,
        "seeds": f"at least {claim.minimum_seeds}",
        "speaks for": claim.speaks_for,
        "TRL's page": claim.page,
        "the blog": claim.blog,
    }
    return {label: value for label, value in facts.items() if value}


def _print_verdicts(view: StudyView) -> None:
    """Print the sentence, the banners, and a row for every claim."""
    from rich.text import Text

    from harness.terminal import answer_console, plain_table, print_headline
    from harness.text import harmless

    console = answer_console()
    print_headline(view, console)
    table = plain_table("claim", "verdict", "", "interval", "allows")
    for each in view.verdicts:
        word: str = each.word
        if each.is_as_expected is not None:
            word = f"{word} ({'as it must' if each.is_as_expected else 'NOT as it must'})"
        cells = (each.claim, word, each.plain, _interval(each), each.margin)
        table.add_row(*(Text(harmless(c)) for c in cells))
    console.print(table)
    for each in view.verdicts:
        if each.word in ("inconclusive", "not tested"):
            console.print(Text(harmless(f"{each.claim}: {each.reason}")))


def _interval(verdict: ClaimVerdict) -> str:
    effect = verdict.effect
    if effect is None or effect.value is None:
        return ""
    if effect.low is None or effect.high is None:
        return f"{effect.value:.3g}"
    return f"{effect.low:.3g} to {effect.high:.3g} ({effect.n} seeds)"
