"""Conditions that lead to other tables along their keys: 'by anna', 'bought by tom'."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from gemma_lora.column_sql import ref
from gemma_lora.conditions import own_condition, own_conditions, some_label
from gemma_lora.date_conditions import NAMELESS, dated, main_date, says_no_date
from gemma_lora.grammar import Condition, Grammar
from gemma_lora.name_reading import name_words
from gemma_lora.schema_reading import DatabaseReading, Link
from gemma_lora.table_reading import KEPT_VALUES, TableReading
from gemma_lora.value_wording import kind_noun
from gemma_lora.wording import (
    called,
    filled,
    is_called,
    marked,
    plural,
    third_person,
    unmarked,
    verb_said,
)

STAFF = {"employee", "staff", "worker"}
# They take part in a sale, and nobody buys them.
SERVICES = set(
    "shipper carrier courier store branch warehouse office status method channel".split()
)
KEY_WORDS = {"id", "key", "number", "no", "code", "name", "guid", "uuid"}


def role_word(g: Grammar, link: Link) -> str:
    """What a parent is called from its child: 'support rep' for an employee, else its word."""
    parent = g.reading.table(link.parent)
    words = [w for w in name_words(link.child_column) if w not in KEY_WORDS]
    said = " ".join(words)
    if g.phrasings.reaches.keys() & set(words[:1]):
        return called(g.draw, g.phrasings, parent)  # 'runs through' is no noun
    rivals = [k for k in g.reading.all_parents(link.child) if k.parent == link.parent]
    if link != rivals[0] and said:
        return said
    if said and said not in parent.words and g.draw.random() < (0.5 if len(rivals) > 1 else 0.4):
        table_word = parent.words[0].split()
        if words[-1:] == table_word[-1:] or len(words) > 1 or len(rivals) > 1:
            return said
    return called(g.draw, g.phrasings, parent)


def reached_link(g: Grammar, table: TableReading) -> Link | None:
    """The key to the places in which a thing has its rows; None where they are no places."""
    links = [k for k in g.reading.links if k[:2] == (table.name, table.spread)]
    if not links:
        return None
    place = is_called(g.phrasings, "places", g.reading.table(links[0].parent).words)
    return links[0] if place and g.reading.is_said(links[0]) else None


def reach_said(g: Grammar, table: TableReading) -> dict[str, str]:
    """The slots {base, does, ing} of what such a thing does to its places, and {done} for some."""
    words = {*name_words(table.spread), *" ".join(table.words).split()}
    verbs = next((v for word, v in g.phrasings.reaches.items() if word in words), None)
    base, *done = g.draw.choice(verbs or g.phrasings.reaches["else"])
    verb, _, through = base.partition(" ")
    said = verb_said(base) | ({"verb": verb} if through == "through" else {})
    return said | ({"done": done[0]} if done else {})


def of_parent(g: Grammar, table: TableReading, links: tuple[Link, ...]) -> Condition | None:
    """The row at the end of one or two keys has a name: 'by anna', 'in germany'."""
    parent = g.reading.table(links[-1].parent)
    if (chosen := some_label(g, parent)) is None:
        return None
    value, sql = chosen
    word = role_word(g, links[-1])
    said = {"value": value, "parent": word, "attr": word}
    key = links[0].child_column
    about = (table.name, key if len(links) == 1 else parent.name)
    if len(links) == 1 and parent.label == (links[0].parent_column,):
        sql = sql.replace(ref(parent.name, parent.label[0]), ref(table.name, key))
        links = ()  # the name itself is the key: no need to go there
    named = parent.column(parent.label[0]).words if parent.label else ()  # else 'order 17'
    words = parent.words + named
    agent = agent_of(g, parent)
    noun = kind_noun(g, parent.words, value) if len(links) == 1 else ""
    if noun and g.draw.random() < 0.4:  # 'which mountain bikes', of that category
        return Condition(value, sql, True, links, column=about, noun=noun)
    people = g.phrasings.demonyms.get(unmarked(value).lower()) if "country" in words else None
    if people and g.draw.random() < 0.2:  # 'german towns'
        lead = marked(people.lower() if g.draw.random() < 0.5 else people)
        return Condition(lead, sql, True, links, column=about)
    if links and links[0] not in g.reading.parents(table.name):
        form = "condition_other_parent"
    elif agent and len(links) < 2 and g.draw.random() < 0.5:
        said |= agent_said(agent)
        form = "condition_made_by"
    elif key == table.spread and g.draw.random() < 0.6:
        said |= reach_said(g, table)
        form = "condition_reaching"
    elif is_called(g.phrasings, "places", words) and g.draw.random() < 0.8:
        form = "condition_place"
    elif is_called(g.phrasings, "adjectives", parent.words) and g.draw.random() < 0.6:
        return Condition(value, sql, True, links, column=about)
    elif is_called(g.phrasings, "people", parent.words):
        form = "condition_person"
    else:
        form = "condition_parent"
    return Condition(filled(g.draw, g.phrasings.forms[form], said), sql, False, links, False, about)


def agent_of(g: Grammar, table: TableReading) -> tuple[str, ...] | None:
    """What such a person does to what belongs to them: (write, wrote, written)."""
    found = [g.phrasings.agents[w] for w in table.words if w in g.phrasings.agents]
    return g.draw.choice(found[0]) if found else None


def agent_said(agent: tuple[str, ...]) -> dict[str, str]:
    """The slots of what such a person does."""
    base, past, done = agent
    return {"base": base, "past": past, "done": done, "does": third_person(base)}


def verb_of(g: Grammar, links: Sequence[Link]) -> tuple[str, ...] | None:
    """What is done to have rows of the tables passed through: (buy, bought, bought)."""
    for link in links:
        word = g.reading.table(link.child).words[-1]
        if word in g.phrasings.verbs:
            return g.draw.choice(g.phrasings.verbs[word])
    return None


def through(g: Grammar, table: TableReading) -> list[tuple[Link, ...]]:
    """Ways from a table over a child of it, or a child's child, to another parent of that child."""
    ways: list[tuple[Link, ...]] = []
    for down in g.reading.children(table.name):
        if extends(g.reading, down):
            continue  # it says more of the same thing, and has nothing of its own
        steps: list[tuple[Link, ...]] = [(down,)]
        steps += [
            (down, more)
            for more in g.reading.children(down.child)
            if more.child != table.name and not g.reading.table(down.child).label
        ]
        for step in steps:
            passed = {table.name, *(k.child for k in step)}
            ups = [k for k in g.reading.parents(step[-1].child) if k.parent not in passed]
            ways += [(*step, up) for up in ups if g.reading.table(up.parent).label]
            if len(step) == 1:  # customers who ordered: order items lead to orders, and on
                ways += [
                    (*step, up, more)
                    for up in ups
                    for more in g.reading.parents(up.parent)
                    if more.parent not in {*passed, up.parent}
                    and not g.reading.table(up.parent).label
                    and g.reading.table(more.parent).label
                ]
    return ways


