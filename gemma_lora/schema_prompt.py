"""What a prompt shows of a database beside the question: all tables, those it is about, or none."""

from __future__ import annotations

import functools
import hashlib
import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from gemma_lora.adapters import AdapterConfig, Finetuned, adapter_kind
from gemma_lora.cli import UserError
from gemma_lora.context_rows import (
    ANSWER_ROOM,
    Rows,
    Shown,
    declaration,
    fewer_and_fewer,
    first_rows,
    shown_of,
    shown_with_rows,
)
from gemma_lora.database import DatabaseFile, Relation
from gemma_lora.named_values import Texts, stored_texts, value_lines
from gemma_lora.prompts import encode, render_example, render_prompt, sql_prompt, values_prompt
from gemma_lora.sandbox import SqlWorker
from gemma_lora.splits import PromptForm, Row, form_of
from gemma_lora.sql_text import SCHEMA_NOISE

SCHEMA_TOKENS = 2048  # a longer schema takes a small model's attention, and its time
ROWS_TIMEOUT_SEC = 2.0
NAMES_SAID = 8
# From either size on a database is not learnt by heart: its questions are shown the tables that
# their words point at. Databases of 11 tables and 64 columns were learnt; five in one file, 38
# tables and 256 columns, were not in 15 minutes (20% of 260 questions). Pointing was not compared.
BY_HEART_TABLES, BY_HEART_COLUMNS = 30, 300
BARE_SHARE = 0.1  # of the rows that a "values" adapter is trained on
POINTED_CHARACTERS = 1200  # of CREATE statements; characters, so that every side counts alike
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|[^\W\d_]+")


class RenderedQuestion(NamedTuple):
    """A question as the models are shown it."""

    prompt: str
    bare: str  # the same without the schema, for an earlier turn of a conversation
    note: str | None  # what was left out


def words_of(text: str) -> set[str]:
    """The words of a text or of names in it, in small letters and without a plural's ending."""
    words = (word.lower() for word in _WORD.findall(text))
    singular = (w[:-3] + "y" if w.endswith("ies") else w.rstrip("s") for w in words)
    return {w for w in singular if len(w) > 1 and w not in SCHEMA_NOISE}


def rank_relations(question: str, relations: Sequence[Relation]) -> list[Relation]:
    """Those that the question's words point at first; the others as they are stored."""
    scores = pointing_scores(question, relations)
    order = sorted(range(len(relations)), key=lambda index: (-scores[index], index))
    return [relations[index] for index in order]


def pointing_scores(question: str, relations: Sequence[Relation]) -> list[float]:
    """How much the question's words point at each relation; 0 where they do not.

    A word counts the more, the fewer tables have it (inverse document frequency), and three times
    in a table's own name.
    """
    asked = words_of(question)
    names = [words_of(r.name) for r in relations]
    inside = [words_of(r.sql) for r in relations]
    having = Counter(word for words in inside for word in words)

    def score(index: int) -> float:
        shared = asked & (inside[index] | names[index])
        return sum((3 if w in names[index] else 1) / max(1, having[w]) for w in shared)

    return [score(index) for index in range(len(relations))]


def pointed_relations(question: str, relations: Sequence[Relation]) -> list[Relation]:
    """Those that the question's words point at, most first, as far as POINTED_CHARACTERS go."""
    scores = pointing_scores(question, relations)
    room, shown = POINTED_CHARACTERS, []
    for index in sorted(range(len(relations)), key=lambda index: (-scores[index], index)):
        cost = len(declaration(relations[index])) + 1
        if scores[index] and cost <= room:
            shown.append(relations[index])
            room -= cost
    return shown


@functools.cache
def relations_of(path: Path) -> tuple[Relation, ...]:
    """The tables and views of a database; raises UserError."""
    with DatabaseFile(path) as database:
        return tuple(database.relations())


@functools.cache
def texts_of(path: Path) -> Texts:
    """The texts of a database that a prompt can say the columns of; raises UserError."""
    with DatabaseFile(path) as database:
        return stored_texts(database)


