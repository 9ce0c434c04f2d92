"""Train, valid and test: how rows are divided, and the prepared folder as it is read again."""

from __future__ import annotations

import hashlib
import json
import random
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, NamedTuple, NotRequired, TypedDict

from gemma_lora.cli import UserError
from gemma_lora.files import read_json_lines, sha256_of
from gemma_lora.prompts import CONTROL_CHARACTERS, render_example
from gemma_lora.sql_text import schema_key

SPLITS = ("train", "valid", "test")


class Rendered(TypedDict):
    """What follows from question, answer and context."""

    id: str
    text: str  # <bos> to <eos>
    prompt: str
    completion: str
    type: Literal["sql", "alpaca"]
    question: str
    context: str | None  # SQL that makes the database, or an instruction's input


class Row(Rendered):
    """A row of train.jsonl, valid.jsonl or test.jsonl."""

    source: str
    complexity: NotRequired[str]
    task: NotRequired[str]
    domain: NotRequired[str]
    explanation: NotRequired[str]
    gold_runs: NotRequired[bool]  # these four when the gold query was run
    gold_returns_rows: NotRequired[bool]
    gold_kind: NotRequired[str]
    uses_clock: NotRequired[bool]


class Origin(TypedDict):
    """Where rows came from."""

    name: str
    revision: str | None  # of the hub, or the file's sha256
    licence: str | None


class KnownDatabase(TypedDict):
    """The database whose questions rows are."""

    name: str
    schema_hash: str


class TrainedOn(TypedDict, total=False):
    """What the rows of a prepared folder have in common."""

    # What prompts show beside the question: "schema" | "rows" | "full" | "none" | "values" |
    # "pointed".
    prompt_context: str
    question_twice: bool  # whether the question stands ahead of that too, as since format 2
    database: KnownDatabase  # the one they are about, if it is one


class PromptForm(NamedTuple):
    """How a question about a database is put to a model."""

    context: str = "schema"  # TrainedOn's prompt_context
    twice: bool = True


class SplitFile(TypedDict):
    """One file of a prepared folder."""

    rows: int
    sha256: str


class Manifest(TypedDict, total=False):
    """manifest.json: what was done, from what, with which result."""

    format: int
    type: Literal["sql", "alpaca"]
    source: Origin
    columns: dict[str, str]  # {ours: theirs}
    seed: int
    settings: dict[str, Any]
    counts: dict[str, dict[str, int]]
    token_lengths: dict[str, dict[str, int]]  # percentiles of prompt, completion, whole
    lengths_by: str
    max_seq_length_99: int
    balanced_by: str | None
    similar_schemas: int
    files: dict[str, SplitFile]


def balanced_order(labels: Sequence[str], seed: int) -> list[int]:
    """Order of indices in which every prefix holds each label at about its share of the whole."""
    draw = random.Random(seed)
    groups: dict[str, list[int]] = defaultdict(list)
    for index, label in enumerate(labels):
        groups[label].append(index)
    placed = []
    for label in sorted(groups):
        members = groups[label]
        draw.shuffle(members)
        offset = draw.random()
        placed += [((rank + offset) / len(members), i) for rank, i in enumerate(members)]
    return [index for _, index in sorted(placed)]


def stratum(rows: Sequence[Row]) -> str | None:
    """The column to balance a sample by: complexity, else task, if most rows have it."""
    for name in ("complexity", "task"):
        if sum(name in row for row in rows) > len(rows) // 2:
            return name
    return None


def split_groups(groups: Sequence[str], quota: Mapping[str, int], seed: int) -> list[str]:
    """Assign each row a split so that rows of one group share it.

    `groups` names each row's group; `quota` says how many rows "test" and "valid" want. Groups are
    drawn in a seeded order and taken while they fit (a group may overshoot by half its size).
    """
    sizes = Counter(groups)
    order = sorted(sizes, key=lambda g: hashlib.sha256(f"{seed} {g}".encode()).digest())
    chosen: dict[str, str] = {}
    for split in ("test", "valid"):
        room = quota[split]
        for group in order:
            if group not in chosen and sizes[group] <= max(1, 2 * room):
                chosen[group] = split
                room -= sizes[group]
            if room <= 0:
                break
    return [chosen.get(group, "train") for group in groups]


