"""Databases and lexicons as they turn up: no such days, views that fail, other letters."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path

import pytest

from gemma_lora import schema_reading
from gemma_lora.chat import new_file, path_of
from gemma_lora.cli import UserError
from gemma_lora.lexicon import with_lexicon
from gemma_lora.own_database import read_examples, read_own
from gemma_lora.questions import Question, make_questions
from gemma_lora.schema_reading import DatabaseReading, read_database, read_only

NAMES = [f"{a}{b}" for a in ("Al", "Be", "Cor", "Dan", "Es") for b in ("mar", "ton", "ia", "o")]


def database(path: Path, script: str) -> DatabaseReading:
    """A file made by a script, as it is read."""
    with sqlite3.connect(path) as connection:
        connection.executescript(script)
    connection.close()
    return read_database(path)


def made(path: Path, reading: DatabaseReading, wanted: int = 400) -> list[Question]:
    """Questions about it."""
    with read_only(path) as connection:
        return list(make_questions(connection, reading, wanted, 3))


@pytest.mark.parametrize("odd", ["0000-00-00", "9999-12-31", "2020-02-30", "2020-00-00"])
def test_a_day_that_there_is_not_is_asked_about_by_nobody(tmp_path: Path, odd: str) -> None:
    days = ["2021-03-05", "2022-07-19", "2023-11-30", odd]
    held = ", ".join(f"('{name}', '{days[i % 4]}')" for i, name in enumerate(NAMES))
    reading = database(
        tmp_path / "odd.sqlite",
        f"CREATE TABLE players (name TEXT, joined_on TEXT); INSERT INTO players VALUES {held};",
    )
    column = reading.table("players").column("joined_on")
    assert column.role == "date" and set(column.values) == set(days[:3])
    questions = made(tmp_path / "odd.sqlite", reading)
    assert len(questions) > 100 and not any(odd[:4] in q.sql for q in questions)


def test_only_days_that_there_are_not_are_no_dates(tmp_path: Path) -> None:
    held = ", ".join(f"('{name}', '0000-00-00')" for name in NAMES)
    reading = database(
        tmp_path / "none.sqlite",
        f"CREATE TABLE players (name TEXT, joined_on TEXT); INSERT INTO players VALUES {held};",
    )
    assert reading.table("players").column("joined_on").role != "date"


@pytest.mark.parametrize(
    ("view", "why"),
    [
        ("SELECT gone FROM things", "no such column: gone"),
        ("SELECT * FROM nowhere", "no such table: main.nowhere"),
        ("SELECT * FROM odd", "circularly defined"),
        ("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n", "over"),
    ],
)
def test_a_view_that_fails_is_left_out_and_named(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    view: str,
    why: str,
) -> None:
    monkeypatch.setattr(schema_reading, "VIEW_SECONDS", 0.3)
    path = tmp_path / "views.sqlite"
    held = ", ".join(f"('{name}', {i})" for i, name in enumerate(NAMES))
    database_script = (
        f"CREATE TABLE things (name TEXT, weight REAL); INSERT INTO things VALUES {held};"
        f"CREATE VIEW heavy AS SELECT * FROM things WHERE weight > 9; CREATE VIEW odd AS {view};"
    )
    database(path, database_script)
    reading = read_own(path, None)
    assert {t.name for t in reading.tables} == {"things", "heavy"}
    said = capsys.readouterr().out
    assert "left out: the view 'odd'" in said and why in said


def test_a_key_of_two_columns_is_not_followed_by_one(tmp_path: Path) -> None:
    flights = ", ".join(f"('{a}', {n}, '{o}')" for a in "AB" for n, o in enumerate(NAMES[:15]))
    bookings = ", ".join(f"({i}, '{'AB'[i % 2]}', {i % 15}, 'P{i}')" for i in range(60))
    path = tmp_path / "flights.sqlite"
    reading = database(
        path,
        "CREATE TABLE flight (airline TEXT, no INT, origin TEXT, PRIMARY KEY (airline, no));"
        "CREATE TABLE booking (id INTEGER PRIMARY KEY, airline TEXT, no INT, passenger TEXT,"
        " FOREIGN KEY (airline, no) REFERENCES flight (airline, no));"
        f"INSERT INTO flight VALUES {flights}; INSERT INTO booking VALUES {bookings};",
    )
    assert reading.links == ()
    assert not any("JOIN" in q.sql for q in made(path, reading, 200))


def test_letters_of_other_alphabets_stay_in_words(tmp_path: Path) -> None:
    held = ", ".join(f"('{name}', {i})" for i, name in enumerate(NAMES))
    reading = database(
        tmp_path / "kunst.sqlite",
        f'CREATE TABLE Künstler (Name TEXT, "größe_cm" REAL); INSERT INTO Künstler VALUES {held};',
    )
    (table,) = reading.tables
    assert table.words[0] == "künstler"
    assert table.column("größe_cm").words[0] == "größe"


@pytest.mark.parametrize("name", ["", " ", "_"])
def test_a_column_whose_name_has_no_word_is_read(tmp_path: Path, name: str) -> None:
    held = ", ".join(f"('{one}', {i})" for i, one in enumerate(NAMES))
    path = tmp_path / "bare.sqlite"
    reading = database(
        path, f'CREATE TABLE things (name TEXT, "{name}" REAL); INSERT INTO things VALUES {held};'
    )
    assert made(path, reading, 50)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("words: town", "things: words must be a list"),
        ("words: 3", "things: words must be a list"),
        ("words: ['']", "things: words must be a list"),
        ("label: [{a: b}]", "things: label must be a list"),
        ("show: 3", "things: show must be a list"),
        ("columns: [weight]", "columns must be a mapping"),
        ("columns: {weight: {words: heft}}", "things.weight: words must be a list"),
        ("columns: {weight: {sayings: heavy}}", "things.weight: sayings must be a mapping"),
        ("columns: {weight: {values: [1]}}", "things.weight: values must be a mapping"),
        ("columns: {name: {role: measure}}", "things.name: it cannot be a measure"),
        ("columns: {name: {role: date}}", "things.name: it cannot be a date"),
        ("columns: {name: {values: {big: oak}}}", "'big' stands for 'oak', which is none of its"),
    ],
)
def test_a_lexicon_of_another_shape_is_told_so(tmp_path: Path, text: str, says: str) -> None:
    held = ", ".join(f"('{name}', {i})" for i, name in enumerate(NAMES))
    reading = database(
        tmp_path / "t.sqlite",
        f"CREATE TABLE things (name TEXT, weight REAL); INSERT INTO things VALUES {held};",
    )
    lexicon = tmp_path / "words.yml"
    lexicon.write_text(f"tables: {{things: {{{text}}}}}\n")
    with pytest.raises(UserError, match=says):
        with_lexicon(reading, lexicon)


def test_links_that_are_no_list_are_told_so(tmp_path: Path) -> None:
    reading = database(
        tmp_path / "t.sqlite", "CREATE TABLE t (name TEXT); INSERT INTO t VALUES ('a')"
    )
    (tmp_path / "words.yml").write_text("links: 3\n")
    with pytest.raises(UserError, match="links must be a list"):
        with_lexicon(reading, tmp_path / "words.yml")


def test_what_a_lexicon_says_and_nothing_uses_is_told(tmp_path: Path) -> None:
    path, lexicon = tmp_path / "t.sqlite", tmp_path / "words.yml"
    held = ", ".join(f"('{name}', {i})" for i, name in enumerate(NAMES))
    database(
        path, f"CREATE TABLE things (name TEXT, weight REAL); INSERT INTO things VALUES {held}"
    )

    def refused(text: str) -> str:
        lexicon.write_text(text)
        with pytest.raises(UserError) as told:
            read_own(path, lexicon)
        return str(told.value)

    sayings = "tables: {things: {columns: {weight: {sayings: {heavy: '%s'}}}}}\n"
    assert "things.weight: 'heavy' stands for no condition" in refused(sayings % ">> 3 >")
    assert "things.weight: 'heavy' is true of no row" in refused(sayings % "> 3000")
    assert "links name no column 'things.maker'" in refused("links: [things.maker -> things.name]")
    lexicon.write_text(sayings % "> 3")
    assert read_own(path, lexicon).table("things").column("weight").sayings == {"heavy": "> 3"}


def test_an_example_without_a_query_is_named(tmp_path: Path) -> None:
    path = tmp_path / "t.sqlite"
    database(path, "CREATE TABLE t (name TEXT); INSERT INTO t VALUES ('a')")
    examples = tmp_path / "mine.jsonl"
    examples.write_text('{"question": "what", "sql": " "}\n')
    with pytest.raises(UserError, match="1: no question or no sql"):
        read_examples(examples, path)


@pytest.mark.parametrize("typed", ["~nobody-of-this-name/x", "n" * 300])
def test_what_can_be_no_path_is_said(typed: str) -> None:
    with pytest.raises(UserError, match="no path that can be used"):
        path_of(typed)
    with pytest.raises(UserError, match="no path that can be used"):
        new_file(typed, "/save")


def test_a_table_of_many_columns_does_not_take_minutes(tmp_path: Path) -> None:
    """A survey: every two of 200 numbers were compared again for each question (over a minute)."""
    path = tmp_path / "survey.sqlite"
    whats = "age height rent depth width price weight speed load power".split()
    places = [f"{side}_{way}" for side in "nsew" for way in ("up", "down", "in", "out", "by")]
    asked = [f"{what}_{place}" for what in whats for place in places]
    with sqlite3.connect(path) as connection:
        connection.execute(f"CREATE TABLE answers (name TEXT, {', '.join(asked)})")
        marks = ", ".join("?" * (len(asked) + 1))
        held = [(f"Person {i}", *(i * n % 97 for n in range(1, 201))) for i in range(100)]
        connection.executemany(f"INSERT INTO answers VALUES ({marks})", held)
    connection.close()
    begun = time.process_time()
    with read_only(path) as connection:
        found = list(make_questions(connection, read_database(path), 300, 1))
    assert len(found) == 300 and time.process_time() - begun < 45
