"""What an interpreter has: the releases it would import, and which optional packages it finds.

    python -m harness.installed

prints that as JSON, so that the supervisor can ask the interpreter of another environment. The standard
library alone, and nothing is imported to find out.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec

from harness.pins import normalize

# What a run may need beside TRL, and what decides whether TRL can train.
OPTIONAL = ("deepspeed", "trackio", "triton", "vllm")


@dataclass(frozen=True)
class Installed:
    """What one interpreter has."""

    versions: Mapping[str, str]  # package, as indexes spell it → the release that is imported
    importable: frozenset[str]  # of OPTIONAL


def look(path: Sequence[str] | None = None) -> Installed:
    """Look at this interpreter, or for versions at the folders of `path` alone."""
    found: dict[str, str] = {}
    here = metadata.distributions
    for dist in here() if path is None else here(path=list(path)):
        if dist.name and not is_hidden(dist.name):
            found.setdefault(normalize(dist.name), dist.version)
    return Installed(found, frozenset(filter(is_importable, OPTIONAL)))


def is_importable(package: str) -> bool:
    """Whether a package can be found; a folder that only has its name is none."""
    found = find_spec(package)
    return found is not None and found.origin is not None


def is_hidden(package: str) -> bool:
    """Whether this interpreter was told to import no such package (a None in `sys.modules`)."""
    return sys.modules.get(normalize(package).replace("-", "_"), sys) is None


def parse(text: str) -> Installed:
    """Read what `python -m harness.installed` printed. Raises: ValueError."""
    data = json.loads(text)
    return Installed(dict(data["versions"]), frozenset(data["importable"]))


def main() -> int:
    """Print what this interpreter has."""
    found = look()
    data = {"versions": dict(found.versions), "importable": sorted(found.importable)}
    sys.stdout.write(json.dumps(data) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
