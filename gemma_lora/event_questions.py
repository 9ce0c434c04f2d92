"""Questions about what people did to things: 'who bought the lamp', 'what did anna borrow'.

A table whose rows are such events has a verb (`verbs` in the phrasings), a key to a person and a
key to a thing, its own or that of the row that it is a part of.
"""

from __future__ import annotations

from typing import NamedTuple

from gemma_lora.column_sql import number_of, ref
from gemma_lora.conditions import own_condition, some_label
from gemma_lora.date_conditions import main_date, says_no_date
from gemma_lora.grammar import Grammar, asked
from gemma_lora.group_questions import most_tied
from gemma_lora.joined_conditions import SERVICES, STAFF
from gemma_lora.queries import Draft, Query, label_of, worth_of, written_query
from gemma_lora.schema_reading import Link
from gemma_lora.superlatives import measures
from gemma_lora.table_reading import TableReading
from gemma_lora.wording import called, is_called, plural

UNITS = {"quantity", "units"}  # of which a sale has some


class Event(NamedTuple):
    """Somebody does something to a thing."""

    table: TableReading
    person: TableReading
    thing: TableReading
    links: tuple[Link, ...]  # to the person
    thing_link: Link
    date: str  # SQL of its date; '' when it has none
    said: dict[str, str]


def some_event(g: Grammar, table: TableReading) -> Event | None:
    """What a table says that people did, None when it does not."""
    verbs = [g.phrasings.verbs[w] for w in table.words if w in g.phrasings.verbs]
    ups = g.reading.parents(table.name)
    people: list[tuple[Link, ...]] = []
    for up in ups:
        parent = g.reading.table(up.parent)
        if is_person(g, parent):
            people.append((up,))
        elif not parent.label:
            further = g.reading.parents(parent.name)
            people += [(up, k) for k in further if is_person(g, g.reading.table(k.parent))]
    things = [k for k in ups if g.reading.table(k.parent).label]
    things = [k for k in things if not is_person(g, g.reading.table(k.parent))]
    things = [k for k in things if not SERVICES & set(g.reading.table(k.parent).words)]
    people = [p for p in people if is_actor(g, p)] or people
    if not verbs or not people or not things:
        return None
    links, thing_link = g.draw.choice(people), g.draw.choice(things)
    person, thing = g.reading.table(links[-1].parent), g.reading.table(thing_link.parent)
    base, past, done = g.draw.choice(verbs[0])
    dated = next(
        (
            (t, c)
            for t in (table, *(g.reading.table(k.parent) for k in links[:-1]))
            if (c := main_date(t))
        ),
        None,
    )
    word, other = called(g.draw, g.phrasings, person), called(g.draw, g.phrasings, thing)
    said = {"base": base, "past": past, "done": done, "person": word, "persons": plural(word)}
    said |= {"thing": other, "things": plural(other)}
    date = ref(dated[0].name, dated[1].name) if dated else ""
    return Event(table, person, thing, links, thing_link, date, said)


def is_person(g: Grammar, table: TableReading) -> bool:
    """Whether a table's rows are people with names."""
    return bool(table.label) and is_called(g.phrasings, "people", table.words)


def is_actor(g: Grammar, links: tuple[Link, ...]) -> bool:
    """Whether the person is not the staff that only took the order."""
    return not STAFF & set(g.reading.table(links[-1].parent).words)


def events(g: Grammar, table: TableReading) -> Draft | None:
    """Who did it, to what, when, how often; who did it most and to what it was done most."""
    if (event := some_event(g, table)) is None:
        return None
    chance = g.draw.random()
    if chance < 0.3:
        return most_events(g, event)
    by_person = chance < 0.7
    named = event.person if by_person else event.thing
    if (chosen := some_label(g, named)) is None:
        return None
    value, where = chosen
    said = event.said | {"value": value}
    ways = (*event.links, event.thing_link)
    seen = label_of(event.thing if by_person else event.person)
    query = Query(event.table.name, seen, links=ways, where=where, distinct=True)
    form = "event_what" if by_person else "event_who"
    chance = g.draw.random()
    if by_person and (worth := worth_of(event.table)) and g.draw.random() < 0.3:
        query = query._replace(select=f"SUM({worth})", links=event.links, distinct=False)
        return Draft(asked(g, "total_spent", **said), written_query(query), event.table.name)
    if event.date and chance < 0.2:
        query = query._replace(select=f"{seen}, {event.date}", distinct=False)
        form += "_when"
    elif by_person and chance < 0.26:
        key = ref(event.thing.name, event.thing_link.parent_column)
        query = query._replace(select=f"COUNT(DISTINCT {key})", distinct=False)
        form += "_different"
    elif chance < 0.4:
        only = event.links if by_person else (event.thing_link,)
        query = query._replace(select="COUNT(*)", links=only, distinct=False)
        form += "_times"
    elif event.date and not by_person and chance < 0.5:
        query = query._replace(select=event.date, distinct=False)
        form = "event_when"
    elif (
        by_person
        and chance < 0.6
        and (one := own_condition(g, event.thing))
        and not says_no_date(one, event.thing)
    ):
        things = said["things"]
        said["things"] = f"{one.said} {things}" if one.before else f"{things} {one.said}"
        query, form = query._replace(conditions=(one,)), "event_which"
    return Draft(asked(g, form, **said), written_query(query), event.table.name)


def most_events(g: Grammar, event: Event) -> Draft | None:
    """Who did it most often, or to what it was done most often."""
    to_thing = g.draw.random() < 0.6
    target = event.thing if to_thing else event.person
    links = (event.thing_link,) if to_thing else event.links
    key = ref(target.name, links[-1].parent_column)
    by_key = Query(event.table.name, label_of(target), links=links, rest=f"GROUP BY {key}")
    form, much = ("event_most_thing" if to_thing else "event_most_person"), "COUNT(*)"
    sold = next((c for c in measures(event.table) if UNITS & set(c.words[0].split())), None)
    if to_thing and sold and worth_of(event.table) and g.draw.random() < 0.5:
        form, much = "event_best_seller", f"SUM({number_of(sold, event.table.name)})"
    tied = most_tied(by_key, much, "MAX")
    query = by_key._replace(rest=f"GROUP BY {key} ORDER BY {much} DESC LIMIT 1")
    return Draft(asked(g, form, **event.said), written_query(query), event.table.name, tied)
