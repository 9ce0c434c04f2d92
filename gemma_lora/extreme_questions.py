"""Questions for the row that has the most of something, the three that have, one in each group."""

from __future__ import annotations

from gemma_lora.column_sql import UNSORTED, in_order, ref
from gemma_lora.date_conditions import main_date
from gemma_lora.grammar import Condition, Grammar, asked
from gemma_lora.joined_conditions import agent_of, agent_said, extends
from gemma_lora.queries import (
    Draft,
    Query,
    askable,
    conditions_on,
    key_of,
    label_of,
    noun_slots,
    shown_links,
    written_query,
)
from gemma_lora.schema_reading import Link
from gemma_lora.superlatives import ordered, repeats, superlative
from gemma_lora.table_reading import ColumnReading, TableReading
from gemma_lora.wording import called, filled, is_called, marked, participle, plural


def extreme(g: Grammar, table: TableReading) -> Draft | None:
    """The row that has the most of something: its name, or another column of it."""
    columns, named = ordered(table), bool(table.label or table.shown)
    if not columns or not (named or key_of(table)):
        return None
    column = g.draw.choice(columns)
    found = conditions_on(g, table, (3.5, 5, 2.5, 0.3))
    if any(c.repeats or c.column == (table.name, column.name) for c in found):
        return None
    adjective, high, way = superlative(g, table, column)
    attr = called(g.draw, g.phrasings, column)
    said = noun_slots(g, table, found) | {"attr": attr, "high": high}
    if adjective:
        said["most"] = adjective
    others = [c for c in askable(table) if c is not column]
    select = label_of(table)
    chance = g.draw.random()
    if others and chance < (0.12 if named else 0.6):  # the date of the biggest invoice
        other = g.draw.choice(others)
        said["attr2"], select = called(g.draw, g.phrasings, other), ref(table.name, other.name)
        question = asked(g, "look_up_extreme", **said)
    elif adjective and chance < 0.75:
        person = is_called(g.phrasings, "people", table.words) and g.draw.random() < 0.4
        where = bool(table.shown) and g.draw.random() < 0.25
        question = asked(g, "most_who" if person else "most_where" if where else "most", **said)
    elif chance < 0.85 and table.label:
        select = f"{select}, {ref(table.name, column.name)}"
        question = asked(g, "most_and_value", **said)
    else:
        question = asked(g, "highest", **said)
    return extreme_of(g, table, column, found, (select, way, question))


def extreme_date(g: Grammar, table: TableReading) -> Draft | None:
    """When the first or the last was: 'when was the last order'."""
    dates = [c for c in table.columns if c.role == "date" and c.form not in UNSORTED]
    if not dates:
        return None
    column = g.draw.choice(dates)
    found = conditions_on(g, table, (4, 5))
    if any(c.repeats or c.column == (table.name, column.name) for c in found):
        return None
    last = g.draw.random() < 0.6
    said = noun_slots(g, table, found) | {"attr": called(g.draw, g.phrasings, column)}
    said["last"] = g.draw.choice(
        ("last", "latest", "most recent") if last else ("first", "earliest")
    )
    done = participle(column)
    said |= {"done": done} if done else {}
    forms = g.phrasings.forms["extreme_date"]
    if column is not main_date(table):
        forms = tuple(f for f in forms if "{attr}" in f or "{done}" in f)
    query = Query(table.name, f"{'MAX' if last else 'MIN'}({ref(table.name, column.name)})", found)
    return Draft(filled(g.draw, forms, said), written_query(query), table.name)


