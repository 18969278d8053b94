"""A quick test of the connection to the Hub, whose client tries again for most of a minute."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypedDict, cast
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from huggingface_hub import constants, is_offline_mode
from huggingface_hub.errors import HFValidationError
from huggingface_hub.file_download import repo_folder_name
from huggingface_hub.utils import validate_repo_id

from fast_jukebox.hub.errors import HubError
from fast_jukebox.utils.files import check_folder

logger = logging.getLogger(__name__)

_TIMEOUT = 3.0
"""Seconds to wait for a connection."""
_VALID_SECONDS = 20.0
"""Time in which an answer is reused, so that the parts of one load ask once."""
_known: dict[str, tuple[float, str | None]] = {}


class Download(TypedDict, total=False):
    """Arguments of `from_pretrained` that say where files are, not what is made of them."""

    cache_dir: str | os.PathLike[str]
    force_download: bool
    proxies: dict[str, str]
    token: str | bool
    revision: str
    local_files_only: bool
    subfolder: str


def download_arguments(arguments: Mapping[str, object]) -> Download:
    """Those of `from_pretrained`'s arguments that say where files are."""
    given = {key: arguments[key] for key in Download.__annotations__ if arguments.get(key) is not None}
    return cast(Download, given)


def why_unreachable() -> str | None:
    """Reason why no connection to the Hub can be made; `None` where one can, or where there is a proxy."""
    endpoint = constants.ENDPOINT
    address = urlsplit(endpoint)
    proxies = getproxies()
    if (address.scheme in proxies or "all" in proxies) and not proxy_bypass(address.hostname or ""):
        return None
    if endpoint not in _known or time.monotonic() - _known[endpoint][0] >= _VALID_SECONDS:
        reason = None
        port = address.port or {"http": 80}.get(address.scheme, 443)
        try:
            socket.create_connection((address.hostname or "", port), timeout=_TIMEOUT).close()
        except OSError as error:
            reason = str(error.strerror or error)
        _known[endpoint] = time.monotonic(), reason
    return _known[endpoint][1]


def prefer_cache(name: object, download: Mapping[str, Any], kind: str = "model") -> dict[str, Any]:
    """`download`, with `local_files_only` where the Hub cannot be reached and something of the repository is cached.

    Args:
        name: of a folder, which is left alone, or a repository; None is left alone.

    Raises:
        HubError: the Hub cannot be reached, or must not be asked, and the cache has nothing of the repository.
        PermissionError: it is a folder that may not be read.
    """
    options = dict(download)
    if name is not None:
        check_folder(str(name))
    if name is None or os.path.isdir(str(name)):
        return options
    try:
        validate_repo_id(str(name))
    except HFValidationError:  # reported better by who loads it
        return options
    forbidden = bool(options.get("local_files_only")) or is_offline_mode()
    reason = None if forbidden else why_unreachable()
    if reason is None and not forbidden:
        return options
    cache = Path(options.get("cache_dir") or constants.HF_HUB_CACHE)
    failed = f"the connection to {constants.ENDPOINT} failed ({reason})"
    if not (cache / repo_folder_name(repo_id=str(name), repo_type=kind)).is_dir():
        if forbidden:
            raise HubError(
                f"Cannot load the {kind} `{name}`: it is not, or not completely, in the cache ({cache}), and "
                "HF_HUB_OFFLINE or `local_files_only` forbids to fetch it. Load it once with the network, or name a "
                "folder that exists."
            )
        raise HubError(
            f"Cannot load the {kind} `{name}`: there is no such folder here, nothing of it is in the cache ({cache}), "
            f"and {failed}. Check the name and the network, or name a folder."
        )
    if forbidden:
        return options
    logger.warning("%s: the %s `%s` is taken from the cache", failed, kind, name)
    return {**options, "local_files_only": True}
