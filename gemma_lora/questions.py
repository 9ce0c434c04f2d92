"""Questions with the query that answers each, made from what a database holds.

The idea is DBPal's (Weir et al., SIGMOD 2020; arXiv 1909.06182): templates as data, filled from
the schema and the values, so that a small model knows one schema by heart. Each kind of question is
one function here; what it says is in `phrasings.yaml`. Every query is run on the file itself:
what fails, returns nothing, or is no single answer (a tie under LIMIT) is dropped.
"""

from __future__ import annotations

import random
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import NamedTuple

from gemma_lora.conditions import Grammar
from gemma_lora.group_questions import (
    above_average,
    aggregate,
    by_children,
    grouped,
    with_or_without,
)
from gemma_lora.joined_conditions import extends
from gemma_lora.queries import Draft, askable
from gemma_lora.row_questions import (
    count,
    distinct,
    extreme,
    list_column,
    list_rows,
    look_up,
    look_up_children,
    look_up_parent,
    top,
    where_is,
)
from gemma_lora.schema_reading import DatabaseReading, TableReading
from gemma_lora.wording import load_phrasings, roughened

QUERY_SECONDS = 2.0  # a gold query that takes longer is dropped
TRIES = 40  # attempts for each question wanted, before what there is has to do
MOST_ROWS = 2_000  # a longer answer is no answer


class Question(NamedTuple):
    """A question, the query that answers it, and what kind of question it is."""

    question: str
    sql: str
    kind: str
    table: str


Kind = Callable[[Grammar, TableReading], Draft | None]
KINDS: dict[str, tuple[Kind, float]] = {  # kind -> what makes it, its share
    "look up": (look_up, 0.15),
    "look up parent": (look_up_parent, 0.05),
    "look up children": (look_up_children, 0.06),
    "list": (list_rows, 0.15),
    "list column": (list_column, 0.06),
    "count": (count, 0.13),
    "distinct": (distinct, 0.02),
    "extreme": (extreme, 0.12),
    "top": (top, 0.03),
    "aggregate": (aggregate, 0.07),
    "above average": (above_average, 0.01),
    "grouped": (grouped, 0.05),
    "by children": (by_children, 0.06),
    "with or without": (with_or_without, 0.02),
    "where": (where_is, 0.02),
}


# --- Proving and drawing --------------------------------------------------------------------------


def answers(connection: sqlite3.Connection, draft: Draft) -> bool:
    """Whether a query runs in time and returns something that is one answer."""
    deadline = time.monotonic() + QUERY_SECONDS
    connection.set_progress_handler(lambda: int(time.monotonic() > deadline), 10_000)
    try:
        rows = connection.execute(draft.sql).fetchmany(MOST_ROWS + 1)
        if not rows or len(rows) > MOST_ROWS or rows in ([(None,)], [(0,)]):
            return False
        return not draft.tied or (
            len(connection.execute(draft.tied).fetchmany(draft.rows + 1)) <= draft.rows
        )
    except sqlite3.Error:
        return False
    finally:
        connection.set_progress_handler(None, 0)


def weight(g: Grammar, table: TableReading) -> float:
    """How often a table is asked about: what has names and columns more than what only links."""
    if table.is_link:
        return 0.0
    extra = any(
        extends(g.reading, k) for k in g.reading.parents(table.name) if k.child == table.name
    )
    return 0.1 if extra else (1.0 if table.label else 0.5) * min(6, 1 + len(askable(table))) ** 0.5


def make_questions(
    connection: sqlite3.Connection, reading: DatabaseReading, wanted: int, seed: int
) -> Iterator[Question]:
    """Up to `wanted` questions, each once, in the shares of KINDS; seeded."""
    g = Grammar(reading, load_phrasings(), random.Random(seed))
    tables = list(reading.tables)
    weights = [weight(g, t) for t in tables]
    seen: set[str] = set()
    runs: dict[str, bool] = {}
    asked_so_far: Counter[str] = Counter()
    for _ in range(wanted):
        for _attempt in range(TRIES):
            name = g.draw.choices(list(KINDS), [share for _, share in KINDS.values()])[0]
            draft = KINDS[name][0](g, g.draw.choices(tables, weights)[0])
            if draft is None or asked_so_far[draft.sql] > max(4, wanted // 150):
                continue
            question = roughened(g.draw, draft.question)
            if question.lower() in seen:
                continue
            if draft.sql not in runs:
                runs[draft.sql] = answers(connection, draft)
            if runs[draft.sql]:
                seen.add(question.lower())
                asked_so_far[draft.sql] += 1
                yield Question(question, draft.sql, name, draft.table)
                break
