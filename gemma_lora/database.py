"""A user's SQLite file as SQL text that rebuilds it. The file is only read."""

from __future__ import annotations

import math
import shutil
import sqlite3
import tempfile
from collections.abc import Iterable
from contextlib import closing
from itertools import chain
from pathlib import Path
from typing import Any

from gemma_lora.cli import UserError

MAX_DB_BYTES = 256_000_000
MAX_DUMP_BYTES = 800_000  # the sandbox takes a context of a million characters
DUMP_ROWS = 200  # rows of each table kept when the whole database is too large to copy


def sql_literal(value: Any) -> str:
    """A value of SQLite as SQL text."""
    if value is None:
        return "NULL"
    if isinstance(value, bytes):
        return f"X'{value.hex()}'"
    if isinstance(value, float) and not math.isfinite(value):
        return "9e999" if value > 0 else "-9e999"
    return (
        repr(value)
        if isinstance(value, (int, float))
        else "'" + str(value).replace("'", "''") + "'"
    )


def dump_database(path: Path) -> tuple[str, str | None]:
    """(SQL text that rebuilds a SQLite file, a note when rows were left out). Never writes to it.

    The file is copied first, its write-ahead log too, because even reading can touch the log.
    """
    try:
        size = path.stat().st_size
        if not path.is_file():
            raise UserError(f"cannot read the database '{path}': it is not a file")
        if size > MAX_DB_BYTES:
            raise UserError(
                f"{path} has {size:,} bytes, more than {MAX_DB_BYTES:,}: use /schema instead"
            )
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder, "copy.sqlite")
            for suffix in ("", "-wal"):
                if Path(f"{path}{suffix}").exists():
                    shutil.copyfile(f"{path}{suffix}", f"{copy}{suffix}")
            with closing(sqlite3.connect(copy)) as connection:
                connection.text_factory = lambda raw: raw.decode("utf-8", "replace")
                whole = dump_tables(connection, None)
                if whole is not None:
                    return whole, None
                part = dump_tables(connection, DUMP_ROWS)
    except (OSError, sqlite3.Error) as error:
        raise UserError(f"cannot read the database '{path}': {error}") from None
    if part is None:
        raise UserError(
            f"{path} is too large to ask even with {DUMP_ROWS} rows a table; use /schema"
        )
    return part, f"large database: answers are computed on the first {DUMP_ROWS} rows of each table"


def dump_tables(connection: sqlite3.Connection, limit: int | None) -> str | None:
    """CREATE and INSERT statements of a database; None when longer than MAX_DUMP_BYTES."""
    objects = connection.execute(
        "SELECT type, name, sql FROM sqlite_master WHERE sql IS NOT NULL "
        "AND name NOT LIKE 'sqlite_%' ORDER BY type = 'table' DESC, rowid"
    ).fetchall()
    virtual = tuple(
        f"{name}_" for _, name, sql in objects if sql.upper().startswith("CREATE VIRTUAL")
    )
    lines, size = [], 0
    for kind, name, sql in objects:
        if sql.upper().startswith("CREATE VIRTUAL") or (virtual and name.startswith(virtual)):
            continue  # full-text indexes and their shadow tables: the sandbox has no virtual tables
        table = '"' + name.replace('"', '""') + '"'
        made: Iterable[str] = [f"{sql};"]
        if kind == "table":
            info = connection.execute(f"PRAGMA table_info({table})").fetchall()
            columns = ", ".join('"' + c[1].replace('"', '""') + '"' for c in info)
            rows = connection.execute(
                f"SELECT {columns} FROM {table} LIMIT ?", (-1 if limit is None else limit,)
            )
            head = f"INSERT INTO {table} ({columns}) VALUES"
            made = chain(made, (f"{head} ({', '.join(map(sql_literal, r))});" for r in rows))
        for line in made:
            size += len(line) + 1
            if size > MAX_DUMP_BYTES:
                return None
            lines.append(line)
    return "\n".join(lines)
