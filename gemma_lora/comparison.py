"""Whether two results say the same, as a careful person would read them.

The choices, made once:
- Rows are a bag: equally often, in any order, unless the gold has an ORDER BY. Then any order and
  any choice of rows serve that SQL allows: rows that tie on its keys may come in any order, and
  where a LIMIT cuts through a tie any of the tied rows may be there (`TieGroup`).
- Numbers: 1 and 1.0 are one value, whole numbers are compared exactly, and others may differ by
  what floating point leaves behind (see `same_value`). A value that was rounded is another value.
- The order of columns is free: any one-to-one pairing serves under which the rows are the same.
- Labels are free too, so `AS n` costs nothing, except where columns carry each other's labels
  (`MAX(x) AS lowest, MIN(x) AS highest`).
- NULL equals NULL only, text is compared letter by letter, and text is never a number.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

# Floats match within REL_TOL, but never further apart than ABS_TOL or, where a float cannot be so
# fine, ULPS of its steps: a millionth of a telephone number is another telephone.
REL_TOL, ABS_TOL, ULPS = 1e-9, 1e-6, 64
ZERO_TOL = 1e-12  # what subtracting equal decimals leaves of zero
EXACT = 2.0**53  # below, every whole number has a float of its own
PAIRINGS = 500  # comparisons spent on finding which column is which

Rows = Sequence[Sequence[Any]]


class TieGroup(NamedTuple):
    """Rows among which the gold's ORDER BY does not choose."""

    rows: Rows
    shown: int  # how many of them the result holds, one after the other


def same_value(a: Any, b: Any) -> bool:
    """NULL equals NULL, 1 equals 1.0, text is compared as text, floats with a tolerance.

    Two whole numbers must be equal, whatever their types. Others may differ by REL_TOL of the
    larger, at most ABS_TOL (or ULPS float steps); against zero by ZERO_TOL.
    """
    if not isinstance(a, (int, float)) or not isinstance(b, (int, float)):
        return type(a) is type(b) and bool(a == b)
    if a == b:
        return True
    if (isinstance(a, int) and isinstance(b, int)) or math.isinf(a) or math.isinf(b):
        return False
    if a == 0 or b == 0:
        return abs(a - b) <= ZERO_TOL
    size = max(abs(a), abs(b))
    if float(a).is_integer() and float(b).is_integer():
        return size >= EXACT and abs(a - b) <= 4 * math.ulp(size)
    return abs(a - b) <= min(REL_TOL * size, max(ABS_TOL, ULPS * math.ulp(size)))


def _shape(row: Sequence[Any]) -> tuple[Any, ...]:
    """What must be equal exactly in a row; numbers are left to `same_value`."""
    return tuple("number" if isinstance(v, (int, float)) else (type(v).__name__, v) for v in row)


def _numbers(row: Sequence[Any]) -> tuple[Any, ...]:
    return tuple(v for v in row if isinstance(v, (int, float)))


def same_bag(gold: Rows, predicted: Rows) -> bool:
    """Whether two results hold the same rows equally often, in any order."""
    return len(gold) == len(predicted) and within_bag(gold, predicted)


def within_bag(pool: Rows, rows: Rows) -> bool:
    """Whether every row can be taken out of the pool, each of the pool's at most once."""
    groups: dict[Any, tuple[list[Any], list[Any]]] = defaultdict(lambda: ([], []))
    for side, these in enumerate((pool, rows)):
        for row in these:
            groups[_shape(row)][side].append(_numbers(row))
    return all(_numbers_within(sorted(p), sorted(r)) for p, r in groups.values())


def _numbers_within(pool: list[Any], rows: list[Any]) -> bool:
    """Match sorted number rows one to one: in step, or else each to the first that fits."""
    if len(rows) > len(pool):
        return False

    def same(a: Any, b: Any) -> bool:
        return all(same_value(x, y) for x, y in zip(a, b, strict=True))

    if len(rows) == len(pool) and all(same(a, b) for a, b in zip(pool, rows, strict=True)):
        return True
    left = list(pool)
    for row in rows:
        # The pool is sorted: what fits begins where its first number is near enough.
        start = bisect_left(left, (row[0] - _reach(row[0]),)) if row else 0
        for index in range(start, len(left)):
            if same(left[index], row):
                left.pop(index)
                break
            if row and left[index][0] > row[0] + _reach(row[0]):
                return False
        else:
            return False
    return True


