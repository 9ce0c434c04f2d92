"""The SQL of a reply, as a person would read it; the same for every model.

Promises: what comes back is a part of the reply, letter by letter (strings, quoted names and
comments inside it included), only its surroundings are cut: prose, thoughts, fences, inline code,
bold, quotes, tables, list marks, tokens that end a turn, a schema that was repeated. Two
exceptions: a value of a JSON object is read as JSON writes it, and outside quotes what looks like a
blank is one, and what is invisible is not there. Several statements stay several: to run just the
first would give the reply a meaning it does not have. Time is linear in the reply's length.

Which one, when there are more: what the reply begins with; else the first fence that holds SQL
(before it one announced as final); else the first statement in the text.
"""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from typing import NamedTuple

from gemma_lora.prompts import CONTROL_CHARACTERS, END_OF_TURN, EOS
from gemma_lora.sql_text import token_spans

UNREADABLE = ("syntax error", "incomplete input", "unrecognized token", "one statement")
MAX_STARTS, MAX_STOPS = 20, 60  # places looked at; a reply with more has its SQL among the first
PARSED_LENGTH = 50_000  # characters; longer statements are not tried
VERBS = "SELECT|WITH|INSERT|UPDATE|DELETE|REPLACE|CREATE|ALTER|DROP|VALUES|EXPLAIN|TRUNCATE"
NAME = r"(?:\w[\w$]*|\"[^\"\n]+\"|`[^`\n]+`|\[[^\]\n]+\])"
GAP = r"(?>\s|--[^\n]*+\n|/\*(?>[^*]|\*(?!/))*+\*/)++"  # atomic, for hostile text's sake
# What a statement looks like after its verb: prose seldom goes on so.
SHAPES = {
    "WITH": rf"(?:{GAP}RECURSIVE)?{GAP}{NAME}\s*(?:\([^()]*\))?\s*AS\b",
    "INSERT": rf"(?:{GAP}OR{GAP}\w+)?{GAP}INTO\b",
    "REPLACE": rf"{GAP}INTO\b",
    "UPDATE": rf"(?:{GAP}OR{GAP}\w+)?{GAP}{NAME}(?:\.{NAME})?(?:{GAP}(?:AS{GAP})?\w+)?"
    rf"{GAP}(?:SET|JOIN)\b",
    "DELETE": rf"{GAP}(?:{NAME}(?:\s*,\s*{NAME})*{GAP})?FROM\b",
    "CREATE": rf"(?:{GAP}(?:OR{GAP}REPLACE|TEMP|TEMPORARY|UNIQUE|VIRTUAL|MATERIALIZED))?{GAP}"
    r"(?:TABLE|VIEW|INDEX|TRIGGER|DATABASE|SCHEMA|FUNCTION|PROCEDURE|SEQUENCE)\b(?!s\b)",
    "ALTER": rf"{GAP}(?:TABLE|VIEW|INDEX)\b",
    "DROP": rf"{GAP}(?:TABLE|VIEW|INDEX|TRIGGER|DATABASE|SCHEMA|COLUMN)\b",
    "TRUNCATE": rf"{GAP}TABLE\b",
    "VALUES": r"\s*\(",
    "EXPLAIN": rf"(?:{GAP}QUERY{GAP}PLAN)?{GAP}(?:SELECT|WITH|INSERT|UPDATE|DELETE)\b",
}
SHAPE = {verb: re.compile(shape, re.I | re.S) for verb, shape in SHAPES.items()}
# "Select the", "SELECT statements", "select a pet": sentences, not columns.
PROSE_AFTER = re.compile(
    r"\s+(?:the|this|that|these|those|your|our|its|their|only|one|a|an|all|any|each|every|and|or|is"
    r"|which|what|how|statements?|clauses?|quer(?:y|ies)|commands?|keywords?)\s+"
    r"(?!(?:from|as|union|where|group|order|limit|distinct)\b)[a-z]",
    re.I,
)
ANNOUNCED = re.compile(
    r"\b(?:is|are|be|use|using|run|try|execute|query|answer|statement|sql|sqlite|write|would)\s*$",
    re.I,
)
DECORATION = r"[ \t>*_#|\u2022\"'\u201c\u2018`(-]|\d{1,2}[.)][ \t]|\[[ x]?\][ \t]"
LINE_START = re.compile(rf"(?:^|\n)(?:{DECORATION})*$")
LEAD = re.compile(
    r"(?:[:=\uff1a>\u2192]|-->?|\*/|\bsql(?:ite)?(?:3)?[ \t]*[:>]?)[ \t]*[*_\"'\u201c\u2018`(]*$",
    re.I,
)
START = re.compile(rf"(?<![^\W_])(?<![^\W_]_)(?<![.$@])({VERBS})(?![\w$.])", re.I)
ITEM = re.compile(r"(?:^|\n)[ \t]*(?:[-*\u2022]|\d{1,2}[.)])[ \t]+[*_`\"'(]*$")
NEXT_ITEM = re.compile(r"\n[ \t]*(?:[-*\u2022]|\d{1,2}[.)])[ \t]")
# What stands before a statement, and what then stands behind it.
WRAPPER = re.compile(
    r"(?:`+|\*+|_+|[\"'(\u201c\u2018]|<\w+>|\[\w+\]\s*|\\\w+\{\s*|\$\$?\s*|(?<!\|)\|[ \t]*)$"
)
CLOSERS = {"(": ")", "\u201c": "\u201d", "\u2018": "\u2019", "<": "</", "[": "[/", "\\": "}"}
FIRM = ("`", "*", "_", "</", "[/", "}", "$")  # they end a statement that cannot be read, too
SPACE = re.compile(rf"(?:{GAP})?", re.S)
BLOCK_COMMENT = re.compile(r"/\*.*?(?:\*/|\Z)", re.S)
FENCE = re.compile(r"(`{3,}|~{3,})[ \t]*([^\n]*?)(?:\n(.*?))?(?:\1[`~]*|\Z)", re.S)
LANGUAGE = re.compile(
    r"(?:(?:sql(?:ite)?3?|mysql|postgres(?:ql)?|pgsql|psql|tsql|t-sql|plsql|mariadb|query|text|txt"
    r"|plaintext|console|bash|sh)\b|\s*$)",
    re.I,
)
LABEL = re.compile(r"(?:sql(?:ite)?3?|mysql|postgres(?:ql)?)[ \t]+", re.I)
FINAL = re.compile(
    r"\b(?:final|complete|full|whole|combined?|combining|correct(?:ed)?|together|putting)\b", re.I
)
CLAUSE = re.compile(
    rf"\s*(?:{VERBS}|FROM|WHERE|JOIN|LEFT|RIGHT|FULL|INNER|OUTER|CROSS|NATURAL|GROUP|HAVING|ORDER"
    r"|LIMIT|OFFSET|UNION|EXCEPT|INTERSECT|WINDOW|SET|ON|USING|AND|OR|NOT|IN|IS|AS|LIKE|BETWEEN"
    r"|CASE|WHEN|THEN|ELSE|END|RETURNING|INTO|\()\b",
    re.I,
)
# "In this query", "As you can see": clauses that are none.
NO_CLAUSE = re.compile(
    r"\s*[A-Z][a-z]+ (?:the|this|that|these|those|you|we|it|its|your|our|order|addition|other"
    r"|case)\b"
)
STOP = re.compile(
    r"(?P<blank>\n[ \t\r]*\n)|(?P<prose>\n(?=[ \t>*_#-]*(?:[A-Z][a-z']*(?:,? [\w'`*\"()-]+){2}"
    r"|[A-Z][\w ]{0,40}:)))|(?P<sentence>[.!?]{1,5}(?=(?:[\"'\u201d\u2019`)]|\*\*|__)*(?:\s|$)))"
    r"|(?P<fence>`{3,}|~{3,})"
    r"|(?P<aside>[ \t](?=to [a-z]+ |(?:on|in|for|against|with) (?:the|your|this|that)\b"
    r"|(?:which|and it|and you|because|since|so that) ))"
)
TABLE = re.compile(
    rf"CREATE{GAP}(?:TEMP{GAP}|TEMPORARY{GAP})?TABLE{GAP}(?:IF{GAP}NOT{GAP}EXISTS{GAP})?({NAME})",
    re.I | re.S,
)


