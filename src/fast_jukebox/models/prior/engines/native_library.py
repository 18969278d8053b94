"""The compiled `native.c`: built by the machine's own compiler, and kept in the user's cache.

What lies in the cache is code that every later start runs. So it is loaded only from a folder that nobody but the user
(or the administrator) can write to, from a file that is the user's, and only where its SHA-256 is the one that was
noted when it was built: a file that is cut or empty, as after a power cut or on a full disk, would end the process.
Everything else is built again, in the cache or, where that cannot be, for this process alone.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import logging
import os
import shlex
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from fast_jukebox.models.prior.attention import SlotTables
from fast_jukebox.utils.files import cache_folder, clear_temporary, temporary_path, write_file
from fast_jukebox.utils.text import shown

logger = logging.getLogger(__name__)

SOURCE = Path(__file__).with_name("native.c")
FLAGS = ("-O3", "-std=gnu11", "-shared", "-fPIC", "-fno-math-errno")
NATIVE_FLAG = "-march=native"

PATIENCE = 120.0
"""Seconds that one run of the compiler may take."""


class NativeUnavailable(RuntimeError):
    """There is no compiler, or it failed, or what it made cannot be loaded; says which."""


class Layer(ctypes.Structure):
    """`layer_t` of the source."""

    WEIGHTS = (
        *("norm_1", "norm_1_bias", "qkv", "qkv_bias", "out", "out_bias"),
        *("norm_2", "norm_2_bias", "expand", "expand_bias", "contract", "contract_bias"),
    )
    _fields_ = (
        *((name, ctypes.c_int64) for name in ("visible", "capacity")),
        *((name, ctypes.c_void_p) for name in SlotTables._fields),
        *((name, ctypes.c_void_p) for name in WEIGHTS),
        ("cache", ctypes.c_void_p),
    )


class Prior(ctypes.Structure):
    """`prior_t` of the source."""

    INTEGERS = (
        *("songs", "layers", "width", "heads", "head_dim", "inner", "codes", "length"),
        *("add_after", "do_sample", "top_k", "half"),
    )
    _fields_ = (
        *((name, ctypes.c_int64) for name in INTEGERS),
        *((name, ctypes.c_double) for name in ("residual_scale", "temperature", "top_p")),
        *((name, ctypes.c_void_p) for name in ("embedding", "positions", "conditioning", "head")),
        ("layer", ctypes.POINTER(Layer)),
        ("logits", ctypes.c_void_p),
    )


@functools.cache
def library() -> ctypes.CDLL:
    """The compiled source, built if it was not.

    Raises:
        NativeUnavailable: it could not be built or loaded.
    """
    compiler = _compiler()
    native = _run(*compiler, NATIVE_FLAG, "-dM", "-E", "-x", "c", os.devnull)[0]
    flags = (*FLAGS, NATIVE_FLAG) if native else FLAGS
    # What the compiler knows of the machine is part of the name: a folder may be shared by different ones.
    macros = _run(*compiler, *flags, "-dM", "-E", "-x", "c", os.devnull)[1]
    identity = "\0".join([SOURCE.read_text(encoding="utf-8"), *compiler, *flags, macros])
    name = f"{hashlib.sha256(identity.encode()).hexdigest()[:16]}.so"
    folder = _cache_folder()
    if folder is not None and _is_sound(folder / name):
        with contextlib.suppress(NativeUnavailable):  # then it is built again
            return load(folder / name)
    error = None
    for place in (folder, None) if folder is not None else (None,):
        try:
            with _build_folder(place) as temporary:
                built = _build([*compiler, *flags], temporary / name)
                return load(built if place is None else _keep(built, place / name))
        except NativeUnavailable as failure:  # the disk of that place may be full
            error = failure
        except OSError as failure:
            error = NativeUnavailable(f"there is no room to compile {SOURCE.name}: {failure}")
    raise error or NativeUnavailable(f"{SOURCE.name} could not be built")


@contextlib.contextmanager
def _build_folder(place: Path | None) -> Iterator[Path]:
    """A folder of the user's alone, deleted at the end: in the cache, or without one among the temporary files.

    Raises:
        NativeUnavailable: others could put files among the temporary ones.
    """
    if place is None:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as temporary:
            reason = unsafe(Path(temporary).resolve())
            if reason is not None:
                raise NativeUnavailable(f"it cannot be compiled among the temporary files: {reason}")
            yield Path(temporary)
        return
    clear_temporary(place)
    folder = temporary_path(place / "build")
    folder.mkdir(mode=0o700)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _compiler() -> list[str]:
    """The compiler's command: what `$CC` says, with its options, or the first one that is installed."""
    given = os.environ.get("CC", "").strip()
    try:
        commands = [shlex.split(given)] if given else [["cc"], ["gcc"], ["clang"]]
    except ValueError as error:
        raise NativeUnavailable(f"`$CC` must be a command, got {shown(given)}: {error}") from error
    for decoder, *options in commands:
        found = shutil.which(decoder)
        if found:
            return [found, *options]
    raise NativeUnavailable(f"no C compiler was found (looked for {', '.join(each[0] for each in commands)})")


