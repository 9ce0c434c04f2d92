"""Conditions on the rows of a table: 'in berlin', 'cheaper than 5', 'by anna', with their SQL.

A condition holds what is said and what is written. Columns in its SQL carry their table between
two marks, so that a query over one table can leave it out (`queries` in `questions`).
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from typing import NamedTuple

from gemma_lora.schema_reading import (
    ColumnReading,
    DatabaseReading,
    Link,
    TableReading,
    literal,
    quoted,
)
from gemma_lora.wording import (
    MONTHS,
    Phrasings,
    called,
    concept_of,
    filled,
    is_called,
    marked,
    said_value,
)

YES = {"1", "y", "yes", "t", "true"}


class Grammar(NamedTuple):
    """What every question is made from."""

    reading: DatabaseReading
    phrasings: Phrasings
    draw: random.Random


class Condition(NamedTuple):
    """A condition in words and in SQL."""

    said: str
    where: str
    before: bool = False  # said before the noun: 'italian restaurants'
    links: tuple[Link, ...] = ()  # keys to follow from the table that is asked about
    repeats: bool = False  # following them can give a row more than once
    column: tuple[str, str] = ("", "")  # what it is about, so that it is not said twice


def plain(sql: str, tables: int) -> str:
    """Finished SQL: columns without their table when there is only one."""
    return re.sub("\x00.*?\x01", "", sql) if tables == 1 else re.sub("[\x00\x01]", "", sql)


def ref(table: str, column: str) -> str:
    """A column in SQL that is being made."""
    return f"\x00{quoted(table)}.\x01{quoted(column)}"


def written(value: str | int | float) -> str:
    """A value as SQL."""
    return literal(value) if isinstance(value, str) else repr(value)


def number_of(column: ColumnReading, table: str) -> str:
    """The SQL of a measure, also where its numbers are stored as text."""
    said = ref(table, column.name)
    return f"CAST({said} AS REAL)" if column.form == "text" else said


def in_order(column: ColumnReading, table: str) -> str:
    """The SQL by which a date is earlier or later."""
    said = ref(table, column.name)
    if column.form in ("dotted", "slashed"):
        return f"substr({said}, 7, 4) || substr({said}, 4, 2) || substr({said}, 1, 2)"
    return said if column.role == "date" else number_of(column, table)


def year_of(column: ColumnReading, table: str) -> str:
    """The SQL of a date's year, a text of four digits."""
    said = ref(table, column.name)
    if column.form in ("dotted", "slashed"):
        return f"substr({said}, 7, 4)"
    if column.form == "compact":
        return f"substr({said}, 1, 4)"
    return f"strftime('%Y', {said}{', ' + literal('unixepoch') if column.form == 'unix' else ''})"


def iso_date(column: ColumnReading, value: str | int | float) -> str:
    """A stored date as YYYY-MM-DD."""
    import datetime

    text = str(value)
    if column.form == "unix":
        moment = datetime.datetime.fromtimestamp(float(value), datetime.UTC)
        return moment.strftime("%Y-%m-%d")
    if column.form in ("dotted", "slashed"):
        return f"{text[6:10]}-{text[3:5]}-{text[:2]}"
    if column.form == "compact":
        return f"{text[:4]}-{text[4:6]}-{text[6:8]}"
    return text[:10]


def label_equals(table: TableReading, value: tuple[str | int | float, ...]) -> str:
    """The SQL that picks the row of that label."""
    pairs = zip(table.label, value, strict=True)
    return " AND ".join(f"{ref(table.name, c)} = {written(v)}" for c, v in pairs)


def said_of(g: Grammar, column: ColumnReading, value: str | int | float) -> str:
    """A value of a column as a person may type it, by the lexicon's words for it too."""
    words = [said for said, stored in column.spoken.items() if stored == str(value)]
    if words and g.draw.random() < 0.6:
        return marked(g.draw.choice(words))
    return said_value(g.draw, value)


def some_label(g: Grammar, table: TableReading) -> tuple[str, str] | None:
    """(a row's name as said, the SQL that picks it) for a table whose rows have names."""
    if not table.names:
        return None
    name = g.draw.choice(table.names)
    if len(name) == 1:
        return said_of(g, table.column(table.label[0]), name[0]), label_equals(table, name)
    said = " ".join(f"{part:g}" if isinstance(part, float) else str(part) for part in name)
    return said_value(g.draw, said), label_equals(table, name)


