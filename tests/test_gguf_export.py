"""Exported GGUF files in a real llama.cpp: the same tokens, prompts and log-probabilities.

Every way in which such a file is known to go wrong is planted once: the comparison must see it.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
import pytest
from conftest import build_tiny_model, one_line_error, run_command, run_script, tiny_config
from test_gguf import CHATS, TEXTS, tiny_pieces

import train
from gemma_lora import files, gguf_export, gguf_models, gguf_writer, models, prompts, vocabulary
from gemma_lora.adapters import load_finetuned
from gemma_lora.cli import UserError
from gemma_lora.prompts import render_chat

gguf = pytest.importorskip("gguf", reason="needs gguf (requirements-packaged.txt)")
needs_llama = pytest.mark.skipif(
    importlib.util.find_spec("xllamacpp") is None,
    reason="needs a real llama.cpp: pip install xllamacpp (requirements-dev.txt)",
)

# Each differs from what llama.cpp takes when the file says nothing.
SETTINGS: dict[str, Any] = {
    "num_hidden_layers": 7, "sliding_window_pattern": 6, "sliding_window": 16,
    "rope_local_base_freq": 5_000.0, "rms_norm_eps": 1e-3,
}  # fmt: skip
LENGTHS = (1, 5, 15, 17, 40, 90)  # tokens before the one that is compared: within and over 16
# Log-probabilities differ by less than this. llama.cpp on a CPU looks gelu up in a table of float16
# (about 4e-3 here), and rounds what it multiplies to the type of the matrix.
LIMITS = {"f32": 0.01, "bf16": 0.12, "f16": 0.02, "q8_0": 0.12}


def tiny_gemma(folder: Path, **changes: Any) -> Path:
    """A tiny model as conftest's with a tokenizer of SentencePiece's kind, which GGUF wants."""
    pieces = tiny_pieces()
    changes = {"eos_token_id": [1, 5]} | SETTINGS | changes
    build_tiny_model(folder, vocab_size=len(pieces), **changes)
    spelt = {text.replace(" ", "▁"): (score, kind) for text, score, kind in pieces}
    gguf_models.write_tokenizer(folder / "tokenizer.json", spelt)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(
        json.dumps(settings | {"tokenizer_class": "PreTrainedTokenizerFast"})
    )
    return folder


@pytest.fixture(scope="session")
def gemma(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of such a model (read only)."""
    return tiny_gemma(tmp_path_factory.mktemp("gguf") / "tiny")


@pytest.fixture(scope="session")
def adapters(
    tmp_path_factory: pytest.TempPathFactory, gemma: Path, tiny_data: Path
) -> dict[str, Path]:
    """A trained adapter of every kind, and one on a quantized base (read only)."""
    place = tmp_path_factory.mktemp("gguf-adapters")
    kinds: dict[str, dict[str, Any]] = {
        "lora": {}, "dora": {"fine_tune_type": "dora"},
        "full": {"fine_tune_type": "full", "learning_rate": 1e-3}, "quantized": {"quantize": 4},
    }  # fmt: skip
    for name, changes in kinds.items():
        settings = {"num_layers": -1, "iters": 6, "max_seq_length": 2048, **changes}
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("GEMMA_LORA_CACHE", str(place / "cache"))
            train.train(tiny_config(gemma, tiny_data, place / name, **settings))
    return {name: place / name for name in kinds}


