"""Questions for rows that meet conditions: listed, with columns, in an order, counted."""

from __future__ import annotations

from collections.abc import Sequence

from gemma_lora.column_sql import in_order, label_equals, ref
from gemma_lora.conditions import describes, own_condition
from gemma_lora.date_conditions import main_date
from gemma_lora.grammar import Condition, Grammar, asked, dealt
from gemma_lora.queries import (
    Draft,
    Query,
    askable,
    conditions_on,
    joinable,
    key_of,
    label_of,
    noun_slots,
    shown_links,
    written_query,
)
from gemma_lora.schema_reading import Link
from gemma_lora.superlatives import ordered
from gemma_lora.table_reading import ColumnReading, TableReading
from gemma_lora.value_wording import said_of
from gemma_lora.wording import called, concept_of, is_called, plural, unmarked

MOST_LISTED = 2_000  # rows of a table that somebody lists whole
UNNAMED = 0.7  # of the lists of rows without names, which only show keys, so many are not asked


def list_rows(g: Grammar, table: TableReading) -> Draft | None:
    """The names of all rows that meet some conditions."""
    found = conditions_on(g, table)
    if is_relation_alone(found, table):
        return None
    if not found and (table.rows > MOST_LISTED or g.draw.random() < 0.5):
        return None
    if not (table.label or table.shown) and g.draw.random() < UNNAMED:
        return None
    said = noun_slots(g, table, found)
    if table.label and not table.shown:
        said["labels"] = plural(called_label(g, table))
    query = Query(
        table.name,
        label_of(table),
        found,
        shown_links(g, table),
        distinct=any(c.repeats for c in found),
    )
    chance = g.draw.random()
    if found and chance < 0.12:
        kind = "ask_one"
    elif table.shown and chance < 0.3:
        kind = "list_where"
    elif found and is_called(g.phrasings, "people", table.words) and chance < 0.3:
        kind = "list_who"
    elif not (table.label or table.shown) and key_of(table) and chance < 0.7:
        kind = "list_numbers"
        said["number"] = g.draw.choice(("number", "number", "id", f"{table.words[0]} number"))
    else:
        kind = "list"
    return Draft(asked(g, kind, **said), written_query(query), table.name)


def is_relation_alone(found: Sequence[Condition], table: TableReading) -> bool:
    """Whether all that is said is what a row is related to, which has questions of its own."""
    if len(found) != 1 or len(table.label) != 1:
        return False
    return found[0].where.startswith(f"{ref(table.name, table.label[0])} IN (SELECT")


def columns_of(g: Grammar, table: TableReading) -> list[tuple[str, str, tuple[Link, ...]]]:
    """(word, SQL, keys to follow) of all that can be shown beside a row's name."""
    own: list[tuple[str, str, tuple[Link, ...]]] = [
        (called(g.draw, g.phrasings, c), ref(table.name, c.name), ()) for c in askable(table)
    ]
    for link in g.reading.parents(table.name):
        parent = g.reading.table(link.parent)
        if parent.label == (link.parent_column,):
            column = (parent.words[0], ref(table.name, link.child_column), ())
            own += [column] * g.reading.is_said(link)
        elif parent.label:
            own.append((called(g.draw, g.phrasings, parent), label_of(parent), (link,)))
    return own


def list_columns(g: Grammar, table: TableReading) -> Draft | None:
    """One to three columns of rows that meet conditions, alone or beside their names."""
    found = conditions_on(g, table, (1.5, 5, 3, 0.5))
    about = {ref(*c.column) for c in found}
    columns = [c for c in columns_of(g, table) if c[1] not in about]
    if not columns or any(c.repeats for c in found):
        return None
    if not found and table.rows > MOST_LISTED:
        return None
    several = g.draw.choices((1, 2, 3), (6, 2, 0.6))[0]
    chosen = g.draw.sample(columns, min(several, len(columns)))
    if not joinable(table, [k for c in chosen for k in c[2]]):
        chosen = chosen[:1]
    said = noun_slots(g, table, found)
    names, select = [c[0] for c in chosen], ", ".join(c[1] for c in chosen)
    kind = "list_attribute"
    if table.label and g.draw.random() < 0.65:
        select, kind = f"{label_of(table)}, {select}", "list_with_attribute"
        if g.draw.random() < 0.3:  # names and prices of the ... ; title, genre and price of the ...
            kind = "list_attribute"
            names = [*called_label(g, table).split(" and "), *names]
    elif not (table.label or table.shown) and (key := key_of(table)) and g.draw.random() < 0.35:
        select, kind = f"{ref(table.name, key)}, {select}", "list_number"
        said["number"] = g.draw.choice(("number", "id", f"{table.words[0]} number"))
    said |= {"attr": listed(names), "attrs": listed([*map(plural, names)])}
    links = tuple(k for c in chosen for k in c[2])
    order = ""
    if g.draw.random() < 0.3 and (by := order_of(g, table)):
        order, phrase = by
        said |= {"attr": said["attr"], "order": phrase}
    query = Query(table.name, select, found, links, order)
    if order and kind == "list_with_attribute" and g.draw.random() < 0.3:
        question = f"{asked(g, 'list', **said)}, {said['order']}, with the {said['attr']}"
        return Draft(question, written_query(query), table.name)
    question = asked(g, kind, **said)
    if order:
        question += f"{g.draw.choice((' ', ', '))}{said['order']}"
    return Draft(question, written_query(query), table.name)


def called_label(g: Grammar, table: TableReading) -> str:
    """What the name of a row is called: 'title'."""
    if len(table.label) > 1:
        parts = [table.column(c).words[0] for c in table.label]
        return "name" if len(parts) > 2 else g.draw.choice(("name", "name", " and ".join(parts)))
    return called(g.draw, g.phrasings, table.column(table.label[0]))


