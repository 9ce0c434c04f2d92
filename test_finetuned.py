"""Compare a fine-tuned Gemma 3 with its base model, chat with both, or judge others' answers.

    python test_finetuned.py --adapter-path checkpoints                       # default prompts
    python test_finetuned.py --adapter-path checkpoints --num-samples 100     # scored on test rows
    python test_finetuned.py --adapter-path checkpoints --split test --shots 3
    python test_finetuned.py --adapter-path checkpoints --interactive --show-base
    python test_finetuned.py --answers replies.jsonl                          # no model, no MLX

Input: the adapter folder of train.py (it names the base model) and, for scored runs, the data
folder of dataset.py. Output: a report in the terminal; scored runs also write evaluation.json,
evaluation_samples.jsonl, evaluation.md and evaluation.html, a page to look at, to the adapter
folder. --answers reads one JSON object a line, {"question", "context", "gold", "answers": {name:
reply}} (or "id" and "answers" for rows of --data and --split), and writes the same files to a
folder named after the file.
"""

from __future__ import annotations

import json
import random
import sqlite3
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Any, ClassVar, Literal, TypedDict, cast

import dataset
from gemma_lora.adapters import Finetuned, adapter_kind, load_finetuned
from gemma_lora.answers import (
    AnsweredRow,
    AnswersRecord,
    GivenReply,
    answers_folder,
    columns_of,
    read_answers,
)
from gemma_lora.candidates import (
    CHAT_CANDIDATES,
    Chosen,
    Drawing,
    choose_for_rows,
)
from gemma_lora.chat import start_chat
from gemma_lora.cleaning import visible
from gemma_lora.cli import UserError, check, parse_config, run_script
from gemma_lora.comparison import ABS_TOL, REL_TOL
from gemma_lora.confidence import read_confidence
from gemma_lora.conversation import Chat, ChatSettings
from gemma_lora.database_scoring import (
    FileWorker,
    on_database,
    prepare_file_gold,
    question_rows,
)
from gemma_lora.default_prompts import ALPACA_PROMPTS, SQL_PROMPTS
from gemma_lora.device import prepare_process
from gemma_lora.doubt import mark_sure, names_in
from gemma_lora.figures import (
    EVALUATION_FORMAT,
    TUNED,
    EvaluationRecord,
    EvaluationReport,
    Output,
    Sample,
    Speed,
    Summary,
    summarize,
)
from gemma_lora.files import (
    json_lines,
    jsonable,
    remove_leftovers,
    require_writable,
    sha256_of,
    write_together,
)
from gemma_lora.generation import Answer, generate_batch, reference_losses
from gemma_lora.mending import Mender
from gemma_lora.page import evaluation_page, opening_command
from gemma_lora.page_rows import RowSet
from gemma_lora.progress import count_answers
from gemma_lora.prompts import render_chat
from gemma_lora.report import evaluation_markdown, make_console, ranked_samples, show_report
from gemma_lora.sandbox import SqlWorker
from gemma_lora.schema_prompt import as_trained, in_form
from gemma_lora.selection import with_candidates
from gemma_lora.splits import PromptForm, Row, prepared_form, read_split
from gemma_lora.suite_cache import suite_folder
from gemma_lora.table_links import schema_of_file, schema_of_text
from gemma_lora.text_scores import score_text
from gemma_lora.verdicts import SqlVerdict, prepare_gold, preview, score_sql

DEFAULT_SPLIT = "test"
MEMORY = " (made as the training rows were: memory of them, not how well people are answered)"
MAX_TOKENS = {"sql": 96, "alpaca": 256}
CHAT_TOKENS = 512
ModelAnswer = Answer | Chosen