@pytest.fixture(autouse=True)
def own_cache(adapters: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """The cache that holds the quantized base."""
    monkeypatch.setenv("GEMMA_LORA_CACHE", str(adapters["lora"].parent / "cache"))


def described(folder: Path) -> tuple[gguf_writer.GgufModel, dict[str, Any]]:
    """(what a file says, weights) of a folder without an adapter."""
    model, _, _ = models.load_base(str(folder))
    config = json.loads((folder / "config.json").read_text())
    pieces = vocabulary.read_pieces(folder / "tokenizer.json", config["vocab_size"])
    about = gguf_writer.GgufModel(config, pieces, gguf_models.CHAT_TEMPLATE, "tiny", None, "a test")
    return about, models.named_arrays(model.parameters())


def write(folder: Path, target: Path, kind: Any = "f32") -> Path:
    """The model of a folder as GGUF."""
    about, weights = described(folder)
    gguf_writer.write_gguf(target, about, weights, kind)
    return target


def gap_of(theirs: llama_cpp.Llama, model: Any) -> float:
    """The largest difference of log-probabilities over all tokens and lengths."""
    size = len(tiny_pieces())
    ids = [2, *np.random.default_rng(0).integers(6, size, max(LENGTHS)).tolist()]
    gaps = (
        np.abs(theirs.log_probs(ids[:n], size) - llama_cpp.mlx_log_probs(model, ids[:n])).max()
        for n in LENGTHS
    )
    return float(max(gaps))


def largest_gap(file: Path, model: Any) -> float:
    """The same of a file."""
    with llama_cpp.llama(file) as theirs:
        return gap_of(theirs, model)


def same_tokens(theirs: llama_cpp.Llama, folder: Path) -> bool:
    """Whether llama.cpp cuts every text as the folder's tokenizer does."""
    from tokenizers import Tokenizer

    ours = Tokenizer.from_file(str(folder / "tokenizer.json"))
    texts = [*TEXTS, "a  b   c", "<start_of_turn>ab<end_of_turn>\n", "abc ab"]
    return all(
        theirs.tokenize(text) == ours.encode(text, add_special_tokens=False).ids for text in texts
    )


# --- Read back ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["f32", "bf16", "f16", "q8_0"])
def test_the_reader_gives_back_what_was_written(tmp_path: Path, kind: str) -> None:
    """bf16 weights bit for bit as bf16, q8_0 within half its step, the config and the pieces."""
    import mlx.core as mx

    folder = tiny_gemma(tmp_path / "model", dtype="bfloat16")
    about, weights = described(folder)
    given = dict(weights)
    gguf_writer.write_gguf(tmp_path / "x.gguf", about, weights, kind)  # type: ignore[arg-type]
    assert not weights and [p.name for p in tmp_path.glob("*")] == ["model", "x.gguf"]
    config, pieces, read = gguf_models.read_gguf(tmp_path / "x.gguf", "float32")
    assert pieces == about.pieces and read.keys() == given.keys()
    unlike = {k for k in config if config[k] != about.config.get(k)}
    assert unlike == {"hidden_activation", "dtype"}
    for name, weight in given.items():
        gap = mx.abs(read[name] - weight).max().item()
        if kind == "q8_0" and weight.ndim > 1:
            # Half of its block's step, and what the step itself loses as a float16.
            steps = mx.abs(weight.astype(mx.float32)).reshape(-1, gguf_writer.Q8_BLOCK) / 127
            gaps = mx.abs(read[name] - weight).reshape(-1, gguf_writer.Q8_BLOCK)
            assert (gaps <= 0.57 * steps.max(axis=1, keepdims=True)).all().item(), name
        elif kind == "f16" and weight.ndim > 1:
            assert gap <= mx.abs(weight).max().item() * 2**-11, name
        else:
            # Norms are stored plus one, so near zero they lose what float32 loses at one.
            assert gap <= (0 if weight.ndim > 1 else 2**-24), name


def test_bf16_is_rounded_as_gguf_does() -> None:
    import mlx.core as mx

    draw = np.random.default_rng(1).standard_normal((64, 256)).astype(np.float32)
    draw[0, :4] = [1 + 2**-8, 1 + 3 * 2**-8, 2.0**-130, -0.0]  # halfway, halfway, tiny, signed
    ours = gguf_writer.encoded("x.weight", mx.array(draw), "bf16")
    theirs = gguf.quantize(draw, gguf.GGMLQuantizationType.BF16)
    assert ours.tobytes() == theirs.tobytes()


def test_the_folder_read_back_is_the_model(gemma: Path, tmp_path: Path) -> None:
    """A file of ours is a base like any other: same tokens, same logits."""
    import mlx.core as mx

    ours, tokenizer, _ = models.load_base(str(gemma))
    again, other, _ = models.load_base(str(write(gemma, tmp_path / "x.gguf")))
    ids = prompts.encode(tokenizer, render_chat([("user", TEXTS[0])]))
    assert ids == prompts.encode(other, render_chat([("user", TEXTS[0])]))
    assert mx.allclose(ours(mx.array([ids])), again(mx.array([ids])), atol=1e-4).item()


def test_packaged_pieces_come_back_from_tokenizer_json() -> None:
    """262,144 scores and types that were in a GGUF once, read out of the merges made of them."""
    folders = sorted(Path(files.model_cache()).glob("packaged-*"))
    home = Path("~/.cache/gemma3-mlx-lora").expanduser()
    folders = folders or sorted(home.glob("packaged-*/tokenizer.json"))
    if not folders:
        pytest.skip("the packaged model was not converted yet")
    pieces = vocabulary.read_pieces(folders[0], 262_144)
    ids = {text: i for i, text in enumerate(pieces)}
    assert (ids["<bos>"], ids["<start_of_turn>"], ids["\n"]) == (2, 105, 107)
    kinds = [kind for _, kind in pieces.values()]
    assert [kinds.count(kind) for kind in (1, 3, 4, 6)] == [255_474, 6_249, 165, 256]
    scores = [score for score, kind in pieces.values() if kind == 1]
    assert scores == sorted(scores, reverse=True) and scores[:3] == [0, -1, -2]


# --- In llama.cpp ---------------------------------------------------------------------------------


@needs_llama
@pytest.mark.parametrize("kind", ["f32", "bf16", "f16", "q8_0"])
def test_llama_cpp_computes_what_mlx_computes(gemma: Path, tmp_path: Path, kind: str) -> None:
    model, _, _ = models.load_base(str(gemma))
    file = write(gemma, tmp_path / "x.gguf", kind)
    assert largest_gap(file, model) < LIMITS[kind]


@needs_llama
def test_linear_rope_scaling_reaches_the_global_layers_only(tmp_path: Path) -> None:
    folder = tiny_gemma(tmp_path / "model", rope_scaling={"rope_type": "linear", "factor": 8.0})
    model, _, _ = models.load_base(str(folder))
    file = write(folder, tmp_path / "x.gguf")
    assert largest_gap(file, model) < LIMITS["f32"]


def unsaid(method: str) -> Callable[[pytest.MonkeyPatch], None]:
    """Plant: a setting is left out of the file."""
    return lambda patch: patch.setattr(gguf.GGUFWriter, method, lambda *_: None)


def norms_as_they_are(patch: pytest.MonkeyPatch) -> None:
    """Plant: norms without the one."""
    right = gguf_writer.encoded
    patch.setattr(gguf_writer, "encoded", lambda name, *rest: right(name + "?", *rest))


def other_epsilon(patch: pytest.MonkeyPatch) -> None:
    """Plant: the usual epsilon in place of the model's."""
    right = gguf.GGUFWriter.add_layer_norm_rms_eps
    patch.setattr(gguf.GGUFWriter, "add_layer_norm_rms_eps", lambda self, _: right(self, 1e-6))


def spaces_as_they_are(patch: pytest.MonkeyPatch) -> None:
    """Plant: runs of spaces spelt as in tokenizer.json."""
    patch.setattr(gguf_writer, "spelt_for_llama", lambda text, kind: text)


def all_normal(patch: pytest.MonkeyPatch) -> None:
    """Plant: control tokens as pieces like any other."""
    right = gguf.GGUFWriter.add_token_types
    patch.setattr(
        gguf.GGUFWriter, "add_token_types",
        lambda self, kinds: right(self, [1 if kind == 3 else kind for kind in kinds]),
    )  # fmt: skip


def scores_upside_down(patch: pytest.MonkeyPatch) -> None:
    """Plant: the ranks of the merges, not negated."""
    right = gguf.GGUFWriter.add_token_scores
    patch.setattr(
        gguf.GGUFWriter, "add_token_scores", lambda self, scores: right(self, [-s for s in scores])
    )


FAULTS: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "norms without the one": norms_as_they_are,
    "no rope_freq_base": unsaid("add_rope_freq_base"),
    "no rope_freq_base_swa": unsaid("add_rope_freq_base_swa"),
    "no sliding_window": unsaid("add_sliding_window"),
    "no epsilon": unsaid("add_layer_norm_rms_eps"),
    "another epsilon": other_epsilon,
    "no add_space_prefix": unsaid("add_add_space_prefix"),
    "spaces not spelt plainly": spaces_as_they_are,
    "control tokens normal": all_normal,
    "scores upside down": scores_upside_down,
}


