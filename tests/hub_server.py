"""A small hub on 127.0.0.1: serves folders as model and data set repositories, with faults.

It answers what huggingface_hub 2.4, datasets 5.2 and fsspec ask when they load a repository: the
info, tree and paths-info calls of the API, and HEAD and GET of files by revision, with ETag,
X-Repo-Commit and Range. It never offers xet. A `Fault` replaces the answer to the requests it
matches, a given number of times; `Hub.requests` is the log.

Not as the hub: plain http, one commit a repository, no pagination, no redirects to a CDN except
as a fault.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
FOREVER = 1_000_000
API = re.compile(
    r"/api/(models|datasets)/([^/]+/[^/]+?)(?:/(revision|tree|paths-info)/([^/]+)(?:/(.+))?)?/?"
)
FILE = re.compile(r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)")


@dataclass
class Fault:
    """Another answer to the next `times` requests for `repository` ("" for all).

    Those only in whose "METHOD /path" the pattern `where` is found.
    `status` answers with that status and `headers`; `cut_at` breaks the connection after so many
    bytes of the body; `length_off` is added to the Content-Length of HEAD and of the tree;
    `delay_sec` waits before the ordinary answer.
    """

    repository: str = ""
    where: str = ""
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    cut_at: int | None = None
    length_off: int = 0
    delay_sec: float = 0.0
    times: int = FOREVER


@dataclass(frozen=True)
class Request:
    """One line of the log; `token` is what stood behind "Bearer", None without one."""

    line: str
    token: str | None
    status: int


class Hub(ThreadingHTTPServer):
    """Serves `models` and `datasets`, {"owner/name": folder}, until `with` ends.

    Files of repositories named in `gated` want `token`, as on the hub, where what the API says
    of them is public. `stranger` is an account that has not accepted their licence; any other
    token is refused.
    """

    daemon_threads = True

    def __init__(
        self,
        models: Mapping[str, Path],
        datasets: Mapping[str, Path],
        gated: Collection[str] = (),
        token: str = "",
        stranger: str = "",
    ) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.repositories = {"models": dict(models), "datasets": dict(datasets)}
        self.gated, self.token, self.stranger = gated, token, stranger
        self.faults: list[Fault] = []
        self.requests: list[Request] = []
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def __enter__(self) -> Hub:
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: Any) -> None:
        self.shutdown()
        self.server_close()

    def handle_error(self, *_: Any) -> None:
        """Clients that go away are part of what is tested."""

    def fault(self, line: str) -> Fault:
        """The first fault that matches, used up by one; else one that does nothing."""
        with self.lock:
            for fault in self.faults:
                of_it = re.search(rf"{fault.repository}(/|$)", line)
                if fault.times > 0 and of_it and re.search(fault.where, line):
                    fault.times -= 1
                    return fault
        return Fault()

    def asked(self, pattern: str) -> list[Request]:
        """The requests so far whose line matches."""
        with self.lock:
            return [r for r in self.requests if re.search(pattern, r.line)]


def describe_file(path: Path, folder: Path) -> dict[str, Any]:
    """A file as the tree call lists it: git's blob hash for small ones, LFS for weights."""
    data = path.read_bytes()
    blob = hashlib.sha1(f"blob {len(data)}\0".encode() + data).hexdigest()
    entry: dict[str, Any] = {
        "type": "file", "oid": blob, "size": len(data), "path": path.relative_to(folder).as_posix()
    }  # fmt: skip
    if path.suffix in {".safetensors", ".parquet"}:
        sha256 = hashlib.sha256(data).hexdigest()
        entry["lfs"] = {"oid": sha256, "size": len(data), "pointerSize": 130}
    return entry


