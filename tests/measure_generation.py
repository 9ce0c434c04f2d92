"""Compare the evaluation's batched answers with `mlx_lm.generate`, one prompt after the other.

    python tests/measure_generation.py --adapter-path checkpoints --data data --num-samples 32

With `--against 16 2048` the other side is our own batches with other limits: rows, and tokens of
keys and values. Both sides answer the same prompts greedily with the same model and adapter, in
processes of their own and in turn. Prints speed, memory, how many answers have the same text and,
where one differs, how near the two tokens were at the first difference. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import test_finetuned as evaluation  # noqa: E402
from gemma_lora import adapters, device, generation  # noqa: E402
from gemma_lora.prompts import encode, render_chat  # noqa: E402

SIDES = ("mlx_lm, one by one", "batched", "other limits")


def prompts_of(args: argparse.Namespace, tuned: adapters.Finetuned) -> list[str]:
    """The rendered prompts of the rows that test_finetuned.py would draw."""
    config = evaluation.EvaluationConfig(
        data=args.data, split=args.split, num_samples=args.num_samples
    )
    turns = evaluation.shot_turns(replace(config, shots=args.shots), tuned)
    rows = evaluation.evaluation_rows(config, tuned)
    return [render_chat([*turns, ("user", row["prompt"])]) for row in rows]


def answer_all(side: str, args: argparse.Namespace) -> dict[str, Any]:
    """Answer every prompt: texts, tokens, seconds, and memory before and at the peak."""
    device.prepare_process()  # before MLX is imported
    import mlx.core as mx
    from mlx_lm.generate import stream_generate

    tuned = adapters.load_finetuned(args.adapter_path)
    model, tokenizer, prompts = tuned.model, tuned.tokenizer, prompts_of(args, tuned)
    tokenizer.eos_token_ids = generation.stop_ids(tokenizer)
    batch_size = args.batch_size
    if side == "other limits":
        batch_size, generation.CACHE_TOKENS = args.against
    if side != SIDES[0]:
        generation.generate_batch(model, tokenizer, prompts[:2], 4)  # warms up
    else:
        list(stream_generate(model, tokenizer, encode(tokenizer, prompts[0]), max_tokens=4))
    loaded = mx.get_active_memory()
    mx.reset_peak_memory()
    begun = time.perf_counter()
    if side != SIDES[0]:
        made = generation.generate_batch(
            model, tokenizer, prompts, args.max_tokens, batch_size=batch_size
        )
        texts, tokens = [m.text for m in made], sum(m.generation_tokens for m in made)
    else:
        texts, tokens = [], 0
        for prompt in prompts:
            ids = encode(tokenizer, prompt)
            parts = list(stream_generate(model, tokenizer, ids, max_tokens=args.max_tokens))
            texts.append("".join(part.text for part in parts))
            tokens += parts[-1].generation_tokens
    seconds = time.perf_counter() - begun
    memory = {"loaded_gb": loaded / 1e9, "peak_gb": mx.get_peak_memory() / 1e9}
    return {"texts": texts, "tokens": tokens, "seconds": seconds, **memory}


def gaps(args: argparse.Namespace, one: list[str], other: list[str]) -> list[dict[str, float]]:
    """Where two answers part: the difference of the two tokens' logits, and the best logit."""
    device.prepare_process()
    import mlx.core as mx

    tuned = adapters.load_finetuned(args.adapter_path)
    found = []
    for prompt, a, b in zip(prompts_of(args, tuned), one, other, strict=True):
        if a == b:
            continue
        ids, head = ([*encode(tuned.tokenizer, prompt + t), 106] for t in (a, b))
        same = next(i for i, (x, y) in enumerate(zip(ids, head, strict=False)) if x != y)
        logits = tuned.model(mx.array(ids[:same])[None])[0, -1]
        near = abs(logits[ids[same]].item() - logits[head[same]].item())
        found.append({"gap": near, "best_logit": logits.max().item()})
    return found


def child(side: str, args: argparse.Namespace) -> dict[str, Any]:
    """One side in a process of its own."""
    command = [sys.executable, __file__, "--side", side]
    for name in ("adapter_path", "data", "split", "num_samples", "max_tokens", "batch_size",
                 "shots"):  # fmt: skip
        command += [f"--{name.replace('_', '-')}", str(getattr(args, name))]
    if args.against:
        command += ["--against", *map(str, args.against)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr[-2000:])
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Alternate the two sides and print what came out."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--adapter-path", type=Path, default=Path("checkpoints"))
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--split", default="test")
    parser.add_argument("--num-samples", type=int, default=32)
    parser.add_argument("--max-tokens", type=int, default=48)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--against", type=int, nargs=2, metavar=("ROWS", "TOKENS"))
    parser.add_argument("--shots", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--side", choices=SIDES)
    args = parser.parse_args()
    if args.side:
        print(json.dumps(answer_all(args.side, args)))
        return
    sides = (SIDES[2] if args.against else SIDES[0], SIDES[1])
    runs: dict[str, list[dict[str, Any]]] = {side: [] for side in sides}
    for number in range(args.rounds):
        for side in sides[:: 1 if number % 2 == 0 else -1]:
            runs[side].append(child(side, args))
    theirs, ours = (runs[side] for side in sides)
    texts = [r[0]["texts"] for r in (theirs, ours)]
    parted = gaps(args, *texts)
    summary: dict[str, Any] = {
        "n": len(texts[0]),
        "speed_ratio": median(
            b["tokens"] / b["seconds"] / (a["tokens"] / a["seconds"])
            for a, b in zip(theirs, ours, strict=True)
        ),
        "same_text": len(texts[0]) - len(parted),
        "parted": parted,
        "versions": device.library_versions(),
    }
    print(f"{len(texts[0])} prompts, at most {args.max_tokens} tokens, batch {args.batch_size}\n")
    for side, results in runs.items():
        speed = median(r["tokens"] / r["seconds"] for r in results)
        memory = max(r["peak_gb"] / r["loaded_gb"] for r in results)
        summary[side] = {"tokens_per_second": speed, "peak_over_loaded": memory}
        print(f"{side:20}{speed:8.1f} tok/s   peak memory {memory:.2f} of the loaded model")
    print(f"{'ratio':20}{summary['speed_ratio']:8.2f}")
    print(f"same text: {summary['same_text']} of {summary['n']}")
    for gap in parted:
        print(f"  parted at logits {gap['gap']:.5f} apart (best {gap['best_logit']:.2f})")
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
