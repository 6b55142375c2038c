"""The looks of `--until-decided`: the numbers of seeds after which claims may be decided."""

from __future__ import annotations

from itertools import count, islice

from harness.errors import ConfigError
from harness.spec import Matrix


def looks_up_to(matrix: Matrix, most: int | None) -> tuple[int, ...]:
    """Return a matrix's looks with no more seeds than that; all of them if None.

    Raises: ConfigError if not even the first fits.
    """
    limit = most or matrix.looks[-1]
    looks = tuple(look for look in matrix.looks if look <= limit)
    if not looks:
        raise ConfigError(
            f"--max-seeds {limit}: the first look of matrix {matrix.name!r} is at {matrix.looks[0]} seeds; "
            "expected as many or more"
        )
    return looks


def seeds_of_look(matrix: Matrix, look: int) -> tuple[int, ...]:
    """Return the first seeds of a matrix, and the numbers that follow them where it has too few."""
    taken = {*matrix.seeds, *(matrix.selection.seeds if matrix.selection else ())}
    more = (seed for seed in count(max(matrix.seeds) + 1) if seed not in taken)
    return (*matrix.seeds, *islice(more, max(0, look - len(matrix.seeds))))[:look]
