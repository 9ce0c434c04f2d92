"""Tests of a user's SQLite file as it is asked: its rows, its bytes, its limits, its accidents."""

from __future__ import annotations

import ctypes
import math
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import hostile_sql as hostile
import pytest
from conftest import ROOT
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gemma_lora import database_process
from gemma_lora.cli import UserError
from gemma_lora.database import DatabaseFile, DatabaseText, name_of
from gemma_lora.database_files import log_is_empty
from gemma_lora.sandbox import SqlWorker

MODES = ("DELETE", "TRUNCATE", "PERSIST", "WAL")
COUNT_UP = (
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT {0}) SELECT i FROM n"
)
ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT MAX(i) FROM n"
SHOP = """
CREATE TABLE t (a INTEGER, b TEXT); INSERT INTO t VALUES (1, 'x'), (2, 'y');
CREATE TABLE sqlitestats (n); INSERT INTO sqlitestats VALUES (7);
CREATE VIRTUAL TABLE docs USING fts5(body); INSERT INTO docs VALUES ('hello world');
CREATE TABLE docs_tags (tag); INSERT INTO docs_tags VALUES ('red');
CREATE VIRTUAL TABLE old USING fts4(body); INSERT INTO old VALUES ('hello there');
CREATE VIRTUAL TABLE places USING rtree(id, low, high); INSERT INTO places VALUES (1, 2, 3);
CREATE VIEW sums AS SELECT SUM(a) AS total FROM t; CREATE VIEW bodies AS SELECT body FROM docs;
CREATE INDEX by_b ON t (b);
"""
ASKED = {
    "SELECT * FROM t ORDER BY a DESC": [(2, "y"), (1, "x")],
    "SELECT n FROM sqlitestats": [(7,)],
    "SELECT tag FROM docs_tags": [("red",)],
    "SELECT body FROM docs WHERE docs MATCH 'hello'": [("hello world",)],
    "SELECT body FROM old WHERE old MATCH 'there'": [("hello there",)],
    "SELECT low FROM places": [(2.0,)],
    "SELECT total FROM sums": [(3,)],
    "SELECT * FROM bodies": [("hello world",)],
    "SELECT value FROM json_each('[5]')": [(5,)],
}


def make_shop(path: Path, mode: str = "DELETE") -> Path:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA journal_mode={mode}")
        connection.executescript(SHOP)
    return path


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DatabaseFile]:
    """One file in a folder of its own, asked with a short deadline."""
    with DatabaseFile(make_shop(tmp_path_factory.mktemp("shop") / "shop.sqlite"), 1.0) as one:
        yield one


def bytes_kept(folder: Path) -> dict[str, bytes]:
    """What must stay as it is: every file but the shared memory beside a write-ahead log."""
    return {n: b for n, b in hostile.files_in(folder).items() if not n.endswith("-shm")}


@pytest.mark.parametrize("name", ["shop.sqlite", "what? #1 100%25 %41.db", "é b.db"])
@pytest.mark.parametrize("mode", MODES)
def test_every_journal_mode_and_name_is_read_and_left_alone(
    mode: str, name: str, tmp_path: Path
) -> None:
    path = make_shop(tmp_path / name, mode)
    before = bytes_kept(tmp_path)
    with DatabaseFile(path) as file:
        for sql, rows in ASKED.items():
            assert file.run(sql).rows == rows, file.run(sql)
    after = bytes_kept(tmp_path)
    if mode == "WAL":  # at rest it has no log, and SQLite leaves an empty one
        assert after.pop(f"{name}-wal", b"") == b""
    assert after == before


def test_a_log_is_read_and_stays_as_it_is(tmp_path: Path) -> None:
    """Beside a writer that rests, and alone, as after a crash."""
    path = make_shop(tmp_path / "shop.sqlite", "WAL")
    (tmp_path / "crashed").mkdir()
    with closing(sqlite3.connect(path)) as writer:
        writer.executescript("PRAGMA wal_autocheckpoint=0; INSERT INTO t VALUES (5, 'z');")
        for name in ("shop.sqlite", "shop.sqlite-wal"):
            shutil.copy(tmp_path / name, tmp_path / "crashed" / name)
        before = bytes_kept(tmp_path)
        for folder in (tmp_path, tmp_path / "crashed"):
            with DatabaseFile(folder / "shop.sqlite") as file:
                assert file.run("SELECT MAX(a) FROM t").rows == [(5,)]
                assert file.note is None
        assert len(before["shop.sqlite-wal"]) > 0
        assert bytes_kept(tmp_path) == before


