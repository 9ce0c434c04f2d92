"""Hand the sandbox everything in hostile_sql.py, then what chance makes of it, and tabulate.

    python tests/soak_hostile.py --seed 0               # the list, a large line: some 10 minutes
    python tests/soak_hostile.py --seed 0 --minutes 30  # and this long of fuzzing

Every attack runs as a statement on its context, as a statement before which sqlglot may translate
(`SqlWorker(translate=True)`), and as a context of its own. Prints one table by kind and one line of
JSON; the exit status is 1 when a file changed, the secret came out, or a bound was passed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from contextlib import chdir
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT)]

import hostile_sql as hostile  # noqa: E402

from gemma_lora import confinement, sandbox, sql_text  # noqa: E402

TIMEOUT_SEC = 0.3
# What a job may take beyond its deadline: the kill, the worker's end, and reading a text of 1 MB
# here, about 1 s on an idle core. Machines that run tests are not idle.
OVERSHOOT_SEC = confinement.KILL_GRACE_SEC + 24
# Of a translation six texts may be read by sqlglot, and seven runs may reach their deadlines.
TRANSLATED_SEC = 6 * (confinement.TRANSLATE_SEC + confinement.KILL_GRACE_SEC) + 6 * TIMEOUT_SEC
MEMORY_BYTES = 4 * confinement.HEAP_BYTES + 300_000_000  # RLIMIT_AS over what it started with
OUTCOMES = {"ok": "ran", "refused": "refused", "timeout": "timed out", "too_large": "too large",
            "error": "error"}  # fmt: skip


@dataclass
class Tally:
    """What became of the attacks of one kind."""

    outcomes: Counter[str] = field(default_factory=Counter)
    worst_sec: float = 0.0
    worst: str = ""

    def add(self, outcome: str, seconds: float, text: str) -> None:
        """Count one attack that took so long."""
        self.outcomes[outcome] += 1
        if seconds >= self.worst_sec:
            self.worst_sec, self.worst = seconds, text[:60]


@dataclass
class Watch:
    """All tallies, the worst overshoot and peak memory of the workers, and what went wrong."""

    tallies: dict[str, Tally] = field(default_factory=lambda: defaultdict(Tally))
    overshoot_sec: float = 0.0
    overshoot_factor: float = 0.0
    peak_bytes: int = 0
    problems: list[str] = field(default_factory=list)


def worker_peak_bytes(worker: sandbox.SqlWorker) -> int:
    """Peak resident memory of the worker's process; 0 where the system does not say."""
    try:
        text = Path(f"/proc/{worker._process.pid}/status").read_text()
    except (OSError, AttributeError):
        return 0
    return next((int(x.split()[1]) * 1024 for x in text.splitlines() if x[:5] == "VmHWM"), 0)


def leaks(result: sandbox.SqlResult) -> bool:
    """Whether the canary's secret is in what came back."""
    return hostile.SECRET in repr((result.rows, result.columns))


def strike(
    worker: sandbox.SqlWorker, found: Watch, kind: str, context: str, sql: str,
    bound_sec: float = OVERSHOOT_SEC,
) -> None:  # fmt: skip
    """Run one attack and note how it went; a new process is started before the clock is."""
    worker._ensure_process()
    start = time.monotonic()
    try:
        result = worker.run(context, sql, TIMEOUT_SEC)
    except Exception as error:  # the one thing run_sql promises not to do
        found.problems.append(f"{kind}: raised {error!r}: {sql[:80]!r}")
        return
    seconds = time.monotonic() - start
    found.tallies[kind].add(OUTCOMES[result.status], seconds, sql)
    found.overshoot_sec = max(found.overshoot_sec, seconds - TIMEOUT_SEC)
    found.overshoot_factor = max(found.overshoot_factor, seconds / TIMEOUT_SEC)
    found.peak_bytes = max(found.peak_bytes, worker_peak_bytes(worker))
    if seconds > TIMEOUT_SEC + bound_sec:
        found.problems.append(f"{kind}: took {seconds:.1f} s: {sql[:80]!r}")
    if leaks(result):
        found.problems.append(f"{kind}: read the secret: {sql[:80]!r}")
    if result.error is not None and "\n" in result.error:
        found.problems.append(f"{kind}: an error of several lines: {sql[:80]!r}")