class Candidate(NamedTuple):
    """A place where a statement may begin."""

    start: int
    sure: bool  # it is no prose, whether or not it is right


THOUGHT_START = re.compile(r"\s*<think(?:ing)?>", re.I)
THOUGHT_END = re.compile(r"</think(?:ing)?>", re.I)
# What ends a turn. A model that goes on behind it talks to itself.
TURN_END = re.compile(rf"{re.escape(END_OF_TURN)}|{re.escape(EOS)}|</s>|<\|[a-z_]+\|>")
JSON_NAMES = ("sql", "query", "sql_query", "answer", "final_answer", "response", "output", "code")
ODD_BLANKS = dict.fromkeys(map(ord, "\u00a0\u2007\u202f\u3000"), " ")
NO_WIDTH = dict.fromkeys(map(ord, "\u200b\u200c\u200d\u2060\ufeff"))


def extract_sql(reply: str, schema: str = "") -> str:
    """The SQL of a reply, '' when there is none.

    Statements that repeat the `schema` (CREATE and INSERT statements that the question came with),
    before the answer or after it, are a quotation: word for word, or a table that is there.
    """
    parts = TURN_END.split(without_thoughts(reply))
    said = next((part.lstrip() for part in parts if part.strip()), "")
    return plain_blanks(find_sql(json_value(said) or said, schema))


