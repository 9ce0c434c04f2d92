"""What questions made from a shop's file say, and what they no longer say."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from gemma_lora.name_reading import column_words
from gemma_lora.questions import Question, make_questions
from gemma_lora.schema_reading import DatabaseReading, read_database, read_only

STATES = ("cancelled", "delivered", "returned")
OPINIONS = ("Great", "Not great", "Fine")
SHOP = """
CREATE TABLE makers (maker_id INTEGER PRIMARY KEY, name TEXT, contact_name TEXT,
  lead_time_days INTEGER);
CREATE TABLE products (product_id INTEGER PRIMARY KEY, name TEXT, maker_id INTEGER REFERENCES
  makers, price REAL, stock_quantity INTEGER, is_discontinued INTEGER, description TEXT);
CREATE TABLE orders (order_id INTEGER PRIMARY KEY, status TEXT, shipping_fee REAL,
  has_gift_wrap INTEGER);
CREATE TABLE reviews (review_id INTEGER PRIMARY KEY, product_id INTEGER REFERENCES products,
  title TEXT, rating INTEGER);
"""


def rows(table: str, held: list[tuple[object, ...]]) -> str:
    """An INSERT of rows."""
    return f"INSERT INTO {table} VALUES {', '.join(map(repr, held))};"


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small shop."""
    path = tmp_path_factory.mktemp("shop") / "shop.sqlite"
    script = SHOP + "".join((
        rows("makers", [(i, f"Maker {i}", f"Contact {i}", 3 * i) for i in range(1, 13)]),
        rows("products", [(i, f"Thing {i}", i % 12 + 1, i + 0.5, i % 37, int(i % 3 == 0),
                           f"A thing of wood, number {i}") for i in range(1, 61)]),
        rows("orders", [(i, STATES[i % 3], i / 10, i % 2) for i in range(1, 90)]),
        rows("reviews", [(i, i % 60 + 1, OPINIONS[i % 3], i % 5 + 1) for i in range(1, 120)]),
    ))  # fmt: skip
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(script)
    return path


@pytest.fixture(scope="module")
def reading(shop: Path) -> DatabaseReading:
    """How it is read."""
    return read_database(shop)


@pytest.fixture(scope="module")
def made(shop: Path, reading: DatabaseReading) -> list[Question]:
    """Questions about it."""
    with read_only(shop) as connection:
        return list(make_questions(connection, reading, 5_000, 5))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("is_discontinued", ("discontinued",)),
        ("hasGiftWrap", ("gift wrap",)),
        ("was_paid", ("paid",)),
        ("lead_time_days", ("lead time", "lead time in days")),
        ("warranty_months", ("warranty", "warranty in months")),
        ("open_days", ("open days",)),
        ("ShipName", ("shipping name",)),
    ],
)
def test_columns_are_called_as_people_call_them(name: str, words: tuple[str, ...]) -> None:
    assert column_words(name, "product", False) == words


def test_flags_are_said_as_states_and_asked_as_questions(made: list[Question]) -> None:
    about = [q for q in made if "is_discontinued" in q.sql]
    assert about and not any(re.search(r"(?i)is discontinued (?:prod|of|and)", q.question)
                             or "unis " in q.question.lower() for q in about)  # fmt: skip
    looked_up = [q for q in about if q.sql.startswith("SELECT is_discontinued")]
    assert looked_up and all(
        re.search(r"(?i)^(?:is|was) |whether|tell me if|or not|di", q.question) for q in looked_up
    )
    assert not any(q.sql.startswith("SELECT is_discontinued,") for q in about)
    assert not any("GROUP BY is_discontinued" in q.sql for q in about)
    wrapped = [q.question.lower() for q in made if "has_gift_wrap" in q.sql]
    odd = [
        q
        for q in wrapped
        if re.search("are gift wrap|has gift", q) and not re.search("(?:tell me|say) if", q)
    ]
    assert wrapped
    assert not odd


