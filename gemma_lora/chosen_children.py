"""The one of what belongs to a row that the row names: a state's capital, a team's captain.

A column of states holds the name of one of its own cities. So people ask how many live in the
capital of texas, for the largest capital, and of which state austin is the capital.
"""

from __future__ import annotations

from typing import NamedTuple

from gemma_lora.column_sql import ref, written
from gemma_lora.conditions import some_label
from gemma_lora.grammar import Condition, Grammar, asked, dealt
from gemma_lora.schema_reading import Link
from gemma_lora.table_reading import ColumnReading, TableReading, quoted
from gemma_lora.value_wording import said_of
from gemma_lora.wording import called

NAMED = 0.7  # of the rows, so many must name one of their own
ROWS_LOOKED_AT = 50  # of the parents: for each a large table of children may be read whole


class Chosen(NamedTuple):
    """A column of parents that names one of their children."""

    link: Link  # from the child to its parent
    column: ColumnReading  # of the parent


def chosen_of(g: Grammar, table: TableReading) -> list[Chosen]:
    """The columns by which parents name one of this table's rows, which are theirs."""
    if len(table.label) != 1:
        return []
    name = quoted(table.label[0])
    found = []
    for link in g.reading.parents(table.name):
        parent, own = quoted(link.parent), quoted(link.child_column)
        for column in g.reading.table(link.parent).columns:
            text = column.role in ("category", "code") and column.name != link.parent_column
            if not text or column.name in g.reading.table(link.parent).label:
                continue
            there = (
                f"EXISTS (SELECT 1 FROM {quoted(table.name)} AS own WHERE own.{name} = "
                f"{parent}.{quoted(column.name)} AND own.{own} = "
                f"{parent}.{quoted(link.parent_column)})"
            )
            some = f"(SELECT * FROM {parent} LIMIT {ROWS_LOOKED_AT}) AS {parent}"
            if g.holds(f"SELECT 1 FROM (SELECT AVG({there}) AS n FROM {some}) WHERE n > {NAMED}"):
                found.append(Chosen(link, column))
    return found


def is_chosen(g: Grammar, table: TableReading) -> Condition:
    """Rows that are so named: 'capitals'."""
    chosen = g.draw.choice(chosen_of(g, table))
    word = called_so(g, table, chosen)
    return Condition(
        word,
        where_chosen(table, chosen),
        True,
        (chosen.link,),
        column=(chosen.link.parent, chosen.column.name),
        noun=word,
    )


def called_so(g: Grammar, table: TableReading, chosen: Chosen) -> str:
    """'capital', or 'capital city'."""
    word, kind = called(g.draw, g.phrasings, chosen.column), table.words[0]
    return f"{word} {kind}" if kind not in word and g.draw.random() < 0.25 else word


def where_chosen(table: TableReading, chosen: Chosen) -> str:
    """The SQL by which a row is the one that its parent names."""
    return f"{ref(table.name, table.label[0])} = {ref(chosen.link.parent, chosen.column.name)}"


def parent_of_chosen(g: Grammar, table: TableReading) -> tuple[str, str, str, str] | None:
    """(question, what is selected, the condition, the parent's table): whose capital a city is."""
    chosen = g.draw.choice(chosen_of(g, table))
    parent = g.reading.table(chosen.link.parent)
    if not parent.label:
        return None
    value = dealt(g, (parent.name, chosen.column.name), chosen.column.values)
    said = {
        "attr": called(g.draw, g.phrasings, chosen.column),
        "parent": called(g.draw, g.phrasings, parent),
        "value": said_of(g, chosen.column, value),
    }
    where = f"{ref(parent.name, chosen.column.name)} = {written(value)}"
    select = ", ".join(ref(parent.name, c) for c in parent.label)
    return asked(g, "parent_of_chosen", **said), select, where, parent.name


def some_chosen(g: Grammar, table: TableReading) -> tuple[str, Condition] | None:
    """('the capital of texas', the condition that picks it)."""
    chosen = g.draw.choice(chosen_of(g, table))
    link = chosen.link
    parent = g.reading.table(link.parent)
    if (named := some_label(g, parent)) is None:
        return None
    value, where = named
    if parent.label == (link.parent_column,):
        where = where.replace(ref(parent.name, parent.label[0]), ref(table.name, link.child_column))
    word = called_so(g, table, chosen)
    said = f"{value}'s {word}" if g.draw.random() < 0.2 else f"the {word} of {value}"
    return said, Condition(said, f"{where_chosen(table, chosen)} AND {where}", links=(link,))
