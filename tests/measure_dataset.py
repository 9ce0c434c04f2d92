"""Time and memory of dataset.py on a set of gretel's size, against the least that must be done.

    python tests/measure_dataset.py rows.jsonl --model MODEL_FOLDER
    python tests/measure_dataset.py rows.jsonl --model MODEL_FOLDER --rows 10000

The rows are variations of those in rows.jsonl (columns sql_prompt, sql_context, sql): table names
and long numbers change, so that none is a duplicate and golds run or fail as they did. The
reference tokenizes the rendered texts once with the fast tokenizer and runs the golds once in plain
sqlite3, in one process, without any safety. Prints a table and, last, one JSON line.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import re
import resource
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import dataset
from gemma_lora import files, splits
from gemma_lora.lengths import find_ruler

TARGET_RATIO = 2.5
TARGET_GB = 2.0
TABLE = re.compile(r"CREATE\s+TABLE\s+(?:IF\s+NOT\s+EXISTS\s+)?[\"`\[]?(\w+)", re.I)
# Not a date's or a decimal's: those must stay what they are.
LONG_NUMBER = re.compile(r"(?<![\w.'\"-])\d{3,8}(?![\w.'\"-])")
DEADLINE_SEC = 2.0


def vary(row: dict[str, Any], copy: int) -> dict[str, Any]:
    """The row over tables of other names and with other numbers; copy 0 is the row itself."""
    if copy == 0:
        return row
    names = set(TABLE.findall(row["sql_context"] or ""))
    word = re.compile(rf"\b({'|'.join(map(re.escape, names))})\b", re.I) if names else None

    def change(text: str) -> str:
        text = LONG_NUMBER.sub(lambda m: str(int(m[0]) + copy), text)
        return word.sub(lambda m: f"{m[0]}{copy}", text) if word else text

    sql, context = change(row["sql"]), change(row["sql_context"] or "")
    return {"sql_prompt": f"{row['sql_prompt']} ({copy})", "sql_context": context, "sql": sql}


def varied(rows: list[dict[str, Any]], count: int) -> Iterator[dict[str, Any]]:
    """`count` rows: all as they are, then all once varied, and so on."""
    endless = (vary(row, copy) for copy in itertools.count() for row in rows)
    return itertools.islice(endless, count)


def tree_bytes(root: int) -> int:
    """Memory of a process and its descendants, shared pages counted once; 0 off Linux."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError):
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
    family, size = {root}, 0
    while more := {p for p, parent in parents.items() if parent in family} - family:
        family |= more
    for process in family:
        with contextlib.suppress(OSError):
            text = Path(f"/proc/{process}/smaps_rollup").read_text()
            size += sum(int(kb) for kb in re.findall(r"^Pss:\s+(\d+)", text, re.M)) * 1024
    return size


def measure_script(source: Path, model: str, workers: int, folder: Path) -> dict[str, Any]:
    """Run dataset.py on `source` as a user would."""
    flags = ["--dataset-name", source, "--model", model, "--workers", workers]
    command = [sys.executable, dataset.__file__, *flags, "--output-dir", folder / "data"]
    start = time.perf_counter()
    process = subprocess.Popen([str(part) for part in command], stdout=sys.stderr)
    peak, ended = 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not ended.wait(0.5):
            peak = max(peak, tree_bytes(process.pid))

    watcher = threading.Thread(target=watch)
    watcher.start()
    status = process.wait()
    seconds = time.perf_counter() - start
    ended.set()
    watcher.join()
    if status:
        raise SystemExit(f"dataset.py ended with status {status}")
    unit = 1 if sys.platform == "darwin" else 1024
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "script_sec": seconds,
        "script_cpu_sec": used.ru_utime + used.ru_stime,
        "largest_process_gb": used.ru_maxrss * unit / 1e9,
        "peak_memory_gb": max(peak, used.ru_maxrss * unit) / 1e9,
    }


def measure_tokenizing(rows: Iterable[dict[str, Any]], model: str) -> float:
    """Seconds to tokenize the rendered examples once, in blocks."""
    tokenizer = find_ruler(model).tokenizer
    if tokenizer is None:
        raise SystemExit(f"no tokenizer in {model}: give the folder of a model with --model")
    config, seconds, source = dataset.DatasetConfig(), 0.0, iter(rows)
    while block := list(itertools.islice(source, 1000)):
        texts = [dataset.make_row(row, config)["text"] for row in block]
        start = time.perf_counter()
        tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        seconds += time.perf_counter() - start
    return seconds


def measure_golds(rows: Iterable[dict[str, Any]]) -> tuple[float, int]:
    """Seconds to run the golds once in this process, and how many ran."""
    ran, deadline, start = 0, 0.0, time.perf_counter()

    def late() -> bool:
        return time.monotonic() > deadline

    for row in rows:
        with contextlib.closing(sqlite3.connect(":memory:")) as connection:
            deadline = time.monotonic() + DEADLINE_SEC
            connection.set_progress_handler(late, 10_000)
            with contextlib.suppress(sqlite3.Error, sqlite3.Warning):
                connection.executescript(row["sql_context"])
                connection.execute(row["sql"]).fetchall()
                ran += 1
    return time.perf_counter() - start, ran


def show(figures: dict[str, Any]) -> None:
    """Print the figures as a table for people."""
    reached = figures["ratio"] <= TARGET_RATIO and figures["peak_memory_gb"] < TARGET_GB
    for name, text in (
        ("rows in, rows kept", f"{figures['rows']:,}, {figures['kept']:,}"),
        ("golds that run as they are", f"{figures['golds_ran']:,}"),
        ("reference: tokenizing once", f"{figures['tokenize_sec']:.1f} s"),
        ("reference: golds once, plain sqlite3", f"{figures['golds_sec']:.1f} s"),
        ("dataset.py, start to end", f"{figures['script_sec']:.1f} s"),
        ("dataset.py, CPU time", f"{figures['script_cpu_sec']:.1f} s"),
        ("ratio", f"{figures['ratio']:.2f} (target {TARGET_RATIO})"),
        ("peak memory, its workers included", f"{figures['peak_memory_gb']:.2f} GB"),
        ("target reached", "yes" if reached else "no"),
    ):
        print(f"{name:<40}{text:>24}")


def main() -> None:
    """Make the rows, measure the script and the reference, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("source", type=Path, help="a .jsonl file with sql_prompt, sql_context, sql")
    parser.add_argument("--model", required=True, help="folder with the tokenizer")
    parser.add_argument("--rows", type=int, default=106_000, help="how many rows to make")
    parser.add_argument("--workers", type=int, default=2, help="--workers of dataset.py")
    options = parser.parse_args()
    seeds = list(files.read_json_lines(options.source))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = folder / "rows.jsonl"
        files.write_atomic(source, files.json_lines(varied(seeds, options.rows)))
        script = measure_script(source, options.model, options.workers, folder)
        counts = splits.read_manifest(folder / "data")["counts"]
        tokenize_sec = measure_tokenizing(files.read_json_lines(source), options.model)
        golds_sec, golds_ran = measure_golds(list(files.read_json_lines(source)))
    figures = {
        "rows": options.rows,
        "kept": counts["rows"]["kept"],
        "golds_ran": golds_ran,
        "tokenize_sec": tokenize_sec,
        "golds_sec": golds_sec,
        **script,
        "ratio": script["script_sec"] / (tokenize_sec + golds_sec),
    }
    show(figures)
    print(json.dumps({k: round(v, 3) for k, v in figures.items()}))


if __name__ == "__main__":
    main()
