"""The folder of a session: written completely or not at all, checked when read, used by one process at a time. Loads no
torch.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as load_safetensors
from safetensors.numpy import save as save_safetensors

from fast_jukebox.utils.files import clear_temporary, read_file, write_file
from fast_jukebox.utils.locks import FolderLock, InUseError
from fast_jukebox.utils.text import shown

FORMAT = "fast-jukebox-session"
VERSION = 2
"""Of the folder's layout; a folder of another version is refused."""

MANIFEST = "session.json"
_LOCK = "lock"
_CODES = "codes"
_LEFT_MANIFEST, _LEFT_CODES = ".session.*.tmp.json", ".*.tmp.safetensors"
"""Temporary names of the two kinds of files, see [`~fast_jukebox.utils.files.temporary_path`]."""

MOST_NUMBERS = 2**30
"""Most numbers in a file of codes, where nothing more is known: those of a day at a hop length of 8."""
_HEADER_BYTES = 2**16
"""The largest header of such a file."""
_MANIFEST_BYTES = 2**28

RESCUE = "the codes beside it stand, and `fast-jukebox upsample` plays a file of top codes again"
"""What to do where a manifest is damaged."""

Arrays = dict[str, np.ndarray]
"""Codes by name."""


class SessionError(RuntimeError):
    """A session cannot be read, written or used; says why, and what stands. What was saved before is kept."""


@contextlib.contextmanager
def naming(what: str, path: Path, stands: str = "") -> Iterator[None]:
    """Raise a `SessionError` for an `OSError`, with what cannot be done to which path, why, and what stands."""
    try:
        yield
    except OSError as error:
        raise SessionError(f"cannot {what} {str(path)!r}: {error.strerror or error}{stands}") from error


class SessionStore:
    """Reads and writes one session's folder.

    ```
    session.json      the manifest: the model, the takes, what was asked for; with a checksum
    codes/            safetensors: codes and recordings that takes begin with, and what was sampled of each level of
                      each take
    lock              held by the process that writes; `lock.soft` too where the file system has no locks
    ```

    Every file is written beside its place, brought to the disk and renamed, so that a reader finds the old one or the
    new one, whenever the power goes. Methods raise a `SessionError` where a file or the folder cannot be read or
    written, or is damaged; then what was saved before stands.

    Args:
        folder: may not exist yet.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder).expanduser().absolute()
        self._lock = FolderLock(self.folder / _LOCK)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep others from writing: other threads wait, other processes are refused. A thread may enter again."""
        if not self.folder.is_dir():
            raise SessionError(f"there is no session in {str(self.folder)!r}: there is no such folder")
        with contextlib.ExitStack() as stack:
            with naming("lock", self.folder / _LOCK):
                try:
                    first = stack.enter_context(self._lock.held())
                except InUseError as error:
                    holder = f" ({error})" if str(error) else ""
                    raise SessionError(
                        f"the session {str(self.folder)!r} is in use by another process{holder}; wait until it ends"
                    ) from error
            if first:
                # What killed processes left. Nobody is writing the session's files, as the lock says; what is exported
                # into the folder is written without the lock.
                self._check_codes_folder()
                for path in [*self.folder.glob(_LEFT_MANIFEST), *(self.folder / _CODES).glob(_LEFT_CODES)]:
                    with contextlib.suppress(OSError):
                        path.unlink()
                clear_temporary(self.folder)
            yield

    def check_new(self) -> None:
        """Refuse a folder that a new session cannot have.

        Raises:
            ValueError: there is something in it.
            SessionError: it cannot be looked into.
        """
        with naming("look into", self.folder):
            names = {path.name for path in self.folder.iterdir()} if self.folder.is_dir() else set()
        # What a process left that was killed before it had written the manifest is no session yet.
        ours = (_LOCK, self._lock.soft_path.name, _CODES)
        if not all(name in ours or fnmatch(name, _LEFT_MANIFEST) for name in names):
            raise ValueError(f"`folder` must be new or empty, but there is something in {str(self.folder)!r}")

    def make_folder(self) -> None:
        """Make the folder of a new session."""
        with naming("make the session's folder", self.folder):
            (self.folder / _CODES).mkdir(parents=True, exist_ok=True)

    def read_manifest(self) -> dict[str, object]:
        """The manifest, whose checksum and version are right."""
        path = self.folder / MANIFEST
        content = _read(path, _MANIFEST_BYTES, RESCUE)
        if content is None:
            raise SessionError(f"there is no session in {str(self.folder)!r}: it has no {MANIFEST}")
        try:
            written = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise SessionError(f"{str(path)!r} is damaged: it is no JSON; {RESCUE}") from error
        if not isinstance(written, dict) or written.get("format") != FORMAT:
            raise SessionError(f"{str(path)!r} is damaged, or no session of this package; {RESCUE}")
        if written.get("version") != VERSION:
            raise SessionError(
                f"{str(path)!r} is of version {shown(written.get('version'))}; this package reads version {VERSION}; "
                f"{RESCUE}"
            )
        checksum = written.pop("checksum", None)
        if checksum != _checksum(written):
            raise SessionError(f"{str(path)!r} is damaged: its checksum is not that of what it says; {RESCUE}")
        return written

    def write_manifest(self, body: Mapping[str, object]) -> None:
        """Replace the manifest."""
        written = {"format": FORMAT, "version": VERSION, **body}
        written["checksum"] = _checksum(written)
        self._write(self.folder / MANIFEST, json.dumps(written, indent=1, ensure_ascii=False).encode())

    def write_codes(self, name: str, arrays: Arrays, facts: Mapping[str, object]) -> None:
        """Replace a file of codes.

        Args:
            name: without suffix.
            arrays: integers, or samples of a recording.
            facts: metadata of them, as JSON holds them.
        """
        arrays = {key: np.ascontiguousarray(array) for key, array in arrays.items()}
        text = json.dumps(dict(facts), sort_keys=True)
        metadata = {"format": FORMAT, "version": str(VERSION), "facts": text, "digest": _digest(arrays, text)}
        self._write(self.codes_path(name), save_safetensors(arrays, metadata))

    def read_codes(self, name: str, most: int = MOST_NUMBERS) -> tuple[Arrays, dict[str, object]] | None:
        """A file of codes, or of a recording: its arrays and facts; `None` where there is none.

        Args:
            name: without suffix.
            most: how many numbers it can hold; a larger file is refused before it is read.
        """
        path = self.codes_path(name)
        content = _read(path, 8 * most + _HEADER_BYTES, remedy_for(name))
        if content is None:
            return None
        try:
            return _parse(content, "f" if name.startswith("recording-") else "i")
        except (SafetensorError, ValueError, KeyError, TypeError, RuntimeError, OverflowError) as error:
            raise SessionError(f"{str(path)!r} is damaged; {remedy_for(name)}") from error

    def has_codes(self, name: str) -> bool:
        """True where there is a file of codes of that name."""
        return self.codes_path(name).is_file()

    def codes_path(self, name: str) -> Path:
        """The file of codes of that name, which may not exist."""
        return self.folder / _CODES / f"{name}.safetensors"

    def _write(self, path: Path, content: bytes) -> None:
        self._check_codes_folder()
        with naming("write", path):
            path.parent.mkdir(exist_ok=True)
        write_complete(path, content)

    def _check_codes_folder(self) -> None:
        """Refuse a session whose codes lie elsewhere: somebody else's session must not write where a link leads."""
        folder = self.folder / _CODES
        if folder.is_symlink():
            raise SessionError(
                f"{str(folder)!r} must be a folder of the session's own, got a link to {os.readlink(folder)!r}: "
                "put the folder itself in its place"
            )


