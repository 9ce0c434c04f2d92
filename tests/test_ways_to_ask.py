"""How made questions are let loose, and kinds that people ask of a shop and of its staff."""

from __future__ import annotations

import random
import re
import sqlite3
from contextlib import closing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemma_lora.questions import Question, make_questions
from gemma_lora.schema_reading import read_database, read_only
from gemma_lora.wording import VALUE, load_phrasings, loosened, marked, third_person

SHOP = """
CREATE TABLE makers (maker_id INTEGER PRIMARY KEY, company TEXT, city TEXT);
CREATE TABLE suppliers (supplier_id INTEGER PRIMARY KEY, company TEXT, city TEXT);
CREATE TABLE products (product_id INTEGER PRIMARY KEY, name TEXT, price REAL, stock_quantity
  INTEGER, reorder_level INTEGER, supplier_id INTEGER REFERENCES suppliers);
CREATE TABLE employees (employee_id INTEGER PRIMARY KEY, first_name TEXT, last_name TEXT,
  job_title TEXT, salary REAL);
CREATE TABLE orders (order_id INTEGER PRIMARY KEY, order_date TEXT, shipped_date TEXT,
  employee_id INTEGER REFERENCES employees);
CREATE TABLE order_items (item_id INTEGER PRIMARY KEY, order_id INTEGER REFERENCES orders,
  product_id INTEGER REFERENCES products, quantity INTEGER);
CREATE TABLE reviews (review_id INTEGER PRIMARY KEY, product_id INTEGER REFERENCES products,
  rating INTEGER);
"""
JOBS = ("Sales Agent", "Buyer", "Store Manager")
THINGS = ("Mat", "Lamp", "Kettle", "Rope", "Chair", "Desk")


def rows(table: str, held: list[tuple[object, ...]]) -> str:
    """An INSERT of rows."""
    return f"INSERT INTO {table} VALUES {', '.join(map(repr, held))};"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> list[Question]:
    """Questions about a small shop with staff, orders and what is in them."""
    path = tmp_path_factory.mktemp("shop") / "shop.sqlite"
    names = [f"{colour} {thing}" for colour in ("Red", "Blue", "Green", "Black", "Grey", "Pink",
             "White", "Gold", "Brown", "Plum") for thing in THINGS]  # fmt: skip
    script = SHOP + "".join((
        rows("makers", [(i, f"Maker {i}", "Oslo") for i in range(1, 5)]),
        rows("suppliers", [(i, f"Firm {i}", ("Oslo", "Rome")[i % 2]) for i in range(1, 9)]),
        rows("products", [(i + 1, name, i + 0.5, i % 23, 3 + i % 11, i % 8 + 1)
                          for i, name in enumerate(names)]),
        rows("employees", [(i, f"First{i}", f"Last{i}", JOBS[i % 3], 100.0 * i)
                           for i in range(1, 25)]),
        rows("orders", [(i, f"202{i % 4}-0{i % 9 + 1}-10", f"202{i % 4}-0{i % 9 + 1}-1{i % 9 + 1}",
                         i % 24 + 1) for i in range(1, 200)]),
        rows("order_items", [(i, i % 199 + 1, i % 60 + 1, i % 4 + 1) for i in range(1, 500)]),
        rows("reviews", [(i, i % 60 + 1, i % 5 + 1) for i in range(1, 200)]),
    ))  # fmt: skip
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(script)
    with read_only(path) as connection:
        return list(make_questions(connection, read_database(path), 6_000, 5))


FORMS = {  # what people ask -> (what it looks like, what its query looks like)
    "what is in an order": (r"(?i)order.* \d+", r"^SELECT name FROM order_items JOIN orders"),
    "the same with how many": (r"(?i)quantit|amount", r"^SELECT name, quantity FROM order_items"),
    "days between two dates": (r"(?i)days|time|long", r"^SELECT AVG\(julianday\(shipped_date\) - "),
    "months of one year": (r"\b202\d", r"^SELECT strftime\('%m', order_date\), .*'%Y', order_date"),
    "how many are left of a thing": (r"(?i)how many \w+ \w+s ", r"^SELECT stock_quantity FROM"),
    "what must be ordered again": (r"(?i)stock.*reorder", r"stock_quantity < reorder_level"),
    "a role in place of the noun": (r"(?i)(?:sales agents|buyers|store managers)\b",
                                    r"FROM employees.* WHERE job_title = "),
    "stars before the noun": (r"(?i)\b(?:\d|one|two|three|four|five)[ -]star reviews?",
                              r"rating = \d"),
    "what somebody supplies": (r"(?i)Firm \d supplies", r"company = 'Firm \d'"),
    "both parts of a name wanted": (r"(?i)first name and last name", r"^SELECT first_name, last_"),
    "when it was shipped": (r"(?i)shipped", r"^SELECT shipped_date FROM orders WHERE order_id"),
    "numbers of what has no name": (r"(?i)(?:number|id) and ", r"^SELECT order_id, \w+ FROM or"),
    "the numbers alone": (r"(?i)\b(?:number|id)s\b", r"^SELECT order_id FROM orders"),
    "two groups side by side": (r"(?i)compare the .*firm \d (?:and|with) .*firm \d",
                                r"company, .*company IN \('Firm \d', 'Firm \d'\) GROUP BY"),
    "what somebody does": (r"(?i)what(?: i|')s first\d+ last\d+'s job", r"^SELECT job_title"),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_people_s_forms_are_asked(made: list[Question], form: str) -> None:
    said, query = FORMS[form]
    assert any(re.search(said, one.question) and re.search(query, one.sql) for one in made)


def test_who_took_an_order_did_not_order(made: list[Question]) -> None:
    for one in made:
        assert not re.search(
            r"(?i)employees? (?:who|that) (?:have )?(?:ordered|bought)", one.question
        )


def test_when_an_order_was_is_its_first_date(made: list[Question]) -> None:
    when = [q for q in made if re.fullmatch(r"(?i)when was order[a-z. ]* \d+\??", q.question)]
    assert when and all(q.sql.startswith("SELECT order_date") for q in when)


@given(
    st.randoms(use_true_random=False),
    st.lists(st.text("of the which show me list are ab", min_size=1), min_size=1, max_size=3),
)
def test_letting_loose_touches_no_value(draw: random.Random, values: list[str]) -> None:
    asked = "which of the shops are there with " + " and with ".join(map(marked, values))
    found = loosened(draw, load_phrasings(), asked)
    assert VALUE.findall(found) == values
    assert "{" not in VALUE.sub("", found)


def test_letting_loose_says_the_same_in_many_ways() -> None:
    asked = f"show me how many shops are there with more than {marked(5)} clerks"
    phrasings = load_phrasings()
    found = {loosened(random.Random(seed), phrasings, asked) for seed in range(400)}
    assert asked in found and len(found) > 25
    assert any(one.startswith("please ") for one in found)
    assert any(one.endswith(" please") for one in found)
    assert all(f"{marked(5)} clerks" in one for one in found)


@pytest.mark.parametrize(
    ("verb", "said"),
    [("supply", "supplies"), ("teach", "teaches"), ("take care of", "takes care of")],
)
def test_verbs_in_the_present(verb: str, said: str) -> None:
    assert third_person(verb) == said
    for forms in load_phrasings().agents.values():
        assert all(third_person(one[0]).split()[0].endswith("s") for one in forms)
