"""The library versions that this was tried with, and a word when others are installed.

The code leans on inner parts of libraries (`tests/test_inner_parts.py` names them), which may
change without notice. Only one version of each was tried; releases that promise to be like it pass
silently: the same minor one below 1.0, else the same major one.
"""

from __future__ import annotations

import re
from typing import NamedTuple

# As in requirements.txt; a test compares them. By the names on PyPI.
TRIED = {
    "mlx": "0.32.4",
    "mlx-lm": "0.32.2",
    "datasets": "5.2.0",
    "pandas": "3.1.1",
    "transformers": "5.23.0",
    "huggingface-hub": "2.4.0",
}


class Untried(NamedTuple):
    """A library that is installed in a version of another series than the one tried."""

    name: str
    version: str


def series(version: str) -> tuple[str, ...]:
    """The numbers of a version within which little should change: 0.32 of 0.32.4, 5 of 5.23.0."""
    numbers = re.findall(r"\d+", version)
    return tuple(numbers[: 2 if numbers[:1] == ["0"] else 1])


def untried_libraries() -> list[Untried]:
    """What is installed in an untried version; what is missing is told where it is needed."""
    import importlib.metadata

    found = []
    for name, tried in TRIED.items():
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        if series(version) != series(tried):
            found.append(Untried(name, version))
    return found


def untried_line() -> str | None:
    """One line on the libraries that are installed in an untried version, if there are any."""
    if not (found := untried_libraries()):
        return None
    installed = ", ".join(f"{one.name} {one.version}" for one in found)
    wanted = " ".join(f"{one.name}=={TRIED[one.name]}" for one in found)
    return f"note: not tried with {installed}; if something fails: pip install {wanted}"