def agrees(file: Path, folder: Path) -> bool:
    """The whole comparison: it loads without a warning, and cuts, renders and computes alike."""
    model, _, _ = models.load_base(str(folder))
    try:
        with llama_cpp.llama(file) as theirs:
            quiet, gap = not theirs.warnings(), gap_of(theirs, model)
            return quiet and gap < LIMITS["f32"] and same_tokens(theirs, folder)
    except RuntimeError:  # llama.cpp refuses it
        return False


@needs_llama
def test_a_right_file_passes_the_comparison(gemma: Path, tmp_path: Path) -> None:
    assert agrees(write(gemma, tmp_path / "x.gguf"), gemma)


@needs_llama
@pytest.mark.parametrize("fault", FAULTS)
def test_the_comparison_sees_a_planted_fault(
    gemma: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    with monkeypatch.context() as patch:
        FAULTS[fault](patch)
        write(gemma, tmp_path / "x.gguf")
    assert not agrees(tmp_path / "x.gguf", gemma), f"{fault} went unseen"


@needs_llama
def test_a_warning_of_llama_cpp_is_seen(
    gemma: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All but the expected ones fail the comparison, so they must not go unread."""
    all_normal(monkeypatch)
    with llama_cpp.llama(write(gemma, tmp_path / "x.gguf")) as theirs:
        assert "control-looking" in "".join(theirs.warnings())
        theirs.log = " W token '</s>' is odd\n W no API key is set\n"
        assert theirs.warnings() == []


@pytest.fixture(scope="module")
def running(gemma: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[llama_cpp.Llama]:
    """The tiny model in llama.cpp."""
    pytest.importorskip("xllamacpp", reason="needs a real llama.cpp: pip install xllamacpp")
    file = write(gemma, tmp_path_factory.mktemp("running") / "x.gguf", "bf16")
    with llama_cpp.llama(file) as model:
        yield model


def test_the_chat_route_gives_our_prompt_with_one_bos(
    gemma: Path, running: llama_cpp.Llama
) -> None:
    from transformers import AutoTokenizer

    ours = AutoTokenizer.from_pretrained(str(gemma))
    for system, texts in CHATS:
        turns = [("model" if i % 2 else "user", text) for i, text in enumerate(texts)]
        messages = [
            {"role": "assistant" if i % 2 else "user", "content": text}
            for i, text in enumerate(texts)
        ]
        if system is not None:
            messages.insert(0, {"role": "system", "content": system})
        rendered = render_chat(turns, system)
        assert running.render(messages).removeprefix(prompts.BOS) == rendered.removeprefix(
            prompts.BOS
        )
        # The route adds the <bos> that the file asks for, once.
        answer = running.ask("/v1/chat/completions", messages=messages, max_tokens=1)
        ids = prompts.encode(ours, rendered)
        assert answer["usage"]["prompt_tokens"] == len(ids) and ids.count(2) == 1


def test_a_raw_completion_of_rendered_text_gets_a_second_bos(running: llama_cpp.Llama) -> None:
    """The file says add_bos_token: give such a text without its <bos>, or as ids."""
    text = render_chat([("user", "ab")])
    assert running.tokenize(text, add_special=True)[:2] == [2, 2]
    bare = text.removeprefix(prompts.BOS)
    assert running.tokenize(bare, add_special=True) == running.tokenize(text)


@needs_llama
@pytest.mark.parametrize("named", [1, 5, [5, 1]])
def test_answers_end_at_both_stop_tokens_whatever_the_folder_calls_eos(
    tmp_path: Path, named: Any
) -> None:
    folder = tiny_gemma(tmp_path / "model", eos_token_id=named)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings["eos_token"] = prompts.END_OF_TURN if named == 5 else prompts.EOS
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    with llama_cpp.llama(write(folder, tmp_path / "x.gguf")) as theirs:
        for stop, ends in ((1, True), (5, True), (4, False)):  # <end_of_turn>, <start_of_turn>
            said = theirs.ask(
                "/completion", prompt=[2, 7], n_predict=3, temperature=0, logit_bias=[[stop, 1e3]]
            )
            assert (said["stop_type"] == "eos", said["tokens_predicted"] == 1) == (ends, ends)


# --- The command ----------------------------------------------------------------------------------


@needs_llama
@pytest.mark.parametrize("name", ["lora", "dora", "full", "quantized"])
def test_every_kind_of_adapter_is_in_the_file(
    adapters: dict[str, Path], tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """What llama.cpp computes is the fine-tuned model, and by far not the base."""
    target = tmp_path / "out" / "My model.gguf"
    gguf_export.export_gguf(adapters[name], target, "f32")
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == f"ollama create my-model -f {tmp_path / 'out' / 'Modelfile'}"
    tuned = load_finetuned(adapters[name])
    assert largest_gap(target, tuned.use("finetuned")) < LIMITS["f32"]
    assert largest_gap(target, tuned.use("base")) > 10 * LIMITS["f32"]


def test_a_bfloat16_base_is_fused_in_float32(
    adapters: dict[str, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As on a GPU: the sum of base and adapter is rounded once, when it is stored."""
    import mlx.core as mx

    tuned = load_finetuned(adapters["lora"])
    name, layer = tuned.swaps["finetuned"][0]
    weight = layer.linear.weight.astype(mx.bfloat16)
    want = weight.astype(mx.float32) + layer.scale * (layer.lora_a @ layer.lora_b).T
    tuned.model.set_dtype(mx.bfloat16, lambda dtype: dtype == mx.float32)
    for _, module in tuned.swaps["finetuned"]:
        module.lora_a, module.lora_b = (w.astype(mx.float32) for w in (layer.lora_a, layer.lora_b))
        break
    _, weights = gguf_export.fused(tuned, "x")
    assert weights[f"{name}.weight"].dtype == mx.float32
    assert mx.allclose(weights[f"{name}.weight"], want, atol=1e-2).item()


def test_the_file_says_what_it_is(adapters: dict[str, Path], tmp_path: Path) -> None:
    gguf_export.export_gguf(adapters["lora"], tmp_path / "pets.gguf", "q8_0")
    fields = {
        k: f.contents() for k, f in gguf_models.open_gguf(tmp_path / "pets.gguf").fields.items()
    }
    assert fields["general.name"] == "pets" and fields["general.license"] == "gemma"
    assert fields["tokenizer.chat_template"].startswith("{{ bos_token }}")
    assert "lora fine-tune, sql rows" in fields["general.description"]
    assert fields["tokenizer.ggml.eos_token_id"] == 1
    assert fields["tokenizer.ggml.eot_token_id"] == 5
    said = json.dumps(fields, default=str)
    assert str(tmp_path) not in said and str(Path.home()) not in said


@pytest.mark.parametrize("system", [None, "Answer briefly."])
def test_the_modelfile_renders_as_training_did(system: str | None) -> None:
    import re

    text = gguf_export.modelfile_text("pets.gguf")
    assert "\nFROM ./pets.gguf\n" in text
    template = text.split('"""')[1].split("{{ .Response }}")[0]
    if system is None:
        template = re.sub(r"\{\{ if .*?\{\{ end \}\}", "", template, flags=re.S)
    for name, value in (("if .System", ""), ("end", ""), (".System", system), (".Prompt", "Why?")):
        template = template.replace("{{ " + name + " }}", value or "")
    assert prompts.BOS + template == prompts.render_prompt("Why?", system)
    assert set(re.findall(r'^PARAMETER stop "(.+)"$', text, re.M)) == set(prompts.STOP_TOKENS)


@pytest.mark.parametrize(
    ("stem", "name"),
    [("My SQL (v2)", "my-sql-v2"), ("ärger", "rger"), ("...", "my-gemma"), ("a/b:c", "a-b-c")],
)
def test_names_that_ollama_takes(stem: str, name: str) -> None:
    assert gguf_export.ollama_name(stem) == name


def test_chat_templates_come_from_the_folder(tmp_path: Path) -> None:
    assert gguf_export.chat_template(tmp_path) == gguf_models.CHAT_TEMPLATE
    settings = tmp_path / "tokenizer_config.json"
    settings.write_text(json.dumps({"chat_template": "one"}))
    assert gguf_export.chat_template(tmp_path) == "one"
    named = [{"name": "rag", "template": "x"}, {"name": "default", "template": "two"}]
    settings.write_text(json.dumps({"chat_template": named}))
    assert gguf_export.chat_template(tmp_path) == "two"
    (tmp_path / "chat_template.jinja").write_text("three")
    assert gguf_export.chat_template(tmp_path) == "three"


# --- Refusals -------------------------------------------------------------------------------------


def refusal(folder: Path, target: Path, kind: Any = "bf16", **config: Any) -> str:
    """Write what cannot be written; return the one line said, with nothing left behind."""
    about, weights = described(folder)
    about.config.update(config)
    before = sorted(target.parent.iterdir())
    with pytest.raises(UserError) as caught:
        gguf_writer.write_gguf(target, about, weights, kind)
    assert "\n" not in str(caught.value) and sorted(target.parent.iterdir()) == before
    return str(caught.value)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"sliding_window_pattern": 2}, "its sliding_window_pattern is 2, not 6"),
        ({"query_pre_attn_scalar": 64}, "its query_pre_attn_scalar is 64, not 32"),
        ({"model_type": "gemma3"}, "its model_type is 'gemma3', not 'gemma3_text'"),
        ({"final_logit_softcapping": 30.0}, "final_logit_softcapping is 30.0, not None"),
        ({"hidden_activation": "silu"}, "hidden_activation is 'silu'"),
        ({"use_bidirectional_attention": True}, "use_bidirectional_attention is True"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 2.0}}, "not linear"),
        ({"layer_types": ["full_attention"] * 7}, "global at [0, 1, 2, 3, 4, 5, 6]"),
    ],
)
def test_settings_that_gguf_cannot_hold_are_refused(
    gemma: Path, tmp_path: Path, config: dict[str, Any], said: str
) -> None:
    assert said in refusal(gemma, tmp_path / "x.gguf", **config)