@dataclass(frozen=True)
class EvaluationConfig:
    """Settings of one evaluation or chat; every field is a flag."""

    adapter_path: Path = field(
        default=Path("checkpoints"), metadata={"help": "adapter folder written by train.py"}
    )
    model: str | None = field(
        default=None, metadata={"help": "base model, instead of the one the adapter names"}
    )
    data: Path = field(default=Path("data"), metadata={"help": "data folder of dataset.py"})
    split: Literal["train", "valid", "test"] | None = field(
        default=None,
        metadata={"help": "score rows of this split (test when only a number is given)"},
    )
    num_samples: int | None = field(
        default=None, metadata={"help": "score this many rows, drawn by the seed; all by default"}
    )
    use_validation: bool = field(
        default=False, metadata={"help": "score rows of valid.jsonl, which chose the checkpoint"}
    )
    quick_test: bool = field(
        default=False, metadata={"help": "short answers; three default prompts or eight rows"}
    )
    interactive: bool = field(default=False, metadata={"help": "chat with the fine-tuned model"})
    show_base: bool = field(
        default=False, metadata={"help": "in the chat, let the base answer too"}
    )
    questions: Path | None = field(
        default=None,
        metadata={"help": "score people's questions with their sql, a .jsonl or .csv, on --db"},
    )
    db: Path | None = field(
        default=None,
        metadata={"help": "SQLite file to ask, in the chat or scored; read, never written"},
    )
    schema: Path | None = field(
        default=None, metadata={"help": "SQL file with a schema to ask about in the chat"}
    )
    log_questions: Path | None = field(
        default=None,
        metadata={"help": "file that the chat's /right and /wrong add {question, sql} lines to"},
    )
    max_tokens: int | None = field(
        default=None,
        metadata={"help": "longest answer in tokens (96 for SQL, 256 for Alpaca, 512 in the chat)"},
    )
    temp: float = field(default=0.0, metadata={"help": "sampling temperature; 0 is greedy"})
    top_p: float = field(default=1.0, metadata={"help": "share of probability sampled from"})
    seed: int = field(default=42, metadata={"help": "seed of the rows drawn and of sampling"})
    batch_size: int = field(
        default=32, metadata={"help": "answers generated at one time; more is faster, needs memory"}
    )
    candidates: int | None = field(
        default=None,
        metadata={
            "help": "answers drawn where the first fails or returns nothing; the first that "
            "returns rows is taken, else the first is mended (4 in the chat, else 0)"
        },
    )
    shots: int = field(
        default=0,
        metadata={"help": "score the base also with this many worked examples as earlier turns"},
    )
    examples: int = field(default=5, metadata={"help": "rows shown in full in the report"})
    check_forgetting: bool = field(
        default=False, metadata={"help": "score both models also on the other task's sample"}
    )
    sql_timeout: float = field(
        default=2.0, metadata={"help": "seconds one query may run (on the file of --db 30 or more)"}
    )
    output_dir: Path | None = field(
        default=None, metadata={"help": "where the files go; the adapter folder by default"}
    )
    answers: Path | None = field(
        default=None,
        metadata={"help": "score the answers in this .jsonl file; no model is loaded"},
    )

    sql_prompts: ClassVar[tuple[tuple[str, str, str], ...]] = SQL_PROMPTS
    alpaca_prompts: ClassVar[tuple[tuple[str, str | None], ...]] = ALPACA_PROMPTS

    def __post_init__(self) -> None:
        check(
            (self.num_samples is None or self.num_samples >= 1, "--num-samples must be 1 or more"),
            (
                not self.use_validation or self.split in (None, "valid"),
                f"--use-validation and --split {self.split} ask for different rows; give one",
            ),
            (
                self.interactive or not (self.schema or self.log_questions),
                "--schema and --log-questions go with --interactive",
            ),
            (
                bool(self.interactive or self.scored or not self.db),
                "--db goes with --interactive, --questions or --split",
            ),
            (
                self.db is not None or not self.questions,
                "--questions needs the file they are about: --db",
            ),
            (
                not (self.questions and (self.interactive or self.rows_from)),
                "--questions are rows of their own: no --interactive, --split or --num-samples",
            ),
            (not (self.db and self.schema), "give --db or --schema, not both"),
            (
                not (self.answers and (self.interactive or self.check_forgetting)),
                "--answers loads no model: leave out --interactive and --check-forgetting",
            ),
            (
                not (self.answers and (self.num_samples or self.shots or self.quick_test)),
                "--answers scores a whole file: leave out --num-samples, --shots, --quick-test",
            ),
            (self.max_tokens is None or self.max_tokens >= 1, "--max-tokens must be 1 or more"),
            (0 <= self.temp <= 5, "--temp must be between 0 and 5"),
            (0 < self.top_p <= 1, "--top-p must be above 0 and at most 1"),
            (self.batch_size >= 1, "--batch-size must be 1 or more"),
            (0 <= self.shots <= 16, "--shots must be between 0 and 16"),
            (0 <= (self.candidates or 0) <= 64, "--candidates must be between 0 and 64"),
            (not (self.answers and self.candidates), "--candidates needs a model: no --answers"),
            (self.examples >= 0, "--examples must be 0 or more"),
            (self.sql_timeout > 0, "--sql-timeout must be above 0"),
        )

    @property
    def scored(self) -> bool:
        """Whether rows with references are scored, and files written."""
        return bool(self.rows_from or self.questions)

    @property
    def rows_from(self) -> str | None:
        """The split that is scored, None for the default prompts."""
        if self.use_validation:
            return "valid"
        return self.split or (DEFAULT_SPLIT if self.num_samples else None)


