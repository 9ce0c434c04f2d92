"""How far a long piece of work is, on stderr: a bar for a person, lines for a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

Item = TypeVar("Item")


def track_rows(items: Iterable[Item], label: str, total: int | None = None) -> Iterator[Item]:
    """Pass items through, with a progress bar when a person is watching."""
    if not sys.stderr.isatty():
        yield from items
        return
    from rich.console import Console
    from rich.progress import track

    yield from track(items, label, total=total, console=Console(stderr=True), transient=True)


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
            left = (time.monotonic() - start) / done * (total - done)
            print(
                f"{label}: {done} of {total}, about {left:.0f} s left", file=sys.stderr, flush=True
            )

    yield advance
