"""Write library.sqlite: the lending library of an invented town, a database to try things on.

Five tables (branches, authors, books, members, loans) hold invented names only. The script is
seeded, so two runs write the same rows.

    python tests/make_library.py library.sqlite
"""

from __future__ import annotations

import random
import sqlite3
import sys
from datetime import date, timedelta
from pathlib import Path
from typing import Any

Rows = list[tuple[Any, ...]]
SEED = 1907
TODAY = date(2024, 11, 30)

SCHEMA = """
CREATE TABLE branches (
    branch_id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    address TEXT NOT NULL,
    phone TEXT,
    opened_year INTEGER, seats INTEGER
);
CREATE TABLE authors (
    author_id INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    country TEXT,
    birth_year INTEGER
);
CREATE TABLE books (
    book_id INTEGER PRIMARY KEY,
    title TEXT NOT NULL,
    author_id INTEGER NOT NULL REFERENCES authors(author_id),
    branch_id INTEGER NOT NULL REFERENCES branches(branch_id),
    genre TEXT NOT NULL,
    language TEXT NOT NULL,
    published_year INTEGER, pages INTEGER,
    price REAL,
    acquired_on DATE
);
CREATE TABLE members (
    member_id INTEGER PRIMARY KEY,
    first_name TEXT NOT NULL,
    last_name TEXT NOT NULL,
    email TEXT UNIQUE,
    street TEXT,
    birth_date DATE,
    joined_on DATE NOT NULL,
    home_branch_id INTEGER REFERENCES branches(branch_id),
    membership TEXT NOT NULL
);
CREATE TABLE loans (
    loan_id INTEGER PRIMARY KEY,
    book_id INTEGER NOT NULL REFERENCES books(book_id),
    member_id INTEGER NOT NULL REFERENCES members(member_id),
    loaned_on DATE NOT NULL,
    due_on DATE NOT NULL,
    returned_on DATE,
    fine REAL NOT NULL DEFAULT 0
);
"""

BRANCHES = [
    ("Market Square", "1 Market Square", "555-0110", 1931, 64),
    ("Harbour Street", "27 Harbour Street", "555-0114", 1958, 30),
    ("Mill Lane", "8 Mill Lane", "555-0127", 1974, 22),
    ("Northfield", "140 Northfield Road", "555-0131", 1989, 40),
    ("Old Station", "3 Station Yard", None, 2012, 18),
]
FIRST_NAMES = (
    "Anna Bruno Carla Derek Edith Felix Greta Hugo Irene Jonas Karin Leo Marta Nils Olga Pavel "
    "Rosa Simon Tilda Victor Wanda Yusuf Zora Alma Boris Clara"
)
LAST_NAMES = (
    "Ashdown Berg Calloway Dunmore Eklund Farrow Gillespie Hartwell Ives Jansen Kessler Lindqvist "
    "Marlow Novak Orchard Pemberton Quill Rowntree Sandoval Thorne Umber Vance Whitlock Yarrow"
)
STREETS = ("Mill Lane", "Harbour Street", "Northfield Road", "Church Hill", "Canal Walk")
COUNTRIES = "England Ireland Sweden Germany France Spain Canada Japan Nigeria"
# The weight of each genre, language and kind of membership.
GENRES = {"Crime": 22, "Novel": 24, "History": 14, "Children": 14, "Fantasy": 12, "Poetry": 6}
LANGUAGES = {"English": 76, "German": 10, "French": 8, "Spanish": 6}
MEMBERSHIPS = {"adult": 55, "child": 15, "student": 18, "senior": 12}
ADJECTIVES = "Silent Crooked Last Blue Hidden Winter Paper Broken Golden Salt Distant Small"
NOUNS = "Lighthouse Ferry Clockmaker Garden Letter Bridge Kingdom Mirror River Fox Staircase Island"
PATTERNS = ("The {a} {n}", "A {a} {n}", "{n} of the {a} {m}", "The {n} and the {m}")


def pick(rng: random.Random, weights: dict[str, int]) -> str:
    """Draw one key by its weight."""
    return rng.choices(list(weights), list(weights.values()))[0]


def day_between(rng: random.Random, first: date, last: date) -> date:
    """Draw a day from first to last, both included."""
    return first + timedelta(days=rng.randint(0, (last - first).days))


def distinct_titles(rng: random.Random, count: int) -> list[str]:
    """Draw that many different book titles."""
    titles: dict[str, None] = {}
    adjectives = ADJECTIVES.split()
    while len(titles) < count:
        noun, other = rng.sample(NOUNS.split(), 2)
        titles[rng.choice(PATTERNS).format(a=rng.choice(adjectives), n=noun, m=other)] = None
    return list(titles)


