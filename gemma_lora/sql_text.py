"""Reading SQL without running it: statements, kinds, clock, schema.

Promises linear time on hostile text, and no exception for any text. What only sqlglot can tell is
None or empty where it is not installed or cannot read the statement.
"""

from __future__ import annotations

import functools
import importlib
import logging
import re
from collections.abc import Iterator, Sequence
from typing import Any

from gemma_lora.cli import optional

_SKIP = r"\s+|--[^\n]*|/\*.*?(?:\*/|\Z)"
_FIRST_WORD = re.compile(rf"(?:{_SKIP}|[;(])*([A-Za-z]*)", re.S)
_TOKEN = re.compile(
    rf"""(?P<skip>{_SKIP})|(?P<text>'[^']*(?:''[^']*)*'?)
    |(?P<name>"[^"]*(?:""[^"]*)*"?|`[^`]*`?|\[[^\]]*\]?)
    |(?P<word>[^\W\d][\w$]*)|(?P<other>\d[\w.]*|.)""",
    re.S | re.X,
)
_KINDS = {"select": "select", "values": "select", "insert": "insert", "replace": "insert"}
_KINDS |= {"update": "update", "delete": "delete", "truncate": "delete"}
_KINDS |= {"create": "ddl", "alter": "ddl", "drop": "ddl"}
_CLOCK_WORDS = frozenset("current_date current_time current_timestamp localtimestamp".split())
_CLOCK_CALLS = frozenset(
    "now getdate curdate curtime sysdate random rand randomblob uuid newid".split()
)
_TIME_CALLS = frozenset("date time datetime julianday unixepoch strftime timediff".split())
_MAYBE_CLOCK = re.compile(
    rf"\b(?:{'|'.join(sorted(_CLOCK_WORDS | _CLOCK_CALLS | _TIME_CALLS))})\b", re.I
)
# What sqlglot raises besides its own: it trips over None in statements that are cut off.
PARSER_TRIPS = (RecursionError, ValueError, AttributeError, TypeError)

SCHEMA_NOISE = frozenset(
    "create table if not exists primary key foreign references unique null default temp temporary "
    "int integer bigint smallint tinyint real float double precision decimal numeric text varchar "
    "char date datetime timestamp time boolean bool blob autoincrement auto_increment".split()
)

SQLGLOT_COSTS = "valid_sql_rate, row-order check or normalised exact_match"


def sql_tokens(sql: str) -> list[tuple[str, str]]:
    """(class, text) of every token but blanks and comments; words in lower case."""
    found = ((match.lastgroup or "", match.group()) for match in _TOKEN.finditer(sql))
    return [(g, text.lower() if g == "word" else text) for g, text in found if g != "skip"]


def token_spans(sql: str, start: int, end: int) -> Iterator[tuple[str, int, int]]:
    """(class, begin, end) of the tokens between two places; blanks and comments are "skip"."""
    for match in _TOKEN.finditer(sql, start, end):
        yield match.lastgroup or "", match.start(), match.end()


def is_empty_statement(sql: str) -> bool:
    match = _FIRST_WORD.match(sql)
    return match is None or (match.end() == len(sql) and not match.group(1))


def statement_kind(sql: str) -> str:
    """Name what a statement does: select, insert, update, delete, ddl, or other."""
    match = _FIRST_WORD.match(sql)
    first = match.group(1).lower() if match else ""
    if first != "with":
        return _KINDS.get(first, "other")
    depth, previous = 0, ""
    for group, text in sql_tokens(sql):
        if depth == 0 and previous == ")" and group == "word" and text in _KINDS:
            return _KINDS[text]  # the verb follows the last CTE's bracket; names follow a comma
        depth += (text == "(") - (text == ")")
        previous = text
    return "other"


def uses_clock(sql: str) -> bool:
    """Whether a second run may differ: the statement reads the clock or draws random numbers."""
    if not _MAYBE_CLOCK.search(sql):
        return False
    calls: list[list[Any]] = []  # the open brackets: function name, tokens inside, commas inside
    previous, time_calls = "", 0
    for group, text in sql_tokens(sql):
        if text == ")" and calls:
            name, inside, commas = calls.pop()
            time_calls -= name in _TIME_CALLS
            if name in _TIME_CALLS and (not inside or (name == "strftime" and not commas)):
                return True  # the time argument defaults to now
        if calls:
            calls[-1][1] += 1
            calls[-1][2] += text == ","
        if text == "(":
            if previous in _CLOCK_CALLS:
                return True
            calls.append([previous, 0, 0])
            time_calls += previous in _TIME_CALLS
        named_now = time_calls and text[1:-1].lower() == "now"
        if named_now or (group == "word" and text in _CLOCK_WORDS):
            return True
        previous = text if group == "word" else ""
    return False


