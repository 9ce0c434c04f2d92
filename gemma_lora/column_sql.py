"""The SQL of a column and of a value, whatever form the file stores them in.

Columns in SQL that is being made carry their table between two marks, so that a query over one
table can leave it out.
"""

from __future__ import annotations

import datetime
import re

from gemma_lora.table_reading import ColumnReading, TableReading, literal, quoted

# Forms of dates whose text is in no order.
UNSORTED = ("dotted", "slashed", "month first", "month year")


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
    if column.form == "month year":
        return f"substr({said}, 4, 4) || substr({said}, 1, 2)"
    if column.form in UNSORTED:
        month, day = (1, 4) if column.form == "month first" else (4, 1)
        return f"substr({said}, 7, 4) || substr({said}, {month}, 2) || substr({said}, {day}, 2)"
    return said if column.role == "date" else number_of(column, table)


def year_of(column: ColumnReading, table: str) -> str:
    """The SQL of a date's year, a text of four digits."""
    said = ref(table, column.name)
    if column.form in UNSORTED:
        return f"substr({said}, {4 if column.form == 'month year' else 7}, 4)"
    if column.form == "compact":
        return f"substr({said}, 1, 4)"
    return f"strftime('%Y', {said}{', ' + literal('unixepoch') if column.form == 'unix' else ''})"


def month_of(column: ColumnReading, table: str) -> str:
    """The SQL of a date's month, a text of two digits."""
    said = ref(table, column.name)
    if column.form in UNSORTED:
        return f"substr({said}, {1 if column.form.startswith('month') else 4}, 2)"
    if column.form == "compact":
        return f"substr({said}, 5, 2)"
    return f"strftime('%m', {said}{', ' + literal('unixepoch') if column.form == 'unix' else ''})"


def by_day(column: ColumnReading, table: str) -> str:
    """The SQL of a date without its time, to be compared with what `day_written` writes."""
    said = ref(table, column.name)
    if column.form == "unix":
        return f"date({said}, 'unixepoch')"
    timed = column.form == "iso" and any(len(str(v)) > 10 for v in column.values)
    return f"date({said})" if timed else in_order(column, table)


def day_written(column: ColumnReading, day: datetime.date) -> str:
    """A day as SQL, in the form of the column, or in the order by which that is compared."""
    if column.form in ("iso", "unix"):
        return literal(day.isoformat())
    text = day.strftime("%Y%m" if column.form == "month year" else "%Y%m%d")
    return text if isinstance(column.values[0], int) else literal(text)


def iso_date(column: ColumnReading, value: str | int | float) -> str:
    """A stored date as YYYY-MM-DD."""
    text = str(value)
    if column.form == "unix":
        moment = datetime.datetime.fromtimestamp(float(value), datetime.UTC)
        return moment.strftime("%Y-%m-%d")
    if column.form == "month year":
        return f"{text[3:7]}-{text[:2]}-01"
    if column.form == "month first":
        return f"{text[6:10]}-{text[:2]}-{text[3:5]}"
    if column.form in UNSORTED:
        return f"{text[6:10]}-{text[3:5]}-{text[:2]}"
    if column.form == "compact":
        return f"{text[:4]}-{text[4:6]}-{text[6:8]}"
    return text[:10]


def label_equals(table: TableReading, value: tuple[str | int | float, ...]) -> str:
    """The SQL that picks the row of that label."""
    pairs = zip(table.label, value, strict=True)
    return " AND ".join(f"{ref(table.name, c)} = {written(v)}" for c, v in pairs)
