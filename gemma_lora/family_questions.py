"""Questions about rows by what belongs to them: the most, more than two, none."""

from __future__ import annotations

from typing import NamedTuple

from gemma_lora.column_sql import number_of, ref
from gemma_lora.conditions import own_condition
from gemma_lora.grammar import Condition, Grammar, asked
from gemma_lora.group_questions import most_tied
from gemma_lora.joined_conditions import SERVICES, STAFF, extends, verb_of
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
    "most", "most", "most", "least", "having", "having", "having", "sum", "each", "column",
    "average",
)  # fmt: skip
NUMBERS = (1, 2, 2, 3, 3, 4, 5, 5, 7, 8, 10, 12, 20)


class Family(NamedTuple):
    """Rows of a table and the rows of another that belong to them."""

    link: Link
    child: TableReading
    seen: TableReading  # what people call them by: the other side of a link table
    found: tuple[Condition, ...]  # on the rows that belong to them
    said: dict[str, str]  # slots: parent, parents, thing, things, and base, past, done of a verb

    @property
    def doing(self) -> bool:
        """Whether what was done must be said: customers have products by orders and by reviews."""
        return self.seen is not self.child and not self.child.is_link


def some_family(g: Grammar, table: TableReading, conditions: float = 0.15) -> Family | None:
    """A table whose rows belong to this one's, None when there is none or rows have no names."""
    children = [k for k in g.reading.children(table.name) if not extends(g.reading, k)]
    joins = {one.child for one, *_ in relations(g, table.name)}
    children = [k for k in children if k.child not in joins]
    if not children or not table.label:
        return None
    link = g.draw.choice(children)
    child = seen = g.reading.table(link.child)
    ups = [k for k in g.reading.parents(child.name) if k.parent != table.name]
    verb = None if SERVICES & set(table.words) else verb_of(g, [link])
    things = [k for k in ups if not is_called(g.phrasings, "people", target(g, k).words)]
    things = [k for k in things if not SERVICES & set(target(g, k).words)]
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
    people = is_called(g.phrasings, "people", table.words)
    said |= {"who": "who"} if people else {}
    if verb and people and not STAFF & set(table.words):
        said |= {"base": verb[0], "past": verb[1], "done": verb[2]}
    elif verb and not people:
        said |= {"did": verb[1], "made": verb[2]}
    return Family(link, child, seen, found, said)


def target(g: Grammar, link: Link) -> TableReading:
    """The table that a key leads to."""
    return g.reading.table(link.parent)


def by_children(g: Grammar, table: TableReading) -> Draft | None:
    """Rows by how many belong to them: the most, the fewest, more than n; by a total."""
    if (family := some_family(g, table)) is None:
        return None
    kind = g.draw.choice(BY_CHILDREN)
    if family.doing and ("base" not in family.said or kind not in ("most", "having", "each")):
        return None
    make = {
        "most": most_children, "least": fewest_children, "having": having_children,
        "sum": most_in_total, "each": each_count, "column": column_of_most,
        "average": average_count,
    }[kind]  # fmt: skip
    return make(g, table, family, grouped_by_parent(g, table, family, kind))


def grouped_by_parent(g: Grammar, table: TableReading, family: Family, kind: str) -> Query:
    """The rows of a family put together by what they belong to, now and then of a kind."""
    link, child, _, found, said = family
    direct = table.label == (link.parent_column,)
    key = ref(child.name, link.child_column) if direct else ref(table.name, link.parent_column)
    select, links = (key, ()) if direct else (label_of(table), (link,))
    own = tuple(c for c in conditions_on(g, table, (7, 2)) if not c.links)
    if own and kind != "least":
        slots = noun_slots(g, table, own)
        said |= {"parent": slots["thing"], "parents": slots["things"], "parent_conditions": "said"}
        found, links = (*found, *own), (link,)
    return Query(child.name, select, found, links, f"GROUP BY {key}")


def ranked(query: Query, measured: str, way: str, rows: int = 1) -> Query:
    """The groups of a query that have the most or the least of something."""
    return query._replace(rest=f"{query.rest} ORDER BY {measured} {way} LIMIT {rows}")


