"""Questions about many rows at once: sums and averages, of all, of each group, of some groups."""

from __future__ import annotations

from typing import NamedTuple

from gemma_lora.column_sql import month_of, number_of, ref, written, year_of
from gemma_lora.conditions import comparable
from gemma_lora.date_conditions import date_condition, main_date
from gemma_lora.grammar import Condition, Grammar, asked, dealt
from gemma_lora.queries import (
    Draft,
    Query,
    adds_up,
    conditions_on,
    label_of,
    noun_slots,
    stock_worths,
    worth_of,
    written_query,
)
from gemma_lora.schema_reading import Link
from gemma_lora.superlatives import measures, superlative
from gemma_lora.table_reading import ColumnReading, TableReading
from gemma_lora.value_wording import said_of
from gemma_lora.wording import (
    called,
    concept_of,
    is_called,
    marked,
    number_said,
    plural,
    rounded,
)

MOST_GROUPS = 60
COUNTS = (1, 2, 3, 5, 10, 20, 50, 100)
TURNOVERS = (100, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 150_000)
MORE = ("more than", "over", "above", "more than")
FEWER = ("less than", "fewer than", "under", "below")


def aggregate(g: Grammar, table: TableReading) -> Draft | None:
    """An average, a sum, the highest or the lowest of a measure; the time between two dates."""
    if g.draw.random() < 0.15 and (draft := days_between(g, table)):
        return draft
    if worth_of(table) and g.draw.random() < 0.4:
        return revenue(g, table)
    if worth_of(table, stored=True) and g.draw.random() < 0.15:
        return revenue(g, table, stored=True)
    if not measures(table):
        return None
    column = g.draw.choice(measures(table))
    found = conditions_on(g, table, (3, 5, 2))
    if any(c.repeats or c.column == (table.name, column.name) for c in found):
        return None
    attr = called(g.draw, g.phrasings, column)
    said = noun_slots(g, table, found) | {"attr": attr, "attrs": plural(attr)}
    kinds = ("average", "average", "extreme_value", *(("sum", "sum") if adds_up(g, column) else ()))
    kind = g.draw.choice(kinds)
    function = {"average": "AVG", "sum": "SUM"}.get(kind, "MAX")
    concept = concept_of(g.phrasings, column)
    if kind == "extreme_value":
        _, said["high"], way = superlative(g, table, column)
        function = "MAX" if way == "DESC" else "MIN"
    if kind == "average" and concept and concept.how and g.draw.random() < 0.4:
        said["how"] = g.draw.choice(concept.how)
        kind = "average_how"
    if kind == "sum" and concept and "price" in concept.match and g.draw.random() < 0.4:
        kind = "sum_worth"
    query = Query(table.name, f"{function}({number_of(column, table.name)})", found)
    return Draft(asked(g, kind, **said), written_query(query), table.name)


def days_between(g: Grammar, table: TableReading) -> Draft | None:
    """How many days lie on average between two dates of a row."""
    pairs = [p for p in comparable(g, table) if p[0].role == "date" and p[0].form == "iso"]
    if not pairs:
        return None
    later, sooner = g.draw.choice(pairs)
    days = " - ".join(f"julianday({ref(table.name, c.name)})" for c in (later, sooner))
    average = written_query(Query(table.name, f"AVG({days}) AS n"))
    if not g.holds(f"SELECT 1 FROM ({average}) WHERE n > 0"):
        return None
    found = conditions_on(g, table, (5, 1))
    if any(c.repeats for c in found):
        return None
    said = noun_slots(g, table, found)
    said |= {
        "attr": called(g.draw, g.phrasings, later),
        "attr2": called(g.draw, g.phrasings, sooner),
    }
    query = Query(table.name, f"AVG({days})", found)
    return Draft(asked(g, "days_between", **said), written_query(query), table.name)


