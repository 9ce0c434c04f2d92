"""The commands of a chat, and the loop that reads lines."""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from gemma_lora.candidates import showing
from gemma_lora.cli import UserError
from gemma_lora.conversation import (
    ROWS_SHOWN,
    Chat,
    Query,
    answer_turn,
    ask,
    count_tokens,
    room_for_schema,
)
from gemma_lora.database import FILE_TIMEOUT_SEC, Database, DatabaseFile, DatabaseText, Relation
from gemma_lora.doubt import known_names
from gemma_lora.files import write_atomic
from gemma_lora.mending import KEPT_VALUES, Mender
from gemma_lora.named_values import stored_texts
from gemma_lora.omitted_conditions import Completer
from gemma_lora.result_table import csv_lines, result_text
from gemma_lora.schema_prompt import RenderedQuestion, schema_in_words, shown_in_words
from gemma_lora.schema_reading import hash_of_schema
from gemma_lora.splits import form_of
from gemma_lora.table_links import schema_of_file, schema_of_text
from gemma_lora.unasked_conditions import Trimmer

MAX_SCHEMA_BYTES = 1_000_000
MAX_CANDIDATES = 64


def set_system(chat: Chat, text: str) -> None:
    """Set or remove the text placed before the first turn."""
    chat.system = text or None
    chat.history.clear()
    chat.say(f"system text {'set' if text else 'removed'}; the conversation starts afresh")


def reset(chat: Chat, _: str) -> None:
    """Forget the conversation."""
    chat.history.clear()
    chat.say("the conversation starts afresh")


def set_history(chat: Chat, text: str) -> None:
    """Show earlier turns to the models, or let each question stand alone."""
    if text not in ("on", "off"):
        raise UserError(f"/history takes on or off, not '{text}'")
    chat.settings.history = text == "on"
    chat.history.clear()
    alone = "each question stands alone, as in training"
    chat.say("from here on earlier turns are shown" if chat.settings.history else alone)


def set_temp(chat: Chat, text: str) -> None:
    """Change the sampling temperature."""
    with suppress(ValueError):
        if 0 <= float(text) <= 5:
            chat.settings.temp = float(text)
            return chat.say(f"temperature {chat.settings.temp:g}")
    raise UserError(f"/temp takes a number between 0 and 5, not '{text}'")


def set_seed(chat: Chat, text: str) -> None:
    """Draw each answer anew from a seed, or let the draws go on."""
    if text and not (text.isdecimal() and int(text) < 2**63):
        raise UserError(f"/seed takes a whole number, or nothing for new draws, not '{text}'")
    chat.settings.seed = int(text) if text else None
    chat.say(f"every answer is drawn from seed {text}" if text else "every answer is a new draw")


def set_max_tokens(chat: Chat, text: str) -> None:
    """Change how long an answer may be, in tokens."""
    if not text.isdecimal() or int(text) < 1:
        raise UserError(f"/max-tokens takes a whole number above 0, not '{text}'")
    chat.settings.max_tokens = int(text)
    chat.say(f"answers of at most {chat.settings.max_tokens} tokens")


def set_candidates(chat: Chat, text: str) -> None:
    """Change how many answers are drawn where the first fails or returns nothing."""
    if not text.isdecimal() or int(text) > MAX_CANDIDATES:
        raise UserError(f"/candidates takes a number between 0 and {MAX_CANDIDATES}, not '{text}'")
    chat.settings.candidates = int(text)
    drawn = f"{text} others are drawn where the first answer returns nothing"
    chat.say(drawn if chat.settings.candidates else "no other answers are drawn")


def ask_example(chat: Chat, _: str) -> None:
    """Ask a validation row and show its reference."""
    row = chat.draw_example()
    chat.history.clear()
    chat.say(f"example> {row['prompt']}")
    context = row.get("context") if chat.is_sql else None
    database = DatabaseText(context, chat.worker, chat.settings.sql_timeout) if context else None
    rendered = RenderedQuestion(row["prompt"], row["prompt"], None)
    answer_turn(chat, row.get("question") or row["prompt"], rendered, database, run=True)
    chat.history.clear()
    chat.say(f"reference: {row['completion']}")


def path_of(text: str) -> Path:
    """What somebody typed as a path, also '~/file'; UserError when it can be none."""
    path = Path(text)
    try:
        path = path.expanduser()
        path.exists()
    except (OSError, RuntimeError) as error:
        raise UserError(f"'{text}' is no path that can be used: {error}") from None
    return path


