"""Conditions that lead to other tables along their keys: 'by anna', 'bought by tom'."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from gemma_lora.conditions import Condition, Grammar, own_conditions, ref, some_label
from gemma_lora.schema_reading import DatabaseReading, Link, TableReading
from gemma_lora.wording import called, filled, is_called, plural


def of_parent(g: Grammar, table: TableReading, links: tuple[Link, ...]) -> Condition | None:
    """The row at the end of one or two keys has a name: 'by anna', 'in germany'."""
    parent = g.reading.table(links[-1].parent)
    if (chosen := some_label(g, parent)) is None:
        return None
    value, sql = chosen
    word = called(g.draw, g.phrasings, parent)
    said = {"value": value, "parent": word, "attr": word}
    key = links[0].child_column
    about = (table.name, key)
    if len(links) == 1 and parent.label == (links[0].parent_column,):
        sql = sql.replace(ref(parent.name, parent.label[0]), ref(table.name, key))
        links = ()  # the name itself is the key: no need to go there
    place = is_called(g.phrasings, "places", parent.words + parent.column(parent.label[0]).words)
    adjective = is_called(g.phrasings, "adjectives", parent.words)
    if adjective and g.draw.random() < 0.6:
        return Condition(value, sql, True, links, column=about)
    form = "condition_place" if place and g.draw.random() < 0.8 else "condition_parent"
    return Condition(filled(g.draw, g.phrasings.forms[form], said), sql, False, links, False, about)


def through(g: Grammar, table: TableReading) -> list[tuple[Link, ...]]:
    """Ways from a table over a child of it, or a child's child, to another parent of that child."""
    ways: list[tuple[Link, ...]] = []
    for down in g.reading.children(table.name):
        steps: list[tuple[Link, ...]] = [(down,)]
        steps += [
            (down, more) for more in g.reading.children(down.child) if more.child != table.name
        ]
        for step in steps:
            ways += [
                (*step, up)
                for up in g.reading.parents(step[-1].child)
                if up.parent not in {table.name, *(k.child for k in step)}
                and g.reading.table(up.parent).label
            ]
    return ways


def verb_of(g: Grammar, way: Sequence[Link]) -> str | None:
    """What was done, by the tables between two things: 'bought' where there are orders."""
    known = [
        verbs
        for link in way
        for word in g.reading.table(link.child).words
        if (verbs := g.phrasings.verbs.get(word))
    ]
    return g.draw.choice(known[0]) if known else None


def of_others(g: Grammar, table: TableReading) -> Condition | None:
    """A row that a child joins to this one has a name: 'customers who ordered tea'."""
    ways = through(g, table)
    if not ways:
        return None
    way = g.draw.choice(ways)
    other = g.reading.table(way[-1].parent)
    if (chosen := some_label(g, other)) is None:
        return None
    value, sql = chosen
    said = {"value": value, "thing": called(g.draw, g.phrasings, other)}
    form, verb = "condition_child", verb_of(g, way[:-1])
    if verb and g.draw.random() < 0.85:
        said["verb"] = verb
        if is_called(g.phrasings, "people", table.words):
            form = "condition_done"
        elif is_called(g.phrasings, "people", other.words):
            form = "condition_done_by"
    phrase = filled(g.draw, g.phrasings.forms[form], said)
    return Condition(phrase, sql, False, way, True, (other.name, ""))


def own_of(g: Grammar, table: TableReading, link: Link) -> Condition | None:
    """A condition on the columns of a parent: 'orders of customers in berlin' said shortly."""
    parent = g.reading.table(link.parent)
    makers = own_conditions(g, parent)
    if not makers:
        return None
    one = g.draw.choice(makers)()
    if is_called(g.phrasings, "places", parent.column(one.column[1]).words) or one.before:
        return one._replace(links=(link,))
    word = plural(called(g.draw, g.phrasings, parent))
    lead = g.draw.choice(("of", "from", "by", "for"))
    return one._replace(said=f"{lead} {word} {one.said}", links=(link,))


def some_condition(g: Grammar, table: TableReading) -> Condition | None:
    """A condition on the rows of a table, of any kind that it allows."""
    own = own_conditions(g, table)
    parents = g.reading.parents(table.name)
    choices: list[tuple[float, Callable[[], Condition | None]]] = []
    if own:
        choices.append((6, lambda: g.draw.choice(own)()))
    if parents:
        choices.append((4, lambda: of_parent(g, table, (g.draw.choice(parents),))))
        choices.append((1.5, lambda: own_of(g, table, g.draw.choice(parents))))
        second = [(a, b) for a in parents for b in g.reading.parents(a.parent)]
        if second:
            choices.append((1.5, lambda: of_parent(g, table, g.draw.choice(second))))
    one_to_one = [k._replace() for k in g.reading.children(table.name) if extends(g.reading, k)]
    if one_to_one:
        choices.append((4, lambda: from_extension(g, g.draw.choice(one_to_one))))
    if through(g, table):
        choices.append((1.5, lambda: of_others(g, table)))
    if not choices:
        return None
    return g.draw.choices([make for _, make in choices], [weight for weight, _ in choices])[0]()


def extends(reading: DatabaseReading, link: Link) -> bool:
    """Whether a child only says more about its parent's row (one row each, no name of its own)."""
    child = reading.table(link.child)
    values = child.column(link.child_column).values if child.columns else ()
    return not child.label and not child.is_link and len(values) >= min(child.rows, 5_000)


def from_extension(g: Grammar, link: Link) -> Condition | None:
    """A condition on the table that says more about this one's rows."""
    child = g.reading.table(link.child)
    makers: list[Callable[[], Condition | None]] = [*own_conditions(g, child)]
    for up in g.reading.parents(child.name):
        if up.parent != link.parent:
            makers.append(lambda k=up: of_parent(g, child, (k,)))  # type: ignore[misc]
    one = g.draw.choice(makers)() if makers else None
    if one is None:
        return None
    return one._replace(links=(link, *one.links))
