"""A Hugging Face hub on loopback for tests: serves `root/{datasets,models}/<repo>/<revision>/` over the hub's HTTP API.

Served: repository info, tree, paths-info and resolve (with ranges). A revision is `main`, a branch such as
`refs/convert/parquet` (in the folder `refs-convert-parquet`) or the commit, which is a digest of the files.
"""

import hashlib
import json
import re
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit


class Hub:
    """A running server. `requests` lists what was asked.

    drop: paths that lose their connection before the answer;  cut: in the middle of the answer's body;  busy: paths
    that are answered with HTTP 503.
    """

    def __init__(
        self,
        root: Path,
        drop: Callable[[str], bool] = lambda path: False,
        cut: Callable[[str], bool] = lambda path: False,
        busy: Callable[[str], bool] = lambda path: False,
    ):
        self.root, self.drop, self.cut, self.busy = root, drop, cut, busy
        self.requests: list[str] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    def __enter__(self) -> "Hub":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def find(self, kind: str, repo: str, revision: str) -> Path | None:
        """The folder of a repository at a revision."""
        base = self.root / kind / repo
        if ".." in repo or not base.is_dir():
            return None
        named = base / revision.replace("/", "-")
        if named.is_dir():
            return named
        return next((f for f in sorted(base.iterdir()) if commit(f) == revision), None)


def commit(folder: Path) -> str:
    """The commit of a served folder: 40 hex digits that change with its files."""
    digest = hashlib.sha1()
    for path in _files(folder):
        digest.update(f"{path.relative_to(folder)}\0{_oid(path)}\n".encode())
    return digest.hexdigest()


def _files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.is_file())


def _oid(path: Path) -> str:
    return hashlib.sha1(path.read_bytes()).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        url = urlsplit(self.path)
        path = unquote(url.path).strip("/")
        self.hub.requests.append(f"{self.command} {path}")
        if self.hub.drop(path):
            self.close_connection = True
            self.connection.close()
            return
        if self.hub.busy(path):
            self._reply(503, b"{}", {"Content-Type": "application/json"})
            return
        if found := re.fullmatch(r"api/(models|datasets)/([\w.-]+/[\w.-]+)(?:/(revision|tree|paths-info)/(.+))?", path):
            self._api(*found.groups(), body)
        elif found := re.fullmatch(r"(datasets/)?([\w.-]+/[\w.-]+)/resolve/(.+)", path):
            self._resolve("datasets" if found[1] else "models", found[2], found[3])
        else:
            self._error("RepoNotFound", f"{path} is not served")

    do_HEAD = do_POST = do_GET

    def _api(self, kind: str, repo: str, verb: str | None, rest: str | None, body: bytes) -> None:
        folder, inside = self._split(kind, repo, rest or "main")
        if folder is None:
            known = (self.hub.root / kind / repo).is_dir()
            self._error("RevisionNotFound" if known else "RepoNotFound", f"{repo} {rest or ''} not found")
        elif verb in (None, "revision"):
            sha = commit(folder)
            self._json(
                {
                    "id": repo,
                    "modelId": repo,
                    "sha": sha,
                    "private": False,
                    "gated": False,
                    "disabled": False,
                    "tags": [],
                    "siblings": [{"rfilename": p.relative_to(folder).as_posix()} for p in _files(folder)],
                }
            )
        elif verb == "tree":
            base = folder / inside
            if not base.is_dir():
                self._error("EntryNotFound", f"{inside} not found")
                return
            recursive = parse_qs(urlsplit(self.path).query).get("recursive", [""])[0].lower() in ("1", "true")
            self._json([_entry(folder, p) for p in sorted(base.rglob("*") if recursive else base.iterdir())])
        else:
            asked = json.loads(body)["paths"] if b"{" in body[:1] else parse_qs(body.decode()).get("paths", [])
            self._json([_entry(folder, folder / p) for p in asked if (folder / p).exists()])

    def _resolve(self, kind: str, repo: str, rest: str) -> None:
        folder, inside = self._split(kind, repo, rest)
        if folder is None or not (folder / inside).is_file():
            self._error("EntryNotFound" if folder else "RepoNotFound", f"{rest} not found")
            return
        content, status = (folder / inside).read_bytes(), 200
        headers = {"ETag": f'"{_oid(folder / inside)}"', "X-Repo-Commit": commit(folder), "Accept-Ranges": "bytes"}
        if asked := re.match(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or ""):
            first, last = int(asked[1]), min(len(content) - 1, int(asked[2] or len(content) - 1))
            headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
            content, status = content[first : last + 1], 206
        self._reply(status, content, headers | {"Content-Type": "application/octet-stream"})

    def _split(self, kind: str, repo: str, rest: str) -> tuple[Path | None, str]:
        parts = rest.split("/")
        for count in range(len(parts), 0, -1):
            if folder := self.hub.find(kind, repo, "/".join(parts[:count])):
                return folder, "/".join(parts[count:])
        return None, ""

    def _json(self, value: Any) -> None:
        self._reply(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _error(self, code: str, message: str) -> None:
        self._reply(404, json.dumps({"error": message}).encode(), {"X-Error-Code": code, "X-Error-Message": message})

    def _reply(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        if self.hub.cut(unquote(urlsplit(self.path).path)):
            body = body[: len(body) // 2]
            self.close_connection = True
        self.wfile.write(body)


def _entry(folder: Path, path: Path) -> dict[str, Any]:
    name = path.relative_to(folder).as_posix()
    if path.is_dir():
        return {"type": "directory", "path": name, "size": 0, "oid": "0" * 40}
    return {"type": "file", "path": name, "size": path.stat().st_size, "oid": _oid(path)}
