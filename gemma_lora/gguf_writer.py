"""Gemma 3 into one GGUF file for llama.cpp, Ollama and LM Studio.

`write_gguf` writes config, vocabulary and weights, whole or not at all. It promises that the file
fits on the disk before it begins, that no NaN or infinite value goes in, and that one tensor at a
time is in memory besides what the caller holds. What GGUF has no words for and llama.cpp takes
for granted (which layers are global, the scale of attention) is refused when it is not Gemma 3's.

llama.cpp differs from a plain listing of the weights in two ways: it wants Gemma's norms plus one
(MLX adds that one itself), and vectors in float32 whatever the matrices are.
"""

from __future__ import annotations

import importlib
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from gemma_lora.cli import UserError
from gemma_lora.files import JsonObject, partial_folder, require_writable
from gemma_lora.gguf_models import Pieces
from gemma_lora.prompts import END_OF_TURN, EOS
from gemma_lora.vocabulary import spelt_for_llama

if TYPE_CHECKING:
    import mlx.core as mx
    import numpy as np
    from gguf import GGMLQuantizationType, GGUFWriter

GgufType = Literal["bf16", "f16", "q8_0", "f32"]
LARGEST_F16 = 65504.0
Q8_BLOCK = 32  # values that share one scale
PATTERN = 6  # of Gemma 3's layers every sixth sees the whole text, the others a window
LAYERS_OF_27B = 62  # the one size whose attention is scaled by width / heads
GGUF_INSTALL = "pip install gguf"
ACTIVATIONS = (None, "gelu_pytorch_tanh")
# A table of 262,144 pieces with scores and types takes 6 MB; the rest are a few kilobytes.
BYTES_PER_PIECE = 40


@dataclass(frozen=True)
class GgufModel:
    """What a file says besides its weights."""

    config: JsonObject  # a gemma3_text config.json, with every default filled in
    pieces: Pieces
    chat_template: str
    name: str
    base_model: str | None  # its place on the hub, when it has one
    description: str


def write_gguf(
    path: Path, model: GgufModel, weights: dict[str, mx.array], kind: GgufType
) -> dict[str, int]:
    """Write `path` and return {tensor: bytes}; raises UserError and leaves an old file alone.

    `weights` has MLX's names and may be lazy: it is emptied while the file is written, so that no
    tensor is kept for longer than its turn.
    """
    require_gguf(path)
    import gguf

    if problem := unlike_gemma3(model.config, kind):
        raise UserError(f"GGUF cannot hold this model: {problem}; use it with mlx-lm instead")
    names = gguf_names(model.config["num_hidden_layers"], weights)
    sizes = {n: tensor_bytes(w.shape, tensor_type(w.ndim, kind)) for n, w in weights.items()}
    require_space(path, sum(sizes.values()) + BYTES_PER_PIECE * len(model.pieces))
    try:
        with partial_folder(path) as folder:
            writer = gguf.GGUFWriter(folder / path.name, "gemma3")
            add_about(writer, model, kind, sum(w.size for w in weights.values()))
            add_settings(writer, model.config)
            add_vocabulary(writer, model)
            for name, weight in weights.items():
                quant, float32 = tensor_type(weight.ndim, kind), np_float32()
                writer.add_tensor_info(names[name], weight.shape, float32, sizes[name], quant)
            write_tensors(writer, weights, kind)
            sync(folder / path.name)
            os.replace(folder / path.name, path)
    except OSError as error:
        raise UserError(
            f"cannot write {path}: {error.strerror or error}; nothing was replaced"
        ) from None
    return {names[name]: size for name, size in sizes.items()}


def require_gguf(path: Path) -> None:
    """Raise UserError, which says what to install, unless the gguf package is there."""
    try:
        importlib.import_module("gguf")
    except ImportError as error:
        raise UserError(f"writing {path} needs gguf ({error}); run: {GGUF_INSTALL}") from None


