"""The grammar of made questions: what it can ask, and that what it says is what it queries."""

from __future__ import annotations

import random
import re
import sqlite3
from contextlib import closing
from pathlib import Path

import make_library
import pytest

from gemma_lora import questions
from gemma_lora.grammar import Grammar, dealt
from gemma_lora.list_questions import count_named
from gemma_lora.name_reading import column_words, table_words
from gemma_lora.one_meaning import wording_of
from gemma_lora.queries import worth_of
from gemma_lora.questions import Question, make_questions
from gemma_lora.schema_reading import DatabaseReading, read_database, read_only
from gemma_lora.short_sql import shortened
from gemma_lora.wording import UnsayableError, filled, load_phrasings, marked


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("db") / "library.sqlite"
    make_library.make_library(path)
    return path


@pytest.fixture(scope="module")
def made(library: Path) -> list[Question]:
    with read_only(library) as connection:
        return list(make_questions(connection, read_database(library), 6_000, 11))


def database(path: Path, script: str) -> DatabaseReading:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(script)
    return read_database(path)


FORMS = {  # what people ask -> what its query looks like
    "two own conditions": r"FROM books WHERE (language|genre) = '\w+' AND pages [<>]=? \d+$",
    "conditions on two joined tables": r"JOIN authors .*JOIN branches .* WHERE .* AND ",
    "columns beside names": r"^SELECT title, (price|genre|pages|language) FROM books",
    "in an order": r"ORDER BY price DESC$",
    "with columns and in an order": r"^SELECT title, \w+ FROM books .*ORDER BY \w+",
    "either of two": r" IN \('\w+', '\w+'\)",
    "not": r" <> '",
    "a word in a text": r" LIKE '%\w",
    "between years": r"published_year BETWEEN \d{4} AND \d{4}",
    "since": r"published_year >= \d{4}",
    "above the average": r"> \(SELECT AVG\(\w+\) FROM \w+\)",
    "columns compared": r"returned_on [<>] due_on",
    "a condition two keys away": r"FROM loans JOIN books .*JOIN authors .*WHERE",
    "counts in groups": r"^SELECT genre, COUNT\(\*\) FROM books GROUP BY genre",
    "groups of a parent's kind": r"^SELECT country, COUNT\(\*\) FROM books JOIN authors",
    "averages above a number": r"HAVING AVG\(\w+\) [<>] \d",
    "with how many": r"^SELECT (first_name, last_name|title|authors.name), COUNT\(\*\) .*HAVING",
    "the group with the most": r"^SELECT genre FROM books GROUP BY genre ORDER BY COUNT\(\*\) DESC",
    "none of a kind": r"NOT IN \(SELECT \w+ FROM \w+ WHERE (?!.*IS NOT NULL)",
    "what somebody did": r"^SELECT DISTINCT title FROM loans JOIN members",
    "what somebody did and when": r"^SELECT title, loaned_on FROM loans",
    "what is done most often": r"^SELECT title FROM loans .*GROUP BY book_id ORDER BY COUNT",
    "the maker of an extreme": r"^SELECT authors.name FROM books JOIN authors .*(MAX|LIMIT 1)",
    "one extreme for each": r"^SELECT genre, title, M(AX|IN)\(\w+\) FROM books GROUP BY genre",
    "the last date": r"^SELECT MAX\((loaned|joined|acquired)_on\) FROM",
    "a row by its number": r"WHERE loan_id = \d+$",
}


@pytest.mark.parametrize("form", FORMS)
def test_people_s_forms_are_asked(made: list[Question], form: str) -> None:
    assert any(re.search(FORMS[form], one.sql) for one in made)


def test_a_question_says_the_numbers_of_its_query(made: list[Question]) -> None:
    words = "one two three four five six seven eight nine ten".split()
    for one in made:
        said = one.question.lower()
        if re.search(r"\bthis c(?!ountry|ity)\w+", said):  # century, also mistyped
            continue
        # 'the third' is OFFSET 2, a percentage is of 100.
        bare = re.sub(r"'(?:[^']|'')*'| OFFSET \d|100\.0 \*", "", one.sql)
        for number in re.findall(r"(?<![\w.])\d+(?:\.\d+)?", bare):
            spelt = words[int(number) - 1] if number.isdigit() and 0 < int(number) <= 10 else number
            limit = number == "1" or f"LIMIT {number}" in bare
            flag = number in "01"
            grouped = number.isdigit() and f"{int(number):,}" in said  # 2,500
            there = number in said or spelt in said or grouped
            assert there or (limit and number == "1") or flag, one


