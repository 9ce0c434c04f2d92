"""A query that fails or shows nothing, put right where its database leaves no doubt what is meant.

A small model that knows a schema by heart forgets a join, asks the wrong table for a column, or
writes a value as people say it. What the schema and the values tell apart is mended: a column goes
to the table that has it, with the joins that lead there; a name that is nowhere becomes the one
most like it; a text that its column does not hold becomes the stored text that it is part of, goes
to the one column that holds it, or becomes the stored text that the question names; what one table
has no row of is asked of the only other that has. Tables are joined along the keys of
`table_links`.

Promises: each change is named in words, and what is ambiguous is left alone. Not covered: a table
named twice, subqueries in FROM. It is for queries that failed or showed nothing: of 270 people's
questions on a geography's file 68; four draws made 9 of them right, mending what was left 5 more;
on a rental's file with 40 questions 2 and 2.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple, Protocol

from gemma_lora.cli import optional
from gemma_lora.query_blocks import (
    OTHER_LIKENESS,
    Block,
    drop_aliases,
    most_alike,
    nearest,
    read_block,
    show_once,
)
from gemma_lora.schema_reading import Link
from gemma_lora.sql_text import sql_trees
from gemma_lora.table_links import Schema
from gemma_lora.table_reading import quoted

NAME_LIKENESS = 0.6  # of a column to one of the tables that the query names (difflib's ratio)
VALUE_LIKENESS = 0.8
KEPT_VALUES = 5_000  # distinct texts of a column that are looked through
ROWS_READ = 1_000_000  # of a table, for them: a second or less
LEAST_PART = 3  # characters of a text that is looked for inside others
LONGEST = 2_000  # characters of a query that is read
MENDING = "mending of queries"  # what is missed without the libraries for it
_WORD = re.compile(r"\w+")


class Mended(NamedTuple):
    """A changed query, and the changes in words."""

    sql: str
    changes: tuple[str, ...]


class Amender(Protocol):
    """What changes an answer by what its question says."""

    why: str  # said of its changes

    def __call__(self, sql: str, question: str) -> Mended | None:
        """The changed query, which shows something; None where nothing is to be changed."""


class Mender:
    """Mends queries on one database; `run` returns a query's rows, none where it fails.

    The schema, which `read` reads, and the values are read when they are first needed, and kept.
    """

    def __init__(
        self, read: Callable[[], Schema], run: Callable[[str], Sequence[Sequence[Any]]]
    ) -> None:
        self.read, self.run = read, run
        self._schema: Schema | None = None
        self._texts: dict[tuple[str, str], list[str]] = {}

    def __call__(self, sql: str, question: str = "") -> Mended | None:
        """The query put right; None where nothing can be said, or a library for it is missing."""
        if not self.able:
            return None
        elsewhere = in_another_table(sql, self.schema, self.run)
        if elsewhere and not has_columns(sql, self.schema):  # a view may hold some of its rows
            return mended(sql, self.schema, self.texts, question) or elsewhere
        return elsewhere or mended(sql, self.schema, self.texts, question)

    @property
    def able(self) -> bool:
        """Whether the libraries for it are there; says once when not."""
        return all(optional(name, name, MENDING) for name in ("sqlglot", "inflect"))

    @property
    def schema(self) -> Schema:
        """The database's tables and their keys."""
        if self._schema is None:
            self._schema = self.read()
        return self._schema

    def texts(self, table: str, column: str) -> list[str]:
        """The distinct texts of a column, KEPT_VALUES at most."""
        if (table, column) not in self._texts:
            name = quoted(column)
            read = f"SELECT {name} FROM {quoted(table)} LIMIT {ROWS_READ}"
            sql = f"SELECT DISTINCT {name} FROM ({read}) LIMIT {KEPT_VALUES}"
            held = [row[0] for row in self.run(sql)]
            self._texts[table, column] = [v for v in held if isinstance(v, str)]
        return self._texts[table, column]


Texts = Callable[[str, str], Sequence[str]]


def select_in(sql: str) -> Any | None:
    """sqlglot's tree of the one SELECT that a text is, its tables called by their names."""
    exp = importlib.import_module("sqlglot").exp
    trees = sql_trees(sql, MENDING) if len(sql) <= LONGEST else []
    if len(trees) != 1 or not isinstance(trees[0], exp.Select):
        return None
    drop_aliases(trees[0])
    return trees[0]


