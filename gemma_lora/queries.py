"""The pieces of a question made from a database: its query, its nouns, what a table allows."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from gemma_lora.column_sql import number_of, plain, ref
from gemma_lora.grammar import Condition, Grammar, put_back
from gemma_lora.nested_conditions import some_condition
from gemma_lora.schema_reading import Link
from gemma_lora.table_reading import ColumnReading, TableReading, quoted
from gemma_lora.wording import called, is_called, marked, plural

CONDITIONS_TRIED = 12  # beside others, before the question has to do without one more
RELATIVE = re.compile("(?:that|which|who|whose|where|we) |\x02")  # no 'are' before a clause
NEGATIVE = re.compile("(?:not|without|that (?:are|were) not|that aren't|with no|outside) ")
IN_STOCK = {"stock", "hand", "inventory", "reorder"}
NO_SUM = set("rating score age stars rank grade percent density latitude level lead".split())


class Draft(NamedTuple):
    """A question before its query is run."""

    question: str
    sql: str
    table: str
    tied: str = ""  # SQL that returns more than `rows` rows when the answer is no single one
    rows: int = 1


class Query(NamedTuple):
    """A SELECT that is being made."""

    table: str
    select: str
    conditions: tuple[Condition, ...] = ()
    links: tuple[Link, ...] = ()
    rest: str = ""  # GROUP BY, ORDER BY, LIMIT
    where: str = ""  # one more condition
    distinct: bool = False


def written_query(query: Query) -> str:
    """The SQL of a query."""
    links: list[Link] = []
    for link in (*query.links, *(k for c in query.conditions for k in c.links)):
        if link not in links:
            links.append(link)
    joined = {query.table}
    source = quoted(query.table)
    for link in links:
        there = link.parent if link.child in joined else link.child
        if there in joined:
            continue
        joined.add(there)
        source += (
            f" JOIN {quoted(there)} ON {ref(link.child, link.child_column)} = "
            f"{ref(link.parent, link.parent_column)}"
        )
    where = " AND ".join(filter(None, (*(c.where for c in query.conditions), query.where)))
    once = "DISTINCT " if query.distinct else ""
    sql = f"SELECT {once}{query.select} FROM {source}"
    sql += f" WHERE {where}" if where else ""
    return plain(f"{sql} {query.rest}".strip(), len(joined))


def joinable(table: TableReading, links: Sequence[Link]) -> bool:
    """Whether no table would have to be joined twice, by two different keys."""
    joined: dict[str, Link | None] = {table.name: None}
    for link in links:
        there = link.parent if link.child in joined else link.child
        if there in joined and joined[there] != link and link not in joined.values():
            return False
        joined.setdefault(there, link)
    return True


def conditions_on(
    g: Grammar, table: TableReading, shares: Sequence[float] = (2, 5, 4.5, 1)
) -> tuple[Condition, ...]:
    """Conditions that hold of some row together; `shares` of none, one, two, three.

    They come in the order in which they are said. Drawn without a look at the rows, nearly all
    pairs would hold of none, and questions with two conditions would be rare.
    """
    wanted = g.draw.choices(range(len(shares)), shares)[0]
    found: tuple[Condition, ...] = ()
    for _ in range(wanted):
        for _attempt in range(CONDITIONS_TRIED):
            dealt_before = len(g.taken)
            one = some_condition(g, table)
            if one is not None and goes_with(g, table, one, found):
                found = (*found, one)
                break
            put_back(g, dealt_before)
    leading = [c for c in found if c.before]
    if len(leading) > 1 and g.draw.random() < 0.5:
        leading = leading[:1]
    return (*leading, *(c for c in found if not c.before))


def goes_with(
    g: Grammar, table: TableReading, one: Condition, found: tuple[Condition, ...]
) -> bool:
    """Whether a condition can be said beside others, and holds of a row of which they hold."""
    if not found:
        return joinable(table, one.links)
    if any(one.column == other.column or (one.repeats and other.repeats) for other in found):
        return False
    if not joinable(table, [k for c in (*found, one) for k in c.links]):
        return False
    return g.holds(written_query(Query(table.name, "1", (*found, one), rest="LIMIT 1")))


def noun_slots(g: Grammar, table: TableReading, found: Sequence[Condition]) -> dict[str, str]:
    """{things, thing, and heads, head, after where conditions follow}: 'red cars from 1998'.

    {state} is what can stand behind 'are': 'from 1998', 'paid' for 'that are paid'.
    """
    word, many = called(g.draw, g.phrasings, table), ""
    if noun := next((c.noun for c in found if c.noun), ""):
        word, many = marked(noun), marked(plural(noun))
    before = " ".join(c.said for c in found if c.before and not (noun and c.noun == noun))
    following = [c.said for c in found if not c.before]
    after = following[0] if following else ""
    for one in following[1:]:
        joins = (" ", " ", " and ", " but ") if NEGATIVE.match(one) else (" ", " ", " and ")
        after += f"{g.draw.choice(joins)}{one}"
    kinds = is_called(g.phrasings, "nouns", table.words)
    if before and after and kinds and g.draw.random() < 0.12:
        heads = head = before  # 'the best french in san francisco'
    else:
        heads, head = f"{before} {many or plural(word)}".strip(), f"{before} {word}".strip()
    said = {"things": f"{heads} {after}".strip(), "thing": f"{head} {after}".strip()}
    said |= {"conditions": "said"} if found else {}
    said |= {"who": "who"} if is_called(g.phrasings, "people", table.words) else {}
    if not after:
        return said
    states = [c.state for c in found if not c.before]
    state = states[0] if len(states) == 1 else ""
    if not state and not RELATIVE.match(after):
        state = after
    said |= {"state": state} if state else {}
    return said | {"heads": heads, "head": head, "after": after}


def noun(g: Grammar, table: TableReading, found: Sequence[Condition], many: bool) -> str:
    """The table's word with its conditions, in the plural or the singular."""
    return noun_slots(g, table, found)["things" if many else "thing"]


