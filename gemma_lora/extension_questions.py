"""Questions about what a second table says of a thing: the highest point of a state, and whose is.

Where each state has a row of its own in a table of heights, people ask which state is highest, for
the name of the highest point of all, and never for the second table's rows.
"""

from __future__ import annotations

from gemma_lora.column_sql import in_order, ref
from gemma_lora.extreme_questions import extremes_tied
from gemma_lora.grammar import Grammar, asked
from gemma_lora.joined_conditions import extends
from gemma_lora.queries import Draft, Query, askable, label_of, written_query
from gemma_lora.schema_reading import Link
from gemma_lora.superlatives import ordered, repeats, superlative
from gemma_lora.table_reading import ColumnReading, TableReading
from gemma_lora.wording import called, first_or_last, plural


def extension_extreme(g: Grammar, table: TableReading) -> Draft | None:
    """The row of which a second table holds the most of something, or another column of it."""
    links = [k for k in g.reading.children(table.name) if extends(g.reading, k)]
    pairs = [(k, c) for k in links for c in ordered(g.reading.table(k.child))]
    if not pairs or not table.label:
        return None
    link, column = g.draw.choice(pairs)
    child = g.reading.table(link.child)
    if repeats(child, column):
        return None
    said = {"parent": called(g.draw, g.phrasings, table), "thing": table.words[0]}
    said |= {"parents": plural(said["parent"])}
    _, high, way = superlative(g, child, column)
    said |= {"attr": called(g.draw, g.phrasings, column), "high": high}
    point = point_beside(child, column)
    form = "highest"
    chance = g.draw.random()
    select, links_used = row_of(table, link)
    if point and chance < 0.75:
        extreme = first_or_last(column.words[0].split()[0]) or "DESC"
        # 'the highest point' is where the highest elevation is; the lowest of these is another.
        way = extreme if chance < 0.65 else way
        said["point"] = point.words[0]
        kinds = ("point_name", "point_name", "point_whose", "point_whose", "point_value")
        form = g.draw.choice(kinds) if way == extreme else "highest"
        if form == "point_name":
            select, links_used = ref(child.name, point.name), ()
        elif form == "point_value":
            select, links_used = ref(child.name, column.name), ()
    elif (columns := askable(table)) and chance > 0.85:
        other = g.draw.choice(columns)
        said["attr2"] = called(g.draw, g.phrasings, other)
        select, links_used, form = ref(table.name, other.name), (link,), "look_up_extreme"
    by = in_order(column, child.name)
    query = Query(child.name, select, (), links_used, f"ORDER BY {by} {way} LIMIT 1")
    if way == "ASC" and column.missing:
        query = query._replace(where=f"{by} IS NOT NULL")
    tied = extremes_tied(child, query, by, way)
    return Draft(asked(g, form, **said), written_query(query), table.name, tied)


def row_of(table: TableReading, link: Link) -> tuple[str, tuple[Link, ...]]:
    """What names a row whose extension is asked, and the key to follow for it."""
    if table.label == (link.parent_column,):
        return ref(link.child, link.child_column), ()
    return label_of(table), (link,)


def point_beside(table: TableReading, column: ColumnReading) -> ColumnReading | None:
    """The text that says where a measure was taken: 'highest point' of 'highest elevation'."""
    first = column.words[0].split()[0]
    texts = [c for c in table.columns if c.role in ("category", "code")]
    found = [c for c in texts if c.words[0].split()[0] == first and " " in c.words[0]]
    return found[0] if found and first_or_last(first) else None
