"""A Hub on a local port: the HTTP that huggingface_hub speaks, over repositories in memory.

Repository information with sizes, the tree, HEAD and GET of files with ETag and X-Repo-Commit,
gated (403, X-Error-Code: GatedRepo), private and missing repositories, ranges, and writing: create,
preupload, commit. Every request is kept in `requests`.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

TOKEN = "hf_" + "a1B2" * 8
READ_ONLY = "hf_" + "r0R0" * 8
TYPES = ("models", "datasets", "spaces")


@dataclass
class Repo:
    """A repository: its commits, oldest first, and who may read it."""

    commits: list[dict[str, bytes]] = field(default_factory=lambda: [{}])
    is_gated: bool = False
    readers: set[str] = field(default_factory=set)  # tokens that a gated repository lets in
    claims: dict[str, int] = field(default_factory=dict)  # file → a size that is not its own
    created: dict[str, Any] = field(default_factory=dict)  # what asked for it

    def commit_hash(self, number: int) -> str:
        content = repr((number, sorted(self.commits[number].items())))
        return hashlib.sha1(content.encode()).hexdigest()

    def find(self, revision: str) -> int | None:
        """The commit of a branch or hash."""
        if revision == "main":
            return len(self.commits) - 1
        known = (n for n in range(len(self.commits)) if self.commit_hash(n) == revision)
        return next(known, None)

    @property
    def head(self) -> str:
        return self.commit_hash(len(self.commits) - 1)


class Hub(ThreadingHTTPServer):
    """The server: put repositories into `repos`, read what was asked in `requests`."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.repos: dict[tuple[str, str], Repo] = {}
        self.requests: list[str] = []
        self.breaks_once: set[str] = set()  # files whose first GET ends in the middle

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def add(self, kind: str, name: str, files: dict[str, bytes], **more: Any) -> Repo:
        repo = Repo([files], **more)
        self.repos[(f"{kind}s", name)] = repo
        return repo

    def environment(self, folder: Path, token: str | None = None) -> dict[str, str]:
        """What a process needs to take this for the Hub, with a cache of its own."""
        left_out = ("HF_HUB_OFFLINE", "HF_TOKEN", "HF_TOKEN_PATH", "HF_HUB_CACHE")
        inherited = {k: v for k, v in os.environ.items() if k not in left_out}
        inherited |= {
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(folder / "hf"),
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "NO_PROXY": "*",
        }
        return inherited | ({"HF_TOKEN": token} if token else {})


@contextmanager
def running_hub() -> Iterator[Hub]:
    """Serve until the block ends."""
    hub = Hub()
    thread = threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        thread.join()
        hub.server_close()


