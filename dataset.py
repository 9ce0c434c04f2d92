"""Prepare data for fine-tuning Gemma 3: load, clean, prove, split, write JSONL.

    python dataset.py                                       # text-to-SQL, from the hub
    python dataset.py --type alpaca --sample-size 1000      # instruction following
    python dataset.py --dataset-name sample --preview 3     # the bundled sample, offline
    python dataset.py --dataset-name rows.csv --columns sql_prompt=question,sql=answer
    python dataset.py --db shop.sqlite --describe           # how a database of yours is read
    python dataset.py --db shop.sqlite                      # questions made from it

Input: a Hugging Face data set, a local .json/.jsonl/.csv/.parquet file or a folder of such files,
the bundled sample of the type, or a SQLite file of yours. Output, in --output-dir: train.jsonl,
valid.jsonl, test.jsonl, manifest.json (what was done, counted, with hashes) and lengths.png.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import os
import random
import sys
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

from gemma_lora.cleaning import clean_text, normalized
from gemma_lora.cli import UserError, check, parse_config, run_script
from gemma_lora.context_rows import ANSWER_ROOM, shown_of, shown_with_rows
from gemma_lora.files import (
    ROOT,
    json_lines,
    jsonable,
    remove_leftovers,
    require_writable,
    sha256_of,
    write_together,
)
from gemma_lora.lengths import DEFAULT_MODEL, Ruler, Size, find_ruler, measured, row_sizes
from gemma_lora.own_database import (
    EXAMPLE_WEIGHT,
    OWN_SIZES,
    QUESTIONS,
    database_rows,
    describe,
    read_examples,
)
from gemma_lora.preparation_report import (
    DOUBTFUL,
    PROMPT_WITH_ROWS,
    PROMPT_WITHOUT_ROWS,
    count_splits,
    plot_lengths,
    replaced_set,
    show_preview,
    show_summary,
)
from gemma_lora.progress import track_rows
from gemma_lora.prompts import (
    alpaca_prompt,
    render_example,
    sql_prompt,
)
from gemma_lora.sandbox import SqlWorker, verify_gold
from gemma_lora.schema_prompt import own_form_of, own_prompt, partly_bare, suits
from gemma_lora.sources import (
    READERS,
    REQUIRED_COLUMNS,
    Source,
    count_local,
    match_columns,
    read_hub,
    read_local,
)
from gemma_lora.splits import (
    SPLITS,
    Manifest,
    Origin,
    Rendered,
    Row,
    SplitFile,
    balanced_order,
    similar_schemas,
    split_groups,
    stratum,
)
from gemma_lora.sql_text import schema_key
from gemma_lora.statistics import percentiles

DEFAULT_DATASETS = {"sql": "gretelai/synthetic_text_to_sql", "alpaca": "yahma/alpaca-cleaned"}
MAX_SEQ_LENGTH = 512
EMPTY_INPUTS = {"noinput", "no input", "<noinput>", "n/a", "none", "null"}

EXTRA_COLUMNS = {"complexity": "sql_complexity", "task": "sql_task_type", "domain": "domain"}


CleanFields = dict[str, str | None]  # a source's row under our column names


@dataclass(frozen=True)
class DatasetConfig:
    """Settings of one preparation; every field is a flag."""

    type: Literal["sql", "alpaca"] = field(
        default="sql", metadata={"help": "text-to-SQL or instruction following"}
    )
    dataset_name: str | None = field(
        default=None,
        metadata={
            "help": "hub data set, local file or folder, or 'sample' for the bundled rows; "
            "by default the well-known set of the type"
        },
    )
    db: Path | None = field(
        default=None, metadata={"help": "SQLite file to make questions from, instead of a data set"}
    )
    describe: bool = field(
        default=False, metadata={"help": "only print how the database of --db is read"}
    )
    lexicon: Path | None = field(
        default=None, metadata={"help": "YAML that mends how --db is read; start from --describe"}
    )
    examples: Path | None = field(
        default=None, metadata={"help": "own questions with their sql for --db; they only train"}
    )
    revision: str | None = field(default=None, metadata={"help": "hub revision to load"})
    config: str | None = field(
        default=None, metadata={"help": "configuration (subset) of a hub set that has several"}
    )
    split: str | None = field(
        default=None, metadata={"help": "split of a hub set to take the rows from, if not train"}
    )
    columns: str | None = field(
        default=None, metadata={"help": "column map, as sql_prompt=question,sql=answer"}
    )
    sample_size: int | None = field(
        default=None, metadata={"help": "keep this many rows, balanced by complexity or task"}
    )
    output_dir: Path = field(default=Path("data"), metadata={"help": "where the splits go"})
    seed: int = field(default=42, metadata={"help": "seed of sampling and splitting"})
    valid_fraction: float = field(default=0.1, metadata={"help": "share of rows to validate on"})
    test_fraction: float = field(default=0.1, metadata={"help": "share of rows to test on"})
    max_eval_rows: int = field(
        default=2000, metadata={"help": "most rows in valid, and in test; the rest trains"}
    )
    split_by: Literal["context", "row"] = field(
        default="context",
        metadata={"help": "context: rows over one SQL schema stay in one split; row: no grouping"},
    )
    prompt_context: Literal["schema", "rows", "full", "none", "values", "pointed"] = field(
        default="schema",
        metadata={
            "help": "what the prompt shows of the SQL context: its CREATEs, these and three rows "
            "of each table, all, or nothing; of a --db (values) the columns of texts that the "
            "question names, of a large one (pointed) the tables that its words point at"
        },
    )
    verify_sql: bool = field(
        default=True, metadata={"help": "run every gold query that has a context on SQLite"}
    )
    keep_unverified: bool = field(
        default=False, metadata={"help": "train also on rows whose gold query fails"}
    )
    keep_invalid: bool = field(
        default=False, metadata={"help": "repair odd rows where possible, do not drop them"}
    )
    sql_timeout: float = field(default=2.0, metadata={"help": "seconds a gold query may take"})
    workers: int = field(
        default=max(1, (os.cpu_count() or 2)), metadata={"help": "processes that run SQL"}
    )
    model: str = field(
        default=DEFAULT_MODEL, metadata={"help": "model whose tokenizer measures the lengths"}
    )
    max_seq_length: int = field(
        default=MAX_SEQ_LENGTH, metadata={"help": "longer rows, in tokens, are dropped, never cut"}
    )
    preview: int = field(
        default=0, metadata={"help": "print this many examples as the model will see them"}
    )

    def __post_init__(self) -> None:
        check(
            (self.sample_size is None or self.sample_size >= 3, "--sample-size must be 3 or more"),
            (0 < self.valid_fraction < 1, "--valid-fraction must be between 0 and 1"),
            (0 < self.test_fraction < 1, "--test-fraction must be between 0 and 1"),
            (self.valid_fraction + self.test_fraction < 1, "the two fractions must leave a rest"),
            (self.max_eval_rows >= 1, "--max-eval-rows must be 1 or more"),
            (0 < self.sql_timeout <= 600, "--sql-timeout must be above 0 and at most 600"),
            (self.workers >= 1, "--workers must be 1 or more"),
            (self.max_seq_length >= 16, "--max-seq-length must be 16 or more"),
            (self.preview >= 0, "--preview must be 0 or more"),
            (self.db is not None or not self.describe, "--describe needs --db"),
            (
                self.db is not None or not (self.lexicon or self.examples),
                "--lexicon and --examples need --db",
            ),
            (not (self.db and self.dataset_name), "give --db or --dataset-name, not both"),
            (
                not (self.db and (self.config or self.split)),
                "--config and --split choose within a hub set, not with --db",
            ),
            (not self.db or self.type == "sql", "--db makes SQL rows, not --type alpaca"),
            (
                suits(self.prompt_context, self.db),
                f"--prompt-context {self.prompt_context} goes "
                f"{'without' if self.db else 'with'} --db only",
            ),
            (self.columns is None or "=" in self.columns, "--columns must read name=theirs,..."),
        )

    @property
    def source(self) -> str:
        """The name under which the rows are looked for."""
        if self.db:
            return str(self.db)
        return self.dataset_name or DEFAULT_DATASETS[self.type]

    @functools.cached_property
    def source_name(self) -> str:
        """The source without the folders of this machine."""
        path = Path(self.source).expanduser()
        name = path.name if os.path.exists(path) else self.source
        return name.encode(errors="replace").decode()  # a file's name may be no UTF-8

    @property
    def is_drawn(self) -> bool:
        """Whether a sample is drawn from more rows; of a database as many are made as wanted."""
        return self.sample_size is not None and self.db is None

    @property
    def column_map(self) -> dict[str, str]:
        """{our column: their column}, as given with --columns."""
        pairs = [pair.partition("=") for pair in (self.columns or "").split(",") if pair.strip()]
        return {ours.strip(): theirs.strip() for ours, _, theirs in pairs}


def preset(given: Mapping[str, Any]) -> dict[str, Any]:
    """What --db sets where the user said nothing: where named values stand, unless it is large."""
    if not given.get("db"):
        return {}
    return {"prompt_context": own_form_of(given["db"]), **OWN_SIZES}


# --- Where rows come from ------------------------------------------------------------------------


def open_source(config: DatasetConfig) -> Source:
    """Find the rows, where they come from and about how many there are."""
    if config.db:
        wanted = config.sample_size or QUESTIONS
        return Source(*database_rows(config.db, config.lexicon, wanted, config.seed), wanted)
    bundled = config.source == "sample"
    path = Path(config.source).expanduser()
    if bundled:
        path = ROOT / "data" / f"sample_{config.type}.jsonl"
    elif not os.path.exists(path):  # pathlib's own raises for a name that is too long
        if path.suffix in READERS or config.source.startswith((".", "/", "~")):
            raise UserError(f"there is no file {config.source}: check the path in --dataset-name")
        return read_hub(config.source, config.revision, config.config, config.split)
    if config.config or config.split:
        raise UserError(
            f"--config and --split choose within a hub set, and {config.source} is none: leave "
            "them out"
        )
    origin: Origin = {
        "name": config.source_name,
        "revision": sha256_of(path) if bundled or path.is_file() else None,
        "licence": "MIT" if bundled else None,
    }
    return Source(read_local(path), origin, count_local(path))


# --- Cleaning -----------------------------------------------------------------------------------


def clean_row(
    row: Mapping[str, Any], columns: Mapping[str, str], config: DatasetConfig
) -> tuple[CleanFields | None, str | None, list[str]]:
    """Clean one raw row: (fields by our names or None, reason of a drop, repairs)."""
    clean: CleanFields = {}
    repairs: list[str] = []
    for ours, theirs in columns.items():
        value = row.get(theirs)
        if value is not None and not isinstance(value, str):
            if not config.keep_invalid or isinstance(value, (dict, list)):
                return None, "not text", repairs
            value, repairs = str(value), [*repairs, "not text"]
        text, made = clean_text(value or "")
        if "\ufffd" in text:
            if not config.keep_invalid:
                return None, "invalid UTF-8", repairs
            made.append("invalid UTF-8")
        repairs += made
        if ours == "input" and text.lower().strip(" .") in EMPTY_INPUTS:
            text, repairs = "", [*repairs, "no-input marks"]
        if not text and ours in REQUIRED_COLUMNS[config.type]:
            return None, f"empty {ours}", repairs
        clean[ours] = text or None
    for name, theirs in EXTRA_COLUMNS.items():
        if isinstance(row.get(theirs), str) and row[theirs].strip():
            clean[name] = clean_text(row[theirs])[0]
    return clean, None, sorted(set(repairs))


def rendered(
    question: str,
    completion: str,
    context: str | None,
    config: DatasetConfig,
    shown: str | None = None,
) -> Rendered:
    """The parts of a row that follow from question, answer and context.

    `shown` is what the prompt shows of the context, where that took running it.
    """
    if config.db:
        prompt = own_prompt(question, config.db, config.prompt_context)
    elif config.type == "sql":
        prompt = sql_prompt(question, shown or shown_of(context, config.prompt_context))
    else:
        prompt = alpaca_prompt(question, context)
    text = render_example(prompt, completion)
    return {
        "id": hashlib.sha256(text.encode()).hexdigest()[:16],
        "text": text,
        "prompt": prompt,
        "completion": completion,
        "type": config.type,
        "question": question,
        "context": context,
    }


def make_row(clean: Mapping[str, str | None], config: DatasetConfig) -> Row:
    """Build the row that is written: rendered text, and what it was made from."""
    question, answer, context = (
        ("sql_prompt", "sql", "sql_context")
        if config.type == "sql"
        else ("instruction", "output", "input")
    )
    parts = rendered(clean[question] or "", clean[answer] or "", clean.get(context), config)
    row: Row = {**parts, "source": config.source_name}
    more = {k: clean[k] for k in EXTRA_COLUMNS if k in clean}
    if clean.get("sql_explanation"):
        more["explanation"] = clean["sql_explanation"]
    return cast(Row, {**row, **more})


def prompt_key(row: Rendered) -> bytes:
    """A short key of the normalised prompt."""
    return hashlib.md5(normalized(row["prompt"]).encode()).digest()


def clean_rows(
    raw: Iterable[Mapping[str, Any]],
    columns: Mapping[str, str],
    config: DatasetConfig,
    counts: Mapping[str, Counter[str]],
    prompts: dict[bytes, bytes] | None = None,
) -> Iterator[Row]:
    """Clean and de-duplicate rows, adding to `counts` ("read", "dropped", "repaired").

    `prompts` is filled with the key of each prompt that came through and a key of its answer.
    """
    prompts = {} if prompts is None else prompts
    for row in raw:
        counts["rows"]["read"] += 1
        clean, reason, repairs = clean_row(row, columns, config)
        counts["repaired"].update(repairs)
        if clean is None:
            counts["dropped"][reason or "unusable"] += 1
            continue
        made = make_row(clean, config)
        prompt = prompt_key(made)
        answer = hashlib.md5(made["completion"].encode()).digest()
        if prompt in prompts:
            same = prompts[prompt] == answer
            counts["dropped"]["duplicate" if same else "duplicate prompt, other answer"] += 1
            continue
        prompts[prompt] = answer
        yield made


# --- Choosing, proving, measuring ---------------------------------------------------------------


class Proven(NamedTuple):
    """A row after its gold query was run."""

    row: Row
    moved_to: bytes | None  # the key of its prompt, where translating its context changed that


def verify_rows(
    rows: Iterable[Row],
    config: DatasetConfig,
    counts: Mapping[str, Counter[str]],
) -> Iterator[Proven]:
    """Run the gold query of each row that has a context; note in the row how that went."""
    if config.type != "sql" or not config.verify_sql:
        yield from (Proven(row, None) for row in rows)
        return
    waiting: deque[Row] = deque()

    def pairs() -> Iterator[tuple[str, str]]:
        for row in rows:
            waiting.append(row)
            yield row["context"] or "", row["completion"]

    for facts in verify_gold(pairs(), config.workers, config.sql_timeout):
        row = waiting.popleft()
        if not row["context"]:
            yield Proven(row, None)  # nothing to run it on: neither proven nor refuted
            continue
        row["gold_runs"] = facts["gold_runs"]
        row["gold_returns_rows"] = facts["gold_returns_rows"]
        row["gold_kind"], row["uses_clock"] = facts["gold_kind"], facts["uses_clock"]
        if not facts["gold_runs"] and not config.keep_unverified:
            counts["dropped"]["gold does not run"] += 1
            continue
        moved_to = None
        ran = (facts["gold"] or row["completion"], facts["context"])
        if ran != (row["completion"], row["context"]):  # train on the SQL that runs on SQLite
            before = prompt_key(row)
            row = {**row, **rendered(row["question"], *ran, config)}
            after = prompt_key(row)
            moved_to = after if after != before else None
            counts["repaired"]["SQL translated to SQLite"] += 1
        yield Proven(row, moved_to)


def showing_rows(
    proven: Iterable[Proven],
    ruler: Ruler,
    config: DatasetConfig,
    counts: Mapping[str, Counter[str]],
) -> Iterator[Proven]:
    """With --prompt-context rows, rows whose prompts show some of their tables' rows."""
    if config.type != "sql" or config.prompt_context != "rows":
        yield from proven
        return

    def again(one: Proven, shown: str | None) -> Row:
        r = one.row
        return {**r, **rendered(r["question"], r["completion"], r["context"], config, shown)}

    def fits(one: Proven, shown: str) -> bool:
        prompt, answer = row_sizes([again(one, shown)], ruler)[0]
        return prompt + max(answer, ANSWER_ROOM) <= config.max_seq_length

    with SqlWorker() as worker:
        for one, shown in shown_with_rows(
            proven, lambda one: one.row["context"], worker, config.sql_timeout, fits
        ):
            row = again(one, shown)
            bare = row["prompt"] == sql_prompt(row["question"], shown_of(row["context"], "schema"))
            counts["rows"][PROMPT_WITHOUT_ROWS if bare else PROMPT_WITH_ROWS] += 1
            yield one._replace(row=row)


