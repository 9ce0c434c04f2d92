"""mlx-lm's own programs on a published folder: generate, server, chat; answers as ours.

Every kind of base: one of the hub that was never tuned to chat (no template, ends at <eos> alone),
a folder with a template, and that folder quantized. What the card says is run as it stands there,
in the published folder alone.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from conftest import build_tiny_model, run_command, run_script, tiny_config
from hub_server import Hub

import dataset
import train
from gemma_lora import generation, prompts
from gemma_lora.adapters import load_finetuned

HUB_ID = "google/gemma-3-270m"
PATIENCE = 120  # seconds until a program that should have answered is taken for hung
TOKENS = 60
QUESTION = "Name three plants."  # one line, for the chat; answered otherwise than the training rows
SMALL = (
    "--compare", "--num-samples", 2, "--runs", 1, "--warmup", 0, "--max-tokens", 4,
    "--prompt-tokens", 12, "--generation-tokens", 4, "--batch-size", 1,
)  # fmt: skip


@dataclass(frozen=True)
class Published:
    """A folder as it is found on the hub, and what a reader has besides."""

    folder: Path  # the published one, alone
    base: Path  # the base's folder
    model: str  # how the reader names the base
    env: dict[str, str]
    tuned: Any  # our own way to answer

    @property
    def card(self) -> str:
        return (self.folder / "README.md").read_text()

    def answer(self, prompt: str) -> str:
        """Our own greedy answer to a prompt."""
        rendered = [prompts.render_prompt(prompt)]
        model = self.tuned.use("finetuned")
        said = generation.generate_batch(model, self.tuned.tokenizer, rendered, TOKENS)[0]
        assert said.finish_reason == "stop" and said.text.isascii()
        return said.text


def without_template(folder: Path) -> None:
    """Make of a model one that was never tuned to chat, as the hub has it."""
    (folder / "chat_template.jinja").unlink()
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings.pop("chat_template", None)
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"eos_token_id": 1}))


@pytest.fixture(scope="module")
def pets_data(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """Rows that are learnt in 60 steps: one answer to all of them."""
    folder = tmp_path_factory.mktemp("pets")
    lines = [f"How many are in group {i}?,SELECT COUNT(*) FROM pets" for i in range(40)]
    (folder / "rows.csv").write_text("\n".join(["question,answer", *lines]) + "\n")
    config = dataset.DatasetConfig(
        dataset_name=str(folder / "rows.csv"), output_dir=folder / "data", model=str(tiny_model),
        workers=1, valid_fraction=0.15, test_fraction=0.15, split_by="row", keep_unverified=True,
    )  # fmt: skip
    dataset.prepare(config)
    return config.output_dir


@pytest.fixture(scope="module", params=["hub", "folder", "quantized"])
def published(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, pets_data: Path
) -> Iterator[Published]:
    """An adapter trained, compared and published; the folder it was trained in is gone."""
    place, kind = tmp_path_factory.mktemp(request.param), request.param
    base = build_tiny_model(place / "base")
    if kind == "hub":
        without_template(base)
    cache = {"GEMMA_LORA_CACHE": str(place / "cache")}
    with pytest.MonkeyPatch.context() as patch, Hub({HUB_ID: base}, {}) as hub:
        patch.setenv("GEMMA_LORA_CACHE", str(place / "cache"))
        train.train(
            tiny_config(
                base, pets_data, place / "run", iters=60, learning_rate=2e-2, rank=16,
                steps_per_eval=60, save_every=60, quantize=4 if kind == "quantized" else None,
            )
        )  # fmt: skip
        tuned = load_finetuned(place / "run")
        env = cache | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
        if kind == "hub":
            env |= {"HF_ENDPOINT": hub.url, "HF_HOME": str(place / "hub"), "HF_HUB_OFFLINE": "0"}
            config = json.loads((place / "run/adapter_config.json").read_text())
            config |= {"model": HUB_ID, "base_model_path": None}
            (place / "run/adapter_config.json").write_text(json.dumps(config))
        flags = ("--adapter-path", place / "run", "--data", pets_data, *SMALL)
        done = run_script("benchmark.py", *flags, env=env)
        assert done.returncode == 0, done.stderr
        shutil.move(place / "run/publish", place / "alone")
        shutil.rmtree(place / "run")
        model = {"hub": HUB_ID, "folder": str(base), "quantized": "base-4bit"}[kind]
        found = Published(place / "alone", base, model, env, tuned)
        for command in commands_of(found)[1:-2]:  # what comes before generate
            made = shell(found, command)
            assert made.returncode == 0, made.stderr
        yield found


def commands_of(published: Published) -> list[str]:
    """The card's commands, with the reader's base where the card cannot know it."""
    blocks = re.findall(r"^```sh\n(.*?)^```", published.card, re.S | re.M)
    found = re.split(r"^(?=mlx_lm\.|pip )", "".join(blocks), flags=re.M)[1:]
    return [line.replace("PATH_OF_THE_BASE_MODEL", str(published.base)) for line in found]


def command_of(published: Published, program: str) -> str:
    """The one command of the card that runs a program."""
    found = [line for line in commands_of(published) if line.startswith(program)]
    assert len(found) == 1, published.card
    return found[0]


def shell(published: Published, command: str, **how: Any) -> subprocess.CompletedProcess[str]:
    """Run a command as a reader would, in the published folder; one that hangs is ended."""
    where = {"env": published.env, "cwd": published.folder, "timeout": PATIENCE}
    return run_command(["bash", "-c", f"exec {command}"], **where, **how)


@contextmanager
def serving(published: Published, command: str) -> Iterator[str]:
    """The address of an mlx_lm.server, which ends with the block; it must answer in time."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with (published.folder.parent / "server.log").open("w+") as said:
        process = subprocess.Popen(
            ["bash", "-c", f"exec {command.strip()} --port {port}"], cwd=published.folder,
            env=os.environ | published.env, stdout=said, stderr=said, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            wait_for(f"http://127.0.0.1:{port}/health", process, said)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def wait_for(address: str, process: subprocess.Popen[bytes], said: Any) -> None:
    """Return when a server answers; fail when it ended or is silent for too long."""
    for _ in range(PATIENCE * 5):
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            if process.poll() is not None:
                break
            time.sleep(0.2)
    said.seek(0)
    pytest.fail(f"no server at {address}: {said.read()[-2000:]}")


def complete(address: str, question: str, **more: Any) -> dict[str, Any]:
    """The answer to one chat-completions request."""
    asked = {"messages": [{"role": "user", "content": question}], "max_tokens": TOKENS, **more}
    request = urllib.request.Request(
        f"{address}/v1/chat/completions", json.dumps(asked).encode(),
        {"Content-Type": "application/json"},
    )  # fmt: skip
    with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
        found: dict[str, Any] = json.load(answer)
        return found


def test_generate_answers_as_we_do(published: Published) -> None:
    """The card's command as it stands there."""
    pets = "CREATE TABLE pets (name TEXT, age INT);"
    ours = published.answer(prompts.sql_prompt("How many pets are there?", pets))
    done = shell(published, command_of(published, "mlx_lm.generate"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("==========")[1].strip("\n") == ours


def test_the_server_answers_as_we_do(published: Published) -> None:
    """A chat-completions request over loopback to the card's command."""
    ours = published.answer(QUESTION)
    with serving(published, command_of(published, "mlx_lm.server")) as address:
        answer = complete(address, QUESTION, stop=[prompts.END_OF_TURN])
        choice = answer["choices"][0]
        assert (choice["message"]["content"], choice["finish_reason"]) == (ours, "stop")
        ids = prompts.encode(published.tuned.tokenizer, prompts.render_prompt(QUESTION))
        assert answer["usage"]["prompt_tokens"] == len(ids)
        # Only a base that ends at <eos> alone needs to be told what ends a turn.
        plain = complete(address, QUESTION)["choices"][0]["message"]["content"]
        ends = prompts.END_OF_TURN if published.model == HUB_ID else ""
        assert plain == ours + ends


def test_the_server_without_the_template(published: Published) -> None:
    """Why the card gives it: right where the base has one, another prompt where it has none."""
    command = f"mlx_lm.server --model {published.model} --adapter-path ."
    with serving(published, command) as address:
        answer = complete(address, QUESTION, stop=[prompts.END_OF_TURN])
    said = answer["choices"][0]["message"]["content"]
    assert (said == published.answer(QUESTION)) == (published.model != HUB_ID)


def test_the_chat_answers_as_we_do(published: Published, tmp_path: Path) -> None:
    """Typed into mlx_lm.chat; a base without a template is given the folder's first."""
    command = "mlx_lm.chat --model {} --adapter-path ."
    typed, model = f"{QUESTION}\nq\n", published.model
    if published.model == HUB_ID:
        refused = shell(published, command.format(HUB_ID), stdin=typed)
        assert refused.returncode != 0 and "tokenizer.chat_template is not set" in refused.stderr
        model = str(shutil.copytree(published.base, tmp_path / "base"))
        shutil.copyfile(
            published.folder / "chat_template.jinja", Path(model, "chat_template.jinja")
        )
    done = shell(published, command.format(model), stdin=typed)
    assert done.returncode == 0, done.stderr
    ends = prompts.END_OF_TURN if published.model == HUB_ID else ""
    assert published.answer(QUESTION) + ends in done.stdout.splitlines()
    assert "bye" in done.stdout
