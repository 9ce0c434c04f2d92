"""What hostile or clumsy SQL can do to run_sql: only fail, in time, leaving no trace."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dataset
from gemma_lora import confinement, dialects, sandbox, sql_text
from gemma_lora.sandbox import SqlJob, SqlResult, SqlWorker

CONTEXT = """
CREATE TABLE t (a INTEGER, b TEXT);
INSERT INTO t VALUES (1, 'x'), (2, 'y'), (2, 'y');
CREATE TABLE "odd name" (x REAL DEFAULT (0.5));
"""
TIMEOUT_SEC = 0.4
ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)"
# One opcode each, so no progress handler is called: only the kernel's timer ends them.
HAYSTACK = "replace(hex(zeroblob(400000)), '00', 'a')"
ONE_OPCODE = f"SELECT instr({HAYSTACK}, substr({HAYSTACK}, 1, 200000) || 'b')"

REFUSED = """
ATTACH DATABASE 'escaped.db' AS other
ATTACH 'file:escaped.db?mode=rwc' AS other
ATTACH ':memory:' AS other
ATTACH '' AS other
DETACH DATABASE main
PRAGMA journal_mode = WAL
PRAGMA writable_schema = ON
PRAGMA temp_store_directory = '.'
PRAGMA hard_heap_limit = 0
PRAGMA max_page_count = 1073741823
PRAGMA table_info(t)
SELECT * FROM pragma_table_info('t')
SELECT * FROM pragma_database_list
SELECT load_extension('libm.so')
SELECT load_extension('libm.so', 'start')
SELECT fts3_tokenizer('simple')
SELECT fts3_tokenizer('simple', x'0102030405060708')
CREATE VIRTUAL TABLE v USING fts5(body)
CREATE VIRTUAL TABLE v USING fts4(body)
CREATE VIRTUAL TABLE v USING rtree(id, low, high)
CREATE VIRTUAL TABLE v USING csv(filename='/etc/passwd')
CREATE TABLE copy AS SELECT load_extension('x')
BEGIN
BEGIN IMMEDIATE
COMMIT
ROLLBACK
SAVEPOINT s
RELEASE s
EXPLAIN ATTACH 'escaped.db' AS other
""".strip().splitlines()

FAILING = f"""
VACUUM
VACUUM INTO 'escaped.db'
SELECT readfile('/etc/passwd')
SELECT writefile('escaped.db', 'x')
SELECT edit('x')
SELECT * FROM fsdir('.')
SELECT * FROM sqlite_dbpage
SELECT * FROM zipfile('x.zip')
UPDATE sqlite_master SET sql = 'x'
DELETE FROM sqlite_schema
DROP TABLE sqlite_master
SELECT zeroblob(1000000000)
SELECT hex(zeroblob(1000000000))
SELECT length(randomblob(2000000000))
SELECT replace(hex(zeroblob(100000000)), '00', 'abcdefgh')
SELECT printf('%.*c', 1000000000, 'x')
SELECT hex(hex(hex(hex(hex(zeroblob(100000))))))
SELECT group_concat(hex(zeroblob(100000))) FROM ({ENDLESS} SELECT i FROM n LIMIT 100)
{ENDLESS} SELECT i FROM n
{ENDLESS} SELECT count(*) FROM n
{ENDLESS} SELECT max(i) FROM n ORDER BY 1
WITH RECURSIVE n(s) AS (SELECT 'x' UNION ALL SELECT s || s FROM n) SELECT count(*), max(s) FROM n
WITH RECURSIVE n(s) AS (SELECT hex(zeroblob(9)) UNION ALL SELECT s || 1 FROM n) SELECT max(s) FROM n
{ENDLESS} SELECT count(*) FROM n a, n b
{ENDLESS} INSERT INTO t SELECT i, hex(zeroblob(10000)) FROM n
CREATE TABLE big AS {ENDLESS} SELECT hex(zeroblob(10000)) FROM n
{ENDLESS} UPDATE t SET a = (SELECT sum(i) FROM n)
{ENDLESS} DELETE FROM t WHERE a IN (SELECT i FROM n)
SELECT json_group_array(i) FROM ({ENDLESS} SELECT i FROM n)
{ENDLESS} SELECT row_number() OVER (ORDER BY i DESC) FROM n
{ONE_OPCODE}
SELECT ({ONE_OPCODE}) FROM t
INSERT INTO t VALUES (({ONE_OPCODE}), 'z')
SELECT 1; DROP TABLE t
SELECT 1; SELECT 2
SELECT {"(" * 5000}1{")" * 5000}
SELECT {"-" * 1}{"- " * 3000}1
SELECT {"NOT " * 3000}1
SELECT {"1+" * 3000}1
SELECT {"abs(" * 2000}1{")" * 2000}
SELECT 1 {"UNION ALL SELECT 1 " * 1000}
SELECT {", ".join(["1"] * 3000)}
SELECT * FROM {", ".join(["t"] * 100)}
SELECT 'x' LIKE '{"%x" * 1000}'
SELECT ?
SELECT :name
SELECT 'unterminated
SELECT "unterminated
/* unterminated
-- only a comment
SELEC 1
SELECT FROM WHERE
SELECT * FROM missing
SELECT missing FROM t
GRANT ALL ON t TO PUBLIC
COPY t TO 'escaped.db'
SELECT * INTO OUTFILE 'escaped.db' FROM t
.output escaped.db
.shell touch escaped.db
; ; ;
(((
""".strip().splitlines()

STRANGE = ["", " \n\t", ";", "\x00", "SELECT 1\x00", "SELECT '\ud800'", "\ud800", "x" * 2_000_000]
STRANGE += ["SELECT 1" + " " * 2_000_000, None, 3, b"SELECT 1", ["SELECT 1"]]  # type: ignore[list-item]


@pytest.fixture(scope="module")
def empty_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sandbox")


@pytest.fixture(scope="module")
def worker(empty_folder: Path) -> Iterator[SqlWorker]:
    """One worker for the whole file, whose current and temporary folders start empty."""
    with pytest.MonkeyPatch.context() as patch, SqlWorker() as made:
        patch.chdir(empty_folder)
        patch.setenv("TMPDIR", str(empty_folder))
        patch.setenv("SQLITE_TMPDIR", str(empty_folder))
        made.run("", "SELECT 1")
        yield made
        made.close()
        assert list(empty_folder.iterdir()) == []


def run(worker: SqlWorker, sql: str, context: str | None = CONTEXT) -> SqlResult:
    return worker.run(context, sql, TIMEOUT_SEC)


def in_time(result: SqlResult) -> bool:
    return result.seconds < TIMEOUT_SEC + confinement.KILL_GRACE_SEC + 0.5


# --- hostile statements ---


def test_there_are_enough_hostile_statements() -> None:
    assert len(REFUSED) + len(FAILING) + len(STRANGE) >= 60


@pytest.mark.parametrize("sql", REFUSED)
def test_the_authorizer_refuses(worker: SqlWorker, sql: str, empty_folder: Path) -> None:
    result = run(worker, sql)
    assert (result.status, result.stage, result.rows) == ("refused", "query", []), result
    assert list(empty_folder.iterdir()) == []


@pytest.mark.parametrize("sql", FAILING, ids=lambda sql: sql[:60])
def test_fails_in_time_and_leaves_nothing(worker: SqlWorker, sql: str, empty_folder: Path) -> None:
    started = time.monotonic()
    result = run(worker, sql)
    assert result.status in ("error", "timeout", "refused", "too_large") or result.truncated, result
    assert len(result.rows) <= 1000 and "\n" not in (result.error or "")
    assert in_time(result) and time.monotonic() - started < 3, "start of a new process included"
    assert list(empty_folder.iterdir()) == []


@pytest.mark.parametrize("sql", STRANGE, ids=lambda sql: repr(sql)[:40])
def test_strange_texts_are_errors_in_both_places(worker: SqlWorker, sql: str) -> None:
    assert run(worker, sql).status in ("error", "too_large")
    context = worker.run(sql, "SELECT 1", TIMEOUT_SEC)
    assert context.status == "ok" or context.stage == "context"


@pytest.mark.parametrize(
    "sql", ["ATTACH 'escaped.db' AS o", "PRAGMA writable_schema=1", "VACUUM INTO 'escaped.db'"]
)
def test_a_context_is_confined_like_a_query(
    worker: SqlWorker, sql: str, empty_folder: Path
) -> None:
    result = worker.run(f"CREATE TABLE t (a); {sql};", "SELECT 1", TIMEOUT_SEC)
    assert result.stage == "context" and result.status in ("refused", "error")
    assert list(empty_folder.iterdir()) == []


def test_a_trigger_and_a_view_are_confined_too(worker: SqlWorker) -> None:
    view = "CREATE VIEW v AS SELECT load_extension('x');"
    assert run(worker, "SELECT * FROM v", view).status in ("refused", "error")
    assert run(worker, "SELECT 1", "PRAGMA recursive_triggers=1;").status == "refused"
    loop = """CREATE TABLE t (a); CREATE TRIGGER g AFTER INSERT ON t
        BEGIN INSERT INTO t VALUES (new.a + 1), (new.a + 2); END;"""
    assert in_time(run(worker, "INSERT INTO t VALUES (1)", loop))


def test_an_endless_context_times_out(worker: SqlWorker) -> None:
    result = run(worker, "SELECT 1", f"{ENDLESS} SELECT count(*) FROM n;")
    assert (result.status, result.stage) == ("timeout", "context") and in_time(result)


@pytest.mark.parametrize("seconds", [0, -1, 1e-9, float("nan"), float("inf"), 1e300])
def test_a_strange_deadline_does_not_mean_none(worker: SqlWorker, seconds: float) -> None:
    result = worker.run(None, ONE_OPCODE, seconds)
    assert result.status in ("timeout", "error") and run(worker, "SELECT 1").status == "ok"


def test_memory_bombs_are_stopped_by_size(worker: SqlWorker) -> None:
    result = worker.run(None, f"{ENDLESS} SELECT hex(zeroblob(90000)) FROM n", 5, max_rows=10**6)
    assert result.status == "too_large" and result.rows == []
    heap = f"{ENDLESS} SELECT hex(randomblob(40000)) AS s FROM n ORDER BY s"
    assert worker.run(None, heap, 20).status == "too_large"
    assert run(worker, "SELECT count(*) FROM t").rows == [(3,)]


def test_the_worker_process_cannot_open_files_at_all(tmp_path: Path) -> None:
    code = "from gemma_lora.confinement import _confine; _confine(); open('escaped.db', 'w')"
    path = os.pathsep.join([str(Path(dataset.__file__).parent), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"PYTHONPATH": path}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 1 and "Too many open files" in done.stderr
    assert list(tmp_path.iterdir()) == []


# --- what honest statements give ---


def test_a_drop_does_not_reach_the_next_job(worker: SqlWorker) -> None:
    dropped = run(worker, "DROP TABLE t")
    assert (dropped.status, dropped.kind) == ("ok", "ddl")
    assert run(worker, "SELECT count(*) FROM t").rows == [(3,)]


def test_values_columns_and_row_cap(worker: SqlWorker) -> None:
    result = run(worker, "SELECT 1 AS i, 1.5 AS f, 'é' AS s, x'00ff' AS b, NULL AS n")
    assert result.rows == [(1, 1.5, "é", b"\x00\xff", None)]
    assert result.columns == ["i", "f", "s", "b", "n"] and result.state is None
    counted = worker.run(None, f"{ENDLESS} SELECT i FROM n LIMIT 7", max_rows=7)
    assert len(counted.rows) == 7 and not counted.truncated
    endless = worker.run(None, f"{ENDLESS} SELECT i FROM n", max_rows=7)
    assert endless.rows == counted.rows and endless.truncated


def test_duplicates_and_empty_results_stay_what_they_are(worker: SqlWorker) -> None:
    assert run(worker, "SELECT b FROM t WHERE a = 2").rows == [("y",), ("y",)]
    first, second = run(worker, "SELECT a FROM t WHERE 0"), run(worker, "SELECT b FROM t WHERE 0")
    assert first.status == second.status == "ok" and first.rows == second.rows == []
    assert first.columns != second.columns and first.state is second.state is None


def test_text_that_is_not_utf8_is_replaced(worker: SqlWorker) -> None:
    assert run(worker, "SELECT CAST(x'41ff42' AS TEXT)").rows == [("A\ufffdB",)]
    bad = "CREATE TABLE t (a TEXT); INSERT INTO t VALUES (CAST(x'ff' AS TEXT));"
    assert run(worker, "DELETE FROM t WHERE 0", bad).state


def test_semicolons_and_comments_around_one_statement(worker: SqlWorker) -> None:
    for sql in (";SELECT 1", "SELECT 1;; ", "-- one;\nSELECT 1 -- two;", "/* ; */ SELECT 1;"):
        assert run(worker, sql).rows == [(1,)], sql
    assert run(worker, "SELECT ';' || '--' || '/*'").rows == [(";--/*",)]
    assert run(worker, "SELECT 1; SELECT 2").error == "several statements"
    assert run(worker, "-- nothing").error == "empty statement"


