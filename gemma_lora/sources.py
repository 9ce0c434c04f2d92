"""Where rows come from: local files (JSON, JSON lines, CSV, Parquet), sets on the hub, columns."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from gemma_lora.cli import UserError
from gemma_lora.files import JsonObject, bounded_lines, read_json_lines
from gemma_lora.hub import bound_hub_waits, explain_hub_error, wrong_choice
from gemma_lora.splits import Origin

# For each field: the canonical column, then the names it goes by elsewhere, best first.
COLUMN_ALIASES: dict[str, dict[str, tuple[str, ...]]] = {
    "sql": {
        "sql_prompt": ("question", "instruction", "prompt", "utterance", "nl"),
        "sql": ("query", "response", "answer", "output", "completion", "SQL"),
        "sql_context": ("context", "input", "schema", "create_table"),
        "sql_explanation": ("explanation",),
    },
    "alpaca": {
        "instruction": ("question", "prompt", "query"),
        "output": ("response", "answer", "completion"),
        "input": ("context",),
    },
}
REQUIRED_COLUMNS = {"sql": ("sql_prompt", "sql"), "alpaca": ("instruction", "output")}
LIST_BYTES = 2**30  # a .json file that is one list is read whole, and takes several times its size


class Source(NamedTuple):
    """Rows as they come, where from, and about how many there will be, if that can be told."""

    rows: Iterator[JsonObject]
    origin: Origin
    total: int | None = None


def read_json(path: Path) -> Iterator[JsonObject]:
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


def read_csv(path: Path) -> Iterator[JsonObject]:
    """Yield the rows of a .csv file with a header line."""
    csv.field_size_limit(2**27)
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as text:
        try:
            rows = csv.DictReader(s.replace("\0", "") for s in bounded_lines(text, path))
            for row in rows:
                beyond = row.pop(None, [])  # type: ignore[call-overload]
                if any(beyond):  # a query cut at its first comma may well run
                    raise UserError(
                        f"{path}, line {rows.line_num}: more cells than the header names "
                        f"('{beyond[0]}'): put a value that holds commas in double quotes"
                    )
                yield row
        except csv.Error as error:
            raise UserError(f"{path} is not readable as CSV ({error}): mend it") from None


def read_parquet(path: Path) -> Iterator[JsonObject]:
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


def count_lines(path: Path) -> int:
    """Newlines of a file."""
    with path.open("rb") as lines:
        return sum(block.count(b"\n") for block in iter(lambda: lines.read(2**20), b""))


def count_parquet(path: Path) -> int:
    """Rows of a .parquet file, by its own account."""
    import pyarrow.parquet

    return pyarrow.parquet.read_metadata(path).num_rows


COUNTERS = {".jsonl": count_lines, ".csv": count_lines, ".parquet": count_parquet}


def data_files(path: Path) -> list[Path]:
    """The file itself, or the data files in a folder (its train* ones if any)."""
    if not path.is_dir():
        return [path]
    found = sorted(f for f in path.rglob("*") if f.suffix.lower() in READERS and f.is_file())
    return [f for f in found if f.name.startswith("train")] or found


def count_local(path: Path) -> int | None:
    """About how many rows `read_local` will yield: lines, or as Parquet says; None for others."""
    files = [file for file in data_files(path) if file.is_file()]
    try:
        counts = [COUNTERS[file.suffix.lower()](file) for file in files]
    except (KeyError, OSError, ValueError):  # reading will tell; Arrow's errors are ValueErrors
        return None
    return sum(counts)


def read_local(path: Path) -> Iterator[JsonObject]:
    """Yield the rows of a file, or of the data files in a folder."""
    files = data_files(path)
    if not all(f.is_file() and f.suffix.lower() in READERS for f in files) or not files:
        kinds = ", ".join(READERS)
        raise UserError(f"{path} holds no data file that can be read: give one of {kinds}")
    for file in files:
        try:
            yield from READERS[file.suffix.lower()](file)
        except OSError as error:
            raise UserError(f"cannot read {file}: {error.strerror}") from None


def read_hub(
    name: str, revision: str | None, config: str | None = None, split: str | None = None
) -> Source:
    """Download (or find in the cache) a hub data set: the rows of a split, and where from.

    Without `split` that is "train"; `config` names a subset of a set that has several.
    """
    import datasets
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HTTPError  # httpx's: also that of a broken connection

    datasets.disable_progress_bars() if not sys.stderr.isatty() else None
    print(f"loading {name} from the hub ...", file=sys.stderr)
    bound_hub_waits()
    offline = "use --dataset-name sample, or a local .json, .jsonl, .csv or .parquet file"
    card, refusal, asked = None, None, revision
    try:
        info = HfApi().dataset_info(name, revision=revision)
        revision, card = info.sha, info.card_data
    except Exception as error:  # whatever the transport raises; the next call says what is wrong
        refusal = error
        if not isinstance(error, ValueError) and getattr(error, "response", None) is None:
            datasets.config.HF_HUB_OFFLINE = True  # no answer: the cache, without 20 s of retries
    try:
        data = datasets.load_dataset(name, config, split=split or "train", revision=revision)
    except (OSError, ValueError, HTTPError, datasets.exceptions.DatasetsError) as error:
        wanted = {"config": config, "split": split or "train"}
        if (wrong := wrong_choice(error, name, wanted)) is not None:
            raise wrong from None
        error.__cause__ = error.__cause__ or refusal  # load_dataset drops it
        unknown = (datasets.exceptions.DatasetNotFoundError,)
        raise explain_hub_error(error, name, offline, unknown, asked) from None
    blocks = data.iter(batch_size=1000)
    rows = (dict(zip(b, values, strict=True)) for b in blocks for values in zip(*b.values()))  # noqa: B905
    licence = (card.get("license") if card else None) or data.info.license or None
    return Source(rows, {"name": name, "revision": revision, "licence": licence}, len(data))


def match_columns(columns: Sequence[str], kind: str, given: Mapping[str, str]) -> dict[str, str]:
    """{our column: theirs} for the columns of a set; raises UserError when one is missing."""
    there = ", ".join(sorted(columns))
    unknown = sorted(set(given) - set(COLUMN_ALIASES[kind]))
    absent = sorted(set(given.values()) - set(columns))
    if unknown:
        ours = ", ".join(COLUMN_ALIASES[kind])
        raise UserError(f"--columns names '{unknown[0]}', which is none of {ours}")
    if absent:
        raise UserError(f"--columns points at '{absent[0]}', but the columns are: {there}")
    found = dict(given)
    for ours, aliases in COLUMN_ALIASES[kind].items():
        free = [c for c in (ours, *aliases) if c in columns and c not in found.values()]
        if ours not in found and free:
            found[ours] = free[0]
    missing = [ours for ours in REQUIRED_COLUMNS[kind] if ours not in found]
    if missing:
        raise UserError(
            f"no column for '{missing[0]}' of --type {kind}: the columns are: {there}; "
            f"say which with --columns {missing[0]}=NAME"
        )
    return found
