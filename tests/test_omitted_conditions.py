"""What a question names and its query leaves out: added where it is plain, and nowhere else."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemma_lora import candidates
from gemma_lora.candidates import Drawing, choose_for_rows
from gemma_lora.database_scoring import FileWorker
from gemma_lora.generation import Generation
from gemma_lora.mending import Mender
from gemma_lora.omitted_conditions import Completer
from gemma_lora.table_links import schema_of_file

RENTAL = """
CREATE TABLE branches (branch_id INTEGER PRIMARY KEY, city TEXT, region TEXT);
CREATE TABLE cars (car_id INTEGER PRIMARY KEY, plate TEXT, kind TEXT, colour TEXT,
  branch_id INTEGER REFERENCES branches, made TEXT);
CREATE TABLE rents (rent_id INTEGER PRIMARY KEY, car_id INTEGER REFERENCES cars, state TEXT,
  days INTEGER, grade TEXT, opened TEXT, year INTEGER);
CREATE TABLE notes (note_id INTEGER PRIMARY KEY, tone TEXT);
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 12)
  INSERT INTO branches SELECT i, 'City ' || i, iif(i % 2, 'North', 'South') FROM n;
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 40)
  INSERT INTO cars SELECT i, 'AB ' || i, iif(i % 4, iif(i % 3, 'Van', 'Estate'), 'Old Van'),
  iif(i % 5, 'Red', 'Dark Blue'), i % 12 + 1, iif(i % 2, 'Spanish', 'Czech') FROM n;
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 90)
  INSERT INTO rents SELECT i, i % 40 + 1, iif(i % 3, 'Closed', iif(i % 2, 'Open', 'ON')),
  i % 9 + 1, iif(i % 2, 'Average', 'Good'), '2024-01-0' || (i % 9 + 1), 2020 + i % 3 FROM n;
CREATE TABLE people (id INTEGER PRIMARY KEY, name TEXT, country TEXT, car_id INTEGER REFERENCES
  cars, born INTEGER);
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 30)
  INSERT INTO people SELECT i, 'Name ' || i, iif(i % 2, 'Spain', 'France'), i, 1950 + i FROM n;
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20)
  INSERT INTO notes SELECT i, iif(i % 2, 'Grumpy', 'North') FROM n;
