"""Tests of what counts as the same: numbers, states, ties, columns, labels, the clock."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemma_lora import comparison, orderings, sandbox, sql_text, verdicts

PRICES = """CREATE TABLE goods (id INTEGER PRIMARY KEY, name TEXT, price REAL, shop TEXT, rank INT);
INSERT INTO goods VALUES (1, 'pen', 100.0, 'A', 1), (2, 'cup', 19.99, 'A', 2),
(3, 'hat', 7.35, 'B', 2), (4, 'bag', 19.99, 'B', 2), (5, 'Box', 3.0, 'C', NULL);"""


@pytest.fixture(scope="module")
def worker() -> Iterator[sandbox.SqlWorker]:
    with sandbox.SqlWorker(still=True) as one:
        yield one


def verdict(
    gold: str, reply: str, worker: sandbox.SqlWorker, context: str = PRICES, question: str = "?"
) -> str | None:
    """The error class of a reply; None when it counts as right."""
    row: Any = {
        "id": "1", "completion": gold, "context": context, "question": question,
        "prompt": f"Write.\n\nSchema:\n{sql_text.schema_of(context)}\n\nQuestion: {question}",
    }  # fmt: skip
    prepared = verdicts.prepare_gold(row, worker, 42, 2.0)
    assert prepared.excluded is None, prepared.excluded
    out = verdicts.score_sql(reply, "stop", prepared, row, worker, 2.0)
    assert out["match"] is (out["error"] is None)
    return out["error"]


# --- Values ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        (5551234567.0, 5551234568.0, False),  # telephone numbers in a REAL column
        (1700000000123.0, 1700000000124.0, False),  # milliseconds
        (1700000000123.5, 1700000000124.0, False),
        (5551234567, 5551234567.0, True),
        (9007199254740993, 9007199254740992.0, True),  # beyond 2^53 a float is no exact number
        (12345678901234567, 12345678901234568, False),
        (1.1e20, 1.1e20 * (1 + 2**-52), True),
        (1e-10, 2e-10, False),
        (1.6e-19, 9.1e-31, False),
        (1e-10, 1e-10 * (1 + 1e-12), True),
        (1e-10, 0, False),
        (0.1 + 0.2 - 0.3, 0, True),
        (1234567890.12, 1234567890.13, False),
        (0.1 + 0.2, 0.3, True),
        (110.00000000000001, 110, True),
        (33.333333333333336, 33.33, False),  # a rounded value is another value
        (float("inf"), float("inf"), True),
        (float("inf"), 1e308, False),
        (float("inf"), float("-inf"), False),
    ],
)
def test_values(a: Any, b: Any, same: bool) -> None:
    assert comparison.same_value(a, b) is comparison.same_value(b, a) is same
    assert comparison.same_value(-a, -b) is same
    assert comparison.same_bag([(a, "x"), (1, "y")], [(1, "y"), (b, "x")]) is same


@given(st.lists(st.tuples(st.floats(-1e6, 1e6), st.integers(-3, 3)), max_size=12), st.randoms())
def test_noise_in_the_last_digits_changes_no_bag(
    rows: list[tuple[float, int]], draw: random.Random
) -> None:
    noisy = [(a * (1 + draw.choice([-1, 0, 1]) * 2**-52), b) for a, b in rows]
    draw.shuffle(noisy)
    assert comparison.same_bag(rows, noisy) and comparison.same_bag(noisy, rows)
    assert comparison.within_bag([*rows, (0.5, 9)], noisy)
    if rows:
        assert not comparison.same_bag(rows, [(noisy[0][0], 9), *noisy[1:]])


# --- What a writing statement leaves --------------------------------------------------------------


@pytest.mark.parametrize(
    ("gold", "reply", "right"),
    [
        (
            "UPDATE goods SET price = price * 1.1",
            "UPDATE goods SET price = price + price * 0.1",
            True,
        ),
        (
            "UPDATE goods SET price = price * 1.1 WHERE id = 1",
            "UPDATE goods SET price = ROUND(price * 1.1, 2) WHERE id = 1",
            True,
        ),
        (
            "UPDATE goods SET price = price * 1.1",
            "UPDATE goods SET price = ROUND(price * 1.1, 2)",
            False,
        ),
        ("UPDATE goods SET price = price * 1.1", "UPDATE goods SET price = price * 1.11", False),
        ("UPDATE goods SET rank = 5551234567.0", "UPDATE goods SET rank = 5551234568.0", False),
        (
            "CREATE VIEW v AS SELECT name FROM goods WHERE shop = 'A'",
            "CREATE VIEW v AS SELECT g.name FROM goods AS g WHERE g.shop IN ('A')",
            True,
        ),
        (
            "CREATE VIEW v AS SELECT name FROM goods WHERE shop = 'A'",
            "CREATE VIEW v AS SELECT name FROM goods WHERE shop = 'B'",
            False,
        ),
        (
            "CREATE VIEW v AS SELECT name FROM goods",
            "CREATE VIEW w AS SELECT name FROM goods",
            False,
        ),
        (
            "CREATE VIEW v AS SELECT name FROM goods",
            "CREATE VIEW v AS SELECT name, id FROM goods",
            False,
        ),
        ("CREATE VIEW v AS SELECT x FROM gone", "create view V as select X from gone;", True),
        ("CREATE VIEW v AS SELECT x FROM gone", "CREATE VIEW v AS SELECT y FROM gone", False),
        (
            "CREATE TABLE t (a INT)",
            "CREATE VIEW t AS SELECT id AS a FROM goods WHERE id > 99",
            False,
        ),
    ],
)
def test_states(gold: str, reply: str, right: bool, worker: sandbox.SqlWorker) -> None:
    assert (verdict(gold, reply, worker) is None) is right
    assert (verdict(reply, gold, worker) is None) is right


def test_a_state_of_too_many_rows_is_compared_by_its_hash(worker: sandbox.SqlWorker) -> None:
    many = (
        "INSERT INTO goods (name) WITH RECURSIVE r(n) AS "
        "(SELECT 1 UNION ALL SELECT n + 1 FROM r WHERE n < 30000) SELECT n FROM r"
    )
    result = worker.run(PRICES, many)
    assert result.status == "ok" and result.state and result.contents is None
    assert verdict(many, many.replace("SELECT n FROM", "SELECT n + 0 FROM"), worker) is None
    assert verdict(many, many.replace("30000", "30001"), worker) == "wrong rows"


# --- Ties -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gold", "reply", "error"),
    [
        # a key that is not shown: cup and bag cost the same
        (
            "SELECT name FROM goods ORDER BY price",
            "SELECT name FROM goods ORDER BY price, id",
            None,
        ),
        (
            "SELECT name FROM goods ORDER BY price",
            "SELECT name FROM goods ORDER BY price, id DESC",
            None,
        ),
        (
            "SELECT name FROM goods ORDER BY price",
            "SELECT name FROM goods ORDER BY price DESC",
            "wrong order",
        ),
        ("SELECT name FROM goods ORDER BY price", "SELECT name FROM goods", "wrong order"),
        # a computed key
        (
            "SELECT name FROM goods ORDER BY ROUND(price / 10)",
            "SELECT name FROM goods ORDER BY ROUND(price / 10), id DESC",
            None,
        ),
        (
            "SELECT shop FROM goods GROUP BY shop ORDER BY COUNT(*) DESC",
            "SELECT shop FROM goods GROUP BY shop ORDER BY COUNT(*) DESC, shop DESC",
            None,
        ),
        (
            "SELECT shop FROM goods GROUP BY shop ORDER BY COUNT(*) DESC",
            "SELECT shop FROM goods GROUP BY shop ORDER BY COUNT(*)",
            "wrong order",
        ),
        # a LIMIT that cuts a tie
        (
            "SELECT name FROM goods ORDER BY price DESC LIMIT 2",
            "SELECT name FROM goods ORDER BY price DESC, id DESC LIMIT 2",
            None,
        ),
        (
            "SELECT name FROM goods ORDER BY price DESC LIMIT 2",
            "SELECT name FROM goods ORDER BY price LIMIT 2",
            "wrong rows",
        ),
        (
            "SELECT name FROM goods ORDER BY rank DESC LIMIT 1 OFFSET 1",
            "SELECT name FROM goods ORDER BY rank DESC, name LIMIT 1 OFFSET 1",
            None,
        ),
        ("SELECT name FROM goods LIMIT 2", "SELECT name FROM goods ORDER BY id DESC LIMIT 2", None),
        ("SELECT name FROM goods LIMIT 2", "SELECT name FROM goods LIMIT 3", "wrong rows"),
        (
            "SELECT name, price AS p FROM goods ORDER BY p * 2 DESC LIMIT 2",
            "SELECT name, price FROM goods ORDER BY price DESC, id DESC LIMIT 2",
            None,
        ),
        (
            "SELECT DISTINCT shop, rank FROM goods WHERE rank > 1 ORDER BY rank LIMIT 1",
            "SELECT shop, rank FROM goods WHERE id = 3",
            None,
        ),
        (
            "SELECT name FROM goods WHERE id < 3 UNION SELECT shop FROM goods ORDER BY 1 DESC",
            "SELECT name FROM goods WHERE id < 3 UNION SELECT shop FROM goods ORDER BY name DESC",
            None,
        ),
        # collation and NULLs are SQLite's
        (
            "SELECT name FROM goods ORDER BY name COLLATE NOCASE",
            "SELECT name FROM goods ORDER BY LOWER(name)",
            None,
        ),
        (
            "SELECT name FROM goods ORDER BY rank DESC NULLS FIRST",
            "SELECT name FROM goods ORDER BY rank IS NOT NULL, rank DESC, id DESC",
            None,
        ),
        (
            "WITH x AS (SELECT * FROM goods) SELECT name FROM x ORDER BY shop LIMIT 1",
            "SELECT name FROM goods WHERE name = 'cup'",
            None,
        ),
        (
            "SELECT name, ROW_NUMBER() OVER (ORDER BY id) AS r FROM goods ORDER BY r",
            "SELECT name, id FROM goods ORDER BY id DESC",
            "wrong order",
        ),
    ],
)
def test_ties(gold: str, reply: str, error: str | None, worker: sandbox.SqlWorker) -> None:
    assert verdict(gold, reply, worker) == error


PAIRS = """CREATE TABLE a (id INT, name TEXT); CREATE TABLE b (id INT, name TEXT);
INSERT INTO a VALUES (1, 'x'), (2, 'x'), (3, 'x'); INSERT INTO b VALUES (1, 'k'), (2, 'm'), (3, 'l')
;"""


def test_order_by_one_of_two_columns_of_the_same_name(worker: sandbox.SqlWorker) -> None:
    gold = "SELECT a.name, b.name FROM a JOIN b ON a.id = b.id ORDER BY b.name"
    assert verdict(gold, f"{gold} DESC", worker, PAIRS) == "wrong order"
    assert verdict(gold, gold.replace("b.name FROM", "b.name AS n FROM"), worker, PAIRS) is None
    assert sql_text.order_columns(gold, ["name", "name"]) == (1,)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM goods ORDER BY 2", "SELECT name FROM goods ORDER BY price LIMIT 1 + 1",
        "SELECT name FROM goods ORDER BY nothing", "SELECT name FROM goods", "not sql",
        "SELECT DISTINCT name FROM goods ORDER BY price * 2", "DELETE FROM goods",
        "SELECT name FROM goods ORDER BY 9",
    ],
)  # fmt: skip
def test_what_cannot_be_ranked_keeps_the_order_it_showed(
    sql: str, worker: sandbox.SqlWorker
) -> None:
    result = worker.run(PRICES, sql)
    queries = orderings.ranked_queries(sql, result.columns)
    groups = orderings.tie_groups(PRICES, queries, result, worker, 2.0)
    assert groups is None or comparison.follows_groups(groups, result.rows)


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9)), min_size=1, max_size=9),
    st.integers(1, 9),
    st.randoms(),
)
def test_every_stable_order_is_allowed_and_no_other(
    rows: list[tuple[int, int]], limit: int, draw: random.Random
) -> None:
    by_key = sorted(rows, key=lambda row: row[0])
    groups, place = [], 0
    for key in sorted({row[0] for row in rows}):
        tied = [row for row in rows if row[0] == key]
        shown = max(0, min(len(tied), limit - place))
        place += len(tied)
        if shown:
            groups.append(comparison.TieGroup(tied, shown))
    shuffled = list(rows)
    draw.shuffle(shuffled)
    other = sorted(shuffled, key=lambda row: row[0])[:limit]
    assert comparison.follows_groups(groups, by_key[:limit])
    assert comparison.follows_groups(groups, other)
    assert comparison.compare_rows(by_key[:limit], other, groups=groups) == "match"
    backwards = other[::-1]
    if [row[0] for row in backwards] != [row[0] for row in other]:
        assert not comparison.follows_groups(groups, backwards)


# --- Columns and labels ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gold", "reply", "right"),
    [
        # two columns hold equal values, a third is moved in front of them
        (
            "SELECT rank, id, name FROM goods WHERE id < 3",
            "SELECT name, id, rank FROM goods WHERE id < 3",
            True,
        ),
        (
            "SELECT MIN(price) AS lowest, MAX(price) AS highest FROM goods",
            "SELECT MAX(price) AS lowest, MIN(price) AS highest FROM goods",
            False,
        ),
        (
            "SELECT MIN(price) AS lowest, MAX(price) AS highest FROM goods",
            "SELECT MAX(price) AS highest, MIN(price) AS lowest FROM goods",
            True,
        ),
        (
            "SELECT MIN(price) AS lowest, MAX(price) AS highest FROM goods",
            "SELECT MIN(price) AS Highest, MAX(price) AS Lowest FROM goods",
            False,
        ),
        (
            "SELECT MIN(price) AS lowest, MAX(price) AS highest FROM goods",
            "SELECT MAX(price), MIN(price) FROM goods",
            True,
        ),
        ("SELECT MAX(price) AS top FROM goods", "SELECT MAX(price) AS p FROM goods", True),
        (
            "SELECT a.name, b.name AS boss FROM goods a JOIN goods b ON b.id = a.id + 1",
            "SELECT a.name AS good, b.name FROM goods a JOIN goods b ON b.id = a.id + 1",
            True,
        ),
        (
            "SELECT MIN(id) AS a, MAX(id) AS b, COUNT(name) + 9 AS c FROM goods",
            "SELECT MIN(id) AS b, MAX(id) AS c, COUNT(name) + 9 AS a FROM goods",
            False,
        ),
    ],
)
def test_columns_and_labels(gold: str, reply: str, right: bool, worker: sandbox.SqlWorker) -> None:
    assert (verdict(gold, reply, worker) is None) is right


@given(
    st.lists(st.tuples(*[st.integers(0, 2)] * 4), min_size=1, max_size=5), st.permutations(range(4))
)
def test_columns_may_come_in_any_order(rows: list[tuple[int, ...]], order: list[int]) -> None:
    moved = [tuple(row[i] for i in order) for row in rows]
    assert comparison.compare_rows(rows, moved) == "match"


def test_many_alike_columns_end_soon() -> None:
    rows = [tuple(random.Random(i).choices([0, 1], k=200)) for i in range(200)]
    other = [tuple(random.Random(-i - 1).choices([0, 1], k=200)) for i in range(200)]
    assert comparison.compare_rows(rows, other) == "wrong rows"


# --- The question, the clock, infinity ------------------------------------------------------------


def test_an_answer_that_the_question_quotes_is_an_answer(worker: sandbox.SqlWorker) -> None:
    gold = "SELECT COUNT(*) FROM goods"
    question = f"What does this return: {gold};"
    assert verdict(gold, f"{gold};", worker, question=question) is None


def test_a_context_that_reads_the_clock_reads_the_same_one(worker: sandbox.SqlWorker) -> None:
    context = """CREATE TABLE log (id INT, at TEXT DEFAULT CURRENT_TIMESTAMP, day TEXT, dice INT);
    INSERT INTO log (id, day, dice) VALUES (1, datetime('now', '-1 day'), random());
    CREATE VIEW today AS SELECT date() AS d;"""
    first = worker.run(context, "SELECT * FROM log, today")
    assert first.rows[0][:3] == (1, "2025-01-01 12:00:00", "2024-12-31 12:00:00")
    assert first.rows[0][4] == "2025-01-01"
    with sandbox.SqlWorker(still=True) as later:
        assert later.run(context, "SELECT * FROM log, today").rows == first.rows
    insert = "INSERT INTO log (id) VALUES (2)"
    assert worker.run(context, insert).state == worker.run(context, f"{insert};").state
    answer = "SELECT at, id FROM log WHERE id = 1"
    assert verdict("SELECT id, at FROM log", answer, worker, context) is None
    with sandbox.SqlWorker() as moving:  # the chat's clock goes on
        assert moving.run(context, "SELECT at FROM log").rows[0][0] > "2026"


def test_bad_calls_of_a_still_clock_are_null(worker: sandbox.SqlWorker) -> None:
    context = "CREATE TABLE t (a TEXT DEFAULT CURRENT_DATE); INSERT INTO t DEFAULT VALUES;"
    sql = "SELECT a, current_time, date('no'), strftime(), strftime('%Y'), julianday('now') FROM t"
    assert worker.run(context, sql).rows == [
        ("2025-01-01", "12:00:00", None, None, "2025", 2460677.0)
    ]


def test_a_still_clock_adds_no_function_and_its_dice_take_anything(
    worker: sandbox.SqlWorker,
) -> None:
    sql = "SELECT timediff('now', '2024-01-01')"
    with sandbox.SqlWorker() as moving:
        assert worker.run(None, sql).status == moving.run(None, sql).status
    blobs = "SELECT length(randomblob('x')), length(randomblob(NULL)), length(randomblob(3.9))"
    assert worker.run(None, f"{blobs}, length(randomblob(1e15))").rows == [(1, 1, 3, 1_000_000)]
    assert worker.run(None, "SELECT random()").rows == worker.run(None, "SELECT random()").rows


def test_a_key_of_infinity_is_a_key(worker: sandbox.SqlWorker) -> None:
    context = """CREATE TABLE t (k REAL PRIMARY KEY, v TEXT);
    INSERT INTO t VALUES (9e999, 'a'), (-9e999, 'b'), (1, 'c');"""
    assert (
        verdict("SELECT v FROM t WHERE k > 1", "SELECT v FROM t WHERE k > 2", worker, context)
        is None
    )
    assert verdict("SELECT k FROM t", "SELECT k FROM t ORDER BY 1", worker, context) is None