def preset(given: Mapping[str, Any]) -> dict[str, Any]:
    """What --quick-test sets where the user said nothing."""
    if not given.get("quick_test"):
        return {}
    scored = given.get("split") or given.get("use_validation")
    return {"max_tokens": 64, "examples": 2} | ({"num_samples": 8} if scored else {})


# --- Which rows ----------------------------------------------------------------------------------


def default_rows(kind: str, quick: bool) -> list[Row]:
    """The default prompts as rows like those of the data folder."""
    config = dataset.DatasetConfig(type=kind, dataset_name="default prompts")  # type: ignore[arg-type]
    rows = []
    if kind == "sql":
        for question, context, gold in EvaluationConfig.sql_prompts:
            fields = {"sql_prompt": question, "sql": gold, "sql_context": context}
            rows.append(dataset.make_row(fields, config))
    else:
        for instruction, given in EvaluationConfig.alpaca_prompts:
            rows.append(
                dataset.make_row({"instruction": instruction, "input": given, "output": ""}, config)
            )
    return rows[:3] if quick else rows


def evaluation_rows(config: EvaluationConfig, tuned: Finetuned) -> list[Row]:
    """The rows to evaluate, with prompts as the adapter was trained to read them.

    Raises UserError when they are of another type than the adapter.
    """
    if config.questions and config.db:
        rows = on_database(question_rows(config.questions, config.db), config.db)
        return as_trained(rows, config.db, tuned)
    if config.rows_from is None:
        return in_form(default_rows(adapter_kind(tuned), config.quick_test), PromptForm(), tuned)
    rows = typed_rows(config, config.rows_from, tuned)
    if config.num_samples and config.num_samples < len(rows):
        rows = random.Random(config.seed).sample(rows, config.num_samples)
    rows = in_form(rows, prepared_form(config.data), tuned)
    return on_database(rows, config.db) if config.db else rows


def typed_rows(config: EvaluationConfig, split: str, tuned: Finetuned) -> list[Row]:
    """All rows of a split, checked to be of the adapter's type."""
    rows, kind = read_split(config.data, split), adapter_kind(tuned)
    other = next((r["type"] for r in rows if r.get("type", kind) != kind), None)
    if other:
        raise UserError(
            f"{config.data}/{split}.jsonl holds {other} rows but the adapter in "
            f"{config.adapter_path} was trained on {kind}: give the matching --data"
        )
    return rows


def shot_turns(config: EvaluationConfig, tuned: Finetuned) -> list[tuple[str, str]]:
    """Worked examples from the train split as earlier turns of the chat, the same for every row."""
    if not config.shots:
        return []
    rows = typed_rows(config, "train", tuned)
    if len(rows) < config.shots:
        raise UserError(f"--shots {config.shots} is more than the {len(rows)} rows of train.jsonl")
    drawn = random.Random(config.seed).sample(rows, config.shots)
    drawn = in_form(drawn, prepared_form(config.data), tuned)
    return [turn for r in drawn for turn in (("user", r["prompt"]), ("model", r["completion"]))]


