"""Conditions of which a question says nothing: left out of an answer, and nothing else is."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, cast

import pytest

from gemma_lora.candidates import Drawing, choose_for_rows
from gemma_lora.generation import Generation
from gemma_lora.sandbox import SqlWorker
from gemma_lora.unasked_conditions import Trimmer, without_unasked

pytest.importorskip("sqlglot")

SAMPLE = Path(__file__).parents[1] / "data" / "sample_sql.jsonl"
PLAYERS = """CREATE TABLE players (id INTEGER, name TEXT, age INTEGER, game TEXT);
INSERT INTO players VALUES (1, 'Ann', 20, 'Chess'), (2, 'Bo', 30, 'Chess'), (3, 'Cy', 40, 'Go');"""


@pytest.mark.parametrize(
    ("question", "condition", "left"),
    [
        ("How old are chess players?", "game = 'Chess' AND name = 'Ann'", "game = 'Chess'"),
        ("How old are chess players?", "name = 'Ann' AND age >= 25", None),
        ("Who plays Go?", "game = 'Go' AND id = 1", "game = 'Go'"),
        ("Who has played since 2020?", "day >= '2020-01-01' AND age > 5", "day >= '2020-01-01'"),
        ("Who is over 25?", "age > 25 OR name = 'Ann' AND age < 7", "age > 25 OR "),
        ("Who is older than the oldest in Go?", "age > (SELECT MAX(age) FROM x WHERE game = 'Go')",
         "age > (SELECT MAX(age) FROM x WHERE game = 'Go')"),
    ],
)  # fmt: skip
def test_what_nobody_asked_for_is_left_out(question: str, condition: str, left: str | None) -> None:
    found = without_unasked(f"SELECT AVG(age) FROM players WHERE {condition}", question)
    sql = found.sql if found else f"SELECT AVG(age) FROM players WHERE {condition}"
    assert sql.partition(" WHERE ")[2].startswith(left or "") and bool(left) == ("WHERE" in sql)


@pytest.mark.parametrize(
    ("question", "condition"),
    [
        ("American customers", "country = 'USA'"),
        ("Customers in the US", "country = 'USA'"),
        ("European customers", "region = 'Europe'"),
        ("restaurants in MA", "state = 'Massachusetts'"),
        ("How many women work here?", "gender = 'Female'"),
        ("Sales in Asia", "country IN ('China', 'Japan', 'India')"),
        ("Who ordered last month?", "day >= DATE('now', '-1 month') AND day >= '2023-01-01'"),
        ("Who ordered in the past year?", "day >= DATE('now', '-12 months')"),
        ("Orders of last month", "day BETWEEN '2024-03-01' AND '2024-03-31'"),
        ("Orders in March", "day LIKE '2024-03%' AND STRFTIME('%m', day) = '03'"),
        ("Those over five feet", "height > 5"),
        ("more than 2.5 million people", "population > 2500000"),
        ("What is out of stock?", "stock = 0"),
        ("Who may vote?", "may_vote = 'Yes' AND is_adult = TRUE"),
        ("Orders not shipped", "shipped IS NULL"),
        ("documents about 'Kant'", "title LIKE '%Kant%'"),
        ("male staff", "sex = 'M'"),
    ],
)
def test_what_may_be_asked_for_stays(question: str, condition: str) -> None:
    assert without_unasked(f"SELECT * FROM t WHERE {condition}", question) is None


@pytest.mark.parametrize(
    "sql",
    [
        "", "no SQL", "DELETE FROM t WHERE a = 7", "SELECT 1", "SELECT (", "SELECT 1; SELECT 2",
        f"SELECT a FROM t WHERE {'(' * 900}a = 7{')' * 900}",
        f"SELECT a FROM t WHERE {'NOT ' * 450}a = 7",
    ],
)  # fmt: skip
def test_other_texts_are_left_alone(sql: str) -> None:
    found = without_unasked(sql, "Who?")
    assert found is None or len(sql) > 900


def test_without_sqlglot_nothing_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sqlglot", None)
    assert without_unasked("SELECT a FROM t WHERE a = 7", "Who?") is None


def test_the_samples_golds_ask_for_all_they_say() -> None:
    rows = [json.loads(line) for line in SAMPLE.open()]
    touched = [row for row in rows if without_unasked(row["sql"], row["sql_prompt"])]
    assert len(rows) > 1000 and len(touched) <= 3, touched


def test_nothing_is_left_out_where_then_nothing_is_shown() -> None:
    sql, question = "SELECT name FROM players WHERE age > 7", "Who plays?"
    assert Trimmer(lambda sql: False)(sql, question) is None
    found = Trimmer(lambda sql: True)(sql, question)
    assert found and found.sql == "SELECT name FROM players"
    assert found.changes == ("age > 7 left out",)


@pytest.mark.parametrize("by_heart", [False, True])
def test_answers_are_trimmed_before_others_are_drawn(
    by_heart: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def none_drawn(*arguments: Any) -> list[list[Generation]]:
        asked.extend(arguments[3])
        return [[] for _ in arguments[2]]

    monkeypatch.setattr("gemma_lora.candidates.generate_several", none_drawn)
    answers = [
        "SELECT AVG(age) FROM players WHERE game = 'Chess' AND name = 'Faker'",  # shows nothing
        "SELECT AVG(age) FROM players WHERE game = 'Chess' AND age >= 25",
        "SELECT AVG(age) FROM players WHERE game = 'Chess'",
    ]
    row = {"context": PLAYERS, "question": "How old are chess players on average?"}
    firsts = [Generation(text, 10, 5, "stop", 0.1) for text in answers]
    with SqlWorker() as worker:
        found = choose_for_rows(
            cast(Any, None), cast(Any, None), cast(Any, [row] * 3), ["p"] * 3, firsts, worker, 5.0,
            Drawing(2, 8, 0, 1), by_heart=by_heart,
        )  # fmt: skip
    taken = answers if by_heart else [answers[2]] * 3
    assert [one.said.text for one in found] == taken
    assert asked == ([0] if by_heart else [])
    assert [bool(one.mended) for one in found] == [not by_heart, not by_heart, False]
