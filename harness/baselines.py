"""Baselines: what a study came to, kept in a folder that is committed and can be reviewed.

    benchmarks/baselines/<name>/
      baseline.json      what it is of, a line a run, checksums of the two files below
      side.json          the rest of the side but for what is long
      steps.json.gz      logged series, step times, probes
      acknowledged.json  changes that someone accepted; may be edited by hand, so it has no checksum

The same side gives the same bytes. A baseline is read back into the very side that was written, so a
comparison can't tell it from a study. What this leaves out: whether a study is fit to become one
(`promotion`) and holding two sides against each other (`compare/`).
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import re
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from harness.baseline_card import FORMAT, Acknowledgements, Baseline, Provenance, summarise_run
from harness.compare.model import Acknowledged
from harness.compare.side import FORMAT as SIDE_FORMAT
from harness.compare.side import Side
from harness.errors import ConfigError, NewerFormatError, StudyError, did_you_mean
from harness.files import disk_errors, short, write_atomically
from harness.frozen import Frozen, content_hash

SUMMARY, SIDE, STEPS, ACKNOWLEDGED = (
    "baseline.json", "side.json", "steps.json.gz", "acknowledged.json",
)  # fmt: skip
HOME = Path("benchmarks") / "baselines"
SHIPPED = Path(__file__).parent / HOME  # an installed wheel
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")
# What a side has of each step: too long to be reviewed as text.
LONG = ("series", "tokens", "step_wall_s", "probe")
_MEND = "restore it from version control, or save the baseline again"
M = TypeVar("M", bound=Frozen)
ReadSide = Callable[[Path], Side]  # what reads a study, `compare.reading.read_side`


def write_baseline(folder: Path, side: Side, provenance: Provenance) -> Baseline:
    """Write a side as a baseline named after its folder; what was acknowledged there stays.

    baseline.json comes last: until it is there, the folder is no baseline, or a damaged one.
    Raises: MachineError if it can't be written.
    """
    brief, long = _split(side)
    content = {SIDE: _text(brief), STEPS: _compressed(long)}
    baseline = Baseline(
        name=folder.name,
        label=side.label,
        matrix_name=side.matrix_name,
        matrix_hash=side.matrix_hash,
        harness_version=side.harness_version,
        created_utc=side.created_utc,
        made_of=provenance,
        packages=side.packages,
        platform=side.platform,
        runs={run.cell: summarise_run(run) for run in side.runs},
        files={name: hashlib.sha256(data).hexdigest() for name, data in content.items()},
    )
    baseline = baseline.model_copy(update={"sha256": content_hash(baseline)})
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    for name, data in content.items():
        _write(folder / name, data)
    if not (folder / ACKNOWLEDGED).exists():
        write_acknowledgements(folder, Acknowledgements())
    _write(folder / SUMMARY, _text(baseline.model_dump(mode="json")))
    return baseline


def read_baseline(folder: Path) -> Side:
    """Read a baseline as the side that was written.

    Raises: StudyError naming every file that is damaged, missing or edited; NewerFormatError.
    """
    read_summary(folder)
    try:
        brief = json.loads(_bytes(folder / SIDE))
        _refuse_newer(folder / SIDE, brief, SIDE_FORMAT)
        long = json.loads(gzip.decompress(_bytes(folder / STEPS)))
        runs = [b | s for b, s in zip(brief["runs"], long["runs"], strict=True)]
        return Side.model_validate_json(json.dumps({**brief, "runs": runs}))
    except (OSError, EOFError, zlib.error, ValueError, KeyError, TypeError) as error:
        raise StudyError(
            f"{short(folder)}: is no side that this harness can read ({_first_words(error)}); {_MEND}"
        ) from None


def read_summary(folder: Path) -> Baseline:
    """Read baseline.json, and check it and every file that it vouches for.

    Raises: StudyError naming each that is damaged, missing or edited; NewerFormatError.
    """
    path = folder / SUMMARY
    baseline = _read(path, Baseline, FORMAT)
    problems = []
    if content_hash(baseline.model_copy(update={"sha256": None})) != baseline.sha256:
        problems.append(f"{short(path)}: does not match its checksum: it was edited; {_MEND}")
    for name, sha256 in baseline.files.items():
        file = folder / name
        if not file.is_file():
            problems.append(f"{short(file)}: is missing; {_MEND}")
        elif hashlib.sha256(_bytes(file)).hexdigest() != sha256:
            problems.append(
                f"{short(file)}: does not match its checksum: it is damaged or was edited; {_MEND}"
            )
    if problems:
        raise StudyError(*problems)
    return baseline


def read_acknowledgements(folder: Path) -> Acknowledgements:
    """Read what was acknowledged; nothing where the file is not there. Raises: StudyError."""
    path = folder / ACKNOWLEDGED
    return _read(path, Acknowledgements, FORMAT) if path.exists() else Acknowledgements()


def write_acknowledgements(folder: Path, acknowledgements: Acknowledgements) -> None:
    """Write what is acknowledged."""
    _write(folder / ACKNOWLEDGED, _text(acknowledgements.model_dump(mode="json")))


def find_baseline(word: str, homes: tuple[Path, ...] | None = None) -> Path | None:
    """Return the folder of the baseline that a word names, or is the path of; None if it is neither.

    `homes` are the folders that hold baselines: this one's `benchmarks/baselines`, then what ships.
    """
    if _is_baseline(Path(word)):
        return Path(word)
    if not NAME.fullmatch(word):
        return None
    found = (home / word for home in (default_homes() if homes is None else homes))
    return next((folder for folder in found if _is_baseline(folder)), None)


def list_baselines(homes: tuple[Path, ...] | None = None) -> dict[str, Path]:
    """Return name → folder of the baselines there are; the first of a name counts."""
    found: dict[str, Path] = {}
    for home in default_homes() if homes is None else homes:
        for path in sorted(home.glob(f"*/{SUMMARY}")):
            found.setdefault(path.parent.name, path.parent)
    return found


def require_baseline(word: str, homes: tuple[Path, ...] | None = None) -> Path:
    """Return a baseline's folder. Raises: ConfigError naming those there are."""
    folder = find_baseline(word, homes)
    if folder is None:
        known = list_baselines(homes)
        raise ConfigError(
            f"no baseline {word!r}{did_you_mean(word, known)}; expected one of "
            f"{', '.join(known) or 'none yet'}, or a folder: make one with `harness baseline save`"
        )
    return folder


