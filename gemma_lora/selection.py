"""What choosing among answers did: which were replaced, and how many of those were right.

Counted from what was kept of each answer, so that it can be counted again.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple, TypedDict

from gemma_lora.cleaning import number_of

TUNED = "fine-tuned"
WITH_CANDIDATES = re.compile(r"(.+), \d+ candidates", re.S)


def with_candidates(model: str, wanted: int) -> str:
    """How a report calls a model's answers of which some were replaced by candidates."""
    return f"{model}, {wanted} candidates"


def without_candidates(name: str) -> str | None:
    """The model whose first answers stand beside those of this name; None for first answers."""
    match = WITH_CANDIDATES.fullmatch(name)
    return match[1] if match else None


def compared_models(names: Sequence[str], subject: str) -> list[tuple[str, str]]:
    """Which models are compared: the subject with the others, all with their first answers.

    With candidates it is compared with its own first answers, and with others that had the same.
    """
    first = [name for name in names if not without_candidates(name)]
    pairs = [(subject, name) for name in first if name != subject]
    drawn = [name for name in names if without_candidates(name)]
    for ours in (name for name in drawn if without_candidates(name) == subject):
        pairs += [(ours, subject), *((ours, other) for other in drawn if other != ours)]
    return pairs


class Replacement(NamedTuple):
    """A row where other answers could be drawn."""

    candidate: int  # 0: the first answer stands
    drawn_tokens: int
    drawn_sec: float
    mended: bool  # the first answer was put right
    first_right: bool
    taken_right: bool
    judged: bool  # whether execution can judge the row
    shows: bool  # whether its gold shows something


class CandidateCounts(TypedDict):
    """What drawing other answers did to the rows of a run, and what it cost."""

    drawn_for: int  # rows whose first answer failed or returned nothing
    replaced: int
    mended: int  # of these, by the first answer put right
    gained: int  # wrong, then right; of the rows that execution can judge
    lost: int  # right, then wrong
    lost_empty: int  # of these, rows whose gold shows nothing
    right_replaced: int  # right first answers that were replaced, by right ones included
    tokens: int
    seconds: float


def count_candidates(rows: Iterable[Replacement]) -> CandidateCounts:
    """Count what became of the first answers; rows whose gold shows nothing are in it."""
    found = list(rows)
    replaced = [row for row in found if row.candidate or row.mended]
    judged = [row for row in replaced if row.judged]
    lost = [row for row in judged if row.first_right and not row.taken_right]
    return {
        "drawn_for": sum(row.drawn_tokens > 0 for row in found),
        "replaced": len(replaced),
        "mended": sum(row.mended for row in found),
        "gained": sum(row.taken_right and not row.first_right for row in judged),
        "lost": len(lost),
        "lost_empty": sum(not row.shows for row in lost),
        "right_replaced": sum(row.first_right for row in judged),
        "tokens": sum(row.drawn_tokens for row in found),
        "seconds": sum(row.drawn_sec for row in found),
    }


def candidate_sentence(name: str, counts: CandidateCounts) -> str:
    """What a reader of the table must know of a model's candidates."""
    mended = f" ({counts['mended']} mended, completed or cut)" if counts["mended"] else ""
    return (
        f"{name}: drawn for {number_of(counts['drawn_for'], 'row')}, "
        f"{number_of(counts['replaced'], 'answer')} replaced{mended}, of these now right: "
        f"{counts['gained']}; of right first answers {counts['right_replaced']} replaced, "
        f"{counts['lost']} by wrong ones ({counts['lost_empty']} where the gold shows nothing); "
        f"{number_of(counts['tokens'], 'token')} and {counts['seconds']:.1f} s more."
    )
