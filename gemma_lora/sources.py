"""Rows out of local files: JSON, JSON lines, CSV and Parquet, alone or in a folder."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path

from gemma_lora.cli import UserError
from gemma_lora.files import Row, bounded_lines, read_json_lines

LIST_BYTES = 2**30  # a .json file that is one list is read whole, and takes several times its size


def read_json(path: Path) -> Iterator[Row]:
    """Yield the objects of a .json file: one list of objects, or one object a line."""
    with path.open(encoding="utf-8-sig", errors="replace") as text:
        if text.read(64).lstrip()[:1] != "[":
            yield from read_json_lines(path)
            return
        if path.stat().st_size > LIST_BYTES:
            raise UserError(
                f"{path} is one list of {path.stat().st_size:,} bytes, more than {LIST_BYTES:,}: "
                "write it as .jsonl, one object a line"
            )
        text.seek(0)
        try:
            rows = json.load(text)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path} is not JSON ({error}): mend it") from None
    for row in rows:
        if not isinstance(row, dict):
            raise UserError(f"{path} holds {type(row).__name__} where an object should be")
        yield row


def read_csv(path: Path) -> Iterator[Row]:
    """Yield the rows of a .csv file with a header line."""
    csv.field_size_limit(2**27)
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as text:
        try:
            for row in csv.DictReader(s.replace("\0", "") for s in bounded_lines(text, path)):
                row.pop(None, None)  # type: ignore[call-overload]  # cells beyond the header
                yield row
        except csv.Error as error:
            raise UserError(f"{path} is not readable as CSV ({error}): mend it") from None


def read_parquet(path: Path) -> Iterator[Row]:
    """Yield the rows of a .parquet file, in blocks."""
    import pyarrow
    import pyarrow.parquet

    try:
        for block in pyarrow.parquet.ParquetFile(path).iter_batches(1000):
            yield from block.to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise UserError(f"{path} is not readable as Parquet ({error})") from None


READERS = {
    ".jsonl": read_json_lines,
    ".json": read_json,
    ".csv": read_csv,
    ".parquet": read_parquet,
}


def read_local(path: Path) -> Iterator[Row]:
    """Yield the rows of a file, or of the data files in a folder (its train* ones if any)."""
    files = [path]
    if path.is_dir():
        found = sorted(f for f in path.rglob("*") if f.suffix.lower() in READERS and f.is_file())
        files = [f for f in found if f.name.startswith("train")] or found
    if not all(f.is_file() and f.suffix.lower() in READERS for f in files) or not files:
        kinds = ", ".join(READERS)
        raise UserError(f"{path} holds no data file that can be read: give one of {kinds}")
    for file in files:
        try:
            yield from READERS[file.suffix.lower()](file)
        except OSError as error:
            raise UserError(f"cannot read {file}: {error.strerror}") from None