def split_statements(sql: str) -> list[str]:
    """The statements of a script, at the semicolons outside strings; comments are dropped."""
    bare = sql
    if "--" in sql or "/*" in sql:
        bare = re.sub(
            r"('[^']*'|\"[^\"]*\")|--[^\n]*|/\*.*?(?:\*/|\Z)",
            lambda m: m[1] or " ",
            sql,
            flags=re.S,
        )
    parts = re.findall(r"""(?:'[^']*'|"[^"]*"|[^;'"])+""", bare)
    return [part.strip() for part in parts if part.strip()]


@functools.lru_cache(maxsize=1 << 18)  # asked for each row when cleaning, splitting, comparing
def schema_of(context: str) -> str:
    """The CREATE statements of a context, one a line; what a person has before asking."""
    statements = (" ".join(s.split()) for s in split_statements(context))
    return "\n".join(f"{s};" for s in statements if s[:7].upper() == "CREATE ")


@functools.lru_cache(maxsize=1 << 18)
def schema_key(context: str | None) -> str:
    """What makes two schemas the same: their CREATE statements less case, spacing and types.

    A context without one (a list of columns, say) counts whole.
    """
    shown = schema_of(context or "") or context or ""
    names = re.findall(r"\w+", re.sub(r"\([\d, ]+\)", "", shown.lower()))
    return " ".join(w for w in names if w not in SCHEMA_NOISE)


def sqlglot_is_there() -> bool:
    """Whether what only sqlglot can tell can be told; said once if not."""
    return optional("sqlglot", "sqlglot", SQLGLOT_COSTS) is not None


def sql_trees(sql: str, costs: str, lenient: bool = False) -> list[Any]:
    """sqlglot's trees of the statements, [] when it cannot read them or is not installed."""
    sqlglot = optional("sqlglot", "sqlglot", costs)
    if sqlglot is None:
        return []
    logging.getLogger("sqlglot").setLevel(logging.CRITICAL)  # a model's mistakes are not news
    level = sqlglot.ErrorLevel("IGNORE" if lenient else "IMMEDIATE")
    try:
        found = sqlglot.parse(sql, read="sqlite", error_level=level)
        return [tree for tree in found if tree is not None]
    except (sqlglot.errors.SqlglotError, *PARSER_TRIPS):
        return []


def parse_sql(sql: str) -> list[Any] | None:
    """sqlglot's trees of the statements, or None when it is no SQL statement of a known kind."""
    trees = sql_trees(sql, SQLGLOT_COSTS)
    if not trees:
        return None
    exp = importlib.import_module("sqlglot").exp
    known = (exp.Query, exp.Insert, exp.Update, exp.Delete, exp.Create, exp.Drop, exp.Alter)
    return trees if all(isinstance(t, known) for t in trees) else None


def normal_sql(sql: str) -> str:
    """One spelling for SQL that differs in case of names, quoting of names, spacing, comments."""
    trees = parse_sql(sql)
    if trees is None:
        return " ".join(sql.rstrip("; \n").lower().split())
    for tree in trees:
        for name in tree.find_all(importlib.import_module("sqlglot").exp.Identifier):
            name.set("this", name.this.lower())
            name.set("quoted", False)
    return "; ".join(t.sql(dialect="sqlite", comments=False) for t in trees)


def order_columns(sql: str, columns: Sequence[str]) -> tuple[int, ...] | None:
    """Which result columns a top-level ORDER BY sorts by; None when there is no ORDER BY.

    Rows that tie on these columns may come in any order. When the sorting is by something that is
    not in the result, every column counts.
    """
    trees = parse_sql(sql)
    order = trees[-1].args.get("order") if trees else None
    if trees is None or order is None:
        return None
    names, found = [c.lower() for c in columns], []
    shown = [p.unalias().sql(dialect="sqlite").lower() for p in trees[-1].selects]
    for item in order.expressions:
        key = item.this
        text = key.sql(dialect="sqlite").lower()
        if key.is_int and 1 <= int(key.name) <= len(names):
            found.append(int(key.name) - 1)
        elif names.count(key.name.lower()) > 1 and text in shown and len(shown) == len(names):
            found.append(shown.index(text))  # a.name and b.name are both called name
        elif text in names or key.name.lower() in names:
            found.append(names.index(text if text in names else key.name.lower()))
        else:
            return tuple(range(len(names)))
    return tuple(found)
