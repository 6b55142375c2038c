"""The files that a sampler leaves in an attempt's folder, and writing them so that a kill costs little."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from harness.measure.sources import Sample

SPOOL, READY, SUMMARY, LOG = "memory.csv", "sampler.ready", "sampler.json", "sampler.log"
SO_FAR = "sampler.so-far.json"  # the summary while it samples; gone once that is written


class Spool:
    """Appends samples to a CSV file, whole lines at a time."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", encoding="utf-8")
        self.rows: list[Sample] = []  # for the next flush
        if path.stat().st_size == 0:
            self._file.write(",".join(Sample._fields) + "\n")

    def add(self, samples: Sequence[Sample]) -> None:
        """Keep samples for the next flush."""
        self.rows += samples

    def flush(self) -> None:
        """Hand everything kept to the kernel, which keeps it when this process is killed.

        Text is made here, of many samples at once: a fifth of what it costs with cold caches after a sleep.
        """
        for sample in self.rows:
            text = ",".join(["" if value is None else str(value) for value in sample])
            self._file.write(text + "\n")
        self._file.flush()
        self.rows.clear()

    def close(self) -> None:
        """Flush and close."""
        self.flush()
        self._file.close()


def write_atomically(path: Path, text: str, *, is_lasting: bool = True) -> None:
    """Write a file so that it is whole or absent; one that need not outlast the machine is not synced."""
    part = path.with_name(path.name + ".part")
    with part.open("w", encoding="utf-8") as file:
        file.write(text)
        if is_lasting:
            file.flush()
            os.fsync(file.fileno())
    part.replace(path)
