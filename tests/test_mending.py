"""Queries that fail or show nothing, put right by what the file holds."""

from __future__ import annotations

import sqlite3
import sys
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemma_lora import cli, table_links
from gemma_lora.mending import LONGEST, Mended, Mender, mended
from gemma_lora.schema_reading import Link
from gemma_lora.table_links import LONGEST_TEXT, Schema, schema_of_file, schema_of_text

SHOP = """
CREATE TABLE groups (group_id INTEGER PRIMARY KEY, name TEXT);
CREATE TABLE things (thing_id INTEGER PRIMARY KEY, name TEXT, price REAL,
  group_id INTEGER REFERENCES groups);
CREATE TABLE people (person_id INTEGER PRIMARY KEY, name TEXT, city TEXT);
CREATE TABLE staff (staff_id INTEGER PRIMARY KEY, name TEXT, city TEXT, pay REAL);
CREATE TABLE sales (sale_id INTEGER PRIMARY KEY, person_id INTEGER REFERENCES people, state TEXT);
CREATE TABLE lines (line_id INTEGER PRIMARY KEY, sale_id INTEGER REFERENCES sales,
  thing_id INTEGER REFERENCES things, quantity INTEGER);
INSERT INTO groups VALUES (1, 'Kitchen'), (2, 'Garden');
INSERT INTO things VALUES (1, 'Iron Pan 26 cm', 40.0, 1), (2, 'Spade', 20.0, 2),
  (3, 'Hose 20 m', 15.0, 2), (4, 'Hose 50 m', 35.0, 2);
INSERT INTO people VALUES (1, 'Ana Ruiz', 'Lyon'), (2, 'Bo Lind', 'Oslo');
INSERT INTO staff VALUES (1, 'Cy Berg', 'Rome', 9.0), (2, 'Di Wolf', 'Rome', 8.0);
INSERT INTO sales VALUES (1, 1, 'open'), (2, 2, 'closed');
INSERT INTO lines VALUES (1, 1, 1, 2), (2, 2, 2, 1);
"""


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("mending") / "shop.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(SHOP)
    return path


def answer(
    shop: Path, sql: str, question: str = ""
) -> tuple[Mended | None, list[tuple[object, ...]]]:
    """(the query put right, what it then returns)."""
    with closing(sqlite3.connect(shop)) as connection:

        def run(query: str) -> list[tuple[object, ...]]:
            with suppress(sqlite3.Error):
                return connection.execute(query).fetchall()
            return []

        mender = Mender(partial(schema_of_file, shop), run)
        found = mender(sql, question)
        return found, connection.execute(found.sql).fetchall() if found else []


def rows_or_none(connection: sqlite3.Connection, sql: str) -> list[tuple[object, ...]]:
    """The rows of a query, none where it fails."""
    with suppress(sqlite3.Error):
        return connection.execute(sql).fetchall()
    return []


@pytest.mark.parametrize(
    ("sql", "rows", "change"),
    [
        ("SELECT name FROM things WHERE costs < 18", [], None),  # like no column
        # He is no customer, but there is one of that name among the staff.
        ("SELECT city FROM people WHERE name = 'Cy Berg'", [("Rome",)], "staff for people"),
        (
            "SELECT people.city FROM people WHERE people.name = 'Cy Berg' AND person_id > 0",
            [],
            None,
        ),
        ("SELECT name FROM staff WHERE city = 'Lyon'", [("Ana Ruiz",)], "people for staff"),
        ("SELECT name FROM things WHERE prize < 18", [("Hose 20 m",)], "price for prize"),
        ("SELECT name FROM thing WHERE price < 18", [("Hose 20 m",)], "things for thing"),
        ("SELECT state FROM people WHERE city = 'Oslo'", [("closed",)], "sales joined"),
        (
            "SELECT quantity FROM people WHERE city = 'Lyon'",
            [(2,)],
            "sales and lines joined",
        ),
        (
            "SELECT people.name FROM sales JOIN people USING (person_id) "
            "JOIN things USING (thing_id) WHERE things.name = 'Spade'",
            [("Bo Lind",)],
            "lines joined",
        ),
        (
            "SELECT things.name FROM things JOIN groups USING (group_id) "
            "WHERE groups.name = 'kitchen'",
            [("Iron Pan 26 cm",)],
            "'Kitchen' for 'kitchen'",
        ),
        (
            "SELECT price FROM things WHERE name = 'iron pan'",
            [(40.0,)],
            "'Iron Pan 26 cm' for 'iron pan'",
        ),
        ("SELECT price FROM things WHERE name = 'hose'", [], None),  # there are two
        (
            "SELECT name FROM things WHERE name = 'Kitchen'",
            [("Iron Pan 26 cm",)],
            "groups.name for name",
        ),
        ("SELECT things.city FROM things", [], "people.city for things.city"),
        (
            "SELECT name FROM things WHERE price = (SELECT MAX(prize) FROM things)",
            [("Iron Pan 26 cm",)],
            "price for prize",
        ),
        ("SELECT T1.nme FROM things AS T1 WHERE T1.price < 18", [("Hose 20 m",)], "name for nme"),
        (
            "SELECT p.name FROM people p JOIN things t ON p.person_id = t.person_id "
            "WHERE t.name = 'spade'",
            [("Bo Lind",)],
            "sales and lines joined",
        ),
        (
            "SELECT name FROM people WHERE person_id NOT IN "
            "(SELECT person_id FROM sales WHERE sales.person_id = people.person_id)",
            [],
            None,  # nothing to put right
        ),
    ],
)
def test_what_the_file_tells_apart_is_mended(
    sql: str, rows: list[tuple[object, ...]], change: str | None, shop: Path
) -> None:
    found, returned = answer(shop, sql)
    if change is None:
        assert found is None
        return
    assert found and change in found.changes, found
    assert not rows or returned == rows, found


