"""Questions about a row that is named: a column of it, what it belongs to, what belongs to it."""

from __future__ import annotations

import re

from gemma_lora.chosen_children import chosen_of, parent_of_chosen, some_chosen
from gemma_lora.column_sql import UNSORTED, number_of, ref
from gemma_lora.conditions import describes, some_label
from gemma_lora.date_conditions import main_date
from gemma_lora.grammar import Grammar, asked
from gemma_lora.joined_conditions import SERVICES, agent_of, agent_said, extends, role_word, verb_of
from gemma_lora.queries import (
    Draft,
    Query,
    adds_up,
    askable,
    label_of,
    shown_links,
    worth_of,
    written_query,
)
from gemma_lora.schema_reading import Link
from gemma_lora.superlatives import measures
from gemma_lora.table_reading import ColumnReading, TableReading
from gemma_lora.wording import (
    Concept,
    called,
    concept_of,
    filled,
    is_called,
    marked,
    participle,
    plural,
    unmarked,
)

UNNAMED = 0.7  # of the lists of rows without names, which only show keys, so many are not asked
SOLD = {"quantity", "units"}  # what a sale has of a thing
FOUND_AT = ("address", "street", "city")
LIVED_IN = ("city", "town", "village", "state", "region", "country", "address")
COMES_FROM = ("country", "nation", "state", "region", "city", "town", "address")
SPENT = {"total", "amount", "price", "cost", "fee", "fine", "payment", "total amount"}


def of_extensions(g: Grammar, table: TableReading) -> list[tuple[ColumnReading, Link]]:
    """Columns that another table holds of this one's rows, with the key to it."""
    own = {c.name for c in table.columns}
    links = [k for k in g.reading.children(table.name) if extends(g.reading, k)]
    return [(c, k) for k in links for c in askable(g.reading.table(k.child)) if c.name not in own]


def look_up(g: Grammar, table: TableReading) -> Draft | None:
    """A column of a row that is named, or two or three of them."""
    chosen = some_label(g, table)
    columns: list[tuple[ColumnReading, Link | None]] = [(c, None) for c in askable(table)]
    columns += of_extensions(g, table)
    flags = [c for c in table.columns if c.role == "flag" and c.name not in table.label]
    if chosen is None or not (columns or flags):
        return None
    value, where = chosen
    if flags and g.draw.random() < len(flags) / (len(flags) + 2 * len(columns)):
        flag = g.draw.choice(flags)
        said = {"attr": called(g.draw, g.phrasings, flag), "value": value}
        said["thing"] = called(g.draw, g.phrasings, table)
        form = "look_up_flag" if describes(said["attr"]) else "look_up_flag_thing"
        query = Query(table.name, ref(table.name, flag.name), where=where)
        return Draft(asked(g, form, **said), written_query(query), table.name)
    column, link = g.draw.choice(columns)
    said = in_plural(value) | {
        "attr": called(g.draw, g.phrasings, column),
        "value": value,
        "thing": called(g.draw, g.phrasings, table),
    }
    select = ref(link.child if link else table.name, column.name)
    others = [c for c, k in columns if k is None and c is not column]
    place = is_called(g.phrasings, "places", column.words)
    if others and link is None and g.draw.random() < 0.1:
        other = g.draw.choice(others)
        said["attr2"] = called(g.draw, g.phrasings, other)
        select += f", {ref(table.name, other.name)}"
        question = asked(g, "look_up_two", **said)
    elif column.role == "date" and (done := participle(column)) and g.draw.random() < 0.4:
        question = asked(g, "look_up_done", **said, done=done)
    elif (ways := asked_for(g, table, column)) and g.draw.random() < 0.6:
        question = filled(g.draw, ways, said)
    elif place and not table.shown and g.draw.random() < 0.4:
        person = is_called(g.phrasings, "people", table.words)
        said |= at_home(g, table, column, value)
        question = asked(g, "look_up_home" if person else "look_up_place", **said)
    else:
        question = asked(g, "look_up", **said)
    links = (link,) if link else ()
    query = Query(table.name, select, links=links, where=where)
    return Draft(question, written_query(query), table.name)


def asked_for(g: Grammar, table: TableReading, column: ColumnReading) -> tuple[str, ...]:
    """What else people say for a row's column: 'how long is {value}', 'how do i call {value}'."""
    concept = concept_of(g.phrasings, column)
    if concept and concept.ask:
        return concept.ask if is_meant(table, column, concept) else ()
    details = g.phrasings.details
    return next((details[word] for word in column.words if word in details), ())


def is_meant(table: TableReading, column: ColumnReading, concept: Concept) -> bool:
    """Whether 'when was it' asks for this date: not where a row has another that comes first."""
    return "date" not in concept.match or column is main_date(table)