def of_others(g: Grammar, table: TableReading) -> Condition | None:
    """A row that a child joins to this one has a name or is of a kind: 'who ordered tea'."""
    ways = through(g, table)
    if not ways:
        return None
    way = g.draw.choice(ways)
    other = g.reading.table(way[-1].parent)
    word = called(g.draw, g.phrasings, other)
    said = {"thing": word, "parent": word, "attr": word}
    one = own_condition(g, other) if g.draw.random() < 0.35 else None
    if one is not None and says_no_date(one, other):
        return None
    if one is not None:
        said["value"] = f"{one.said} {plural(word)}" if one.before else f"{plural(word)} {one.said}"
        sql, kind = one.where, "_kind"
    elif (chosen := some_label(g, other)) is not None:
        said["value"], sql = chosen
        kind = ""
    else:
        return None
    form, verb = "condition_child", verb_of(g, [k for k in way if k.child != other.name])
    if verb and (STAFF | SERVICES) & {*table.words, *other.words}:
        return None  # who took or shipped an order neither ordered nor was bought
    if way[0].child != way[-1].child and verb and verb[0] in ("visit", "see"):
        verb = None  # who came to have a treatment did not visit it
    if verb and g.draw.random() < 0.85:
        said |= {"past": verb[1], "done": verb[2]}
        if is_called(g.phrasings, "people", table.words):
            form = "condition_done"
        elif is_called(g.phrasings, "people", other.words):
            form = "condition_done_by"
    elif len(way) == 2 and g.reading.table(way[0].child).is_link:
        form = "condition_parent"
    usable = g.phrasings.forms[form]
    if kind:
        usable = tuple(f for f in usable if "the {" not in f)
    phrase = filled(g.draw, usable, said)
    if g.draw.random() < 0.3 and (when := when_done(g, table, way)) is not None:
        phrase, sql = f"{phrase} {when.said}", f"{sql} AND {when.where}"
    return Condition(phrase, sql, False, way, True, (other.name, ""))


