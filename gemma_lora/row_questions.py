"""Questions about rows: looked up, listed, counted, the first and the last of them."""

from __future__ import annotations

from gemma_lora.conditions import (
    Condition,
    Grammar,
    in_order,
    number_of,
    ref,
    some_label,
)
from gemma_lora.joined_conditions import extends
from gemma_lora.queries import (
    Draft,
    Query,
    adds_up,
    askable,
    asked,
    conditions_on,
    label_of,
    measures,
    noun,
    ordered,
    repeats,
    shown_links,
    superlative,
    written_query,
)
from gemma_lora.schema_reading import ColumnReading, Link, TableReading
from gemma_lora.wording import called, concept_of, filled, is_called, plural

SPENT = {"total", "amount", "price", "cost", "fee", "fine", "payment", "total amount"}
MOST_LISTED = 2_000  # rows of a table that somebody lists whole


def look_up(g: Grammar, table: TableReading) -> Draft | None:
    """A column of a row that is named."""
    columns = askable(table)
    chosen = some_label(g, table)
    if not columns or chosen is None:
        return None
    value, where = chosen
    column = g.draw.choice(columns)
    concept = concept_of(g.phrasings, column)
    said = {
        "attr": called(g.draw, g.phrasings, column),
        "value": value,
        "thing": called(g.draw, g.phrasings, table),
    }
    select = ref(table.name, column.name)
    if len(columns) > 1 and g.draw.random() < 0.08:
        other = g.draw.choice([c for c in columns if c is not column])
        said["attr2"] = called(g.draw, g.phrasings, other)
        select += f", {ref(table.name, other.name)}"
        question = asked(g, "look_up_two", **said)
    elif concept and concept.ask and g.draw.random() < 0.6:
        question = filled(g.draw, concept.ask, said)
    else:
        question = asked(g, "look_up", **said)
    return Draft(question, written_query(Query(table.name, select, where=where)), table.name)


def look_up_parent(g: Grammar, table: TableReading) -> Draft | None:
    """What a row that is named belongs to."""
    parents = [k for k in g.reading.parents(table.name) if g.reading.table(k.parent).label]
    chosen = some_label(g, table)
    if not parents or chosen is None:
        return None
    link = g.draw.choice(parents)
    parent = g.reading.table(link.parent)
    value, where = chosen
    question = asked(g, "look_up_parent", value=value, parent=called(g.draw, g.phrasings, parent))
    direct = parent.label == (link.parent_column,)
    select = ref(table.name, link.child_column) if direct else label_of(parent)
    links = () if direct else (link,)
    return Draft(
        question, written_query(Query(table.name, select, links=links, where=where)), table.name
    )


def look_up_children(g: Grammar, table: TableReading) -> Draft | None:
    """The rows that belong to one that is named, or how many."""
    children = [k for k in g.reading.children(table.name) if not extends(g.reading, k)]
    children = [k for k in children if not g.reading.table(k.child).is_link]
    chosen = some_label(g, table)
    if not children or chosen is None:
        return None
    link = g.draw.choice(children)
    child = g.reading.table(link.child)
    value, where = chosen
    said = {
        "value": value,
        "things": plural(called(g.draw, g.phrasings, child)),
        "parent": called(g.draw, g.phrasings, table),
    }
    links: tuple[Link, ...] = (link,)
    if table.label == (link.parent_column,):
        where = where.replace(ref(table.name, table.label[0]), ref(child.name, link.child_column))
        links = ()
    summed = [c for c in measures(child) if adds_up(g, c)]
    chance = g.draw.random()
    if summed and chance < 0.3:
        column = g.draw.choice(summed)
        said["attr"] = called(g.draw, g.phrasings, column)
        said["attrs"] = plural(said["attr"])
        spent = is_called(g.phrasings, "people", table.words) and SPENT & set(column.words)
        form = "total_spent" if spent and g.draw.random() < 0.5 else "total_children"
        query = Query(child.name, f"SUM({number_of(column, child.name)})", links=links, where=where)
        return Draft(asked(g, form, **said), written_query(query), child.name)
    if chance < 0.6:
        query = Query(child.name, "COUNT(*)", links=links, where=where)
        return Draft(asked(g, "count_children", **said), written_query(query), child.name)
    query = Query(child.name, label_of(child), links=links, where=where)
    return Draft(asked(g, "look_up_children", **said), written_query(query), child.name)


