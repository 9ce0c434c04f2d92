"""Training steps whose softmax is over some ids: exact, shared, resumed, said, and never in the way
of runs that were begun without."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from conftest import tiny_config
from hypothesis import given
from hypothesis import strategies as st
from test_training import (
    Group,
    adapted_model,
    arrays,
    assert_same_run,
    metrics,
    packed,
    parsed,
    resume_record,
    rows_of,
    some_examples,
    stop_after,
)

import train
from gemma_lora import batches
from gemma_lora.batches import Example, StepHead, batch_iterator, head_interval, step_head
from gemma_lora.forecast import measured_cost
from gemma_lora.loss import head_pass, supervised_loss
from gemma_lora.workload import notes_on_head

VOCABULARY = 262  # of the tiny model


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A head of fewer ids than the tiny vocabulary has; no plots."""
    monkeypatch.setattr(batches, "HEAD_IDS", 128)
    monkeypatch.setattr(train, "plot_losses", lambda folder: None)


# --- The loss -----------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [7, 4096])
@pytest.mark.parametrize("bits", [None, 8])
def test_the_softmax_over_some_ids_is_that_of_a_vocabulary_of_these(
    monkeypatch: pytest.MonkeyPatch, width: int, bits: int | None
) -> None:
    monkeypatch.setattr("gemma_lora.loss.block_width", lambda rows: width)
    draw = np.random.default_rng(1)
    embedding = nn.Embedding(500, 64)
    embedding.weight = mx.array(draw.standard_normal((500, 64)).astype(np.float32))
    if bits:
        embedding = embedding.to_quantized(group_size=64, bits=bits)
    every = np.array(embedding(mx.arange(500))).astype(np.float64)
    ids = np.sort(draw.choice(500, 90, replace=False))
    states = draw.standard_normal((12, 64)).astype(np.float32)
    targets = np.where(np.arange(12) % 4 == 3, -1, draw.choice(ids, 12))
    model: Any = SimpleNamespace(model=SimpleNamespace(embed_tokens=embedding))
    loss, gradient = head_pass(
        model, mx.array(states), mx.array(targets), True, mx.array(ids.astype(np.int32))
    )
    # In numpy and float64, where the vocabulary is these ids.
    heads, live = every[ids], targets >= 0
    logits = states.astype(np.float64) @ heads.T
    sums = np.exp(logits).sum(-1)
    places = np.searchsorted(ids, np.maximum(targets, 0))
    losses = np.log(sums) - logits[np.arange(12), np.minimum(places, 89)]
    wanted = np.exp(logits) / sums[:, None] @ heads - every[np.maximum(targets, 0)]
    assert loss.item() == pytest.approx(losses[live].sum(), rel=1e-5)
    ours = np.array(gradient)
    assert (ours[~live] == 0).all()
    assert np.abs(ours[live] - wanted[live]).max() <= 1e-4 * np.abs(wanted).max()


def test_all_ids_or_none_named_are_the_whole_loss(tiny_model: Path, tiny_data: Path) -> None:
    model, tokenizer = adapted_model(tiny_model, "lora")
    batch = packed(some_examples(tiny_data, tokenizer))
    model.train()
    step = nn.value_and_grad(model, supervised_loss)
    (whole, _), wanted = step(model, *batch)
    for ids in (mx.arange(VOCABULARY), mx.array([], mx.int32)):
        (loss, _), found = step(model, *batch, ids)
        assert loss.item() == pytest.approx(whole.item(), rel=1e-6)
        ours, theirs = arrays(found), arrays(wanted)
        for name, gradient in theirs.items():
            np.testing.assert_allclose(ours[name], gradient, atol=1e-6, err_msg=name)
    own = sorted({int(i) for e in some_examples(tiny_data, tokenizer) for i in e.ids})
    (loss, _), _ = step(model, *batch, mx.array(own))
    assert loss.item() < whole.item()  # fewer ids share the probability
    model.eval()
    assert supervised_loss(model, *batch, mx.array(own))[0].item() == pytest.approx(whole.item())


