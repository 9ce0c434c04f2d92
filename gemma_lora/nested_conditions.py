"""Conditions with a query of their own: 'in the largest state', 'bordering texas'; any condition.

What a table joins to others of its kind by two keys to it, as borders join states, is a relation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from gemma_lora.chosen_children import chosen_of, is_chosen
from gemma_lora.column_sql import in_order, plain, ref, written
from gemma_lora.conditions import own_condition, own_conditions, some_label
from gemma_lora.grammar import Condition, Grammar
from gemma_lora.joined_conditions import (
    KEY_WORDS,
    agent_of,
    extends,
    from_extension,
    of_others,
    of_parent,
    own_of,
    reach_said,
    reached_link,
    role_word,
    through,
    with_children,
)
from gemma_lora.name_reading import name_words
from gemma_lora.schema_reading import Link
from gemma_lora.superlatives import measures, ordered, repeats, superlative
from gemma_lora.table_reading import TableReading, quoted
from gemma_lora.value_wording import said_of
from gemma_lora.wording import (
    called,
    compared_words,
    concept_of,
    filled,
    is_called,
    plural,
    verb_said,
)

NO_VERBS = {
    "to", "from", "home", "away", "source", "target", "origin", "destination", "first", "second",
    "parent", "child", "next", "previous", "other", "old", "new", "start", "end", "left", "right",
}  # fmt: skip


def named_once(table: TableReading) -> list[tuple[str | int | float, ...]]:
    """The names that mean one thing each: not those of two towns, but a river's of several rows."""
    several = set() if table.spread else set(table.repeated)
    return [n for n in table.names if n not in several]


def beyond_row(g: Grammar, table: TableReading) -> Condition | None:
    """More of a measure than a named row has, or than all that belong to one: 'longer than rhine'.

    Nothing for a measure that is stored as text.
    """
    column = g.draw.choice([c for c in measures(table) if not c.form])
    up, own = g.draw.random() < 0.7, quoted(column.name)
    said = {"attr": called(g.draw, g.phrasings, column), "high": "higher" if up else "lower"}
    said["things"] = plural(called(g.draw, g.phrasings, table))
    said |= compared_words(g.draw, concept_of(g.phrasings, column), up)
    direct = [k for k in g.reading.parents(table.name) if g.reading.is_said(k)]
    there = {k: g.reading.table(k.parent) for k in direct}
    direct = [k for k, t in there.items() if t.label == (k.parent_column,) and t.names]
    names = named_once(table)
    form, best = "condition_beyond", own
    if direct and g.draw.random() < 0.25:
        link = g.draw.choice(direct)
        parent = g.reading.table(link.parent)
        name, key = g.draw.choice(parent.names), quoted(link.child_column)
        said["value"] = said_of(g, parent.column(parent.label[0]), name[0])
        form, best = "condition_beyond_all", f"{'MAX' if up else 'MIN'}({own})"
    elif not names:
        return None
    else:
        name, key = g.draw.choice(names), quoted(table.label[0])
        said["value"] = said_of(g, table.column(table.label[0]), name[0])
    inner = f"SELECT {best} FROM {quoted(table.name)} WHERE {key} = {written(name[0])}"
    sql = f"{ref(table.name, column.name)} {'>' if up else '<'} ({inner})"
    phrase = filled(g.draw, g.phrasings.forms[form], said)
    return Condition(phrase, sql, column=(table.name, column.name))


def leading(g: Grammar, table: TableReading) -> list[Link]:
    """Keys to named rows of which one has the most of something."""
    links = [k for k in g.reading.parents(table.name) if g.reading.is_said(k)]
    parents = [(k, g.reading.table(k.parent)) for k in links]
    return [k for k, parent in parents if parent.label and ordered(parent) and parent.rows > 2]


