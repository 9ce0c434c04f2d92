"""Examples as padded arrays: bucket widths, the order of an epoch, packing, shares of ranks."""

from __future__ import annotations

import hashlib
import math
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from gemma_lora.cli import UserError
from gemma_lora.device import on_gpu
from gemma_lora.prompts import render_prompt
from gemma_lora.splits import Row

if TYPE_CHECKING:
    import mlx.core as mx
    import numpy as np
    from mlx_lm.tokenizer_utils import TokenizerWrapper

MAX_WIDTHS = 15  # distinct padded widths of full batches; a last, smaller batch makes 16 shapes
# Paddings of the supervised positions, of each width, on a GPU: it compiles a step for each shape.
# Alpaca's lengths (489 real rows, drawn again to 52,000) made 63 to 82 shapes, batches of 4 and 8,
# when positions were only rounded up to 64, and make 30 or 31 with these, for 3 points more padding
# of positions (tests/measure_shapes.py).
MAX_POSITION_PADDINGS = 2
GPU_POSITIONS = 64  # supervised positions are a multiple of it there

# Where a database is learnt by heart, a step in so many sees the whole vocabulary and the others
# HEAD_IDS of its 262,144 ids. Without the former the ids left out take a fifth of the probability.
WHOLE_HEAD_EVERY, HEAD_IDS = 6, 6144
EMPTY = [0, 0]  # ids of a row that trains nothing: fills a batch up when ranks must share it


@dataclass(frozen=True)
class Example:
    """One tokenized row: `ids` (int32, all of it) of which those from `offset` on are trained."""

    ids: np.ndarray
    offset: int


class StepHead(NamedTuple):
    """What the softmax of training steps is over: `ids`, but all in every `whole_every`th step."""

    ids: np.ndarray  # int32 [K], ascending
    whole_every: int


def head_interval(given: int | None, prompt_context: str | None) -> int:
    """Every which step sees the whole vocabulary: as given, or as a CPU gains by it.

    Measured only where the prompt shows no schema: short rows, and the head half of a step.
    """
    by_heart = prompt_context in ("none", "values") and not on_gpu()
    return given or (WHOLE_HEAD_EVERY if by_heart else 1)


def step_head(data: Sequence[Example], vocabulary: int, whole_every: int) -> StepHead | None:
    """The ids of the rows and others up to HEAD_IDS, a multiple of 64; None: all, in every step.

    A database's questions and queries are written with a hundredth of the vocabulary. The others
    are its first ids, the commonest pieces.
    """
    import numpy as np

    own = np.unique(np.concatenate([row.ids for row in data]))
    wanted = max(HEAD_IDS, len(own))
    wanted += -wanted % 64
    if whole_every == 1 or wanted >= vocabulary:
        return None
    more = np.setdiff1d(np.arange(vocabulary, dtype=np.int32), own)
    return StepHead(np.union1d(own, more[: wanted - len(own)]).astype(np.int32), whole_every)


def bucket_widths(lengths: Sequence[int], limit: int = MAX_WIDTHS, multiple: int = 4) -> list[int]:
    """Choose at most `limit` padded widths (multiples of `multiple`) that waste fewest tokens.

    Exact, by dynamic programming over the sorted rounded lengths: each row is padded to the
    smallest chosen width that holds it. Returns ascending widths; the last holds every row.
    """
    import numpy as np

    rounded = [math.ceil(n / multiple) * multiple for n in lengths]
    sizes, counts = np.unique(rounded, return_counts=True)
    rows = np.concatenate([[0], np.cumsum(counts)])
    best = sizes * rows[1:]  # tokens when sizes[0..j] share one width, sizes[j]
    cuts: list[np.ndarray] = []
    for _ in range(min(limit, len(sizes)) - 1):
        # cost[i, j]: the rows up to i solved before, those after it padded to sizes[j].
        cost = best[:, None] + sizes[None, :] * (rows[None, 1:] - rows[1:, None])
        cost = np.where(np.arange(len(sizes))[:, None] < np.arange(len(sizes)), cost, 2**62)
        cost[0, 0] = best[0]
        cut = cost.argmin(0)
        improved = cost[cut, np.arange(len(sizes))]
        cuts.append(np.where(improved < best, cut, -1))
        best = np.minimum(best, improved)
    widths = [int(sizes[-1])]
    position = len(sizes) - 1
    for cut in reversed(cuts):
        if cut[position] >= 0:
            position = int(cut[position])
            widths.append(int(sizes[position]))
    return sorted(widths)


