"""Answers made elsewhere: a file of any models' replies, read and matched with their rows.

One JSON object a line: `question`, `context` (SQL that makes the database, or null), `gold` and
`answers` ({name: reply}), perhaps `id` and `complexity`; or `id` and `answers` alone, for a row of
a prepared split. Promises: either every line is right, or each one that is not is named with its
number and nothing is scored. Names and replies come without control characters.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

from gemma_lora.cleaning import visible
from gemma_lora.cli import UserError
from gemma_lora.files import JsonObject, bounded_lines
from gemma_lora.prompts import render_example, sql_prompt
from gemma_lora.splits import Row
from gemma_lora.sql_text import schema_of

ADAPTER_FILES = ("adapter_config.json", "adapters.safetensors")


@dataclass(frozen=True)
class GivenReply:
    """A reply of which only the text is known; beside a Generation in what it has."""

    text: str
    finish_reason: str | None = None


class AnsweredRow(NamedTuple):
    """A line of the file: the row that was asked, and every model's reply to it."""

    id: str | int | None  # as given
    row: Row
    replies: dict[str, str]  # by name, in the order of the first line
    of_split: bool  # the line gave an id alone


class AnswersRecord(TypedDict):
    """With what answers made elsewhere were judged: all that is not computed from the samples."""

    answers: str
    answers_sha256: str
    split: str | None  # from which rows given by id alone were taken
    n: int
    seed: int
    settings: dict[str, Any]
    number_tolerance: dict[str, float]
    versions: dict[str, str]


def answers_folder(path: Path, chosen: Path | None) -> Path:
    """Where figures on `path` go; UserError for an adapter's folder, whose own they would replace.

    By default a folder beside the file, named after it.
    """
    named = path.with_suffix("")
    folder = chosen or (named if named != path else path.with_name(f"{path.name}-evaluation"))
    if any((folder / name).exists() for name in ADAPTER_FILES):
        raise UserError(
            f"{folder} holds an adapter, whose own evaluation would be overwritten: give another "
            "--output-dir"
        )
    return folder


def read_answers(path: Path, rows_of_split: Callable[[], Mapping[str, Row]]) -> list[AnsweredRow]:
    """Read a file of answers; UserError, after a line on stderr for each bad one, if any is bad.

    `rows_of_split` is asked, once, when a line gives an id alone.
    """
    lines, problems = parse_lines(path)
    asked = any(gives_id_alone(line) and "id" in line for line in lines.values())
    known = rows_of_split() if asked else {}
    found: list[AnsweredRow] = []
    names: Sequence[str] = ()
    used: dict[str, int] = {}
    for number, line in lines.items():
        try:
            made = answered_row(line, known, path.name)
            names = names or list(made.replies)
            check_company(made, names, found, used, number)
            found.append(made._replace(replies={name: made.replies[name] for name in names}))
        except ValueError as error:
            problems[number] = str(error)
    for number in sorted(problems):
        print(f"{visible(str(path))}, line {number}: {visible(problems[number])}", file=sys.stderr)
    if problems:
        total = len(lines.keys() | problems.keys())
        raise UserError(
            f"{len(problems)} of {total} lines of {path} cannot be read: mend them; nothing was "
            "scored"
        )
    if not found:
        raise UserError(f"{path} holds no line: one JSON object a line is expected")
    return found


def parse_lines(path: Path) -> tuple[dict[int, JsonObject], dict[int, str]]:
    """({line number: object}, {line number: what is wrong with it}) of a .jsonl file."""
    lines: dict[int, JsonObject] = {}
    problems: dict[int, str] = {}
    try:
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="\n") as file:
            for number, text in enumerate(bounded_lines(file, path), 1):
                if not text.strip():
                    continue
                try:
                    lines[number] = parse_line(text)
                except (ValueError, RecursionError) as error:
                    problems[number] = str(error)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    return lines, problems


def parse_line(text: str) -> JsonObject:
    """The object of one line; ValueError when it is none, or names a key twice."""

    def unique(pairs: list[tuple[str, Any]]) -> JsonObject:
        twice = next((key for key, _ in pairs if sum(k == key for k, _ in pairs) > 1), None)
        if twice is not None:
            raise ValueError(f"{twice!r} is there twice")
        return dict(pairs)

    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("is not UTF-8") from None
    try:
        line = json.loads(text, object_pairs_hook=unique)
    except json.JSONDecodeError as error:
        raise ValueError(f"is not JSON ({error.msg})") from None
    if not isinstance(line, dict):
        raise ValueError(f"holds {type(line).__name__}, not an object")
    return line