def extreme_row(g: Grammar, table: TableReading, key: str) -> tuple[str, str] | None:
    """('largest state', the SQL of that row's `key`); None where two rows share the place."""
    column = g.draw.choice(ordered(table))
    if repeats(table, column):
        return None
    adjective, high, way = superlative(g, table, column)
    by = plain(in_order(column, table.name), 1)
    source = f"FROM {quoted(table.name)}"
    if way == "ASC" and column.missing:
        source += f" WHERE {by} IS NOT NULL"
    function = "MAX" if way == "DESC" else "MIN"
    best = f"SELECT {function}({by}) {source}"
    if g.holds(f"SELECT 1 FROM {quoted(table.name)} WHERE {by} = ({best}) LIMIT 1 OFFSET 1"):
        return None
    word = called(g.draw, g.phrasings, table)
    attr = called(g.draw, g.phrasings, column)
    said = f"{word} with the {high} {attr}"
    if adjective and g.draw.random() < 0.75:
        said = f"{adjective} {word}"
    return said, f"SELECT {quoted(key)} {source} ORDER BY {by} {way} LIMIT 1"


def extreme_thing(g: Grammar, table: TableReading) -> tuple[str, str] | None:
    """('longest river', the condition that a row is one of its) for a thing of several rows."""
    column = g.draw.choice(ordered(table))
    if repeats(table, column):
        return None
    adjective, high, way = superlative(g, table, column)
    by = in_order(column, table.name)
    best = f"SELECT {'MAX' if way == 'DESC' else 'MIN'}({by}) FROM {quoted(table.name)}"
    where = f"{by} = ({plain(best, 1)})"
    names = f"SELECT DISTINCT {quoted(table.label[0])} FROM {quoted(table.name)}"
    if g.holds(plain(f"{names} WHERE {where} LIMIT 1 OFFSET 1", 1)):
        return None
    word = called(g.draw, g.phrasings, table)
    said = f"{word} with the {high} {called(g.draw, g.phrasings, column)}"
    if adjective and g.draw.random() < 0.75:
        said = f"{adjective} {word}"
    return said, where


def busiest_row(g: Grammar, table: TableReading, key: str) -> tuple[str, str] | None:
    """('state with the most rivers', the SQL of that row's `key`); None where two have as many."""
    downs = [k for k in g.reading.children(table.name) if k.parent_column == key]
    downs = [k for k in downs if not extends(g.reading, k) and not g.reading.table(k.child).is_link]
    if not downs:
        return None
    down = g.draw.choice(downs)
    own, child = quoted(down.child_column), g.reading.table(down.child)
    ranked = f"SELECT COUNT(*) AS n FROM {quoted(child.name)} GROUP BY {own}"
    most = f"SELECT MAX(n) FROM ({ranked})"
    if g.holds(f"SELECT 1 FROM ({ranked}) WHERE n = ({most}) LIMIT 1 OFFSET 1"):
        return None
    word, things = called(g.draw, g.phrasings, table), plural(called(g.draw, g.phrasings, child))
    sql = f"SELECT {own} FROM {quoted(child.name)} GROUP BY {own} ORDER BY COUNT(*) DESC LIMIT 1"
    return f"{word} with the most {things}", sql


def of_extreme(g: Grammar, table: TableReading) -> Condition | None:
    """Rows that belong to the one that has the most: 'in the largest state'."""
    link = g.draw.choice(leading(g, table))
    parent = g.reading.table(link.parent)
    find = busiest_row if g.draw.random() < 0.2 else extreme_row
    if (found := find(g, parent, link.parent_column)) is None:
        return None
    said, sql = found
    slots = {"value": f"the {said}", "parent": role_word(g, link)}
    agent = agent_of(g, parent)
    form = "condition_extreme"
    if agent and g.draw.random() < 0.5:
        slots |= {"done": agent[2], "past": agent[1]}
        form = "condition_made_by"
    elif is_called(g.phrasings, "places", parent.words):
        form = "condition_extreme_place"
    elif is_called(g.phrasings, "people", parent.words):
        form = "condition_person"
    forms = tuple(f for f in g.phrasings.forms[form] if "{parent}" not in f)
    where = f"{ref(table.name, link.child_column)} = ({sql})"
    return Condition(filled(g.draw, forms, slots), where, column=(table.name, link.child_column))


def relations(g: Grammar, table: str) -> list[tuple[Link, Link, str]]:
    """Two keys by which another table joins this one's named rows, and the verb for it."""
    found = []
    for other in g.reading.tables:
        keys = [k for k in g.reading.all_parents(other.name) if k.parent == table]
        named = g.reading.table(table).label
        joins = len(keys) > 1 and not other.label and named == (keys[0].parent_column,)
        if joins and (verb := verb_in(keys[1])):
            found.append((keys[0], keys[1], verb))
    return found


