"""The conversation: its commands, its database, and answers as they stream."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gemma_lora.adapters import Finetuned, adapter_kind
from gemma_lora.cli import UserError
from gemma_lora.database import dump_database
from gemma_lora.figures import TUNED
from gemma_lora.files import write_atomic
from gemma_lora.generation import prompt_ids, stop_ids
from gemma_lora.prompts import alpaca_prompt, encode, render_chat, sql_prompt
from gemma_lora.replies import extract_sql
from gemma_lora.report import WIDE, rows_text
from gemma_lora.sandbox import SqlWorker
from gemma_lora.splits import Row
from gemma_lora.sql_text import schema_of

if TYPE_CHECKING:
    from rich.console import Console

MAX_SCHEMA_BYTES = 1_000_000


@dataclass
class ChatSettings:
    """How answers are made and tried; /temp and /max-tokens change theirs."""

    temp: float  # 0 is greedy
    top_p: float
    max_tokens: int
    seed: int
    show_base: bool
    sql_timeout: float  # seconds one query may run


@dataclass
class Chat:
    """What a chat knows; each model keeps its own side of the conversation."""

    tuned: Finetuned
    settings: ChatSettings
    console: Console
    worker: SqlWorker
    draw_example: Callable[[], Row]  # a row of the validation split, for /example
    system: str | None = None
    schema: str | None = None  # shown to the models
    database: str | None = None  # SQL text that rebuilds the data, for running answers
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


def set_system(chat: Chat, text: str) -> None:
    """Set or remove the text placed before the first turn."""
    chat.system = text or None
    chat.history.clear()
    chat.say(f"system text {'set' if text else 'removed'}; the conversation starts afresh")


def reset(chat: Chat, _: str) -> None:
    """Forget the conversation."""
    chat.history.clear()
    chat.say("the conversation starts afresh")


def set_temp(chat: Chat, text: str) -> None:
    """Change the sampling temperature."""
    with suppress(ValueError):
        if 0 <= float(text) <= 5:
            chat.settings.temp = float(text)
            return chat.say(f"temperature {chat.settings.temp:g}")
    raise UserError(f"/temp takes a number between 0 and 5, not '{text}'")


def set_max_tokens(chat: Chat, text: str) -> None:
    """Change how long an answer may be, in tokens."""
    if not text.isdigit() or int(text) < 1:
        raise UserError(f"/max-tokens takes a whole number above 0, not '{text}'")
    chat.settings.max_tokens = int(text)
    chat.say(f"answers of at most {chat.settings.max_tokens} tokens")


def ask_example(chat: Chat, _: str) -> None:
    """Ask a validation row and show its reference."""
    row = chat.draw_example()
    chat.history.clear()
    chat.say(f"example> {row['prompt']}")
    answer_turn(chat, row["prompt"], row.get("context") if chat.is_sql else None)
    chat.history.clear()
    chat.say(f"reference: {row['completion']}")


def save_chat(chat: Chat, text: str) -> None:
    """Write the conversation so far to a file."""
    path = Path(text).expanduser()
    if not text or path.exists():
        raise UserError(
            f"'{text}' exists already: give another name" if text else "/save takes a file name"
        )
    write_atomic(path, "\n".join(chat.transcript) + "\n")
    print(f"saved to {path}")


def use_schema(chat: Chat, text: str) -> None:
    """Ask about the tables of a SQL file."""
    path = Path(text).expanduser()
    try:
        size = path.stat().st_size
        if not path.is_file():  # a device has size 0 and no end
            raise UserError(f"cannot read the schema '{text}': it is not a file")
        if size > MAX_SCHEMA_BYTES:
            raise UserError(
                f"{path} has {size:,} bytes, more than {MAX_SCHEMA_BYTES:,}: cut it down"
            )
        sql = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the schema '{text}': {error}") from None
    take_database(chat, sql, path)


def use_db(chat: Chat, text: str) -> None:
    """Ask about a database; answers run on a copy of it."""
    path = Path(text).expanduser()
    sql, note = dump_database(path)
    take_database(chat, sql, path)
    if note:
        chat.say(note)


def quit_chat(chat: Chat, _: str) -> None:
    """Leave, as at the end of the input."""
    raise EOFError


def show_help(chat: Chat, _: str) -> None:
    """List the commands."""
    for name, command in commands(chat).items():
        chat.say(f"  {f'{name} {command.argument}'.strip():22} {command.about}")


@dataclass(frozen=True)
class Command:
    """What a line that begins with a slash does."""

    act: Callable[[Chat, str], None]  # given the chat and what follows the name
    argument: str  # how /help names what follows, '' for nothing
    about: str


def commands(chat: Chat) -> dict[str, Command]:
    """The chat's commands by name, in the order of /help."""
    found = {
        "/help": Command(show_help, "", "list the commands"),
        "/system": Command(
            set_system, "TEXT", "instruction placed before the first turn; alone: none"
        ),
        "/reset": Command(reset, "", "forget the conversation"),
        "/temp": Command(set_temp, "N", "sampling temperature, 0 is greedy"),
        "/max-tokens": Command(set_max_tokens, "N", "longest answer in tokens"),
        "/example": Command(ask_example, "", "ask a validation row and show its reference"),
        "/save": Command(save_chat, "FILE", "write the conversation so far"),
    }
    if chat.is_sql:
        found["/schema"] = Command(use_schema, "FILE.sql", "ask about the tables of this SQL file")
        found["/db"] = Command(
            use_db, "FILE.sqlite", "ask about this database; answers run on a copy"
        )
    return found | {"/quit": Command(quit_chat, "", "leave (also Ctrl-D)")}


