"""Questions along a key from a table to itself: the manager of an employee, who reports to whom."""

from __future__ import annotations

from gemma_lora.column_sql import written
from gemma_lora.conditions import some_label
from gemma_lora.grammar import Grammar, asked
from gemma_lora.joined_conditions import KEY_WORDS
from gemma_lora.name_reading import name_words
from gemma_lora.nested_conditions import extreme_row, related_said, verb_in
from gemma_lora.queries import Draft, Query, label_of, written_query
from gemma_lora.schema_reading import Link
from gemma_lora.superlatives import ordered
from gemma_lora.table_reading import TableReading, quoted
from gemma_lora.value_wording import said_of
from gemma_lora.wording import called, filled, plural

BOSS = {"reports", "manager", "boss", "supervisor", "mgr", "superior", "lead", "leader"}


def own_links(g: Grammar, table: TableReading) -> list[Link]:
    """Keys from a table to itself."""
    return [k for k in g.reading.links if k.child == k.parent == table.name]


def own_key(g: Grammar, table: TableReading) -> Draft | None:
    """What a named row's own key leads to, and what leads to a named row; rows without."""
    links = own_links(g, table)
    chosen = some_label(g, table)
    if not links or chosen is None or table.shown:
        return None
    link = g.draw.choice(links)
    value, where = chosen
    words = [w for w in name_words(link.child_column) if w not in KEY_WORDS]
    table_word = table.words[0]
    boss = bool(BOSS & set(words))
    word = "manager" if "reports" in words or words == [] else " ".join(words)
    word = word.removeprefix(f"{table_word} ")
    other = called(g.draw, g.phrasings, table)
    said = {"value": value, "parent": word, "things": plural(other), "thing": other}
    own, up = quoted(link.child_column), quoted(link.parent_column)
    name, boss_part = quoted(table.name), "_boss" if boss else ""
    plain_where = written_query(Query(table.name, up, where=where))
    chance = g.draw.random()
    if chance < 0.4:
        inner = written_query(Query(table.name, own, where=where))
        sql = f"{written_query(Query(table.name, label_of(table)))} WHERE {up} = ({inner})"
        return Draft(asked(g, f"own_parent{boss_part}", **said), sql, table.name)
    if chance < 0.75:
        counted = g.draw.random() < 0.3
        select = "COUNT(*)" if counted else label_of(table)
        head = written_query(Query(table.name, select))
        form = f"own_children{'_count' if counted else ''}{boss_part}"
        return Draft(asked(g, form, **said), f"{head} WHERE {own} = ({plain_where})", table.name)
    head = written_query(Query(table.name, label_of(table)))
    if chance < 0.88:
        return Draft(asked(g, "own_none", **said), f"{head} WHERE {own} IS NULL", table.name)
    inner = f"SELECT {own} FROM {name}"
    return Draft(asked(g, "own_some", **said), f"{head} WHERE {up} IN ({inner})", table.name)


def is_relation(g: Grammar, table: TableReading) -> tuple[Link, Link] | None:
    """Two keys of one table to the same other: what borders what, who follows whom."""
    pairs = [
        (a, b)
        for a in g.reading.all_parents(table.name)
        for b in g.reading.all_parents(table.name)
        if a != b and a.parent == b.parent and g.reading.table(a.parent).label == (a.parent_column,)
    ]
    return pairs[0] if pairs and not table.label else None


def relation(g: Grammar, table: TableReading) -> Draft | None:
    """What a named row is joined to by a table that joins rows of one kind: 'what borders x'."""
    if (pair := is_relation(g, table)) is None:
        return None
    one, other = pair
    parent = g.reading.table(one.parent)
    name = g.draw.choice(parent.names)
    verb = verb_in(other)
    if verb is None:
        return None
    word = called(g.draw, g.phrasings, parent)
    said = {"thing": word, "things": plural(word)} | related_said(g, verb)
    noun = "_noun" if verb in g.phrasings.relates and g.draw.random() < 0.3 else ""
    if noun:
        said["nouns"] = filled(g.draw, g.phrasings.forms["related_nouns"], said)
    chance = g.draw.random()
    if chance < 0.12:
        return most_related(g, table, one, said)
    said["value"] = said_of(g, parent.column(parent.label[0]), name[0])
    where = f"{quoted(one.child_column)} = {written(name[0])}"
    found = extreme_row(g, parent, one.parent_column) if chance < 0.35 and ordered(parent) else None
    if found:
        said["value"], where = f"the {found[0]}", f"{quoted(one.child_column)} = ({found[1]})"
    if g.draw.random() < 0.25:
        sql = f"SELECT COUNT(*) FROM {quoted(table.name)} WHERE {where}"
        return Draft(asked(g, f"relation_count{noun}", **said), sql, table.name)
    select = f"SELECT {quoted(other.child_column)} FROM {quoted(table.name)} WHERE"
    if not found and g.draw.random() < 0.15:
        (another,) = g.draw.choice(parent.names)
        said["value2"] = said_of(g, parent.column(parent.label[0]), another)
        shared = f"{select} {quoted(one.child_column)} = {written(another)}"
        sql = f"{select} {where} AND {quoted(other.child_column)} IN ({shared})"
        return Draft(asked(g, "relation_both", **said), sql, table.name)
    return Draft(asked(g, f"relation{noun}", **said), f"{select} {where}", table.name)


def most_related(g: Grammar, table: TableReading, one: Link, said: dict[str, str]) -> Draft:
    """The row that is joined to the most others, or to the fewest."""
    most = g.draw.random() < 0.7
    form, way = ("relation_most", "DESC") if most else ("relation_least", "ASC")
    key = quoted(one.child_column)
    groups = f"FROM {quoted(table.name)} GROUP BY {key}"
    ranked = f"SELECT COUNT(*) AS n {groups}"
    best = f"SELECT {'MAX' if most else 'MIN'}(n) FROM ({ranked})"
    tied = f"SELECT 1 FROM ({ranked}) WHERE n = ({best})"
    sql = f"SELECT {key} {groups} ORDER BY COUNT(*) {way} LIMIT 1"
    return Draft(asked(g, form, **said), sql, table.name, tied)