def strike_all(
    attacks: Iterable[hostile.Attack], found: Watch, translate: bool, as_context: bool
) -> None:
    """Every attack as a statement, with or without translation, or as a context."""
    role = "context: " if as_context else "translated: " if translate else ""
    bound = TRANSLATED_SEC if translate else OVERSHOOT_SEC
    with sandbox.SqlWorker(translate=translate) as worker:
        for kind, sql, context in attacks:
            if as_context:
                strike(worker, found, role + kind, context + ";" + sql, "SELECT 1", bound)
            else:
                strike(worker, found, role + kind, context, sql, bound)


def read_all(attacks: Iterable[hostile.Attack], found: Watch) -> None:
    """What reads SQL without running it, in this process: it has to end soon, too."""
    read = sql_text
    readers = (read.statement_kind, read.uses_clock, read.schema_of, read.schema_key)
    for kind, sql, _ in attacks:
        for reader in readers:
            start = time.monotonic()
            reader(sql)
            reader(f"CREATE TABLE t (a); {sql}")
            seconds = time.monotonic() - start
            found.tallies[f"read: {reader.__name__}"].add("ran", seconds, sql)
            if seconds > 10:
                found.problems.append(f"{reader.__name__}: {seconds:.1f} s, {kind}: {sql[:80]!r}")


# --- Chance -------------------------------------------------------------------------------------

WORDS = """SELECT FROM WHERE GROUP BY ORDER HAVING LIMIT OFFSET WITH RECURSIVE AS UNION ALL EXCEPT
INTERSECT JOIN LEFT NATURAL USING ON VALUES INSERT INTO REPLACE UPDATE SET DELETE DROP TABLE CREATE
TEMP VIEW INDEX TRIGGER BEFORE AFTER INSTEAD OF BEGIN END RETURNING CONFLICT DO NOTHING CASE WHEN
THEN ELSE NOT NULL IS IN EXISTS BETWEEN LIKE GLOB ESCAPE COLLATE NOCASE CAST OVER PARTITION ROWS
RANGE UNBOUNDED PRECEDING FOLLOWING FILTER WINDOW DISTINCT EXPLAIN QUERY PLAN PRAGMA ATTACH DETACH
VACUUM REINDEX ANALYZE SAVEPOINT RELEASE ROLLBACK COMMIT STRICT WITHOUT ROWID GENERATED ALWAYS
VIRTUAL IF RAISE PRIMARY KEY UNIQUE CHECK DEFAULT REFERENCES CASCADE MATERIALIZED t a b n i x
zeroblob randomblob hex replace printf group_concat json json_each substr instr char quote sum
count max random strftime date load_extension readfile writefile fts5 rtree sqlite_master
pragma_table_info ( ) ( ) ( ) , , , * * . ; = < > + - / % || -> ->> 'x' 'now' "t" `t` [t] x'00'
1 2 0 -1 1e999 9223372036854775807 0xff ?1 :a @b -- /* */ ' " \x00 \ud800 \u202e é 😀""".split()


def soup(draw: random.Random) -> str:
    """Words of SQL in no order."""
    return " ".join(draw.choices(WORDS, k=draw.randint(1, 40)))


def mutated(draw: random.Random, statements: list[str]) -> str:
    """A statement with pieces cut, doubled, swapped for another's or overwritten."""
    text = draw.choice(statements)[:3000]
    for _ in range(draw.randint(1, 6)):
        start, end = sorted(draw.randint(0, len(text)) for _ in range(2))
        piece = text[start:end]
        other = draw.choice(statements)[:3000]
        cut = draw.randint(0, len(other))
        new = draw.choice((
            "", piece * 2, other[cut : cut + len(piece)], draw.choice(WORDS), f" {soup(draw)} ",
            chr(draw.randint(0, 0xFFFF)), piece.swapcase(), f"({piece})", str(draw.getrandbits(70)),
        ))  # fmt: skip
        text = text[:start] + new + text[end:]
    return text


def chance(seed: int, attacks: list[hostile.Attack]) -> Iterator[tuple[str, str, str]]:
    """(kind, context, statement) without an end; the same for the same seed."""
    draw = random.Random(seed)
    statements = [attack.sql for attack in attacks if attack.kind not in ("time", "growing")]
    contexts = [attack.context for attack in attacks]
    while True:
        context = draw.choice((draw.choice(contexts), mutated(draw, contexts), soup(draw)))
        yield "soup", hostile.CONTEXT, soup(draw)
        yield "mutated", context, mutated(draw, statements)