def epoch_batches(
    lengths: Sequence[int], widths: Sequence[int], batch_size: int, seed: int, epoch: int
) -> list[list[int]]:
    """All rows of one epoch as batches of indices: near in length, otherwise at random."""
    import numpy as np

    draw = np.random.default_rng([seed, epoch])
    bucket = np.searchsorted(widths, lengths)
    order = np.lexsort((draw.random(len(lengths)), bucket))
    batches = [order[i : i + batch_size].tolist() for i in range(0, len(order), batch_size)]
    return [batches[i] for i in draw.permutation(len(batches))]


def balanced_shares(lengths: Sequence[int], count: int) -> list[list[int]]:
    """Rows of these lengths as `count` shares of about as many tokens: indices of rows.

    The longest row first, each to the share that has least (Graham's rule: no share is over 4/3 of
    the best possible). Rows keep their order inside a share; fewer rows than shares leave empty
    ones.
    """
    shares: list[list[int]] = [[] for _ in range(count)]
    tokens = [0] * len(shares)
    for i in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        least = min(range(len(shares)), key=lambda k: (tokens[k], len(shares[k]), k))
        shares[least].append(i)
        tokens[least] += lengths[i]
    return [sorted(share) for share in shares]


def padded_tokens(lengths: Sequence[int], batch_size: int, seed: int, ranks: int = 1) -> int:
    """Tokens of the first epoch's batches as `ranks` lay them out, padding included."""
    widths, total = bucket_widths(lengths), 0
    for batch in epoch_batches(lengths, widths, batch_size, seed, 0):
        rows = [lengths[i] for i in batch]
        for share in balanced_shares(rows, ranks):
            longest = max((rows[i] for i in share), default=0)
            total += len(share) * widths[bisect_left(widths, longest)]
    return total


class Padding(NamedTuple):
    """To which sizes batches are padded."""

    widths: Sequence[int]  # of tokens, ascending
    multiple: int = 16  # of the supervised positions
    positions: Mapping[int, Sequence[int]] = MappingProxyType({})  # {width: larger steps of them}

    def shape(self, rows: Sequence[Example]) -> tuple[int, int]:
        """(W, S) of a batch: its width, and its supervised positions."""
        longest = max(len(row.ids) - 1 for row in rows)
        width = next((w for w in self.widths if w >= longest), longest)
        trained = max(1, sum(len(row.ids) - row.offset for row in rows))
        rounded = math.ceil(trained / self.multiple) * self.multiple
        return width, next((n for n in self.positions.get(width, ()) if n >= trained), rounded)


def plain_padding(data: Sequence[Example]) -> Padding:
    """How batches are padded where no step is compiled: positions to a multiple."""
    widths = bucket_widths([len(row.ids) - 1 for row in data])
    return Padding(widths, GPU_POSITIONS if on_gpu() else 16)


def padding_of(
    data: Sequence[Example], batch_size: int, seed: int, rank: int = 0, size: int = 1
) -> Padding:
    """How the batches of a training are padded.

    On a CPU every shape is as good as another. A GPU compiles the step anew for each: there the
    positions of each width have MAX_POSITION_PADDINGS sizes, those that pad the first epoch least
    (a later batch beyond them is rounded up).
    """
    plain = plain_padding(data)
    if not on_gpu():
        return plain
    lengths = [len(row.ids) - 1 for row in data]
    found: dict[int, list[int]] = {}
    for batch in epoch_batches(lengths, plain.widths, batch_size, seed, 0):
        width, positions = plain.shape(rank_share(batch, data, rank, size))
        found.setdefault(width, []).append(positions)
    limit = MAX_POSITION_PADDINGS
    sizes = {width: bucket_widths(seen, limit, GPU_POSITIONS) for width, seen in found.items()}
    return plain._replace(positions=sizes)


def epoch_shapes(data: Sequence[Example], batch_size: int, seed: int) -> int:
    """How many different shapes the batches of the first epoch have."""
    lengths = [len(row.ids) - 1 for row in data]
    padding = padding_of(data, batch_size, seed)
    batches = epoch_batches(lengths, padding.widths, batch_size, seed, 0)
    return len({(len(b), *padding.shape([data[i] for i in b])) for b in batches})


