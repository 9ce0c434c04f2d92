"""The tables of a context: columns, keys, references, and what a gold holds against them."""

from __future__ import annotations

import importlib
import re
import sqlite3
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from gemma_lora.neighbours import DATE, SUITE_COSTS
from gemma_lora.sql_text import sql_trees, statement_kind

MOMENT = re.compile(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d.*")
DATA_KINDS = ("insert", "update", "delete")
TABLE_OPTIONS = re.compile(r"\)\s*(?:(?:WITHOUT\s+ROWID|STRICT)\s*,?\s*)+;", re.I)


class Column(NamedTuple):
    """What is known of a column."""

    name: str
    kind: str  # "int" | "real" | "flag" | "date" | "moment" | "text"
    key: bool  # its values are unique
    given: bool  # may be inserted: not generated
    nullable: bool
    seen: tuple[Any, ...]  # values in the context, in order, each once
    singular: bool  # no two rows of the context share a value


class Table(NamedTuple):
    """A table of the context, named as SQL."""

    name: str
    columns: tuple[Column, ...]
    unique: tuple[tuple[int, ...], ...]  # places among the columns that may be inserted
    rows: int  # in the context


class Reference(NamedTuple):
    """A column that must hold a value of another table's column, tables named as SQL."""

    table: str
    column: str
    other_table: str
    other: str


def definitions(context: str) -> str:
    """The context without the statements that fill its tables."""
    kept, start = [], 0
    for match in re.finditer(";", context):
        statement = context[start : match.end()]
        if sqlite3.complete_statement(statement.replace("\0", " ")):
            kept += [statement] if statement_kind(statement) not in DATA_KINDS else []
            start = match.end()
    if statement_kind(context[start:]) not in DATA_KINDS:
        kept.append(context[start:])
    return "".join(kept).rstrip().rstrip(";") + ";\n"


def declared_tables(context: str) -> dict[str, Any]:
    """{table as SQL: sqlglot's tree of its CREATE TABLE}."""
    exp = importlib.import_module("sqlglot").exp
    found = {}
    plain = TABLE_OPTIONS.sub(");", context + ";")  # sqlglot does not read them
    for tree in sql_trees(plain, SUITE_COSTS, lenient=True):
        table = tree.find(exp.Table)
        if isinstance(tree, exp.Create) and tree.kind == "TABLE" and table is not None:
            found[table.sql(dialect="sqlite")] = tree
    return found


def describe_table(
    name: str, tree: Any, columns: Sequence[str], rows: Sequence[Sequence[Any]]
) -> Table:
    """A table from its declaration and what `SELECT *` shows of it in the context."""
    exp = importlib.import_module("sqlglot").exp
    declared = {c.name.lower(): c for c in tree.find_all(exp.ColumnDef)}
    together = [
        [n.name.lower() for n in many.find_all(exp.Identifier)]
        for many in tree.find_all(exp.PrimaryKey, exp.UniqueColumnConstraint)
    ]
    single = {names[0] for names in together if len(names) == 1}
    found = []
    for place, column in enumerate(columns):
        lower, definition = column.lower(), declared.get(column.lower())
        values = tuple(dict.fromkeys(row[place] for row in rows if row[place] is not None))
        kinds = (exp.PrimaryKeyColumnConstraint, exp.UniqueColumnConstraint)
        key = lower in single or (definition is not None and definition.find(*kinds) is not None)
        singular = len(values) == len(rows)
        looks = place == 0 and re.search(r"(^|_)id$|[a-z]ID$|^id", column, re.I) is not None
        key = key or (looks and singular)
        computed = definition is not None and definition.find(exp.ComputedColumnConstraint)
        named_id = is_named_id(column)
        data_type = definition.args.get("kind") if definition is not None else None
        kind = column_kind(data_type.sql("sqlite").upper() if data_type else "", values)
        nullable = not (key or named_id)
        found.append(Column(column, kind, key, not computed, nullable, values, singular))
    places = {c.name.lower(): i for i, c in enumerate(c for c in found if c.given)}
    together += [[c.name.lower()] for c in found if c.key]
    if all(map(is_named_id, columns)) and len(set(map(tuple, rows))) == len(rows):
        together.append([column.lower() for column in columns])  # it links: no pair is there twice
    unique = (tuple(places[n] for n in names if n in places) for names in together)
    return Table(name, tuple(found), tuple(filter(None, unique)), len(rows))


def is_named_id(column: str) -> bool:
    """Whether a column is called as what identifies something."""
    return re.search(r"(^|_)id$|Id$|ID$", column) is not None


def column_kind(declared: str, values: Sequence[Any]) -> str:
    """What a column holds, by its declared type and the values seen."""
    texts = [v for v in values if isinstance(v, str)]
    if values and len(texts) == len(values):
        if all(DATE.fullmatch(v) for v in texts):
            return "date"
        return "moment" if all(MOMENT.fullmatch(v) for v in texts) else "text"
    if values and not all(isinstance(v, (int, float)) for v in values):
        return "text"
    if "BOOL" in declared or set(values) == {0, 1}:
        return "flag"
    if any(isinstance(v, float) for v in values) or re.search("REAL|FLOA|DOUB|DEC|NUM", declared):
        return "real"
    if values or "INT" in declared:
        return "int"
    if re.search("TIME", declared):
        return "moment"
    return "date" if "DATE" in declared else "text"


def gold_literals(tree: Any) -> dict[str, list[Any]]:
    """{column, lower case: the constants that the gold holds against it}."""
    exp = importlib.import_module("sqlglot").exp
    found: dict[str, list[Any]] = defaultdict(list)
    for literal in tree.find_all(exp.Literal, exp.Boolean):
        around = literal.find_ancestor(exp.Predicate, exp.Between, exp.In, exp.Case)
        value: Any = literal.name
        if isinstance(literal, exp.Boolean):
            value = int(literal.this)
        elif not literal.is_string:
            with suppress(ValueError):
                value = int(value) if literal.is_int else float(value)
        for column in around.find_all(exp.Column) if around else ():
            if value not in found[column.name.lower()]:
                found[column.name.lower()].append(value)
    return found


def declared_references(declared: Mapping[str, Any]) -> list[Reference]:
    """Every reference of one column to a named column of a declared table."""
    exp = importlib.import_module("sqlglot").exp
    found = []
    for table, create in declared.items():
        ends = [
            (key.expressions, key.args.get("reference")) for key in create.find_all(exp.ForeignKey)
        ]
        ends += [([c], c.find(exp.Reference)) for c in create.find_all(exp.ColumnDef)]
        for columns, refers in ends:
            aim = refers.this if refers is not None else None
            if isinstance(aim, exp.Schema) and len(columns) == len(aim.expressions) == 1:
                other = aim.this.sql(dialect="sqlite")
                found.append(Reference(table, columns[0].name, other, aim.expressions[0].name))
    return found


def names_its_rows(table: str, column: str) -> bool:
    """Whether a column is called as what tells a table's rows apart: counties.county or .name."""
    thing = re.sub(r"\W|_", "", table).lower()
    things = {thing, re.sub("s$", "", thing), re.sub("es$", "", thing), re.sub("ies$", "y", thing)}
    name = re.sub(r"\W|_", "", column).lower()
    endings = ("name", "title", "code", "number")
    return name in things | {one + ending for one in (*things, "") for ending in endings}


def joined_columns(tree: Any, declared: Mapping[str, Any]) -> list[set[str]]:
    """Sets of column names, lower case, whose values meet: compared or declared to refer."""
    exp = importlib.import_module("sqlglot").exp
    pairs = []
    for equal in tree.find_all(exp.EQ):
        if isinstance(equal.this, exp.Column) and isinstance(equal.expression, exp.Column):
            pairs.append({equal.this.name.lower(), equal.expression.name.lower()})
    for inside in tree.find_all(exp.In):
        query = inside.args.get("query")
        column = query.find(exp.Column) if query else None
        if isinstance(inside.this, exp.Column) and column is not None:
            pairs.append({inside.this.name.lower(), column.name.lower()})
    for using in tree.find_all(exp.Join):
        pairs += [{name.name.lower()} for name in using.args.get("using") or ()]
    pairs += [{r.column.lower(), r.other.lower()} for r in declared_references(declared)]
    groups: list[set[str]] = []
    for pair in pairs:
        meeting = [g for g in groups if g & pair]
        groups = [g for g in groups if not g & pair] + [pair.union(*meeting)]
    return groups
