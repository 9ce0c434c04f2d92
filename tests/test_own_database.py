"""A database read as a person reads it, and the questions that are made from it."""

from __future__ import annotations

import json
import re
import sqlite3
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import make_library
import pytest
from conftest import one_line_error, run_script

import dataset
import test_finetuned
from gemma_lora import own_database
from gemma_lora.answers import GivenReply
from gemma_lora.cli import UserError
from gemma_lora.database_scoring import (
    FileWorker,
    on_database,
    prepare_file_gold,
    question_rows,
)
from gemma_lora.figures import Sample
from gemma_lora.files import sha256_of
from gemma_lora.lexicon import reading_yaml, with_lexicon
from gemma_lora.name_reading import column_words, name_words, table_words
from gemma_lora.own_database import EXAMPLE_WEIGHT, read_examples
from gemma_lora.questions import KINDS, Question, make_questions
from gemma_lora.schema_reading import DatabaseReading, read_database, read_only
from gemma_lora.splits import Row
from gemma_lora.wording import MONTHS, load_phrasings


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("db") / "library.sqlite"
    make_library.make_library(path)
    return path


@pytest.fixture(scope="session")
def asked(library: Path) -> list[Question]:
    with read_only(library) as connection:
        return list(make_questions(connection, read_database(library), 1500, 7))


def made(path: Path, script: str) -> DatabaseReading:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(script)
    return read_database(path)


