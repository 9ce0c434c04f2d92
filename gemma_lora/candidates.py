"""The first answer that runs and shows something: others are drawn only where the first does not.

Execution-guided selection, as in "Query and Conquer" (arXiv 2503.24364), without a vote: of the
answers in the order in which they were drawn the first that returns a value is taken; where none
does, the first answer as `mending` puts it right. From the one that is taken goes what the question
does not ask for (`unasked_conditions`); on a user's file it gets what it left out of the question
(`omitted_conditions`). It is chosen by question and database, never by a reference. A statement
that would write is final: it is neither run here nor drawn again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

from gemma_lora.confinement import WRITING_KINDS
from gemma_lora.generation import Generation, generate_several
from gemma_lora.mending import Amender, Mender
from gemma_lora.omitted_conditions import Completer
from gemma_lora.progress import count_answers
from gemma_lora.replies import extract_sql
from gemma_lora.sandbox import SqlWorker
from gemma_lora.splits import Row
from gemma_lora.sql_text import statement_kind
from gemma_lora.unasked_conditions import Trimmer

if TYPE_CHECKING:
    import mlx.nn as nn
    from mlx_lm.tokenizer_utils import TokenizerWrapper

CANDIDATE_TEMP = 0.7  # 2 to 8 draws at this one gained 3 to 7 points on rows of a general set
CHAT_CANDIDATES = 4
Showing = Literal["rows", "nothing", "fails", "writes"]


class Ran(Protocol):
    """What a database says of a query: a SqlResult or a QueryResult."""

    @property
    def status(self) -> str:
        """The word ok, or why there are no rows."""

    @property
    def rows(self) -> Sequence[Sequence[Any]]:
        """The first rows."""


class Asked(NamedTuple):
    """A question whose first answer may be replaced."""

    number: int  # of its row: the draws hang on it
    prompt: str  # rendered
    first: Generation
    showing: Showing  # by the first answer's query


class Chosen(NamedTuple):
    """The answer that is taken for a question, and what finding it took."""

    said: Generation
    candidate: int  # 0: the first answer; else which of those that were drawn
    drawn_tokens: int
    drawn_sec: float  # its share of the time that drawing for all questions took
    mended: tuple[str, ...] = ()  # what was changed in it, in words

    @property
    def facts(self) -> dict[str, Any]:
        """All but the answer, for its record."""
        return {
            "candidate": self.candidate,
            "drawn_tokens": self.drawn_tokens,
            "drawn_sec": self.drawn_sec,
            "mended": list(self.mended),
        }


class MendedAnswer(NamedTuple):
    """An answer whose query was put right, so that it shows rows."""

    said: Generation
    changes: tuple[str, ...]


Mend = Callable[[int, Generation], MendedAnswer | None]


def mended_answer(
    mender: Mender | None,
    question: str,
    sql: str,
    said: Generation,
    shown_by: Callable[[Generation], Showing],
) -> MendedAnswer | None:
    """An answer with its query put right; None where that cannot be or then shows no rows."""
    found = mender(sql, question) if mender and sql else None
    if found is None:
        return None
    better = replace(said, text=found.sql)
    return MendedAnswer(better, found.changes) if shown_by(better) == "rows" else None


class Drawing(NamedTuple):
    """How other answers are drawn."""

    wanted: int
    max_tokens: int
    seed: int
    batch_size: int


def new_seed() -> int:
    """A seed for one turn, drawn as the answers are."""
    import mlx.core as mx

    return int(mx.random.randint(0, 2**31 - 1).item())  # type: ignore[arg-type]  # a whole number


def showing(sql: str, run: Callable[[str], Ran]) -> Showing:
    """What a query shows when it is run; "nothing" also where all it returns is NULL."""
    if not sql:
        return "fails"
    if statement_kind(sql) in WRITING_KINDS:
        return "writes"
    result = run(sql)
    if result.status != "ok":
        return "writes" if result.status == "writes" else "fails"
    shows = any(value is not None for row in result.rows for value in row)
    return "rows" if shows else "nothing"


def replaceable(first: Showing) -> bool:
    """Whether others are drawn beside an answer that shows this."""
    return first in ("nothing", "fails")


def choose(
    model: nn.Module,
    tokenizer: TokenizerWrapper,
    asked: Sequence[Asked],
    shown_by: Callable[[int, Generation], Showing],
    drawing: Drawing,
    mend: Mend = lambda index, said: None,
    amend: Mend = lambda index, said: None,
    advance: Callable[[int], None] = lambda n: None,
) -> list[Chosen]:
    """Draw other answers where the first shows nothing; of each the first that shows rows.

    `shown_by` runs the query of an answer to the question at an index of `asked`. Where no answer
    shows rows, the first is taken as `mend` puts it right, if it can. `amend` gives the answer
    that is taken as its question asks for it.
    """
    again = [index for index, one in enumerate(asked) if replaceable(one.showing)]
    start = time.perf_counter()
    drawn = generate_several(
        model, tokenizer, [asked[i].prompt for i in again], [asked[i].number for i in again],
        drawing.wanted, drawing.max_tokens, CANDIDATE_TEMP, drawing.seed, drawing.batch_size,
        advance,
    )  # fmt: skip
    seconds = (time.perf_counter() - start) / max(1, len(again))
    chosen = [Chosen(one.first, 0, 0, 0.0) for one in asked]
    for index, answers in zip(again, drawn, strict=True):
        tokens = sum(answer.generation_tokens for answer in answers)
        seen = {asked[index].first.text}
        taken = 0
        for number, answer in enumerate(answers, 1):
            if answer.text not in seen and shown_by(index, answer) == "rows":
                taken = number
                break
            seen.add(answer.text)
        first = asked[index].first
        if taken:
            chosen[index] = Chosen(answers[taken - 1], taken, tokens, seconds)
        elif (better := mend(index, first)) is not None:
            chosen[index] = Chosen(better.said, 0, tokens, seconds, better.changes)
        else:
            chosen[index] = Chosen(first, 0, tokens, seconds)
    return [as_asked(index, one, amend) for index, one in enumerate(chosen)]


def as_asked(index: int, chosen: Chosen, amend: Mend) -> Chosen:
    """The answer that is taken with what is asked for and nothing else, if that can be said."""
    better = amend(index, chosen.said)
    if better is None:
        return chosen
    return chosen._replace(said=better.said, mended=(*chosen.mended, *better.changes))


def amending(rows: Sequence[Row], amenders_of: Callable[[int], Sequence[Amender]]) -> Mend:
    """What makes an answer say all that its row's question asks for, and nothing else."""

    def amend(index: int, said: Generation) -> MendedAnswer | None:
        row = rows[index]
        sql = extract_sql(said.text, row["context"] or "")
        changes: tuple[str, ...] = ()
        for amender in amenders_of(index) if sql else ():
            if (found := amender(sql, row["question"])) is not None:
                sql, changes = found.sql, (*changes, *found.changes)
        return MendedAnswer(replace(said, text=sql), changes) if changes else None

    return amend


