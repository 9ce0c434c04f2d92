"""More than a thousand varied texts, for comparing how tokenizers cut them."""

from __future__ import annotations

import random
from pathlib import Path

from gemma_lora import files

ROOT = Path(__file__).resolve().parent.parent
WHITE = (" ", "  ", "   ", "\n", "\n\n", "\t", "\r\n")
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


def varied_texts(seed: int = 0) -> list[str]:
    """More than a thousand varied texts: SQL, code, prose, white space, scripts, tokens spelt."""
    draw = random.Random(seed)
    sql = list(files.read_json_lines(ROOT / "data/sample_sql.jsonl"))
    found = [r[k] for r in draw.sample(sql, 200) for k in ("sql_prompt", "sql", "sql_context")]
    alpaca = list(files.read_json_lines(ROOT / "data/sample_alpaca.jsonl"))
    found += [r[k] for r in draw.sample(alpaca, 150) for k in ("instruction", "output")]
    lines = (ROOT / "train.py").read_text(encoding="utf-8").splitlines(keepends=True)
    found += ["".join(lines[i : i + draw.randint(1, 12)]) for i in range(0, len(lines), 9)]
    found += [*SCRIPTS, *MARKUP]
    found += [white * n + tail for n in (1, 2, 3, 7, 16, 31, 32, 33, 64, 70) for white in " \n\t"
              for tail in ("", "x", " x", "\nx")]  # fmt: skip
    parts = (*SCRIPTS, *MARKUP, *WHITE, "SELECT * FROM t", "x")
    found += ["".join(draw.choices(parts, k=draw.randint(2, 8))) for _ in range(200)]
    found += ["".join(chr(draw.randint(32, 0x2FFF)) for _ in range(20)) for _ in range(100)]
    found += ["▁", "a▁b", " ▁▁ "]
    return list(dict.fromkeys(found))