@pytest.mark.parametrize(
    ("question", "name", "change"),
    [
        ("price of the hose 20 m", "Hoses Ltd", "'Hose 20 m' for 'Hoses Ltd'"),
        ("what do SPADES cost?", "Garden Shovel", "'Spade' for 'Garden Shovel'"),
        ("is the hose 20 m longer than the hose 50 m", "Hoses Ltd", None),  # it names two
        ("price of the hose", "Hoses Ltd", None),  # and here none whole
        ("what does 'Spade Lyon' cost", "Lyon", "people.city for name"),  # held by one column
    ],
)
def test_a_text_that_no_column_holds_becomes_the_one_that_the_question_names(
    question: str, name: str, change: str | None, shop: Path
) -> None:
    found, _ = answer(shop, f"SELECT price FROM things WHERE name = '{name}'", question)
    assert (found is None) if change is None else (found and change in found.changes), found


def test_a_name_that_the_query_has_already_is_not_written_twice(shop: Path) -> None:
    sql = "SELECT price FROM things WHERE name = 'Spade' OR name = 'Wheelbarrow'"
    assert answer(shop, sql, "what do the spade and the wheelbarrow cost")[0] is None


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT name FROM things",
        "SELECT a.nme FROM things AS a JOIN things AS b USING (group_id)",  # named twice
        "SELECT nme FROM (SELECT name FROM things)",
        "DELETE FROM thing",
        "SELECT name FROM nowhere",
        "SELECT FROM WHERE",
        "SELECT name FROM things WHERE name = 'Spade' AND " + "(" * 400,
        "SELECT nme FROM things -- " + "x" * LONGEST,
        "",
    ],
)
def test_the_rest_is_left_alone(sql: str, shop: Path) -> None:
    assert answer(shop, sql) == (None, [])


def test_a_view_that_fails_stops_no_mending_and_a_lost_file_does(tmp_path: Path) -> None:
    path = tmp_path / "broken.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(
            "CREATE TABLE a (name TEXT); INSERT INTO a VALUES ('x'); CREATE TABLE b (n);"
            "CREATE VIEW v AS SELECT * FROM b; DROP TABLE b;"
        )
    mended = Mender(partial(schema_of_file, path), lambda sql: [])("SELECT nmae FROM a")
    assert mended is not None and mended.sql == "SELECT name FROM a"
    gone = partial(schema_of_file, tmp_path / "gone.sqlite")
    assert Mender(gone, lambda sql: [])("SELECT nmae FROM a") is None