def pack(
    rows: Sequence[Example], padding: Padding
) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Lay examples out as arrays.

    Returns tokens [B, W] (inputs, padded with 0), positions [S] (which of the B*W inputs predict a
    trained token), targets [S] (those tokens; -1 pads them to S) and the number trained.
    The last token of a row is only a target, so W counts one less than the longest row.
    """
    import numpy as np

    width, positions = padding.shape(rows)
    tokens = np.zeros((len(rows), width), np.int32)
    places, targets = [], []
    for i, row in enumerate(rows):
        tokens[i, : len(row.ids) - 1] = row.ids[:-1]
        places.append(np.arange(row.offset - 1, len(row.ids) - 1, dtype=np.int32) + i * width)
        targets.append(row.ids[row.offset :])
    trained = sum(map(len, targets))
    pad = positions - trained
    flat = np.concatenate([*places, np.zeros(pad, np.int32)])
    aims = np.concatenate([*targets, np.full(pad, -1, np.int32)])
    return tokens, flat, aims, trained


def rank_share(
    batch: Sequence[int], data: Sequence[Example], rank: int, size: int
) -> list[Example]:
    """This rank's rows of a batch: about as many tokens as every other's, an empty row if none."""
    import numpy as np

    share = balanced_shares([len(data[i].ids) - 1 for i in batch], size)[rank]
    return [data[batch[i]] for i in share] or [Example(np.array(EMPTY, np.int32), len(EMPTY))]


def batches_from(
    data: Sequence[Example], batch_size: int, seed: int, start: int, loop: bool
) -> Iterator[list[int]]:
    """Batches of indices: epochs without end beginning at batch `start`, or all rows once."""
    lengths = [len(row.ids) - 1 for row in data]
    if not loop:
        by_length = sorted(range(len(data)), key=lengths.__getitem__)
        yield from (by_length[i : i + batch_size] for i in range(0, len(data), batch_size))
        return
    widths = bucket_widths(lengths)
    epoch, skip = divmod(start, math.ceil(len(data) / batch_size))
    while True:
        yield from epoch_batches(lengths, widths, batch_size, seed, epoch)[skip:]
        epoch, skip = epoch + 1, 0


def batch_iterator(
    seed: int, window: int = 1, start: int = 0, head: StepHead | None = None
) -> Callable[..., Iterator[tuple]]:
    """Make the function that mlx-lm calls for batches, beginning at micro-step `start`.

    Training (`loop=True`): epochs in seeded order without end, no row dropped, and the weight of a
    batch is such that mlx-lm's plain averages over an accumulation `window` and over ranks become
    the average over the window's trained tokens. Validation: every row once, in a fixed order.
    With a `head` a training batch ends with the ids that its softmax is over; none means all.
    """
    import mlx.core as mx

    def iterate(
        dataset: Sequence[Example],
        batch_size: int,
        max_seq_length: int,
        loop: bool = False,
        comm_group: Any = None,
    ) -> Iterator[tuple[mx.array, ...]]:
        rank, size = (comm_group.rank(), comm_group.size()) if comm_group else (0, 1)
        padding = plain_padding(dataset)
        if loop:
            padding = padding_of(dataset, batch_size, seed, rank, size)
        together = window if loop else 1
        some, all_ids = mx.array(head.ids if head else []), mx.array([], mx.int32)
        step = start
        source = batches_from(dataset, batch_size, seed, start, loop)
        while group := [b for _, b in zip(range(together), source)]:  # noqa: B905
            total = sum(len(dataset[i].ids) - dataset[i].offset for b in group for i in b)
            for batch in group:
                rows = rank_share(batch, dataset, rank, size)
                tokens, places, targets, mine = pack(rows, padding)
                # mlx-lm multiplies a validation loss by its own token count, a training loss
                # by 1 / (window * ranks): weigh so that sums of token losses are what is left.
                weight = together * size / max(total, 1) if loop else 1 / max(mine, 1)
                if loop:  # reaches dropout inside the compiled step; nothing to save for a resume
                    key = hashlib.sha256(f"{seed} {step} {rank}".encode()).digest()
                    mx.random.seed(int.from_bytes(key[:8], "little"))
                step += 1
                ids = [some if step % head.whole_every else all_ids] if head and loop else []
                yield mx.array(tokens), mx.array(places), mx.array(targets), mx.array(weight), *ids

    return iterate


def tokenize(rows: Sequence[Row], tokenizer: TokenizerWrapper, longest: int) -> list[Example]:
    """Rows as examples; those over `longest` tokens are left out, never cut."""
    import numpy as np

    texts = [row["text"] for row in rows]
    heads = [render_prompt(row["prompt"]) for row in rows]
    # The wrapped fast tokenizer works in batches, on all cores.
    encode_all = tokenizer._tokenizer
    whole = encode_all(texts, add_special_tokens=False)["input_ids"]
    prompts = encode_all(heads, add_special_tokens=False)["input_ids"]
    examples = []
    for ids, prompt in zip(whole, prompts, strict=True):
        if ids[: len(prompt)] != prompt:
            raise UserError("the prompt's tokens do not lead the example's: wrong tokenizer?")
        if len(ids) <= longest:
            examples.append(Example(np.array(ids, np.int32), len(prompt)))
    return examples
