"""Things that fill several rows, one for each place: a river and the countries it runs through.

What people ask of such a thing they ask once: `each_once` keeps its rows from being counted or
shown as if they were things. And they ask where it leads: `reach` has those questions.
"""

from __future__ import annotations

import re

from gemma_lora.column_sql import ref, written
from gemma_lora.conditions import some_label
from gemma_lora.grammar import Grammar, asked
from gemma_lora.joined_conditions import reach_said, reached_link
from gemma_lora.nested_conditions import extreme_thing
from gemma_lora.queries import Draft, Query, written_query
from gemma_lora.schema_reading import DatabaseReading, Link
from gemma_lora.superlatives import ordered
from gemma_lora.table_reading import TableReading, quoted
from gemma_lora.value_wording import said_of
from gemma_lora.wording import called, marked, number_said, plural

HEAD = re.compile(r"SELECT (DISTINCT )?(.+?) FROM (.+?)(?= WHERE | GROUP BY | ORDER BY |$)(.*)")
INNERMOST = re.compile(r"\((?:[^()']|'(?:[^']|'')*')*\)")
ADDED_UP = re.compile(r"\b(?:SUM|AVG)\(")
PAIRS_TRIED = 10
NUMBERS = (1, 1, 2, 2, 3, 3, 4, 5)


def each_once(reading: DatabaseReading, sql: str) -> str | None:
    """The query with each thing once, whatever number of rows it fills.

    None where its rows would be added up: the sum of lengths has each river's several times. Where
    one place is named (`runs_through = 'serbia'`) there is nothing to do.
    """
    head = HEAD.match(sql)
    if head is None or sql.startswith("SELECT ("):
        return sql
    once, select, source, rest = head.groups()
    table = next((t for t in reading.tables if quoted(t.name) == source.split(" JOIN ")[0]), None)
    if table is None or not table.spread or once:
        return sql
    lead = f"{quoted(table.name)}." if " JOIN " in source else ""
    name, place = f"{lead}{quoted(table.label[0])}", f"{lead}{quoted(table.spread)}"
    outer = without_inner(rest)
    grouped = re.search(r" GROUP BY (.+?)(?= HAVING | ORDER BY |$)", outer)
    links = [k for k in reading.links if (k.child, k.child_column) == (table.name, table.spread)]
    places = {place, *(f"{quoted(k.parent)}.{quoted(k.parent_column)}" for k in links)}
    if (grouped and grouped[1] in places) or any(f" {p} = " in outer for p in places):
        return sql
    if ADDED_UP.search(select + outer):
        return None
    if "COUNT(*)" in select + outer:
        if (grouped and grouped[1] == name) or f"{name} = " in outer:
            return sql
        return sql.replace("COUNT(*)", f"COUNT(DISTINCT {name})")
    shown = select.split(", ")
    if grouped or "(" in select or places & set(shown) or outer.endswith(" LIMIT 1"):
        return sql
    if name not in shown and f"{name} = " not in outer:
        return None  # 'the lengths of all rivers' without their names
    return f"SELECT DISTINCT {sql.removeprefix('SELECT ')}"


def without_inner(sql: str) -> str:
    """SQL without what stands in parentheses."""
    while (less := INNERMOST.sub("", sql)) != sql:
        sql = less
    return sql


def reach(g: Grammar, table: TableReading) -> Draft | None:
    """Where a thing leads: named, the longest, those that lead to both of two, to the most."""
    if (link := reached_link(g, table)) is None:
        return None
    parent, word = g.reading.table(link.parent), called(g.draw, g.phrasings, table)
    said = reach_said(g, table) | {"thing": word, "things": plural(word)}
    said["parent"] = called(g.draw, g.phrasings, parent)
    said["parents"] = plural(said["parent"])
    chance = g.draw.random()
    if chance < 0.55:
        return reached(g, table, said)
    if chance < 0.75:
        return most_reaching(g, table, link, said)
    if chance < 0.85:
        return reaching_some(g, table, said)
    return reaching_both(g, table, link, said)