# --- Answers and what is said of them ------------------------------------------------------------


def run_models(
    tuned: Finetuned,
    rows: Sequence[Row],
    turns: list[tuple[str, str]],
    config: EvaluationConfig,
) -> tuple[dict[str, list[ModelAnswer]], dict[str, Speed]]:
    """Let every model answer all rows: ({model: answers}, {model: speed})."""
    kind = rows[0]["type"]
    runs: dict[str, tuple[Literal["base", "finetuned"], list[tuple[str, str]]]] = {
        "base": ("base", [])
    }
    if turns:
        runs = {"base, 0 shots": ("base", []), f"base, {config.shots} shots": ("base", turns)}
    runs[TUNED] = ("finetuned", [])
    max_tokens = config.max_tokens or MAX_TOKENS[kind]
    found: dict[str, list[ModelAnswer]] = {}
    speed: dict[str, Speed] = {}
    with count_answers(len(runs) * len(rows), "answers") as advance:
        for name, (which, earlier) in runs.items():
            model = tuned.use(which)
            prompts = [render_chat([*earlier, ("user", r["prompt"])]) for r in rows]
            start = time.perf_counter()
            answers = generate_batch(
                model, tuned.tokenizer, prompts, max_tokens, config.temp, config.seed,
                config.batch_size, config.top_p, advance, likely=kind == "sql" and name == TUNED,
            )  # fmt: skip
            seconds, made = time.perf_counter() - start, sum(a.generation_tokens for a in answers)
            speed[name] = {"generation_tps": made / seconds, "seconds": seconds}
            known = [r["completion"] for r in rows if kind == "alpaca" and r["completion"]]
            losses = reference_losses(model, tuned.tokenizer, prompts[: len(known)], known)
            pairs = zip_longest(answers, losses)
            found[name] = [Answer(said, loss) for said, loss in pairs]
            if config.candidates and kind == "sql":
                drawing = Drawing(config.candidates, max_tokens, config.seed, config.batch_size)
                with row_worker(config) as worker:
                    chosen = choose_for_rows(
                        model, tuned.tokenizer, rows, prompts, answers, worker,
                        config.sql_timeout, drawing, row_menders(config, worker),
                        config.db is not None, "database" in tuned.config,
                    )  # fmt: skip
                found[with_candidates(name, config.candidates)] = [*chosen]
    return found, speed


def row_worker(config: EvaluationConfig) -> SqlWorker:
    """What runs the rows' queries: on each row's own context, or all on the file of --db."""
    return FileWorker(config.db) if config.db else SqlWorker(still=True)


def row_menders(config: EvaluationConfig, worker: SqlWorker) -> Callable[[Row], Mender | None]:
    """What puts a row's query right: on the file of --db, or on the row's own context."""

    def run(sql: str, context: str = "") -> Sequence[Sequence[Any]]:
        return worker.run(context, sql, config.sql_timeout).rows

    def of_context(row: Row) -> Mender | None:
        if not (context := row["context"]):
            return None
        return Mender(partial(schema_of_text, context), partial(run, context=context))

    if config.db is None:
        return of_context
    mender = Mender(partial(schema_of_file, config.db), run)
    return lambda row: mender


def make_samples(
    rows: Sequence[Row],
    found: Mapping[str, Sequence[ModelAnswer | GivenReply]],
    config: EvaluationConfig,
    advance: Callable[[int], None] = lambda rows: None,
) -> list[Sample]:
    """Score every answer: the rows of evaluation_samples.jsonl. `advance` counts rows done."""
    samples = []
    with row_worker(config) as worker:
        for index, row in enumerate(rows):
            known: dict[str, Any] = {**row}
            kept = ("id", "type", "source", "complexity", "question", "context", "prompt")
            answers = {name: made[index] for name, made in found.items()}
            if row["type"] == "sql":
                scores = sql_scores(row, answers, worker, config)
            else:
                scores = text_scores(row, answers)
            samples.append(cast(Sample, {k: known.get(k) for k in kept} | {**scores}))
            advance(1)
    return samples


