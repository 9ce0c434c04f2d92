"""Questions that are said alike and have the same answer are asked with the same query."""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import questions_of

from gemma_lora.one_meaning import (
    Said,
    one_meaning,
    shape_of,
    values_of,
    with_values,
    wording_of,
)
from gemma_lora.queries import Draft
from gemma_lora.questions import answers, drawn_questions
from gemma_lora.schema_reading import DatabaseReading, read_only

NAMES = ("Ada Birch", "Bo Cray", "Cleo Dunn", "Dov Esk", "Eve Finn", "Flo Gant", "Gil Hope")
TOWNS = ("Ulm", "Rye", "Pau")
LANDS = ("Germany", "England", "France")


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A shop: two places of a customer, sums and goods in two tables, a view of dear goods."""
    path = tmp_path_factory.mktemp("alike") / "alike.sqlite"
    with sqlite3.connect(path) as connection:
        connection.executescript("""
            CREATE TABLE customers (id INTEGER PRIMARY KEY, name TEXT, city TEXT, country TEXT);
            CREATE TABLE goods (id INTEGER PRIMARY KEY, name TEXT, price REAL);
            CREATE TABLE invoices (id INTEGER PRIMARY KEY, customer_id INTEGER REFERENCES customers,
                day TEXT, total REAL);
            CREATE TABLE lines (id INTEGER PRIMARY KEY, invoice_id INTEGER REFERENCES invoices,
                good_id INTEGER REFERENCES goods, quantity INTEGER, unit_price REAL);
            CREATE TABLE shelf (name TEXT, price REAL);
            CREATE VIEW dear_goods AS SELECT name, price FROM goods WHERE price > 9;
        """)
        rows = {
            "customers": [(i, n, TOWNS[i % 3], LANDS[i % 3]) for i, n in enumerate(NAMES)],
            "goods": [(i, f"Jam {chr(65 + i)}", 2 + i / 2) for i in range(24)],
            "shelf": [(f"Jam {chr(65 + i)}", 2 + i / 2) for i in range(24)],
            "invoices": [(i, i % 7, f"2024-0{i % 9 + 1}-11", 3.5 * i % 97) for i in range(60)],
            "lines": [(i, i % 60, i % 24, i % 5 + 1, 2 + i % 24 / 2) for i in range(150)],
        }
        for table, held in rows.items():
            marks = ", ".join("?" * len(held[0]))
            connection.executemany(f"INSERT INTO {table} VALUES ({marks})", held)
    connection.close()
    return path


@pytest.fixture
def connection(file: Path) -> Iterator[sqlite3.Connection]:
    """The file, read-only."""
    with read_only(file) as opened:
        yield opened


def answering(connection: sqlite3.Connection) -> Callable[[str], bool]:
    """Whether a query returns something of the file."""
    return lambda sql: answers(connection, Draft("", sql, ""))


def answered_twice(connection: sqlite3.Connection, said: list[Said]) -> list[tuple[str, str]]:
    """(question, another query for its wording that answers for its values too)."""
    shapes: dict[str, set[str]] = defaultdict(set)
    for one in said:
        shapes[wording_of(one.question)].add(shape_of(one.sql))
    found = []
    for one in said:
        for shape in shapes[wording_of(one.question)] - {shape_of(one.sql)}:
            sql = with_values(shape, values_of(one.sql))
            if sql and " LIMIT " not in sql and answering(connection)(sql):
                found.append((one.question, sql))
    return found


def test_no_question_has_two_answers(
    connection: sqlite3.Connection, reading: DatabaseReading
) -> None:
    """As drawn some have: goods have their price twice."""
    drawn = [said for said, _ in drawn_questions(connection, reading, 3_000, 5)]
    before = answered_twice(connection, drawn)
    assert not [k for k in reading.links if k.child == "shelf"]  # a price tells no row
    assert any("how much is" in question for question, _ in before)
    queries = one_meaning(drawn, reading.tables, answering(connection))
    after = [one._replace(sql=sql) for one, sql in zip(drawn, queries, strict=True)]
    assert answered_twice(connection, after) == []


def test_tables_are_meant_before_views_and_few_joins_before_many(
    connection: sqlite3.Connection, reading: DatabaseReading
) -> None:
    """The same wording of other values: a cheap good is in the table alone."""
    price = "SELECT price FROM {} WHERE name = '{}'"
    total = (
        "SELECT SUM(total) FROM invoices JOIN customers ON customer_id = customers.id "
        "WHERE name = '{}'"
    )
    lines = (
        "SELECT SUM(quantity * unit_price) FROM lines JOIN invoices ON invoice_id = invoices.id "
        "JOIN customers ON customer_id = customers.id WHERE name = '{}'"
    )
    said = [
        Said("how much is \x02jam X\x03", price.format("dear_goods", "Jam X")),
        Said("how much is \x02Jam A\x03", price.format("goods", "Jam A")),
        Said("what did \x02Bo Cray\x03 spend", lines.format("Bo Cray")),
        Said("What did \x02ada birch\x03 spend", total.format("Ada Birch")),
        Said("what did \x02Nobody\x03 spend", lines.format("Nobody")),
    ]
    found = one_meaning(said, reading.tables, answering(connection))
    assert found == [
        price.format("goods", "Jam X"), said[1].sql, total.format("Bo Cray"), said[3].sql,
        said[4].sql,
    ]  # fmt: skip


def test_a_query_is_its_shape_and_its_values(file: Path) -> None:
    """Of every made query, names with digits and quotes in them too."""
    queries = [one.sql for one in questions_of(file, 400, 1)]
    queries += ["""SELECT "Sales 1997" FROM "A ?" WHERE a = 'it''s 5' AND b1 > -2.5 LIMIT 3"""]
    assert values_of(queries[-1]) == ["'it''s 5'", "-2.5", "3"]
    for sql in queries:
        assert with_values(shape_of(sql), values_of(sql)) == sql
    assert with_values(shape_of("SELECT 1"), []) is None


def test_where_people_live_is_one_place(file: Path) -> None:
    """Their town; where they come from is their country."""
    made = [q for q in questions_of(file, 6_000, 4) if q.table == "customers"]
    where = [q for q in made if q.question.lower().startswith("where does")]
    live = {q.sql for q in where if " live" in q.question}
    come = {q.sql for q in where if "come from" in q.question}
    assert live and all(sql.startswith("SELECT city ") for sql in live)
    assert come and all(sql.startswith("SELECT country ") for sql in come)
