"""What one table of a SQLite file holds, as a person would describe it: columns, what names a row.

It looks at up to SAMPLE_ROWS rows of a table, and does not guess what a code means: words for that
come from a lexicon.
"""

from __future__ import annotations

import re
import sqlite3
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from gemma_lora.column_roles import CODE_WORDS, Role, is_day, is_number, role_of
from gemma_lora.name_reading import column_words, name_words, table_words

SAMPLE_ROWS = 20_000
KEPT_VALUES = 5_000  # distinct values of a column from which questions are made
LEAST_DIFFERENT = 0.1  # of rows: 'great' is the title of a hundred reviews and names none
FREE_TEXT = {"description", "comment", "comments", "note", "notes", "remark", "remarks", "bio"}
LABEL_WORDS = ("name", "title", "label", "full name", "caption")
FIRST_NAMES = ("first name", "forename", "given name", "firstname")
LAST_NAMES = ("last name", "surname", "family name", "lastname")
NOT_SAID = {"address", "email", "url"}  # unique, and nobody names a row by it
KEYWORDS = set(
    "ADD ALL AND AS ASC BETWEEN BY CASE CHECK COLUMN COMMIT CREATE CROSS CURRENT DEFAULT DELETE "
    "DESC DISTINCT DROP ELSE END ESCAPE EXCEPT EXISTS FOREIGN FROM FULL GROUP HAVING IN INDEX "
    "INNER INSERT INTERSECT INTO IS JOIN KEY LEFT LIKE LIMIT NATURAL NOT NULL OFFSET ON OR ORDER "
    "OUTER PRIMARY REFERENCES RIGHT SELECT SET TABLE THEN TO TRANSACTION UNION UNIQUE UPDATE USING "
    "VALUES VIEW WHEN WHERE WITH".split()
)  # names that must be quoted


@dataclass(frozen=True)
class ColumnReading:
    """One column as a person would describe it."""

    name: str
    role: Role
    words: tuple[str, ...]  # what it is called, the best first
    values: tuple[str | int | float, ...] = ()  # distinct ones, as stored
    missing: bool = False  # some rows have none
    form: str = ""  # of a date: a key of DATE_FORMS or "unix"; "text" for numbers stored as text
    sayings: dict[str, str] = field(default_factory=dict)  # word -> condition, as {"good": "> 3"}
    spoken: dict[str, str] = field(default_factory=dict)  # how people say a value -> as stored
    beside: frozenset[str] = frozenset()  # what the table's other columns are called


@dataclass(frozen=True)
class TableReading:
    """One table or view, what its rows are called, and what names a row."""

    name: str
    words: tuple[str, ...]  # of one row, singular, the best first
    rows: int
    columns: tuple[ColumnReading, ...]
    label: tuple[str, ...]  # columns that together name a row; () when nothing does
    names: tuple[tuple[str | int | float, ...], ...] = ()  # values of `label`, distinct
    shown: tuple[tuple[str, str], ...] = ()  # (table, column) a person wants to see of a row
    is_link: bool = False  # it only joins two other tables
    held: tuple[str, ...] = ()  # the names of all its columns, also of those that hold nothing
    unsaid: tuple[ColumnReading, ...] = ()  # nobody asks for these: they only lead to other tables
    repeated: tuple[tuple[str | int | float, ...], ...] = ()  # of `names`, those of several rows
    spread: str = ""  # the key that parts the rows of one thing: a river has a row in each state
    is_view: bool = False  # and so shows what tables hold

    def column(self, name: str) -> ColumnReading:
        """The column of that name."""
        return next(c for c in (*self.columns, *self.unsaid) if c.name == name)


def quoted(name: str) -> str:
    """An identifier as SQL: quoted when it has to be."""
    if re.fullmatch(r"[A-Za-z_]\w*", name) and name.upper() not in KEYWORDS:
        return name
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A text as a SQL literal."""
    return "'" + text.replace("'", "''") + "'"


def find_label(words: str, columns: Sequence[ColumnReading], rows: int) -> tuple[str, ...]:
    """The columns that name a row: 'first name' and 'last name', a name, a title, its own word."""
    called = {w: c for c in reversed(columns) for w in c.words if c.role in ("category", "code")}
    first = next((called[w] for w in FIRST_NAMES if w in called), None)
    last = next((called[w] for w in LAST_NAMES if w in called), None)
    if first and last:
        return (first.name, last.name)
    for word in (*LABEL_WORDS, words, f"{words} name"):
        if word not in called or all(map(is_number, called[word].values)):
            continue
        different = len(called[word].values) / min(rows, KEPT_VALUES)
        if different >= (0.9 if word == words else LEAST_DIFFERENT):
            return (called[word].name,)
    ends = (" name", " title", " description")
    named = [c for c in columns if c.role != "key" and any(w.endswith(ends) for w in c.words)]
    unique = [c for c in named if len(c.values) >= 0.9 * min(rows, KEPT_VALUES)]
    if unique:
        return (unique[0].name,)
    texts = [c for c in columns if c.role in ("category", "code") and len(columns) <= 3]
    texts = [c for c in texts if len(c.values) == rows and not all(map(is_number, c.values))]
    longest = sorted(texts, key=lambda c: -sum(len(str(v)) for v in c.values))
    if longest and rows > 2:
        return (longest[0].name,)  # of codes and what they stand for
    plates = [c for c in columns if c.role == "code" and is_plate(c, rows)]
    return (plates[0].name,) if len(plates) == 1 else ()


def is_plate(column: ColumnReading, rows: int) -> bool:
    """Whether a code, short and without spaces, tells each row from the others: 'JGH-284'."""
    texts = [str(v) for v in column.values]
    words = set(name_words(column.name))
    if words & (CODE_WORDS | NOT_SAID) or len(texts) < min(rows, KEPT_VALUES):
        return False
    return not any(is_number(v) or " " in str(v) or len(str(v)) > 20 for v in column.values)


def is_read(column: ColumnReading, label: tuple[str, ...]) -> bool:
    """Whether a column's text is read rather than searched for: a description, a comment."""
    said = set(" ".join(column.words).split())
    return (
        column.role in ("category", "code")
        and bool(said & FREE_TEXT)
        and (column.name not in label)
    )


