"""MLX streams side by side on a CPU, the cores there are, and the threads of the BLAS.

On a CPU MLX runs one stream in one thread, so everything that is not a matrix product uses one
core, and the BLAS's own threads wait for each other. Rows can be shared out over several streams. A
GPU needs none of this: one stream there, always.

What this does not cover: who divides the rows (`batches.balanced_shares`), and what is computed on
a stream (`loss.supervised_loss`). The functions that differentiate by hand have to be told their
stream, because they are called when the `with` around their forward pass has long ended
(`device.current_stream`).
"""

from __future__ import annotations

import ctypes
import functools
import json
import math
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from gemma_lora.device import current_stream, on_gpu, openblas_path

if TYPE_CHECKING:
    import mlx.core as mx

CGROUPS = Path("/sys/fs/cgroup")


@functools.cache
def share_streams(count: int) -> Sequence[mx.Stream]:
    """`count` streams for the shares of a batch, the default one first; the same every time.

    A stream is a thread that stays until the process ends, so they are made once.
    """
    import mlx.core as mx

    if count <= 1:
        return (current_stream(),)
    return (*share_streams(count - 1), mx.new_stream(mx.default_device()))


def usable_cores() -> int:
    """Cores that this process may use: its affinity and the quotas of its control groups."""
    # macOS has no affinity to ask for.
    count = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    return max(1, math.ceil(min(count, cgroup_cores())))


def cgroup_cores(groups: Path = Path("/proc/self/cgroup"), root: Path = CGROUPS) -> float:
    """The smallest CPU quota, in cores, of this process's control group and those above it.

    Reads version 2 (`cpu.max`) and version 1 (`cpu.cfs_quota_us`); infinity where there is none.
    """
    found = [math.inf]
    with suppress(OSError):
        for line in groups.read_text().splitlines():
            _, controllers, name = line.split(":", 2)
            if controllers and "cpu" not in controllers.split(","):
                continue
            top = root if not controllers else root / "cpu"
            inside = top / name.lstrip("/")
            folders = [f for f in (inside, *inside.parents) if f == top or top in f.parents]
            found += [cores for folder in folders if (cores := quota(folder)) is not None]
    return min(found)


def quota(folder: Path) -> float | None:
    """The CPU quota, in cores, that one control group sets; None when it sets none."""
    with suppress(OSError, ValueError, ZeroDivisionError):
        if (both := folder / "cpu.max").exists():
            limit, period = both.read_text().split()
        else:
            limit = (folder / "cpu.cfs_quota_us").read_text()
            period = (folder / "cpu.cfs_period_us").read_text()
        cores = int(limit) / int(period)  # version 2 says "max" for none, version 1 says -1
        return cores if cores > 0 else None
    return None


def local_ranks() -> int:
    """How many processes of a distributed run share this machine, this one included."""
    if size := os.environ.get("OMPI_COMM_WORLD_LOCAL_SIZE"):
        return max(1, int(size))
    with suppress(OSError, ValueError, KeyError, IndexError):
        # mlx.launch's ring: a list of addresses for each rank, as [["10.0.0.1:32323"], ...].
        hosts = json.loads(Path(os.environ["MLX_HOSTFILE"]).read_text())
        machines = [addresses[0].rpartition(":")[0] for addresses in hosts]
        return machines.count(machines[int(os.environ["MLX_RANK"])])
    return 1


def plan_streams(rows: int, given: int | None = None) -> int:
    """How many streams a batch of `rows` rows is computed on: `given`, else one.

    Never more than rows, and one on a GPU, whatever was given. One is the default because two were
    slower where they were measured, 30 against 47 supervised tokens/s on 2 quiet cores: they took
    turns. Beside other programs one BLAS thread
    (OPENBLAS_NUM_THREADS=1) helps more.
    """
    return 1 if on_gpu() else max(1, min(rows, given or 1))


def share_blas(streams: int) -> None:
    """Leave each of `streams` streams its part of the cores as BLAS threads.

    Two BLAS threads beside two streams spin against each other: beside one busy process they take
    training to a fifth of its speed. A user's own OPENBLAS_NUM_THREADS stays as it is. Only
    OpenBLAS is told; macOS's Accelerate shares out by itself.
    """
    if os.environ.get("OPENBLAS_NUM_THREADS") or not (path := openblas_path()):
        return  # an empty one says nothing
    threads = max(1, usable_cores() // local_ranks() // streams)
    ctypes.CDLL(path).openblas_set_num_threads(threads)
