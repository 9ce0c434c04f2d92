"""Conditions of a query of which its question says nothing, left out.

A small model that has read queries by the hundred writes one condition more: asked for the average
age of the players of one game, it adds `AND player_name = 'Faker' AND age >= 25`. Of a query's
conditions, joined by AND, those are left out whose texts and numbers the question does not speak
of: no word of a text begins as one of its words, no number is among its numbers.

Chosen on validation rows of gretel's set (176 judged, an adapter of 663 rows): of 55 right answers
59 were right then, 26 instead of 23 on altered databases, and none that was right was lost; on 66
test rows 26 instead of 23. Of two other adapters' answers 5 became right and 1 wrong. 14 of 637
golds have such a condition.

Left alone are conditions that may be said in other words: lists and alternatives ('in Asia'), what
compares with the clock ('last month'), flags, texts of two letters, a people for its country, and
conditions with a query inside. An adapter that knows a database by heart knows more words for what
it holds than can be seen here: its answers are not for this.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from typing import Any

from gemma_lora.mending import LONGEST, MENDING, Mended
from gemma_lora.sql_text import PARSER_TRIPS, sql_trees
from gemma_lora.wording import MONTHS, load_phrasings

LIKE_BEGINNING = 4  # letters that two forms of a word have in common: 'Europe', 'European'
NUMBER_WORDS = "zero one two three four five six seven eight nine ten eleven twelve".split()
# 'two dozen', 'the last quarter', 'half of': a number that does not stand there may be meant.
COUNTING = re.compile(
    r"\b(?:dozen|hundred|thousand|million|billion|half|quarter|decade|century|centuries|first|"
    r"second|third|hour|minute|week|month|year|(?:mon|tues|wednes|thurs|fri|satur|sun)day)s?\b",
    re.IGNORECASE,
)
LATELY = re.compile(
    r"\b(?:past|last|recent|latest|previous|current|this|next|quarter|ago|since|today|yesterday|"
    r"upcoming)\b",
    re.IGNORECASE,
)
OTHER_WORDS = {
    "female": {"woman", "women", "girl", "girls"},
    "male": {"man", "men", "boy", "boys"},
}
FLAGS = frozenset("0 1 yes no true false".split())
SCALES = (1, 100, 0.01, 1_000, 1_000_000, 1_000_000_000)  # '5%', '2.5 million'
_DATE = re.compile(r"((?:19|20)\d\d)(?:-(\d\d))?")
_KEY = re.compile(r"(?i:(?:^|_)id$)|[a-z]I[Dd]$")
_WORD = re.compile(r"[^\W\d_]+")
_NUMBER = re.compile(r"\d+(?:\.\d+)?")


def without_unasked(sql: str, question: str) -> Mended | None:
    """A query without the conditions of which its question says nothing; None where all are.

    None too for what sqlglot cannot read, or where it is not installed.
    """
    trees = sql_trees(sql, MENDING) if len(sql) <= LONGEST else []
    if len(trees) != 1:
        return None
    try:
        return trimmed(trees[0], question)
    except PARSER_TRIPS:
        return None


def trimmed(tree: Any, question: str) -> Mended | None:
    """The same of a tree, which is changed."""
    exp = importlib.import_module("sqlglot").exp
    dropped: list[str] = []
    for where in list(tree.find_all(exp.Where)) if isinstance(tree, exp.Query) else ():
        whole = where.this
        parts = list(whole.flatten()) if isinstance(whole, exp.And) else [whole]
        kept = [part for part in parts if is_asked(part, question)]
        if len(kept) == len(parts):
            continue
        dropped += [part.sql("sqlite") for part in parts if part not in kept]
        if kept:
            where.set("this", exp.and_(*kept))
        else:
            where.parent.set("where", None)
    change = f"{' and '.join(dropped)} left out"
    return Mended(tree.sql("sqlite"), (change,)) if dropped else None


def is_asked(condition: Any, question: str) -> bool:
    """Whether a question may speak of a condition; also where that cannot be told."""
    exp = importlib.import_module("sqlglot").exp
    told = (exp.Query, exp.Boolean, exp.Null, exp.CurrentDate, exp.CurrentTimestamp)
    lists = (one for one in condition.find_all(exp.In) if len(one.expressions) > 1)
    if condition.find(*told) or any(lists) or isinstance(condition.unnest(), exp.Or):
        return True
    literals = [
        one for one in condition.find_all(exp.Literal) if not re.fullmatch("%[a-zA-Z]", one.this)
    ]
    if not literals or any(one.this.lower() == "now" for one in literals):
        return True
    column = condition.find(exp.Column)
    is_key = column is not None and _KEY.search(column.name) is not None
    if isinstance(condition, exp.EQ) and not is_key and literals[0].this.lower() in FLAGS:
        return True  # its column says what it is
    return any(
        speaks_of_text(question, one.this)
        if one.is_string
        else speaks_of_number(question, one.this)
        for one in literals
    )


def speaks_of_text(question: str, text: str) -> bool:
    """Whether a question has a word of a text, in any form, or another word for it."""
    text = text.strip("%_ ")
    if len(text) <= 2:
        return True  # a code
    if date := _DATE.match(text):
        return speaks_of_date(question, date[1], date[2])
    asked, words = words_in(question), words_in(text)
    if not words or squeezed(text) in squeezed(question):
        return bool(words) or text in question
    people = load_phrasings().demonyms.get(text.lower(), text)  # 'American' for 'USA'
    others = OTHER_WORDS.get(text.lower(), set()) | {people.lower()}
    return (
        bool(asked & others)
        or any(is_short_for(one, text) for one in re.findall(r"\b[A-Z]{2,}\b", question))
        or any(same_word(one, other) for one in words if len(one) > 1 for other in asked)
    )


def speaks_of_date(question: str, year: str, month: str | None) -> bool:
    """Whether a question names a date's year or month, a year of its decade, or a time till now."""
    named = month and 1 <= int(month) <= 12 and MONTHS[int(month) - 1] in question.lower()
    return bool(
        named or re.search(rf"\b{year[:3]}\d\b", question) or LATELY.search(question)
    )  # the bounds of a time lie beside it