def when_done(g: Grammar, table: TableReading, way: Sequence[Link]) -> Condition | None:
    """A condition on the date of what joins a row to another: 'had an x-ray in 2023'."""
    passed = [g.reading.table(k.child) for k in way if k.child != table.name]
    above = [g.reading.table(k.parent) for k in way[:-1] if k.parent != table.name]
    passed += [t for t in above if not t.label]  # an order of its items, not what was ordered
    found = [(t, c) for t in passed if (c := main_date(t))]
    if not found:
        return None
    one = dated(g, *found[0])
    return one if NAMELESS.match(one.said) else None


def with_children(g: Grammar, table: TableReading) -> Condition | None:
    """Rows to which something of a kind belongs: 'customers with orders in 2023'."""
    downs = [
        k
        for k in g.reading.children(table.name)
        if not extends(g.reading, k) or is_its_own(g.reading, k)
    ]
    downs = [k for k in downs if not g.reading.table(k.child).is_link]
    if not downs:
        return None
    down = g.draw.choice(downs)
    child = g.reading.table(down.child)
    if (one := own_condition(g, child)) is None:
        return None
    thing = called(g.draw, g.phrasings, child)
    said = {
        slot: f"{one.said} {word}" if one.before else f"{word} {one.said}"
        for slot, word in (("thing", thing), ("things", plural(thing)))
    }
    phrase = filled(g.draw, g.phrasings.forms["condition_with_children"], said)
    return Condition(phrase, one.where, False, (down,), True, (child.name, ""))


def own_of(g: Grammar, table: TableReading, links: tuple[Link, ...]) -> Condition | None:
    """A condition on the columns of a parent: 'orders of customers in berlin' said shortly."""
    parent = g.reading.table(links[-1].parent)
    one = own_condition(g, parent)
    if one is None or says_no_date(one, parent):
        return None
    word = role_word(g, links[-1])
    column = parent.column(one.column[1])
    place = column.role != "measure" and is_called(g.phrasings, "places", column.words)
    # 'sales representatives' are suppliers, and none of their products
    short = len(links) == 1 and links[0] in g.reading.parents(table.name) and not one.noun
    one = one._replace(noun="")
    if (place or one.before) and short and g.draw.random() < (0.75 if place else 0.4):
        return one._replace(links=(*links, *one.links))
    agent = agent_of(g, parent)
    leads = [f"{agent[2]} by"] * 2 if agent else []
    lead = g.draw.choice((*leads, "of", "from", "by", "for"))
    said = f"{one.said} {plural(word)}" if one.before else f"{plural(word)} {one.said}"
    if g.draw.random() < 0.15 and one.before:
        said, lead = f"{said}'" if said.endswith("s") else said, ""
        return one._replace(said=said, links=(*links, *one.links))
    return one._replace(said=f"{lead} {said}", links=(*links, *one.links), before=False)


def extends(reading: DatabaseReading, link: Link) -> bool:
    """Whether a child only says more about its parent's row (one row each, no name of its own)."""
    child = reading.table(link.child)
    values = child.column(link.child_column).values if child.columns else ()
    return not child.label and not child.is_link and len(values) >= min(child.rows, KEPT_VALUES)


def is_its_own(reading: DatabaseReading, link: Link) -> bool:
    """Whether a child has a key of its own: an invoice, though each visit has one at most."""
    child = reading.table(link.child)
    leading = {k.child_column for k in reading.links if k.child == child.name}
    keys = (c for c in child.columns if c.role == "key" and c.name not in leading)
    return any(len(c.values) >= min(child.rows, KEPT_VALUES) for c in keys)


def from_extension(g: Grammar, link: Link) -> Condition | None:
    """A condition on the table that says more about this one's rows."""
    child = g.reading.table(link.child)
    # What both hold is asked of the parent.
    there = {c.name for c in g.reading.table(link.parent).columns}
    beside = {k.parent for k in g.reading.parents(link.parent)}
    makers: list[Callable[[], Condition | None]] = []
    if own_conditions(g, child):
        makers.append(lambda: own_condition(g, child))
    for up in g.reading.parents(child.name):
        if up.parent != link.parent and up.child_column not in there:
            makers.append(lambda k=up: of_parent(g, child, (k,)))  # type: ignore[misc]
            if up.parent not in beside:
                makers.append(lambda k=up: own_of(g, child, (k,)))  # type: ignore[misc]
    one = g.draw.choice(makers)() if makers else None
    if one is None or one.column[1] in there:
        return None
    return one._replace(links=(link, *one.links))