def fuzz(seed: int, minutes: float, attacks: list[hostile.Attack], found: Watch) -> int:
    """Run what chance makes for so long, in lists as dataset.py does, and say how many."""
    end, number = time.monotonic() + 60 * minutes, 0
    with sandbox.SqlWorker() as plain, sandbox.SqlWorker(translate=True) as translating:
        for number, (kind, context, sql) in enumerate(chance(seed, attacks)):
            if time.monotonic() > end:
                break
            translate = number % 10 == 9
            worker, bound = (translating, TRANSLATED_SEC) if translate else (plain, OVERSHOOT_SEC)
            name = f"chance: {kind}{', translated' if translate else ''}"
            strike(worker, found, name, context, sql, bound)
    return number


# --- A line of 1 GB -----------------------------------------------------------------------------


def huge_line(folder: Path) -> dict[str, Any]:
    """What dataset.py says to a file of one line of 1 GB, and the memory it took to say it."""
    path = folder / "huge.jsonl"
    with path.open("wb") as file:
        file.write(b'{"sql": "')
        file.truncate(10**9)  # sparse: zeros that take no room on the disk
    code = (
        "import sys, resource, dataset\n"
        "status = dataset.main(sys.argv[1:])\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, status)"
    )
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", code, "--dataset-name", path, "--output-dir", folder / "out"],
        capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    path.unlink()
    peak, status = (int(word) for word in (done.stdout.split() or ["0", "-1"])[-2:])
    unit = 1 if sys.platform == "darwin" else 1024
    return {
        "status": status, "said": done.stderr.strip()[-200:], "lines": done.stderr.count("\n"),
        "peak_gb": peak * unit / 1e9, "seconds": time.monotonic() - start,
    }  # fmt: skip


# --- The whole of it ----------------------------------------------------------------------------


def show(found: Watch) -> None:
    """Print one line per kind."""
    names = list(OUTCOMES.values())
    print(f"{'kind':32} {'tried':>6} " + " ".join(f"{n:>9}" for n in names) + "   worst s")
    for kind, tally in found.tallies.items():
        counts = " ".join(f"{tally.outcomes[name]:9}" for name in names)
        worst = tally.worst.encode("unicode_escape").decode()[:40]
        print(f"{kind:32} {tally.outcomes.total():6} {counts} {tally.worst_sec:9.2f}  {worst}")


def soak(seed: int, minutes: float, folder: Path) -> dict[str, Any]:
    """Everything, with `folder` as the current and the temporary one; the line of JSON."""
    attacks, found = hostile.attacks(), Watch()
    before = hostile.lay_bait(folder)
    os.environ |= {"TMPDIR": str(folder), "SQLITE_TMPDIR": str(folder)}
    with chdir(folder):
        read_all(attacks, found)
        for translate, as_context in ((False, False), (False, True), (True, False)):
            strike_all(attacks, found, translate, as_context)
        tried = fuzz(seed, minutes, attacks, found)
    if hostile.files_in(folder) != before:
        found.problems.append("files were written or changed")
    unit = 1 if sys.platform == "darwin" else 1024
    ended = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * unit
    found.peak_bytes = max(found.peak_bytes, ended)
    if found.peak_bytes > MEMORY_BYTES:
        found.problems.append(f"a worker took {found.peak_bytes:,} bytes")
    line = huge_line(folder)
    if line["status"] != 1 or line["lines"] != 1:
        found.problems.append(f"a line of 1 GB: {line}")
    show(found)
    return {
        "seed": seed, "attacks": len(attacks), "chance": tried,
        "outcomes": dict(sum((t.outcomes for t in found.tallies.values()), Counter())),
        "timeout_sec": TIMEOUT_SEC, "worst_overshoot_sec": round(found.overshoot_sec, 2),
        "worst_overshoot_factor": round(found.overshoot_factor, 1),
        "worker_peak_gb": round(found.peak_bytes / 1e9, 2), "line_of_1_gb": line,
        "problems": found.problems,
    }  # fmt: skip


def main() -> int:
    """Read the flags, soak, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--seed", type=int, default=0, help="seed of what chance makes")
    parser.add_argument("--minutes", type=float, default=1, help="how long to fuzz")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = soak(arguments.seed, arguments.minutes, Path(folder))
    print(json.dumps(result))
    return 1 if result["problems"] else 0


if __name__ == "__main__":
    sys.exit(main())