@pytest.mark.parametrize("count", [2, 3])
def test_ranks_that_see_the_same_ids_add_up_to_one(
    tiny_model: Path, tiny_data: Path, count: int
) -> None:
    model, tokenizer = adapted_model(tiny_model, "lora")
    examples = some_examples(tiny_data, tokenizer, 5)
    model.train()
    head = step_head(examples, VOCABULARY, 3)

    def gradients(rank: int, size: int) -> tuple[list[int], dict[str, np.ndarray]]:
        source = batch_iterator(3, head=head)(
            examples, 5, 512, loop=True, comm_group=Group(rank, size)
        )
        batch = next(source)
        found = nn.value_and_grad(model, supervised_loss)(model, *batch)[1]
        return batch[4].tolist(), {k: v / size for k, v in arrays(found).items()}

    ids, wanted = gradients(0, 1)
    parts = [gradients(rank, count) for rank in range(count)]
    assert all(part[0] == ids for part in parts) and len(ids) == 128
    for name, gradient in wanted.items():
        got = sum(part[1][name] for part in parts)
        assert np.linalg.norm(got - gradient) <= 1e-4 * np.linalg.norm(gradient) != 0, name


# --- Which ids, and when ------------------------------------------------------------------------


@given(
    ids=st.sets(st.integers(0, 9_999), min_size=1, max_size=300),
    vocabulary=st.sampled_from([200, 10_000, 10_001]),
)
def test_a_head_has_the_rows_ids_and_the_commonest(ids: set[int], vocabulary: int) -> None:
    ids = {one % vocabulary for one in ids}
    rows = [Example(np.array([one], np.int32), 1) for one in ids]
    head = step_head(rows, vocabulary, 6)
    if len(ids) > 128 and vocabulary == 200:
        assert head is None  # next to nothing would be left out
        return
    assert head is not None
    kept = head.ids.tolist()
    assert ids <= set(kept) and kept == sorted(set(kept)) and kept[-1] < vocabulary
    assert len(kept) % 64 == 0 and 128 <= len(kept) <= max(128, len(ids) + 63)
    others = [one for one in kept if one not in ids]
    assert others == [one for one in range(vocabulary) if one not in ids][: len(others)]
    assert step_head(rows, vocabulary, 1) is None


@pytest.mark.parametrize("start", [0, 4, 6])
def test_every_so_many_steps_see_all_ids_and_validations_do(start: int) -> None:
    rows = rows_of([5, 9, 7, 30, 12, 4])
    head = step_head(rows, VOCABULARY, 3)
    assert head is not None
    source = batch_iterator(1, 2, start, head)(rows, 2, 512, loop=True)
    sizes = [batch[4].size for batch in islice(source, 8)]
    assert sizes == [0 if step % 3 == 0 else 128 for step in range(start + 1, start + 9)]
    assert {len(batch) for batch in batch_iterator(1, head=head)(rows, 2, 512)} == {4}
    plain = batch_iterator(1, 2, start)(rows, 2, 512, loop=True)
    again = batch_iterator(1, 2, start, head)(rows, 2, 512, loop=True)
    for ours, theirs in islice(zip(again, plain, strict=False), 6):  # the batches are the same
        assert [np.array(a).tolist() for a in ours[:4]] == [np.array(a).tolist() for a in theirs]


def test_the_default_is_for_what_was_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    every = batches.WHOLE_HEAD_EVERY
    assert [head_interval(None, c) for c in ("none", "pointed", "schema", None)] == [every, 1, 1, 1]
    assert (head_interval(1, "none"), head_interval(4, "rows")) == (1, 4)
    monkeypatch.setattr(batches, "on_gpu", lambda: True)
    assert (head_interval(None, "none"), head_interval(4, "none")) == (1, 4)


# --- Runs ---------------------------------------------------------------------------------------


