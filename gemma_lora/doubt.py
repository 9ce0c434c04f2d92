"""Reasons to doubt an answer that need no reference: it is unlikely, or leaves out what was asked.

A small model that is asked for German books over 500 pages may be certain of a query for German
books. Its own probability does not show that; that the question names the column `pages` does.
Known by name are tables, columns and the values of columns with few of them, in any number and
case. Not known: other words for them, and whether what is said of them is right.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from gemma_lora.confidence import Confidence
from gemma_lora.confinement import WRITING_KINDS
from gemma_lora.database import Database, DatabaseFile
from gemma_lora.figures import Sample
from gemma_lora.omitted_conditions import VALUE_LENGTH, categories
from gemma_lora.said_units import larger_units
from gemma_lora.schema_prompt import listed, words_of
from gemma_lora.selection import TUNED, without_candidates
from gemma_lora.sql_text import statement_kind

SAMPLE_ROWS = 10_000  # of each table: a column's values are looked for in these
CHANGING = re.compile(
    r"\s*(?:please\s+)?(?:delete|remove|erase|drop|insert|add|update|change|set|rename|replace)\b",
    re.I,
)
NUMBER = re.compile(r"\d+(?:\.\d+)?")
# 20240305 and 202403, by which days and months of some forms compare.
DAY = re.compile(r"((?:19|20)\d\d)(\d\d)(\d\d)?")
LARGE_NUMBERS = {"thousand": 1_000, "million": 1_000_000, "billion": 1_000_000_000}
LARGE = re.compile(r"\b(\d+(?:\.\d+)?) (thousand|million|billion)\b", re.IGNORECASE)
COUNTED = re.compile(r"\b(\d+(?:\.\d+)?) ?([a-z]+)")
QUARTER = re.compile(r"\bq[1-4]\b", re.IGNORECASE)  # a query writes its months
# Words of any question: a name of nothing else (`name`, `is_out`) is not known by them.
COMMON = frozenset(
    "the and for with what which who whom whose how many much our your their are was were all any "
    "has have had from each every per than more most less least that this those these not out over "
    "under into there give show list tell find name number date year".split()
)


class Named(NamedTuple):
    """A table, a column or a value that questions can name."""

    text: str
    words: frozenset[str]


def known_names(database: Database) -> list[Named]:
    """All that can be named in a database; two short queries a table. Raises UserError."""
    texts: dict[str, None] = {}
    for relation in database.relations():
        if relation.kind == "view":
            continue  # a view may take long, and shows what tables hold
        texts[relation.name] = None
        table = quoted(relation.name)
        columns = database.run(f"SELECT * FROM {table} LIMIT 0", max_rows=1).columns
        texts |= dict.fromkeys(columns)
        short = ", ".join(f"substr({quoted(c)}, 1, {VALUE_LENGTH + 1})" for c in columns)
        rows = database.run(f"SELECT {short} FROM {table} LIMIT {SAMPLE_ROWS}", SAMPLE_ROWS).rows
        for column in zip(*rows, strict=True):
            texts |= dict.fromkeys(categories(column))
    named = (Named(text, frozenset(words_of(text))) for text in texts)
    return [one for one in named if one.words - COMMON]


def quoted(name: str) -> str:
    """A name as SQL writes it."""
    return '"' + name.replace('"', '""') + '"'


def names_in(path: Path) -> list[Named]:
    """All that can be named in a SQLite file, which is only read. Raises UserError."""
    with DatabaseFile(path) as database:
        return known_names(database)


def omissions(question: str, sql: str, known: Sequence[Named]) -> list[str]:
    """What of a database, and which numbers, the question names and its query does not."""
    asked, said = words_of(question), words_of(sql)
    named = [one.text for one in known if one.words <= asked and not one.words <= said]
    numbers = numbers_in(sql)
    days = filter(None, map(DAY.fullmatch, numbers))
    written = {*numbers} | {shortened(part) for day in days for part in day.groups(default="")}
    meant = numbers_in(QUARTER.sub("", spelt_out(question)))
    written |= {*in_larger_units(question, written)}
    return [*named, *(n for n in meant if n not in written)]


def in_larger_units(question: str, written: Collection[str]) -> Iterator[str]:
    """Numbers of a question that its query writes in a smaller unit: '5 minutes' as 300000."""
    for number, unit in COUNTED.findall(question.lower()):
        factors = larger_units().get(unit.removesuffix("s"), frozenset())
        if any(f"{float(number) * factor:.12g}" in written for factor in factors):
            yield number


def spelt_out(text: str) -> str:
    """A text with '1,500' as 1500 and '1.5 million' as 1500000."""
    whole = re.sub(r"(?<=\d),(?=\d{3}\b)", "", text)
    return LARGE.sub(lambda m: f"{float(m[1]) * LARGE_NUMBERS[m[2].lower()]:.12g}", whole)


def numbers_in(text: str) -> list[str]:
    """The numbers in a text, '05' as '5'."""
    return [shortened(number) for number in NUMBER.findall(text)]


def shortened(number: str) -> str:
    """A number without the noughts that dates have in front."""
    return re.sub(r"^0+(?=\d)", "", number)


def doubts(
    question: str,
    sql: str,
    lowest_logprob: float | None,
    confidence: Confidence | None,
    known: Sequence[Named],
) -> list[str]:
    """Why an answer is not sure, in words; `lowest_logprob` is that of its least likely token.

    An adapter that cannot tell doubts no single answer for that: it is said once, not each time.
    """
    reasons = []
    least = confidence["threshold"] if confidence else None
    if CHANGING.match(question) and statement_kind(sql) not in WRITING_KINDS:
        reasons.append("nothing is changed here, the query only reads")
    if left_out := omissions(question, sql, known):
        reasons.append(f"the query says nothing of {listed(left_out)}")
    if least is not None and lowest_logprob is not None and lowest_logprob < least:
        reasons.append(
            f"{math.exp(lowest_logprob):.0%} at its least certain place, where "
            f"{math.exp(least):.0%} would be enough"
        )
    return reasons


def mark_sure(samples: Iterable[Sample], confidence: Confidence, known: Sequence[Named]) -> None:
    """Note in the fine-tuned model's answers whether it is sure of them.

    It never is of one that shows nothing, that was mended, or had to be drawn after another. Of an
    adapter that cannot tell, nothing is noted: "not sure" beside every answer tells nothing.
    """
    if confidence["threshold"] is None:
        return
    for sample in samples:
        for name, out in sample["outputs"].items():
            if TUNED not in (name, without_candidates(name)):
                continue
            rows = out["result"]["rows"] if out["result"] else []
            shows = any(value is not None for row in rows for value in row)
            likely = out["lowest_logprob"]
            why = doubts(sample["question"], out["sql"], likely, confidence, known)
            chosen = out.get("candidate") or out.get("mended")
            out["sure"] = shows and not why and not chosen
