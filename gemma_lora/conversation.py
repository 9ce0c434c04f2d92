"""One turn of a chat: what the models are shown, their answers as they stream, the rows."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from gemma_lora.adapters import Finetuned, adapter_kind
from gemma_lora.database import Database, Relation
from gemma_lora.figures import TUNED
from gemma_lora.generation import prompt_ids, stop_ids
from gemma_lora.prompts import alpaca_prompt, encode, render_chat
from gemma_lora.replies import extract_sql
from gemma_lora.report import WIDE
from gemma_lora.result_table import UNLIMITED, result_text
from gemma_lora.sandbox import SqlWorker
from gemma_lora.schema_prompt import (
    SCHEMA_TOKENS,
    RenderedQuestion,
    prompt_form,
    render_question,
)
from gemma_lora.splits import Row

if TYPE_CHECKING:
    from rich.console import Console

ROWS_SHOWN = 20
PROMPT_REST = 64  # tokens of a prompt besides question and schema, with room to spare


@dataclass
class ChatSettings:
    """How answers are made and tried; the chat's commands change them."""

    temp: float  # 0 is greedy
    top_p: float
    max_tokens: int
    seed: int | None  # each answer is drawn anew from it; None: the draws go on
    show_base: bool
    sql_timeout: float  # seconds one query may run
    history: bool = False  # whether earlier turns are shown: adapters are trained on single ones
    run_queries: bool = True
    candidates: int = 0  # answers drawn where the first fails or returns nothing


class Query(NamedTuple):
    """A question, the fine-tuned model's query for it, and what it asks."""

    question: str
    sql: str
    database: Database


@dataclass
class Chat:
    """What a chat knows; each model keeps its own side of the conversation."""

    tuned: Finetuned
    settings: ChatSettings
    console: Console
    worker: SqlWorker  # for databases given as SQL text
    draw_example: Callable[[], Row]  # a row of the validation split, for /example
    log_path: Path | None = None  # where /right and /wrong keep questions
    system: str | None = None
    database: Database | None = None  # what is asked
    relations: list[Relation] = field(default_factory=list)  # its tables and views
    answered: Query | None = None  # the last answer that held SQL
    has_rows: Query | None = None  # the last that ran, for /csv
    history: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    transcript: list[str] = field(default_factory=list)

    @property
    def is_sql(self) -> bool:
        """Whether the adapter was trained to write SQL."""
        return adapter_kind(self.tuned) == "sql"

    def say(self, text: str = "") -> None:
        """Print a line of the program's own, and keep it for /save."""
        print(text, flush=True)
        self.transcript.append(text)


def count_tokens(chat: Chat, text: str) -> int:
    """Tokens of a text."""
    return len(encode(chat.tuned.tokenizer, text))


def schema_budget(chat: Chat, question: str) -> int:
    """Tokens that a schema may take in the prompt of a question."""
    limit = getattr(chat.tuned.model.args, "max_position_embeddings", math.inf)
    taken = chat.settings.max_tokens + count_tokens(chat, question) + PROMPT_REST
    return int(min(SCHEMA_TOKENS, limit - taken))


def render(chat: Chat, question: str) -> RenderedQuestion:
    """A question as the adapter was trained to read it."""
    if not chat.is_sql:
        text = alpaca_prompt(question, None)
        return RenderedQuestion(text, text, None)
    count = partial(count_tokens, chat)
    form, budget = prompt_form(chat.tuned.config), schema_budget(chat, question)
    return render_question(question, chat.relations, form, count, budget)


def ask(chat: Chat, question: str, run: bool) -> None:
    """Answer a question of the user's, about the database when there is one."""
    chat.transcript.append(f"you> {question}")
    if chat.database is not None:
        chat.relations = chat.database.relations()  # another program may have made a table
    rendered = render(chat, question)
    if rendered.note:
        chat.say(rendered.note)
    answer_turn(chat, question, rendered, chat.database, run)


