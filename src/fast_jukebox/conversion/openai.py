"""Published Jukebox checkpoints to ours: one file for the VQ-VAE, one for the prior of each level.

The weights' licence is non-commercial; what is converted from them keeps it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from torch import Tensor

from fast_jukebox.conversion.openai_prior import prior_config, prior_tensors
from fast_jukebox.conversion.openai_vqvae import vqvae_config
from fast_jukebox.conversion.parts import Part, prior_part, vqvae_part
from fast_jukebox.conversion.pickles import read_state_dict
from fast_jukebox.conversion.published import MODELS, check_hyperparameters, published_model
from fast_jukebox.conversion.state_dict import strip_prefix
from fast_jukebox.utils.files import JsonObject
from fast_jukebox.utils.text import shown

VQVAE_FILE = "vqvae.pth.tar"
# Where the files that the published models share lie in a folder of all of them.
_SHARED = "5b"


class OpenAICheckpoint:
    """A folder of published files.

    Args:
        source: a folder of the four files, or with `model` also one that has a folder for each model, in which `5b`
            holds what all of them share, as the published code left them.
        model: `"1b_lyrics"`, `"5b"` or `"5b_lyrics"`; found out from the top prior where None.
        hyperparameters: of your own model, under their published names: `{"vqvae": {...}, "priors": [{...},
            ...]}`, bottom first.

    Attributes:
        name: what messages call it.
        parts: the VQ-VAE and the priors, the top prior first.

    Raises:
        OSError: files are missing: names all of them.
        ValueError: a file cannot be read, or a hyperparameter is missing or of the wrong kind.
    """

    def __init__(
        self, source: str | os.PathLike[str], model: str | None = None, hyperparameters: JsonObject | None = None
    ) -> None:
        if model is not None and model not in MODELS:
            published_model(model)  # says what there is
        if model is not None and hyperparameters is not None:
            raise ValueError(f"`model` must be None where `hyperparameters` are given, got {shown(model)}")
        self.name = str(source)
        levels = 3 if hyperparameters is None else len(_checked(hyperparameters)["priors"])
        names = {f"priors.{level}": f"prior_level_{level}.pth.tar" for level in range(levels)}
        self._files = _find({"vqvae": VQVAE_FILE, **names}, Path(source), model)
        self._top = f"priors.{levels - 1}"
        # The top prior is the largest file and identifies the model; it is read first and given away once.
        self._waiting: dict[str, Tensor] | None = None
        if hyperparameters is not None:
            vqvae, priors = dict(hyperparameters["vqvae"]), [dict(prior) for prior in hyperparameters["priors"]]
        else:
            if model is None:
                self._waiting = _read(self._files[self._top])
                model = detect_model(self._waiting)
            vqvae, priors = published_model(model)
        self.model = model
        with _naming("vqvae"):
            codebooks = vqvae_part(vqvae_config(vqvae))
        self.parts: list[Part] = [codebooks]
        for level, prior in enumerate(priors):
            with _naming(f"priors[{level}]"):
                self.parts.insert(0, prior_part(prior_config({"level": level, **prior}, vqvae)))

    def tensors(self, part: Part) -> Mapping[str, Tensor]:
        """A part's tensors under their published names, read when asked for; a `ValueError` names what does not fit."""
        path = self._files[part.name]
        if part.name == self._top and self._waiting is not None:
            state, self._waiting = self._waiting, None
        else:
            state = _read(path)
        try:
            tensors = state if part.name == "vqvae" else prior_tensors(state, part.config)
            part.check(tensors, "state_dict")
        except ValueError as error:
            read_as = "the hyperparameters given; correct them, or fetch the file again"
            if self.model is not None:
                read_as = (
                    f"the published model {shown(self.model)}; name another, or give the hyperparameters of your own"
                )
            raise ValueError(f"`{path}`: {error} (read as {read_as})") from None
        return tensors


@contextlib.contextmanager
def _naming(part: str) -> Iterator[None]:
    """While a part is made of its hyperparameters, whose errors name ours."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"`{part}` of `hyperparameters` must describe a model that there can be: {error}") from error


def _read(path: Path) -> dict[str, Tensor]:
    """The tensors of a file under their published names; a `ValueError` names the file."""
    content = read_state_dict(path)
    try:
        return strip_prefix(content)
    except ValueError as error:
        raise ValueError(f"`{path}`: {error}; fetch it again, or save it without these") from error


def detect_model(top: Mapping[str, Tensor]) -> str:
    """The published model of a top prior, by tensors that distinguish it; shapes are checked later."""
    if any(name.startswith("prime_prior.") for name in top):
        return "5b_lyrics"
    width = MODELS["1b_lyrics"][-1]["prior_width"]
    embedding = top.get("prior.x_emb.weight")
    return "1b_lyrics" if embedding is not None and tuple(embedding.shape[1:]) == (width,) else "5b"


def is_openai_folder(source: str | os.PathLike[str]) -> bool:
    """True for a folder that looks like one of published files."""
    folder = Path(source)
    return any(folder.glob("*.pth.tar")) or any((folder / name).is_dir() for name in MODELS)


def _checked(hyperparameters: JsonObject) -> JsonObject:
    if not isinstance(hyperparameters, Mapping) or set(hyperparameters) != {"vqvae", "priors"}:
        held = sorted(hyperparameters) if isinstance(hyperparameters, Mapping) else type(hyperparameters).__name__
        raise ValueError(f"`hyperparameters` must hold `vqvae` and `priors` and nothing else, got {held}")
    priors = hyperparameters["priors"]
    if not isinstance(priors, Sequence) or isinstance(priors, str) or not priors:
        raise ValueError(f"`priors` of `hyperparameters` must be a list, bottom first, got {shown(priors)}")
    check_hyperparameters("vqvae", hyperparameters["vqvae"])
    for level, prior in enumerate(priors):
        check_hyperparameters(f"priors[{level}]", prior)
        if prior.get("level", level) != level:
            raise ValueError(
                f"`level` of `priors[{level}]` must be {level}, as priors are bottom first, got {prior['level']}"
            )
    return hyperparameters


def _find(names: Mapping[str, str], source: Path, model: str | None) -> dict[str, Path]:
    folders = [source] if model is None else [source, source / model, source / _SHARED]
    found: dict[str, Path] = {}
    missing = []
    for part, name in names.items():
        # The top prior is the model's own, which no other folder may stand in for.
        own = folders[:2] if name == f"prior_level_{len(names) - 2}.pth.tar" else folders
        path = next((folder / name for folder in own if (folder / name).is_file()), None)
        if path is None:
            missing.append(name)
        else:
            found[part] = path
    if missing:
        where = " or ".join(f"`{folder}`" for folder in folders)
        raise FileNotFoundError(f"{where} lacks {', '.join(missing)}; wanted are {', '.join(names.values())}")
    return found
