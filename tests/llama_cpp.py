"""A real llama.cpp for tests: load a GGUF, tokenize, render, complete, over loopback.

It comes in the PyPI package xllamacpp, one server in this process for each file. One thread: two
spin against each other on a busy machine.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

# HTML's </s> is a piece of Gemma's vocabulary; other models end a text with it, and llama.cpp says
# so. The other is about the server, which listens on loopback only.
EXPECTED_WARNINGS = ("</s>", "no API key is set")


class Llama:
    """One model in llama.cpp. `log` is what it said while loading."""

    def __init__(self, path: Path, context: int = 512, exact: bool = True) -> None:
        """Load `path`; `exact` keeps the cache in float32, which is not llama.cpp's default."""
        import xllamacpp

        params = xllamacpp.CommonParams()
        params.model.path = str(path)
        params.n_ctx, params.n_parallel, params.n_gpu_layers = context, 1, 0
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
        params.warmup, params.verbosity = False, 4  # else the loader's own warnings are not said
        if exact:
            params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
        with captured_stderr() as said:
            start = time.perf_counter()
            self.server = xllamacpp.Server(params)
            self.load_sec = time.perf_counter() - start
            written = -1
            while written != (written := os.fstat(2).st_size):  # a thread of its own writes the log
                time.sleep(0.5)
        self.log = said[0]

    def ask(self, where: str, **given: Any) -> Any:
        """The answer of one of the server's addresses."""
        request = urllib.request.Request(
            f"{self.server.listening_address}{where}",
            json.dumps(given).encode() if given else None,
            {"Content-Type": "application/json"},
        )
        try:
            # The server tells about each request; only what it says while loading is of interest.
            with captured_stderr(), urllib.request.urlopen(request, timeout=600) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            raise RuntimeError(f"{where}: {error.read().decode()[:500]}") from None

    def tokenize(self, text: str, add_special: bool = False) -> list[int]:
        """The ids of a text, control tokens that are spelt in it taken as such."""
        given = {"content": text, "add_special": add_special, "parse_special": True}
        return list(self.ask("/tokenize", **given)["tokens"])

    def render(self, messages: Sequence[dict[str, str]]) -> str:
        """What the chat route makes of messages, by the template in the file."""
        return str(self.ask("/apply-template", messages=list(messages))["prompt"])

    def log_probs(self, ids: Sequence[int], vocabulary: int, top: int = 0) -> np.ndarray:
        """The log-probability of every token after `ids`, or of the `top` best.

        They are of the logits as computed. That it then says "a" only keeps the answer from being
        a stop token or half a character, for which it gives none.
        """
        answer = self.ask(
            "/completion", prompt=list(ids), n_predict=1, n_probs=top or vocabulary, temperature=0,
            cache_prompt=False, logit_bias=[["a", 1000.0]],
        )  # fmt: skip
        found = np.full(vocabulary, -np.inf)
        for entry in answer["completion_probabilities"][0]["top_logprobs"]:
            found[entry["id"]] = entry["logprob"]
        return found

    def greedy(self, ids: Sequence[int], tokens: int) -> tuple[list[int], dict[str, Any]]:
        """The most likely next tokens (without the one that stops), and the server's answer."""
        answer = self.ask(
            "/completion", prompt=list(ids), n_predict=tokens, temperature=0, top_k=1,
            repeat_penalty=1.0, return_tokens=True, cache_prompt=False,
        )  # fmt: skip
        return list(answer["tokens"]), answer

    def warnings(self) -> list[str]:
        """What it warned about while loading, besides what is expected."""
        lines = [line for line in self.log.splitlines() if " W " in line or " E " in line]
        return [line for line in lines if not any(known in line for known in EXPECTED_WARNINGS)]

    def close(self) -> None:
        """Stop the server; what it says then is of no interest.

        One that was asked nothing may not have begun its loop yet and then never ends: ask it.
        """
        with captured_stderr():
            self.ask("/completion", prompt=[0], n_predict=1)
            del self.server


@contextmanager
def captured_stderr() -> Iterator[list[str]]:
    """What is written to file descriptor 2, by C++ too, as the only entry of the list."""
    said = [""]
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            yield said
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            file.seek(0)
            said[0] = file.read().decode(errors="replace")


@contextmanager
def llama(path: Path, **how: Any) -> Iterator[Llama]:
    """`Llama` for the time of a block."""
    model = Llama(path, **how)
    try:
        yield model
    finally:
        model.close()


def mlx_log_probs(model: Any, ids: Sequence[int]) -> np.ndarray:
    """The same as `Llama.log_probs`, of an MLX model."""
    import mlx.core as mx

    logits = model(mx.array([list(ids)]))[0, -1].astype(mx.float32)
    return np.array(logits - mx.logsumexp(logits))
