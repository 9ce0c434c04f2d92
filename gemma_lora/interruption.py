"""Ctrl-C and SIGTERM as a wish to stop, on which all ranks of a run agree."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


class StopRequest:
    """Whether somebody asked the run to stop: Ctrl-C or SIGTERM, here or on another rank."""

    def __init__(self, world: Any, say: Callable[[str], None]) -> None:
        self.world, self.say = world, say
        self.number: int | None = None  # of the signal that came

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take signals as wishes; a second Ctrl-C ends the process at once."""

        def ask(number: int, _frame: Any) -> None:
            if self.number is not None:
                raise KeyboardInterrupt
            self.number = number
            self.say("stopping after this step (once more: at once, without saving) ...")

        before = {s: signal.signal(s, ask) for s in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def agreed(self) -> bool:
        """Whether any rank was asked to stop; every rank must ask this equally often."""
        import mlx.core as mx

        asked = self.number is not None
        if self.world.size() == 1:
            return asked
        return bool(mx.distributed.all_sum(mx.array(int(asked)), stream=mx.cpu).item())
