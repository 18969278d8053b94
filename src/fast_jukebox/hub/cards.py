"""Cards of models and of data sets, with what was measured; those that somebody else wrote are read within bounds."""

from __future__ import annotations

import math
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, TypeAlias

import yaml
from huggingface_hub import DatasetCard, DatasetCardData, EvalResult, ModelCard, ModelCardData, RepoCard
from huggingface_hub.repocard import REGEX_YAML_BLOCK

from fast_jukebox.utils.files import clear_temporary, read_file, write_file
from fast_jukebox.utils.text import shown

MAX_CARD_BYTES = 2**20
MAX_METADATA_CHARACTERS = 2**17
MAX_BRACKETS = 64


def load_card(path: str | os.PathLike[str], kind: type[RepoCard] = ModelCard, *, strict: bool = True) -> RepoCard:
    """Read a card.

    Args:
        strict: refuse a `model-index` that is not as the Hub wants it; else it is left out.

    Raises:
        ValueError: the file is larger than a card can be or no UTF-8 text, or its metadata is damaged, too long, or
            refers to parts of itself, by which a few bytes can stand for more than the memory holds; names the file.
        OSError: it cannot be read.
    """
    content = read_file(path, MAX_CARD_BYTES)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{os.fspath(path)} must be UTF-8 text, save it as such: {error}") from error
    try:
        _check_metadata(text)
        card = kind(text, ignore_metadata_errors=not strict)
        str(card.data)  # what cannot be written again, as a number of too many digits, cannot be shown either
    except Exception as error:  # those of the parser and of the card's class, which do not name the file
        raise ValueError(
            f"the metadata of {os.fspath(path)}, between its two lines `---`, cannot be read; mend it: "
            f"{' '.join(str(error).split()) or type(error).__name__}"
        ) from error
    return card


def stated_names(card: RepoCard, field: str) -> list[str]:
    """The names that a card states in a field of its metadata: none, one, or a list of them.

    Raises:
        ValueError: they are no names.
    """
    value = getattr(card.data, field, None)
    names = value if isinstance(value, list) else [] if value is None else [value]
    if not all(isinstance(name, str) for name in names):
        raise ValueError(f"`{field}` of the card must be a list of names, got {value!r:.80}")
    return names


