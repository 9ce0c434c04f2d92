"""What a person sees in a SQLite file: what tables and columns are called, and what they hold.

Owns the reading of roles (what names a thing, what
measures, what is a key, a code, a flag, a date, a category, free text) and of the keys between
tables, declared or not. It looks at up to SAMPLE_ROWS rows of each table; the file is only read.
It does not guess what a code means: words for that come from a lexicon.
"""

from __future__ import annotations

import hashlib
import re
import sqlite3
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from gemma_lora.cli import UserError
from gemma_lora.column_roles import CODE_WORDS, Role, is_number, role_of
from gemma_lora.name_reading import column_words, name_words, table_words

SAMPLE_ROWS = 20_000
MOST_BY_CHANCE = 10  # texts that may be another table's names without meaning its rows
KEPT_VALUES = 5_000  # distinct values of a column from which questions are made


LABEL_WORDS = ("name", "title", "label", "full name", "caption")
NUMBERING = {"id", "key", "number"}  # how a key's name ends
NOT_SAID = {"address", "email", "url"}  # unique, and nobody names a row by it
ABOVE = {"manager", "boss", "supervisor", "superior", "parent", "reports"}
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

    def column(self, name: str) -> ColumnReading:
        """The column of that name."""
        return next(c for c in (*self.columns, *self.unsaid) if c.name == name)


class Link(NamedTuple):
    """A key from a child's row to its parent's."""

    child: str
    child_column: str
    parent: str
    parent_column: str


@dataclass(frozen=True)
class DatabaseReading:
    """All of a file that questions are made from."""

    tables: tuple[TableReading, ...]
    links: tuple[Link, ...]
    schema_hash: str

    def table(self, name: str) -> TableReading:
        """The table of that name."""
        return next(t for t in self.tables if t.name == name)

    def all_parents(self, table: str) -> list[Link]:
        """Keys that lead from a row of `table` to another table's."""
        return [k for k in self.links if k.child == table and k.parent != table]

    def parents(self, table: str) -> list[Link]:
        """Of these the first to each table: the one meant where nobody says 'delivery address'."""
        return list({k.parent: k for k in reversed(self.all_parents(table))}.values())[::-1]

    def is_said(self, link: Link) -> bool:
        """Whether people name a parent's row to tell which of the child's rows they mean.

        Where the parent's name itself is the key, they speak of the child's column, unless that is
        one which nobody says.
        """
        label = self.table(link.parent).label
        unsaid = not self.table(link.child).column(link.child_column).words
        return bool(label) and not (unsaid and label == (link.parent_column,))

    def children(self, table: str) -> list[Link]:
        """Keys that lead to `table` from another table, the first of each."""
        found = [k for k in self.links if k.parent == table and k.child != table]
        return list({k.child: k for k in reversed(found)}.values())[::-1]


