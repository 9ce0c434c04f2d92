"""Compare what `mlx_lm.fuse` writes with the base and adapter that it was made of.

    python tests/check_fuse.py --adapter-path checkpoints
    python tests/check_fuse.py --adapter-path checkpoints --dtypes float32 --rows 4 --tokens 16

Runs the real command on the base stored in float32 and in bfloat16, and gives the fused folders and
base + adapter the same rows of the bundled sample: logits at every position of prompt and answer,
greedy continuations up to a stop token. "computed in float32" is how the four scripts treat a
bfloat16 folder on a CPU: the weights keep their rounding, the sums do not. Fused weights are also
compared with those that `benchmark.py --variants fused` computes in memory. Where PyTorch is
installed (tests/requirements-peft.txt), transformers loads the fused folder as the plain Gemma 3
model it should be. Prints a table and, last, one JSON line.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import check_peft  # its first lines choose BLAS and device
import mlx.core as mx
from check_peft import (
    compare_answers,
    compare_logits,
    mlx_greedy,
    mlx_logits,
    torch_greedy,
    torch_logits,
)
from mlx_lm.utils import load, save

from gemma_lora import adapters, device, files, generation, models, prompts

Outputs = tuple[list[Any], list[list[int]]]  # logits of every text, answers to every prompt
# What a program that reads Hugging Face's format asks a model's folder for.
WANTED_FILES = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")


def store_base(source: Path, target: Path, dtype: str) -> Path:
    """Write the base's folder with all weights in `dtype`."""
    model, tokenizer, config = load(str(source), return_config=True)  # type: ignore[misc]
    model.set_dtype(getattr(mx, dtype))
    save(target, source, model, tokenizer, config | {"dtype": dtype})
    return target


def fuse(base: Path, adapter_path: Path, target: Path) -> Path:
    """Run mlx-lm's own command."""
    command = [sys.executable, "-m", "mlx_lm", "fuse", "--model", str(base)]
    command += ["--adapter-path", str(adapter_path), "--save-path", str(target)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr[-2000:])
    return target


def loaded(folder: Path, adapter_path: Path | None = None, dtype: str | None = None) -> Any:
    """A model as mlx_lm.generate would load it; `dtype` changes its weights afterwards."""
    adapter = str(adapter_path) if adapter_path else None
    model = load(str(folder), adapter_path=adapter)[0]
    if dtype:
        model.set_dtype(getattr(mx, dtype))
    model.eval()
    return model


class Work:
    """The rows, and what the models make of them; 120 MB a row and model are kept."""

    def __init__(self, args: argparse.Namespace, kind: str, tokenizer: Any) -> None:
        rows = check_peft.sample_rows(kind, args.rows, args.seed)
        self.prompts = [prompts.encode(tokenizer, prompt) for prompt, _ in rows]
        self.texts = [prompts.encode(tokenizer, text) for _, text in rows]
        self.tokens = args.tokens
        self.stops = generation.stop_ids(tokenizer)

    def of_mlx(self, model: Any) -> Outputs:
        """Logits and answers of an MLX model."""
        answers = [mlx_greedy(model, ids, self.tokens, self.stops) for ids in self.prompts]
        return [mlx_logits(model)(ids) for ids in self.texts], answers

    def of_torch(self, model: Any) -> Outputs:
        """Logits and answers of a transformers model."""
        answers = [torch_greedy(model, ids, self.tokens) for ids in self.prompts]
        return [torch_logits(model)(ids) for ids in self.texts], answers


def compare(one: Outputs, other: Outputs) -> dict[str, Any]:
    """Two models over the same rows."""
    return compare_logits(one[0], other[0]) | compare_answers(one[1], other[1])


def difference_from_benchmark(adapter_path: Path, base: Path, fused: Any) -> float:
    """Largest difference of a weight from benchmark.py's layers, fused in memory.

    Both call the same function; products by OpenBLAS here, by MLX's own BLAS in the command.
    """
    mine = adapters.load_finetuned(adapter_path, str(base))
    weights = models.named_arrays(fused.parameters())
    return max(
        mx.abs(module.fuse().weight - weights[f"{name}.weight"]).max().item()
        for name, module in mine.swaps["finetuned"]
    )


