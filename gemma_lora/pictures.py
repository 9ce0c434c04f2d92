"""Pictures: a matplotlib figure without a screen, and its bytes as PNG."""

from __future__ import annotations

import io
from typing import Any


def new_figure(width: float, height: float, **grid: Any) -> tuple[Any, Any] | None:
    """(figure, axes) of so many inches, `grid` for `plt.subplots`; None without matplotlib."""
    try:
        import matplotlib
    except ImportError:
        return None
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    return plt.subplots(figsize=(width, height), layout="constrained", **grid)


def png_of(figure: Any) -> bytes:
    """The figure as PNG; it is closed. The same data give the same bytes: no version inside."""
    import matplotlib.pyplot as plt

    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120, metadata={"Software": None})
    plt.close(figure)
    return buffer.getvalue()