def verb_in(link: Link) -> str | None:
    """'border' of a column that is called so: what the rows joined by it do; None for none."""
    verb = next(iter(name_words(link.child_column)), "")
    return None if not verb or verb in NO_VERBS | KEY_WORDS else verb


def related_said(g: Grammar, verb: str) -> dict[str, str]:
    """The slots of a verb between rows of one kind, or of one that means the same."""
    others = g.phrasings.relates.get(verb, ())
    return verb_said(g.draw.choice(others) if others and g.draw.random() < 0.5 else verb)


def related(g: Grammar, table: TableReading) -> Condition | None:
    """Rows that a relation joins to a named one, to the largest one, or to none."""
    choices = relations(g, table.name)
    if not choices or not table.names:
        return None
    one, other, verb = g.draw.choice(choices)
    said = {"thing": table.words[0]} | related_said(g, verb)
    name, chance = g.draw.choice(table.names), g.draw.random()
    inner = f"SELECT {quoted(other.child_column)} FROM {quoted(one.child)}"
    key, has, form = ref(table.name, one.parent_column), "IN", "condition_related"
    if chance < 0.12:
        form, has = "condition_alone", "NOT IN"
        inner = f"SELECT {quoted(one.child_column)} FROM {quoted(one.child)}"
    elif chance < 0.2:  # 'that border states that border texas'
        nearest = said_of(g, table.column(table.label[0]), name[0])
        said["value"] = f"{plural(table.words[0])} that {verb} {nearest}"
        nearer = f"{inner} WHERE {quoted(one.child_column)} = {written(name[0])}"
        inner += f" WHERE {quoted(one.child_column)} IN ({nearer})"
    elif chance < 0.4 and ordered(table) and (found := extreme_row(g, table, one.parent_column)):
        said["value"] = f"the {found[0]}"
        inner += f" WHERE {quoted(one.child_column)} = ({found[1]})"
    else:
        said["value"] = said_of(g, table.column(table.label[0]), name[0])
        inner += f" WHERE {quoted(one.child_column)} = {written(name[0])}"
        if chance > 0.9:
            form, has = "condition_unrelated", "NOT IN"
        elif chance > 0.8:
            (another,) = g.draw.choice(table.names)
            said["value2"] = said_of(g, table.column(table.label[0]), another)
            form, both = "condition_related_both", inner.replace(written(name[0]), written(another))
            inner = f"{inner}) AND {key} IN ({both}"
    phrase = filled(g.draw, g.phrasings.forms[form], said)
    return Condition(phrase, f"{key} {has} ({inner})", column=(table.name, one.parent_column))


def reaching(g: Grammar, table: str) -> list[TableReading]:
    """The things that have a row for each of this table's rows that they lead to."""
    links = [(t, reached_link(g, t)) for t in g.reading.tables]
    return [t for t, link in links if link and link.parent == table]


def unreached(g: Grammar, table: TableReading) -> Condition | None:
    """Things that do not lead to a named place: 'rivers that do not run through texas'."""
    link = reached_link(g, table)
    parent = g.reading.table(link.parent) if link else None
    if link is None or parent is None or parent.label != (link.parent_column,) or not parent.names:
        return None
    (value,) = g.draw.choice(parent.names)
    name = table.label[0]
    said = reach_said(g, table) | {"value": said_of(g, parent.column(parent.label[0]), value)}
    phrase = filled(g.draw, g.phrasings.forms["condition_unrelated"][:2], said)
    inner = f"SELECT {quoted(name)} FROM {quoted(table.name)} WHERE {quoted(table.spread)}"
    where = f"{ref(table.name, name)} NOT IN ({inner} = {written(value)})"
    return Condition(phrase, where, column=(table.name, table.spread))


def reached(g: Grammar, table: TableReading) -> Condition | None:
    """Rows to which a named thing leads, or the longest: 'that the danube runs through'."""
    thing = g.draw.choice(reaching(g, table.name))
    link = reached_link(g, thing)
    assert link is not None
    found = extreme_thing(g, thing) if ordered(thing) and g.draw.random() < 0.3 else None
    if found:
        value, where = f"the {found[0]}", found[1]
    elif (chosen := some_label(g, thing)) is not None:
        value, where = chosen
        value = f"the {value}" if g.draw.random() < 0.4 else value
    else:
        return None
    phrase = filled(
        g.draw, g.phrasings.forms["condition_reached"], reach_said(g, thing) | {"value": value}
    )
    inner = f"SELECT {quoted(thing.spread)} FROM {quoted(thing.name)} WHERE {plain(where, 1)}"
    key = ref(table.name, link.parent_column)
    return Condition(phrase, f"{key} IN ({inner})", column=(table.name, link.parent_column))