def np_float32() -> np.dtype[Any]:
    """numpy's float32: what every tensor is before it is encoded."""
    import numpy as np

    return np.dtype(np.float32)


def write_tensors(writer: GGUFWriter, weights: dict[str, mx.array], kind: GgufType) -> None:
    """Write header and tensors, each taken out of `weights` when its turn comes."""
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for name in list(weights):
            writer.write_tensor_data(encoded(name, weights.pop(name), kind))
    finally:
        with suppress(OSError):  # what failed was said already
            writer.close()


def encoded(name: str, weight: mx.array, kind: GgufType) -> np.ndarray:
    """One tensor as the file holds it; raises UserError for values that it cannot hold."""
    import gguf
    import mlx.core as mx
    import numpy as np

    values = np.array(weight.astype(mx.float32), copy=False)
    # Looked at before encoding: bytes of quantized values tell nothing, they are always finite.
    low, high = float(values.min()), float(values.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise UserError(f"{name} holds NaN or infinite values: train again, with a lower rate")
    quant = tensor_type(weight.ndim, kind)
    if kind == "f16" and quant.name == "F16" and max(-low, high) > LARGEST_F16:
        raise UserError(f"{name} holds {max(-low, high):.3g}, too large for f16: use bf16")
    if name.endswith("norm.weight"):
        values = values + np.float32(1)
    if quant.name == "BF16":  # the same bits as gguf's, in a tenth of the time
        return np.array(mx.array(values).astype(mx.bfloat16).view(mx.uint16))
    return np.ascontiguousarray(gguf.quantize(values, quant))


def tensor_type(dimensions: int, kind: GgufType) -> GGMLQuantizationType:
    """How a tensor is stored: matrices as asked, vectors always in float32."""
    from gguf import GGMLQuantizationType

    return GGMLQuantizationType[kind.upper() if dimensions > 1 else "F32"]


def tensor_bytes(shape: tuple[int, ...], quant: GGMLQuantizationType) -> int:
    """The bytes of a tensor of this shape."""
    from gguf import GGML_QUANT_SIZES

    block, size = GGML_QUANT_SIZES[quant]
    count = 1
    for length in shape:
        count *= length
    return count // block * size


def gguf_names(layers: int, weights: Mapping[str, Any]) -> dict[str, str]:
    """Return {MLX's name: llama.cpp's name}; raise UserError for a tensor that has none."""
    import gguf

    table = gguf.get_tensor_name_map(gguf.MODEL_ARCH.GEMMA3, layers)
    names = {name: table.get_name(name, (".weight",)) for name in weights}
    if unknown := sorted(name for name, known in names.items() if known is None):
        raise UserError(f"GGUF has no name for {unknown[0]}, which no text-only Gemma 3 has")
    return {name: str(known) for name, known in names.items()}


def unlike_gemma3(config: JsonObject, kind: GgufType) -> str | None:
    """The first setting that a GGUF of Gemma 3 cannot express; None when there is none."""
    layers, heads = config["num_hidden_layers"], config["num_attention_heads"]
    width, head_dim = config["hidden_size"], config["head_dim"]
    scalar = width // heads if layers == LAYERS_OF_27B else head_dim
    rope = config.get("rope_scaling") or {}
    global_layers = [
        i for i, name in enumerate(config.get("layer_types") or ()) if name == "full_attention"
    ]
    wanted: dict[str, tuple[Any, ...]] = {
        "model_type": ("gemma3_text",),
        "sliding_window_pattern": (PATTERN,),
        "query_pre_attn_scalar": (scalar,),
        "hidden_activation": ACTIVATIONS,
        "attn_logit_softcapping": (None,),
        "final_logit_softcapping": (None,),
        "attention_bias": (None, False),
        "use_bidirectional_attention": (None, False),
        "tie_word_embeddings": (None, True),
    }
    for key, allowed in wanted.items():
        if (value := config.get(key)) not in allowed:
            return f"its {key} is {value!r}, not {allowed[-1]!r}"
    if config.get("layer_types") and global_layers != list(range(PATTERN - 1, layers, PATTERN)):
        return f"its layer_types are global at {global_layers}, not at every sixth layer"
    if rope.get("rope_type", rope.get("type", "default")) not in ("default", "linear"):
        return f"its rope_scaling is {rope!r}, not linear"
    rows = (width, config["intermediate_size"], heads * head_dim)
    if kind == "q8_0" and (odd := [n for n in rows if n % Q8_BLOCK]):
        return f"q8_0 takes rows of a multiple of {Q8_BLOCK} values, not {odd[0]}"
    return None


def require_space(path: Path, size: int) -> None:
    """Raise UserError unless a file of `size` bytes can be made at `path`."""
    require_writable(path.parent)
    there = next(p for p in path.absolute().parents if p.exists())
    if (free := shutil.disk_usage(there).free) < size:
        raise UserError(
            f"{path} takes {size / 1e6:,.0f} MB and {there} has {free / 1e6:,.0f} MB left: make "
            "room, or give another place"
        )


def add_about(writer: GGUFWriter, model: GgufModel, kind: GgufType, parameters: int) -> None:
    """Say what the model is, whose terms it is under and what it was made from."""
    import gguf

    writer.add_type("model")
    writer.add_name(model.name)
    writer.add_description(model.description)
    writer.add_size_label(f"{parameters / 1e6:.0f}M")
    writer.add_license("gemma")
    writer.add_license_name("Gemma Terms of Use")
    writer.add_license_link("https://ai.google.dev/gemma/terms")
    writer.add_tags(["gemma3", "text-generation"])
    if model.base_model:
        organization, _, name = model.base_model.partition("/")
        writer.add_base_model_count(1)
        writer.add_base_model_name(0, name)
        writer.add_base_model_organization(0, organization)
        writer.add_base_model_repo_url(0, f"https://huggingface.co/{model.base_model}")
    files = gguf.LlamaFileType
    types = {
        "f32": files.ALL_F32, "f16": files.MOSTLY_F16, "bf16": files.MOSTLY_BF16,
        "q8_0": files.MOSTLY_Q8_0,
    }  # fmt: skip
    writer.add_file_type(types[kind])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)


