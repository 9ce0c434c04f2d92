"""One wording, one query: 'where does Ann live' is not her city here and her address there.

What a name stands for may decide: a city is big by its people and a lake by its area. But where two
queries that are said alike both answer for the same value, a model can learn neither.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import NamedTuple

from gemma_lora.table_reading import TableReading
from gemma_lora.wording import VALUE

NUMBER = re.compile(r"(?<![\w'])-?\d+(?:\.\d+)?(?![\w'])")
LITERAL = re.compile(rf"\"[^\"]*\"|('(?:[^']|'')*'|{NUMBER.pattern})")  # of group 1; else a name
MASK = "\x02"


class Said(NamedTuple):
    """A question in which values are still marked, and its query."""

    question: str
    sql: str


def wording_of(question: str) -> str:
    """A question without its values and numbers."""
    return NUMBER.sub(MASK, VALUE.sub(MASK, question)).lower()


def shape_of(sql: str) -> str:
    """A query without its values and numbers."""
    return LITERAL.sub(lambda found: MASK if found[1] else found[0], sql)


def values_of(sql: str) -> list[str]:
    """The values and numbers of a query, as they are written there."""
    return [found[1] for found in LITERAL.finditer(sql) if found[1]]


def with_values(shape: str, values: Sequence[str]) -> str | None:
    """A query of this shape with other values, in their order; None where it takes more or less."""
    parts = shape.split(MASK)
    if len(parts) != len(values) + 1:
        return None
    return "".join(a + b for a, b in zip(parts, [*values, ""], strict=True))


def one_meaning(
    said: Sequence[Said], tables: Sequence[TableReading], answers: Callable[[str], bool]
) -> list[str]:
    """The query of each question, the same for all that are said alike and that it answers.

    What tables hold is meant before what only a view shows, what takes fewer joins before what
    takes more, and of things that share a name those of which there are fewer: the state before
    its city. `answers` runs a query: whether it returns something.
    """
    shapes: dict[str, set[str]] = defaultdict(set)
    for one in said:
        shapes[wording_of(one.question)].add(shape_of(one.sql))

    def likeliest(shape: str) -> tuple[bool, int, int, str]:
        named = [t for t in tables if re.search(rf"\b{re.escape(t.name)}\b", shape)]
        rows = max((t.rows for t in named), default=0)
        joins = shape.count(" JOIN ") + shape.count("SELECT ")
        return any(t.is_view for t in named), joins, rows, shape

    orders = {
        wording: sorted(found, key=likeliest) for wording, found in shapes.items() if len(found) > 1
    }

    def meant(one: Said) -> str:
        """The query of the first shape that answers for this question's values."""
        for shape in orders.get(wording_of(one.question), ()):
            if shape == shape_of(one.sql):
                break
            # What one answer is under a LIMIT was proved for these values only.
            sql = None if " LIMIT " in shape else with_values(shape, values_of(one.sql))
            if sql and answers(sql):
                return sql
        return one.sql

    return [meant(one) for one in said]