def label_of(table: TableReading) -> str:
    """The SQL of what a person wants to see of a row."""
    if table.shown:
        return ", ".join(ref(t, c) for t, c in table.shown)
    key = [c.name for c in table.columns if c.role == "key"][:1]
    return ", ".join(ref(table.name, c) for c in (table.label or key or (table.columns[0].name,)))


def shown_links(g: Grammar, table: TableReading) -> tuple[Link, ...]:
    """Keys to follow to what is shown of a row."""
    others = {t for t, _ in table.shown} - {table.name}
    links = g.reading.children(table.name) + g.reading.parents(table.name)
    return tuple(k for k in links if {k.parent, k.child} & others)


def key_of(table: TableReading) -> str | None:
    """The column that numbers a table's rows."""
    return next((c.name for c in table.columns if c.role == "key"), None)


def askable(table: TableReading) -> list[ColumnReading]:
    """Columns that somebody may ask for; a flag has a question of its own.

    What is the same in all rows is no question: all rivers of the file are in one country.
    """
    columns = [c for c in table.columns if c.role not in ("key", "flag") and c.values]
    told = [c for c in columns if len(c.values) > 1 or c.missing or table.rows == 1]
    return [c for c in told if c.name not in table.label]


def adds_up(g: Grammar, column: ColumnReading) -> bool:
    """Whether a sum of the column means something: ratings and ages have none."""
    said = set(" ".join(column.words).split())
    part = "discount" in said and max(float(v) for v in column.values) <= 1
    return not NO_SUM & said and not said >= {"unit", "price"} and not part


def stock_worths(table: TableReading) -> dict[str, str]:
    """{'cost price': the SQL of what lies in stock at that price} where there are several."""
    counts = [c for c in table.columns if c.role == "measure"]
    many = next((c for c in counts if IN_STOCK & set(" ".join(c.words).split())), None)
    prices = [c for c in counts if c.words[0].split()[-1] in ("price", "cost") and c is not many]
    if many is None or len(prices) < 2:
        return {}
    number = number_of(many, table.name)
    return {c.words[0]: f"{number} * {number_of(c, table.name)}" for c in prices}


def worth_of(table: TableReading, stored: bool = False) -> str:
    """The SQL of what a row sold is worth, quantity times price less discount; '' where unknown.

    With `stored`, of what lies in stock: that has brought in nothing yet.
    """
    numbers = [c for c in table.columns if c.role == "measure"]
    counts = [c for c in numbers if {"quantity", "units", "stock"} & set(c.words[0].split())]
    many = next(
        (
            c
            for c in counts
            if bool(IN_STOCK & set(" ".join(c.words).split())) is stored
            and "on order" not in c.words[0]  # still to come
        ),
        None,
    )
    price = next((c for c in numbers if c.words[0].split()[-1] == "price"), None)
    if many is None or price is None:
        return ""
    sql = f"{number_of(many, table.name)} * {number_of(price, table.name)}"
    less = next((c for c in numbers if "discount" in c.words[0].split()), None)
    if less is None:
        return sql
    part = number_of(less, table.name)
    whole = max(float(v) for v in less.values) <= 1
    return f"{sql} * (1 - {part if whole else f'{part} / 100.0'})"
