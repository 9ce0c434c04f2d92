"""A clock that stands still and dice that always fall alike, for SQL whose results are compared.

A database whose CREATE or INSERT statements read the clock (DEFAULT CURRENT_TIMESTAMP,
datetime('now')) would differ between two runs. Covered: every way of SQLite's to read the time,
random() and randomblob().
"""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Callable
from typing import Any

NOW = "2025-01-01 12:00:00"
MAX_BYTES = 1_000_000  # of one randomblob
# Functions whose time argument comes behind others: how many stand before it.
TIME_FUNCTIONS = {
    "date": 0, "time": 0, "datetime": 0, "julianday": 0, "unixepoch": 0, "strftime": 1,
    "timediff": 0,
}  # fmt: skip
KEYWORDS = {"current_date": NOW[:10], "current_time": NOW[11:], "current_timestamp": NOW}


def stop_clock(connection: sqlite3.Connection, builtin: sqlite3.Connection) -> None:
    """Let a connection see the time NOW and seeded chance; `builtin` computes with its own."""

    def wrap(name: str, before: int) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            given = list(arguments)
            if len(given) == before:
                given.append(NOW)
            given = [NOW if isinstance(v, str) and v.lower() == "now" else v for v in given]
            marks = ", ".join("?" * len(given))
            try:
                return builtin.execute(f"SELECT {name}({marks})", given).fetchone()[0]
            except sqlite3.Error:
                return None

        return call

    there = {name for (name,) in builtin.execute("SELECT name FROM pragma_function_list")}
    for name in there & TIME_FUNCTIONS.keys():  # an older SQLite has fewer
        call = wrap(name, TIME_FUNCTIONS[name])
        connection.create_function(name, -1, call, deterministic=True)
    for name, value in KEYWORDS.items():
        connection.create_function(name, 0, lambda value=value: value, deterministic=True)
    dice = random.Random(NOW)

    def random_bytes(count: Any) -> bytes:
        return dice.randbytes(max(1, min(int(count), MAX_BYTES)) if _is_number(count) else 1)

    connection.create_function("random", 0, lambda: dice.getrandbits(64) - 2**63)
    connection.create_function("randomblob", 1, random_bytes)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and abs(value) < 1e18