def most_children(g: Grammar, table: TableReading, family: Family, groups: Query) -> Draft:
    """The row, or the three, to which the most belong."""
    said, counts, n = family.said, "COUNT(*)", 1
    done = "base" in said and (family.doing or g.draw.random() < 0.5)
    question = asked(g, "group_most_done" if done else "group_most", **said)
    tied = most_tied(groups, counts, "MAX")
    if not done and g.draw.random() < 0.15:
        n = g.draw.choice((3, 5, 10))
        question = asked(g, "group_top", **said, n=marked(n))
        numbers = written_query(groups._replace(select=f"{counts} AS n"))
        last = f"SELECT n FROM ({numbers}) ORDER BY n DESC LIMIT 1 OFFSET {n - 1}"
        tied = f"SELECT 1 FROM ({numbers}) WHERE n >= ({last})"
    elif g.draw.random() < 0.12:
        groups = groups._replace(select=f"{groups.select}, {counts}")
        question = asked(g, "and_how_many", asked=question)
    return Draft(question, written_query(ranked(groups, counts, "DESC", n)), table.name, tied, n)


def fewest_children(g: Grammar, table: TableReading, family: Family, groups: Query) -> Draft:
    """The row to which the fewest belong."""
    # One to which nothing belongs has fewer than any that is counted here.
    none = written_query(Query(table.name, "1", where=childless(family.link, family.found)))
    tied = f"{most_tied(groups, 'COUNT(*)', 'MIN')} UNION ALL {none}"
    question = asked(g, "group_least", **family.said)
    return Draft(question, written_query(ranked(groups, "COUNT(*)", "ASC")), table.name, tied)


def most_in_total(g: Grammar, table: TableReading, family: Family, groups: Query) -> Draft | None:
    """The row with the highest sum of a measure of what belongs to it."""
    summed = [c for c in measures(family.child) if adds_up(g, c)]
    if not summed:
        return None
    column = g.draw.choice(summed)
    total = f"SUM({number_of(column, family.child.name)})"
    question = asked(g, "group_top_sum", **family.said, attr=called(g.draw, g.phrasings, column))
    tied = most_tied(groups, total, "MAX")
    return Draft(question, written_query(ranked(groups, total, "DESC")), table.name, tied)


def each_count(g: Grammar, table: TableReading, family: Family, groups: Query) -> Draft:
    """How many belong to each row."""
    query = groups._replace(select=f"{groups.select}, COUNT(*)")
    form = "each_done" if "base" in family.said else "group_count"
    return Draft(asked(g, form, **family.said), written_query(query), table.name)


def average_count(g: Grammar, table: TableReading, family: Family, groups: Query) -> Draft:
    """How many belong to a row on average, of the rows to which any do."""
    counts = written_query(groups._replace(select="COUNT(*) AS n"))
    question = asked(g, "group_average_count", **family.said)
    return Draft(question, f"SELECT AVG(n) FROM ({counts})", table.name)


def column_of_most(g: Grammar, table: TableReading, family: Family, groups: Query) -> Draft | None:
    """A column of the row to which the most belong: 'the capital of the state with most rivers'."""
    if not (columns := askable(table)):
        return None
    column = g.draw.choice(columns)
    question = asked(
        g, "group_most_attribute", **family.said, attr=called(g.draw, g.phrasings, column)
    )
    groups = groups._replace(select=ref(table.name, column.name), links=(family.link,))
    tied = most_tied(groups, "COUNT(*)", "MAX")
    return Draft(question, written_query(ranked(groups, "COUNT(*)", "DESC")), table.name, tied)


def having_children(g: Grammar, table: TableReading, family: Family, groups: Query) -> Draft:
    """Rows to which more or fewer than some number of others belong, with the number or without."""
    said, n = family.said, g.draw.choice(NUMBERS)
    kinds = [
        ("having", ">"),
        ("having_at_least", ">="),
        ("having_exactly", "="),
        ("having_less", "<"),
    ]
    shares = [5, 3, 1, 1]
    if family.doing:  # there are no others with a verb
        kinds, shares = kinds[:2], shares[:2]
    form, sign = g.draw.choices(kinds, shares)[0]
    if (
        "base" in said
        and form in ("having", "having_at_least")
        and (family.doing or g.draw.random() < 0.5)
    ):
        form = f"{form}_done"
    rest = f"{groups.rest} HAVING COUNT(*) {sign} {n}"
    question = asked(g, form, **said, n=marked(number_said(g.draw, n)))
    select = groups.select
    if g.draw.random() < 0.2:
        select, question = f"{select}, COUNT(*)", asked(g, "and_how_many", asked=question)
    return Draft(question, written_query(groups._replace(select=select, rest=rest)), table.name)


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
    said |= {"parents": slots["things"]} | ({"parent_conditions": "said"} if found else {})
    done = "_done" if "base" in said and not inside else ""
    if "made" in said and not inside and g.draw.random() < 0.6:
        done = "_by"
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
