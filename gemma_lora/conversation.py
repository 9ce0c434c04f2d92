"""One turn of a chat: what the models are shown, their answers as they stream, the rows."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from gemma_lora.adapters import Finetuned, adapter_kind
from gemma_lora.candidates import (
    Asked,
    Drawing,
    MendedAnswer,
    Showing,
    choose,
    mended_answer,
    new_seed,
    replaceable,
    showing,
)
from gemma_lora.confidence import Confidence
from gemma_lora.context_rows import first_rows
from gemma_lora.database import Database, QueryResult, Relation
from gemma_lora.doubt import Named, doubts
from gemma_lora.figures import TUNED
from gemma_lora.generation import Generation, GreedyHead, prompt_ids, stop_ids
from gemma_lora.mending import Amender, Mender
from gemma_lora.named_values import Texts
from gemma_lora.prompts import alpaca_prompt, encode, render_chat
from gemma_lora.replies import extract_sql
from gemma_lora.report import WIDE
from gemma_lora.result_table import UNLIMITED, result_text
from gemma_lora.sandbox import SqlWorker
from gemma_lora.schema_prompt import RenderedQuestion, listed, render_question, schema_budget
from gemma_lora.splits import Row, form_of

if TYPE_CHECKING:
    from rich.console import Console

ROWS_SHOWN = 20
CANDIDATE_TOKENS = 128  # the longest of other answers: one that rambles is no query
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
    confidence: Confidence | None = None  # from when on the adapter is sure
    system: str | None = None
    database: Database | None = None  # what is asked
    relations: list[Relation] = field(default_factory=list)  # its tables and views
    known: list[Named] = field(default_factory=list)  # what questions can name of it
    texts: Texts = field(default_factory=dict)  # those that prompts say the columns of
    mender: Mender | None = None  # puts queries on it right
    amenders: Sequence[Amender] = ()  # add what they leave out, leave out what nobody asked for
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


def room_for_schema(chat: Chat, question: str) -> int:
    """Tokens that a schema may take in the prompt of a question."""
    limit = getattr(chat.tuned.model.args, "max_position_embeddings", math.inf)
    times = 2 if form_of(chat.tuned.config).twice else 1
    taken = times * count_tokens(chat, question) + PROMPT_REST
    trained = schema_budget(chat.tuned.config, taken)
    return int(min(trained, limit - taken - chat.settings.max_tokens))


def render(chat: Chat, question: str) -> RenderedQuestion:
    """A question as the adapter was trained to read it."""
    if not chat.is_sql:
        text = alpaca_prompt(question, None)
        return RenderedQuestion(text, text, None)
    count, budget = partial(count_tokens, chat), room_for_schema(chat, question)
    form, rows_of = form_of(chat.tuned.config), partial(first_rows, chat.database)
    return render_question(question, chat.relations, form, count, budget, rows_of, chat.texts)


def ask(chat: Chat, question: str, run: bool) -> None:
    """Answer a question of the user's, about the database when there is one."""
    chat.transcript.append(f"you> {question}")
    if chat.database is not None:
        chat.relations = chat.database.relations()  # another program may have made a table
    rendered = render(chat, question)
    if rendered.note:
        chat.say(rendered.note)
    answer_turn(chat, question, rendered, chat.database, run)


class Reply(NamedTuple):
    """What a model said in a turn."""

    text: str
    facts: str  # length, speed and ending, in words
    reason: str  # "stop" | "length" | "interrupted"
    tokens: int = 0
    lowest_logprob: float = 0.0  # of its least likely token, in nats


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
            say = partial(show, name)
            reply = stream_answer(chat, which, turns, say)
            say(f"\n[{reply.facts}]\n")
            chat.transcript.append(f"{name}> {reply.text}\n[{reply.facts}]")
            said = reply.text
            if database is not None:
                turn = Turn(question, rendered, turns, database, name, width)
                said = follow_up(chat, turn, reply, run, say)
            chat.history[name] = [*earlier, ("user", rendered.bare), ("model", said)]


class Turn(NamedTuple):
    """A question to one model about a database, and how wide its rows may be."""

    question: str
    rendered: RenderedQuestion
    turns: list[tuple[str, str]]  # what the model was shown
    database: Database
    name: str  # of the model
    width: int  # columns of the terminal

    def query(self, text: str) -> Query | None:
        """The query of an answer to it."""
        sql = extract_sql(text, self.rendered.prompt)
        return Query(self.question, sql, self.database) if sql else None


def follow_up(chat: Chat, turn: Turn, reply: Reply, run: bool, show: Callable[[str], None]) -> str:
    """Run an answer's query, say how sure it is, try others if it shows nothing; the one taken."""

    def say(text: str) -> None:
        show(f"{text}\n")
        chat.transcript.append(text)

    query = turn.query(reply.text)
    others = chat.settings.candidates if turn.name == TUNED else 0  # the base would never end
    if turn.name == TUNED:
        chat.answered = None if reply.reason == "interrupted" else query
    if reply.reason == "interrupted":
        say("stopped: what there is of an answer is not run")
        return reply.text
    doubt = doubt_about(chat, turn, query, reply.lowest_logprob)
    if query is None or not run:
        if query and doubt:
            say(doubt)
        if query or not (run and others):
            return reply.text
    try:
        shows = run_first(chat, turn, query, doubt, say)
        if others and shows != "writes" and show_amended(chat, turn, say):
            return reply.text
    except KeyboardInterrupt:
        say("the query was stopped")
        return reply.text
    if not (others and replaceable(shows)):
        return reply.text
    try:
        taken = try_others(chat, turn, reply, others, say)
        show_amended(chat, turn, say)
        return taken
    except KeyboardInterrupt:
        say("stopped: the first answer stands")
        return reply.text


