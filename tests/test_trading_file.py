"""A trading company's file as sample databases have them: views, names with spaces, services."""

from __future__ import annotations

import random
import re
import sqlite3
from pathlib import Path

import pytest
from conftest import questions_of

from gemma_lora.grammar import Grammar
from gemma_lora.group_questions import chosen_groups
from gemma_lora.questions import Question, drawn_questions
from gemma_lora.schema_reading import DatabaseReading, read_only
from gemma_lora.wording import VALUE, load_phrasings, plural

SCHEMA = """
CREATE TABLE Shippers (ShipperID INTEGER PRIMARY KEY, CompanyName TEXT, Phone TEXT);
CREATE TABLE Suppliers (SupplierID INTEGER PRIMARY KEY, CompanyName TEXT, ContactTitle TEXT,
    City TEXT, HomePage TEXT);
CREATE TABLE Customers (CustomerID TEXT PRIMARY KEY, CompanyName TEXT, ContactName TEXT, City TEXT);
CREATE TABLE Employees (EmployeeID INTEGER PRIMARY KEY, LastName TEXT, FirstName TEXT,
    TitleOfCourtesy TEXT, Extension TEXT, PhotoPath TEXT);
CREATE TABLE Products (ProductID INTEGER PRIMARY KEY, ProductName TEXT,
    SupplierID INTEGER REFERENCES Suppliers, QuantityPerUnit TEXT, UnitPrice NUMERIC,
    UnitsInStock INTEGER, UnitsOnOrder INTEGER);
CREATE TABLE Orders (OrderID INTEGER PRIMARY KEY, CustomerID TEXT REFERENCES Customers,
    EmployeeID INTEGER REFERENCES Employees, OrderDate DATETIME,
    ShipVia INTEGER REFERENCES Shippers(ShipperID), Freight NUMERIC);
CREATE TABLE "Order Details" (OrderID INTEGER REFERENCES Orders, ProductID INTEGER
    REFERENCES Products, UnitPrice NUMERIC, Quantity INTEGER, Discount REAL,
    PRIMARY KEY (OrderID, ProductID));
CREATE TABLE Complaints (ComplaintID INTEGER PRIMARY KEY, OrderID INTEGER, ProductID INTEGER,
    Grade INTEGER, FOREIGN KEY (OrderID) REFERENCES Orders(OrderID));
CREATE TABLE Replies (ReplyID INTEGER PRIMARY KEY, ComplaintID INTEGER REFERENCES Complaints,
    Hours INTEGER, Tone TEXT);
CREATE VIEW "Orders Qry" AS SELECT * FROM Orders;
CREATE VIEW "Quarterly Customers" AS SELECT DISTINCT Customers.CustomerID, CompanyName, ContactName
    FROM Customers JOIN Orders USING (CustomerID) WHERE OrderDate < '2023-04-01';
CREATE VIEW "Order Subtotals" AS SELECT OrderID, SUM(UnitPrice * Quantity) AS Subtotal
    FROM "Order Details" GROUP BY OrderID;
"""
CRAFT = ("Boat", "Van", "Air")
TITLES = ("Sales Representative", "Marketing Manager", "Owner")


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file."""
    path = tmp_path_factory.mktemp("trading") / "trading.sqlite"
    rows = {
        "Shippers": [(i, f"Swift {CRAFT[i]}", f"555-{i:04}") for i in range(3)],
        "Suppliers": [(i, f"Mill {chr(65 + i)}", TITLES[i % 3], ("Ulm", "Rye", "Pau")[i % 3],
                       f"#mill{i}.htm#" if i % 2 else None) for i in range(20)],
        "Customers": [(f"CU{chr(65 + i)}", f"Inn {chr(65 + i)}", f"Host {chr(65 + i)}",
                       ("Bonn", "York", "Lyon")[i % 3]) for i in range(24)],
        "Employees": [(i, f"Last{chr(97 + i)}", f"First{chr(97 + i)}", ("Ms.", "Mr.")[i % 2],
                       str(400 + 7 * i), f"http://pictures/{i % 6}.bmp") for i in range(9)],
        "Products": [(i, f"Jam {chr(65 + i % 26)}{chr(97 + i // 26)}", i % 20, f"{i} jars",
                      2 + i / 4, i * 3 % 41, (0, 10, 40)[i % 3]) for i in range(50)],
        "Orders": [(1000 + i, f"CU{chr(65 + i * 7 % 24)}", i % 9, f"2023-{i % 12 + 1:02}-11",
                    i % 3, i * 3.5 % 91) for i in range(160)],
        "Order Details": [(1000 + i, (i * 3 + j * 11) % 50, 2 + i / 9, i % 30 + 1,
                           (0, 0.1, 0.05)[i % 3])
                          for i in range(160) for j in range(2)],
        "Complaints": [(i, 1000 + i, i % 50, i % 5) for i in range(160)],
        "Replies": [(i, i % 160, i * 5 % 47, ("kind", "cool")[i % 2]) for i in range(320)],
    }  # fmt: skip
    with sqlite3.connect(path) as connection:
        connection.executescript(SCHEMA)
        for table, held in rows.items():
            marks = ", ".join("?" * len(held[0]))
            connection.executemany(f'INSERT INTO "{table}" VALUES ({marks})', held)
    connection.close()
    return path


@pytest.fixture(scope="module")
def made(file: Path) -> list[Question]:
    """Questions about it; two keys up from a reply is an order, which has a number and no name."""
    return questions_of(file, 3_000, 3)


def test_rows_without_a_name_two_keys_away_are_asked_for_by_number(made: list[Question]) -> None:
    far = [q for q in made if q.table == "Replies" and re.search(r"OrderID = 1\d{3}", q.sql)]
    assert len(made) == 3_000 and far
    assert all(re.search(r"1\d\d\d", q.question) for q in far)


def test_no_key_leads_to_a_view_or_from_it(reading: DatabaseReading) -> None:
    views = {t.name for t in reading.tables if t.is_view}
    assert views == {"Orders Qry", "Quarterly Customers", "Order Subtotals"}
    assert not [k for k in reading.links if k.child in views or k.parent in views]
    # Those of a quarter are unique by chance: a customer's name is no key to them.
    assert reading.table("Customers").label == ("CompanyName",)


def test_a_key_is_one_in_a_view_too(reading: DatabaseReading) -> None:
    """Nobody adds up by which shippers orders went."""
    roles = {c.name: c.role for c in reading.table("Orders Qry").columns}
    assert roles["ShipVia"] == "key" and roles["Freight"] == "measure"


def test_views_are_asked_about_seldom_and_alone(made: list[Question]) -> None:
    seen = [q for q in made if re.search('"Orders Qry"|"Quarterly C|"Order Sub', q.sql)]
    assert 0 < len(seen) < 0.06 * len(made)
    assert not [q for q in seen if "JOIN" in q.sql]
    repeating = [q for q in seen if "Orders Qry" in q.sql]  # what tables hold
    assert 0 < len(repeating) < 0.015 * len(made)


def test_a_question_about_a_view_names_it_or_what_it_alone_shows(
    file: Path, reading: DatabaseReading
) -> None:
    """'Which contact does Inn A have' is about a customer, and no view of a quarter's."""
    with read_only(file) as connection:
        drawn = [said for said, _ in drawn_questions(connection, reading, 3_000, 3)]
    for view, names in {
        "Orders Qry": "orders? qr", "Quarterly Customers": "quarterly c", "Order Subtotals": "subt"
    }.items():  # fmt: skip
        seen = [VALUE.sub("", s.question).lower() for s in drawn if f'"{view}"' in s.sql]
        assert seen
        assert not [q for q in seen if not re.search(names, q)]


