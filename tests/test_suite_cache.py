"""Tests of suites that are kept between runs: found again, made anew when anything changes."""

from __future__ import annotations

import gzip
import json
import os
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gemma_lora import sandbox, suite_cache, suites, verdicts

pytest.importorskip("sqlglot")

PETS = """CREATE TABLE pets (id INTEGER PRIMARY KEY, name TEXT, age INT);
INSERT INTO pets VALUES (1, 'Rex', 3), (2, 'Tom', 5), (3, 'Odd', 9);"""
GOLD = "SELECT name FROM pets WHERE age > 4"


@pytest.fixture(scope="module")
def worker() -> Iterator[sandbox.SqlWorker]:
    with sandbox.SqlWorker(still=True) as one:
        yield one


def prepared(
    worker: sandbox.SqlWorker, cache: Path, gold: str = GOLD, context: str = PETS, seed: int = 1
) -> verdicts.Gold:
    row: Any = {"id": "1", "completion": gold, "context": context, "prompt": "?"}
    return verdicts.prepare_gold(row, worker, seed, 2.0, cache)


def shown(gold: verdicts.Gold) -> Any:
    """A suite without what the clock said."""
    assert gold.suite
    databases = gold.suite.databases
    return gold.suite.facts, [(d.context, d.result.rows, d.result.state) for d in databases]


def refuse(*_: Any) -> Any:
    raise AssertionError("made anew")


@pytest.mark.parametrize(
    "gold", [GOLD, "DELETE FROM pets WHERE age > 4", "SELECT id, 'é' FROM pets"]
)
def test_a_kept_suite_is_the_one_that_was_made(
    gold: str, worker: sandbox.SqlWorker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without: Any = {"id": "1", "completion": gold, "context": PETS, "prompt": "?"}
    plain = verdicts.prepare_gold(without, worker, 1, 2.0)
    assert shown(prepared(worker, tmp_path / "new", gold)) == shown(plain)
    monkeypatch.setattr(suites, "build_suite", refuse)
    assert shown(prepared(worker, tmp_path / "new", gold)) == shown(plain)


def test_that_there_is_no_suite_is_kept_too(
    worker: sandbox.SqlWorker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gold = "SELECT age FROM pets LIMIT 1"
    assert prepared(worker, tmp_path, gold).no_suite == suites.UNCERTAIN
    monkeypatch.setattr(suites, "build_suite", refuse)
    assert prepared(worker, tmp_path, gold).no_suite == suites.UNCERTAIN


@pytest.mark.parametrize("reason", suites.OF_THIS_MACHINE)
def test_what_another_machine_may_see_otherwise_is_not_kept(
    reason: str, worker: sandbox.SqlWorker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def tired(*_: Any) -> Any:
        raise suites.NoSuite(reason)

    with monkeypatch.context() as patch:
        patch.setattr(suites, "build_suite", tired)
        assert prepared(worker, tmp_path).no_suite == reason
    assert prepared(worker, tmp_path).suite is not None


def test_another_context_gold_seed_deadline_or_version_is_another_key(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = suite_cache.suite_key("a", "b", "1", 2.0)
    others = [
        ("x", "b", "1", 2.0), ("a", "x", "1", 2.0), ("a", "b", "2", 2.0), ("a", "b", "1", 3.0),
        ("ab", "", "1", 2.0),
    ]  # fmt: skip
    assert len({first, *(suite_cache.suite_key(*other) for other in others)}) == 1 + len(others)
    version = suite_cache.suite_version()
    suite_cache.suite_version.cache_clear()
    monkeypatch.setattr(sqlite3, "sqlite_version", "3.0.0")
    assert suite_cache.suite_version() != version
    monkeypatch.undo()
    suite_cache.suite_version.cache_clear()
    assert suite_cache.suite_version() == version


def test_a_rule_that_changes_leaves_no_old_suite_in_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = suite_cache.suite_version()
    for room in Path(suite_cache.__file__).parent.glob("*.py"):
        text = room.read_bytes() + (b"\n" if room.stem == "seeding" else b"")
        (tmp_path / room.name).write_bytes(text)
    monkeypatch.setattr(suite_cache, "__file__", str(tmp_path / "suite_cache.py"))
    suite_cache.suite_version.cache_clear()
    assert suite_cache.suite_version() != version
    monkeypatch.undo()
    suite_cache.suite_version.cache_clear()


DAMAGES = [
    b"", b"no gzip",
    *(
        gzip.compress(text, mtime=0)  # the same in every process that collects the tests
        for text in (
            b"{", b"[1]", b'{"facts": []}',
            json.dumps({"databases": ["CREATE"], "facts": {}, "reason": None}).encode(),
        )
    ),
]  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_made_anew(
    damage: bytes, worker: sandbox.SqlWorker, tmp_path: Path
) -> None:
    first = shown(prepared(worker, tmp_path))
    [file] = tmp_path.iterdir()
    whole = file.read_bytes()
    file.write_bytes(damage)
    assert shown(prepared(worker, tmp_path)) == first
    assert file.read_bytes() == whole and list(tmp_path.iterdir()) == [file]


def test_a_folder_that_cannot_be_written_costs_nothing(
    worker: sandbox.SqlWorker, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    assert prepared(worker, tmp_path / "file" / "below").suite is not None


def test_unused_versions_go_and_used_ones_stay(tmp_path: Path) -> None:
    for name, age in (("old", 40), ("used", 3)):
        (tmp_path / name).mkdir()
        then = time.time() - age * 24 * 3600
        os.utime(tmp_path / name, (then, then))
    suite_cache.keep_recipe(tmp_path / "new", "k", suite_cache.Recipe([], None, "why"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "used"]
    assert suite_cache.kept_recipe(tmp_path / "new", "k") == ([], None, "why")
    assert suite_cache.kept_recipe(tmp_path / "new", "other") is None