def list_rows(g: Grammar, table: TableReading) -> Draft | None:
    """The names of all rows that meet some conditions."""
    found = conditions_on(g, table)
    if not found and table.rows > MOST_LISTED:
        return None
    links = shown_links(g, table)
    once = any(c.repeats for c in found)
    query = Query(table.name, label_of(table), found, links, distinct=once)
    if found and g.draw.random() < 0.1:
        question = asked(g, "ask_one", thing=noun(g, table, found, False))
    else:
        question = asked(g, "list", things=noun(g, table, found, True))
    return Draft(question, written_query(query), table.name)


def list_column(g: Grammar, table: TableReading) -> Draft | None:
    """A column of all rows that meet some conditions, alone or beside the names."""
    columns = askable(table)
    found = conditions_on(g, table, 1)
    columns = [c for c in columns if (table.name, c.name) not in {f.column for f in found}]
    if not columns or not found or any(c.repeats for c in found):
        return None
    column = g.draw.choice(columns)
    attr = called(g.draw, g.phrasings, column)
    said = {"attr": attr, "attrs": plural(attr), "things": noun(g, table, found, True)}
    select, kind = ref(table.name, column.name), "list_attribute"
    if g.draw.random() < 0.4 and table.label:
        select, kind = f"{label_of(table)}, {select}", "list_with_attribute"
    return Draft(
        asked(g, kind, **said), written_query(Query(table.name, select, found)), table.name
    )


def count(g: Grammar, table: TableReading) -> Draft | None:
    """How many rows meet some conditions."""
    found = conditions_on(g, table)
    key = next((c.name for c in table.columns if c.role == "key"), None)
    counted = "COUNT(*)"
    if any(c.repeats for c in found):
        if key is None:
            return None
        counted = f"COUNT(DISTINCT {ref(table.name, key)})"
    question = asked(g, "count", things=noun(g, table, found, True))
    return Draft(question, written_query(Query(table.name, counted, found)), table.name)


def distinct(g: Grammar, table: TableReading) -> Draft | None:
    """Which values a column has, or how many."""
    columns = [c for c in table.columns if c.role == "category" and 1 < len(c.values) < 200]
    if not columns:
        return None
    column = g.draw.choice(columns)
    attr = called(g.draw, g.phrasings, column)
    said = {"attr": attr, "attrs": plural(attr), "things": noun(g, table, (), True)}
    name = ref(table.name, column.name)
    if g.draw.random() < 0.4:
        query = Query(table.name, f"COUNT(DISTINCT {name})")
        return Draft(asked(g, "count_distinct", **said), written_query(query), table.name)
    query = Query(table.name, name, distinct=True)
    return Draft(asked(g, "distinct", **said), written_query(query), table.name)


def extreme(g: Grammar, table: TableReading) -> Draft | None:
    """The row that has the most of something: its name, or another column of it."""
    columns = ordered(table)
    if not columns or not (table.label or table.shown):
        return None
    column = g.draw.choice(columns)
    found = tuple(c for c in conditions_on(g, table, 1) if not c.repeats)
    found = tuple(c for c in found if c.column != (table.name, column.name))
    adjective, high, way = superlative(g, table, column)
    thing = noun(g, table, found, False)
    attr = called(g.draw, g.phrasings, column)
    said = {"thing": thing, "attr": attr, "high": high, "most": adjective}
    others = [c for c in askable(table) if c is not column]
    select = label_of(table)
    if others and adjective and g.draw.random() < 0.2:
        other = g.draw.choice(others)
        said["attr"], select = called(g.draw, g.phrasings, other), ref(table.name, other.name)
        question = asked(g, "look_up_extreme", **said)
    elif adjective and g.draw.random() < 0.75:
        person = is_called(g.phrasings, "people", table.words) and g.draw.random() < 0.4
        question = asked(g, "most_who" if person else "most", **said)
    else:
        question = asked(g, "highest", **said)
    return extreme_of(g, table, column, found, (select, way, question))