def in_another_table(
    sql: str, schema: Schema, run: Callable[[str], Sequence[Sequence[Any]]]
) -> Mended | None:
    """A query about one table asked of the one other that has all its columns and such a row.

    Clara, who is not among the customers, is looked for among the employees. Not where nothing but
    her name is asked for: a thing may well be called like its group.
    """
    exp = importlib.import_module("sqlglot").exp
    if (tree := select_in(sql)) is None:
        return None
    tables, columns = list(tree.find_all(exp.Table)), list(tree.find_all(exp.Column))
    said = {e.this.name for e in tree.find_all(exp.EQ) if e.expression.is_string}
    asked_for = {c.name for one in tree.expressions for c in one.find_all(exp.Column)} - said
    if len(tables) != 1 or tables[0].alias or not said or not asked_for or shows(run(sql)):
        return None
    first = schema.table(tables[0].name)
    others = [t for t in schema.columns if all(schema.column(t, c.name) for c in columns)]
    for column in columns:
        column.set("table", None)
    found: list[Mended] = []
    for other in others:
        tables[0].set("this", exp.to_identifier(other))
        asked = tree.sql("sqlite")
        if other != first and shows(run(asked)):
            found.append(Mended(asked, (f"{other} for {first}",)))
    return found[0] if len(found) == 1 else None


def has_columns(sql: str, schema: Schema) -> bool:
    """Whether the table of a query about one has all the columns that it names."""
    exp = importlib.import_module("sqlglot").exp
    if (tree := select_in(sql)) is None:
        return False
    table = schema.table(tree.find(exp.Table).name)
    return table is not None and all(
        schema.column(table, c.name) for c in tree.find_all(exp.Column)
    )


def shows(rows: Sequence[Sequence[Any]]) -> bool:
    """Whether an answer has something in it: a count of none has not."""
    return bool(rows) and [tuple(row) for row in rows] not in ([(0,)], [(None,)])


def mended(sql: str, schema: Schema, texts: Texts, question: str = "") -> Mended | None:
    """A query with what its schema and values put right; None where they change nothing.

    `texts` gives the distinct texts of a table's column; `question` is what the query is to answer.
    """
    exp = importlib.import_module("sqlglot").exp
    if (tree := select_in(sql)) is None:
        return None
    changes: list[str] = []
    for select in list(tree.find_all(exp.Select)):
        if (block := read_block(select, schema)) is not None:
            place_columns(block)
            place_texts(block, texts, question)
            if not join_tables(block):
                return None  # half a change would be none
            changes += block.changes
    return Mended(tree.sql("sqlite"), tuple(dict.fromkeys(changes))) if changes else None


def place_columns(block: Block) -> None:
    """Give each column of a SELECT to a table that has it."""
    exp = importlib.import_module("sqlglot").exp
    aliases = {one.alias for one in block.select.expressions if one.alias}
    for node in list(block.select.find_all(exp.Column)):
        inside = node.parent_select is block.select and node.find_ancestor(exp.Join) is None
        label = not node.table and node.name in aliases
        if not inside or label or isinstance(node.this, exp.Star):
            continue
        said = block.schema.table(node.table) if node.table else None
        owner = owner_of(block, node, said)
        if owner is None:
            continue
        if owner not in (*block.needed, *block.outer):
            block.needed.append(owner)
        if node.table and said != owner:
            block.changes.append(f"{owner}.{node.name} for {node.table}.{node.name}")
            node.set("table", exp.to_identifier(owner))
        block.owners[id(node)] = owner


def owner_of(block: Block, node: Any, said: str | None) -> str | None:
    """The table of a column: the one that the query says, one that it names, the nearest."""
    schema = block.schema
    if said and schema.column(said, node.name):
        return said
    owner = next((t for t in block.needed if schema.column(t, node.name)), None)
    if owner is not None:
        return owner
    if any(schema.column(t, node.name) for t in block.outer):
        return None
    return place_column(block, node)


def place_column(block: Block, node: Any) -> str | None:
    """The table of a column that no table of the SELECT has; a name that is nowhere is replaced."""
    exp = importlib.import_module("sqlglot").exp
    schema = block.schema
    having = [t for t in schema.columns if schema.column(t, node.name)]
    if having:
        return nearest(block, having)
    near = [c for t in block.needed for c in schema.columns[t]]
    every = [c for t in schema.columns for c in schema.columns[t]]
    name = most_alike(node.name, near, NAME_LIKENESS) or most_alike(
        node.name, every, OTHER_LIKENESS
    )
    if name is None:
        return None
    having = [t for t in block.needed if schema.column(t, name)]
    owner = (
        having[0]
        if having
        else nearest(block, [t for t in schema.columns if schema.column(t, name)])
    )
    if owner is not None:
        block.changes.append(f"{name} for {node.name}")
        node.set("this", exp.to_identifier(name))
    return owner


def place_texts(block: Block, texts: Texts, question: str) -> None:
    """Replace texts that their columns do not hold, where it is plain what is meant."""
    exp = importlib.import_module("sqlglot").exp
    written = {literal.this for literal in block.select.find_all(exp.Literal)}
    for equal in list(block.select.find_all(exp.EQ)):
        node, literal = equal.this, equal.expression
        known = id(node) in block.owners and isinstance(literal, exp.Literal)
        if not known or not literal.is_string:
            continue
        owner = block.owners[id(node)]
        said, held = literal.this, texts(owner, node.name)
        if not held or said in held:
            continue
        stored: str | None = same_text(said, held)
        there = other_column(block, said, texts) if stored is None else None
        if there is not None:
            owner, column, stored = there
            block.changes.append(f"{owner}.{column} for {node.name}")
            node.set("this", exp.to_identifier(column))
            node.set("table", exp.to_identifier(owner) if shared(block, owner, column) else None)
            block.owners[id(node)] = owner
            if owner not in block.needed:
                block.needed.append(owner)
        stored = stored or asked_text(question, held, written)
        stored = stored or most_alike(said, held, VALUE_LIKENESS)
        if stored is not None and stored != said:
            block.changes.append(f"'{stored}' for '{said}'")
            equal.set("expression", exp.Literal.string(stored))


