"""What the test server keeps: repositories whose commits are whole trees in memory, and the Hub's rules for them."""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

LICENSES = ("apache-2.0", "mit", "cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0", "unknown", "other")


def is_large(path: str) -> bool:
    """Which files the Hub keeps apart from git, going by their names."""
    return path.endswith((".safetensors", ".parquet", ".png", ".flac", ".wav", ".bin"))


class Refused(Exception):
    """An answer other than success."""

    def __init__(self, status: int, message: str, code: str | None = None, body: Any = None) -> None:
        super().__init__(message)
        self.status, self.code, self.body = status, code, body if body is not None else {"error": message}


@dataclass
class Stored:
    """A file of a commit: its content, and whether it is one of the large ones."""

    data: bytes
    large: bool

    @property
    def blob_id(self) -> str:
        content = self.data
        if self.large:  # what git holds is a pointer
            content = f"oid sha256:{self.sha256}\nsize {len(self.data)}\n".encode()
        return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    @property
    def etag(self) -> str:
        return self.sha256 if self.large else self.blob_id

    def listed(self, path: str) -> dict[str, Any]:
        entry: dict[str, Any] = {"type": "file", "path": path, "size": len(self.data), "oid": self.blob_id}
        if self.large:
            entry["lfs"] = {"oid": self.sha256, "size": len(self.data), "pointerSize": 134}
        return entry


@dataclass
class Repository:
    """A repository: its commits, which are whole trees, and the names that point to them."""

    kind: str
    name: str
    private: bool = False
    gated: bool = False
    commits: dict[str, dict[str, Stored]] = field(default_factory=dict)
    titles: dict[str, str] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    requests: dict[str, str] = field(default_factory=dict)

    def commit(self, tree: dict[str, Stored], title: str, branch: str = "main") -> str:
        facts = json.dumps([title, len(self.commits), sorted((path, entry.etag) for path, entry in tree.items())])
        oid = hashlib.sha1(facts.encode()).hexdigest()
        self.commits[oid], self.titles[oid] = tree, title
        self._refs(branch)[branch] = oid
        return oid

    def _refs(self, name: str) -> dict[str, str]:
        return self.requests if name.startswith("refs/pr/") else self.branches

    def resolve(self, revision: str) -> str | None:
        for refs in (self.branches, self.tags, self.requests):
            if revision in refs:
                return refs[revision]
        return revision if revision in self.commits else None

    def tree(self, revision: str = "main") -> dict[str, Stored]:
        return self.commits[self.resolve(revision)]


def listed(tree: dict[str, Stored], folder: str, recursive: bool) -> list[dict[str, Any]]:
    """Entries of a tree below a folder, folders before what is in them."""
    entries: dict[str, dict[str, Any]] = {}
    prefix = f"{folder}/" if folder else ""
    for path, stored in sorted(tree.items()):
        if not path.startswith(prefix):
            continue
        parts = path.removeprefix(prefix).split("/")
        for depth in range(1, len(parts)):
            name = prefix + "/".join(parts[:depth])
            oid = hashlib.sha1(name.encode()).hexdigest()
            if recursive or depth == 1:
                entries.setdefault(name, {"type": "directory", "path": name, "oid": oid, "size": 0})
        if recursive or len(parts) == 1:
            entries[path] = stored.listed(path)
    return list(entries.values())


def apply(item: dict[str, Any], tree: dict[str, Stored], store: dict[str, bytes]) -> None:
    """Apply one line of a commit to a tree."""
    value = item["value"]
    if item["key"] == "file":
        tree[value["path"]] = Stored(base64.b64decode(value["content"]), False)
    elif item["key"] == "lfsFile":
        if value["oid"] not in store:
            raise Refused(400, f"the content of {value['path']} was not uploaded")
        tree[value["path"]] = Stored(store[value["oid"]], True)
    elif item["key"] == "deletedFile":
        if tree.pop(value["path"], None) is None:
            raise Refused(404, "A file with this name doesn't exist", "EntryNotFound")
    elif item["key"] == "deletedFolder":
        for path in [path for path in tree if path.startswith(value["path"])]:
            del tree[path]


def metadata_errors(metadata: Any, kind: str) -> list[str]:
    """What the Hub finds wrong with a card's metadata."""
    if not isinstance(metadata, dict):
        return ["metadata must be a mapping"]
    errors = []
    stated = metadata.get("license")
    if stated is not None and stated not in LICENSES:
        errors.append(f'"license" must be one of [{", ".join(LICENSES)}]')
    for name in ("tags", "datasets"):
        value = metadata.get(name, [])
        if not isinstance(value, list) or not all(isinstance(entry, str) for entry in value):
            errors.append(f'"{name}" must be an array of strings')
    if kind == "model":
        for index, entry in enumerate(metadata.get("model-index") or []):
            if not isinstance(entry.get("name"), str):
                errors.append(f'"model-index[{index}].name" is required')
            for result in entry.get("results", []):
                known = {"task", "dataset", "metrics", "source"}
                if not {"task", "metrics"} <= set(result) <= known or not result["task"].get("type"):
                    errors.append(f'"model-index[{index}].results" is malformed')
    for config in metadata.get("configs") or []:
        if not isinstance(config, dict) or "config_name" not in config or "data_files" not in config:
            errors.append('"configs" is malformed')
    return errors
