"""SQL of other databases as SQLite reads it: the same values or a failure, nothing else."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta

import pytest

from gemma_lora.dialects import translate_to_sqlite
from gemma_lora.sandbox import SqlWorker

pytest.importorskip("sqlglot")

CONTEXT = """CREATE TABLE t (d TEXT, e TEXT, n INTEGER);
INSERT INTO t VALUES ('2024-03-15 10:20:30', '2023-12-31', 3);"""


def value_of(expression: str, dialect: str) -> object:
    """What a foreign expression is worth in SQLite, by its translation."""
    translated = translate_to_sqlite(f"SELECT {expression} FROM t", dialect)
    assert translated is not None
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.executescript(CONTEXT)
        return connection.execute(translated).fetchone()[0]


@pytest.mark.parametrize(
    ("dialect", "expression", "expected"),
    [
        ("mysql", "DATE_SUB(d, INTERVAL 5 YEAR)", "2019-03-15"),
        ("mysql", "DATE_ADD(d, INTERVAL 2 WEEK)", "2024-03-29"),  # sqlglot's own is NULL
        ("mysql", "DATE_SUB(d, INTERVAL 1 QUARTER)", "2023-12-15"),
        ("mysql", "DATE_ADD(d, INTERVAL 90 MINUTE)", "2024-03-15 11:50:30"),
        ("mysql", "d - INTERVAL 6 MONTH", "2023-09-15"),
        ("mysql", "DATE_ADD(DATE_SUB(d, INTERVAL 1 DAY), INTERVAL 1 YEAR)", "2025-03-14"),
        ("mysql", "DATEDIFF(d, e)", 75),
        ("mysql", "QUARTER(d)", 1),
        ("mysql", "QUARTER(e) = 4 AND YEAR(e) = 2023", 1),
        ("mysql", "DAYOFWEEK(d)", 6),
        ("mysql", "HOUR(d) * 100 + MINUTE(d)", 1020),
        ("mysql", "YEAR(DATE_SUB(d, INTERVAL 1 YEAR))", 2023),
        ("postgres", "d + INTERVAL '1' DAY", "2024-03-16"),
        ("postgres", "d - INTERVAL '6 months'", "2023-09-15"),
        ("postgres", "DATE_PART('quarter', d)", 1),
        ("postgres", "EXTRACT(DOW FROM d)", 5),
        ("tsql", "DATEADD(month, -2, d)", "2024-01-15"),
        ("tsql", "DATEDIFF(day, e, d)", 75),
        ("tsql", "DATEDIFF(year, e, d)", 1),  # of years that begin: sqlglot's own is 0
        ("tsql", "DATEDIFF(month, e, d)", 3),
        ("tsql", "DATEPART(quarter, d)", 1),
    ],
)
def test_dates_are_worth_the_same(dialect: str, expression: str, expected: object) -> None:
    assert value_of(expression, dialect) == expected


@pytest.mark.parametrize(
    ("dialect", "expression"),
    [
        ("mysql", "DATE_SUB(d, INTERVAL n DAY)"),
        ("mysql", "TIMESTAMPDIFF(YEAR, e, d)"),
        ("postgres", "d - INTERVAL '1 year 2 months'"),
        ("tsql", "DATEDIFF(week, e, d)"),
    ],
)
def test_what_sqlite_cannot_say_fails_there(dialect: str, expression: str) -> None:
    with pytest.raises(sqlite3.OperationalError):
        value_of(expression, dialect)


@pytest.mark.parametrize(
    "since",
    ["NOW() - INTERVAL 2 DAY", "DATE_SUB(NOW(), INTERVAL 2 DAY)", "DATEADD(day, -2, GETDATE())"],
)
def test_golds_that_look_back_from_now_run(since: str) -> None:
    yesterday = (datetime.now(UTC) - timedelta(days=1)).date()
    context = f"CREATE TABLE t (d DATE); INSERT INTO t VALUES ('{yesterday}'), ('2001-01-01');"
    with SqlWorker(translate=True) as worker:
        found = worker.run(context, f"SELECT d FROM t WHERE d >= {since}", 5.0)
        assert found.rows == [(str(yesterday),)], found
        assert found.sql_used is not None and "CURRENT_TIMESTAMP, '-2 days'" in found.sql_used
