"""Ask a SQLite file of over 1 GB through the chat's process, and compare with SQLite's own answers.

    python tests/check_big_database.py
    python tests/check_big_database.py --journal-mode WAL --gigabytes 5

Makes a shop of seven tables and views in a temporary folder, deleted at the end. Every query is
asked twice: through `database.DatabaseFile`, as the chat does, and with Python's sqlite3, all rows
in order. Where the `sqlite3` program is installed, CSV of whole-number queries is compared with its
own byte for byte. Prints a line for each query (rows, whether equal, seconds of both ways), the
sha256 of the file (and of its log) before and after, the peak memory of the process that reads
(Linux only), how long it takes to read the texts that prompts look up, and, last, one JSON line.
With --journal-mode WAL a second connection commits one row before the first query and stays open,
so that the log holds rows that the main file does not.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from gemma_lora.database import FILE_TIMEOUT_SEC, DatabaseFile
from gemma_lora.files import sha256_of
from gemma_lora.named_values import stored_texts
from gemma_lora.result_table import csv_lines

ORDERS_PER_GB = 7_600_000
CUSTOMERS, PRODUCTS = 200_000, 5_000
COUNT = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT {0})"
SCHEMA = """
CREATE TABLE customers (id INTEGER PRIMARY KEY, name TEXT, city TEXT);
CREATE TABLE products (id INTEGER PRIMARY KEY, title TEXT, price REAL);
CREATE TABLE orders (id INTEGER PRIMARY KEY, customer_id INTEGER, product_id INTEGER,
    quantity INTEGER, total REAL, ordered_on TEXT, note TEXT);
CREATE TABLE docs_tags (product_id INTEGER, tag TEXT);
CREATE VIRTUAL TABLE docs USING fts5(title, body);
CREATE TABLE sqlitestats (name TEXT, value INTEGER);
CREATE VIEW sales AS SELECT o.id, c.city, o.total FROM orders o JOIN customers c
    ON c.id = o.customer_id;
"""
FILL = (
    f"INSERT INTO customers {COUNT.format(CUSTOMERS)} SELECT i, 'Customer ' || i, "
    "'City ' || (i * 7919 % 500) FROM n",
    f"INSERT INTO products {COUNT.format(PRODUCTS)} SELECT i, 'Product ' || i, "
    "(i * 37 % 1000) / 4.0 FROM n",
    f"INSERT INTO docs {COUNT.format(PRODUCTS)} SELECT 'Product ' || i, "
    "'made of ' || CASE i % 3 WHEN 0 THEN 'oak' WHEN 1 THEN 'steel' ELSE 'glass' END FROM n",
    "INSERT INTO docs_tags SELECT id, 'tag ' || (id % 9) FROM products",
    "INSERT INTO sqlitestats VALUES ('made', 1)",
)
ORDERS = (
    f"INSERT INTO orders {COUNT} SELECT i, i * 48271 % {CUSTOMERS} + 1, i * 69621 % {PRODUCTS} + 1,"
    " i % 9 + 1, (i * 31 % 100000) / 8.0, date('2015-01-01', (i * 13 % 3650) || ' days'), "
    "'order ' || i || ' left at the door, to be paid within thirty days, and nothing broken; ' "
    "|| hex(i * 2654435761 % 4294967296) FROM n"
)
# The last is capped neither in rows nor in time by the check: it sorts all orders on disk.
QUERIES = (
    "SELECT COUNT(*) FROM orders",
    "SELECT name FROM customers WHERE id = 199999",
    "SELECT id, note FROM orders ORDER BY id DESC LIMIT 3",
    "SELECT COUNT(*) FROM orders WHERE note LIKE '%ABCD%'",
    "SELECT substr(ordered_on, 1, 7) AS month, SUM(quantity) FROM orders GROUP BY month",
    "SELECT city, SUM(total), AVG(total) FROM sales GROUP BY city ORDER BY 2 DESC, city LIMIT 10",
    "SELECT c.name, COUNT(*) AS n FROM orders o JOIN customers c ON c.id = o.customer_id "
    "GROUP BY c.id ORDER BY n DESC, c.id LIMIT 5",
    "SELECT COUNT(DISTINCT note) FROM orders WHERE ordered_on < '2016-01-01'",
    "SELECT COUNT(*) FROM customers WHERE id NOT IN (SELECT customer_id FROM orders)",
    "SELECT title FROM docs WHERE docs MATCH 'oak' ORDER BY rowid LIMIT 4",
    "SELECT tag, COUNT(*) FROM docs_tags GROUP BY tag",
    "SELECT value FROM sqlitestats",
    "SELECT id, ordered_on FROM orders ORDER BY ordered_on DESC, id",
)


class Answer(NamedTuple):
    """All rows of a query, as their number and the sha256 of their text, in order."""

    rows: int
    digest: str
    seconds: float


def digest_rows(rows: Iterable[tuple[Any, ...]], start: float) -> Answer:
    """Read rows to their end."""
    digest, count = hashlib.sha256(), 0
    for row in rows:
        digest.update(f"{row!r}\n".encode())
        count += 1
    return Answer(count, digest.hexdigest(), time.perf_counter() - start)


def make_file(path: Path, orders: int, journal_mode: str) -> None:
    """A file whose size grows with the number of orders."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode=OFF")
        connection.execute("PRAGMA synchronous=OFF")
        connection.executescript(SCHEMA)
        for statement in (*FILL, ORDERS.format(orders)):
            connection.execute(statement)
        connection.commit()
        connection.execute(f"PRAGMA journal_mode={journal_mode}")


