"""Compare benchmark.py's speeds with those of `mlx_lm.benchmark` on the same shape.

    python tests/measure_benchmark.py --model packaged --prompt-tokens 128 --generation-tokens 16

Both run in processes of their own, in turn, with the same BLAS, weights and activation function:
what is compared is the measuring. mlx-lm counts the first token, whose time it leaves out; its
decode speed is corrected for that. It also computes one token more than asked for, in the
background, and starts the next trial while that goes on (an eighth of the prefill's time, here): it
is made to wait, as benchmark.py does. Prints a table and, last, one JSON line.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import median, stdev
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from gemma_lora import device, models, timing  # noqa: E402

SIDES = ("mlx_lm.benchmark", "benchmark.py")
KEYS = ("prompt_tps", "generation_tps")


def run_mlx_lm(args: argparse.Namespace) -> None:
    """Its own main(), on our BLAS and with our activation function."""
    import mlx.core as mx
    from mlx_lm import benchmark as theirs
    from mlx_lm.generate import generation_stream, stream_generate

    def after_the_last(*args: Any, **settings: Any) -> Iterator[Any]:
        mx.synchronize(generation_stream)
        yield from stream_generate(*args, **settings)

    theirs.stream_generate = after_the_last  # type: ignore[assignment]
    folder = models.resolve_model(args.model)
    sys.argv = [
        "mlx_lm.benchmark", "--model", str(folder), "-p", str(args.prompt_tokens),
        "-g", str(args.generation_tokens), "-n", str(args.trials),
    ]  # fmt: skip
    theirs.main()


def run_ours(args: argparse.Namespace) -> None:
    """benchmark.py's timing of the same shape, told in the same words."""

    model, _, _ = models.load_base(args.model)
    size, length = args.prompt_tokens, args.generation_tokens
    work = timing.shape_work(size, length, 1, model.args.vocab_size, 0)
    for trial in range(args.trials + 1):
        told = timing.time_once(model, work, 0, True)
        if trial:  # the first one warms up
            print(f"Trial {trial}:  " + ", ".join(f"{k}={told[k]:.3f}" for k in KEYS))


def child(side: str, args: argparse.Namespace) -> dict[str, list[float]]:
    """All trials of one process: {"prompt_tps": [...], "generation_tps": [...]}."""
    command = [sys.executable, __file__, "--side", side, "--model", args.model]
    command += ["--prompt-tokens", str(args.prompt_tokens), "--trials", str(args.trials)]
    command += ["--generation-tokens", str(args.generation_tokens)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr[-2000:])
    trials = [line for line in done.stdout.splitlines() if line.startswith("Trial")]
    found = {
        key: [float(m[1]) for t in trials if (m := re.search(rf"{key}=([\d.]+)", t))]
        for key in KEYS
    }
    if side == SIDES[0]:
        counted = args.generation_tokens / (args.generation_tokens - 1)
        found["generation_tps"] = [v / counted for v in found["generation_tps"]]
    return found


def main() -> None:
    """Alternate the two and print medians, spreads and ratios."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="packaged")
    parser.add_argument("--prompt-tokens", type=int, default=128)
    parser.add_argument("--generation-tokens", type=int, default=16)
    parser.add_argument("--trials", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--side", choices=SIDES)
    args = parser.parse_args()
    if args.side:
        device.prepare_process()
        return run_mlx_lm(args) if args.side == SIDES[0] else run_ours(args)
    runs: dict[str, dict[str, list[float]]] = {side: {k: [] for k in KEYS} for side in SIDES}
    for number in range(args.rounds):
        for side in SIDES[:: 1 if number % 2 == 0 else -1]:
            for key, values in child(side, args).items():
                runs[side][key] += values
    print(f"pp{args.prompt_tokens}+tg{args.generation_tokens}, median ± spread of {args.rounds}"
          f" x {args.trials} trials\n")  # fmt: skip
    summary: dict[str, float] = {}
    for key in KEYS:
        theirs, ours = (runs[side][key] for side in SIDES)
        summary[f"{key}_ratio"] = median(ours) / median(theirs)
        for side, values in zip(SIDES, (theirs, ours), strict=True):
            print(f"{key:16}{side:18}{median(values):9.1f} ±{stdev(values) / median(values):.0%}")
        print(f"{'':16}{'ratio':18}{summary[f'{key}_ratio']:9.2f}\n")
    print(json.dumps(summary | {"runs": runs}))


if __name__ == "__main__":
    main()
