"""`python -m harness.worker.preflight`: does every dataset of a study give the rows it is asked for?

Why: a renamed column or a split that is empty shows only when rows are read, and by then hours may
have been trained. Here the rows of every pair are read by the module that will serve them, with the
tokenizer that will feed them and no weights, and everything that is wrong is said at once.

The contract. stdin is one JSON object:

    {"places": {"REPOSITORY": "FOLDER", …}, "specs": [RunSpec as JSON, …]}

stdout is JSON Lines, one for each cell (`pair.arm.sSEED`) that a finding holds for:

    {"kind": "problem", "cell": "…", "what": "…"}   this run can't start
    {"kind": "note", "cell": "…", "what": "…"}      a reader should know; it stops nothing

The exit code is 0 whatever was found, and 2 if stdin can't be read. Nothing is fetched: a repository
that is not in `places` is a problem. What this leaves out: models, whose weights are not looked at.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, Literal

from harness.errors import ConfigError, HarnessError
from harness.frozen import canonical_json
from harness.spec import RunSpec

if TYPE_CHECKING:
    from harness.worker.data import Splits


@dataclass(frozen=True)
class Finding:
    """What was found of the rows that one or several runs read."""

    kind: Literal["problem", "note"]
    what: str


def check(specs: Iterable[RunSpec], places: Mapping[str, str]) -> Iterator[tuple[RunSpec, Finding]]:
    """Yield every finding with each run that it holds for; equal rows are read once."""
    groups: dict[str, list[RunSpec]] = {}
    for spec in specs:
        read = [spec.task, *(part.model_dump(mode="json") for part in (spec.dataset, spec.model))]
        read += [_max_length(spec), spec.trainer.get("max_prompt_length")]
        groups.setdefault(canonical_json(read), []).append(spec)
    for group in groups.values():
        for finding in _check_rows(group[0], places):
            yield from ((spec, finding) for spec in group)


def _check_rows(spec: RunSpec, places: Mapping[str, str]) -> Iterator[Finding]:
    from harness.worker.data import limited, load_splits

    tokenizer = None
    try:
        tokenizer = load_tokenizer(spec, places)
    except HarnessError as error:
        yield from _problems(error)
    except (OSError, ValueError, KeyError) as error:  # what transformers raises for a folder
        source = spec.model.source
        yield Finding(
            "problem",
            f"model {source!r}: its tokenizer can't be loaded here; run `harness fetch`, or name a "
            f"copy with --map {source}=FOLDER ({_line(error)})",
        )
    try:
        splits = load_splits(spec.task, limited(spec), places, tokenizer)
    except HarnessError as error:
        yield from _problems(error)
        return
    yield from (Finding("problem", p) for p in _cut_to_nothing(spec, splits, tokenizer))
    yield from (Finding("note", note) for note in splits.notes)
    if splits.unusable:
        found = len(splits.train) + len(splits.validation) + len(splits.test)
        yield Finding(
            "note",
            f"dataset {spec.dataset.name!r}: {len(splits.unusable):,} rows were left out to find "
            f"{found:,}, the first is {splits.unusable[0]}",
        )


def _max_length(spec: RunSpec) -> int | None:
    """The length at which TRL cuts this run's rows; None if it cuts none, or by its own default."""
    length = spec.trainer.get("max_length")
    is_cut = spec.task == "sft" and not spec.trainer.get("packing")
    return length if is_cut and isinstance(length, int) else None


def _cut_to_nothing(spec: RunSpec, splits: Splits, tokenizer: Any) -> Iterator[str]:
    """Name the splits of which max_length would leave no completion."""
    from harness.worker.data.cutting import count_tokens, prompt_text

    limit = _max_length(spec)
    if limit is None or tokenizer is None:
        return
    for split in ("train", "validation", "test"):
        prompts = (row["prompt"] for row in getattr(splits, split))
        lengths = (count_tokens(prompt_text(prompt, tokenizer), tokenizer) for prompt in prompts)
        if len(getattr(splits, split)) and all(length >= limit for length in lengths):
            yield (
                f"dataset {spec.dataset.name!r}: the prompt of every {split} row fills max_length "
                f"({limit:,} tokens) and leaves no room for its completion: raise max_length, or "
                "set max_prompt_tokens below it"
            )


def load_tokenizer(spec: RunSpec, places: Mapping[str, str]) -> Any:
    """Return a run's tokenizer with the template that it will use.

    Raises: ConfigError if conversations can't be rendered with it; MachineError if it is not here.
    """
    from transformers import AutoTokenizer

    from harness.worker.models import locate
    from harness.worker.templates import apply_template, pin_date, require_template

    source = spec.model.source
    tokenizer = AutoTokenizer.from_pretrained(
        places.get(source) or locate(source),
        revision=spec.model.revision,
        local_files_only=True,
        trust_remote_code=False,
    )
    if spec.model.chat_template is not None:
        apply_template(tokenizer, spec.model.chat_template)
    require_template(tokenizer, source)
    pin_date(tokenizer)
    return tokenizer


def _problems(error: HarnessError) -> Iterator[Finding]:
    problems = error.problems if isinstance(error, ConfigError) else (str(error),)
    yield from (Finding("problem", problem) for problem in problems)


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


def main(stdin: IO[str], stdout: IO[str]) -> int:
    """Read the request, write what was found, and return the exit code."""
    try:
        request = json.load(stdin)
        places = dict(request["places"])
        specs = [RunSpec.model_validate_json(json.dumps(spec)) for spec in request["specs"]]
    except (ValueError, KeyError, TypeError) as error:
        sys.stderr.write(f'expected {{"places": …, "specs": …}} on stdin: {_line(error)}\n')
        return ConfigError.exit_code
    for spec, finding in check(specs, places):
        line = {"kind": finding.kind, "cell": spec.cell, "what": finding.what}
        stdout.write(json.dumps(line) + "\n")
        stdout.flush()
    return 0


if __name__ == "__main__":
    # Before any library reads it: what is looked at is on this machine, or missing.
    os.environ["HF_HUB_OFFLINE"] = "1"
    answer = sys.stdout
    with redirect_stdout(sys.stderr):  # whatever a library prints is no line of the answer
        sys.exit(main(sys.stdin, answer))