def test_the_first_failing_statement_of_a_context_is_named(worker: SqlWorker) -> None:
    result = run(worker, "SELECT 1", "CREATE TABLE t (a); CREATE SCHEMA x; SELECT * FROM no;")
    assert (result.status, result.stage) == ("error", "context")
    assert "SCHEMA" in (result.error or "")
    dump = "BEGIN TRANSACTION; CREATE TABLE t (a); INSERT INTO t VALUES (1); COMMIT;"
    assert run(worker, "SELECT * FROM t", dump).rows == [(1,)]


def test_returning_and_foreign_keys_off(worker: SqlWorker) -> None:
    result = run(worker, "DELETE FROM t WHERE a = 2 RETURNING b")
    assert result.rows == [("y",), ("y",)]
    assert result.state == run(worker, "DELETE FROM t WHERE b = 'y'").state
    keys = "CREATE TABLE p (i PRIMARY KEY); CREATE TABLE c (i REFERENCES p (i));"
    assert run(worker, "INSERT INTO c VALUES (9)", keys).status == "ok"


SAME = [
    ("UPDATE t SET a = 5 WHERE b = 'y'", "UPDATE t SET a = a + 3 WHERE a = 2"),
    ("DELETE FROM t", "DELETE FROM t WHERE a IN (1, 2)"),
    ("INSERT INTO t VALUES (3, 'z'), (4, 'w')", "INSERT INTO t VALUES (4, 'w'), (3, 'z')"),
    ("INSERT INTO t VALUES (1.0, 'z')", "INSERT INTO t SELECT 1, 'z'"),
    ('UPDATE "odd name" SET x = 0.1 + 0.2', 'UPDATE "odd name" SET x = 0.3'),
    ("CREATE TABLE n (a INT,  b TEXT)", 'create table if not exists "N"(a int, -- x\n`b` text)'),
    ("DROP TABLE IF EXISTS missing", "DELETE FROM t WHERE a = 99"),
    (
        "WITH c (k) AS (SELECT 1) DELETE FROM t WHERE a IN (SELECT k FROM c)",
        "DELETE FROM t WHERE a=1",
    ),
]
DIFFERENT = [
    ("DELETE FROM t WHERE a = 1", "DELETE FROM t WHERE a = 2"),
    ("INSERT INTO t VALUES (1, 'x')", "INSERT INTO t VALUES (1, 'x'), (1, 'x')"),
    ("INSERT INTO t VALUES (7, '1')", "INSERT INTO t VALUES (7, x'31')"),
    ("INSERT INTO t VALUES (7, NULL)", "INSERT INTO t VALUES (7, 'None')"),
    ("DROP TABLE t", "DELETE FROM t"),
    ("ALTER TABLE t RENAME TO u", "DROP TABLE t"),
    ("ALTER TABLE t ADD COLUMN c INTEGER CHECK (c > 0)", "ALTER TABLE t ADD COLUMN c INTEGER"),
    ("CREATE TABLE n (a INT)", "CREATE TEMP TABLE n (a INT)"),
    ("CREATE TABLE n (a DEFAULT 'X')", "CREATE TABLE n (a DEFAULT 'x')"),
    ("CREATE INDEX i ON t (a)", "CREATE UNIQUE INDEX i ON t (a, b)"),
    ("CREATE VIEW v AS SELECT a FROM t", "CREATE VIEW v AS SELECT b FROM t"),
]


