"""What a column is for, by its name and values: to measure, to tell kinds apart, a date, a code.

It does not guess what a code stands for.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Sequence
from typing import Literal

from gemma_lora.name_reading import is_named_date, name_words

LONG_TEXT = 60  # mean characters from which a text is read and not asked for

Role = Literal["key", "label", "measure", "year", "date", "flag", "category", "code", "text"]
ROLES: tuple[str, ...] = Role.__args__  # type: ignore[attr-defined]

CODE_WORDS = set(
    "id code number zip postal phone fax extension sku isbn house no email mail address url path "
    "website homepage".split()
)
PLACE_WORDS = set("city town country state county region province continent".split())
ADDRESS = re.compile(r"https?://|www\.|\.html?\b|\w@[\w-]+\.\w", re.I)  # of a page, or for mail
DATE_FORMS = {  # form -> what its values look like
    "iso": re.compile(r"\d{4}-\d\d-\d\d(?:[ T]\d\d:\d\d.*)?"),
    "dotted": re.compile(r"\d\d\.\d\d\.\d{4}"),
    "slashed": re.compile(r"(?:0[1-9]|[12]\d|3[01])/(?:0[1-9]|1[0-2])/\d{4}"),
    "month first": re.compile(r"(?:0[1-9]|1[0-2])/(?:0[1-9]|[12]\d|3[01])/\d{4}"),
    "month year": re.compile(r"(?:0[1-9]|1[0-2])/(?:19|20)\d\d"),
    "compact": re.compile(r"(?:19|20)\d{6}"),
}
PARSED = {
    "iso": "%Y-%m-%d",
    "dotted": "%d.%m.%Y",
    "slashed": "%d/%m/%Y",
    "month first": "%m/%d/%Y",
    "month year": "%m/%Y",
    "compact": "%Y%m%d",
}


def date_form(name: str, values: Sequence[object]) -> str:
    """The form in which all values are dates, '' when they are none.

    Where every value could be read with the day or the month first, the day is.
    """
    for form, pattern in DATE_FORMS.items():
        if form == "compact" and not is_named_date(name):
            continue
        if all(pattern.fullmatch(str(v)) for v in values):
            return form if any(is_day(form, v) for v in values) else ""
    in_range = all(isinstance(v, int) and 10**8 < v < 4 * 10**9 for v in values)
    return "unix" if in_range and is_named_date(name) else ""


def is_day(form: str, value: object) -> bool:
    """Whether a value in the form of a date is a day that there is: not '0000-00-00'."""
    if form == "unix":
        return True
    try:
        day = datetime.datetime.strptime(str(value)[:10], PARSED[form])  # without its time
    except ValueError:
        return False
    return day.year < 9999  # which stands for no end


def is_number(value: object) -> bool:
    """Whether a value is a number, or the text of one ('007' is a code, not seven)."""
    if isinstance(value, str):
        return bool(re.fullmatch(r"-?(?:0|[1-9]\d*)(?:\.\d+)?", value))
    return isinstance(value, (int, float))


def role_of(name: str, values: Sequence[str | int | float], rows: int) -> tuple[Role, str]:
    """(role of a column that is no key, form of its values) from its name and distinct values."""
    words = set(name_words(name))
    kinds = {str(v).strip().lower() for v in values} if len(values) <= 2 else set()
    flags = ({"0", "1"}, {"0", "-1"}, {"y", "n"}, {"yes", "no"}, {"t", "f"}, {"true", "false"})
    if len(kinds) == 2 and any(kinds == pair for pair in flags):
        return "flag", ""
    if form := date_form(name, values):
        return "date", form
    if all(map(is_number, values)):
        if words & CODE_WORDS:
            return "code", ""
        if "year" in words or (
            all(isinstance(v, int) and 1500 <= v <= 2100 for v in values) and len(values) > 3
        ):
            return "year", ""
        return "measure", "text" if any(isinstance(v, str) for v in values) else ""
    if words & CODE_WORDS:
        return "code", ""
    if words & PLACE_WORDS:
        return "category", ""
    if sum(bool(ADDRESS.search(str(v))) for v in values) > 0.8 * len(values):
        return "code", ""
    if sum(len(str(v)) for v in values) > LONG_TEXT * len(values):
        return "text", ""
    if len(values) > 0.8 * rows and len(values) > 30:
        return "code", ""
    return "category", ""
