"""Tests of drawing other answers where the first fails: which is taken, and what is counted."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
from conftest import run_script
from hypothesis import given
from hypothesis import strategies as st

from gemma_lora import adapters, candidates
from gemma_lora.candidates import Asked, Chosen, Drawing, Showing, choose, choose_for_rows, showing
from gemma_lora.database import DatabaseFile
from gemma_lora.database_scoring import FileWorker
from gemma_lora.figures import TUNED, summarize
from gemma_lora.generation import Generation
from gemma_lora.mending import Mender
from gemma_lora.prompts import render_prompt
from gemma_lora.sandbox import SqlWorker
from gemma_lora.selection import (
    Replacement,
    candidate_sentence,
    compared_models,
    count_candidates,
    with_candidates,
    without_candidates,
)
from gemma_lora.table_links import schema_of_file

PETS = """CREATE TABLE pets (id INTEGER PRIMARY KEY, name TEXT, age INTEGER);
INSERT INTO pets VALUES (1, 'Tom', 3), (2, 'Rex', 11), (3, 'Odd', NULL);"""
DRAWING = Drawing(3, 12, 5, 16)


@pytest.fixture(scope="module")
def worker() -> Iterator[SqlWorker]:
    with SqlWorker(still=True) as one:
        yield one


@pytest.fixture(scope="module")
def tuned(tiny_adapter: Path) -> Any:
    return adapters.load_finetuned(tiny_adapter)


def said(text: str, tokens: int = 5) -> Generation:
    return Generation(text, 10, tokens, "stop", 0.1)


@pytest.mark.parametrize(
    ("sql", "shows"),
    [
        ("SELECT name FROM pets", "rows"),
        ("SELECT COUNT(*) FROM pets WHERE id > 9", "rows"),
        ("SELECT name FROM pets WHERE id > 9", "nothing"),
        ("SELECT MAX(age) FROM pets WHERE id > 9", "nothing"),
        ("SELECT nope FROM pets", "fails"),
        ("SELECT", "fails"),
        ("", "fails"),
        ("PRAGMA table_info(pets)", "fails"),
        ("DELETE FROM pets", "writes"),
        ("WITH a AS (SELECT 1) DELETE FROM pets", "writes"),
        ("DROP TABLE nope", "writes"),
        (
            "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r) SELECT SUM(n) FROM r",
            "fails",
        ),
    ],
)
def test_what_a_query_shows(sql: str, shows: str, worker: SqlWorker, tmp_path: Path) -> None:
    assert showing(sql, lambda query: worker.run(PETS, query, 0.5)) == shows
    path = tmp_path / "pets.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(PETS)
    before = path.read_bytes()
    with DatabaseFile(path, 0.5) as database:
        assert showing(sql, database.run) == shows
    assert path.read_bytes() == before


def test_others_are_drawn_only_where_the_first_shows_nothing(tuned: Any) -> None:
    """With the real model: what stands, how much is drawn, and that it hangs on no neighbour."""
    model, tokenizer = tuned.use("finetuned"), tuned.tokenizer
    shown: list[Showing] = ["rows", "nothing", "writes", "fails"]
    asked = [
        Asked(number, render_prompt(f"question {number}"), said(f"first {number}"), first)
        for number, first in enumerate(shown)
    ]
    tried: list[tuple[int, str]] = []

    def second_one(index: int, answer: Generation) -> Showing:
        tried.append((index, answer.text))
        return "rows" if sum(i == index for i, _ in tried) == 2 else "fails"

    def run(some: Sequence[Asked], size: int) -> list[Chosen]:
        tried.clear()
        drawing = DRAWING._replace(batch_size=size)
        return choose(model, tokenizer, some, second_one, drawing)

    found = run(asked, 16)
    assert [one.candidate for one in found] == [0, 2, 0, 2]
    assert [one.drawn_tokens > 0 for one in found] == [False, True, False, True]
    assert [found[i].said for i in (0, 2)] == [asked[0].first, asked[2].first]
    assert [index for index, _ in tried] == [1, 1, 3, 3]
    again = [run(asked[1:2], 1), run(asked[3:], 1)]
    for (alone,), together in zip(again, (found[1], found[3]), strict=True):
        assert alone.said.text == together.said.text
        assert alone.candidate == together.candidate


def test_the_first_that_shows_rows_is_taken(
    worker: SqlWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = ["SELECT nope FROM pets", "SELECT 1 WHERE 0", "SELECT name FROM pets", "SELECT 2"]

    def several(*arguments: Any) -> list[list[Generation]]:
        return [[said(text, 7) for text in drawn] for _ in arguments[2]]

    monkeypatch.setattr(candidates, "generate_several", several)
    first = [
        "SELECT age FROM pets WHERE id = 9", "SELECT 5", "DELETE FROM pets", "no idea", "SELECT x",
    ]  # fmt: skip
    contexts = [PETS, PETS, PETS, PETS, None]
    rows = [
        cast(
            Any, {"context": context, "completion": "SELECT 5", "question": "How old is number 9?"}
        )
        for context in contexts
    ]
    found = choose_for_rows(
        cast(Any, None), cast(Any, None), rows, ["p"] * 5, [said(text) for text in first],
        worker, 1.0, DRAWING,
    )  # fmt: skip
    assert [one.candidate for one in found] == [3, 0, 0, 3, 0]
    assert [one.said.text for one in found] == [drawn[2], *first[1:3], drawn[2], first[4]]
    assert [one.drawn_tokens for one in found] == [28, 0, 0, 28, 0]


def test_where_none_shows_rows_the_first_is_mended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "pets.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(PETS)
    drawn = [said("SELECT nope FROM pets", 7), said("SELECT 1 WHERE 0", 7)]
    monkeypatch.setattr(
        candidates, "generate_several", lambda *rest: [list(drawn) for _ in rest[2]]
    )
    firsts = ["SELECT nmae FROM pets", "SELECT name FROM pets", "SELECT zzz FROM pets"]
    row = {"context": PETS, "completion": "SELECT name FROM pets", "question": "Which pets?"}
    rows = [cast(Any, row)] * 3
    with FileWorker(path) as worker:
        mender = Mender(partial(schema_of_file, path), lambda sql: worker.run("", sql, 5.0).rows)
        found = choose_for_rows(
            cast(Any, None), cast(Any, None), rows, ["p"] * 3, [said(text) for text in firsts],
            worker, 5.0, DRAWING, lambda row: mender,
        )  # fmt: skip
    assert [one.said.text for one in found] == ["SELECT name FROM pets", *firsts[1:]]
    assert [one.mended for one in found] == [("name for nmae",), (), ()]
    assert [one.candidate for one in found] == [0, 0, 0]


@given(st.lists(st.tuples(st.integers(-1, 3), st.booleans(), st.booleans(), st.booleans())))
def test_counts_of_replaced_answers_agree(rows: list[tuple[int, bool, bool, bool]]) -> None:
    made = [  # -1: the first was mended
        Replacement(
            max(0, number), 9, 0.5, number < 0, right, taken if number else right, True, shows
        )
        for number, right, taken, shows in rows
    ]
    counts = count_candidates(made)
    before = sum(row.first_right for row in made)
    after = sum(row.taken_right for row in made)
    assert after - before == counts["gained"] - counts["lost"]
    assert counts["lost_empty"] <= counts["lost"] <= counts["right_replaced"] <= counts["replaced"]
    assert counts["mended"] == sum(number < 0 for number, *_ in rows) <= counts["replaced"]
    assert counts["tokens"] == 9 * len(made)


def test_names_and_who_is_compared() -> None:
    assert without_candidates(with_candidates("base, 3 shots", 4)) == "base, 3 shots"
    assert without_candidates("base, 3 shots") is None
    names = ["base", "base, 2 candidates", TUNED, f"{TUNED}, 2 candidates"]
    assert compared_models(names, TUNED) == [
        (TUNED, "base"),
        (f"{TUNED}, 2 candidates", TUNED),
        (f"{TUNED}, 2 candidates", "base, 2 candidates"),
    ]
    assert compared_models(["a", "b"], "a") == [("a", "b")]


def test_a_scored_run_shows_candidates_beside_first_answers(
    tiny_adapter: Path, tiny_data: Path, tmp_path: Path
) -> None:
    done = run_script(
        "test_finetuned.py", "--adapter-path", tiny_adapter, "--data", tiny_data, "--num-samples",
        4, "--max-tokens", 6, "--shots", 1, "--candidates", 2, "--output-dir", tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "evaluation.json").read_text())
    lines = (tmp_path / "evaluation_samples.jsonl").read_text().splitlines()
    samples = [json.loads(line) for line in lines]
    assert summarize(samples) == report["summary"]
    names = ["base, 0 shots", "base, 1 shots", TUNED]
    assert list(report["summary"]["models"]) == [
        name for model in names for name in (model, f"{model}, 2 candidates")
    ]
    counts = report["summary"]["models"][f"{TUNED}, 2 candidates"]["candidates"]
    assert counts["drawn_for"] == 4 and counts["tokens"] >= 8 and counts["seconds"] > 0
    text = " ".join(done.stdout.split())
    assert f"{TUNED}, 2 candidates: drawn for 4 rows" in text
    for sample in samples:
        first, taken = sample["outputs"][TUNED], sample["outputs"][f"{TUNED}, 2 candidates"]
        assert taken["candidate"] or taken["text"] == first["text"]


def test_the_sentence_on_candidates_says_one_answer_and_two_answers() -> None:
    row = Replacement(1, 1, 0.5, False, False, True, True, True)
    one = candidate_sentence("m", count_candidates([row]))
    two = candidate_sentence("m", count_candidates([row, row]))
    assert "drawn for 1 row, 1 answer replaced, of these now right: 1; " in one
    assert "drawn for 2 rows, 2 answers replaced, of these now right: 2; " in two
    assert "; 1 token and" in one and "; 2 tokens and" in two