def sql_scores(
    row: Row,
    answers: Mapping[str, ModelAnswer | GivenReply],
    worker: SqlWorker,
    config: EvaluationConfig,
) -> Sample:
    """A SQL row's gold and every model's verdict: fields of a sample."""
    if config.db:
        gold = prepare_file_gold(row, worker, config.sql_timeout)
    else:
        gold = prepare_gold(row, worker, config.seed, config.sql_timeout, suite_folder())
    outputs: dict[str, Output] = {}
    judged: dict[tuple[str, str | None], SqlVerdict] = {}
    for name, answer in answers.items():
        said = answer.said if isinstance(answer, Answer | Chosen) else answer
        key = (said.text, said.finish_reason)
        if key not in judged:  # where the first answer stands, candidates are no other answer
            judged[key] = score_sql(*key, gold, row, worker, config.sql_timeout)
        drawn = answer.facts if isinstance(answer, Chosen) else {}
        outputs[name] = cast(Output, {**asdict(said), **judged[key], **drawn})
    return {
        "gold": gold.sql,
        "kind": gold.kind,
        "excluded": gold.excluded,
        "empty_gold": gold.empty,
        "gold_result": preview(gold.result) if gold.result else None,
        "suite": gold.suite.facts if gold.suite else None,
        "no_suite": gold.no_suite,
        "outputs": outputs,
    }


def text_scores(row: Row, answers: Mapping[str, ModelAnswer | GivenReply]) -> Sample:
    """An instruction row's reference and every model's scores: fields of a sample."""
    outputs = {}
    counted = None
    for name, answer in answers.items():
        loss = answer.loss if isinstance(answer, Answer) else None
        said = answer.said if isinstance(answer, Answer | Chosen) else answer
        scores = score_text(said.text, row["completion"], loss and loss[0])
        outputs[name] = cast(Output, {**asdict(said), **scores})
        counted = counted or loss
    return {
        "gold": row["completion"],
        "reference_tokens": counted[1] if counted else None,
        "outputs": outputs,
    }


def forgetting_samples(
    tuned: Finetuned, kind: str, config: EvaluationConfig
) -> tuple[str, list[Sample]]:
    """(title, samples) of both models on the other task's bundled sample."""
    other = "alpaca" if kind == "sql" else "sql"
    settings = dataset.DatasetConfig(type=other, dataset_name="sample")  # type: ignore[arg-type]
    raw = dataset.open_source(settings).rows
    first = next(raw)
    columns = dataset.match_columns(list(first), other, {})
    counts = {name: Counter[str]() for name in ("rows", "dropped", "repaired")}
    rows = list(dataset.clean_rows([first, *raw], columns, settings, counts))
    rows = random.Random(config.seed).sample(rows, min(len(rows), config.num_samples or 40))
    found, _ = run_models(tuned, rows, [], config)
    title = f"what fine-tuning cost: {len(rows)} rows of the bundled {other} sample"
    return title, make_samples(rows, found, config)


# --- The report ----------------------------------------------------------------------------------


def evaluation_record(
    tuned: Finetuned, config: EvaluationConfig, n: int, speed: dict[str, Speed], weights: str
) -> EvaluationRecord:
    """With what a run was made; `weights` is the sha256 of the adapter file that was loaded."""
    import mlx.core as mx

    path = config.questions or config.data / f"{config.rows_from}.jsonl"
    keys = "model base_fingerprint dataset_type best_step best_val_loss fine_tune_type quantize"
    adapter: dict[str, Any] = {**tuned.config}
    return {
        "split": config.rows_from,
        "rows_chose_the_checkpoint": config.rows_from == "valid",
        "n": n,
        "seed": config.seed,
        "settings": jsonable(asdict(config)),
        "shots_as": "earlier turns of the chat, drawn from train.jsonl" if config.shots else None,
        "data_sha256": sha256_of(path),
        "adapter": {k: adapter[k] for k in keys.split() if k in adapter} | {"sha256": weights},
        "number_tolerance": {"relative": REL_TOL, "absolute": ABS_TOL},
        "versions": package_versions(),
        "device": str(mx.default_device()),
        "peak_memory_gb": mx.get_peak_memory() / 1e9,
        "speed": speed,
    }


