"""What the names that programmers give to tables and columns are called by people."""

from __future__ import annotations

import re
from collections.abc import Sequence

# How programmers mark a name's kind; people leave it out.
PREFIXES = set(
    "tbl t tb str dt int dbl n fk pk vw v num txt cd flg flag lnk ref lkp dim fact".split()
)
# 'bPaid', 'curFee', 'sPCode': a kind only before a capital, and not the f of 'fName'.
HUNGARIAN = re.compile(
    r"^(?:ts|[bcdins]|f(?!Name)|cur|mny|mem|bln|ysn|lng|sng|byt|dtm|dte|vch|flt)(?=[A-Z](?:[a-z]|\w{2}))"
)
DATE_WORDS = set("dt ts timestamp date time at on ordered created born since joined hired".split())
SUFFIXES = {"mst", "mstr", "master", "hdr", "header", "tbl", "tab"}  # of tables
TEMPORARY = {"tmp", "bak", "backup", "staging", "stg"}  # "temp" may be a temperature
ABBREVIATIONS = {
    "qty": "quantity", "amt": "amount", "cust": "customer", "emp": "employee", "dept": "department",
    "prod": "product", "cat": "category", "addr": "address", "desc": "description", "tel": "phone",
    "num": "number", "nr": "number", "dob": "date of birth", "fname": "first name", "ord": "order",
    "lname": "last name", "qnty": "quantity", "inv": "invoice", "mgr": "manager", "cnt": "count",
    "nm": "name", "grp": "group", "lin": "line", "ln": "line", "vend": "vendor", "lim": "limit",
    "sal": "salary", "mth": "month", "lvl": "level", "wgt": "weight", "wt": "weight",
    "disc": "discount", "pct": "percent", "tot": "total", "stat": "status", "descr": "description",
    "curr": "currency", "acct": "account", "pmt": "payment", "dlv": "delivery",
    "newsltr": "newsletter", "discont": "discontinued", "pref": "preferred", "no": "number",
    "ship": "shipping", "whs": "warehouse", "publ": "publisher", "auth": "author",
    "supp": "supplier", "loc": "location", "wh": "warehouse", "bday": "birthday", "yr": "year",
    "st": "state", "cls": "class", "typ": "type", "veh": "vehicle", "br": "branch",
    "drv": "driver", "lic": "license", "dmg": "damage", "rpt": "report", "meth": "method",
    "reg": "registration", "insur": "insurance", "clr": "color", "bal": "balance",
    "odo": "odometer", "avg": "average", "svc": "service", "appt": "appointment",
    "pat": "patient", "diag": "diagnosis", "ret": "return",
    "rm": "room", "resv": "reservation", "gst": "guest", "bldg": "building", "eqp": "equipment",
    "equip": "equipment", "maint": "maintenance", "mfr": "manufacturer", "matl": "material",
    "hrs": "hours", "dur": "duration", "tech": "technician", "proj": "project", "usr": "user",
    "msg": "message", "subj": "subject", "cmt": "comment", "ccy": "currency", "cntry": "country",
    "ctry": "country", "lang": "language", "gndr": "gender", "pos": "position", "prio": "priority",
    "mdl": "model", "txn": "transaction", "trx": "transaction",
    "doct": "doctor", "stud": "student", "tchr": "teacher", "crs": "course", "sched": "schedule",
    "trt": "treatment", "med": "medicine", "emerg": "emergency", "std": "standard",
    "neut": "neutered", "qual": "qualification", "rx": "prescription", "vacc": "vaccine",
    "pcode": "postcode", "mins": "minutes",
    "rtg": "rating", "shpmt": "shipment", "wrhs": "warehouse", "lgth": "length", "hgt": "height",
}  # fmt: skip
UNITS = set(
    "kg g mg lb lbs eur usd gbp chf dollars euros cm mm m km sqm sqkm sqmi ml l pct".split()
)
TIME_UNITS = set("days weeks months minutes mins min seconds secs sec hours hrs".split())
TIMED = {"time", "duration", "length", "warranty", "period", "age", "interval", "delay", "runtime"}
PARTICIPLES = {"paid", "sold", "sent", "made", "built", "held", "given", "taken", "seen", "done"}
FLAG_LEADS = {"is", "has", "was", "are"}  # 'is_discontinued': people say discontinued
PARTED = {"f name": "first name", "l name": "last name", "p code": "postcode", "e mail": "email"}
KINDS_OF_NUMBER = {"amount", "quantity", "percent", "number"}  # that people leave out


def parted(word: str) -> str:
    """'prodgrp' -> 'prod grp': two abbreviations that are written as one word."""
    if word in ABBREVIATIONS or word == "regret":
        return word
    cuts = range(3, len(word) - 2)
    return next(
        (
            f"{word[:at]} {word[at:]}"
            for at in cuts
            if word[:at] in ABBREVIATIONS and word[at:] in ABBREVIATIONS
        ),
        word,
    )


