"""Put measured figures into the blocks of README.md and FIGURES.md: none is typed by hand.

    python tests/sweep_training.py --data data | tee sweep.log
    python tests/update_readme.py sweep sweep.log --command "python tests/sweep_training.py"
    python tests/update_readme.py evaluation checkpoints/evaluation.json --command "pipenv run demo"
    python tests/update_readme.py                   # only draw the blocks again

A block stands between `<!-- NAME, drawn by tests/update_readme.py -->` and `<!-- end -->`. What is
measured is kept, with machine and command, in tests/readme_figures.json; a log's figures are the
JSON on its last line. A test fails when a page and the figures differ.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
import textwrap
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import test_finetuned as evaluation  # noqa: E402
from gemma_lora import device  # noqa: E402
from gemma_lora.report import rank_sample, summary_cells  # noqa: E402

FIGURES = ROOT / "tests/readme_figures.json"
PAGES = (ROOT / "README.md", ROOT / "FIGURES.md")
BLOCK = re.compile(
    r"(<!-- (\w+), drawn by tests/update_readme\.py -->\n).*?(<!-- end -->)", re.DOTALL
)
Figures = dict[str, Any]


def table(rows: list[list[str]]) -> str:
    """A Markdown table whose first row is the head."""
    lines = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
    return "\n".join(f"| {' | '.join(row)} |" for row in lines)


def one_line(text: str, longest: int = 80) -> str:
    """An answer on one line of a table."""
    flat = " ".join(text.split()).replace("|", "\\|")
    return flat if len(flat) <= longest else flat[:longest].rstrip() + " ..."


def prose(text: str) -> str:
    """A paragraph in lines of 100 characters."""
    return textwrap.fill(text, 100, break_long_words=False, break_on_hyphens=False)


def origin(figures: Figures) -> str:
    """With what a block's figures were made."""
    return f"{figures['machine']}; `{figures['command']}`."


def draw_example(figures: Figures) -> str:
    """One question, each model's answer and its verdict."""
    sample = figures["sample"]
    rows = [["question", sample["question"]]]
    for name, out in sample["outputs"].items():
        right = out["match"] and out.get("suite_match") is not False
        said = "right" if right else out["error"] or "right on its own database only"
        rows.append([name, f"`{one_line(out['text'])}` ({said})"])
    return table(rows)


def draw_evaluation(figures: Figures) -> str:
    """The summary table and the paired tests."""
    head, cells = summary_cells(figures["summary"])
    sentences = " ".join(p["sentence"] for p in figures["summary"]["paired"])
    run = figures["run"]
    split = run["split"].capitalize()
    how = f"{split} split, seed {run['seed']}, greedy, at most {run['max_tokens']} tokens"
    if "test_suite_accuracy" not in next(iter(figures["summary"]["models"].values())):
        how += "; one database a row, without test suites"
    return f"{table([head, *cells])}\n\n{prose(f'{sentences} {how}; {origin(figures)}')}"


def draw_training(figures: Figures) -> str:
    """train.py against mlx_lm.lora, and perhaps another commit of itself."""
    rows = [["", "supervised tokens/s", "peak memory", "of the matmul peak", "ratios"]]
    for side, told in figures.items():
        if not isinstance(told, dict) or "utilization" not in told:
            continue
        rows.append([f"`{side}`", f"{told['tokens_per_second']:.1f}",
                     f"{told['peak_memory_gb']:.2f} GB", f"{told['utilization']:.0%}",
                     f"{told['speed_ratio']:.2f}, {told['memory_ratio']:.2f}"])  # fmt: skip
    how = f"{figures['rounds']} x {figures['steps'] - 2} counted steps a side, in turn, seed 0"
    return f"{table(rows)}\n\n{prose(f'{how}; {origin(figures)}')}"


def draw_steps(figures: Figures) -> str:
    """Variations of how a training step is computed; sizes of the head's blocks in one row."""
    told = {
        name: (f"{step['time_ratio']:.2f}", f"{step['peak_memory_gb']:.2f} GB")
        for name, step in figures["steps"].items()
    }
    blocks = {name.split()[-1]: told.pop(name) for name in list(told) if "blocks of" in name}
    rows = [["step", "time", "peak memory"], *([name, *cells] for name, cells in told.items())]
    rows.append([f"head in blocks of {', '.join(blocks)}",
                 *(", ".join(cells) for cells in zip(*blocks.values(), strict=True))])  # fmt: skip
    return f"{table(rows)}\n\n{prose(origin(figures))}"


