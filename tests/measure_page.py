"""How long evaluation.html takes to open in a real browser, and how large it is.

    python tests/measure_page.py                            # 2,000 made-up rows of three models
    python tests/measure_page.py --rows 500 --runs 9
    python tests/measure_page.py --pictures looks           # screenshots, 400 and 1,400 wide

Needs chromium and chromedriver. "opened" ends when the first rows are painted; a filter, a word
typed into the search and the drawing of all rows for the printer are timed inside the page.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any, cast

from browser import find_browser, open_browser, picture

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from gemma_lora.figures import TUNED, Sample, summarize
from gemma_lora.page import evaluation_page
from gemma_lora.page_rows import RowSet

MODELS = ("base, 0 shots", "base, 3 shots", TUNED)
SHARES_RIGHT = {MODELS[0]: 0.1, MODELS[1]: 0.3, TUNED: 0.6}
PAINTED = "const done = arguments[0]; requestAnimationFrame(() => setTimeout(done, 0));"
TIMES = """const [at] = performance.getEntriesByType('navigation');
const paint = performance.getEntriesByName('first-contentful-paint')[0];
return {loaded: at.loadEventEnd, painted: paint ? paint.startTime : null};"""
ACTION = """const done = arguments[0], start = performance.now();
%s
requestAnimationFrame(() => setTimeout(() => done(performance.now() - start), 0));"""
ACTIONS = {
    "filter": "document.querySelector('[data-outcome=won]').click();",
    "all": "document.getElementById('reset').click();",
    "error": "const e = document.getElementById('error'); e.selectedIndex = 1;"
    "e.dispatchEvent(new Event('change'));",
    "next row": "document.body.dispatchEvent(new KeyboardEvent('keydown',"
    " {key: 'j', bubbles: true}));",
    "for the printer": "document.getElementById('reset').click();"
    "dispatchEvent(new Event('beforeprint'));",
}


def made_up_samples(n: int, seed: int = 1) -> list[Sample]:
    """Judged rows as long as those of public text-to-SQL sets; every fourth schema is new."""
    rng = random.Random(seed)
    samples = []
    for number in range(n):
        table = f"shipments_{number // 4}"
        fields = [f"{name}_{number // 4} TEXT" for name in ("port", "vessel", "cargo", "agent")]
        values = ", ".join(f"({i}, 'Rotterdam', 'Vessel {i}', 'grain', 'Ada')" for i in range(8))
        context = f"CREATE TABLE {table} (id INTEGER, {', '.join(fields)}); " + (
            f"INSERT INTO {table} VALUES {values};"
        )
        gold = (
            f"SELECT port_{number // 4}, COUNT(*) FROM {table} WHERE vessel_{number // 4} = "
            f"'Vessel {number % 8}' GROUP BY port_{number // 4} ORDER BY COUNT(*) DESC LIMIT 5"
        )
        outputs = {name: made_up_output(gold, rng, SHARES_RIGHT[name]) for name in MODELS}
        samples.append(
            {
                "id": f"{rng.getrandbits(64):016x}", "type": "sql", "source": "made up",
                "complexity": rng.choice(["basic SQL", "aggregation", "single join"]),
                "question": f"At which ports did vessel {number % 8} of fleet {number // 4} load "
                "grain, and how often? Show the five that were called at most.",
                "context": context, "prompt": "", "gold": gold, "kind": "select",
                "excluded": None if rng.random() < 0.9 else "the gold does not run",
                "empty_gold": False, "gold_result": made_up_result(rng),
                "suite": {"databases": 6, "neighbours": 20, "told_apart": 19}, "outputs": outputs,
            }
        )  # fmt: skip
    return cast("list[Sample]", samples)


def made_up_output(gold: str, rng: random.Random, share_right: float) -> dict[str, Any]:
    """An answer that is the gold, or the gold with something wrong."""
    right = rng.random() < share_right
    wrong = rng.choice(["wrong rows", "syntax", "no such column", "wrong order"])
    sql = gold if right else gold.replace("COUNT(*)", "SUM(id)").replace(" LIMIT 5", "")
    return {
        "text": sql if rng.random() < 0.7 else f"Here is the query:\n```sql\n{sql}\n```",
        "finish_reason": "stop", "generation_tokens": 60, "prompt_tokens": 200, "time_sec": 1.0,
        "sql": sql, "valid_sql": True, "executes": True, "exact_match": right, "match": right,
        "suite_match": right, "error": None if right else wrong,
        "message": None if right else "no such column: nme", "result": made_up_result(rng),
    }  # fmt: skip


def made_up_result(rng: random.Random) -> dict[str, Any]:
    """Five rows of two columns."""
    rows = [[f"Port {rng.randrange(90)}", rng.randrange(5000)] for _ in range(5)]
    return {"columns": ["port", "COUNT(*)"], "rows": rows, "n_columns": 2, "n_rows": 5}


def opening_times(address: str) -> dict[str, Any]:
    """Milliseconds of one opening in a fresh browser, and of what is then done there."""
    with open_browser() as driver:
        driver.set_script_timeout(300)
        start = time.perf_counter()
        driver.get(address)
        driver.execute_async_script(PAINTED)
        found = {"opened": 1000 * (time.perf_counter() - start)}
        found |= driver.execute_script(TIMES)
        for name, action in ACTIONS.items():
            found[name] = driver.execute_async_script(ACTION % action)
        found["drawn for the printer"] = driver.execute_script(
            "return document.querySelectorAll('article.row').length"
        )
    return found


def take_pictures(address: str, folder: Path, height: int) -> None:
    """Screenshots of a page on a phone and a wide screen, light and dark."""
    folder.mkdir(parents=True, exist_ok=True)
    for width in (400, 1400):
        for dark in (False, True):
            with open_browser(width, 900, dark) as driver:
                driver.get(address)
                picture(driver, folder / f"{width}-{'dark' if dark else 'light'}.png", height)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0] if __doc__ else None)
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--page", type=Path, help="an evaluation.html, instead of made-up rows")
    parser.add_argument("--pictures", type=Path, help="folder for screenshots; nothing is timed")
    parser.add_argument("--height", type=int, default=3000, help="of a screenshot, in pixels")
    flags = parser.parse_args()
    assert find_browser(), "needs chromium, chromedriver and selenium"
    with tempfile.TemporaryDirectory() as folder:
        page = flags.page or Path(folder) / "evaluation.html"
        if not flags.page:
            samples = made_up_samples(flags.rows)
            summary = summarize(samples)
            start = time.perf_counter()
            drawn = evaluation_page("Made-up rows", [RowSet("made up", summary, samples)], {})
            page.write_text(drawn or "", encoding="utf-8")
            print(f"{flags.rows} rows drawn in {time.perf_counter() - start:.1f} s")
        print(f"{page.stat().st_size / 1e6:.2f} MB")
        address = page.resolve().as_uri()
        if flags.pictures:
            take_pictures(address, flags.pictures, flags.height)
            return
        runs = [opening_times(address) for _ in range(flags.runs)]
        for name in runs[0]:
            values = [run[name] for run in runs if run[name] is not None]
            ends = f"{min(values):.0f} to {max(values):.0f}" if values else "unknown"
            print(f"{name}: median {median(values):.0f}, {ends} (n = {len(values)}, ms)")
    print(json.dumps({"runs": runs}))


if __name__ == "__main__":
    main()