def extreme_of(
    g: Grammar,
    table: TableReading,
    column: ColumnReading,
    found: tuple[Condition, ...],
    wanted: tuple[str, str, str],
) -> Draft:
    """The draft of an extreme; `wanted` is what is selected, ASC or DESC, and the question."""
    select, way, question = wanted
    by = in_order(column, table.name)
    links = shown_links(g, table) if table.shown else ()
    if repeats(table, column) and column.form not in ("dotted", "slashed"):
        inner = written_query(
            Query(table.name, f"{'MAX' if way == 'DESC' else 'MIN'}({by})", found)
        )
        query = Query(table.name, select, found, links, where=f"{by} = ({inner})")
        return Draft(question, written_query(query), table.name)
    query = Query(table.name, select, found, links, f"ORDER BY {by} {way} LIMIT 1")
    if way == "ASC":
        query = query._replace(where=f"{by} IS NOT NULL")
    tied = extremes_tied(query, by, way)
    return Draft(question, written_query(query), table.name, tied)


def extremes_tied(query: Query, by: str, way: str, rows: int = 1) -> str:
    """SQL that returns more than `rows` rows when the last of them shares its place."""
    inner = written_query(
        query._replace(select=by, rest=f"ORDER BY {by} {way} LIMIT 1 OFFSET {rows - 1}")
    )
    sign = ">=" if way == "DESC" else "<="
    where = " AND ".join(filter(None, (query.where, f"{by} {sign} ({inner})")))
    return written_query(query._replace(select="1", where=where, rest=f"LIMIT {rows + 1}"))


def top(g: Grammar, table: TableReading) -> Draft | None:
    """The three or five rows that have the most of something."""
    columns = ordered(table)
    if not columns or not table.label or table.rows < 8:
        return None
    column = g.draw.choice(columns)
    found = tuple(c for c in conditions_on(g, table, 1) if not c.repeats)
    adjective, high, way = superlative(g, table, column)
    n = g.draw.choice((2, 3, 3, 5, 5, 10))
    said = {
        "things": noun(g, table, found, True),
        "attr": called(g.draw, g.phrasings, column),
        "high": high,
        "n": str(n),
    }
    if adjective:
        said["most"] = adjective
    by = in_order(column, table.name)
    forms = g.phrasings.forms["top"]
    if way == "ASC":  # 'top 3 by price' are the dearest
        forms = tuple(f for f in forms if "top {n}" not in f)
    query = Query(table.name, label_of(table), found, (), f"ORDER BY {by} {way} LIMIT {n}")
    if way == "ASC":
        query = query._replace(where=f"{by} IS NOT NULL")
    return Draft(
        filled(g.draw, forms, said),
        written_query(query),
        table.name,
        extremes_tied(query, by, way, n),
        n,
    )


def where_is(g: Grammar, table: TableReading) -> Draft | None:
    """Where a row that is named is: its place, or what is shown of it."""
    chosen = some_label(g, table)
    places = [c for c in askable(table) if is_called(g.phrasings, "places", c.words)]
    if chosen is None or not (places or table.shown):
        return None
    value, where = chosen
    if table.shown:
        select = label_of(table)
    else:
        order = {w: i for i, w in enumerate(("address", "street", "city"))}
        places.sort(key=lambda c: order.get(c.words[0], 9))
        select = ref(table.name, places[0].name)
    query = Query(table.name, select, links=shown_links(g, table), where=where)
    return Draft(asked(g, "where", value=value), written_query(query), table.name)