def folder_facts(folder: Path) -> dict[str, Any]:
    """What other programs find in the fused folder."""
    config = json.loads((folder / "config.json").read_text())
    names, _ = files.load_tensors(folder / "model.safetensors")
    return {
        "files": sorted(p.name for p in folder.iterdir()),
        "missing": [name for name in WANTED_FILES if not (folder / name).is_file()],
        "architectures": config.get("architectures"), "dtype": config.get("dtype"),
        "eos_token_id": config.get("eos_token_id"), "tensors": len(names),
        "stored_in": sorted({str(w.dtype).removeprefix("mlx.core.") for w in names.values()}),
    }  # fmt: skip


def in_transformers(folder: Path) -> Any:
    """The fused folder in PyTorch; every tensor must find its place by its name."""
    import torch
    from transformers import AutoModelForCausalLM

    model, report = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, output_loading_info=True
    )
    unplaced = {key: sorted(map(str, value)) for key, value in report.items() if value}
    if unplaced:
        sys.exit(f"transformers could not place all of {folder}: {unplaced}")
    check_peft.round_embedding_scale(model)
    return model.eval()


def check(args: argparse.Namespace, scratch: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Fuse and compare: ({comparison: figures}, {dtype: facts of the fused folder})."""
    config = adapters.read_adapter_config(args.adapter_path)
    source = models.resolve_model(config["model"])
    work = Work(args, config["dataset_type"], load(str(source), lazy=True)[1])
    base = store_base(source, scratch / "float32", "float32")
    exact = work.of_mlx(loaded(base, args.adapter_path))
    results: dict[str, Any] = {}
    facts: dict[str, Any] = {}
    if "float32" in args.dtypes:
        folder = fuse(base, args.adapter_path, scratch / "fused-float32")
        model = loaded(folder)
        fused = work.of_mlx(model)
        results["float32: fused / base + adapter"] = compare(exact, fused)
        facts["float32"] = folder_facts(folder) | {
            "weights_max_abs_from_benchmark": difference_from_benchmark(
                args.adapter_path, base, model
            )
        }
        if importlib.util.find_spec("torch"):
            theirs = work.of_torch(in_transformers(folder))
            results["float32: fused in transformers / in MLX"] = compare(fused, theirs)
    if "bfloat16" in args.dtypes:
        base = store_base(source, scratch / "bfloat16", "bfloat16")
        folder = fuse(base, args.adapter_path, scratch / "fused-bfloat16")
        facts["bfloat16"] = folder_facts(folder)
        widened = work.of_mlx(loaded(folder, dtype="float32"))
        results["bfloat16: fused, computed in float32 / all in float32"] = compare(exact, widened)
        parts, fused = work.of_mlx(loaded(base, args.adapter_path)), work.of_mlx(loaded(folder))
        results["bfloat16: fused / base + float32 adapter"] = compare(parts, fused)
        results["bfloat16: fused / all in float32"] = compare(exact, fused)
        results["bfloat16: base + float32 adapter / all in float32"] = compare(exact, parts)
    return results, facts


def main(argv: Sequence[str] | None = None) -> int:
    """Fuse, compare, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--adapter-path", type=Path, default=Path("checkpoints"))
    parser.add_argument(
        "--dtypes", nargs="+", default=["float32", "bfloat16"], choices=["float32", "bfloat16"]
    )
    parser.add_argument("--rows", type=int, default=8, help="rows of the bundled sample")
    parser.add_argument("--tokens", type=int, default=24, help="longest continuation")
    parser.add_argument("--seed", type=int, default=0, help="which rows")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as scratch:
        results, facts = check(args, Path(scratch))
    check_peft.print_table(results)
    for dtype, fact in facts.items():
        print(f"\nfused {dtype} folder: " + ", ".join(f"{k} {v}" for k, v in fact.items()))
    line = {"seed": args.seed, "comparisons": results, "folders": facts}
    print(json.dumps(line | {"versions": device.library_versions()}))
    return 0 if all(r["finite"] for r in results.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