def test_a_log_is_looked_for_beside_the_file_and_not_beside_a_link(tmp_path: Path) -> None:
    path, link = make_shop(tmp_path / "shop.sqlite", "WAL"), tmp_path / "elsewhere" / "link.sqlite"
    link.parent.mkdir()
    link.symlink_to(path)
    assert log_is_empty(path) and log_is_empty(link)  # at rest nothing is in the log
    with closing(sqlite3.connect(path)) as writer, DatabaseFile(link) as file:
        writer.execute("INSERT INTO t VALUES (5, 'z')")
        writer.commit()
        assert not log_is_empty(path) and not log_is_empty(link)
        assert file.run("SELECT MAX(a) FROM t").rows == [(5,)]
    assert [one.name for one in link.parent.iterdir()] == ["link.sqlite"]


@pytest.mark.parametrize("mode", MODES)
def test_a_writer_goes_on_and_is_seen(mode: str, tmp_path: Path) -> None:
    """It commits, checkpoints, changes the schema and the journal while the file is asked."""
    path = make_shop(tmp_path / "shop.sqlite", mode)
    with DatabaseFile(path) as file, closing(sqlite3.connect(path, timeout=1)) as writer:
        for number in range(10, 15):
            assert file.run("SELECT * FROM t", max_rows=1).truncated  # and lets go of its lock
            writer.execute("INSERT INTO t VALUES (?, 'new')", (number,))
            writer.commit()
            assert file.run("SELECT MAX(a) FROM t").rows == [(number,)]
            writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            assert file.run("SELECT MAX(a) FROM t").rows == [(number,)]
        writer.executescript("CREATE TABLE more (z); INSERT INTO more VALUES (1);")
        assert file.run("SELECT z FROM more").rows == [(1,)]
        for sql, rows in list(ASKED.items())[1:6]:
            assert file.run(sql).rows == rows, file.run(sql)
        other = "DELETE" if mode == "WAL" else "WAL"
        file.close() if mode == "WAL" else None  # nobody leaves this mode while it is read
        writer.execute(f"PRAGMA journal_mode={other}")
        writer.execute("INSERT INTO t VALUES (99, 'last')")
        writer.commit()
        assert file.run("SELECT MAX(a) FROM t").rows == [(99,)]


def test_a_busy_writer_is_seen_whole_or_not_at_all(tmp_path: Path) -> None:
    path, done = make_shop(tmp_path / "shop.sqlite", "WAL"), threading.Event()
    with closing(sqlite3.connect(path)) as one:
        one.executescript("CREATE TABLE pair (x, y); INSERT INTO pair VALUES (0, 0);")

    def write() -> None:
        with closing(sqlite3.connect(path, timeout=10)) as writer:
            writer.execute("PRAGMA wal_autocheckpoint=3")
            for number in range(1, 200):
                writer.execute("UPDATE pair SET x = ?", (number,))
                writer.execute("UPDATE pair SET y = ?", (number,))
                writer.commit()
        done.set()

    thread = threading.Thread(target=write)
    with DatabaseFile(path) as file:
        thread.start()
        seen = []
        while not done.is_set():
            [(x, y)] = file.run("SELECT x, y FROM pair").rows
            assert x == y
            seen.append(x)
        thread.join()
        assert file.run("SELECT x FROM pair").rows == [(199,)]
    assert seen == sorted(seen)


def test_all_tables_and_views_are_there(shop: DatabaseFile) -> None:
    found = {r.name: r.kind for r in shop.relations()}
    assert found == {
        "t": "table", "sqlitestats": "table", "docs": "virtual", "docs_tags": "table",
        "old": "virtual", "places": "virtual", "sums": "view", "bodies": "view",
    }  # fmt: skip


def test_pasted_paths_make_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("x.db?mode=rwc&y=", "file:x.db?mode=rwc", "none.db", ":memory:", ""):
        with (
            pytest.raises(UserError, match="cannot read the database"),
            DatabaseFile(Path(name)) as file,
        ):
            file.run("SELECT 1")
    assert list(tmp_path.iterdir()) == []


WRITING = [
    "DROP TABLE t", "DELETE FROM t", "UPDATE t SET a = 0", "CREATE TABLE more (a)", "REINDEX",
    "INSERT INTO t VALUES (1, 'x')", "REPLACE INTO t VALUES (1, 'x')", "ANALYZE",
    "WITH x AS (SELECT 1) DELETE FROM t", "CREATE TEMP TABLE x (a)", "ALTER TABLE t RENAME TO u",
    "INSERT INTO docs (docs) VALUES ('rebuild')", "EXPLAIN DELETE FROM t", "  -- x\nDROP VIEW sums",
]  # fmt: skip