"""


@pytest.fixture(scope="module")
def rental(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rental") / "rental.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(RENTAL)
    return path


@pytest.fixture(scope="module")
def completer(rental: Path) -> Iterator[Completer]:
    with closing(sqlite3.connect(rental)) as connection:

        def run(query: str) -> list[tuple[object, ...]]:
            with suppress(sqlite3.Error):
                return connection.execute(query).fetchall()
            return []

        yield Completer(Mender(partial(schema_of_file, rental), run))


@pytest.mark.parametrize(
    ("question", "sql", "change", "right"),
    [
        (
            "how many closed rents are there?",
            "SELECT COUNT(*) FROM rents",
            "state = 'Closed' added",
            "SELECT COUNT(*) FROM rents WHERE state = 'Closed'",
        ),
        (
            "average number of days of closed rents of vans",
            "SELECT AVG(days) FROM rents WHERE state = 'Closed'",
            "kind = 'Van' added",
            "SELECT AVG(days) FROM rents JOIN cars USING (car_id) "
            "WHERE state = 'Closed' AND kind = 'Van'",
        ),
        (
            "plates of the red vans",
            "SELECT plate FROM cars",
            "kind = 'Van' added and colour = 'Red' added",
            "SELECT plate FROM cars WHERE kind = 'Van' AND colour = 'Red'",
        ),
        (  # what is added holds beside either of two
            "red cars: estates, those of czech make",
            "SELECT plate FROM cars WHERE kind = 'Estate' OR made = 'Czech'",
            "colour = 'Red' added",
            "SELECT plate FROM cars WHERE (kind = 'Estate' OR made = 'Czech') AND colour = 'Red'",
        ),
        (  # in a table of the query before any other
            "branches in the north",
            "SELECT city FROM branches",
            "region = 'North' added",
            "SELECT city FROM branches WHERE region = 'North'",
        ),
        (
            "the number of rents for each colour of car, open ones",
            "SELECT colour, COUNT(*) FROM rents JOIN cars USING (car_id) GROUP BY colour",
            "state = 'Open' added",
            "SELECT colour, COUNT(*) FROM rents JOIN cars USING (car_id) WHERE state = 'Open' "
            "GROUP BY colour",
        ),
    ],
)
def test_what_is_plain_is_added(
    question: str, sql: str, change: str, right: str, completer: Completer, rental: Path
) -> None:
    found = completer(sql, question)
    assert found is not None and set(found.changes) == set(change.split(" and "))
    with closing(sqlite3.connect(rental)) as connection:
        assert sorted(connection.execute(found.sql)) == sorted(connection.execute(right)) != []


@pytest.mark.parametrize(
    ("question", "sql"),
    [
        ("how many rents are there?", "SELECT COUNT(*) FROM rents"),  # nothing is left out
        ("closed rents", "SELECT rent_id FROM rents WHERE state = 'Closed'"),
        ("closed rents", "SELECT rent_id FROM rents WHERE state <> 'Closed'"),  # it is said
        ("closed rents", "SELECT rent_id FROM rents WHERE state = 'Open'"),  # it is decided
        ("rents that are not closed", "SELECT rent_id FROM rents"),
        ("rents that aren't closed", "SELECT rent_id FROM rents"),
        ("all rents except the closed", "SELECT rent_id FROM rents"),
        ("closed or open rents", "SELECT rent_id FROM rents"),
        ("closed and open rents", "SELECT rent_id FROM rents"),  # two of one column
        ("average days of rents", "SELECT AVG(days) FROM rents"),  # a word of questions
        ("rents on monday", "SELECT rent_id FROM rents"),  # too short to be told apart
        ("old vans", "SELECT plate FROM cars WHERE kind = 'Old Van'"),  # inside a longer one
        ("colours of the grumpy", "SELECT colour FROM cars"),  # no key leads there
        ("rents in the north", "SELECT rent_id FROM rents"),  # two keys away, or in notes
        ("the rent opened last", "SELECT rent_id FROM rents ORDER BY opened DESC LIMIT 1"),
        ("rents of 2021 with their year", "SELECT rent_id FROM rents WHERE days > 3"),  # a number
        ("spanish people", "SELECT name FROM people WHERE country = 'Spain'"),
        ("czech people", "SELECT name FROM people"),  # their cars are another matter
        ("open estates", "SELECT days FROM rents WHERE days > 99"),  # shows nothing then either
        ("longest closed rent", "SELECT rent_id FROM rents WHERE days = (SELECT MAX(days) FROM "
         "rents)"),  # would belong in both
        ("closed rents", "SELECT nope FROM rents"),  # fails before and after
        ("closed rents", "DELETE FROM rents"),
        ("closed rents", "SELECT rent_id FROM rents UNION SELECT car_id FROM cars"),
        ("closed rents", "SELECT"),
        ("closed rents", ""),
    ],
)  # fmt: skip
def test_what_is_in_doubt_is_left_alone(question: str, sql: str, completer: Completer) -> None:
    assert completer(sql, question) is None


@given(st.text("abcxyz '?", max_size=60))
def test_a_question_that_names_no_kind_changes_nothing(completer: Completer, question: str) -> None:
    assert completer("SELECT plate FROM cars", question) is None


@pytest.mark.parametrize("on_file", [True, False])
def test_the_answer_that_is_taken_gets_it_on_a_file_alone(
    rental: Path, monkeypatch: pytest.MonkeyPatch, on_file: bool
) -> None:
    def said(text: str) -> Generation:
        return Generation(text, 1, 5, "stop", 0.0)

    drawn = [said("SELECT COUNT(*) FROM rents JOIN cars USING (car_id)")]
    monkeypatch.setattr(candidates, "generate_several", lambda *rest: [drawn] * len(rest[2]))
    row = cast(Any, {"context": "CREATE TABLE t (a)", "completion": "", "question": "closed rents"})
    with FileWorker(rental) as worker:
        mender = Mender(partial(schema_of_file, rental), lambda sql: worker.run("", sql, 5.0).rows)
        shown, failed = choose_for_rows(
            cast(Any, None), cast(Any, None), [row, row], ["p", "p"],
            [said("SELECT COUNT(*) FROM rents"), said("SELECT COUNT(*) FROM nope")], worker, 5.0,
            Drawing(1, 9, 1, 1), lambda row: mender, on_file,
        )  # fmt: skip
    assert (shown.candidate, failed.candidate) == (0, 1)
    for one in (shown, failed):
        assert one.mended == (("state = 'Closed' added",) if on_file else ())
        assert ("state = 'Closed'" in one.said.text) == on_file