def take_database(chat: Chat, sql: str, path: Path) -> None:
    """Make a schema the subject of the chat, after seeing that it loads."""
    if not chat.is_sql:
        raise UserError("schemas and databases are for adapters trained on SQL")
    schema = schema_of(sql)
    if not schema:
        raise UserError(f"{path} holds no CREATE statement")
    tried = chat.worker.run(sql, "SELECT 1", 10 * chat.settings.sql_timeout)
    if tried.status != "ok":
        raise UserError(f"{path} does not load into SQLite: {tried.error}")
    ids = encode(chat.tuned.tokenizer, schema)
    limit = getattr(chat.tuned.model.args, "max_position_embeddings", math.inf)
    if len(ids) + chat.settings.max_tokens > limit:
        raise UserError(
            f"the schema of {path} takes {len(ids):,} tokens; the model reads {limit:,}"
        )
    chat.schema, chat.database = schema, sql
    chat.history.clear()
    tables = schema.upper().count("CREATE TABLE")
    chat.say(
        f"asking about {path}: {tables} table{'s' if tables != 1 else ''}, {len(ids):,} tokens"
    )


def answer_turn(chat: Chat, text: str, database: str | None) -> None:
    """Stream the answer of each model to one user turn, and run its SQL where there is data."""
    names = {"base": "base"} if chat.settings.show_base else {}
    names |= {TUNED: "finetuned"}
    wide = chat.console.is_terminal and chat.console.width >= WIDE
    with stacked(chat) if len(names) == 1 or not wide else side_by_side(chat, list(names)) as show:
        for name, which in names.items():
            turns = [*chat.history.get(name, []), ("user", text)]
            answer, facts = stream_answer(chat, which, turns, partial(show, name))
            show(name, f"\n[{facts}]\n")
            chat.history[name] = [*turns, ("model", answer)]
            chat.transcript.append(f"{name}> {answer}\n[{facts}]")
            if database and (sql := extract_sql(answer, chat.schema or "")):
                table = run_answer(chat, sql, database)
                show(name, table + "\n")
                chat.transcript.append(table)


def stream_answer(
    chat: Chat, which: Any, turns: Sequence[tuple[str, str]], show: Callable[[str], None]
) -> tuple[str, str]:
    """(answer, line of facts) of one model; Ctrl-C ends the answer and keeps what was said."""
    import mlx.core as mx
    from mlx_lm.generate import stream_generate
    from mlx_lm.sample_utils import make_sampler

    model, tokenizer, settings = chat.tuned.use(which), chat.tuned.tokenizer, chat.settings
    tokenizer.eos_token_ids = stop_ids(tokenizer)
    rendered = render_chat(turns, chat.system)
    ids = prompt_ids(model, tokenizer, rendered, settings.max_tokens)
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


def run_answer(chat: Chat, sql: str, database: str) -> str:
    """Run an answer's SQL on a throw-away copy; its rows as text, or why there are none."""
    result = chat.worker.run(database, sql, chat.settings.sql_timeout, max_rows=20)
    if result.status != "ok":
        return f"  the query did not run ({result.status}): {result.error}"
    if result.state is not None:
        return f"  this {result.kind} statement ran on a copy; your data are as they were"
    lines = (
        [" | ".join(result.columns), *rows_text(result.rows).split("\n")]
        if result.rows
        else ["no rows"]
    )
    return "\n".join(f"  {line}" for line in lines) + ("\n  ..." if result.truncated else "")


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


def take_line(chat: Chat, line: str) -> None:
    """Obey a command or answer a question; a mistake is one line and the chat goes on."""
    try:
        if line.startswith("/"):
            name, _, argument = line.partition(" ")
            command = commands(chat).get(name)
            if command is None:
                raise UserError(f"there is no {name}: /help lists the commands")
            return command.act(chat, argument.strip())
        chat.transcript.append(f"you> {line}")
        prompt = sql_prompt(line, chat.schema) if chat.is_sql else alpaca_prompt(line, None)
        answer_turn(chat, prompt, chat.database)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)


def converse(chat: Chat, typing: bool) -> None:
    """Read lines and answer them until the input ends; `typing` when a person sits there."""
    if typing:
        print("Ask away; /help lists the commands, Ctrl-C stops an answer, Ctrl-D leaves.")
    while True:
        try:
            line = input("you> " if typing else "").strip()
            if line:
                take_line(chat, line)
        except KeyboardInterrupt:
            print()
        except EOFError:
            return