@pytest.mark.parametrize("largest", [100, 10**8])
def test_a_table_without_rows_and_a_view_of_none_are_taken_for_no_other(
    largest: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table_links, "LARGEST_READ", largest)
    path = tmp_path / "years.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(
            "CREATE TABLE sales_2023 (name TEXT, price REAL);"
            "INSERT INTO sales_2023 VALUES ('a', 1);"
            "CREATE VIRTUAL TABLE sales_2024 USING fts5(name);"
            "CREATE VIEW sales_2022 AS SELECT name FROM sales_2023 WHERE price > 9;"
        )
    mender = Mender(partial(schema_of_file, path), lambda sql: [])
    for year in (2022, 2024):
        assert mender(f"SELECT name FROM sales_{year} WHERE prize = 1") is None
    assert mender("SELECT name FROM sales_2023 WHERE prize = 1")


def test_a_join_is_meant_before_a_view_that_holds_some_of_the_rows(tmp_path: Path) -> None:
    path = tmp_path / "cellar.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(
            "CREATE TABLE kinds (kind_id INTEGER PRIMARY KEY, kind TEXT);"
            "CREATE TABLE drinks (drink TEXT, kind_id INTEGER REFERENCES kinds, gone INTEGER);"
            "INSERT INTO kinds VALUES (1, 'ale'), (2, 'tea');"
            "INSERT INTO drinks VALUES ('Stout', 1, 0), ('Porter', 1, 1), ('Mint', 2, 0);"
            "CREATE VIEW served AS SELECT drink, kind FROM drinks JOIN kinds USING (kind_id)"
            " WHERE NOT gone;"
        )
        mender = Mender(partial(schema_of_file, path), partial(rows_or_none, connection))
        found = mender("SELECT drink FROM drinks WHERE kind = 'ale'")
        assert found is not None and found.changes == ("kinds joined",)
        assert connection.execute(found.sql).fetchall() == [("Stout",), ("Porter",)]


@pytest.mark.parametrize(
    ("sql", "rows"),
    [
        # What Ada sells was sold three times.
        ("SELECT goods.good FROM sold JOIN goods USING (good_id) WHERE good = 'Ada'",
         [("Fig",), ("Nut",)]),
        ("SELECT seller FROM sellers WHERE pieces > 1", [("Ada",)]),
        # Each piece of the lowest table stays, and so does what is counted.
        ("SELECT pieces FROM goods WHERE seller = 'Ada'", [(2,), (2,), (5,)]),
        ("SELECT COUNT(good) FROM sold WHERE seller = 'Ada'", [(3,)]),
    ],
)  # fmt: skip
def test_what_a_join_repeats_is_shown_once(
    sql: str, rows: list[tuple[object, ...]], tmp_path: Path
) -> None:
    path = tmp_path / "market.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(
            "CREATE TABLE sellers (seller_id INTEGER PRIMARY KEY, seller TEXT);"
            "CREATE TABLE goods (good_id INTEGER PRIMARY KEY, good TEXT,"
            " seller_id INTEGER REFERENCES sellers);"
            "CREATE TABLE sold (good_id INTEGER REFERENCES goods, pieces INTEGER);"
            "INSERT INTO sellers VALUES (1, 'Ada'), (2, 'Bo');"
            "INSERT INTO goods VALUES (1, 'Fig', 1), (2, 'Nut', 1), (3, 'Pea', 2);"
            "INSERT INTO sold VALUES (1, 2), (1, 2), (2, 5), (3, 1);"
        )
        mender = Mender(partial(schema_of_file, path), partial(rows_or_none, connection))
        found = mender(sql)
        assert found is not None
        assert sorted(connection.execute(found.sql).fetchall()) == rows
        assert ("each shown once" in found.changes) == ("DISTINCT" in found.sql)