def test_a_tensor_of_another_model_is_refused(gemma: Path, tmp_path: Path) -> None:
    """As a vision tower, or a head of its own, would be."""
    about, weights = described(gemma)
    weights["vision_tower.patch.weight"] = weights["model.norm.weight"]
    with pytest.raises(UserError, match=r"no name for vision_tower\.patch"):
        gguf_writer.write_gguf(tmp_path / "x.gguf", about, weights, "bf16")
    assert not list(tmp_path.iterdir())


def test_rows_that_q8_0_cannot_hold_are_refused(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    folder = tiny_gemma(tmp_path / "model", intermediate_size=72)
    assert "multiple of 32 values, not 72" in refusal(folder, tmp_path / "out" / "x.gguf", "q8_0")


@pytest.mark.parametrize("kind", ["bf16", "f16", "q8_0"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_values_that_are_not_finite_are_refused(
    gemma: Path, tmp_path: Path, kind: str, value: float
) -> None:
    import mlx.core as mx

    about, weights = described(gemma)
    name = "model.layers.3.mlp.up_proj.weight"
    weights[name] = mx.where(mx.arange(64) == 5, mx.array(value), weights[name])
    with pytest.raises(UserError, match=f"{name} holds NaN or infinite"):
        gguf_writer.write_gguf(tmp_path / "x.gguf", about, weights, kind)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_values_too_large_for_f16_are_refused(gemma: Path, tmp_path: Path) -> None:
    about, weights = described(gemma)
    name = "model.layers.3.mlp.up_proj.weight"
    weights[name] = weights[name] * 1e7
    with pytest.raises(UserError, match="too large for f16: use bf16"):
        gguf_writer.write_gguf(tmp_path / "x.gguf", about, weights, "f16")


def test_a_full_disk_is_noticed_before_the_work(
    gemma: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(9, 9, 1000))  # type: ignore[attr-defined]
    monkeypatch.setattr(gguf_writer, "encoded", lambda *_: pytest.fail("it began"))
    said = refusal(gemma, tmp_path / "x.gguf")
    assert "MB left: make room" in said and "x.gguf takes" in said


def test_a_disk_that_fills_up_leaves_the_old_file(
    gemma: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "x.gguf").write_text("old")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(gguf.GGUFWriter, "write_tensor_data", fail)
    assert "No space left on device; nothing was replaced" in refusal(gemma, tmp_path / "x.gguf")
    assert (tmp_path / "x.gguf").read_text() == "old"


def test_an_interrupted_export_leaves_nothing(
    gemma: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(gguf.GGUFWriter, "write_tensor_data", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write(gemma, tmp_path / "x.gguf")
    assert not list(tmp_path.iterdir())


def test_a_killed_export_never_leaves_half_a_file(gemma: Path, tmp_path: Path) -> None:
    """Killed in the middle of the tensors: the name is not there, the old file would be."""
    code = (
        "import sys, os, signal; from pathlib import Path; import gguf, test_gguf_export as t\n"
        "right, count = gguf.GGUFWriter.write_tensor_data, [0]\n"
        "def write(self, tensor):\n"
        "    count[0] += 1\n"
        "    if count[0] == 40: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    right(self, tensor)\n"
        "gguf.GGUFWriter.write_tensor_data = write\n"
        f"t.write(Path({str(gemma)!r}), Path('x.gguf'))\n"
    )
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=env, check=False)
    assert done.returncode == -signal.SIGKILL and not (tmp_path / "x.gguf").exists()


def test_a_byte_level_tokenizer_is_refused(tiny_model: Path) -> None:
    with pytest.raises(UserError, match="not a tokenizer of Gemma's kind"):
        vocabulary.read_pieces(tiny_model / "tokenizer.json", 262)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"normalizer": None}, "does not spell spaces"),
        ({"pre_tokenizer": {"type": "ByteLevel"}}, "splits texts by ByteLevel"),
        ({"pre_tokenizer": {"type": "Split", "pattern": {"Regex": "."}}}, "splits texts before"),
    ],
)
def test_other_kinds_of_tokenizers_are_refused(
    gemma: Path, tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    tokenizer = json.loads((gemma / "tokenizer.json").read_text()) | change
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(UserError, match=said):
        vocabulary.read_pieces(tmp_path / "tokenizer.json", len(tiny_pieces()))


def test_a_vocabulary_of_another_size_is_refused(gemma: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="301 rows"):
        vocabulary.read_pieces(gemma / "tokenizer.json", 301)
    # What stands above the embedding's rows, as the hub's <image_soft_token>, is left out.
    tokenizer = json.loads((gemma / "tokenizer.json").read_text())
    size = len(tiny_pieces())
    tokenizer["added_tokens"].append(
        tokenizer["added_tokens"][0] | {"id": size, "content": "<image_soft_token>"}
    )
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer))
    assert "<image_soft_token>" not in vocabulary.read_pieces(tmp_path / "tokenizer.json", size)