def test_short_sql_answers_as_long_sql_does(library: Path) -> None:
    reading = read_database(library)
    long = (
        "SELECT books.title, authors.name FROM books JOIN authors ON books.author_id = "
        "authors.author_id JOIN branches ON books.branch_id = branches.branch_id "
        "WHERE branches.name = 'books.title' OR authors.country = 'Ireland'"
    )
    short = shortened(reading, long)
    assert short == (
        "SELECT title, authors.name FROM books JOIN authors USING (author_id) JOIN branches "
        "USING (branch_id) WHERE branches.name = 'books.title' OR country = 'Ireland'"
    )
    with read_only(library) as connection:
        assert connection.execute(short).fetchall() == connection.execute(long).fetchall() != []


def test_a_join_on_a_column_of_two_tables_keeps_its_condition(library: Path) -> None:
    reading = read_database(library)
    sql = (
        "SELECT loans.loan_id FROM books JOIN loans ON books.book_id = loans.book_id "
        "JOIN members ON loans.member_id = members.member_id"
    )
    assert "USING (book_id) JOIN members USING (member_id)" in shortened(reading, sql)
    twice = (
        "SELECT 1 FROM books JOIN loans ON books.price = loans.fine "
        "JOIN x ON loans.book_id = x.book_id"
    )
    assert "JOIN x ON loans.book_id" in shortened(reading, twice)  # books has a book_id as well


