"""Conditions on dates and years: 'in 2021', 'since 5 March 2019', 'in march', 'this century'."""

from __future__ import annotations

import datetime
import re

from gemma_lora.column_sql import (
    by_day,
    day_written,
    in_order,
    iso_date,
    month_of,
    number_of,
    ref,
    year_of,
)
from gemma_lora.grammar import Condition, Grammar, dealt
from gemma_lora.table_reading import ColumnReading, TableReading
from gemma_lora.wording import MONTHS, called, concept_of, filled, marked

PERIODS = ("year", "after", "since", "before", "between", "century")
SHARES = (6, 3, 2, 3, 2.5, 0.4)
# Of dates only; what is a matter of days comes last.
MONTHLY, MONTHLY_SHARES = ("month", "any_month"), (2, 0.7)
DAILY = (
    "day", "after_day", "since_day", "before_day",
    "since_month", "before_month", "months", "quarter", "weekday",
)  # fmt: skip
DAILY_SHARES = (1.2, 0.6, 0.6, 0.8, 0.6, 0.6, 0.6, 0.6, 0.2)
SIGNS = {"year": "=", "after": ">", "since": ">=", "before": "<"}
CONCEPT_OF = {"year": "year", "after": "more", "since": "more", "before": "less"}


# 'in 2021', 'since 5 March': of which date is not said.
NAMELESS = re.compile(
    r"(?:in|from|of|since|after|before|between|until|on|dated|later|earlier|this|anywhere)\b"
)


def says_no_date(condition: Condition, table: TableReading) -> bool:
    """Whether a condition is on a date of `table` that its words do not name.

    Behind 'visits of vets' it would be taken for the date of the visit.
    """
    columns = [c for c in (*table.columns, *table.unsaid) if c.name == condition.column[1]]
    dated = condition.column[0] == table.name and any(c.role in ("date", "year") for c in columns)
    words = {word for c in columns for word in c.words}
    named = any(word in condition.said for word in words)
    return dated and not named and bool(NAMELESS.match(condition.said))


def main_date(table: TableReading) -> ColumnReading | None:
    """The date that people mean when they name none: the first, unless it is a birthday."""
    dates = [c for c in table.columns if c.role in ("date", "year")]
    return next((c for c in dates if "birth" not in " ".join(c.words)), None)


def year_in(column: ColumnReading, table: str) -> str:
    """The SQL of a year: a number of its own column, the text of a date's."""
    return number_of(column, table) if column.role == "year" else year_of(column, table)


def as_year(column: ColumnReading, year: int | str) -> str:
    """A year as the column's own SQL compares it."""
    if column.role == "year":
        return f"'{year}'" if isinstance(column.values[0], str) and not column.form else f"{year}"
    return f"'{year}'"


def year_said(column: ColumnReading, value: str | int | float) -> int:
    """The year of a stored value."""
    return int(float(value)) if column.role == "year" else int(iso_date(column, value)[:4])


def dated(g: Grammar, table: TableReading, column: ColumnReading) -> Condition:
    """A date or a year is in, before, after or between."""
    dates = column.role == "date"
    kinds = (*PERIODS, *MONTHLY, *DAILY) if dates else PERIODS
    kind = g.draw.choices(kinds, (*SHARES, *MONTHLY_SHARES, *DAILY_SHARES)[: len(kinds)])[0]
    if column.form == "month year" and "day" in kind:
        kind = "month"
    if kind == "weekday" and column.form not in ("iso", "unix"):
        kind = "day"
    value = dealt(g, (table.name, column.name), column.values)
    if kind in DAILY:
        said, sql = daily_condition(g, table, column, kind, value)
    else:
        said, sql = date_condition(g, table, column, kind, value)
    said["attr"] = called(g.draw, g.phrasings, column)
    return Condition(filled(g.draw, forms_of(g, table, column, kind), said), sql,
                     column=(table.name, column.name))  # fmt: skip


def forms_of(g: Grammar, table: TableReading, column: ColumnReading, kind: str) -> tuple[str, ...]:
    """The phrasings of a condition on a date, which name the date unless it is the main one."""
    concept = concept_of(g.phrasings, column)
    main = column is main_date(table)
    years = "_years" if kind == "between" else ""
    general = g.phrasings.forms[f"condition_{kind}{years}"]
    own = tuple(getattr(concept, CONCEPT_OF.get(kind, ""), ()) if concept else ())
    if kind == "since":
        own = tuple(f.replace("after", "since") for f in own if "after" in f)
    if concept and concept.year and not own:  # 'born between 1980 and 1985'
        lead = [f.removesuffix("in {n}") for f in concept.year if f.endswith("in {n}")]
        own = tuple(a + f for a in lead for f in general if "{attr}" not in f)
    if not main and concept and "date" in concept.match:
        own = ()  # 'from 1998' would be said of the other date
    if own and g.draw.random() < (0.6 if main else 0.75):
        return own
    return general if main else tuple(f for f in general if "{attr}" in f)


