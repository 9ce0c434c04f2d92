"""Questions with the query that answers each, made from what a database holds.

The idea is DBPal's (Weir et al., SIGMOD 2020; arXiv 1909.06182): templates as data, filled from
the schema and the values, so that a small model knows one schema by heart. Each kind of question is
one function here; what it says is in `phrasings.yaml`. Every query is run on the file itself:
what fails, returns nothing, or is no single answer (a tie under LIMIT) is dropped.
"""

from __future__ import annotations

import functools
import math
import random
import re
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import NamedTuple

from gemma_lora.comparing_questions import compared, second
from gemma_lora.event_questions import events
from gemma_lora.extension_questions import extension_extreme
from gemma_lora.extreme_questions import (
    extreme,
    extreme_date,
    extreme_each,
    extreme_of_parent,
    extreme_parent,
    top,
)
from gemma_lora.family_questions import by_children, with_or_without
from gemma_lora.grammar import Grammar, asked, put_back
from gemma_lora.group_questions import (
    aggregate,
    chosen_groups,
    compared_groups,
    grouped,
    most_of_groups,
    top_groups,
)
from gemma_lora.joined_conditions import extends, is_its_own
from gemma_lora.list_questions import (
    count,
    count_named,
    distinct,
    list_columns,
    list_ordered,
    list_rows,
    listed,
    share,
)
from gemma_lora.one_meaning import Said, one_meaning
from gemma_lora.own_key_questions import is_relation, own_key, relation
from gemma_lora.queries import Draft, askable
from gemma_lora.row_questions import (
    contents,
    last_of_row,
    look_up,
    look_up_children,
    look_up_chosen,
    look_up_parent,
    where_is,
)
from gemma_lora.said_units import answered_in_unit
from gemma_lora.schema_reading import DatabaseReading, in_time
from gemma_lora.short_sql import shortened
from gemma_lora.spread_questions import each_once, reach
from gemma_lora.table_reading import TableReading, quoted
from gemma_lora.wording import (
    VALUE,
    UnsayableError,
    called,
    load_phrasings,
    loosened,
    marked,
    plural,
    roughened,
)

QUERY_SECONDS = 2.0  # a gold query that takes longer is dropped
TRIES = 40  # attempts for each question wanted, before what there is has to do
TABLES_TRIED = 8  # for a question of one kind, before another kind is drawn
MOST_ROWS = 20_000  # a longer answer is no answer


SELECTED = re.compile(r"SELECT (?:DISTINCT )?([^()]+?(?:, COUNT\(\*\))?) FROM ")


class Question(NamedTuple):
    """A question, the query that answers it, and what kind of question it is."""

    question: str
    sql: str
    kind: str
    table: str


Drawn = tuple[Said, Question]
Kind = Callable[[Grammar, TableReading], Draft | None]
KINDS: dict[str, tuple[Kind, float]] = {  # kind -> what makes it, its share
    "look up": (look_up, 0.12),
    "look up parent": (look_up_parent, 0.05),
    "look up children": (look_up_children, 0.06),
    "list": (list_rows, 0.14),
    "list columns": (list_columns, 0.08),
    "list ordered": (list_ordered, 0.03),
    "count": (count, 0.1),
    "share": (share, 0.012),
    "top groups": (top_groups, 0.012),
    "last of row": (last_of_row, 0.015),
    "extreme of parent": (extreme_of_parent, 0.015),
    "count named": (count_named, 0.01),
    "distinct": (distinct, 0.025),
    "extreme": (extreme, 0.095),
    "extreme parent": (extreme_parent, 0.02),
    "extreme date": (extreme_date, 0.01),
    "extreme each": (extreme_each, 0.014),
    "top": (top, 0.025),
    "aggregate": (aggregate, 0.075),
    "grouped": (grouped, 0.045),
    "chosen groups": (chosen_groups, 0.015),
    "compared groups": (compared_groups, 0.012),
    "most of groups": (most_of_groups, 0.02),
    "by children": (by_children, 0.045),
    "with or without": (with_or_without, 0.03),
    "events": (events, 0.04),
    "own key": (own_key, 0.015),
    "relation": (relation, 0.02),
    "where": (where_is, 0.02),
    "contents": (contents, 0.012),
    "reach": (reach, 0.035),
    "look up chosen": (look_up_chosen, 0.02),
    "compared": (compared, 0.025),
    "second": (second, 0.012),
    "extension extreme": (extension_extreme, 0.02),
}
OF_A_COUNTRY = {
    "list", "count", "extreme", "top", "aggregate", "by children", "with or without", "second",
    "extension extreme",
}  # fmt: skip
WITH_ARTICLE = re.compile("(?i)usa?|uk|united .*|netherlands|philippines")
FILE_SHARE = 0.05  # of these questions, where they are not
COUNTRY_SHARE = 0.15  # of these questions, where all rows are in one country


