"""Pictures: a matplotlib figure without a screen, its bytes as PNG, its shapes as inline SVG."""

from __future__ import annotations

import io
import re
from typing import Any
from xml.etree import ElementTree

INK = "#010203"  # drawn with it, a line or a text takes the colour of the text around the picture
FONT_SIZE = re.compile(r"([\d.]+)px")
NOT_SHAPES = {"metadata", "style", "title"}


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


def svg_of(figure: Any, name: str, description: str) -> str:
    """The figure as an <svg> element for the inside of a page; it is closed.

    Texts stay texts, in the page's own font, and what is drawn with INK takes the colour of the
    text around it, so that one picture serves a light and a dark page. It has no style of its own,
    which a strict content security policy would refuse. `name` keeps its ids apart from those of
    other pictures; `description` is read out in its place. The same data give the same text.
    """
    import matplotlib
    import matplotlib.pyplot as plt

    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    plt.close(figure)
    root = ElementTree.fromstring(buffer.getvalue())
    box = root.get("viewBox", "")
    for element in root.iter():
        for child in [c for c in element if plain_name(c.tag) in NOT_SHAPES]:
            element.remove(child)
        simplify(element, name)
    root.attrib = {"viewBox": box, "role": "img", "aria-label": description, "class": "chart"}
    return ElementTree.tostring(root, encoding="unicode", short_empty_elements=True)


def simplify(element: ElementTree.Element, name: str) -> None:
    """Make an element of matplotlib's SVG one of an HTML page: see `svg_of`."""
    element.tag = plain_name(element.tag)
    old, element.attrib = element.attrib, {}
    for key, value in old.items():
        plain = plain_name(key)
        if plain == "id":  # those of groups are referred to by nobody
            if element.tag == "g":
                continue
            element.set("id", f"{name}-{value}")
        elif plain == "style":
            for attribute, setting in style_attributes(value).items():
                element.set(attribute, setting)
        else:
            element.set(plain, re.sub(r"#(?=\w)", f"#{name}-", value))
    element.tail = None


def plain_name(name: str) -> str:
    """A tag or attribute without its XML namespace."""
    return name.rpartition("}")[2]


def style_attributes(style: str) -> dict[str, str]:
    """A CSS declaration of matplotlib's as presentation attributes."""
    found = {}
    for part in style.split(";"):
        key, _, value = (text.strip() for text in part.partition(":"))
        if key == "font":
            size = FONT_SIZE.search(value)
            found["font-size"] = size[1] if size else "10"
        elif key and key != "font-family":  # the page's own
            found[key] = "currentColor" if value == INK else value
    return found
