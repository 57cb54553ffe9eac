"""A small Hugging Face hub on loopback, in memory: repos with branches and commits, LFS, tokens, ranges.

It speaks what huggingface_hub asks for. `log` has every request.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

OWNER = "hf_owner"  # the token that may write, and read private repos
READER = "hf_reader"


@dataclass
class Repo:
    private: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)  # sha -> files
    branches: dict[str, str] = field(default_factory=dict)

    def commit(self, branch: str, files: dict[str, bytes]) -> str:
        told = repr((branch, len(self.commits), sorted((k, hashlib.sha256(v).digest()) for k, v in files.items())))
        sha = hashlib.sha1(told.encode()).hexdigest()
        self.commits[sha] = files
        self.branches[branch] = sha
        return sha


class Hub:
    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.blobs: dict[str, bytes] = {}  # of LFS
        self.log: list[str] = []
        self.stall: dict[str, int] = {}  # file -> bytes after which one download breaks off
        self.slow: dict[str, int] = {}  # file -> bytes after which downloads wait until the file is not here any more
        self.waiting = False  # whether one waits
        self.refuse = ""  # paths that hold this text are answered with 503
        self.lock = threading.Lock()
        self.address = ""

    def files(self, repo: str, revision: str = "main") -> dict[str, bytes]:
        found = self.repos[repo]
        return found.commits[found.branches.get(revision, revision)]

    def put(self, repo: str, files: dict[str, bytes], *, private: bool = False) -> str:
        self.repos.setdefault(repo, Repo(private))
        return self.repos[repo].commit("main", files)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *args: Any) -> None:
        pass

    # --- answers

    def answer(self, status: int, content: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if "Content_Length" not in headers:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def json(self, data: Any, status: int = 200) -> None:
        self.answer(status, json.dumps(data).encode(), Content_Type="application/json")

    def wrong(self, status: int, code: str = "", told: str = "") -> None:
        headers = {"X_Error_Code": code} if code else {}
        self.answer(status, json.dumps({"error": told or code}).encode(), Content_Type="application/json", **headers)

    # --- requests

    def handle_any(self) -> None:
        path = unquote(urlsplit(self.path).path)
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length) if length else b""
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = self.chunks()
        with self.hub.lock:
            self.hub.log.append(f"{self.command} {path} {self.headers.get('Range') or ''}".strip())
        if self.hub.refuse and self.hub.refuse in path:
            return self.wrong(503, told="busy")
        if path == "/api/validate-yaml":
            return self.json({"errors": [], "warnings": []})
        if path.startswith("/lfs/"):
            return self.lfs(path.removeprefix("/lfs/"), body)
        if path == "/api/repos/create":
            return self.create(json.loads(body))
        parts = path.strip("/").split("/")
        if parts[:2] == ["api", "models"]:
            name, rest = "/".join(parts[2:4]), parts[4:]
        else:
            name, rest = f"{parts[0]}/{parts[1].removesuffix('.git')}", parts[2:]
        repo = self.hub.repos.get(name)
        if repo is None or (repo.private and self.token not in (OWNER,)):
            return self.wrong(404 if self.token else 401, "RepoNotFound", "Repository not found")
        writing = self.command in ("POST", "PUT")
        if writing and self.token is None:
            return self.wrong(401, told="Invalid username or password.")
        if writing and self.token != OWNER:
            return self.wrong(403, told="Forbidden")
        return self.of_repo(name, repo, rest, body)

    do_GET = do_HEAD = do_POST = do_PUT = handle_any

    @property
    def token(self) -> str | None:
        told = self.headers.get("Authorization") or ""
        return told.removeprefix("Bearer ") or None

    def chunks(self) -> bytes:
        found = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            found += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return found

    def create(self, asked: dict[str, Any]) -> None:
        if self.token != OWNER:
            return self.wrong(401 if self.token is None else 403, told="you may not create repos here")
        name = f"{asked['organization']}/{asked['name']}"
        there = name in self.hub.repos
        if not there:
            private = asked.get("visibility") == "private" or bool(asked.get("private"))
            self.hub.repos[name] = Repo(private)
            self.hub.repos[name].commit("main", {".gitattributes": b"*.safetensors filter=lfs\n"})
        return self.json({"url": f"{self.hub.address}/{name}", "name": name}, 409 if there else 200)

    def lfs(self, oid: str, body: bytes) -> None:
        if hashlib.sha256(body).hexdigest() != oid:
            return self.wrong(400, told="another digest")
        self.hub.blobs[oid] = body
        return self.answer(200)

    def of_repo(self, name: str, repo: Repo, rest: list[str], body: bytes) -> None:
        kind = rest[0] if rest else ""
        if kind == "branch":
            there = rest[1] in repo.branches
            repo.branches.setdefault(rest[1], repo.branches["main"])
            return self.answer(409 if there else 200, b"{}")
        if kind == "info":  # LFS: which objects are wanted
            objects = []
            for asked in json.loads(body)["objects"]:
                action = {"upload": {"href": f"{self.hub.address}/lfs/{asked['oid']}"}}
                objects.append({**asked, **({} if asked["oid"] in self.hub.blobs else {"actions": action})})
            return self.json({"transfer": "basic", "objects": objects})
        revision = rest[1] if kind in ("revision", "tree", "preupload", "commit", "resolve") else "main"
        sha = repo.branches.get(revision, revision)
        if sha not in repo.commits:
            return self.wrong(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        files = repo.commits[sha]
        if kind in ("", "revision"):
            siblings = [{"rfilename": n, "size": len(v), "blobId": oid_of(v)} for n, v in files.items()]
            return self.json({"id": name, "sha": sha, "private": repo.private, "siblings": siblings})
        if kind == "tree":
            return self.json([{"type": "file", "path": n, "size": len(v), "oid": oid_of(v)} for n, v in files.items()])
        if kind == "preupload":
            asked = json.loads(body)["files"]
            return self.json({"files": [{"path": f["path"], "uploadMode": mode(f["path"]), "shouldIgnore": False,
                                         "oid": None} for f in asked]})  # fmt: skip
        if kind == "commit":
            return self.commit(name, repo, revision, dict(files), body)
        return self.resolve(sha, files, "/".join(rest[2:]))

    def commit(self, name: str, repo: Repo, branch: str, files: dict[str, bytes], body: bytes) -> None:
        for line in body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                files[value["path"]] = self.hub.blobs[value["oid"]]
            elif entry["key"] == "deletedFile":
                del files[value["path"]]
        sha = repo.commit(branch, files)
        return self.json({"success": True, "commitOid": sha, "commitUrl": f"{self.hub.address}/{name}/commit/{sha}"})

    def resolve(self, sha: str, files: dict[str, bytes], name: str) -> None:
        if name not in files:
            return self.wrong(404, "EntryNotFound")
        content = files[name]
        headers = {"ETag": f'"{hashlib.sha256(content).hexdigest()}"', "X_Repo_Commit": sha, "Accept_Ranges": "bytes"}
        first = 0
        if wanted := self.headers.get("Range"):
            first = int(wanted.removeprefix("bytes=").split("-")[0])
            headers["Content_Range"] = f"bytes {first}-{len(content) - 1}/{len(content)}"
        rest = content[first:]
        if self.command == "GET" and name in (*self.hub.stall, *self.hub.slow):
            self.send_response(206 if first else 200)
            for key, value in {**headers, "Content_Length": str(len(rest))}.items():
                self.send_header(key.replace("_", "-"), value)
            self.end_headers()
            self.wfile.write(rest[: self.hub.stall.pop(name, 0) or self.hub.slow[name]])
            self.wfile.flush()
            while name in self.hub.slow:
                self.hub.waiting = True
                time.sleep(0.01)
            self.close_connection = True  # in the middle of the file
            return None
        return self.answer(206 if first else 200, rest, **headers)


def oid_of(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()


def mode(path: str) -> str:
    return "lfs" if path.endswith((".safetensors", ".png")) else "regular"


@contextmanager
def serving() -> Iterator[Hub]:
    """Yields a hub that serves on a free port of loopback."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"hub": hub}))
    server.daemon_threads = True
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