def suits(form: str, own_database: Path | None) -> bool:
    """Whether prompts may show this much: of one's own database, or of a general set's contexts."""
    own, general = ("values", "none", "pointed"), ("schema", "rows", "full", "none")
    return form in (own if own_database else general)


def own_form(relations: Sequence[Relation]) -> str:
    """What questions about a database of one's own are trained to show of it."""
    columns = sum(declaration(one).count(",") + 1 for one in relations)  # about as many
    small = len(relations) < BY_HEART_TABLES and columns < BY_HEART_COLUMNS
    return "values" if small else "pointed"


def own_form_of(path: Path) -> str:
    """The same of a file; what is wrong with the file is said when its rows are made."""
    try:
        return own_form(relations_of(path))
    except UserError:
        return "values"


def own_prompt(question: str, path: Path, form: str) -> str:
    """The prompt of a question about a database of one's own; raises UserError."""
    texts = texts_of(path) if form == "values" else {}
    return render_question(question, relations_of(path), PromptForm(form), len, texts=texts).prompt


def partly_bare(rows: Sequence[Row], form: str) -> list[Row]:
    """Rows to train on, with "values" one in ten of them, always the same, as the question alone.

    So is a question asked where nothing can be looked up: in Ollama, without the file.
    """

    def asks_alone(row: Row) -> bool:
        first = hashlib.sha256(row["question"].encode()).digest()[0]
        return form == "values" and first < 256 * BARE_SHARE

    return [
        with_prompt(row, sql_prompt(row["question"], None)) if asks_alone(row) else row
        for row in rows
    ]


def schema_text(relations: Sequence[Relation]) -> str:
    """The CREATE statements, one a line."""
    return "\n".join(map(declaration, relations))


def render_question(
    question: str,
    relations: Sequence[Relation],
    form: PromptForm,
    count_tokens: Callable[[str], int],
    budget: int = SCHEMA_TOKENS,
    rows_of: Callable[[Relation], Rows] = lambda relation: (),
    texts: Texts = MappingProxyType({}),
) -> RenderedQuestion:
    """The prompt of a question about these relations, whose schema takes `budget` tokens or fewer.

    Form "none" shows the question alone: the adapter knows its database by heart. Form "values"
    says where those of `texts` stand that the question names, and nothing else. Form "pointed"
    shows what the question's words point at, whatever the budget. Form "rows" shows what
    `rows_of` finds in each table, as many rows as fit beside the CREATE statements.
    """
    bare = sql_prompt(question, None)
    if form.context == "values":
        return RenderedQuestion(values_prompt(question, value_lines(question, texts)), bare, None)
    if form.context == "none" or not relations:
        return RenderedQuestion(bare, bare, None)
    if form.context == "pointed":
        pointed = schema_text(pointed_relations(question, relations))
        return RenderedQuestion(sql_prompt(question, pointed, form.twice), bare, None)
    shown, note = list(relations), None
    if count_tokens(schema_text(shown)) > budget:
        shown, note = fitting_relations(question, relations, count_tokens, budget)
    text = schema_text(shown)
    if form.context == "rows":
        by_rows = fewer_and_fewer([Shown(one, rows_of(one)) for one in shown])
        text = next((t for t in by_rows if count_tokens(t) <= budget), text)
    return RenderedQuestion(sql_prompt(question, text, form.twice), bare, note)


def shown_in_words(form: str, learnt: bool) -> str:
    """What prompts of one's own database show of it; '' for the forms that show its schema."""
    if form == "pointed":
        return "of which each question is shown those that its words point at"
    if form not in ("none", "values"):
        return ""
    shows = "nothing" if form == "none" else "only where texts stand"
    return "known to the adapter by heart" if learnt else f"of which prompts show {shows}"


def schema_in_words(
    relations: Sequence[Relation], count_tokens: Callable[[str], int], budget: int, limit: int
) -> str:
    """How much of a schema prompts show; UserError where not even the smallest table fits."""
    tokens = count_tokens(schema_text(relations))
    smallest = min(count_tokens(declaration(one)) for one in relations)
    if smallest > budget:
        raise UserError(
            f"the smallest table takes {smallest:,} tokens; the model reads {limit:,}: give a "
            "database with smaller ones"
        )
    if tokens <= budget:
        return f"{tokens:,} tokens"
    part = f"of which a prompt shows {budget:,}: tables the question's words point at"
    return f"{tokens:,} tokens, {part}"