def of_related(g: Grammar, table: TableReading, link: Link) -> Condition | None:
    """Rows of those that a relation joins to one: 'rivers in states that border texas'.

    Or of those to which a thing leads: 'cities in states that the mississippi runs through'.
    """
    parent = g.reading.table(link.parent)
    made = [find for find, there in ((related, relations), (reached, reaching))
            if there(g, parent.name)]  # fmt: skip
    if (one := g.draw.choice(made)(g, parent)) is None:
        return None
    place = is_called(g.phrasings, "places", parent.words)
    lead = g.draw.choice(("in", "in", "of", "from") if place else ("of", "by", "from"))
    own = ref(table.name, link.child_column)
    where = one.where.replace(ref(parent.name, link.parent_column), own)
    said = f"{lead} {plural(called(g.draw, g.phrasings, parent))} {one.said}"
    return Condition(said, where, column=(table.name, link.child_column))


def further_up(
    g: Grammar, parents: Sequence[Link]
) -> tuple[list[tuple[Link, ...]], list[tuple[Link, ...]]]:
    """The ways along two keys, and along three where the first leads to what has no name.

    Such are the invoices of an owner: of visits of her pets.
    """
    second: list[tuple[Link, ...]]
    second = [(a, b) for a in parents for b in g.reading.parents(a.parent)]
    third = [
        (*way, above)
        for way in second
        for above in g.reading.parents(way[-1].parent)
        if not g.reading.table(way[0].parent).label
    ]
    return second, third


def some_condition(g: Grammar, table: TableReading) -> Condition | None:
    """A condition on the rows of a table, of any kind that it allows."""
    parents = g.reading.all_parents(table.name)
    choices: list[tuple[float, Callable[[], Condition | None]]] = []
    if own := own_conditions(g, table):
        weight = min(8.0, 2 * sum(w for w, _ in own))
        choices.append((weight, lambda: own_condition(g, table)))
    named = [k for k in parents if g.reading.is_said(k)]
    if named:
        choices.append((3.5, lambda: of_parent(g, table, (g.draw.choice(named),))))
    if parents:
        choices.append((1.4, lambda: own_of(g, table, (g.draw.choice(parents),))))
        second, third = further_up(g, parents)
        if second:
            choices.append((0.9, lambda: of_parent(g, table, g.draw.choice(second))))
            choices.append((0.3, lambda: own_of(g, table, g.draw.choice(second))))
        if third:
            choices.append((0.6, lambda: of_parent(g, table, g.draw.choice(third))))
    one_to_one = [k for k in g.reading.children(table.name) if extends(g.reading, k)]
    if one_to_one:
        choices.append((4, lambda: from_extension(g, g.draw.choice(one_to_one))))
    if leading(g, table):
        choices.append((1.0, lambda: of_extreme(g, table)))
    if relations(g, table.name):
        choices.append((3, lambda: related(g, table)))
    if reached_link(g, table):
        choices.append((0.5, lambda: unreached(g, table)))
    if len(table.label) == 1 and len(table.names) > 3 and any(not c.form for c in measures(table)):
        choices.append((0.7, lambda: beyond_row(g, table)))
    if chosen_of(g, table):
        choices.append((0.5, lambda: is_chosen(g, table)))
    if reaching(g, table.name):
        choices.append((1.5, lambda: reached(g, table)))
    towards = [
        k for k in g.reading.parents(table.name) if relations(g, k.parent) or reaching(g, k.parent)
    ]
    if towards:
        choices.append((1.0, lambda: of_related(g, table, g.draw.choice(towards))))
    if through(g, table):
        choices.append((1.0, lambda: of_others(g, table)))
    if g.reading.children(table.name):
        choices.append((0.6, lambda: with_children(g, table)))
    if not choices:
        return None
    return g.draw.choices([make for _, make in choices], [weight for weight, _ in choices])[0]()