def new_file(text: str, command: str) -> Path:
    """A path that a command may write to; UserError when there is something."""
    path = path_of(text)
    if not text or path.exists():
        raise UserError(
            f"'{text}' exists already: give another name"
            if text
            else f"{command} takes a file name"
        )
    return path


def save_chat(chat: Chat, text: str) -> None:
    """Write the conversation so far to a file."""
    path = new_file(text, "/save")
    write_atomic(path, "\n".join(chat.transcript) + "\n")
    print(f"saved to {path}")


def save_rows(chat: Chat, text: str) -> None:
    """Write the last result to a file, all rows and whole values: its query runs again."""
    path = new_file(text, "/csv")
    if chat.has_rows is None:
        raise UserError("there is no result to save: ask something that returns rows first")
    write_atomic(path, csv_lines(chat.has_rows.database.stream(chat.has_rows.sql)))
    query = " ".join(chat.has_rows.sql.split())
    query = query if len(query) <= 60 else f"{query[:57]}..."
    chat.say(f"saved to {path}: {path.stat().st_size:,} bytes, the result of {query}")


def show_sql(chat: Chat, text: str) -> None:
    """Answer a question with its query alone; or do so from now on."""
    if text in ("on", "off"):
        chat.settings.run_queries = text == "off"
        running = "queries run, and their rows are shown"
        return chat.say(running if text == "off" else "queries are shown and not run")
    if not text:
        raise UserError("/sql takes a question, on or off")
    ask(chat, text, run=False)


def keep_right(chat: Chat, _: str) -> None:
    """Keep the last question with the model's query as right."""
    answered = last_answer(chat, "/right")
    keep_question(chat, answered.question, answered.sql)


def keep_correction(chat: Chat, sql: str) -> None:
    """Keep the last question with the query that would have been right, once it runs."""
    answered = last_answer(chat, "/wrong SQL")
    if not sql:
        raise UserError("/wrong takes the query that would have been right")
    result = answered.database.run(sql, max_rows=ROWS_SHOWN)
    shown = result_text(result, ROWS_SHOWN, chat.console.width)
    if result.status != "ok" or result.note:
        raise UserError(f"not kept: {shown}")
    chat.say(shown)
    chat.has_rows = Query(answered.question, sql, answered.database)
    keep_question(chat, answered.question, sql)


def last_answer(chat: Chat, command: str) -> Query:
    """The last question and its query; UserError without one or without a file to keep it in."""
    if chat.log_path is None:
        raise UserError(f"{command} needs a file to keep questions in: start with --log-questions")
    if chat.answered is None:
        raise UserError(f"{command} is about the last answer, and there is none with a query")
    return chat.answered


def keep_question(chat: Chat, question: str, sql: str) -> None:
    """Add a line of JSON to the file of kept questions."""
    assert chat.log_path
    line = json.dumps({"question": question, "sql": sql}) + "\n"
    try:
        chat.log_path.parent.mkdir(parents=True, exist_ok=True)
        with chat.log_path.open("a+b") as file:
            if file.tell():
                file.seek(-1, os.SEEK_END)
                line = line if file.read() == b"\n" else f"\n{line}"  # a person wrote the last one
            file.write(line.encode())
    except OSError as error:
        raise UserError(f"cannot write {chat.log_path}: {error}") from None
    chat.say(f"kept in {chat.log_path}: {' '.join(question.split())}")


def use_schema(chat: Chat, text: str) -> None:
    """Ask about the tables of a SQL file."""
    path = path_of(text)
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
    database = DatabaseText(sql, chat.worker, chat.settings.sql_timeout)
    relations = database.relations()
    if not relations:
        raise UserError(f"{path} holds no CREATE statement")
    tried = chat.worker.run(sql, "SELECT 1", 10 * chat.settings.sql_timeout)
    if tried.status != "ok":
        raise UserError(f"{path} does not load into SQLite: {tried.error}")
    take_database(chat, database, relations, path)


def use_db(chat: Chat, text: str) -> None:
    """Ask about a SQLite file; it is read and never written."""
    path = path_of(text)
    database = DatabaseFile(path, max(FILE_TIMEOUT_SEC, chat.settings.sql_timeout))
    try:
        relations = database.relations()
        if not relations:
            raise UserError(f"{path} holds no tables")
        take_database(chat, database, relations, path)
    except UserError:
        database.close()
        raise
    if database.note:
        chat.say(database.note)