def revenue(g: Grammar, table: TableReading, stored: bool = False) -> Draft | None:
    """What all that was sold, or lies in stock, or some of it, is worth."""
    found = conditions_on(g, table, (3, 5, 2))
    if any(c.repeats for c in found):
        return None
    said = noun_slots(g, table, found) | {"attr": g.draw.choice(g.phrasings.forms["revenue_words"])}
    after = " ".join(c.said for c in found)
    said |= {"after": after} if found else {}
    said["attr"] += discounted(g, table) if not stored else ""
    worth, form = worth_of(table, stored), "stock_worth" if stored else "revenue"
    if stored and (worths := stock_worths(table)) and g.draw.random() < 0.6:
        said["price"], worth = g.draw.choice(list(worths.items()))
        form = "stock_worth_at"
    query = Query(table.name, f"SUM({worth})", found)
    return Draft(asked(g, form, **said), written_query(query), table.name)


def discounted(g: Grammar, table: TableReading) -> str:
    """' after discounts', now and then, where a sale's worth is less a discount."""
    after = g.draw.choice((" after discounts", " after discount", " net of discounts"))
    return after if "(1 - " in worth_of(table) and g.draw.random() < 0.25 else ""


class Group(NamedTuple):
    """By what rows are put together."""

    word: str
    by: str  # what is shown of a group
    key: str  # what makes two rows of one group
    links: tuple[Link, ...] = ()


def is_grouping(table: TableReading, column: ColumnReading) -> bool:
    """Whether rows are put together by a column: a category of a few values."""
    few = column.role == "category" and 1 < len(column.values) <= MOST_GROUPS
    return few and column.name not in table.label


def own_groups(g: Grammar, table: TableReading) -> list[Group]:
    """Groups by a table's own columns: categories, flags, years and months."""
    groups = []
    for column in table.columns:
        name = ref(table.name, column.name)
        word = called(g.draw, g.phrasings, column)
        if is_grouping(table, column):
            groups += [Group(word, name, name)] * 2
        elif column.role == "date" and column is main_date(table):
            year, month = year_of(column, table.name), month_of(column, table.name)
            groups += [Group("year", year, year), Group("month", month, month)] * 2
        elif column.role == "year" and len(column.values) < 100:
            groups.append(Group(word, name, name))
    return groups


def groups_of(g: Grammar, table: TableReading) -> list[Group]:
    """What the rows of a table can be put together by, also what they belong to."""
    groups = own_groups(g, table)
    for link in g.reading.parents(table.name):
        parent = g.reading.table(link.parent)
        if parent.label == (link.parent_column,):
            name = ref(table.name, link.child_column)
            groups += [Group(parent.words[0], name, name)] * g.reading.is_said(link)
        elif parent.label and parent.rows <= 1000:
            key = ref(link.parent, link.parent_column)
            word = called(g.draw, g.phrasings, parent)
            groups += [Group(word, label_of(parent), key, (link,))] * 2
        for column in parent.columns:
            if is_grouping(parent, column):
                name = ref(parent.name, column.name)
                groups.append(Group(called(g.draw, g.phrasings, column), name, name, (link,)))
        for further in g.reading.parents(parent.name):  # what is sold per customer, over orders
            above = g.reading.table(further.parent)
            if above.label and above.rows <= 1000 and above.name != table.name:
                key, word = (
                    ref(above.name, further.parent_column),
                    called(g.draw, g.phrasings, above),
                )
                groups.append(Group(word, label_of(above), key, (link, further)))
    return groups


class Measured(NamedTuple):
    """What is counted, averaged or added up of a group's rows."""

    kind: str  # count, average, sum
    what: str  # its SQL
    said: dict[str, str]
    column: ColumnReading | None = None


def measured(g: Grammar, table: TableReading) -> Measured:
    """A count, an average or a sum of a group's rows."""
    worth = worth_of(table)
    if worth and g.draw.random() < 0.4:
        word = g.draw.choice(g.phrasings.forms["revenue_words"]) + discounted(g, table)
        return Measured("sum", f"SUM({worth})", {"attr": word, "attrs": word})
    if not measures(table) or g.draw.random() < 0.5:
        return Measured("count", "COUNT(*)", {})
    column: ColumnReading = g.draw.choice(measures(table))
    kind, function = "average", "AVG"
    if adds_up(g, column) and g.draw.random() < 0.5:
        kind, function = "sum", "SUM"
    attr = called(g.draw, g.phrasings, column)
    said = {"attr": attr, "attrs": plural(attr)}
    return Measured(kind, f"{function}({number_of(column, table.name)})", said, column)


