"""A Hub on this machine that knows the few routes of an upload."""

from __future__ import annotations

import base64
import contextlib
import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

from drawn_world.untrained import write_checkpoint

from mlx_aimv2 import Aimv2Config
from mlx_aimv2.publishing.card import CardFacts, model_card

TOKEN = "hf_thetokenofalice"
REPO = "alice/aimv2-4bit"
COMMIT = "ac764a25c832c7dc5e11871daa588e98e3cdbfb7"
OURS = {"library_name": "mlx", "tags": ["mlx", "mlx-aimv2"]}


def facts(config, **others):
    """Facts of a card, such as those of a conversion in float16."""
    plain = {
        "name": "my-aimv2",
        "parameters": 123456,
        "layout": "apple",
        "dtype": "float16",
        "bits_per_weight": 16.0,
        "nbytes": 246912,
        "version": "0.1.0",
    }
    return CardFacts(config=config, **{**plain, **others})


def converted(folder: Path, config: Aimv2Config) -> Path:
    """A checkpoint in this package's own layout with its card and a licence."""
    write_checkpoint(folder, config, "mlx")
    (folder / "README.md").write_text(model_card(facts(config, license_files=("LICENSE",))), encoding="utf-8")
    (folder / "LICENSE").write_text("terms", encoding="utf-8")
    return folder


@dataclass
class Repo:
    """What is under one name."""

    files: dict[str, bytes] = field(default_factory=dict)
    card: dict[str, object] | None = None
    private: bool = False


class FakeUploadHub(ThreadingHTTPServer):
    """Takes files as the Hub does: small ones in the commit, weights by themselves before it."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.repos: dict[str, Repo] = {}
        self.role = "write"
        self.answers: dict[str, tuple[int, str]] = {}  # last part of a path -> status, message
        self.paths: list[str] = []
        self.commits: list[dict[str, object]] = []
        self.stored: dict[str, bytes] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    @contextlib.contextmanager
    def running(self):
        thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield self
        finally:
            self.shutdown()
            thread.join()
            self.server_close()


class Handler(BaseHTTPRequestHandler):
    server: FakeUploadHub

    def log_message(self, format, *args):
        pass

    def do_GET(self):
        self.route(b"")

    def do_POST(self):
        self.route(self.body())

    def do_PUT(self):
        self.server.stored[self.path.rpartition("/")[2]] = self.body()
        status, words = self.server.answers.get("store", (200, ""))
        self.answer(status, {"error": words})

    def body(self):
        if self.headers.get("Transfer-Encoding") == "chunked":
            whole = b""
            while size := int(self.rfile.readline(), 16):
                whole += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return whole
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def route(self, body):
        path = unquote(urlsplit(self.path).path)
        self.server.paths.append(path)
        for part, (status, words) in self.server.answers.items():
            if part in path:
                return self.answer(status, {"error": words})
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self.answer(401, {"error": "Invalid credentials in Authorization header"})
        parts = path.strip("/").split("/")
        if path == "/api/whoami-v2":
            return self.answer(
                200, {"name": "alice", "id": "1", "auth": {"accessToken": {"role": self.server.role}}}
            )
        if path == "/api/validate-yaml":
            return self.answer(200, {})
        if path == "/api/repos/create":
            return self.create(json.loads(body))
        if path.endswith("/info/lfs/objects/batch"):
            return self.batch(json.loads(body))
        name = "/".join(parts[2:4])
        if name not in self.server.repos:
            return self.answer(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
        if self.command == "GET":
            return self.describe(name)
        if parts[4] == "preupload":
            return self.preupload(json.loads(body))
        return self.commit(name, [json.loads(line) for line in body.splitlines()])

    def create(self, wanted):
        name = f"{wanted['organization']}/{wanted['name']}"
        if name in self.server.repos:
            return self.answer(409, {"error": "You already created this model repo"})
        private = wanted.get("private", wanted.get("visibility") == "private")
        self.server.repos[name] = Repo({".gitattributes": b""}, private=bool(private))
        self.answer(200, {"url": f"{self.server.url}/{name}", "name": name, "id": name})

    def describe(self, name):
        repo = self.server.repos[name]
        siblings = [{"rfilename": file} for file in repo.files]
        info = {"id": name, "sha": COMMIT, "private": repo.private, "siblings": siblings, "tags": []}
        self.answer(200, {**info, "cardData": repo.card} if repo.card is not None else info)

    def preupload(self, wanted):
        modes = [
            {
                "path": file["path"],
                "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular",
                "shouldIgnore": False,
            }
            for file in wanted["files"]
        ]
        self.answer(200, {"files": modes})

    def batch(self, wanted):
        objects = [
            {**one, "actions": {"upload": {"href": f"{self.server.url}/store/{one['oid']}"}}}
            for one in wanted["objects"]
        ]
        self.answer(200, {"transfer": "basic", "objects": objects})

    def commit(self, name, lines):
        files = self.server.repos[name].files
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.server.stored[value["oid"]]
            elif line["key"] == "deletedFile":
                del files[value["path"]]
            else:
                self.server.commits.append(value)
        self.answer(200, {"commitUrl": f"{self.server.url}/{name}/commit/{COMMIT}", "commitOid": COMMIT})

    def answer(self, status, data, headers=None):
        body = json.dumps(data).encode()
        self.send_response(status)
        known = {"Content-Type": "application/json", "Content-Length": str(len(body))}
        if status != 200:
            known["X-Error-Message"] = data["error"]
        for key, value in {**known, **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(body)
