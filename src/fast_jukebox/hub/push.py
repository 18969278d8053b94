"""Pushes to the Hub: one commit with a card that states a licence, or nothing at all."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, TypedDict

from huggingface_hub import (
    CommitOperation,
    CommitOperationAdd,
    CommitOperationDelete,
    DatasetCard,
    HfApi,
    ModelCard,
    RepoCard,
    constants,
)
from huggingface_hub.utils import get_session, hf_raise_for_status

from fast_jukebox.hub.cards import LIBRARY_NAME, require_license
from fast_jukebox.hub.errors import clear_hub_errors

if TYPE_CHECKING:
    from transformers import PreTrainedModel
    from typing_extensions import Unpack

CARD = "README.md"
WEIGHTS = re.compile(r"model(-\d{5}-of-\d{5})?\.safetensors(\.index\.json)?")
"""Weights as `save_pretrained` names them, in one file or in shards."""
_SENT_SUFFIXES = (".safetensors", ".json", ".png", ".wav", ".flac")
# What trainers leave in a model's folder and no model needs.
_LOGS = re.compile(r"trainer_state\.json|\w+_results\.json")


class PushOptions(TypedDict, total=False):
    """Options of every push.

    Attributes:
        private: make a new repository private.
        token: of the Hub; the one logged in with by default.
        revision: branch to push to, made from the default branch where it does not exist.
        commit_message: of the commit; says what is uploaded by default.
        commit_description: of the commit.
        create_pr: propose the commit as a pull request instead.
    """

    private: bool | None
    token: str | bool | None
    revision: str | None
    commit_message: str | None
    commit_description: str | None
    create_pr: bool


def push_folder(directory: str | os.PathLike[str], repo_id: str, **options: Unpack[PushOptions]) -> str:
    """Push a directory that holds a model and its card.

    Sent are the configuration, weights, card, licence, pictures and sound that lie in the directory itself; no code, no
    pickles, no checkpoints. Weights of an earlier push that these do not replace are deleted in the same commit.

    Args:
        directory: as `save_pretrained` and [`write_model_card`] left it.
        repo_id: `"organisation/name"`; made where it does not exist.

    Returns:
        Address of the commit, or of the pull request.

    Raises:
        ValueError: the directory has no card, its card no license, or the Hub refuses the card's metadata.
        HubError: no connection, no right to write.
    """
    require_license(directory)
    files = {path.name: path for path in sorted(Path(directory).iterdir()) if path.is_file() and _is_sent(path.name)}
    # Old weights must go: one file would win over newer shards when the model is loaded.
    options.setdefault("commit_message", "Upload model")
    return push_files(files, repo_id, replaces=WEIGHTS, **options)


def push_model(
    model: PreTrainedModel,
    repo_id: str,
    card: RepoCard,
    *,
    pictures: Iterable[str | os.PathLike[str]] = (),
    save_arguments: Mapping[str, object] | None = None,
    **options: Unpack[PushOptions],
) -> str:
    """Push a model with its card; returns and raises as [`push_folder`].

    Args:
        model: anything with `save_pretrained`.
        pictures: files to send along, such as the one that the card shows.
        save_arguments: of `save_pretrained`, such as `max_shard_size`.
    """
    require_license(card)
    with TemporaryDirectory() as directory:
        model.save_pretrained(directory, **(save_arguments or {}))
        card.save(Path(directory) / CARD)
        for picture in pictures:
            shutil.copy(picture, directory)
        return push_folder(directory, repo_id, **options)


def check_metadata(card: RepoCard, kind: str = "model") -> None:
    """Let the Hub check the metadata of a card; a `ValueError` states what it says is wrong.

    `RepoCard.validate` of huggingface_hub up to 2.0 asks huggingface.co, also where $HF_ENDPOINT names another Hub.
    """
    response = get_session().post(
        f"{constants.ENDPOINT}/api/validate-yaml",
        json={"repoType": kind, "content": str(card)},
        headers={"Accept": "text/plain"},
    )
    if response.status_code == 400:
        raise ValueError(response.text)
    hf_raise_for_status(response)


def push_files(
    files: Mapping[str, str | os.PathLike[str] | bytes],
    repo_id: str,
    *,
    kind: str = "model",
    replaces: re.Pattern[str] | None = None,
    private: bool | None = None,
    token: str | bool | None = None,
    revision: str | None = None,
    commit_message: str | None = None,
    commit_description: str | None = None,
    create_pr: bool = False,
) -> str:
    """Push files in one commit; other arguments are those of [`PushOptions`].

    Args:
        files: paths or contents by name in the repository; one is the card, `README.md`.
        repo_id: `"organisation/name"`; made where it does not exist.
        kind: `"model"` or `"dataset"`.
        replaces: the repository's files of such names that are not among `files` are deleted.

    Returns:
        Address of the commit, or of the pull request.

    Raises:
        ValueError: there is no card, it states no license, or the Hub refuses its metadata: before anything is sent.
        HubError: no connection, no right to write. What was sent is in no commit then.
    """
    if CARD not in files:
        raise ValueError(f"`files` must hold the card, {CARD}, got {sorted(files)}")
    content = files[CARD]
    text = content.decode() if isinstance(content, bytes) else Path(content).read_text(encoding="utf-8")
    card: RepoCard = (DatasetCard if kind == "dataset" else ModelCard)(text)
    require_license(card)
    with clear_hub_errors(repo_id, revision, verb="push", kind=kind):
        try:
            check_metadata(card, kind)  # before there is a repository
        except ValueError as error:
            raise ValueError(f"the metadata of the card ({CARD}) is refused by the Hub, which says: {error}") from error
        api = HfApi(token=token, library_name=LIBRARY_NAME)
        repo_id = api.create_repo(repo_id, private=private, repo_type=kind, exist_ok=True).repo_id
        if revision is not None and not create_pr and not revision.startswith("refs/pr/"):
            api.create_branch(repo_id, branch=revision, repo_type=kind, exist_ok=True)
        operations: list[CommitOperation] = [
            CommitOperationAdd(path_in_repo=name, path_or_fileobj=data if isinstance(data, bytes) else os.fspath(data))
            for name, data in files.items()
        ]
        if replaces is not None:
            there = api.list_repo_files(repo_id, revision=None if create_pr else revision, repo_type=kind)
            old = [name for name in there if replaces.fullmatch(name) and name not in files]
            operations += [CommitOperationDelete(path_in_repo=name) for name in old]
        commit = api.create_commit(
            repo_id,
            operations,
            commit_message=commit_message or "Upload files",
            commit_description=commit_description,
            repo_type=kind,
            revision=revision,
            create_pr=create_pr,
        )
    return commit.pr_url or commit.commit_url


def _is_sent(name: str) -> bool:
    if name == CARD or name.upper().startswith("LICENSE"):
        return True
    return name.endswith(_SENT_SUFFIXES) and not name.startswith(".") and not _LOGS.fullmatch(name)
