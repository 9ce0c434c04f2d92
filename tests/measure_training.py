"""Measure training against `mlx_lm.lora --train --mask-prompt`, in alternating runs.

    python tests/measure_training.py --data data --model packaged --steps 12 --rounds 2
    python tests/measure_training.py --before ../older/checkout --busy 1
    python tests/measure_training.py --sides "train.py --processes 1" train.py

Both sides get the same rows, model, float32 weights, BLAS, rank, layers, batch size, optimizer and
seed, each in a process of its own; the first two steps are not counted. Prints a table and, last,
one JSON line. Supervised tokens are those of the answer and its end; mlx-lm's count is corrected
for the pad token a row that its mask lets through. `--before` measures another checkout too, by the
script that it has in this place; `--busy` keeps so many processes spinning meanwhile.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
import types
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from gemma_lora import adapters, device, models, prompts, splits  # noqa: E402

WARM_UP = 2
RANK, SCALE, RATE = 16, 2.0, 1e-4


def run_mlx_lm(args: argparse.Namespace) -> dict[str, Any]:
    """Train with mlx-lm's own functions, as its command line calls them."""
    device.use_openblas()  # nothing else of ours: mlx-lm as it ships
    import numpy as np
    from mlx_lm import lora
    from mlx_lm.cli_ui import make_console
    from mlx_lm.utils import load

    make_console().quiet = True
    steps: list[dict[str, float]] = []

    class Record:
        def on_train_loss_report(self, info: dict[str, float]) -> None:
            steps.append(dict(info))

        def on_val_loss_report(self, info: dict[str, float]) -> None: ...

    settings = dict(lora.CONFIG_DEFAULTS) | {
        "model": str(models.resolve_model(args.model)),
        "data": str(args.data),
        "train": True,
        "mask_prompt": True,
        "iters": args.steps,
        "batch_size": args.batch,
        "num_layers": -1,
        "learning_rate": RATE,
        "optimizer": "adamw",
        "lora_parameters": {
            "rank": RANK, "scale": SCALE, "dropout": 0.0, "keys": list(adapters.LORA_KEYS),
        },
        "steps_per_report": 1,
        "steps_per_eval": 10**9,
        "val_batches": 1,
        "grad_checkpoint": args.grad_checkpoint,
        "adapter_path": args.scratch,
        "seed": 0,
    }  # fmt: skip
    space = types.SimpleNamespace(**settings)
    np.random.seed(0)
    model, tokenizer = load(space.model)[:2]
    rows, valid, _ = lora.load_dataset(space, tokenizer)
    lora.train_model(space, model, rows, valid, Record())
    timed, tokens_before = [], 0.0
    for info in steps:
        tokens = info["trained_tokens"] - tokens_before
        tokens_before = info["trained_tokens"]
        timed.append((tokens - args.batch, tokens / info["tokens_per_second"]))
    return {"steps": timed, "peak_memory_gb": steps[-1]["peak_memory"]}


def run_ours(args: argparse.Namespace) -> dict[str, Any]:
    """Train with train.py, in --processes or as many as it takes, and read its metrics."""
    folder = Path(args.scratch) / "ours"
    command = [
        sys.executable, str(ROOT / "train.py"), "--model", args.model, "--data", str(args.data),
        "--adapter-path", str(folder), "--quick-test",  # which leaves out the confidence
        "--iters", str(args.steps), "--batch-size", str(args.batch), "--num-layers", "-1",
        "--learning-rate", str(RATE), "--rank", str(RANK), "--scale", str(SCALE), "--warmup", "0",
        "--val-batches", "1", "--steps-per-eval", str(10**9), "--save-every", str(10**9),
        "--steps-per-report", str(10**9), "--seed", "0",
        *(["--grad-checkpoint"] if args.grad_checkpoint else []),
        *(["--processes", str(args.processes)] if args.processes else []),
    ]  # fmt: skip
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    lines = [json.loads(x) for x in (folder / "metrics.jsonl").open()]
    steps = [x for x in lines if "train_loss" in x]
    before = [0, *(x["trained_tokens"] for x in steps)]
    timed = [
        (x["trained_tokens"] - b, (x["trained_tokens"] - b) / x["tokens_per_second"])
        for x, b in zip(steps, before, strict=False)
    ]
    return {"steps": timed, "peak_memory_gb": max(x["peak_memory_gb"] for x in steps)}


def matmul_peak() -> float:
    """Best of several 2048-cubed float32 products, in GFLOP/s."""
    device.use_openblas()
    import mlx.core as mx

    a, best = mx.random.normal((2048, 2048)), 1e9
    for _ in range(6):
        begun = time.perf_counter()
        mx.eval(a @ a)
        best = min(best, time.perf_counter() - begun)
    return 2 * 2048**3 / best / 1e9