def numbered(word: str) -> str:
    """'addr1' -> 'addr', 'addr2' -> 'addr 2': an abbreviation and its number."""
    cut = word.rstrip("0123456789")
    if cut == word or cut not in ABBREVIATIONS:
        return word
    return cut if word == f"{cut}1" else f"{cut} {word.removeprefix(cut)}"


def name_words(name: str) -> list[str]:
    """'dtOrdered' -> ['ordered'], 'CUST_ID' -> ['customer', 'id']: the words in a name."""
    bare = HUNGARIAN.sub("", re.sub(r"[\W_]+", " ", name).strip())
    spaced = re.sub(r"([a-z\d])([A-Z])", r"\1 \2", bare)
    spaced = re.sub(r"([A-Z])([A-Z][a-z])", r"\1 \2", spaced)
    words = " ".join(parted(numbered(w.lower())) for w in spaced.split()).split()
    while len(words) > 1 and words[0] in PREFIXES:
        words = words[1:]
    said = " ".join(ABBREVIATIONS.get(w, w) for w in words)
    for initial, meant in PARTED.items():
        said = re.sub(rf"\b{initial}\b", meant, said)
    return said.split() or [name.lower().strip() or "unnamed"]


def singular(words: Sequence[str]) -> str:
    """The words with the last one in the singular ('order items' -> 'order item')."""
    import inflect

    *head, last = words
    # inflect answers False for what is singular already, takes 'address' for a plural, and fails on
    # spaces, as which SQLite allows a table to be named.
    known = not last.strip() or last.endswith("ss") or last in ("status", "series", "news", "bus")
    return " ".join([*head, last if known else inflect.engine().singular_noun(last) or last])


def is_temporary(name: str) -> bool:
    """Whether a table's name says that nobody will ask about it: 'tbl_tmp_import'."""
    return bool(set(name_words(name)) & TEMPORARY)


def table_words(name: str) -> tuple[str, ...]:
    """What one row of a table is called."""
    words = name_words(name)
    while len(words) > 1 and words[-1] in SUFFIXES:
        words = words[:-1]
    return (singular(words),)


def is_named_date(name: str) -> bool:
    """Whether a column's name says that it holds a date: 'dtShipped', 'created_at'."""
    spaced = re.sub(r"([a-z\d])([A-Z])", r"\1 \2", re.sub(r"[\W_]+", " ", name))
    return bool(DATE_WORDS & set(spaced.lower().split()))


def measure_words(words: Sequence[str]) -> tuple[str, ...]:
    """What 'weight kg' and 'amount list eur' are called, () for names without such parts."""
    kept = list(words)
    if kept[-2:] in (["temp", "c"], ["temp", "f"]):
        return ("temperature", "temp")
    timed = len(kept) > 1 and kept[-1] in TIME_UNITS and kept[-2] in TIMED
    unit = kept.pop() if len(kept) > 1 and (kept[-1] in UNITS or timed) else ""
    if len(kept) > 1 and kept[0] in KINDS_OF_NUMBER and kept[1] not in ("per", "of"):
        kept = kept[1:]
        if kept[-1] == "hand":
            return ("stock", "quantity on hand", "quantity in stock")
        if kept == ["list"]:
            kept = ["list", "price"]
        if kept[-1] == "month" and len(kept) > 1:
            return (" ".join(kept[:-1]), f"monthly {' '.join(kept[:-1])}")
    said = " ".join(kept)
    if kept == list(words):
        return ()
    return (said, f"{said} in {unit}") if unit else (said,)


def column_words(name: str, row_word: str, is_date: bool) -> tuple[str, ...]:
    """What a column is called: without its table's name, and with it."""
    words = name_words(name)
    if len(words) > 1 and words[0] in FLAG_LEADS:
        words = words[1:]
    whole = " ".join(words)
    if measured := measure_words(words):
        return measured
    if len(words) == 2 and words[1] == "year" and not is_date:
        done = words[0].endswith("ed")
        return (whole, *(("year",) if done else ()), f"year {'' if done else 'of '}{words[0]}")
    if is_date and len(words) > 1 and words[-1] in ("on", "at"):
        return (f"date {' '.join(words[:-1])}", " ".join(words[:-1]), f"{words[0]} date")
    if is_date and not {"date", "time", "day", "birthday"} & set(words):
        if whole == row_word:
            return ("date", f"{whole} date")
        ended = words[-1].endswith("ed") or words[-1] in PARTICIPLES
        return (f"date {whole}" if ended else f"{whole} date", whole)
    lead = row_word.split()
    if len(words) > len(lead) and words[: len(lead)] == lead:
        return (" ".join(words[len(lead) :]), whole)
    if words[-2:-1] == ["shipping"] and words[-1] == "name":
        return (whole,)  # 'orders whose shipping is' nobody says
    if len(words) > 1 and words[-1] in ("name", "type") and words[0] not in ("first", "last"):
        return (" ".join(words[:-1]), whole)  # people ask for the city, not for the city name
    return (whole,)