def ask_chat_process(file: DatabaseFile, sql: str) -> Answer:
    """All rows of a query through the chat's process."""
    start = time.perf_counter()

    def rows() -> Iterable[tuple[Any, ...]]:
        for result in file.stream(sql):
            assert result.status == "ok", result
            yield from result.rows

    return digest_rows(rows(), start)


def ask_sqlite(path: Path, sql: str) -> Answer:
    """All rows of a query by Python's sqlite3."""
    start = time.perf_counter()
    address = f"{path.absolute().as_uri()}?mode=ro"
    with closing(sqlite3.connect(address, uri=True)) as connection:
        return digest_rows(connection.execute(sql), start)


def csv_alike(file: DatabaseFile, sql: str) -> bool | None:
    """Whether our CSV is what the sqlite3 program writes; None without it, or for other numbers."""
    if not shutil.which("sqlite3") or any(word in sql for word in ("AVG", "SUM(total)")):
        return None
    command = ["sqlite3", "-readonly", "-csv", "-header", str(file.path), sql]
    theirs = subprocess.run(command, capture_output=True, check=True).stdout.decode()
    ours = "".join(csv_lines(file.stream(sql)))
    return fields(ours) == fields(theirs)


def fields(text: str) -> str:
    """CSV less the quotes that one writer puts where the other does not, and its line ends."""
    return text.replace('"', "").replace("\r\n", "\n")


def peak_mb(pid: int) -> float | None:
    """Peak resident memory of a process."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return None
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def hashes(path: Path) -> dict[str, str]:
    """sha256 of a file and of the log beside it."""
    found = [path, path.with_name(f"{path.name}-wal")]
    return {one.name: sha256_of(one) for one in found if one.exists() and one.stat().st_size}


def check(path: Path, timeout_sec: float) -> dict[str, Any]:
    """Ask everything both ways; what the JSON line holds."""
    before, lines, peak = hashes(path), [], None
    with DatabaseFile(path, timeout_sec) as file:
        print(f"tables and views: {', '.join(r.name for r in file.relations())}")
        print("result, then seconds: all rows, the 20 that the chat shows, all rows by sqlite3")
        for sql in QUERIES:
            ours, theirs = ask_chat_process(file, sql), ask_sqlite(path, sql)
            shown = file.run(sql, max_rows=20)
            same = ours[:2] == theirs[:2] and shown.status == "ok"
            alike = csv_alike(file, sql) if ours.rows < 100_000 else None
            peak = peak_mb(file._process.pid)
            lines.append({
                "sql": sql, "rows": ours.rows, "equal": same, "csv_equal": alike,
                "seconds": ours.seconds, "seconds_shown": shown.seconds,
                "seconds_sqlite": theirs.seconds,
            })  # fmt: skip
            times = f"{ours.seconds:7.2f} s {shown.seconds:7.2f} s {theirs.seconds:7.2f} s"
            verdict = "equal" if same else "DIFFERENT"
            print(f"{ours.rows:>9,} rows {verdict:9} {times}  {sql[:60]}", flush=True)
        begun = time.perf_counter()
        texts = stored_texts(file)
        reading = time.perf_counter() - begun
        print(f"{len(texts):,} texts of which prompts can say the columns, read in {reading:.1f} s")
    after = hashes(path)
    for name, digest in before.items():
        print(f"sha256 {name} before {digest}\n       {' ' * len(name)} after  {after.get(name)}")
    return {"bytes": path.stat().st_size, "hashes_before": before, "hashes_after": after,
            "peak_mb": peak, "texts": len(texts), "texts_seconds": reading,
            "queries": lines}  # fmt: skip


def main() -> int:
    """Make the file, ask it, compare; status 1 when anything differs."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--gigabytes", type=float, default=1.05)
    parser.add_argument("--journal-mode", default="DELETE", choices=["DELETE", "WAL", "PERSIST"])
    parser.add_argument(
        "--timeout", type=float, default=FILE_TIMEOUT_SEC, help="a busy machine: more"
    )
    config = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "big shop #1.sqlite")
        start = time.perf_counter()
        make_file(path, int(config.gigabytes * ORDERS_PER_GB), config.journal_mode)
        made = time.perf_counter() - start
        print(f"{path.stat().st_size:,} bytes, journal mode {config.journal_mode}, {made:.0f} s")
        with closing(sqlite3.connect(path)) as writer:
            if config.journal_mode == "WAL":
                writer.execute("INSERT INTO sqlitestats VALUES ('in the log', 2)")
                writer.commit()
            found = check(path, config.timeout)
        if found["peak_mb"]:
            print(f"peak memory of the process that reads: {found['peak_mb']:,.0f} MB")
        kept = found["hashes_before"] == found["hashes_after"]
        good = kept and all(q["equal"] and q["csv_equal"] is not False for q in found["queries"])
        print(
            json.dumps(
                {
                    "good": good,
                    "journal_mode": config.journal_mode,
                    "timeout": config.timeout,
                    **found,
                }
            )
        )
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