@pytest.mark.parametrize(("first", "second"), SAME)
def test_the_same_effect_gives_the_same_state(worker: SqlWorker, first: str, second: str) -> None:
    one, other = run(worker, first), run(worker, second)
    assert one.status == other.status == "ok", (one, other)
    assert one.state is not None and one.state == other.state


@pytest.mark.parametrize(("first", "second"), DIFFERENT)
def test_another_effect_gives_another_state(worker: SqlWorker, first: str, second: str) -> None:
    assert run(worker, first).state != run(worker, second).state


def test_the_state_is_a_bag_without_rowids(worker: SqlWorker) -> None:
    table = "CREATE TABLE t (a, b); INSERT INTO t VALUES "
    states = {
        run(worker, "DELETE FROM t WHERE a = 9", table + rows).state
        for rows in ("(1, 2), (3, 4), (9, 9)", "(9, 9), (3, 4), (1, 2)", "(3, 4), (1, 2)")
    }
    assert len(states) == 1
    twice = run(worker, "DELETE FROM t WHERE a = 9", table + "(1, 2), (3, 4), (3, 4)")
    assert twice.status == "ok" and twice.state not in states


# --- the worker process ---


def test_the_process_is_reused_and_replaced_after_a_kill(worker: SqlWorker) -> None:
    run(worker, "SELECT 1")
    first = worker._process.pid
    assert run(worker, "SELECT 1").status == "ok" and worker._process.pid == first
    late = run(worker, ONE_OPCODE)
    assert late.status == "timeout" and in_time(late)
    assert run(worker, "SELECT count(*) FROM t").rows == [(3,)] and worker._process.pid != first