class Handler(BaseHTTPRequestHandler):
    """One connection; `self.server` is the Hub."""

    protocol_version = "HTTP/1.1"
    server: Hub
    planned: Fault

    def log_message(self, *_: Any) -> None:
        """Nothing on stderr; `reply` keeps the log."""

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def do_POST(self) -> None:
        self.answer()

    def bearer(self) -> str | None:
        return (self.headers.get("Authorization") or "").removeprefix("Bearer ") or None

    def answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = unquote(urlsplit(self.path).path)
        self.planned = self.server.fault(f"{self.command} {path}")
        time.sleep(self.planned.delay_sec)
        if self.planned.status:
            self.reply(self.planned.status, b"", self.planned.headers)
        elif match := API.fullmatch(path):
            self.answer_api(*match.groups(), body)
        elif match := FILE.fullmatch(path):
            self.answer_file(*match.groups())
        else:
            self.reply(404, b"{}")

    def folder(self, kind: str, name: str, files: bool) -> Path | None:
        """The repository's folder, or None after the hub's refusal was sent."""
        folder, hub = self.server.repositories[kind].get(name), self.server
        if self.bearer() not in (None, hub.token, hub.stranger):
            self.refuse(401, None, "Invalid credentials in Authorization header")
        elif folder is None:
            self.refuse(404, "RepoNotFound", "Repository not found")
        elif not files or name not in hub.gated or self.bearer() == hub.token:
            return folder
        elif self.bearer() is None:
            self.refuse(401, "GatedRepo", f"Access to {kind[:-1]} {name} is restricted.")
        else:
            self.refuse(403, "GatedRepo", f"You are not in the authorized list of {name}.")
        return None

    def answer_api(
        self,
        kind: str,
        name: str,
        call: str | None,
        revision: str | None,
        under: str | None,
        body: bytes,
    ) -> None:
        folder = self.folder(kind, name, files=False)
        if folder is None:
            return
        if revision not in (None, "main", COMMIT):
            return self.refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        files = [describe_file(p, folder) for p in sorted(folder.rglob("*")) if p.is_file()]
        for entry in files:
            entry["size"] += self.planned.length_off
        if call in (None, "revision"):
            self.reply_json({
                "_id": "0" * 24, "id": name, "sha": COMMIT, "private": False, "gated": False,
                "disabled": False, "tags": [], "downloads": 0, "likes": 0,
                "lastModified": "2025-01-01T00:00:00.000Z", "createdAt": "2025-01-01T00:00:00.000Z",
                "cardData": {"license": "apache-2.0"},
                "siblings": [{"rfilename": entry["path"]} for entry in files],
            })  # fmt: skip
        elif call == "tree":
            deep = parse_qs(urlsplit(self.path).query).get("recursive") != ["false"]
            self.reply_tree(files, f"{under}/" if under else "", deep)
        else:
            wanted = parse_qs(body.decode()).get("paths", []) or json.loads(body or b"{}")["paths"]
            self.reply_json([entry for entry in files if entry["path"] in wanted])

    def reply_tree(self, files: list[dict[str, Any]], prefix: str, deep: bool) -> None:
        """The files under a folder; unless `deep`, those right in it and its sub-folders."""
        inside = [entry for entry in files if entry["path"].startswith(prefix)]
        if not inside:
            return self.refuse(404, "EntryNotFound", f"{prefix} does not exist")
        parts = [entry["path"][len(prefix) :].split("/") for entry in inside]
        ends = range(1, max(map(len, parts)) if deep else 2)
        folders = {prefix + "/".join(part[:n]) for part in parts for n in ends if n < len(part)}
        shown = [e for e, part in zip(inside, parts, strict=True) if deep or len(part) == 1]
        listed = [{"type": "directory", "oid": "0" * 40, "size": 0, "path": f} for f in folders]
        self.reply_json([*listed, *shown])

    def answer_file(self, datasets: str | None, name: str, revision: str, path: str) -> None:
        folder = self.folder("datasets" if datasets else "models", name, files=True)
        if folder is None:
            return
        file = folder / path
        if revision not in ("main", COMMIT) or not file.is_file():
            return self.refuse(404, "EntryNotFound", "Entry not found")
        data, entry = file.read_bytes(), describe_file(file, folder)
        headers = {
            "ETag": f'"{entry.get("lfs", entry)["oid"]}"', "Accept-Ranges": "bytes",
            "Content-Type": "application/octet-stream",
        }  # fmt: skip
        span = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if not span:
            return self.reply(200, data, headers)
        first, last = int(span[1]), min(int(span[2] or len(data)), len(data) - 1)
        headers["Content-Range"] = f"bytes {first}-{last}/{len(data)}"
        self.reply(206, data[first : last + 1], headers)

    def refuse(self, status: int, code: str | None, message: str) -> None:
        """An error as the hub words it."""
        headers = {"X-Error-Message": message} | ({"X-Error-Code": code} if code else {})
        self.reply(status, json.dumps({"error": message}).encode(), headers)

    def reply_json(self, value: Any) -> None:
        self.reply(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def reply(self, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        plan = self.planned
        line = f"{self.command} {self.path}"
        with self.server.lock:
            self.server.requests.append(Request(line, self.bearer(), status))
        self.send_response(status)
        for name, value in {"X-Repo-Commit": COMMIT, **(headers or {})}.items():
            self.send_header(name, value)
        off = plan.length_off if self.command == "HEAD" else 0
        self.send_header("Content-Length", str(len(body) + off))
        self.end_headers()
        if self.command == "HEAD":
            return
        if plan.cut_at is not None and plan.cut_at < len(body):
            self.wfile.write(body[: plan.cut_at])
            self.close_connection = True
            return
        self.wfile.write(body)
