"""`push_to_hub` of models and configurations, with a card that states a licence."""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub import RepoCard, hf_hub_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from safetensors import SafetensorError
from torch import nn
from transformers import PreTrainedConfig

from fast_jukebox.hub.cards import card_template, load_card, model_card, require_license, stated_names
from fast_jukebox.hub.errors import clear_hub_errors
from fast_jukebox.hub.push import CARD, WEIGHTS, PushOptions, push_folder, push_model
from fast_jukebox.sampling.weights import adapter_settings
from fast_jukebox.utils.files import replacing_files
from fast_jukebox.utils.text import shown

if TYPE_CHECKING:
    from typing_extensions import Unpack

_KINDS = {
    "fast_jukebox": "model",
    "fast_jukebox_vqvae": "vqvae",
    "fast_jukebox_prior": "prior",
    "fast_jukebox_valence": "valence",
}
# Arguments of `save_pretrained` that are about the push it may end with.
_PUSH_ARGUMENTS = ("card", "license", "tags", *PushOptions.__annotations__)


class HubPushMixin:
    """Base class, to stand first, that replaces transformers' `push_to_hub`, whose card states no licence."""

    def push_to_hub(
        self,
        repo_id: str,
        *,
        card: RepoCard | None = None,
        license: str | None = None,
        max_shard_size: int | str | None = None,
        tags: list[str] | None = None,
        **options: Unpack[PushOptions],
    ) -> str:
        """Save and push in one commit, with a card that states the licence.

        Args:
            repo_id: `"organisation/name"`; made where it does not exist.
            card: as [`~fast_jukebox.hub.model_card`] makes it; it says more than the one made of `license`.
            license: of the weights, by the Hub's identifier, for a short card. With neither, the card that the
                repository has is kept, if it states a licence.
            max_shard_size: of a file of weights, such as `"1GB"`, which is the default of complete models.
            tags: to add to the card's.
            options: `commit_message`, `private`, `token` and others, see [`~fast_jukebox.hub.push.PushOptions`].

        Returns:
            Address of the commit, or of the pull request.

        Raises:
            ValueError: no licence is stated, or the Hub refuses the card's metadata: before anything is sent.
            HubError: no connection, no right to write.
        """
        card = _card_to_push(self, repo_id, card, license, tags, options.get("token"), options.get("revision"))
        kind = "config" if isinstance(self, PreTrainedConfig) else "model"
        options["commit_message"] = options.get("commit_message") or f"Upload {kind}"
        sizes = {} if max_shard_size is None else {"max_shard_size": max_shard_size}
        return push_model(self, repo_id, card, save_arguments=sizes, **options)

    def save_pretrained(
        self, save_directory: str | os.PathLike[str], *args: object, push_to_hub: bool = False, **kwargs: Any
    ) -> object:
        """Save as transformers does; with `push_to_hub=True` push as [`push_to_hub`] does, whose arguments it takes.

        The files replace an older model's all at once, or not at all, whenever the process is killed. The repository is
        `repo_id`, by default the directory's name; the card is left in the directory.

        Raises:
            ValueError: the model has layers with adapters of peft, which no model like it could read.
        """
        if isinstance(self, nn.Module) and adapter_settings(self):
            raise ValueError(
                f"a {type(self).__name__} with adapters cannot be saved as one without: merge them "
                "(`merge_and_unload()`), or save them alone (`fast_jukebox.models.adapters.save_adapter`)"
            )
        is_pushed = push_to_hub and kwargs.get("is_main_process", True)
        if is_pushed:
            repo_id = kwargs.pop("repo_id", None) or Path(save_directory).absolute().name
            push = {name: kwargs.pop(name) for name in _PUSH_ARGUMENTS if name in kwargs}
            given = (push.pop("card", None), push.pop("license", None), push.pop("tags", None))
            card = _card_to_push(self, repo_id, *given, push.get("token"), push.get("revision"))
        try:
            with replacing_files(save_directory, WEIGHTS) as temporary:
                saved = super().save_pretrained(temporary, *args, **kwargs)  # type: ignore[misc]
        except SafetensorError as error:  # of a disk that is full or fails, and names no file
            raise OSError(f"`{save_directory}` could not be written, what stood there stands: {error}") from error
        if is_pushed:
            card.save(Path(save_directory) / CARD)
            push_folder(save_directory, repo_id, **{name: value for name, value in push.items() if value is not None})
        return saved


def _card_to_push(
    model: HubPushMixin,
    repo_id: str,
    card: RepoCard | None,
    license: str | None,
    tags: Sequence[str] | None,
    token: bool | str | None,
    revision: str | None,
) -> RepoCard:
    """The card given, one made of a licence, or the repository's, with more tags; a `ValueError` without a licence."""
    if card is not None and license is not None:
        raise ValueError(f"`license` must be stated by the `card` where one is given, got {shown(license)} as well")
    if license is not None:
        config: PreTrainedConfig = model if isinstance(model, PreTrainedConfig) else model.config  # type: ignore[attr-defined]
        card = model_card(
            name=repo_id,
            description=describe_config(config),
            training="Nothing was recorded of the training.",
            license=license,
            kind=_KINDS.get(config.model_type, "model"),
        )
    card = card or _card_of_repository(repo_id, token, revision)
    if card is None:
        raise ValueError(
            "`license` must name the weights' license before a push, such as 'apache-2.0' or 'cc-by-nc-4.0', or `card` "
            f"must state it (fast_jukebox.hub.model_card makes one); got neither, and `{repo_id}` has no card yet"
        )
    require_license(card)
    more = [*(getattr(model, "model_tags", None) or []), *([tags] if isinstance(tags, str) else tags or [])]
    if more:
        card = copy.deepcopy(card)
        stated = stated_names(card, "tags")
        setattr(card.data, "tags", list(dict.fromkeys([*stated, *more])))  # noqa: B010  # no field of every kind of card
    return card


def _card_of_repository(repo_id: str, token: bool | str | None, revision: str | None) -> RepoCard | None:
    with clear_hub_errors(repo_id, revision, verb="push"):
        try:
            return load_card(hf_hub_download(repo_id, CARD, token=token, revision=revision))
        except LocalEntryNotFoundError:  # no answer says nothing of the card
            raise
        except RevisionNotFoundError:  # a branch that this push makes begins with the card of the default branch
            return None if revision is None else _card_of_repository(repo_id, token, None)
        except (EntryNotFoundError, RepositoryNotFoundError):
            return None


def describe_config(config: PreTrainedConfig) -> str:
    """A sentence for the card of a model with this configuration."""
    from jinja2 import Template

    return Template(card_template("description.md")).render(config=config)
