"""A local stand-in for the Hugging Face Hub: what huggingface_hub asks to upload a folder and fetch files.

Large files (.safetensors) come and go by Git LFS, as there; one commit a repository, the latest; the token
"write" may write, "read" may not, and no other is known.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import yaml


class StandIn(ThreadingHTTPServer):
    """repositories: "owner/repo" -> path -> bytes; private: those only for the token; asked: all requests."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.private: set[str] = set()
        self.large: dict[str, bytes] = {}
        self.asked: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: StandIn
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_POST(self) -> None:
        body = self._body()
        if self.path == "/api/validate-yaml":
            self._check_card(json.loads(body)["content"])
        elif self._rank() != "write":
            code = 401 if self._rank() == "" else 403
            self._answer(code, {"error": "Invalid username or password." if code == 401 else "Forbidden"})
        elif self.path == "/api/repos/create":
            self._create(json.loads(body))
        elif found := re.fullmatch(r"/(.+)\.git/info/lfs/objects/batch", self.path):
            self._large_files(json.loads(body)["objects"])
        elif found := re.fullmatch(r"/api/models/(.+)/(preupload|commit)/main", self.path):
            repository, step = found.groups()
            (self._preupload if step == "preupload" else self._commit)(repository, body)
        else:
            self._answer(404, {"error": f"the stand-in does not know {self.path}"})

    def do_PUT(self) -> None:
        data, name = self._body(), self.path.rpartition("/")[2]
        right = hashlib.sha256(data).hexdigest() == name
        self.server.large[name] = data
        self._answer(200 if right else 400, {})

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        self.server.asked.append(f"{self.command} {self.path}")
        found = re.fullmatch(r"/(?:api/models/)?([^/]+/[^/]+)(?:/resolve/([^/]+)/(.+))?", self.path)
        repository, revision, file = found.groups() if found else ("", "", "")
        files = self.server.repositories.get(repository)
        if files is None or (repository in self.server.private and not self._rank()):
            self._answer(401, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
        elif revision not in ("main", _commit_of(files)):
            self._answer(404, {"error": "Revision not found"}, {"X-Error-Code": "RevisionNotFound"})
        elif file not in files:
            self._answer(404, {"error": "Entry not found"}, {"X-Error-Code": "EntryNotFound"})
        else:
            etag = hashlib.sha256(files[file]).hexdigest()
            self._answer(200, files[file], {"ETag": f'"{etag}"', "X-Repo-Commit": _commit_of(files)})

    def _create(self, asked: dict[str, Any]) -> None:
        repository = f"{asked['organization']}/{asked['name']}"
        answer = {"url": f"{self.server.url}/{repository}"}
        if repository in self.server.repositories:
            self._answer(409, {**answer, "error": "You already created this model repo"})
            return
        self.server.repositories[repository] = {}
        if asked.get("private") or asked.get("visibility") == "private":
            self.server.private.add(repository)
        self._answer(200, answer)

    def _check_card(self, content: str) -> None:
        """As the Hub does: YAML at the top, a licence of its list, with a name where it is another."""
        header = yaml.safe_load(content.split("---")[1])
        known = header["license"] in {"apache-2.0", "cc-by-4.0", "cc0-1.0", "unknown"}
        right = known or (
            header["license"] == "other" and re.fullmatch(r"[a-z0-9.-]+", header["license_name"])
        )
        errors = [] if right else [{"message": '"license" must be one of those listed'}]
        self._answer(200 if right else 400, {"errors": errors, "warnings": []})

    def _preupload(self, repository: str, body: bytes) -> None:
        def mode(path: str) -> str:
            return "lfs" if path.endswith(".safetensors") else "regular"

        files = [file["path"] for file in json.loads(body)["files"]]
        told = [{"path": path, "uploadMode": mode(path), "shouldIgnore": False} for path in files]
        self._answer(200, {"files": told})

    def _large_files(self, objects: list[dict[str, Any]]) -> None:
        told = [
            {**entry, "actions": {"upload": {"href": f"{self.server.url}/large/{entry['oid']}"}}}
            for entry in objects
        ]
        self._answer(200, {"transfer": "basic", "objects": told})

    def _commit(self, repository: str, body: bytes) -> None:
        files = self.server.repositories[repository]
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.server.large[value["oid"]]
        commit = _commit_of(files)
        url = f"{self.server.url}/{repository}/commit/{commit}"
        self._answer(200, {"commitUrl": url, "commitOid": commit, "hookOutput": ""})

    def _rank(self) -> str:
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        return token if token in ("read", "write") else ""

    def _body(self) -> bytes:
        self.server.asked.append(f"{self.command} {self.path}")
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers["Content-Length"]))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _answer(self, status: int, content: Any, headers: dict[str, str] | None = None) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


def _commit_of(files: dict[str, bytes]) -> str:
    content = b"".join(hashlib.sha1(data).digest() for data in files.values())
    return hashlib.sha1(content).hexdigest()


@contextmanager
def open_stand_in() -> Iterator[StandIn]:
    with StandIn() as hub:
        thread = threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield hub
        hub.shutdown()
        thread.join()