def test_run_many_keeps_the_order_over_kills_and_bad_jobs(worker: SqlWorker) -> None:
    texts = [f"SELECT {i}" for i in range(150)]
    texts[5], texts[70] = ONE_OPCODE, f"{ENDLESS} SELECT count(*) FROM n"
    texts[0], texts[20], texts[149] = "x" * 2_000_000, "SELEC", 7  # type: ignore[call-overload]
    jobs = [SqlJob(None, sql, TIMEOUT_SEC) for sql in texts]
    results = list(worker.run_many(iter(jobs)))
    bad = {0: "too_large", 5: "timeout", 20: "error", 70: "timeout", 149: "error"}
    assert [r.status for r in results] == [bad.get(i, "ok") for i in range(150)]
    assert all(r.rows == [(i,)] for i, r in enumerate(results) if i not in bad)


def test_a_worker_that_dies_costs_one_row_at_most(worker: SqlWorker) -> None:
    run(worker, "SELECT 1")
    os.kill(worker._process.pid, signal.SIGKILL)
    worker._process.join()
    assert run(worker, "SELECT 1").status == "ok"
    results = worker.run_many(SqlJob(None, f"SELECT {i}") for i in range(200))
    assert next(results).rows == [(0,)]
    os.kill(worker._process.pid, signal.SIGKILL)
    assert [r.rows for r in results] == [[(i,)] for i in range(1, 200)]


