"""Conditions that a question names and its query leaves out, added where it is plain what is meant.

A small model that is asked for closed rentals of vans may write a query for closed rentals: what it
says is right, and not all of it. Of the texts that sort a table's rows into kinds ('Van', 'Closed')
those that the question names word by word and the query does not write become conditions, in a
table of the query or in one that a key leads to at once. Of people's questions about a rental's
file 8 of 80 answers were changed so and 8 became right; on a shop's 3 and 3, on a geography's 10
and none, and no right answer was lost. Of 7,500 made queries, which leave nothing out, 27 were
changed, none of their answers.

Not covered: queries in queries, numbers, dates, names of single rows, other words for a value.
"""

from __future__ import annotations

import importlib
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from gemma_lora.mending import (
    KEPT_VALUES,
    Mended,
    Mender,
    join_tables,
    place_columns,
    select_in,
    shows,
    spoken,
)
from gemma_lora.query_blocks import Block, nearest, read_block
from gemma_lora.schema_prompt import words_of
from gemma_lora.table_reading import literal, quoted
from gemma_lora.wording import load_phrasings

CATEGORY_VALUES = 500  # a column with more of them names things, it does not sort them
VALUE_LENGTH = 40
LEAST_LETTERS = 3  # 'on' is a word before it is Ontario
# Values that are words of any question: 'average' of ratings called good, average and bad.
ASKING = frozenset(
    "average total sum count number most least best worst good bad great high low highest lowest "
    "new newest old oldest first last latest early late other all any none yes name date year "
    "month day week time show list give find tell how many much what which who where when".split()
)
# Where something is denied, or one of two will do, a kind that is named is no condition as it is.
DENIED = re.compile(
    r"(?i)\b(?:no|not|never|without|except|excluding|outside|but|or)\b|n't\b|other than"
)
Place = tuple[str, str]  # a table and one of its columns


class Kinds(NamedTuple):
    """The texts of a database that sort rows into kinds, where they stand, and its other texts."""

    places: dict[str, list[Place]]
    texts: frozenset[str]  # all short ones, by their words


def categories(values: Sequence[object]) -> Iterator[str]:
    """The values of a column that sorts its rows: text, few, each short and mostly repeated."""
    different = {value for value in values if isinstance(value, str)}
    if len(different) <= min(CATEGORY_VALUES, len(values) // 2):
        yield from (value for value in different if len(value) <= VALUE_LENGTH)


def kinds_in(mender: Mender) -> Kinds:
    """The kinds of a mender's database, by the first rows of each table."""
    places: dict[str, list[Place]] = {}
    texts: set[str] = set()
    for table, columns in mender.schema.columns.items():
        # A number is no kind, which substr would make a text.
        short = ", ".join(
            f"iif(typeof({c}) = 'text', substr({c}, 1, {VALUE_LENGTH + 1}), NULL)"
            for c in map(quoted, columns)
        )
        if not columns:
            continue
        rows = mender.run(f"SELECT {short} FROM {quoted(table)} LIMIT {KEPT_VALUES}")
        for name, column in zip(columns, zip(*rows, strict=True), strict=False):
            texts |= {spoken(value) for value in column if isinstance(value, str)}
            for value in categories(column):
                places.setdefault(value, []).append((table, name))
    return Kinds(places, frozenset(texts))


class Completer:
    """Completes queries on a mender's database, whose kinds are read when they are first needed."""

    why = "as the question says"

    def __init__(self, mender: Mender) -> None:
        self.mender = mender
        self._kinds: Kinds | None = None

    def __call__(self, sql: str, question: str) -> Mended | None:
        """The query with what was left out, when it then shows something; else None."""
        if not sql or not self.mender.able:
            return None
        if self._kinds is None:
            self._kinds = kinds_in(self.mender)
        found = completed(self.mender, self._kinds, sql, question)
        return found if found and shows(self.mender.run(found.sql)) else None


def completed(mender: Mender, kinds: Kinds, sql: str, question: str) -> Mended | None:
    """A query with the kinds that its question names and it does not; None where there are none."""
    exp = importlib.import_module("sqlglot").exp
    tree = None if DENIED.search(question) else select_in(sql)
    if tree is None or len(list(tree.find_all(exp.Query))) != 1:
        return None
    block = read_block(tree, mender.schema)
    left_out = [
        value
        for value in named_kinds(tree, kinds, question)
        if not words_of(value) <= words_of(sql)  # 'open' of an open date is said
    ]
    if block is None or not left_out:
        return None
    place_columns(block)
    if block.changes:
        return None  # it fails as it is
    compared = {
        (block.owners.get(id(c)), c.name.lower())
        for where in (tree.args.get("where"), tree.args.get("having"))
        for c in (where.find_all(exp.Column) if where else ())
    }
    found = [(place_of(block, kinds, value), value) for value in left_out]
    times = Counter(place for place, _ in found)
    added = [
        add_condition(block, place, value)
        for place, value in found
        if place and times[place] == 1 and (place[0], place[1].lower()) not in compared
    ]
    if not added or not join_tables(block):
        return None
    return Mended(tree.sql("sqlite"), tuple(added))


def named_kinds(tree: Any, kinds: Kinds, question: str) -> list[str]:
    """The kinds that a question names and the query does not, none inside a longer text named."""
    exp = importlib.import_module("sqlglot").exp
    asked = spoken(question)
    written = {spoken(one.this) for one in tree.find_all(exp.Literal) if one.is_string}
    written |= {spoken(load_phrasings().demonyms.get(one.strip(), one)) for one in written}
    longer = written | {words for words in kinds.texts if words in asked}
    found = {value: spoken(value) for value in kinds.places}
    return [
        value
        for value, words in found.items()
        if words in asked
        and len(words.strip()) >= LEAST_LETTERS
        and words.strip() not in ASKING
        and words not in written
        and not any(words in other and words != other for other in longer)
    ]


def place_of(block: Block, kinds: Kinds, value: str) -> Place | None:
    """The one column that holds a kind, in a table of the query or a key away; None for several.

    Spanish writers come from Spain: their books' language is another matter.
    """
    places = kinds.places[value]
    here = [place for place in places if place[0] in block.needed]
    people = {one.lower() for one in load_phrasings().demonyms.values()}
    if not here and value.lower() not in people:
        ways = {table: block.schema.way(block.needed, table) for table, _ in places}
        close = [table for table, way in ways.items() if way is not None and len(way) == 1]
        table = nearest(block, close)
        here = [place for place in places if place[0] == table]
    return here[0] if len(here) == 1 else None


def add_condition(block: Block, place: Place, value: str) -> str:
    """Add a condition to a query's WHERE; returns it in words."""
    exp = importlib.import_module("sqlglot").exp
    table, name = place
    column = exp.column(name, table=table)
    block.select.where(exp.EQ(this=column, expression=exp.Literal.string(value)), copy=False)
    for node in block.select.args["where"].find_all(exp.Column):
        if (node.table, node.name) == place:
            block.owners[id(node)] = table  # sqlglot copies what it is given
    if table not in block.needed:
        block.needed.append(table)
    return f"{name} = {literal(value)} added"
