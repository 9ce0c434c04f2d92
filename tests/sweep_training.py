"""Train once for each variation of the defaults and rank them by validation loss.

    python tests/sweep_training.py --data data --model packaged --iters 60 --jobs 2
    python tests/sweep_training.py --data data --variation learning-rate=5e-4,num-layers=18

Each variation changes what it names and nothing else; every run is a process of its own. Prints a
table, best first, and last one JSON line. A short run favours a higher learning rate than a long
one: read the table with its number of steps.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
VARIATIONS = (
    "learning-rate=1e-4",
    "learning-rate=2e-4",
    "learning-rate=5e-4",
    "learning-rate=1e-3",
    "learning-rate=5e-4,rank=8",
    "learning-rate=5e-4,rank=32",
    "learning-rate=5e-4,num-layers=18",
    "learning-rate=5e-4,num-layers=8",
    "learning-rate=5e-4,scale=1",
    "learning-rate=5e-4,scale=4",
)


def train_once(variation: str, args: argparse.Namespace) -> dict[str, Any]:
    """Run train.py with a variation: its losses before and at its best, seconds, gigabytes."""
    threads = str(max(1, (os.cpu_count() or 1) // args.jobs))
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(ROOT / "train.py"), "--model", args.model]
        command += ["--data", str(args.data), "--adapter-path", folder, "--iters", str(args.iters)]
        command += ["--steps-per-eval", str(args.iters), "--save-every", str(args.iters)]
        command += ["--batch-size", str(args.batch_size), "--warmup", str(args.iters // 8)]
        command += ["--processes", threads]
        for flag, value in (pair.split("=") for pair in variation.split(",")):
            command += [f"--{flag}", value]
        begun = time.perf_counter()
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            env=os.environ | {"OPENBLAS_NUM_THREADS": threads},
        )
        result: dict[str, Any] = {"variation": variation, "error": done.stderr.strip()[-200:]}
        if done.returncode == 0:
            lines = [json.loads(x) for x in (Path(folder) / "metrics.jsonl").open()]
            losses = [x["val_loss"] for x in lines if "val_loss" in x]
            result |= {"val_loss_before": losses[0], "val_loss": min(losses[1:]), "error": None}
            result["peak_memory_gb"] = max(x.get("peak_memory_gb", 0) for x in lines)
        result["seconds"] = round(time.perf_counter() - begun)
    print(json.dumps(result), flush=True)
    return result


def main() -> None:
    """Run the variations and print them in the order of their losses."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--model", default="packaged")
    parser.add_argument("--iters", type=int, default=60)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--jobs", type=int, default=1, help="runs at the same time")
    parser.add_argument("--variation", action="append", help="flag=value,...; may be repeated")
    args = parser.parse_args()
    with ThreadPoolExecutor(args.jobs) as pool:
        results = list(pool.map(lambda v: train_once(v, args), args.variation or VARIATIONS))
    results.sort(key=lambda r: r.get("val_loss", float("inf")))
    print(f"\n| variation ({args.iters} steps of batch {args.batch_size}) | val_loss | peak GB |")
    print("|---|---|---|")
    for result in results:
        loss, memory = result.get("val_loss", float("nan")), result.get("peak_memory_gb", 0)
        print(f"| {result['variation'].replace(',', ', ')} | {loss:.3f} | {memory:.2f} |")
    print(json.dumps(results))


if __name__ == "__main__":
    main()