def without_collisions(
    found: Iterable[tuple[Proven, Size]],
    prompts: Mapping[bytes, bytes],
    counts: Mapping[str, Counter[str]],
) -> Iterator[tuple[Row, Size]]:
    """Leave out rows that translation gave the prompt of another: one of `prompts`, or moved too.

    To be begun after all rows are read: sooner, it would depend on how far the SQL has got.
    """
    taken = set(prompts)
    for (row, moved_to), size in found:
        if moved_to is not None:
            if moved_to in taken:
                counts["dropped"]["duplicate"] += 1
                continue
            taken.add(moved_to)
        yield row, size


def example_rows(config: DatasetConfig) -> list[Row]:
    """The owner's examples as rows, each as often as it weighs."""
    if not (config.db and config.examples):
        return []
    examples = read_examples(config.examples, config.db)
    rows = [make_row({"sql_prompt": e.question, "sql": e.sql}, config) for e in examples]
    return [row for row in rows for _ in range(EXAMPLE_WEIGHT)]


def split_rows(rows: Sequence[Row], config: DatasetConfig) -> dict[str, list[Row]]:
    """Divide rows into train, valid and test; rows with a failing gold only train."""
    quota = {
        "test": min(config.max_eval_rows, max(1, round(len(rows) * config.test_fraction))),
        "valid": min(config.max_eval_rows, max(1, round(len(rows) * config.valid_fraction))),
    }
    by_schema = config.type == "sql" and config.split_by == "context"
    groups = [(schema_key(r["context"]) if by_schema else "") or r["id"] for r in rows]
    if config.db:  # a query that is asked in several ways stays in one split
        groups = [r["completion"] for r in rows]
    splits: dict[str, list[Row]] = {name: [] for name in SPLITS}
    for row, split in zip(rows, split_groups(groups, quota, config.seed), strict=True):
        if split == "train" or row.get("gold_runs", True):
            splits[split].append(row)
    empty = [name for name in SPLITS if not splits[name]]
    if empty:
        schemas = f" over {len(set(groups))} schemas; --split-by row may help" if by_schema else ""
        raise UserError(f"nothing is left for {empty[0]}: only {len(rows)} usable rows{schemas}")
    splits["train"] = partly_bare(splits["train"], config.prompt_context) + example_rows(config)
    order = random.Random(config.seed)
    for name in SPLITS:
        order.shuffle(splits[name])
    return splits