def _reach(number: float) -> float:
    """No value that `same_value` takes for this one is further away."""
    if math.isinf(number):
        return 0.0
    return max(ABS_TOL, ULPS * 2 * math.ulp(float(number)))


def tied_groups(gold: Rows, order: Sequence[int] | None) -> list[TieGroup]:
    """The groups of a result whose ORDER BY is by the columns `order`; None: one group of all."""
    if order is None:
        return [TieGroup(gold, len(gold))]
    groups: list[list[Sequence[Any]]] = []
    for row in gold:
        if groups and all(same_value(groups[-1][-1][i], row[i]) for i in order):
            groups[-1].append(row)
        else:
            groups.append([row])
    return [TieGroup(rows, len(rows)) for rows in groups]


def follows_groups(groups: Sequence[TieGroup], predicted: Rows) -> bool:
    """Whether rows, in their order, are a result that SQL allows for these groups."""
    if len(predicted) != sum(group.shown for group in groups):
        return False
    start = 0
    for group in groups:
        if not within_bag(group.rows, predicted[start : start + group.shown]):
            return False
        start += group.shown
    return True


def exchanged_labels(
    pairing: Sequence[int], gold_labels: Sequence[str], labels: Sequence[str]
) -> bool:
    """Whether columns, paired so, carry each other's labels (case does not count)."""
    theirs = [labels[j].lower() for j in pairing]
    ours = [label.lower() for label in gold_labels]
    if len(set(ours)) < len(ours) or len(set(theirs)) < len(theirs):
        return False
    target = {i: ours.index(label) for i, label in enumerate(theirs) if label in ours}
    for first in target:
        at, seen = target[first], {first}
        while at in target and at not in seen:
            seen.add(at)
            at = target[at]
        if at == first and len(seen) > 1:
            return True
    return False


def column_pairings(gold: Rows, predicted: Rows) -> Iterator[tuple[int, ...]]:
    """Ways to pair columns under which the predicted rows are among the gold's, in place first."""
    width = len(gold[0])
    budget = PAIRINGS

    def grow(chosen: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
        nonlocal budget
        depth = len(chosen)
        if depth == width:
            yield chosen
            return
        head = [row[: depth + 1] for row in gold]
        for j in sorted(set(range(width)) - set(chosen), key=lambda j: (j != depth, j)):
            if budget <= 0:
                return
            budget -= 1
            pairing = (*chosen, j)
            if within_bag(head, [[row[k] for k in pairing] for row in predicted]):
                yield from grow(pairing)

    yield from grow(())


def compare_rows(
    gold: Rows,
    predicted: Rows,
    order: Sequence[int] | None = None,
    labels: tuple[Sequence[str], Sequence[str]] | None = None,
    groups: Sequence[TieGroup] | None = None,
) -> str:
    """'match', 'wrong rows' or 'wrong order'.

    `order`: the result columns that the gold's ORDER BY sorts by (`order_columns`). `labels`: the
    gold's column labels and the predicted ones. `groups`: what is known better of the gold's ties
    than its result shows.
    """
    if not gold or not predicted:
        return "match" if not gold and not predicted else "wrong rows"
    width = len(gold[0])
    if len(gold) != len(predicted) or any(len(row) != width for row in predicted):
        return "wrong rows"
    groups = groups or tied_groups(gold, order)
    said = "wrong rows"
    for pairing in column_pairings([row for group in groups for row in group.rows], predicted):
        if labels and exchanged_labels(pairing, *labels):
            continue
        if follows_groups(groups, [[row[j] for j in pairing] for row in predicted]):
            return "match"
        said = "wrong order"
    return said