def model_flops(args: argparse.Namespace) -> float:
    """Floating-point operations per supervised token, padding left out.

    Layers: 2 per weight and token forward, 2 backward (their weights are frozen, only inputs get
    gradients). Head: the same on supervised tokens only. Attention scores and LoRA are left out.
    """
    rows = splits.read_split(args.data, "train")
    prompt_share = sum(len(r["text"]) for r in rows) / sum(
        len(r["text"]) - len(prompts.render_prompt(r["prompt"])) for r in rows
    )
    config = json.loads((models.resolve_model(args.model) / "config.json").read_text())
    width, hidden = config["hidden_size"], config["intermediate_size"]
    heads = config["num_attention_heads"] + config["num_key_value_heads"]
    layer = 2 * width * config["head_dim"] * heads + 3 * width * hidden
    head = config["vocab_size"] * width
    return 4 * (layer * config["num_hidden_layers"] * prompt_share + head)


@contextmanager
def busy(count: int) -> Iterator[None]:
    """Processes that do nothing but spin, for the time of the `with` and an hour at the most."""
    code = "import time; end = time.time() + 3600\nwhile time.time() < end: pass"
    spinning = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(count)]
    try:
        yield
    finally:
        for process in spinning:
            process.kill()
            process.wait()


def child(side: str, args: argparse.Namespace) -> dict[str, Any]:
    """Run one side in a fresh process; "before" is train.py of another checkout."""
    script = args.before / "tests" / Path(__file__).name if side == "before" else Path(__file__)
    name, _, processes = side.partition(" --processes ")
    with tempfile.TemporaryDirectory() as scratch, busy(args.busy):
        command = [sys.executable, str(script), "--data", str(args.data)]
        command += ["--side", "train.py" if name == "before" else name]
        command += ["--model", args.model, "--steps", str(args.steps), "--scratch", scratch]
        command += ["--grad-checkpoint"] if args.grad_checkpoint else []
        command += ["--processes", processes] if processes else []
        command += ["--batch", str(args.batch)] if args.batch != 4 else []  # older ones know only 4
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr[-2000:])
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    timed = result["steps"][WARM_UP:]
    result["tokens_per_second"] = sum(n for n, _ in timed) / sum(s for _, s in timed)
    return result


def main() -> None:
    """Alternate the sides and print what came out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--model", default="packaged")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--grad-checkpoint", action="store_true")
    parser.add_argument("--before", type=Path, help="another checkout to measure too")
    parser.add_argument("--busy", type=int, default=0, help="processes that spin meanwhile")
    parser.add_argument("--sides", nargs="+", default=["mlx_lm.lora", "train.py"])
    parser.add_argument("--processes", type=int)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--side", choices=("mlx_lm.lora", "train.py", "peak"))
    parser.add_argument("--scratch", default="")
    args = parser.parse_args()
    if args.side:
        run = {"mlx_lm.lora": run_mlx_lm, "train.py": run_ours, "peak": lambda _: matmul_peak()}
        print(json.dumps(run[args.side](args)))
        return
    sides = [*args.sides, *(["before"] if args.before else [])]
    runs: dict[str, list[dict[str, Any]]] = {side: [] for side in sides}
    for number in range(args.rounds):
        for side, results in runs.items():
            results.append(child(side, args))
            speed, memory = results[-1]["tokens_per_second"], results[-1]["peak_memory_gb"]
            print(f"round {number + 1}  {side:20} {speed:6.1f} tok/s  {memory:5.2f} GB", flush=True)
    print_summary(args, runs)


def print_summary(args: argparse.Namespace, runs: dict[str, list[dict[str, Any]]]) -> None:
    """A table of the sides, each against the first one, and one JSON line."""
    command = [sys.executable, __file__, "--side", "peak"]
    peak = float(subprocess.check_output(command, text=True).split()[-1])
    flops, first = model_flops(args), next(iter(runs))
    summary: dict[str, Any] = {
        "matmul_peak_gflops": peak,
        "steps": args.steps,
        "rounds": args.rounds,
        "busy": args.busy,
        "grad_checkpoint": args.grad_checkpoint,
        "versions": device.library_versions(),
    }
    print(f"\n{'':20}{'supervised tok/s':>18}{'peak GB':>9}{'of matmul peak':>16}", end="")
    print(f"   speed and memory of {first}'s")
    for side, results in runs.items():
        speed = median(r["tokens_per_second"] for r in results)
        memory = median(r["peak_memory_gb"] for r in results)
        used = speed * flops / 1e9 / peak
        pairs = list(zip(results, runs[first], strict=True))
        faster = median(a["tokens_per_second"] / b["tokens_per_second"] for a, b in pairs)
        larger = median(a["peak_memory_gb"] / b["peak_memory_gb"] for a, b in pairs)
        summary[side] = {"tokens_per_second": speed, "peak_memory_gb": memory, "utilization": used,
                         "speed_ratio": faster, "memory_ratio": larger}  # fmt: skip
        print(f"{side:20}{speed:18.1f}{memory:9.2f}{used:16.0%}{faster:12.2f}{larger:10.2f}")
    print("\n" + json.dumps(summary))


if __name__ == "__main__":
    main()
