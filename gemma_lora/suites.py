"""Test suites: a few small databases on which a query differs from its neighbours.

After Zhong, Yu and Klein, "Semantic Evaluation for Text-to-SQL with Distilled Test Suites" (EMNLP
2020). Promises: a suite depends on context, gold and seed alone, never on an answer; its budget is
counted in databases and statements, so that scores do not depend on the machine. DDL has no suite.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypedDict

from gemma_lora.neighbours import (
    NO_CHANGE,
    constant_query,
    gold_tree,
    neighbours,
    tie_breakers,
)
from gemma_lora.sandbox import SqlJob, SqlResult, SqlWorker
from gemma_lora.seeding import Plan, fill_script, make_plan
from gemma_lora.sql_text import PARSER_TRIPS
from gemma_lora.tables import Table, declared_tables, describe_table

MAX_DATABASES = 18  # tried for one gold
MAX_STATEMENTS = 900  # run for one gold
KEPT_ANYWAY = 6  # databases kept even when they tell no more neighbours apart
MAX_TABLES = 20
LONGEST_CONTEXT = 50_000  # characters

Same = Callable[[SqlResult, SqlResult], bool]  # (a result, the gold's): whether they match


class SuiteFacts(TypedDict):
    """What a sample says of its row's suite."""

    databases: int
    neighbours: int  # that run
    told_apart: int  # by the suite or the row's own database


class Database(NamedTuple):
    """One database of a suite and what the gold does on it."""

    context: str
    result: SqlResult


class Wanted(NamedTuple):
    """What a suite is made for and has to tell apart."""

    plan: Plan
    sql: str
    ordered: list[str]  # the gold with its ties broken
    running: list[str]  # the neighbours that run on the gold's own context
    left: list[str]  # those of them that the context does not tell apart


class Suite(NamedTuple):
    """The databases of one gold; never without any."""

    databases: tuple[Database, ...]
    facts: SuiteFacts


def read_tables(
    context: str, worker: SqlWorker, timeout_sec: float
) -> tuple[list[Table], dict[str, object]]:
    """The tables that a context declares and fills, with their declarations."""
    declared = declared_tables(context)
    names = list(declared)[:MAX_TABLES]
    jobs = [SqlJob(context, f"SELECT * FROM {name}", timeout_sec) for name in names]
    found = [
        describe_table(name, declared[name], result.columns, result.rows)
        for name, result in zip(names, worker.run_many(jobs), strict=True)
        if result.status == "ok"
    ]
    return found, declared


def build_suite(
    context: str,
    sql: str,
    gold: SqlResult,
    worker: SqlWorker,
    same: Same,
    seed: str,
    timeout_sec: float,
) -> Suite | None:
    """Databases until every neighbour that can be told apart is, or the budget is spent.

    `gold` is what the statement did on its own context. None when no suite can be made: DDL, text
    that sqlglot cannot read, no table to fill, or a result that is never certain.
    """
    tree = gold_tree(sql)
    if tree is None or len(context) > LONGEST_CONTEXT:
        return None
    tables, declared = read_tables(context, worker, timeout_sec)
    if not tables:
        return None
    names = {t.name: [c.name.lower() for c in t.columns] for t in tables}
    try:
        plan, others = make_plan(context, tree, tables, declared), neighbours(tree, names)
        ordered = tie_breakers(tree, len(gold.columns))
    except (*PARSER_TRIPS, IndexError):  # trees of odd statements lack what they should have
        return None
    others += [NO_CHANGE] if gold.state is not None else constant_query(gold.rows)
    results = list(worker.run_many([SqlJob(context, other, timeout_sec) for other in others]))
    running = [o for o, r in zip(others, results, strict=True) if r.status == "ok"]
    left = [o for o, r in zip(others, results, strict=True) if r.status == "ok" and same(r, gold)]
    wanted = Wanted(plan, sql, ordered, running, left)
    return distill(wanted, worker, same, seed, timeout_sec)


def distill(
    wanted: Wanted, worker: SqlWorker, same: Same, seed: str, timeout_sec: float
) -> Suite | None:
    """Keep the databases that tell apart what none before them did, and the first few anyway.

    A gold that is more often uncertain than certain has no suite.
    """
    kept: list[Database] = []
    left, spent, uncertain, certain = wanted.left, len(wanted.running), 0, 0
    for number in range(MAX_DATABASES):
        if spent >= MAX_STATEMENTS or (not left and len(kept) >= KEPT_ANYWAY):
            break
        forward, backward = fill_script(wanted.plan, number, seed)
        jobs = [SqlJob(forward, wanted.sql, timeout_sec), SqlJob(backward, wanted.sql, timeout_sec)]
        jobs.append(SqlJob(forward, wanted.sql, timeout_sec, reverse=True))
        jobs += [SqlJob(forward, one, timeout_sec) for one in (*wanted.ordered, *left)]
        gold, *again = worker.run_many(jobs)
        spent += len(jobs)
        checks, rest = again[: len(jobs) - len(left) - 1], again[len(jobs) - len(left) - 1 :]
        if gold.status != "ok" or gold.truncated or not all(same(r, gold) for r in checks):
            uncertain += 1
            continue
        certain += 1
        alike = [o for o, r in zip(left, rest, strict=True) if r.status != "ok" or same(r, gold)]
        shows = gold.state is not None or any(v is not None for row in gold.rows for v in row)
        if len(alike) < len(left) or (shows and len(kept) < KEPT_ANYWAY):
            kept.append(Database(forward, gold))
            left = alike
    if not kept or uncertain > certain:
        return None
    n = len(wanted.running)
    facts: SuiteFacts = {"databases": len(kept), "neighbours": n, "told_apart": n - len(left)}
    return Suite(tuple(kept), facts)


def passes_suite(sql: str, suite: Suite, worker: SqlWorker, same: Same, timeout_sec: float) -> bool:
    """Whether a statement does what the gold does on every database of its suite."""
    jobs = [SqlJob(database.context, sql, timeout_sec) for database in suite.databases]
    results = list(worker.run_many(jobs))
    return all(
        same(result, database.result)
        for result, database in zip(results, suite.databases, strict=True)
    )