def told_apart(g: Grammar, table: TableReading, group: Group, of: Measured) -> dict[str, str]:
    """What is measured, with its table where the group has a measure of that name too.

    A state has an area, and so have its lakes: 'average lake area'.
    """
    if of.column is None or not group.links:
        return of.said
    parent = g.reading.table(group.links[-1].parent)
    if not any(set(c.words) & set(of.column.words) for c in parent.columns):
        return of.said
    attr = f"{table.words[0]} {of.said['attr']}"
    return {"attr": attr, "attrs": plural(attr)}


def grouped(g: Grammar, table: TableReading) -> Draft | None:
    """A count, an average or a sum for each category or for each parent."""
    groups = groups_of(g, table)
    if not groups:
        return None
    group = g.draw.choice(groups)
    found = conditions_on(g, table, (5, 2))
    year: tuple[Condition, ...] = ()
    if group.word == "month" and g.draw.random() < 0.6:
        found, year = (), (one_year(g, table),)
        if g.draw.random() < 0.5:  # 'orders in 2024 per month', else 'orders per month in 2024'
            found, year = year, ()
    if any(c.repeats or ref(*c.column) == group.by for c in found):
        return None
    kind, what, *_ = of = measured(g, table)
    said = told_apart(g, table, group, of)
    said |= {"parent": group.word, "parents": plural(group.word)}
    said |= noun_slots(g, table, found)
    rest = f"GROUP BY {group.key}"
    query = Query(table.name, f"{group.by}, {what}", (*found, *year), group.links, rest)
    question = " ".join((asked(g, f"group_{kind}", **said), *(c.said for c in year)))
    if g.draw.random() < 0.12:
        query = query._replace(rest=f"{query.rest} ORDER BY {what} DESC")
        question += f", {asked(g, 'order_groups')}"
    return Draft(question, written_query(query), table.name)


def one_year(g: Grammar, table: TableReading) -> Condition:
    """The months of one year."""
    column = main_date(table)
    assert column is not None  # months are groups of its dates
    value = dealt(g, (table.name, column.name), column.values)
    said, sql = date_condition(g, table, column, "year", value)
    return Condition(f"in {said['n']}", sql, column=(table.name, column.name))


def compared_groups(g: Grammar, table: TableReading) -> Draft | None:
    """Two groups that are named, side by side: 'compare the average price of ale and of stout'."""
    groups: list[tuple[Group, ColumnReading]] = []
    for column in table.columns:
        if is_grouping(table, column) and len(column.values) > 2:
            name = ref(table.name, column.name)
            groups.append((Group("", name, name), column))
    for link in g.reading.parents(table.name):
        parent = g.reading.table(link.parent)
        if (
            len(parent.label) == 1
            and len(parent.names) > 2
            and link.parent_column not in parent.label
        ):
            key = ref(link.parent, link.parent_column)
            column = parent.column(parent.label[0])
            groups.append((Group("", label_of(parent), key, (link,)), column))
    if not groups:
        return None
    group, column = g.draw.choice(groups)
    values = [dealt(g, (group.by, "compared"), column.values) for _ in range(2)]
    if values[0] == values[1]:
        return None
    kind, what, *_ = of = measured(g, table)
    one, other = (said_of(g, column, value) for value in values)
    said = told_apart(g, table, group, of) | noun_slots(g, table, ())
    said |= {"value": one, "value2": other}
    place = "_place" * (kind == "count" and is_called(g.phrasings, "places", column.words))
    where = f"{group.by} IN ({', '.join(map(written, values))})"
    rest = f"GROUP BY {group.key}"
    query = Query(table.name, f"{group.by}, {what}", (), group.links, rest, where)
    return Draft(asked(g, f"compare_{kind}{place}", **said), written_query(query), table.name)


