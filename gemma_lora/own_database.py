"""Rows to train on from a person's own database: questions made from it, and their own examples.

A row of a general set shows its schema in the prompt. Here the model learns the one schema there is
by heart, and its prompt says only in which columns the texts stand that the question names (see
`named_values`). Nothing of the file leaves the machine.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from gemma_lora.cli import UserError
from gemma_lora.files import JsonObject
from gemma_lora.lexicon import reading_yaml, show_reading, with_lexicon
from gemma_lora.progress import track_rows
from gemma_lora.questions import make_questions
from gemma_lora.schema_reading import DatabaseReading, in_time, read_database, read_only
from gemma_lora.sources import match_columns, read_local
from gemma_lora.splits import Origin
from gemma_lora.table_reading import quoted

QUESTIONS = 6_000
# Few are held apart: made questions say little of how people are answered, and cost minutes.
OWN_SIZES = {"sample_size": QUESTIONS, "max_eval_rows": 200}
EXAMPLE_SECONDS = 10.0  # an example's query that takes longer is refused; preparing runs it again
EXAMPLE_WEIGHT = 8  # times a person's own example is shown; made questions are shown once


class Example(NamedTuple):
    """A question of the owner's and the query that they say answers it."""

    question: str
    sql: str


def read_own(path: Path, lexicon: Path | None) -> DatabaseReading:
    """The reading of a file, with the words of its owner. Raises UserError."""
    if not path.is_file():
        raise UserError(f"there is no database '{path}': give a SQLite file with --db")
    whole = read_database(path)
    for view, why in whole.failing.items():
        print(f"left out: the view '{view}' ({why})")
    reading = with_lexicon(whole, lexicon)
    require_sayings(path, reading, lexicon)
    kept = {t.name for t in reading.tables}
    for table in whole.tables:
        if lexicon is None and table.name not in kept:
            print(
                f"left out: '{table.name}', by its name a temporary table "
                "(`leave_out: false` in a --lexicon brings it back)"
            )
    return reading


def require_sayings(path: Path, reading: DatabaseReading, lexicon: Path | None) -> None:
    """Raise UserError naming the words of a lexicon that stand for no condition that ever holds."""
    said = [(t, c, *one) for t in reading.tables for c in t.columns for one in c.sayings.items()]
    problems = []
    with read_only(path) as connection:
        for table, column, word, condition in said:
            where = f"{table.name}.{column.name}: '{word}'"
            name = quoted(column.name)
            value = f"CAST({name} AS REAL)" if column.form == "text" else name
            sql = f"SELECT 1 FROM {quoted(table.name)} WHERE {value} {condition} LIMIT 1"
            try:
                with in_time(connection, EXAMPLE_SECONDS):
                    if connection.execute(sql).fetchone() is None:
                        problems.append(f"{where} is true of no row")
            except sqlite3.Error as error:
                problems.append(f"{where} stands for no condition ({error})")
    if problems:
        raise UserError(f"the lexicon '{lexicon}' does not fit the database: {'; '.join(problems)}")


def describe(path: Path, lexicon: Path | None) -> DatabaseReading:
    """Print how a file is read: as tables, then as the YAML that --lexicon takes."""
    reading = read_own(path, lexicon)
    show_reading(reading)
    print(reading_yaml(reading))
    return reading


def database_rows(
    path: Path, lexicon: Path | None, wanted: int, seed: int
) -> tuple[Iterator[JsonObject], Origin]:
    """(questions with their queries as a source's rows, where they come from)."""
    reading = read_own(path, lexicon)

    def rows() -> Iterator[JsonObject]:
        made = 0
        with read_only(path) as connection:
            watch = partial(track_rows, label="making questions", total=wanted)
            for one in make_questions(connection, reading, wanted, seed, watch):
                made += 1
                yield {
                    "sql_prompt": one.question,
                    "sql": one.sql,
                    "sql_task_type": one.kind,
                    "domain": one.table,
                }
        if not made:
            raise UserError(
                f"no question can be made from '{path}': no table has a column to ask for "
                "(see how it is read with --describe)"
            )

    return rows(), {"name": path.name, "revision": reading.schema_hash, "licence": None}


def read_examples(path: Path, database: Path) -> list[Example]:
    """A person's own examples, each run on the database. Raises UserError naming all bad lines."""
    if not path.is_file():
        raise UserError(f"there is no file {path}: check the path in --examples")
    raw = list(read_local(path))
    if not raw:
        raise UserError(f"{path} holds no examples: give lines with 'question' and 'sql'")
    columns = match_columns(list(dict.fromkeys(k for r in raw for k in r)), "sql", {})
    found, problems = [], []
    with read_only(database) as connection:
        for number, row in enumerate(raw, 1):
            question, sql = row.get(columns["sql_prompt"]), row.get(columns["sql"])
            if not (isinstance(question, str) and isinstance(sql, str)) or not (
                question.strip() and sql.strip()
            ):
                problems.append(f"{number}: no question or no sql")
                continue
            try:
                with in_time(connection, EXAMPLE_SECONDS):
                    connection.execute(sql).fetchmany(1)
            except (sqlite3.Error, sqlite3.Warning) as error:
                slow = str(error) == "interrupted"
                took = f"not done after {EXAMPLE_SECONDS:g} s, make its query quicker"
                problems.append(f"{number}: {took if slow else error}")
                continue
            found.append(Example(question.strip(), sql.strip().rstrip(";").strip()))
    if problems:
        raise UserError(f"{path}: examples that do not run: {'; '.join(problems)}")
    return latest(found)


def latest(examples: Sequence[Example]) -> list[Example]:
    """Of one question's queries the last: what was kept as right may have been corrected later."""
    by_question = {" ".join(one.question.casefold().split()): one for one in examples}
    kept = list(by_question.values())
    others = sum(one not in kept for one in examples)
    if others:
        count = f"{others} example{'s' * (others != 1)}"
        print(f"left out: {count} whose question is given again with another query")
    return kept