def places_of(g: Grammar, table: TableReading, first: tuple[str, ...]) -> list[ColumnReading]:
    """The columns that say where a row is; those called by these words first, in their order."""
    order = {word: number for number, word in enumerate(first)}
    places = [c for c in askable(table) if is_called(g.phrasings, "places", c.words)]
    return sorted(places, key=lambda c: min(order.get(word, len(first)) for word in c.words))


def at_home(g: Grammar, table: TableReading, column: ColumnReading, value: str) -> dict[str, str]:
    """The slots {resident} and {native} where the column is what 'where do they live' means."""
    slots = {"resident": LIVED_IN, "native": COMES_FROM}
    return {slot: value for slot, w in slots.items() if column in places_of(g, table, w)[:1]}


def in_plural(value: str) -> dict[str, str]:
    """The slot {values} for a name that has a plural: 'yoga mats', no 'mirrors of the king'."""
    name = unmarked(value)
    last = name.split()[-1] if name.split() else ""
    plain = len(last) > 2 and last.isalpha() and not re.search("(?i) (?:of|in|on|per|by) ", name)
    return {"values": marked(plural(name))} if plain else {}


def look_up_parent(g: Grammar, table: TableReading) -> Draft | None:
    """What a row that is named belongs to, or a column of that."""
    parents = [k for k in g.reading.all_parents(table.name) if g.reading.is_said(k)]
    chosen = some_label(g, table)
    if not parents or chosen is None:
        return None
    link = g.draw.choice(parents)
    parent = g.reading.table(link.parent)
    value, where = chosen
    said = {"value": value, "parent": role_word(g, link), "thing": table.words[0]}
    columns = askable(parent)
    links: tuple[Link, ...] = (link,)
    if columns and g.draw.random() < 0.25:
        column = g.draw.choice(columns)
        said["attr"] = called(g.draw, g.phrasings, column)
        question = asked(g, "look_up_of_parent", **said)
        select = ref(parent.name, column.name)
    else:
        agent, form = agent_of(g, parent), "look_up_parent"
        if agent and g.draw.random() < 0.6:
            said |= agent_said(agent)
            form = "look_up_maker"
        elif is_called(g.phrasings, "people", parent.words) and g.draw.random() < 0.4:
            form = "look_up_person"
        question = asked(g, form, **said)
        direct = parent.label == (link.parent_column,)
        select = ref(table.name, link.child_column) if direct else label_of(parent)
        if columns and g.draw.random() < 0.12:  # 'who owns kiwi, and what is their phone'
            column = g.draw.choice(columns)
            said["attr"] = called(g.draw, g.phrasings, column)
            question += filled(g.draw, g.phrasings.forms["and_its"], said)
            select, direct = f"{select}, {ref(parent.name, column.name)}", False
        links = () if direct else (link,)
    return Draft(
        question, written_query(Query(table.name, select, links=links, where=where)), table.name
    )


def last_of_row(g: Grammar, table: TableReading) -> Draft | None:
    """When something last or first happened to a row: 'when was rex last seen'."""
    downs = [k for k in g.reading.children(table.name) if not extends(g.reading, k)]
    below = [(k, g.reading.table(k.child)) for k in downs]
    downs = [k for k, child in below if main_date(child) and not child.label]
    chosen = some_label(g, table)
    if not downs or chosen is None:
        return None
    link = g.draw.choice(downs)
    child = g.reading.table(link.child)
    date = main_date(child)
    assert date is not None  # of those that have one
    if date.form in UNSORTED:
        return None
    value, where = chosen
    last = g.draw.random() < 0.75
    said = {"value": value, "thing": called(g.draw, g.phrasings, child)}
    said["last"] = g.draw.choice(("last", "latest", "most recent") if last else ("first",))
    form, verb = "last_of_row", None if SERVICES & set(table.words) else verb_of(g, [link])
    if verb and link == g.reading.parents(child.name)[0] and g.draw.random() < 0.5:
        said |= {"last": "last" if last else "first", "base": verb[0], "done": verb[2]}
        person = is_called(g.phrasings, "people", table.words) and verb[0] != "see"
        form = "last_did_of_row" if person else "last_done_of_row"
    select = f"{'MAX' if last else 'MIN'}({ref(child.name, date.name)})"
    query = Query(child.name, select, links=(link,), where=where)
    return Draft(asked(g, form, **said), written_query(query), child.name)