def similar_schemas(splits: Mapping[str, Sequence[Row]]) -> int:
    """How many held-apart schemas have nearly the words (Jaccard >= 0.8) of one in train."""
    keys = {n: {frozenset(schema_key(r["context"]).split()) for r in splits[n]} for n in SPLITS}
    by_word: dict[str, set[frozenset[str]]] = defaultdict(set)
    for key in keys["train"]:
        for word in key:
            by_word[word].add(key)
    near = 0
    for key in (keys["valid"] | keys["test"]) - {frozenset()}:
        # Schemas that share 80% of their words share the rarest of any 21% of them.
        rare = sorted(key, key=lambda w: (len(by_word[w]), w))[: len(key) // 5 + 1]
        others = set().union(*(by_word[w] for w in rare))
        near += any(len(key & other) >= 0.8 * len(key | other) for other in others)
    return near


def read_manifest(data_dir: Path) -> Manifest:
    """The manifest of a prepared folder, {} when there is none."""
    path = data_dir / "manifest.json"
    if not path.exists():
        return {}
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        if not all(isinstance(f["sha256"], str) for f in manifest.get("files", {}).values()):
            raise ValueError("its files have no hashes")
        return manifest
    except (OSError, ValueError, RecursionError, LookupError, AttributeError, TypeError) as error:
        raise UserError(f"{path} is not readable ({error}): run dataset.py again") from None


def trained_on(manifest: Manifest) -> TrainedOn:
    """What an adapter must know of the folder it was trained on, to be asked in the same way."""
    if manifest.get("type") != "sql":
        return {}
    settings, known = manifest.get("settings", {}), TrainedOn()
    known["prompt_context"] = str(settings.get("prompt_context") or "schema")
    known["question_twice"] = manifest.get("format", 1) >= 2
    if settings.get("db"):
        source = manifest["source"]
        known["database"] = {"name": source["name"], "schema_hash": source["revision"] or ""}
    return known


def taught_by(data_dir: Path) -> TrainedOn:
    """What an adapter trained on a prepared folder must know of it."""
    return trained_on(read_manifest(data_dir))


def is_of_database(data_dir: Path) -> bool:
    """Whether a folder holds the questions of one database; a folder that is none does not."""
    with suppress(UserError):
        return "database" in taught_by(data_dir)
    return False


def form_of(known: TrainedOn) -> PromptForm:
    """The form of prompts; as in the beginning where nothing is said of it."""
    return PromptForm(known.get("prompt_context") or "schema", known.get("question_twice", False))


def prepared_form(data_dir: Path) -> PromptForm:
    """The form of a prepared folder's prompts."""
    return form_of(taught_by(data_dir))


def read_split(data_dir: Path, split: str) -> list[Row]:
    """Rows of data/{split}.jsonl; raises UserError when absent, empty, not ours or half written."""
    path = data_dir / f"{split}.jsonl"
    if not path.exists():
        raise UserError(f"{path} is not there: run `python dataset.py` first (or give --data)")
    rows: list[Any] = list(read_json_lines(path))
    if not rows:
        raise UserError(f"{path} is empty: run `python dataset.py` again")
    for number, row in enumerate(rows, 1):
        wants = [k for k in ("text", "prompt", "completion") if not isinstance(row.get(k), str)]
        if wants:
            raise UserError(
                f"{path}, line {number} has no '{wants[0]}': it was not written by dataset.py; "
                "prepare the file with `python dataset.py --dataset-name FILE`"
            )
        if (
            CONTROL_CHARACTERS.search(row["text"])
            or not isinstance(row.get("type", ""), str)
            or not isinstance(row.get("context") or "", str)
            or row["text"] != render_example(row["prompt"], row["completion"])
        ):
            raise UserError(
                f"{path}, line {number}: 'text' is not what prompt and completion render to; "
                "edit the source and run dataset.py again"
            )
    if not (manifest := data_dir / "manifest.json").exists():
        raise UserError(
            f"{manifest}, which says that the splits are of one run, is not there (was dataset.py "
            "stopped while it wrote?): run `python dataset.py` again"
        )
    return rows


def read_training_data(
    folder: Path, wanted: str | None, batch_size: int
) -> tuple[dict[str, list[Row]], dict[str, str], str]:
    """Rows of train and valid, the files' hashes, and the rows' type, which must be `wanted`.

    Raises UserError, also for less than a batch of rows.
    """
    rows = {split: read_split(folder, split) for split in ("train", "valid")}
    hashes = {split: sha256_of(folder / f"{split}.jsonl") for split in rows}
    kind = rows["train"][0].get("type") or read_manifest(folder).get("type") or "sql"
    if wanted and wanted != kind:
        raise UserError(
            f"--dataset-type is {wanted}, but {folder} holds {kind} rows: run "
            f"`python dataset.py --type {wanted}` first, or drop the flag"
        )
    if len(rows["train"]) < batch_size:
        raise UserError(
            f"{folder}/train.jsonl has {len(rows['train'])} rows, fewer than --batch-size "
            f"{batch_size}: lower it, or prepare more rows"
        )
    return rows, hashes, kind


def edited_files(data_dir: Path) -> list[str]:
    """Names of split files whose bytes are no longer those the manifest vouches for."""
    files = read_manifest(data_dir).get("files", {})
    return [name for name, f in files.items() if sha256_of(data_dir / name) != f["sha256"]]