def fitting_relations(
    question: str,
    relations: Sequence[Relation],
    count_tokens: Callable[[str], int],
    budget: int,
) -> tuple[list[Relation], str]:
    """Those that the question's words point at and that fit, and what is left out in words."""
    shown: list[Relation] = []
    left_out: list[str] = []
    for relation in rank_relations(question, relations):
        cost = count_tokens(declaration(relation) + "\n")
        if cost <= budget:
            shown.append(relation)
            budget -= cost
        else:
            left_out.append(relation.name)
    note = (
        f"the prompt shows {len(shown)} of {len(relations)} tables and views "
        f"({listed([r.name for r in shown])}); left out: {listed(left_out)}"
    )
    return shown, note


def listed(names: Sequence[str]) -> str:
    """Names in a row; of many, the first and how many more."""
    more = len(names) - NAMES_SAID
    return ", ".join(names[:NAMES_SAID]) + (f" and {more} more" if more > 0 else "")


def schema_budget(config: AdapterConfig, tokens: int) -> int:
    """Tokens that a prompt may show of a database, beside `tokens` of question and the like.

    Rows of tables are shown up to the length that the adapter was trained at; CREATE statements
    up to SCHEMA_TOKENS, because leaving a table out costs more than an unusual length.
    """
    trained = config.get("max_seq_length") or SCHEMA_TOKENS
    with_rows = form_of(config).context == "rows"
    return max(0, trained - ANSWER_ROOM - tokens) if with_rows else SCHEMA_TOKENS


def as_trained(rows: Sequence[Row], path: Path, tuned: Finetuned) -> list[Row]:
    """Rows asked of a SQLite file, with prompts as the adapter was trained to read them."""
    form, found = form_of(tuned.config), list[Row]()
    texts: Texts = texts_of(path) if form.context == "values" else {}

    def count_tokens(text: str) -> int:
        return len(encode(tuned.tokenizer, text))

    with DatabaseFile(path) as database:
        rows_of = functools.cache(functools.partial(first_rows, database))
        for row in rows:
            taken = count_tokens(render_prompt(sql_prompt(row["question"], "-", form.twice)))
            budget = schema_budget(tuned.config, taken)
            prompt = render_question(
                row["question"], relations_of(path), form, count_tokens, budget, rows_of, texts
            ).prompt
            found.append(with_prompt(row, prompt))
    return found


def in_form(rows: Sequence[Row], prepared: PromptForm, tuned: Finetuned) -> list[Row]:
    """Rows with contexts, whose prompts were `prepared` in one form, in the adapter's form."""
    form = form_of(tuned.config)
    unlike = adapter_kind(tuned) == "sql" and form != prepared
    if not unlike or not suits(form.context, None):
        return list(rows)

    def prompt_of(row: Row, shown: str | None) -> str:
        shown = shown or shown_of(row["context"], form.context)
        return sql_prompt(row["question"], shown, form.twice)

    if form.context != "rows":
        return [with_prompt(row, prompt_of(row, None)) for row in rows]
    room = tuned.config.get("max_seq_length") or SCHEMA_TOKENS

    def fits(row: Row, shown: str) -> bool:
        prompt = render_prompt(prompt_of(row, shown))
        return len(encode(tuned.tokenizer, prompt)) + ANSWER_ROOM <= room

    with SqlWorker() as worker:
        shown_rows = shown_with_rows(rows, lambda r: r["context"], worker, ROWS_TIMEOUT_SEC, fits)
        return [with_prompt(row, prompt_of(row, shown)) for row, shown in shown_rows]


def with_prompt(row: Row, prompt: str) -> Row:
    """A row that asks in another way."""
    return {**row, "prompt": prompt, "text": render_example(prompt, row["completion"])}
