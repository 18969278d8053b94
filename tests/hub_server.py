"""A server on this machine in the Hub's place, on which tests push and load with the real client.

Repositories live in memory, `HubServer.fail` orders faults, `HubServer.requests` tells what was asked.
"""

from __future__ import annotations

import re
import threading
import time
from dataclasses import dataclass, field
from http.server import ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hub_api import HubHandler
from hub_store import Repository, Stored, is_large


@dataclass
class Fault:
    """What goes wrong with requests whose method and path match, `times` times."""

    method: str
    path: str
    times: int
    status: int | None = None
    break_after: int | None = None
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Request:
    """What a client asked for."""

    method: str
    path: str
    headers: dict[str, str]


class HubServer:
    """The server; `url` is the endpoint to point the client at.

    Args:
        users: the namespaces that each token may write to, the user's own first; a token that may write nothing has
            its name in `readers`.
        readers: tokens that may only read, with their user's namespaces.
    """

    def __init__(self, users: dict[str, list[str]], readers: dict[str, list[str]] | None = None) -> None:
        self.users, self.readers = users, readers or {}
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.store: dict[str, bytes] = {}
        self.requests: list[Request] = []
        self.faults: list[Fault] = []
        self.lock = threading.RLock()
        handler = type("Handler", (HubHandler,), {"hub": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.server.daemon_threads = True
        self.port = self.server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        # The same server under another name, as the Hub's large files are served by another host.
        self.store_url = f"http://localhost:{self.port}"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    def __enter__(self) -> HubServer:
        self.thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def repository(self, name: str, kind: str = "model") -> Repository:
        return self.repositories[kind, name]

    def files(self, name: str, revision: str = "main", kind: str = "model") -> dict[str, bytes]:
        """Contents by path."""
        return {path: entry.data for path, entry in self.repository(name, kind).tree(revision).items()}

    def put(self, name: str, files: dict[str, bytes], kind: str = "model", **facts: Any) -> str:
        """Make a repository with these files, or commit them to it, without a client; returns the commit."""
        with self.lock:
            repository = self.repositories.get((kind, name)) or self.create(kind, name, **facts)
            tree = dict(repository.tree())
            tree.update({path: Stored(data, is_large(path)) for path, data in files.items()})
            return repository.commit(tree, "Put")

    def create(self, kind: str, name: str, **facts: Any) -> Repository:
        repository = Repository(kind, name, **facts)
        repository.commit({".gitattributes": Stored(b"*.safetensors filter=lfs\n", False)}, "initial commit")
        self.repositories[kind, name] = repository
        return repository

    def fail(self, method: str, path: str, times: int = 1, **what: Any) -> None:
        """Order a fault for requests of `method` whose path matches the regular expression `path`.

        `status=500` answers so, with `headers` where given; `break_after=n` drops the connection after n bytes of the
        answer's body, or of a sent body where the method is PUT.
        """
        self.faults.append(Fault(method, path, times, **what))

    def record(self, method: str, path: str, headers: dict[str, str]) -> Fault | None:
        """Keep in mind what is asked; the fault that is ordered for it."""
        with self.lock:
            self.requests.append(Request(method, path, headers))
            for fault in self.faults:
                if fault.times and fault.method == method and re.search(fault.path, path):
                    fault.times -= 1
                    return fault
        return None

    def asked(self, path: str, method: str = "GET") -> list[Request]:
        """Requests so far whose path matches."""
        return [request for request in self.requests if request.method == method and re.search(path, request.path)]


def point_client_at(url: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the Hub's client, transformers and datasets, in this process, use a server and an empty cache.

    They read HF_ENDPOINT, HF_HOME and their like once, when they are imported, so that tests change the copies.
    """
    import datasets.config
    import transformers.utils.hub
    from huggingface_hub import close_session, constants, file_download, hf_api
    from huggingface_hub.utils import _http

    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache / "hub"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(cache / "token"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hf_api.api, "endpoint", url)
    monkeypatch.setattr(transformers.utils.hub, "_hf_api", None)
    monkeypatch.setattr(datasets.config, "HF_ENDPOINT", url)
    monkeypatch.setattr(datasets.config, "HUB_DATASETS_URL", url + "/datasets/{repo_id}/resolve/{revision}/{path}")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", cache / "datasets")
    monkeypatch.setattr(datasets.config, "HF_UPDATE_DOWNLOAD_COUNTS", False)
    monkeypatch.setattr(datasets.config, "USE_PARQUET_EXPORT", False)
    # The client waits a second and more before it tries again.
    hasty = SimpleNamespace(**{**vars(time), "sleep": lambda seconds: None})
    monkeypatch.setattr(_http, "time", hasty)
    monkeypatch.setattr(file_download, "time", hasty)
    close_session()