def extreme_of(
    g: Grammar,
    table: TableReading,
    column: ColumnReading,
    found: tuple[Condition, ...],
    wanted: tuple[str, str, str],
    links: tuple[Link, ...] = (),
) -> Draft:
    """The draft of an extreme; `wanted` is what is selected, ASC or DESC, and the question."""
    select, way, question = wanted
    by = in_order(column, table.name)
    links = (*links, *(shown_links(g, table) if table.shown else ()))
    if repeats(table, column) and column.form not in UNSORTED:
        inner = written_query(
            Query(table.name, f"{'MAX' if way == 'DESC' else 'MIN'}({by})", found)
        )
        query = Query(table.name, select, found, links, where=f"{by} = ({inner})")
        query = query._replace(distinct=bool(links) and not table.label)
        return Draft(question, written_query(query), table.name)
    query = Query(table.name, select, found, links, f"ORDER BY {by} {way} LIMIT 1")
    if table.spread and (links or select == ref(table.name, table.spread)):
        best = Query(table.name, f"{'MAX' if way == 'DESC' else 'MIN'}({by})", found)
        where = f"{by} = ({written_query(best)})"
        query = query._replace(where=where, rest="", distinct=True)
        return Draft(question, written_query(query), table.name)
    if way == "ASC" and column.missing:
        query = query._replace(where=f"{by} IS NOT NULL")
    tied = extremes_tied(table, query, by, way)
    return Draft(question, written_query(query), table.name, tied)


def extremes_tied(table: TableReading, query: Query, by: str, way: str, rows: int = 1) -> str:
    """SQL that returns more than `rows` rows when the last of them shares its place."""
    last = f"ORDER BY {by} {way} LIMIT 1 OFFSET {rows - 1}"
    inner = written_query(query._replace(select=by, rest=last))
    select = "1"
    if table.spread:  # the rows of one thing share no place
        select = label_of(table)
        query = query._replace(distinct=True)
        ranked = query._replace(select=f"{select}, {by} AS n", rest=f"ORDER BY n {way} LIMIT 1")
        inner = f"SELECT n FROM ({written_query(ranked)} OFFSET {rows - 1})"
    sign = ">=" if way == "DESC" else "<="
    where = " AND ".join(filter(None, (query.where, f"{by} {sign} ({inner})")))
    return written_query(query._replace(select=select, where=where, rest=f"LIMIT {rows + 1}"))


def extreme_parent(g: Grammar, table: TableReading) -> Draft | None:
    """What the extreme row belongs to: 'who wrote the longest book'."""
    parents = [k for k in g.reading.parents(table.name) if g.reading.table(k.parent).label]
    columns = ordered(table)
    if not parents or not columns or not table.label:
        return None
    link, column = g.draw.choice(parents), g.draw.choice(columns)
    parent = g.reading.table(link.parent)
    adjective, high, way = superlative(g, table, column)
    found = conditions_on(g, table, (4, 1.5))
    if any(c.repeats for c in found) or not adjective:
        return None
    said = noun_slots(g, table, found) | {"most": adjective, "high": high}
    said["parent"] = called(g.draw, g.phrasings, parent)
    direct = parent.label == (link.parent_column,)
    select = ref(table.name, link.child_column) if direct else label_of(parent)
    links = () if direct else (link,)
    agent, form = agent_of(g, parent), "parent_of_extreme"
    if agent and g.draw.random() < 0.6:
        said |= agent_said(agent)
        form = "maker_of_extreme"
    elif askable(parent) and g.draw.random() < 0.3:
        other = g.draw.choice(askable(parent))
        said["attr"] = called(g.draw, g.phrasings, other)
        form, select, links = "look_up_parent_of_extreme", ref(parent.name, other.name), (link,)
    question = asked(g, form, **said)
    return extreme_of(g, table, column, found, (select, way, question), links)


def extreme_of_parent(g: Grammar, table: TableReading) -> Draft | None:
    """What has the row with the most, where rows have no names: 'which pet had the highest fever'.

    Over what has no name either: the customer of the order with the dearest item.
    """
    columns = [c for c in ordered(table) if c.role == "measure"]
    ways: list[tuple[Link, ...]] = [(k,) for k in g.reading.parents(table.name)]
    ways += [(*way, up) for way in ways if not g.reading.table(way[0].parent).label
             for up in g.reading.parents(way[0].parent)]  # fmt: skip
    ways = [way for way in ways if g.reading.table(way[-1].parent).label]
    if table.label or not columns or not ways:
        return None
    column, way = g.draw.choice(columns), g.draw.choice(ways)
    parent = g.reading.table(way[-1].parent)
    adjective, high, order = superlative(g, table, column)
    attr = called(g.draw, g.phrasings, column)
    said = {"parent": called(g.draw, g.phrasings, parent), "attr": attr, "high": high}
    said |= {"thing": called(g.draw, g.phrasings, table)}
    said |= {"most": adjective} if adjective else {}
    question, select = asked(g, "extreme_of_parent", **said), label_of(parent)
    if g.draw.random() < 0.3:
        question += asked(g, "and_what_was_it", **said)
        select += f", {ref(table.name, column.name)}"
    draft = extreme_of(g, table, column, (), (select, order, question), way)
    return draft if draft.tied else draft._replace(tied=f"{draft.sql} LIMIT 4", rows=3)


