"""evaluation.html: what it says, what it asks for, and how it is used in a real browser."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from browser import ABSENT, asked_for, complaints, find_browser, open_browser, resize
from hypothesis import given
from hypothesis import strategies as st
from test_answers import CATS, COUNT, PETS, run, write

from gemma_lora import charts, checkpoints, cleaning, cli, page, page_rows, publish, verdicts
from gemma_lora.differences import mark_differences, words
from gemma_lora.figures import Sample, summarize
from gemma_lora.sandbox import SqlResult

EVIL = "</script><script>document.title = 'owned'</script><img src=http://localhost/x> <!-- "
EVIL += "\u2028 \x1b[31mred\x1b[0m \u202e مرحبا"
NAMES = ("ours", "theirs")


def line(number: int, question: str, gold: str, ours: str, theirs: str, **more: Any) -> Any:
    answers = {"ours": ours, "theirs": theirs}
    return {"id": f"q{number}", "question": question, "context": PETS, "gold": gold,
            "answers": answers} | more  # fmt: skip


NAME, ALL = "SELECT name FROM pets WHERE age = 3", "SELECT * FROM pets"
LINES = [
    line(1, "Who is three?", NAME, NAME, ALL, complexity="basic"),
    line(2, f"Everything? {EVIL}", ALL, "SELECT nme FROM pets", ALL, complexity="basic"),
    line(3, "How many?", "SELECT COUNT(*) FROM pets", "select count(*) from pets;",
         "Here:\n```sql\nSELECT COUNT(id) FROM pets\n```", complexity="aggregation"),
    line(4, "Oldest?", "SELECT MAX(age) FROM pets", "SELECT age FROM pets", "I cannot say.",
         complexity="aggregation"),
    line(5, "Nothing?", "SELECT name FROM pets WHERE age = 99", NAME, NAME),
    line(6, "Broken?", "SELECT nope FROM pets", "SELECT 1", "SELECT 2"),
    line(7, "A long text?", f"SELECT '{'long' * 300}' AS word, name, 12, '12', NULL, '' FROM pets",
         f"SELECT {EVIL!r} AS evil", "SELECT 1"),
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The evaluation of LINES, as --answers writes it."""
    place = tmp_path_factory.mktemp("page")
    done = run("--answers", write(place / "r.jsonl", *LINES), "--output-dir", place / "out")
    assert done.returncode == 0, done.stderr
    return place / "out"


@pytest.fixture(scope="module")
def samples(folder: Path) -> list[Sample]:
    lines = (folder / "evaluation_samples.jsonl").read_text().split("\n")
    return [json.loads(text) for text in lines if text]


@pytest.fixture(scope="module")
def text(folder: Path) -> str:
    return (folder / "evaluation.html").read_text(encoding="utf-8")


def page_of(samples: list[Sample], title: str = "rows") -> str:
    drawn = page.evaluation_page(title, [page_rows.RowSet("rows", summarize(samples), samples)], {})
    assert drawn
    return drawn


