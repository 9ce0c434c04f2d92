"""What every made question is drawn from, and what a condition is.

Values are dealt like cards: each of a column's values comes once before any comes again, so that
as many of them as a set of questions has room for are learnt.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple, TypeVar

from gemma_lora.schema_reading import DatabaseReading, Link
from gemma_lora.wording import Phrasings, filled

T = TypeVar("T")
SAYS_CONDITIONS = re.compile(r"{(?:things?|heads?|asked)}")  # slots that hold conditions
SAYS_PARENTS = re.compile(r"{(?:parents?|asked)}")  # those that hold the conditions on parents


class Grammar(NamedTuple):
    """What every question is made from."""

    reading: DatabaseReading
    phrasings: Phrasings
    draw: random.Random
    decks: dict[Hashable, list[Any]]  # values that have not been dealt yet
    taken: list[tuple[Hashable, Any]]  # those dealt for the question that is being made
    holds: Callable[[str], bool] = bool  # whether a query returns a row; by default any does


class Condition(NamedTuple):
    """A condition in words and in SQL."""

    said: str
    where: str
    before: bool = False  # said before the noun: 'italian restaurants'
    links: tuple[Link, ...] = ()  # keys to follow from the table that is asked about
    repeats: bool = False  # following them can give a row more than once
    column: tuple[str, str] = ("", "")  # what it is about, so that it is not said twice
    state: str = ""  # where it is said alone: 'cancelled' of 'how many orders were cancelled'
    noun: str = ""  # where it takes the noun's place: 'sales manager' of 'which sales managers'


def dealt(g: Grammar, deck: Hashable, cards: Sequence[T]) -> T:
    """The next of some cards; each is dealt once before the deck is shuffled anew."""
    left = g.decks.setdefault(deck, [])
    if not left:
        left += g.draw.sample(cards, len(cards))
    card: T = left.pop()
    g.taken.append((deck, card))
    return card


def put_back(g: Grammar, since: int = 0) -> None:
    """Put most of what was dealt for what cannot be asked under its deck again.

    Not all of it: a value that no question can be asked with would hold up the others for ever.
    """
    for deck, card in g.taken[since:]:
        if g.draw.random() < 0.7:
            g.decks[deck].insert(0, card)
    del g.taken[since:]


def asked(g: Grammar, kind: str, **slots: str) -> str:
    """A phrasing of a kind, filled in; where there are conditions, one that says them."""
    forms = g.phrasings.forms[kind]
    if slots.get("conditions"):
        forms = tuple(f for f in forms if SAYS_CONDITIONS.search(f))
    if slots.get("parent_conditions"):
        forms = tuple(f for f in forms if SAYS_PARENTS.search(f))
    return filled(g.draw, forms, slots)