# --- Conditions on a column of the table itself -------------------------------------------------


def equals(g: Grammar, table: TableReading, column: ColumnReading) -> Condition:
    """A category or a flag has a value."""
    value = g.draw.choice(column.values)
    attr = called(g.draw, g.phrasings, column)
    sql = f"{ref(table.name, column.name)} = {written(value)}"
    about = (table.name, column.name)
    if column.role == "flag":
        kind = "condition_flag_yes" if str(value).lower() in YES else "condition_flag_no"
        return Condition(filled(g.draw, g.phrasings.forms[kind], {"attr": attr}), sql, column=about)
    said = {"attr": attr, "value": said_of(g, column, value)}
    chance = g.draw.random()
    if is_called(g.phrasings, "places", column.words) and chance < 0.8:
        return Condition(
            filled(g.draw, g.phrasings.forms["condition_place"], said), sql, column=about
        )
    adjective = is_called(g.phrasings, "adjectives", column.words) or column.role == "category"
    if adjective and chance < (0.6 if is_called(g.phrasings, "adjectives", column.words) else 0.3):
        return Condition(said["value"], sql, True, column=about)
    form = "condition_not" if chance > 0.93 else "condition_equal"
    sign = "<>" if form == "condition_not" else "="
    sql = f"{ref(table.name, column.name)} {sign} {written(value)}"
    return Condition(filled(g.draw, g.phrasings.forms[form], said), sql, column=about)


def has_code(g: Grammar, table: TableReading, column: ColumnReading) -> Condition:
    """A number, an address or the like is a particular one."""
    value = g.draw.choice(column.values)
    said = {"attr": called(g.draw, g.phrasings, column), "value": said_of(g, column, value)}
    return Condition(
        filled(g.draw, g.phrasings.forms["condition_equal"], said),
        f"{ref(table.name, column.name)} = {written(value)}",
        column=(table.name, column.name),
    )


def rounded(draw: random.Random, value: float) -> int | float:
    """A number near `value` such as people say."""
    if isinstance(value, float) and abs(value) < 10:
        return round(value * 2) / 2 if draw.random() < 0.6 else round(value, 2)
    digits = max(0, len(str(abs(int(value)))) - 2)
    near = round(int(value), -digits) if draw.random() < 0.7 else int(value)
    return near


def compares(g: Grammar, table: TableReading, column: ColumnReading) -> Condition:
    """A measure is above, below, between or equal."""
    values = sorted(float(v) for v in column.values)
    whole = all(v == int(v) for v in values)
    numbers = sorted(g.draw.sample(values, 2)) if len(values) > 1 else values * 2
    low, high = (rounded(g.draw, int(v) if whole else v) for v in numbers)
    concept = concept_of(g.phrasings, column)
    said = {"attr": called(g.draw, g.phrasings, column)}
    left = number_of(column, table.name)
    about = (table.name, column.name)
    kind = g.draw.choices(("more", "less", "least", "between", "number"), (4, 4, 1, 2, 1))[0]
    if kind == "between":
        said |= {"n": marked(low), "n2": marked(high)}
        sql = f"{left} BETWEEN {low} AND {high}"
    elif kind == "number":
        exact = g.draw.choice(column.values)
        said["n"], sql = marked(exact), f"{ref(table.name, column.name)} = {written(exact)}"
    else:
        sign = {"more": ">", "less": "<", "least": ">="}[kind]
        said["n"], sql = marked(low), f"{left} {sign} {low}"
    own = getattr(concept, kind, ()) if concept and kind in ("more", "less") else ()
    forms = own if own and g.draw.random() < 0.6 else g.phrasings.forms[f"condition_{kind}"]
    return Condition(filled(g.draw, tuple(forms), said), sql, column=about)


def main_date(table: TableReading) -> ColumnReading | None:
    """The date that people mean when they name none: the first, unless it is a birthday."""
    dates = [c for c in table.columns if c.role in ("date", "year")]
    return next((c for c in dates if "birth" not in " ".join(c.words)), None)