def make_authors(rng: random.Random, names: list[tuple[str, str]]) -> Rows:
    """Return the rows of authors."""
    return [
        (number, " ".join(name), rng.choice(COUNTRIES.split()), rng.randint(1921, 1992))
        for number, name in enumerate(names, 1)
    ]


def make_books(rng: random.Random, count: int, authors: Rows) -> Rows:
    """Return the rows of books; the first authors wrote most of them, the last two none."""
    writers = authors[:-2]
    weights = [1 / (rank + 6) for rank in range(len(writers))]
    rows = []
    for number, title in enumerate(distinct_titles(rng, count), 1):
        author = rng.choices(writers, weights)[0]
        genre = pick(rng, GENRES)
        year = rng.randint(author[3] + 24, min(author[3] + 70, 2023))
        pages = rng.randint(24, 120) if genre in ("Children", "Poetry") else rng.randint(140, 720)
        acquired = day_between(rng, date(max(year + 1, 2008), 1, 1), TODAY)
        branch = rng.choices(range(1, 6), (9, 6, 4, 6, 2))[0]
        price = round(5 + pages / 40 + rng.random() * 9, 2)
        shelf = (number, title, author[0], branch, genre, pick(rng, LANGUAGES))
        rows.append((*shelf, year, pages, price, acquired.isoformat()))
    return rows


def make_members(rng: random.Random, names: list[tuple[str, str]]) -> Rows:
    """Return the rows of members; a few have given no e-mail address."""
    ages = {"adult": (26, 64), "child": (6, 14), "student": (15, 25), "senior": (65, 88)}
    rows = []
    for number, (first, last) in enumerate(names, 1):
        kind = pick(rng, MEMBERSHIPS)
        born = TODAY - timedelta(days=round(365.25 * rng.uniform(*ages[kind])))
        joined = day_between(rng, max(date(2015, 1, 1), born + timedelta(days=2000)), TODAY)
        mail = f"{first}.{last}@postbox.example".lower()
        street = f"{rng.randint(1, 90)} {rng.choice(STREETS)}"
        person = (number, first, last, None if rng.random() < 0.08 else mail, street)
        rows.append((*person, born.isoformat(), joined.isoformat(), rng.randint(1, 5), kind))
    return rows


def make_loans(rng: random.Random, count: int, books: Rows, people: Rows) -> Rows:
    """Return the rows of loans in order of date; late returns cost 20 cents a day."""
    readers, drawn = people[: -len(people) // 8], list[tuple[date, int, int, int]]()
    while len(drawn) < count:
        book, member = rng.choice(books), rng.choice(readers)
        first = max(date(2022, 1, 3), date.fromisoformat(max(book[9], member[6])))
        day = day_between(rng, first, TODAY)
        drawn.append((day, book[0], member[0], rng.choice((9, 14, 20, 21, 26, 28, 33, 45))))
    rows: Rows = []
    for number, (day, book_id, member_id, kept) in enumerate(sorted(drawn), 1):
        due, back = day + timedelta(days=28), day + timedelta(days=kept)
        returned = None if back > TODAY or rng.random() < 0.03 else back.isoformat()
        fine = round(0.2 * max(0, (back - due).days), 2) if returned else 0.0
        rows.append((number, book_id, member_id, day.isoformat(), due.isoformat(), returned, fine))
    return rows


def make_library(path: Path) -> None:
    """Make the rows and write them to the database file."""
    path.unlink(missing_ok=True)
    rng = random.Random(SEED)
    pairs = [(first, last) for first in FIRST_NAMES.split() for last in LAST_NAMES.split()]
    names = rng.sample(pairs, 42 + 80)
    authors, members = make_authors(rng, names[:42]), make_members(rng, names[42:])
    books = make_books(rng, 160, authors)
    tables = {
        "branches": [(number, *row) for number, row in enumerate(BRANCHES, 1)],
        "authors": authors,
        "books": books,
        "members": members,
        "loans": make_loans(rng, 250, books, members),
    }
    with sqlite3.connect(path) as connection:
        connection.executescript(SCHEMA)
        for table, rows in tables.items():
            marks = ", ".join("?" * len(rows[0]))
            connection.executemany(f"INSERT INTO {table} VALUES ({marks})", rows)
    connection.close()


if __name__ == "__main__":
    make_library(Path(sys.argv[1] if len(sys.argv) > 1 else "library.sqlite"))