@contextmanager
def read_only(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection that cannot write. Raises UserError when the file is no readable database."""
    uri = f"{path.absolute().as_uri()}?mode=ro"  # as_uri() escapes what a URI would act on
    try:
        with closing(sqlite3.connect(uri, uri=True)) as connection:
            connection.text_factory = lambda raw: raw.decode("utf-8", "replace")
            connection.execute("PRAGMA query_only = 1")
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
            yield connection
    except (OSError, sqlite3.DatabaseError) as error:
        raise UserError(f"cannot read the database '{path}': {error}") from None


def quoted(name: str) -> str:
    """An identifier as SQL: quoted when it has to be."""
    if re.fullmatch(r"[A-Za-z_]\w*", name) and name.upper() not in KEYWORDS:
        return name
    return '"' + name.replace('"', '""') + '"'


def find_label(words: str, columns: Sequence[ColumnReading], rows: int) -> tuple[str, ...]:
    """The columns that name a row: 'first name' and 'last name', a name, a title, its own word."""
    called = {w: c for c in reversed(columns) for w in c.words if c.role in ("category", "code")}
    if "first name" in called and "last name" in called:
        return (called["first name"].name, called["last name"].name)
    for word in (*LABEL_WORDS, words, f"{words} name"):
        if word not in called or all(map(is_number, called[word].values)):
            continue
        if word != words or len(called[word].values) >= 0.9 * min(rows, KEPT_VALUES):
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
    described = [c for c in columns if c.role != "key"]
    linking = sum(c.name in keys for c in columns) >= 2 and not label and len(described) <= 1
    if (
        len(label) == 1
        and primary[label[0]]
        and (named_by := named_after(label[0], columns, len(sample)))
    ):
        words = (named_by, *words)
    at = [list(primary).index(name) for name in label]
    named: Any = Counter(tuple(row[i] for i in at) for row in sample) if at else {}
    names = tuple(n for n in named if all(isinstance(v, (str, int, float)) and v != "" for v in n))
    repeated = tuple(n for n in names if named[n] > 1)
    return TableReading(
        table, words, rows, tuple(columns), label, names[:KEPT_VALUES], (), linking,
        tuple(primary), (), repeated[:KEPT_VALUES],
    )  # fmt: skip


def read_tables(
    connection: sqlite3.Connection, names: Sequence[str], links: Sequence[Link]
) -> list[TableReading]:
    """Read the tables and views that hold anything, knowing the keys between them."""
    keys = {name: {k.child_column for k in links if k.child == name} for name in names}
    tables = [read_table(connection, name, keys[name]) for name in names]
    return [t for t in tables if t.rows and t.columns]


def literal(text: str) -> str:
    """A text as a SQL literal."""
    return "'" + text.replace("'", "''") + "'"


def declared_links(connection: sqlite3.Connection, tables: Sequence[str]) -> list[Link]:
    """Foreign keys that the schema declares and that lead somewhere."""
    links = []
    known = {t.lower(): t for t in tables}
    for table in tables:
        info = connection.execute(f"PRAGMA foreign_key_list({quoted(table)})").fetchall()
        columns = {
            t: [c[1] for c in connection.execute(f"PRAGMA table_info({quoted(t)})")] for t in tables
        }
        for _, _, parent, child_column, parent_column, *_ in info:
            there = known.get(parent.lower())
            if there is None:
                continue
            if parent_column is None:
                keys = connection.execute(f"PRAGMA table_info({quoted(there)})").fetchall()
                parent_column = next((c[1] for c in keys if c[5]), None)
            found = {c.lower(): c for c in columns[there]}.get(str(parent_column).lower())
            if found:
                links.append(Link(table, child_column, there, found))
    return links


def undeclared_links(tables: Sequence[TableReading], known: Sequence[Link]) -> list[Link]:
    """Keys that nobody declared: a column named as another table's key, its values among those."""
    taken = {(k.child, k.child_column) for k in known}
    links = []
    backwards = {(k.parent, k.parent_column, k.child) for k in known}
    for parent in tables:
        unique = [c for c in parent.columns if len(c.values) >= min(parent.rows, KEPT_VALUES)]
        for key in unique:
            for child in tables:
                for column in child.columns:
                    if child is parent or (child.name, column.name) in taken:
                        continue
                    if (child.name, column.name, parent.name) in backwards:
                        continue  # each row there has one here: a key one way is enough
                    if names_key(column.name, key.name, parent) and holds(column, key):
                        links.append(Link(child.name, column.name, parent.name, key.name))
                        taken.add((child.name, column.name))
                        backwards.add((parent.name, key.name, child.name))
    return links


def own_keys(tables: Sequence[TableReading], known: Sequence[Link]) -> list[Link]:
    """Keys from a table to itself that nobody declared: the manager's number of an employee."""
    taken = {(k.child, k.child_column) for k in known}
    links = []
    for table in tables:
        unique = [c for c in table.columns if len(c.values) == table.rows and c.role == "key"]
        for key in unique[:1]:
            for column in table.columns:
                above = ABOVE & set(name_words(column.name))
                if column is key or (table.name, column.name) in taken:
                    continue
                if above and holds(column, key):
                    links.append(Link(table.name, column.name, table.name, key.name))
    return links


def same_names(tables: Sequence[TableReading], known: Sequence[Link]) -> list[Link]:
    """Texts that nobody called a key and that all name rows of one other table: rivers' states."""
    taken = {(k.child, k.child_column) for k in known}
    links = []
    for parent in tables:
        if len(parent.label) != 1 or len(parent.names) < max(MOST_BY_CHANCE, parent.rows):
            continue
        key = parent.column(parent.label[0])
        for child in tables:
            for column in child.columns:
                text = column.role in ("category", "code") and column.name not in child.label
                if child is parent or not text or (child.name, column.name) in taken:
                    continue
                if len(column.values) > MOST_BY_CHANCE and holds(column, key):
                    links.append(Link(child.name, column.name, parent.name, key.name))
                    taken.add((child.name, column.name))
    return links


def names_key(column: str, key: str, parent: TableReading) -> bool:
    """Whether a column's name says that it holds `key` of `parent`."""
    theirs, ours = name_words(key), name_words(column)
    if column.lower() == key.lower():
        return theirs != ["id"] and theirs != ["name"]
    if theirs[-1] not in NUMBERING:
        return False
    what = without_numbering(ours)  # 'PickBrNo' -> ['pick', 'branch'], which ends with the owner
    owners = (parent.words[0].split(), without_numbering(theirs))
    return any(owner and what[-len(owner) :] == owner for owner in owners)


def without_numbering(words: Sequence[str]) -> list[str]:
    """The words without 'id' and the like at their end."""
    kept = list(words)
    while kept and kept[-1] in NUMBERING:
        kept.pop()
    return kept


def holds(column: ColumnReading, key: ColumnReading) -> bool:
    """Whether nearly all values of a column are values of the key."""
    there = set(key.values)
    return len(column.values) > 1 and (
        sum(v in there for v in column.values) >= 0.9 * len(column.values)
    )


def user_tables(connection: sqlite3.Connection) -> dict[str, str]:
    """{name: CREATE statement} of tables and views, less those that SQLite and FTS keep."""
    listed = connection.execute("PRAGMA table_list").fetchall()
    kinds = {name: kind for schema, name, kind, *_ in listed if schema == "main"}
    found = connection.execute(
        "SELECT name, sql FROM sqlite_master WHERE type IN ('table', 'view') ORDER BY rowid"
    )
    return {
        name: sql
        for name, sql in found.fetchall()
        if kinds.get(name) != "shadow" and not name.startswith("sqlite_")
    }


def hash_of_schema(created: dict[str, str]) -> str:
    """A short hash of CREATE statements that does not depend on their order or spacing."""
    text = "\n".join(sorted(" ".join((sql or name).split()) for name, sql in created.items()))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def read_database(path: Path) -> DatabaseReading:
    """Read a SQLite file as a person would; raises UserError when it holds nothing to ask."""
    with read_only(path) as connection:
        created = user_tables(connection)
        links = declared_links(connection, list(created))
        tables = read_tables(connection, list(created), links)
        found = undeclared_links(tables, links)
        found += own_keys(tables, [*links, *found])
        found += same_names(tables, [*links, *found])
        if found:
            links += found
            tables = read_tables(connection, list(created), links)
    if not tables:
        raise UserError(f"'{path}' has no table with rows: there is nothing to ask about")
    held = {t.name for t in tables}
    usable = [k for k in links if k.child in held and k.parent in held]
    return DatabaseReading(tuple(tables), tuple(usable), hash_of_schema(created))
