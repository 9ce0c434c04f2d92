"""Questions about rows by what belongs to them: the most, more than two, none."""

from __future__ import annotations

from typing import NamedTuple

from gemma_lora.column_sql import number_of, ref
from gemma_lora.conditions import own_condition
from gemma_lora.grammar import Condition, Grammar, asked
from gemma_lora.group_questions import most_tied
from gemma_lora.joined_conditions import STAFF, extends, verb_of
from gemma_lora.nested_conditions import relations
from gemma_lora.queries import (
    Draft,
    Query,
    adds_up,
    askable,
    conditions_on,
    label_of,
    noun_slots,
    written_query,
)
from gemma_lora.schema_reading import Link
from gemma_lora.superlatives import measures
from gemma_lora.table_reading import TableReading
from gemma_lora.wording import called, is_called, marked, number_said, plural

BY_CHILDREN = (
    "most", "most", "most", "least", "having", "having", "having", "sum", "each", "column"
)  # fmt: skip
NUMBERS = (1, 2, 2, 3, 3, 4, 5, 5, 7, 8, 10, 12, 20)


class Family(NamedTuple):
    """Rows of a table and the rows of another that belong to them."""

    link: Link
    child: TableReading
    seen: TableReading  # what people call them by: the other side of a link table
    found: tuple[Condition, ...]  # on the rows that belong to them
    said: dict[str, str]  # slots: parent, parents, thing, things, and base, past, done of a verb


def some_family(g: Grammar, table: TableReading, conditions: float = 0.15) -> Family | None:
    """A table whose rows belong to this one's, None when there is none or rows have no names."""
    children = [k for k in g.reading.children(table.name) if not extends(g.reading, k)]
    joins = {one.child for one, _ in relations(g, table.name)}
    children = [k for k in children if k.child not in joins]
    if not children or not table.label:
        return None
    link = g.draw.choice(children)
    child = seen = g.reading.table(link.child)
    ups = [k for k in g.reading.parents(child.name) if k.parent != table.name]
    verb = verb_of(g, [link])
    things = [k for k in ups if not is_called(g.phrasings, "people", target(g, k).words)]
    if (child.is_link and ups) or (verb and things and g.draw.random() < 0.4):
        seen = target(g, g.draw.choice(things or ups))
    word, other = called(g.draw, g.phrasings, table), called(g.draw, g.phrasings, seen)
    found: tuple[Condition, ...] = ()
    said = {"parent": word, "parents": plural(word), "thing": other, "things": plural(other)}
    if g.draw.random() < conditions and (one := own_condition(g, child)) and seen is child:
        found = (one,)
        for slot in ("thing", "things"):
            said[slot] = f"{one.said} {said[slot]}" if one.before else f"{said[slot]} {one.said}"
        said["conditions"] = "said"
    if verb and is_called(g.phrasings, "people", table.words) and not STAFF & set(table.words):
        said |= {"base": verb[0], "past": verb[1], "done": verb[2]}
    return Family(link, child, seen, found, said)


def target(g: Grammar, link: Link) -> TableReading:
    """The table that a key leads to."""
    return g.reading.table(link.parent)


def by_children(g: Grammar, table: TableReading) -> Draft | None:
    """Rows by how many belong to them: the most, the fewest, more than n; by a total."""
    if (family := some_family(g, table)) is None:
        return None
    link, child, _, found, said = family
    direct = table.label == (link.parent_column,)
    key = ref(child.name, link.child_column) if direct else ref(table.name, link.parent_column)
    select, links = (key, ()) if direct else (label_of(table), (link,))
    grouped_by = Query(child.name, select, found, links, f"GROUP BY {key}")
    kind = g.draw.choice(BY_CHILDREN)
    if kind == "column":
        return column_of_most(g, table, grouped_by._replace(links=(link,)), said)
    if kind == "having":
        return having_children(g, table, grouped_by, said)
    if kind == "each":
        query = grouped_by._replace(select=f"{select}, COUNT(*)")
        form = "each_done" if "base" in said else "group_count"
        return Draft(asked(g, form, **said), written_query(query), table.name)
    measured, form = "COUNT(*)", f"group_{kind}"
    if kind == "sum":
        summed = [c for c in measures(child) if adds_up(g, c)]
        if not summed:
            return None
        column = g.draw.choice(summed)
        measured, form = f"SUM({number_of(column, child.name)})", "group_top_sum"
        said["attr"] = called(g.draw, g.phrasings, column)
    elif kind == "most" and "base" in said and g.draw.random() < 0.5:
        form = "group_most_done"
    tied = most_tied(grouped_by, measured, "MIN" if kind == "least" else "MAX")
    if kind == "least":  # a row to which nothing belongs has fewer than any that is counted here
        none = written_query(Query(table.name, "1", where=childless(link, found)))
        tied += f" UNION ALL {none}"
    way = "ASC" if kind == "least" else "DESC"
    question, n = asked(g, form, **said), 1
    if kind == "most" and form == "group_most" and g.draw.random() < 0.15:
        n = g.draw.choice((3, 5, 10))
        question = asked(g, "group_top", **said, n=marked(n))
        ranked = written_query(grouped_by._replace(select=f"{measured} AS n"))
        last = f"SELECT n FROM ({ranked}) ORDER BY n DESC LIMIT 1 OFFSET {n - 1}"
        tied = f"SELECT 1 FROM ({ranked}) WHERE n >= ({last})"
    elif kind == "most" and g.draw.random() < 0.12:
        grouped_by = grouped_by._replace(select=f"{select}, {measured}")
        question = asked(g, "and_how_many", asked=question)
    query = grouped_by._replace(rest=f"{grouped_by.rest} ORDER BY {measured} {way} LIMIT {n}")
    return Draft(question, written_query(query), table.name, tied, n)