def package_versions() -> dict[str, str]:
    """{package: version} of what an evaluation rests on, as far as it is installed."""
    from importlib import metadata

    versions = {"sqlite": sqlite3.sqlite_version}
    for name in ("mlx", "mlx-lm", "transformers", "sqlglot", "scipy", "sacrebleu", "rapidfuzz"):
        with suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return versions


def run_title(config: EvaluationConfig, n: int) -> str:
    """What was evaluated, for the head of the report."""
    if config.questions and config.db:
        return f"{n} questions of {config.questions.name}, asked of {config.db.name}"
    if config.rows_from is None:
        return f"{n} default prompts"
    chose = " (these rows chose the checkpoint: expect a lower score on new ones)"
    return (
        f"{n} rows of {config.data}/{config.rows_from}.jsonl, split {config.rows_from}, "
        f"seed {config.seed}{chose if config.rows_from == 'valid' else ''}"
        f"{MEMORY if config.db else ''}"
    )


def write_report(
    folder: Path,
    samples: Sequence[Sample],
    text: str,
    page: str | None,
    report: EvaluationReport | AnswersReport,
) -> None:
    """Write the files of a scored run; evaluation.json vouches for the others.

    A run that cannot draw the page leaves none: an earlier one shows other rows.
    """
    remove_leftovers(folder, ["evaluation*"])
    place = folder / "evaluation.html"
    written = {
        folder / "evaluation_samples.jsonl": "".join(json_lines(samples)),
        folder / "evaluation.md": text,
    }
    if page:
        written[place] = page
    write_together(written, folder / "evaluation.json", json.dumps(report, indent=2) + "\n")
    if not page:
        place.unlink(missing_ok=True)
    look = f"; to look at it: {opening_command(place)}" if page else ""
    print(
        f"written: {folder}/evaluation.json, evaluation_samples.jsonl and evaluation.md{look}",
        file=sys.stderr,
    )


def evaluate(config: EvaluationConfig) -> EvaluationReport:
    """Compare base and fine-tuned model as configured; returns what evaluation.json holds.

    For the default prompts nothing is written and "summary" is None.
    """
    tuned = load_finetuned(config.adapter_path, config.model)
    weights = sha256_of(config.adapter_path / "adapters.safetensors")
    folder = config.output_dir or config.adapter_path
    if config.scored:
        require_writable(folder)
    kind = adapter_kind(tuned)
    rows = evaluation_rows(config, tuned)
    title = run_title(config, len(rows))
    print(title, file=sys.stderr)
    found, speed = run_models(tuned, rows, shot_turns(config, tuned), config)
    samples = make_samples(rows, found, config)
    if kind == "sql" and (confidence := read_confidence(config.adapter_path)):
        mark_sure(samples, confidence, names_in(config.db) if config.db else [])
    if not config.scored:
        show_report(title, None, samples, len(samples))
        return {"summary": None, "samples": samples}
    summary = summarize(samples)
    record = evaluation_record(tuned, config, len(rows), speed, weights)
    report: EvaluationReport = {
        "format": EVALUATION_FORMAT, "summary": summary, "run": record,
    }  # fmt: skip
    show_report(title, summary, samples, config.examples)
    ranked = ranked_samples(samples, summary)[: config.examples]
    text = evaluation_markdown(f"Evaluation: {title}", summary, ranked)
    sets = [RowSet(title, summary, samples)]
    if config.check_forgetting:
        name, made = forgetting_samples(tuned, kind, config)
        report["forgetting"] = summarize(made)
        show_report(name, report["forgetting"], made, 1)
        text += "\n" + evaluation_markdown(name.capitalize(), report["forgetting"], [])
        sets.append(RowSet(name, report["forgetting"], made))
        samples = [
            cast(Sample, {**one, "set": label})
            for label, group in (("main", samples), ("forgetting", made))
            for one in group
        ]
    page = evaluation_page(f"Evaluation: {title}", sets, record)
    write_report(folder, samples, text, page, report)
    return report


