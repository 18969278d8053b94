"""Errors of the Hub's client as messages that name the repository and a remedy."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from huggingface_hub import constants
from huggingface_hub.errors import (
    DisabledRepoError,
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from fast_jukebox.utils.text import printable, shown

_LONGEST_NAME = 1000
"""Characters of a repository's name, or a folder's, that an error quotes."""
_LOG_IN = "log in with `hf auth login` or pass `token=`"


class HubError(OSError):
    """Access to the Hub failed; the message names the cause, the repository, and a remedy.

    The cause (`__cause__`) is the client's own error. It is an `OSError`, as transformers' errors of loading are.
    """


@contextmanager
def clear_hub_errors(
    name: object, revision: object = None, *, verb: str = "load", kind: str = "model"
) -> Iterator[None]:
    """Turn the client's errors into [`HubError`]s; every other error passes as it is.

    Raises:
        HubError: in place of an error that came from the Hub's client.
    """
    handled = sys.exc_info()[1]  # what the caller was handling before is no cause
    try:
        yield
    except (HubError, ValueError, TypeError):
        raise
    except Exception as error:
        reason = _reason(list(_chain(error, handled)), str(name), revision, verb == "push", kind)
        if reason is None:
            raise
        raise HubError(f"Cannot {verb} the {kind} `{printable(str(name), _LONGEST_NAME)}`: {reason}") from error


def _chain(error: BaseException | None, end: BaseException | None) -> Iterator[BaseException]:
    """An error and what it came from, outermost first, up to `end`."""
    seen = {id(end)}
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _reason(errors: list[BaseException], name: str, revision: object, push: bool, kind: str) -> str | None:
    """The cause and the remedy for a chain of errors; None if none of them came from the Hub's client."""
    where = constants.ENDPOINT
    page = f"{where}/datasets/{name}" if kind == "dataset" else f"{where}/{name}"

    def has(*kinds: type[BaseException]) -> bool:
        return any(isinstance(error, kinds) for error in errors)

    if has(HFValidationError):
        return "there is no such folder here, and a repository's name is such as 'organisation/name'."
    if has(GatedRepoError):
        return f"its owner grants access on request. Ask for it at {page}, then {_LOG_IN}."
    if has(RepositoryNotFoundError, DisabledRepoError):
        if push:
            return f"nobody is logged in at {where} who may write to it. Check the name, then {_LOG_IN}."
        return (
            f"there is no such folder here, and no such {kind} at {where} that can be seen with this login. "
            f"Check the name; if it is private, {_LOG_IN}."
        )
    if has(RevisionNotFoundError):
        return (
            f"it has no revision {shown(revision)}. `revision` must be a branch, a tag or a complete commit hash; "
            f"{page} lists them."
        )
    for error in errors:
        if isinstance(error, HfHubHTTPError) and not isinstance(error, EntryNotFoundError):
            return _answer(error, where)
    for error in errors:
        if _is_transport(error):
            return (
                f"the connection to {where} failed ({str(error) or type(error).__name__}). Nothing incomplete is used, "
                "and complete files are kept. Check the network and try again."
            )
    if has(OfflineModeIsEnabled, LocalEntryNotFoundError):
        if push:
            return "this machine is offline by HF_HUB_OFFLINE. Unset it to push."
        return (
            f"{f'revision {shown(revision)} of it' if revision else 'it'} is not, or not completely, in the cache "
            f"({constants.HF_HUB_CACHE} unless `cache_dir` is given), and HF_HUB_OFFLINE or `local_files_only` forbids "
            "to fetch it. Load it once with the network."
        )
    missing = next((error for error in errors if isinstance(error, EntryNotFoundError)), None)
    return None if missing is None else f"a file of it is not there. {str(missing).strip().splitlines()[-1]}"


def _answer(error: HfHubHTTPError, where: str) -> str:
    """An HTTP error other than "not found", and its remedy."""
    status = getattr(error.response, "status_code", None) or 0
    lines = (getattr(error, "server_message", None) or str(error)).strip().splitlines()
    remedy = {
        401: "Log in with `hf auth login` or pass a valid `token=`.",
        403: f"The token must have the right to do this; make one at {where}/settings/tokens.",
        429: "These are too many requests. Wait a few minutes and try again.",
        500: "The fault is on its side. Try again later.",
    }.get(min(status, 500), "")
    return f"{where} answered {status}{f' ({lines[-1]})' if lines else ''}. {remedy}".rstrip()


def _is_transport(error: BaseException) -> bool:
    """True for a failed connection, by the name that the HTTP library has for it, as the client changes its library."""
    of_client = any(
        base.__name__ == "TransportError" and base.__module__.startswith("httpx") for base in type(error).__mro__
    )
    offline = isinstance(error, OfflineModeIsEnabled)
    incomplete = str(error).startswith("Consistency check failed")
    return of_client or (isinstance(error, ConnectionError) and not offline) or incomplete
