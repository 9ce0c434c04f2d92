"""Inner parts of libraries that the code leans on: one test for each, which names it.

None of these is promised by its library. When a new version breaks one, the test that fails says
which room to mend. What their libraries document is tested by what uses it.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import logging
from dataclasses import make_dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optimizers
import numpy as np
import pytest
from conftest import ROOT, TINY_SETTINGS

from gemma_lora import cli, device, gguf_models, hub, models, run_log

SCRIPTS = [ROOT / f"{name}.py" for name in ("dataset", "train", "test_finetuned", "benchmark")]
SOURCES = {path.stem: path for path in [*SCRIPTS, *(ROOT / "gemma_lora").glob("*.py")]}
# Names with an underscore that are taken from others' objects, by room.
PRIVATE = {("batches", "_tokenizer")}
# Methods of an own class that stand in for one of a library's class, by room.
OVERRIDDEN = {("gguf_models", "_get")}
OF_NAMEDTUPLES = {"_replace", "_asdict", "_fields"}


def uses(room: str, text: str) -> None:
    """The room still leans on it: a test of what nothing uses would be noise."""
    assert text in SOURCES[room].read_text(), f"{room} no longer uses {text}: drop this test"


def test_every_private_name_is_known() -> None:
    found, overridden = set(), set()
    for room, path in SOURCES.items():
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):
            own = isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
            if own and node.value.id in ("self", "cls"):  # type: ignore[union-attr]
                continue
            if isinstance(node, ast.Attribute) and node.attr.startswith("_"):
                found.add((room, node.attr))
            if isinstance(node, ast.ClassDef) and node.bases:
                names = [f.name for f in node.body if isinstance(f, ast.FunctionDef)]
                overridden |= {(room, n) for n in names if n[0] == "_" and n[:2] != "__"}
    dunder = {(room, name) for room, name in found if name.startswith("__")}
    assert {one for one in found - dunder if one[1] not in OF_NAMEDTUPLES} == PRIVATE
    assert overridden == OVERRIDDEN


# --- mlx and mlx-lm -----------------------------------------------------------------------------


def test_tokenizer_wrapper_keeps_the_fast_tokenizer_as__tokenizer(tiny_model: Path) -> None:
    uses("batches", "tokenizer._tokenizer")
    tokenizer = models.load_base(str(tiny_model))[1]
    found = tokenizer._tokenizer(["ab", "<bos>"], add_special_tokens=False)["input_ids"]
    assert found == [tokenizer.encode(t, add_special_tokens=False) for t in ("ab", "<bos>")]


def test_batch_kv_cache_grows_by_its_step() -> None:
    uses("device", "BatchKVCache.step = CACHE_STEP")
    from mlx_lm.models.cache import BatchKVCache

    assert BatchKVCache.step == device.CACHE_STEP  # prepare_process has run
    cache = BatchKVCache([0, 0])
    cache.update_and_fetch(mx.zeros((2, 1, 5, 8)), mx.zeros((2, 1, 5, 8)))
    assert cache.keys.shape[2] == device.CACHE_STEP


def test_kv_cache_is_taken_for_every_layer_and_has_a_state(tiny_model: Path) -> None:
    uses("generation", "KVCache() for _ in model.layers")
    from mlx_lm.models.cache import KVCache

    model = models.load_base(str(tiny_model))[0]
    cache = [KVCache() for _ in model.layers]
    ids = mx.array([[2, 10, 11, 12]])
    model.model(ids[:, :3], cache=cache)
    mx.eval([c.state for c in cache])
    rest = model(ids[:, 3:], cache=cache)[0, -1]
    assert np.allclose(np.array(rest), np.array(model(ids)[0, -1]), atol=1e-4)


def test_cli_ui_has_one_console_that_can_be_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    uses("run_log", "make_console()")
    from mlx_lm.cli_ui import make_console

    theirs = make_console()
    assert make_console() is theirs and theirs.quiet is False
    log = run_log.RunLog(Path("nowhere"), run_log.Schedule(1, 1, 1, 0), 1, 1, True)
    with log.bar():
        assert theirs.quiet is True
        theirs.print("drawn over our bar")
    assert theirs.quiet is False and capsys.readouterr().out == ""


def test_gemma_looks_gelu_approx_up_when_it_is_called(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uses("device", "nn.gelu_approx =")
    model, calls, real = models.load_base(str(tiny_model))[0], [], nn.gelu_approx
    monkeypatch.setattr(nn, "gelu_approx", lambda x: calls.append(1) or real(x))
    mx.eval(model(mx.array([[2, 10]])))
    assert len(calls) == len(model.layers)


def test_grad_checkpoint_patches_the_class_of_a_layer(tiny_model: Path) -> None:
    uses("models", "block.__call__ = plain")
    model = models.load_base(str(tiny_model))[0]
    block: Any = type(model.layers[0])
    plain = block.__call__
    with models.recomputed_layers(model):
        assert block.__call__ is not plain
    assert block.__call__ is plain
    with models.recomputed_layers(model, wanted=False):
        assert block.__call__ is plain


def test_the_trainer_reports_every_step_with_what_is_read_of_it(tiny_model: Path) -> None:
    uses("train", "steps_per_report=1")
    from mlx_lm.tuner.trainer import TrainingArgs
    from mlx_lm.tuner.trainer import train as mlx_train

    class Told:
        def __init__(self) -> None:
            self.reports: list[dict[str, Any]] = []

        def on_train_loss_report(self, info: dict[str, Any]) -> None:
            self.reports.append(info)
            if len(self.reports) == 3:
                raise StopIteration("ours")

        def on_val_loss_report(self, info: dict[str, Any]) -> None:
            raise AssertionError("no validation set was given")

    model, told, asked = models.load_base(str(tiny_model))[0], Told(), []
    optimizer = optimizers.SGD(1e-3)

    def loss(model: Any, tokens: mx.array) -> tuple[mx.array, mx.array]:
        logits = model(tokens[:, :-1])
        return nn.losses.cross_entropy(logits, tokens[:, 1:]).mean(), mx.array(tokens.size)

    def iterate(**how: Any) -> Any:
        asked.append(set(how))
        while True:
            yield (mx.array([[2, 10, 11, 12]]),)

    with pytest.raises(StopIteration, match="ours"):
        mlx_train(
            model=model, optimizer=optimizer, train_dataset=[], val_dataset=None,
            args=TrainingArgs(batch_size=1, iters=9, steps_per_report=1, steps_per_save=99),
            loss=loss, iterate_batches=iterate, training_callback=told,
        )  # fmt: skip
    keys = {"train_loss", "learning_rate", "iterations_per_second", "trained_tokens", "peak_memory"}
    assert [r["iteration"] for r in told.reports] == [1, 2, 3]
    assert all(keys <= r.keys() for r in told.reports)
    assert asked == [{"dataset", "batch_size", "max_seq_length", "loop", "comm_group"}]


def test_batch_generator_takes_caches_and_tells_uid_token_and_reason(tiny_model: Path) -> None:
    uses("generation", "generator.next_generated()")
    from gemma_lora.generation import batch_generator, generation_steps, prefix_cache

    model, tokenizer, _ = models.load_base(str(tiny_model))
    generator = batch_generator(model, tokenizer, True, 2)
    caches = [prefix_cache(model, [2, 10, 11])] * 2
    uids = generator.insert([[12], [13]], [3, 3], caches=caches)
    told = [one for step in generation_steps(generator) for one in step]
    generator.close()
    assert {uid for uid, *_ in told} == set(uids)
    for uid, last in zip(uids, (12, 13), strict=True):
        ids = [2, 10, 11, last]
        mine = [token for one, token, *_ in told if one == uid]
        for token in mine:  # greedy: GreedyHead's ids survive the log-softmax
            assert token == int(mx.argmax(model(mx.array([ids]))[0, -1]).item())
            ids.append(token)


def test_generation_stream_can_be_waited_for() -> None:
    uses("timing", "mx.synchronize(generation_stream)")
    from mlx_lm.generate import generation_stream

    mx.synchronize(generation_stream)


def test_the_models_parts_have_their_names(tiny_model: Path) -> None:
    uses("loss", "model.model.embed_tokens")
    uses("models", "loaded.tie_word_embeddings")
    from mlx_lm.models.gemma3_text import Model, ModelArgs

    model = models.load_base(str(tiny_model))[0]
    assert model.tie_word_embeddings is True and len(model.layers) == model.args.num_hidden_layers
    ids = mx.array([[2, 10, 11]])
    logits = model.model.embed_tokens.as_linear(model.model(ids))
    assert np.allclose(np.array(logits), np.array(model(ids)), atol=1e-4)
    uses("gguf_models", "model.sanitize({})")
    fresh = Model(ModelArgs.from_dict(TINY_SETTINGS | {"vocab_size": 300}))
    fresh.sanitize({})
    assert "lm_head.weight" not in models.named_arrays(fresh.parameters())


@pytest.mark.parametrize("dora", [False, True])
def test_adapted_layers_hold_linear_lora_a_and_fuse(tiny_model: Path, dora: bool) -> None:
    uses("adapters", "m.linear")
    uses("gguf_export", "module.fuse(dequantize=True)")
    from mlx_lm.tuner.utils import linear_to_lora_layers

    model = models.load_base(str(tiny_model))[0]
    plain = model.layers[0].self_attn.q_proj
    settings = {"rank": 2, "scale": 2.0, "dropout": 0.0, "keys": ["self_attn.q_proj"]}
    linear_to_lora_layers(model, 2, settings, use_dora=dora)
    adapted = model.layers[0].self_attn.q_proj
    assert "lora_a" in adapted and "lora_b" in adapted and adapted.linear is plain
    x = mx.random.normal((1, plain.weight.shape[1]))
    fused = adapted.fuse(dequantize=True)
    assert np.allclose(np.array(fused(x)), np.array(adapted(x)), atol=1e-4)


def test_an_optimizer_updates_through_apply_gradients() -> None:
    uses("optimizers", "def apply_gradients(")

    class Counted(optimizers.AdamW):  # type: ignore[misc]
        def apply_gradients(self, gradients: Any, parameters: Any) -> Any:
            self.state["calls"] = mx.array(1)
            return super().apply_gradients(gradients, parameters)

    layer, optimizer = nn.Linear(2, 2), Counted(1e-3)
    optimizer.init(layer.trainable_parameters())
    optimizer.update(layer, layer.trainable_parameters())
    assert optimizer.state["calls"].item() == 1


# --- The hub, data sets, transformers, gguf -----------------------------------------------------


def test_the_hubs_loggers_have_these_names() -> None:
    uses("cli", "huggingface_hub.utils._http")
    uses("cli", "huggingface_hub.file_download")
    import huggingface_hub.file_download
    from huggingface_hub.utils import _http

    for module in (_http, huggingface_hub.file_download):
        assert module.logger is logging.getLogger(module.__name__)
    assert _http.__name__ == "huggingface_hub.utils._http"
    assert "Rate limited" in Path(_http.__file__).read_text()  # what the filter lets through
    cli.load_env()


def test_the_hubs_session_calls_request_hooks_and_names_its_transport() -> None:
    uses("hub", "session.event_hooks")
    uses("hub", "errors.HTTPError.__module__")
    from huggingface_hub import errors, get_session

    hub.bound_hub_waits()
    assert get_session() is get_session() and get_session().event_hooks["request"]
    transport = importlib.import_module(errors.HTTPError.__module__.split(".")[0])
    named = (transport.TransportError, transport.RemoteProtocolError, transport.ReadError)
    assert all(issubclass(one, errors.HTTPError) for one in named)


def test_datasets_reads_offline_from_its_config_and_words_its_choices_so() -> None:
    uses("sources", "datasets.config.HF_HUB_OFFLINE")
    import datasets
    from datasets import arrow_reader, builder

    assert isinstance(datasets.config.HF_HUB_OFFLINE, bool)
    said = Path(builder.__file__).read_text() + Path(arrow_reader.__file__).read_text()
    for text in ("Config name is missing.", "not found. Available: ", "Unknown split "):
        assert text in said


def test_argparse_leaves_what_the_namespace_holds() -> None:
    uses("cli", "argparse.Namespace(**dict.fromkeys(names, unset))")
    from transformers import HfArgumentParser

    parser = HfArgumentParser(make_dataclass("Config", [("a", int, 1), ("b", int, 2)]))
    mark = object()
    found = parser.parse_args(["--a", "5"], argparse.Namespace(a=mark, b=mark))
    assert found.a == 5 and found.b is mark


def test_gguf_reader_reads_every_value_through__get(tmp_path: Path) -> None:
    uses("gguf_models", "def _get(")
    gguf = pytest.importorskip("gguf")
    writer = gguf.GGUFWriter(tmp_path / "a.gguf", "gemma3")
    writer.add_string("some.key", "value")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    asked: list[int] = []
    reader = type(gguf_models.open_gguf(tmp_path / "a.gguf"))
    real = reader._get

    class Counting(reader):  # type: ignore[misc, valid-type]
        def _get(self, offset: int, *more: Any, **named: Any) -> Any:
            asked.append(offset)
            return real(self, offset, *more, **named)

    found = Counting(tmp_path / "a.gguf")
    assert found.fields["some.key"].contents() == "value"
    assert len(asked) > 4 and found.data.size == (tmp_path / "a.gguf").stat().st_size