# --- Answers made elsewhere ----------------------------------------------------------------------


class AnswersReport(TypedDict):
    """evaluation.json of answers made elsewhere."""

    summary: Summary
    run: AnswersRecord


def score_answers(path: Path, config: EvaluationConfig) -> AnswersReport:
    """Judge the replies in a file as those of our own models; the first name against the others."""
    folder = answers_folder(path, config.output_dir)
    require_writable(folder)
    split = config.rows_from or DEFAULT_SPLIT

    def rows_of_split() -> dict[str, Row]:
        return {row["id"]: row for row in read_split(config.data, split)}

    answered = read_answers(path, rows_of_split)
    title = f"{len(answered)} rows answered in {visible(str(path))}"
    print(title, file=sys.stderr)
    with count_answers(len(answered), "rows judged") as advance:
        rows = [line.row for line in answered]
        samples = make_samples(rows, columns_of(answered), config, advance)
    for sample, line in zip(samples, answered, strict=True):
        sample["id"] = line.id
    summary = summarize(samples, next(iter(answered[0].replies)))
    record = answers_record(path, answered, config)
    show_report(title, summary, samples, config.examples)
    ranked = ranked_samples(samples, summary)[: config.examples]
    text = evaluation_markdown(f"Evaluation: {title}", summary, ranked)
    page = evaluation_page(f"Evaluation: {title}", [RowSet(title, summary, samples)], record)
    report: AnswersReport = {"summary": summary, "run": record}
    write_report(folder, samples, text, page, report)
    return report


def answers_record(
    path: Path, answered: Sequence[AnsweredRow], config: EvaluationConfig
) -> AnswersRecord:
    """With what the answers were judged."""
    by_id = any(line.of_split for line in answered)
    return {
        "answers": str(path),
        "answers_sha256": sha256_of(path),
        "split": (config.rows_from or DEFAULT_SPLIT) if by_id else None,
        "n": len(answered),
        "seed": config.seed,
        "settings": jsonable(asdict(config)),
        "number_tolerance": {"relative": REL_TOL, "absolute": ABS_TOL},
        "versions": package_versions(),
    }


# --- The chat ------------------------------------------------------------------------------------


def open_chat(config: EvaluationConfig) -> None:
    """Talk with the fine-tuned model, and with the base next to it, until the input ends."""
    import mlx.core as mx

    tuned = load_finetuned(config.adapter_path, config.model)

    def draw_example() -> Row:
        row = random.choice(typed_rows(config, "valid", tuned))
        return in_form([row], prepared_form(config.data), tuned)[0]

    mx.random.seed(config.seed)  # once: a question asked twice gets two draws
    candidates = CHAT_CANDIDATES if config.candidates is None else config.candidates
    settings = ChatSettings(
        config.temp, config.top_p, config.max_tokens or CHAT_TOKENS, None,
        config.show_base, config.sql_timeout, candidates=candidates,
    )  # fmt: skip
    with SqlWorker() as worker:
        state = Chat(tuned, settings, make_console(), worker, draw_example, config.log_questions)
        state.confidence = read_confidence(config.adapter_path)
        start_chat(state, config.db, config.schema)


def main(argv: Sequence[str] | None = None) -> int:
    """Read the flags, then evaluate, chat, or judge answers."""
    config = parse_config(EvaluationConfig, argv, __doc__, preset)

    def work() -> None:
        if config.answers:
            score_answers(config.answers, config)
            return
        prepare_process()
        open_chat(config) if config.interactive else evaluate(config)

    return run_script(work)


if __name__ == "__main__":
    sys.exit(main())