def speaks_of_number(question: str, number: str) -> bool:
    """Whether a question has a number, in figures or words."""
    value = float(number)
    words = words_in(question)
    found = [float(one) for one in _NUMBER.findall(question.replace(",", ""))]
    if any(abs(one * scale - value) <= 1e-9 * abs(value) for one in found for scale in SCALES):
        return True
    spelt = [word for number, word in enumerate(NUMBER_WORDS) if number == value]
    if words & {*spelt} or (1 <= value <= 12 and MONTHS[int(value) - 1] in words):
        return True
    return value not in (0, 1) and COUNTING.search(question) is not None


def words_in(text: str) -> set[str]:
    """The words of a text in small letters."""
    return {word.lower() for word in _WORD.findall(text)}


def squeezed(text: str) -> str:
    """A text's letters and digits alone."""
    return re.sub(r"[\W_]", "", text.lower())


def same_word(one: str, other: str) -> bool:
    """Whether two words are alike, or long enough and begin so."""
    begin = one[:LIKE_BEGINNING]
    return one == other or (len(begin) == LIKE_BEGINNING and other.startswith(begin))


def is_short_for(capitals: str, text: str) -> bool:
    """Whether capital letters ('US', 'MA') begin a text or are those its words begin with."""
    initials = "".join(word[0] for word in _WORD.findall(text) if word[0].isupper())
    return text.upper().startswith(capitals) or initials == capitals


class Trimmer:
    """Leaves out what a question does not ask for, where rows are still shown."""

    why = "of which the question says nothing"

    def __init__(self, shows: Callable[[str], bool]) -> None:
        self.shows = shows  # whether a query runs and returns a value

    def __call__(self, sql: str, question: str) -> Mended | None:
        """A query without unasked conditions; None where there are none, or nothing is shown."""
        found = without_unasked(sql, question)
        return found if found and self.shows(found.sql) else None
