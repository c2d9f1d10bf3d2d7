"""A fake of the Hub's routes for downloads, and repositories in it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

LARGE = "apple/aimv2-large-patch14-224"
COMMIT = "ac764a25c832c7dc5e11871daa588e98e3cdbfb7"
TAGGED = "0123456789012345678901234567890123456789"
ORIGINAL = {
    ".gitattributes": b"*.bin lfs",
    "LICENSE": b"terms",
    "README.md": b"card",
    "config.json": b"{}",
    "preprocessor_config.json": b"{ }",
    "processor_config.json": b"{  }",
    "video_preprocessor_config.json": b"{   }",
    "modeling_aimv2.py": b"raise SystemExit",
    "model.safetensors": b"apple" * 1000,
    "mlx_model.safetensors": b"mlx" * 1000,
    "flax_model.msgpack": b"flax",
    "pytorch_model.bin": b"pickle",
    "assets/config.json": b"{}",
}
SMALL = {"LICENSE", "README.md", "config.json", "preprocessor_config.json", "processor_config.json"}
SHARDS = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
INDEX = json.dumps({"weight_map": {"a": SHARDS[0], "b": SHARDS[1], "c": SHARDS[0]}}).encode()
SHARDED = {
    "config.json": b"{}",
    "vocab.json": b"{ }",
    "merges.txt": b"",
    "model.safetensors.index.json": INDEX,
    SHARDS[0]: b"first",
    SHARDS[1]: b"second",
}


@dataclass
class Repo:
    """What the fake Hub serves under one name."""

    files: dict[str, bytes]
    card: dict[str, str] = field(default_factory=lambda: {"license": "apple-amlr"})
    revisions: dict[str, str] = field(default_factory=lambda: {"main": COMMIT, "v1": TAGGED})
    gated: bool = False
    short: bool = False  # sends less than it announced
    status: int = 200


class FakeHub(ThreadingHTTPServer):
    """The few routes of the Hub that a download uses."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.repos: dict[str, Repo] = {}
        self.requests: list[tuple[str, str]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def downloaded(self) -> set[str]:
        """Names of the files whose content was asked for."""
        return {
            path.rpartition("/")[2]
            for method, path in self.requests
            if method == "GET" and "/resolve/" in path
        }


class Handler(BaseHTTPRequestHandler):
    server: FakeHub

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.server.requests.append((self.command, path))
        parts = path.strip("/").split("/")
        api = parts[:2] == ["api", "models"]
        owner, name, *rest = parts[2:] if api else parts
        repo = self.server.repos.get(f"{owner}/{name}")
        if repo is None:
            return self.refuse(404, "RepoNotFound")
        if repo.status != 200:
            return self.refuse(repo.status, "")
        wanted = rest[1] if len(rest) > 1 else "main"
        commit = wanted if wanted in repo.revisions.values() else repo.revisions.get(wanted)
        if commit is None:
            return self.refuse(404, "RevisionNotFound")
        if api:
            return self.describe(f"{owner}/{name}", repo, commit)
        if repo.gated:
            return self.refuse(403, "GatedRepo")
        return self.send_file(repo, commit, "/".join(rest[2:]))

    do_HEAD = do_GET

    def refuse(self, status: int, code: str) -> None:
        self.answer(status, b"", {"X-Error-Code": code} if code else {})

    def describe(self, name: str, repo: Repo, commit: str) -> None:
        siblings = [{"rfilename": file, "size": len(data)} for file, data in repo.files.items()]
        info = {
            "id": name,
            "modelId": name,
            "sha": commit,
            "cardData": repo.card,
            "siblings": siblings,
            "tags": [],
        }
        self.answer(200, json.dumps(info).encode(), {"Content-Type": "application/json"})

    def send_file(self, repo: Repo, commit: str, name: str) -> None:
        data = repo.files[name]
        headers = {"ETag": f'"{sha256(data).hexdigest()}"', "X-Repo-Commit": commit}
        self.answer(200, data[:-1] if repo.short and self.command == "GET" else data, headers)

    def answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)