def without_thoughts(reply: str) -> str:
    """What a reply says behind its <think> block; nothing when that does not end."""
    ends = list(THOUGHT_END.finditer(reply))
    if ends:
        return reply[ends[-1].end() :]
    return "" if THOUGHT_START.match(reply) else reply


def json_value(reply: str) -> str | None:
    """The value that holds SQL, where a reply is a JSON object or shows one in a fence."""
    texts = [reply.strip()]
    if "{" in reply:
        texts += [(m[3] or "").strip() for m in FENCE.finditer(reply) if m[2].lower() == "json"]
    for text in texts:
        if not (text.startswith("{") and text.endswith("}")):
            continue
        try:
            made = json.loads(text, strict=False)
        except (ValueError, RecursionError):
            continue
        named = {name.lower().replace(" ", "_"): value for name, value in made.items()}
        for value in [*(named.get(name) for name in JSON_NAMES), *named.values()]:
            if isinstance(value, str) and START.match(value.lstrip()):
                return value
    return None


def plain_blanks(sql: str) -> str:
    """SQL whose blanks outside quotes and comments are those that SQLite knows."""
    if sql.isascii():
        return sql
    parts = []
    for group, start, end in token_spans(sql, 0, len(sql)):
        part = sql[start:end]
        if group not in ("text", "name") and part[:2] not in ("--", "/*"):
            part = part.translate(ODD_BLANKS).translate(NO_WIDTH)
        parts.append(part)
    return "".join(parts).strip()


def find_sql(reply: str, schema: str) -> str:
    """The SQL of a reply that has neither thoughts nor control tokens."""
    quotable = " ".join(schema.split())
    tables = {bare_name(match[1]) for match in TABLE.finditer(schema)}
    rest, only = reply, ""
    while True:
        pairs = ((region, statements(region)) for region in regions(rest))
        region, found = next(((r, f) for r, f in pairs if f), ("", []))
        if not found:
            return only
        texts = [region[start:end] for start, end in found]
        quoted = [quotes(text, quotable, tables) for text in texts]
        if False in quoted:
            first = quoted.index(False)
            last = quoted.index(True, first) if True in quoted[first:] else len(quoted)
            last = first + without_echo(texts[first:last])
            return region[found[first][0] : found[last - 1][1]].strip()
        if rest is reply and len(texts) == 1 and texts[0][:6].upper() == "INSERT":
            only = texts[0].strip()  # a row that is there already may be wanted again
        rest = rest[rest.index(texts[-1]) + len(texts[-1]) :]