def test_the_last_of_contradicting_examples_counts(
    library: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`/right` of the morning is corrected by `/wrong` of the evening."""
    path = tmp_path / "mine.jsonl"
    kept = [("how many  Books?", "SELECT 1"), ("who?", "SELECT 2"), ("who?", "SELECT 2"),
            ("How many books?", "SELECT COUNT(*) FROM books")]  # fmt: skip
    path.write_text("".join(json.dumps({"question": q, "sql": s}) + "\n" for q, s in kept))
    assert read_examples(path, library) == [
        ("How many books?", "SELECT COUNT(*) FROM books"),
        ("who?", "SELECT 2"),
    ]
    assert "left out: 1 example whose" in capsys.readouterr().out


def test_a_query_cut_at_its_comma_is_refused(library: Path, tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text("question,sql\na,SELECT 1,,\nb,SELECT 1, 2\n")
    with pytest.raises(UserError, match=r"line 3: more cells .*\(' 2'\): .* double quotes"):
        read_examples(path, library)
    path.write_text('question,sql\na,SELECT 1,,\nb,"SELECT 1, 2"\n')
    assert len(read_examples(path, library)) == 2


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("tbl_customers", "customers"),
        ("dtOrdered", "ordered"),
        ("CustomerID", "customer id"),
        ("CUST_ID", "customer id"),
        ("order_items", "order items"),
        ("strName", "name"),
        ("HTTPCode", "http code"),
        ("qty", "quantity"),
        ("flg_discount", "discount"),
        ("strLastNm", "last name"),
        ("bCustLiable", "customer liable"),
        ("cInsur", "insurance"),
        ("tsPmt", "payment"),
        ("strAddr1", "address"),
        ("strAddr2", "address 2"),
        ("nDayRate", "day rate"),
        ("sFName", "first name"),
        ("fName", "first name"),
        ("sPCode", "postcode"),
        ("fActive", "active"),
        ("curFee", "fee"),
        ("memNotes", "notes"),
        ("sNo", "number"),
        ("nID", "id"),
        ("current", "current"),
        ("dna", "dna"),
        ("t", "t"),
    ],
)
def test_names_are_read_as_words(name: str, words: str) -> None:
    assert " ".join(name_words(name)) == words


def test_rows_and_columns_get_the_words_of_people() -> None:
    assert table_words("tbl_order_items") == ("order item",)
    assert table_words("categories") == ("category",)
    assert table_words(" ") == table_words("") == ("unnamed",)  # SQLite allows both
    assert table_words("address") == ("address",)
    assert table_words("tbl_cust_mst") == ("customer",)
    assert column_words("dt_hire", "employee", True) == ("hire date", "hire")
    assert column_words("customer_name", "customer", False)[0] == "name"
    assert column_words("city_name", "shop", False)[0] == "city"
    assert column_words("ordered_on", "order", True)[:2] == ("date ordered", "ordered")


def test_roles_of_the_library(library: Path) -> None:
    reading = read_database(library)
    roles = {f"{t.name}.{c.name}": c.role for t in reading.tables for c in t.columns}
    assert roles["books.author_id"] == "key" and roles["books.published_year"] == "year"
    assert roles["books.price"] == "measure" and roles["books.genre"] == "category"
    assert roles["members.email"] == "code" and roles["members.birth_date"] == "date"
    labels = {t.name: t.label for t in reading.tables}
    assert labels["members"] == ("first_name", "last_name") and labels["books"] == ("title",)
    assert labels["loans"] == ()
    assert ("Karin", "Eklund") not in reading.table("authors").names  # names are whole rows
    assert all(len(name) == 2 for name in reading.table("members").names)


UGLY = """
CREATE TABLE tbl_cust (CustID INTEGER, strName TEXT, flgActive TEXT, intCredit TEXT, dtSince TEXT);
CREATE TABLE tbl_ord (OrdNo INTEGER, CustID INTEGER, dtOrdered INTEGER, strNote TEXT);
CREATE VIEW vw_all AS SELECT * FROM tbl_cust;
CREATE VIRTUAL TABLE docs USING fts5(body);
CREATE TABLE docs_tags (tag TEXT);
INSERT INTO docs_tags VALUES ('a'), ('b');
CREATE TABLE sqlitestats (n INTEGER);
INSERT INTO sqlitestats VALUES (1), (2);
""" + "\n".join(
    f"INSERT INTO tbl_cust VALUES ({i}, 'Name {i}', '{'YN'[i % 2]}', '{i * 10}', "
    f"'{i % 28 + 1:02}.03.20{i % 20:02}'); INSERT INTO tbl_ord VALUES ({i}, {i % 9 + 1}, "
    f"{1700000000 + i * 86400}, 'the customer wants this to be delivered on a quiet morning, {i}');"
    for i in range(1, 41)
)


def test_ugly_names_codes_and_undeclared_keys_are_read(tmp_path: Path) -> None:
    reading = made(tmp_path / "ugly.sqlite", UGLY)
    customers, orders = reading.table("tbl_cust"), reading.table("tbl_ord")
    assert customers.words == ("customer",) and orders.words == ("order",)
    assert customers.label == ("strName",)
    assert customers.column("flgActive").role == "flag"
    assert (customers.column("intCredit").role, customers.column("intCredit").form) == (
        "measure",
        "text",
    )
    assert customers.column("dtSince").form == "dotted"
    assert orders.column("dtOrdered").form == "unix"
    assert orders.column("strNote").role == "text"
    assert [(k.child, k.parent) for k in reading.links if k.child == "tbl_ord"] == [
        ("tbl_ord", "tbl_cust")
    ]
    named = {t.name for t in reading.tables}
    assert {"vw_all", "docs_tags", "sqlitestats"} <= named
    assert not any(name.startswith("docs_") and name != "docs_tags" for name in named)


RENTALS = """
CREATE TABLE tbl_Branch (BrNo INTEGER PRIMARY KEY, strBrNm TEXT);
CREATE TABLE tblVehicle (VehNo INTEGER PRIMARY KEY, strPlate TEXT, nSeats INTEGER, HomeBrNo INT);
CREATE TABLE tblRentHdr (RentID INTEGER PRIMARY KEY, Veh_No INTEGER, PickBr INTEGER, RetBr INTEGER,
  dtOut TEXT, cInsur TEXT, amtTot REAL);
CREATE TABLE tbl_DmgRpt (DmgID INTEGER PRIMARY KEY, RentNo INTEGER, dtRpt TEXT, nRepCost REAL);
CREATE TABLE tbl_tmp_import (F1 TEXT, F2 TEXT);
""" + "\n".join(
    f"INSERT INTO tbl_Branch SELECT {100 + i}, '{chr(64 + i)}town' WHERE {i} < 9;"
    f"INSERT INTO tblVehicle VALUES ({i}, 'AB{chr(64 + i % 26)}-{200 + i}', {i % 3 + 3}, "
    f"{101 + i % 8}); INSERT INTO tblRentHdr VALUES ({20000 + i}, {i % 30 + 1}, {101 + i % 8}, "
    f"{101 + i % 7}, '{i % 12 + 1:02}/{i % 28 + 1:02}/202{i % 4}', "
    f"{['NULL', repr('Y'), repr('N')][i % 3]}, {i * 10.5});"
    f"INSERT INTO tbl_DmgRpt VALUES ({i}, {20001 + i % 30}, '2024-03-{i % 28 + 1:02}', {i * 3});"
    f"INSERT INTO tbl_tmp_import VALUES ('row {i}', '???');"
    for i in range(1, 41)
)


def test_keys_dates_and_names_of_an_old_system_are_read(tmp_path: Path) -> None:
    reading = made(tmp_path / "rentals.sqlite", RENTALS)
    keys = {f"{k.child}.{k.child_column}": k.parent for k in reading.links}
    assert keys == {
        "tblVehicle.HomeBrNo": "tbl_Branch",
        "tblRentHdr.Veh_No": "tblVehicle",
        "tblRentHdr.PickBr": "tbl_Branch",
        "tblRentHdr.RetBr": "tbl_Branch",
        "tbl_DmgRpt.RentNo": "tblRentHdr",
    }
    assert reading.table("tblRentHdr").column("dtOut").form == "month first"
    assert reading.table("tblVehicle").label == ("strPlate",)
    assert reading.table("tbl_DmgRpt").words == ("damage report",)


def test_a_key_leads_to_the_table_it_is_named_after(tmp_path: Path) -> None:
    """Both tables have a unique state_name, and the wrong one comes first."""
    rows = "\n".join(
        f"INSERT INTO highlow VALUES ('state {i}', {i * 100}); "
        f"INSERT INTO state VALUES ('state {i}', {i * 1000});"
        f"INSERT INTO city VALUES ('city {i}', 'state {i % 20}');"
        f"INSERT INTO river VALUES ('river {i}', 'state {i % 30}');"
        for i in range(40)
    )
    reading = made(
        tmp_path / "map.sqlite",
        "CREATE TABLE city (city_name TEXT, state_name TEXT);"
        "CREATE TABLE highlow (state_name TEXT, highest_elevation INT);"
        "CREATE TABLE river (river_name TEXT, traverse TEXT);"
        f"CREATE TABLE state (state_name TEXT, population INT);{rows}",
    )
    keys = {(k.child, k.parent) for k in reading.links}
    assert keys == {("city", "state"), ("highlow", "state"), ("river", "state")}


def test_a_country_that_all_rows_are_in_is_named_as_people_do(tmp_path: Path) -> None:
    rows = "".join(
        f"INSERT INTO rivers VALUES ('river {i}', {i * 31 % 97}, 'usa');" for i in range(60)
    )
    reading = made(
        tmp_path / "map.sqlite", f"CREATE TABLE rivers (name TEXT, length INT, country TEXT);{rows}"
    )
    with read_only(tmp_path / "map.sqlite") as connection:
        found = list(make_questions(connection, reading, 400, 2))
    said = [
        q
        for q in found
        if re.search(r" in (the )?(us|america|united states)\W*$", q.question, re.I)
    ]
    assert said and not any("country" in q.sql for q in said)


def test_what_a_thing_costs_is_its_price(tmp_path: Path) -> None:
    rows = "".join(
        f"INSERT INTO toys VALUES ({i}, 'toy {i}', {i * 7 % 31 + 0.5}, {i * 5 % 23 + 0.25});"
        for i in range(60)
    )
    columns = "id INTEGER PRIMARY KEY, name TEXT, price REAL, cost REAL"
    reading = made(tmp_path / "toys.sqlite", f"CREATE TABLE toys ({columns});{rows}")
    with read_only(tmp_path / "toys.sqlite") as connection:
        found = list(make_questions(connection, reading, 1_200, 2))
    dear = [q for q in found if re.search("expensive|cheap|how much", q.question, re.I)]
    dear = [q for q in dear if not re.search("c[ost]{2,3}", q.question.lower())]  # or mistyped
    assert len(dear) > 10 and not any("cost" in q.sql for q in dear)
    assert not any("cost" in q.sql for q in found if re.search(r"much (is|does)", q.question, re.I))
    named = [q for q in found if re.search(r"\bcosts?\b", q.question, re.I)]
    by_price = [q for q in named if "cost" not in q.sql]
    assert any("cost" in q.sql for q in named)
    assert not any(re.search(r"\bcosts? of\b", q.question, re.I) for q in by_price)


def test_a_measure_that_the_group_has_too_is_told_apart(tmp_path: Path) -> None:
    rows = "".join(
        f"INSERT INTO states VALUES ({i}, 'state {i}', {i * 100});"
        f"INSERT INTO lakes VALUES ({i}, 'lake {i}', {i % 17 * 3}, {i % 20});"
        for i in range(40)
    )
    reading = made(
        tmp_path / "map.sqlite",
        "CREATE TABLE states (id INTEGER PRIMARY KEY, name TEXT, area INT);"
        "CREATE TABLE lakes (id INTEGER PRIMARY KEY, name TEXT, area INT, "
        f"state_id INT REFERENCES states (id));{rows}",
    )
    with read_only(tmp_path / "map.sqlite") as connection:
        found = list(make_questions(connection, reading, 900, 2))
    averages = [q for q in found if "AVG(lakes.area)" in q.sql and "GROUP BY states" in q.sql]
    assert averages and all("lake" in q.question.lower() for q in averages)


def test_dates_with_the_month_first_are_asked_for_and_sorted_as_dates(tmp_path: Path) -> None:
    reading = made(tmp_path / "rentals.sqlite", RENTALS)
    with read_only(tmp_path / "rentals.sqlite") as connection:
        found = list(make_questions(connection, reading, 5000, 5))
    asked = [
        (one.question.lower(), month)
        for one in found
        for month in re.findall(r"substr\(dtOut, 1, 2\) = '(\d\d)'", one.sql)
    ]
    for said, month in asked:  # a slip leaves a letter out or exchanges two
        name = MONTHS[int(month) - 1]
        assert any(
            len(w) >= len(name) - 1 and set(w) <= set(name) for w in re.findall("[a-z]+", said)
        ), said
    assert asked
    newest = [q.sql for q in found if "ORDER BY substr(dtOut" in q.sql]
    assert newest and all(
        "substr(dtOut, 7, 4) || substr(dtOut, 1, 2) || substr(dtOut, 4, 2)" in s for s in newest
    )


def test_of_two_keys_to_one_table_only_the_first_goes_without_its_word(tmp_path: Path) -> None:
    reading = made(tmp_path / "rentals.sqlite", RENTALS)
    with read_only(tmp_path / "rentals.sqlite") as connection:
        found = list(make_questions(connection, reading, 1500, 3))
    others = [q for q in found if re.search(r"ON RetBr = BrNo|RetBr IS", q.sql)]
    letters = set("return")  # a slip leaves one out or exchanges two
    for one in others:
        words = one.question.lower().split()
        assert any(len(word) > 4 and set(word) <= letters | {"s"} for word in words), one
    assert len(others) > 10
    assert any("PickBr" in q.sql and "pick" not in q.question.lower() for q in found)
    flags = [q.sql for q in found if "cInsur" in q.sql]
    assert flags and not any("cInsur IS" in sql for sql in flags)


def test_temporary_tables_are_left_out_unless_wanted(tmp_path: Path) -> None:
    reading = made(tmp_path / "rentals.sqlite", RENTALS)
    assert "tbl_tmp_import" in {t.name for t in reading.tables}
    assert "tbl_tmp_import" not in {t.name for t in with_lexicon(reading, None).tables}
    path = tmp_path / "words.yml"
    described = run_script("dataset.py", "--db", tmp_path / "rentals.sqlite", "--describe")
    assert described.stdout.startswith("left out: 'tbl_tmp_import', by its name a temporary table")
    path.write_text("tables: {tbl_tmp_import: {leave_out: false}}\n")
    assert with_lexicon(reading, path) == reading


def test_a_row_is_named_by_a_name_of_another_word(tmp_path: Path) -> None:
    rows = ", ".join(f"({i}, 'Firm {i}', 'City {i % 3}', {20240101 + i})" for i in range(1, 21))
    reading = made(
        tmp_path / "firms.sqlite",
        "CREATE TABLE suppliers (supplier_id INTEGER PRIMARY KEY, company_name TEXT, city TEXT, "
        f"dtShipped INTEGER); INSERT INTO suppliers VALUES {rows};",
    )
    [suppliers] = reading.tables
    assert suppliers.label == ("company_name",)
    assert suppliers.column("dtShipped").form == "compact"


def test_reading_and_asking_leave_the_file_as_it_was(library: Path, asked: list[Question]) -> None:
    before = sha256_of(library)
    read_database(library)
    assert sha256_of(library) == before and len(list(library.parent.iterdir())) == 1
    assert asked


def test_every_query_answers_on_the_file(library: Path, asked: list[Question]) -> None:
    assert len(asked) == 1500
    with read_only(library) as connection:
        for sql in {one.sql for one in asked}:
            rows = connection.execute(sql).fetchall()
            assert rows and rows not in ([(None,)], [(0,)]), sql


def test_a_single_answer_is_single(library: Path, asked: list[Question]) -> None:
    limited = {one.sql for one in asked if one.kind == "extreme" and one.sql.endswith("LIMIT 1")}
    assert limited
    with read_only(library) as connection:
        for sql in limited:
            best, by, tail = sql.rpartition(" ORDER BY ")
            key = tail.rsplit(" ", 3)[0]
            inner = re.sub("^SELECT .*? FROM", f"SELECT {key} FROM", best)
            first, *others = connection.execute(f"{inner}{by}{tail[:-1]}2").fetchall()
            assert first not in others, sql


def test_the_same_seed_asks_the_same(library: Path, asked: list[Question]) -> None:
    with read_only(library) as connection:
        again = list(make_questions(connection, read_database(library), 200, 7))
        other = list(make_questions(connection, read_database(library), 200, 8))
    assert again[:50] == asked[:50] and other != again


def test_kinds_come_in_their_shares_and_none_dominates(asked: list[Question]) -> None:
    kinds = Counter(one.kind for one in asked)
    # Of tables that the library has not.
    alone = {"own key", "relation", "count named", "contents", "reach", "look up chosen",
             "extension extreme", "extreme of parent"}  # fmt: skip
    assert set(kinds) == set(KINDS) - alone
    assert all(kinds[kind] <= 2 * share * len(asked) + 10 for kind, (_, share) in KINDS.items())
    tables = Counter(one.table for one in asked)
    assert set(tables) == {"branches", "authors", "books", "members", "loans"}
    assert max(tables.values()) < 0.5 * len(asked)
    assert max(Counter(one.sql for one in asked).values()) <= 11


def test_values_are_never_mistyped(asked: list[Question]) -> None:
    slips = 0
    for one in asked:
        said = one.question.lower()
        for value in re.findall(r"'((?:[^']|'')*)'", one.sql):
            if re.fullmatch(r"%\w(-%\w)?|(\d{4}-)?\d\d(-\d\d)?|[0-6]", value):
                continue  # the form of a date, and a month or a day, which are said in words
            text = value.replace("''", "'").lower()
            if one.sql.count(f"'{value}'") and text.strip("%") not in said:
                if "century" in said:
                    continue
                people = load_phrasings().demonyms.get(text, text).lower()
                assert people in said or text in ("y", "n", "unixepoch"), one
        slips += any(w in said for w in ("wihch", "waht", "hwat", "whihc", "nmaes", "boosk"))
    assert len({one.question for one in asked}) == len(asked)


def test_a_lexicon_mends_the_reading(library: Path, tmp_path: Path) -> None:
    path = tmp_path / "words.yml"
    path.write_text(
        "tables:\n"
        "  books:\n"
        "    words: [volume]\n"
        "    columns:\n"
        "      pages: {sayings: {thick: '> 400'}}\n"
        "      price: {leave_out: true}\n"
        "  loans: {leave_out: true}\n"
        "  authors: {columns: {country: {values: {'the emerald isle': Ireland}}}}\n"
    )
    reading = with_lexicon(read_database(library), path)
    with read_only(library) as connection:
        found = list(make_questions(connection, reading, 2500, 1))
    sql, said = " ".join(q.sql for q in found), " ".join(q.question for q in found).lower()
    assert "price" not in sql and "loans" not in sql
    assert "volumes" in said and "books" not in said.replace("number of books", "")
    assert "thick volumes" in said and "pages > 400" in sql
    isle = [q.sql for q in found if "emerald isle" in q.question]
    assert isle and all("'Ireland'" in one for one in isle)


def test_a_lexicon_says_which_of_two_columns_people_mean(tmp_path: Path) -> None:
    """A shop's city and its address's city: only one is asked for, both lead to the region."""
    path, lexicon = tmp_path / "shops.sqlite", tmp_path / "words.yml"
    names = ["leeds", "york", "hull", "bath", "ely", "deal"]
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.executescript(
            "CREATE TABLE cities (city TEXT PRIMARY KEY, region TEXT);"
            "CREATE TABLE shops (id INTEGER PRIMARY KEY, name TEXT, "
            "city TEXT REFERENCES cities (city));"
            "CREATE TABLE addresses (id INTEGER REFERENCES shops (id), house INT, street TEXT, "
            "city TEXT REFERENCES cities (city));"
        )
        for n, city in enumerate(names):
            connection.execute("INSERT INTO cities VALUES (?, ?)", (city, "ns"[n % 2] * 5))
        for n in range(30):
            connection.execute("INSERT INTO shops VALUES (?, ?, ?)", (n, f"S{n}", names[n % 6]))
            row = (n, n % 7, f"{chr(97 + n % 5)} st", names[n * 5 % 6])
            connection.execute("INSERT INTO addresses VALUES (?, ?, ?, ?)", row)
    lexicon.write_text("tables: {shops: {columns: {city: {words: []}}}}\n")
    reading = with_lexicon(read_database(path), lexicon)
    lexicon.write_text(reading_yaml(reading))
    assert with_lexicon(read_database(path), lexicon) == reading
    with read_only(path) as opened:
        made = [q for q in make_questions(opened, reading, 800, 1) if q.table == "shops"]
    asked = [q.sql for q in made if any(f"'{name}'" in q.sql for name in names)]
    assert asked and not any(re.search("shops WHERE city =|shops.city = '", s) for s in asked)
    assert any("addresses.city = '" in sql for sql in asked)
    regions = [q.sql for q in made if re.search("region = '", q.sql)]
    assert regions and not any("addresses" in sql for sql in regions if sql.count("JOIN") == 1)


def test_a_lexicon_that_does_not_fit_names_every_mistake(library: Path, tmp_path: Path) -> None:
    path = tmp_path / "words.yml"
    path.write_text(
        "tables:\n  book: {words: [x]}\n  books: {colour: red, columns: {isbn: {words: [y]}}}\n"
        "  authors: {columns: {name: {words: []}}}\n"
    )
    with pytest.raises(UserError) as error:
        with_lexicon(read_database(library), path)
    parts = ("no table 'book'", "unknown part 'colour'", "no column 'isbn'", "names the rows")
    for part in parts:
        assert part in str(error.value)


def test_what_describe_prints_is_a_lexicon(library: Path, tmp_path: Path) -> None:
    reading = read_database(library)
    path = tmp_path / "words.yml"
    path.write_text(reading_yaml(reading))
    assert with_lexicon(reading, path) == reading


def prepared(folder: Path) -> dict[str, list[dict[str, str]]]:
    return {
        name: [json.loads(line) for line in (folder / f"{name}.jsonl").open()]
        for name in ("train", "valid", "test")
    }


def test_a_database_is_prepared_like_any_source(library: Path, tmp_path: Path) -> None:
    examples = tmp_path / "mine.jsonl"
    mine = {"question": "who never borrows?", "sql": "SELECT last_name FROM members LIMIT 1;"}
    examples.write_text(json.dumps(mine) + "\n")
    out = tmp_path / "data"
    done = run_script(
        "dataset.py", "--db", library, "--sample-size", 300, "--output-dir", out,
        "--examples", examples,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    splits = prepared(out)
    asked_in = {name: {row["completion"] for row in rows} for name, rows in splits.items()}
    assert not asked_in["train"] & asked_in["test"] and not asked_in["train"] & asked_in["valid"]
    assert all("CREATE" not in row["prompt"] for rows in splits.values() for row in rows)
    own = [row for row in splits["train"] if row["question"] == mine["question"]]
    assert len(own) == EXAMPLE_WEIGHT and own[0]["completion"] == mine["sql"].rstrip(";")
    assert not any(row["question"] == mine["question"] for row in splits["test"])
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["source"]["name"] == "library.sqlite"
    assert manifest["source"]["revision"] == read_database(library).schema_hash
    assert manifest["counts"]["kind"]["count"] > 0 and manifest["counts"]["table"]["books"] > 0


def test_an_example_that_never_ends_is_named(
    library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own_database, "EXAMPLE_SECONDS", 0.3)
    path = tmp_path / "slow.jsonl"
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"
    path.write_text(json.dumps({"question": "how many", "sql": endless}))
    with pytest.raises(UserError, match=r"1: not done after 0\.3 s"):
        read_examples(path, library)


def test_examples_that_do_not_run_are_all_named(library: Path, tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text("question,sql\na,SELECT 1\nb,SELECT x FROM y\nc,DELETE FROM books\n")
    with pytest.raises(UserError, match=r"2: no such table: y; 3: .*readonly"):
        read_examples(path, library)


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--db", "{missing}"], "there is no database"),
        (["--db", "{text}"], "not a database"),
        (["--db", "{empty}"], "no table with rows"),
    ],
)
def test_a_database_that_cannot_be_asked_is_one_line(
    flags: list[str], says: str, tmp_path: Path
) -> None:
    (tmp_path / "text.sqlite").write_text("this is no database, but it is long enough " * 9)
    sqlite3.connect(tmp_path / "empty.sqlite").close()
    names = {n: str(tmp_path / f"{n}.sqlite") for n in ("missing", "text", "empty")}
    done = run_script("dataset.py", *(f.format(**names) for f in flags), "--output-dir", tmp_path)
    assert says in one_line_error(done)
    assert not (tmp_path / "missing.sqlite").exists()


def test_describe_prints_the_reading(
    library: Path, script: Callable[..., object], capsys: pytest.CaptureFixture[str]
) -> None:
    assert dataset.main(["--db", str(library), "--describe"]) == 0
    shown = capsys.readouterr().out
    assert "books: 160 rows, each a book, named by title" in shown
    assert "key to authors" in shown and "loans.book_id -> books.book_id" in shown


# --- Scored on the file ---------------------------------------------------------------------------


QUESTIONS = Path(__file__).with_name("library_questions.jsonl")


def replies_scored(rows: list[Row], replies: list[str], db: Path) -> list[Sample]:
    config = test_finetuned.EvaluationConfig(questions=QUESTIONS, db=db)
    given = {"someone": [GivenReply(text, None) for text in replies]}
    return test_finetuned.make_samples(rows, given, config)


def test_the_librarys_own_questions_are_answered_by_their_queries(library: Path) -> None:
    before = sha256_of(library)
    rows = on_database(question_rows(QUESTIONS, library), library)
    assert len(rows) >= 30
    samples = replies_scored(rows, [row["completion"] for row in rows], library)
    assert [s["outputs"]["someone"]["match"] for s in samples] == [True] * len(rows)
    assert not any(s["excluded"] or s["empty_gold"] for s in samples)
    assert sha256_of(library) == before


def test_wrong_and_writing_answers_are_wrong(library: Path) -> None:
    rows = on_database(question_rows(QUESTIONS, library), library)[:3]
    replies = ["SELECT 'x'", "DELETE FROM books", "I do not know"]
    samples = replies_scored(rows, replies, library)
    errors = [s["outputs"]["someone"]["error"] for s in samples]
    assert errors == ["wrong rows", "refused by the sandbox", "no SQL in the reply"]


def test_questions_are_scored_from_the_command_line(
    library: Path, adapter_copy: Path, tmp_path: Path
) -> None:
    mine = tmp_path / "mine.jsonl"
    mine.write_text("".join(QUESTIONS.read_text().splitlines(True)[:4]))
    done = run_script(
        "test_finetuned.py", "--adapter-path", adapter_copy, "--questions", mine, "--db", library,
        "--max-tokens", 8,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "4 questions of mine.jsonl, asked of library.sqlite" in done.stderr
    report = json.loads((adapter_copy / "evaluation.json").read_text())
    assert report["run"]["n"] == 4 and report["run"]["split"] is None


def test_an_adapter_knows_its_database(library: Path, tiny_model: Path, tmp_path: Path) -> None:
    data, adapter = tmp_path / "data", tmp_path / "adapter"
    flags = ["--sample-size", 60, "--output-dir", data, "--model", tiny_model]
    assert run_script("dataset.py", "--db", library, *flags).returncode == 0
    done = run_script(
        "train.py", "--model", tiny_model, "--data", data, "--adapter-path", adapter,
        "--iters", 2, "--warmup", 0, "--batch-size", 2, "--num-layers", 1,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    config = json.loads((adapter / "adapter_config.json").read_text())
    known = {"name": "library.sqlite", "schema_hash": read_database(library).schema_hash}
    assert (config["prompt_context"], config["database"]) == ("values", known)
    assert done.stdout.rstrip().endswith(f"{adapter} --interactive --db library.sqlite")
    other = tmp_path / "other.sqlite"
    with closing(sqlite3.connect(other)) as connection:
        connection.executescript("CREATE TABLE t (a); INSERT INTO t VALUES (1)")
    for path, changed in ((library, False), (other, True)):
        said = run_script(
            "test_finetuned.py", "--adapter-path", adapter, "--interactive", "--db", path,
            "--max-tokens", 4, stdin="How many?\n",
        )  # fmt: skip
        assert said.returncode == 0, said.stderr
        assert ("another schema" in said.stdout) == changed


def test_the_fewest_are_not_asked_where_some_have_none(tmp_path: Path) -> None:
    rows = "".join(
        f"INSERT INTO author VALUES ({i}, 'Author {i}');"
        + "".join(f"INSERT INTO book VALUES ('Title {i} {n}', {i});" for n in range(i))
        for i in range(1, 9)
    )
    script = (
        "CREATE TABLE author (id INTEGER PRIMARY KEY, name TEXT);"
        "CREATE TABLE book (title TEXT, author_id INTEGER REFERENCES author(id));" + rows
    )

    def fewest(path: Path) -> set[str]:
        reading = read_database(path)
        with read_only(path) as connection:
            found = list(make_questions(connection, reading, 800, 3))
        return {q.sql for q in found if "ORDER BY COUNT(*) ASC" in q.sql}

    made(tmp_path / "all.sqlite", script)
    assert fewest(tmp_path / "all.sqlite")
    made(tmp_path / "none.sqlite", script + "INSERT INTO author VALUES (9, 'Author 9');")
    assert not fewest(tmp_path / "none.sqlite")


def test_a_whole_table_of_a_real_size_can_be_scored(tmp_path: Path) -> None:
    path = tmp_path / "many.sqlite"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE t (x INT)")
        connection.executemany("INSERT INTO t VALUES (?)", [(n,) for n in range(5000)])
    row: Row = {"completion": "SELECT x FROM t", "context": None}  # type: ignore[typeddict-item]
    with FileWorker(path) as worker:
        gold = prepare_file_gold(row, worker, 2.0)
    assert gold.excluded is None and gold.result is not None and len(gold.result.rows) == 5000