def run_first(
    chat: Chat, turn: Turn, query: Query | None, doubt: str | None, say: Callable[[str], None]
) -> Showing:
    """Show the rows of the first answer, doubt ahead of them; what they show."""
    if query is None:
        say("this is no query")
        return "fails"
    result = run_query(query)
    shows = showing(query.sql, lambda _: result)
    if doubt and (shows == "rows" or not chat.settings.candidates):
        say(doubt)
    show_result(chat, turn, query, result, say)
    return shows


def try_others(
    chat: Chat, turn: Turn, reply: Reply, wanted: int, say: Callable[[str], None]
) -> str:
    """Draw other answers and take the first that returns rows; returns the answer that is taken."""
    say(f"so {wanted} other answers are drawn ...")
    tried: list[tuple[Query, QueryResult]] = []

    def shown_by(_: int, answer: Generation) -> Showing:
        query = turn.query(answer.text)
        if query is None:
            return "fails"
        tried.append((query, run_query(query)))
        return showing(query.sql, lambda _: tried[-1][1])

    def mend(index: int, answer: Generation) -> MendedAnswer | None:
        query = turn.query(answer.text)
        mender = chat.mender if turn.database is chat.database else None
        sql = query.sql if query else ""
        return mended_answer(mender, turn.question, sql, answer, partial(shown_by, index))

    settings = chat.settings
    seed = settings.seed if settings.seed is not None else new_seed()
    longest = min(settings.max_tokens, CANDIDATE_TOKENS)
    first = Generation(reply.text, 0, reply.tokens, reply.reason, 0.0)
    asked = Asked(0, render_chat(turn.turns, chat.system), first, "fails")
    model = chat.tuned.use("finetuned")
    drawing = Drawing(wanted, longest, seed, wanted)
    [chosen] = choose(model, chat.tuned.tokenizer, [asked], shown_by, drawing, mend)
    if not chosen.candidate and not chosen.mended:
        say("none of them returns rows either; I am not sure of the first")
        return reply.text
    query, result = tried[-1]
    chat.answered = query
    taken = f"number {chosen.candidate} of them returns rows"
    if chosen.mended:
        taken = f"none of them returns rows; the first does with {listed(chosen.mended)}"
    say(f"{taken}; I am not sure of it:\n{query.sql}")
    show_result(chat, turn, query, result, say)
    return chosen.said.text


def show_amended(chat: Chat, turn: Turn, say: Callable[[str], None]) -> bool:
    """Show the answer as its question asks for it, where it is another; whether that was so."""
    before = chat.answered
    for amender in chat.amenders:
        first = chat.answered
        if first and (found := amender(first.sql, turn.question)):
            query = chat.answered = Query(turn.question, found.sql, turn.database)
            say(f"with {listed(found.changes)}, {amender.why}; I am not sure of it:\n{query.sql}")
            show_result(chat, turn, query, run_query(query), say)
    return chat.answered is not before


def run_query(query: Query) -> QueryResult:
    """The first rows of a query. KeyboardInterrupt ends it."""
    return query.database.run(query.sql, max_rows=ROWS_SHOWN)


def show_result(
    chat: Chat, turn: Turn, query: Query, result: QueryResult, say: Callable[[str], None]
) -> None:
    """A query's rows as a table, or why there are none; /csv saves those of the fine-tuned."""
    if turn.name == TUNED and result.status == "ok" and not result.note:
        chat.has_rows = query
    say(result_text(result, ROWS_SHOWN, turn.width))


def doubt_about(chat: Chat, turn: Turn, query: Query | None, logprob: float) -> str | None:
    """Why the fine-tuned model is not sure of a query; `logprob` of its least likely token."""
    if query is None or turn.name != TUNED:
        return None
    known = chat.known if turn.database is chat.database else []
    reasons = doubts(turn.question, query.sql, logprob, chat.confidence, known)
    return f"I am not sure: {'; '.join(reasons)}" if reasons else None


def stream_answer(
    chat: Chat,
    which: Literal["base", "finetuned"],
    turns: Sequence[tuple[str, str]],
    show: Callable[[str], None],
) -> Reply:
    """The answer of one model; Ctrl-C ends it and keeps what was said."""
    import mlx.core as mx
    from mlx_lm.generate import stream_generate
    from mlx_lm.sample_utils import make_sampler

    model, tokenizer, settings = chat.tuned.use(which), chat.tuned.tokenizer, chat.settings
    tokenizer.eos_token_ids = stop_ids(tokenizer)
    ids = prompt_ids(model, tokenizer, render_chat(turns, chat.system), settings.max_tokens)
    if settings.seed is not None:
        mx.random.seed(settings.seed)
    sampler = make_sampler(settings.temp, top_p=settings.top_p)
    text, reason, tokens, speed, first, lowest = "", "interrupted", 0, 0.0, None, 0.0
    start = time.perf_counter()
    with suppress(KeyboardInterrupt):
        for part in stream_generate(
            model, tokenizer, ids, max_tokens=settings.max_tokens, sampler=sampler
        ):
            first = first if first is not None else time.perf_counter() - start
            text += part.text
            show(part.text)
            tokens, speed = part.generation_tokens, part.generation_tps
            lowest = min(lowest, GreedyHead.logprob(part.token, part.logprobs))
            reason = part.finish_reason or reason
    wait = "" if first is None else f", first after {first:.1f} s"
    pace = f", {speed:.1f} tokens/s" if tokens > 1 else ""  # one takes no time that is measured
    facts = f"{tokens} token{'s' * (tokens != 1)}{pace}{wait}, {reason}"
    return Reply(text, facts, reason, tokens, lowest)


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