class Handler(BaseHTTPRequestHandler):
    """One request."""

    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def do_HEAD(self) -> None:
        self._read()

    def do_GET(self) -> None:
        self._read()

    @property
    def token(self) -> str | None:
        kind, _, token = (self.headers.get("Authorization") or "").partition(" ")
        return token if kind == "Bearer" else None

    def _read(self) -> None:
        url = urlsplit(self.path)
        self.server.requests.append(f"{self.command} {url.path}")
        parts = [unquote(p) for p in url.path.strip("/").split("/")]
        if self.token not in (None, TOKEN, READ_ONLY):
            self._fail(401, None, "Invalid credentials in Authorization header")
        elif parts[0] == "api":
            self._api(parts[1:], parse_qs(url.query))
        else:
            kind = parts.pop(0) if parts[0] in TYPES else "models"
            self._file(kind, "/".join(parts[:2]), parts[3], "/".join(parts[4:]))

    def _open(self, kind: str, name: str, revision: str) -> tuple[Repo, int] | None:
        repo = self.server.repos.get((kind, name))
        if repo is None:
            self._fail(404 if self.token else 401, "RepoNotFound")
            return None
        number = repo.find(revision)
        if number is None:
            self._fail(404, "RevisionNotFound")
            return None
        return repo, number

    def _api(self, parts: list[str], query: dict[str, list[str]]) -> None:
        kind, name, what = parts[0], "/".join(parts[1:3]), parts[3:]
        found = self._open(kind, name, what[1] if len(what) > 1 else "main")
        if found is None:
            return
        repo, number = found
        sizes = {n: repo.claims.get(n, len(c)) for n, c in repo.commits[number].items()}
        if what[:1] == ["tree"]:
            tree = [
                {"type": "file", "path": n, "size": s, "oid": "0" * 40} for n, s in sizes.items()
            ]
            self._answer(tree)
            return
        siblings = [
            {"rfilename": n, **({"size": s, "blobId": "0" * 40} if "blobs" in query else {})}
            for n, s in sizes.items()
        ]
        self._answer(
            {
                "id": name,
                "sha": repo.commit_hash(number),
                "gated": "manual" if repo.is_gated else False,
                "private": False,
                "siblings": siblings,
                "tags": [],
                "downloads": 0,
                "likes": 0,
            }
        )

    def _file(self, kind: str, name: str, revision: str, file: str) -> None:
        found = self._open(kind, name, revision)
        if found is None:
            return
        repo, number = found
        commit = repo.commit_hash(number)
        if repo.is_gated and self.token not in repo.readers:
            self._fail(403 if self.token else 401, "GatedRepo")
            return
        content = repo.commits[number].get(file)
        if content is None:
            self._fail(404, "EntryNotFound", headers={"X-Repo-Commit": commit})
            return
        headers = {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "X-Repo-Commit": commit}
        start = 0
        if asked := self.headers.get("Range"):
            start = int(asked.removeprefix("bytes=").split("-")[0])
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        self._send(206 if start else 200, content[start:], headers, breaks=file)

    def do_POST(self) -> None:
        path = urlsplit(self.path).path
        self.server.requests.append(f"POST {path}")
        length = self.headers.get("Content-Length")
        body = self.rfile.read(int(length)) if length else b"".join(self._chunks())
        parts = path.strip("/").split("/")
        if parts[1:] == ["validate-yaml"]:
            self._answer({"errors": [], "warnings": []})
        elif self.token != TOKEN:
            self._fail(403 if self.token == READ_ONLY else 401, None)
        elif parts[1:] == ["repos", "create"]:
            self._create(json.loads(body))
        elif parts[4] == "preupload":
            modes = [
                {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False}
                for f in json.loads(body)["files"]
            ]
            self._answer({"files": modes})
        else:
            self._commit(parts[1], "/".join(parts[2:4]), body)

    def _create(self, asked: dict[str, Any]) -> None:
        kind, name = asked.get("type", "model"), f"{asked['organization']}/{asked['name']}"
        place = "" if kind == "model" else f"{kind}s/"
        is_new = (f"{kind}s", name) not in self.server.repos
        if is_new:
            self.server.add(kind, name, {}, created=asked)
        url = f"{self.server.url}/{place}{name}"
        self._answer({"url": url, "id": name, "name": name}, status=200 if is_new else 409)

    def _commit(self, kind: str, name: str, body: bytes) -> None:
        repo = self.server.repos[(kind, name)]
        files = dict(repo.commits[-1])
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "file":
                files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
        repo.commits.append(files)
        url = f"{self.server.url}/{name}/commit/{repo.head}"
        self._answer({"success": True, "commitOid": repo.head, "commitUrl": url})

    def _chunks(self) -> Iterator[bytes]:
        while size := int(self.rfile.readline(), 16):
            yield self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()

    def _answer(self, data: object, status: int = 200) -> None:
        self._send(status, json.dumps(data).encode(), {"Content-Type": "application/json"})

    def _fail(
        self,
        status: int,
        code: str | None,
        message: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        named = {"X-Error-Code": code, "X-Error-Message": message}
        self._send(status, b"", {**(headers or {}), **{k: v for k, v in named.items() if v}})

    def _send(
        self, status: int, body: bytes, headers: dict[str, str], breaks: str | None = None
    ) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        if breaks in self.server.breaks_once:
            self.server.breaks_once.discard(breaks)
            self.wfile.write(body[: len(body) // 2])
            self.close_connection = True
            return
        self.wfile.write(body)
