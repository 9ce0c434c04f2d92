"""Test suites: a few small databases on which a query differs from its neighbours.

After Zhong, Yu and Klein, "Semantic Evaluation for Text-to-SQL with Distilled Test Suites" (EMNLP
2020). Promises: a suite depends on context, gold and seed alone, never on an answer; its budget is
counted in databases and statements, so that scores do not depend on the machine. DDL has no suite.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from gemma_lora.neighbours import (
    NO_CHANGE,
    constant_query,
    gold_tree,
    neighbours,
    tie_breakers,
)
from gemma_lora.sandbox import SqlJob, SqlResult, SqlWorker
from gemma_lora.seeding import Plan, fill_script, make_plan, unique_as_seen
from gemma_lora.sql_reader import TooLong
from gemma_lora.sql_text import PARSER_TRIPS
from gemma_lora.suite_cache import Recipe, SuiteFacts, keep_recipe, kept_recipe, suite_key
from gemma_lora.tables import declared_tables, describe_table

MAX_DATABASES = 18  # tried for one gold
MAX_STATEMENTS = 900  # run for one gold
KEPT_ANYWAY = 6  # databases kept even when they tell no more neighbours apart
MAX_TABLES = 20
LONGEST_CONTEXT = 50_000  # characters

LONGEST_SEC = 20.0  # that all statements for one gold may take; usual is a fiftieth of a second

UNREADABLE = "not a query or change that sqlglot can read"
NO_TABLES = "there is no table to fill"
UNCERTAIN = "what the gold shows is left open by SQL"
TOO_LARGE = "it leaves too many rows"
TOO_LONG = "sqlglot did not read it in time"
TOO_SLOW = "it runs too long"
OF_THIS_MACHINE = (TOO_LONG, TOO_SLOW)  # these two could be otherwise on another

Same = Callable[[SqlResult, SqlResult], bool]  # (a result, the gold's): whether they match


class NoSuite(Exception):
    """Why a gold has no suite, in a few words."""


@dataclass
class Patience:
    """How long the statements for one gold may still take, on the clock.

    The budget is counted in statements. This is for golds of which each takes a second: they are
    counted apart.
    """

    seconds: float = LONGEST_SEC

    def results(self, worker: SqlWorker, jobs: Sequence[SqlJob]) -> list[SqlResult]:
        """What the jobs did; NoSuite when they take too long."""
        found = []
        for result in worker.run_many(jobs):
            found.append(result)
            self.seconds -= result.seconds
            if self.seconds < 0:
                raise NoSuite(TOO_SLOW)
        return found


class Database(NamedTuple):
    """One database of a suite and what the gold does on it."""

    context: str
    result: SqlResult


class Material(NamedTuple):
    """What a gold's text and its tables give to make a suite from."""

    plan: Plan
    others: list[str]  # its neighbours
    ordered: list[str]  # the gold with its ties broken


class Wanted(NamedTuple):
    """What a suite is made for and has to tell apart."""

    plan: Plan
    sql: str
    ordered: list[str]
    running: list[str]  # the neighbours that run on the gold's own context
    left: list[str]  # those of them that the context does not tell apart
    doubt: float = 1.0  # at most so many uncertain databases for a certain one


class Suite(NamedTuple):
    """The databases of one gold; never without any."""

    databases: tuple[Database, ...]
    facts: SuiteFacts


def table_names(context: str, sql: str) -> list[str]:
    """The tables that a context declares, as SQL; [] for a gold that can have no suite."""
    return list(declared_tables(context))[:MAX_TABLES] if gold_tree(sql) is not None else []


def make_material(
    context: str, sql: str, shown: Mapping[str, SqlResult], width: int
) -> Material | None:
    """Plan, neighbours and ties of a gold with `width` columns; `shown`: all rows of each table.

    None when the gold is an odd statement, whose tree lacks what it should have.
    """
    declared, tree = declared_tables(context), gold_tree(sql)
    try:
        tables = [
            describe_table(name, declared[name], result.columns, result.rows)
            for name, result in shown.items()
        ]
        names = {t.name: [c.name.lower() for c in t.columns] for t in tables}
        plan = make_plan(context, tree, tables, declared)
        return Material(plan, neighbours(tree, names), tie_breakers(tree, width))
    except (*PARSER_TRIPS, LookupError):
        return None