def test_a_file_of_views_alone_is_asked_about_by_them(tmp_path: Path) -> None:
    path = tmp_path / "views.sqlite"
    with sqlite3.connect(path) as connection:
        listed = ", ".join(f"({i}, 'Name {chr(65 + i)}', {i * 7})" for i in range(20))
        connection.execute(
            "CREATE VIEW members AS SELECT column1 AS member_id, column2 AS name, "
            f"column3 AS points FROM (VALUES {listed})"
        )
    connection.close()
    assert len(questions_of(path, 60, 1)) == 60


def test_what_is_on_order_has_not_been_sold(made: list[Question]) -> None:
    assert not [q for q in made if "UnitsOnOrder * UnitPrice" in q.sql]
    sales = [q for q in made if "Quantity *" in q.sql and "Discount)" in q.sql]
    assert [q for q in sales if re.search("revenue|sales|turnover", q.question.lower())]


def test_of_what_is_on_order_none_is_left_over(made: list[Question]) -> None:
    """'Which products are out of stock' had two meanings: the units on order were none, too."""
    gone = [
        q for q in made if re.search("(?i)out of stock|sold out|run out|none are left", q.question)
    ]
    assert gone
    assert not [q for q in gone if "UnitsInStock = 0" not in q.sql]


def test_a_company_is_called_through_its_contact(made: list[Question]) -> None:
    asked = [
        q
        for q in made
        if re.search("(?i)(?:contact(?: person)?|deal with|call|talk to) at ", q.question)
    ]
    assert asked
    assert all(q.sql.startswith("SELECT ContactName FROM") for q in asked)
    numbers = [q for q in made if re.search("(?i)dial|by phone|how do i call", q.question)]
    assert numbers
    assert all(q.sql.startswith("SELECT Phone FROM") for q in numbers)


