"""The Hub's HTTP API as far as its client, transformers and datasets use it: addresses, answers, error codes, headers.

Large files go the way they go on the Hub: announced, put to a store under another host's name that must see no token,
verified, and committed by their digest.
"""

from __future__ import annotations

import hashlib
import json
import re
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

from hub_store import Refused, Repository, apply, is_large, listed, metadata_errors

TYPES = {"models": "model", "datasets": "dataset"}
PAGE = 3
"""Files in a page of a tree listing: few, so that tests meet the next page."""


class HubHandler(BaseHTTPRequestHandler):
    """One request."""

    hub: Any
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm, wbufsize = True, -1  # an answer is one packet, which nobody waits for

    def log_message(self, *arguments: Any) -> None:
        """Keep quiet."""

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def _handle(self) -> None:
        address = urlsplit(self.path)
        self.path, self.query = unquote(address.path), parse_qs(address.query)
        self.raw_path = address.path
        headers = {key.lower(): value for key, value in self.headers.items()}
        fault = self.hub.record(self.command, self.path, headers)
        self.fault = fault
        if fault is not None and fault.break_after is not None and self.command == "PUT":
            self.rfile.read(fault.break_after)
            self._hang_up()
            return
        length = int(self.headers.get("Content-Length") or 0)
        self.body = self.rfile.read(length)
        try:
            if fault is not None and fault.status is not None:
                raise Refused(fault.status, f"ordered failure {fault.status}")
            with self.hub.lock:
                self._route()
        except Refused as refused:
            headers = {"X-Error-Message": str(refused)} | ({"X-Error-Code": refused.code} if refused.code else {})
            headers |= fault.headers if fault is not None else {}
            self._answer(refused.status, json.dumps(refused.body).encode(), headers)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _handle

    def _hang_up(self) -> None:
        self.close_connection = True
        self.wfile.flush()
        self.connection.shutdown(2)

    def _answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        if "Content-Length" not in (headers or {}):
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        fault = self.fault
        if fault is not None and fault.break_after is not None:
            self.wfile.write(body[: fault.break_after])
            self._hang_up()
            return
        self.wfile.write(body)

    def _json(self, content: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self._answer(status, json.dumps(content).encode(), headers)

    def _route(self) -> None:
        for pattern, action in ROUTES:
            match = re.fullmatch(pattern, f"{self.command} {self.path}")
            if match:
                action(self, **match.groupdict())
                return
        raise Refused(404, f"no such address: {self.command} {self.path}")

    # Who asks

    def _namespaces(self, write: bool = False) -> list[str] | None:
        """Namespaces of whoever asks; None where nobody says who he is."""
        header = self.headers.get("Authorization")
        if header is None:
            return None
        token = header.removeprefix("Bearer ")
        if token in self.hub.users:
            return self.hub.users[token]
        if token in self.hub.readers:
            if write:
                raise Refused(403, "Forbidden: you must use a write token to upload to a repository.")
            return self.hub.readers[token]
        raise Refused(401, "Invalid credentials in Authorization header")

    def _repository(self, kind: str, name: str, write: bool = False, content: bool = False) -> Repository:
        namespaces = self._namespaces(write)
        repository = self.hub.repositories.get((TYPES[kind], name))
        owner = name.split("/")[0]
        if repository is None or (repository.private and owner not in (namespaces or [])):
            if namespaces is None:
                raise Refused(401, "Invalid username or password.", "RepoNotFound")
            raise Refused(404, "Repository not found", "RepoNotFound")
        if content and repository.gated and owner not in (namespaces or []):
            raise Refused(403 if namespaces else 401, f"Access to {kind[:-1]} {name} is restricted.", "GatedRepo")
        if write and namespaces is None:
            raise Refused(401, "Invalid username or password.")
        if write and owner not in namespaces:
            raise Refused(403, "Forbidden: you are not allowed to write to this repository.")
        return repository

    def _revision(self, repository: Repository, revision: str) -> str:
        oid = repository.resolve(revision)
        if oid is None:
            raise Refused(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return oid

    # Users and repositories

    def whoami(self) -> None:
        namespaces = self._namespaces()
        if namespaces is None:
            raise Refused(401, "Invalid username or password.")
        organizations = [{"name": name} for name in namespaces[1:]]
        self._json({"type": "user", "name": namespaces[0], "orgs": organizations, "auth": {"type": "access_token"}})

    def create(self) -> None:
        asked, namespaces = json.loads(self.body), self._namespaces(write=True)
        if namespaces is None:
            raise Refused(401, "Invalid username or password.")
        owner = asked.get("organization") or namespaces[0]
        name, kind = f"{owner}/{asked['name']}", asked.get("type", "model")
        if owner not in namespaces:
            raise Refused(403, f'You don\'t have the rights to create a {kind} under the namespace "{owner}"')
        url = f"{self.hub.url}/{'datasets/' if kind == 'dataset' else ''}{name}"
        if (kind, name) in self.hub.repositories:
            raise Refused(409, f"You already created this {kind} repo", body={"error": "exists", "url": url})
        private = asked.get("private") is True or asked.get("visibility") == "private"
        self.hub.create(kind, name, private=private)
        self._json({"url": url, "name": name, "id": name})

    def validate(self) -> None:
        asked = json.loads(self.body)
        found = re.match(r"\s*---\s*\n(.*?)\n---\s*(\n|$)", asked["content"], re.DOTALL)
        if not found:
            self._json({"errors": [], "warnings": [{"message": "empty or missing yaml metadata in repo card"}]})
            return
        errors = metadata_errors(yaml.safe_load(found[1]), asked["repoType"])
        if errors and self.headers.get("Accept") == "text/plain":
            self._answer(400, "\n".join(f"- {error}" for error in errors).encode(), {"Content-Type": "text/plain"})
            return
        report = {"errors": [{"message": error} for error in errors], "warnings": []}
        self._json(report if not errors else {"error": "Invalid metadata", **report}, 400 if errors else 200)

    def info(self, kind: str, name: str, revision: str = "main") -> None:
        repository = self._repository(kind, name)
        oid = self._revision(repository, revision)
        files = repository.commits[oid]
        card = files.get("README.md")
        data = re.match(rb"---\n(.*?)\n---", card.data, re.DOTALL) if card else None
        metadata = yaml.safe_load(data[1]) if data else None
        self._json(
            {
                "_id": oid[:24], "id": name, "modelId": name, "author": name.split("/")[0], "sha": oid, "downloads": 0,
                "private": repository.private, "gated": "manual" if repository.gated else False, "disabled": False,
                "lastModified": "2024-01-01T00:00:00.000Z", "createdAt": "2024-01-01T00:00:00.000Z", "likes": 0,
                "tags": (metadata or {}).get("tags", []), "cardData": metadata,
                "siblings": [{"rfilename": path} for path in sorted(files)],
            }
        )  # fmt: skip

    def refs(self, kind: str, name: str) -> None:
        repository = self._repository(kind, name)

        def listed(refs: dict[str, str], folder: str) -> list[dict[str, str]]:
            return [{"name": key, "ref": f"{folder}{key}", "targetCommit": oid} for key, oid in refs.items()]

        self._json(
            {
                "branches": listed(repository.branches, "refs/heads/"),
                "tags": listed(repository.tags, "refs/tags/"),
                "converts": [],
                "pullRequests": listed(repository.requests, ""),
            }
        )

    def branch(self, kind: str, name: str, revision: str) -> None:
        repository = self._repository(kind, name, write=True)
        if revision in repository.branches:
            raise Refused(409, f"Reference already exists: {revision}")
        start = (json.loads(self.body) if self.body else {}).get("startingPoint") or "main"
        repository.branches[revision] = self._revision(repository, start)
        self._json({})

    def tag(self, kind: str, name: str, revision: str) -> None:
        repository, tag = self._repository(kind, name, write=True), json.loads(self.body)["tag"]
        if tag in repository.tags:
            raise Refused(409, f"Tag reference exists already: {tag}")
        repository.tags[tag] = self._revision(repository, revision)
        self._json({})

    # Files

    def listing(self, kind: str, name: str, revision: str, folder: str | None = None) -> None:
        repository = self._repository(kind, name)
        tree = repository.commits[self._revision(repository, revision)]
        folder = (folder or "").strip("/")
        entries = listed(tree, folder, self.query.get("recursive", ["false"])[0].lower() in ("true", "1"))
        if not entries and folder:
            raise Refused(404, f"{folder} does not exist on {revision}", "EntryNotFound")
        start = int(self.query.get("cursor", ["0"])[0])
        headers = {}
        if start + PAGE < len(entries):
            kept = "&".join(f"{key}={value[0]}" for key, value in self.query.items() if key != "cursor")
            headers["Link"] = f'<{self.hub.url}{self.raw_path}?{kept}&cursor={start + PAGE}>; rel="next"'
        self._json(entries[start : start + PAGE], headers=headers)

    def paths_info(self, kind: str, name: str, revision: str) -> None:
        repository = self._repository(kind, name)
        tree = repository.commits[self._revision(repository, revision)]
        if self.headers.get("Content-Type", "").startswith("application/json"):
            paths = json.loads(self.body)["paths"]
        else:
            paths = parse_qs(self.body.decode()).get("paths", [])
        every = {entry["path"]: entry for entry in listed(tree, "", recursive=True)}
        self._json([every[path] for path in paths if path in every])

    def resolve(self, name: str, revision: str, path: str, kind: str | None = None) -> None:
        repository = self._repository(kind or "models", name, content=True)
        oid = self._revision(repository, revision)
        entry = repository.commits[oid].get(path)
        commit = {"X-Repo-Commit": oid}
        if entry is None:
            body = json.dumps({"error": "Entry not found"}).encode()
            self._answer(404, body, {**commit, "X-Error-Code": "EntryNotFound", "X-Error-Message": "Entry not found"})
            return
        etag = {"ETag": f'"{entry.etag}"'}
        if entry.large:
            self.hub.store[entry.sha256] = entry.data
            linked = {"X-Linked-ETag": f'"{entry.sha256}"', "X-Linked-Size": str(len(entry.data))}
            location = {"Location": f"{self.hub.store_url}/store/{entry.sha256}?signature=good"}
            self._answer(302, b"", {**commit, **etag, **linked, **location})
            return
        self._content(entry.data, {**commit, **etag})

    def stored(self, oid: str) -> None:
        if "Authorization" in self.headers:
            raise Refused(400, "Only one auth mechanism allowed")
        if oid not in self.hub.store:
            raise Refused(404, "no such object")
        self._content(self.hub.store[oid], {"ETag": f'"{oid}"'})

    def _content(self, data: bytes, headers: dict[str, str]) -> None:
        headers = {"Content-Type": "application/octet-stream", "Accept-Ranges": "bytes", **headers}
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if not asked:
            self._answer(200, data, {**headers, "Content-Length": str(len(data))})
            return
        first, last = int(asked[1]), min(int(asked[2] or len(data) - 1), len(data) - 1)
        if first >= len(data):
            raise Refused(416, "Range Not Satisfiable")
        part = data[first : last + 1]
        self._answer(206, part, {**headers, "Content-Range": f"bytes {first}-{last}/{len(data)}"})

    # Uploads

    def preupload(self, kind: str, name: str, revision: str) -> None:
        repository = self._repository(kind, name, write="create_pr" not in self.query)
        tree = repository.commits[self._revision(repository, revision)]
        files = [
            {
                "path": file["path"],
                "uploadMode": "lfs" if is_large(file["path"]) else "regular",
                "shouldIgnore": False,
                "oid": tree[file["path"]].etag if file["path"] in tree else None,
            }
            for file in json.loads(self.body)["files"]
        ]
        self._json({"files": files})

    def batch(self, name: str, kind: str | None = None) -> None:
        self._repository(kind or "models", name)
        if self._namespaces(write=True) is None:
            raise Refused(401, "Invalid username or password.")
        objects = []
        for asked in json.loads(self.body)["objects"]:
            entry: dict[str, Any] = dict(asked)
            if asked["oid"] not in self.hub.store:
                entry["actions"] = {
                    "upload": {"href": f"{self.hub.store_url}/store/{asked['oid']}?signature=good"},
                    "verify": {"href": f"{self.hub.url}/api/verify"},
                }
            objects.append(entry)
        self._json({"transfer": "basic", "objects": objects})

    def keep(self, oid: str) -> None:
        if "Authorization" in self.headers:
            raise Refused(400, "Only one auth mechanism allowed")
        if hashlib.sha256(self.body).hexdigest() != oid:
            raise Refused(400, "the content is not what was announced")
        self.hub.store[oid] = self.body
        self._answer(200, b"", {"ETag": f'"{oid}"'})

    def verify(self) -> None:
        asked = json.loads(self.body)
        if len(self.hub.store.get(asked["oid"], b"")) != asked["size"]:
            raise Refused(404, "the object was not uploaded")
        self._json({})

    def commit(self, kind: str, name: str, revision: str) -> None:
        as_request = "create_pr" in self.query
        repository = self._repository(kind, name, write=not as_request)
        if self._namespaces(write=True) is None:
            raise Refused(401, "Invalid username or password.")
        tree = dict(repository.commits[self._revision(repository, revision)])
        title = ""
        for line in self.body.decode().splitlines():
            item = json.loads(line)
            title = item["value"]["summary"] if item["key"] == "header" else title
            apply(item, tree, self.hub.store)
        branch = f"refs/pr/{len(repository.requests) + 1}" if as_request else revision
        oid = repository.commit(tree, title, branch)
        prefix = f"{self.hub.url}/{'datasets/' if kind == 'datasets' else ''}{name}"
        number = branch.rsplit("/", 1)[-1]
        answer = {"success": True, "commitOid": oid, "commitUrl": f"{prefix}/commit/{oid}", "hookOutput": ""}
        self._json(answer | ({"pullRequestUrl": f"{prefix}/discussions/{number}"} if as_request else {}))


_API = r"/api/(?P<kind>models|datasets)/(?P<name>[^/]+(/[^/]+)?)"
_FILES = r"/((?P<kind>datasets)/)?(?P<name>[^/]+(/[^/]+)?)"
_REVISION = r"(?P<revision>refs/[^/]+/[^/]+|[^/]+)"
ROUTES = [
    (r"GET /api/whoami-v2", HubHandler.whoami),
    (r"POST /api/repos/create", HubHandler.create),
    (r"POST /api/validate-yaml", HubHandler.validate),
    (r"POST /api/verify", HubHandler.verify),
    (rf"GET {_API}", HubHandler.info),
    (rf"GET {_API}/revision/{_REVISION}", HubHandler.info),
    (rf"GET {_API}/refs", HubHandler.refs),
    (rf"POST {_API}/branch/(?P<revision>.+)", HubHandler.branch),
    (rf"POST {_API}/tag/{_REVISION}", HubHandler.tag),
    (rf"GET {_API}/tree/{_REVISION}(?P<folder>/.*)?", HubHandler.listing),
    (rf"POST {_API}/paths-info/{_REVISION}", HubHandler.paths_info),
    (rf"POST {_API}/preupload/{_REVISION}", HubHandler.preupload),
    (rf"POST {_API}/commit/{_REVISION}", HubHandler.commit),
    (rf"POST {_FILES}\.git/info/lfs/objects/batch", HubHandler.batch),
    (r"PUT /store/(?P<oid>\w+)", HubHandler.keep),
    (r"(?:GET|HEAD) /store/(?P<oid>\w+)", HubHandler.stored),
    (rf"(?:GET|HEAD) {_FILES}/resolve/{_REVISION}/(?P<path>.+)", HubHandler.resolve),
]