def top(g: Grammar, table: TableReading) -> Draft | None:
    """The three or five rows that have the most of something."""
    columns = ordered(table)
    if not columns or not table.label or table.rows < 8:
        return None
    column = g.draw.choice(columns)
    found = tuple(c for c in conditions_on(g, table, (5, 4)) if not c.repeats)
    adjective, high, way = superlative(g, table, column)
    n = g.draw.choice((2, 3, 3, 3, 5, 5, 5, 10))
    words = ("two", "three", "five", "ten")
    number = {2: words[0], 3: words[1], 5: words[2], 10: words[3]}[n]
    said = noun_slots(g, table, found) | {
        "attr": called(g.draw, g.phrasings, column),
        "high": high,
        "n": marked(number if g.draw.random() < 0.4 else n),
    }
    if adjective:
        said["most"] = adjective
    by = in_order(column, table.name)
    forms = g.phrasings.forms["top"]
    if way == "ASC":  # 'top 3 by price' are the dearest
        forms = tuple(f for f in forms if "top {n}" not in f)
    select = label_of(table)
    if g.draw.random() < 0.15:
        select, forms = f"{select}, {ref(table.name, column.name)}", g.phrasings.forms["top_with"]
        forms = tuple(f for f in forms if way == "DESC" or "top {n}" not in f)
    query = Query(table.name, select, found, (), f"ORDER BY {by} {way} LIMIT {n}")
    if way == "ASC" and column.missing:
        query = query._replace(where=f"{by} IS NOT NULL")
    question = filled(g.draw, forms, said)
    if adjective and g.draw.random() < 0.1:
        question += f", {adjective} first"
    tied = extremes_tied(table, query, by, way, n)
    return Draft(question, written_query(query), table.name, tied, n)


def extreme_each(g: Grammar, table: TableReading) -> Draft | None:
    """The extreme row of each category: 'the cheapest product of each category'."""
    columns = [c for c in ordered(table) if c.role == "measure" and not c.form]
    if not columns or not table.label:
        return None
    column = g.draw.choice(columns)
    groups = [
        (called(g.draw, g.phrasings, c), ref(table.name, c.name), ())
        for c in table.columns
        if c.role == "category" and 1 < len(c.values) <= 60 and c.name not in table.label
    ]
    for link in g.reading.parents(table.name):
        parent = g.reading.table(link.parent)
        if parent.label and not extends(g.reading, link):
            word = called(g.draw, g.phrasings, parent)
            groups.append((word, label_of(parent), (link,)))  # type: ignore[arg-type]
    if not groups:
        return None
    word, by, links = g.draw.choice(groups)
    adjective, high, way = superlative(g, table, column)
    said = {"parent": word, "parents": plural(word), "attr": called(g.draw, g.phrasings, column)}
    said |= noun_slots(g, table, ()) | {"high": high} | ({"most": adjective} if adjective else {})
    measured = f"{'MAX' if way == 'DESC' else 'MIN'}({ref(table.name, column.name)})"
    key = ref(links[0].parent, links[0].parent_column) if links else by
    select = f"{by}, {label_of(table)}, {measured}"
    if g.draw.random() < 0.5:  # SQLite takes the other columns from the row of the extreme
        query = Query(table.name, select, links=links, rest=f"GROUP BY {key}")
        return Draft(asked(g, "extreme_each", **said), written_query(query), table.name)
    query = Query(table.name, f"{by}, {measured}", links=links, rest=f"GROUP BY {key}")
    return Draft(asked(g, "extreme_value_each", **said), written_query(query), table.name)
