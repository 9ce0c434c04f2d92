"""Tests of the chat about a database: what prompts show, how rows look, what the commands do."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import re
import signal
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dataset
from gemma_lora import adapters, candidates, conversation, generation, sandbox
from gemma_lora.chat import commands, start_chat, take_line, use_db
from gemma_lora.conversation import Chat, ChatSettings, Reply
from gemma_lora.database import DatabaseFile, QueryResult, Relation
from gemma_lora.database_scoring import question_rows
from gemma_lora.figures import TUNED
from gemma_lora.report import make_console
from gemma_lora.result_table import cell_text, csv_lines, result_text, table_text
from gemma_lora.schema_prompt import (
    BY_HEART_COLUMNS,
    POINTED_CHARACTERS,
    as_trained,
    declaration,
    own_form,
    pointed_relations,
    rank_relations,
    render_question,
    schema_text,
    words_of,
)
from gemma_lora.splits import PromptForm

PETS = """CREATE TABLE pets (id INTEGER PRIMARY KEY, name TEXT, age INTEGER);
INSERT INTO pets VALUES (1, 'Tom', 3), (2, 'Rex', 11), (3, 'Odd', NULL);"""
NAMES = "SELECT name, age FROM pets ORDER BY id"


@pytest.fixture(scope="module")
def worker() -> Iterator[sandbox.SqlWorker]:
    with sandbox.SqlWorker() as one:
        yield one


@pytest.fixture(scope="module")
def tuned(tiny_adapter: Path) -> Any:
    return adapters.load_finetuned(tiny_adapter)


@pytest.fixture
def pets_file(tmp_path: Path) -> Path:
    path = tmp_path / "pets.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(PETS)
    return path


@pytest.fixture
def chat(tuned: Any, worker: sandbox.SqlWorker, tmp_path: Path) -> Iterator[Chat]:
    settings = ChatSettings(0.0, 1.0, 8, None, show_base=False, sql_timeout=2.0)
    one = Chat(tuned, settings, make_console(), worker, dict, tmp_path / "kept" / "asked.jsonl")
    yield one
    if isinstance(one.database, DatabaseFile):
        one.database.close()


@pytest.fixture
def reply(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], list[str]]:
    """Let the model answer with this text; returns the prompts it is then shown."""

    def set_reply(text: str, logprob: float = 0.0) -> list[str]:
        prompts: list[str] = []

        def answer(_: Any, which: str, turns: Any, show: Any) -> Reply:
            prompts.append("\n".join(content for _, content in turns))
            return Reply(text, "facts", "stop", 5, logprob)

        monkeypatch.setattr(conversation, "stream_answer", answer)
        return prompts

    return set_reply


def test_an_interrupted_answer_is_neither_run_nor_kept(
    chat: Chat,
    pets_file: Path,
    reply: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    use_db(chat, str(pets_file))
    chat.log_path = tmp_path / "kept.jsonl"
    reply(NAMES)
    take_line(chat, "Who is there?")
    assert "Rex" in capsys.readouterr().out

    def stopped(_: Any, which: str, turns: Any, show: Any) -> Reply:
        return Reply(NAMES, "facts", "interrupted", 3, 0.0)

    monkeypatch.setattr(conversation, "stream_answer", stopped)
    take_line(chat, "Who else?")
    assert "Rex" not in capsys.readouterr().out
    take_line(chat, "/right")  # nor is the question before it meant
    assert "there is none with a query" in capsys.readouterr().err
    assert not chat.log_path.exists()


# --- Asking --------------------------------------------------------------------------------------


def test_answers_come_from_the_file_itself(
    chat: Chat, pets_file: Path, reply: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    use_db(chat, str(pets_file))
    reply(NAMES)
    take_line(chat, "Who is there?")
    assert ["Rex", "11"] in [line.split() for line in capsys.readouterr().out.splitlines()]
    with closing(sqlite3.connect(pets_file)) as connection:
        connection.execute("INSERT INTO pets VALUES (4, 'New', 1)")
        connection.commit()
    take_line(chat, "And now?")
    assert ["New", "1"] in [line.split() for line in capsys.readouterr().out.splitlines()]


def test_an_adapter_that_was_shown_rows_sees_those_of_the_file(
    chat: Chat, pets_file: Path, reply: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(chat.tuned.config, "prompt_context", "rows")
    monkeypatch.setitem(chat.tuned.config, "max_seq_length", 1000)
    use_db(chat, str(pets_file))
    prompts = reply(NAMES)
    take_line(chat, "one?")
    with closing(sqlite3.connect(pets_file)) as connection:
        connection.execute("UPDATE pets SET name = 'Waldo' WHERE name = 'Rex'")
        connection.commit()
    take_line(chat, "two?")
    assert ["'Rex'" in prompt for prompt in prompts] == [True, False]
    assert ["'Waldo'" in prompt for prompt in prompts] == [False, True]
    assert "'Waldo'" not in "\n".join(chat.transcript)  # what /save writes


def test_a_table_made_meanwhile_is_in_the_next_prompt(
    chat: Chat, pets_file: Path, reply: Any
) -> None:
    use_db(chat, str(pets_file))
    prompts = reply(NAMES)
    take_line(chat, "one?")
    with closing(sqlite3.connect(pets_file)) as connection:
        connection.execute("CREATE TABLE owners (name TEXT)")
    take_line(chat, "two?")
    assert ["owners" in prompt for prompt in prompts] == [False, True]


def test_ctrl_c_stops_a_query_and_the_chat_goes_on(
    chat: Chat, pets_file: Path, reply: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    use_db(chat, str(pets_file))
    reply("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT MAX(i) FROM n")
    # A shell's background job, as which these tests may run, begins with SIGINT ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    interrupt = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
    try:
        interrupt.start()
        take_line(chat, "How far?")
    finally:
        interrupt.join()
        signal.signal(signal.SIGINT, before)
    assert "the query was stopped" in capsys.readouterr().out
    reply(NAMES)
    take_line(chat, "Who?")
    assert "Rex" in capsys.readouterr().out


@pytest.mark.parametrize("sql", ["DROP TABLE pets", "INSERT INTO pets VALUES (9, 'x', 1)"])
def test_writing_statements_are_shown_and_not_run(
    sql: str, chat: Chat, pets_file: Path, reply: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    before = pets_file.read_bytes()
    use_db(chat, str(pets_file))
    reply(sql)
    take_line(chat, "Do it")
    assert "this would change the data: it was not run" in capsys.readouterr().out
    assert chat.transcript[-2].startswith(f"{TUNED}> {sql}")
    assert pets_file.read_bytes() == before


def test_a_schema_is_never_shown_twice(chat: Chat, pets_file: Path, reply: Any) -> None:
    use_db(chat, str(pets_file))
    prompts = reply(NAMES)
    for line in ("one?", "/history on", "two?", "three?", "/history off", "four?"):
        take_line(chat, line)
    assert [prompt.count("CREATE TABLE pets") for prompt in prompts] == [1, 1, 1, 1]
    assert [prompt.count("Question:") for prompt in prompts] == [1, 1, 2, 1]


def test_an_adapter_that_knows_its_database_is_shown_the_question_alone(
    chat: Chat, pets_file: Path, reply: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(chat.tuned.config, "prompt_context", "none")
    use_db(chat, str(pets_file))
    [prompts] = [reply(NAMES)]
    take_line(chat, "one?")
    assert "CREATE" not in prompts[0] and "one?" in prompts[0]
    assert "by heart" in chat.transcript[0]
    known = {"name": "shop.sqlite", "schema_hash": "0" * 16}
    monkeypatch.setitem(chat.tuned.config, "database", known)
    use_db(chat, str(pets_file))
    asking, warning = chat.transcript[-2:]
    assert "prompts show nothing" in asking and "trained for shop.sqlite" in warning


def test_a_second_draw_differs_and_a_seed_fixes_it(chat: Chat) -> None:
    def answers() -> list[str]:
        chat.transcript.clear()
        for _ in range(3):
            take_line(chat, "Hi")
        said = [line for line in chat.transcript if line.startswith(f"{TUNED}>")]
        return [line.rsplit("\n", 1)[0] for line in said]

    take_line(chat, "/temp 1")
    assert len(set(answers())) == 3
    take_line(chat, "/seed 7")
    fixed = answers()
    assert len(set(fixed)) == 1
    take_line(chat, "/seed")
    assert len(set(answers())) == 3
    take_line(chat, "/seed 7")
    assert answers() == fixed


# --- Others, and doubt ---------------------------------------------------------------------------


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> Callable[[list[str]], None]:
    """Let these answers be drawn where the first shows nothing."""

    def set_drawn(texts: list[str]) -> None:
        answers = [generation.Generation(text, 9, 5, "stop", 0.1) for text in texts]
        monkeypatch.setattr(candidates, "generate_several", lambda *_: [answers])

    return set_drawn


def test_where_the_first_shows_nothing_another_is_taken(
    chat: Chat, pets_file: Path, reply: Any, drawn: Any, capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:  # fmt: skip
    use_db(chat, str(pets_file))
    chat.settings.candidates = 3
    drawn(["SELECT nope FROM pets", "SELECT name FROM pets WHERE age = 11", "SELECT 5"])
    for first, said in (
        ("SELECT name FROM pets WHERE age IN (98, 99)", "no rows"),
        ("SELECT x FROM pets", "no such column: x"),
        ("who knows", "this is no query"),
    ):
        capsys.readouterr()
        reply(first)
        take_line(chat, "Who is eleven?")
        shown = capsys.readouterr().out
        assert said in shown and "3 other answers" in shown and "Rex" in shown
        assert shown.index(said) < shown.index("number 2 of them returns rows") < shown.index("Rex")
        assert "I am not sure" in shown and "nope" not in shown
        assert chat.answered and chat.answered.sql == "SELECT name FROM pets WHERE age = 11"
    take_line(chat, f"/csv {tmp_path}/rex.csv")
    assert (tmp_path / "rex.csv").read_text().split() == ["name", "Rex"]
    assert "Rex" in "\n".join(chat.transcript)


def test_where_none_shows_rows_the_first_is_mended(
    chat: Chat, pets_file: Path, reply: Any, drawn: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    use_db(chat, str(pets_file))
    chat.settings.candidates = 2
    drawn(["SELECT nope FROM pets", "SELECT 5 WHERE 0"])
    reply("SELECT names FROM pets WHERE name = 'REX'")
    take_line(chat, "Who is rex?")
    shown = capsys.readouterr().out
    assert "no such column: names" in shown
    assert "the first does with name for names, 'Rex' for 'REX'; I am not sure of it" in shown
    assert chat.answered and chat.answered.sql == "SELECT name FROM pets WHERE name = 'Rex'"
    chat.settings.candidates = 0  # who wants no other answers wants none that was changed
    take_line(chat, "Who is rex?")
    assert "for names" not in capsys.readouterr().out


def test_what_was_left_out_is_added_beside_the_answer(
    chat: Chat, tmp_path: Path, reply: Any, drawn: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "cars.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(
            "CREATE TABLE cars (plate TEXT, kind TEXT);"
            "INSERT INTO cars VALUES ('A', 'Van'), ('B', 'Van'), ('C', 'Bus'), ('D', 'Bus');"
        )
    use_db(chat, str(path))
    chat.settings.candidates = 2
    reply("SELECT COUNT(*) FROM cars")
    take_line(chat, "How many vans do we have?")
    shown = capsys.readouterr().out
    assert "with kind = 'Van' added, as the question says; I am not sure of it:" in shown
    completed = "SELECT COUNT(*) FROM cars WHERE cars.kind = 'Van'"
    assert chat.answered and chat.answered.sql == completed
    assert re.search(r"\b4\b.*\b2\b", shown, re.DOTALL)  # both counts are shown, its own last
    take_line(chat, "How many cars?")
    reply("no query at all")
    drawn([])
    take_line(chat, "Which are vans?")  # the query of the turn before is not completed for it
    assert " added, as" not in capsys.readouterr().out
    reply("SELECT COUNT(*) FROM cars")
    chat.settings.candidates = 0
    take_line(chat, "How many vans do we have?")
    assert " added, as" not in capsys.readouterr().out
    use_db(chat, str(path))
    chat.amenders = ()  # as of SQL text
    chat.settings.candidates = 2
    take_line(chat, "How many vans do we have?")
    assert " added, as" not in capsys.readouterr().out


def test_what_nobody_asked_for_is_left_out_beside_the_answer(
    chat: Chat, pets_file: Path, reply: Any, drawn: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    use_db(chat, str(pets_file))
    chat.settings.candidates = 2
    drawn(["SELECT 5"])
    for first in ("= 'Rex'", "= 'Nobody'"):  # shows a row, or none: none is drawn then
        reply(f"SELECT COUNT(*) FROM pets WHERE name {first}")
        take_line(chat, "How many pets are there?")
        shown = capsys.readouterr().out
        assert f"with name {first} left out, of which the question says nothing;" in shown
        assert chat.answered and chat.answered.sql == "SELECT COUNT(*) FROM pets"
        assert "number 1 of them" not in shown
    reply("SELECT COUNT(*) FROM pets WHERE name = 'Rex'")
    take_line(chat, "How many pets are called Rex?")
    assert "left out" not in capsys.readouterr().out
    chat.tuned.config["database"] = {"name": "pets", "schema_hash": "1"}  # learnt by heart
    use_db(chat, str(pets_file))
    take_line(chat, "How many pets are there?")
    assert "left out" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("first", "line", "count"),
    [
        (NAMES, "Who?", 3),
        ("DELETE FROM pets", "Who?", 3),
        ("SELECT 1 WHERE 0", "/sql Who?", 3),
        ("SELECT 1 WHERE 0", "Who?", 0),
    ],
)
def test_others_are_not_drawn_without_need(
    first: str, line: str, count: int, chat: Chat, pets_file: Path, reply: Any, drawn: Any,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    use_db(chat, str(pets_file))
    take_line(chat, f"/candidates {count}")
    drawn(["SELECT 5"])
    reply(first)
    capsys.readouterr()
    take_line(chat, line)
    assert "other answers" not in capsys.readouterr().out
    assert chat.answered and chat.answered.sql == first


def test_none_of_the_others_is_said(
    chat: Chat, pets_file: Path, reply: Any, drawn: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    use_db(chat, str(pets_file))
    chat.settings.candidates = 2
    drawn(["SELECT 1 WHERE 0", "nothing"])
    reply("SELECT 2 WHERE 0")
    take_line(chat, "Who?")
    assert "none of them returns rows either" in capsys.readouterr().out
    assert chat.answered and chat.answered.sql == "SELECT 2 WHERE 0"


def test_real_others_are_drawn(chat: Chat, pets_file: Path) -> None:
    use_db(chat, str(pets_file))
    chat.settings.candidates = 2
    take_line(chat, "Who?")  # the tiny model writes no SQL
    assert "this is no query" in chat.transcript
    assert chat.transcript[-1].startswith("none of them")


def test_an_unlikely_answer_is_doubted(chat: Chat, pets_file: Path, reply: Any) -> None:
    use_db(chat, str(pets_file))
    chat.confidence = {
        "format": 1, "adapter_sha256": "", "threshold": math.log(0.8), "rows": 1, "right": 1,
        "sure": 1, "sure_right": 1,
    }  # fmt: skip
    for line, probability, doubted in (
        ("Who?", 0.79, True), ("Who?", 0.81, False), ("/sql Who?", 0.5, True),
    ):  # fmt: skip
        reply("SELECT name FROM pets", math.log(probability))
        chat.transcript.clear()
        take_line(chat, line)
        doubts = [text for text in chat.transcript if text.startswith("I am not sure")]
        assert bool(doubts) == doubted, line
    assert doubts == ["I am not sure: 50% at its least certain place, where 80% would be enough"]


def test_an_adapter_that_cannot_tell_says_so_once(
    chat: Chat, pets_file: Path, reply: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    chat.confidence = {
        "format": 1, "adapter_sha256": "", "threshold": None, "rows": 9, "right": 1, "sure": 0,
        "sure_right": 0,
    }  # fmt: skip
    reply("SELECT name FROM pets", math.log(0.01))
    monkeypatch.setattr("sys.stdin", io.StringIO("Who?\nWho?\n"))
    start_chat(chat, pets_file, None)
    assert sum("cannot tell when it is right" in text for text in chat.transcript) == 1
    assert not any("not sure" in text for text in chat.transcript)


def test_a_wish_to_change_data_is_not_taken_for_done(
    chat: Chat, pets_file: Path, reply: Any
) -> None:
    use_db(chat, str(pets_file))
    for line, query, said in (
        ("Delete all pets", "SELECT id FROM pets", True),
        ("please remove Tom", NAMES, True),
        ("Delete all pets", "DELETE FROM pets", False),
        ("Which were added?", NAMES, False),
    ):
        chat.transcript.clear()
        reply(query)
        take_line(chat, line)
        assert ("nothing is changed here" in "\n".join(chat.transcript)) == said, line


def test_a_query_that_leaves_out_what_is_named_is_doubted(
    chat: Chat, pets_file: Path, reply: Any
) -> None:
    use_db(chat, str(pets_file))
    reply("SELECT name FROM pets")
    take_line(chat, "Names and ages of the pets, at most 7")
    doubt = next(i for i, text in enumerate(chat.transcript) if text.startswith("I am not sure"))
    assert chat.transcript[doubt].endswith("the query says nothing of age, 7")
    assert "Rex" in chat.transcript[doubt + 1]


# --- Commands ------------------------------------------------------------------------------------


def test_sql_shows_the_query_alone(
    chat: Chat, pets_file: Path, reply: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    use_db(chat, str(pets_file))
    reply(NAMES)
    for line, rows in (("/sql Who?", 0), ("Who?", 1), ("/sql on", 0), ("Who?", 0), ("/sql off", 0),
                       ("Who?", 1)):  # fmt: skip
        capsys.readouterr()
        take_line(chat, line)
        assert capsys.readouterr().out.count("Rex") == rows, line


def test_csv_saves_the_last_result_whole(
    chat: Chat, pets_file: Path, tmp_path: Path, reply: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    use_db(chat, str(pets_file))
    take_line(chat, f"/csv {tmp_path}/none.csv")
    assert "no result" in capsys.readouterr().err
    reply("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 9000) "
          "SELECT i, 'a, \"b\"' AS text FROM n")  # fmt: skip
    take_line(chat, "Count")
    shown = capsys.readouterr().out
    assert "the first 20 rows" in shown and "/csv" in shown and "\n  21" not in shown
    take_line(chat, "/sql Count")  # leaves the last result what it is, as does one that fails
    reply("SELECT nothing FROM pets")
    take_line(chat, "What?")
    take_line(chat, f"/csv {tmp_path}/all.csv")
    rows = list(csv.reader((tmp_path / "all.csv").open(newline="")))
    assert rows == [["i", "text"], *([str(i), 'a, "b"'] for i in range(1, 9001))]
    take_line(chat, f"/csv {tmp_path}/all.csv")
    assert "exists already" in capsys.readouterr().err


def test_a_result_that_breaks_off_leaves_no_file(
    chat: Chat, pets_file: Path, tmp_path: Path, reply: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    use_db(chat, str(pets_file))
    reply("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 9000) "
          "SELECT CASE WHEN i < 5000 THEN i ELSE ABS(-9223372036854775808) END FROM n")  # fmt: skip
    take_line(chat, "Count")
    take_line(chat, f"/csv {tmp_path}/all.csv")
    assert "integer overflow" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pets.sqlite"]


def test_questions_are_kept_for_the_next_training(
    chat: Chat, pets_file: Path, reply: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    use_db(chat, str(pets_file))
    take_line(chat, "/right")
    assert "none with a query" in capsys.readouterr().err
    reply(NAMES)
    take_line(chat, "Wer heißt wie?")
    take_line(chat, "/right")
    take_line(chat, "How many?")
    for wrong in ("/wrong SELECT nope FROM pets", "/wrong", "/wrong DELETE FROM pets"):
        take_line(chat, wrong)
    assert capsys.readouterr().err.count("error: ") == 3
    take_line(chat, "/wrong SELECT COUNT(*) FROM pets")
    assert chat.has_rows and chat.has_rows.sql == "SELECT COUNT(*) FROM pets"  # what /csv saves
    assert chat.log_path
    lines = [json.loads(line) for line in chat.log_path.read_text().splitlines()]
    assert lines == [
        {"question": "Wer heißt wie?", "sql": NAMES},
        {"question": "How many?", "sql": "SELECT COUNT(*) FROM pets"},
    ]
    chat.log_path.write_text('{"question": "by hand", "sql": "SELECT 1"}')  # without a newline
    take_line(chat, "/right")
    assert len([json.loads(line) for line in chat.log_path.read_text().splitlines()]) == 2
    chat.log_path = None
    take_line(chat, "/right")
    assert "--log-questions" in capsys.readouterr().err


@pytest.mark.parametrize(
    "line",
    [
        "/candidates -1",
        "/candidates 65",
        "/seed x",
        "/seed -1",
        "/history",
        "/sql",
        "/csv",
        "/history x",
    ],
)
def test_commands_given_wrongly_are_one_line(
    line: str, chat: Chat, capsys: pytest.CaptureFixture[str]
) -> None:
    take_line(chat, line)
    error = capsys.readouterr().err
    assert error.startswith(f"error: {line.split()[0]} takes") and error.count("\n") == 1
    assert chat.transcript == []


def test_every_command_says_what_it_does(chat: Chat, capsys: pytest.CaptureFixture[str]) -> None:
    take_line(chat, "/help")
    shown = capsys.readouterr().out
    assert all(name in shown for name in commands(chat))
    assert all(len(line) <= 79 for line in shown.splitlines())


# --- What prompts show ---------------------------------------------------------------------------


def sixty_tables() -> list[Relation]:
    things = ("ship", "plant", "car", "book", "star", "road")
    facts = "owner log part price place color size age kind tag".split()
    names = [f"{a}_{b}" for a in things for b in facts]
    return [Relation(n, "table", f"CREATE TABLE {n} (id INT, {n}_word TEXT)") for n in names]


def test_tables_that_the_question_names_come_first() -> None:
    relations = sixty_tables()
    ranked = rank_relations("Which star parts are there?", relations)
    assert ranked[0].name == "star_part"
    rest = [r for r in ranked if not {"star", "part"} & set(r.name.split("_"))]
    assert rest == [r for r in relations if r in rest]  # as they are stored


def test_many_tables_do_not_overflow_the_prompt() -> None:
    relations, budget = sixty_tables(), 300
    rendered = render_question(
        "What do book prices add up to?", relations, PromptForm(), len, budget
    )
    shown = [r for r in relations if declaration(r) in rendered.prompt]
    assert relations[33] in shown and 0 < len(shown) < 60
    schema = rendered.prompt.split("Schema:\n")[1].split("\n\nQuestion")[0]
    assert len(schema) <= budget and schema.startswith(declaration(relations[33]))
    assert rendered.note
    assert f"{len(shown)} of 60" in rendered.note and "left out: road_price" in rendered.note


def test_a_schema_that_fits_is_shown_as_it_is_stored() -> None:
    relations = sixty_tables()
    rendered = render_question("star parts?", relations, PromptForm(), len, 10**6)
    assert schema_text(relations) in rendered.prompt and rendered.note is None


@given(st.text(), st.lists(st.text(max_size=30), max_size=6), st.integers(0, 200))
def test_what_is_shown_of_a_schema_never_passes_the_budget(
    question: str, names: list[str], budget: int
) -> None:
    relations = [Relation(n, "table", f"CREATE TABLE x ({n} INT)") for n in names]
    rendered = render_question(question, relations, PromptForm(), len, budget)
    around = len(rendered.bare) + len(f": {question}\n\nSchema:\n")
    assert len(rendered.prompt) <= around + budget
    assert (rendered.note is None) == (not names or len(schema_text(relations)) <= budget)


def test_only_what_the_question_points_at_is_shown() -> None:
    relations = sixty_tables()
    shown = pointed_relations("What do book prices add up to?", relations)
    assert shown[0].name == "book_price" and 1 < len(shown) < 30
    assert all({"book", "price"} & set(r.name.split("_")) for r in shown)
    assert pointed_relations("Hello?", relations) == []
    rendered = render_question("Hello?", relations, PromptForm("pointed"), len, 0)
    assert rendered.prompt == rendered.bare


@given(st.text(), st.lists(st.text(max_size=400), max_size=12))
def test_pointed_tables_never_pass_their_room(question: str, names: list[str]) -> None:
    relations = [Relation(n[:9], "table", f"CREATE TABLE x ({n} INT)") for n in names]
    shown = pointed_relations(question, relations)
    assert len(schema_text(shown)) <= POINTED_CHARACTERS
    assert set(shown) <= set(relations)


def test_from_which_size_on_tables_are_shown() -> None:
    relations = sixty_tables()
    assert [own_form(relations[:n]) for n in (1, 29, 30, 60)] == ["values"] * 2 + ["pointed"] * 2
    wide = ", ".join(f"c{i} INT" for i in range(BY_HEART_COLUMNS))
    assert own_form([Relation("w", "table", f"CREATE TABLE w ({wide})")]) == "pointed"


def test_training_chat_and_evaluation_show_a_large_database_alike(
    chat: Chat, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "large.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(";".join(r.sql for r in sixty_tables()))
    monkeypatch.setitem(chat.tuned.config, "prompt_context", "pointed")
    assert dataset.preset({"db": path})["prompt_context"] == "pointed"
    config = dataset.DatasetConfig(db=path, prompt_context="pointed")
    use_db(chat, str(path))
    assert "points at" in chat.transcript[0] or "point at" in chat.transcript[0]
    for question in ("What do book prices add up to?", "Which roads?", "Hello?"):
        row = dataset.make_row({"sql_prompt": question, "sql": "SELECT 1"}, config)
        [asked] = as_trained([{**row, "prompt": "", "text": ""}], path, chat.tuned)
        assert row["prompt"] == asked["prompt"] == conversation.render(chat, question).prompt
        assert row["text"] == asked["text"]
        assert ("CREATE TABLE" in row["prompt"]) == (question != "Hello?")


def test_people_are_asked_with_the_schema_that_the_adapter_wants(
    chat: Chat, pets_file: Path, tmp_path: Path
) -> None:
    asked = tmp_path / "asked.jsonl"
    asked.write_text(json.dumps({"question": "Who?", "sql": NAMES}))
    [row] = as_trained(question_rows(asked, pets_file), pets_file, chat.tuned)
    assert "CREATE TABLE pets" in row["prompt"]  # a general adapter: not by heart


def test_words_of_names() -> None:
    assert words_of("tblOrderItems order_ids CITIES") == {"tbl", "order", "item", "id", "city"}


# --- How rows look -------------------------------------------------------------------------------

CELLS = st.none() | st.integers() | st.floats() | st.text(max_size=400) | st.binary(max_size=200)


@settings(max_examples=60, deadline=None)
@given(st.data(), st.integers(1, 12), st.integers(20, 200))
def test_a_table_fits_the_terminal(data: st.DataObject, columns: int, width: int) -> None:
    from rich.cells import cell_len

    row = st.lists(CELLS, min_size=columns, max_size=columns)
    rows = data.draw(st.lists(row, min_size=1, max_size=4))
    names = data.draw(st.lists(st.text(max_size=30), min_size=columns, max_size=columns))
    text = table_text(names, rows, width)
    lines = text.split("\n")
    assert all(cell_len(line) <= width for line in lines if "more columns" not in line)
    assert all(c.isprintable() or c == "\n" or not c.isascii() for c in text)


def test_numbers_stand_to_the_right_and_nothing_is_lost() -> None:
    rows = [("Tom", 3, None), ("Christopher", 1100, 2.5)]
    lines = table_text(["name", "n", "score"], rows, 80).split("\n")
    assert lines[2:] == ["Tom              3    NULL", "Christopher   1100     2.5"]
    folded = table_text(["name"], [("abc " * 30,)], 40)
    assert folded.count("abc") == 30
    assert "[red]" in table_text(["[bold]"], [("[red]",)], 40)
    assert "\x1b" not in table_text(["x"], [("\x1b[2J\nb",)], 40)
    wide = table_text([f"column {i}" for i in range(30)], [tuple(range(30))], 80)
    assert wide.endswith("and 23 more columns: /csv FILE saves them all")
    names = "book_id title author_id branch_id genre language published_year pages".split()
    book = [(8, "The Last Clockmaker of the Silent Staircase", 15, 1, "Novel", "French", 1999, 7)]
    shown = table_text(names, book, 80)
    for word in [*names[:6], "Clockmaker", "Staircase"]:
        assert word in shown.split(), word  # not broken
    assert "more" not in table_text(list("abcdefghijkl"), [tuple(range(12))], 80)


def test_long_values_say_how_long_they_are() -> None:
    assert cell_text("x" * 1000).endswith("... (1,000 characters)")
    assert cell_text(b"\x00" * 1000).endswith("...' (1,000 bytes)")
    assert cell_text(b"\x00\xff") == "X'00ff'"


def test_results_are_told() -> None:
    told = {
        "no rows": QueryResult("ok", ["a"], []),
        "1 row, ": QueryResult("ok", ["a"], [(1,)]),
        "the first 2 rows": QueryResult("ok", ["a"], [(1,), (2,)], truncated=True),
        "ended: too late; --sql-timeout": QueryResult("timeout", error="too late"),
        "would change": QueryResult("writes"),
    }
    for said, result in told.items():
        assert said in result_text(result, 2, 80)


@given(st.lists(st.tuples(st.text(st.characters(codec="utf-8")), st.integers()), max_size=5))
def test_csv_reads_back(rows: list[tuple[str, int]]) -> None:
    parts = [QueryResult("ok", ["a", "b"], rows), QueryResult("ok", ["a", "b"], rows)]
    text = "".join(csv_lines(parts))
    read = list(csv.reader(io.StringIO(text, newline="")))
    assert read == [["a", "b"], *([a, str(b)] for a, b in rows * 2)]