def _run(*command: str) -> tuple[bool, str]:
    """Whether a command succeeded, and what it said."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=PATIENCE,
        )
    except subprocess.TimeoutExpired as error:
        raise NativeUnavailable(f"{command[0]} did not end within {PATIENCE:g} seconds") from error
    except OSError as error:
        raise NativeUnavailable(f"{command[0]} cannot be run: {error}") from error
    return done.returncode == 0, done.stdout if done.returncode == 0 else done.stderr


def _build(command: list[str], path: Path) -> Path:
    """Compile to `path`.

    Raises:
        NativeUnavailable: the compiler failed.
    """
    good, said = _run(*command, str(SOURCE), "-o", str(path), "-lm")
    if not good:
        raise NativeUnavailable(f"{command[0]} could not compile {SOURCE.name}: {said.strip()[-500:]}")
    if not path.is_file() or not path.stat().st_size:
        raise NativeUnavailable(f"{command[0]} says that it compiled {SOURCE.name}, but made nothing")
    return path


def load(path: Path) -> ctypes.CDLL:
    """A compiled source, ready to be called.

    Raises:
        NativeUnavailable: it is no library, or another one.
    """
    try:
        loaded = ctypes.CDLL(str(path))
        run, scratch_floats, reads_half = loaded.run, loaded.scratch_floats, loaded.reads_half
    except (OSError, AttributeError) as error:
        raise NativeUnavailable(f"{path} could not be loaded: {error}") from error
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    run.argtypes = (
        ctypes.POINTER(Prior),
        *(number, number, number, number),
        *(pointer, pointer, pointer, number, pointer),
    )
    run.restype = None
    scratch_floats.argtypes = (ctypes.POINTER(Prior), number)
    scratch_floats.restype = number
    reads_half.argtypes, reads_half.restype = (), number
    return loaded


# ---- the cache ----


def _cache_folder() -> Path | None:
    """The user's own folder for what was built; None where none can be used, of which one warning is given."""
    folder = cache_folder()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        reason = unsafe(folder.resolve())
        if reason is None and not os.access(folder, os.W_OK | os.X_OK):
            reason = f"this user may not write into {str(folder)!r}"
    except OSError as error:
        reason = str(error)
    if reason is None:
        return folder.resolve()
    logger.warning(
        "the compiled engine is built for this process alone, at every start: %s. $XDG_CACHE_HOME names another folder",
        reason,
    )
    return None


def unsafe(folder: Path) -> str | None:
    """Why somebody else could put files into a folder, or None where nobody but the user and the administrator can.

    As ssh judges the folder of its keys: it and all above it, up to the user's home, must be the user's or the
    administrator's, and writable for nobody else, a group that is the user's own left aside. Above it a folder with the
    sticky bit, as /tmp, will do.

    Args:
        folder: absolute, without symbolic links.
    """
    if os.name != "posix":
        return None
    home = Path(os.path.expanduser("~")).resolve()
    for place in (folder, *folder.parents):
        found = place.stat()
        if found.st_uid not in (0, os.getuid()):
            return f"{str(place)!r} belongs to another user"
        shared = found.st_mode & (stat.S_IWOTH if _is_own_group(found.st_gid) else stat.S_IWOTH | stat.S_IWGRP)
        if shared and (place == folder or not found.st_mode & stat.S_ISVTX):
            return f"others can write into {str(place)!r}, which chmod go-w ends"
        if place == home:
            break
    return None


def _is_own_group(group: int) -> bool:
    """Whether it is the group of this user alone, as many systems make one for each user."""
    import grp
    import pwd

    try:
        found, user = grp.getgrgid(group), pwd.getpwuid(os.getuid())
    except KeyError:
        return False
    return group == user.pw_gid and found.gr_name == user.pw_name and set(found.gr_mem) <= {user.pw_name}


def _is_sound(path: Path) -> bool:
    """Whether a file is the user's own and holds what was built."""
    try:
        found = path.lstat()
        foreign = os.name == "posix" and found.st_uid not in (0, os.getuid())
        if foreign or not stat.S_ISREG(found.st_mode) or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            return False
        return _digest_path(path).read_text(encoding="ascii").strip() == _digest(path.read_bytes())
    except (OSError, ValueError):
        return False


def _keep(built: Path, path: Path) -> Path:
    """Put what was built into the cache, with its digest; where that fails, where it was built."""
    content = built.read_bytes()
    try:
        write_file(_digest_path(path), f"{_digest(content)}\n".encode())
        write_file(path, content, mode=0o700)
    except OSError as error:
        logger.info("the compiled engine is not kept for the next start: %s", error)
        return built
    return path


def _digest_path(path: Path) -> Path:
    return path.with_suffix(".sha256")


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