@pytest.mark.parametrize("sql", WRITING)
def test_what_would_change_the_data_is_not_run(sql: str, shop: DatabaseFile) -> None:
    before = hostile.files_in(shop.path.parent)
    result = shop.run(sql)
    assert (result.status, result.error) == ("writes", "this would change the data")
    assert hostile.files_in(shop.path.parent) == before


@pytest.mark.parametrize(
    ("sql", "status", "said"),
    [
        ("PRAGMA user_version = 7", "refused", "user_version"),
        ("PRAGMA data_version = 7", "refused", "data_version"),
        ("PRAGMA journal_mode = WAL", "refused", "journal_mode"),
        ("PRAGMA hard_heap_limit = 0", "refused", "hard_heap_limit"),
        ("SELECT load_extension('x')", "refused", "load_extension"),
        ("ATTACH 'x' AS x", "refused", "x"),
        ("BEGIN IMMEDIATE", "refused", "BEGIN"),
        ("SELECT 1; DROP TABLE t", "error", "several statements"),
        ("", "error", "empty"),
        ("-- nothing", "error", "empty"),
        ("SELECT c FROM t", "error", "no such column: c"),
        ("SELEC 1", "error", "syntax"),
        ("UPDATE sqlite_master SET sql = ''", "writes", "change"),
        (f"SELECT '{'x' * 1_000_001}'", "too_large", "characters"),
        (ENDLESS, "timeout", "1 s passed"),
        ("SELECT LENGTH(HEX(ZEROBLOB(9000000)))", "ok", ""),
        ("SELECT ZEROBLOB(1500000000)", "too_large", "memory"),
        # one opcode that goes on: the kernel ends it
        ("SELECT INSTR(HEX(ZEROBLOB(900000)), HEX(ZEROBLOB(440000)) || '1')", "timeout", "1 s"),
    ],
)
def test_limits_are_named_and_the_next_query_runs(
    sql: str, status: str, said: str, shop: DatabaseFile
) -> None:
    start = time.monotonic()
    result = shop.run(sql)
    assert (result.status, said in (result.error or "")) == (status, True), result
    assert time.monotonic() - start < 5
    assert shop.run("SELECT COUNT(*) FROM t").rows == [(2,)]


def test_attacks_change_no_file_and_read_no_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every quick attack of the collection, on a user's file with a canary beside it."""
    before = hostile.lay_bait(tmp_path)
    monkeypatch.chdir(tmp_path)
    kinds = ("attach", "vacuum", "files", "hidden", "schema write", "edge", "transaction", "pragma",
             "call in select", "virtual table")  # fmt: skip
    attacks = [a for a in hostile.attacks() if a.kind in kinds]
    with DatabaseFile(tmp_path / hostile.VICTIM, 0.5) as file:
        for attack in attacks:
            result = file.run(attack.sql)
            hidden = hostile.SECRET in repr(result) and "secrets" not in attack.sql
            assert not hidden or hostile.SECRET in attack.sql, attack
        assert file.run("SELECT COUNT(*) FROM t").rows == [(1,)]
    assert len(attacks) > 100
    assert hostile.files_in(tmp_path) == before


def test_few_files_can_be_opened() -> None:
    """In a process that was confined the same way."""
    code = (
        "import os\n"
        "from gemma_lora import database_process as process\n"
        "process.confine()\n"
        "count = 0\n"
        "try:\n"
        "    while True: os.open('/dev/null', os.O_RDONLY); count += 1\n"
        "except OSError: print(count)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == str(database_process.FREE_DESCRIPTORS), done.stderr


def test_rows_come_capped_or_all(shop: DatabaseFile) -> None:
    capped = shop.run(COUNT_UP.format(5000), max_rows=3)
    assert (capped.rows, capped.truncated, capped.columns) == ([(1,), (2,), (3,)], True, ["i"])
    assert not shop.run(COUNT_UP.format(3), max_rows=3).truncated
    parts = list(shop.stream(COUNT_UP.format(50_000)))
    assert len(parts) > 10 and {part.status for part in parts} == {"ok"}
    assert [row for part in parts for row in part.rows] == [(i,) for i in range(1, 50_001)]
    stream = shop.stream(COUNT_UP.format(50_000))
    next(stream)
    assert shop.run("SELECT 7").rows == [(7,)]  # while the stream is still open
    assert shop.run("SELECT 8").rows == [(8,)]
    assert [part.status for part in stream] == ["error"]  # its process is gone
    stream = shop.stream(COUNT_UP.format(50_000))
    next(stream)
    stream.close()  # a caller that had enough
    assert shop.run("SELECT 9").rows == [(9,)]


def test_a_late_error_ends_a_stream(shop: DatabaseFile) -> None:
    sql = f"SELECT CASE WHEN i < 4500 THEN 1 ELSE ABS(-9223372036854775808) END FROM ({COUNT_UP})"
    parts = list(shop.stream(sql.format(9000)))
    assert parts[0].status == "ok" and parts[-1].status == "error"
    assert shop.run(sql.format(9000), max_rows=5000).rows == []


VALUES = st.none() | st.integers(-(2**63), 2**63 - 1) | st.floats() | st.text() | st.binary()
PLAIN = VALUES.filter(lambda v: not isinstance(v, str) or v.isprintable())


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.tuples(PLAIN, PLAIN), max_size=8))
def test_values_come_as_sqlite_gives_them(
    tmp_path: Path, rows: list[tuple[object, object]]
) -> None:
    path = tmp_path / "values.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript('DROP TABLE IF EXISTS "a ""b"; CREATE TABLE "a ""b" (x, "y z");')
        connection.executemany('INSERT INTO "a ""b" VALUES (?, ?)', rows)
        connection.commit()
        wanted = connection.execute('SELECT * FROM "a ""b"').fetchall()
    with DatabaseFile(path) as file:
        assert file.run('SELECT * FROM "a ""b"').rows == wanted