def read_material(
    context: str, sql: str, width: int, worker: SqlWorker, timeout_sec: float
) -> Material:
    """What a suite is made from; NoSuite when it cannot be read."""
    if len(context) > LONGEST_CONTEXT:
        raise NoSuite(f"its context is longer than {LONGEST_CONTEXT:,} characters")
    try:
        names = worker.reader.ask(table_names, context, sql)
        jobs = [SqlJob(context, f"SELECT * FROM {name}", timeout_sec) for name in names]
        results = zip(names, worker.run_many(jobs), strict=True)
        shown = {name: result for name, result in results if result.status == "ok"}
        if not shown:
            raise NoSuite(NO_TABLES if names else UNREADABLE)
        material = worker.reader.ask(make_material, context, sql, shown, width)
    except TooLong:
        raise NoSuite(TOO_LONG) from None
    if material is None:
        raise NoSuite(UNREADABLE)
    return material


def suite_of(
    context: str,
    sql: str,
    gold: SqlResult,
    worker: SqlWorker,
    same: Same,
    seed: str,
    timeout_sec: float,
    cache: Path | None = None,
) -> Suite:
    """A gold's suite, out of the folder `cache` if it was made before; NoSuite if it has none.

    `gold` is what the statement did on its own context.
    """
    key = suite_key(context, sql, seed, timeout_sec)
    recipe = kept_recipe(cache, key) if cache else None
    if recipe and (known := cooked(recipe, sql, worker, timeout_sec)):
        return known
    try:
        suite = build_suite(context, sql, gold, worker, same, seed, timeout_sec)
        recipe = Recipe([d.context for d in suite.databases], suite.facts, None)
        return suite
    except NoSuite as reason:
        recipe = Recipe([], None, str(reason))
        raise
    finally:
        if cache and recipe and recipe.reason not in OF_THIS_MACHINE:
            keep_recipe(cache, key, recipe)


def cooked(recipe: Recipe, sql: str, worker: SqlWorker, timeout_sec: float) -> Suite | None:
    """The suite of a recipe; NoSuite if it says so, None if it does not work."""
    if recipe.reason:
        raise NoSuite(recipe.reason)
    results = list(worker.run_many(SqlJob(c, sql, timeout_sec) for c in recipe.databases))
    if recipe.facts is None or any(r.status != "ok" or r.truncated for r in results):
        return None
    return Suite(tuple(map(Database, recipe.databases, results)), recipe.facts)


def build_suite(
    context: str,
    sql: str,
    gold: SqlResult,
    worker: SqlWorker,
    same: Same,
    seed: str,
    timeout_sec: float,
) -> Suite:
    """Databases until every neighbour that can be told apart is, or the budget is spent."""
    if gold.state is not None and gold.contents is None:
        raise NoSuite(TOO_LARGE)
    plan, others, ordered = read_material(context, sql, len(gold.columns), worker, timeout_sec)
    others = others + ([NO_CHANGE] if gold.state is not None else constant_query(gold.rows))
    patience = Patience()
    results = patience.results(worker, [SqlJob(context, other, timeout_sec) for other in others])
    running = [o for o, r in zip(others, results, strict=True) if r.status == "ok"]
    left = [o for o, r in zip(others, results, strict=True) if r.status == "ok" and same(r, gold)]
    wanted = Wanted(plan, sql, ordered, running, left)
    try:
        return distill(wanted, worker, same, seed, timeout_sec, patience)
    except NoSuite as reason:
        if str(reason) != UNCERTAIN:
            raise
    wanted = wanted._replace(plan=unique_as_seen(plan), doubt=0.2)
    return distill(wanted, worker, same, seed, timeout_sec, patience)


def distill(
    wanted: Wanted,
    worker: SqlWorker,
    same: Same,
    seed: str,
    timeout_sec: float,
    patience: Patience,
) -> Suite:
    """Keep the databases that tell apart what none before them did, and the first few anyway.

    NoSuite for a gold that is too often uncertain.
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
        gold, *again = patience.results(worker, jobs)
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
    if not kept or uncertain > wanted.doubt * certain:
        raise NoSuite(UNCERTAIN)
    n = len(wanted.running)
    facts: SuiteFacts = {"databases": len(kept), "neighbours": n, "told_apart": n - len(left)}
    return Suite(tuple(kept), facts)


def passes_suite(sql: str, suite: Suite, worker: SqlWorker, same: Same, timeout_sec: float) -> bool:
    """Whether a statement does what the gold does on every database of its suite."""
    return all(  # one by one: most that are wrong fail on the first
        same(worker.run(database.context, sql, timeout_sec), database.result)
        for database in suite.databases
    )