# --- What is written -----------------------------------------------------------------------------


def build_manifest(
    config: DatasetConfig,
    found: UsableRows,
    counts: Mapping[str, Counter[str]],
    similar: int,
    files: dict[str, SplitFile],
) -> Manifest:
    """What was done, from what, with which result; no clock in it, so that runs can be compared."""
    settings = jsonable(asdict(config))
    for local in ("output_dir", "preview", "workers"):  # change nothing in the data
        del settings[local]
    for own in ("db", "lexicon", "examples"):  # without the folders of this machine
        settings[own] = settings[own] and Path(settings[own]).name
    parts = {
        "prompt": [p for p, _ in found.lengths],
        "completion": [c for _, c in found.lengths],
        "whole": [p + c for p, c in found.lengths],
    }
    return {
        "format": 2,
        "type": config.type,
        "source": found.origin,
        "columns": found.columns,
        "seed": config.seed,
        "settings": settings,
        "counts": {name: dict(sorted(counter.items())) for name, counter in counts.items()},
        "token_lengths": {name: percentiles(values) for name, values in parts.items()},
        "lengths_by": found.ruler.name,
        "max_seq_length_99": found.max_seq_length_99,
        "balanced_by": found.balanced_by,
        "similar_schemas": similar,
        "files": files,
    }


