"""Where the texts that a question names are stored, and the prompts that say it."""

from __future__ import annotations

import json
import re
import sqlite3
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from conftest import run_script
from hypothesis import given
from hypothesis import strategies as st
from make_library import make_library

import dataset
from gemma_lora import adapters, conversation
from gemma_lora.chat import use_db
from gemma_lora.conversation import Chat, ChatSettings
from gemma_lora.database import DatabaseFile, QueryResult, Relation
from gemma_lora.named_values import (
    ASKING,
    MOST_COLUMNS,
    MOST_LINES,
    MOST_WORDS,
    VALUE_LENGTH,
    Stored,
    named_texts,
    stored_texts,
    value_lines,
    words_in,
)
from gemma_lora.prompts import sql_prompt
from gemma_lora.report import make_console
from gemma_lora.sandbox import SqlWorker
from gemma_lora.schema_prompt import BARE_SHARE, as_trained, partly_bare

SHOP = """
CREATE TABLE Customers (CompanyName TEXT, City TEXT, Country TEXT, Region TEXT);
INSERT INTO Customers VALUES ('Around the Horn', 'London', 'UK', NULL),
  ('Save-a-lot Markets', 'Boise', 'USA', 'OR'), ('Blauer See', 'Köln', 'Germany', NULL);
CREATE TABLE "Order Details" (ShipCity TEXT, Product TEXT, Price INT, Day TEXT, Note TEXT);
INSERT INTO "Order Details" VALUES ('London', 'Horn', 3, '1998-01-02', 'All'),
  ('Köln', 'Grandma''s Jam', 4, '1998-01-03', NULL), ('Boise', x'4a616d', 5, 'two
lines', 'The Who');
CREATE VIEW Big AS SELECT Product AS Thing FROM "Order Details";
"""


class Held:
    """One column of texts, as a database."""

    def __init__(self, texts: Sequence[str]) -> None:
        self.texts = texts

    def relations(self) -> list[Relation]:
        return [Relation("t", "table", "CREATE TABLE t (c)")]

    def run(self, sql: str, max_rows: int) -> QueryResult:
        return QueryResult("ok", ["c"], [(text,) for text in self.texts])

    def stream(self, sql: str) -> Iterator[QueryResult]:
        yield self.run(sql, 1)


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    path = tmp_path / "shop.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(SHOP)
    return path


@pytest.mark.parametrize(
    ("question", "lines"),
    [
        ("What is the phone of Around the Horn?", "'Around the Horn': Customers.CompanyName"),
        ("a horn, please", "'Horn': \"Order Details\".Product"),
        ("who is in london", "'London': Customers.City, \"Order Details\".ShipCity"),
        ("orders from koln", "'Köln': Customers.City, \"Order Details\".ShipCity"),
        ("german customers", "'Germany': Customers.Country"),
        ("The Germans?", "'Germany': Customers.Country"),
        ("grandma's jams", "'Grandma''s Jam': \"Order Details\".Product"),
        ("save a lot markets", "'Save-a-lot Markets': Customers.CompanyName"),
        ("in OR", "'OR': Customers.Region"),
        ("one or two of all, and who", ""),  # no state, no note
        ("of The Who", "'The Who': \"Order Details\".Note"),
        ("on 1998-01-02", ""),
        ("two lines of jam", ""),  # would be two lines of the prompt; bytes are no text
        ("", ""),
        (
            "Horn in London and Boise",
            "'Horn': \"Order Details\".Product\n"
            "'London': Customers.City, \"Order Details\".ShipCity\n"
            "'Boise': Customers.City, \"Order Details\".ShipCity",
        ),
    ],
)
def test_where_a_named_text_stands(shop: Path, question: str, lines: str) -> None:
    with DatabaseFile(shop) as database:
        assert value_lines(question, stored_texts(database)) == lines


@given(
    st.lists(st.text(min_size=3, max_size=VALUE_LENGTH), max_size=8, unique=True),
    st.text(max_size=40),
)
def test_a_stored_text_is_found_by_itself_and_its_prompt_has_room(
    stored: list[str], question: str
) -> None:
    texts = stored_texts(Held(stored))
    for text in stored:
        words = words_in(text)
        plain = any(map(str.isalpha, " ".join(words))) and text.isprintable()
        asking = len(words) == 1 and re.findall(r"\w+", text)[0].lower() in ASKING
        if plain and len(words) <= MOST_WORDS and not asking and words[0].isascii():
            same = [one.text for one in named_texts(text, texts)]
            assert words in [words_in(one) for one in same]
    for one in (question, " ".join(stored)):
        lines = value_lines(one, texts).splitlines()
        assert len(lines) <= MOST_LINES
        assert all(line.endswith(": t.c") for line in lines)


