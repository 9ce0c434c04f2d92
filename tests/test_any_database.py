"""Questions are made of any database: files drawn at random, with keys, gaps, views, chains."""

from __future__ import annotations

import random
import sqlite3
from pathlib import Path
from typing import NamedTuple

import pytest
from conftest import questions_of

from gemma_lora.questions import make_questions
from gemma_lora.schema_reading import read_database, read_only

THINGS = """customer order product supplier employee invoice payment region city player match course
    student room booking pet visit book loan branch car rental route stop ticket event venue artist
    album track shipper category review warehouse project task""".split()
COLUMNS = {
    "number": "price amount quantity weight age population area salary total discount score stars "
    "units_in_stock duration_min capacity founded_year unit_price freight",
    "kind": "status type color city country gender title species brand currency language region",
    "text": "name title description email phone address first_name last_name notes code",
    "day": "order_date created_at birth_date hire_date due_date dtShipped start_date end_date",
    "flag": "is_active discontinued paid fDone",
}
MOST = {"number": 3, "kind": 3, "text": 3, "day": 2, "flag": 1}  # columns of a sort in a table
WORDS = "red blue green north south big small new old".split()


class Made(NamedTuple):
    """A table that is there, for others to lead to."""

    name: str
    key: str
    rows: int


def drawn_keys(draw: random.Random, made: list[Made]) -> dict[str, Made]:
    """{column: the table that it leads to}, under the names that people give to keys."""
    keys = {}
    for parent in draw.choices(made, k=draw.choice((0, 1, 1, 2, 3))) if made else []:
        own = parent.key if parent.key != "id" else "ref_id"
        name = draw.choice((f"{parent.name.lower()}_id", own, f"from_{parent.key}", "reports_to"))
        keys[name] = parent
    return keys


def value(draw: random.Random, sort: str, name: str, row: int) -> object:
    """A value of a column of some sort; one in 17 is missing."""
    if draw.random() < 0.06:
        return None
    if sort == "number":
        return draw.randint(1950, 2024) if "year" in name else round(draw.random() * 99, row % 3)
    if sort == "kind":
        return draw.choice(WORDS[: 1 + len(name) % 7])
    if sort == "day":
        return f"{draw.randint(2018, 2024)}-{draw.randint(1, 12):02}-{draw.randint(1, 28):02}"
    return draw.randint(0, 1) if sort == "flag" else f"{name[:3].title()} {chr(97 + row % 26)}{row}"


def add_table(
    connection: sqlite3.Connection, draw: random.Random, thing: str, made: list[Made]
) -> Made:
    """One more table, some of whose columns lead to the tables made before it."""
    name = draw.choice((thing, f"{thing}s", f"tbl_{thing}s", f"{thing.title()} Details"))
    key = draw.choice((f"{thing}_id", "id", f"{thing}ID", "no"))
    keys = {k: p for k, p in drawn_keys(draw, made).items() if k.lower() != key.lower()}
    sorts = dict.fromkeys((key, *keys), "key")
    for sort, names in COLUMNS.items():
        for column in draw.sample(names.split(), draw.randint(0, MOST[sort])):
            sorts.setdefault(column, sort)
    rows = draw.choice((1, 3, 12, 40, 120))
    declared = [f'"{c}"' + (" INTEGER PRIMARY KEY" if c == key else "") for c in sorts]
    if draw.random() < 0.7:
        declared += [
            f'FOREIGN KEY ("{k}") REFERENCES "{p.name}"("{p.key}")' for k, p in keys.items()
        ]
    connection.execute(f'CREATE TABLE "{name}" ({", ".join(declared)})')
    unused = {k for k in keys if draw.random() < 0.15}  # keys that no row uses
    for row in range(rows):
        held: list[object] = [row + 1]
        for column, sort in list(sorts.items())[1:]:
            if column in keys:
                lost = column in unused or draw.random() < 0.1
                held.append(None if lost else draw.randint(1, keys[column].rows))
            else:
                held.append(value(draw, sort, column, row))
        connection.execute(f'INSERT INTO "{name}" VALUES ({", ".join("?" * len(held))})', held)
    return Made(name, key, rows)


def any_database(path: Path, seed: int) -> None:
    """A file of two to eight tables, in half of them a view."""
    draw, made = random.Random(seed), list[Made]()
    with sqlite3.connect(path) as connection:
        for thing in draw.sample(THINGS, draw.randint(2, 8)):
            made.append(add_table(connection, draw, thing, made))
        if draw.random() < 0.5:
            shown = draw.choice(made).name
            connection.execute(f'CREATE VIEW "{shown} totals" AS SELECT *, 2 AS two FROM "{shown}"')
    connection.close()


@pytest.mark.parametrize("seed", range(25))
def test_questions_are_made_of_any_database(tmp_path: Path, seed: int) -> None:
    path = tmp_path / "any.sqlite"
    any_database(path, seed)
    with read_only(path) as connection:
        found = list(make_questions(connection, read_database(path), 80, seed))
        assert len(found) == 80
        for one in found:
            assert connection.execute(one.sql).fetchone() is not None, one
    said = " ".join(f"{one.question} {one.sql}" for one in found)
    assert not set(said) & set("{}\x00\x01\x02\x03") and "None" not in said


def test_a_key_that_no_row_uses_leads_nowhere(tmp_path: Path) -> None:
    path = tmp_path / "unused.sqlite"
    with sqlite3.connect(path) as connection:
        connection.executescript(
            "CREATE TABLE teams (id INTEGER PRIMARY KEY, name TEXT);"
            "CREATE TABLE players (id INTEGER PRIMARY KEY, name TEXT, team REFERENCES teams(id));"
            "INSERT INTO teams VALUES (1, 'Reds'), (2, 'Blues');"
            "INSERT INTO players VALUES (1, 'Ann', NULL), (2, 'Bob', NULL), (3, 'Cid', NULL);"
        )
    connection.close()
    assert read_database(path).links == ()
    assert len(questions_of(path, 20, 1)) == 20