class Reader(HTMLParser):
    """The elements of a page, and the texts of its scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {"script": [], "style": []}
        self.inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self.inside = tag

    def handle_endtag(self, tag: str) -> None:
        self.inside = ""

    def handle_data(self, data: str) -> None:
        if self.inside in self.texts:
            self.texts[self.inside].append(data)


def data_of(text: str) -> list[page_rows.PageSet]:
    return list(json.loads(Reader(text).texts["script"][0]))


# --- The file -----------------------------------------------------------------------------------


def test_the_page_is_one_file_that_only_its_own_program_runs_in(text: str) -> None:
    reader = Reader(text)
    scripts, (style,) = reader.texts["script"], reader.texts["style"]
    assert len(scripts) == 2 and json.loads(scripts[0])
    (policy,) = [a["content"] for t, a in reader.elements if a.get("http-equiv")]
    assert policy and policy.startswith("default-src 'none'; ") and "unsafe" not in policy
    for kind, inline in (("script", scripts[1]), ("style", style)):
        digest = base64.b64encode(hashlib.sha256(inline.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy
    for tag, attributes in reader.elements:
        assert tag not in ("link", "iframe", "object", "img", "base"), tag
        assert not {"src", "style", "action"} & attributes.keys(), (tag, attributes)
        assert not [name for name in attributes if name.startswith("on")], (tag, attributes)
        assert (attributes.get("href") or "#").startswith("#")


def test_what_a_row_holds_stays_text(text: str, samples: list[Sample]) -> None:
    assert not cleaning.OBEYED.search(text) and "owned'</script>" not in text
    assert "<!--" not in text and "<img" not in text
    rows = data_of(text)[0]["rows"]
    assert rows[1]["question"] == cleaning.visible(f"Everything? {EVIL}")
    assert len(rows) == len(samples)


def test_titles_and_names_stay_text(samples: list[Sample]) -> None:
    renamed = [
        {**s, "complexity": f"{EVIL}{i % 2}",
         "outputs": {f"{EVIL}{name} $x$": out for name, out in s["outputs"].items()}}
        for i, s in enumerate(samples)
    ]  # fmt: skip
    drawn = page_of(renamed, EVIL)  # type: ignore[arg-type]
    assert len(Reader(drawn).texts["script"]) == 2 and "<img" not in drawn
    assert not cleaning.OBEYED.search(drawn)


def test_the_page_counts_what_the_verdict_counts(text: str, samples: list[Sample]) -> None:
    summary = summarize(samples, "ours")
    (made,) = data_of(text)
    (paired,) = summary["paired"]
    right = Counter(
        tuple(answer["right"] for answer in row["answers"])
        for row in made["rows"]
        if not row["apart"]
    )
    assert (right[True, False], right[False, True]) == (paired["wins"], paired["losses"])
    assert sum(right.values()) == paired["n"] > 3
    for index, name in enumerate(made["models"]):
        flaws = Counter(f for row in made["rows"] if (f := row["answers"][index]["flaw"]))
        assert dict(flaws) == summary["models"][name]["errors"]
    assert paired["sentence"].split("(")[0].replace("'", "&#39;") in text


def test_every_wrong_answer_has_its_reason(text: str) -> None:
    rows = {row["key"]: row for row in data_of(text)[0]["rows"]}
    said = {key: [answer["said"] for answer in row["answers"]] for key, row in rows.items()}
    assert said["q1"] == [
        "right",
        "wrong: 4 columns where the gold has 1, 3 rows where the gold has 1",
    ]
    assert said["q2"] == ["wrong: no such column (no such column: nme)", "right"]
    assert said["q4"][1] == "wrong: no SQL in the reply"
    assert rows["q5"]["apart"] == "counted apart: the gold shows nothing here"
    assert rows["q6"]["apart"] == "not scored: the gold does not run"
    assert rows["q3"]["answers"][1]["reply"] and rows["q3"]["answers"][0]["reply"] is None


def test_values_are_shown_so_that_numbers_texts_and_null_differ(text: str) -> None:
    table = data_of(text)[0]["rows"][6]["gold_result"]
    assert table and table["size"] == "3 rows"
    word, name, *rest = table["rows"][0]
    assert word == ("long" * 300)[: verdicts.KEPT_TEXT] + "..." and name == "Rex"
    assert rest == ["12", "'12'", None, "''"]
    assert page_rows.cell("null") == "'null'" and page_rows.cell(-0.5) == "-0.5"


def test_a_sample_keeps_the_beginning_of_a_result() -> None:
    rows = [(b"\x01" * 500, float("inf"), *range(28)) for _ in range(40)]
    kept = verdicts.preview(SqlResult("ok", rows, [f"c{i}" for i in range(30)]))
    assert (kept["n_rows"], kept["n_columns"]) == (40, 30)
    assert len(kept["rows"]) == verdicts.KEPT_ROWS
    assert {len(row) for row in kept["rows"]} == {verdicts.KEPT_COLUMNS} == {len(kept["columns"])}
    assert kept["rows"][0][0] == "01" * 100 + "..." and kept["rows"][0][1] == "inf"
    shown = page_rows.result_table(kept)
    assert shown and shown["size"] == "the first 10 of 40 rows, the first 12 of 30 columns"


def test_links_are_made_of_ids_where_these_tell_rows_apart(samples: list[Sample]) -> None:
    assert page_rows.row_keys(samples) == [f"q{n}" for n in range(1, 8)]
    twice = [*samples, samples[0]]
    assert page_rows.row_keys(twice) == [str(n) for n in range(1, 9)]
    odd: list[Any] = [{"id": "a b"}, {"id": None}, {"id": 'x"><b>'}]
    assert page_rows.row_keys(odd) == ["1", "2", "3"]


ANYTHING = st.text(st.sampled_from("ab1 '\"`;=<>!(),\n%"), max_size=60)
WITHOUT_QUOTES = st.text(st.sampled_from("ab1 =<>!(),\n%"), max_size=60)


@given(ANYTHING, ANYTHING)
def test_pieces_that_are_not_missing_make_the_answer(gold: str, answer: str) -> None:
    spans = mark_differences(gold, answer)
    theirs = "".join(span.text for span in spans if span.kind != "missing")
    assert theirs in (answer.strip(), answer.strip().removesuffix(";").rstrip())


@given(WITHOUT_QUOTES, WITHOUT_QUOTES)
def test_pieces_that_are_not_extra_have_the_words_of_the_gold(gold: str, answer: str) -> None:
    spans = mark_differences(gold, answer)
    if words(answer) and spans[0].kind != "other":
        kept = [w.folded for s in spans if s.kind != "extra" for w in words(s.text)]
        assert kept == [word.folded for word in words(gold)]


@pytest.mark.parametrize(
    ("gold", "answer", "marks"),
    [
        ("SELECT a FROM t;", "select  A\nfrom `T`", []),
        ("SELECT a FROM t WHERE b <> 'X'", "SELECT a FROM t WHERE b != 'x'", ["'X' ", "'x'"]),
        ("SELECT a FROM t", "SELECT a, b FROM t", [", b "]),
        ("SELECT a FROM t WHERE b = 1", "SELECT a FROM t", [" WHERE b = 1 "]),
        ("SELECT a FROM t", "I do not know at all", ["I do not know at all"]),
    ],
)
def test_only_what_differs_is_marked(gold: str, answer: str, marks: list[str]) -> None:
    assert [s.text for s in mark_differences(gold, answer) if s.kind != "same"] == marks


def test_charts_are_shapes_without_styles_and_say_what_they_show(samples: list[Sample]) -> None:
    from xml.etree import ElementTree

    made = charts.evaluation_charts(summarize(samples, "ours"), "one")
    made += charts.evaluation_charts(summarize(samples, "ours"), "two")
    roots = [ElementTree.fromstring(chart.svg) for chart in made]
    assert len(roots) == 6
    ids = [e.get("id") for root in roots for e in root.iter() if e.get("id")]
    assert len(ids) == len(set(ids))
    for chart, root in zip(made, roots, strict=True):
        used = set(re.findall(r'(?:href="|url\()#([\w-]+)', chart.svg))
        assert used <= set(ids) and "style=" not in chart.svg and "http" not in chart.svg
        assert root.get("role") == "img" and "ours" in (root.get("aria-label") or "")
    assert made == [
        *charts.evaluation_charts(summarize(samples, "ours"), "one"),
        *charts.evaluation_charts(summarize(samples, "ours"), "two"),
    ]


def test_what_is_published_of_the_page_still_runs(text: str) -> None:
    published = publish.cleaned(text, ["/home/ada"])
    assert Reader(published).texts["script"][1] == Reader(text).texts["script"][1]
    assert Reader(published).texts["style"] == Reader(text).texts["style"]
    assert data_of(published)


def test_a_new_training_moves_the_page_aside(tmp_path: Path) -> None:
    for name in ("adapters.safetensors", "evaluation.html"):
        (tmp_path / name).write_text("old")
    checkpoints.move_aside(tmp_path, overwrite=False)
    assert (tmp_path / "previous-1" / "evaluation.html").exists()
    assert not (tmp_path / "evaluation.html").exists()


def test_the_script_ends_with_how_to_look_at_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page.sys, "platform", "darwin")
    place = tmp_path / "a folder"
    done = run("--answers", write(tmp_path / "r.jsonl", CATS, COUNT), "--output-dir", place)
    assert done.stderr.rstrip().endswith(f"open '{place}/evaluation.html'")
    monkeypatch.setattr(page.sys, "platform", "linux")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert page.opening_command(Path("c/evaluation.html")) == "c/evaluation.html"
    (tmp_path / "xdg-open").write_text("")
    (tmp_path / "xdg-open").chmod(0o755)
    assert page.opening_command(Path("c/evaluation.html")) == "xdg-open c/evaluation.html"


def test_without_jinja2_or_matplotlib_the_figures_are_written_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, place = write(tmp_path / "r.jsonl", CATS, COUNT), tmp_path / "r"
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    assert run("--answers", path).returncode == 0
    assert "<svg" not in (place / "evaluation.html").read_text()
    monkeypatch.setitem(__import__("sys").modules, "jinja2", None)
    monkeypatch.setattr(cli, "_said", set())
    done = run("--answers", path)
    assert done.returncode == 0 and "no evaluation.html: pip install jinja2" in done.stderr
    assert (place / "evaluation.json").exists() and not (place / "evaluation.html").exists()


def instruction(number: int, losses: tuple[float | None, float | None]) -> Sample:
    """A judged row of instructions."""
    outputs = {
        name: {
            "text": "so " * 20 if number == 2 else f"Answer {number} of {name}",
            "finish_reason": "length" if number == 1 else "stop", "generation_tokens": 5,
            "nll": loss, "rouge_l": 0.5, "chrf": 40.0, "length_ratio": 1.0,
            "repetition_rate": 0.9 if number == 2 else 0.0,
        }
        for name, loss in zip(("base", "fine-tuned"), losses, strict=True)
    }  # fmt: skip
    return {
        "id": number, "type": "alpaca", "source": None, "complexity": None, "prompt": "",
        "question": f"Instruction {number}?", "context": "its input" if number == 1 else None,
        "gold": "Reference.", "reference_tokens": 4, "outputs": outputs,
    }  # type: ignore[typeddict-item]  # fmt: skip


INSTRUCTIONS = [
    instruction(number, losses)
    for number, losses in enumerate([(9.0, 4.0), (5.0, 6.0), (4.0, 2.0), (3.0, 3.0)], 1)
]


def test_instructions_have_losses_and_no_right_or_wrong() -> None:
    text = page_of(INSTRUCTIONS)
    (made,) = data_of(text)
    assert made["type"] == "alpaca" and "ROUGE-L" in text and "perplexity" not in text
    first = made["rows"][0]["answers"][1]
    assert first["right"] is None and first["loss"] == 1.0
    assert first["said"].startswith("loss per token of the reference 1.000, ROUGE-L 0.50")
    assert first["flaw"] == page_rows.CUT
    assert made["rows"][1]["answers"][0]["flaw"] == page_rows.REPEATS


# --- In a browser -------------------------------------------------------------------------------

in_browser = pytest.mark.skipif(find_browser() is None, reason=ABSENT)


@pytest.fixture(scope="module")
def driver() -> Iterator[Any]:
    with open_browser() as opened:
        yield opened


@pytest.fixture
def opened(driver: Any, folder: Path) -> Any:
    """The page, opened anew in a wide light window."""
    resize(driver, 1400, 1000)
    media = {"media": "", "features": [{"name": "prefers-color-scheme", "value": "light"}]}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    driver.get("about:blank")
    asked_for(driver), complaints(driver)
    driver.get((folder / "evaluation.html").as_uri())
    return driver


def shown(driver: Any) -> list[str]:
    """Keys of the rows that are there."""
    script = "return [...document.querySelectorAll('article.row')].map((a) => a.id.slice(4))"
    return list(driver.execute_script(script))


def press(driver: Any, key: str) -> None:
    from selenium.webdriver import ActionChains

    ActionChains(driver).send_keys(key).perform()


def wait_for(driver: Any, holds: Any, what: str) -> None:
    """Wait until something holds that the page does in its own time."""
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(driver, 20).until(lambda _: holds(), what)


def status_becomes(driver: Any, words: str) -> None:
    wait_for(driver, lambda: at(driver, "shown").text == words, words)


def at(driver: Any, name: str) -> Any:
    return driver.find_element("id", name)


def outcome(driver: Any, key: str) -> Any:
    return driver.find_element("css selector", f"[data-outcome='{key}']")


@in_browser
def test_the_page_asks_for_nothing_and_shows_hostile_rows_as_text(opened: Any) -> None:
    assert asked_for(opened) == [opened.current_url] and complaints(opened) == []
    assert opened.title.startswith("Evaluation: 7 rows")
    question = opened.find_element("css selector", "#row-q2 .question").text
    assert "</script><script>document.title = 'owned'</script>" in question
    assert not opened.find_elements("css selector", "img")


@in_browser
def test_a_program_from_elsewhere_is_refused(opened: Any, folder: Path, tmp_path: Path) -> None:
    text = (folder / "evaluation.html").read_text(encoding="utf-8")
    (tmp_path / "x.html").write_text(
        text.replace("</main>", "<script>document.title = 'owned'</script></main>"), "utf-8"
    )
    opened.get((tmp_path / "x.html").as_uri())
    assert opened.title != "owned" and any("Content Security" in c for c in complaints(opened))


@in_browser
def test_rows_are_filtered_by_outcome_error_and_complexity(opened: Any) -> None:
    from selenium.webdriver.support.ui import Select

    counts = {b.get_attribute("data-outcome"): b.text.split()[-1]
              for b in opened.find_elements("css selector", "#outcomes button")}  # fmt: skip
    assert counts == {"": "7", "won": "1", "lost": "1", "right": "1", "wrong": "2", "apart": "2"}
    wanted = {"won": ["q1"], "lost": ["q2"], "right": ["q3"], "wrong": ["q4", "q7"],
              "apart": ["q5", "q6"]}  # fmt: skip
    for key, rows in wanted.items():
        outcome(opened, key).click()
        assert shown(opened) == rows, key
        assert outcome(opened, key).get_attribute("aria-pressed") == "true"
        assert at(opened, "shown").text == f"{len(rows)} of 7 rows"
        assert opened.execute_script("return document.activeElement.dataset.outcome") == key
    at(opened, "reset").click()
    Select(at(opened, "error")).select_by_visible_text("no SQL in the reply (1)")
    assert shown(opened) == ["q4"] and outcome(opened, "wrong").text.endswith("1")
    at(opened, "reset").click()
    Select(at(opened, "complexity")).select_by_visible_text("aggregation (2)")
    assert shown(opened) == ["q3", "q4"]
    outcome(opened, "won").click()
    assert shown(opened) == [] and "No row is like that" in at(opened, "rows").text
    press(opened, "\ue00c")  # Escape
    assert len(shown(opened)) == 7 and at(opened, "shown").text == "7 rows"


@in_browser
def test_words_are_searched_in_questions_answers_schemas_and_errors(opened: Any) -> None:
    search = at(opened, "search")
    for typed, rows in (
        ("oldest", ["q4"]),
        ("COUNT(* pets", ["q3"]),
        ("cannot say", ["q4"]),
        ("no such column", ["q2"]),
        ("</script>", ["q2", "q7"]),
        ("integer primary key", [f"q{n}" for n in range(1, 8)]),
        ("count(id)", ["q3"]),
    ):
        search.clear()
        search.send_keys(typed)
        wait_for(opened, lambda rows=rows: shown(opened) == rows, typed)
        some = "" if len(rows) == 7 else " of 7"
        assert at(opened, "shown").text == f"{len(rows)}{some} rows"
    search.send_keys("\ue00c")
    status_becomes(opened, "7 rows")
    assert search.get_attribute("value") == ""


@in_browser
def test_keys_go_from_row_to_row(opened: Any) -> None:
    def current() -> tuple[str, str]:
        script = "return [document.activeElement.id, location.hash]"
        focused, link = opened.execute_script(script)
        return focused, link

    for key, row in (("j", "q1"), ("j", "q2"), ("j", "q3"), ("k", "q2")):
        press(opened, key)
        assert current() == (f"row-{row}", f"#row-{row}")
    schema = opened.find_element("css selector", "#row-q2 details")
    assert schema.get_attribute("open") is None
    press(opened, "s")
    assert schema.get_attribute("open") and "CREATE TABLE pets" in schema.text
    press(opened, "/")
    assert current()[0] == "search"
    press(opened, "j")
    assert at(opened, "search").get_attribute("value") == "j"
    press(opened, "\ue00c")
    press(opened, "\ue00c")
    assert current()[0] != "search"
    at(opened, "keys-on").click()
    press(opened, "j")
    assert current()[0] == "keys-on"


@in_browser
def test_a_link_leads_to_its_row_past_any_filter(opened: Any, folder: Path) -> None:
    opened.get("about:blank")
    opened.get((folder / "evaluation.html").as_uri() + "#row-q6")
    assert opened.execute_script("return document.activeElement.id") == "row-q6"
    outcome(opened, "won").click()
    opened.execute_script("location.hash = '#row-q4'")
    status_becomes(opened, "7 rows")
    assert opened.execute_script("return document.activeElement.id") == "row-q4"
    opened.execute_script("location.hash = '#row-nobody'")
    assert len(shown(opened)) == 7
    link = opened.find_element("css selector", "#row-q3 a.number")
    assert link.get_attribute("href").endswith("evaluation.html#row-q3")


@in_browser
def test_everything_is_printed_and_nothing_else(opened: Any) -> None:
    opened.execute_script("dispatchEvent(new Event('beforeprint'))")
    opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    assert len(shown(opened)) == 7
    assert not at(opened, "filters").is_displayed() and not at(opened, "keys").is_displayed()
    closed = "return [...document.querySelectorAll('details:not([open])')].length"
    assert opened.execute_script(closed) == 0
    assert "CREATE TABLE pets" in opened.find_element("id", "row-q1").text
    opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    opened.execute_script("dispatchEvent(new Event('afterprint'))")
    assert opened.execute_script(closed) > 7 and at(opened, "filters").is_displayed()
    assert base64.b64decode(opened.execute_cdp_cmd("Page.printToPDF", {})["data"])[:4] == b"%PDF"


# Of every text that is seen its contrast with the ground below it, after WCAG 2.
CONTRASTS = """
const light = (rgb) => { const [r, g, b] = rgb.map((c) => c / 255).map((c) =>
  c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4); return .2126*r + .7152*g + .0722*b; };