def test_no_more_columns_than_there_is_room_for() -> None:
    texts = {"ale": [Stored("Ale", tuple(f"t.c{i}" for i in range(20)))]}
    assert value_lines("ale", texts).count("t.c") == MOST_COLUMNS


def test_accents_typed_as_marks_of_their_own_are_read(shop: Path) -> None:
    with DatabaseFile(shop) as database:
        texts = stored_texts(database)
    for form in ("NFC", "NFD"):
        question = unicodedata.normalize(form, "who is in Köln")
        assert value_lines(question, texts).startswith("'Köln': Customers.City")


@pytest.fixture
def chat(tiny_adapter: Path) -> Iterator[Chat]:
    settings = ChatSettings(0.0, 1.0, 8, None, show_base=False, sql_timeout=2.0)
    tuned = adapters.load_finetuned(tiny_adapter)
    tuned.config["prompt_context"] = "values"
    with SqlWorker() as worker:
        one = Chat(tuned, settings, make_console(), worker, dict)
        yield one
    if isinstance(one.database, DatabaseFile):
        one.database.close()


def test_training_chat_and_evaluation_say_the_same(chat: Chat, shop: Path) -> None:
    assert dataset.preset({"db": shop})["prompt_context"] == "values"
    config = dataset.DatasetConfig(db=shop, prompt_context="values")
    use_db(chat, str(shop))
    for question in ("Who is in London?", "german customers", "How many?"):
        row = dataset.make_row({"sql_prompt": question, "sql": "SELECT 1"}, config)
        [asked] = as_trained([{**row, "prompt": "", "text": ""}], shop, chat.tuned)
        assert row["prompt"] == asked["prompt"] == conversation.render(chat, question).prompt
        assert row["text"] == asked["text"]
        assert ("Values:" in row["prompt"]) == (question != "How many?")
        assert "CREATE" not in row["prompt"]


def test_what_came_into_the_file_after_training_is_known(chat: Chat, shop: Path) -> None:
    with closing(sqlite3.connect(shop)) as connection, connection:
        connection.execute("INSERT INTO Customers VALUES ('Ottilies Laden', 'Köln', 'Germany', '')")
    use_db(chat, str(shop))
    prompt = conversation.render(chat, "where is ottilies laden").prompt
    assert "'Ottilies Laden': Customers.CompanyName" in prompt


def test_without_a_database_the_question_stands_alone(chat: Chat) -> None:
    assert conversation.render(chat, "in London?").prompt == sql_prompt("in London?", None)


def test_some_rows_are_trained_as_they_are_asked_without_the_file() -> None:
    row: Any = {"prompt": "with values", "text": "t", "completion": "SELECT 1"}
    rows = [{**row, "question": f"Question {i}?"} for i in range(2000)]
    found = partly_bare(rows, "values")
    bare = [one for one in found if one["prompt"] != "with values"]
    assert abs(len(bare) / len(rows) - BARE_SHARE) < 0.03
    assert all(one["prompt"] == sql_prompt(one["question"], None) for one in bare)
    assert all(one["prompt"] in one["text"] for one in bare)
    assert partly_bare(rows, "none") == rows == partly_bare(rows, "pointed")


def test_a_folder_that_is_prepared_by_itself_says_values(tiny_model: Path, tmp_path: Path) -> None:
    library, data = tmp_path / "library.sqlite", tmp_path / "data"
    make_library(library)
    examples = tmp_path / "mine.jsonl"
    mine = {"question": "Books of Ada Brook?", "sql": "SELECT title FROM books"}
    examples.write_text(json.dumps(mine))
    done = run_script(
        "dataset.py", "--db", library, "--sample-size", 200, "--output-dir", data,
        "--model", tiny_model, "--examples", examples,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (
        json.loads((data / "manifest.json").read_text())["settings"]["prompt_context"] == "values"
    )
    rows = {
        split: [json.loads(line) for line in (data / f"{split}.jsonl").open()]
        for split in ("train", "valid", "test")
    }
    shown = {name: sum("Values:" in r["prompt"] for r in part) for name, part in rows.items()}
    assert shown["train"] > 50 and shown["valid"] > 3
    with DatabaseFile(library) as database:
        texts = stored_texts(database)
    for name, part in rows.items():
        for row in part:
            expected = value_lines(row["question"], texts)
            assert f"Values:\n{expected}\n" in row["prompt"] or name == "train" or not expected
    own = [r["prompt"] for r in rows["train"] if r["question"] == mine["question"]]
    assert len(own) > 1 and len(set(own)) == 1  # never bare: it is asked with the file
