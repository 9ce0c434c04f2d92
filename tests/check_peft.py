"""Compare an adapter exported to PEFT, in PyTorch, with the same adapter in MLX.

    pip install -r requirements.txt -r tests/requirements-peft.txt
    python tests/check_peft.py --adapter-path checkpoints
    python tests/check_peft.py --adapter-path checkpoints --rows 4 --tokens 16

Exports with `train.py --export-peft`, loads the base's folder with transformers and the export with
peft.PeftModel (CPU, float32), and gives both sides the same rows of the bundled sample, rendered as
for training. Logits are compared at every position of prompt and answer, over the whole
vocabulary; greedy continuations up to a stop token.

mlx-lm multiplies embeddings by the square root of the width rounded to bfloat16 (25.25 for 640), as
transformers does in bfloat16; in float32 transformers multiplies by 25.298. One line shows what
that alone changes; the others give both sides the rounded factor.

Prints a table and, last, one JSON line; the exit status is 1 when a value is not finite or the
logits differ by more than 1e-4 of the largest.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
for switch in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
    os.environ.setdefault(switch, "1")

from gemma_lora import adapters, device, files, generation, sql_text  # noqa: E402
from gemma_lora.prompts import alpaca_prompt, encode, render_example, render_prompt, sql_prompt  # noqa: E402

device.prepare_process()  # before anything imports mlx.core

import mlx.core as mx  # noqa: E402
import numpy as np  # noqa: E402

mx.set_default_device(mx.cpu)  # for float32 on both sides; before mlx_lm makes its streams
LIMIT = 1e-4  # of the largest logit
Logits = Callable[[Sequence[int]], np.ndarray]  # token ids -> float32 (positions, vocabulary)


def sample_rows(kind: str, count: int, seed: int) -> list[tuple[str, str]]:
    """(rendered prompt, rendered example) of rows of the bundled sample, drawn with `seed`."""
    rows = list(files.read_json_lines(ROOT / f"data/sample_{kind}.jsonl"))
    found = []
    for row in random.Random(seed).sample(rows, count):
        if kind == "sql":
            prompt = sql_prompt(row["sql_prompt"], sql_text.schema_of(row["sql_context"]))
            answer = row["sql"]
        else:
            prompt = alpaca_prompt(row["instruction"], row["input"])
            answer = row["output"]
        found.append((render_prompt(prompt), render_example(prompt, answer)))
    return found


def mlx_logits(model: Any) -> Logits:
    """The logits of an MLX model."""
    return lambda ids: np.array(model(mx.array([list(ids)]))[0].astype(mx.float32))


def torch_logits(model: Any) -> Logits:
    """The logits of a PyTorch model."""
    import torch

    def logits(ids: Sequence[int]) -> np.ndarray:
        with torch.no_grad():
            return model(torch.tensor([list(ids)])).logits[0].float().numpy()

    return logits


def round_embedding_scale(model: Any) -> None:
    """Give a transformers model the factor that it has in bfloat16, and mlx-lm always."""
    scale = model.get_input_embeddings().embed_scale
    scale.copy_(scale.bfloat16())


def mlx_greedy(model: Any, ids: Sequence[int], tokens: int, stops: set[int]) -> list[int]:
    """The most likely next tokens, up to and with a stop token."""
    from mlx_lm.generate import generate_step

    said: list[int] = []
    for token, _ in generate_step(mx.array(list(ids)), model, max_tokens=tokens):
        said.append(int(token))
        if said[-1] in stops:
            break
    return said


def torch_greedy(model: Any, ids: Sequence[int], tokens: int) -> list[int]:
    """The same in transformers, which takes the stop tokens from the model's folder."""
    import torch

    given = torch.tensor([list(ids)])
    said = model.generate(
        input_ids=given, attention_mask=torch.ones_like(given), do_sample=False,
        max_new_tokens=tokens,
    )  # fmt: skip
    return said[0, len(ids) :].tolist()


def log_sum_exp(logits: np.ndarray) -> float:
    """What separates one position's logits from its log-probabilities."""
    largest = logits.max()
    return float(largest) + float(np.log(np.exp(logits - largest).sum(dtype=np.float64)))


