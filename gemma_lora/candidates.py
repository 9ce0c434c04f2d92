"""The first answer that runs and shows something: others are drawn only where the first does not.

Execution-guided selection, as in "Query and Conquer" (arXiv 2503.24364), without a vote: of the
answers in the order in which they were drawn the first that returns a value is taken; where none
does, the first answer as `mending` puts it right. On a user's file the one that is taken gets what
it left out of the question (`omitted_conditions`). It is chosen by what the database returns, never
by a reference. A statement that would write is final: it is neither run here nor drawn again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

from gemma_lora.confinement import WRITING_KINDS
from gemma_lora.generation import Generation, generate_several
from gemma_lora.mending import Mender
from gemma_lora.omitted_conditions import Completer
from gemma_lora.progress import count_answers
from gemma_lora.replies import extract_sql
from gemma_lora.sandbox import SqlWorker
from gemma_lora.splits import Row
from gemma_lora.sql_text import statement_kind

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
    complete: Mend = lambda index, said: None,
    advance: Callable[[int], None] = lambda n: None,
) -> list[Chosen]:
    """Draw other answers where the first shows nothing; of each the first that shows rows.

    `shown_by` runs the query of an answer to the question at an index of `asked`. Where no answer
    shows rows, the first is taken as `mend` puts it right, if it can. `complete` gives an answer
    with what it left out.
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
    return [with_all_asked(index, one, complete) for index, one in enumerate(chosen)]


def with_all_asked(index: int, chosen: Chosen, complete: Mend) -> Chosen:
    """The answer that is taken with what it left out, if that can be said."""
    fuller = complete(index, chosen.said)
    if fuller is None:
        return chosen
    return chosen._replace(said=fuller.said, mended=(*chosen.mended, *fuller.changes))


def completing(rows: Sequence[Row], mender: Mender | None) -> Mend:
    """What adds to an answer what it left out of its row's question; nothing without a mender."""
    completer = Completer(mender) if mender else None

    def complete(index: int, said: Generation) -> MendedAnswer | None:
        row = rows[index]
        sql = extract_sql(said.text, row["context"] or "")
        found = completer(sql, row["question"]) if completer and sql else None
        return MendedAnswer(replace(said, text=found.sql), found.changes) if found else None

    return complete


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
) -> list[Chosen]:
    """The answers to rows, each tried on the row's own context: what its user's database would be.

    A row without a context has nothing to run on, and keeps its first answer. `mender_of` gives
    what puts queries on a row's database right. Where all rows ask one file (`on_file`), what an
    answer left out is added too; on rows' own contexts, of a few rows, that was not measured.
    """

    def shown_by(index: int, said: Generation) -> Showing:
        context = rows[index]["context"]
        if not context:
            return "rows"
        sql = extract_sql(said.text, context)
        return showing(sql, lambda query: worker.run(context, query, timeout_sec))

    def mend(index: int, said: Generation) -> MendedAnswer | None:
        row = rows[index]
        sql = extract_sql(said.text, row["context"] or "")
        return mended_answer(mender_of(row), row["question"], sql, said, partial(shown_by, index))

    complete = completing(rows, mender_of(rows[0]) if on_file and rows else None)
    asked = [
        Asked(number, prompts[number], said, shown_by(number, said))
        for number, said in enumerate(first)
    ]
    again = sum(replaceable(one.showing) for one in asked)
    with count_answers(again * drawing.wanted, "other answers") as advance:
        return choose(model, tokenizer, asked, shown_by, drawing, mend, complete, advance)
