"""Rows of a result for people: a table that fits the terminal; and for programs: CSV."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from gemma_lora.cli import UserError
from gemma_lora.database import QueryResult

VALUE_CHARACTERS = 300  # of one value in the table; CSV has it whole
COLUMN_WIDTH, COLUMN_GAP = 18, 3  # with less for a long text, columns are left out
UNLIMITED = 10_000  # columns of what is no terminal
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def cell_text(value: Any) -> str:
    """A value on one line, without control characters, which a terminal would obey."""
    if value is None:
        return "NULL"
    if isinstance(value, bytes):
        text = f"X'{value[: VALUE_CHARACTERS // 2].hex()}'"
        return f"{text[:-1]}...' ({len(value):,} bytes)" if len(value) > 150 else text
    text = str(value)
    shown = _CONTROL.sub(" ", text[:VALUE_CHARACTERS])
    return f"{shown}... ({len(text):,} characters)" if len(text) > VALUE_CHARACTERS else shown


def readable_columns(columns: Sequence[str], rows: Sequence[Sequence[Any]], width: int) -> int:
    """How many of the first columns fit, each as wide as it needs, long texts in several lines."""
    room = width
    for index, name in enumerate(columns):
        longest = max([len(name), *(len(cell_text(row[index])) for row in rows)])
        room -= min(longest, COLUMN_WIDTH) + COLUMN_GAP
        if room < -COLUMN_GAP:  # there is none after the last
            return max(1, index)
    return len(columns)


def table_text(columns: Sequence[str], rows: Sequence[Sequence[Any]], width: int) -> str:
    """A table of at most `width` columns of the terminal, numbers to the right."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    shown = readable_columns(columns, rows, width)
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for index, name in enumerate(columns[:shown]):
        values = [row[index] for row in rows if row[index] is not None]
        numeric = values and all(isinstance(v, int | float) for v in values)
        table.add_column(
            Text(cell_text(name)), justify="right" if numeric else "left", overflow="fold"
        )
    for row in rows:
        table.add_row(*(Text(cell_text(value)) for value in row[:shown]))
    screen = io.StringIO()
    Console(file=screen, width=width, color_system=None, force_terminal=False).print(table)
    lines = [line.rstrip() for line in screen.getvalue().rstrip("\n").split("\n")]
    if len(columns) > shown:
        lines.append(f"and {len(columns) - shown} more columns: /csv FILE saves them all")
    return "\n".join(lines)


def result_text(result: QueryResult, max_rows: int, width: int) -> str:
    """What a person is told of a query's result."""
    if result.status == "writes":
        return "this would change the data: it was not run"
    if result.status == "timeout":
        return f"the query was ended: {result.error}; --sql-timeout gives it more"
    if result.status != "ok":
        return f"the query did not run ({result.status}): {result.error}"
    if result.note:
        return result.note
    if not result.rows:
        return f"no rows, {result.seconds:.2f} s"
    shown = len(result.rows)
    count = (
        f"the first {shown:,} rows" if result.truncated else f"{shown:,} row{'s' * (shown != 1)}"
    )
    end = f"{count}, {result.seconds:.2f} s"
    if result.truncated:
        end += f"; the chat shows {max_rows:,}, /csv FILE saves them all"
    return f"{table_text(result.columns, result.rows, width)}\n{end}"


def csv_lines(results: Iterable[QueryResult]) -> Iterator[str]:
    """A result as CSV (RFC 4180), header first. UserError when it does not come to its end.

    NULL is an empty field, as sqlite3 writes it; a blob is X'...'.
    """
    header: list[str] | None = None
    for result in results:
        if result.status != "ok":
            raise UserError(f"the query did not run ({result.status}): {result.error}")
        screen = io.StringIO()
        writer = csv.writer(screen)
        if header is None:
            header = result.columns
            writer.writerow(header)
        writer.writerows([field_of(value) for value in row] for row in result.rows)
        yield screen.getvalue()


def field_of(value: Any) -> Any:
    """A value as the csv module and a file in UTF-8 can take it."""
    if isinstance(value, bytes):
        return f"X'{value.hex()}'"
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value
