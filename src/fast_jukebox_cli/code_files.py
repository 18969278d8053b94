"""Codes of a song from a file: a recording, or a file of codes."""

from __future__ import annotations

import json
import tokenize
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from fast_jukebox.audio import io as audio
from fast_jukebox.conversion.pickles import read_pickle
from fast_jukebox.generation.plan import encode_prompt
from fast_jukebox.models.fast_jukebox import FastJukeboxModel
from fast_jukebox.sampling.engine import sampling_mode
from fast_jukebox.sessions.fingerprint import weights_digest

_PICKLES = (".pt", ".pth", ".tar")
_REMEDY = "bring it back from a copy or write it again"


def top_codes(path: Path, model: FastJukeboxModel) -> Tensor:
    """Top codes int64 (songs, length) of a file; a `ValueError` where there are none of the model's codebook.

    A file may be sound of any kind that is read; or codes: `.safetensors` with a tensor `level_2` (or as the top level
    is numbered), `codes`, or a single one; `.npy`; or a `.pth.tar` of published Jukebox's sampling, of which the entry
    `zs` is read and no code is run.
    """
    if path.suffix.lower() in (".safetensors", ".npy", *_PICKLES):
        return _checked(path, _of_file(path, model)[1], model.vqvae.config.codebook_size)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {str(path)!r}")
    sound = audio.load_audio(path, sampling_rate=model.vqvae.config.sampling_rate)
    with sampling_mode(model):
        return encode_prompt(model.vqvae, sound, None)[-1].cpu().clone()


def all_codes(path: Path, model: FastJukeboxModel) -> list[Tensor | None]:
    """Codes int64 (songs, length) of each level of a file, bottom first, `None` for levels that it does not hold; the
    top level's are there.

    Files are those of [`top_codes`] but sound; a `.safetensors` file with `level_0`, `level_1` and so on, and a
    `.pth.tar` hold all levels, others the top level. Errors as there.
    """
    config = model.vqvae.config
    lower, top = _of_file(path, model)
    levels, count = len(config.hop_lengths), len(lower) + 1
    if count > levels:
        raise ValueError(f"{str(path)!r} must hold codes of at most {levels} levels, got {count}")
    known = [None if own is None else _checked(path, own, config.codebook_size) for own in (*lower, top)]
    return [*[None] * (levels - count), *known]


def _of_file(path: Path, model: FastJukeboxModel) -> tuple[list[Tensor | None], Tensor]:
    """The codes of lower levels and of the top level in a file; not checked."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {str(path)!r}")
    suffix = path.suffix.lower()
    if suffix == ".safetensors":
        return _from_safetensors(path, len(model.vqvae.config.hop_lengths) - 1, weights_digest(model.vqvae))
    if suffix == ".npy":
        return [], _from_numpy(path)
    if suffix in _PICKLES:
        return _from_published(path)
    raise ValueError(f"`codes` must be a file of codes (.safetensors, .npy, .pth.tar), got {str(path)!r}")


def _from_safetensors(path: Path, top: int, codebook: str) -> tuple[list[Tensor | None], Tensor]:
    try:
        with safe_open(path, "pt") as file:
            names, header = list(file.keys()), file.metadata() or {}
            facts = _facts(path, header)
            known = header.get("vqvae") or facts.get("vqvae")
            if known is not None and known != codebook:
                raise ValueError(f"the codes in {str(path)!r} are of another model's codebook")
            if facts.get("level", top) != top:
                raise ValueError(
                    f"{str(path)!r} must hold codes of the top level, {top}, but it is a session's file of level "
                    f"{facts['level']}"
                )
            wanted = [name for name in (f"level_{top}", "codes") if name in names] or (names if len(names) == 1 else [])
            if not wanted:
                raise ValueError(
                    f"{str(path)!r} must hold a tensor `level_{top}` or `codes`, or a single one; it holds "
                    f"{', '.join(names[:8]) or 'none'}"
                )
            lower = [f"level_{level}" for level in range(top)]
            if wanted[0] != f"level_{top}":
                lower = []
            return [file.get_tensor(name) if name in names else None for name in lower], file.get_tensor(wanted[0])
    except SafetensorError as error:
        raise ValueError(f"{str(path)!r} is damaged, {_REMEDY}: {error}") from error


def _facts(path: Path, header: dict[str, str]) -> dict[str, object]:
    """The metadata of a session's file; empty for other files."""
    try:
        facts = json.loads(header.get("facts", "{}"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{str(path)!r} is damaged, {_REMEDY}: {error}") from error
    return facts if isinstance(facts, dict) else {}


def _from_numpy(path: Path) -> Tensor:
    try:
        # Mapped, so that a header that states more than the file holds is refused and not believed.
        found = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, SyntaxError, tokenize.TokenError) as error:  # numpy reads the header as Python
        # What numpy says of objects is how to read them all the same, code included.
        reason = "only numbers are read, and no code is run" if "pickle" in str(error) else error
        raise ValueError(f"{str(path)!r} is damaged, or holds no plain array, {_REMEDY}: {reason}") from error
    if not isinstance(found, np.ndarray) or found.dtype.kind not in "iu":
        raise ValueError(f"{str(path)!r} must hold whole numbers, got {getattr(found, 'dtype', type(found).__name__)}")
    return torch.from_numpy(found.astype(np.int64))


def _from_published(path: Path) -> tuple[list[Tensor | None], Tensor]:
    found = read_pickle(path)
    levels = found.get("zs") if isinstance(found, dict) else None
    if (
        not isinstance(levels, list | tuple)
        or not levels
        or not isinstance(levels[-1], Tensor)
        or not levels[-1].numel()
    ):
        raise ValueError(f"{str(path)!r} must hold `zs`, a list of codes of each level: {_REMEDY}")
    return [own if isinstance(own, Tensor) and own.numel() else None for own in levels[:-1]], levels[-1]


def _checked(path: Path, codes: Tensor, codebook_size: int) -> Tensor:
    if codes.is_floating_point() or codes.is_complex() or codes.dtype == torch.bool:
        raise ValueError(f"{str(path)!r} must hold whole numbers, got {codes.dtype}")
    codes = codes.to("cpu", torch.int64)
    codes = codes.unsqueeze(0) if codes.dim() == 1 else codes
    if codes.dim() != 2 or codes.numel() == 0:
        raise ValueError(f"{str(path)!r} must hold codes (length) or (songs, length), got {tuple(codes.shape)}")
    if int(codes.min()) < 0 or int(codes.max()) >= codebook_size:
        found = f"{int(codes.min())} to {int(codes.max())}"
        raise ValueError(
            f"{str(path)!r} must hold codes from 0 to {codebook_size - 1}, got {found}: name the model that they are "
            f"of, or {_REMEDY}"
        )
    return codes
