"""The bundled samples: is what they promise in the files?"""

from __future__ import annotations

import json
import random
import re
import sqlite3
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

from make_sample_sql import COMPLEXITY, TEMPLATES, missing_literals, skeleton, unseen_elsewhere

ROOT = Path(__file__).resolve().parent.parent
SQL_FILE = ROOT / "data" / "sample_sql.jsonl"
ALPACA_FILE = ROOT / "data" / "sample_alpaca.jsonl"
SQL_KEYS = {
    "sql_prompt",
    "sql_context",
    "sql",
    "sql_explanation",
    "domain",
    "sql_complexity",
    "sql_task_type",
}

Row = dict[str, str]


def read_rows(path: Path) -> list[Row]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def sql_rows() -> list[Row]:
    return read_rows(SQL_FILE)


@pytest.fixture(scope="module")
def alpaca_rows() -> list[Row]:
    return read_rows(ALPACA_FILE)


def run_gold(row: Row) -> list[tuple[object, ...]]:
    with sqlite3.connect(":memory:") as database:
        database.executescript(row["sql_context"])
        return database.execute(row["sql"]).fetchall()


def test_sql_rows_have_the_columns_of_the_hub_set(sql_rows: list[Row]) -> None:
    assert all(row.keys() == SQL_KEYS for row in sql_rows)
    assert all(
        isinstance(value, str) and value.strip() for row in sql_rows for value in row.values()
    )


def test_sql_counts(sql_rows: list[Row]) -> None:
    domains = Counter(row["domain"] for row in sql_rows)
    assert len(sql_rows) >= 900
    assert len(domains) >= 30
    assert max(domains.values()) <= 2 * len(sql_rows) / len(domains)
    assert {row["sql_complexity"] for row in sql_rows} == set(COMPLEXITY.values())


def test_one_context_per_schema(sql_rows: list[Row]) -> None:
    pairs = {(row["domain"], row["sql_context"]) for row in sql_rows}
    assert len(pairs) == len({row["domain"] for row in sql_rows})


def test_schemas_are_small_and_hold_nulls(sql_rows: list[Row]) -> None:
    for context in {row["sql_context"] for row in sql_rows}:
        creates = re.findall(r"CREATE TABLE \w+ \(([^)]*)\)", context)
        assert 1 <= len(creates) <= 3
        assert all(3 <= len(create.split(",")) <= 7 for create in creates)
        assert "NULL" in context
        with sqlite3.connect(":memory:") as database:
            database.executescript(context)
            for table in re.findall(r"CREATE TABLE (\w+)", context):
                (count,) = database.execute(f"SELECT COUNT(*) FROM {table}").fetchone()
                assert 6 <= count <= 15


def test_every_gold_runs_and_nearly_all_return_values(sql_rows: list[Row]) -> None:
    with_values = sum(
        any(value is not None for found in run_gold(row) for value in found) for row in sql_rows
    )
    assert with_values / len(sql_rows) >= 0.97


def test_golds_only_read_and_never_ask_the_clock(sql_rows: list[Row]) -> None:
    for row in sql_rows:
        assert re.match(r"(SELECT|WITH) ", row["sql"])
        assert row["sql"].endswith(";")
        assert row["sql"].count(";") == 1
        assert not re.search(r"(?i)'now'|current_(date|time)|random\(", row["sql"])


def test_questions_name_the_literals(sql_rows: list[Row]) -> None:
    lost = [
        row["sql_prompt"] for row in sql_rows if missing_literals(row["sql_prompt"], row["sql"])
    ]
    assert lost == []


def test_skeleton_masks_names_and_literals() -> None:
    sql = "SELECT a.name, COUNT(*) FROM a WHERE a.city = 'Bad; Town' AND n > 4.5 LIMIT 3;"
    assert skeleton(sql) == "SELECT _ . _ , COUNT ( * ) FROM _ WHERE _ . _ = ? AND _ > ? LIMIT ?"
    assert skeleton("select x from y") == skeleton("SELECT title FROM books;")


def test_skeletons_are_many_and_none_dominates(sql_rows: list[Row]) -> None:
    shapes = Counter(skeleton(row["sql"]) for row in sql_rows)
    assert len(shapes) >= 120
    assert shapes.most_common(1)[0][1] <= 0.05 * len(sql_rows)


def test_most_rows_have_a_skeleton_that_another_schema_has(sql_rows: list[Row]) -> None:
    homes: dict[str, set[str]] = {}
    for row in sql_rows:
        homes.setdefault(skeleton(row["sql"]), set()).add(row["domain"])
    shared = sum(len(homes[skeleton(row["sql"])]) > 1 for row in sql_rows)
    assert 0.65 <= shared / len(sql_rows) <= 0.85


def test_any_three_held_apart_schemas_bring_unseen_skeletons(sql_rows: list[Row]) -> None:
    domains = sorted({row["domain"] for row in sql_rows})
    rng = random.Random(0)
    unseen = [unseen_elsewhere(sql_rows, rng.sample(domains, 3)) for _ in range(50)]
    assert min(unseen) >= 15


def test_no_question_twice_and_no_gold_thrice(sql_rows: list[Row]) -> None:
    questions = Counter((row["domain"], row["sql_prompt"].casefold()) for row in sql_rows)
    golds = Counter((row["domain"], row["sql"]) for row in sql_rows)
    assert max(questions.values()) == 1
    assert max(golds.values()) <= 2


def test_every_template_has_three_wordings() -> None:
    assert all(len(set(template.questions)) >= 3 for template in TEMPLATES)


def generate(seed: int, output: Path) -> bytes:
    script = ROOT / "tests" / "make_sample_sql.py"
    command = [sys.executable, str(script), "--seed", str(seed), "--output", str(output)]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    return output.read_bytes()


def test_the_seed_writes_the_bundled_file_again(tmp_path: Path) -> None:
    assert generate(7, tmp_path / "again.jsonl") == SQL_FILE.read_bytes()


def test_another_seed_meets_the_same_requirements(tmp_path: Path) -> None:
    assert generate(8, tmp_path / "other.jsonl") != SQL_FILE.read_bytes()


def test_alpaca_rows(alpaca_rows: list[Row]) -> None:
    assert len(alpaca_rows) >= 150
    for row in alpaca_rows:
        assert {"instruction", "input", "output"} <= row.keys()
        assert all(isinstance(row[key], str) for key in ("instruction", "input", "output"))
        assert row["instruction"].strip()
        assert row["output"].strip()


def test_alpaca_pairs_are_distinct_and_some_have_input(alpaca_rows: list[Row]) -> None:
    pairs = Counter((row["instruction"], row["input"]) for row in alpaca_rows)
    assert max(pairs.values()) == 1
    with_input = sum(bool(row["input"].strip()) for row in alpaca_rows)
    assert 0 < with_input < len(alpaca_rows)