def bare_name(name: str) -> str:
    """A table's name without quotes and case."""
    return name.strip('"`[]').lower()


def quotes(statement: str, schema: str, tables: set[str]) -> bool:
    """Whether a statement, or the beginning of one, is part of the schema, spacing apart."""
    words = " ".join(statement.split())
    if not re.match(r"(?:CREATE|INSERT|ALTER|DROP)\b", words, re.I):
        return False
    made = TABLE.match(words)
    return words.rstrip("; ") in schema or (made is not None and bare_name(made[1]) in tables)


def without_echo(texts: list[str]) -> int:
    """How many statements there are, the same query again (perhaps cut off) not counted."""

    def words(text: str) -> str:
        return " ".join(text.split()).rstrip("; ")

    if not re.match(r"(?:SELECT|WITH)\b", texts[0], re.I):
        return len(texts)
    whole = words(texts[0])
    again = [words(text) == whole for text in texts]
    again[-1] = whole.startswith(words(texts[-1]))
    return 1 if all(again) else len(texts)


def regions(reply: str) -> Iterator[str]:
    """Parts of a reply in the order in which a person would look for its SQL there."""
    first = next(candidates(reply), None)
    if first and first.sure and not reply[: first.start].strip(" \t\r\n*_>\"'`(;"):
        opening = re.match(r"\s*[`~]{3}", reply)
        if not opening:
            yield reply
    fences = []
    for match in FENCE.finditer(reply):
        head, body = match[2], match[3] or ""
        before = reply[: match.start()].rstrip().rsplit("\n", 1)[-1]
        label = LABEL.match(head)
        inside = label.end() if label else 0
        if START.match(head, inside):
            code = re.sub(r"[`~]{3,}$", "", reply[match.start(2) + inside : match.end()])
        elif LANGUAGE.match(head):
            code = body
        else:
            continue  # another language, or a fence that is none
        fences.append((bool(FINAL.search(before)), code))
    for wanted in (True, False):
        yield from (code for final, code in fences if final is wanted)
    yield reply


def candidates(text: str) -> Iterator[Candidate]:
    """Where statements may begin, in order."""
    open_text = BLOCK_COMMENT.sub(lambda m: " " * (len(m[0]) - 2) + m[0][-2:], text)
    for match, _ in zip(START.finditer(open_text), range(MAX_STARTS), strict=False):
        verb, start = match[1], match.start()
        before = open_text[max(0, start - 60) : start]
        if start <= 60:
            before = "\n" + before
        leads = bool(LINE_START.search(before) or LEAD.search(before))
        shape = SHAPE.get(verb.upper())
        if shape is not None and not shape.match(text, match.end()):
            continue
        if verb.upper() == "SELECT" and PROSE_AFTER.match(text, match.end()):
            if verb.isupper():
                yield Candidate(start, False)
            continue
        capital = verb.isupper() or (verb.islower() and shape is None)
        if leads:
            yield Candidate(start, capital or shape is not None)
        elif ANNOUNCED.search(before):
            yield Candidate(start, verb.isupper())
        elif verb.isupper() and not before.rstrip().endswith(("(", ",")):
            yield Candidate(start, False)


def statements(text: str) -> list[tuple[int, int]]:
    """(start, end) of the statements in a row from the first place where there are any."""
    for candidate in candidates(text):
        found: list[tuple[int, int]] = []
        start = candidate.start
        while True:
            end, right = statement_end(text, start, candidate.start)
            if not found and not right and not candidate.sure:
                break
            found.append((start, end))
            gap = SPACE.match(text, end)
            start = gap.end() if gap else end
            if text[end - 1 : end] != ";" or not begins_statement(text[start : start + 400]):
                return found
    return []


def begins_statement(text: str) -> bool:
    """Whether text goes on with a further statement rather than with prose."""
    first = next(candidates(text), None)
    return first is not None and first.start == 0 and (first.sure or parses(text.split(";")[0]))