# --- The whole of it ----------------------------------------------------------------------------


def draw_rows(clean: Iterator[Row], config: DatasetConfig) -> tuple[Iterable[Row], str | None]:
    """All rows as they come, or for --sample-size in a balanced order: (rows, balanced by what).

    Rows that come one by one are cleaned here while the SQL of earlier ones runs elsewhere.
    """
    if not config.is_drawn:
        return clean, None
    rows, wanted = list(clean), config.sample_size or 0
    if wanted > len(rows):
        raise UserError(
            f"--sample-size {wanted} is more than the {len(rows)} usable rows of "
            f"{config.source}: ask for fewer, or leave it out to keep all"
        )
    label = stratum(rows)
    labels = [str(dict(r).get(label or "", "")) for r in rows]
    return [rows[i] for i in balanced_order(labels, config.seed)], label


@dataclass(frozen=True)
class UsableRows:
    """Rows that can be trained on, and what was found out on the way to them."""

    rows: list[Row]
    lengths: list[Size]  # of each row
    origin: Origin
    columns: dict[str, str]  # {ours: theirs}
    ruler: Ruler
    max_seq_length_99: int  # would keep 99% of all rows
    balanced_by: str | None


def usable_rows(config: DatasetConfig, counts: Mapping[str, Counter[str]]) -> UsableRows:
    """Read, clean, verify, sample and measure; raises UserError when nothing is left."""
    source = open_source(config)
    head = list(itertools.islice(source.rows, 1000))  # a row of JSON may lack what the next has
    if not head:
        raise UserError(f"{config.source} holds no rows: give a set that has some")
    names = list(dict.fromkeys(name for row in head for name in row))
    columns = match_columns(names, config.type, config.column_map)
    renamed = ", ".join(f"{a}={b}" for a, b in columns.items() if a != b)
    if renamed:
        print(f"columns: {renamed}", file=sys.stderr)
    ruler, prompts, whole = find_ruler(config.model), dict[bytes, bytes](), list[int]()
    doing = "cleaning rows" if config.is_drawn else "cleaning, proving and measuring rows"
    everything = track_rows(itertools.chain(head, source.rows), doing, source.total)
    rows, label = draw_rows(clean_rows(everything, columns, config, counts, prompts), config)
    proven = verify_rows(rows, config, counts)
    shown = showing_rows(proven, ruler, config, counts)
    fitting = fitting_rows(shown, ruler, config, counts, whole)
    # A sample is counted after collisions are out; all its rows were read when it was drawn.
    found = without_collisions(fitting if config.is_drawn else list(fitting), prompts, counts)
    wanted = config.sample_size
    if config.is_drawn:
        found = track_rows(itertools.islice(found, wanted), "proving the sample", wanted)
    kept = list(found)
    if not kept:
        why = ", ".join(f"{reason}: {n}" for reason, n in counts["dropped"].items())
        raise UserError(f"no usable row in {config.source} ({why})")
    if config.is_drawn and len(kept) < (wanted or 0):
        print(f"--sample-size {wanted}: only {len(kept)} rows can be used", file=sys.stderr)
    return UsableRows(
        [row for row, _ in kept],
        [size for _, size in kept],
        source.origin,
        columns,
        ruler,
        percentiles(whole)["p99"],
        label,
    )