def _check_metadata(text: str) -> None:
    """Raise an error unless the metadata is short and without references."""
    found = REGEX_YAML_BLOCK.search(text)
    block = found[2] if found else ""
    if len(block) > MAX_METADATA_CHARACTERS:
        raise ValueError(f"it has {len(block)} characters, more than {MAX_METADATA_CHARACTERS}")
    depth = deepest = 0
    for character in block:  # the parser takes time by the square of how deep brackets are in one another
        depth += (character in "[{") - (character in "]}" and depth > 0)
        deepest = max(deepest, depth)
    if deepest > MAX_BRACKETS:
        raise ValueError(f"it opens {deepest} brackets in one another, more than {MAX_BRACKETS}")
    for event in yaml.parse(block, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            raise ValueError(f"it refers to a part of itself (`*{event.anchor}`), which cards do not need")


LIBRARY_NAME = "fast-jukebox"
PIPELINE_TAG = "text-to-audio"
TAGS = ("fast-jukebox", "music", "music-generation", "raw-audio", "vq-vae", "sparse-transformer")

PICTURE = "spectrograms.png"
"""Name of the picture that a card shows by default."""

Metrics: TypeAlias = Mapping[str, "float | str | Mapping[str, float | str]"]
"""Measured values by name, or by group and name."""

KINDS = ("model", "vqvae", "prior", "valence")
"""Kinds of models, for which the card has an example and limits."""


@dataclass(frozen=True)
class _Task:
    """A kind of model in the Hub's words."""

    pipeline_tag: str
    name: str
    tags: tuple[str, ...]


_MUSIC = _Task(PIPELINE_TAG, "Music generation", TAGS)
_TASKS = {"valence": _Task("audio-classification", "Emotional valence", ("fast-jukebox", "music", "music-emotion"))}


def model_card(
    *,
    name: str,
    description: str,
    training: str,
    metrics: Metrics | None = None,
    license: str,
    datasets: Sequence[str] = (),
    base_model: str | None = None,
    kind: str = "model",
    license_name: str | None = None,
    license_link: str | None = None,
    license_text: str | None = None,
    limits: str | None = None,
    metrics_note: str = "",
    evaluated_on: str = "held-out songs",
    picture: str | None = None,
    picture_caption: str = "mel spectrogram",
    tags: Sequence[str] = (),
    usage: str | None = None,
) -> ModelCard:
    """Make the card of a model.

    Args:
        name: of the model, as `from_pretrained` takes it; the card's title.
        description: of the model, Markdown, as all longer texts.
        training: data, steps, machine and time of the training.
        metrics: by name, or by group and name: `{"bits per code": {"top": 5.1, "middle": 4.2}}`. Finite numbers also go
            into the card's `model-index`; text goes into the table alone.
        license: of the weights, by the Hub's identifier, such as `"apache-2.0"`; `"other"` asks for `license_name` and
            `license_link`.
        datasets: the Hub's names of the training data.
        base_model: the teacher of a student, or the model that was trained further.
        kind: `"model"`, `"vqvae"`, `"prior"` or `"valence"`: picks the example, the task and the limits.
        license_name, license_link: of a license that is `"other"`.
        license_text: the terms of weights and outputs; a sentence by default.
        limits: what it cannot do; that of the kind by default.
        metrics_note: how the metrics were measured.
        evaluated_on: name of the data that the metrics were measured on.
        picture, picture_caption: file name, beside the card, and what it shows.
        tags: in addition to the package's.
        usage: Python that calls the model, in place of the example of `kind`.

    Raises:
        ValueError: no license, an `"other"` one without name or link, or an unknown `kind`.
    """
    if kind not in KINDS:
        raise ValueError(f"`kind` must be one of {', '.join(map(repr, KINDS))}, got {shown(kind)}")
    license = _checked_license(license, license_name, license_link)
    metrics, task = metrics or {}, _TASKS.get(kind, _MUSIC)
    card_data = ModelCardData(
        license=license,
        license_name=license_name,
        license_link=license_link,
        library_name=LIBRARY_NAME,
        pipeline_tag=task.pipeline_tag,
        tags=list(dict.fromkeys([*task.tags, *tags])),
        datasets=list(datasets) or None,
        base_model=base_model,
        model_name=name,
        eval_results=eval_results(metrics, datasets[0] if datasets else "audio", evaluated_on, kind) or None,
    )
    return ModelCard.from_template(
        card_data,
        template_str=card_template("model_card.md"),
        name=name,
        description=description.strip(),
        training=training.strip(),
        kind=kind,
        usage=(usage or "").strip(),
        rows=[(_cell(group), _cell(what), _cell(_formatted(value))) for group, what, value in _flat(metrics)],
        metrics_note=metrics_note.strip(),
        limits=(limits or "").strip(),
        license_text=(license_text or _license_text(license, license_name, license_link, base_model)).strip(),
        picture=picture,
        picture_caption=picture_caption,
    )


def write_model_card(
    directory: str | os.PathLike[str], *, picture: str | os.PathLike[str] | None = None, **kwargs: Any
) -> Path:
    """Write [`model_card`] as `README.md` into a model's directory; return its path.

    Args:
        picture: see [`place_picture`]; by default the directory's `spectrograms.png` where it has one.

    Raises:
        FileNotFoundError: there is no such picture.
        ValueError: what [`model_card`] refuses.
    """
    directory = Path(directory)
    if picture is None and (directory / PICTURE).is_file():
        picture = directory / PICTURE
    card = model_card(picture=None if picture is None else Path(picture).name, **kwargs)
    directory.mkdir(parents=True, exist_ok=True)
    if picture is not None:
        place_picture(directory, picture)
    return save_card(card, directory / "README.md")


def place_picture(directory: Path, picture: str | os.PathLike[str]) -> str:
    """Put a picture into a card's directory, if it is not the name of a file there; returns its name."""
    source, target = Path(picture), directory / Path(picture).name
    is_there = str(source) == target.name and target.exists()
    if not is_there and not (target.exists() and source.exists() and source.samefile(target)):
        shutil.copyfile(source, target)
    return target.name


def save_card(card: RepoCard, path: Path) -> Path:
    """Write a card, completely or not at all; returns its path."""
    clear_temporary(path.parent)
    write_file(path, str(card))
    return path


def eval_results(metrics: Metrics, dataset_type: str, dataset_name: str, kind: str = "model") -> list[EvalResult]:
    """Entries of a card's `model-index`, one for each metric that is a finite number."""
    task = _TASKS.get(kind, _MUSIC)
    return [
        EvalResult(
            task_type=task.pipeline_tag,
            task_name=task.name,
            dataset_type=dataset_type,
            dataset_name=dataset_name,
            metric_type=re.sub(r"[^a-z0-9]+", "_", f"{group} {what}".lower()).strip("_"),
            metric_name=f"{group}, {what}" if what else group,
            metric_value=value,
        )
        for group, what, value in _flat(metrics)
        if isinstance(value, int | float) and math.isfinite(value)
    ]


def require_license(source: str | os.PathLike[str] | RepoCard) -> str:
    """License that a card, or the card in a directory, states.

    A `ValueError` where there is no card, it states no license, or its metadata cannot be read.
    """
    if isinstance(source, RepoCard):
        data = source.data
    else:
        path = Path(source) / "README.md"
        if not path.is_file():
            raise ValueError(f"`license` must be stated by a card before a push, but `{source}` has no README.md")
        try:
            data = load_card(path, RepoCard).data
        except ValueError as error:
            raise ValueError(f"`license` must be stated by the card before a push: {error}") from error
    return _checked_license(data.get("license"), data.get("license_name"), data.get("license_link"))


def dataset_card(
    *,
    name: str,
    description: str,
    license: str,
    splits: Mapping[str, Sequence[str]],
    usage: str,
    table: Mapping[str, str | float] | None = None,
    license_name: str | None = None,
    license_link: str | None = None,
    tags: Sequence[str] = (),
) -> DatasetCard:
    """Make the card of a data set.

    Args:
        name: of the data set, as `load_songs` and `load_codes` take it; the card's title.
        license, license_name, license_link: of the data, see [`model_card`].
        splits: patterns of each split's files.
        usage: Python that loads it.

    Raises:
        ValueError: no license, or an `"other"` one without name or link.
    """
    license = _checked_license(license, license_name, license_link)
    files = [{"split": split, "path": list(patterns)} for split, patterns in splits.items()]
    card_data = DatasetCardData(
        license=license,
        license_name=license_name,
        license_link=license_link,
        pretty_name=name,
        tags=list(dict.fromkeys([LIBRARY_NAME, "music", *tags])),
        task_categories=[PIPELINE_TAG],
        configs=[{"config_name": "default", "data_files": files}],
    )
    return DatasetCard.from_template(
        card_data,
        template_str=card_template("dataset_card.md"),
        name=name,
        description=description.strip(),
        usage=usage.strip(),
        rows=[(_cell(what), _cell(_formatted(value))) for what, value in (table or {}).items()],
        license_text=f"The data are under {_terms(license, license_name, license_link)}.",
    )


def _checked_license(license: str | None, license_name: str | None, license_link: str | None) -> str:
    if not isinstance(license, str) or license.strip() in ("", "unknown"):
        raise ValueError(
            f"`license` must be an identifier such as 'apache-2.0' or 'cc-by-nc-4.0', got {shown(license)}"
        )
    if license == "other" and not (license_name and license_link):
        raise ValueError(
            "`license_name` and `license_link` must be given where `license` is 'other', got "
            f"{license_name!r} and {license_link!r}"
        )
    return license.strip()


def _license_text(license: str, license_name: str | None, license_link: str | None, base_model: str | None) -> str:
    terms = _terms(license, license_name, license_link)
    base = f" They derive from `{base_model}`, whose terms hold as well." if base_model else ""
    return (
        f"The weights are under {terms}; the code of fast-jukebox is under Apache-2.0, which does not extend to them."
        + base
    )


def _terms(license: str, license_name: str | None, license_link: str | None) -> str:
    return f"[{license_name}]({license_link})" if license_name and license_link else f"`{license}`"


def card_template(name: str) -> str:
    """A template of the package."""
    return (resources.files("fast_jukebox") / "templates" / name).read_text(encoding="utf-8")


def _flat(metrics: Metrics) -> Iterator[tuple[str, str, float | str]]:
    for group, value in metrics.items():
        if isinstance(value, Mapping):
            yield from ((group, str(what), number) for what, number in value.items())
        else:
            yield group, "", value


def _formatted(value: float | str) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _cell(text: str) -> str:
    return str(text).replace("|", "\\|").replace("\n", " ")