def daily_condition(
    g: Grammar, table: TableReading, column: ColumnReading, kind: str, value: str | int | float
) -> tuple[dict[str, str], str]:
    """(slots, SQL) of a condition on a day, or on months that begin and end with one."""
    left = by_day(column, table.name)
    day = datetime.date.fromisoformat(iso_date(column, value))
    said = {"day": marked(day_said(g, day))}
    if kind == "weekday":
        how = ", 'unixepoch'" if column.form == "unix" else ""
        number = f"strftime('%w', {ref(table.name, column.name)}{how})"
        return {"weekday": marked(day.strftime("%A"))}, f"{number} = '{day.isoweekday() % 7}'"
    if kind == "day":
        return said, f"{left} = {day_written(column, day)}"
    if kind.endswith("_day"):
        sign = {"after": ">", "since": ">=", "before": "<"}[kind.partition("_")[0]]
        return said, f"{left} {sign} {day_written(column, day)}"
    first = day.replace(day=1)
    said = {"n": marked(day.year), "month": marked(month_said(g, day.month))}
    if kind.endswith("_month"):
        sign = ">=" if kind == "since_month" else "<"
        return said, f"{left} {sign} {day_written(column, first)}"
    if kind == "quarter":
        quarter = (day.month - 1) // 3
        first, last = first.replace(month=3 * quarter + 1), 3 * quarter + 3
        said |= {"nth": ("first", "second", "third", "fourth")[quarter], "q": f"Q{quarter + 1}"}
    else:
        first = first.replace(month=min(day.month, 11))
        last = min(12, first.month + g.draw.randint(1, 5))
        said |= {"month": marked(month_said(g, first.month)), "month2": marked(month_said(g, last))}
    after = first.replace(year=first.year + last // 12, month=last % 12 + 1)
    low, high = day_written(column, first), day_written(column, after)
    return said, f"{left} >= {low} AND {left} < {high}"


def month_said(g: Grammar, month: int) -> str:
    """'March', 'march' or 'Mar'."""
    name = MONTHS[month - 1].capitalize()
    chance = g.draw.random()
    return name if chance < 0.6 else name.lower() if chance < 0.85 else name[:3]


def day_said(g: Grammar, day: datetime.date) -> str:
    """'5 March 2024', 'March 5th, 2024', '2024-03-05'."""
    month, number = month_said(g, day.month), day.day
    end = {1: "st", 2: "nd", 3: "rd"}.get(number % 10 if number not in (11, 12, 13) else 0, "th")
    th = end if g.draw.random() < 0.4 else ""
    comma = "," if g.draw.random() < 0.5 else ""
    return g.draw.choice(
        (
            f"{number}{th} {month} {day.year}",
            f"{month} {number}{th}{comma} {day.year}",
            f"the {number}{end} of {month} {day.year}",
            day.isoformat(),
        )
    )


def date_condition(
    g: Grammar, table: TableReading, column: ColumnReading, kind: str, value: str | int | float
) -> tuple[dict[str, str], str]:
    """(slots, SQL) of a condition on a date."""
    year = year_said(column, value)
    left = year_in(column, table.name)
    if kind == "between":
        other = year_said(column, g.draw.choice(column.values))
        low, high = sorted((year, other if other != year else year + 2))
        said = {"n": marked(low), "n2": marked(high)}
        return said, f"{left} BETWEEN {as_year(column, low)} AND {as_year(column, high)}"
    if kind == "century":
        return {"n": marked(2000)}, f"{left} >= {as_year(column, 2000)}"
    if kind in SIGNS:
        return {"n": marked(year)}, f"{left} {SIGNS[kind]} {as_year(column, year)}"
    month = iso_date(column, value)[5:7]
    said = {"n": marked(year), "month": MONTHS[int(month) - 1].capitalize()}
    if kind == "any_month":
        return said, f"{month_of(column, table.name)} = '{month}'"
    if column.form == "month year":
        return said, f"{ref(table.name, column.name)} = '{month}/{year}'"
    if column.form in ("iso", "unix"):
        how = ", 'unixepoch'" if column.form == "unix" else ""
        return said, f"strftime('%Y-%m', {ref(table.name, column.name)}{how}) = '{year}-{month}'"
    return said, f"{in_order(column, table.name)} LIKE '{year}{month}%'"
