"""Questions that set named rows beside each other, and for the second of all: 'which is longer'."""

from __future__ import annotations

from gemma_lora.column_sql import in_order, number_of, ref, written
from gemma_lora.extreme_questions import extremes_tied
from gemma_lora.grammar import Grammar, asked, dealt
from gemma_lora.list_questions import listed
from gemma_lora.nested_conditions import named_once
from gemma_lora.queries import (
    Draft,
    Query,
    adds_up,
    conditions_on,
    label_of,
    noun_slots,
    written_query,
)
from gemma_lora.superlatives import measures, ordered, repeats, superlative
from gemma_lora.table_reading import ColumnReading, TableReading
from gemma_lora.value_wording import said_of
from gemma_lora.wording import called, compared_words, concept_of, plural


def compared(g: Grammar, table: TableReading) -> Draft | None:
    """Two or three rows that are named: which has more, by how much, of each, together."""
    columns = [c for c in measures(table) if not c.form]
    names = named_once(table)
    if not columns or len(table.label) != 1 or len(names) < 4:
        return None
    column = g.draw.choice(columns)
    several = g.draw.choice((2, 2, 3))
    values = list(
        dict.fromkeys(dealt(g, (table.name, "compared"), names)[0] for _ in range(several))
    )
    if len(values) < several:
        return None
    said = {
        "attr": called(g.draw, g.phrasings, column),
        "thing": called(g.draw, g.phrasings, table),
    }
    said["things"], said["attrs"] = plural(said["thing"]), plural(said["attr"])
    spoken = [said_of(g, table.column(table.label[0]), v) for v in values]
    name, by = ref(table.name, table.label[0]), number_of(column, table.name)
    where = f"{name} IN ({', '.join(map(written, values))})"
    chance = g.draw.random()
    if chance < 0.3 and adds_up(g, column):
        question = asked(g, "sum_of_named", **said, values=listed(spoken))
        return Draft(
            question, written_query(Query(table.name, f"SUM({by})", where=where)), table.name
        )
    if chance < 0.55 or several > 2:
        question = asked(g, "look_up_several", **said, values=listed(spoken))
        query = Query(table.name, f"{name}, {by}", where=where)
        return Draft(question, written_query(query), table.name)
    return set_against(g, table, column, said, (values[0], values[1]), (spoken[0], spoken[1]))


def set_against(
    g: Grammar,
    table: TableReading,
    column: ColumnReading,
    said: dict[str, str],
    values: tuple[str | int | float, ...],
    spoken: tuple[str, str],
) -> Draft | None:
    """Which of two named rows has more of a measure, and now and then by how much."""
    up = g.draw.random() < 0.75
    said |= compared_words(g.draw, concept_of(g.phrasings, column), up)
    said |= {"high": "higher" if up else "lower", "value": spoken[0], "value2": spoken[1]}
    name, by = ref(table.name, table.label[0]), number_of(column, table.name)
    if g.draw.random() < 0.3 and up and "longer" in said:
        one, other = (
            written_query(Query(table.name, by, where=f"{name} = {written(v)}")) for v in values
        )
        if not g.holds(f"SELECT 1 WHERE ({one}) > ({other})"):
            one, other = other, one
            said |= {"value": spoken[1], "value2": spoken[0]}
        question = asked(g, "how_much_more", **said)
        return Draft(question, f"SELECT ({one}) - ({other})", table.name)
    where = f"{name} IN ({', '.join(map(written, values))})"
    rest = f"ORDER BY {by} {'DESC' if up else 'ASC'} LIMIT 1"
    query = Query(table.name, name, where=where, rest=rest)
    tied = extremes_tied(table, query, by, "DESC" if up else "ASC")
    return Draft(asked(g, "which_more", **said), written_query(query), table.name, tied)


def second(g: Grammar, table: TableReading) -> Draft | None:
    """The row that comes second or third by something."""
    columns = [c for c in ordered(table) if not repeats(table, c)]
    if not columns or not table.label or table.rows < 8 or table.shown:
        return None
    column = g.draw.choice(columns)
    found = tuple(c for c in conditions_on(g, table, (5, 4)) if not c.repeats)
    adjective, high, way = superlative(g, table, column)
    place, nth = g.draw.choice(((2, "second"), (2, "second"), (2, "2nd"), (3, "third")))
    said = noun_slots(g, table, found) | {"attr": called(g.draw, g.phrasings, column)}
    said |= {"high": f"{nth} {high}"} | ({"most": f"{nth} {adjective}"} if adjective else {})
    by = in_order(column, table.name)
    query = Query(
        table.name, label_of(table), found, (), f"ORDER BY {by} {way} LIMIT 1 OFFSET {place - 1}"
    )
    if way == "ASC" and column.missing:
        query = query._replace(where=f"{by} IS NOT NULL")
    tied = extremes_tied(table, query, by, way, place)
    before = extremes_tied(table, query, by, way, place - 1)
    if g.holds(f"SELECT 1 FROM ({before}) LIMIT 1 OFFSET {place - 1}"):
        return None
    question = asked(g, "most" if adjective else "highest", **said)
    return Draft(question, written_query(query), table.name, tied, place)
