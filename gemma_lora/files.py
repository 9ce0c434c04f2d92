"""Files that are there whole or not at all, and how they are read back.

Promises: a reader sees the old file or the new one, never a part; several files that belong
together are never a mixture; what a killed run left is cleared away. Not covered: a disk that
lies about `fsync`, and folders that another machine writes to.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from gemma_lora.cli import UserError

if TYPE_CHECKING:
    import mlx.core as mx

Content = str | bytes | Iterable[str]
JsonObject = dict[str, Any]  # of a file from outside, whatever its keys
ROOT = Path(__file__).resolve().parent.parent  # of the four scripts
LINE_LENGTH = 2**26  # a line of a data file with so many characters is no row
PARTIAL = ".partial"  # ends the names of temporary files
STALE_SEC = 3600  # no conversion takes so long: a partial folder of that age is a dead run's
# What gguf, numpy and MLX raise for bytes that are not what they should be.
DAMAGE = (ArithmeticError, LookupError, MemoryError, OSError, RuntimeError, TypeError, ValueError)


def bounded_lines(lines: TextIO, path: Path) -> Iterator[str]:
    """The lines of an open text, as long as they are no longer than a row can sensibly be."""
    while line := lines.readline(LINE_LENGTH):
        if len(line) == LINE_LENGTH:
            raise UserError(f"{path} has a line of {LINE_LENGTH:,} or more characters: mend it")
        yield line


def read_json_lines(path: Path) -> Iterator[JsonObject]:
    """Yield the objects of a .jsonl file; bytes that are not UTF-8 become U+FFFD."""
    with path.open(encoding="utf-8-sig", errors="replace", newline="\n") as lines:
        for number, line in enumerate(bounded_lines(lines, path), 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise UserError(f"{path}, line {number} is not JSON ({error}): mend it") from None
            if not isinstance(row, dict):
                raise UserError(f"{path}, line {number} holds {type(row).__name__}, not an object")
            yield row


def model_cache() -> Path:
    """Folder that keeps converted models, one sub-folder each."""
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(os.environ.get("GEMMA_LORA_CACHE") or f"{base}/gemma3-mlx-lora").expanduser()


def sha256_of(path: Path) -> str:
    """Hex sha256 of a file; raises UserError when it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None


def write_atomic(path: Path, content: Content) -> None:
    """Write a file so that it is there whole or not at all; see `write_together`."""
    write_together({path: content})


def write_together(
    files: Mapping[Path, Content], voucher: Path | None = None, vouching: Content = b""
) -> None:
    """Write files whole or not at all: every one to a temporary name, flushed, then renamed.

    Whatever fails before the last byte is on the disk leaves all the old files as they were. A
    `voucher`, with its content, vouches for the others: it goes before they are replaced and comes
    after, so that no reader who asks for it sees a mixture of old and new, wherever a kill lands.
    """
    staged: dict[Path, str] = {}
    left = "nothing was replaced"
    path = voucher  # the one in work, for the error
    try:
        for path, content in [*files.items(), *([(voucher, vouching)] if voucher else [])]:
            staged[path] = stage(path, content)
        if voucher:
            path = voucher
            voucher.unlink(missing_ok=True)
            left = f"{voucher.name} was removed, for some of the files it vouches for are new"
        for path, temporary in staged.items():
            os.replace(temporary, path)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}; {left}") from None
    finally:
        for temporary in staged.values():
            with contextlib.suppress(OSError):
                os.unlink(temporary)


def stage(path: Path, content: Content) -> str:
    """Write a file's content, flushed, to a temporary name beside it; nothing stays on failure."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(PARTIAL, f".{path.name}.", path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            for block in [content] if isinstance(content, (str, bytes)) else content:
                file.write(block.encode() if isinstance(block, str) else block)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    return temporary


def require_writable(folder: Path) -> None:
    """Raise UserError when files cannot be made in `folder`: sooner than after all the work.

    A folder that is not there yet is not made, only looked for where it would be.
    """
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    try:
        tempfile.TemporaryFile(dir=there).close()
    except OSError as error:
        raise UserError(
            f"cannot write to {folder}: {error.strerror}; give another folder, or make room there"
        ) from None


def remove_leftovers(folder: Path, names: Iterable[str]) -> None:
    """Delete the temporary files of a run that was killed while it wrote files of these names."""
    for name in names:
        for ending in (PARTIAL, ".safetensors"):
            for path in folder.glob(f".{name}.*{ending}"):
                with contextlib.suppress(OSError):
                    path.unlink()


def json_lines(rows: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Rows as the lines of a JSONL file; keys keep their order, so equal rows give equal bytes."""
    return (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep a second training out of `folder`; the system drops the lock with the process."""
    import fcntl

    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / ".lock").open("w")
    except OSError as error:
        raise UserError(f"cannot write to --adapter-path {folder}: {error.strerror}") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"another training is writing to {folder}: wait for it, or give another "
                "--adapter-path"
            ) from None
        yield


@contextmanager
def partial_folder(target: Path) -> Iterator[Path]:
    """An empty folder beside `target`, to be filled and renamed to it; else it goes.

    What a kill left behind long ago, up to a gigabyte each time, goes first.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    for left in target.parent.glob(f".*{PARTIAL}"):
        with suppress(OSError):
            if time.time() - left.stat().st_mtime > STALE_SEC:
                shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(PARTIAL, ".", target.parent) as folder:
        inner = Path(folder) / target.name
        inner.mkdir()
        yield inner


def save_tensors(path: Path, tensors: dict[str, mx.array], metadata: dict[str, str]) -> None:
    """Write a safetensors file whole or not at all."""
    import mlx.core as mx

    # MLX appends .safetensors to any other ending.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.safetensors")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        mx.save_safetensors(str(temporary), tensors, metadata)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:
        raise UserError(f"cannot write {path} ({error}): the one before is untouched") from None
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def load_tensors(path: Path) -> tuple[dict[str, mx.array], dict[str, str]]:
    """Read a safetensors file at once (MLX reads late by itself): (tensors, metadata)."""
    import mlx.core as mx

    tensors, metadata = mx.load(str(path), return_metadata=True)  # type: ignore[misc]
    mx.eval(tensors)
    return tensors, metadata  # type: ignore[return-value]


def jsonable(settings: Mapping[str, Any]) -> JsonObject:
    """Settings with paths as text."""
    return {k: str(v) if isinstance(v, Path) else v for k, v in settings.items()}
