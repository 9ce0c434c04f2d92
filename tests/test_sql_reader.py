"""Tests of sqlglot under a deadline: no gold, context or reply hangs an evaluation."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT

from gemma_lora import sandbox, sql_reader, sql_text, suites, verdicts

pytest.importorskip("sqlglot")

ENDLESS = "SELECT * FROM t" + " JOIN t" * 40  # sqlglot's time doubles with each
PETS = "CREATE TABLE pets (id INTEGER PRIMARY KEY, name TEXT); INSERT INTO pets VALUES (1, 'Rex');"


def spin(seconds: float) -> None:
    """Keep the processor busy in one call after another."""
    end = time.process_time() + seconds
    while time.process_time() < end:
        sum(range(1000))


def fail() -> None:
    raise LookupError("as if it had called")


@pytest.fixture(scope="module")
def impatient() -> Iterator[sandbox.SqlWorker]:
    """A worker whose reader gives up soon."""
    with sandbox.SqlWorker(still=True) as worker:
        worker.reader = sql_reader.SqlReader(0.3)
        yield worker


def scored(worker: sandbox.SqlWorker, gold: str, reply: str, context: str = PETS) -> Any:
    row: Any = {"id": "1", "completion": gold, "context": context, "prompt": "?"}
    prepared = verdicts.prepare_gold(row, worker, 42, 2.0)
    return prepared, verdicts.score_sql(reply, "stop", prepared, row, worker, 2.0)


def test_a_reader_answers_raises_and_is_reused() -> None:
    reader = sql_reader.SqlReader()
    assert reader.ask(sql_text.normal_sql, "select A from T") == "SELECT a FROM t"
    first = reader.ask(os.getpid)
    assert first != os.getpid() and reader.ask(os.getpid) == first
    with pytest.raises(LookupError, match="as if it had called"):
        reader.ask(fail)
    assert reader.ask(os.getpid) == first
    reader.close()
    reader.close()
    assert reader.ask(os.getpid) not in (first, os.getpid())
    reader.close()


def test_the_deadline_is_of_processor_time(impatient: sandbox.SqlWorker) -> None:
    reader = impatient.reader
    before = reader.ask(os.getpid)
    reader.ask(time.sleep, 0.6)  # waiting costs nothing
    reader.ask(spin, 0.2)
    reader.ask(spin, 0.2)  # and time is counted for each question alone
    assert reader.ask(os.getpid) == before
    with pytest.raises(sql_reader.TooLong):
        reader.ask(spin, 60)
    assert reader.ask(os.getpid) != before


def test_memory_is_bounded(impatient: sandbox.SqlWorker) -> None:
    if sys.platform == "linux":
        with pytest.raises(sql_reader.TooLong, match="memory"):
            impatient.reader.ask(bytearray, 2 * sql_reader.MEMORY_BYTES)
        assert impatient.reader.ask(len, "abc") == 3


def test_no_reply_hangs_its_row(impatient: sandbox.SqlWorker) -> None:
    start = time.monotonic()
    _, out = scored(impatient, "SELECT name FROM pets", ENDLESS)
    assert out["valid_sql"] is None and out["exact_match"] is False and out["match"] is False
    assert time.monotonic() - start < 20
    _, out = scored(impatient, "SELECT name FROM pets", "SELECT p.name FROM pets p")
    assert out["valid_sql"] is True and out["suite_match"] is True


def test_no_gold_hangs_and_a_row_so_cut_says_so(impatient: sandbox.SqlWorker) -> None:
    gold = "SELECT a.name FROM pets a" + "".join(f" JOIN pets b{i}" for i in range(25))
    prepared, out = scored(impatient, gold, "SELECT name FROM pets")
    assert prepared.suite is None and prepared.no_suite == suites.TOO_LONG
    assert out["match"] is True and out["suite_match"] is None
    assert prepared.normal is None and prepared.order is None and prepared.groups is None


def test_no_context_hangs(impatient: sandbox.SqlWorker) -> None:
    view = "CREATE VIEW v AS SELECT 1 FROM pets a" + " JOIN pets" * 30
    prepared, out = scored(impatient, "SELECT name FROM pets", "SELECT name FROM pets",
                           f"{PETS} {view};")  # fmt: skip
    assert out["match"] is True and prepared.no_suite == suites.TOO_LONG


def test_an_orphan_ends_by_itself(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(
        f"import sys, os, threading; sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / 'tests')!r}]\n"
        "from gemma_lora import sql_reader, sql_text\n"
        "if __name__ == '__main__':\n"
        "    reader = sql_reader.SqlReader()\n"
        "    print(reader.ask(os.getpid), flush=True)\n"
        f"    reader.ask(sql_text.normal_sql, {ENDLESS!r})\n"
    )
    parent = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True)
    assert parent.stdout
    child = int(parent.stdout.readline())
    time.sleep(0.5)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    end = time.monotonic() + 60
    while time.monotonic() < end and is_alive(child):
        time.sleep(0.1)
    assert not is_alive(child)


def is_alive(process: int) -> bool:
    """Whether a process runs; one that ended and was not waited for does not."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{process}/stat")
    return not state.exists() or state.read_text().rsplit(")", 1)[1].split()[0] != "Z"