# --- Proving and drawing --------------------------------------------------------------------------


def returns_a_row(connection: sqlite3.Connection, sql: str) -> bool:
    """Whether a query runs in time and returns at least one row."""
    with in_time(connection, QUERY_SECONDS), suppress(sqlite3.Error):
        return connection.execute(sql).fetchone() is not None
    return False


def answers(connection: sqlite3.Connection, draft: Draft) -> bool:
    """Whether a query runs in time and returns something that is one answer."""
    with in_time(connection, QUERY_SECONDS), suppress(sqlite3.Error):
        rows = connection.execute(draft.sql).fetchmany(MOST_ROWS + 1)
        if not rows or len(rows) > MOST_ROWS or rows in ([(None,)], [(0,)]):
            return False
        return not draft.tied or (
            len(connection.execute(draft.tied).fetchmany(draft.rows + 1)) <= draft.rows
        )
    return False


def weight(g: Grammar, table: TableReading) -> float:
    """How often a table is asked about: what has names and columns more than what only links.

    People ask for orders, not for a view 'Orders Qry', and least where it repeats what tables hold.
    """
    if table.is_link and not is_relation(g, table):
        return 0.0
    if table.is_view and (stored := stored_columns(g.reading)):
        return 0.04 if stored.issuperset(table.held) else 0.12
    ups = [k for k in g.reading.parents(table.name) if k.child == table.name]
    if any(extends(g.reading, k) and not is_its_own(g.reading, k) for k in ups):
        return 0.1
    few = 0.3 + math.log10(1 + table.rows) / 3  # five branches have few answers
    return few * (1.0 if table.label else 0.5) * min(6, 1 + len(askable(table))) ** 0.5


def stored_columns(reading: DatabaseReading) -> set[str]:
    """The names of all columns of tables, views left out."""
    return {c for t in reading.tables if not t.is_view for c in t.held}


def is_about(g: Grammar, draft: Draft) -> bool:
    """Whether a question is about its table: of a view only what names it or what it alone shows.

    'How much is jam' asks what jam costs, not for the sum of a view of a year's sales.
    """
    table = g.reading.table(draft.table)
    stored = stored_columns(g.reading)
    if not table.is_view or not stored:
        return True
    own = [c for c in table.columns if c.name not in stored and quoted(c.name) in draft.sql]
    words = [*table.words, *(w for c in own for w in c.words)]
    words += [w for word in words for w in g.phrasings.synonyms.get(word, ())]
    said = VALUE.sub("", draft.question).lower()
    return any(w in said or plural(w) in said for w in words)


def drafted(g: Grammar, kind: Kind, tables: Sequence[TableReading]) -> Draft | None:
    """A question of a kind about the first of some tables that has one."""
    for table in tables:
        if kind is not relation and is_relation(g, table):
            continue  # nobody asks for borders, but for states by what they border
        with suppress(UnsayableError):  # the words that this needs are not there
            if (draft := kind(g, table)) is not None and is_about(g, draft):
                return draft
    return None


def in_the_country(g: Grammar, kind: str, draft: Draft) -> str:
    """The question, now and then with the country that all rows are in: 'in the us'.

    People name it where a file's every row is of one country, and the query need not. Of other
    files they say the name: 'in europe' of europe.sqlite.
    """
    columns = g.reading.table(draft.table).columns
    held = [c for c in columns if "country" in c.words and len(c.values) == 1 and not c.missing]
    fits = kind in OF_A_COUNTRY and not re.search(" in \x02|[?,]", draft.question)
    if not held and fits and g.reading.called and g.draw.random() < FILE_SHARE:
        return f"{draft.question} in {marked(g.reading.called)}"
    if not held or not fits or held[0].name in draft.sql or g.draw.random() > COUNTRY_SHARE:
        return draft.question
    value = str(held[0].values[0])
    said = g.draw.choice(g.phrasings.countries.get(value.lower(), (value,)))
    the = "the " if WITH_ARTICLE.fullmatch(said) else ""
    return f"{draft.question} in {marked(the + said)}"