const parts = (text) => text.match(/[0-9.]+/g).map(Number);
const below = (e) => { for (; e; e = e.parentElement) {
  const c = parts(getComputedStyle(e).backgroundColor);
  if (c.length === 3 || c[3] > 0) return c.slice(0, 3); } return [255, 255, 255]; };
const found = [];
for (const e of document.querySelectorAll('body *')) {
  const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
  if (!own || !e.checkVisibility() || e.closest('.spoken, script, :disabled')) continue;
  const style = getComputedStyle(e), svg = e.closest('svg');
  const ink = light(parts(svg ? style.fill : style.color).slice(0, 3)), ground = light(below(e));
  const ratio = (Math.max(ink, ground) + .05) / (Math.min(ink, ground) + .05);
  if (ratio < 4.5) found.push(e.tagName + '.' + e.getAttribute('class') + ' ' + ratio.toFixed(2));
}
return [...new Set(found)];"""


@in_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1400])
def test_the_page_is_readable_on_any_screen(opened: Any, width: int, scheme: str) -> None:
    resize(opened, width, 900)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    opened.execute_script("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    size = opened.execute_script("return [document.documentElement.scrollWidth, innerWidth]")
    assert size == [width, width]
    ground = opened.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert (ground == "rgb(255, 255, 255)") == (scheme == "light")
    assert opened.execute_script(CONTRASTS) == []


@in_browser
def test_everything_has_a_name_for_screen_readers(opened: Any) -> None:
    controls = opened.find_elements("css selector", "input, select, button, summary, a, svg")
    seen = [control for control in controls if control.is_displayed()]
    assert len(seen) > 20
    for control in seen:
        # What is far away is not laid out, and nameless for the driver.
        opened.execute_script("arguments[0].scrollIntoView()", control)
        assert control.accessible_name, control.get_attribute("outerHTML")[:200]
    for selector in ("main", "header.top", "[role=search]", "[role=status][aria-live=polite]"):
        assert len(opened.find_elements("css selector", selector)) == 1, selector
    levels = opened.execute_script(
        "return [...document.querySelectorAll('h1,h2,h3,h4')].filter((h) => h.checkVisibility())"
        ".map((h) => Number(h.tagName[1]))"
    )
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(b - a <= 1 for a, b in pairwise(levels))


@in_browser
def test_instructions_and_a_second_set_are_shown_in_their_turn(
    opened: Any, tmp_path: Path, samples: list[Sample]
) -> None:
    from selenium.webdriver.support.ui import Select

    sets = [
        page_rows.RowSet("instructions", summarize(INSTRUCTIONS), INSTRUCTIONS),
        page_rows.RowSet("what it cost", summarize(samples, "ours"), samples),
    ]
    drawn = page.evaluation_page("Two", sets, {"n": 4})
    (tmp_path / "two.html").write_text(drawn or "", encoding="utf-8")
    opened.get((tmp_path / "two.html").as_uri())
    assert complaints(opened) == []
    names = [b.text for b in opened.find_elements("css selector", "#outcomes button")]
    assert names == ["All 4", "Lower loss 2", "Higher loss 1", "Equal loss 1", "Not compared 0"]
    outcome(opened, "won").click()
    assert shown(opened) == ["1", "3"]
    assert "its input" in at(opened, "row-1").text and "Reference." in at(opened, "row-1").text
    Select(at(opened, "set")).select_by_visible_text("what it cost")
    assert shown(opened) == [f"q{n}" for n in range(1, 8)]
    opened.execute_script("location.hash = '#row-2'")
    status_becomes(opened, "4 rows")
    assert opened.execute_script("return document.activeElement.id") == "row-2"


@in_browser
def test_many_rows_open_in_a_moment_and_come_page_by_page(opened: Any, tmp_path: Path) -> None:
    from measure_page import TIMES, made_up_samples

    (tmp_path / "many.html").write_text(page_of(made_up_samples(2000)), encoding="utf-8")
    opened.get((tmp_path / "many.html").as_uri())
    # 0.5 s where it was measured (measure_page.py); a loaded machine has time left here.
    assert opened.execute_script(TIMES)["loaded"] < 10_000
    rows = shown(opened)
    assert len(rows) == 50 and at(opened, "place").text == "1 to 50 of 2,000"
    at(opened, "next").click()
    assert at(opened, "place").text == "51 to 100 of 2,000" and not set(shown(opened)) & set(rows)
    press(opened, "k")
    press(opened, "k")
    assert shown(opened) == rows and opened.execute_script("return location.hash") == (
        f"#row-{rows[-1]}"
    )