def default_homes() -> tuple[Path, ...]:
    """Return where baselines are looked for: the folder one stands in, a checkout, a wheel."""
    return (HOME, Path(__file__).parent.parent / HOME, SHIPPED)


def open_side(word: str, read_study: ReadSide) -> tuple[Side, tuple[Acknowledged, ...]]:
    """Return the side that a word of a command names, and what was accepted of it.

    A study's folder that is there goes before a baseline of the same name.
    Raises: ConfigError if it is neither; what `read_study` raises.
    """
    folder = None if (Path(word) / "study.json").is_file() else find_baseline(word)
    if folder is None:
        close = did_you_mean(word, list_baselines()) if NAME.fullmatch(word) else ""
        if close and not Path(word).exists():
            raise ConfigError(
                f"{word!r} is neither a study's folder nor the name of a baseline{close}; expected one of "
                "them: `harness baseline list` names the baselines"
            )
        return read_study(Path(word)), ()
    return read_baseline(folder), read_acknowledgements(folder).acknowledged


def _is_baseline(folder: Path) -> bool:
    try:
        return (folder / SUMMARY).is_file()
    except OSError:  # a name longer than a file's may be
        return False


def _split(side: Side) -> tuple[dict[str, Any], dict[str, Any]]:
    """Part a side into what can be reviewed and what is long; both list the runs in one order."""
    brief = side.model_dump()  # mode "json" would make null of an argument that is infinite
    long = [{"cell": r["cell"], **{name: r.pop(name) for name in LONG}} for r in brief["runs"]]
    return brief, {"format": FORMAT, "runs": long}


def _text(data: object) -> bytes:
    return json.dumps(data, indent=1, sort_keys=True).encode() + b"\n"


def _compressed(data: object) -> bytes:
    """Compress without a time or a name, so that the same steps are the same bytes."""
    buffer = io.BytesIO()
    with gzip.GzipFile(filename="", fileobj=buffer, mode="wb", mtime=0) as file:
        file.write(json.dumps(data, sort_keys=True, separators=(",", ":")).encode())
    return buffer.getvalue()


def _write(path: Path, content: bytes) -> None:
    with disk_errors(path):
        write_atomically(path, content)


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise StudyError(f"{short(path)}: can't be read: {error.strerror}; {_MEND}") from None


def _read(path: Path, kind: type[M], newest: int) -> M:
    content = _bytes(path)
    try:
        _refuse_newer(path, json.loads(content), newest)
        return kind.model_validate_json(content)
    except ValueError as error:  # of JSON and of pydantic
        raise StudyError(f"{short(path)}: can't be read ({_first_words(error)}); {_MEND}") from None


def _refuse_newer(path: Path, data: object, newest: int) -> None:
    number = data.get("format") if isinstance(data, dict) else None
    if isinstance(number, int) and number > newest:
        raise NewerFormatError(
            f"{short(path)}: has format {number}, this harness reads up to {newest}; upgrade it"
        )


def _first_words(error: Exception) -> str:
    if isinstance(error, ValidationError):
        return ", ".join(_places(error))
    return str(error).splitlines()[0][:200] if str(error) else type(error).__name__


def _places(error: ValidationError) -> Iterator[str]:
    for each in error.errors()[:3]:
        yield f"{'.'.join(map(str, each['loc'])) or 'the file'}: {each['msg']}"