def reached(g: Grammar, table: TableReading, said: dict[str, str]) -> Draft | None:
    """The places of a named thing or of the one that has the most, or how many they are."""
    place = ref(table.name, table.spread)
    number = "COUNT(*)"
    if ordered(table) and g.draw.random() < 0.4:
        if (found := extreme_thing(g, table)) is None:
            return None
        value, where = f"the {found[0]}", found[1]
        number = f"COUNT(DISTINCT {place})"
    elif (chosen := some_label(g, table)) is None:
        return None
    else:
        value, where = chosen
        value = f"the {value}" if g.draw.random() < 0.4 else value
    counted = g.draw.random() < 0.25
    query = Query(table.name, number if counted else place, where=where)
    question = asked(g, "reached_count" if counted else "reached", **said, value=value)
    return Draft(question, written_query(query), table.name)


def most_reaching(g: Grammar, table: TableReading, link: Link, said: dict[str, str]) -> Draft:
    """The thing that leads to the most places, or how many each leads to."""
    name = ref(table.name, table.label[0])
    groups = Query(table.name, name, rest=f"GROUP BY {name}")
    if g.draw.random() < 0.25:
        query = groups._replace(select=f"{name}, COUNT(*)")
        return Draft(asked(g, "reach_count", **said), written_query(query), table.name)
    numbers = written_query(groups._replace(select="COUNT(*) AS n"))
    tied = f"SELECT 1 FROM ({numbers}) WHERE n = (SELECT MAX(n) FROM ({numbers}))"
    query = groups._replace(rest=f"{groups.rest} ORDER BY COUNT(*) DESC LIMIT 1")
    return Draft(asked(g, "reach_most", **said), written_query(query), table.name, tied)


def reaching_some(g: Grammar, table: TableReading, said: dict[str, str]) -> Draft:
    """Things that lead to more than some number of places, or to just one."""
    name, n = ref(table.name, table.label[0]), g.draw.choice(NUMBERS)
    form, sign = g.draw.choices((("reach_over", ">"), ("reach_least", ">=")), (3, 1))[0]
    if g.draw.random() < 0.15:
        form, sign, n = "reach_one", "=", 1
    elif form == "reach_least":
        n = max(2, n)
    rest = f"GROUP BY {name} HAVING COUNT(*) {sign} {n}"
    question = asked(g, form, **said, n=marked(number_said(g.draw, n)))
    return Draft(question, written_query(Query(table.name, name, rest=rest)), table.name)


def reaching_both(
    g: Grammar, table: TableReading, link: Link, said: dict[str, str]
) -> Draft | None:
    """Things that lead to two named places, or to one and no other."""
    parent = g.reading.table(link.parent)
    if parent.label != (link.parent_column,) or len(parent.names) < 2:
        return None
    name, place = ref(table.name, table.label[0]), ref(table.name, table.spread)
    for _ in range(PAIRS_TRIED):  # few pairs of places share anything
        (one,), (other,) = g.draw.sample(parent.names, 2)
        inner = Query(table.name, name, where=f"{place} = {written(other)}")
        shared = f"{place} = {written(one)} AND {name} IN ({written_query(inner)})"
        if g.holds(written_query(Query(table.name, "1", where=shared))):
            break
    form, has = "reach_both", "IN"
    said |= {"value": said_of(g, parent.column(parent.label[0]), one)}
    said |= {"value2": said_of(g, parent.column(parent.label[0]), other)}
    if g.draw.random() < 0.25:
        form, has = "reach_only", "NOT IN"
        inner = inner._replace(where=f"{place} <> {written(one)}")
    where = f"{place} = {written(one)} AND {name} {has} ({written_query(inner)})"
    return Draft(
        asked(g, form, **said), written_query(Query(table.name, name, where=where)), table.name
    )
