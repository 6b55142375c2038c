"""From what the sampler leaves to the record: `memory.csv` becomes `memory.parquet`.

A spool is text because it must survive a kill at any byte; the table is typed and a tenth the size. A
sampler that was killed leaves no summary: it is written here.
"""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import Any

import pandas as pd

from harness.measure.pace import Pace
from harness.measure.spool import LOG, SO_FAR, SPOOL, SUMMARY, torn, write_atomically
from harness.samples import FORMAT, MEMORY_COLUMNS

TABLE = "memory.parquet"


def seal_samples(attempt: Path) -> None:
    """Turn an attempt's spool into its table, atomically. Without a spool there is nothing to do.

    A line that a kill tore off at the end of the spool is dropped. Once the table is there, a spool
    beside it is a left-over of an interrupted seal and is removed.
    """
    import pyarrow.parquet as pq  # type: ignore[import-untyped,unused-ignore]

    spool, table = attempt / SPOOL, attempt / TABLE
    if not spool.exists():
        return
    if not table.exists():
        part = table.with_name(table.name + ".part")
        pq.write_table(_table_of(spool), part, compression="zstd")
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        part.replace(table)
    spool.unlink()


def read_samples(attempt: Path) -> pd.DataFrame:
    """Read an attempt's samples, sealed or not, with the columns of `samples.MEMORY_COLUMNS`.

    `t_ns` is int64, `device` text, every reading float64 with NaN where the lens gave no answer
    (exact for bytes below 2^53), or the samples are from before its column joined. No samples: an empty
    frame with the same columns and types.
    """
    import pyarrow.parquet as pq

    spool, table = attempt / SPOOL, attempt / TABLE
    if table.exists():
        samples = pq.read_table(table)
    elif spool.exists():
        samples = _table_of(spool)
    else:
        samples = _schema().empty_table()
    frame: pd.DataFrame = samples.to_pandas().reindex(columns=list(MEMORY_COLUMNS))
    readings = [column for column in MEMORY_COLUMNS if column not in ("t_ns", "device")]
    return frame.astype(dict.fromkeys(readings, "float64"))


def seal_summary(attempt: Path, hz: float) -> None:
    """Write the summary of a sampler that could not write its own, from what it left.

    A driver that does not answer holds it fast, until it is killed. `hz` is the rate it was started with.
    Call after seal_samples().
    """
    so_far, summary = attempt / SO_FAR, attempt / SUMMARY
    left = _read_so_far(so_far)
    if not summary.exists() and (left is not None or (attempt / TABLE).exists()):
        log = attempt / LOG
        has_failed = log.exists() and log.stat().st_size > 0
        told = _finish(left or _nothing_told(hz), read_samples(attempt), has_failed=has_failed)
        write_atomically(summary, json.dumps(told, indent=1) + "\n")
    for path in (so_far, torn(so_far), torn(summary)):
        path.unlink(missing_ok=True)


def _read_so_far(path: Path) -> dict[str, Any] | None:
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return told if isinstance(told, dict) else None


def _nothing_told(hz: float) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "requested_hz": hz,
        "cpu_s": 0.0,
        "sampling_cpu_s": 0.0,
        "wall_s": 0.0,
    }


def _finish(told: dict[str, Any], samples: pd.DataFrame, *, has_failed: bool) -> dict[str, Any]:
    """Bring a summary up to the last sample that was kept."""
    pace = Pace()
    for t_ns in samples["t_ns"].drop_duplicates().sort_values():
        pace.mark(int(t_ns))
    columns = {
        "rss_bytes": "rss",
        "nvml_device_bytes": "nvml-device",
        "nvml_process_bytes": "nvml-process",
    }
    gpus = samples.loc[samples["nvml_device_bytes"].notna(), "device"].unique()
    until_s = (pace.last_ns - pace.first_ns) / 1e9
    when = f"after {until_s:.1f} s" if pace.samples else "before its first sample"
    how = (
        f"failed {when}, and {LOG} says how"
        if has_failed
        else f"gave no answer {when} and was ended: a call into the GPU's driver hung, or it was killed"
    )
    kept = "what was read until then is kept" if pace.samples else "no memory was measured"
    note = f"the sampler {how}; {kept}, and the run went on"
    return told | {
        "achieved_hz": pace.achieved_hz,
        "longest_gap_s": pace.longest_gap_ns / 1e9 if pace.samples > 1 else None,
        "samples": pace.samples,
        "wall_s": max(float(told["wall_s"]), until_s),
        "lenses": [lens for column, lens in columns.items() if samples[column].notna().any()],
        "gpus": [str(gpu) for gpu in gpus],
        "notes": [*told.get("notes", ()), note],
    }


def _schema() -> Any:
    import pyarrow as pa  # type: ignore[import-untyped,unused-ignore]

    fields = [(name, pa.type_for_alias(kind)) for name, kind in MEMORY_COLUMNS.items()]
    return pa.schema(fields, metadata={"format": str(FORMAT)})


def _table_of(spool: Path) -> Any:
    import pyarrow as pa
    from pyarrow import csv  # type: ignore[import-untyped,unused-ignore]

    text = spool.read_bytes()
    whole = text[: text.rfind(b"\n") + 1]
    schema = _schema()
    if not whole:
        return schema.empty_table()
    # Strings are never null here: an empty field is a missing number, a device always has a name.
    options = csv.ConvertOptions(
        column_types=dict(zip(schema.names, schema.types, strict=True)),
        include_columns=schema.names,
        include_missing_columns=True,
    )
    table: pa.Table = csv.read_csv(io.BytesIO(whole), convert_options=options)
    return table.cast(schema).replace_schema_metadata(schema.metadata)
