"""How far a long piece of work is, on stderr: a bar for a person, lines for a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

LOG_EVERY_SEC = 5.0  # between two lines of a log; shorter work leaves none

Item = TypeVar("Item")


def track_rows(items: Iterable[Item], label: str, total: int | None = None) -> Iterator[Item]:
    """Pass items through, with a progress bar, or in a log a line every few seconds.

    Both say how long it still takes when `total` tells about how many items there are.
    """
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import track

        yield from track(items, label, total=total, console=Console(stderr=True), transient=True)
        return
    begun = told = time.monotonic()
    for done, item in enumerate(items):
        now = time.monotonic()
        if now - told >= LOG_EVERY_SEC:
            print(progress_line(label, done, total, now - begun), file=sys.stderr, flush=True)
            told = now
        yield item


def progress_line(label: str, done: int, total: int | None, seconds: float) -> str:
    """How far work is after `seconds`, and how long the rest takes at that pace."""
    if not total or not done:
        return f"{label}: {done:,} so far"
    left = seconds / done * max(total - done, 0)
    return f"{label}: {done:,} of {total:,}, about {left:.0f} s left"


@contextmanager
def count_answers(total: int, label: str) -> Iterator[Callable[[int], None]]:
    """Yields a function that counts finished rows: a bar with the time left, or plain lines."""
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import Progress

        columns, console = Progress.get_default_columns(), Console(stderr=True)
        with Progress(*columns, console=console, transient=True) as bar:
            task = bar.add_task(label, total=total)
            yield lambda n: bar.advance(task, n)
        return
    start, done, shown = time.monotonic(), 0, 0

    def advance(n: int) -> None:
        nonlocal done, shown
        done += n
        if done * 4 // total > shown:
            shown = done * 4 // total
            line = progress_line(label, done, total, time.monotonic() - start)
            print(line, file=sys.stderr, flush=True)

    yield advance
