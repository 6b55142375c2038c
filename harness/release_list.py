"""Which releases of a package there are: asked of pip, kept for a day; a list that is committed offline.

Final releases only, in their order. What this leaves out: which of them run with what (`releases`).
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from harness.caches import cache_dir
from harness.errors import ConfigError, did_you_mean
from harness.files import write_atomically
from harness.pins import normalize
from harness.recovery import utc_text
from harness.releases import numbers

# Releases of TRL as pip listed them on this day, from the oldest that the harness is tried with.
KNOWN_UTC = "2026-11-26"
KNOWN: dict[str, tuple[str, ...]] = {
    "trl": (
        "0.20.0", "0.21.0", "0.22.0", "0.22.1", "0.22.2", "0.23.0", "0.23.1", "0.24.0", "0.25.0",
        "0.25.1", "0.26.0", "0.26.1", "0.26.2", "0.27.0", "0.27.1", "0.27.2", "0.28.0", "0.29.0",
        "0.29.1", "1.0.0", "1.1.0", "1.2.0", "1.3.0", "1.4.0", "1.5.0", "1.5.1", "1.6.0", "1.7.0",
        "1.7.1", "1.8.0", "1.9.0", "1.9.1", "1.9.2", "1.10.0", "1.11.0", "1.12.0", "1.13.0",
        "1.14.0", "1.14.1", "1.14.2", "1.15.0", "1.16.0",
    )
}  # fmt: skip
KEPT_FOR = timedelta(days=1)
PIP_TIMEOUT_S = 60
_FINAL = re.compile(r"\d+(\.\d+)*(\.post\d+)?")
_LISTED = re.compile(r"^Available versions: (.+)$", re.M)


@dataclass(frozen=True)
class Releases:
    """The releases of a package, oldest first, and where they come from."""

    names: tuple[str, ...]
    source: str


def list_releases(
    package: str, ask: Callable[[str], str | None], cache: Path, now: datetime
) -> Releases:
    """List a package's releases: what was kept of today, else what `ask` says, else what is committed.

    Raises: ConfigError if nobody knows them.
    """
    name = normalize(package)
    kept = cache / "releases" / f"{name}.json"
    found = _read_kept(kept, now)
    if found:
        return Releases(found, "pip, kept in the cache")
    found = parse_listing(ask(name) or "")
    if found:
        _keep(kept, found, now)
        return Releases(found, "pip")
    if name in KNOWN:
        return Releases(KNOWN[name], f"the list of {KNOWN_UTC}, as pip can't say")
    raise ConfigError(
        f"pip can't list the releases of {package!r}; check its name and the network, or list them: "
        "--releases 1.0.0,1.1.0,…"
    )


def parse_listing(output: str) -> tuple[str, ...]:
    """Read what `pip index versions` prints; empty if it lists nothing."""
    listed = _LISTED.search(output)
    return in_order(listed[1].split(",")) if listed else ()


def in_order(names: Iterable[str]) -> tuple[str, ...]:
    """Return final releases, oldest first, each once."""
    final = {name.strip() for name in names if _FINAL.fullmatch(name.strip())}
    return tuple(sorted(final, key=lambda name: (numbers(name), name)))


def between(names: Sequence[str], good: str, bad: str) -> tuple[str, ...]:
    """Return the releases from the good end to the bad one, both included; either may be the newer.

    Raises: ConfigError if an end is no release, or both are the same.
    """
    problems = [
        f"{option} {end!r} is no release{did_you_mean(end, names)}; expected one of "
        f"{', '.join(names[-5:])} … {names[0]}"
        for option, end in (("--good", good), ("--bad", bad))
        if end not in names
    ]
    if not problems and good == bad:
        problems = [f"--good and --bad are both {good}; expected two releases"]
    if problems:
        raise ConfigError(*problems)
    first, last = names.index(good), names.index(bad)
    return tuple(names[first : last + 1]) if first < last else tuple(names[last : first + 1])[::-1]


def ask_pip(package: str) -> str | None:
    """Ask pip for a package's versions; None if it can't say."""
    command = [
        sys.executable,
        "-m",
        "pip",
        "index",
        "versions",
        "--disable-pip-version-check",
        package,
    ]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=PIP_TIMEOUT_S, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout


def current_releases(package: str) -> Releases:
    """List a package's releases now. Raises: ConfigError."""
    return list_releases(package, ask_pip, cache_dir(), datetime.now(UTC))


def _read_kept(path: Path, now: datetime) -> tuple[str, ...]:
    """Read a list that was kept; empty if there is none, or it is old or torn."""
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        age = now - datetime.fromisoformat(kept["utc"])
        return tuple(map(str, kept["names"])) if timedelta() <= age < KEPT_FOR else ()
    except (OSError, ValueError, KeyError, TypeError):
        return ()


def _keep(path: Path, names: Sequence[str], now: datetime) -> None:
    """Keep a list; where the cache can't be written, pip is asked again next time."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        content = json.dumps({"utc": utc_text(now), "names": list(names)})
        write_atomically(path, content.encode())
    except OSError:
        return