def test_a_column_is_written_alike_whether_tables_are_joined_or_not(tmp_path: Path) -> None:
    path = tmp_path / "trade.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript("""
            CREATE TABLE goods (good_id INTEGER PRIMARY KEY, good TEXT, price INT);
            CREATE TABLE "sold goods" (sale INTEGER PRIMARY KEY, good_id INT REFERENCES goods,
              price INT, "day sold" TEXT, buyer TEXT);
            CREATE VIEW dear AS SELECT good, price FROM goods WHERE price > 2;
            INSERT INTO goods VALUES (1, 'tea', 2), (2, 'rice', 3);
            INSERT INTO "sold goods" VALUES (1, 1, 4, '2024-01-02', 'goods.good'),
              (2, 2, 3, '2024-02-03', 'it''s me');
        """)
    reading = read_database(path)
    sold = '"sold goods" JOIN goods ON "sold goods".good_id = goods.good_id'
    using, those = '"sold goods" JOIN goods USING (good_id)', 'FROM "sold goods"'
    for long, short in (
        (f"SELECT goods.good FROM {sold}", f"SELECT good FROM {using}"),  # a view has it as well
        (f"SELECT goods.price FROM {sold}", f"SELECT goods.price FROM {using}"),
        (f"SELECT goods.good_id FROM {sold}", f"SELECT good_id FROM {using}"),
        (
            f'SELECT "sold goods"."day sold" FROM {sold} WHERE buyer = \'goods.good\'',
            f"SELECT \"day sold\" FROM {using} WHERE buyer = 'goods.good'",
        ),
        (
            f"SELECT goods.good FROM {sold} WHERE \"sold goods\".buyer = 'it''s me'",
            f"SELECT good FROM {using} WHERE buyer = 'it''s me'",
        ),
        (
            'SELECT good FROM goods WHERE goods.good_id NOT IN (SELECT good_id FROM "sold goods")',
            'SELECT good FROM goods WHERE goods.good_id NOT IN (SELECT good_id FROM "sold goods")',
        ),
        (  # within, `price` would be what was paid
            f"SELECT good FROM goods WHERE EXISTS (SELECT 1 {those} WHERE goods.price = 3)",
            f"SELECT good FROM goods WHERE EXISTS (SELECT 1 {those} WHERE goods.price = 3)",
        ),
        (
            "SELECT goods.good FROM goods JOIN goods AS other ON other.price > goods.price",
            "SELECT goods.good FROM goods JOIN goods AS other ON other.price > goods.price",
        ),
    ):
        assert shortened(reading, long) == short
        with read_only(path) as connection:
            assert connection.execute(short).fetchall() == connection.execute(long).fetchall()


def test_what_is_made_short_answers_as_it_did(
    library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs: set[tuple[str, str]] = set()

    def kept(reading: DatabaseReading, sql: str) -> str:
        pairs.add((sql, shortened(reading, sql)))
        return shortened(reading, sql)

    monkeypatch.setattr(questions, "shortened", kept)
    with read_only(library) as connection:
        list(questions.make_questions(connection, read_database(library), 300, 11, iter))
        changed = [(long, short) for long, short in pairs if long != short]
        for long, short in changed:
            before, after = (connection.execute(sql).fetchall() for sql in (long, short))
            tie = "LIMIT" in long  # which of them is shown is not said; such golds are dropped
            assert tie or sorted(map(repr, before)) == sorted(map(repr, after)), (long, short)
    assert len(changed) > 60
    assert sum(len(short) for _, short in changed) < 0.9 * sum(len(long) for long, _ in changed)


def test_each_value_is_dealt_once_before_any_again(library: Path) -> None:
    g = Grammar(read_database(library), load_phrasings(), random.Random(3), {}, [])
    cards = tuple(range(20))
    assert sorted(dealt(g, "deck", cards) for _ in cards) == list(cards)
    assert {dealt(g, "deck", cards) for _ in cards} == set(cards)


def test_nearly_all_names_are_asked_about(library: Path, made: list[Question]) -> None:
    said = " ".join(one.question.lower() for one in made)
    books = read_database(library).table("books").names
    assert sum(str(name).lower() in said for (name,) in books) > 0.9 * len(books)


def test_a_phrasing_without_its_words_is_not_used() -> None:
    with pytest.raises(UnsayableError):
        filled(random.Random(0), ("{most} {things}",), {"things": "books"})


def test_a_word_is_not_said_twice_and_a_value_is_left_alone() -> None:
    slots = {"attr": "total", "value": marked("Bora Bora")}
    said = filled(random.Random(0), ("the total {attr} of {value}",), slots)
    assert said == f"the total of {marked('Bora Bora')}"


def test_units_and_kinds_of_number_are_left_out_of_words() -> None:
    assert column_words("weight_kg", "product", False) == ("weight", "weight in kg")
    assert column_words("amt_list_eur", "product", False)[0] == "list price"
    assert column_words("amt_credit_lim", "customer", False) == ("credit limit",)
    assert column_words("qty_on_hand", "product", False)[0] == "stock"
    assert column_words("strEMail", "customer", False) == ("email",)
    assert table_words("t_prodgrp") == ("product group",)


def rows(table: str, values: list[str]) -> str:
    return f"INSERT INTO {table} VALUES {', '.join(values)};"


def test_keys_to_the_same_table_are_read_and_asked(tmp_path: Path) -> None:
    staff = [f"({i}, 'Name {i}', {i // 3 if i > 2 else 'NULL'})" for i in range(1, 25)]
    reading = database(
        tmp_path / "staff.sqlite",
        "CREATE TABLE employees (emp_id INTEGER PRIMARY KEY, name TEXT, manager_id INTEGER);"
        + rows("employees", staff),
    )
    assert [(k.child_column, k.parent_column) for k in reading.links] == [("manager_id", "emp_id")]
    with read_only(tmp_path / "staff.sqlite") as connection:
        found = list(make_questions(connection, reading, 300, 2))
    bosses = [q for q in found if q.kind == "own key"]
    assert any("emp_id = (SELECT manager_id" in q.sql for q in bosses)
    assert any("manager_id = (SELECT emp_id" in q.sql for q in bosses)


def test_texts_that_name_another_table_s_rows_are_keys(tmp_path: Path) -> None:
    states = [f"('State {i}', {1000 * i})" for i in range(1, 31)]
    rivers = [f"('River {i}', {20 * i}, 'State {i % 28 + 1}')" for i in range(1, 61)]
    borders = [f"('State {i}', 'State {i + n}')" for i in range(1, 29) for n in (1, 2)]
    borders.append("('State 5', 'State 9')")
    rivers += ["('River 61', 70, 'State 5')", "('River 62', 75, 'State 5')"]
    reading = database(
        tmp_path / "map.sqlite",
        "CREATE TABLE state (state_name TEXT PRIMARY KEY, area INTEGER);"
        "CREATE TABLE river (river_name TEXT, length INTEGER, runs_through TEXT);"
        "CREATE TABLE border (state_name TEXT, border TEXT);"
        + rows("state", states) + rows("river", rivers) + rows("border", borders),
    )  # fmt: skip
    keys = {(k.child, k.child_column, k.parent) for k in reading.links}
    assert ("river", "runs_through", "state") in keys
    assert {("border", "state_name", "state"), ("border", "border", "state")} <= keys
    with read_only(tmp_path / "map.sqlite") as connection:
        found = list(make_questions(connection, reading, 4_000, 2))
    smallest = r"\(SELECT state_name FROM state ORDER BY area ASC LIMIT 1\)"
    related = r"IN \(SELECT border FROM border WHERE state_name = "
    nested = {
        r"border|neighbou?r|next to": rf"^SELECT area FROM state WHERE state_name {related}'",
        r"states (?:that|which) border": rf"^SELECT river_name FROM river WHERE \w+ {related}'",
        r"smallest state": rf"^SELECT river_name FROM river WHERE runs_through = {smallest}",
        r"(?:bordering|border) the smallest state": rf"state_name {related}{smallest}",
        r"not border|n't border|not next|not bordering": rf"NOT {related}'",
        r"the most (?:other )?states": r"GROUP BY state_name ORDER BY COUNT\(\*\) DESC LIM",
        r"with the most rivers|has the most rivers": "SELECT area FROM river JOIN state",
    }
    for said, query in nested.items():
        assert any(re.search(said, q.question) and re.search(query, q.sql) for q in found), said
    # What is joined is asked for, not the borders; and one question has one query.
    asked = [
        re.sub(r"(?i)\bsh\w+ (?:a )?border with", "", q.question)  # 'sharing', also mistyped
        for q in found
        if q.kind != "relation"
    ]
    things = r"(?i)\bborders? (?:with|of|that)|border infos"
    assert [q for q in asked if re.search(things, q)] == []
    alone = [
        q
        for q in found
        if q.kind == "list" and re.search(rf"WHERE state_name {related}'[^']*'\)$", q.sql)
    ]
    assert not alone


def test_what_was_sold_is_worth_quantity_times_price(tmp_path: Path) -> None:
    sold = [f"({i}, {i % 9 + 1}, {i % 5 + 1}, {i * 1.5}, 0.{i % 4})" for i in range(1, 61)]
    things = [f"({i}, 'Thing {i}')" for i in range(1, 10)]
    reading = database(
        tmp_path / "shop.sqlite",
        "CREATE TABLE products (product_id INTEGER PRIMARY KEY, name TEXT);"
        "CREATE TABLE order_items (order_item_id INTEGER PRIMARY KEY, product_id INTEGER, "
        "quantity INTEGER, unit_price REAL, discount REAL);"
        + rows("products", things) + rows("order_items", sold),
    )  # fmt: skip
    assert worth_of(reading.table("order_items")).endswith("(1 - \x00order_items.\x01discount)")
    with read_only(tmp_path / "shop.sqlite") as connection:
        found = list(make_questions(connection, reading, 300, 2))
    wanted = "SUM(quantity * unit_price * (1 - discount))"
    assert any(wanted in q.sql and "revenue" in q.question.lower() for q in found)


def test_rows_of_one_name_are_counted_by_it_however_many_names_there_are(tmp_path: Path) -> None:
    """'How many starbucks are there?', which the first 5,000 names do not show to be several."""
    reading = database(
        tmp_path / "shops.sqlite",
        "CREATE TABLE shops (id INTEGER PRIMARY KEY, name TEXT, city TEXT);"
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 9000) "
        "INSERT INTO shops SELECT i, iif(i % 9 = 0, 'Chain ' || (i % 70), 'Shop ' || i), "
        "'City ' || (i % 40) FROM n;",
    )
    [table] = reading.tables
    assert len(table.names) == 5000
    assert {name for (name,) in table.repeated} == {f"Chain {i}" for i in range(70)}
    with read_only(tmp_path / "shops.sqlite") as connection:
        made = [q for q in make_questions(connection, reading, 400, 3) if q.kind == "count named"]
    assert made
    assert all(re.search(r"COUNT\(\*\) FROM shops WHERE .*name = 'Chain \d+'", q.sql) for q in made)


def test_what_narrows_rows_of_one_name_is_said(tmp_path: Path) -> None:
    """'How many Song 3 are there' is not asked of the short ones alone."""
    reading = database(
        tmp_path / "tracks.sqlite",
        "CREATE TABLE tracks (id INTEGER PRIMARY KEY, name TEXT, seconds INTEGER);"
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300) "
        "INSERT INTO tracks SELECT i, 'Song ' || (i % 190), 100 + i * 7 % 90 FROM n;",
    )
    grammar = Grammar(reading, load_phrasings(), random.Random(0), {}, [])
    made = [draft for _ in range(300) if (draft := count_named(grammar, reading.tables[0]))]
    plain, narrowed = (
        {wording_of(d.question) for d in made if ("seconds" in d.sql) is told}
        for told in (False, True)
    )
    assert plain and narrowed and not plain & narrowed


def test_what_is_sold_out_and_what_got_five_stars(tmp_path: Path) -> None:
    reading = database(
        tmp_path / "shop.sqlite",
        "CREATE TABLE products (id INTEGER PRIMARY KEY, name TEXT, stock INTEGER, stars INTEGER);"
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 60) "
        "INSERT INTO products SELECT i, 'Thing ' || i, i % 7, i % 5 + 1 FROM n;",
    )
    with read_only(tmp_path / "shop.sqlite") as connection:
        made = list(make_questions(connection, reading, 1500, 3))
    none = [q for q in made if re.search("out of stock|sold out|none are left", q.question)]
    assert none and all("stock = 0" in q.sql for q in none)
    said = dict(zip("one two three four five".split(), "12345", strict=True))
    stars = {
        q: m[1] for q in made if (m := re.search(rf"with (\d|{'|'.join(said)}) stars", q.question))
    }
    assert {n.isdigit() for n in stars.values()} == {True, False}
    assert all(f"stars = {said.get(n, n)}" in q.sql for q, n in stars.items())
