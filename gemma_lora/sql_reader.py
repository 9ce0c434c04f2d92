"""sqlglot in a process of its own, which ends when one text takes too long.

sqlglot's time can grow exponentially with a text (twenty JOINs without ON take hours), and nothing
inside Python stops it. Promises: a question is answered, or TooLong is raised after READ_SEC of the
process's own processor time; not of the clock's, so that a busy machine says the same. The kernel
ends the process without the parent's help: a busy orphan ends too. Not covered: Windows.
"""

from __future__ import annotations

import multiprocessing
import resource
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from gemma_lora.cli import UserError
from gemma_lora.sql_text import normal_sql, sqlglot_is_there

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

READ_SEC = 5.0
START_SEC = 60.0
MEMORY_BYTES = 1_000_000_000  # beyond what it starts with; Linux only
WARMING = "SELECT a FROM t JOIN u ON t.k = u.k WHERE b > 1 GROUP BY a"

Answer = TypeVar("Answer")


class TooLong(Exception):
    """A text could not be read within READ_SEC, or within the memory."""


class SqlReader:
    """One reused process that calls functions of ours; started at the first, replaced when ended.

    Functions, arguments and answers are pickled. From one thread at a time.
    """

    def __init__(self, read_sec: float = READ_SEC) -> None:
        self.read_sec = read_sec
        self._process: Any = None
        self._pipe: Any = None

    def close(self) -> None:
        """End the process, if there is one. Safe to repeat."""
        if self._process is not None:
            process, self._process = self._process, None
            self._pipe.close()
            process.kill()
            process.join()

    def ask(self, function: Callable[..., Answer], *arguments: Any) -> Answer:
        """What a module's function returns or raises; TooLong when the process ended first."""
        if not sqlglot_is_there():
            return function(*arguments)  # without sqlglot nothing takes long
        if self._process is None or not self._process.is_alive():
            self.close()
            self._start()
        done = False
        try:
            self._pipe.send((function, arguments))
            answer, error = self._pipe.recv()
            done = True
        except (EOFError, OSError):
            raise TooLong(f"not read within {self.read_sec} s") from None
        finally:
            if not done:  # it ended, or the caller was interrupted: its answer would come late
                self.close()
        if error is not None:
            raise error
        return answer  # type: ignore[no-any-return]

    def _start(self) -> None:
        spawn = multiprocessing.get_context("spawn")
        self._pipe, theirs = spawn.Pipe()
        self._process = spawn.Process(target=_serve, args=(theirs, self.read_sec), daemon=True)
        self._process.start()
        theirs.close()
        with suppress(EOFError):
            if self._pipe.poll(START_SEC):
                self._pipe.recv()
                return
        self.close()
        raise UserError("The process that reads SQL did not start")


def _serve(pipe: Connection, read_sec: float) -> None:
    """Answer (function, arguments) with (answer, error) until the parent's end closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's: it closes the pipe
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    normal_sql(WARMING)  # what is imported once does not count
    _limit_memory()
    with suppress(EOFError, OSError):
        pipe.send(None)
        while True:
            function, arguments = pipe.recv()
            answer: Any = None
            error: Exception | None = None
            signal.setitimer(signal.ITIMER_PROF, read_sec)
            try:
                answer = function(*arguments)
            except MemoryError:
                error = TooLong("not read within its memory")
            except Exception as problem:  # the caller's to see, as if it had called
                error = problem
            signal.setitimer(signal.ITIMER_PROF, 0)
            pipe.send((answer, error))


def _limit_memory() -> None:
    if sys.platform == "linux":
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * resource.getpagesize() + MEMORY_BYTES
        with suppress(ValueError, OSError):  # the system may not offer it
            resource.setrlimit(resource.RLIMIT_AS, (most, most))