def test_text_that_is_not_utf8_and_infinity(tmp_path: Path) -> None:
    path = make_shop(tmp_path / "x.sqlite")
    with DatabaseFile(path) as file:
        assert file.run("SELECT CAST(X'61ff' AS TEXT), 1e999").rows == [("a\ufffd", math.inf)]


def test_a_killed_process_is_replaced(shop: DatabaseFile) -> None:
    assert shop.run("SELECT 1").rows == [(1,)]
    threading.Timer(0.3, os.kill, (shop._process.pid, signal.SIGKILL)).start()
    killed = shop.run(ENDLESS)
    assert killed.status == "error" and "killed" in (killed.error or "")
    assert shop.run("SELECT 1").rows == [(1,)]
    os.kill(shop._process.pid, signal.SIGKILL)
    shop._process.join()
    assert shop.run("SELECT 1").rows == [(1,)]


def test_a_file_that_was_replaced_is_read_anew(tmp_path: Path) -> None:
    path = make_shop(tmp_path / "x.sqlite")
    other = make_shop(tmp_path / "y.sqlite")
    with closing(sqlite3.connect(other)) as connection:
        connection.execute("DELETE FROM t WHERE a = 1")
        connection.commit()
    with DatabaseFile(path) as file:
        assert file.run("SELECT COUNT(*) FROM t").rows == [(2,)]
        os.replace(other, path)
        assert file.run("SELECT COUNT(*) FROM t").rows == [(1,)]
        path.unlink()
        with pytest.raises(UserError, match="cannot read the database"):
            file.run("SELECT 1")


def refusal(path: Path) -> str:
    """The one line that reading a file ends with."""
    with pytest.raises(UserError) as caught, DatabaseFile(path) as file:
        file.relations()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_is_no_database_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "text.db").write_bytes(b"not a database at all" * 100)
    assert "not a SQLite file" in refusal(tmp_path / "text.db")
    assert "not a file" in refusal(tmp_path)
    os.mkfifo(tmp_path / "pipe.db")
    assert "not a file" in refusal(tmp_path / "pipe.db")
    path = make_shop(tmp_path / "cut.db")
    path.write_bytes(path.read_bytes()[:1500])
    assert "cannot read" in refusal(path)
    (tmp_path / "empty.db").touch()
    with DatabaseFile(tmp_path / "empty.db") as file:
        assert file.relations() == []


def test_a_hot_journal_is_one_line_and_stays(tmp_path: Path) -> None:
    """What a crash in the middle of a change leaves: to read it, SQLite would have to write."""
    path = tmp_path / "shop.sqlite"
    with closing(sqlite3.connect(path)) as writer:
        writer.execute("PRAGMA cache_size=5")
        writer.execute("CREATE TABLE big (a TEXT)")
        writer.executemany("INSERT INTO big VALUES (?)", [("x" * 3000,)] * 200)
        writer.commit()
        writer.execute("UPDATE big SET a = 'y' || a")  # spills: the journal is hot from here on
        hot = tmp_path / "hot"
        hot.mkdir()
        for name in ("shop.sqlite", "shop.sqlite-journal"):
            shutil.copy(tmp_path / name, hot / name)
        before = hostile.files_in(hot)
        assert "cut off" in refusal(hot / "shop.sqlite")
        assert hostile.files_in(hot) == before
        writer.rollback()