def draw_sweep(figures: Figures) -> str:
    """What each variation of the defaults came to, best first."""
    runs = sorted(figures["runs"], key=lambda r: r["val_loss"])
    named = [f"{r['variation'].replace(',', ' ').replace('=', ' ')}: {r['val_loss']:.3f}"
             for r in runs]  # fmt: skip
    before = f"Validation loss before: {runs[0]['val_loss_before']:.3f}; after, best first: "
    return prose(f"{before}{'; '.join(named)} (seed 42, {origin(figures)[:-1]}).")


def draw_benchmark(figures: Figures) -> str:
    """Speeds and sizes of the variants."""
    names = list(figures["variants"])
    rows = [["", *names]]
    for label, key in (("prefill tokens/s", "prompt_tps"), ("decode tokens/s", "generation_tps")):
        rows.append([label, *(f"{figures['variants'][n][key]:.1f}" for n in names)])
        rows.append(["over base, 95%", "1", *(
            "{:.2f} [{:.2f}-{:.2f}]".format(ratio["ratio"], *ratio["ci"])
            for n in names[1:]
            if (ratio := figures["ratios"][n][key])
        )])  # fmt: skip
    rows.append(["weights GB", *(f"{figures['variants'][n]['weights_gb']:.2f}" for n in names)])
    how = f"{figures['shape']}, {figures['runs']} runs; {origin(figures)}"
    return f"{table(rows)}\n\n{prose(how)}"


def draw_formats(figures: Figures) -> str:
    """Exported GGUF files in llama.cpp beside the same adapter in MLX."""
    rows = [["", "size", "written in", "answers as MLX's", "test suite", "tokens/s"]]
    for name in ("MLX", *figures["files"]):
        file, score = figures["files"].get(name), figures["scores"][name]
        cells = ["", "", ""]
        if file:
            widest = math.ceil(100 * file["widest_margin"]) / 100
            parted = f" (the rest within {widest:.2f} nats)" if widest else ""
            same = f"{file['same']} of {file['answers']}{parted}"
            cells = [f"{file['mb']} MB", f"{file['write_sec']:.0f} s", same]
        right = "{:.1%} [{:.0f}-{:.0f}]".format(score["value"], *(100 * x for x in score["ci"]))
        rows.append([name, *cells, right, f"{figures['speeds'][name]:.0f}"])
    judged, cut = figures["scores"]["MLX"]["n"], figures["tokens"]
    how = (
        f"{cut['alike']:,} of {cut['texts']:,} varied texts are cut alike. Greedy answers of at "
        f"most {figures['limit']} tokens to {figures['rows']} rows held apart ({judged} have a "
        "test suite), MLX in float32; speeds: median of 8 answers, MLX and each type in turn, one "
        f"thread, a busy machine; {figures['adapter']}; seed {figures['seed']}; xllamacpp "
        f"{figures['xllamacpp']}; {origin(figures)}"
    )
    return f"{table(rows)}\n\n{prose(how)}"


DRAW: dict[str, Callable[[Figures], str]] = {
    "example": draw_example,
    "evaluation": draw_evaluation,
    "training": draw_training,
    "steps": draw_steps,
    "sweep": draw_sweep,
    "benchmark": draw_benchmark,
    "formats": draw_formats,
}


def keep_evaluation(path: Path) -> dict[str, Figures]:
    """From evaluation.json and the samples beside it: the blocks evaluation and example."""
    report = json.loads(path.read_text())
    lines = path.with_name("evaluation_samples.jsonl").read_text().splitlines()
    best = min(map(json.loads, lines), key=rank_sample)
    outputs = {
        name: {k: out[k] for k in ("text", "match", "suite_match", "error")}
        for name, out in best["outputs"].items()
    }
    run = {k: report["run"][k] for k in ("split", "seed", "n")}
    run["max_tokens"] = report["run"]["settings"]["max_tokens"] or evaluation.MAX_TOKENS["sql"]
    return {
        "evaluation": {"summary": report["summary"], "run": run},
        "example": {"sample": {"question": best["question"], "outputs": outputs}},
    }


