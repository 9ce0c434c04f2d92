"""A user's SQLite file as it lies on the disk: what it is, and how it is opened to be only read.

`mode=ro` may make or touch the `-shm` file beside a database with a write-ahead log, and leave an
empty `-wal` where there was none. `immutable=1` would not, but misses what is still in the log: it
is used only where nothing else works (a folder that nobody may write to) and the log is empty.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from gemma_lora.cli import UserError

HEADER = b"SQLite format 3\x00"
WAL_VERSION = 2  # byte 18 of a file whose log is written ahead


def log_is_empty(path: Path) -> bool:
    """Whether a SQLite file with a write-ahead log has nothing in it; UserError for other files.

    Not to be called while this process has the file open: closing it would drop SQLite's locks.
    """
    try:
        with path.open("rb") as file:
            head = file.read(20)
        whole = path.resolve()  # the log lies beside the file, not beside a link to it
        log = whole.with_name(f"{whole.name}-wal")
        pending = log.exists() and log.stat().st_size > 0
    except OSError as error:
        raise UserError(f"cannot read the database '{path}': {error.strerror}") from None
    if head and not head.startswith(HEADER):
        raise UserError(f"cannot read the database '{path}': it is not a SQLite file")
    return head[18:19] == bytes([WAL_VERSION]) and not pending


def open_reading(
    path: Path, connect: Callable[[str], sqlite3.Connection], nothing_in_log: Callable[[], bool]
) -> tuple[sqlite3.Connection, bool]:
    """(connection, whether later changes are seen) by `connect`, which takes a URI and reads once.

    Raises sqlite3.Error.
    """
    address = path.absolute().as_uri()  # quotes '?', '#' and '%', which would end the path
    try:
        return connect(f"{address}?mode=ro"), True
    except sqlite3.OperationalError as error:
        kind = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if kind not in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY) or not nothing_in_log():
            raise
    return connect(f"{address}?mode=ro&immutable=1"), False


def explain(error: str) -> str:
    """SQLite's reason not to open a file, with what to do where that is known."""
    if "readonly" in error or "unable to open" in error:
        return (
            f"{error}; a change to it may have been cut off, or its log cannot be read from here: "
            "open it once with the program that writes it, or copy it with its -wal and -journal "
            "to a folder of your own"
        )
    if "locked" in error:
        return f"{error} by a program that is writing to it: try again"
    return error


def _connect(address: str) -> sqlite3.Connection:
    connection = sqlite3.connect(address, uri=True)
    try:
        connection.text_factory = lambda raw: raw.decode("utf-8", "replace")
        connection.execute("PRAGMA query_only = 1")
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.Error:
        connection.close()
        raise
    return connection


@contextmanager
def read_only(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection that cannot write. Raises UserError when the file is no readable database."""
    try:
        connection, _ = open_reading(path, _connect, lambda: log_is_empty(path))
        with closing(connection):
            yield connection
    except (OSError, sqlite3.DatabaseError) as error:
        raise UserError(f"cannot read the database '{path}': {explain(str(error))}") from None