def answered_row(line: JsonObject, known: Mapping[str, Row], source: str) -> AnsweredRow:
    """One line with its row; ValueError names everything that is wrong with it."""
    wrong = [*field_problems(line), *reply_problems(line.get("answers"))]
    if wrong:
        raise ValueError("; ".join(wrong))
    replies = {one_line(name): visible(reply) for name, reply in line["answers"].items()}
    given = line.get("id")
    if "question" in line:
        return AnsweredRow(given, made_row(line, source), replies, False)
    if str(given) not in known:
        raise ValueError(f"no row of the split has the id {given!r}, and it gives no 'question'")
    return AnsweredRow(given, known[str(given)], replies, True)


def gives_id_alone(line: JsonObject) -> bool:
    """Whether a line leaves it to the split what was asked."""
    return not line.keys() & {"question", "context", "gold"}


def field_problems(line: JsonObject) -> Iterator[str]:
    """What is wrong with a line's fields but for its answers."""
    given = line.get("id")
    if isinstance(given, bool) or not isinstance(given, str | int | None):
        yield f"'id' is {type(given).__name__}, not text or a whole number"
    alone = gives_id_alone(line)
    if alone and given is None:
        yield "gives neither 'question', 'context' and 'gold' nor an 'id'"
    for name in () if alone else ("question", "gold"):
        if name not in line:
            yield f"'{name}' is missing"
        elif not isinstance(line[name], str) or not line[name].strip():
            yield f"'{name}' is {shown(line[name])}, not text"
    if not alone and "context" not in line:
        yield "'context' is missing (null where there is no database)"
    for name in ("context", "complexity"):
        if not isinstance(line.get(name), str | None):
            yield f"'{name}' is {shown(line[name])}, not text"


def reply_problems(answers: Any) -> Iterator[str]:
    """What is wrong with a line's answers."""
    if not isinstance(answers, dict) or not answers:
        yield (
            "'answers' is missing"
            if answers is None
            else (f"'answers' is {shown(answers)}, not {{name: reply}}")
        )
        return
    names = [one_line(name) for name in answers]
    if "" in names:
        yield "a name in 'answers' is empty"
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield f"two names in 'answers' are shown as {name!r}"
    for name, reply in answers.items():
        if not isinstance(reply, str):
            yield f"the answer of {one_line(name)!r} is {shown(reply)}, not text"


def check_company(
    made: AnsweredRow,
    names: Sequence[str],
    before: Sequence[AnsweredRow],
    used: dict[str, int],
    number: int,
) -> None:
    """ValueError when a line does not go with those before it; notes its id in `used`."""
    if made.replies.keys() != set(names):
        raise ValueError(
            f"answers of {', '.join(made.replies)}, where the first line has {', '.join(names)}"
        )
    if before and before[0].row["type"] != made.row["type"]:
        raise ValueError(f"is of type {made.row['type']}, the first of {before[0].row['type']}")
    if made.of_split and str(made.id) in used:
        raise ValueError(f"the row {made.id!r} has its answers in line {used[str(made.id)]}")
    if made.of_split:
        used[str(made.id)] = number


def made_row(line: JsonObject, source: str) -> Row:
    """The row that a line describes, with the prompt that our own models would be given."""
    question, context, gold = visible(line["question"]), line["context"], visible(line["gold"])
    prompt = sql_prompt(question, schema_of(context or ""))
    row: Row = {
        "id": hashlib.sha256(f"{prompt}\n{gold}".encode()).hexdigest()[:16],
        "text": render_example(prompt, gold),
        "prompt": prompt,
        "completion": gold,
        "type": "sql",
        "question": question,
        "context": context,
        "source": source,
    }
    if line.get("complexity"):
        row["complexity"] = one_line(line["complexity"])
    return row


def one_line(text: str) -> str:
    """A name as it can stand in a table."""
    return " ".join(visible(text).split())


def shown(value: Any) -> str:
    """A value in an error line: what it is rather than all of it."""
    if value is None:
        return "null"
    return "empty" if isinstance(value, str) else type(value).__name__


def columns_of(answered: Iterable[AnsweredRow]) -> dict[str, list[GivenReply]]:
    """{name: its replies, in the order of the rows}."""
    found: dict[str, list[GivenReply]] = {}
    for line in answered:
        for name, reply in line.replies.items():
            found.setdefault(name, []).append(GivenReply(reply))
    return found