def take_database(chat: Chat, database: Database, relations: list[Relation], path: Path) -> None:
    """Make a database the subject of the chat, when its prompts fit the model."""
    if not chat.is_sql:
        raise UserError("schemas and databases are for adapters trained on SQL")
    trained = chat.tuned.config.get("database")
    schema_hash = hash_of_schema({r.name: r.sql for r in relations})
    learnt = trained is None or schema_hash == trained["schema_hash"]
    form = form_of(chat.tuned.config).context
    shown = shown_in_words(form, learnt)
    if not shown:
        budget = room_for_schema(chat, "")
        limit = getattr(chat.tuned.model.args, "max_position_embeddings", budget)
        shown = schema_in_words(relations, partial(count_tokens, chat), budget, limit)
    if isinstance(chat.database, DatabaseFile):
        chat.database.close()
    chat.database, chat.relations = database, relations
    chat.known = known_names(database)
    chat.texts = stored_texts(database) if form == "values" else {}
    if isinstance(database, DatabaseFile):
        read = partial(schema_of_file, database.path)
    else:
        read = partial(schema_of_text, "\n".join(f"{r.sql};" for r in relations))
    chat.mender = Mender(read, lambda sql: database.run(sql, KEPT_VALUES).rows)
    trimmer = Trimmer(lambda sql: showing(sql, lambda q: database.run(q, KEPT_VALUES)) == "rows")
    completers = [Completer(chat.mender)] if isinstance(database, DatabaseFile) else []
    chat.amenders = completers if trained else [trimmer, *completers]
    chat.answered = chat.has_rows = None
    chat.history.clear()
    count = f"{len(relations)} table{'s' * (len(relations) != 1)}"
    views = sum(r.kind == "view" for r in relations)
    count += f" ({views} of them view{'s' * (views != 1)})" if views else ""
    chat.say(f"asking about {path}: {count}, {shown}")
    if trained and not learnt:
        chat.say(
            f"the adapter was trained for {trained['name']} with another schema: prepare and train "
            "again with `python dataset.py --db`, or expect wrong names"
        )


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
        "/history": Command(set_history, "on|off", "whether the models are shown earlier turns"),
        "/reset": Command(reset, "", "forget the conversation"),
        "/temp": Command(set_temp, "N", "sampling temperature, 0 is greedy"),
        "/seed": Command(set_seed, "N", "draw every answer from this seed; alone: new draws"),
        "/max-tokens": Command(set_max_tokens, "N", "longest answer in tokens"),
        "/example": Command(ask_example, "", "ask a validation row and show its reference"),
        "/save": Command(save_chat, "FILE", "write the conversation so far"),
    }
    return (
        found
        | (sql_commands() if chat.is_sql else {})
        | {"/quit": Command(quit_chat, "", "leave (also Ctrl-D)")}
    )


def sql_commands() -> dict[str, Command]:
    """Those of adapters that write SQL."""
    return {
        "/schema": Command(use_schema, "FILE.sql", "ask about the tables of this SQL file"),
        "/db": Command(use_db, "FILE.sqlite", "ask about this database; it is only read"),
        "/sql": Command(show_sql, "QUESTION|on|off", "show the query without running it"),
        "/candidates": Command(
            set_candidates, "N", "answers drawn where the first returns nothing; 0: none"
        ),
        "/csv": Command(save_rows, "FILE", "save the last result whole"),
        "/right": Command(keep_right, "", "keep the last question and query as an example"),
        "/wrong": Command(keep_correction, "SQL", "keep the last question with this query"),
    }


def take_line(chat: Chat, line: str) -> None:
    """Obey a command or answer a question; a mistake is one line and the chat goes on."""
    try:
        if line.startswith("/"):
            name, _, argument = line.partition(" ")
            command = commands(chat).get(name)
            if command is None:
                raise UserError(f"there is no {name}: /help lists the commands")
            return command.act(chat, argument.strip())
        ask(chat, line, chat.settings.run_queries)
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


def start_chat(chat: Chat, database: Path | None, schema: Path | None) -> None:
    """Ask about a database or a schema, or neither, until the input ends."""
    typing = sys.stdin.isatty()
    if typing:
        with suppress(ImportError):
            importlib.import_module("readline")  # line editing and history for input()
    try:
        if database:
            use_db(chat, str(database))
        if schema:
            use_schema(chat, str(schema))
        if chat.confidence and chat.confidence["threshold"] is None:
            chat.say("this adapter cannot tell when it is right: check each answer")
        converse(chat, typing)
    finally:
        if isinstance(chat.database, DatabaseFile):
            chat.database.close()