def listed(names: list[str]) -> str:
    """'title, genre and price'."""
    *head, last = names
    return f"{', '.join(head)} and {last}" if head else last


def order_of(g: Grammar, table: TableReading) -> tuple[str, str] | None:
    """(ORDER BY, how it is said): 'dearest first', 'by name', 'newest first'."""
    columns = ordered(table)
    if table.label and (not columns or g.draw.random() < 0.3):
        by = ", ".join(ref(table.name, c) for c in reversed(table.label))
        return f"ORDER BY {by}", asked(g, "order_by_name", attr=called_label(g, table))
    if not columns:
        return None
    column = g.draw.choice(columns)
    up = g.draw.random() < 0.5
    concept = concept_of(g.phrasings, column)
    own = (concept.least if up else concept.most) if concept else ()
    if concept and "date" in concept.match and column is not main_date(table):
        own = ()
    said = {"attr": called(g.draw, g.phrasings, column)}
    if own:
        said["most"] = g.draw.choice(own)
    dates = "_date" if column.role in ("date", "year") else ""
    phrase = asked(g, f"order_{'up' if up else 'down'}{dates}", **said)
    return f"ORDER BY {in_order(column, table.name)}{'' if up else ' DESC'}", phrase


def list_ordered(g: Grammar, table: TableReading) -> Draft | None:
    """The names of rows, in an order."""
    found = conditions_on(g, table, (2.5, 5, 2))
    by = order_of(g, table)
    if by is None or not table.label or any(c.repeats for c in found):
        return None
    if not found and table.rows > MOST_LISTED:
        return None
    query = Query(table.name, label_of(table), found, shown_links(g, table), by[0])
    question = asked(g, "list", **noun_slots(g, table, found))
    question += f"{g.draw.choice((' ', ', '))}{by[1]}"
    return Draft(question, written_query(query), table.name)


def count(g: Grammar, table: TableReading) -> Draft | None:
    """How many rows meet some conditions."""
    found = conditions_on(g, table, (1, 5, 4.5, 1))
    if is_relation_alone(found, table):
        return None
    if any(c.repeats for c in found) and not any(c.role == "key" for c in table.columns):
        return None
    said = noun_slots(g, table, found)
    people = is_called(g.phrasings, "people", table.words) and g.draw.random() < 0.25
    question = asked(g, "count_people" if people and found else "count", **said)
    query = Query(table.name, counted(table, found), found)
    return Draft(question, written_query(query), table.name)


def counted(table: TableReading, found: tuple[Condition, ...]) -> str:
    """The SQL that counts a table's rows once each."""
    key = key_of(table)
    if key and any(c.repeats for c in found):
        return f"COUNT(DISTINCT {ref(table.name, key)})"
    return "COUNT(*)"


def share(g: Grammar, table: TableReading) -> Draft | None:
    """Of how many rows in a hundred a condition holds: 'what percentage of orders was paid'."""
    one = own_condition(g, table)
    if one is None or one.links:
        return None
    said = noun_slots(g, table, (one,)) | {"all": plural(called(g.draw, g.phrasings, table))}
    if state := one.state or (one.said if one.before and describes(unmarked(one.said)) else ""):
        said["state"] = state
    said.pop("conditions", None)  # all forms say it, some as a state
    query = Query(table.name, f"100.0 * SUM({one.where}) / COUNT(*)")
    return Draft(asked(g, "share", **said), written_query(query), table.name)


def count_named(g: Grammar, table: TableReading) -> Draft | None:
    """How many rows have one name, where names are no key: 'how many starbucks are there'."""
    if len(table.label) != 1 or not table.repeated or table.spread:
        return None
    name = dealt(g, (table.name, "repeated"), table.repeated)
    value, where = said_of(g, table.column(table.label[0]), name[0]), label_equals(table, name)
    found = tuple(c for c in conditions_on(g, table, (2, 5)) if not c.before and not c.repeats)
    things = f"{value} {' '.join(c.said for c in found)}".strip()
    said = {"things": things, "thing": things}
    if found:
        said |= {"heads": value, "after": found[0].said}
    query = Query(table.name, "COUNT(*)", found, where=where)
    return Draft(asked(g, "count", **said), written_query(query), table.name)


def distinct(g: Grammar, table: TableReading) -> Draft | None:
    """Which values a column has among some rows, or how many."""
    columns: list[ColumnReading] = [
        c for c in table.columns if c.role == "category" and 1 < len(c.values) < 500
    ]
    columns = [c for c in columns if c.name not in table.label]
    if not columns:
        return None
    column = g.draw.choice(columns)
    found = conditions_on(g, table, (3, 2))
    if any(c.column == (table.name, column.name) for c in found):
        return None
    attr = called(g.draw, g.phrasings, column)
    said = noun_slots(g, table, found) | {"attr": attr, "attrs": plural(attr)}
    name = ref(table.name, column.name)
    people = "_people" if is_called(g.phrasings, "people", table.words) else ""
    if g.draw.random() < 0.45:
        query = Query(table.name, f"COUNT(DISTINCT {name})", found)
        return Draft(asked(g, "count_distinct", **said), written_query(query), table.name)
    query = Query(table.name, name, found, distinct=True)
    place = is_called(g.phrasings, "places", column.words) and g.draw.random() < 0.4
    form = f"distinct_place{people}" if place else "distinct"
    if is_called(g.phrasings, "kinds", column.words) and g.draw.random() < 0.4:
        form = "distinct_kinds"
    return Draft(asked(g, form, **said), written_query(query), table.name)