def keep_benchmark(path: Path) -> dict[str, Figures]:
    """From benchmark.json: the single-row shape of every variant."""
    found = json.loads(path.read_text())
    shape, keys = found["shape"], ("prompt_tps", "generation_tps")
    variants = {
        name: {k: works[shape][k]["median"] for k in keys}
        | {"weights_gb": found["variants"][name]["weights_gb"]}
        for name, works in found["figures"].items()
    }
    ratios: Figures = {}
    for c in found["comparisons"]:
        if c["work"] == shape:
            told = {k: c[k] for k in ("ratio", "ci", "verdict")}
            ratios.setdefault(c["variant"], {})[c["metric"]] = told
    told = {"shape": shape, "runs": found["settings"]["runs"]}
    return {"benchmark": {"variants": variants, "ratios": ratios, **told}}


def keep_formats(path: Path) -> dict[str, Figures]:
    """From the last line of check_gguf.py: the adapter's own files, without those of --also."""
    found = json.loads(path.read_text().strip().splitlines()[-1])
    files: Figures = {}
    for name, file in found["files"].items():
        if name in found["speeds"]:
            answers = file["answers"]
            files[name] = {
                "mb": round(file["mb"]), "write_sec": round(file["write_sec"], 1),
                "answers": answers["answers"], "same": answers["same"],
                "widest_margin": max(answers["margins_where_parted"], default=0),
            }  # fmt: skip
    cut = next(f["tokens"] for f in found["files"].values() if "tokens" in f)
    told = {
        "files": files, "tokens": {k: cut[k] for k in ("alike", "texts")},
        "scores": {n: m["test_suite_accuracy"] for n, m in found["scores"]["models"].items()},
        "speeds": {n: round(s["generation_tps"], 1) for n, s in found["speeds"].items()},
        "limit": found["tokens"], "adapter": found["adapter"],
        "xllamacpp": version("xllamacpp"),
    }  # fmt: skip
    return {"formats": told | {k: found[k] for k in ("rows", "seed")}}


def keep(name: str, path: Path) -> dict[str, Figures]:
    """What is kept of a measurement: {block: figures}."""
    if name in ("evaluation", "example"):
        return keep_evaluation(path)
    if name == "benchmark":
        return keep_benchmark(path)
    if name == "formats":
        return keep_formats(path)
    found = json.loads(path.read_text().strip().splitlines()[-1])
    return {name: {"runs": found} if isinstance(found, list) else found}


def machine() -> str:
    """Chip, cores, system, dtype and versions in one line."""

    device.prepare_process()
    told = device.describe_machine()
    versions = told["versions"]
    return (
        f"{told['chip']}, {told['cores']} cores, {told['os'].split('-')[0]}, {told['dtype']}, "
        f"Python {versions['python']}, mlx {versions['mlx']}, mlx-lm {versions['mlx-lm']}"
    )


def redraw(text: str, figures: dict[str, Figures]) -> str:
    """A page with every block drawn whose figures are there."""

    def draw(block: re.Match[str]) -> str:
        head, name, end = block.groups()
        return f"{head}{DRAW[name](figures[name])}\n{end}" if name in figures else block[0]

    return BLOCK.sub(draw, text)


def main() -> None:
    """Keep new figures, if any are named, and draw the blocks."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", nargs="?", choices=[*DRAW])
    parser.add_argument("file", nargs="?", type=Path)
    parser.add_argument("--command", help="what made the figures, as a reader would type it")
    args = parser.parse_args()
    figures: dict[str, Figures] = json.loads(FIGURES.read_text()) if FIGURES.exists() else {}
    if args.name:
        if args.file is None or args.command is None:
            parser.error("a block needs its FILE and --command")
        about = {"command": args.command, "machine": machine()}
        figures |= {block: made | about for block, made in keep(args.name, args.file).items()}
        FIGURES.write_text(json.dumps(figures, indent=1) + "\n")
    for page in PAGES:
        page.write_text(redraw(page.read_text(encoding="utf-8"), figures), encoding="utf-8")


if __name__ == "__main__":
    main()