def fitting_rows(
    proven: Iterable[Proven],
    ruler: Ruler,
    config: DatasetConfig,
    counts: Mapping[str, Counter[str]],
    whole: list[int],
) -> Iterator[tuple[Proven, Size]]:
    """Rows short enough with their sizes; `whole` gets the length of every one.

    An estimate drops nothing: its doubtful rows are counted.
    """
    if not ruler.is_exact:
        counts["rows"][DOUBTFUL] = 0
    for one, size in measured(proven, lambda one: one.row, ruler):
        whole.append(sum(size))
        if sum(size) <= config.max_seq_length:
            yield one, size
        elif ruler.is_exact:
            counts["dropped"]["over --max-seq-length"] += 1
        else:
            counts["rows"][DOUBTFUL] += 1
            yield one, size


def prepare(config: DatasetConfig) -> Manifest:
    """Prepare the data of `config`, write the files and return the manifest."""
    require_writable(config.output_dir)
    chosen = (config.type, config.source_name, config.config, config.split)
    if before := replaced_set(config.output_dir, *chosen):
        print(
            f"note: {config.output_dir} holds {before}, which this run replaces (another "
            "--output-dir keeps both)",
            file=sys.stderr,
        )
    counts = {name: Counter[str]() for name in ("rows", "dropped", "repaired", "gold", "split")}
    counts |= {name: Counter[str]() for name in ("kind", "table") if config.db}
    found = usable_rows(config, counts)
    splits = split_rows(found.rows, config)
    count_splits(found.rows, splits, counts, bool(config.db))
    lines = {f"{name}.jsonl": "".join(json_lines(splits[name])).encode() for name in SPLITS}
    files: dict[str, SplitFile] = {
        name: {"rows": counts["split"][name[:-6]], "sha256": hashlib.sha256(data).hexdigest()}
        for name, data in lines.items()
    }
    similar = similar_schemas(splits) if config.type == "sql" else 0
    manifest = build_manifest(config, found, counts, similar, files)
    remove_leftovers(config.output_dir, (*lines, "manifest.json", "lengths.png"))
    write_together(
        {config.output_dir / name: data for name, data in lines.items()},
        config.output_dir / "manifest.json",
        json.dumps(manifest, indent=2) + "\n",
    )
    unit = "tokens" if found.ruler.is_exact else "tokens, estimated"
    title = f"{len(found.rows):,} rows, {config.type}"
    plot_lengths(config.output_dir, found.lengths, config.max_seq_length, title, unit)
    show_summary(config.output_dir, manifest)
    if config.preview:
        show_preview(splits["train"][: config.preview])
    return manifest


def main(argv: Sequence[str] | None = None) -> int:
    """Read the flags and prepare."""
    config = parse_config(DatasetConfig, argv, __doc__, preset)
    if config.db and config.describe:
        db = config.db
        return run_script(lambda: describe(db, config.lexicon))
    return run_script(lambda: prepare(config))


if __name__ == "__main__":
    sys.exit(main())