def look_up_children(g: Grammar, table: TableReading) -> Draft | None:
    """The rows that belong to one that is named, or how many."""
    children = [k for k in g.reading.children(table.name) if not extends(g.reading, k)]
    children = [
        k for k in children if g.reading.is_said(k) and not g.reading.table(k.child).is_link
    ]
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
        question = total_asked(g, table, child, column, said)
        query = Query(child.name, f"SUM({number_of(column, child.name)})", links=links, where=where)
        return Draft(question, written_query(query), child.name)
    if chance < 0.6:
        query = Query(child.name, "COUNT(*)", links=links, where=where)
        return Draft(asked(g, "count_children", **said), written_query(query), child.name)
    if not (child.label or child.shown) and g.draw.random() < UNNAMED:
        return None
    form, agent = "look_up_children", agent_of(g, table)
    if agent and g.draw.random() < 0.5:
        said |= agent_said(agent)
        form = "look_up_made"
    query = Query(child.name, label_of(child), links=links, where=where)
    return Draft(asked(g, form, **said), written_query(query), child.name)


def total_asked(
    g: Grammar,
    table: TableReading,
    child: TableReading,
    column: ColumnReading,
    said: dict[str, str],
) -> str:
    """The question for the sum of a column over the rows that belong to one that is named."""
    attr = called(g.draw, g.phrasings, column)
    said = said | {"attr": attr, "attrs": plural(attr)}
    worth = SPENT & set(column.words)
    said |= {"worth": "worth"} if worth else {}
    spent = is_called(g.phrasings, "people", table.words) and worth
    form = "total_spent" if spent and g.draw.random() < 0.5 else "total_children"
    if SOLD & set(column.words) and table.label and worth_of(child) and g.draw.random() < 0.7:
        form, said["attrs"] = "total_units", g.draw.choice(("units", "units", "pieces"))
    return asked(g, form, **said)


def contents(g: Grammar, table: TableReading) -> Draft | None:
    """What a row that is named holds, over rows without a name: the products in order 17."""
    downs = [k for k in g.reading.children(table.name) if not extends(g.reading, k)]
    ways = [
        (down, up)
        for down in downs
        if not g.reading.table(down.child).label
        for up in g.reading.parents(down.child)
        if up.parent != table.name and g.reading.table(up.parent).label
    ]
    if not ways or is_called(g.phrasings, "people", table.words):
        return None
    down, up = g.draw.choice(ways)
    child, thing = g.reading.table(down.child), g.reading.table(up.parent)
    if is_called(g.phrasings, "people", thing.words) or (chosen := some_label(g, table)) is None:
        return None
    value, where = chosen
    word = called(g.draw, g.phrasings, thing)
    said = {"value": value, "thing": word, "things": plural(word)}
    select, form = label_of(thing), "contents"
    if (columns := askable(child)) and g.draw.random() < 0.4:
        column = g.draw.choice(columns)
        attr = called(g.draw, g.phrasings, column)
        said |= {"attr": attr, "attrs": plural(attr)}
        select, form = f"{select}, {ref(child.name, column.name)}", "contents_with"
    query = Query(child.name, select, links=(down, up), where=where)
    return Draft(asked(g, form, **said), written_query(query), table.name)


def look_up_chosen(g: Grammar, table: TableReading) -> Draft | None:
    """A column of the one that a named row names: 'how many live in the capital of texas'."""
    columns = askable(table)
    if not columns or not chosen_of(g, table):
        return None
    if g.draw.random() < 0.35:
        if (asked_for := parent_of_chosen(g, table)) is None:
            return None
        question, select, where, parent = asked_for
        return Draft(question, written_query(Query(parent, select, where=where)), parent)
    if (chosen := some_chosen(g, table)) is None:
        return None
    value, condition = chosen
    column = g.draw.choice(columns)
    concept = concept_of(g.phrasings, column)
    said = {"attr": called(g.draw, g.phrasings, column), "value": value, "thing": table.words[0]}
    if concept and concept.ask and is_meant(table, column, concept) and g.draw.random() < 0.6:
        question = filled(g.draw, concept.ask, said)
    else:
        question = asked(g, "look_up_chosen", **said)
    query = Query(table.name, ref(table.name, column.name), (condition,))
    return Draft(question, written_query(query), table.name)


def where_is(g: Grammar, table: TableReading) -> Draft | None:
    """Where a row that is named is: its place, what is shown of it, or the place it belongs to."""
    chosen = some_label(g, table)
    if chosen is None:
        return None
    value, where = chosen
    places = [c for c in places_of(g, table, FOUND_AT) if c.role in ("category", "code")]
    said = [k for k in g.reading.parents(table.name) if g.reading.is_said(k)]
    around = [k for k in said if is_called(g.phrasings, "places", g.reading.table(k.parent).words)]
    links = shown_links(g, table)
    if table.shown:
        select = label_of(table)
    elif places:
        select = ref(table.name, places[0].name)
    elif around and g.reading.table(around[0].parent).label:
        parent = g.reading.table(around[0].parent)
        direct = parent.label == (around[0].parent_column,)
        select = ref(table.name, around[0].child_column) if direct else label_of(parent)
        links = () if direct else (around[0],)
    else:
        return None
    query = Query(table.name, select, links=links, where=where)
    return Draft(asked(g, "where", value=value), written_query(query), table.name)
