"""The processes that share a batch on a CPU, the cores there are, and the threads of the BLAS.

On a CPU MLX computes a graph in one thread, so everything that is not a matrix product uses one
core, and the BLAS's own threads wait for each other. A batch's rows are therefore shared out over
processes: ranks of MLX's ring (`mx.distributed`) on the loopback. A GPU needs none of this.

Why not otherwise, each measured on 2 cores against one process with two BLAS threads: two MLX
streams in one process take turns (0.6 times as fast), and `mlx.launch`, which starts such ranks
too, polls them without a pause and so takes a core for itself (0.6 times); ranks without it are 1.1
to 1.2 times as fast.

What this does not cover: who divides the rows (`batches.rank_share`).
"""

from __future__ import annotations

import ctypes
import json
import math
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO

from gemma_lora.cli import UserError
from gemma_lora.device import on_gpu, openblas_path, prepare_process
from gemma_lora.files import ROOT

CGROUPS = Path("/sys/fs/cgroup")
SMALL_GB = 0.5  # a smaller training is over before a second process would have started
PR_SET_PDEATHSIG = 1  # of Linux's prctl: a signal for the child when its parent is gone
CONNECTION_LOST = "[ring]"  # how MLX's messages about a lost connection begin


# --- How many -----------------------------------------------------------------------------------


def plan_processes(rows: int, peak_gb: float, given: int | None = None) -> int:
    """How many processes share a batch of `rows` rows: `given`, else one a core.

    Never more than rows, and one on a GPU. Unless `given`, no more than the free memory holds, each
    with `peak_gb`, and one for a small training and where this process is itself one of several or
    may open no port.
    """
    if on_gpu():
        return 1
    if given is None and (is_rank() or peak_gb < SMALL_GB or not may_listen()):
        return 1
    fitting = int(free_memory_bytes() / 1e9 // peak_gb)
    return max(1, min(rows, given or min(usable_cores(), fitting)))


def is_rank() -> bool:
    """Whether this process was started as one of several that compute together."""
    return bool({"MLX_HOSTFILE", "OMPI_COMM_WORLD_SIZE"} & set(os.environ))


def usable_cores() -> int:
    """Cores that this process may use: its affinity and the quotas of its control groups."""
    # macOS has no affinity to ask for.
    count = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    return max(1, math.ceil(min(count, cgroup_cores())))


def free_memory_bytes() -> float:
    """Memory that may be taken now: the system's, and what the control groups leave."""
    found = [float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))]
    with suppress(OSError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = next(line.split()[1] for line in lines if line.startswith("MemAvailable:"))
        found.append(1024.0 * int(free))
    for folder in cgroup_folders("memory"):
        for limit, used in (
            ("memory.max", "memory.current"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes"),
        ):
            with suppress(OSError, ValueError):  # "max" is no limit
                taken = int((folder / used).read_text())
                found.append(float(int((folder / limit).read_text()) - taken))
    return max(0.0, min(found))


def cgroup_folders(
    controller: str, groups: Path = Path("/proc/self/cgroup"), root: Path = CGROUPS
) -> list[Path]:
    """Folders of this process's control groups that a controller is in, and of those above."""
    found: list[Path] = []
    with suppress(OSError):
        for line in groups.read_text().splitlines():
            _, controllers, name = line.split(":", 2)
            if controllers and controller not in controllers.split(","):
                continue
            top = root if not controllers else root / controller
            inside = top / name.lstrip("/")
            found += [f for f in (inside, *inside.parents) if f == top or top in f.parents]
    return found


def cgroup_cores(groups: Path = Path("/proc/self/cgroup"), root: Path = CGROUPS) -> float:
    """The smallest CPU quota, in cores, of this process's control group and those above it.

    Reads version 2 (`cpu.max`) and version 1 (`cpu.cfs_quota_us`); infinity where there is none.
    """
    quotas = [quota(folder) for folder in cgroup_folders("cpu", groups, root)]
    return min((cores for cores in quotas if cores is not None), default=math.inf)


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
        # The ring's file: a list of addresses for each rank, as [["10.0.0.1:32323"], ...].
        hosts = json.loads(Path(os.environ["MLX_HOSTFILE"]).read_text())
        machines = [addresses[0].rpartition(":")[0] for addresses in hosts]
        return machines.count(machines[int(os.environ["MLX_RANK"])])
    return 1


def share_blas(processes: int) -> None:
    """Leave each of `processes` its part of the cores as BLAS threads.

    Two BLAS threads on one core spin against each other: beside one busy process training keeps
    less than half of its speed with them. A user's own OPENBLAS_NUM_THREADS stays as it is. Only
    OpenBLAS is told; macOS's Accelerate shares out by itself.
    """
    if os.environ.get("OPENBLAS_NUM_THREADS") or not (path := openblas_path()):
        return  # an empty one says nothing
    threads = max(1, usable_cores() // (local_ranks() if is_rank() else processes))
    ctypes.CDLL(path).openblas_set_num_threads(threads)


# --- Side by side -------------------------------------------------------------------------------


@contextmanager
def side_by_side(count: int, script: str, flags: Sequence[str]) -> Iterator[None]:
    """Have `count - 1` more processes run a script's `main(flags)`, as ranks of a ring with this.

    This process is rank 0; its distributed world, which MLX makes once in a process, is the ring
    from here on. The others say nothing. Raises UserError when one of them ends before its time.
    """
    if count == 1 or is_rank():
        yield
        return
    import mlx.core as mx

    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        hosts = scratch / "hosts.json"
        hosts.write_text(json.dumps([[f"127.0.0.1:{port}"] for port in free_ports(count)]))
        log = stack.enter_context((scratch / "said").open("w+b"))
        helpers = []
        for rank in range(1, count):
            helpers.append(start_helper(script, flags, hosts, rank, log))
            stack.callback(end_helper, helpers[-1])
        try:
            if not all(helper.stdout and helper.stdout.readline() for helper in helpers):
                raise RuntimeError(CONNECTION_LOST)
            os.environ |= {"MLX_HOSTFILE": str(hosts), "MLX_RANK": "0"}
            try:
                world = mx.distributed.init(strict=True)
            finally:
                del os.environ["MLX_HOSTFILE"], os.environ["MLX_RANK"]
            if world.size() != count:
                raise UserError("this process computed alone before: start anew for --processes")
            yield
            for helper in helpers:
                with suppress(subprocess.TimeoutExpired):
                    helper.wait(timeout=60)
        except RuntimeError as error:
            if CONNECTION_LOST not in str(error):
                raise
            raise UserError(why_ended(helpers, log)) from None


def may_listen() -> bool:
    """Whether this process may open a port of the loopback; a sandbox may forbid it."""
    try:
        return bool(free_ports(1))
    except OSError:
        return False


def free_ports(count: int) -> list[int]:
    """Ports of the loopback that nobody listens on."""
    with ExitStack() as stack:
        found = []
        for _ in range(count):
            found.append(stack.enter_context(socket.socket()))
            found[-1].bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in found]


def start_helper(
    script: str, flags: Sequence[str], hosts: Path, rank: int, log: IO[bytes]
) -> subprocess.Popen[bytes]:
    """Start one more process of a run. It writes a line when it is about to join the ring."""
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); from gemma_lora import ranks; "
        f"ranks.join_ring(); import {script}; sys.exit({script}.main(sys.argv[1:]))"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code, *flags],
        env=os.environ | {"MLX_HOSTFILE": str(hosts), "MLX_RANK": str(rank)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=log,
        start_new_session=True,  # Ctrl-C is for rank 0, whose wish to stop all ranks share
        preexec_fn=end_with_parent,
    )