def test_a_large_file_is_known_by_its_declarations(
    shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = schema_of_file(shop)
    monkeypatch.setattr(table_links, "LARGEST_READ", 100)
    assert schema_of_file(shop).columns == whole.columns
    assert set(schema_of_file(shop).links) == set(whole.links)


def test_a_table_that_no_key_leads_to_is_not_joined() -> None:
    schema = Schema({"a": ("id", "x"), "b": ("id", "y")}, ())
    assert mended("SELECT x FROM a WHERE b.y = 1", schema, lambda table, column: ()) is None


def test_of_two_tables_as_near_none_is_chosen() -> None:
    columns = {"a": ("id",), "b": ("a_id", "y"), "c": ("a_id", "y")}
    links = tuple(Link(child, "a_id", "a", "id") for child in "bc")
    assert mended("SELECT y FROM a", Schema(columns, links), lambda table, column: ()) is None
    found = mended("SELECT y FROM a", Schema(columns, links[:1]), lambda table, column: ())
    assert found and found.sql == "SELECT y FROM a JOIN b ON b.a_id = a.id"


WORDS = st.sampled_from(["name", "prize", "city", "things", "people", "groups", "'Spade'", "nope"])


@given(WORDS, WORDS, WORDS, WORDS, WORDS)
def test_what_is_mended_runs_and_needs_no_more(
    one: str, table: str, left: str, right: str, last: str
) -> None:
    """A law: a mended query has nothing left to mend."""
    schema = Schema(
        {"things": ("name", "price"), "people": ("name", "city", "thing")},
        (Link("people", "thing", "things", "name"),),
    )

    def texts(_: str, column: str) -> tuple[str, ...]:
        return ("Spade", "Oslo") if column in ("name", "city") else ()

    sql = f"SELECT {one} FROM {table} WHERE {left} = {right} ORDER BY {last}"
    found = mended(sql, schema, texts)
    if found is not None:
        again = mended(found.sql, schema, texts)
        assert again is None or again.sql == found.sql, (sql, found, again)


CONTEXT = """
CREATE TABLE stores (store_id INT, name TEXT);
CREATE TABLE "wine sales" (id INT PRIMARY KEY, store_id INT, customer INT REFERENCES people(id));
CREATE TABLE people (id INT, full_name TEXT, city_id INT);
CREATE TABLE cities (id INT, name TEXT);
CREATE TABLE visits (visit_id INT, person_id INT, day TEXT);
CREATE TABLE weather (day TEXT, name TEXT);
INSERT INTO stores VALUES (1, 'North');
"""


def test_keys_of_a_text_are_its_declarations_and_its_names() -> None:
    schema = schema_of_text(CONTEXT)
    assert schema.columns["wine sales"] == ("id", "store_id", "customer")
    assert set(schema.links) == {
        Link("wine sales", "customer", "people", "id"),
        Link("wine sales", "store_id", "stores", "store_id"),
        Link("people", "city_id", "cities", "id"),
        Link("visits", "person_id", "people", "id"),
        Link("visits", "day", "weather", "day"),
    }


@pytest.mark.parametrize(
    "text",
    ["", "stores(store_id, name)", "CREATE TABLE", "CREATE TABLE a AS SELECT 1 x", "x" * 10,
     "CREATE TABLE a (b INT);" * (LONGEST_TEXT // 20), "CREATE TABLE (((" + "(" * 3000],
)  # fmt: skip
def test_a_text_without_tables_mends_nothing(text: str) -> None:
    assert Mender(partial(schema_of_text, text), lambda sql: [])("SELECT nmae FROM a") is None


def test_names_of_many_tables_are_not_compared_each_with_each(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """900 tables took over ten minutes; their declared keys are known all the same."""
    declared = "CREATE TABLE a (id INT); CREATE TABLE b (x INT REFERENCES a(id));"
    known = {Link("b", "x", "a", "id")}
    assert set(schema_of_text(declared + CONTEXT).links) > known
    monkeypatch.setattr(table_links, "MOST_COMPARED", 7)
    assert set(schema_of_text(declared + CONTEXT).links) == known | {
        Link("wine sales", "customer", "people", "id")
    }


@pytest.mark.parametrize("library", ["sqlglot", "inflect"])
def test_without_a_library_nothing_is_mended_and_it_is_said(
    library: str, shop: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    monkeypatch.setattr(cli, "_said", set())
    for read in (partial(schema_of_file, shop), partial(schema_of_text, CONTEXT)):
        assert Mender(read, lambda sql: [])("SELECT nmae FROM people") is None
    assert capsys.readouterr().err == f"no mending of queries: pip install {library}\n"


def test_a_row_is_mended_by_its_own_context() -> None:
    texts = {("people", "full_name"): ["Ana Ruiz"], ("stores", "name"): ["North"]}
    found = mended(
        'SELECT T2.full_name FROM "wine sales" AS T1 JOIN people AS T2 ON T1.person = T2.id '
        "JOIN stores AS T3 ON T1.store = T3.id WHERE T3.name = 'north'",
        schema_of_text(CONTEXT),
        lambda table, column: texts.get((table, column), ()),
    )
    assert found and found.sql == (
        'SELECT people.full_name FROM "wine sales" JOIN people '
        'ON "wine sales".customer = people.id JOIN stores '
        "ON \"wine sales\".store_id = stores.store_id WHERE stores.name = 'North'"
    )
