"""Compare ways to choose among a fine-tuned model's answers to SQL rows, on rows held apart.

    python tests/measure_candidates.py --adapter-path checkpoints --data data --split valid

Each row gets its greedy answer and, at each temperature, `--draws` sampled ones. A way to choose
sees the row's own database, never its reference; what it chose is judged by execution and by the
suite of altered databases. Prints a table, with Wilson's 95% intervals, and last one JSON line.

The ways: the greedy answer; the same, mended by the schema and the values where it shows nothing;
the first that runs and returns a value, of 2, 4 or all draws, and after these the greedy one mended
(as `--candidates` does); of those that run and return a value the likeliest by the model's own
probability; the result that most of them agree on; where the greedy answer fails, the one that the
model writes when it is shown the error. "any" is what a perfect choice would reach.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import test_finetuned as evaluation  # noqa: E402
from gemma_lora import adapters, device, generation, verdicts  # noqa: E402
from gemma_lora.candidates import showing  # noqa: E402
from gemma_lora.prompts import render_chat, render_prompt  # noqa: E402
from gemma_lora.replies import extract_sql  # noqa: E402
from gemma_lora.sandbox import SqlWorker  # noqa: E402
from gemma_lora.statistics import wilson  # noqa: E402

TIMEOUT_SEC = 2.0


class Tried(NamedTuple):
    """What a database says of an answer, and what the reference does."""

    shows: str  # "rows" | "nothing" | "fails" | "writes"
    result: str  # as text, to tell results that agree
    message: str
    right: bool
    suite: bool | None


Choice = Callable[[Tried, Sequence[tuple[generation.Generation, Tried]]], Tried]


def first_of(count: int) -> Choice:
    """The first that runs and returns a value, where the greedy answer does not."""

    def choose(greedy: Tried, drawn: Sequence[tuple[Any, Tried]]) -> Tried:
        if greedy.shows in ("rows", "writes"):
            return greedy
        return next((t for _, t in drawn[:count] if t.shows == "rows"), greedy)

    return choose


def likeliest(greedy: Tried, drawn: Sequence[tuple[generation.Generation, Tried]]) -> Tried:
    """The likeliest of those that run and return a value, where the greedy answer does not."""
    if greedy.shows in ("rows", "writes"):
        return greedy
    running = [(said.logprob or 0.0, n) for n, (said, t) in enumerate(drawn) if t.shows == "rows"]
    return drawn[max(running)[1]][1] if running else greedy


def agreed(greedy: Tried, drawn: Sequence[tuple[Any, Tried]]) -> Tried:
    """The result that most agree on, of those that run and return a value; greedy wins ties."""
    if greedy.shows == "writes":
        return greedy
    running = [t for t in (greedy, *(t for _, t in drawn)) if t.shows == "rows"]
    if not running:
        return greedy
    [(best, _)] = Counter(t.result for t in running).most_common(1)
    return next(t for t in running if t.result == best)


def share(found: Sequence[bool | None]) -> str:
    """'25.0% [18-33]' of those that can be judged."""
    known = [x for x in found if x is not None]
    low, high = wilson(sum(known), len(known)) or (0.0, 1.0)
    return f"{100 * sum(known) / max(1, len(known)):.1f}% [{100 * low:.0f}-{100 * high:.0f}]"


def measure(args: argparse.Namespace) -> dict[str, list[Tried]]:
    """{way to choose: what it chose for each row whose reference can be compared}."""
    device.prepare_process()
    tuned = adapters.load_finetuned(args.adapter_path, args.model)
    config = evaluation.EvaluationConfig(
        adapter_path=args.adapter_path, data=args.data, split=args.split
    )
    rows = evaluation.evaluation_rows(config, tuned)
    model, prompts = tuned.use("finetuned"), [render_prompt(row["prompt"]) for row in rows]
    greedy = generation.generate_batch(model, tuned.tokenizer, prompts, args.max_tokens)
    drawn = {
        temp: generation.generate_several(
            model, tuned.tokenizer, prompts, range(len(rows)), args.draws, args.max_tokens, temp
        )
        for temp in args.temps
    }
    chosen: dict[str, list[Tried]] = {}
    with SqlWorker() as worker:
        mender_of = evaluation.row_menders(config, worker)
        for number, row in enumerate(rows):
            gold = verdicts.prepare_gold(row, worker, 42, TIMEOUT_SEC)
            if gold.excluded or (gold.empty and not args.all):
                continue

            @cache
            def judged(sql: str, row: Any = row, gold: verdicts.Gold = gold) -> Tried:
                context = row["context"] or ""
                verdict = verdicts.score_sql(f"```sql\n{sql}\n```", "stop", gold, row, worker, 2.0)
                result = worker.run(context, sql, TIMEOUT_SEC)
                return Tried(
                    showing(sql, lambda query: worker.run(context, query, TIMEOUT_SEC)),
                    repr(sorted(map(repr, result.rows))),
                    result.error or "",
                    verdict["match"],
                    verdict["suite_match"],
                )

            def tried(text: str, row: Any = row, judged: Any = judged) -> Tried:
                sql = extract_sql(text, row["context"])
                return judged(sql) if sql else Tried("fails", "", "no SQL", False, False)

            first = tried(greedy[number].text)
            ways: dict[str, Tried] = {"greedy": first}
            sql, mender = extract_sql(greedy[number].text, row["context"]), mender_of(row)
            put_right = (
                mender(sql) if mender and sql and first.shows in ("fails", "nothing") else None
            )
            better = judged(put_right.sql) if put_right else first
            mended = better if better.shows == "rows" else first
            ways["mended"] = mended
            ways["shown its error"] = first
            if first.shows == "fails":
                turns = [
                    ("user", row["prompt"]),
                    ("model", greedy[number].text),
                    ("user", f"This query fails: {first.message}. Write one that runs."),
                ]
                [again] = generation.generate_batch(
                    model, tuned.tokenizer, [render_chat(turns)], args.max_tokens
                )
                ways["shown its error"] = tried(again.text)
            for temp, answers in drawn.items():
                pairs = [(said, tried(said.text)) for said in answers[number]]
                for name, choose in choices(args.draws).items():
                    taken = choose(first, pairs)
                    ways[f"{name}, temperature {temp:g}"] = taken
                    if name.startswith("first"):
                        then = mended if taken is first else taken
                        ways[f"{name}, then mended, temperature {temp:g}"] = then
                known = [first, *(t for _, t in pairs)]
                ways[f"any, temperature {temp:g}"] = max(known, key=lambda t: t.right)
            for name, chose in ways.items():
                chosen.setdefault(name, []).append(chose)
    return chosen


def choices(draws: int) -> dict[str, Choice]:
    """{name: way to choose among the greedy answer and the draws}."""
    counts = sorted({2, 4, draws})
    found: dict[str, Choice] = {f"first that shows, of {n}": first_of(n) for n in counts}
    return found | {"likeliest that shows": likeliest, "most agree": agreed}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--adapter-path", type=Path, default=Path("checkpoints"))
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--model")
    parser.add_argument("--split", default="valid")
    parser.add_argument("--draws", type=int, default=8)
    parser.add_argument("--temps", type=float, nargs="+", default=[0.4, 0.7, 1.0])
    parser.add_argument("--max-tokens", type=int, default=96)
    parser.add_argument("--all", action="store_true", help="rows whose reference shows nothing too")
    found = measure(args := parser.parse_args())
    for name, taken in found.items():
        print(
            f"{name:54} execution {share([t.right for t in taken]):18} "
            f"suite {share([t.suite for t in taken])}"
        )
    print(
        json.dumps({
            "split": args.split,
            "n": len(found["greedy"]),
            **{
                name: [sum(t.right for t in taken), sum(bool(t.suite) for t in taken)]
                for name, taken in found.items()
            },
        })
    )  # fmt: skip


if __name__ == "__main__":
    main()