def end_with_parent() -> None:
    """In a child: be killed when the parent is gone, even before the ring is closed."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def join_ring() -> None:
    """In a helper: say that it is there, and wait for the others."""
    prepare_process()
    import mlx.core as mx

    print("ready", flush=True)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # nobody reads on
    mx.distributed.init(strict=True)


def end_helper(helper: subprocess.Popen[bytes]) -> None:
    """Kill a helper that still runs: rank 0 alone writes, so nothing of it is lost."""
    helper.kill()
    helper.wait()
    if helper.stdout:
        helper.stdout.close()


def why_ended(helpers: Sequence[subprocess.Popen[bytes]], log: IO[bytes]) -> str:
    """What ended a run's other processes before their time, for the user."""
    for helper in helpers:
        with suppress(subprocess.TimeoutExpired):
            helper.wait(timeout=5)
    ends = [helper.returncode for helper in helpers if helper.returncode]
    log.seek(0)
    said = log.read().decode(errors="replace").strip().splitlines()
    status = ends[0] if ends else 0
    how = f"by signal {-status}" if status < 0 else f"with status {status}"
    last = f" ({said[-1].strip()})" if said else ""
    return (
        f"another process of this run ended {how}{last}; nothing since the last checkpoint was "
        "kept: go on with --resume, or with --processes 1 if memory ran out"
    )