def statement_end(text: str, start: int, first: int) -> tuple[int, bool]:
    """(index where the statement at `start` ends, whether SQLite can read it).

    The one at `first` began the row of statements: what it is wrapped in ends them all.

    The first stop at which it can be read; else the first that is no mere punctuation.
    """
    fallback = None
    for end, firm in stops(text, start, first):
        if parses(text[start:end]):
            return end, True
        if firm and fallback is None:
            fallback = end
    return (len(text) if fallback is None else fallback), False


def stops(text: str, start: int, first: int) -> list[tuple[int, bool]]:
    """(index, whether a statement that cannot be read ends there too) in order, after `start`."""
    comments: list[tuple[int, int]] = []
    limit, ended = len(text), False
    for group, begin, end in token_spans(text, start, start + PARSED_LENGTH):
        if group == "skip" and text[begin] in "-/":
            comments.append((begin, end))
        elif text[begin:end] == ";" and _ends_at(text[start:end]):
            limit, ended = end, True
            break
    found = [(limit, ended)]
    for match, _ in zip(STOP.finditer(text, start, limit), range(MAX_STOPS), strict=False):
        here, kind = match.start(), match.lastgroup
        goes_on = CLAUSE.match(text, match.end()) and not NO_CLAUSE.match(text, match.end())
        if kind in ("blank", "prose") and (goes_on or _open_brackets(text[start:here])):
            continue
        found.append((here, kind not in ("sentence", "aside")))
    found += wrapper_ends(text, start, limit, first)
    inside = [here for here, _ in found if any(a <= here < b for a, b in comments)]
    return sorted({*((len(text), True),), *(stop for stop in found if stop[0] not in inside)})


def wrapper_ends(text: str, start: int, limit: int, first: int) -> Iterator[tuple[int, bool]]:
    """Where what a statement is wrapped in may close, or the next item of its list begins."""
    before = text[max(0, first - 60) : first]
    if ITEM.search(before if first > 60 else "\n" + before):
        items = NEXT_ITEM.finditer(text, start, limit)
        yield from ((match.start(), False) for match, _ in zip(items, range(3), strict=False))
    wrapped = WRAPPER.search(before)
    if wrapped is None:
        return
    mark = wrapped[0].rstrip()
    closer = CLOSERS.get(mark[0], mark)
    at = text.find(closer, start, limit)
    for _ in range(MAX_STOPS):
        if at < 0:
            return
        if closer != "|" or "|" not in (text[at - 1], text[at + 1 : at + 2]):  # || joins texts
            yield at, closer.startswith(FIRM)
        at = text.find(closer, at + 1, limit)


def _open_brackets(text: str) -> bool:
    return text.count("(") > text.count(")")


def _ends_at(statement: str) -> bool:
    """Whether a semicolon outside quotes ends a statement; inside a trigger it does not."""
    trigger = re.match(r"CREATE\b(?:\s+TEMP\w*)?\s+TRIGGER\b", statement, re.I)
    if trigger is None or statement.count(";") > MAX_STOPS:
        return True
    return sqlite3.complete_statement(CONTROL_CHARACTERS.sub(" ", statement))


def parses(sql: str) -> bool:
    """Whether SQLite can read one statement, whatever tables it names. It is not compiled.

    The authorizer refuses everything, which happens when a statement is read and not yet planned.
    """
    if not sql.strip() or len(sql) > PARSED_LENGTH or CONTROL_CHARACTERS.search(sql):
        return False
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.set_authorizer(lambda *_: sqlite3.SQLITE_DENY)
        try:
            connection.execute(f"EXPLAIN {sql}" if not sql.upper().startswith("EXPLAIN") else sql)
        except (sqlite3.Error, sqlite3.Warning) as error:
            message = str(error)
            return not any(
                sign in message
                for sign in (
                    "syntax error",
                    "incomplete input",
                    "unrecognized token",
                    "one statement",
                )
            )
    return True
