"""Numbers in the units that people say: 'longer than 5 minutes' of a column of milliseconds."""

from __future__ import annotations

import functools
import re
from collections import defaultdict
from collections.abc import Sequence

from gemma_lora.column_sql import number_of
from gemma_lora.grammar import Condition, Grammar
from gemma_lora.table_reading import ColumnReading, TableReading
from gemma_lora.wording import concept_of, filled, load_phrasings, marked

ANSWERED = 0.2  # of the questions for one number that has a larger unit
LEAST_ALONE = 5  # letters of a unit that is all of a name: 'bytes'; 'min' may be the least
MEASURE = re.compile(r"SELECT ((?:AVG|SUM|MIN|MAX)\(([^()]+)\)|([^(),]+))(?= FROM )")


def units_of(g: Grammar, column: ColumnReading) -> tuple[tuple[str, int], ...]:
    """(what people count in, how many of the column's own unit that is); () where it names none.

    'duration_sec' is a 'duration in sec'; 'temp_min' and 'min' are in no unit, nor are the minutes
    of a meeting, which are text.
    """
    *before, unit = column.words[-1].split()
    told = before[-1:] == ["in"] or (not before and len(unit) >= LEAST_ALONE)
    return g.phrasings.units.get(unit, ()) if told and column.role == "measure" else ()


def in_said_unit(
    g: Grammar, table: TableReading, column: ColumnReading, numbers: Sequence[int | float]
) -> Condition | None:
    """A measure is above, below or between numbers of a larger unit; None where it has none.

    `numbers` are two of the column's values, the smaller first.
    """
    unit, factor = g.draw.choice(units_of(g, column) or (("", 0),))
    if not unit or numbers[1] < factor:
        return None
    low = max(1, round(numbers[0] / factor))
    high = max(low + 1, round(numbers[1] / factor))
    left = number_of(column, table.name)
    kind = g.draw.choices(("more", "less", "between"), (5, 4, 1))[0]
    said = {"n": marked(counted(low, unit)), "n2": marked(counted(high, unit))}
    sql = f"{left} {'>' if kind == 'more' else '<'} {low * factor}"
    if kind == "between":
        sql = f"{left} BETWEEN {low * factor} AND {high * factor}"
    concept = concept_of(g.phrasings, column)
    own = {"more": concept.more, "less": concept.less}.get(kind, ()) if concept else ()
    forms = own if own and g.draw.random() < 0.7 else g.phrasings.forms[f"condition_unit_{kind}"]
    return Condition(filled(g.draw, forms, said), sql, column=(table.name, column.name))


def answered_in_unit(g: Grammar, question: str, sql: str) -> tuple[str, str]:
    """The question and its query, now and then for a number in a larger unit: '... in minutes'."""
    select = MEASURE.match(sql)
    if select is None or "?" in question or g.draw.random() > ANSWERED:
        return question, sql
    *table, name = (select[2] or select[3]).replace('"', "").split(".")
    owners = [t for t in g.reading.tables if any(c.name == name for c in t.columns)]
    named = [t for t in owners if t.name in (table or re.findall(r"\w+", sql))]
    units = units_of(g, named[0].column(name)) if named else ()
    if not units:
        return question, sql
    unit, factor = g.draw.choice(units)
    return f"{question} in {unit}", f"SELECT {select[1]} / {factor}.0{sql[select.end() :]}"


@functools.cache
def larger_units() -> dict[str, frozenset[int]]:
    """{what people count in: how many of a smaller unit it may be}: of minutes 60 and 60000."""
    found: dict[str, set[int]] = defaultdict(set)
    for units in load_phrasings().units.values():
        for unit, factor in units:
            found[unit].add(factor)
    return {unit.removesuffix("s"): frozenset(factors) for unit, factors in found.items()}


def counted(number: int, unit: str) -> str:
    """'1 minute', '5 minutes'."""
    return f"{number} {unit.removesuffix('s') if number == 1 else unit}"
