"""Numbers are asked for in the units that people count in, and compared in the column's own."""

from __future__ import annotations

import random
import re
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from conftest import questions_of

from gemma_lora.column_roles import Role
from gemma_lora.grammar import Grammar
from gemma_lora.questions import Question
from gemma_lora.said_units import larger_units, units_of
from gemma_lora.schema_reading import DatabaseReading
from gemma_lora.table_reading import ColumnReading
from gemma_lora.wording import load_phrasings

FACTORS = {"minute": 60_000, "second": 1_000, "mb": 10**6, "megabyte": 10**6, "hour": 60}
SAID = re.compile(r"(\d+) (minute|second|hour|megabyte|mb)s?\b", re.IGNORECASE)
COLUMNS = {"milliseconds": ("minute", "second"), "bytes": ("mb", "megabyte"),
           "rest_time_min": ("hour",)}  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> list[Question]:
    """Questions about songs; `temp_min` is a temperature, and no minutes."""
    path: Path = tmp_path_factory.mktemp("songs") / "songs.sqlite"
    rows = [
        (i, f"Song {chr(65 + i % 26)}{i}", 90_000 + 7_913 * i, 2_100_000 + 95_101 * i,
         30 + i * 3, -20 + i % 90)
        for i in range(120)
    ]  # fmt: skip
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(
            "CREATE TABLE songs (song_id INTEGER PRIMARY KEY, name TEXT, milliseconds INTEGER, "
            "bytes INTEGER, rest_time_min INTEGER, temp_min INTEGER)"
        )
        connection.executemany("INSERT INTO songs VALUES (?, ?, ?, ?, ?, ?)", rows)
        connection.commit()
    return questions_of(path, 1_500, 4)


@pytest.mark.parametrize("column", COLUMNS)
def test_a_number_is_compared_in_the_column_s_unit(column: str, made: list[Question]) -> None:
    asked = 0
    for one in made:
        for number, unit in SAID.findall(one.question):
            unit = unit.lower()
            if unit in COLUMNS[column] and one.sql.count(column):
                asked += 1
                numbers = re.findall(rf"{column} (?:[<>]|BETWEEN) (\d+)(?: AND (\d+))?", one.sql)
                written = {n for pair in numbers for n in pair}
                assert str(int(number) * FACTORS[unit]) in written, one
    assert asked >= 10


def test_an_answer_is_given_in_the_unit_that_is_asked_for(made: list[Question]) -> None:
    wanted = [(q, re.search(r" / (\d+)\.0 FROM", q.sql)) for q in made]
    asked = [(q, found[1]) for q, found in wanted if found]
    said = {factor: " ".join(q.question.lower() for q, f in asked if f == factor)
            for factor in ("60000", "1000", "60", "1000000")}  # fmt: skip
    assert "in minutes" in said["60000"] and "in hours" in said["60"]
    assert "in seconds" in said["1000"] and "in mb" in said["1000000"]
    assert any(q.sql.startswith("SELECT AVG(") for q, _ in asked)


def test_a_lowest_temperature_is_no_time(made: list[Question]) -> None:
    about = [q for q in made if re.search(r"temp_min (?:[<>]|BETWEEN)", q.sql)]
    assert about
    assert not [q for q in about if re.search(r"\d hours?\b", q.question) and "rest" not in q.sql]


@pytest.mark.parametrize(
    ("word", "role", "told"),
    [
        ("duration in min", "measure", True),
        ("minutes", "measure", True),
        ("minutes", "text", False),  # of a meeting
        ("min", "measure", False),  # the least
        ("temp min", "measure", False),
        ("m", "measure", False),
    ],
)
def test_which_names_tell_a_unit(word: str, role: Role, told: bool) -> None:
    g = Grammar(DatabaseReading((), (), ""), load_phrasings(), random.Random(1), {}, [])
    assert bool(units_of(g, ColumnReading(word, role, (word,)))) == told


def test_what_a_unit_may_stand_for() -> None:
    assert larger_units()["minute"] == {60, 60_000}
    assert larger_units()["kg"] == {1_000}