def same_text(said: str, held: Sequence[str]) -> str | None:
    """The one stored text that is what was said but for its case, or that holds it."""
    same = [text for text in held if text.lower() == said.lower()]
    if len(same) != 1 and len(said) >= LEAST_PART:
        same = [text for text in held if said.lower() in text.lower()]
    return same[0] if len(same) == 1 else None


def asked_text(question: str, held: Sequence[str], written: Collection[str]) -> str | None:
    """The one stored text that a question names word by word and its query does not write yet.

    A model of this size writes a name that it knows half as a blend of others ("Ladder Shelf Book"
    for the ladder bookshelf); the question has it right. A text inside a longer one that is named
    does not count.
    """
    asked = spoken(question)
    named = {words: text for text in held if (words := spoken(text)).strip() and words in asked}
    whole = [t for w, t in named.items() if not any(w in other for other in named if other != w)]
    return whole[0] if len(whole) == 1 and whole[0] not in written else None


def spoken(text: str) -> str:
    """A text's words in small letters, without a plural's s, each between blanks."""
    words = (word.lower().rstrip("s") for word in _WORD.findall(text))
    return f" {' '.join(words)} "


def other_column(block: Block, said: str, texts: Texts) -> tuple[str, str, str] | None:
    """(table, column, stored text) of the nearest column that holds a text; None for several."""
    found: dict[str, list[tuple[str, str]]] = {}
    for table, columns in block.schema.columns.items():
        for column in columns:
            same = [text for text in texts(table, column) if text.lower() == said.lower()]
            if same:
                found.setdefault(table, []).append((column, same[0]))
    near = nearest(block, list(found))
    if near is None or len(found[near]) > 1:
        return None
    return (near, *found[near][0])


def shared(block: Block, owner: str, column: str) -> bool:
    """Whether another table of the SELECT has a column of that name too."""
    return any(t != owner and block.schema.column(t, column) for t in block.needed)


def join_tables(block: Block) -> bool:
    """Join the tables that a SELECT needs along keys, where its own joins do not do it.

    False where no key leads to one.
    """
    exp = importlib.import_module("sqlglot").exp
    named = [block.schema.table(node.name) for node in block.named]
    if named == block.needed and joins_hold(block):
        return True
    joined, links = [block.needed[0]], list[Link]()
    for table in block.needed[1:]:
        way = block.schema.way(joined, table)
        if way is None:
            return False
        for link in way:
            links.append(link)
            joined += [t for t in (link.child, link.parent) if t not in joined]
    if new := [table for table in joined if table not in named]:
        block.changes.append(f"{' and '.join(new)} joined")
        show_once(block, links)
    elif not block.changes:
        block.changes.append("tables joined by their keys")
    source = block.select.args.get("from_") or block.select.args.get("from")
    source.set("this", exp.to_table(block.needed[0]))
    block.select.set("joins", written_joins(block.needed[0], links))
    for node in block.select.find_all(exp.Column):
        owner = block.owners.get(id(node))
        if (
            owner
            and not node.table
            and sum(bool(block.schema.column(t, node.name)) for t in joined) > 1
        ):
            node.set("table", exp.to_identifier(owner))
    return True


def written_joins(first: str, links: Sequence[Link]) -> list[Any]:
    """JOIN ... ON along some keys, from the first table on."""
    exp = importlib.import_module("sqlglot").exp
    joined, joins = {first}, []
    for link in links:
        there = link.parent if link.child in joined else link.child
        joined.add(there)
        on = exp.EQ(
            this=exp.column(link.child_column, table=link.child),
            expression=exp.column(link.parent_column, table=link.parent),
        )
        joins.append(exp.Join(this=exp.to_table(there), on=on))
    return joins


def joins_hold(block: Block) -> bool:
    """Whether each join of a SELECT is by columns that its tables have."""
    exp = importlib.import_module("sqlglot").exp
    schema = block.schema
    before = [block.needed[0]]
    for join in block.select.args.get("joins") or []:
        table = schema.table(join.this.name)
        if table is None or table in before:
            return False
        for column in join.args.get("using") or []:
            if not schema.column(table, column.name) or not any(
                schema.column(t, column.name) for t in before
            ):
                return False
        on = join.args.get("on")
        for column in on.find_all(exp.Column) if on is not None else ():
            of = schema.table(column.table) if column.table else None
            known = [of] if of else [*before, table]
            if (column.table and of not in (*before, table)) or not any(
                schema.column(t, column.name) for t in known if t
            ):
                return False
        before.append(table)
    return True