def with_names(g: Grammar, question: str, sql: str) -> str:
    """The question, now and then with the columns that are wanted: '..., first and last name'.

    Oftener where a thing's name is in two columns.
    """
    select = SELECTED.match(sql)
    columns = select[1].split(", ") if select else []
    said = [one for column in columns if (one := column_called(g, sql, column))]
    if not said or len(said) < len(columns) or "?" in question:
        return question
    names = {column.split(".")[-1] for column in columns}
    parted = any(len(t.label) == 2 and names >= set(t.label) for t in g.reading.tables)
    if g.draw.random() > (0.25 if parted else 0.08 if len(said) > 1 else 0.03):
        return question
    return asked(g, "asked_names", asked=question, names=listed(said))


def column_called(g: Grammar, sql: str, selected: str) -> str | None:
    """What a selected column is called, or the number of rows; None for other expressions."""
    if selected == "COUNT(*)":
        return g.draw.choice(("the number", "number", "how many"))
    *table, name = selected.replace('"', "").split(".")
    owners = [t for t in g.reading.tables if any(c.name == name for c in t.columns)]
    named = [t for t in owners if t.name in (table or re.findall(r"\w+", sql))]
    if not named or named[0].spread == name:  # 'runs through' is no noun
        return None
    return called(g.draw, g.phrasings, named[0].column(name))


def drawn_questions(
    connection: sqlite3.Connection, reading: DatabaseReading, wanted: int, seed: int
) -> Iterator[Drawn]:
    """Up to `wanted` questions, each once, in the shares of KINDS; seeded."""
    holds = functools.cache(functools.partial(returns_a_row, connection))
    g = Grammar(reading, load_phrasings(), random.Random(seed), {}, [], holds)
    tables = list(reading.tables)
    weights = [weight(g, t) for t in tables]
    seen: set[str] = set()
    runs: dict[str, bool] = {}
    asked_so_far: Counter[str] = Counter()
    for _ in range(wanted):
        g.taken.clear()
        for _attempt in range(TRIES):
            put_back(g)
            name = g.draw.choices(list(KINDS), [share for _, share in KINDS.values()])[0]
            draft = drafted(g, KINDS[name][0], g.draw.choices(tables, weights, k=TABLES_TRIED))
            if draft is None:
                continue
            if (once := each_once(reading, draft.sql)) is None:
                continue
            draft = draft._replace(sql=shortened(reading, once))
            if asked_so_far[draft.sql] > max(4, wanted // 150):
                continue
            asked_in, sql = answered_in_unit(g, in_the_country(g, name, draft), draft.sql)
            draft = draft._replace(sql=sql)
            said = Said(with_names(g, asked_in, sql), sql)
            question = roughened(g.draw, loosened(g.draw, g.phrasings, said.question))
            if question.lower() in seen:
                continue
            if draft.sql not in runs:
                runs[draft.sql] = answers(connection, draft)
            if runs[draft.sql]:
                seen.add(question.lower())
                asked_so_far[draft.sql] += 1
                yield said, Question(question, draft.sql, name, draft.table)
                break


def make_questions(
    connection: sqlite3.Connection,
    reading: DatabaseReading,
    wanted: int,
    seed: int,
    watch: Callable[[Iterator[Drawn]], Iterator[Drawn]] = iter,
) -> list[Question]:
    """Up to `wanted` questions, each once, no two said alike with queries that both answer.

    (But for the first of several in an order, which is proved for its own values.) `watch` passes
    them through while they are drawn, to tell how far that is.
    """
    drawn = list(watch(drawn_questions(connection, reading, wanted, seed)))

    def shows(sql: str) -> bool:
        return answers(connection, Draft("", sql, ""))

    queries = one_meaning([said for said, _ in drawn], reading.tables, functools.cache(shows))
    return [one._replace(sql=sql) for (_, one), sql in zip(drawn, queries, strict=True)]