def test_a_state_stands_behind_are(made: list[Question]) -> None:
    said = {q.question.lower().rstrip("?.") for q in made if "status" in q.sql}
    stands = re.compile("how many .*(?:are|were) (?:not )?(?:cancelled|delivered|returned)")
    assert any(stands.fullmatch(one) for one in said)
    asked = [q.question.lower() for q in made]
    twice = re.compile(r"\b(?:(?:are|were) that|(?:are|is|were) (?:which|who|whose|where)) ")
    assert not [q for q in asked if twice.search(q)]


def test_what_names_nothing_is_no_name(reading: DatabaseReading) -> None:
    assert reading.table("reviews").label == ()
    assert reading.table("products").label == ("name",)
    assert reading.table("products").column("description").role == "text"


def test_what_is_nearly_unique_is_said_with_its_column(made: list[Question]) -> None:
    held = [q for q in made if "contact_name = " in q.sql]
    assert held and all("ontact" in q.question.replace("cntact", "contact") or "contact 1" in
                        q.question.lower() for q in held)  # fmt: skip
    assert not any(re.search(r"(?i)contact \d+ (?:makers|manufacturers)", q.question) for q in held)


def test_an_order_is_not_dear_by_its_shipping_fee(made: list[Question]) -> None:
    fees = [q.question.lower() for q in made if "shipping_fee" in q.sql]
    assert fees and not any(re.search("expensive|cheap|dear|priced|cost", said) for said in fees)


def test_a_number_of_days_is_no_date(made: list[Question]) -> None:
    days = [q.question.lower() for q in made if "lead_time_days" in q.sql]
    assert days and not any(re.search("newe|olde|lates|recent|earli", said) for said in days)


def test_only_what_is_counted_is_said_behind_a_number(made: list[Question]) -> None:
    asked = [q.question.lower() for q in made]
    assert not any(
        re.search(r"(?:fewer|less|more) than [\d.]+ (?:price|rating)\b", q) for q in asked
    )


def test_what_lies_in_stock_has_brought_in_nothing(made: list[Question]) -> None:
    worth = [q.question.lower() for q in made if "stock_quantity * price" in q.sql]
    letters = (set("stock"), set("inventory"))  # a slip leaves one out or exchanges two
    assert worth and all(
        any(
            len(word) > 3 and set(word) <= own
            for word in re.findall("[a-z]+", said)
            for own in letters
        )
        for said in worth
    )


def test_a_place_is_where_a_thing_is(tmp_path: Path) -> None:
    path = tmp_path / "map.sqlite"
    script = (
        "CREATE TABLE state (state_name TEXT PRIMARY KEY, area INTEGER, population INTEGER, "
        "country TEXT);"
        "CREATE TABLE lake (lake_name TEXT PRIMARY KEY, area INTEGER, state_name TEXT REFERENCES "
        "state, country TEXT, beaches INTEGER);"
        + rows("state", [(f"State {i}", 900 + i, 7 * i, "usa") for i in range(1, 31)])
        + rows("lake", [(f"Lake {i}", i, f"State {i % 30 + 1}", "usa", i % 9) for i in range(90)])
    )
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(script)
    with read_only(path) as connection:
        found = list(make_questions(connection, read_database(path), 1_500, 4))
    where = {q.sql.split(" WHERE")[0] for q in found if q.kind == "where"}
    assert where == {"SELECT state_name FROM lake"}
    assert not any(re.match("SELECT (?:[a-z_., ]+, )?(?:lake[.])?country", q.sql) for q in found)
    extremes = [q for q in found if q.kind in ("extreme", "top")]
    few = [q.question.lower() for q in extremes if re.search("(?:BY |X.|N.)beaches", q.sql)]
    assert few and not [
        said for said in few if re.search("(?:bigg|larg|small|low|high)est beaches", said)
    ]
    people = [q.question.lower() for q in extremes if re.search("BY (?:state.)?population", q.sql)]
    assert people and not [q for q in people if re.search("(?:bigg|larg|small)est state", q)]
