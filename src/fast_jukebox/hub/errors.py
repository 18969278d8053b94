"""What can go wrong between this machine and the Hub, said with what, where and what to do."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

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

_INCOMPLETE = "Consistency check failed"


class HubError(OSError):
    """Something between this machine and the Hub failed; the message names it, the repository, and what to do.

    The cause (`__cause__`) is the client's own error. It is an `OSError`, as transformers' errors of loading are.
    """


@contextmanager
def clear_hub_errors(
    name: Any, revision: str | None = None, *, verb: str = "load", kind: str = "model"
) -> Iterator[None]:
    """Turn the client's errors into [`HubError`]s; every other error passes as it is.

    Args:
        name: of the repository.
        revision: that was asked for.
        verb: what is being done, `"load"` or `"push"`.
        kind: `"model"` or `"dataset"`.

    Raises:
        HubError: in place of an error that came from the Hub's client.
    """
    handled = sys.exc_info()[1]  # what the caller was handling already says nothing of what fails here
    try:
        yield
    except (HubError, ValueError, TypeError):
        raise
    except Exception as error:
        message = _explain(list(_chain(error, handled)), str(name), revision, verb, kind)
        if message is None:
            raise
        raise HubError(message) from error


def _chain(error: BaseException | None, end: BaseException | None) -> Iterator[BaseException]:
    """An error and what it came from, outermost first, up to `end`."""
    seen = {id(end)}
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _explain(errors: list[BaseException], name: str, revision: str | None, verb: str, kind: str) -> str | None:
    """The message for a chain of errors; None if nothing of it came from the Hub's client."""
    where, what = constants.ENDPOINT, f"{kind} `{name}`"
    start = f"Cannot {verb} the {what}"
    at = f"revision {str(revision)!r} of it" if revision else "it"

    def among(*kinds: type[BaseException]) -> BaseException | None:
        return next((error for error in errors if isinstance(error, kinds)), None)

    if among(HFValidationError):
        return f"{start}: there is no such folder here, and a repository's name is such as 'organisation/name'."
    if among(GatedRepoError):
        return (
            f"{start}: its owner grants access on request. Ask for it at {where}/{_path(name, kind)}, then log in with "
            "`hf auth login` or pass `token=`."
        )
    if among(RepositoryNotFoundError, DisabledRepoError):
        if verb == "push":
            return (
                f"{start}: nobody is logged in at {where} who may write to it. Check the name, then log in with "
                "`hf auth login` or pass a `token=` that may write."
            )
        return (
            f"{start}: there is no such folder here, and no such {kind} at {where} that can be seen with this login. "
            "Check the name; if it is private, log in with `hf auth login` or pass `token=`."
        )
    if among(RevisionNotFoundError):
        return (
            f"{start}: it has no revision {str(revision)!r}. `revision` must be a branch, a tag or a whole commit "
            f"hash; {where}/{_path(name, kind)} lists them."
        )
    answer = next((error for error in errors if isinstance(error, HfHubHTTPError)), None)
    if answer is not None and not isinstance(answer, EntryNotFoundError):
        return f"{start}: {_answered(answer, where)}"
    broken = next((error for error in errors if _is_transport(error)), None)
    if broken is not None:
        return (
            f"{start}: the connection to {where} failed ({str(broken) or type(broken).__name__}). Nothing incomplete "
            "is used. Check the network and try again: what arrived whole is kept."
        )
    if among(OfflineModeIsEnabled, LocalEntryNotFoundError):
        if verb == "push":
            return f"{start}: this machine is offline by HF_HUB_OFFLINE. Unset it to push."
        return (
            f"{start}: {at} is not, or not wholly, in the cache ({constants.HF_HUB_CACHE} unless `cache_dir` is "
            "given), and HF_HUB_OFFLINE or `local_files_only` forbids to fetch it. Load it once with the network."
        )
    missing = among(EntryNotFoundError)
    return None if missing is None else f"{start}: a file of it is not there. {str(missing).strip().splitlines()[-1]}"


def _answered(error: HfHubHTTPError, where: str) -> str:
    """What an HTTP error other than "not found" means."""
    status = getattr(error.response, "status_code", None)
    said = (getattr(error, "server_message", None) or str(error)).strip().splitlines()
    reason = f"{where} answered {status}" + (f" ({said[-1]})" if said else "")
    if status == 401:
        return f"{reason}. Log in with `hf auth login` or pass a valid `token=`."
    if status == 403:
        return f"{reason}. The token must have the right to do this; make one at {where}/settings/tokens."
    if status == 429:
        return f"{reason}: too many requests. Wait a few minutes and try again; who is logged in may ask more often."
    if status is not None and status >= 500:
        return f"{reason}: the fault is on its side. Try again later; what arrived whole is kept."
    return f"{reason}."


def _is_transport(error: BaseException) -> bool:
    """Whether a connection failed: by the HTTP library's name for it, as the client changes its library."""
    of_client = any(
        base.__name__ == "TransportError" and base.__module__.startswith("httpx") for base in type(error).__mro__
    )
    offline = isinstance(error, OfflineModeIsEnabled)
    return of_client or (isinstance(error, ConnectionError) and not offline) or str(error).startswith(_INCOMPLETE)


def _path(name: str, kind: str) -> str:
    return f"datasets/{name}" if kind == "dataset" else name