def compare_logits(ones: Iterable[np.ndarray], others: Iterable[np.ndarray]) -> dict[str, Any]:
    """Compare the logits of the same texts, in the same order.

    Gives the largest differences of logits and log-probabilities over all positions and the whole
    vocabulary, and how often the best token agrees.
    """
    largest = difference = log_difference = 0.0
    agree = positions = 0
    finite = True
    for one, other in zip(ones, others, strict=True):
        for a, b in zip(one, other, strict=True):
            finite &= bool(np.isfinite(a).all() and np.isfinite(b).all())
            largest = max(largest, float(np.abs(a).max()))
            gap = a - b
            difference = max(difference, float(np.abs(gap).max()))
            gap -= log_sum_exp(a) - log_sum_exp(b)
            log_difference = max(log_difference, float(np.abs(gap).max()))
            agree += int(a.argmax() == b.argmax())
            positions += 1
    return {
        "positions": positions, "finite": finite, "logits_max_abs": difference,
        "logits_relative": difference / largest, "log_probs_max_abs": log_difference,
        "top1_agreement": agree / positions,
    }  # fmt: skip


def compare_answers(ones: Sequence[list[int]], others: Sequence[list[int]]) -> dict[str, Any]:
    """How many greedy continuations are the same to the last token, of how many tokens."""
    same = sum(a == b for a, b in zip(ones, others, strict=True))
    return {"answers": len(ones), "answer_tokens": sum(map(len, ones)), "answers_identical": same}


def print_table(results: dict[str, dict[str, Any]]) -> None:
    """One line for each comparison."""
    width = max(map(len, results))
    print(f"\n{'':{width}}  logits max abs  relative  log-probs  top-1 the same  answers the same")
    for name, r in results.items():
        print(
            f"{name:{width}}  {r['logits_max_abs']:14.2e}  {r['logits_relative']:8.1e}"
            f"  {r['log_probs_max_abs']:9.1e}  {r['top1_agreement']:14.2%}"
            + (f"{r['answers_identical']:11} of {r['answers']}" if "answers" in r else "")
        )


def export(adapter_path: Path, target: Path) -> None:
    """Run the command that users run."""
    command = [sys.executable, str(ROOT / "train.py"), "--adapter-path", str(adapter_path)]
    done = subprocess.run(
        [*command, "--export-peft", str(target)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(done.stderr.strip())


def check(args: argparse.Namespace, exported: Path) -> dict[str, dict[str, Any]]:
    """Compare base and adapter; returns {name of the comparison: figures}."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tuned = adapters.load_finetuned(args.adapter_path)
    if tuned.config.get("quantize"):
        sys.exit("the adapter's base is quantized by MLX: transformers cannot load that base")
    rows = sample_rows(tuned.config["dataset_type"], args.rows, args.seed)
    prompts = [encode(tuned.tokenizer, prompt) for prompt, _ in rows]
    texts = [encode(tuned.tokenizer, text) for _, text in rows]
    theirs = AutoTokenizer.from_pretrained(tuned.folder)
    if [encode(theirs, text) for _, text in rows] != texts:
        sys.exit("transformers' tokenizer of the base's folder gives other ids")
    stops = generation.stop_ids(tuned.tokenizer)
    model: Any = AutoModelForCausalLM.from_pretrained(tuned.folder, dtype=torch.float32).eval()
    ours = tuned.use("base")
    results = {
        "base, embeddings scaled in float32": compare_logits(
            map(mlx_logits(ours), texts), map(torch_logits(model), texts)
        )
    }
    round_embedding_scale(model)
    for variant, name in (("base", "base"), ("finetuned", "with the adapter")):
        if variant == "finetuned":
            model = PeftModel.from_pretrained(model, str(exported)).eval()
        ours = tuned.use(variant)
        results[name] = compare_logits(
            map(mlx_logits(ours), texts), map(torch_logits(model), texts)
        )
        results[name] |= compare_answers(
            [mlx_greedy(ours, ids, args.tokens, stops) for ids in prompts],
            [torch_greedy(model, ids, args.tokens) for ids in prompts],
        )
    results["what the adapter does"] = compare_logits(
        (mlx_logits(tuned.use("base"))(ids) for ids in texts),
        (mlx_logits(tuned.use("finetuned"))(ids) for ids in texts),
    )
    return results


def main() -> int:
    """Export, compare, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--adapter-path", type=Path, default=Path("checkpoints"))
    parser.add_argument("--rows", type=int, default=8, help="rows of the bundled sample")
    parser.add_argument("--tokens", type=int, default=24, help="longest continuation")
    parser.add_argument("--seed", type=int, default=0, help="which rows")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        exported = Path(scratch) / "peft"
        export(args.adapter_path, exported)
        results = check(args, exported)
    print_table(results)
    versions = device.library_versions() | {
        name: importlib.metadata.version(name) for name in ("torch", "transformers", "peft")
    }
    print(json.dumps({"seed": args.seed, "comparisons": results, "versions": versions}))
    proofs = [results["base"], results["with the adapter"]]
    return 0 if all(p["finite"] and p["logits_relative"] < LIMIT for p in proofs) else 1


if __name__ == "__main__":
    sys.exit(main())
