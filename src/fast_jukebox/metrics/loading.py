"""The package's metrics as modules of the library `evaluate`."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeAlias, TypeVar

from fast_jukebox.evaluation.comparison import compare_sets, comparison_numbers
from fast_jukebox.evaluation.embeddings import EmbeddingSet, embed_songs
from fast_jukebox.evaluation.encoders import load_embedding
from fast_jukebox.utils.text import shown

if TYPE_CHECKING:
    from evaluate import EvaluationModule

FOLDER = Path(__file__).parent

METRICS = (
    *("frechet_audio_distance", "kernel_audio_distance", "tag_divergence"),
    *("clap_score", "emotional_valence", "bits_per_code"),
)
"""Names for [`load`]: the folders beside this file."""

_REFERENCES = "held_against"
"""The argument that metrics which take `references` receive them as, since `evaluate` would want as many as songs."""
Numbers = dict[str, float]
Paths: TypeAlias = "Sequence[str | os.PathLike[str]]"
Module = TypeVar("Module", bound="EvaluationModule")

FAST_JUKEBOX = """@article{fastjukebox2023,
  title  = {Fast Jukebox: Accelerating Music Generation with Knowledge Distillation},
  author = {Pezzat-Morales, Michel and Perez-Meana, Hector and Nakashika, Toru},
  journal = {Applied Sciences}, volume = {13}, number = {9}, pages = {5630}, year = {2023}
}"""
"""Citation of the paper."""

SET_ARGUMENTS = """
Args:
    predictions: paths of sound files that are judged.
    references: paths of sound files that they are held against, of any number; or the path of a file that
        `fast_jukebox.evaluation.embeddings.EmbeddingSet.save` wrote.
    embedding: `musicnn_mtt` by default; see `fast_jukebox.evaluation.encoders.EMBEDDINGS`.
    duration: seconds from the start of each file; all of it by default.
    device: where the embedding computes.
    resamples, seed: of the bootstrap over the predictions.

Returns:
    `{number}_EMBEDDING`, with `_low` and `_high` (the interval of 95 %), `_floor` (what as many of the references get)
    and `_floor_deviation` after it.

Examples:

    >>> import fast_jukebox.metrics
    >>> metric = fast_jukebox.metrics.load("{metric}")
    >>> metric.compute(predictions=["sample.wav"], references=["song-1.flac", "song-2.flac"])  # doctest: +SKIP
"""
"""Arguments and results of the metrics of two sets, for [`described`]."""


def load(name: str, **options: object) -> EvaluationModule:
    """`evaluate.load` of one of the package's metrics, which needs no network.

    Args:
        name: one of [`METRICS`].
        options: of `evaluate.load`, such as `experiment_id`, `cache_dir` or `keep_in_memory`.

    Returns:
        A metric. Its `compute` takes `predictions`, paths of sound files, and by keyword what its docstring says.

    Raises:
        ValueError: another name.
    """
    import evaluate

    if name not in METRICS:
        raise ValueError(f"`name` must be one of {', '.join(METRICS)}, got {shown(name)}")
    return evaluate.load(str(FOLDER / name), module_type="metric", **options)


def described(description: str, citation: str, arguments: str) -> Callable[[type[Module]], type[Module]]:
    """A decorator of a metric of sound files: its docstring, and its description for `evaluate`."""

    def decorate(metric: type[Module]) -> type[Module]:
        import datasets
        import evaluate

        info = evaluate.MetricInfo(
            description=description,
            citation=citation,
            inputs_description=arguments,
            features=datasets.Features({"predictions": datasets.Value("string")}),
        )
        metric.__doc__ = f"{description}\n{arguments}"
        metric._info = lambda self: info
        return metric

    return decorate


class _Computes(Protocol):
    name: str
    _compute: Callable[..., Numbers]

    def compute(self, *, predictions: Sequence[str] | None = None, **kwargs: object) -> Numbers | None: ...


class SoundFiles:
    """Lets `compute` take paths of any kind, and references of another number, both of which `evaluate` refuses."""

    def compute(
        self: _Computes,
        *,
        predictions: Paths | None = None,
        references: Paths | Path | str | None = None,
        **kwargs: object,
    ) -> Numbers | None:
        """Numbers by name; `None` on other processes than the first.

        Raises:
            ValueError: `predictions` is no list of paths, or the metric takes no `references`.
            TypeError: the metric has no such argument.
        """
        if isinstance(predictions, str | os.PathLike):
            raise ValueError(f"`predictions` must be a list of paths, got {os.fspath(predictions)!r} alone")
        paths = None if predictions is None else list(predictions)
        wrong = [path for path in paths or () if not isinstance(path, str | os.PathLike)]
        if wrong:
            raise ValueError(f"`predictions` must be a list of paths, got {shown(wrong[0])} among them")
        taken = signature(self._compute).parameters
        for name in kwargs.keys() - taken.keys():
            known = ", ".join(taken).replace(_REFERENCES, "references")
            raise TypeError(f"`{name}` is no argument of {self.name}, which takes {known}")
        if references is not None:
            if _REFERENCES not in taken:
                raise ValueError(f"`references` must not be given: {self.name} judges the predictions alone")
            kwargs[_REFERENCES] = references
        names = None if paths is None else [os.fspath(path) for path in paths]
        return super().compute(predictions=names, **kwargs)  # type: ignore[misc, safe-super]  # of evaluate.Metric


class SetDistance(SoundFiles):
    """A measure of [`~fast_jukebox.evaluation.comparison.compare_sets`] of two sets of files, see [`SET_ARGUMENTS`]."""

    measure: str

    def _compute(
        self,
        predictions: Sequence[str],
        held_against: Paths | Path | str | None = None,
        embedding: str = "musicnn_mtt",
        duration: float | None = None,
        device: str = "cpu",
        resamples: int = 200,
        seed: int = 0,
    ) -> Numbers:
        wanted = "`references` must be paths of sound files, or one .safetensors file of embeddings"
        network = load_embedding(embedding, device)
        if isinstance(held_against, str | os.PathLike):
            if Path(held_against).is_dir():
                raise ValueError(f"{wanted}, got the folder {os.fspath(held_against)}")
            reference = EmbeddingSet.load(held_against)
        elif held_against is None or len(held_against) == 0:
            raise ValueError(f"{wanted}, got none")
        else:
            reference = embed_songs(network, held_against, duration=duration)
        samples = embed_songs(network, predictions, duration=duration)
        found = compare_sets(samples, reference, measures=(self.measure,), resamples=resamples, seed=seed)
        if not found:
            raise ValueError(f"`embedding` must be one that has tags, such as musicnn_mtt, got {shown(embedding)}")
        return comparison_numbers(found)