def test_a_modelfile_of_ones_own_is_not_replaced(adapters: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "Modelfile").write_text("FROM mine")
    with pytest.raises(UserError, match="was not written by train"):
        gguf_export.export_gguf(adapters["lora"], tmp_path / "x.gguf")
    assert [p.name for p in tmp_path.iterdir()] == ["Modelfile"]


def test_gguf_missing_is_told_before_a_model_is_loaded(
    adapters: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setitem(sys.modules, "gguf", None)
    monkeypatch.setattr(gguf_export, "load_finetuned", lambda *_: pytest.fail("it began"))
    flags = ("--adapter-path", adapters["lora"], "--export-gguf", tmp_path / "x.gguf")
    assert train.main(list(map(str, flags))) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and said.endswith("; run: pip install gguf\n")
    assert not list(tmp_path.iterdir())


def test_the_command_line(adapters: dict[str, Path], tmp_path: Path) -> None:
    flags = ("--adapter-path", adapters["lora"], "--gguf-type", "f16")
    done = run_script("train.py", *flags, "--export-gguf", tmp_path / "pets.gguf")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith("ollama create pets -f ")
    assert {p.name for p in tmp_path.iterdir()} == {"pets.gguf", "Modelfile"}
    said = one_line_error(run_script("train.py", *flags, "--export-gguf", tmp_path / "x.bin"), 2)
    assert "--export-gguf must name a .gguf file" in said


@needs_llama
def test_the_check_of_a_real_model_runs(
    adapters: dict[str, Path], tiny_data: Path, tmp_path: Path
) -> None:
    """check_gguf.py on the tiny one: it is run by hand, and must not rot in between."""
    command = [sys.executable, str(Path(__file__).with_name("check_gguf.py"))]
    flags = ("--adapter-path", adapters["lora"], "--data", tiny_data, "--types", "f16", "q8_0",
             "--rows", 2, "--tokens", 4, "--answers", tmp_path / "answers.jsonl",
             "--also", adapters["dora"])  # fmt: skip
    done = run_command([*command, *map(str, flags)])
    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert set(told["files"]) == {"f16", "q8_0", "dora, f16"}
    assert set(told["scores"]["models"]) == {"MLX", "f16", "q8_0"}
    assert len((tmp_path / "answers.jsonl").read_text().splitlines()) == 2


@needs_llama
def test_what_parts_llama_cpp_from_mlx_is_how_it_rounds(
    adapters: dict[str, Path], tiny_data: Path
) -> None:
    """measure_gguf_gap.py: MLX's model, rounded as llama.cpp rounds, is as far off as that."""
    script = Path(__file__).with_name("measure_gguf_gap.py")
    flags = ("--adapter-path", adapters["lora"], "--data", tiny_data, "--rows", 4)
    done = run_command([sys.executable, str(script), *map(str, flags)])
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])["gaps"]
    gaps = {name: told["gap"] for name, told in found.items()}
    for kind in ("bf16", "q8_0"):  # f16 is as near as its table of gelu lets it
        assert 0.5 < gaps[f"{kind} all"] / gaps[f"llama.cpp {kind}"] < 2, gaps
    assert gaps["llama.cpp f32"] < gaps["llama.cpp bf16"] / 4