def dated(g: Grammar, table: TableReading, column: ColumnReading) -> Condition:
    """A date or a year is in, before or after."""
    attr = called(g.draw, g.phrasings, column)
    value = g.draw.choice(column.values)
    concept = concept_of(g.phrasings, column)
    about = (table.name, column.name)
    kind = g.draw.choices(("year", "after", "before", "month"), (5, 2, 2, 2))[0]
    if column.role == "year":
        sign = {"after": ">", "before": "<"}.get(kind, "=")
        sql = f"{ref(table.name, column.name)} {sign} {written(value)}"
        kind, said = ("year" if kind == "month" else kind), {"attr": attr, "n": marked(value)}
    else:
        day = iso_date(column, value)
        said, sql = date_condition(table, column, kind, day)
        said["attr"] = attr
    own = {"year": "year", "after": "more", "before": "less"}.get(kind, "")
    main = column is main_date(table)
    forms = tuple(getattr(concept, own, ()) if concept and own else ())
    if not main and concept and "date" in concept.match:
        forms = ()  # 'from 1998' would be said of the other date
    if not forms or g.draw.random() < 0.5:
        forms = g.phrasings.forms[f"condition_{kind}"]
        forms = forms if main else tuple(f for f in forms if "{attr}" in f)
    return Condition(filled(g.draw, forms, said), sql, column=about)


def date_condition(
    table: TableReading, column: ColumnReading, kind: str, day: str
) -> tuple[dict[str, str], str]:
    """(slots, SQL) of a condition on a date; `day` is YYYY-MM-DD."""
    year, month, _ = day.split("-")
    if kind == "month" and column.form in ("iso", "unix"):
        how = ", 'unixepoch'" if column.form == "unix" else ""
        left = f"strftime('%Y-%m', {ref(table.name, column.name)}{how})"
        said = {"n": marked(year), "month": MONTHS[int(month) - 1]}
        return said, f"{left} = '{year}-{month}'"
    if kind == "month":
        said = {"n": marked(year), "month": MONTHS[int(month) - 1]}
        left = in_order(column, table.name)
        return said, f"{left} LIKE '{year}{month}%'"
    left = year_of(column, table.name)
    sign = {"year": "=", "after": ">", "before": "<"}[kind]
    return {"n": marked(year)}, f"{left} {sign} '{year}'"


def lacks(g: Grammar, table: TableReading, column: ColumnReading) -> Condition:
    """A column is empty: 'loans not returned'."""
    attr = called(g.draw, g.phrasings, column)
    name = ref(table.name, column.name)
    done = next((w for w in column.words if w.split()[0].endswith("ed") and " " not in w), None)
    form = "condition_undone" if done else "condition_missing"
    said = {"attr": attr} | ({"done": done} if done else {})
    return Condition(
        filled(g.draw, g.phrasings.forms[form], said),
        f"{name} IS NULL",
        column=(table.name, column.name),
    )


def says(g: Grammar, table: TableReading, column: ColumnReading) -> Condition:
    """A word of the lexicon stands for a condition: 'good restaurants'."""
    word, condition = g.draw.choice(sorted(column.sayings.items()))
    sql = f"{number_of(column, table.name)} {condition}"
    return Condition(word, sql, True, column=(table.name, column.name))


def own_conditions(g: Grammar, table: TableReading) -> list[Callable[[], Condition]]:
    """A maker for each condition that the table's own columns allow."""
    makers: list[Callable[[], Condition]] = []
    for column in table.columns:
        if column.name in table.label or not column.values:
            continue
        if column.sayings:
            makers += [lambda c=column: says(g, table, c)] * 2  # type: ignore[misc]
        if column.missing:
            makers.append(lambda c=column: lacks(g, table, c))  # type: ignore[misc]
        if column.role in ("category", "flag") and len(column.values) > 1:
            makers.append(lambda c=column: equals(g, table, c))  # type: ignore[misc]
        elif column.role == "code":
            makers.append(lambda c=column: has_code(g, table, c))  # type: ignore[misc]
        elif column.role == "measure" and len(column.values) > 2:
            makers.append(lambda c=column: compares(g, table, c))  # type: ignore[misc]
        elif column.role in ("date", "year"):
            makers.append(lambda c=column: dated(g, table, c))  # type: ignore[misc]
    return makers