def test_turnovers_are_compared_with_large_numbers(reading: DatabaseReading) -> None:
    """Which customers bring in more than 3 is no question."""
    g = Grammar(reading, load_phrasings(), random.Random(1), {}, [])
    drafts = [chosen_groups(g, reading.table("Order Details")) for _ in range(200)]
    worth = [d.sql for d in drafts if d and "HAVING SUM" in d.sql and "Quantity *" in d.sql]
    assert worth
    assert all(float(sql.rpartition(" ")[2]) >= 100 for sql in worth)


def test_shares_and_prices_a_piece_are_not_added_up(made: list[Question]) -> None:
    assert [q for q in made if re.search(r"AVG\([^)]*Discount", q.sql)]
    assert not [q for q in made if re.search(r"SUM\((?:\S+\.)?(?:Discount|UnitPrice)\)", q.sql)]


def test_a_shipper_is_not_bought(made: list[Question]) -> None:
    shipped = [q for q in made if "CompanyName = 'Swift" in q.sql or q.table == "Shippers"]
    done = re.compile(r"(?i)swift \w+ (?:been |was |is )?(?:last )?(?:ordered|bought)"
                      r"|shippers? (?:that )?(?:were|was|been) (?:ordered|bought)")  # fmt: skip
    assert shipped and not [q.question for q in shipped if done.search(q.question)]
    said = " ".join(q.question.lower() for q in made if "ShipVia" in q.sql)
    assert re.search(r"\b(?:shipped|delivered|carried) by\b", said)


def test_no_product_is_called_by_its_suppliers_contact(made: list[Question]) -> None:
    """'Which owners' are suppliers; 'products from owner suppliers' is fine."""
    about = [q for q in made if "ContactTitle = 'Owner'" in q.sql and q.table == "Products"]
    assert about
    assert all(re.search("suppl|vendor|contact|title", q.question.lower()) for q in about)


@pytest.mark.parametrize(
    ("table", "column", "role"),
    [
        ("Suppliers", "HomePage", "code"),
        ("Employees", "PhotoPath", "code"),
        ("Employees", "Extension", "code"),
        ("Orders", "Freight", "measure"),
    ],
)
def test_what_a_column_is_for(reading: DatabaseReading, table: str, column: str, role: str) -> None:
    assert reading.table(table).column(column).role == role


def test_names_of_several_words(reading: DatabaseReading) -> None:
    assert reading.table("Products").column("QuantityPerUnit").words[0] == "quantity per unit"
    assert plural("title of courtesy") == "titles of courtesy"
    assert plural("units in stock") == "units in stock"
    assert plural("unit price") == "unit prices"