def questions_asked(
    prompts: Sequence[str],
    first: Sequence[Generation],
    shown_by: Callable[[int, Generation], Showing],
    amend: Mend,
) -> list[Asked]:
    """Questions, first answers and what they show: rows where they do as `amend` has them."""
    asked = []
    for number, said in enumerate(first):
        shows = shown_by(number, said)
        if replaceable(shows) and amend(number, said):
            shows = "rows"
        asked.append(Asked(number, prompts[number], said, shows))
    return asked


def choose_for_rows(
    model: nn.Module,
    tokenizer: TokenizerWrapper,
    rows: Sequence[Row],
    prompts: Sequence[str],
    first: Sequence[Generation],
    worker: SqlWorker,
    timeout_sec: float,
    drawing: Drawing,
    mender_of: Callable[[Row], Mender | None] = lambda row: None,
    on_file: bool = False,
    by_heart: bool = False,
) -> list[Chosen]:
    """The answers to rows, each tried on the row's own context: what its user's database would be.

    A row without one keeps its first answer. `mender_of` gives what puts queries on a database
    right. What an answer left out is added where all rows ask one file (`on_file`; on contexts of
    a few rows it was not measured), what nobody asked for goes, but not from what is `by_heart`.
    """

    def run(index: int, sql: str) -> Showing:
        context = rows[index]["context"] or ""
        return showing(sql, lambda query: worker.run(context, query, timeout_sec))

    def shown_by(index: int, said: Generation) -> Showing:
        context = rows[index]["context"]
        return run(index, extract_sql(said.text, context)) if context else "rows"

    def mend(index: int, said: Generation) -> MendedAnswer | None:
        row = rows[index]
        sql = extract_sql(said.text, row["context"] or "")
        return mended_answer(mender_of(row), row["question"], sql, said, partial(shown_by, index))

    completers = [Completer(m)] if on_file and rows and (m := mender_of(rows[0])) else []

    def amenders_of(index: int) -> list[Amender]:
        if by_heart or not rows[index]["context"]:
            return [*completers]
        return [Trimmer(lambda sql: run(index, sql) == "rows"), *completers]

    amend = amending(rows, amenders_of)
    asked = questions_asked(prompts, first, shown_by, amend)
    again = sum(replaceable(one.showing) for one in asked)
    with count_answers(again * drawing.wanted, "other answers") as advance:
        return choose(model, tokenizer, asked, shown_by, drawing, mend, amend, advance)