def answer_turn(
    chat: Chat, question: str, rendered: RenderedQuestion, database: Database | None, run: bool
) -> None:
    """Stream the answer of each model to one user turn, and run its SQL where there is data."""
    names: dict[str, Literal["base", "finetuned"]] = {"base": "base"}
    names = (names if chat.settings.show_base else {}) | {TUNED: "finetuned"}
    wide = chat.console.is_terminal and chat.console.width >= WIDE and len(names) > 1
    width = chat.console.width if chat.console.is_terminal else UNLIMITED
    width = chat.console.width // 2 - 2 if wide else width
    with side_by_side(chat, list(names)) if wide else stacked(chat) as show:
        for name, which in names.items():
            earlier = chat.history.get(name, []) if chat.settings.history else []
            turns = [*earlier, ("user", rendered.prompt)]
            answer, facts = stream_answer(chat, which, turns, partial(show, name))
            show(name, f"\n[{facts}]\n")
            chat.history[name] = [*earlier, ("user", rendered.bare), ("model", answer)]
            chat.transcript.append(f"{name}> {answer}\n[{facts}]")
            sql = extract_sql(answer, rendered.prompt)
            if database is None or not sql:
                continue
            query = Query(question, sql, database)
            chat.answered = query if name == TUNED else chat.answered
            if run:
                shown = run_query(chat, query, width, name == TUNED)
                show(name, shown + "\n")
                chat.transcript.append(shown)


def run_query(chat: Chat, query: Query, width: int, keep: bool) -> str:
    """Run a query; its rows as a table, or why there are none. `keep` it for /csv."""
    try:
        result = query.database.run(query.sql, max_rows=ROWS_SHOWN)
    except KeyboardInterrupt:
        return "the query was stopped"
    if keep and result.status == "ok" and not result.note:
        chat.has_rows = query
    return result_text(result, ROWS_SHOWN, width)


def stream_answer(
    chat: Chat,
    which: Literal["base", "finetuned"],
    turns: Sequence[tuple[str, str]],
    show: Callable[[str], None],
) -> tuple[str, str]:
    """(answer, line of facts) of one model; Ctrl-C ends the answer and keeps what was said."""
    import mlx.core as mx
    from mlx_lm.generate import stream_generate
    from mlx_lm.sample_utils import make_sampler

    model, tokenizer, settings = chat.tuned.use(which), chat.tuned.tokenizer, chat.settings
    tokenizer.eos_token_ids = stop_ids(tokenizer)
    rendered = render_chat(turns, chat.system)
    ids = prompt_ids(model, tokenizer, rendered, settings.max_tokens)
    if settings.seed is not None:
        mx.random.seed(settings.seed)
    sampler = make_sampler(settings.temp, top_p=settings.top_p)
    text, reason, tokens, speed, first = "", "interrupted", 0, 0.0, None
    start = time.perf_counter()
    try:
        for part in stream_generate(
            model, tokenizer, ids, max_tokens=settings.max_tokens, sampler=sampler
        ):
            first = first if first is not None else time.perf_counter() - start
            text += part.text
            show(part.text)
            tokens, speed = part.generation_tokens, part.generation_tps
            reason = part.finish_reason or reason
    except KeyboardInterrupt:
        reason = "interrupted"
    wait = f", first after {first:.1f} s" if first is not None else ""
    return text, f"{tokens} tokens, {speed:.1f} tokens/s{wait}, {reason}"


@contextmanager
def stacked(chat: Chat) -> Iterator[Callable[[str, str], None]]:
    """Print pieces as they come, one model after the other."""
    last: list[str] = []

    def show(name: str, piece: str) -> None:
        if last != [name]:
            last[:] = [name]
            print(f"{name}> ", end="")
        print(piece, end="", flush=True)

    yield show


@contextmanager
def side_by_side(chat: Chat, names: Sequence[str]) -> Iterator[Callable[[str, str], None]]:
    """Stream pieces into one column for each model."""
    from rich.live import Live
    from rich.table import Table
    from rich.text import Text

    texts = dict.fromkeys(names, "")

    def grid() -> Table:
        table = Table(box=None, expand=True, padding=(0, 2, 0, 0))
        for name in names:
            table.add_column(name, ratio=1)
        table.add_row(*(Text(texts[name]) for name in names))
        return table

    with Live(
        grid(), console=chat.console, refresh_per_second=8, vertical_overflow="visible"
    ) as live:

        def show(name: str, piece: str) -> None:
            texts[name] += piece
            live.update(grid())

        yield show
