"""Questions about many rows at once: sums, averages, groups, what has the most of something."""

from __future__ import annotations

from typing import NamedTuple

from gemma_lora.conditions import (
    Grammar,
    main_date,
    number_of,
    ref,
    year_of,
)
from gemma_lora.joined_conditions import extends
from gemma_lora.queries import (
    Draft,
    Query,
    adds_up,
    asked,
    conditions_on,
    label_of,
    measures,
    noun,
    superlative,
    written_query,
)
from gemma_lora.schema_reading import Link, TableReading, quoted
from gemma_lora.wording import called, marked, plural


def aggregate(g: Grammar, table: TableReading) -> Draft | None:
    """An average, a sum, the highest or the lowest of a measure."""
    if not measures(table):
        return None
    column = g.draw.choice(measures(table))
    found = tuple(c for c in conditions_on(g, table, 1) if not c.repeats)
    attr = called(g.draw, g.phrasings, column)
    said = {
        "attr": attr,
        "attrs": plural(attr),
        "things": noun(g, table, found, True),
        "thing": noun(g, table, found, False),
    }
    kinds = ("average", "average", "extreme_value", *(("sum",) if adds_up(g, column) else ()))
    kind = g.draw.choice(kinds)
    function = {"average": "AVG", "sum": "SUM"}.get(kind, "MAX")
    if kind == "extreme_value":
        _, said["high"], way = superlative(g, table, column)
        function = "MAX" if way == "DESC" else "MIN"
    query = Query(table.name, f"{function}({number_of(column, table.name)})", found)
    return Draft(asked(g, kind, **said), written_query(query), table.name)


def above_average(g: Grammar, table: TableReading) -> Draft | None:
    """The rows that have more of something than the average."""
    if not measures(table) or not table.label:
        return None
    column = g.draw.choice(measures(table))
    said = {"attr": called(g.draw, g.phrasings, column), "things": noun(g, table, (), True)}
    by = number_of(column, table.name)
    inner = written_query(Query(table.name, f"AVG({by})"))
    query = Query(table.name, label_of(table), where=f"{by} > ({inner})")
    return Draft(asked(g, "above_average", **said), written_query(query), table.name)


def grouped(g: Grammar, table: TableReading) -> Draft | None:
    """A count, an average or a sum for each category or for each parent."""
    groups: list[tuple[str, str, tuple[Link, ...]]] = [
        (called(g.draw, g.phrasings, c), ref(table.name, c.name), ())
        for c in table.columns
        if c.role in ("category", "flag") and 1 < len(c.values) <= 60 and c.name not in table.label
    ]
    for column in table.columns:
        if column.role == "date" and column is main_date(table):
            groups.append(("year", year_of(column, table.name), ()))
        elif column.role == "year" and len(column.values) < 100:
            groups.append((column.words[0], ref(table.name, column.name), ()))
    for link in g.reading.parents(table.name):
        parent = g.reading.table(link.parent)
        if parent.label == (link.parent_column,):
            groups.append((parent.words[0], ref(table.name, link.child_column), ()))
        elif parent.label and parent.rows <= 1000:
            groups.append((called(g.draw, g.phrasings, parent), label_of(parent), (link,)))
    if not groups:
        return None
    word, by, links = g.draw.choice(groups)
    key = ref(links[0].parent, links[0].parent_column) if links else by
    kind, what = "group_count", "COUNT(*)"
    said = {"parent": word, "things": noun(g, table, (), True)}
    if measures(table) and g.draw.random() < 0.5:
        column = g.draw.choice(measures(table))
        kind, function = "group_average", "AVG"
        if adds_up(g, column):
            kind, function = g.draw.choice((("group_average", "AVG"), ("group_sum", "SUM")))
        what = f"{function}({number_of(column, table.name)})"
        said["attr"] = called(g.draw, g.phrasings, column)
    query = Query(table.name, f"{by}, {what}", links=links, rest=f"GROUP BY {key}")
    return Draft(asked(g, kind, **said), written_query(query), table.name)