def add_settings(writer: GGUFWriter, config: JsonObject) -> None:
    """The settings of the layers. llama.cpp has other defaults for most of them: all are said."""
    import gguf

    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_sliding_window(config["sliding_window"])
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_rope_freq_base_swa(config["rope_local_base_freq"])
    factor = (config.get("rope_scaling") or {}).get("factor", 1.0)
    if factor != 1:
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(float(factor))


def add_vocabulary(writer: GGUFWriter, model: GgufModel) -> None:
    """Pieces, what each control token is for, and the chat template.

    The end of a text and of a turn are named by their pieces: hub folders call either one eos.
    """
    ids = {text: i for i, text in enumerate(model.pieces)}
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_array("tokenizer.ggml.tokens", list(spelt(model.pieces)))
    writer.add_token_scores([score for score, _ in model.pieces.values()])
    writer.add_token_types([kind for _, kind in model.pieces.values()])
    writer.add_bos_token_id(ids["<bos>"])
    writer.add_eos_token_id(ids[EOS])
    writer.add_eot_token_id(ids[END_OF_TURN])
    writer.add_unk_token_id(ids["<unk>"])
    writer.add_pad_token_id(ids["<pad>"])
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(False)  # llama.cpp puts a space in front unless told
    writer.add_chat_template(model.chat_template)


def spelt(pieces: Pieces) -> Iterator[str]:
    """The pieces as llama.cpp spells them."""
    return (spelt_for_llama(text, kind) for text, (_, kind) in pieces.items())


def sync(path: Path) -> None:
    """Have the system put a file on the disk, so that its name never stands for half of it."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
