"""From the sampler's spool to the record's table: `memory.csv` becomes `memory.parquet`.

A spool is text because it must survive a kill at any byte; the table is typed and a tenth the size.
"""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import pandas as pd

from harness.measure.sampler import SPOOL
from harness.record import FORMAT
from harness.samples import MEMORY_COLUMNS

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