def test_a_locked_file_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_shop(tmp_path / "shop.sqlite")
    with DatabaseFile(path) as file, closing(sqlite3.connect(path)) as writer:
        assert file.run("SELECT 1").status == "ok"
        writer.execute("BEGIN EXCLUSIVE")
        result = file.run("SELECT * FROM t")
        assert result.status == "error" and "another program is writing" in (result.error or "")
        writer.rollback()
        assert file.run("SELECT COUNT(*) FROM t").rows == [(2,)]


def bow_to_permissions() -> None:
    """Take from root, in what is executed next, the right to write where nobody may."""
    if not os.getuid():
        drop_from_bounding_set, dac_override = 24, 1
        assert not ctypes.CDLL(None).prctl(drop_from_bounding_set, dac_override, 0, 0, 0)


@pytest.mark.skipif(sys.platform != "linux" and not os.getuid(), reason="root may write anywhere")
@pytest.mark.parametrize(
    ("mode", "log"), [*((mode, "none") for mode in MODES), ("WAL", "empty"), ("WAL", "full")]
)
def test_a_folder_that_nobody_may_write_to(mode: str, log: str) -> None:
    """Works; or, beside a log that cannot be read without its shared memory, is one line."""
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from gemma_lora.cli import UserError\n"
        "from gemma_lora.database import DatabaseFile\n"
        "from gemma_lora.database_files import read_only\n"
        "asked, path = 'SELECT MAX(a) FROM t', Path(sys.argv[1])\n"
        "if __name__ == '__main__':\n"
        "    try:\n"
        "        with DatabaseFile(path) as file: print(file.run(asked).rows, file.note)\n"
        "    except UserError as error: print('refused', error)\n"
        "    try:\n"
        "        with read_only(path) as connection: print(connection.execute(asked).fetchall())\n"
        "    except UserError as error: print('refused', error)\n"
    )
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        folder = Path(name, "read only")
        folder.mkdir()
        path = make_shop(folder / "shop.sqlite", mode)
        with closing(sqlite3.connect(path)) as writer:
            writer.execute("PRAGMA wal_autocheckpoint=0")
            if log == "full":
                writer.execute("INSERT INTO t VALUES (5, 'z')")
                writer.commit()
                shutil.copytree(folder, Path(name, "kept"))
        if log == "full":
            shutil.rmtree(folder)
            Path(name, "kept", "shop.sqlite-shm").unlink()
            folder = Path(name, "kept").rename(folder)
        if log == "empty":
            Path(f"{path}-wal").touch()
        before = hostile.files_in(folder)
        script = Path(name, "ask.py")
        script.write_text(code)
        folder.chmod(0o555)
        done = subprocess.run(
            [sys.executable, str(script), str(path)], env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True, text=True, cwd=name, preexec_fn=bow_to_permissions,
        )  # fmt: skip
        folder.chmod(0o755)
        assert hostile.files_in(folder) == before
        said = done.stdout.splitlines()
        assert len(said) == 2, done
        assert all(line.startswith("refused" if log == "full" else "[(2,)]") for line in said), said
        assert ("not seen" in done.stdout) == (mode == "WAL" and log != "full"), done.stdout


def test_sql_text_is_asked_on_a_copy() -> None:
    text = "CREATE TABLE t (a); INSERT INTO t VALUES (1), (2); CREATE VIEW v AS SELECT 1 AS x;"
    with SqlWorker() as worker:
        database = DatabaseText(text, worker, 2.0)
        assert [r[:2] for r in database.relations()] == [("t", "table"), ("v", "view")]
        assert database.run("SELECT * FROM t", max_rows=1).truncated
        assert [r.rows for r in database.stream("SELECT * FROM t")] == [[(1,), (2,)]]
        assert "ran on a copy" in (database.run("DELETE FROM t").note or "")
        assert database.run("SELECT COUNT(*) FROM t").rows == [(2,)]


@pytest.mark.parametrize(
    ("create", "name"),
    [
        ("CREATE TABLE t (a)", "t"),
        ('CREATE TABLE IF NOT EXISTS "a (b" (a)', "a (b"),
        ("CREATE VIEW main.[v w] AS SELECT 1", "v w"),
        ("CREATE VIRTUAL TABLE `f` USING fts5(a)", "f"),
        ('CREATE TABLE "say ""hi""" (a)', 'say "hi"'),
        ("CREATE", ""),
    ],
)
def test_names_in_create_statements(create: str, name: str) -> None:
    assert name_of(create) == name