def of_a_database(data: Path) -> Path:
    """The folder as dataset.py leaves it where prompts are the question alone."""
    manifest = json.loads((data / "manifest.json").read_text())
    manifest["settings"]["prompt_context"] = "none"
    (data / "manifest.json").write_text(json.dumps(manifest))
    return data


def test_a_database_trains_so_by_itself_and_says_so(
    tiny_model: Path, data_copy: Path, tmp_path: Path, capsys: Any
) -> None:
    data = of_a_database(data_copy)
    train.train(tiny_config(tiny_model, data, tmp_path / "a", iters=12))
    told = re.search(
        r"^head +128 ids in most steps, the whole vocabulary in every 6th",
        capsys.readouterr().out, re.M,
    )  # fmt: skip
    assert told and resume_record(tmp_path / "a")["config"]["whole_head_every"] == 6
    train.train(tiny_config(tiny_model, data, tmp_path / "b", iters=12, whole_head_every=1))
    assert "head  " not in capsys.readouterr().out
    some, every = ([m["train_loss"] for m in metrics(tmp_path / n) if "train_loss" in m]
                   for n in "ab")  # fmt: skip
    assert some[0] < every[0]  # a smaller sum under the fraction
    first = [m["val_loss"] for n in "ab" for m in metrics(tmp_path / n) if m["step"] == 0]
    assert first[0] == first[1]  # validations see all ids


@pytest.mark.parametrize("window", [1, 2])
def test_a_stopped_run_goes_on_with_the_same_ids(
    tiny_model: Path, tiny_data: Path, tmp_path: Path, window: int
) -> None:
    changes = {"iters": 14, "whole_head_every": 3, "grad_accumulation_steps": window}
    whole = tiny_config(tiny_model, tiny_data, tmp_path / "whole", **changes)
    train.train(whole)
    parts = replace(whole, adapter_path=tmp_path / "parts")
    with pytest.MonkeyPatch.context() as patch:
        stop_after(patch, 4)
        assert train.train(parts)["stopped"] == "interrupted"
    train.train(replace(parts, resume=True))
    assert_same_run(tmp_path / "parts", tmp_path / "whole")


def test_a_run_of_before_goes_on_with_all_ids(
    tiny_model: Path, data_copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, folder = of_a_database(data_copy), tmp_path / "ck"
    saved = parsed("--model", str(tiny_model), "--data", str(data), "--adapter-path", str(folder))
    older = {k: v for k, v in vars(saved).items() if k not in train.NEWER}
    monkeypatch.setattr(train, "saved_settings", lambda path, kind: dict(older))
    found = parsed("--resume", "--adapter-path", str(folder))
    assert (found.whole_head_every, found.processes) == (1, 1)


def test_the_time_of_both_kinds_of_step_is_measured(
    tiny_model: Path, tiny_data: Path, tmp_path: Path
) -> None:
    config = tiny_config(tiny_model, tiny_data, tmp_path, whole_head_every=4)
    run = train.assemble(train.load_parts(config))
    source = batch_iterator(1, head=run.head)(run.examples["train"], 4, 512, loop=True)
    asked: list[int] = []

    def loss(model: Any, *batch: mx.array) -> tuple[mx.array, mx.array]:
        asked.append(batch[4].size)
        return supervised_loss(model, *batch)

    cost = measured_cost(run.model, loss, list(islice(source, 8)))
    assert set(asked) == {0, 128} and 0 < cost.token_sec < cost.step_sec
    cost = measured_cost(run.model, loss, list(islice(source, 3)))  # none of these sees all ids
    assert 0 < cost.token_sec < cost.step_sec


def test_what_is_said_of_the_head() -> None:
    assert notes_on_head(None) == []
    (line,) = notes_on_head(StepHead(np.arange(6144, dtype=np.int32), 6))
    assert line.startswith("head      6,144 ids in most steps, the whole vocabulary in every 6th")
    assert len(line) <= 100