def remedy_for(name: str) -> str:
    """What to do where a file of codes is damaged, or another one's."""
    if name.startswith("take-"):
        return "delete it and resume, and the same codes are sampled again"
    return "takes begin with what it held, so bring it back from a copy"


def write_complete(path: Path, content: bytes) -> None:
    """Write a file, completely or not at all."""
    with naming("write", path, "; what was saved before stands"):
        write_file(path, content)


def _read(path: Path, most: int, remedy: str) -> bytes | None:
    """The content of a file; `None` where there is none."""
    with naming("read", path), contextlib.suppress(FileNotFoundError):
        if (size := path.stat().st_size) > most:
            raise SessionError(
                f"{str(path)!r} is damaged: it has {size} bytes, and what belongs there at most {most}; {remedy}"
            )
        return read_file(path, most)
    return None


def _checksum(body: Mapping[str, object]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _digest(arrays: Arrays, facts: str) -> str:
    digest = hashlib.sha256(facts.encode())
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _parse(content: bytes, kind: str) -> tuple[Arrays, dict[str, object]]:
    """Arrays and facts of a file of codes; raises almost anything where it is damaged."""
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    metadata = header["__metadata__"]
    arrays, facts = load_safetensors(content), json.loads(metadata["facts"])
    right = metadata["format"] == FORMAT and metadata["version"] == str(VERSION) and isinstance(facts, dict)
    right = right and all(array.dtype.kind == kind for array in arrays.values())
    if not right or metadata["digest"] != _digest(arrays, metadata["facts"]):
        raise ValueError("another format, type or digest")
    return arrays, facts


def codes_dtype(codebook_size: int) -> type[np.signedinteger]:
    """The smallest type that a file keeps codes in."""
    return np.int16 if codebook_size <= 2**15 else np.int32
