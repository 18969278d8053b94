"""Whether the Hub can be reached, found out in seconds: its client tries again for most of a minute."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from huggingface_hub import constants, is_offline_mode
from huggingface_hub.errors import HFValidationError
from huggingface_hub.file_download import repo_folder_name
from huggingface_hub.utils import validate_repo_id

from fast_jukebox.hub.errors import HubError

logger = logging.getLogger(__name__)

_PATIENCE = 3.0
"""Seconds to wait for a connection."""
_VALID_SECONDS = 20.0
"""How long an answer holds, so that the parts of one load ask once."""
_known: dict[str, tuple[float, str | None]] = {}


def why_unreachable() -> str | None:
    """Why no connection to the Hub can be made; `None` where one can, or a proxy stands between."""
    address = urlsplit(constants.ENDPOINT)
    host, port = address.hostname or "", address.port or {"http": 80}.get(address.scheme, 443)
    proxies = getproxies()
    if (address.scheme in proxies or "all" in proxies) and not proxy_bypass(host):
        return None
    asked, reason = _known.get(constants.ENDPOINT, (-_VALID_SECONDS, None))
    if time.monotonic() - asked < _VALID_SECONDS:
        return reason
    reason = None
    try:
        socket.create_connection((host, port), timeout=_PATIENCE).close()
    except OSError as error:
        reason = str(error.strerror or error)
    _known[constants.ENDPOINT] = time.monotonic(), reason
    return reason


def prefer_cache(name: Any, download: Mapping[str, Any], kind: str = "model") -> dict[str, Any]:
    """`download`, with `local_files_only` where the Hub cannot be reached and something of the repository was fetched
    before.

    Args:
        name: of a folder, which is left alone, or a repository.
        download: `cache_dir`, `local_files_only` and their like.
        kind: `"model"` or `"dataset"`.

    Raises:
        HubError: the Hub cannot be reached, and the cache has nothing of the repository.
    """
    found = dict(download)
    if name is None or os.path.isdir(name) or found.get("local_files_only") or is_offline_mode():
        return found
    try:
        validate_repo_id(str(name))
    except HFValidationError:  # reported better by who loads it
        return found
    reason = why_unreachable()
    if reason is None:
        return found
    cache = Path(found.get("cache_dir") or constants.HF_HUB_CACHE)
    if not (cache / repo_folder_name(repo_id=str(name), repo_type=kind)).is_dir():
        raise HubError(
            f"Cannot load the {kind} `{name}`: there is no such folder here, nothing of it is in the cache ({cache}), "
            f"and the connection to {constants.ENDPOINT} failed ({reason}). Check the name and the network, or name a "
            "folder."
        )
    logger.warning(
        "the connection to %s failed (%s): the %s `%s` is taken from the cache", constants.ENDPOINT, reason, kind, name
    )
    return {**found, "local_files_only": True}
