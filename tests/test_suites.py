"""Test suites: neighbours of a gold, seeded databases, and what they tell apart."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gemma_lora import neighbours, sandbox, suites, tables, verdicts

pytest.importorskip("sqlglot")

SHOP = """CREATE TABLE customers (id INTEGER PRIMARY KEY, name TEXT NOT NULL, city TEXT);
CREATE TABLE orders (id INTEGER PRIMARY KEY, customer_id INTEGER, total REAL CHECK (total > 0),
  ordered_on DATE, tax REAL GENERATED ALWAYS AS (total * 0.2) VIRTUAL);
INSERT INTO customers VALUES (1, 'Ada', 'Leeds'), (2, 'Ben', 'York'), (3, 'Cleo; or so', 'Leeds');
INSERT INTO orders (id, customer_id, total, ordered_on) VALUES (1, 1, 30.0, '2024-01-05'),
(2, 1, 45.5, '2024-02-11'), (3, 2, 12.0, '2024-02-14');"""


@pytest.fixture(scope="module")
def worker() -> Iterator[sandbox.SqlWorker]:
    with sandbox.SqlWorker() as one:
        yield one


def judged(
    gold: str, reply: str, worker: sandbox.SqlWorker, context: str = SHOP
) -> tuple[verdicts.Gold, Any]:
    """(gold, verdict) of a reply."""
    row: Any = {"id": "1", "completion": gold, "context": context, "prompt": "?"}
    prepared = verdicts.prepare_gold(row, worker, 42, 2.0)
    return prepared, verdicts.score_sql(reply, "stop", prepared, row, worker, 2.0)


WRONG = [
    ("SELECT name FROM customers WHERE city = 'Leeds'", "SELECT name FROM customers WHERE id <> 2"),
    ("SELECT COUNT(*) FROM orders WHERE total > 20", "SELECT 2"),
    ("SELECT COUNT(*) FROM orders WHERE total > 100", "SELECT 0"),
    ("SELECT MAX(total) FROM orders", "SELECT total FROM orders WHERE id = 2"),
    ("SELECT COUNT(*) FROM orders", "SELECT COUNT(*) FROM customers"),
    ("SELECT COUNT(*) FROM orders WHERE total >= 12", "SELECT COUNT(*) FROM orders"),
    ("SELECT name FROM customers JOIN orders ON customers.id = customer_id WHERE total > 40",
     "SELECT name FROM customers WHERE id = 1"),
    ("SELECT DISTINCT name FROM customers", "SELECT name FROM customers"),
    ("SELECT o.id, name FROM orders o JOIN customers c ON c.id = o.customer_id",
     "SELECT o.id, name FROM orders o LEFT JOIN customers c ON c.id = o.customer_id"),
    ("SELECT id FROM orders WHERE total > 20 AND ordered_on < '2024-02-01'",
     "SELECT id FROM orders WHERE total > 20 AND ordered_on <= '2024-01-31' AND customer_id = 1"),
    ("DELETE FROM orders WHERE total < 20", "DELETE FROM orders WHERE id = 3"),
    ("UPDATE customers SET city = 'Hull' WHERE city = 'York'",
     "UPDATE customers SET city = 'Hull' WHERE id = 2"),
    ("INSERT INTO customers SELECT id + 100, name, 'Hull' FROM customers WHERE city = 'York'",
     "INSERT INTO customers VALUES (102, 'Ben', 'Hull')"),
]  # fmt: skip


@pytest.mark.parametrize(("gold", "wrong"), WRONG)
def test_what_passes_by_luck_fails_the_suite(
    gold: str, wrong: str, worker: sandbox.SqlWorker
) -> None:
    prepared, out = judged(gold, wrong, worker)
    assert out["match"] and out["suite_match"] is False
    assert judged(gold, gold, worker)[1]["suite_match"] is True
    assert prepared.suite and prepared.suite.facts["databases"] == len(prepared.suite.databases)


RIGHT = [
    ("SELECT name FROM customers c JOIN orders o ON c.id = o.customer_id GROUP BY c.id, name",
     "SELECT name FROM customers WHERE id IN (SELECT customer_id FROM orders)"),
    ("SELECT name FROM customers WHERE id IN (SELECT customer_id FROM orders)",
     "SELECT name FROM customers c WHERE EXISTS (SELECT 1 FROM orders WHERE customer_id = c.id)"),
    ("SELECT id FROM orders WHERE total BETWEEN 12 AND 40",
     "WITH o AS (SELECT * FROM orders) SELECT id FROM o WHERE 12 <= total AND total <= 40"),
    ("SELECT COUNT(*) FROM orders WHERE total > 20",
     "SELECT COUNT(id) FROM orders WHERE NOT total <= 20"),
    ("SELECT city, COUNT(CASE WHEN id > 1 THEN 1 END) FROM customers GROUP BY city",
     "SELECT city, COUNT(*) FILTER (WHERE id > 1) FROM customers GROUP BY city"),
    ("SELECT id FROM orders ORDER BY total DESC LIMIT 1",
     "SELECT id FROM orders WHERE total = (SELECT MAX(total) FROM orders)"),
    ("SELECT SUM(total) FROM orders WHERE strftime('%Y', ordered_on) = '2024'",
     "SELECT SUM(total) FROM orders WHERE ordered_on BETWEEN '2024-01-01' AND '2024-12-31'"),
    ("DELETE FROM orders WHERE total < 20", "DELETE FROM orders WHERE NOT total >= 20"),
]  # fmt: skip


@pytest.mark.parametrize(("gold", "right"), RIGHT)
def test_another_wording_passes_the_suite(gold: str, right: str, worker: sandbox.SqlWorker) -> None:
    _, out = judged(gold, right, worker)
    assert out["match"] and out["suite_match"] is True


@pytest.mark.parametrize("gold", [gold for gold, _ in WRONG])
def test_a_suite_depends_on_its_gold_alone(gold: str, worker: sandbox.SqlWorker) -> None:
    with sandbox.SqlWorker() as other:
        again, _ = judged(gold, "SELECT name FROM nothing", other)
    first, _ = judged(gold, gold, worker)
    assert first.suite and again.suite and first.suite.facts == again.suite.facts
    assert [d.context for d in first.suite.databases] == [d.context for d in again.suite.databases]


@pytest.mark.parametrize(
    ("context", "gold"),
    [
        (SHOP, "CREATE TABLE t AS SELECT name FROM customers"),
        (SHOP, "SELECT total FROM orders LIMIT 1"),  # any of them
        (SHOP, "SELECT name FROM customers ORDER BY city = 'Leeds' LIMIT 1"),  # likewise
        (SHOP, "SELECT name FROM customers WHERE city = 'Nowhere'"),  # shows nothing
        ("", "SELECT 1"),
    ],
)
def test_rows_without_a_suite(context: str, gold: str, worker: sandbox.SqlWorker) -> None:
    prepared, out = judged(gold, gold, worker, context)
    assert prepared.suite is None and out["suite_match"] is None


ODD_CONTEXTS = [
    "CREATE TABLE t (k TEXT PRIMARY KEY, v INT) WITHOUT ROWID; INSERT INTO t VALUES ('a', 1);",
    "CREATE TABLE t (k INT, v INT, UNIQUE (k, v), CHECK (v < 5)); INSERT INTO t VALUES (1, 1);",
    "CREATE TABLE t (k INT, v INT, w INT AS (v + 1) STORED); INSERT INTO t (k, v) VALUES (1, 1);",
    "CREATE TABLE log (v INT); CREATE TABLE t (k INT, v INT);"
    "CREATE TRIGGER keep AFTER INSERT ON t BEGIN INSERT INTO log VALUES (new.v); END;"
    "INSERT INTO t VALUES (1, 1);",
    'CREATE TABLE t (k INT, v INT, "odd ""name" TEXT); INSERT INTO t VALUES (1, 1, \'; --\');',
    "CREATE TABLE t (k INT, v INT) STRICT; INSERT INTO t VALUES (1, 1)",
]


@pytest.mark.parametrize("context", ODD_CONTEXTS)
def test_constraints_hold_in_every_database(context: str, worker: sandbox.SqlWorker) -> None:
    prepared, _ = judged("SELECT k, v FROM t", "SELECT k FROM t", worker, context)
    assert prepared.suite
    for database in prepared.suite.databases:
        connection = sqlite3.connect(":memory:")
        connection.executescript(database.context)
        assert connection.execute("SELECT COUNT(*) FROM t").fetchone()[0] >= 1
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        connection.close()


def test_declared_partners_are_kept(worker: sandbox.SqlWorker) -> None:
    context = """CREATE TABLE p (id INTEGER PRIMARY KEY, v INT);
    CREATE TABLE c (id INTEGER PRIMARY KEY, p_id INT REFERENCES p (id), w INT);
    INSERT INTO p VALUES (1, 5), (2, 6); INSERT INTO c VALUES (1, 1, 3), (2, 1, 4);"""
    gold = "SELECT c.w, p.v FROM c JOIN p ON c.p_id = p.id"
    prepared, _ = judged(gold, gold, worker, context)
    assert prepared.suite
    for database in prepared.suite.databases:
        connection = sqlite3.connect(":memory:")
        connection.executescript(database.context)
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
        connection.close()


@given(st.sampled_from([gold for gold, _ in WRONG + RIGHT]))
@settings(max_examples=20)
def test_neighbours_leave_the_gold_as_it_was(gold: str) -> None:
    tree = neighbours.gold_tree(gold)
    before = tree.sql("sqlite")
    made = neighbours.neighbours(tree, {"orders": ["id", "total"]})
    assert tree.sql("sqlite") == before and before not in made
    assert 0 < len(set(made)) == len(made) <= neighbours.MAX_NEIGHBOURS


def test_neighbours_of_each_kind() -> None:
    gold = (
        "SELECT a, SUM(b) FROM t JOIN u ON t.k = u.k WHERE a > 3 AND c = 'x' "
        "GROUP BY a ORDER BY a LIMIT 5"
    )
    made = neighbours.neighbours(neighbours.gold_tree(gold), {"t": ["a", "b", "c", "k"]})
    for part in ("WHERE TRUE", "WHERE a > 3 GROUP", "AVG(b)", "LEFT JOIN", "SELECT DISTINCT",
                 "a >= 3", "a > 4", "'xx'", "a DESC", "LIMIT 6", "LIMIT 1000000",
                 'SELECT "b"'):  # fmt: skip
        assert any(part in one for one in made), part
    assert neighbours.constant_query([(1, "it's", None)]) == ["SELECT 1, 'it''s', NULL"]
    assert neighbours.constant_query([]) == []


def test_the_budget_is_counted_and_kept(
    worker: sandbox.SqlWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[sandbox.SqlJob] = []
    real = worker.run_many

    def counting(jobs: Any) -> Any:
        jobs = list(jobs)
        ran.extend(jobs)
        return real(jobs)

    monkeypatch.setattr(worker, "run_many", counting)
    gold = "SELECT DISTINCT id FROM customers WHERE 1 = 1 AND 2 = 2 OR 3 = 4 AND 5 = 6"
    prepared, _ = judged(gold, gold, worker)  # most neighbours mean the same
    assert (
        prepared.suite and prepared.suite.facts["told_apart"] < prepared.suite.facts["neighbours"]
    )
    assert len({j.context for j in ran}) <= 2 * suites.MAX_DATABASES + 1
    assert len(ran) <= suites.MAX_STATEMENTS + neighbours.MAX_NEIGHBOURS + 50


def test_definitions_keep_all_but_the_rows() -> None:
    kept = tables.definitions(ODD_CONTEXTS[3] + SHOP)
    assert kept.count("CREATE") == 5 and "Ada" not in kept and "INSERT INTO log" in kept


def test_an_undeclared_key_that_others_join_on_stays_unique(worker: sandbox.SqlWorker) -> None:
    context = """CREATE TABLE areas (area TEXT, flat INT);
    CREATE TABLE homes (area TEXT, price INT);
    INSERT INTO areas VALUES ('Bay', 1), ('Hill', 0), ('Moor', 1);
    INSERT INTO homes VALUES ('Bay', 7), ('Bay', 8), ('Hill', 9), ('Moor', 5);"""
    gold = "SELECT SUM(h.price) FROM homes h JOIN areas a ON h.area = a.area WHERE a.flat = 1"
    right = "SELECT SUM(price) FROM homes WHERE area IN (SELECT area FROM areas WHERE flat = 1)"
    wrong = "SELECT SUM(price) FROM homes WHERE area <> 'Hill'"
    assert judged(gold, right, worker, context)[1]["suite_match"] is True
    assert judged(gold, wrong, worker, context)[1]["suite_match"] is False


def test_a_gold_that_leaves_too_much_or_takes_too_long_has_no_suite(
    worker: sandbox.SqlWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = (
        "INSERT INTO customers (name) WITH RECURSIVE r(n) AS "
        "(SELECT 1 UNION ALL SELECT n + 1 FROM r WHERE n < 30000) SELECT n FROM r"
    )
    prepared, out = judged(many, many.replace("SELECT n FROM", "SELECT n + 0 FROM"), worker)
    assert prepared.no_suite == suites.TOO_LARGE and out["match"] and out["suite_match"] is None
    monkeypatch.setattr(suites.Patience, "__init__", lambda self: setattr(self, "seconds", 1e-4))
    prepared, out = judged("SELECT COUNT(*) FROM orders", "SELECT 3", worker)
    assert prepared.no_suite == suites.TOO_SLOW and out["match"] and out["suite_match"] is None


def test_values_that_a_gold_needs_unique_stay_as_the_context_shows_them(
    worker: sandbox.SqlWorker,
) -> None:
    context = """CREATE TABLE departments (id INT, name TEXT); CREATE TABLE staff (id INT, pay INT,
    department_id INT); INSERT INTO departments VALUES (1, 'IT'), (2, 'HR'), (3, 'Law');
    INSERT INTO staff VALUES (1, 50, 1), (2, 40, 2), (3, 60, 1), (4, 60, 3);"""
    gold = """UPDATE staff SET pay = pay * 2 WHERE department_id =
    (SELECT id FROM departments WHERE name = 'IT')"""
    prepared, out = judged(gold, gold.replace("=\n", "IN\n"), worker, context)
    assert prepared.suite and out["suite_match"] is True
    wrong = "UPDATE staff SET pay = pay * 2 WHERE department_id = 1"
    assert judged(gold, wrong, worker, context)[1]["suite_match"] is False


@pytest.mark.parametrize(
    ("context", "gold", "right"),
    [
        (  # one row shows nothing of uniqueness: the name tells
            "CREATE TABLE homes (id INT, county TEXT); INSERT INTO homes VALUES (1, 'Kent');"
            "CREATE TABLE counties (county TEXT, people INT); INSERT INTO counties VALUES"
            "('Kent', 9);",
            "SELECT COUNT(*) FROM homes h JOIN counties c ON h.county = c.county WHERE people > 5",
            "SELECT COUNT(*) FROM homes WHERE county IN (SELECT county FROM counties"
            " WHERE people > 5)",
        ),
        (
            "CREATE TABLE food (id INT, name TEXT, category TEXT); INSERT INTO food VALUES"
            "(1, 'fig', 'Fruits'), (2, 'leek', 'Plants'); CREATE TABLE categories (id INT,"
            "name TEXT, heat INT); INSERT INTO categories VALUES (1, 'Fruits', 9),"
            "(2, 'Plants', 3);",
            "SELECT COUNT(*) FROM food f JOIN categories c ON f.category = c.name WHERE heat > 5",
            "SELECT COUNT(*) FROM food WHERE category IN (SELECT name FROM categories"
            " WHERE heat > 5)",
        ),
        (  # a table of links
            "CREATE TABLE artists (id INT, name TEXT); CREATE TABLE plays (artist_id INT,"
            "genre_id INT); INSERT INTO artists VALUES (1, 'Ada'), (2, 'Ben'); INSERT INTO plays"
            " VALUES (1, 1), (2, 2), (1, 2);",
            "SELECT name FROM artists a JOIN plays p ON p.artist_id = a.id WHERE p.genre_id = 2",
            "SELECT name FROM artists WHERE id IN (SELECT artist_id FROM plays WHERE genre_id = 2)",
        ),
    ],
)
def test_keys_that_nobody_declared(
    context: str, gold: str, right: str, worker: sandbox.SqlWorker
) -> None:
    assert judged(gold, right, worker, context)[1]["suite_match"] is True


def test_joins_of_every_kind_are_neighbours(worker: sandbox.SqlWorker) -> None:
    gold = "SELECT name, total FROM customers c JOIN orders o ON c.id = o.customer_id"
    for kind in ("LEFT", "RIGHT") if sqlite3.sqlite_version_info >= (3, 39) else ("LEFT",):
        other = gold.replace("JOIN", f"{kind} JOIN")
        assert judged(gold, other, worker)[1]["suite_match"] is False
        assert judged(other, gold, worker)[1]["suite_match"] is False


def test_true_and_false_are_values_to_seed(worker: sandbox.SqlWorker) -> None:
    context = """CREATE TABLE tastes (customer_id INTEGER, product_id INTEGER, rating INTEGER,
    is_halal INTEGER, country TEXT); INSERT INTO tastes VALUES (3, 3, 5, TRUE, 'UK');"""
    gold = """SELECT COUNT(DISTINCT customer_id) FROM tastes
    WHERE rating >= 3 AND is_halal = true AND country = 'UK'"""
    prepared, out = judged(
        gold,
        "SELECT COUNT(*) FROM tastes WHERE product_id = 3 AND is_halal = TRUE",
        worker,
        context,
    )
    assert out["match"] and out["suite_match"] is False
    assert prepared.suite
    shown = [database.result.rows[0][0] for database in prepared.suite.databases]
    assert sum(count > 0 for count in shown) > len(shown) // 2
