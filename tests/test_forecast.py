"""What a run will take: the arithmetic as laws, the measurement on a tiny real model."""

from __future__ import annotations

import math
from itertools import islice
from pathlib import Path

import mlx.core as mx
import pytest
from conftest import tiny_config
from hypothesis import given
from hypothesis import strategies as st

import train
from gemma_lora.confidence import CONFIDENCE_ROWS
from gemma_lora.forecast import FORWARD_SHARE, Cost, Pace, Schedule, duration_text, measured_cost
from gemma_lora.loss import supervised_loss
from gemma_lora.models import named_arrays

SCHEDULES = st.builds(
    Schedule, st.integers(2, 400), st.integers(1, 150), st.integers(1, 99), st.integers(0, 300)
)


def run_through(schedule: Schedule, step_sec: float, row_sec: float) -> list[tuple[float, float]]:
    """A run by the clock: (seconds left as told, seconds left in truth) after each step."""
    pace, now, told = Pace(schedule), 0.0, []
    validation_sec = row_sec * schedule.val_rows
    pace.validated(validation_sec)  # that of step 0
    for step in range(1, schedule.total_iters + 1):
        now += step_sec
        told.append((pace.stepped(step, now), now))
        if step % schedule.steps_per_eval == 0 or step == schedule.total_iters:
            now += validation_sec
            pace.validated(validation_sec)
    end = now + row_sec * schedule.rows_at_end
    return [(left, end - then) for left, then in told if left is not None]


@given(SCHEDULES, st.floats(0.01, 50), st.floats(0, 2))
def test_a_steady_run_is_foretold_to_the_second(
    schedule: Schedule, step_sec: float, row_sec: float
) -> None:
    """Steps, validations on the way and at the end: none is left out or counted twice."""
    found = run_through(schedule, step_sec, row_sec)
    assert len(found) == schedule.total_iters - 1  # one step is no pace yet
    for left, truth in found:
        assert left == pytest.approx(truth, rel=1e-6, abs=1e-6)


def test_the_slow_first_step_is_left_out_of_the_pace() -> None:
    pace = Pace(Schedule(100, 100, 1, 0))
    assert pace.stepped(1, 60.0) is None  # compiled
    assert pace.stepped(2, 61.0) == pytest.approx(98.0)


@given(SCHEDULES, st.integers(0, 3), st.floats(0.001, 1), st.floats(1, 1e4))
def test_what_is_expected_follows_from_the_cost(
    schedule: Schedule, step: int, token_sec: float, tokens: float
) -> None:
    step = min(step, schedule.total_iters - 1)
    cost = Cost(token_sec * 600, token_sec)
    validation_sec = FORWARD_SHARE * token_sec * tokens
    steps = (schedule.total_iters - step) * cost.step_sec
    validations = (schedule.expected_seconds(step, cost, tokens) - steps) / validation_sec
    during = {0, schedule.total_iters, *range(0, schedule.total_iters, schedule.steps_per_eval)}
    at_end = schedule.rows_at_end / schedule.val_rows
    assert validations == pytest.approx(sum(at >= step for at in during) + at_end, abs=1e-3)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "0 s"), (59, "59 s"), (59.6, "1 min"), (3540, "59 min"), (3599, "1 h 0 min"),
     (7500, "2 h 5 min")],
)  # fmt: skip
def test_durations_as_a_person_says_them(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text


def test_measuring_changes_no_weight_and_costs_a_middling_batch(
    tiny_model: Path, tiny_data: Path, tmp_path: Path
) -> None:
    run = train.assemble(train.load_parts(tiny_config(tiny_model, tiny_data, tmp_path)))
    before = {n: w.tolist() for n, w in named_arrays(run.model.trainable_parameters()).items()}
    source = train.batch_iterator(1)(run.examples["train"], 4, 512, loop=True)
    batches = list(islice(source, 9))
    asked: list[int] = []

    def loss(model: object, tokens: mx.array, *more: mx.array) -> tuple[mx.array, mx.array]:
        asked.append(tokens.size)
        return supervised_loss(model, tokens, *more)  # type: ignore[arg-type]

    cost = measured_cost(run.model, loss, batches)
    sizes = sorted(batch[0].size for batch in batches)
    assert set(asked) == {sizes[4]}
    assert 0 < cost.token_sec < cost.step_sec < 60
    assert cost.step_sec / cost.token_sec == pytest.approx(sum(sizes) / 9)
    after = {n: w.tolist() for n, w in named_arrays(run.model.trainable_parameters()).items()}
    assert before == after and math.isfinite(train.expected_seconds(run))


def test_the_forecast_counts_the_rows_that_tell_when_it_is_sure(
    tiny_model: Path, tiny_data: Path, tmp_path: Path
) -> None:
    """The threshold of a SQL training is found after its last step; a quick test leaves it out."""
    found = []
    for quick in (False, True):
        config = tiny_config(tiny_model, tiny_data, tmp_path, quick_test=quick)
        run = train.assemble(train.load_parts(config))
        found.append(run.log.pace.schedule.rows_at_end)
    assert found == [min(CONFIDENCE_ROWS, len(run.validator.examples)), 0]