def column_of_most(
    g: Grammar, table: TableReading, grouped_by: Query, said: dict[str, str]
) -> Draft | None:
    """A column of the row to which the most belong: 'the capital of the state with most rivers'."""
    if not (columns := askable(table)):
        return None
    column = g.draw.choice(columns)
    said["attr"] = called(g.draw, g.phrasings, column)
    tied = most_tied(grouped_by, "COUNT(*)", "MAX")
    query = grouped_by._replace(
        select=ref(table.name, column.name),
        rest=f"{grouped_by.rest} ORDER BY COUNT(*) DESC LIMIT 1",
    )
    question = asked(g, "group_most_attribute", **said)
    return Draft(question, written_query(query), table.name, tied)


def having_children(
    g: Grammar, table: TableReading, grouped_by: Query, said: dict[str, str]
) -> Draft:
    """Rows to which more or fewer than some number of others belong, with the number or without."""
    n = g.draw.choice(NUMBERS)
    kinds = (
        ("having", ">"),
        ("having_at_least", ">="),
        ("having_exactly", "="),
        ("having_less", "<"),
    )
    form, sign = g.draw.choices(kinds, (5, 3, 1, 1))[0]
    if "base" in said and form in ("having", "having_at_least") and g.draw.random() < 0.5:
        form = f"{form}_done"
    rest = f"{grouped_by.rest} HAVING COUNT(*) {sign} {n}"
    question = asked(g, form, **said, n=marked(number_said(g.draw, n)))
    select = grouped_by.select
    if g.draw.random() < 0.2:
        select, question = f"{select}, COUNT(*)", asked(g, "and_how_many", asked=question)
    return Draft(question, written_query(grouped_by._replace(select=select, rest=rest)), table.name)


def childless(link: Link, found: tuple[Condition, ...] = ()) -> str:
    """The condition that nothing, or nothing of a kind, belongs to a row."""
    column = ref(link.child, link.child_column)
    known = f"{column} IS NOT NULL"
    inner = written_query(Query(link.child, column, found, where="" if found else known))
    return f"{ref(link.parent, link.parent_column)} NOT IN ({inner})"


def with_or_without(g: Grammar, table: TableReading) -> Draft | None:
    """Rows to which nothing belongs, or something; also among rows that meet a condition."""
    if (family := some_family(g, table, 0.25)) is None:
        return None
    link, child, _, inside, said = family
    found = tuple(c for c in conditions_on(g, table, (6, 3)) if not c.links)
    slots = noun_slots(g, table, found)
    said["parents"] = slots["things"]
    done = "_done" if "base" in said and not inside else ""
    if g.draw.random() < 0.75:
        form, where = f"without{done}", childless(link, inside)
    else:
        inner = written_query(Query(child.name, ref(child.name, link.child_column), inside))
        form, where = f"with_some{done}", f"{ref(table.name, link.parent_column)} IN ({inner})"
    select = label_of(table)
    if g.draw.random() < 0.3:
        select, form = "COUNT(*)", f"count_{form}"
    query = Query(table.name, select, found, where=where)
    return Draft(asked(g, form, **said), written_query(query), table.name)