def test_a_caller_may_stop_early_but_not_mix_two_streams(worker: SqlWorker) -> None:
    stream = worker.run_many(SqlJob(None, f"SELECT {i}") for i in range(200))
    assert next(stream).rows == [(0,)]
    with pytest.raises(RuntimeError, match="busy"):
        run(worker, "SELECT 1")
    stream.close()
    assert run(worker, "SELECT 'new'").rows == [("new",)]


@pytest.mark.parametrize("sql", ["SELECT 1", ONE_OPCODE])
def test_orphans_end_by_themselves(tmp_path: Path, sql: str) -> None:
    script = tmp_path / "parent.py"
    script.write_text(
        textwrap.dedent(f"""
        import sys; sys.path[:0] = {sys.path!r}
        from gemma_lora.sandbox import SqlJob, SqlWorker
        if __name__ == "__main__":
            worker = SqlWorker()
            worker.run(None, "SELECT 1")
            worker._send([SqlJob(None, {sql!r}, 1.0)])
            print("busy", flush=True)
            sys.stdin.read()
        """)
    )
    parent = subprocess.Popen(
        [sys.executable, script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None and parent.stdout.readline() == "busy\n"
    parent.kill()
    parent.communicate(timeout=10)  # the worker holds the same stdout: it ends when the worker has


def test_an_unclosed_worker_does_not_hold_up_the_exit(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(
        f"import sys; sys.path[:0] = {sys.path!r}\n"
        "from gemma_lora.sandbox import SqlWorker\n"
        "if __name__ == '__main__':\n"
        "    worker = SqlWorker()\n"
        "    print(worker.run(None, 'SELECT 42').rows)\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=20)
    assert (done.returncode, done.stdout, done.stderr) == (0, "[(42,)]\n", "")


def test_run_sql_works_without_a_worker() -> None:
    assert sandbox.run_sql(CONTEXT, "SELECT max(a) FROM t").rows == [(2,)]


# --- reading SQL ---


@pytest.mark.parametrize(
    ("sql", "kind"),
    [
        ("SELECT 1", "select"),
        ("  -- c\n/* d */ ( select 1)", "select"),
        ("VALUES (1)", "select"),
        ("WITH a AS (SELECT 1), replace(x) AS (SELECT ')') SELECT 1", "select"),
        ("WITH a AS (SELECT ';') INSERT INTO t SELECT * FROM a", "insert"),
        ("REPLACE INTO t VALUES (1)", "insert"),
        ("update t set a = 1", "update"),
        ("WITH a AS (SELECT 1) DELETE FROM t", "delete"),
        ("ALTER TABLE t ADD c", "ddl"),
        ("EXPLAIN SELECT 1", "other"),
        ("PRAGMA x", "other"),
        ("Here is the query", "other"),
        ("", "other"),
    ],
)
def test_statement_kind(sql: str, kind: str) -> None:
    assert sql_text.statement_kind(sql) == kind


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT CURRENT_DATE", True),
        ("SELECT date('now', '-1 day')", True),
        ('SELECT strftime("%Y", "NOW")', True),
        ("SELECT date((('now')))", True),
        ("SELECT datetime()", True),
        ("SELECT strftime('%Y')", True),
        ("SELECT NOW() - INTERVAL 1 DAY", True),
        ("SELECT GETDATE ()", True),
        ("SELECT a FROM t ORDER BY random() LIMIT 1", True),
        ("SELECT date(d), strftime('%Y', d) FROM t", False),
        ("SELECT date, now, random FROM t WHERE time > 3", False),
        ("SELECT 'CURRENT_DATE' -- CURRENT_DATE\n/* now() */", False),
        ("SELECT date(d) FROM t WHERE status = 'now'", False),
        ('SELECT "current_date" FROM t', False),
    ],
)
def test_uses_clock(sql: str, expected: bool) -> None:
    assert sql_text.uses_clock(sql) is expected


def test_verify_gold_translates_what_fails_and_keeps_the_order() -> None:
    pytest.importorskip("sqlglot")
    schema = """CREATE SCHEMA s; CREATE TABLE s.t (d DATE, e ENUM('a', 'b'));
        INSERT INTO s.t VALUES ('2024-05-01', 'a');"""
    rows: list[tuple[str | None, str]] = [
        (CONTEXT, "SELECT * FROM t"),
        (schema, "SELECT EXTRACT(MONTH FROM d) FROM s.t"),
        (CONTEXT, "SELECT * FROM missing"),
        (CONTEXT, "DELETE FROM t"),
        (CONTEXT, "SELECT a FROM t WHERE b = 'y' AND date('now') > 1"),
        (CONTEXT, "SELECT a::TEXT FROM t WHERE a > 5"),
        (None, "SELECT NOW("),
    ]
    verdicts = list(sandbox.verify_gold(iter(rows * 60), workers=2))
    assert len(verdicts) == 7 * 60 and verdicts[7:14] == verdicts[:7]
    assert [v["gold_runs"] for v in verdicts[:7]] == [True, True, False, True, True, True, False]
    returned = [True, True, False, False, True, False, False]
    assert [v["gold_returns_rows"] for v in verdicts[:7]] == returned
    clock = [False, False, False, False, True, False, True]
    assert [v["uses_clock"] for v in verdicts[:7]] == clock
    assert verdicts[3]["gold_kind"] == "delete" and verdicts[0]["context"] == CONTEXT
    assert "STRFTIME" in verdicts[1]["gold"] and "SCHEMA" not in verdicts[1]["context"]
    assert verdicts[2]["gold"] is None and "missing" in verdicts[2]["error"]


def test_a_schema_that_sqlite_lacks_is_dropped_on_both_sides() -> None:
    pytest.importorskip("sqlglot")
    context = "CREATE SCHEMA s; CREATE TABLE s.t (a INT); INSERT INTO s.t VALUES (1);"
    with SqlWorker(translate=True) as worker:
        result = worker.run(context, "SELECT a FROM s.t")
    assert result.rows == [(1,)] and result.sql_used == "SELECT a FROM t"
    assert "SCHEMA" not in (result.context_used or "SCHEMA")


def test_a_text_that_sqlglot_cannot_read_has_no_translation() -> None:
    pytest.importorskip("sqlglot")
    translated = dialects.translate_to_sqlite("SELECT `a` FROM t WHERE b ILIKE 'x'", "mysql")
    assert translated is not None and "`" not in translated
    assert dialects.translate_to_sqlite("((", "mysql") is None


WORDS = """SELECT FROM t a b , ( ) * 1 'x' " ; -- /* */ WITH RECURSIVE n AS UNION ALL JOIN INSERT
INTO VALUES UPDATE SET = DELETE DROP TABLE CREATE TRIGGER BEGIN END x'00' ? CASE WHEN THEN NULL
\x00 \ud800 é""".split()
ANY_TEXT = st.one_of(
    st.text(st.characters()), st.lists(st.sampled_from(WORDS), max_size=25).map(" ".join)
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(ANY_TEXT, ANY_TEXT), min_size=1, max_size=20))
def test_no_text_raises_or_loses_its_place(worker: SqlWorker, pairs: list[tuple[str, str]]) -> None:
    jobs = [SqlJob(context, sql, TIMEOUT_SEC) for context, sql in pairs]
    jobs += [SqlJob(CONTEXT, sql, TIMEOUT_SEC) for _, sql in pairs]
    results = list(worker.run_many(jobs))
    assert [r.kind for r in results] == [sql_text.statement_kind(job.sql) for job in jobs]
    assert all(isinstance(sql_text.uses_clock(sql), bool) for _, sql in pairs)
    assert all((r.error is None) == (r.status == "ok") for r in results)


@settings(max_examples=60, deadline=None)
@given(ANY_TEXT)
def test_the_lexer_drops_nothing_but_blanks_and_comments(text: str) -> None:
    pieces = [match.group() for match in sql_text._TOKEN.finditer(text)]
    assert "".join(pieces) == text