def seen_together(columns: Sequence[ColumnReading], label: tuple[str, ...]) -> list[ColumnReading]:
    """The columns, each knowing what the others are called; what is read no longer a category."""
    return [
        replace(
            c,
            beside=frozenset(w for o in columns for w in o.words if o is not c),
            role="text" if is_read(c, label) else c.role,
        )
        for c in columns
    ]


def named_after(label: str, columns: Sequence[ColumnReading], rows: int) -> str | None:
    """'city' for a table 'geographic' whose rows are named by a unique column 'city name'."""
    column = next(c for c in columns if c.name == label)
    word = column.words[0]
    unique = len(column.values) >= min(rows, KEPT_VALUES)
    return word if unique and word not in LABEL_WORDS and " " not in word else None


def sampled(connection: sqlite3.Connection, table: str, rows: int) -> list[tuple[object, ...]]:
    """Rows from all over a table, SAMPLE_ROWS at most."""
    step = rows // SAMPLE_ROWS + 1
    for spread in (f" WHERE rowid % {step} = 0", "") if step > 1 else ("",):
        try:
            found = connection.execute(f"SELECT * FROM {quoted(table)}{spread} LIMIT {SAMPLE_ROWS}")
            return found.fetchall()
        except sqlite3.OperationalError:
            continue  # a view and a table WITHOUT ROWID have no rowid
    return []


def parted_by(
    columns: Sequence[ColumnReading],
    label: tuple[str, ...],
    keys: set[str],
    sample: Sequence[Sequence[object]],
    at: dict[str, int],
) -> str:
    """The one key in which rows of one name differ: a river's state. '' for other tables.

    What else is known of such a thing is the same in all its rows; two towns of one name differ in
    more. A tenth of the names may, for files are not clean.
    """
    if len(label) != 1:
        return ""
    things: dict[object, list[Sequence[object]]] = {}
    for row in sample:
        things.setdefault(row[at[label[0]]], []).append(row)
    several = [rows for name, rows in things.items() if len(rows) > 1 and name not in (None, "")]
    if len(several) < max(2, 0.05 * len(things)):
        return ""

    def parted(name: str) -> float:
        return sum(len({row[at[name]] for row in rows}) > 1 for rows in several) / len(several)

    parting = [c.name for c in columns if c.name in keys and parted(c.name) > 0.9]
    others = [c for c in columns if c.name not in (*label, *parting) and len(c.values) > 1]
    if len(parting) != 1 or not others or any(parted(c.name) > 0.1 for c in others):
        return ""
    return parting[0]


def read_table(connection: sqlite3.Connection, table: str, keys: set[str]) -> TableReading:
    """Read one table or view; `keys` are the columns that lead to another table."""
    info = connection.execute(f"SELECT name, pk FROM pragma_table_xinfo({literal(table)})")
    primary: dict[str, int] = dict(info.fetchall())
    rows = connection.execute(f"SELECT count(*) FROM {quoted(table)}").fetchone()[0]
    sample = sampled(connection, table, rows)
    words = table_words(table)
    single = sum(map(bool, primary.values())) == 1
    columns = []
    for name, held in zip(primary, zip(*sample, strict=True), strict=False):
        values = list(dict.fromkeys(v for v in held if isinstance(v, (str, int, float))))
        filled = [v for v in values if v != ""]
        if not filled:
            continue
        role, form = role_of(name, filled, len(sample))
        if role == "date":
            filled = [v for v in filled if is_day(form, v)]
        ident = set(name_words(name)) & {"id", "key", "guid", "uuid"}
        numbered = all(isinstance(v, int) for v in filled)
        if name in keys or ident or (primary[name] and single and numbered):
            role = "key"
        called = column_words(name, words[0], role == "date")
        missing = any(v is None or v == "" for v in held)
        columns.append(
            ColumnReading(name, role, called, tuple(filled[:KEPT_VALUES]), missing, form)
        )
    label = find_label(words[0], columns, len(sample))
    columns = seen_together(columns, label)
    described = [c for c in columns if c.role != "key"]
    linking = sum(c.name in keys for c in columns) >= 2 and not label and len(described) <= 1
    if (
        len(label) == 1
        and primary[label[0]]
        and (named_by := named_after(label[0], columns, len(sample)))
    ):
        words = (named_by, *words)
    at = {name: index for index, name in enumerate(primary)}
    named: Any = Counter(tuple(row[at[c]] for c in label) for row in sample) if label else {}
    names = tuple(n for n in named if all(isinstance(v, (str, int, float)) and v != "" for v in n))
    repeated = tuple(n for n in names if named[n] > 1)
    return TableReading(
        table, words, rows, tuple(columns), label, names[:KEPT_VALUES], (), linking,
        tuple(primary), (), repeated[:KEPT_VALUES], parted_by(columns, label, keys, sample, at),
    )  # fmt: skip
