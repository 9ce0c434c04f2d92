"""Rows of tables in the prompt: the same for a context and for a file, clipped, as many as fit."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dataset
import test_finetuned
from gemma_lora import context_rows, splits
from gemma_lora.adapters import load_finetuned
from gemma_lora.context_rows import Shown, fewer_and_fewer, first_rows, rows_of_contexts
from gemma_lora.database import DatabaseFile, Relation, declared_relations
from gemma_lora.prompts import render_example, sql_prompt
from gemma_lora.sandbox import SqlWorker
from gemma_lora.schema_prompt import render_question
from gemma_lora.sql_text import schema_of

PETS = """CREATE TABLE pets (name TEXT, age INT);
INSERT INTO pets VALUES ('Rex', 3), ('Mia', NULL), ('O''Neil', 5), ('Bo', 7);
CREATE TABLE "order" (note TEXT); CREATE VIEW old AS SELECT * FROM pets WHERE age > 4;
INSERT INTO "order" VALUES ('a long note that goes on and on and on and on'), (x'00ff10');"""
SHOWN = """CREATE TABLE pets (name TEXT, age INT);
INSERT INTO pets VALUES ('Rex', 3), ('Mia', NULL), ('O''Neil', 5);
CREATE TABLE "order" (note TEXT);
INSERT INTO "order" VALUES ('a long note that goes on and...'), (X'00ff10');
CREATE VIEW old AS SELECT * FROM pets WHERE age > 4;"""


@pytest.fixture(scope="module")
def worker() -> Iterator[SqlWorker]:
    with SqlWorker() as made:
        yield made


def test_a_context_shows_three_rows_of_each_table(worker: SqlWorker) -> None:
    [found] = rows_of_contexts([PETS], worker, 2.0)
    texts = fewer_and_fewer(found)
    assert texts[0] == SHOWN
    assert [text.count("'Rex'") for text in texts] == [1, 1, 1, 0]
    assert [text.count("'Mia'") for text in texts] == [1, 1, 0, 0]
    assert "INSERT" not in texts[-1]


def test_a_file_shows_what_its_context_would(worker: SqlWorker, tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "pets.db")
    connection.executescript(PETS)
    connection.close()
    [expected] = rows_of_contexts([PETS], worker, 2.0)
    with DatabaseFile(tmp_path / "pets.db") as database:
        found = [Shown(r, first_rows(database, r)) for r in database.relations()]
    assert fewer_and_fewer(found) == fewer_and_fewer(expected)


def test_every_context_has_its_turn(worker: SqlWorker) -> None:
    """Without tables, with a broken one, with an endless one: the next ones get their own rows."""
    endless = (
        "CREATE TABLE t (a); WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) "
        "INSERT INTO t SELECT i FROM n;"
    )
    one = "CREATE TABLE a (x); INSERT INTO a VALUES (1);"
    two = one + "CREATE TABLE b (y); INSERT INTO b VALUES (2);"
    contexts = ["", one, "a, b, c", two, "CREATE TABLE bad (;", endless, two]
    found = list(rows_of_contexts(contexts, worker, 0.2))
    rows = [[[list(row) for row in shown.rows] for shown in each] for each in found]
    assert rows == [[], [[[1]]], [], [[[1]], [[2]]], [[]], [[]], [[[1]], [[2]]]]


@given(st.text(max_size=90))
@settings(max_examples=60, deadline=None)
def test_shown_values_are_short_lines_that_sqlite_reads_back(text: str) -> None:
    value = context_rows.clipped(text)
    assert len(value) <= context_rows.VALUE_CHARACTERS
    assert value == " ".join(value.split())
    line = context_rows.written("t", [[value]])
    if "\x00" not in line and not any("\ud800" <= c <= "\udfff" for c in line):
        connection = sqlite3.connect(":memory:")
        connection.execute("CREATE TABLE t (a)")
        connection.execute(line)
        assert connection.execute("SELECT a FROM t").fetchone() == (value,)
        connection.close()


def prepared(tmp_path: Path, contexts: list[str], *flags: str, form: str = "rows") -> list[Any]:
    """The rows that dataset.py makes of these contexts, over a question each."""
    tmp_path.mkdir(exist_ok=True)
    lines = []
    for number, context in enumerate(contexts):
        table = declared_relations(context)[0].name if declared_relations(context) else "t"
        lines.append({
            "sql_prompt": f"How many rows has {table}, question {number}?",
            "sql": f"SELECT COUNT(*) + {number} FROM {table}", "sql_context": context,
        })  # fmt: skip
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    out = tmp_path / "data"
    status = dataset.main([
        "--dataset-name", str(tmp_path / "rows.jsonl"), "--output-dir", str(out),
        "--prompt-context", form, "--workers", "1", *flags,
    ])  # fmt: skip
    assert status == 0
    rows = [row for name in splits.SPLITS for row in splits.read_split(out, name)]
    return sorted(rows, key=lambda row: row["question"])


def contexts(count: int, value: str = "'v'") -> list[str]:
    """Small schemas that share no name, so that each is a group of its own."""
    return [
        f"CREATE TABLE table{i} (column{i} TEXT, other{i} INT); "
        f"INSERT INTO table{i} VALUES ({value}, 1), ({value}, 2), ({value}, 3), ({value}, 4);"
        for i in range(count)
    ]


def test_prompts_show_rows_and_the_manifest_says_in_how_many(tmp_path: Path) -> None:
    given_contexts = [*contexts(20), "CREATE TABLE hollow (x INT);"]
    rows = prepared(tmp_path, given_contexts)
    shown = [row for row in rows if "INSERT INTO table" in row["prompt"]]
    assert len(shown) == 20
    assert all("('v', 1), ('v', 2), ('v', 3);" in row["prompt"] for row in shown)
    [bare] = [row for row in rows if "hollow" in row["prompt"]]
    assert bare["prompt"].count("CREATE") == 1 and "INSERT" not in bare["prompt"]
    manifest = splits.read_manifest(tmp_path / "data")
    assert manifest["counts"]["rows"]["prompts with rows of their tables"] == 20
    assert splits.trained_on(manifest)["prompt_context"] == "rows"
    for row in rows:
        assert row["text"].startswith("<bos>") and row["prompt"] in row["text"]


def test_fewer_rows_are_shown_before_an_example_is_dropped(tmp_path: Path) -> None:
    wide = prepared(tmp_path, contexts(12, "'" + "word " * 40 + "'"))
    fitted = prepared(tmp_path, contexts(12, "'" + "word " * 40 + "'"), "--max-seq-length", "184")
    assert len(fitted) == len(wide) == 12
    assert {row["prompt"].count("word...'") for row in wide} == {3}
    assert {row["prompt"].count("word...'") for row in fitted} <= {1, 2}


def in_rows_form(data: Path, adapter: Path, tiny_model: Path) -> tuple[list[Any], Any]:
    """The test rows of a folder as an adapter that was shown rows is asked them."""
    record = json.loads((adapter / "adapter_config.json").read_text())
    record |= {"prompt_context": "rows", "max_seq_length": 4000}
    (adapter / "adapter_config.json").write_text(json.dumps(record))
    tuned = load_finetuned(adapter, str(tiny_model))
    config = test_finetuned.EvaluationConfig(adapter_path=adapter, data=data, split="test")
    return test_finetuned.evaluation_rows(config, tuned), tuned


def test_an_adapter_is_asked_in_its_own_form_whatever_the_folder_was_prepared_in(
    tmp_path: Path, adapter_copy: Path, tiny_model: Path
) -> None:
    as_schema = prepared(tmp_path / "one", contexts(30), form="schema")
    as_rows = {row["question"]: row["prompt"] for row in prepared(tmp_path / "two", contexts(30))}
    asked, tuned = in_rows_form(tmp_path / "one" / "data", adapter_copy, tiny_model)
    assert {row["prompt"] for row in as_schema}.isdisjoint(as_rows.values())
    assert {row["question"]: row["prompt"] for row in asked}.items() <= as_rows.items()
    assert all(row["prompt"] in row["text"] for row in asked)
    tuned.config["prompt_context"] = "schema"
    config = test_finetuned.EvaluationConfig(data=tmp_path / "two" / "data", split="test", shots=2)
    prompts = {row["prompt"] for row in as_schema}
    assert {row["prompt"] for row in test_finetuned.evaluation_rows(config, tuned)} <= prompts
    shots = test_finetuned.shot_turns(config, tuned)
    assert {text for who, text in shots if who == "user"} <= prompts


def test_an_older_adapter_is_asked_once_and_a_newer_one_twice(
    tmp_path: Path, adapter_copy: Path, tiny_model: Path
) -> None:
    """Whatever form the folder was prepared in, by whichever version."""
    prepared(tmp_path, contexts(30), form="schema")
    data = tmp_path / "data"
    manifest = json.loads((data / "manifest.json").read_text())
    assert manifest["format"] == 2 and splits.trained_on(manifest)["question_twice"]
    tuned = load_finetuned(adapter_copy, str(tiny_model))
    config = test_finetuned.EvaluationConfig(data=data, split="test")

    def times_asked(twice: bool | None) -> set[int]:
        tuned.config.pop("question_twice", None)
        if twice is not None:
            tuned.config["question_twice"] = twice
        rows = test_finetuned.evaluation_rows(config, tuned)
        assert all(row["prompt"] in row["text"] for row in rows)
        return {row["prompt"].count(row["question"]) for row in rows}

    assert (times_asked(None), times_asked(False), times_asked(True)) == ({1}, {1}, {2})
    for name in splits.SPLITS:  # as an older version prepared them
        rows = splits.read_split(data, name)
        for row in rows:
            row["prompt"] = sql_prompt(row["question"], schema_of(row["context"]), twice=False)
            row["text"] = render_example(row["prompt"], row["completion"])
        (data / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (data / "manifest.json").write_text(json.dumps(manifest | {"format": 1}))
    assert (times_asked(None), times_asked(False), times_asked(True)) == ({1}, {1}, {2})


def test_rows_fit_beside_the_schema_or_are_left_out() -> None:
    relation = Relation("pets", "table", "CREATE TABLE pets (name TEXT)")

    def shown(budget: int) -> str:
        rows, form = [("Rex",), ("Mia",), ("Bo",)], splits.PromptForm("rows")
        return render_question("Who?", [relation], form, len, budget, lambda _: rows).prompt

    assert [shown(budget).count("('") for budget in (200, 75, 67, 40)] == [3, 2, 1, 0]
    assert all("CREATE TABLE pets" in shown(budget) for budget in (200, 75, 67, 40))
