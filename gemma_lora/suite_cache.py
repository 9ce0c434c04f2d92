"""Suites kept between runs, for the rows that are scored again and again.

A file holds the databases of one gold as SQL text, or why it has none; what the gold does on them
is asked anew. Its name is a hash of all that a suite depends on: context, gold, seed and deadline,
the versions of SQLite, sqlglot and Python, and the source of this package, so that no rule can
change and leave old suites in use. What cannot be read or written costs time, never a verdict.
"""

from __future__ import annotations

import functools
import gzip
import hashlib
import json
import shutil
import sqlite3
import sys
import time
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import NamedTuple, TypedDict

from gemma_lora.cli import UserError
from gemma_lora.files import model_cache, write_atomic

UNUSED_SEC = 30 * 24 * 3600.0  # suites of another version go when nobody used them for so long


class SuiteFacts(TypedDict):
    """What a sample says of its row's suite."""

    databases: int
    neighbours: int  # that run
    told_apart: int  # by the suite or the row's own database


class Recipe(NamedTuple):
    """What a suite can be made of again."""

    databases: list[str]  # as SQL text
    facts: SuiteFacts | None
    reason: str | None  # why there is no suite


@functools.cache
def suite_version() -> str:
    """A hash of what makes suites: this package's source, and the programs that it asks."""
    whole = hashlib.sha256()
    for room in sorted(Path(__file__).parent.glob("*.py")):
        whole.update(room.read_bytes())
    sqlglot = "none"
    with suppress(metadata.PackageNotFoundError):
        sqlglot = metadata.version("sqlglot")
    whole.update(f"{sqlite3.sqlite_version} {sqlglot} {sys.version_info[:2]}".encode())
    return whole.hexdigest()[:16]


def suite_folder() -> Path:
    """Where the suites of this version are kept."""
    return model_cache() / "suites" / suite_version()


def suite_key(context: str, sql: str, seed: str, timeout_sec: float) -> str:
    """The name under which a gold's suite is kept in the folder of its version."""
    return hashlib.sha256(json.dumps([context, sql, seed, timeout_sec]).encode()).hexdigest()


def kept_recipe(folder: Path, key: str) -> Recipe | None:
    """What was kept under a key; None when it is not there or not whole."""
    try:
        kept = json.loads(gzip.decompress((folder / f"{key}.json.gz").read_bytes()))
        return Recipe(kept["databases"], kept["facts"], kept["reason"])
    except (OSError, EOFError, ValueError, LookupError, TypeError):
        return None


def keep_recipe(folder: Path, key: str, recipe: Recipe) -> None:
    """Keep a suite, whole or not at all; a folder that cannot be written keeps none."""
    text = json.dumps(recipe._asdict())
    with suppress(UserError, OSError):
        if not folder.exists():
            remove_unused(folder)
        write_atomic(folder / f"{key}.json.gz", gzip.compress(text.encode(), 6, mtime=0))


def remove_unused(folder: Path) -> None:
    """Delete the folders of other versions to which nothing was added for UNUSED_SEC."""
    for other in folder.parent.glob("*/"):
        with suppress(OSError):
            if time.time() - other.stat().st_mtime > UNUSED_SEC:
                shutil.rmtree(other, ignore_errors=True)