class Family(NamedTuple):
    """Rows of a table and the rows of another that belong to them."""

    link: Link
    child: TableReading
    said: dict[str, str]  # slots: parent, parents, thing, things


def some_family(g: Grammar, table: TableReading) -> Family | None:
    """A table whose rows belong to this one's, None when there is none or rows have no names."""
    children = [k for k in g.reading.children(table.name) if not extends(g.reading, k)]
    if not children or not table.label:
        return None
    link = g.draw.choice(children)
    child = seen = g.reading.table(link.child)
    ups = [k for k in g.reading.parents(child.name) if k.parent != table.name]
    if child.is_link and ups:  # the other side of a link table is what people speak of
        seen = g.reading.table(g.draw.choice(ups).parent)
    word, other = called(g.draw, g.phrasings, table), called(g.draw, g.phrasings, seen)
    said = {"parent": word, "parents": plural(word), "thing": other, "things": plural(other)}
    return Family(link, child, said)


def by_children(g: Grammar, table: TableReading) -> Draft | None:
    """Rows by how many belong to them: the most, the fewest, more than n; by a total."""
    if (family := some_family(g, table)) is None:
        return None
    link, child, said = family
    direct = table.label == (link.parent_column,)
    key = ref(child.name, link.child_column) if direct else ref(table.name, link.parent_column)
    select, links = (key, ()) if direct else (label_of(table), (link,))
    grouped_by = Query(child.name, select, links=links, rest=f"GROUP BY {key}")
    kind = g.draw.choice(("most", "most", "least", "having", "having", "sum"))
    if kind == "having":
        n = g.draw.choice((1, 2, 2, 3, 3, 4, 5, 10))
        form, sign = g.draw.choice((("having", ">"), ("having", ">"), ("having_at_least", ">=")))
        rest = f"{grouped_by.rest} HAVING COUNT(*) {sign} {n}"
        question = asked(g, form, **said, n=marked(n))
        return Draft(question, written_query(grouped_by._replace(rest=rest)), table.name)
    measured, form = "COUNT(*)", f"group_{kind}"
    if kind == "sum":
        summed = [c for c in measures(child) if adds_up(g, c)]
        if not summed:
            return None
        column = g.draw.choice(summed)
        measured, form = f"SUM({number_of(column, child.name)})", "group_top_sum"
        said["attr"] = called(g.draw, g.phrasings, column)
    tied = most_tied(grouped_by, measured, "MIN" if kind == "least" else "MAX")
    if kind == "least":  # a row to which nothing belongs has fewer than any that is counted here
        tied += f" UNION ALL SELECT 1 FROM {quoted(table.name)} WHERE {childless(link)}"
    way = "ASC" if kind == "least" else "DESC"
    query = grouped_by._replace(rest=f"{grouped_by.rest} ORDER BY {measured} {way} LIMIT 1")
    return Draft(asked(g, form, **said), written_query(query), table.name, tied)


def most_tied(grouped_by: Query, measured: str, extreme: str) -> str:
    """SQL that returns a row for each group whose measure is the highest or the lowest."""
    ranked = written_query(grouped_by._replace(select=f"{measured} AS n"))
    return f"SELECT 1 FROM ({ranked}) WHERE n = (SELECT {extreme}(n) FROM ({ranked}))"


def childless(link: Link) -> str:
    """The condition that nothing belongs to a row."""
    column = ref(link.child, link.child_column)
    inner = written_query(Query(link.child, column, where=f"{column} IS NOT NULL"))
    return f"{quoted(link.parent_column)} NOT IN ({inner})"


def with_or_without(g: Grammar, table: TableReading) -> Draft | None:
    """Rows to which nothing belongs, or something."""
    if (family := some_family(g, table)) is None:
        return None
    link, child, said = family
    if g.draw.random() < 0.7:
        form, where = "without", childless(link)
    else:
        inner = written_query(Query(child.name, ref(child.name, link.child_column)))
        form, where = "with_some", f"{quoted(link.parent_column)} IN ({inner})"
    query = Query(table.name, label_of(table), where=where)
    return Draft(asked(g, form, **said), written_query(query), table.name)