def chosen_groups(g: Grammar, table: TableReading) -> Draft | None:
    """Groups with more of something than a number: 'genres with an average price over 20'."""
    groups = groups_of(g, table)
    if not groups:
        return None
    group = g.draw.choice(groups)
    kind, what, _, column = of = measured(g, table)
    said = told_apart(g, table, group, of)
    if column is None:
        n: int | float = g.draw.choice(COUNTS if kind == "count" else TURNOVERS)
    else:
        value = float(g.draw.choice(column.values))
        value *= g.draw.choice((3, 10)) if kind == "sum" else 1
        n = rounded(g.draw, round(value) if value > 10 else value)
    up = g.draw.random() < 0.75
    said |= noun_slots(g, table, ()) | {"parent": group.word, "parents": plural(group.word)}
    said |= {"n": marked(number_said(g.draw, n)), "more": g.draw.choice(MORE if up else FEWER)}
    rest = f"GROUP BY {group.key} HAVING {what} {'>' if up else '<'} {n}"
    query = Query(table.name, group.by, links=group.links, rest=rest)
    return Draft(asked(g, f"having_{kind}", **said), written_query(query), table.name)


def top_groups(g: Grammar, table: TableReading) -> Draft | None:
    """The three groups of the most rows: 'the three most common reasons for visits'."""
    groups = groups_of(g, table)
    if not groups:
        return None
    group = g.draw.choice(groups)
    found = conditions_on(g, table, (7, 2))
    if any(c.repeats or ref(*c.column) == group.by for c in found):
        return None
    n = g.draw.choice((2, 3, 3, 3, 5, 5))
    said = noun_slots(g, table, found) | {"parent": group.word, "parents": plural(group.word)}
    said["n"] = marked({2: "two", 3: "three", 5: "five"}[n] if g.draw.random() < 0.5 else n)
    by_group = Query(table.name, group.by, found, group.links, f"GROUP BY {group.key}")
    query = by_group._replace(rest=f"{by_group.rest} ORDER BY COUNT(*) DESC LIMIT {n}")
    ranked = written_query(by_group._replace(select="COUNT(*) AS n"))
    last = f"SELECT n FROM ({ranked}) ORDER BY n DESC LIMIT 1 OFFSET {n - 1}"
    tied = f"SELECT 1 FROM ({ranked}) WHERE n >= ({last}) LIMIT {n + 1}"
    return Draft(asked(g, "top_groups", **said), written_query(query), table.name, tied, n)


def most_of_groups(g: Grammar, table: TableReading) -> Draft | None:
    """The group that has the most: 'which genre has the most books', 'the highest average'."""
    groups = groups_of(g, table)
    if not groups:
        return None
    group = g.draw.choice(groups)
    kind, what, *_ = of = measured(g, table)
    said = told_apart(g, table, group, of)
    found = conditions_on(g, table, (6, 2))
    if any(c.repeats or ref(*c.column) == group.by for c in found):
        return None
    up = g.draw.random() < 0.75
    said |= noun_slots(g, table, found) | {"parent": group.word, "parents": plural(group.word)}
    said["high"] = g.draw.choice(g.phrasings.high if up else g.phrasings.low)
    if not up and kind == "count":
        return None
    by_group = Query(table.name, group.by, found, group.links, f"GROUP BY {group.key}")
    way = "DESC" if up else "ASC"
    query = by_group._replace(rest=f"{by_group.rest} ORDER BY {what} {way} LIMIT 1")
    question = asked(g, f"most_{kind}", **said)
    if g.draw.random() < 0.15:
        query = query._replace(select=f"{group.by}, {what}")
        question = asked(g, "and_how_many" if kind == "count" else "and_how_much", asked=question)
    tied = most_tied(by_group, what, "MAX" if up else "MIN")
    return Draft(question, written_query(query), table.name, tied)


def most_tied(grouped_by: Query, what: str, extreme: str) -> str:
    """SQL that returns a row for each group whose measure is the highest or the lowest."""
    ranked = written_query(grouped_by._replace(select=f"{what} AS n"))
    return f"SELECT 1 FROM ({ranked}) WHERE n = (SELECT {extreme}(n) FROM ({ranked}))"
