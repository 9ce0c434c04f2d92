"""SQL of other databases as SQLite reads it: sqlglot's translation, and what it leaves undone.

sqlglot 30 writes differences of dates for SQLite and parts of them not at all, and shifts them by
units that SQLite does not know: DATE(d, '1 WEEK') is NULL. What cannot be said in SQLite is left as
it is, so that it fails there and is not taken for something else.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from gemma_lora.sql_text import PARSER_TRIPS

if TYPE_CHECKING:
    from sqlglot import exp

# Tried in this order: the first translation that runs is taken.
DIALECTS = ("mysql", "postgres", "tsql")
_DATE_PARTS = {
    "YEAR": "%Y", "MONTH": "%m", "DAY": "%d", "HOUR": "%H", "MINUTE": "%M", "SECOND": "%S",
    "DAYOFMONTH": "%d", "DAYOFYEAR": "%j", "DOY": "%j", "DOW": "%w",
}  # fmt: skip
# A unit in SQLite's units, which end at months and years. The last of a month is not kept to as
# elsewhere: a month before the 31st of March is the 3rd, not the end of February (before 3.46).
_UNITS = {
    "SECOND": (1, "second"), "MINUTE": (1, "minute"), "HOUR": (1, "hour"), "DAY": (1, "day"),
    "WEEK": (7, "day"), "MONTH": (1, "month"), "QUARTER": (3, "month"), "YEAR": (1, "year"),
}  # fmt: skip
_CLOCK_TIMES = ("second", "minute", "hour")


def translate_to_sqlite(sql: str, dialect: str) -> str | None:
    """What sqlglot makes of a text in `dialect` for SQLite; None when it cannot read it."""
    import sqlglot
    from sqlglot import exp

    logging.getLogger("sqlglot").setLevel(logging.CRITICAL)  # it warns per construct it cannot keep
    kept = []
    try:
        for statement in sqlglot.parse(sql, read=dialect):
            space = isinstance(statement, exp.Create) and statement.kind in ("SCHEMA", "DATABASE")
            if statement is not None and not space and not isinstance(statement, exp.Use):
                kept.append(adapted(statement).sql(dialect="sqlite"))
    except (sqlglot.errors.SqlglotError, *PARSER_TRIPS):
        return None
    return ";\n".join(kept)


def adapted(tree: exp.Expr) -> exp.Expr:
    """A tree with what SQLite says otherwise put as it says it, from the leaves up."""
    from sqlglot import exp

    for node in list(tree.walk())[::-1]:
        if isinstance(node, exp.Table):  # SQLite has one name space
            node.set("db", None)
            node.set("catalog", None)
        elif (said := _in_sqlite(node)) is not None:
            if node is tree:
                return said
            node.replace(said)
    return tree


def _in_sqlite(node: exp.Expr) -> exp.Expr | None:
    """A node as SQLite says it; None where it says the same, or cannot say it."""
    from sqlglot import exp

    if isinstance(node, exp.DataType) and node.this in (exp.DType.ENUM, exp.DType.SET):
        return exp.DataType.build("TEXT")
    if isinstance(node, exp.Anonymous) and node.name.upper() in ("NOW", "GETDATE"):
        return exp.CurrentTimestamp()
    if isinstance(node, exp.DateAdd | exp.DatetimeAdd | exp.TimestampAdd):
        return _shifted(node.this, node.expression, node.text("unit"), 1)
    if isinstance(node, exp.DateSub | exp.DatetimeSub | exp.TimestampSub):
        return _shifted(node.this, node.expression, node.text("unit"), -1)
    if isinstance(node, exp.Add | exp.Sub) and isinstance(node.expression, exp.Interval):
        interval, sign = node.expression, 1 if isinstance(node, exp.Add) else -1
        return _shifted(node.this, interval.this, interval.text("unit"), sign)
    if isinstance(node, exp.DateDiff):
        return _difference(node.this, node.expression, node.text("unit").upper() or "DAY")
    if isinstance(node, exp.Extract):
        return _part(node.name.upper(), node.expression)
    if isinstance(node, exp.DayOfWeek):  # from 1, Sunday
        return exp.paren(exp.Add(this=_part("DOW", node.this), expression=exp.Literal.number(1)))
    if isinstance(node, exp.Func) and len(node.args) == 1:
        return _part(type(node).__name__.upper(), node.this)
    return None


def _part(name: str, value: exp.Expr) -> exp.Expr | None:
    """A part of a date as a number."""
    from sqlglot import exp

    if name == "QUARTER":
        month = exp.Add(this=_part("MONTH", value), expression=exp.Literal.number(2))
        whole = exp.Div(this=exp.paren(month), expression=exp.Literal.number(3), typed=True)
        return exp.paren(whole)
    if name not in _DATE_PARTS:
        return None
    if isinstance(value, exp.TsOrDsToDate):  # STRFTIME reads a date out of a text by itself
        value = value.this
    call = exp.Anonymous(
        this="STRFTIME", expressions=[exp.Literal.string(_DATE_PARTS[name]), value.copy()]
    )
    return exp.cast(call, "INTEGER")


def _difference(later: exp.Expr, earlier: exp.Expr, unit: str) -> exp.Expr:
    """How often a unit begins between two dates, as in MySQL and SQL Server."""
    from sqlglot import exp

    both = (later, earlier)
    if unit == "DAY":
        days = [exp.func("JULIANDAY", exp.func("DATE", one.copy())) for one in both]
        return exp.cast(exp.Sub(this=days[0], expression=days[1]), "INTEGER")
    years = exp.Sub(this=_part("YEAR", later), expression=_part("YEAR", earlier))
    if unit == "YEAR":
        return exp.paren(years)
    if unit == "MONTH":
        twelve = exp.Mul(this=exp.paren(years), expression=exp.Literal.number(12))
        months = exp.Add(this=twelve, expression=_part("MONTH", later))
        return exp.paren(exp.Sub(this=months, expression=_part("MONTH", earlier)))
    return exp.Anonymous(this="DATEDIFF", expressions=[one.copy() for one in both])  # fails


def _shifted(value: exp.Expr, amount: exp.Expr, unit: str, sign: int) -> exp.Expr | None:
    """A date some units later; None for an amount that is not a whole number that stands there."""
    from sqlglot import exp

    if isinstance(amount, exp.Neg):
        amount, sign = amount.this, -sign
    known = _UNITS.get(unit.upper().removesuffix("S"))
    if known is None or not isinstance(amount, exp.Literal) or not amount.name.isdigit():
        return None
    count, name = known
    timed = name in _CLOCK_TIMES or isinstance(value, exp.CurrentTimestamp)
    by = exp.Literal.string(f"{sign * count * int(amount.name):+d} {name}s")
    return exp.Anonymous(this="DATETIME" if timed else "DATE", expressions=[value.copy(), by])
